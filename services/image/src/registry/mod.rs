//! Talking to registries (OCI distribution-spec): which hosts stand for a name, who we are there, and what they answer.

mod auth;
mod challenge;
mod session;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

pub(crate) use auth::Credentials;
use berth_core::{Reference, config, reference::DEFAULT_DOMAIN};
pub(crate) use session::{Attempt, Session};

use crate::{error::Error, settings::Settings};

/// Docker Hub's API is not at the host of its names.
const HUB_API: &str = "https://registry-1.docker.io";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A registry that sends nothing for this long is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// All registries, as configured.
#[derive(Debug)]
pub(crate) struct Registries {
    http: reqwest::Client,
    /// For loopback: proxies never stand between a machine and itself.
    direct: reqwest::Client,
    settings: BTreeMap<String, crate::settings::Registry>,
    /// What was found out about hosts that may speak either.
    schemes: Mutex<HashMap<String, &'static str>>,
}

/// A host to ask for a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// `https://host[:port][/path]`, without a slash at the end.
    pub(crate) base: String,
    /// It stands in for this registry, and is told so (`ns=`). Credentials are not for it.
    pub(crate) mirror_of: Option<String>,
}

impl Host {
    /// Host and port, for people.
    pub(crate) fn name(&self) -> &str {
        self.base.split_once("://").map_or(&*self.base, |(_, rest)| rest)
    }
}

impl Registries {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        for (name, registry) in &settings.registry {
            for mirror in &registry.mirrors {
                if !mirror.starts_with("http://") && !mirror.starts_with("https://") {
                    return Err(config::Error::Value {
                        key: format!("image.registry.{name:?}.mirrors"),
                        value: mirror.clone(),
                        why: "a mirror begins with http:// or https://".into(),
                    }
                    .into());
                }
            }
        }
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
                .redirect(reqwest::redirect::Policy::limited(10))
        };
        let failed =
            |source: reqwest::Error| Error::Registry { host: "the HTTP client".into(), why: source.to_string() };
        Ok(Self {
            http: builder().build().map_err(failed)?,
            direct: builder().no_proxy().build().map_err(failed)?,
            settings: settings.registry.clone(),
            schemes: Mutex::default(),
        })
    }

    /// The hosts to ask for a reference, in order: mirrors, then the registry itself.
    pub(crate) async fn hosts(&self, reference: &Reference) -> Vec<Host> {
        let domain = reference.domain();
        let settings = self.settings.get(domain);
        let mirror = |base: &String| Host { base: base.trim_end_matches('/').into(), mirror_of: Some(domain.into()) };
        let mut hosts: Vec<Host> = settings.into_iter().flat_map(|s| &s.mirrors).map(mirror).collect();
        let base = if domain == DEFAULT_DOMAIN {
            HUB_API.to_owned()
        } else if settings.is_some_and(|s| s.plain_http) {
            format!("http://{domain}")
        } else if is_loopback(domain) {
            format!("{}://{domain}", self.scheme(domain).await)
        } else {
            format!("https://{domain}")
        };
        hosts.push(Host { base, mirror_of: None });
        hosts
    }

    /// A loopback registry may speak plain HTTP, as with Docker; one that speaks TLS says so to a plain request.
    async fn scheme(&self, domain: &str) -> &'static str {
        let known = self.schemes.lock().unwrap_or_else(PoisonError::into_inner).get(domain).copied();
        if let Some(scheme) = known {
            return scheme;
        }
        let answer = self.direct.get(format!("http://{domain}/v2/")).send().await;
        let scheme = match answer {
            Ok(answer) if answer.status() != http::StatusCode::BAD_REQUEST => "http",
            Ok(_) => "https",
            // Nothing is learnt from a host that is away.
            Err(_) => return "http",
        };
        self.schemes.lock().unwrap_or_else(PoisonError::into_inner).insert(domain.into(), scheme);
        scheme
    }

    /// A conversation with one host about one repository.
    pub(crate) fn session(&self, host: Host, reference: &Reference, credentials: Option<&Credentials>) -> Session {
        let loopback = is_loopback(host.name().split('/').next().unwrap_or_default());
        let http = if loopback { self.direct.clone() } else { self.http.clone() };
        let credentials = if host.mirror_of.is_none() { credentials.cloned() } else { None };
        Session::new(http, host, reference.path().to_owned(), credentials)
    }
}

/// Whether a host (with or without a port) is this machine.
fn is_loopback(domain: &str) -> bool {
    let host = match domain.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => domain.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(text: &str) -> Result<Registries, Error> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let node = config::Node::parse(text, std::path::Path::new("x")).unwrap();
        Registries::new(&node.section("image").unwrap())
    }

    async fn bases(text: &str, reference: &str) -> Vec<String> {
        let hosts = registries(text).unwrap().hosts(&reference.parse().unwrap()).await;
        hosts.into_iter().map(|host| host.base).collect()
    }

    #[tokio::test]
    async fn mirrors_come_first_and_loopback_is_plain() {
        let mirrors = "[image.registry.'docker.io']\nmirrors = ['http://127.0.0.1:5000/', 'https://m.example']";
        assert_eq!(bases(mirrors, "redis").await, ["http://127.0.0.1:5000", "https://m.example", HUB_API]);
        assert_eq!(bases("", "ghcr.io/a/b").await, ["https://ghcr.io"]);
        assert_eq!(bases("[image.registry.'r.lan']\nplain_http = true", "r.lan/a").await, ["http://r.lan"]);
        assert!(is_loopback("localhost:5000") && is_loopback("127.8.8.8") && is_loopback("[::1]:5"));
        assert!(!is_loopback("localhost.example.com") && !is_loopback("10.0.0.1:5000"));
        assert!(registries("[image.registry.'docker.io']\nmirrors = ['mirror.lan']").is_err());
    }
}
