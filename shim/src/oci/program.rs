//! The last steps of every process, the container's first and those that join it: who it is, where it stands, what it
//! executes.

use std::{
    ffi::{CString, OsStr},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use oci_spec::runtime::{LinuxPersonalityDomain, Process, Spec};
use rustix::io::Errno;

use super::{
    Stdio,
    channel::Child,
    credentials, diagnose,
    error::{Error, Step as _},
    mount::{Root, beneath::Missing},
    seccomp::Program,
    terminal,
    user::{self, Identity},
};

/// A process that is ready to be executed.
#[derive(Debug)]
pub(crate) struct Prepared {
    name: String,
    path: std::path::PathBuf,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

/// Gives the process its three streams, where it has no terminal.
pub(crate) fn streams(stdio: &Stdio) -> Result<(), Error> {
    if let Stdio::Streams { stdin, stdout, stderr } = stdio {
        // Away from 0–2 first: one of them might be another's target.
        let away = |fd: &std::os::fd::OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).step(|| "setting up the streams");
        let stdin = match stdin {
            Some(stdin) => away(stdin)?,
            None => std::fs::File::open("/dev/null").step(|| "opening /dev/null")?.into(),
        };
        let (stdout, stderr) = (away(stdout)?, away(stderr)?);
        for (number, fd) in [(0, &stdin), (1, &stdout), (2, &stderr)] {
            terminal::duplicate(fd, number)?;
        }
    }
    Ok(())
}

/// From a child in its namespaces and in its root to a process of which only the program is missing. Nothing after this
/// has any privilege but the process's own.
pub(crate) fn prepare(
    spec: &Spec,
    process: &Process,
    root: &Root,
    seccomp: Option<&Program>,
    missing: Cwd,
    channel: &Child,
) -> Result<Prepared, Error> {
    let identity = identity(spec, process, root)?;
    let mut environment: Vec<String> = process.env().clone().unwrap_or_default();
    if !environment.iter().any(|variable| variable.starts_with("HOME=")) {
        let home = identity.home.clone().or_else(|| user::home(root, identity.uid));
        environment.push(format!("HOME={}", home.as_deref().unwrap_or("/")));
    }
    personality(spec)?;
    scheduling(process)?;
    credentials::limits(process.rlimits().as_ref(), channel)?;
    own_streams(identity.uid);
    stand_in(process.cwd(), root, missing)?;
    credentials::assume(process, &identity, seccomp, channel)?;

    let arguments = process.args().as_deref().unwrap_or_default();
    let name = arguments.first().cloned().unwrap_or_default();
    let path = environment.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
    let path = diagnose::find(&name, path)?;
    let strings = |texts: &[String]| -> Result<Vec<CString>, Error> {
        let one = |text: &String| {
            CString::new(text.as_str()).map_err(|_| Error::Spec("an argument or variable holds a zero byte".into()))
        };
        texts.iter().map(one).collect()
    };
    Ok(Prepared { path, arguments: strings(arguments)?, environment: strings(&environment)?, name })
}

impl Prepared {
    /// Becomes the program; returns only when that fails.
    pub(crate) fn execute(&self) -> Error {
        let path = match CString::new(self.path.as_os_str().as_bytes()) {
            Ok(path) => path,
            Err(_) => return Error::Spec("the program's path holds a zero byte".into()),
        };
        match nix::unistd::execve(&path, &self.arguments, &self.environment) {
            Ok(never) => match never {},
            Err(error) => diagnose::not_started(&self.name, &self.path, &error.into()),
        }
    }
}

fn identity(spec: &Spec, process: &Process, root: &Root) -> Result<Identity, Error> {
    let user = process.user();
    let mut identity = match user.username().as_deref().filter(|name| !name.is_empty()) {
        Some(name) => user::look_up(root, name, &user::asked_groups(spec))?,
        None => Identity { uid: user.uid(), gid: user.gid(), ..Identity::default() },
    };
    for gid in user.additional_gids().iter().flatten() {
        if !identity.groups.contains(gid) {
            identity.groups.push(*gid);
        }
    }
    Ok(identity)
}

fn personality(spec: &Spec) -> Result<(), Error> {
    let Some(personality) = spec.linux().as_ref().and_then(|linux| linux.personality().as_ref()) else { return Ok(()) };
    let domain = match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    };
    // SAFETY: the call takes its argument by value.
    if unsafe { libc::personality(domain) } < 0 {
        return Err(std::io::Error::last_os_error()).step(|| "setting the personality");
    }
    Ok(())
}

