//! The low-level OCI runtime: containers from bundles (OCI runtime-spec), made by our own code ([`native`]) or by
//! another runtime's binary ([`binary`]).
//!
//! What must always hold:
//! - The caller is single-threaded. Then the child that it clones is a copy in which nobody else holds a lock, and it may
//!   run ordinary code until it executes the container's program.
//! - Whatever comes from an image or out of a container (paths, symbolic links, files) is reached through descriptors
//!   beneath the container's root, never by walking a path twice.
//! - What was made is written down in the bundle before it is made ([`state`]), so that [`remove`] leaves nothing
//!   behind whenever the shim dies.

pub mod binary;
mod caps;
pub mod cgroup;
mod channel;
mod clone;
mod credentials;
mod devices;
mod diagnose;
mod error;
mod exec;
mod hooks;
mod init;
mod isolation;
mod lsm;
pub(crate) mod mount;
pub mod native;
mod program;
pub mod seal;
pub mod seccomp;
mod state;
mod sysctl;
mod terminal;
pub mod user;

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

pub use cgroup::{OomEvents, Stats};
pub use error::Error;
use oci_spec::runtime::{LinuxResources, Process, Spec};
pub use state::{kill, remove, started_at};

/// What makes containers. Every call is synchronous and takes milliseconds; a child that does not answer within
/// [`DEADLINE`] is killed and the call fails.
///
/// The processes made are children of the caller, or become so: an engine that drives another binary makes the caller a
/// subreaper. The caller reaps them; it must not do so while a call runs.
pub trait Engine {
    /// Makes the container of a bundle, whose configuration is complete and whose root file system is mounted. Its first
    /// process waits for [`start`](Engine::start). A call that fails leaves nothing behind.
    fn create(&self, request: Create<'_>) -> Result<Container, Error>;
    /// Lets the first process execute its program. When this answers, the program is running.
    fn start(&self, container: &mut Container) -> Result<(), Error>;
    /// Runs another process in a running container. When this answers, the program is running.
    fn exec(&self, container: &Container, process: &Process, stdio: Stdio) -> Result<Started, Error>;
    /// Sends a signal to the first process, or with `all` to every process of the container's cgroup.
    /// [`Error::NotRunning`] where there is nobody any more.
    fn kill(&self, container: &Container, signal: i32, all: bool) -> Result<(), Error>;
    /// Freezes all processes.
    fn pause(&self, container: &Container) -> Result<(), Error>;
    /// Thaws all processes.
    fn resume(&self, container: &Container) -> Result<(), Error>;
    /// Changes limits; what is not set stays. All or, where one is refused, none.
    fn update(&self, container: &Container, resources: &LinuxResources) -> Result<(), Error>;
    /// All processes, in the host's pid namespace.
    fn pids(&self, container: &Container) -> Result<Vec<u32>, Error>;
    /// What the container uses and has used.
    fn stats(&self, container: &Container) -> Result<Stats, Error>;
    /// Something that becomes readable when the OOM killer strikes.
    fn oom_events(&self, container: &Container) -> Result<OomEvents, Error>;
    /// Kills what is left, removes the cgroups, runs the poststop hooks. May be called again.
    fn delete(&self, container: &Container) -> Result<(), Error>;
}

/// How long a child may take for one step before it is given up.
pub const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

/// What a container is made from.
#[derive(Debug)]
pub struct Create<'a> {
    /// Its name among containers.
    pub id: &'a str,
    /// The bundle's directory; an absolute path.
    pub bundle: &'a Path,
    /// The configuration. A relative `root.path` is relative to the bundle. `process.user.username`, where set, is
    /// `name`, `uid`, `name:group` or `uid:gid` (as Docker's), looked up in the root file system's own files, and
    /// replaces uid and gid.
    pub spec: &'a Spec,
    /// What the first process reads from and writes to.
    pub stdio: Stdio,
}

/// What a process reads from and writes to. The caller's copies are closed when the process has its own.
#[derive(Debug)]
pub enum Stdio {
    /// Standard input, output and error. No input means `/dev/null`.
    Streams {
        /// What it reads from.
        stdin: Option<OwnedFd>,
        /// What it prints to.
        stdout: OwnedFd,
        /// What it complains to.
        stderr: OwnedFd,
    },
    /// A terminal of its own in the container's devpts; its master comes back as `console`.
    Terminal {
        /// Width in characters, 0 for unknown.
        columns: u16,
        /// Height in lines, 0 for unknown.
        rows: u16,
    },
}

/// A container that was made.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its first process, in the host's pid namespace.
    pub pid: u32,
    /// The same, safe against the pid's reuse; becomes readable when the process ends.
    pub pidfd: OwnedFd,
    /// The master of its terminal; taken by the caller.
    pub console: Option<OwnedFd>,
    /// What could not be done as asked on this machine and was done in a lesser way, for people to read.
    pub warnings: Vec<String>,
    /// Where its processes are accounted.
    pub cgroup: cgroup::Cgroup,
    /// Through which the first process waits to be started.
    gate: Option<channel::Parent>,
    /// Which namespaces another process must join (`CLONE_NEW*`).
    namespaces: i32,
    /// What every process of the container is put under.
    seccomp: Option<seccomp::Program>,
    /// The configuration's hooks and annotations, and whether new processes get no new privileges.
    spec: std::rc::Rc<Spec>,
}

/// A process that was started in a container.
#[derive(Debug)]
pub struct Started {
    /// In the host's pid namespace.
    pub pid: u32,
    /// The same, safe against the pid's reuse; becomes readable when the process ends.
    pub pidfd: OwnedFd,
    /// The master of its terminal.
    pub console: Option<OwnedFd>,
    /// What could not be done as asked on this machine.
    pub warnings: Vec<String>,
}
