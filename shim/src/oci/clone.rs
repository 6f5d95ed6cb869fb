//! clone3(2): a child in new namespaces and, on cgroup v2, born into its cgroup.

use std::{
    convert::Infallible,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::error::{Error, Step as _};

/// libc's constant of this name is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What a child is born with.
#[derive(Debug, Default)]
pub(crate) struct Birth<'a> {
    /// `CLONE_NEW*`, `CLONE_PARENT`.
    pub(crate) flags: i32,
    /// A cgroup v2 directory.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// A child.
#[derive(Debug)]
pub(crate) struct Born {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// Makes a child that runs `body` and nothing else. It is a copy of this process, so `body` sees everything as it is now.
///
/// The caller must be single-threaded: then no lock is held by anybody who does not exist in the child, and `body` may
/// allocate. Should `body` panic, the child ends: it must never return into its parent's code.
pub(crate) fn spawn(birth: &Birth<'_>, body: impl FnOnce() -> Infallible) -> Result<Born, Error> {
    // SAFETY: clone_args is plain numbers, for which zero means "not used".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    let mut pidfd = -1;
    arguments.flags = (birth.flags | libc::CLONE_PIDFD) as u32 as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    // With CLONE_PARENT the parent's own is used and must not be given.
    if birth.flags & libc::CLONE_PARENT == 0 {
        arguments.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = birth.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the arguments are valid for the length given; without CLONE_VM the child has its own copy of the memory, so
    // it may go on as a forked child does.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    match pid {
        0 => {
            let _ = catch_unwind(AssertUnwindSafe(body));
            exit(70)
        }
        // SAFETY: the kernel just installed the descriptor for us alone.
        pid if pid > 0 => Ok(Born { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
        _ => Err(std::io::Error::last_os_error()).step(|| "making a process in new namespaces"),
    }
}

/// Ends a child at once, without running what the parent registered for its own end.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: _exit does not return and touches nothing of ours.
    unsafe { libc::_exit(code) }
}

/// Gives every signal its default again: what the shim handles or ignores is none of the container's business, and
/// ignored signals would stay ignored through execve.
pub(crate) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: setting a default disposition is always sound; for the two signals where it is refused, nothing happens.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an empty set is made by sigemptyset and read by sigprocmask.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}
