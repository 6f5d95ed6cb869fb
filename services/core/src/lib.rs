//! What every berth service needs, and nothing that only one of them needs: checked names for content, the error that
//! travels between services, the configuration file, telemetry, and serving on a socket. [`bundle`] and [`stream`]
//! are what the runtime service and the shim agree on; the shim takes those alone (`default-features = false`).

pub mod bundle;
pub mod digest;
pub mod stream;

#[cfg(feature = "service")]
pub mod apis;
#[cfg(feature = "service")]
pub mod archive;
#[cfg(feature = "service")]
pub mod authorities;
#[cfg(feature = "service")]
pub mod config;
#[cfg(feature = "service")]
pub mod connect;
#[cfg(feature = "service")]
pub mod failure;
#[cfg(feature = "service")]
pub mod platform;
#[cfg(feature = "service")]
pub mod proxy;
#[cfg(feature = "service")]
pub mod reference;
#[cfg(feature = "service")]
pub mod serve;
#[cfg(feature = "service")]
pub mod store;
#[cfg(feature = "service")]
pub mod telemetry;

pub use digest::Digest;
#[cfg(feature = "service")]
pub use failure::{Failure, Kind};
#[cfg(feature = "service")]
pub use platform::Platform;
#[cfg(feature = "service")]
pub use reference::Reference;
