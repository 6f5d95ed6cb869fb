//! Hearing that a log was written to, made, or rotated.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};

/// Watches the directory of a log: then the file itself may come and go.
#[derive(Debug)]
pub(super) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    pub(super) fn of(log: &Path) -> Result<Self> {
        let directory = log.parent().unwrap_or(Path::new("/"));
        let failed = |source| Error::Io { what: "cannot watch", path: directory.into(), source };
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|e| failed(e.into()))?;
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM;
        inotify::add_watch(&fd, directory, flags).map_err(|e| failed(e.into()))?;
        // SAFETY: an owned descriptor stays open, and the same, for as long as it is held.
        let fd = unsafe { AsyncFd::register(fd) };
        Ok(Self(fd.map_err(|e| failed(e.into()))?))
    }

    /// Answers when something changed since it was last asked.
    pub(super) async fn changed(&mut self) -> Result<()> {
        loop {
            let failed = |source| Error::Io { what: "cannot watch", path: "the log's directory".into(), source };
            let mut ready = self.0.readable().await.map_err(failed)?;
            let drained = ready.try_io(|fd| {
                let mut any = false;
                // What exactly happened does not matter: the reader looks for itself.
                loop {
                    match rustix::io::read(fd.get_ref(), &mut [0u8; 4096]) {
                        Ok(_) => any = true,
                        Err(rustix::io::Errno::AGAIN) if any => return Ok(()),
                        Err(error) => return Err(io::Error::from(error)),
                    }
                }
            });
            match drained {
                // The guard's readiness is cleared only by a would-block, which ends the loop above.
                Ok(result) => return result.map_err(failed),
                Err(_) => continue,
            }
        }
    }
}
