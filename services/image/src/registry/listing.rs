//! What a registry says of itself: the tags of a repository, and repositories by a word. Lists come in pages; how many are
//! asked for has a limit, because a registry may have any number.

use http::header;
use reqwest::{Response, Url};
use serde::Deserialize;

use super::{Attempt, Session, session::limited};
use crate::error::Error;

/// Names of one page.
const PAGE: usize = 1000;
/// Pages of one list.
const PAGES: usize = 200;
/// Bytes of one page.
const MAX_PAGE: usize = 16 << 20;

/// A repository that was found.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) description: String,
    #[serde(rename = "star_count")]
    pub(crate) stars: u64,
    #[serde(rename = "is_official")]
    pub(crate) official: bool,
    #[serde(rename = "is_automated")]
    pub(crate) automated: bool,
}

#[derive(Deserialize)]
struct Tags {
    /// Null where there is none.
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Results {
    results: Option<Vec<Found>>,
}

impl Session {
    /// The tags of the repository (distribution-spec, "Listing Tags").
    pub(crate) async fn tags(&self) -> Result<Vec<String>, Attempt> {
        let first = self.url("tags/list");
        let mut all = Vec::new();
        let take = |page: Tags| {
            all.extend(page.tags.unwrap_or_default());
            false
        };
        self.pages(&first, "tags/list", take).await?;
        Ok(all)
    }

    /// Repositories with this in their names, from the list of all of them; `limit` at most.
    pub(crate) async fn catalog(&self, word: &str, limit: usize) -> Result<Vec<Found>, Attempt> {
        let first = format!("{}/v2/_catalog", self.base());
        let mut found: Vec<Found> = Vec::new();
        let take = |page: Catalog| {
            let names = page.repositories.unwrap_or_default().into_iter().filter(|name| name.contains(word));
            found.extend(names.map(|name| Found { name, ..Found::default() }));
            found.len() >= limit
        };
        self.pages(&first, "_catalog", take).await?;
        found.truncate(limit);
        Ok(found)
    }

    /// Asks for repositories as Docker Hub and some others can be asked ("/v1/search"); `None` where this one cannot.
    pub(crate) async fn search(&self, word: &str, limit: usize) -> Result<Option<Vec<Found>>, Attempt> {
        let mut url = self.parsed(&format!("{}/v1/search", self.base()))?;
        url.query_pairs_mut().append_pair("q", word).append_pair("n", &limit.to_string());
        let (answer, authorization) = self.exchange(&url, |http| http.get(url.clone())).await?;
        let status = answer.status();
        let has_it = status.is_success() || matches!(status.as_u16(), 401 | 403 | 429) || status.is_server_error();
        if !has_it {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(self.refused(answer, "search", authorization.as_deref()).await);
        }
        let bytes = limited(answer, MAX_PAGE).await.map_err(|e| e.attempt(self.host(), "what was found"))?;
        // A page for people is no answer.
        let results = serde_json::from_slice::<Results>(&bytes).ok();
        Ok(results.map(|results| {
            let mut found = results.results.unwrap_or_default();
            found.truncate(limit);
            found
        }))
    }

    /// One page after the other, until `take` says that it has enough.
    async fn pages<T: for<'de> Deserialize<'de>>(
        &self,
        first: &str,
        rest: &str,
        mut take: impl FnMut(T) -> bool,
    ) -> Result<(), Attempt> {
        let mut url = self.parsed(first)?;
        url.query_pairs_mut().append_pair("n", &PAGE.to_string());
        for _ in 0..PAGES {
            let (answer, authorization) = self.exchange(&url, |http| http.get(url.clone())).await?;
            if !answer.status().is_success() {
                return Err(self.refused(answer, rest, authorization.as_deref()).await);
            }
            let next = next(&answer, &url);
            let bytes = limited(answer, MAX_PAGE).await.map_err(|e| e.attempt(self.host(), "a list"))?;
            let malformed = || Error::Registry { host: self.host().into(), why: "what it lists is malformed".into() };
            let enough = take(serde_json::from_slice(&bytes).map_err(|_| Attempt::last(malformed()))?);
            match next {
                Some(next) if !enough => url = next,
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}

/// The page behind this one (RFC 8288); one elsewhere than at this host is none of this list.
fn next(answer: &Response, asked: &Url) -> Option<Url> {
    let link = answer.headers().get(header::LINK)?.to_str().ok()?;
    let (target, parameters) = link.split_once('<')?.1.split_once('>')?;
    let is_next = parameters.replace([' ', '"'], "").contains("rel=next");
    let mut url = asked.join(target).ok().filter(|_| is_next)?;
    if url.host_str() == asked.host_str() {
        // A registry behind a proxy may not know by which scheme and port it is reached.
        let _ = url.set_scheme(asked.scheme());
        let _ = url.set_port(asked.port());
    }
    (url.origin() == asked.origin() && url != *asked).then_some(url)
}
