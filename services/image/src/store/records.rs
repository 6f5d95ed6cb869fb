//! Records of images, in one transactional store; beside it lies a copy, from which a damaged store is rebuilt.
//!
//! Who reads sees the records as the last commit left them and waits for nobody; who changes them waits for the commit
//! before.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use berth_core::{
    Digest,
    store::{StoreFile, is_damage, move_aside},
};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::error::Error;

const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");

/// An image that is here, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Digest of the configuration.
    pub(crate) id: Digest,
    /// Canonical, with tags.
    pub(crate) names: BTreeSet<String>,
    /// Canonical, with digests.
    pub(crate) repo_digests: BTreeSet<String>,
    pub(crate) manifest: Digest,
    pub(crate) manifest_media_type: String,
    /// The index that the manifest was chosen from.
    pub(crate) index: Option<Digest>,
    /// Blobs of the layers, lowest first. Where a layer was here already from another blob of the same tar
    /// (loaded plain, pulled compressed), that one stands for the manifest's.
    pub(crate) layers: Vec<Digest>,
    /// Those of the layers that no blob is kept of, because they were made here, and the bytes of their plain tars: the
    /// snapshotter packs them when they are asked for, see [`crate::making::Packed`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) packed: BTreeMap<Digest, u64>,
    /// Lowest first.
    pub(crate) diff_ids: Vec<Digest>,
    /// Bytes of the uncompressed layers.
    pub(crate) size: u64,
    /// Seconds since 1970.
    pub(crate) last_tagged: u64,
    /// The image that it was committed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<Digest>,
}

impl Record {
    /// Everything that it needs in the content store.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Digest> {
        [&self.id, &self.manifest].into_iter().chain(&self.index).chain(self.kept_layers())
    }

    /// Blobs of layers that are in the content store.
    pub(crate) fn kept_layers(&self) -> impl Iterator<Item = &Digest> {
        self.layers.iter().filter(|layer| !self.packed.contains_key(*layer))
    }
}

/// Images by ID.
pub(crate) type All = BTreeMap<Digest, Record>;

/// All records.
#[derive(Debug)]
pub(crate) struct Records {
    path: PathBuf,
    copy: PathBuf,
    database: StoreFile,
    images: RwLock<Arc<All>>,
    /// Held while the records change.
    changing: Mutex<()>,
    /// Whether these are all the records there were: false after a rebuild without a copy.
    complete: bool,
}

