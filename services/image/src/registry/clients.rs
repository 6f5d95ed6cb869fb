//! The HTTP clients: what they wait for, where they follow, and what their failures mean.

use std::{error::Error as _, net::IpAddr, time::Duration};

use reqwest::{Client, redirect::Policy};

use crate::error::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_REDIRECTS: usize = 10;

/// A client for content and one for tokens, each also without a proxy: proxies never stand between a machine and itself.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    content: Client,
    content_direct: Client,
    tokens: Client,
    tokens_direct: Client,
}

impl Clients {
    /// `read` is the longest silence of a server that has been asked.
    pub(super) fn new(read: Duration) -> Result<Self, Error> {
        let builder = |policy: Policy| {
            Client::builder()
                .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(read)
                .referer(false)
                .http2_adaptive_window(true)
                .redirect(policy)
        };
        // Registries send to where their content lies. The client leaves `Authorization` behind when the host changes.
        let content = || {
            builder(Policy::custom(|attempt| {
                let downgraded = attempt.previous().last().is_some_and(|url| url.scheme() == "https")
                    && attempt.url().scheme() != "https";
                if attempt.previous().len() > MAX_REDIRECTS {
                    attempt.error("it redirects in circles")
                } else if downgraded {
                    attempt.error("it redirects from TLS to plain HTTP")
                } else {
                    attempt.follow()
                }
            }))
        };
        // A token server is asked with credentials in the body or the query: they go where they were meant to go.
        let tokens = || builder(Policy::none());
        let built = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|e| Error::Registry { host: "the HTTP client".into(), why: chain(e) })
        };
        Ok(Self {
            content: built(content())?,
            content_direct: built(content().no_proxy())?,
            tokens: built(tokens())?,
            tokens_direct: built(tokens().no_proxy())?,
        })
    }

    /// For a registry.
    pub(super) fn for_content(&self, host: &str) -> &Client {
        if is_loopback(host) { &self.content_direct } else { &self.content }
    }

    /// For a token server.
    pub(super) fn for_tokens(&self, host: &str) -> &Client {
        if is_loopback(host) { &self.tokens_direct } else { &self.tokens }
    }
}

/// Whether a host (with or without a port) is this machine.
pub(super) fn is_loopback(domain: &str) -> bool {
    let host = match domain.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => domain.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An error of the HTTP client with its causes. Without the address: a redirect's may carry a signature.
pub(super) fn chain(error: reqwest::Error) -> String {
    berth_core::failure::chain(&error.without_url())
}

/// What is wrong with TLS to a host, and what to do, where that is why the request failed.
pub(super) fn tls(error: &reqwest::Error, host: &str) -> Option<Error> {
    let mut next = error.source();
    while let Some(cause) = next {
        let found = rustls_error(cause);
        if let Some(found) = found {
            let hint = match found {
                rustls::Error::InvalidMessage(_) => format!(
                    "it seems to speak plain HTTP; where that is meant, say so in the configuration: \
                     [image.registry.\"{host}\"] plain_http = true"
                ),
                _ => "put the authority that signed its certificate into /usr/local/share/ca-certificates and run \
                      update-ca-certificates"
                    .to_owned(),
            };
            return Some(Error::Tls { host: host.into(), why: found.to_string(), hint });
        }
        next = cause.source();
    }
    None
}

/// The TLS error within I/O errors, which do not name it as their cause.
fn rustls_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    match cause.downcast_ref::<rustls::Error>() {
        Some(found) => Some(found),
        None => rustls_error(cause.downcast_ref::<std::io::Error>()?.get_ref()?),
    }
}
