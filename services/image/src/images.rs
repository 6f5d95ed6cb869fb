//! The images of the node: what is known of them, and how that changes.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use berth_core::{Digest, Platform, Reference};
use bytes::Bytes;

use crate::{
    error::Error,
    events::Events,
    held::{Held, Turns},
    leftovers::Leftovers,
    pull::Flights,
    registry::Registries,
    settings::Settings,
    snapshots::Snapshots,
    store::{All, Record, Store, Stored},
    uses::Uses,
};

/// Everything that the service is about.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) store: Store,
    pub(crate) snapshots: Snapshots,
    pub(crate) registries: Registries,
    pub(crate) settings: Settings,
    pub(crate) flights: Flights,
    pub(crate) uses: Uses,
    pub(crate) held: Held,
    pub(crate) leftovers: Leftovers,
    pub(crate) events: Events,
    /// Who writes which blob.
    pub(crate) turns: Turns,
    /// Who removes which snapshot.
    pub(crate) removals: Turns,
}

impl Images {
    pub(crate) fn new(store: Store, snapshots: Snapshots, registries: Registries, settings: Settings) -> Self {
        Self {
            store,
            snapshots,
            registries,
            settings,
            flights: Flights::default(),
            events: Events::default(),
            uses: Uses::default(),
            held: Held::default(),
            leftovers: Leftovers::default(),
            turns: Turns::default(),
            removals: Turns::default(),
        }
    }

    /// An image's configuration, from memory where it was asked for before.
    pub(crate) async fn config(self: &Arc<Self>, id: &Digest) -> Result<Arc<Stored>, Error> {
        if let Some(stored) = self.store.configs.known(id) {
            return Ok(stored);
        }
        let (images, id) = (Arc::clone(self), id.clone());
        blocking(move || images.store.configs.get(&images.store.blobs, &id)).await
    }

    /// Makes an image visible: its documents and layers become durable, then its record. The names move to it. Answers
    /// whether that changed anything.
    pub(crate) async fn record(
        self: &Arc<Self>,
        record: Record,
        documents: Vec<(Digest, Bytes)>,
        names: Vec<Reference>,
    ) -> Result<bool, Error> {
        let images = Arc::clone(self);
        blocking(move || {
            for (digest, document) in &documents {
                images.store.blobs.put(digest, document)?;
            }
            let blobs: Vec<Digest> = record.blobs().cloned().collect();
            images.store.blobs.settle(&blobs)?;
            let (changed, before) = images.store.records.change(|all| {
                let before = all.get(&record.id).cloned();
                let named = |name: &Reference| all.get(&record.id).is_some_and(|r| r.names.contains(&name.to_string()));
                let changed = before.is_none() || !names.iter().all(named);
                let mut new = record.clone();
                if let Some(before) = &before {
                    new.names = before.names.clone();
                    new.last_tagged = before.last_tagged;
                    new.parent = new.parent.or_else(|| before.parent.clone());
                    new.repo_digests.extend(before.repo_digests.iter().cloned());
                    // What a registry serves is worth more than what was put together for an archive.
                    if record.repo_digests.is_empty() && !before.repo_digests.is_empty() {
                        let repo_digests = new.repo_digests;
                        new = Record { repo_digests, ..before.clone() };
                    }
                }
                all.insert(record.id.clone(), new);
                for name in &names {
                    give_name(all, &record.id, name);
                }
                Ok((changed, before))
            })?;
            // Another manifest or other blobs of the same layers took the place of those.
            images.discard(before.iter().flat_map(Record::blobs).chain(record.blobs()))?;
            Ok(changed)
        })
        .await
    }

    /// The one image that a person means: by name, by name and digest, by ID or a beginning of it.
    pub(crate) fn find(&self, text: &str) -> Result<Record, Error> {
        let found = find_in(&self.store.records.all(), text)?.cloned();
        found.ok_or_else(|| Error::absent(text))
    }

    /// As [`Images::find`], for a platform (empty for any).
    pub(crate) async fn find_for(self: &Arc<Self>, text: &str, platform: &str) -> Result<(Record, Arc<Stored>), Error> {
        let record = self.find(text)?;
        let stored = self.config(&record.id).await?;
        if !platform.is_empty() {
            let wanted: Platform = platform.parse()?;
            let is = stored.config.platform();
            if wanted.rank(&is).is_none() {
                let (is, wanted) = (is.to_string(), wanted.to_string());
                return Err(Error::OtherPlatform { reference: text.into(), is, wanted });
            }
        }
        Ok((record, stored))
    }

    /// An owner uses an image from now on, unless it went meanwhile.
    pub(crate) fn begin_use(&self, owner: &str, id: &Digest, text: &str) -> Result<(), Error> {
        let absent = || Error::absent(text);
        if !self.uses.begin(owner, id) {
            return Err(absent());
        }
        // It may have been removed between being found and being used.
        if !self.store.records.all().contains_key(id) {
            self.uses.end(owner);
            return Err(absent());
        }
        Ok(())
    }

