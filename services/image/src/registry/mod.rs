//! Talking to registries (OCI distribution-spec): which hosts stand for a name, who we are there, and what they answer.

mod auth;
mod challenge;
mod clients;
mod listing;
mod login;
mod push;
mod session;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

pub(crate) use auth::Credentials;
use berth_core::{Reference, config, reference::DEFAULT_DOMAIN};
use clients::{Clients, is_loopback};
pub(crate) use listing::Found;
pub(crate) use push::{Begun, Upload};
pub(crate) use session::{Attempt, Served, Session};

use crate::{error::Error, settings::Settings};

/// Docker Hub's API is not at the host of its names.
const HUB_API: &str = "https://registry-1.docker.io";

/// Where Docker Hub is searched.
const HUB_INDEX: &str = "https://index.docker.io";

/// All registries, as configured.
#[derive(Debug)]
pub(crate) struct Registries {
    clients: Clients,
    /// The longest a document may take.
    patience: Duration,
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
    /// Host and port, and the path where there is one, for people.
    pub(crate) fn name(&self) -> &str {
        self.base.split_once("://").map_or(&*self.base, |(_, rest)| rest)
    }

    /// Host and port.
    fn authority(&self) -> &str {
        self.name().split('/').next().unwrap_or_default()
    }
}

impl Registries {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        for (name, registry) in &settings.registry {
            for mirror in &registry.mirrors {
                let wrong = |value: &str, why: &str| config::Error::Value {
                    key: format!("image.registry.{name:?}.mirrors"),
                    value: value.into(),
                    why: why.into(),
                };
                match reqwest::Url::parse(mirror) {
                    // A password in it is not repeated.
                    Ok(url) if !url.username().is_empty() || url.password().is_some() => Err(wrong(
                        url.host_str().unwrap_or_default(),
                        "a mirror has no user and password in its address",
                    )),
                    Ok(url) if matches!(url.scheme(), "http" | "https") && url.query().is_none() => Ok(()),
                    _ => Err(wrong(mirror, "a mirror begins with http:// or https://, then a host and perhaps a path")),
                }?;
            }
        }
        Ok(Self {
            clients: Clients::new(settings.stall() + settings.stall() / 2)?,
            patience: settings.stall() * 3,
            settings: settings.registry.clone(),
            schemes: Mutex::default(),
        })
    }

    /// The hosts to ask for a reference, in order: mirrors, then the registry itself.
    pub(crate) async fn hosts(&self, reference: &Reference) -> Vec<Host> {
        let domain = reference.domain();
        let mirror = |base: &String| Host { base: base.trim_end_matches('/').into(), mirror_of: Some(domain.into()) };
        let mut hosts: Vec<Host> = self.settings.get(domain).into_iter().flat_map(|s| &s.mirrors).map(mirror).collect();
        hosts.push(self.own(domain).await);
        hosts
    }

    /// The registry itself.
    pub(crate) async fn own(&self, domain: &str) -> Host {
        let base = if domain == DEFAULT_DOMAIN {
            HUB_API.to_owned()
        } else if self.settings.get(domain).is_some_and(|s| s.plain_http) {
            format!("http://{domain}")
        } else if is_loopback(domain) {
            format!("{}://{domain}", self.scheme(domain).await)
        } else {
            format!("https://{domain}")
        };
        Host { base, mirror_of: None }
    }

    /// Where Docker Hub is searched.
    pub(crate) fn hub_index(&self) -> Host {
        Host { base: HUB_INDEX.into(), mirror_of: None }
    }

    /// A loopback registry may speak plain HTTP, as with Docker; one that speaks TLS says so to a plain request.
    async fn scheme(&self, domain: &str) -> &'static str {
        let known = self.schemes.lock().unwrap_or_else(PoisonError::into_inner).get(domain).copied();
        if let Some(scheme) = known {
            return scheme;
        }
        let asked = self.clients.for_content(domain).get(format!("http://{domain}/v2/")).send();
        let scheme = match tokio::time::timeout(self.patience, asked).await {
            Ok(Ok(answer)) if answer.status() != http::StatusCode::BAD_REQUEST => "http",
            Ok(Ok(_)) => "https",
            // Nothing is learnt from a host that is away.
            Ok(Err(_)) | Err(_) => return "http",
        };
        self.schemes.lock().unwrap_or_else(PoisonError::into_inner).insert(domain.into(), scheme);
        scheme
    }

    /// A conversation with one host about one repository.
    pub(crate) fn session(&self, host: Host, reference: &Reference, credentials: Option<&Credentials>) -> Session {
        let credentials = if host.mirror_of.is_none() { credentials.cloned() } else { None };
        Session::new(self.clients.clone(), host, reference, credentials, self.patience)
    }
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
        let with_password = registries("[image.registry.'docker.io']\nmirrors = ['http://me:secret@mirror.lan']");
        assert!(!format!("{}", with_password.unwrap_err()).contains("secret"));
    }
}
