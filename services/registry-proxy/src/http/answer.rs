//! From a request to its answer.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::{
    body::{self, Body, Part},
    range::{self, Selection},
    route::{Route, What},
};
use crate::{
    manifests::Which,
    mirror::{Content, Mirror},
    refusal::Refusal,
    upstream::Upstream,
};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// RFC 7234's words for an answer that may be out of date.
const STALE: HeaderValue = HeaderValue::from_static("110 - \"Response is Stale\"");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Answers a request, whatever it is.
pub(super) async fn to(mirror: &Mirror, request: &Request<Incoming>) -> Response<Body> {
    let mut answer = match content(mirror, request).await {
        Ok(answer) => answer,
        Err(refusal) => refuse(&refusal),
    };
    answer.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    if request.method() == Method::HEAD {
        // The length stays as it was set.
        *answer.body_mut() = body::bytes("");
    }
    answer
}

async fn content(mirror: &Mirror, request: &Request<Incoming>) -> Result<Response<Body>, Refusal> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let message = format!("this is a mirror: {} is not for it; push to the registry itself", request.method());
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message));
    }
    let Some(route) = Route::of(request.uri(), mirror)? else {
        return Ok(in_memory(b"{}".to_vec(), JSON));
    };
    let upstream = mirror.upstream(&route.upstream)?;
    let mut answer = match &route.what {
        What::Manifest(which) => manifest(mirror, upstream, &route.repository, which, request.headers()).await?,
        What::Blob(digest) => {
            let head = request.method() == Method::HEAD;
            blob(mirror, upstream, &route.repository, digest, request.headers(), head).await?
        }
        What::Passed(rest) => passed(mirror, upstream, &route, rest, request).await?,
    };
    if route.by_ns
        && let Ok(value) = HeaderValue::from_str(&route.upstream)
    {
        answer.headers_mut().insert(NAMESPACE, value);
    }
    Ok(answer)
}

async fn manifest(
    mirror: &Mirror,
    upstream: &Arc<Upstream>,
    repository: &str,
    which: &Which,
    asked: &HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let found = mirror.manifests.get(upstream, repository, which).await?;
    let manifest = found.manifest;
    let digest = manifest.digest.to_string();
    let mut answer = if is_known(asked, &digest) {
        not_modified()
    } else {
        upstream.counts().bytes_out.add(manifest.bytes.len() as u64);
        in_memory(manifest.bytes, manifest.media_type)
    };
    name(&mut answer, &digest);
    if found.stale {
        answer.headers_mut().insert(header::WARNING, STALE);
    }
    Ok(answer)
}

async fn blob(
    mirror: &Mirror,
    upstream: &Arc<Upstream>,
    repository: &str,
    digest: &berth_core::Digest,
    asked: &HeaderMap,
    head: bool,
) -> Result<Response<Body>, Refusal> {
    let text = digest.to_string();
    if is_known(asked, &text) && mirror.store.blobs.has(digest) {
        let mut answer = not_modified();
        name(&mut answer, &text);
        return Ok(answer);
    }
    let (size, source) = if head {
        (mirror.blob_size(upstream, repository, digest).await?, None)
    } else {
        match mirror.blob(upstream, repository, digest).await? {
            Content::Whole(blob) => (Some(blob.size), Some((blob.file, None))),
            Content::Arriving(started, reader) => (started.size, Some((started.file, Some(reader)))),
        }
    };
    let range = asked.get(header::RANGE).and_then(|value| value.to_str().ok());
    // A range of something else is none of this.
    let same = asked.get(header::IF_RANGE).is_none_or(|value| value.as_bytes() == format!("\"{text}\"").as_bytes());
    let selection = match (range, size) {
        (Some(range), Some(size)) if same => range::select(range, size),
        _ => Selection::All,
    };
    let mut answer = Response::new(body::bytes(""));
    let headers = answer.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, OCTETS);
    let (begin, end) = match (selection, size) {
        (Selection::Unsatisfiable, Some(size)) => {
            let message = format!("{text} has {size} bytes: there is no range {}", range.unwrap_or_default());
            let mut answer = refuse(&Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message));
            set(answer.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(answer);
        }
        (Selection::Part(begin, end), Some(size)) => {
            set(headers, header::CONTENT_RANGE, &format!("bytes {begin}-{}/{size}", end - 1));
            headers.insert(header::CONTENT_LENGTH, (end - begin).into());
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            (begin, Some(end))
        }
        (_, Some(size)) => {
            headers.insert(header::CONTENT_LENGTH, size.into());
            (0, Some(size))
        }
        (_, None) => (0, None),
    };
    name(&mut answer, &text);
    if let Some((file, reader)) = source {
        *answer.body_mut() = body::file(Part { file, begin, end, reader, upstream: upstream.clone() });
    }
    Ok(answer)
}

