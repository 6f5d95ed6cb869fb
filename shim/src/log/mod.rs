//! The container's log, in the form of Docker's json-file.
//!
//! What must always hold: the container goes on whatever becomes of its log, memory stays constant whatever it prints,
//! and the file holds whole lines only.

mod escape;
mod file;
mod lines;
mod stamp;

pub(crate) use file::Target;
pub(crate) use lines::{JsonLog, Stream};
pub(crate) use stamp::now_ns;
