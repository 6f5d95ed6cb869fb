//! The container's mounts: its root, what the configuration mounts beneath it, and what it hides.
//!
//! Everything is mounted with the descriptor-based calls (fsopen, open_tree, move_mount): the place is resolved once,
//! beneath the root, and the mount goes onto exactly what was found. An image's symbolic links lead nowhere outside.

mod api;
pub(crate) mod beneath;
mod cgroups;
mod masks;
mod options;
mod root;
mod specified;

pub(crate) use api::{Attributes, attach, bind_of, bind_of_path, new_mount, propagate, set_attributes};
pub(crate) use beneath::Root;
pub(crate) use masks::{make_readonly, mask};
pub(crate) use options::Options;
pub(crate) use root::{finish, path as root_path, pivot, prepare, ready_binds};
pub(crate) use specified::{PROC, Surroundings, mount_all};