fn scheduling(process: &Process) -> Result<(), Error> {
    use oci_spec::runtime::{IOPriorityClass, LinuxSchedulerPolicy};
    if let Some(priority) = process.io_priority() {
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let value = class << 13 | priority.priority() as libc::c_int;
        // SAFETY: the call takes its arguments by value; 1 and 0 mean this process.
        if unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, value) } < 0 {
            return Err(std::io::Error::last_os_error()).step(|| "setting the I/O priority");
        }
    }
    if let Some(scheduler) = process.scheduler() {
        let policy = match scheduler.policy() {
            LinuxSchedulerPolicy::SchedOther => libc::SCHED_OTHER,
            LinuxSchedulerPolicy::SchedFifo => libc::SCHED_FIFO,
            LinuxSchedulerPolicy::SchedRr => libc::SCHED_RR,
            LinuxSchedulerPolicy::SchedBatch => libc::SCHED_BATCH,
            LinuxSchedulerPolicy::SchedIdle => libc::SCHED_IDLE,
            other => return Err(Error::Unsupported(format!("the scheduling policy {other} is not supported"))),
        };
        let parameters = libc::sched_param { sched_priority: scheduler.priority().unwrap_or(0) };
        // SAFETY: the parameters are valid for the call, which only reads them.
        if unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } != 0 {
            return Err(std::io::Error::last_os_error()).step(|| "setting the scheduling policy");
        }
        if let Some(nice) = scheduler.nice().filter(|nice| *nice != 0) {
            // SAFETY: the call takes its arguments by value.
            if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } != 0 {
                return Err(std::io::Error::last_os_error()).step(|| "setting the nice value");
            }
        }
    }
    Ok(())
}

/// Lets the user open /dev/stdout and its like. Where it cannot be, the process can still write to what it has.
fn own_streams(uid: u32) {
    let null = rustix::fs::makedev(1, 3);
    for number in 0..3 {
        // SAFETY: the standard streams are open in this child and stay so.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        if rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_uid != uid && stat.st_rdev != null) {
            let _ = rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}

/// A working directory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cwd {
    /// Is made, for a container's first process.
    Made,
    /// Is an error, for those that come later.
    Refused,
}

/// Goes to the working directory and makes sure that it lies inside: one outside of the root
/// has no path (CVE-2024-21626).
fn stand_in(directory: &Path, root: &Root, missing: Cwd) -> Result<(), Error> {
    let what = || format!("going to the working directory {}", directory.display());
    if !directory.is_absolute() {
        return Err(Error::Spec(format!("the working directory {} is not absolute", directory.display())));
    }
    match rustix::process::chdir(directory) {
        Err(error @ (Errno::NOENT | Errno::NOTDIR)) if missing == Cwd::Refused => {
            let why = std::io::Error::from(error);
            return Err(Error::CommandNotFound(format!("chdir to cwd (\"{}\"): {why}", directory.display())));
        }
        Err(Errno::NOENT) => {
            root.place(directory, Missing::Directory).step(what)?;
            rustix::process::chdir(directory).step(what)?;
        }
        other => other.step(what)?,
    }
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if OsStr::from_bytes(path.as_bytes()).as_bytes().starts_with(b"/") => Ok(()),
        Ok(_) | Err(Errno::NOENT) => Err(Error::step(what(), "it lies outside of the container")),
        Err(error) => Err(error).step(what),
    }
}

/// Closes everything but the streams and the channel: what the shim has open is none of the container's business, and
/// neither may it live as long as this process waits to be started.
pub(crate) fn close_others(channel: &Child) -> Result<(), Error> {
    let keep = channel.raw() as u32;
    for (first, last) in [(3, keep - 1), (keep + 1, u32::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: no code after this uses any other descriptor, nor drops an owner: the process executes or ends.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            return Err(std::io::Error::last_os_error()).step(|| "closing the shim's descriptors");
        }
    }
    Ok(())
}

/// Nobody of the same user may look into this process before it executes its program.
pub(crate) fn hide() -> Result<(), Error> {
    nix::sys::prctl::set_dumpable(false).step(|| "hiding the process from others")
}
