//! Containers: their records, their states, and what leads from one to the next.

mod connecting;
mod containers;
mod effective;
mod files;
mod found;
mod gone;
mod health;
mod index;
pub(crate) mod lifecycle;
mod list;
mod live;
mod monitor;
pub(crate) mod names;
mod networking;
pub(crate) mod record;
mod recover;
mod restart;
mod signal;
mod stats;
mod store;
mod top;
mod why;

pub(crate) use containers::{Containers, Directories, Told, blocking};
pub(crate) use gone::Gone;
pub(crate) use health::{Checked, Health};
pub(crate) use index::Index;
pub(crate) use list::Wanted;
pub(crate) use live::{Attachment, Container, Early};
pub(crate) use record::{Record, State, Status, Time};
pub(crate) use stats::{Sample, Sampler, Whose};
pub(crate) use store::{Contents, Store};
pub(crate) use why::{Why, why};
