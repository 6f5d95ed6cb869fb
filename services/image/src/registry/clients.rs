//! The HTTP clients: what they wait for, where they follow, and what their failures mean.

use std::{error::Error as _, net::IpAddr, time::Duration};

use berth_core::{authorities, proxy::Proxies};
use reqwest::{Client, redirect::Policy};

use crate::error::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_REDIRECTS: usize = 10;

/// A client for content and one for tokens, each also without a proxy: proxies never stand between a machine and itself.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    content: Client,
    content_direct: Client,
    /// As long as something moves: whoever uses them watches that.
    uploads: Client,
    uploads_direct: Client,
    tokens: Client,
    tokens_direct: Client,
    proxies: Proxies,
}

/// Why a host was not reached.
pub(super) struct Unreached {
    pub(super) why: String,
    /// It will not be reached the next time either.
    pub(super) for_good: bool,
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
        let uploads = || {
            Client::builder()
                .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .referer(false)
                .http2_adaptive_window(true)
                .redirect(Policy::none())
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
        let built = |builder: &dyn Fn() -> reqwest::ClientBuilder| {
            authorities::client(builder).map_err(|e| Error::Registry { host: "the HTTP client".into(), why: chain(e) })
        };
        Ok(Self {
            content: built(&content)?,
            content_direct: built(&|| content().no_proxy())?,
            uploads: built(&uploads)?,
            uploads_direct: built(&|| uploads().no_proxy())?,
            tokens: built(&tokens)?,
            tokens_direct: built(&|| tokens().no_proxy())?,
            proxies: Proxies::from_env(),
        })
    }

    /// For a registry.
    pub(super) fn for_content(&self, host: &str) -> &Client {
        if is_loopback(host) { &self.content_direct } else { &self.content }
    }

    /// For what is pushed.
    pub(super) fn for_uploads(&self, host: &str) -> &Client {
        if is_loopback(host) { &self.uploads_direct } else { &self.uploads }
    }

    /// For a token server.
    pub(super) fn for_tokens(&self, host: &str) -> &Client {
        if is_loopback(host) { &self.tokens_direct } else { &self.tokens }
    }

    /// The proxy between us and an address, as people know it.
    pub(super) fn proxy(&self, url: &str) -> Option<String> {
        let host = url.parse::<http::Uri>().ok()?;
        if is_loopback(host.host()?) { None } else { self.proxies.before(url) }
    }

    /// What a failed request to an address says to people.
    pub(super) fn unreached(&self, url: &str, error: reqwest::Error) -> Unreached {
        let (timeout, senseless) = (error.is_timeout(), error.is_builder() || error.is_redirect());
        let cause = chain(error);
        // A proxy that wants to know who we are will go on wanting it.
        let unwelcome = cause.contains("proxy authorization required");
        let (why, absent) = match cause.split_once(LOOKUP) {
            _ if timeout => ("it does not answer".to_owned(), false),
            // Who answers for names may be back in a moment; a name that does not exist will not.
            Some((_, said)) if ["Temporary", "Try again"].iter().any(|word| said.starts_with(word)) => {
                (format!("its name cannot be resolved now: {said}"), false)
            }
            Some((_, said)) => (format!("there is no host of this name: {said}"), true),
            None => match cause.split_once(CONNECTING) {
                Some((_, said)) => (format!("it cannot be connected to: {said}"), false),
                None => (cause, unwelcome),
            },
        };
        let why = match self.proxy(url) {
            Some(proxy) => format!("not reached through the proxy {proxy}: {why}"),
            None => why,
        };
        Unreached { why, for_good: senseless || absent }
    }
}

/// Before what getaddrinfo(3) says (the standard library's words).
const LOOKUP: &str = "failed to lookup address information: ";
/// Before what connect(2) says (the HTTP client's words).
const CONNECTING: &str = "tcp connect error: ";

/// Whether a host (with or without a port) is this machine.
pub(super) fn is_loopback(domain: &str) -> bool {
    let host = match domain.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => domain.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An error of the HTTP client: its causes, without those that say no more than that there was a request. Without the
/// address: a redirect's may carry a signature.
pub(super) fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source()
        && ["error sending request", "client error"].iter().any(|empty| cause.to_string().starts_with(empty))
    {
        cause = next;
    }
    berth_core::failure::chain(cause)
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
                _ if !authorities::are_there() => authorities::HINT.to_owned(),
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
