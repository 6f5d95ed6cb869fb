//! The shim: it holds one container, its processes, terminal, streams, log and exit; and it is the low-level OCI runtime
//! that makes them.
//!
//! One thread does everything. Nothing here may start another: the engine clones a child that goes on in a copy of this
//! process, and a lock that another thread holds would stay locked there.

mod address;
pub mod arguments;
mod attach;
mod delete;
mod error;
mod events;
mod exec;
mod exits;
mod life;
mod log;
mod memory;
mod metrics;
mod names;
mod note;
pub mod oci;
mod process;
mod rootfs;
mod serve;
mod shim;
mod shm;
mod signals;
mod spans;
mod stamp;
mod start;
mod streams;
mod task;
mod trim;

pub use delete::delete;
pub use error::Error;
pub use serve::{Inherited, serve};
pub use start::start;
