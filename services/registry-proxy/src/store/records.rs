//! The records: which digest a tag had when it was last asked for, and how a manifest was called.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
    time::SystemTime,
};

use berth_core::Digest;
use redb::{Database, ReadableDatabase as _, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::Error;

const TAGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tags");
const MEDIA_TYPES: TableDefinition<'_, &str, &str> = TableDefinition::new("media_types");

/// What a tag pointed at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tag {
    pub(crate) digest: Digest,
    /// Seconds since 1970.
    pub(crate) checked: u64,
}

/// The transactional store. Reads are of memory-mapped pages and short; writes block for a sync.
#[derive(Debug)]
pub(crate) struct Records {
    path: PathBuf,
    /// `None` after a failure of the disk, which makes an open store useless; the next call opens it again.
    database: RwLock<Option<Database>>,
}

impl Records {
    /// Opens the records; damaged ones are moved aside.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let database = match open_or_make(path) {
            Err(error) if is_damage(&error) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
                let aside = path.with_extension(format!("redb.damaged-{now}"));
                tracing::error!(%error, aside = %aside.display(), "the records are damaged: moved aside, begun anew");
                fs::rename(path, &aside).map_err(Error::io("cannot move aside", path))?;
                open_or_make(path)
            }
            other => other,
        };
        let database = database.map_err(|error| failed(path, error))?;
        Ok(Self { path: path.into(), database: RwLock::new(Some(database)) })
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let mut open = self.database.read().unwrap_or_else(PoisonError::into_inner);
        if open.is_none() {
            drop(open);
            let mut closed = self.database.write().unwrap_or_else(PoisonError::into_inner);
            if closed.is_none() {
                *closed = Some(open_checked(&self.path)?);
            }
            drop(closed);
            open = self.database.read().unwrap_or_else(PoisonError::into_inner);
        }
        // Closed again in the same moment by another call's failure.
        let database = open.as_ref().ok_or(redb::Error::PreviousIo)?;
        let result = work(database);
        drop(open);
        if matches!(result, Err(redb::Error::Io(_) | redb::Error::PreviousIo)) {
            *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        result
    }

    pub(crate) fn tag(&self, key: &str) -> Result<Option<Tag>, redb::Error> {
        self.with(|database| {
            let row = database.begin_read()?.open_table(TAGS)?.get(key)?;
            // One that cannot be read is one that is not there: it is asked for again.
            Ok(row.and_then(|row| serde_json::from_slice(row.value()).ok()))
        })
    }

    pub(crate) fn media_type(&self, digest: &Digest) -> Result<Option<String>, redb::Error> {
        self.with(|database| {
            let row = database.begin_read()?.open_table(MEDIA_TYPES)?.get(digest.to_string().as_str())?;
            Ok(row.map(|row| row.value().to_owned()))
        })
    }

    /// Records a manifest's media type and, where it was asked for by tag, the tag. Blocks.
    pub(crate) fn set(&self, manifest: Option<(&Digest, &str)>, tag: Option<(&str, &Tag)>) -> Result<(), redb::Error> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            if let Some((digest, media_type)) = manifest {
                transaction.open_table(MEDIA_TYPES)?.insert(digest.to_string().as_str(), media_type)?;
            }
            if let Some((key, tag)) = tag {
                let value = serde_json::to_vec(tag).map_err(|e| redb::StorageError::Corrupted(e.to_string()))?;
                transaction.open_table(TAGS)?.insert(key, value.as_slice())?;
            }
            Ok(transaction.commit()?)
        })
    }

    /// The upstream says that there is no such tag any more. Blocks.
    pub(crate) fn remove_tag(&self, key: &str) -> Result<(), redb::Error> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            transaction.open_table(TAGS)?.remove(key)?;
            Ok(transaction.commit()?)
        })
    }
}

/// Opens the store, or makes one under another name, so that none is ever seen half made.
fn open_or_make(path: &Path) -> Result<Database, redb::Error> {
    let draft = path.with_extension("redb.draft");
    // What a killed service had begun.
    gone(&draft)?;
    // An empty file is what a lost one looks like.
    if path.metadata().is_ok_and(|metadata| metadata.len() > 0) {
        let database = open_checked(path)?;
        // One that has not these tables is none of ours.
        let transaction = database.begin_read()?;
        transaction.open_table(TAGS)?;
        transaction.open_table(MEDIA_TYPES)?;
        return Ok(database);
    }
    let database = Database::create(&draft)?;
    let transaction = database.begin_write()?;
    transaction.open_table(TAGS)?;
    transaction.open_table(MEDIA_TYPES)?;
    transaction.commit()?;
    fs::rename(&draft, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    Ok(database)
}

/// Without the check a damaged file could end the process.
fn open_checked(path: &Path) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_check_integrity_on_open(true).open(path)
}

fn gone(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the store itself is at fault, and not who may open it, or the disk.
fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_) | redb::Error::RepairAborted | redb::Error::UpgradeRequired(_) => true,
        redb::Error::Io(error) => matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof),
        redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_) => true,
        _ => false,
    }
}

fn failed(path: &Path, source: redb::Error) -> Error {
    Error::Records { path: path.into(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_records_are_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.redb");
        let tag = Tag { digest: Digest::sha256(b""), checked: 1 };
        {
            let records = Records::open(&path).unwrap();
            records.set(None, Some(("a", &tag))).unwrap();
            assert_eq!(records.tag("a").unwrap(), Some(tag));
            assert!(Records::open(&path).is_err(), "two at a time");
        }
        fs::write(&path, "not a database").unwrap();
        assert_eq!(Records::open(&path).unwrap().tag("a").unwrap(), None);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_first_start_that_was_cut_off_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("meta.redb.draft"), [0; 10_000]).unwrap();
        Records::open(&directory.path().join("meta.redb")).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn after_a_failure_of_the_disk_they_are_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("meta.redb")).unwrap();
        let tag = Tag { digest: Digest::sha256(b""), checked: 1 };
        records.set(None, Some(("a", &tag))).unwrap();
        let full = || Err::<(), _>(redb::Error::Io(io::ErrorKind::StorageFull.into()));
        assert!(records.with(|_| full()).is_err() && records.database.read().unwrap().is_none());
        assert_eq!(records.tag("a").unwrap(), Some(tag.clone()));
        assert!(records.with(|_| full()).is_err());
        records.set(None, Some(("b", &tag))).unwrap();
        assert_eq!(records.tag("b").unwrap(), Some(tag));
    }
}
