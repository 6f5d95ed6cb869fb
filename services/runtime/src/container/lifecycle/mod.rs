//! What leads from one state of a container to the next, one verb a file.

pub(crate) mod commit;
mod create;
mod end;
mod kill;
mod pause;
mod prune;
pub(crate) mod remove;
mod rename;
mod start;
pub(crate) mod stop;
pub(crate) mod update;
mod volumes_from;
mod wait;

pub(crate) use create::{Created, Order, Pull};
pub(crate) use wait::{Condition, wait};
