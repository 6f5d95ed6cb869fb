//! The images of the node: what is known of them, and how that changes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

use berth_core::{Digest, Platform, Reference, digest::chain_ids};
use bytes::Bytes;

use crate::{
    error::Error,
    pull::Flights,
    registry::Registries,
    settings::Settings,
    snapshots::Snapshots,
    store::{Record, Store},
};

/// Everything that the service is about.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) store: Store,
    pub(crate) snapshots: Snapshots,
    pub(crate) registries: Registries,
    /// Layers of one image that arrive at the same time.
    pub(crate) downloads: usize,
    pub(crate) flights: Flights,
    /// Who uses which image. The runtime service says so again whenever it starts, so it need not outlive us.
    uses: Mutex<HashMap<String, Digest>>,
    /// How many pulls and loads need a blob that no record names yet.
    held: Mutex<HashMap<Digest, usize>>,
    turns: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

/// Blobs that are not garbage while this lives.
pub(crate) struct Hold {
    images: Arc<Images>,
    digests: Vec<Digest>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = lock(&self.images.held);
        for digest in &self.digests {
            if let Some(count) = held.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    held.remove(digest);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a removal did, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    Untagged(String),
    Deleted(String),
}

impl Images {
    pub(crate) fn new(store: Store, snapshots: Snapshots, registries: Registries, settings: &Settings) -> Self {
        Self {
            store,
            snapshots,
            registries,
            downloads: settings.max_concurrent_downloads.max(1),
            flights: Flights::default(),
            uses: Mutex::default(),
            held: Mutex::default(),
            turns: Mutex::default(),
        }
    }

    /// Keeps blobs from being taken for garbage.
    pub(crate) fn hold(self: &Arc<Self>, digests: impl IntoIterator<Item = Digest>) -> Hold {
        let digests: Vec<Digest> = digests.into_iter().collect();
        let mut held = lock(&self.held);
        for digest in &digests {
            *held.entry(digest.clone()).or_default() += 1;
        }
        Hold { images: Arc::clone(self), digests }
    }