async fn passed(
    mirror: &Mirror,
    upstream: &Arc<Upstream>,
    route: &Route,
    rest: &str,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let passed = mirror.passed.get(upstream, &route.repository, rest).await?;
    upstream.counts().bytes_out.add(passed.bytes.len() as u64);
    let mut answer = in_memory(passed.bytes, passed.content_type.unwrap_or(JSON));
    let headers = answer.headers_mut();
    if let Some(next) = passed.link.as_deref().and_then(|link| next_page(link, request.uri().path())) {
        let ns = if route.by_ns { format!("&ns={}", route.upstream) } else { String::new() };
        set(headers, header::LINK, &format!("<{next}{ns}>; rel=\"next\""));
    }
    if let Some(filters) = passed.filters {
        headers.insert(FILTERS_APPLIED, filters);
    }
    if passed.stale {
        headers.insert(header::WARNING, STALE);
    }
    Ok(answer)
}

/// The upstream's next page by the client's own path to it.
fn next_page(link: &str, path: &str) -> Option<String> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = parameters.contains("rel=\"next\"") || parameters.contains("rel=next");
    let (_, query) = target.split_once('?')?;
    next.then(|| format!("{path}?{query}"))
}

fn in_memory(bytes: impl Into<bytes::Bytes>, media_type: HeaderValue) -> Response<Body> {
    let bytes = bytes.into();
    let length = bytes.len();
    let mut answer = Response::new(body::bytes(bytes));
    answer.headers_mut().insert(header::CONTENT_TYPE, media_type);
    answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    answer
}

fn not_modified() -> Response<Body> {
    let mut answer = Response::new(body::bytes(""));
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    answer
}

/// Content is named by its digest, which is also the best entity tag there is.
fn name(answer: &mut Response<Body>, digest: &str) {
    set(answer.headers_mut(), CONTENT_DIGEST, digest);
    set(answer.headers_mut(), header::ETAG, &format!("\"{digest}\""));
}

/// `If-None-Match`
fn is_known(asked: &HeaderMap, digest: &str) -> bool {
    asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.trim_start_matches("W/").trim_matches('"') == digest
        })
    })
}

fn refuse(refusal: &Refusal) -> Response<Body> {
    let mut answer = in_memory(refusal.json(), JSON);
    *answer.status_mut() = refusal.status;
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if let Some(wait) = refusal.retry_after {
        answer.headers_mut().insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
    }
    answer
}

/// Sets a header to a text that was made of checked parts.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => drop(headers.insert(name, value)),
        Err(_) => tracing::error!(%name, value, "not a header"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_asked_for_here() {
        let link = r#"</v2/library/a/tags/list?last=x&n=2>; rel="next""#;
        let path = "/v2/docker.io/a/tags/list";
        assert_eq!(next_page(link, path).unwrap(), "/v2/docker.io/a/tags/list?last=x&n=2");
        assert_eq!(next_page("<https://x/y>; rel=\"prev\"", path), None);
        assert_eq!(next_page("junk", path), None);
    }

    #[test]
    fn entity_tags_are_digests() {
        let asked =
            |value: &'static str| HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(value))]);
        assert!(is_known(&asked("\"sha256:a\""), "sha256:a"));
        assert!(is_known(&asked("W/\"x\", \"sha256:a\""), "sha256:a"));
        assert!(is_known(&asked("*"), "sha256:a"));
        assert!(!is_known(&asked("\"sha256:b\""), "sha256:a"));
    }
}