impl Records {
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let (path, copy) = (root.join("meta.redb"), root.join("images.json"));
        // A store that is not there, or there and empty, beside a copy is one that was lost.
        let lost = path.metadata().map_or(0, |metadata| metadata.len()) == 0 && copy.exists();
        match Self::try_open(&path, &copy) {
            Ok(records) if !lost => return Ok(records),
            Ok(_) => tracing::error!(path = %path.display(), "the store is gone; it is rebuilt"),
            Err(error) if matches!(&error, Error::Store { source, .. } if is_damage(source)) => {
                let aside = move_aside(&path).map_err(Error::io("cannot move aside", &path))?;
                tracing::error!(%error, aside = %aside.display(), "the store is damaged; it is moved aside and rebuilt");
            }
            Err(error) => return Err(error),
        }
        let mut records = Self::try_open(&path, &copy)?;
        let saved = fs::read(&copy).ok().and_then(|bytes| serde_json::from_slice::<Vec<Record>>(&bytes).ok());
        match saved {
            Some(saved) => {
                tracing::warn!(images = saved.len(), copy = %copy.display(), "the store is rebuilt from its copy");
                records.change(|images| {
                    images.extend(saved.into_iter().map(|record| (record.id.clone(), record)));
                    Ok(())
                })?;
            }
            None => {
                records.complete = false;
                tracing::error!(copy = %copy.display(), "the store has no readable copy; pull the images again, their content is kept");
            }
        }
        Ok(records)
    }

    fn try_open(path: &Path, copy: &Path) -> Result<Self, Error> {
        let failed = |source: redb::Error| match source {
            redb::Error::DatabaseAlreadyOpen => Error::InUse { path: path.into() },
            source => Error::Store { path: path.into(), source: source.into() },
        };
        let make = |database: &Database| {
            let transaction = database.begin_write()?;
            transaction.open_table(IMAGES)?;
            Ok(transaction.commit()?)
        };
        let database = StoreFile::open(path, make).map_err(failed)?;
        let images = RwLock::new(Arc::new(database.with(|database, _| read(database)).map_err(failed)?));
        Ok(Self { path: path.into(), copy: copy.into(), database, images, changing: Mutex::default(), complete: true })
    }

    /// Whether content that no record names may be taken for garbage.
    pub(crate) fn complete(&self) -> bool {
        self.complete
    }

    /// All records as they are now.
    pub(crate) fn all(&self) -> Arc<All> {
        // Replaced as a whole after its commit.
        Arc::clone(&self.images.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every blob that an image needs.
    pub(crate) fn referenced(&self) -> HashSet<Digest> {
        self.all().values().flat_map(Record::blobs).cloned().collect()
    }

    /// Changes records in one durable step: all of what `change` does, or nothing. Blocks.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut All) -> Result<T, Error>) -> Result<T, Error> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.all();
        let mut next = All::clone(&now);
        let result = change(&mut next)?;
        if next == *now {
            return Ok(result);
        }
        let failed = |source: redb::Error| Error::Store { path: self.path.clone(), source: source.into() };
        let commit = |database: &Database, again: bool| match again {
            true => commit(database, &read(database)?, &next),
            false => commit(database, &now, &next),
        };
        self.database.with(commit).map_err(failed)?;
        if let Err(error) = self.write_copy(&next) {
            tracing::warn!(%error, path = %self.copy.display(), "the copy of the records cannot be written");
        }
        *self.images.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(result)
    }

    fn write_copy(&self, images: &All) -> std::io::Result<()> {
        let new = self.copy.with_extension("json.new");
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(&images.values().collect::<Vec<_>>())?)?;
            // Without this the name could survive a power cut that the content does not.
            file.sync_data()?;
            fs::rename(&new, &self.copy)
        };
        // Half of one only takes room.
        write().inspect_err(|_| drop(fs::remove_file(&new)))
    }
}

fn read(database: &Database) -> Result<All, redb::Error> {
    let mut images = BTreeMap::new();
    for row in database.begin_read()?.open_table(IMAGES)?.iter()? {
        let (_, value) = row?;
        let record: Record = serde_json::from_slice(value.value())
            .map_err(|e| redb::StorageError::Corrupted(format!("a record is malformed: {e}")))?;
        images.insert(record.id.clone(), record);
    }
    Ok(images)
}

/// Makes what is stored as `old` what is in `new`.
fn commit(database: &Database, old: &All, new: &All) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(IMAGES)?;
        for id in old.keys().filter(|id| !new.contains_key(*id)) {
            table.remove(id.to_string().as_str())?;
        }
        for (id, record) in new.iter().filter(|(id, record)| old.get(*id) != Some(record)) {
            let bytes = serde_json::to_vec(record).map_err(|e| redb::StorageError::Corrupted(e.to_string()))?;
            table.insert(id.to_string().as_str(), bytes.as_slice())?;
        }
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::tests::record;

    #[test]
    fn what_was_written_although_it_failed_is_put_right() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(directory.path()).unwrap();
        let (one, two) = (record("one", &["a:1"]), record("two", &["b:1"]));
        let insert = |record: &Record| {
            records.change(|all| {
                all.insert(record.id.clone(), record.clone());
                Ok(())
            })
        };
        let failed = records.database.with(|database, _| {
            commit(database, &All::new(), &[(one.id.clone(), one.clone())].into())?;
            Err::<(), _>(redb::Error::Io(std::io::Error::from_raw_os_error(libc::ENOSPC)))
        });
        assert!(failed.is_err() && records.all().is_empty());
        insert(&two).unwrap();
        drop(records);
        let records = Records::open(directory.path()).unwrap();
        assert_eq!(records.all().keys().collect::<Vec<_>>(), [&two.id]);
        assert!(matches!(Records::open(directory.path()), Err(Error::InUse { .. })), "two at a time");
    }
}
