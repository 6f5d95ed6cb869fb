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
    time::SystemTime,
};

use berth_core::Digest;
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
    /// Blobs that hold the layers here, lowest first. Where a layer was here already from another blob of the same tar
    /// (loaded plain, pulled compressed), that one stands for the manifest's.
    pub(crate) layers: Vec<Digest>,
    /// Lowest first.
    pub(crate) diff_ids: Vec<Digest>,
    /// Bytes of the uncompressed layers.
    pub(crate) size: u64,
    /// Seconds since 1970.
    pub(crate) last_tagged: u64,
}

impl Record {
    /// Everything that it needs in the content store.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Digest> {
        [&self.id, &self.manifest].into_iter().chain(&self.index).chain(&self.layers)
    }
}

/// Images by ID.
pub(crate) type All = BTreeMap<Digest, Record>;

/// All records.
#[derive(Debug)]
pub(crate) struct Records {
    path: PathBuf,
    copy: PathBuf,
    database: Database,
    images: RwLock<Arc<All>>,
    /// Held while the records change.
    changing: Mutex<()>,
    /// Whether these are all the records there were: false after a rebuild without a copy.
    complete: bool,
}

impl Records {
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let (path, copy) = (root.join("meta.redb"), root.join("images.json"));
        // A store that is there and empty is one that was lost, too.
        let lost = path.metadata().map_or(0, |metadata| metadata.len()) == 0 && copy.exists();
        match Self::try_open(&path, &copy) {
            Ok(records) if !lost => return Ok(records),
            Ok(_) => tracing::error!(path = %path.display(), "the store is gone; it is rebuilt"),
            Err(error) if !path.exists() => return Err(error),
            Err(error @ Error::InUse { .. }) => return Err(error),
            Err(error) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
                let aside = path.with_extension(format!("redb.damaged-{now}"));
                tracing::error!(%error, aside = %aside.display(), "the store is damaged; it is moved aside and rebuilt");
                fs::rename(&path, &aside).map_err(Error::io("cannot move aside", &path))?;
            }
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
        let database = Database::create(path).map_err(|e| failed(e.into()))?;
        let read = || -> Result<All, redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(IMAGES)?;
            transaction.commit()?;
            let mut images = BTreeMap::new();
            for row in database.begin_read()?.open_table(IMAGES)?.iter()? {
                let (_, value) = row?;
                let record: Record = serde_json::from_slice(value.value())
                    .map_err(|e| redb::StorageError::Corrupted(format!("a record is malformed: {e}")))?;
                images.insert(record.id.clone(), record);
            }
            Ok(images)
        };
        let images = RwLock::new(Arc::new(read().map_err(failed)?));
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
        self.commit(&now, &next).map_err(failed)?;
        if let Err(error) = self.write_copy(&next) {
            tracing::warn!(%error, path = %self.copy.display(), "the copy of the records cannot be written");
        }
        *self.images.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(result)
    }

    fn write_copy(&self, images: &All) -> std::io::Result<()> {
        let new = self.copy.with_extension("json.new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&images.values().collect::<Vec<_>>())?)?;
        // Without this the name could survive a power cut that the content does not.
        file.sync_data()?;
        fs::rename(&new, &self.copy)
    }

    fn commit(&self, old: &All, new: &All) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
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
        transaction.commit()?;
        Ok(())
    }
}
