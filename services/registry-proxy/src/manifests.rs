//! Manifests: by digest from here for ever, by tag from here for a while.
//!
//! A manifest lies among the blobs; its media type and what tags pointed at stand in the records. A tag is revalidated
//! at most once per `tag_ttl`, by HEAD, which costs nothing of Docker Hub's allowance; while the upstream is away, the
//! last answer is served and said to be stale.

use std::{
    collections::HashMap,
    io::Read as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use berth_core::Digest;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use reqwest::Response;

use crate::{
    flights::Flights,
    negative::Negative,
    refusal::Refusal,
    store::{Store, Tag},
    upstream::{Ask, Upstream, limited},
};

/// Larger ones are not taken; the specification asks for four.
const MAX: usize = 8 << 20;
/// "There is none" holds for this long.
const NEGATIVE: Duration = Duration::from_secs(30);
/// Manifests of at most this size are also kept in memory, so many of them.
const HOT: (usize, usize) = (64 << 10, 256);
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.artifact.manifest.v1+json, */*;q=0.1";

/// A manifest as it is served.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: HeaderValue,
    pub(crate) bytes: Bytes,
}

/// A manifest, and how it came about.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) manifest: Manifest,
    /// The upstream could not be asked whether this is still so.
    pub(crate) stale: bool,
}

/// A tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Tag(String),
    Digest(Digest),
}

/// All manifests.
pub(crate) struct Manifests {
    store: Arc<Store>,
    tag_ttl: u64,
    negative: Negative,
    flights: Flights<String, Result<Found, Refusal>>,
    hot: Mutex<HashMap<Digest, Manifest>>,
}

impl Manifests {
    pub(crate) fn new(store: Arc<Store>, tag_ttl: u64) -> Self {
        let (negative, flights, hot) = (Negative::default(), Flights::default(), Mutex::default());
        Self { store, tag_ttl, negative, flights, hot }
    }

    /// From here or from the upstream.
    pub(crate) async fn get(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        repository: &str,
        which: &Which,
    ) -> Result<Found, Refusal> {
        let fresh = match which {
            Which::Digest(digest) => self.kept(digest).await?,
            Which::Tag(tag) => match self.tag(&key(upstream, repository, tag))? {
                Some(record) if now().saturating_sub(record.checked) < self.tag_ttl => {
                    self.kept(&record.digest).await?
                }
                _ => None,
            },
        };
        if let Some(manifest) = fresh {
            upstream.counts().hits.add(1);
            return Ok(Found { manifest, stale: false });
        }
        upstream.counts().misses.add(1);
        let key = match which {
            Which::Digest(digest) => key(upstream, repository, &digest.to_string()),
            Which::Tag(tag) => key(upstream, repository, tag),
        };
        if let Some(refusal) = self.negative.get(&key) {
            return Err(refusal);
        }
        let (this, upstream, repository, which) =
            (self.clone(), upstream.clone(), repository.to_owned(), which.clone());
        let found =
            self.flights.join(key.clone(), || async move { this.ask(&upstream, &repository, &which, key).await }).await;
        found.unwrap_or_else(|| Err(Refusal::upstream("asking for a manifest broke off")))
    }

    async fn ask(
        &self,
        upstream: &Arc<Upstream>,
        repository: &str,
        which: &Which,
        key: String,
    ) -> Result<Found, Refusal> {
        let result = match which {
            Which::Digest(digest) => match self.kept(digest).await? {
                // It came between the look and the flight.
                Some(manifest) => Ok(manifest),
                None => self.fetch(upstream, repository, &digest.to_string(), None).await,
            },
            Which::Tag(tag) => self.revalidate(upstream, repository, tag, &key).await,
        };
        let refusal = match result {
            Ok(manifest) => return Ok(Found { manifest, stale: false }),
            Err(refusal) => refusal,
        };
        if let Which::Tag(_) = which
            && let Some(record) = self.tag(&key)?
        {
            if refusal.is_outage() {
                if let Some(manifest) = self.kept(&record.digest).await? {
                    tracing::warn!(key, %refusal, "served as it was last known");
                    upstream.counts().stale.add(1);
                    return Ok(Found { manifest, stale: true });
                }
            } else if refusal.status == http::StatusCode::NOT_FOUND {
                let (store, key) = (self.store.clone(), key.clone());
                records(move || store.records.remove_tag(&key)).await?;
            }
        }
        self.negative.put(key, &refusal, NEGATIVE);
        Err(refusal)
    }

    /// Asks what a tag points at, and for the manifest where it is not here.
    async fn revalidate(
        &self,
        upstream: &Arc<Upstream>,
        repository: &str,
        tag: &str,
        key: &str,
    ) -> Result<Manifest, Refusal> {
        if let Some(record) = self.tag(key)?
            && let Some(manifest) = self.kept(&record.digest).await?
        {
            let rest = format!("manifests/{tag}");
            let headers = accept();
            let head =
                upstream.ask(Ask { method: Method::HEAD, repository, rest: &rest, headers, persistent: false }).await?;
            if announced(&head).as_ref() == Some(&record.digest) {
                let (store, key) = (self.store.clone(), key.to_owned());
                let record = Tag { checked: now(), ..record };
                records(move || store.records.set(None, Some((&key, &record)))).await?;
                return Ok(manifest);
            }
            // It moved, perhaps to something that is here.
            if let Some(digest) = announced(&head)
                && let Some(manifest) = self.kept(&digest).await?
            {
                let (store, key, record) = (self.store.clone(), key.to_owned(), Tag { digest, checked: now() });
                records(move || store.records.set(None, Some((&key, &record)))).await?;
                return Ok(manifest);
            }
        }
        self.fetch(upstream, repository, tag, Some(key)).await
    }

    /// Gets a manifest, verifies it and keeps it. `tag` is its key, where it is asked for by tag.
    async fn fetch(
        &self,
        upstream: &Arc<Upstream>,
        repository: &str,
        target: &str,
        tag: Option<&str>,
    ) -> Result<Manifest, Refusal> {
        let rest = format!("manifests/{target}");
        let headers = accept();
        let answer =
            upstream.ask(Ask { method: Method::GET, repository, rest: &rest, headers, persistent: false }).await?;
        let media_type = answer.headers().get(header::CONTENT_TYPE).cloned();
        let said = announced(&answer);
        let bytes = limited(answer, MAX)
            .await
            .map_err(|why| Refusal::upstream(format!("{}'s {repository}/{rest}: {why}", upstream.name())))?;
        upstream.counts().bytes_in.add(bytes.len() as u64);
        let wanted = target.parse::<Digest>().ok();
        let digest = match wanted.as_ref().or(said.as_ref()) {
            None => Digest::sha256(&bytes),
            Some(wanted) => {
                let mut hasher = wanted.algorithm().hasher();
                hasher.update(&bytes);
                hasher.finish()
            }
        };
        if let Some(wanted) = wanted.or(said).filter(|wanted| *wanted != digest) {
            let message = format!("{} sent {digest} where {wanted} was asked for", upstream.name());
            upstream.accuse(&message);
            return Err(Refusal::upstream(message));
        }
        let media_type = media_type.unwrap_or_else(|| guess(&bytes));
        let manifest = Manifest { digest, media_type, bytes };
        let (store, kept) = (self.store.clone(), manifest.clone());
        let key = tag.map(str::to_owned);
        let stored = tokio::task::spawn_blocking(move || {
            store.blobs.put(&kept.digest, &kept.bytes).map_err(|e| Refusal::own("cannot store a manifest", &e))?;
            let record = Tag { digest: kept.digest.clone(), checked: now() };
            let media_type = kept.media_type.to_str().unwrap_or_default();
            store
                .records
                .set(Some((&kept.digest, media_type)), key.as_deref().map(|key| (key, &record)))
                .map_err(|e| Refusal::own("cannot record a manifest", &e))
        });
        stored.await.map_err(|_| Refusal::upstream("storing a manifest broke off"))??;
        self.heat(&manifest);
        Ok(manifest)
    }

    fn tag(&self, key: &str) -> Result<Option<Tag>, Refusal> {
        self.store.records.tag(key).map_err(|error| Refusal::own("cannot read a tag's record", &error))
    }

    /// A manifest that is here. Read from disk it is verified again, as cheap as that is.
    async fn kept(&self, digest: &Digest) -> Result<Option<Manifest>, Refusal> {
        let hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned();
        if hot.is_some() {
            return Ok(hot);
        }
        if !self.store.blobs.has(digest) {
            return Ok(None);
        }
        let (store, wanted) = (self.store.clone(), digest.clone());
        let read = tokio::task::spawn_blocking(move || read(&store, &wanted));
        let manifest = read.await.map_err(|_| Refusal::upstream("reading a manifest broke off"))??;
        if let Some(manifest) = &manifest {
            self.heat(manifest);
        }
        Ok(manifest)
    }

    fn heat(&self, manifest: &Manifest) {
        if manifest.bytes.len() > HOT.0 {
            return;
        }
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        if hot.len() >= HOT.1 {
            hot.clear();
        }
        hot.insert(manifest.digest.clone(), manifest.clone());
    }
}

fn read(store: &Store, digest: &Digest) -> Result<Option<Manifest>, Refusal> {
    let failed = |error: std::io::Error| Refusal::own("cannot read a manifest", &error);
    let Some(blob) = store.blobs.get(digest).map_err(failed)? else { return Ok(None) };
    if blob.size > MAX as u64 {
        let message = format!("{digest} is a blob of {} bytes, not a manifest", blob.size);
        return Err(Refusal::new(http::StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", message));
    }
    let mut bytes = Vec::with_capacity(blob.size as usize);
    (&*blob.file).read_to_end(&mut bytes).map_err(failed)?;
    let mut hasher = digest.algorithm().hasher();
    hasher.update(&bytes);
    if hasher.finish() != *digest {
        tracing::error!(%digest, "a manifest was damaged on disk; it is fetched again");
        store.blobs.remove(digest).map_err(failed)?;
        return Ok(None);
    }
    let recorded = store.records.media_type(digest).map_err(|e| Refusal::own("cannot read a record", &e))?;
    let media_type = recorded.and_then(|text| HeaderValue::from_str(&text).ok()).unwrap_or_else(|| guess(&bytes));
    Ok(Some(Manifest { digest: digest.clone(), media_type, bytes: bytes.into() }))
}

/// The media type that a manifest has by its own word or shape.
fn guess(bytes: &[u8]) -> HeaderValue {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let said = value["mediaType"].as_str().and_then(|text| HeaderValue::from_str(text).ok());
    said.unwrap_or_else(|| {
        HeaderValue::from_static(if value["manifests"].is_array() {
            "application/vnd.oci.image.index.v1+json"
        } else if value["config"].is_object() {
            "application/vnd.oci.image.manifest.v1+json"
        } else {
            "application/octet-stream"
        })
    })
}

fn accept() -> HeaderMap {
    HeaderMap::from_iter([
        (header::ACCEPT, HeaderValue::from_static(ACCEPT)),
        (header::ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    ])
}

fn announced(answer: &Response) -> Option<Digest> {
    answer.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// Names cannot hold spaces.
fn key(upstream: &Upstream, repository: &str, target: &str) -> String {
    format!("{} {repository} {target}", upstream.name())
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn records(work: impl FnOnce() -> Result<(), redb::Error> + Send + 'static) -> Result<(), Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| Refusal::own("cannot write a record", &error)),
        Err(_) => Err(Refusal::upstream("writing a record broke off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_says_what_it_is() {
        for (text, media_type) in [
            (r#"{"mediaType":"a/b"}"#, "a/b"),
            (r#"{"manifests":[]}"#, "application/vnd.oci.image.index.v1+json"),
            (r#"{"config":{}}"#, "application/vnd.oci.image.manifest.v1+json"),
            ("no JSON", "application/octet-stream"),
        ] {
            assert_eq!(guess(text.as_bytes()), media_type);
        }
    }
}
