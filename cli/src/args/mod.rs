//! From words to a command and what was given to it. Docker's rules hold: flags may follow operands, except behind the
//! image of `run` and `create` and the container of `exec`, where everything belongs to the program.

mod complete;
mod entry;
pub(crate) mod flag;
mod global;
mod help;
mod manual;
mod parse;
mod suggest;

pub(crate) use complete::{complete, script};
pub(crate) use entry::{Answer, Completes, Entry};
pub(crate) use flag::Given;
pub(crate) use global::Global;
pub(crate) use manual::page;
pub(crate) use parse::{Parsed, parse};
