//! Shims: started from one sealed copy of their binary, spoken to over ttrpc, cleaned up after.
//!
//! A shim outlives this service. Nothing here ties it to us: it has a session of its own, no descriptor of ours but the
//! two that the bundle's contract names, and nothing is killed when a handle is dropped.

mod binary;
mod bundle;
mod failure;
mod launch;
mod spans;
mod task;

pub(crate) use binary::Binary;
pub(crate) use bundle::{Attachment, Bundle};
pub(crate) use failure::{Failure, Reason};
pub(crate) use spans::Exporter;
pub(crate) use task::{Ended, Task, TaskState};
