//! A descriptor that wakes who waits for it.

use std::{io, os::fd::OwnedFd, rc::Rc};

use tokio::io::{Interest, unix::AsyncFd};

/// Watches a descriptor, which from now on never blocks.
pub(crate) fn watched(fd: OwnedFd, interest: Interest) -> io::Result<Rc<AsyncFd<OwnedFd>>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    // SAFETY: an owned descriptor stays open, and the same, as long as its owner lives, which the watcher is.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    watched.map(Rc::new).map_err(Into::into)
}
