//! Another process in a running container.
//!
//! A helper joins the cgroup by itself (see [`super::cgroup`]) and the namespaces by the first process's pidfd, all at
//! once; the process it makes then is the shim's child and lives inside.

use std::{convert::Infallible, os::fd::BorrowedFd, path::Path};

use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::{Process, Spec};

use super::{
    Stdio,
    cgroup::Entry,
    channel::{Child, Parent},
    clone, credentials,
    error::{Error, Step as _},
    isolation, lsm,
    mount::Root,
    program,
    seccomp::Program,
    terminal::Terminal,
};

/// Everything the process needs to know.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) id: &'a str,
    pub(crate) spec: &'a Spec,
    pub(crate) process: &'a Process,
    pub(crate) stdio: &'a Stdio,
    pub(crate) entry: &'a Entry,
    pub(crate) seccomp: Option<&'a Program>,
    pub(crate) namespaces: i32,
    pub(crate) init: BorrowedFd<'a>,
    pub(crate) parent: &'a Parent,
}

/// The helper.
pub(crate) fn run_helper(plan: &Plan<'_>, channel: &Child) -> Infallible {
    let made = || -> Result<(), Error> {
        clone::reset_signals();
        plan.parent.abandon();
        // Before anybody inside can see this process.
        credentials::oom_score(plan.process.oom_score_adj(), channel)?;
        program::hide()?;
        plan.entry.join()?;
        setns(plan.init, CloneFlags::from_bits_retain(plan.namespaces)).map_err(|error| match error {
            nix::Error::ESRCH => Error::step("joining the container", "it is not running"),
            error => Error::step("joining the container's namespaces", error),
        })?;
        if plan.namespaces & libc::CLONE_NEWUSER != 0 {
            isolation::become_root()?;
            program::hide()?;
        }
        let birth = clone::Birth { flags: libc::CLONE_PARENT, cgroup: None };
        let child = clone::spawn(&birth, || end(go(plan, channel), channel))?;
        channel.made(child.pid)
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
    channel.wait()?;
    nix::unistd::setsid().step(|| "starting a session")?;
    program::streams(plan.stdio)?;
    lsm::keyring(plan.id)?;
    lsm::label(plan.process)?;
    let root = Root::open(Path::new("/")).step(|| "opening the container's root")?;
    if let Stdio::Terminal { columns, rows } = plan.stdio {
        let terminal = Terminal::open(&root, *columns, *rows)?;
        channel.console(&terminal.master)?;
        terminal.take()?;
    }
    let prepared = program::prepare(plan.spec, plan.process, &root, plan.seccomp, program::Cwd::Refused, channel)?;
    program::close_others(channel)?;
    let error = match channel.ready() {
        Ok(()) => prepared.execute(),
        Err(error) => error,
    };
    // The descriptors are closed, so no owner of one may be dropped on the way out.
    channel.fail(&error);
    clone::exit(1)
}
