//! Being told when the OOM killer strikes.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    fs::inotify,
};

use super::{Cgroup, read, write};
use crate::oci::error::{Error, Step as _};

/// Becomes readable when something about memory happened in the cgroup. Then [`OomEvents::take`] says whether somebody
/// was killed for it.
#[derive(Debug)]
pub struct OomEvents {
    fd: OwnedFd,
    directory: PathBuf,
    file: &'static str,
    seen: u64,
    /// v1 wants this open as long as events are wanted.
    _control: Option<File>,
}

impl AsFd for OomEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl OomEvents {
    /// How many processes the OOM killer took since it was last asked. Does not block.
    pub fn take(&mut self) -> u64 {
        // What comes is only a wake-up; the counter says the truth.
        while rustix::io::read(&self.fd, &mut [0; 512]).is_ok() {}
        let now = kills(&self.directory, self.file);
        let new = now.saturating_sub(self.seen);
        self.seen = self.seen.max(now);
        new
    }
}

fn kills(directory: &std::path::Path, file: &str) -> u64 {
    let text = read(directory, file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

impl Cgroup {
    /// How many processes the OOM killer has taken in this cgroup, ever.
    pub fn oom_kills(&self) -> u64 {
        match (self.v2_directory(), self.controller("memory")) {
            (Some(directory), _) => kills(directory, "memory.events"),
            (None, Some(directory)) => kills(directory, "memory.oom_control"),
            (None, None) => 0,
        }
    }

    pub(crate) fn oom_events(&self) -> Result<OomEvents, Error> {
        let what = || "watching for the OOM killer";
        if let Some(directory) = self.v2_directory() {
            let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).step(what)?;
            inotify::add_watch(&fd, directory.join("memory.events"), inotify::WatchFlags::MODIFY).step(what)?;
            let seen = kills(directory, "memory.events");
            return Ok(OomEvents { fd, directory: directory.into(), file: "memory.events", seen, _control: None });
        }
        let directory = self
            .controller("memory")
            .ok_or_else(|| Error::Unsupported("this machine has no memory cgroup controller".into()))?;
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).step(what)?;
        let control = File::open(directory.join("memory.oom_control")).step(what)?;
        let (event, watched) = (std::os::fd::AsRawFd::as_raw_fd(&fd), std::os::fd::AsRawFd::as_raw_fd(&control));
        write(directory, "cgroup.event_control", format!("{event} {watched}"))?;
        let seen = kills(directory, "memory.oom_control");
        Ok(OomEvents { fd, directory: directory.into(), file: "memory.oom_control", seen, _control: Some(control) })
    }
}
