//! What is asked of registries without bringing anything here: tags, manifests, repositories by a word.

use std::{collections::BTreeSet, sync::Arc};

use berth_core::{Digest, Reference, reference::DEFAULT_DOMAIN};
use bytes::Bytes;

use crate::{
    error::Error,
    images::Images,
    manifest::{self, Document},
    registry::{Attempt, Begun, Credentials, Found, Served, Session},
};

/// What Docker finds where nobody says how many.
const USUAL: usize = 25;
const MOST: usize = 100;

/// The tags of a repository.
pub(crate) async fn tags(
    images: &Arc<Images>,
    reference: &Reference,
    credentials: Option<&Credentials>,
) -> Result<Vec<String>, Error> {
    let mut failure = Error::Cancelled;
    for session in sessions(images, reference, credentials).await {
        match session.tags().await {
            Ok(tags) => return Ok(tags),
            Err(attempt) => failure = attempt.error,
        }
    }
    Err(failure)
}

/// A manifest or index as it is served, and where that is wanted the configuration that it names.
pub(crate) async fn manifest(
    images: &Arc<Images>,
    reference: &Reference,
    credentials: Option<&Credentials>,
    with_config: bool,
) -> Result<(Served, Bytes), Error> {
    let target = reference.target();
    let mut failure = Error::Cancelled;
    for session in sessions(images, reference, credentials).await {
        match session.manifest(&target).await {
            Ok(served) => {
                let config = match manifest::parse(&served.bytes, &served.content_type, &reference.familiar()) {
                    Ok(Document::Manifest(manifest)) if with_config => {
                        session.small_blob(&manifest.config.digest).await.map_err(|attempt| attempt.error)?
                    }
                    _ => Bytes::new(),
                };
                return Ok((served, config));
            }
            Err(attempt) => failure = attempt.error,
        }
    }
    Err(failure)
}

/// A manifest of a list, and where it is now.
pub(crate) struct Listed {
    pub(crate) reference: Reference,
    pub(crate) media_type: String,
    pub(crate) manifest: Bytes,
}

/// Puts a list under its tag, after all that it names.
pub(crate) async fn put_list(
    images: &Arc<Images>,
    reference: &Reference,
    credentials: Option<&Credentials>,
    manifests: &[Listed],
    (media_type, list): (&str, &Bytes),
) -> Result<Digest, Error> {
    let mut from = BTreeSet::new();
    for listed in manifests {
        if listed.reference.domain() != reference.domain() {
            return Err(Error::Change(format!(
                "cannot use source images from a different registry than the target image: {} != {}",
                listed.reference.domain(),
                reference.domain()
            )));
        }
        if listed.reference.path() != reference.path() {
            from.insert(listed.reference.path().to_owned());
        }
    }
    let from: Vec<String> = from.into_iter().collect();
    let session = images.registries.session_for_push(reference, credentials, &from).await;
    let last = |attempt: Attempt| attempt.error;
    for listed in manifests {
        let name = listed.reference.familiar();
        let Document::Manifest(manifest) = manifest::parse(&listed.manifest, &listed.media_type, &name)? else {
            return Err(Error::Unusable { what: name, why: "it is a list itself".into() });
        };
        for blob in [&manifest.config].into_iter().chain(&manifest.layers) {
            if session.has_blob(&blob.digest).await.map_err(last)? {
                continue;
            }
            match session.begin(Some((&blob.digest, listed.reference.path()))).await.map_err(last)? {
                Begun::Mounted => {}
                Begun::Upload(_) => {
                    let why = format!("the registry does not mount its blob {} in {}", blob.digest, reference.path());
                    return Err(Error::Unusable { what: name, why });
                }
            }
        }
        let digest = Digest::sha256(&listed.manifest).to_string();
        session.put_manifest(&digest, &listed.media_type, &listed.manifest).await.map_err(last)?;
    }
    session.put_manifest(reference.tag().unwrap_or("latest"), media_type, list).await.map_err(last)?;
    Ok(Digest::sha256(list))
}

