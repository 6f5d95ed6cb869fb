//! The program that a container started with `--init` has as its first process. It starts the container's own program as
//! its child, passes signals on to it, reaps what others leave behind, and ends as the child does.
//!
//! It must run in any image, so it is static, and it stands on nothing but the kernel, so it is a few kilobytes: see
//! `program/` for its source. This crate carries it.

/// The executable.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/docker-init"));
