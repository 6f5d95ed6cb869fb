//! The records: which digest a tag had when it was last asked for, and how a manifest was called.

use std::{fs, path::Path, time::SystemTime};

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
pub(crate) struct Records(Database);

impl Records {
    /// Opens the records; damaged ones are moved aside.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        match Self::try_open(path) {
            Ok(records) => Ok(records),
            // Another process holds it: nothing is damaged.
            Err(error @ redb::Error::DatabaseAlreadyOpen) => Err(failed(path, error)),
            Err(error) if !path.exists() => Err(failed(path, error)),
            Err(error) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
                let aside = path.with_extension(format!("redb.damaged-{now}"));
                tracing::error!(%error, aside = %aside.display(), "the records are damaged: moved aside, begun anew");
                fs::rename(path, &aside).map_err(Error::io("cannot move aside", path))?;
                Self::try_open(path).map_err(|error| failed(path, error))
            }
        }
    }

    fn try_open(path: &Path) -> Result<Self, redb::Error> {
        let database = Database::create(path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(TAGS)?;
        transaction.open_table(MEDIA_TYPES)?;
        transaction.commit()?;
        Ok(Self(database))
    }

    pub(crate) fn tag(&self, key: &str) -> Result<Option<Tag>, redb::Error> {
        let row = self.0.begin_read()?.open_table(TAGS)?.get(key)?;
        // One that cannot be read is one that is not there: it is asked for again.
        Ok(row.and_then(|row| serde_json::from_slice(row.value()).ok()))
    }

    pub(crate) fn media_type(&self, digest: &Digest) -> Result<Option<String>, redb::Error> {
        let row = self.0.begin_read()?.open_table(MEDIA_TYPES)?.get(digest.to_string().as_str())?;
        Ok(row.map(|row| row.value().to_owned()))
    }

    /// Records a manifest's media type and, where it was asked for by tag, the tag. Blocks.
    pub(crate) fn set(&self, manifest: Option<(&Digest, &str)>, tag: Option<(&str, &Tag)>) -> Result<(), redb::Error> {
        let transaction = self.0.begin_write()?;
        if let Some((digest, media_type)) = manifest {
            transaction.open_table(MEDIA_TYPES)?.insert(digest.to_string().as_str(), media_type)?;
        }
        if let Some((key, tag)) = tag {
            let value = serde_json::to_vec(tag).map_err(|e| redb::StorageError::Corrupted(e.to_string()))?;
            transaction.open_table(TAGS)?.insert(key, value.as_slice())?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// The upstream says that there is no such tag any more. Blocks.
    pub(crate) fn remove_tag(&self, key: &str) -> Result<(), redb::Error> {
        let transaction = self.0.begin_write()?;
        transaction.open_table(TAGS)?.remove(key)?;
        transaction.commit()?;
        Ok(())
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
}
