//! The streams of a process: what it prints goes to the log and to whoever listens, what clients send goes to its
//! standard input.
//!
//! What must always hold: a failure of the log or of a listener never reaches the process; memory is bounded; the process
//! is held up only while not one of its listeners keeps up.

mod fifo;
mod input;
mod outbox;
mod output;
mod watched;
mod wiring;

pub(crate) use fifo::{feed, spill};
pub(crate) use input::Input;
pub(crate) use outbox::{Outbox, Want, send};
pub(crate) use output::Outputs;
pub(crate) use watched::watched;
pub(crate) use wiring::{Ends, Plug, wire};
