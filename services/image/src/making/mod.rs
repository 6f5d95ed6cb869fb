//! Images that are made here: of what a container has written, or of a tar of a root file system.

mod arriving;
pub(crate) mod commit;
mod documents;
mod health;
pub(crate) mod import;
mod instructions;
mod packed;
mod words;

pub(crate) use documents::manifest;
pub(crate) use packed::Packed;
