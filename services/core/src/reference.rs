//! Image references as Docker reads them: `name[:tag][@digest]`, short names meaning Docker Hub.

use std::{fmt, str::FromStr};

use crate::Digest;

/// The registry that names without a host mean.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The namespace that one-part names on Docker Hub mean.
const OFFICIAL: &str = "library/";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A checked, complete image reference. It has a tag, a digest or both; where neither was written the tag is `latest`.
/// With both, the digest decides and the tag is for people.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// What is wrong with a text that should be a reference. The text is kept short.
#[derive(Debug, thiserror::Error)]
#[error("invalid reference format: {text:?}: {why}")]
pub struct InvalidReference {
    text: String,
    why: String,
}

impl Reference {
    /// Registry host and port, `docker.io` for Docker Hub.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository within the registry, `library/redis`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, where there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `docker.io/library/redis`: the repository with its host.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// What stands for the manifest in a registry's URL: the digest, else the tag.
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }

    /// The same repository by digest alone.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), tag: None, ..self.clone() }
    }

    /// The whole reference as people write it: `redis:4-alpine`.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_repository();
        self.write_target(&mut text);
        text
    }

    /// The repository as people write it, with the host where it is not Docker Hub.
    pub fn familiar_repository(&self) -> String {
        match self.domain.as_str() {
            DEFAULT_DOMAIN => self.path.strip_prefix(OFFICIAL).unwrap_or(&self.path).to_owned(),
            domain => format!("{domain}/{}", self.path),
        }
    }

    fn write_target(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
    }
}

impl fmt::Display for Reference {
    /// The canonical form: `docker.io/library/redis:4-alpine`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.repository();
        self.write_target(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        parse(text).map_err(|why| InvalidReference { text: text.chars().take(160).collect(), why })
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err("64 hex digits are an image ID, not a name".into());
    }
    let (rest, digest) = match text.split_once('@') {
        None => (text, None),
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|e| e.to_string())?)),
    };
    // A colon behind the last slash starts a tag; one before it is a port.
    let after_slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[after_slash..].find(':') {
        None => (rest, None),
        Some(at) => (&rest[..after_slash + at], Some(&rest[after_slash + at + 1..])),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (domain, path) = split_domain(name);
    check_domain(domain)?;
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    let path =
        if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("{OFFICIAL}{path}") } else { path.to_owned() };
    check_path(&path)?;
    if domain.len() + 1 + path.len() > MAX_NAME {
        return Err(format!("the name is longer than {MAX_NAME} characters"));
    }
    let tag = match (tag, &digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference { domain: domain.to_owned(), path, tag, digest })
}

/// The first component is a host if it looks like one: it has a dot, a colon or an upper-case letter, or is
/// `localhost`.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

fn check_domain(domain: &str) -> Result<(), String> {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("the IPv6 address lacks its ]")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("{host:?} is not an IPv6 address"))?;
            (None, rest.strip_prefix(':'))
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if host.is_some_and(|host| !host.split('.').all(label)) {
        return Err(format!("{domain:?} is not a registry host"));
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(format!("the port of {domain:?} is not a number from 0 to 65535"));
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), String> {
    for component in path.split('/') {
        if component.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err("repository name must be lowercase".into());
        }
        if !is_component(component) {
            return Err(format!(
                "{component:?} is not a path component (lower-case letters and digits, joined by one '.', one or two \
                 '_', or any number of '-')"
            ));
        }
    }
    Ok(())
}

fn is_component(component: &str) -> bool {
    let mut separator = String::new();
    let mut started = false;
    for c in component.chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            let joined = matches!(separator.as_str(), "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
            if !joined || (!started && !separator.is_empty()) {
                return false;
            }
            separator.clear();
            started = true;
        } else if matches!(c, '.' | '_' | '-') {
            separator.push(c);
        } else {
            return false;
        }
    }
    started && separator.is_empty()
}

fn check_tag(tag: &str) -> Result<(), String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = tag.bytes();
    let first = bytes.next().is_some_and(word);
    if !first || tag.len() > MAX_TAG || !bytes.all(|b| word(b) || matches!(b, b'.' | b'-')) {
        return Err(format!("{tag:?} is not a tag (a letter, digit or _, then up to 127 of those, '.' and '-')"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn completes_short_names() {
        assert_eq!(canonical("redis"), "docker.io/library/redis:latest");
        assert_eq!(canonical("redis:4-alpine"), "docker.io/library/redis:4-alpine");
        assert_eq!(canonical("user/my_img:v0.1"), "docker.io/user/my_img:v0.1");
        assert_eq!(canonical("index.docker.io/redis"), "docker.io/library/redis:latest");
        assert_eq!(canonical("localhost/redis"), "localhost/redis:latest");
        assert_eq!(canonical("localhost:5000/a/b"), "localhost:5000/a/b:latest");
        assert_eq!(canonical("[::1]:5000/a"), "[::1]:5000/a:latest");
        assert_eq!(canonical("Host/a"), "Host/a:latest");
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let digest = Digest::sha256(b"x");
        assert_eq!(canonical(&format!("redis@{digest}")), format!("docker.io/library/redis@{digest}"));
        let both: Reference = format!("redis:4@{digest}").parse().unwrap();
        assert_eq!((both.tag(), both.target()), (Some("4"), digest.to_string()));
    }

    #[test]
    fn familiar_is_what_was_typed() {
        for text in ["redis:4-alpine", "user/img:v1", "ghcr.io/a/b:c", "127.0.0.1:5000/library/x:y"] {
            assert_eq!(text.parse::<Reference>().unwrap().familiar(), text);
        }
    }

    #[test]
    fn refuses_with_a_reason() {
        let id = "a".repeat(64);
        for (text, why) in [
            ("", "empty"),
            (id.as_str(), "image ID"),
            ("Redis", "lowercase"),
            ("redis:", "tag"),
            ("redis@sha256:12", "length"),
            ("a//b", "component"),
            ("../../etc/passwd", "host"),
            ("a/../b", "component"),
            ("a___b", "component"),
            ("host:99999/a", "port"),
            ("ex_ample.com/a", "host"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_reads_itself_back(text in "[a-zA-Z0-9:/@._\\-\\[\\]]{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference.clone());
                prop_assert_eq!(reference.familiar().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
