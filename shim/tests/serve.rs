//! The shim as the runtime service sees it: `serve`, over its sockets.
#![allow(clippy::unwrap_used)]

#[path = "oci/bundle.rs"]
#[allow(dead_code)]
mod bundle;
#[path = "serve/client.rs"]
mod client;

#[path = "serve/crashes.rs"]
mod crashes;
#[path = "serve/executed.rs"]
mod executed;
#[path = "serve/life.rs"]
mod life;
#[path = "serve/names.rs"]
mod names;
#[path = "serve/output.rs"]
mod output;
#[path = "serve/typing.rs"]
mod typing;
