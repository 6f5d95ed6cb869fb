//! Starting a shim: the cheap way (`posix_spawn`, which neither copies page tables nor runs code of ours in the child),
//! with exactly the descriptors that the contract in `berth_core::bundle` names.

use std::{
    ffi::{CStr, CString},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use berth_core::bundle::{NETNS_FD, SHIM_SOCKET_FD};
use tokio::io::{Interest, unix::AsyncFd};

/// What a shim is started with.
pub(super) struct Launch<'a> {
    /// The binary.
    pub(super) program: &'a CStr,
    pub(super) arguments: &'a [&'a str],
    /// Its working directory.
    pub(super) directory: &'a CStr,
    /// Standard output and error.
    pub(super) log: BorrowedFd<'a>,
    /// The listening socket; not for `delete`.
    pub(super) socket: Option<BorrowedFd<'a>>,
    /// The container's network namespace.
    pub(super) netns: Option<BorrowedFd<'a>>,
}

impl Launch<'_> {
    /// Starts the shim in a session of its own. It is reaped by a task of ours if it ends while we live; nothing else
    /// ties it to us.
    pub(super) fn spawn(&self) -> io::Result<Child> {
        let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
        // Above what is written to in the child, so that no copy overwrites the source of the next.
        let high = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 10).map_err(io::Error::from);
        let socket = self.socket.map(high).transpose()?;
        let netns = self.netns.map(high).transpose()?;
        let log = high(self.log)?;
        let null = high(null.as_fd())?;
        let mut actions = Actions::new()?;
        actions.chdir(self.directory)?;
        actions.dup2(&null, 0)?;
        actions.dup2(&log, 1)?;
        actions.dup2(&log, 2)?;
        if let Some(socket) = &socket {
            actions.dup2(socket, SHIM_SOCKET_FD)?;
        }
        if let Some(netns) = &netns {
            actions.dup2(netns, NETNS_FD)?;
        }
        let attributes = Attributes::new()?;
        let strings: Vec<CString> =
            self.arguments.iter().map(|a| CString::new(*a)).collect::<Result<_, _>>().map_err(io::Error::other)?;
        let arguments: Vec<*mut libc::c_char> =
            strings.iter().map(|s| s.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect();
        // The low-level runtimes that a shim may drive are found in PATH.
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        let environment = CString::new(format!("PATH={path}")).map_err(io::Error::other)?;
        let environment = [environment.as_ptr().cast_mut(), ptr::null_mut()];
        let mut pid = 0;
        // SAFETY: every pointer is to something that lives until the call is over, both lists end in null, actions and
        // attributes are initialised.
        let failed = unsafe {
            libc::posix_spawn(
                &mut pid,
                self.program.as_ptr(),
                &actions.0,
                &attributes.0,
                arguments.as_ptr(),
                environment.as_ptr(),
            )
        };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        Child::new(pid)
    }
}

/// A shim that is a child of this process.
#[derive(Debug)]
pub(super) struct Child {
    pid: i32,
    pidfd: AsyncFd<OwnedFd>,
}

impl Child {
    fn new(pid: i32) -> io::Result<Self> {
        // SAFETY: the child is not reaped yet, so the pid is its own; the call takes a number and flags.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave this descriptor to us alone.
        let pidfd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        // SAFETY: an `OwnedFd` stays the same open descriptor until it is dropped.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(io::Error::other)?;
        Ok(Self { pid, pidfd })
    }

    /// Waits for its end and reaps it.
    pub(super) async fn wait(self) -> io::Result<i32> {
        let _ = self.pidfd.readable().await?;
        let mut status = 0;
        // SAFETY: the pid is a child of ours that nobody else reaps; status is a valid place for the answer.
        let reaped = unsafe { libc::waitpid(self.pid, &mut status, 0) };
        if reaped < 0 { Err(io::Error::last_os_error()) } else { Ok(status) }
    }

    /// What kills it, also while somebody waits for it.
    pub(super) fn killer(&self) -> io::Result<Killer> {
        self.pidfd.get_ref().try_clone().map(Killer)
    }
}

/// See [`Child::killer`].
#[derive(Debug)]
pub(super) struct Killer(OwnedFd);

impl Killer {
    pub(super) fn kill(&self) {
        // SAFETY: the descriptor is a pidfd of ours; no information is passed.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), libc::SIGKILL, 0, 0) };
    }
}

fn check(failed: libc::c_int) -> io::Result<()> {
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the place is for exactly this; it counts as initialised only where the call succeeded.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: the call above succeeded.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    fn dup2(&mut self, from: &OwnedFd, to: i32) -> io::Result<()> {
        // SAFETY: the actions are initialised; numbers are copied.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, from.as_raw_fd(), to) })
    }

    fn chdir(&mut self, directory: &CStr) -> io::Result<()> {
        // SAFETY: the actions are initialised; the path is copied.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&mut self.0, directory.as_ptr()) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised, and used by nobody any more.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    /// A new session, no signal blocked, and those that Rust ignores as they are by default.
    fn new() -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the place is for exactly this; it counts as initialised only where the call succeeded.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: the call above succeeded.
        let mut attributes = Self(unsafe { attributes.assume_init() });
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF | i32::from(libc::POSIX_SPAWN_SETSID);
        let mut set = MaybeUninit::uninit();
        // SAFETY: sets and attributes are initialised before they are read; all is copied.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            check(libc::posix_spawnattr_setsigmask(&mut attributes.0, set.as_ptr()))?;
            libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
            check(libc::posix_spawnattr_setsigdefault(&mut attributes.0, set.as_ptr()))?;
            check(libc::posix_spawnattr_setflags(&mut attributes.0, flags as libc::c_short))?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised, and used by nobody any more.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}
