//! The HTTP proxies of the environment, as the HTTP client uses them: to say which one stood in between when something
//! failed.

use std::{fmt, sync::Arc};

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

/// What `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say. Cloning gives another handle.
#[derive(Clone)]
pub struct Proxies(Arc<Matcher>);

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address may hold a password.
        f.write_str("Proxies")
    }
}

impl Proxies {
    /// Reads the environment.
    pub fn from_env() -> Self {
        Self(Arc::new(Matcher::from_env()))
    }

    /// The proxy between us and a URL, as people know it: "HOST:PORT (see HTTPS_PROXY in the service's environment)". A
    /// password in its own address is not shown.
    pub fn before(&self, url: &str) -> Option<String> {
        let url: Uri = url.parse().ok()?;
        let proxy = self.0.intercept(&url)?;
        let port = proxy.uri().port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        let variable = if url.scheme_str() == Some("https") { "HTTPS_PROXY" } else { "HTTP_PROXY" };
        let named = [variable.to_owned(), variable.to_lowercase()].iter().any(|name| std::env::var_os(name).is_some());
        let variable = if named { variable } else { "ALL_PROXY" };
        Some(format!("{}{port} (see {variable} in the service's environment)", proxy.uri().host()?))
    }
}
