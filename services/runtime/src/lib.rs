//! The runtime service: containers and all that happens to them.
//!
//! What is answered as done is in the store. What runs is told by the bundles in the state directory and by the shims
//! behind them, never by memory: the service may be killed at any line, and its start is the recovery.

mod container;
mod error;
mod events;
mod exec;
mod faces;
mod filter;
mod grpc;
mod host;
mod init;
mod instant;
mod labels;
mod logs;
mod neighbours;
mod network;
mod service;
mod settings;
mod shims;
mod spec;
mod streams;
mod volumes;

pub use error::Error;
pub use service::run;

/// The service's name in the configuration and on the command line.
pub const NAME: &str = "runtime";
