//! The records: which digest a tag had when it was last asked for, and how a manifest was called.

use std::path::Path;

use berth_core::{
    Digest,
    store::{StoreFile, is_damage, move_aside},
};
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
pub(crate) struct Records(StoreFile);

impl Records {
    /// Opens the records; damaged ones are moved aside.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = match StoreFile::open(path, make) {
            Err(error) if is_damage(&error) => {
                let aside = move_aside(path).map_err(Error::io("cannot move aside", path))?;
                tracing::error!(%error, aside = %aside.display(), "the records are damaged: moved aside, begun anew");
                StoreFile::open(path, make)
            }
            other => other,
        };
        let file = file.map_err(|source| Error::Records { path: path.into(), source: source.into() })?;
        Ok(Self(file))
    }

    /// Each record stands for itself, so one that was written although that failed does no harm.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        self.0.with(|database, _| work(database))
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

fn make(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(TAGS)?;
    transaction.open_table(MEDIA_TYPES)?;
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use std::fs;

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
}
