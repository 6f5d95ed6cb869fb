//! The records, in one transactional store; a damaged one is moved aside and rebuilt from the copies that lie beside the
//! files.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use berth_core::{
    Digest,
    store::{StoreFile, is_damage, move_aside},
};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, StorageError, TableDefinition};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    directory::{Directories, Id},
    error::Error,
    record::{Layer, Snapshot},
};

const SNAPSHOTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots");
const LAYERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("layers");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// The next directory's number. A store without it was never used.
const NEXT: &str = "next";

/// All records, as the store has them.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) snapshots: HashMap<String, Snapshot>,
    pub(crate) layers: HashMap<Digest, Layer>,
    pub(crate) next: Option<u64>,
}

/// What one transaction changes: first what goes, then what comes.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) remove_snapshots: Vec<String>,
    pub(crate) put_snapshots: Vec<(String, Snapshot)>,
    pub(crate) remove_layers: Vec<Digest>,
    pub(crate) put_layers: Vec<(Digest, Layer)>,
}

impl Change {
    /// Whether there is nothing to commit.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { remove_snapshots, put_snapshots, remove_layers, put_layers } = self;
        remove_snapshots.is_empty() && put_snapshots.is_empty() && remove_layers.is_empty() && put_layers.is_empty()
    }
}

/// What lies beside a directory's files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Copy {
    /// The directory is a layer's.
    Layer { diff_id: Digest, layer: Layer },
    /// The directory is a snapshot's: its own, or a layer's that the snapshot is of.
    Snapshot { name: String, snapshot: Snapshot },
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    file: StoreFile,
}

impl Store {
    /// Opens the store at `path`, or makes it, and reads everything. A store that is damaged, or empty beside
    /// directories, is rebuilt from them.
    pub(crate) fn open(path: &Path, directories: &Directories) -> Result<(Self, Records), Error> {
        let (store, mut records) = match Self::try_open(path) {
            Ok(opened) => opened,
            Err(error) if is_damage(&error) => {
                let error = Error::store(path)(error);
                let aside = move_aside(path).map_err(Error::io("cannot move aside", path))?;
                tracing::error!(%error, aside = %aside.display(), "the store is damaged; it is moved aside and rebuilt");
                Self::try_open(path).map_err(Error::store(path))?
            }
            Err(error) => return Err(Error::store(path)(error)),
        };
        if records.next.is_none() {
            rebuild(&mut records, directories)?;
            let change = records.differences(Records::default());
            store.commit(&Records::default(), &change, records.next.unwrap_or(1))?;
        }
        Ok((store, records))
    }

    fn try_open(path: &Path) -> Result<(Self, Records), redb::Error> {
        let file = StoreFile::open(path, make)?;
        let records = file.with(|database, _| read(database))?;
        Ok((Self { path: path.into(), file }, records))
    }

    /// Commits a change to these records, and the number of the next directory; durable when this answers.
    pub(crate) fn commit(&self, records: &Records, change: &Change, next: u64) -> Result<(), Error> {
        let work = |database: &Database, again: bool| {
            if again {
                // Of what failed before, something may have been written all the same.
                commit(database, &records.differences(read(database)?), next)?;
            }
            commit(database, change, next)
        };
        self.file.with(work).map_err(Error::store(&self.path))
    }
}

fn make(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(SNAPSHOTS)?;
    transaction.open_table(LAYERS)?;
    transaction.open_table(NUMBERS)?;
    Ok(transaction.commit()?)
}

fn read(database: &Database) -> Result<Records, redb::Error> {
    let transaction = database.begin_read()?;
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
    records.next = transaction.open_table(NUMBERS)?.get(NEXT)?.map(|next| next.value());
    Ok(records)
}

fn commit(database: &Database, change: &Change, next: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
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
        numbers.insert(NEXT, next.max(stored))?;
    }
    Ok(transaction.commit()?)
}

