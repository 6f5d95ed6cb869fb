//! The mirror: the upstreams, what is here of them, and what is on its way.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use berth_core::Digest;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::{
    Error,
    fill::{Fills, Reader, Started},
    manifests::Manifests,
    negative::Negative,
    passed::PassedThrough,
    refusal::Refusal,
    settings::Settings,
    store::{Blob, Store},
    upstream::{Ask, Upstream},
};

/// "There is no such blob" holds for this long.
const NEGATIVE: Duration = Duration::from_secs(5);
/// How often beginnings of blobs are looked for that are not worth keeping.
const LOOKS_AFTER: Duration = Duration::from_secs(3600);
/// How often a blob is looked for again that arrived and was evicted in the same moment.
const LOOKS: u32 = 3;

/// Everything that is served.
pub(crate) struct Mirror {
    pub(crate) store: Arc<Store>,
    pub(crate) manifests: Arc<Manifests>,
    pub(crate) passed: PassedThrough,
    fills: Arc<Fills>,
    negative: Negative,
    upstreams: BTreeMap<String, Arc<Upstream>>,
}

/// Where a blob's bytes are.
pub(crate) enum Content {
    Whole(Blob),
    Arriving(Started, Reader),
}

impl Mirror {
    pub(crate) fn new(store: Store, settings: &Settings) -> Result<Self, Error> {
        let store = Arc::new(store);
        let upstreams = settings
            .upstream
            .iter()
            .map(|(name, settings)| Ok((name.clone(), Arc::new(Upstream::new(name, settings)?))))
            .collect::<Result<_, Error>>()?;
        let fills = Arc::new(Fills::new(store.clone()));
        tokio::spawn(Self::keep_tidy(Arc::downgrade(&fills)));
        Ok(Self {
            manifests: Arc::new(Manifests::new(store.clone(), settings.tag_ttl)),
            fills,
            passed: PassedThrough::default(),
            negative: Negative::default(),
            store,
            upstreams,
        })
    }

    /// Deletes, now and then, what nobody has asked for again.
    async fn keep_tidy(fills: Weak<Fills>) {
        let mut looks = tokio::time::interval(LOOKS_AFTER);
        loop {
            looks.tick().await;
            let Some(fills) = fills.upgrade() else { return };
            // It only tidies up.
            let _ = tokio::task::spawn_blocking(move || fills.sweep()).await;
        }
    }

    pub(crate) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// The upstream of this name; only those configured are asked for anything.
    pub(crate) fn upstream(&self, name: &str) -> Result<&Arc<Upstream>, Refusal> {
        self.upstreams.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.upstreams.keys().map(String::as_str).collect();
            let message = format!(
                "{name} is not mirrored here (mirrored: {}); add [registry-proxy.upstream.{name:?}] to the configuration",
                known.join(", ")
            );
            Refusal::new(StatusCode::FORBIDDEN, "DENIED", message)
        })
    }

    pub(crate) fn is_upstream(&self, name: &str) -> bool {
        self.upstreams.contains_key(name)
    }

    /// A blob to be served: from here, or as it arrives.
    pub(crate) async fn blob(
        &self,
        upstream: &Arc<Upstream>,
        repository: &str,
        digest: &Digest,
    ) -> Result<Content, Refusal> {
        for _ in 0..LOOKS {
            if let Some(blob) = self.whole(digest).await? {
                upstream.counts().hits.add(1);
                return Ok(Content::Whole(blob));
            }
            let key = format!("{} {repository} {digest}", upstream.name());
            if let Some(refusal) = self.negative.get(&key) {
                return Err(refusal);
            }
            let Some((mut reader, joined)) = self.fills.join(digest, upstream, repository) else { continue };
            if joined {
                upstream.counts().hits.add(1);
            } else {
                upstream.counts().misses.add(1);
            }
            return match reader.started().await {
                Ok(started) => Ok(Content::Arriving(started, reader)),
                Err(refusal) => {
                    self.negative.put(key, &refusal, NEGATIVE);
                    Err(refusal)
                }
            };
        }
        Err(Refusal::unavailable(format!("{digest} is evicted as soon as it arrives"), Duration::from_secs(1)))
    }

    /// A blob's size: from here, or from the upstream without its content.
    pub(crate) async fn blob_size(
        &self,
        upstream: &Arc<Upstream>,
        repository: &str,
        digest: &Digest,
    ) -> Result<Option<u64>, Refusal> {
        if let Some(blob) = self.whole(digest).await? {
            upstream.counts().hits.add(1);
            return Ok(Some(blob.size));
        }
        if let Some(mut reader) = self.fills.under_way(digest)
            && let Ok(Started { size: Some(size), .. }) = reader.started().await
        {
            upstream.counts().hits.add(1);
            return Ok(Some(size));
        }
        upstream.counts().misses.add(1);
        let key = format!("{} {repository} {digest}", upstream.name());
        if let Some(refusal) = self.negative.get(&key) {
            return Err(refusal);
        }
        let rest = format!("blobs/{digest}");
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let ask = Ask { method: Method::HEAD, repository, rest: &rest, headers, persistent: false };
        match upstream.ask(ask).await {
            // The client's own idea of the length is of the body that a HEAD does not have.
            Ok(head) => Ok(head
                .headers()
                .get(header::CONTENT_LENGTH)
                .and_then(|value: &HeaderValue| value.to_str().ok()?.parse().ok())),
            Err(refusal) => {
                self.negative.put(key, &refusal, NEGATIVE);
                Err(refusal)
            }
        }
    }

    async fn whole(&self, digest: &Digest) -> Result<Option<Blob>, Refusal> {
        if !self.store.blobs.has(digest) {
            return Ok(None);
        }
        let (store, digest) = (self.store.clone(), digest.clone());
        match tokio::task::spawn_blocking(move || store.blobs.get(&digest)).await {
            Ok(blob) => blob.map_err(|error| Refusal::own("cannot open a blob", &error)),
            Err(_) => Err(Refusal::upstream("opening a blob broke off")),
        }
    }
}
