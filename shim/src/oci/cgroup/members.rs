//! Who lives in the cgroup, and how they and it go.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    process::{PidfdFlags, pidfd_open},
};

use super::{Cgroup, freeze, read, write};
use crate::oci::error::{Error, Step as _};

/// How long killed processes may take to go.
const LIMIT: Duration = Duration::from_secs(10);

impl Cgroup {
    /// The directory that is asked who lives here.
    fn roll(&self) -> Option<&Path> {
        // The freezer counts first: what was not seen there could not be stopped.
        self.controller("freezer").or(self.v1.first().map(|h| h.path.as_path())).or(self.v2.as_deref())
    }

    /// All processes, here and in cgroups beneath.
    pub(crate) fn pids(&self) -> Result<Vec<u32>, Error> {
        let mut pids = Vec::new();
        if let Some(directory) = self.roll() {
            collect(directory, &mut pids).step(|| format!("listing the processes of {}", directory.display()))?;
        }
        Ok(pids)
    }

    /// Sends a signal to every process.
    pub(crate) fn signal(&self, number: i32) -> Result<(), Error> {
        if number == libc::SIGKILL
            && let Some(directory) = self.v2_directory()
            && directory.join("cgroup.kill").exists()
        {
            return write(directory, "cgroup.kill", 1);
        }
        for pid in self.pids()? {
            // Whoever has gone meanwhile needs no signal.
            // SAFETY: the call takes its arguments by value.
            unsafe { libc::kill(pid as i32, number) };
        }
        Ok(())
    }

    /// Kills everybody and waits until nobody is left. Frozen first where that is quick, so that nobody escapes by forking.
    pub(crate) fn kill_all(&self) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            let pids = self.pids()?;
            if pids.is_empty() {
                return Ok(());
            }
            let watched: Vec<_> = pids
                .iter()
                .filter_map(|pid| rustix::process::Pid::from_raw(*pid as i32))
                .filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
                .collect();
            self.signal(libc::SIGKILL)?;
            self.thaw()?;
            for pidfd in &watched {
                let left = LIMIT.saturating_sub(start.elapsed());
                if left.is_zero() {
                    return Err(Error::step("killing the container's processes", "some do not end"));
                }
                freeze::wait(&mut [PollFd::new(pidfd, PollFlags::IN)], left.as_nanos() as i64);
            }
            if watched.is_empty() {
                freeze::wait(&mut [], 1_000_000);
            }
        }
    }

    /// Removes the directories, those beneath as well. Nobody must live in them.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        if let Some(directory) = self.v2.as_deref().filter(|directory| directory.exists()) {
            // One process leaves all hierarchies at once, and only this one says when.
            freeze::wait_for(directory, "populated", 0, LIMIT)?;
        }
        for directory in self.directories() {
            remove(directory)?;
        }
        Ok(())
    }
}

fn collect(directory: &Path, pids: &mut Vec<u32>) -> io::Result<()> {
    match fs::read_to_string(directory.join("cgroup.procs")) {
        // 0 stands for a process that this pid namespace does not see.
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) => {
            return Ok(());
        }
        // A threaded cgroup has no processes of its own.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(error) => return Err(error),
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), pids)?;
        }
    }
    Ok(())
}

fn remove(directory: &Path) -> Result<(), Error> {
    let start = Instant::now();
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && start.elapsed() < LIMIT => {
                // Cgroups beneath, made by the container itself.
                for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        remove(&entry.path())?;
                    }
                }
                // A process that ended a moment ago may not have left yet. v1 tells nobody when it has.
                if read(directory, "cgroup.procs").is_some_and(|text| !text.trim().is_empty()) {
                    return Err(error).step(|| format!("removing {}", directory.display()));
                }
                freeze::wait(&mut [], 200_000);
            }
            Err(error) => return Err(error).step(|| format!("removing {}", directory.display())),
        }
    }
}
