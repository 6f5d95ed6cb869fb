//! The records, in one transactional store; a damaged one is moved aside and rebuilt from the copies that lie beside the
//! files.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use berth_core::Digest;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    directory::{Directories, Id},
    error::Error,
    record::{Layer, Snapshot, Time},
};

const SNAPSHOTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots");
const LAYERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("layers");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// The next directory's number.
const NEXT: &str = "next";

/// All records, as the store has them.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) snapshots: HashMap<String, Snapshot>,
    pub(crate) layers: HashMap<Digest, Layer>,
    pub(crate) next: u64,
}

/// What one transaction changes.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) put_snapshots: Vec<(String, Snapshot)>,
    pub(crate) remove_snapshots: Vec<String>,
    pub(crate) put_layers: Vec<(Digest, Layer)>,
    pub(crate) remove_layers: Vec<Digest>,
    pub(crate) next: u64,
}

/// What lies beside a directory's files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Copy {
    /// The directory is a layer's. Snapshots that share it are made again when an image is composed again.
    Layer { diff_id: Digest, layer: Layer },
    /// The directory is a snapshot's own.
    Snapshot { name: String, snapshot: Snapshot },
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    database: Database,
}

impl Store {
    /// Opens the store at `path`, or makes it, and reads everything.
    pub(crate) fn open(path: &Path, directories: &Directories) -> Result<(Self, Records), Error> {
        match Self::try_open(path) {
            Ok(opened) => return Ok(opened),
            Err(error) if !path.exists() => return Err(error),
            Err(error) => {
                let aside = path.with_extension(format!("redb.damaged-{}", Time::now().0));
                tracing::error!(%error, aside = %aside.display(), "the store is damaged; it is moved aside and rebuilt");
                fs::rename(path, &aside).map_err(Error::io("cannot move aside", path))?;
            }
        }
        let (store, mut records) = Self::try_open(path)?;
        rebuild(&mut records, directories)?;
        let change = Change {
            put_snapshots: records.snapshots.iter().map(|(n, s)| (n.clone(), s.clone())).collect(),
            put_layers: records.layers.iter().map(|(d, l)| (d.clone(), l.clone())).collect(),
            next: records.next,
            ..Change::default()
        };
        store.commit(&change)?;
        Ok((store, records))
    }

    fn try_open(path: &Path) -> Result<(Self, Records), Error> {
        let failed = |source: redb::Error| Error::Store { path: path.into(), source: source.into() };
        let database = Database::create(path).map_err(|e| failed(e.into()))?;
        let store = Self { path: path.into(), database };
        store.commit(&Change::default())?;
        let records = store.read().map_err(failed)?;
        Ok((store, records))
    }

    fn read(&self) -> Result<Records, redb::Error> {
        let transaction = self.database.begin_read()?;
        let mut records = Records::default();
        for row in transaction.open_table(SNAPSHOTS)?.iter()? {
            let (name, value) = row?;
            records.snapshots.insert(name.value().to_owned(), decode(value.value())?);
        }
        for row in transaction.open_table(LAYERS)?.iter()? {
            let (name, value) = row?;
            let digest = name.value().parse().map_err(|_| corrupted("a layer's name is no digest"))?;
            records.layers.insert(digest, decode(value.value())?);
        }
        records.next = transaction.open_table(NUMBERS)?.get(NEXT)?.map_or(1, |next| next.value());
        Ok(records)
    }

    /// Commits a change; it is durable when this answers.
    pub(crate) fn commit(&self, change: &Change) -> Result<(), Error> {
        self.try_commit(change).map_err(|source| Error::Store { path: self.path.clone(), source: source.into() })
    }

    fn try_commit(&self, change: &Change) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut snapshots = transaction.open_table(SNAPSHOTS)?;
            for name in &change.remove_snapshots {
                snapshots.remove(name.as_str())?;
            }
            for (name, snapshot) in &change.put_snapshots {
                snapshots.insert(name.as_str(), encode(snapshot)?.as_slice())?;
            }
            let mut layers = transaction.open_table(LAYERS)?;
            for digest in &change.remove_layers {
                layers.remove(digest.to_string().as_str())?;
            }
            for (digest, layer) in &change.put_layers {
                layers.insert(digest.to_string().as_str(), encode(layer)?.as_slice())?;
            }
            let mut numbers = transaction.open_table(NUMBERS)?;
            let stored = numbers.get(NEXT)?.map_or(1, |next| next.value());
            numbers.insert(NEXT, change.next.max(stored))?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn rebuild(records: &mut Records, directories: &Directories) -> Result<(), Error> {
    let all = directories.all().map_err(Error::io("cannot list", directories.base()))?;
    for id in all {
        records.next = records.next.max(id.0 + 1);
        match directories.described::<Copy>(id) {
            Some(Copy::Layer { diff_id, layer }) if layer.directory == id => {
                records.layers.insert(diff_id, layer);
            }
            Some(Copy::Snapshot { name, snapshot }) if snapshot.directory == id => {
                records.snapshots.insert(name, snapshot);
            }
            _ => tracing::warn!(directory = %id, "a directory without a record is not taken over"),
        }
    }
    Ok(())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|e| corrupted(&e.to_string()))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(bytes).map_err(|e| corrupted(&e.to_string()))
}

fn corrupted(why: &str) -> redb::Error {
    redb::StorageError::Corrupted(why.to_owned()).into()
}

impl Records {
    /// A number for a new directory.
    pub(crate) fn number(&mut self) -> Id {
        self.next = self.next.max(1) + 1;
        Id(self.next - 1)
    }
}
