//! `[registry-proxy]`
//!
//! Without the section nothing is listened on. With it, the address has a default, and docker.io is mirrored unless
//! upstreams are named; only what is named is ever asked, so this is no open proxy.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use berth_core::config;
use serde::Deserialize;
use url::Url;

/// The upstream that a client means that names none.
pub(crate) const DEFAULT_UPSTREAM: &str = "docker.io";

/// The service's section of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where HTTP is served; empty: nowhere. Port 0 is any free one.
    #[serde(default = "listen")]
    pub(crate) listen: String,
    /// Seconds for which a tag's digest is taken to be still right.
    #[serde(default = "tag_ttl")]
    pub(crate) tag_ttl: u64,
    /// Bytes of blobs to keep; what was not pulled for longest goes first. 0: all.
    #[serde(default)]
    pub(crate) max_size: u64,
    /// The registries to mirror, by their hosts as they stand in references.
    #[serde(default = "upstreams")]
    pub(crate) upstream: BTreeMap<String, Upstream>,
}

/// `[registry-proxy.upstream."HOST"]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upstream {
    /// Where its API is; `https://HOST` where unset.
    pub(crate) url: Option<String>,
    /// Who to be there; nobody where unset.
    pub(crate) username: Option<String>,
    /// A file that holds the password, alone.
    pub(crate) password_file: Option<PathBuf>,
}

fn listen() -> String {
    "127.0.0.1:5080".into()
}

fn tag_ttl() -> u64 {
    60
}

fn upstreams() -> BTreeMap<String, Upstream> {
    BTreeMap::from([(DEFAULT_UPSTREAM.to_owned(), Upstream::default())])
}

impl Default for Settings {
    fn default() -> Self {
        Self { listen: String::new(), tag_ttl: tag_ttl(), max_size: 0, upstream: upstreams() }
    }
}

impl Settings {
    /// Refuses what cannot be meant, before anything is opened.
    pub(crate) fn check(&self) -> Result<(), config::Error> {
        for (name, upstream) in &self.upstream {
            upstream.base(name)?;
            upstream.credentials(name)?;
            if let Some(file) = upstream.password_file.as_deref().filter(|file| is_public(file)) {
                tracing::warn!(
                    upstream = name, file = %file.display(),
                    "others than its owner may read this password file; change that with `chmod 600`"
                );
            }
        }
        Ok(())
    }
}

impl Upstream {
    /// Where its API is, without a slash at the end.
    pub(crate) fn base(&self, name: &str) -> Result<Url, config::Error> {
        let text = match &self.url {
            Some(url) => url.clone(),
            None if name == DEFAULT_UPSTREAM => "https://registry-1.docker.io".into(),
            None => format!("https://{name}"),
        };
        let wrong = |why: &str| config::Error::Value {
            key: format!("registry-proxy.upstream.{name:?}.url"),
            value: text.clone(),
            why: why.into(),
        };
        let url = Url::parse(&text).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong("it begins with http:// or https:// and names a host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("credentials belong in username and password_file"));
        }
        Ok(url)
    }

    /// User and password, where there are any.
    pub(crate) fn credentials(&self, name: &str) -> Result<Option<(String, String)>, config::Error> {
        let (user, file) = match (&self.username, &self.password_file) {
            (None, None) => return Ok(None),
            (Some(user), Some(file)) => (user, file),
            (Some(user), None) => {
                return Err(config::Error::Value {
                    key: format!("registry-proxy.upstream.{name:?}.username"),
                    value: user.clone(),
                    why: "password_file is missing".into(),
                });
            }
            (None, Some(file)) => return Err(password_file(name, file, "username is missing")),
        };
        let password = std::fs::read_to_string(file).map_err(|error| password_file(name, file, &error.to_string()))?;
        Ok(Some((user.clone(), password.trim_end_matches(['\r', '\n']).to_owned())))
    }
}

fn is_public(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

fn password_file(name: &str, file: &Path, why: &str) -> config::Error {
    config::Error::Value {
        key: format!("registry-proxy.upstream.{name:?}.password_file"),
        value: file.display().to_string(),
        why: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, config::Error> {
        let settings: Settings = config::Node::parse(text, Path::new("test.toml"))?.section(crate::NAME)?;
        settings.check()?;
        Ok(settings)
    }

    #[test]
    fn without_the_section_nothing_is_listened_on() {
        assert_eq!(parse("").unwrap().listen, "");
        let settings = parse("[registry-proxy]").unwrap();
        assert_eq!(settings.listen, "127.0.0.1:5080");
        assert_eq!(settings.upstream.keys().collect::<Vec<_>>(), ["docker.io"]);
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (text, named) in [
            ("[registry-proxy]\nlisen = ':1'", "lisen"),
            ("[registry-proxy.upstream.\"a.io\"]\nurl = 'ftp://a.io'", "a.io"),
            ("[registry-proxy.upstream.\"a.io\"]\nurl = 'https://u:p@a.io'", "password_file"),
            ("[registry-proxy.upstream.\"a.io\"]\nusername = 'u'", "password_file is missing"),
            ("[registry-proxy.upstream.\"a.io\"]\nusername = 'u'\npassword_file = '/nowhere'", "/nowhere"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