/// Mirrors first, then the registry itself, whose answer counts where nobody has a good one.
async fn sessions(images: &Images, reference: &Reference, credentials: Option<&Credentials>) -> Vec<Session> {
    let hosts = images.registries.hosts(reference).await;
    hosts.into_iter().map(|host| images.registries.session(host, reference, credentials)).collect()
}

/// Repositories by a word, and how many may be told; the term may begin with a registry's host.
pub(crate) async fn search(
    images: &Arc<Images>,
    term: &str,
    limit: i64,
    filters: &[String],
    credentials: Option<&Credentials>,
) -> Result<Vec<Found>, Error> {
    let limit = match usize::try_from(limit) {
        Ok(0) => USUAL,
        Ok(limit @ 1..=MOST) => limit,
        _ => return Err(Error::Search(format!("Limit {limit} is outside the range of [1, {MOST}]"))),
    };
    let filter = Filter::parse(filters)?;
    if term.contains("://") {
        return Err(Error::Search(format!("invalid term {term:?}: a registry is named by its host, without a scheme")));
    }
    let (domain, word) = match term.split_once('/') {
        Some((host, word)) if host.contains(['.', ':']) || host == "localhost" => (host, word),
        _ => (DEFAULT_DOMAIN, term),
    };
    // Only the host counts: nothing is asked for of this name.
    let any: Reference = format!("{domain}/search/search").parse()?;
    let host = match domain {
        // Hub is searched where its accounts are, not where its images are.
        DEFAULT_DOMAIN | "index.docker.io" => images.registries.hub_index(),
        _ => images.registries.own(any.domain()).await,
    };
    let session = images.registries.session(host, &any, credentials);
    let found = match session.search(word, limit).await.map_err(|attempt| attempt.error)? {
        Some(found) => found,
        None if any.domain() == DEFAULT_DOMAIN => {
            return Err(Error::Search("Docker Hub cannot be searched now: it does not have its search".into()));
        }
        None => {
            let listed = session.catalog(word, limit).await.map_err(|attempt| match attempt.error {
                Error::Registry { why, .. } => Error::Search(format!(
                    "{domain} cannot be searched: it has neither a search (/v1/search) nor a list of its repositories \
                     (/v2/_catalog): {why}"
                )),
                error => error,
            })?;
            listed.into_iter().map(|found| Found { name: format!("{domain}/{}", found.name), ..found }).collect()
        }
    };
    Ok(found.into_iter().filter(|found| filter.admits(found)).collect())
}

/// `--filter` of `search`.
#[derive(Debug, Default)]
struct Filter {
    stars: u64,
    official: Option<bool>,
    automated: Option<bool>,
}

impl Filter {
    fn parse(texts: &[String]) -> Result<Self, Error> {
        let mut filter = Self::default();
        for text in texts {
            let invalid = |what: String| Error::Search(format!("Invalid filter '{what}'"));
            let (key, value) = text.split_once('=').ok_or_else(|| invalid(text.clone()))?;
            let truth = || match value {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(invalid(format!("{key}=[{value}]"))),
            };
            match key {
                "stars" => filter.stars = filter.stars.max(value.parse().map_err(|_| invalid(text.clone()))?),
                "is-official" => filter.official = Some(truth()?),
                "is-automated" => filter.automated = Some(truth()?),
                _ => return Err(invalid(key.into())),
            }
        }
        Ok(filter)
    }

    fn admits(&self, found: &Found) -> bool {
        found.stars >= self.stars
            && self.official.is_none_or(|wanted| wanted == found.official)
            && self.automated.is_none_or(|wanted| wanted == found.automated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_as_docker_has_them() {
        let parse = |texts: &[&str]| Filter::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let filter = parse(&["stars=3", "is-official=true"]).unwrap();
        let found = Found { stars: 3, official: true, ..Found::default() };
        assert!(filter.admits(&found) && !filter.admits(&Found { stars: 2, ..found.clone() }));
        assert!(!filter.admits(&Found { official: false, ..found }));
        for (text, said) in [("foo=1", "'foo'"), ("is-official=x", "'is-official=[x]'"), ("stars=x", "'stars=x'")] {
            assert_eq!(parse(&[text]).unwrap_err().to_string(), format!("Invalid filter {said}"));
        }
    }
}
