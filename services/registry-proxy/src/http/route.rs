//! Which content of which upstream a request means. Three ways of asking are answered, all at once:
//!
//! - `/v2/library/nginx/…?ns=docker.io`: containerd and the distribution-spec's "Registry Proxying";
//! - `/v2/docker.io/library/nginx/…`: a path prefix;
//! - `/v2/library/nginx/…`: Docker's `registry-mirrors`, which means docker.io.

use berth_core::Digest;
use http::{StatusCode, Uri};
use url::form_urlencoded;

use crate::{manifests::Which, mirror::Mirror, refusal::Refusal, settings::DEFAULT_UPSTREAM};

/// The specification's limit for host and name.
const MAX_NAME: usize = 255;

/// A request, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The name of the upstream.
    pub(super) upstream: String,
    /// It was named by `ns=`.
    pub(super) by_ns: bool,
    pub(super) repository: String,
    pub(super) what: What,
}

/// What of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    Manifest(Which),
    Blob(Digest),
    /// `tags/list` or `referrers/…`, with its query (without `ns`).
    Passed(String),
}

impl Route {
    /// `None` for the base, `/v2/`.
    pub(super) fn of(uri: &Uri, mirror: &Mirror) -> Result<Option<Self>, Refusal> {
        Self::parse(uri, |name| mirror.is_upstream(name))
    }

    fn parse(uri: &Uri, is_upstream: impl Fn(&str) -> bool) -> Result<Option<Self>, Refusal> {
        let path = decoded(uri.path())?;
        let Some(path) = path.strip_prefix("/v2").filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
            return Err(nowhere(&path));
        };
        let path = path.trim_start_matches('/');
        if path.is_empty() {
            return Ok(None);
        }
        let (mut ns, mut query) = (None, form_urlencoded::Serializer::new(String::new()));
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if name == "ns" {
                ns = Some(value.into_owned());
            } else {
                query.append_pair(&name, &value);
            }
        }
        let query = query.finish();
        let with_query = |rest: String| if query.is_empty() { rest } else { format!("{rest}?{query}") };
        let (name, what) = if let Some(name) = path.strip_suffix("/tags/list") {
            (name, What::Passed(with_query("tags/list".into())))
        } else {
            let mut parts = path.rsplitn(3, '/');
            let (Some(target), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
                return Err(nowhere(path));
            };
            match kind {
                "manifests" => (name, What::Manifest(which(target)?)),
                "blobs" => (name, What::Blob(digest(target)?)),
                "referrers" => (name, What::Passed(with_query(format!("referrers/{}", digest(target)?)))),
                _ => return Err(nowhere(path)),
            }
        };
        let by_ns = ns.is_some();
        let (upstream, name) = match ns {
            Some(ns) => (canonical(ns), name),
            None => match name.split_once('/') {
                Some((first, rest)) if is_host(first) || is_upstream(first) => (canonical(first.into()), rest),
                _ => (DEFAULT_UPSTREAM.into(), name),
            },
        };
        let repository = if upstream == DEFAULT_UPSTREAM && !name.contains('/') {
            format!("library/{name}")
        } else {
            name.to_owned()
        };
        if !is_name(&repository) {
            let message = format!("{repository:?} is not the name of a repository");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "NAME_INVALID", message));
        }
        Ok(Some(Self { upstream, by_ns, repository, what }))
    }
}

fn nowhere(path: &str) -> Refusal {
    let message = format!("{path:?} is nothing that a mirror has (distribution-spec, \"Endpoints\")");
    Refusal::new(StatusCode::NOT_FOUND, "UNSUPPORTED", message)
}

/// Docker Hub's names for itself.
fn canonical(name: String) -> String {
    match name.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DEFAULT_UPSTREAM.into(),
        _ => name,
    }
}

/// The first part of a reference is a host by these signs.
fn is_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

fn decoded(path: &str) -> Result<String, Refusal> {
    let wrong = || Refusal::new(StatusCode::BAD_REQUEST, "NAME_INVALID", "the path is wrongly encoded");
    if !path.contains('%') {
        return Ok(path.to_owned());
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut nibble = || (rest.next()? as char).to_digit(16);
        let (Some(high), Some(low)) = (nibble(), nibble()) else { return Err(wrong()) };
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error: berth_core::digest::InvalidDigest| {
        Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", error.to_string())
    })
}

