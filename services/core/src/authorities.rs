//! The certificate authorities this machine trusts: an HTTP client also where there are none. A machine without the
//! package `ca-certificates` still loads images, asks plain registries and runs containers; only TLS cannot be checked,
//! and what asks for it is told.

use reqwest::{Client, ClientBuilder};

/// What to do on a machine that trusts nobody.
pub const HINT: &str =
    "this machine has no certificate authorities: install the package ca-certificates and start berth again";

/// Whether this machine has any. Reads them all: for when something failed.
pub fn are_there() -> bool {
    !rustls_native_certs::load_native_certs().certs.is_empty()
}

/// Builds a client that trusts the machine's authorities; where there are none, one that trusts nobody.
///
/// # Errors
/// What `builder` asks for cannot be.
pub fn client(builder: impl Fn() -> ClientBuilder) -> Result<Client, reqwest::Error> {
    match builder().build() {
        Err(_) if !are_there() => {
            tracing::warn!("no registry can be asked over TLS; {HINT}");
            builder().tls_certs_only([]).build()
        }
        built => built,
    }
}