fn rebuild(records: &mut Records, directories: &Directories) -> Result<(), Error> {
    let all = directories.all().map_err(Error::io("cannot list", directories.base()))?;
    let mut next = 1;
    for id in all {
        next = next.max(id.0.saturating_add(1));
        let copies = directories.described::<Copy>(id);
        if copies.is_empty() {
            tracing::warn!(directory = %id, "a directory without a record is not taken over");
        }
        for copy in copies {
            match copy {
                Copy::Layer { diff_id, layer } if layer.directory == id => {
                    records.layers.insert(diff_id, layer);
                }
                Copy::Snapshot { name, snapshot } if snapshot.directory == id => {
                    records.snapshots.insert(name, snapshot);
                }
                _ => tracing::warn!(directory = %id, "a record that lies in another's directory is not taken over"),
            }
        }
    }
    records.next = Some(next);
    // What is stacked on something that could not be taken over cannot be used.
    loop {
        let lost = |s: &Snapshot| s.parent.as_ref().is_some_and(|parent| !records.snapshots.contains_key(parent));
        let torn = |s: &Snapshot| s.diff_id.as_ref().is_some_and(|diff_id| !records.layers.contains_key(diff_id));
        let gone: Vec<String> =
            records.snapshots.iter().filter(|(_, s)| lost(s) || torn(s)).map(|(name, _)| name.clone()).collect();
        if gone.is_empty() {
            return Ok(());
        }
        for name in gone {
            tracing::error!(snapshot = name, "what it is stacked on is gone; it is forgotten");
            records.snapshots.remove(&name);
        }
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|e| corrupted(&e.to_string()))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(bytes).map_err(|e| corrupted(&e.to_string()))
}

fn corrupted(why: &str) -> redb::Error {
    StorageError::Corrupted(why.to_owned()).into()
}

/// What the disk said, where it was the disk that failed.
pub(crate) fn disk_error(error: &redb::Error) -> Option<&io::Error> {
    match error {
        redb::Error::Io(error) => Some(error),
        _ => None,
    }
}

impl Records {
    /// What makes the stored records these.
    fn differences(&self, stored: Self) -> Change {
        Change {
            remove_snapshots: stored.snapshots.into_keys().filter(|name| !self.snapshots.contains_key(name)).collect(),
            put_snapshots: self.snapshots.iter().map(|(name, snapshot)| (name.clone(), snapshot.clone())).collect(),
            remove_layers: stored.layers.into_keys().filter(|diff_id| !self.layers.contains_key(diff_id)).collect(),
            put_layers: self.layers.iter().map(|(diff_id, layer)| (diff_id.clone(), layer.clone())).collect(),
        }
    }

    /// Takes a change over that the store has committed.
    pub(crate) fn apply(&mut self, change: Change) {
        for name in &change.remove_snapshots {
            self.snapshots.remove(name);
        }
        self.snapshots.extend(change.put_snapshots);
        for diff_id in &change.remove_layers {
            self.layers.remove(diff_id);
        }
        self.layers.extend(change.put_layers);
    }

    /// One snapshot.
    pub(crate) fn snapshot(&self, name: &str) -> Result<&Snapshot, Error> {
        self.snapshots.get(name).ok_or_else(|| Error::NotFound { name: name.into() })
    }

    /// The name can be given to a new snapshot.
    pub(crate) fn free(&self, name: &str) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::EmptyName);
        }
        match self.snapshots.contains_key(name) {
            true => Err(Error::AlreadyExists { name: name.into() }),
            false => Ok(()),
        }
    }

    /// The directories below a snapshot with this parent, nearest first.
    pub(crate) fn lower(&self, name: &str, parent: Option<&str>) -> Result<Vec<Id>, Error> {
        let mut lower = Vec::new();
        let mut next = parent;
        while let Some(parent) = next {
            let snapshot = self.snapshot(parent)?;
            if snapshot.kind != crate::record::Kind::Committed {
                return Err(Error::ParentNotCommitted { name: name.into(), parent: parent.into() });
            }
            lower.push(snapshot.directory);
            lower.extend(snapshot.over);
            next = snapshot.parent.as_deref();
        }
        Ok(lower)
    }
}
