//! Between the caller's terminal or pipes and a process in a container.

pub(crate) mod ask;
pub(crate) mod input;
pub(crate) mod keys;
pub(crate) mod output;
pub(crate) mod raw;
pub(crate) mod session;
pub(crate) mod signals;
