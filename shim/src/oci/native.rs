//! Our own engine.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
};

use nix::sys::wait::waitpid;
use oci_spec::runtime::{LinuxResources, Process};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{
    Container, Create, DEADLINE, Engine, OomEvents, Started, Stats, Stdio,
    cgroup::Cgroup,
    channel::{self, Message, Parent},
    clone,
    error::{Error, Step as _},
    exec,
    hooks::{self, Moment},
    init,
    isolation::{self, Isolation},
    mount,
    seccomp::Program,
    state::{self, State},
};

/// Makes containers by itself.
#[derive(Debug, Default)]
pub struct Native {
    seccomp_cache: Option<PathBuf>,
}

impl Native {
    /// With a directory for compiled seccomp programs.
    pub fn new(seccomp_cache: Option<PathBuf>) -> Self {
        Self { seccomp_cache }
    }
}

/// What a child told on its way.
#[derive(Debug, Default)]
struct Told {
    console: Option<OwnedFd>,
    warnings: Vec<String>,
}

/// A child that is killed and reaped unless it is kept.
struct Guarded {
    pid: i32,
    pidfd: OwnedFd,
    kept: bool,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !self.kept {
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
            let _ = waitpid(nix::unistd::Pid::from_raw(self.pid), None);
        }
    }
}

impl Engine for Native {
    fn create(&self, request: Create<'_>) -> Result<Container, Error> {
        let spec = request.spec;
        let linux = spec.linux().as_ref();
        let isolation = Isolation::of(spec)?;
        let cgroup = Cgroup::of(linux.and_then(|linux| linux.cgroups_path().as_deref()), request.id)?;
        let seccomp = match linux.and_then(|linux| linux.seccomp().as_ref()) {
            Some(profile) => Program::of(profile, self.seccomp_cache.as_deref())?,
            None => None,
        };
        let mut record = State { id: request.id.to_owned(), cgroup: cgroup.clone(), init: None, binary: None };
        record.write(request.bundle)?;
        let made = make(&request, &isolation, &cgroup, seccomp.as_ref(), &mut record);
        let (child, gate, told) = match made {
            Ok(made) => made,
            Err(error) => {
                // What fails now must not hide why it failed.
                let _ = cgroup.kill_all().and_then(|()| cgroup.remove()).and_then(|()| state::forget(request.bundle));
                return Err(error);
            }
        };
        Ok(Container {
            id: request.id.to_owned(),
            bundle: request.bundle.to_owned(),
            pid: child.pid as u32,
            pidfd: child.pidfd,
            console: told.console,
            warnings: told.warnings,
            cgroup,
            gate: Some(gate),
            namespaces: isolation.all(),
            seccomp,
            spec: Rc::new(spec.clone()),
        })
    }

    fn start(&self, container: &mut Container) -> Result<(), Error> {
        let gate =
            container.gate.take().ok_or_else(|| Error::step("starting the container", "it was started already"))?;
        gate.go()?;
        let mut told = Told::default();
        started(&gate, &mut told)?;
        container.warnings.append(&mut told.warnings);
        if let Err(error) =
            hooks::run(&container.spec, Moment::Poststart, &container.id, &container.bundle, container.pid)
        {
            container.warnings.push(error.to_string());
        }
        Ok(())
    }

    fn exec(&self, container: &Container, process: &Process, stdio: Stdio) -> Result<Started, Error> {
        if container.gate.is_some() || has_ended(container) {
            return Err(Error::NotRunning);
        }
        if container.cgroup.is_frozen() {
            return Err(Error::Paused);
        }
        let entry = container.cgroup.entry().map_err(|error| gone_or(container, error))?;
        let (parent, child) = channel::pair()?;
        let plan = exec::Plan {
            id: &container.id,
            spec: &container.spec,
            process,
            stdio: &stdio,
            entry: &entry,
            seccomp: container.seccomp.as_ref(),
            namespaces: container.namespaces,
            init: container.pidfd.as_fd(),
            parent: &parent,
        };
        let birth = clone::Birth { flags: 0, cgroup: entry.birth() };
        let helper = clone::spawn(&birth, || exec::run_helper(&plan, &child))?;
        drop(child);
        let mut told = Told::default();
        let mut made = through_helper(&parent, helper, &mut told).map_err(|error| gone_or(container, error))?;
        listen(&parent, &mut told, |_| Ok(()))?;
        parent.go()?;
        started(&parent, &mut told)?;
        made.kept = true;
        let pidfd = made.pidfd.try_clone().step(|| "keeping the process")?;
        Ok(Started { pid: made.pid as u32, pidfd, console: told.console, warnings: told.warnings })
    }

    fn kill(&self, container: &Container, signal: i32, all: bool) -> Result<(), Error> {
        if all {
            return container.cgroup.signal(signal);
        }
        send(container, signal)
    }

    fn pause(&self, container: &Container) -> Result<(), Error> {
        if has_ended(container) { Err(Error::NotRunning) } else { container.cgroup.freeze() }
    }

    fn resume(&self, container: &Container) -> Result<(), Error> {
        container.cgroup.thaw()
    }

    fn update(&self, container: &Container, resources: &LinuxResources) -> Result<(), Error> {
        container.cgroup.update(resources)
    }

    fn pids(&self, container: &Container) -> Result<Vec<u32>, Error> {
        container.cgroup.pids()
    }

    fn stats(&self, container: &Container) -> Result<Stats, Error> {
        Ok(container.cgroup.stats())
    }

    fn oom_events(&self, container: &Container) -> Result<OomEvents, Error> {
        container.cgroup.oom_events()
    }

