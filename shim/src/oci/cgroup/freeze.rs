//! Freezing and thawing.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    os::fd::AsFd as _,
    path::Path,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Cgroup, read, write};
use crate::oci::error::{Error, Step as _};

/// How long all processes may take to freeze. One in an uninterruptible wait for a dead disk never does.
const LIMIT: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Freezes all processes; an error leaves them running.
    pub(crate) fn freeze(&self) -> Result<(), Error> {
        let frozen = match self.v2_directory() {
            Some(directory) => freeze_v2(directory, true),
            None => self.freeze_v1(),
        };
        if frozen.is_err() {
            let _ = self.thaw();
        }
        frozen
    }

    /// Lets all processes go on.
    pub(crate) fn thaw(&self) -> Result<(), Error> {
        match (self.v2_directory(), self.controller("freezer")) {
            (Some(directory), _) => freeze_v2(directory, false),
            (None, Some(directory)) => write(directory, "freezer.state", "THAWED"),
            (None, None) => Ok(()),
        }
    }

    /// All processes are frozen or about to be: one that joins would stop in the middle of its way.
    pub(crate) fn is_frozen(&self) -> bool {
        match (self.v2_directory(), self.controller("freezer")) {
            (Some(directory), _) => read(directory, "cgroup.freeze").is_some_and(|text| text.trim() == "1"),
            (None, Some(directory)) => read(directory, "freezer.state").is_some_and(|text| text.trim() != "THAWED"),
            (None, None) => false,
        }
    }

    /// v1 tells nobody when all are frozen: reading the state is what makes the kernel look again.
    fn freeze_v1(&self) -> Result<(), Error> {
        let Some(directory) = self.controller("freezer") else {
            return Err(Error::Unsupported("this machine has no freezer cgroup controller".into()));
        };
        let start = Instant::now();
        write(directory, "freezer.state", "FROZEN")?;
        let mut pause = 20_000;
        while read(directory, "freezer.state").is_none_or(|text| text.trim() != "FROZEN") {
            if start.elapsed() > LIMIT {
                return Err(Error::step("freezing the container", "a process cannot be frozen"));
            }
            wait(&mut [], pause);
            pause = (pause * 2).min(10_000_000);
        }
        Ok(())
    }
}

fn freeze_v2(directory: &Path, frozen: bool) -> Result<(), Error> {
    let value = u8::from(frozen);
    write(directory, "cgroup.freeze", value)?;
    wait_for(directory, "frozen", value, LIMIT)
}

/// Waits until a key of `cgroup.events` has a value; the kernel says when the file changes.
pub(super) fn wait_for(directory: &Path, key: &str, value: u8, limit: Duration) -> Result<(), Error> {
    let what = || format!("waiting for {key} {value} in {}", directory.display());
    let start = Instant::now();
    let mut file = File::open(directory.join("cgroup.events")).step(what)?;
    let wanted = format!("{key} {value}");
    loop {
        let mut text = String::new();
        file.rewind().step(what)?;
        file.read_to_string(&mut text).step(what)?;
        if text.lines().any(|line| line == wanted) {
            return Ok(());
        }
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(Error::step(what(), "it did not come about"));
        }
        wait(&mut [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::PRI)], left.as_nanos() as i64);
    }
}

/// Waits for events, or as long.
pub(super) fn wait(fds: &mut [PollFd<'_>], nanoseconds: i64) {
    let limit = Timespec { tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000 };
    // A signal ends the wait early; callers look again anyway.
    let _ = poll(fds, Some(&limit));
}
