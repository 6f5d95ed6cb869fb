//! What is written down about a container in its bundle, so that it can be removed by somebody who did not make it: the
//! shim that made it may have died at any line.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    binary,
    cgroup::Cgroup,
    error::{Error, Step as _},
    hooks::{self, Moment},
};

/// Name of the file in the bundle.
const FILE: &str = "oci.json";

/// The record. Written before anything is made, and again when the first process exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) id: String,
    pub(crate) cgroup: Cgroup,
    /// The first process and when it started, in the kernel's ticks: a pid alone may be somebody else's by now.
    pub(crate) init: Option<(u32, u64)>,
    /// The binary that made the container, and where it keeps its own state.
    pub(crate) binary: Option<(PathBuf, PathBuf)>,
}

impl State {
    pub(crate) fn write(&self, bundle: &Path) -> Result<(), Error> {
        berth_core::bundle::write(bundle, FILE, self).step(|| "recording the container")
    }
}

/// When a process started, in ticks since the machine did; `None` where there is no such process.
pub fn started_at(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Removes the record.
pub(crate) fn forget(bundle: &Path) -> Result<(), Error> {
    match fs::remove_file(bundle.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).step(|| "forgetting the container"),
        _ => Ok(()),
    }
}

/// Removes what is left of a bundle's container: its processes, its cgroups, another runtime's state. Knows the bundle
/// alone, and may be called again; nothing there is nothing to do.
pub fn remove(bundle: &Path) -> Result<(), Error> {
    let state: Option<State> = berth_core::bundle::read(bundle, FILE).step(|| "reading the container's record")?;
    let Some(state) = state else { return Ok(()) };
    if let Some((runtime, root)) = &state.binary {
        binary::remove(runtime, root, &state.id)?;
    }
    if let Some((pid, started)) = state.init
        && started_at(pid) == Some(started)
    {
        kill(pid, started);
    }
    state.cgroup.kill_all()?;
    state.cgroup.remove()?;
    if state.binary.is_none()
        && let Ok(Some(spec)) = berth_core::bundle::read(bundle, berth_core::bundle::CONFIG)
    {
        // A hook that fails after the end changes nothing about the end.
        let _ = hooks::run(&spec, Moment::Poststop, &state.id, bundle, 0);
    }
    forget(bundle)
}

/// Kills the process that had this pid and started then, and waits for its end; nobody else's process is touched.
pub fn kill(pid: u32, started: u64) {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let Some(Ok(pidfd)) = Pid::from_raw(pid as i32).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return };
    // Asked again: now that it is open it cannot become another.
    if started_at(pid) == Some(started) && pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
        let gone = rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN);
        let _ = rustix::event::poll(&mut [gone], Some(&KILLED));
    }
}

/// A killed process is gone within this time, unless the kernel is stuck.
const KILLED: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
