//! Records of images, in one transactional store; beside it lies a copy, from which a damaged store is rebuilt.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use berth_core::Digest;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::error::Error;

const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");

/// An image that is here, whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Blobs of the layers, lowest first.
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

/// All records.
#[derive(Debug)]
pub(crate) struct Records {
    path: PathBuf,
    copy: PathBuf,
    database: Database,
    images: Mutex<BTreeMap<Digest, Record>>,
}

impl Records {
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let (path, copy) = (root.join("meta.redb"), root.join("images.json"));
        match Self::try_open(&path, &copy) {
            Ok(records) => return Ok(records),
            Err(error) if !path.exists() => return Err(error),
            Err(error) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
                let aside = path.with_extension(format!("redb.damaged-{now}"));
                tracing::error!(%error, aside = %aside.display(), "the store is damaged; it is moved aside and rebuilt");
                fs::rename(&path, &aside).map_err(Error::io("cannot move aside", &path))?;
            }
        }
        let records = Self::try_open(&path, &copy)?;
        let saved: Vec<Record> = fs::read(&copy).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
        records.change(|images| {
            images.extend(saved.into_iter().map(|record| (record.id.clone(), record)));
            Ok(())
        })?;
        Ok(records)
    }

    fn try_open(path: &Path, copy: &Path) -> Result<Self, Error> {
        let failed = |source: redb::Error| Error::Store { path: path.into(), source: source.into() };
        let database = Database::create(path).map_err(|e| failed(e.into()))?;
        let read = || -> Result<BTreeMap<Digest, Record>, redb::Error> {
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
        let images = read().map_err(failed)?;
        Ok(Self { path: path.into(), copy: copy.into(), database, images: Mutex::new(images) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Record>> {
        // Replaced as a whole after its commit.
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All records as they are now.
    pub(crate) fn all(&self) -> Vec<Record> {
        self.lock().values().cloned().collect()
    }

    /// Looks at the records.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&BTreeMap<Digest, Record>) -> T) -> T {
        look(&self.lock())
    }

    /// Every blob that an image needs.
    pub(crate) fn referenced(&self) -> HashSet<Digest> {
        self.lock().values().flat_map(Record::blobs).cloned().collect()
    }

    /// Changes records in one durable step: all of what `change` does, or nothing. Blocks.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut BTreeMap<Digest, Record>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut images = self.lock();
        let mut next = images.clone();
        let result = change(&mut next)?;
        let failed = |source: redb::Error| Error::Store { path: self.path.clone(), source: source.into() };
        self.commit(&images, &next).map_err(failed)?;
        let copy: Vec<&Record> = next.values().collect();
        let new = self.copy.with_extension("json.new");
        let write = || fs::write(&new, serde_json::to_vec(&copy)?).and_then(|()| fs::rename(&new, &self.copy));
        if let Err(error) = write() {
            tracing::warn!(%error, path = %self.copy.display(), "the copy of the records cannot be written");
        }
        *images = next;
        Ok(result)
    }

    fn commit(&self, old: &BTreeMap<Digest, Record>, new: &BTreeMap<Digest, Record>) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(IMAGES)?;
            for id in old.keys().filter(|id| !new.contains_key(*id)) {
                table.remove(id.to_string().as_str())?;
            }
            for (id, record) in new {
                let bytes = serde_json::to_vec(record).map_err(|e| redb::StorageError::Corrupted(e.to_string()))?;
                table.insert(id.to_string().as_str(), bytes.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}