fn which(target: &str) -> Result<Which, Refusal> {
    if target.contains(':') {
        return digest(target).map(Which::Digest);
    }
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let right =
        target.len() <= 128 && target.starts_with(word) && target.chars().all(|c| word(c) || matches!(c, '.' | '-'));
    if right {
        return Ok(Which::Tag(target.to_owned()));
    }
    Err(Refusal::new(StatusCode::BAD_REQUEST, "TAG_INVALID", format!("{target:?} is not a tag")))
}

/// The specification's `<name>`.
fn is_name(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= MAX_NAME
        && name.split('/').all(|part| {
            let separators = part.split(alphanumeric).filter(|run| !run.is_empty());
            part.starts_with(alphanumeric)
                && part.ends_with(alphanumeric)
                && separators
                    .into_iter()
                    .all(|run| matches!(run, "." | "_" | "__") || run.bytes().all(|byte| byte == b'-'))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Result<Option<Route>, Refusal> {
        Route::parse(&uri.parse().unwrap(), |name| name == "plain")
    }

    fn found(uri: &str) -> (String, String) {
        let route = parse(uri).unwrap().unwrap();
        assert_eq!(route.what, What::Manifest(Which::Tag("1".into())));
        (route.upstream, route.repository)
    }

    #[test]
    fn three_ways_of_asking() {
        for (uri, upstream, repository) in [
            ("/v2/library/nginx/manifests/1?ns=docker.io", "docker.io", "library/nginx"),
            ("/v2/nginx/manifests/1?ns=docker.io", "docker.io", "library/nginx"),
            ("/v2/a/b/manifests/1?ns=quay.io", "quay.io", "a/b"),
            ("/v2/a/manifests/1?ns=host%3A5000", "host:5000", "a"),
            ("/v2/docker.io/library/nginx/manifests/1", "docker.io", "library/nginx"),
            ("/v2/docker.io/nginx/manifests/1", "docker.io", "library/nginx"),
            ("/v2/registry-1.docker.io/nginx/manifests/1", "docker.io", "library/nginx"),
            ("/v2/plain/nginx/manifests/1", "plain", "nginx"),
            ("/v2/quay.io/a/b/c/manifests/1", "quay.io", "a/b/c"),
            ("/v2/nginx/manifests/1", "docker.io", "library/nginx"),
            ("/v2/a/b/manifests/1", "docker.io", "a/b"),
        ] {
            assert_eq!(found(uri), (upstream.into(), repository.into()), "{uri}");
        }
        assert_eq!(parse("/v2/").unwrap(), None);
        assert_eq!(parse("/v2").unwrap(), None);
        let tags = parse("/v2/a/b/tags/list?n=5&ns=quay.io&last=x").unwrap().unwrap();
        assert_eq!((tags.what, tags.by_ns), (What::Passed("tags/list?n=5&last=x".into()), true));
    }

    #[test]
    fn what_is_wrong_gets_the_specifications_code() {
        for (uri, code) in [
            ("/v1/search", "UNSUPPORTED"),
            ("/v2x/a/manifests/1", "UNSUPPORTED"),
            ("/v2/a/blobs/uploads/", "UNSUPPORTED"),
            ("/v2/_catalog", "UNSUPPORTED"),
            ("/v2/a/blobs/sha256:12", "DIGEST_INVALID"),
            ("/v2/a/manifests/sha256:zz", "DIGEST_INVALID"),
            ("/v2/a/manifests/.x", "TAG_INVALID"),
            ("/v2/A/manifests/1", "NAME_INVALID"),
            ("/v2/a/../b/manifests/1", "NAME_INVALID"),
            ("/v2/a/%2e%2e/manifests/1", "NAME_INVALID"),
            ("/v2/a%2/manifests/1", "NAME_INVALID"),
            ("/v2/a//b/manifests/1", "NAME_INVALID"),
            ("/v2/a___b/manifests/1", "NAME_INVALID"),
        ] {
            match parse(uri) {
                Err(refusal) if uri == "/v2/a/blobs/uploads/" => assert!(refusal.status.is_client_error()),
                Err(refusal) => assert_eq!(refusal.code, code, "{uri}"),
                Ok(route) => panic!("{uri}: {route:?}"),
            }
        }
    }
}
