//! Lists of tags and referrers: passed through, and remembered shortly, for they change.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};

use crate::{
    flights::Flights,
    refusal::Refusal,
    upstream::{Ask, Upstream, limited},
};

const TTL: Duration = Duration::from_secs(30);
/// Longer ones are not taken.
const MAX: usize = 4 << 20;
/// More than this many bytes of answers are forgotten, all at once.
const MAX_KEPT: usize = 32 << 20;

/// An answer as it came.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    pub(crate) content_type: Option<HeaderValue>,
    /// The next page, as the upstream names it.
    pub(crate) link: Option<String>,
    /// `OCI-Filters-Applied`.
    pub(crate) filters: Option<HeaderValue>,
    pub(crate) bytes: Bytes,
    /// The upstream could not be asked whether this is still so.
    pub(crate) stale: bool,
}

/// Answers that are remembered.
#[derive(Default)]
pub(crate) struct PassedThrough {
    kept: Arc<Mutex<HashMap<String, (Passed, Instant)>>>,
    flights: Flights<String, Result<Passed, Refusal>>,
}

impl PassedThrough {
    /// `rest` is what stands behind the repository, with its query.
    pub(crate) async fn get(&self, upstream: &Arc<Upstream>, repository: &str, rest: &str) -> Result<Passed, Refusal> {
        let key = format!("{} {repository} {rest}", upstream.name());
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((passed, until)) = &kept
            && *until > Instant::now()
        {
            upstream.counts().hits.add(1);
            return Ok(passed.clone());
        }
        upstream.counts().misses.add(1);
        let (all, at) = (self.kept.clone(), key.clone());
        let (asked, repository, rest) = (upstream.clone(), repository.to_owned(), rest.to_owned());
        let work = || async move {
            let passed = ask(&asked, &repository, &rest).await?;
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            if all.values().map(|(passed, _)| passed.bytes.len()).sum::<usize>() > MAX_KEPT {
                all.clear();
            }
            all.insert(at, (passed.clone(), Instant::now() + TTL));
            Ok(passed)
        };
        let answer = self.flights.join(key, work).await;
        match (answer.unwrap_or_else(|| Err(Refusal::upstream("asking broke off"))), kept) {
            (Err(refusal), Some((passed, _))) if refusal.is_outage() => {
                upstream.counts().stale.add(1);
                Ok(Passed { stale: true, ..passed })
            }
            (answer, _) => answer,
        }
    }
}

async fn ask(upstream: &Upstream, repository: &str, rest: &str) -> Result<Passed, Refusal> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let ask = Ask { method: Method::GET, repository, rest, headers, persistent: false };
    let answer = upstream.ask(ask).await?;
    let header = |name: &str| answer.headers().get(name).cloned();
    let content_type = header("content-type");
    let link = header("link").and_then(|value| value.to_str().ok().map(str::to_owned));
    let filters = header("oci-filters-applied");
    let bytes = limited(answer, MAX)
        .await
        .map_err(|why| Refusal::upstream(format!("{}'s {repository}/{rest}: {why}", upstream.name())))?;
    upstream.counts().bytes_in.add(bytes.len() as u64);
    Ok(Passed { content_type, link, filters, bytes, stale: false })
}
