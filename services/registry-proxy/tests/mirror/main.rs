//! The mirror from outside: a process of its own before upstreams with counters and faults, and before a real registry.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod auth;
mod faults;
mod proxy;
mod pulls;
mod real;
mod restarts;
mod upstream;