    fn delete(&self, container: &Container) -> Result<(), Error> {
        match send(container, libc::SIGKILL) {
            Ok(()) | Err(Error::NotRunning) => {}
            Err(error) => return Err(error),
        }
        state::remove(&container.bundle)
    }
}

/// From the cgroup to a process that waits to be started.
fn make(
    request: &Create<'_>,
    isolation: &Isolation,
    cgroup: &Cgroup,
    seccomp: Option<&Program>,
    record: &mut State,
) -> Result<(Kept, Parent, Told), Error> {
    let spec = request.spec;
    let mut told = Told::default();
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    cgroup.make()?;
    if let Some(resources) = resources {
        cgroup.limit(resources, &mut told.warnings)?;
        cgroup.devices(resources)?;
    }
    let entry = cgroup.entry()?;
    let in_user_namespace = isolation.all() & libc::CLONE_NEWUSER != 0;
    let ready_binds = mount::ready_binds(spec, request.bundle, in_user_namespace)?;
    let (parent, child) = channel::pair()?;
    let plan = init::Plan {
        id: request.id,
        bundle: request.bundle,
        spec,
        stdio: &request.stdio,
        isolation,
        cgroup,
        entry: &entry,
        seccomp,
        ready_binds: &ready_binds,
        parent: &parent,
    };
    let mut made = if isolation.needs_helper() {
        let birth = clone::Birth { flags: 0, cgroup: entry.birth() };
        let helper = clone::spawn(&birth, || init::run_helper(&plan, &child))?;
        drop(child);
        through_helper(&parent, helper, &mut told)?
    } else {
        let birth = clone::Birth { flags: isolation.clone_flags(), cgroup: entry.birth() };
        let born = clone::spawn(&birth, || init::run(&plan, &child))?;
        drop(child);
        Guarded { pid: born.pid, pidfd: born.pidfd, kept: false }
    };
    let pid = made.pid as u32;
    record.init = state::started_at(pid).map(|started| (pid, started));
    record.write(request.bundle)?;
    listen(&parent, &mut told, |message| match message {
        Message::NeedsMaps => isolation::write_maps(spec, pid as i32),
        _ => [Moment::Prestart, Moment::CreateRuntime]
            .into_iter()
            .try_for_each(|moment| hooks::run(spec, moment, request.id, request.bundle, pid)),
    })?;
    made.kept = true;
    let pidfd = made.pidfd.try_clone().step(|| "keeping the process")?;
    Ok((Kept { pid: made.pid, pidfd }, parent, told))
}

/// A process that is there to stay.
struct Kept {
    pid: i32,
    pidfd: OwnedFd,
}

/// Hears from a helper which process it made, and lets that one go on.
fn through_helper(parent: &Parent, helper: clone::Born, told: &mut Told) -> Result<Guarded, Error> {
    let helper = Guarded { pid: helper.pid, pidfd: helper.pidfd, kept: false };
    let pid = loop {
        match parent.hear(DEADLINE)? {
            Message::Pid(pid) => break pid,
            Message::Warning(text) => told.warnings.push(text),
            Message::Failed(error) => return Err(error),
            other => return Err(Error::step("making the process", format!("its helper said {other:?}"))),
        }
    };
    // It is our child and not reaped, so the pid is its own.
    let own = rustix::process::Pid::from_raw(pid).ok_or_else(|| Error::step("making the process", "it has no pid"))?;
    let pidfd = pidfd_open(own, PidfdFlags::empty()).step(|| "opening the process")?;
    drop(helper);
    let made = Guarded { pid, pidfd, kept: false };
    parent.go()?;
    Ok(made)
}

/// Hears the child until it is ready, doing what it asks for.
fn listen(parent: &Parent, told: &mut Told, mut asked: impl FnMut(Message) -> Result<(), Error>) -> Result<(), Error> {
    loop {
        match parent.hear(DEADLINE)? {
            Message::Ready => return Ok(()),
            Message::Console(master) => told.console = Some(master),
            Message::Warning(text) => told.warnings.push(text),
            Message::Failed(error) => return Err(error),
            message @ (Message::NeedsMaps | Message::Prepared) => {
                asked(message)?;
                parent.go()?;
            }
            Message::Closed => {
                return Err(Error::step("making the process", "it was killed before it was ready (out of memory?)"));
            }
            Message::Pid(_) => return Err(Error::step("making the process", "it spoke out of turn")),
        }
    }
}

/// Hears that the program was executed.
fn started(parent: &Parent, told: &mut Told) -> Result<(), Error> {
    loop {
        match parent.hear(DEADLINE)? {
            Message::Closed => return Ok(()),
            Message::Warning(text) => told.warnings.push(text),
            Message::Failed(error) => return Err(error),
            other => return Err(Error::step("starting the process", format!("it said {other:?}"))),
        }
    }
}

fn has_ended(container: &Container) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(&container.pidfd, PollFlags::IN)], Some(&now)), Ok(1..))
}

/// What failed because the container has ended is told so.
fn gone_or(container: &Container, error: Error) -> Error {
    if has_ended(container) { Error::NotRunning } else { error }
}

/// By number: real-time signals have no name.
fn send(container: &Container, signal: i32) -> Result<(), Error> {
    // SAFETY: the call takes its arguments by value but for the information, which may be absent.
    let done = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, container.pidfd.as_raw_fd(), signal, std::ptr::null::<()>(), 0)
    };
    if done == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Err(Error::NotRunning),
        error => Err(error).step(|| format!("sending signal {signal}")),
    }
}

/// Reads a bundle's configuration.
pub fn read_spec(bundle: &Path) -> Result<oci_spec::runtime::Spec, Error> {
    let path = bundle.join(berth_core::bundle::CONFIG);
    let text = fs::read(&path).step(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| Error::Spec(error.to_string()))
}
