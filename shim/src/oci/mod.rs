//! The low-level OCI runtime: containers from bundles (OCI runtime-spec), made by our own code or by another runtime's
//! binary.
//!
//! The shim is single-threaded, so the child that it clones is a copy in which nobody else holds a lock; it may run
//! ordinary code until it executes the container's program.

pub(crate) mod binary;
mod caps;
pub(crate) mod cgroup;
mod channel;
mod clone;
mod credentials;
mod devices;
mod diagnose;
mod error;
mod exec;
mod init;
mod isolation;
mod mount;
pub(crate) mod native;
mod seccomp;
mod terminal;
pub(crate) mod user;

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
};

pub(crate) use error::Error;
use nix::unistd::Pid;

/// What a process reads from and writes to.
#[derive(Debug)]
pub(crate) enum Stdio {
    /// Its three streams.
    Streams([OwnedFd; 3]),
    /// A terminal of its own.
    Terminal,
}

/// A process that was made.
#[derive(Debug)]
pub(crate) struct Made {
    /// In the host's pid namespace. It is a child of the shim (or of one that went away, whose orphans the shim gets).
    pub(crate) pid: Pid,
    /// The master side of its terminal.
    pub(crate) console: Option<OwnedFd>,
    /// For [`native::start`]; a process of another runtime has none.
    pub(crate) channel: Option<channel::Parent>,
}

/// What is needed to find and end a container, also by a process that did not make it.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) cgroup: cgroup::Cgroup,
}

/// A path that reaches an open file, for calls that only take paths.
fn through(fd: &impl std::os::fd::AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}
