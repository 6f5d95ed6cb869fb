//! The low-level runtime from outside: what a container sees, compared with what runc shows it; errors; hostile images.
#![allow(clippy::unwrap_used)]

#[path = "oci/bundle.rs"]
mod bundle;

#[path = "oci/agreement.rs"]
mod agreement;
#[path = "oci/failures.rs"]
mod failures;
#[path = "oci/hostile.rs"]
mod hostile;
#[path = "oci/life.rs"]
mod life;