    /// One at a time for each blob.
    pub(crate) async fn blob_turn(&self, digest: &Digest) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = lock(&self.turns);
            turns.retain(|_, turn| turn.strong_count() > 0);
            match turns.get(digest).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::default();
                    turns.insert(digest.clone(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }

    /// Small content, read where it may block.
    pub(crate) async fn read_blob(self: &Arc<Self>, digest: &Digest) -> Result<Vec<u8>, Error> {
        let (images, digest) = (Arc::clone(self), digest.clone());
        blocking(move || images.store.blobs.read(&digest)).await
    }

    /// Makes an image visible: its documents and layers become durable, then its record. The name moves to it. Answers
    /// whether that changed anything.
    pub(crate) async fn record(
        self: &Arc<Self>,
        record: Record,
        documents: Vec<Bytes>,
        name: Option<Reference>,
    ) -> Result<bool, Error> {
        let images = Arc::clone(self);
        blocking(move || {
            for document in &documents {
                images.store.blobs.put(document)?;
            }
            let blobs: Vec<Digest> = record.blobs().cloned().collect();
            images.store.blobs.settle(&blobs)?;
            images.store.records.change(|all| {
                let before = name.as_ref().and_then(|name| holder(all, &name.to_string()));
                let changed = !all.contains_key(&record.id) || (name.is_some() && before.as_ref() != Some(&record.id));
                let entry = all.entry(record.id.clone()).or_insert_with(|| record.clone());
                entry.repo_digests.extend(record.repo_digests.clone());
                if let Some(name) = &name {
                    give_name(all, &record.id, name);
                }
                Ok(changed)
            })
        })
        .await
    }

    /// The one image that a person means: by name, by name and digest, by ID or a beginning of it.
    pub(crate) fn find(&self, text: &str) -> Result<Record, Error> {
        let found = self.store.records.read(|all| find_in(all, text).map(|record| record.cloned()))?;
        found.ok_or_else(|| Error::NotFound { reference: text.into() })
    }

    /// As [`Images::find`], for a platform (empty for any).
    pub(crate) async fn find_for(self: &Arc<Self>, text: &str, platform: &str) -> Result<(Record, Vec<u8>), Error> {
        let record = self.find(text)?;
        let config = self.read_blob(&record.id).await?;
        if !platform.is_empty() {
            let wanted: Platform = platform.parse()?;
            let is = crate::manifest::Config::parse(&config, text)?.platform();
            if wanted.rank(&is).is_none() {
                let (is, wanted) = (is.to_string(), wanted.to_string());
                return Err(Error::OtherPlatform { reference: text.into(), is, wanted });
            }
        }
        Ok((record, config))
    }

    /// Another name for an image.
    pub(crate) async fn tag(self: &Arc<Self>, source: &str, target: &str) -> Result<Record, Error> {
        let target: Reference = target.parse()?;
        if target.tag().is_none() {
            return Err(Error::Request("a name with a digest cannot be given; name a tag"));
        }
        let (images, source) = (Arc::clone(self), source.to_owned());
        blocking(move || {
            images.store.records.change(|all| {
                let found = find_in(all, &source)?.map(|record| record.id.clone());
                let id = found.ok_or_else(|| Error::NotFound { reference: source.clone() })?;
                give_name(all, &id, &target);
                all.get(&id).cloned().ok_or(Error::NotFound { reference: source.clone() })
            })
        })
        .await
    }

    /// Takes a name away, and the image with its last one, by Docker's rules.
    pub(crate) async fn remove(self: &Arc<Self>, text: &str, force: bool) -> Result<Vec<Removed>, Error> {
        let (images, text_owned) = (Arc::clone(self), text.to_owned());
        let (mut removed, gone) = blocking(move || images.remove_record(&text_owned, force)).await?;
        let Some(record) = gone else { return Ok(removed) };
        removed.push(Removed::Deleted(record.id.to_string()));
        // From the top down, until something is still needed.
        let kept: HashSet<Digest> =
            self.store.records.all().iter().flat_map(|other| chain_ids(&other.diff_ids)).collect();
        for chain_id in chain_ids(&record.diff_ids).iter().rev().filter(|chain_id| !kept.contains(*chain_id)) {
            if self.snapshots.remove(chain_id).await? {
                removed.push(Removed::Deleted(chain_id.to_string()));
            }
        }
        Ok(removed)
    }

    fn remove_record(&self, text: &str, force: bool) -> Result<(Vec<Removed>, Option<Record>), Error> {
        let uses = self.uses();
        let (removed, gone) = self.store.records.change(|all| {
            let found = find_in(all, text)?.cloned();
            let record = found.ok_or_else(|| Error::NotFound { reference: text.into() })?;
            let user = uses.iter().find(|(_, id)| **id == record.id).map(|(owner, _)| owner.chars().take(12).collect());
            plan_removal(all, &record, text, force, user)
        })?;
        if let Some(record) = &gone {
            let referenced = self.store.records.referenced();
            let held = lock(&self.held);
            for blob in record.blobs().filter(|blob| !referenced.contains(*blob) && !held.contains_key(*blob)) {
                self.store.blobs.remove(blob)?;
            }
        }
        Ok((removed, gone))
    }

    /// Who uses which image.
    pub(crate) fn uses(&self) -> HashMap<String, Digest> {
        lock(&self.uses).clone()
    }

    /// An owner uses an image from now on.
    pub(crate) fn used_by(&self, owner: &str, id: &Digest) {
        lock(&self.uses).insert(owner.to_owned(), id.clone());
    }

    /// An owner's use ends.
    pub(crate) fn released(&self, owner: &str) {
        lock(&self.uses).remove(owner);
    }

    /// All uses of owners with this prefix are these.
    pub(crate) fn set_uses(&self, prefix: &str, uses: impl IntoIterator<Item = (String, Digest)>) {
        let mut all = lock(&self.uses);
        all.retain(|owner, _| !owner.starts_with(prefix));
        all.extend(uses);
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

/// The image that has a name.
fn holder(all: &BTreeMap<Digest, Record>, name: &str) -> Option<Digest> {
    all.values().find(|record| record.names.contains(name)).map(|record| record.id.clone())
}

fn give_name(all: &mut BTreeMap<Digest, Record>, id: &Digest, name: &Reference) {
    // A tag's name has no digest, whatever it was pulled by.
    let name = format!("{}:{}", name.repository(), name.tag().unwrap_or("latest"));
    for record in all.values_mut() {
        record.names.remove(&name);
    }
    if let Some(record) = all.get_mut(id) {
        record.names.insert(name);
        record.last_tagged = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    }
}

fn find_in<'a>(all: &'a BTreeMap<Digest, Record>, text: &str) -> Result<Option<&'a Record>, Error> {
    if let Ok(reference) = text.parse::<Reference>() {
        let by_name = match reference.digest() {
            Some(_) => {
                let name = format!("{}@{}", reference.repository(), reference.target());
                all.values().find(|record| record.repo_digests.contains(&name))
            }
            None => {
                let name = reference.to_string();
                all.values().find(|record| record.names.contains(&name))
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

/// Docker's rules for `rmi` (daemon/images, ImageDelete): by name it untags, and deletes with the last name; by ID it
/// deletes, unless several repositories name it or a container uses it.
fn plan_removal(
    all: &mut BTreeMap<Digest, Record>,
    record: &Record,
    text: &str,
    force: bool,
    user: Option<String>,
) -> Result<(Vec<Removed>, Option<Record>), Error> {
    let familiar = |name: &str| name.parse::<Reference>().map_or_else(|_| name.to_owned(), |r| r.familiar());
    let named = text.parse::<Reference>().ok().filter(|reference| {
        let name = reference.to_string();
        record.names.contains(&name) || record.repo_digests.contains(&name)
    });
    let mut removed = Vec::new();
    if let Some(reference) = named {
        let name = reference.to_string();
        let last = record.names.iter().all(|other| *other == name);
        if last && let (Some(user), false) = (&user, force) {
            return Err(Error::Conflict(format!(
                "unable to remove repository reference {:?} (must force) - container {user} is using its referenced image {}",
                reference.familiar(),
                record.id.short()
            )));
        }
        if let Some(entry) = all.get_mut(&record.id) {
            entry.names.remove(&name);
            removed.push(Removed::Untagged(familiar(&name)));
            let repository = format!("{}@", reference.repository());
            let others = entry.names.iter().any(|other| other.starts_with(&repository[..repository.len() - 1]));
            if !others {
                entry.repo_digests.retain(|digest| {
                    let goes = digest.starts_with(&repository);
                    if goes && last {
                        removed.push(Removed::Untagged(familiar(digest)));
                    }
                    !goes
                });
            }
        }
        if !last || user.is_some() {
            return Ok((removed, None));
        }
    } else {
        let repositories: HashSet<&str> = record
            .names
            .iter()
            .map(|name| name.rsplit_once(':').map_or(name.as_str(), |(repository, _)| repository))
            .collect();
        let short = record.id.short();
        if repositories.len() > 1 && !force {
            return Err(Error::Conflict(format!(
                "unable to delete {short} (must be forced) - image is referenced in multiple repositories"
            )));
        }
        if let Some(user) = user {
            return Err(Error::Conflict(format!(
                "unable to delete {short} (cannot be forced) - image is being used by container {user}"
            )));
        }
        removed.extend(record.names.iter().chain(&record.repo_digests).map(|name| Removed::Untagged(familiar(name))));
    }
    let gone = all.remove(&record.id);
    Ok((removed, gone))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: &str, names: &[&str]) -> Record {
        Record {
            id: Digest::sha256(content.as_bytes()),
            names: names.iter().map(|n| n.parse::<Reference>().unwrap().to_string()).collect(),
            repo_digests: Default::default(),
            manifest: Digest::sha256(b"m"),
            manifest_media_type: String::new(),
            index: None,
            layers: Vec::new(),
            diff_ids: Vec::new(),
            size: 0,
            last_tagged: 0,
        }
    }

    fn all(records: &[Record]) -> BTreeMap<Digest, Record> {
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
    fn removal_follows_docker() {
        let one = record("one", &["a:1", "b:1"]);
        let mut images = all(std::slice::from_ref(&one));
        let mut remove = |text: &str, force, user: Option<&str>| {
            let record = find_in(&images, text).unwrap().unwrap().clone();
            plan_removal(&mut images, &record, text, force, user.map(str::to_owned))
        };
        let id = one.id.hex()[..12].to_owned();
        assert!(remove(&id, false, None).unwrap_err().to_string().contains("must be forced"));
        let (removed, gone) = remove("a:1", false, Some("c")).unwrap();
        assert!(removed == [Removed::Untagged("a:1".into())] && gone.is_none());
        assert!(remove("b:1", false, Some("c")).unwrap_err().to_string().contains("container c is using"));
        let (_, gone) = remove("b:1", false, None).unwrap();
        assert!(gone.is_some() && images.is_empty());
    }

    #[test]
    fn a_name_moves() {
        let (one, two) = (record("one", &["a:1"]), record("two", &[]));
        let mut images = all(&[one.clone(), two.clone()]);
        give_name(&mut images, &two.id, &"a:1".parse().unwrap());
        assert!(images[&one.id].names.is_empty() && images[&two.id].names.contains("docker.io/library/a:1"));
    }
}
