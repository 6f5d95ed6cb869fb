//! Sockets of another network namespace: a socket belongs for ever to the one in which it was made.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use nix::sched::{CloneFlags, setns};

/// Makes something in a network namespace. The shim has one thread, so nothing else happens meanwhile.
pub(super) fn within<T>(netns: BorrowedFd<'_>, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let own = File::open("/proc/thread-self/ns/net")?;
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    let made = make();
    if let Err(error) = setns(own.as_fd(), CloneFlags::CLONE_NEWNET) {
        // It would ask the host's name servers from inside the container. Another shim cannot take over, but the exit is
        // found by the runtime service all the same.
        crate::note::note!("coming back from the container's network namespace: {error}");
        std::process::abort();
    }
    made
}
