//! The container's first process, from its birth in new namespaces to the execution of its program.

use std::{convert::Infallible, path::Path};

use oci_spec::runtime::Spec;

use super::{
    Stdio,
    cgroup::{Cgroup, Entry},
    channel::{Child, Parent},
    clone, credentials, devices,
    error::{Error, Step as _},
    hooks::{self, Moment},
    isolation::{self, Isolation},
    lsm, mount, program,
    seccomp::Program,
    sysctl,
    terminal::Terminal,
};

/// Everything the process needs to know; it sees the shim's own copy.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    pub(crate) spec: &'a Spec,
    pub(crate) stdio: &'a Stdio,
    pub(crate) isolation: &'a Isolation,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) entry: &'a Entry,
    pub(crate) seccomp: Option<&'a Program>,
    pub(crate) ready_binds: &'a [Option<std::os::fd::OwnedFd>],
    /// The shim's end, to be closed here.
    pub(crate) parent: &'a Parent,
}

/// A helper that joins namespaces and makes the process in them; the process becomes the shim's child.
pub(crate) fn run_helper(plan: &Plan<'_>, channel: &Child) -> Infallible {
    let made = || -> Result<(), Error> {
        clone::reset_signals();
        plan.parent.abandon();
        plan.entry.join()?;
        plan.isolation.join()?;
        plan.isolation.new_time()?;
        program::hide()?;
        let birth = clone::Birth { flags: plan.isolation.clone_flags() | libc::CLONE_PARENT, cgroup: None };
        let child = clone::spawn(&birth, || {
            // The shim must know the pid before it can do anything for the process.
            let result = channel.wait().and_then(|()| go(plan, channel));
            end(result, channel)
        })?;
        channel.made(child.pid)
    };
    end(made(), channel)
}

/// The process itself.
pub(crate) fn run(plan: &Plan<'_>, channel: &Child) -> Infallible {
    let made = || -> Result<(), Error> {
        clone::reset_signals();
        plan.parent.abandon();
        plan.entry.join()?;
        plan.isolation.join()?;
        go(plan, channel)
    };
    end(made(), channel)
}

fn end(result: Result<(), Error>, channel: &Child) -> Infallible {
    if let Err(error) = &result {
        channel.fail(error);
    }
    clone::exit(i32::from(result.is_err()))
}

fn go(plan: &Plan<'_>, channel: &Child) -> Result<(), Error> {
    let spec = plan.spec;
    let process = spec.process().as_ref().ok_or_else(|| Error::Spec("it has no process".into()))?;
    let linux = spec.linux().as_ref();
    let in_user_namespace = plan.isolation.all() & libc::CLONE_NEWUSER != 0;

    if plan.isolation.makes(libc::CLONE_NEWUSER) {
        channel.needs_maps()?;
        isolation::become_root()?;
    }
    nix::unistd::setsid().step(|| "starting a session")?;
    plan.isolation.new_cgroup()?;
    if plan.isolation.makes(libc::CLONE_NEWNET) {
        isolation::loopback_up()?;
    }
    program::streams(plan.stdio)?;
    credentials::oom_score(process.oom_score_adj(), channel)?;
    lsm::keyring(plan.id)?;
    lsm::label(process)?;

    let root = mount::prepare(spec, &mount::root_path(spec, plan.bundle)?)?;
    let around = mount::Surroundings {
        root: &root,
        bundle: plan.bundle,
        cgroup: plan.cgroup,
        own_cgroup_namespace: plan.isolation.makes(libc::CLONE_NEWCGROUP),
        ready: plan.ready_binds,
    };
    let later = mount::mount_all(&around, spec.mounts().as_deref().unwrap_or_default())?;
    devices::fill(spec, &root, in_user_namespace)?;
    let terminal = match plan.stdio {
        Stdio::Terminal { columns, rows } => Some(Terminal::open(&root, *columns, *rows)?),
        Stdio::Streams { .. } => None,
    };
    if let Some(terminal) = &terminal {
        terminal.bind_console(&root)?;
        channel.console(&terminal.master)?;
    }
    if hooks::before_pivot(spec) {
        channel.prepared()?;
        hooks::run(spec, Moment::CreateContainer, plan.id, plan.bundle, std::process::id())?;
    }
    mount::pivot(&root)?;

    sysctl::set(spec, &root, plan.isolation)?;
    if let Some(name) = spec.hostname().as_deref().filter(|name| !name.is_empty()) {
        if plan.isolation.all() & libc::CLONE_NEWUTS == 0 {
            return Err(Error::Spec("a hostname needs a UTS namespace of the container's own".into()));
        }
        nix::unistd::sethostname(name).step(|| format!("setting the hostname {name}"))?;
    }
    if let Some(name) = spec.domainname().as_deref().filter(|name| !name.is_empty()) {
        rustix::system::setdomainname(name.as_bytes()).step(|| format!("setting the domain name {name}"))?;
    }
    if let Some(linux) = linux {
        mount::make_readonly(&root, linux.readonly_paths().as_deref().unwrap_or_default())?;
        mount::mask(&root, linux.masked_paths().as_deref().unwrap_or_default())?;
    }
    mount::finish(spec, &later)?;
    if let Some(terminal) = &terminal {
        terminal.take()?;
    }

    let prepared = program::prepare(spec, process, &root, plan.seccomp, program::Cwd::Made, channel)?;
    program::close_others(channel)?;
    let hooked = channel
        .ready()
        .and_then(|()| hooks::run(spec, Moment::StartContainer, plan.id, plan.bundle, std::process::id()));
    let error = match hooked {
        Ok(()) => prepared.execute(),
        Err(error) => error,
    };
    // The descriptors are closed, so no owner of one may be dropped on the way out.
    channel.fail(&error);
    clone::exit(1)
}
