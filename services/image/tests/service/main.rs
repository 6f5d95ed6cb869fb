//! The image service from outside: a process of its own beside a real snapshotter, before registries that fail as they are
//! told, before a real one, and with archives of every sort.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod archives;
mod auth;
mod broken;
mod garbage;
mod load;
mod made;
mod manifests;
mod mirrors;
mod names;
mod node;
mod patience;
mod place;
mod push;
mod real;
mod refused;
mod restarts;
mod sharing;
mod space;
mod upstream;
mod words;
