//! The OCI runtime configuration of a container, as Docker's defaults have it.
//!
//! [`check()`] refuses at creation what can be refused then; [`complete()`] fills in what the image says; [`build()`]
//! makes the bundle's configuration at each start, from the record alone and the machine it starts on; [`exec()`] makes a
//! further process out of that. Nothing here changes anything on the machine.

mod block_io;
mod build;
mod capabilities;
mod check;
mod complete;
mod devices;
mod environment;
mod error;
mod exec;
mod health;
mod host;
mod log;
mod mounts;
mod namespaces;
mod process;
mod profile;
mod resources;
mod rlimits;
mod seccomp;
mod security;
mod sysctls;
mod tmpfs;
mod update;

pub(crate) use build::{Input, Network, build, guarded_paths};
pub(crate) use check::check;
pub(crate) use complete::complete;
pub(crate) use error::Error;
pub(crate) use exec::exec;
pub(crate) use health::complete as complete_health;
pub(crate) use log::log;
pub(crate) use update::{limits, update};
