//! clone3(2): a child in new namespaces and, on cgroup v2, born into its cgroup.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::unistd::Pid;

use super::error::{Error, Step as _};

/// What a child is born with.
#[derive(Debug, Default)]
pub(crate) struct Birth<'a> {
    /// `CLONE_NEW*`, `CLONE_PARENT`.
    pub(crate) flags: u64,
    /// A cgroup v2 directory.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// Makes a child that runs `body` and nothing else. It is a copy of this process, so `body` sees everything as it is now.
///
/// The caller must be single-threaded: then no lock is held by anybody who does not exist in the child, and `body` may
/// allocate.
pub(crate) fn spawn(birth: &Birth<'_>, body: impl FnOnce() -> std::convert::Infallible) -> Result<Pid, Error> {
    // SAFETY: clone_args is plain numbers, for which zero means "not used".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = birth.flags;
    // With CLONE_PARENT the parent's own is used and must not be given.
    if birth.flags & libc::CLONE_PARENT as u64 == 0 {
        arguments.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = birth.cgroup {
        arguments.flags |= libc::CLONE_INTO_CGROUP as u64;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the arguments are valid for the length given; without CLONE_VM the child has its own copy of the memory, so
    // it may go on as a forked child does.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match pid {
        0 => match body() {},
        pid if pid > 0 => Ok(Pid::from_raw(pid as i32)),
        _ => Err(std::io::Error::last_os_error()).step(|| "making a process in new namespaces"),
    }
}

/// Ends a child at once, without running what the parent registered for its own end.
pub(crate) fn exit(code: i32) -> std::convert::Infallible {
    // SAFETY: _exit does not return and touches nothing of ours.
    unsafe { libc::_exit(code) }
}
