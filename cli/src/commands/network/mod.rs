//! `network`: networks made, listed, shown, removed; who is connected.

mod connect;
mod create;
mod inspect;
mod list;
mod pools;
mod remove;

pub(crate) use connect::{CONNECT, DISCONNECT};
pub(crate) use create::CREATE;
pub(crate) use inspect::{INSPECT, find};
pub(crate) use list::LIST;
pub(crate) use remove::{PRUNE, REMOVE};