    /// Another name for an image.
    pub(crate) async fn tag(self: &Arc<Self>, source: &str, target: &str) -> Result<Record, Error> {
        let target: Reference = target.parse()?;
        if target.digest().is_some() {
            return Err(Error::Change("refusing to create a tag with a digest reference".into()));
        }
        let (images, source) = (Arc::clone(self), source.to_owned());
        blocking(move || {
            images.store.records.change(|all| {
                let found = find_in(all, &source)?.map(|record| record.id.clone());
                let id = found.ok_or_else(|| Error::absent(&source))?;
                give_name(all, &id, &target);
                all.get(&id).cloned().ok_or_else(|| Error::absent(&source))
            })
        })
        .await
    }

    /// The blob that holds a layer here, learnt from the images that have it.
    pub(crate) fn blob_of_layer(&self, diff_id: &Digest) -> Option<Digest> {
        let all = self.store.records.all();
        let mut pairs = all.values().flat_map(|record| record.diff_ids.iter().zip(&record.layers));
        pairs.find(|(id, _)| *id == diff_id).map(|(_, blob)| blob.clone())
    }
}

/// Runs what touches the disk where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let span = tracing::Span::current();
    let result = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    result.unwrap_or(Err(Error::Panicked { what: "the call" }))
}

fn give_name(all: &mut All, id: &Digest, name: &Reference) {
    // A tag's name has no digest, whatever it was pulled by.
    let name = format!("{}:{}", name.repository(), name.tag().unwrap_or("latest"));
    if all.get(id).is_some_and(|record| record.names.contains(&name)) {
        return;
    }
    for record in all.values_mut() {
        record.names.remove(&name);
    }
    if let Some(record) = all.get_mut(id) {
        record.names.insert(name);
        record.last_tagged = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    }
}

pub(crate) fn find_in<'a>(all: &'a All, text: &str) -> Result<Option<&'a Record>, Error> {
    if let Ok(reference) = text.parse::<Reference>() {
        let holds = |names: &BTreeSet<String>, name: &String| names.contains(name);
        let by_name = match reference.digest() {
            Some(digest) => {
                let name = format!("{}@{digest}", reference.repository());
                all.values().find(|record| holds(&record.repo_digests, &name))
            }
            None => {
                let name = reference.to_string();
                all.values().find(|record| holds(&record.names, &name))
            }
        };
        if by_name.is_some() {
            return Ok(by_name);
        }
    }
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    let hexadecimal = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !hexadecimal {
        // What cannot be a name is said to be one that is malformed, not one that is missing.
        text.parse::<Reference>()?;
        return Ok(None);
    }
    let candidates: Vec<&Record> = all.values().filter(|record| record.id.hex().starts_with(prefix)).collect();
    match candidates.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let candidates = several.iter().map(|record| record.id.short()).collect::<Vec<_>>().join(", ");
            Err(Error::Ambiguous { prefix: prefix.into(), candidates })
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(content: &str, names: &[&str]) -> Record {
        Record {
            id: Digest::sha256(content.as_bytes()),
            names: names.iter().map(|n| n.parse::<Reference>().unwrap().to_string()).collect(),
            repo_digests: Default::default(),
            manifest: Digest::sha256(b"m"),
            manifest_media_type: String::new(),
            index: None,
            layers: Vec::new(),
            packed: Default::default(),
            diff_ids: Vec::new(),
            size: 0,
            last_tagged: 0,
            parent: None,
        }
    }

    pub(crate) fn all(records: &[Record]) -> All {
        records.iter().map(|record| (record.id.clone(), record.clone())).collect()
    }

    #[test]
    fn found_by_every_name_it_has() {
        let one = record("one", &["redis:4", "user/x:y"]);
        let all = all(&[one.clone(), record("two", &["redis:5"])]);
        for text in ["redis:4", "docker.io/library/redis:4", "user/x:y", &one.id.hex()[..6], &one.id.to_string()] {
            assert_eq!(find_in(&all, text).unwrap().unwrap().id, one.id, "{text}");
        }
        assert!(find_in(&all, "redis").unwrap().is_none());
        assert!(find_in(&all, "Bad/Name").is_err());
    }

    #[test]
    fn a_name_moves() {
        let (one, two) = (record("one", &["a:1"]), record("two", &[]));
        let mut images = all(&[one.clone(), two.clone()]);
        give_name(&mut images, &two.id, &"a:1".parse().unwrap());
        assert!(images[&one.id].names.is_empty() && images[&two.id].names.contains("docker.io/library/a:1"));
    }
}
