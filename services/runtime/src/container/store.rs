//! The records, in one transactional store. A thread of its own writes it and gathers what is asked at the same time
//! into one commit, so that twenty starts cost little more than one. Beside each container's data lies a copy, from
//! which a damaged store is rebuilt.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use berth_core::store::{StoreFile, is_damage, move_aside};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::{mpsc, oneshot};

use crate::{
    container::record::Record,
    error::{Error, Result},
    network::Definition,
};

const CONTAINERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("containers");
const NETWORKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("networks");
const JOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("jobs");
/// The copy of a record in its container's directory.
const COPY: &str = "container.json";
/// Changes that wait to be written.
const QUEUE: usize = 256;

/// Work that takes more than one step, by the id of its container; found at a start, it is undone or finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "lowercase")]
pub(crate) enum Job {
    /// The container is being made: everything of it is to be undone.
    Create { name: String },
    /// The container's record is gone: what else is left of it is to go.
    Remove { mounts: Vec<berth_proto::berth::runtime::v1::MountPoint>, volumes: bool },
}

/// What one transaction changes.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) put: Option<Arc<Record>>,
    pub(crate) remove: Option<String>,
    pub(crate) put_network: Option<Arc<Definition>>,
    pub(crate) remove_network: Option<String>,
    pub(crate) put_job: Option<(String, Job)>,
    pub(crate) remove_job: Option<String>,
}

/// All that the store has.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) records: Vec<Record>,
    pub(crate) networks: Vec<Definition>,
    pub(crate) jobs: BTreeMap<String, Job>,
}

type Answer = oneshot::Sender<Result<()>>;

/// The store. Cloning gives another handle.
#[derive(Clone, Debug)]
pub(crate) struct Store(mpsc::Sender<(Change, Answer)>);

impl Store {
    /// Opens the store at `path`, or makes it, and reads everything. Blocks.
    pub(crate) fn open(path: &Path, containers: &Path, networks: &Path) -> Result<(Self, Contents)> {
        let (file, contents) = match try_open(path) {
            Err(error) if is_damage(&error) => rebuild(path, containers, networks, &error),
            opened => opened.map_err(|source| Error::Store { path: path.into(), source: source.into() }),
        }?;
        let (changes, queue) = mpsc::channel(QUEUE);
        let (containers, networks) = (containers.into(), networks.into());
        let writer = Writer { path: path.into(), containers, networks, file, undo: Undo::default() };
        thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(queue))
            .map_err(Error::io("cannot start the thread of", path))?;
        Ok((Self(changes), contents))
    }

    /// Commits a change; it is durable when this answers.
    pub(crate) async fn commit(&self, change: Change) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        let gone = || Error::Panicked { what: "the store's thread" };
        self.0.send((change, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Keeps a record.
    pub(crate) async fn put(&self, record: Arc<Record>) -> Result<()> {
        self.commit(Change { put: Some(record), ..Change::default() }).await
    }

    /// A job is done. If that is forgotten the job is done again, which does no harm, so nobody waits for it.
    pub(crate) fn job_done(&self, id: &str) {
        let (answer, _) = oneshot::channel();
        let _ = self.0.try_send((Change { remove_job: Some(id.into()), ..Change::default() }, answer));
    }
}

fn try_open(path: &Path) -> Result<(StoreFile, Contents), redb::Error> {
    let file = StoreFile::open(path, |database| {
        let transaction = database.begin_write()?;
        transaction.open_table(CONTAINERS)?;
        transaction.open_table(JOBS)?;
        transaction.open_table(NETWORKS)?;
        Ok(transaction.commit()?)
    })?;
    file.with(|database, _| with_networks(database))?;
    let contents = file.with(|database, _| {
        let transaction = database.begin_read()?;
        let mut contents = Contents::default();
        for row in transaction.open_table(CONTAINERS)?.iter()? {
            contents.records.push(decode(row?.1.value())?);
        }
        for row in transaction.open_table(NETWORKS)?.iter()? {
            contents.networks.push(decode(row?.1.value())?);
        }
        for row in transaction.open_table(JOBS)?.iter()? {
            let (id, job) = row?;
            contents.jobs.insert(id.value().to_owned(), decode(job.value())?);
        }
        Ok(contents)
    })?;
    Ok((file, contents))
}

/// A store of a version that had no networks gets the table for them.
fn with_networks(database: &Database) -> Result<(), redb::Error> {
    match database.begin_read()?.open_table(NETWORKS) {
        Err(redb::TableError::TableDoesNotExist(_)) => {
            let transaction = database.begin_write()?;
            transaction.open_table(NETWORKS)?;
            Ok(transaction.commit()?)
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

fn rebuild(path: &Path, containers: &Path, networks: &Path, error: &redb::Error) -> Result<(StoreFile, Contents)> {
    let aside = move_aside(path).map_err(Error::io("cannot move aside", path))?;
    tracing::error!(%error, aside = %aside.display(), "the store is damaged; it is moved aside and rebuilt");
    let failed = |source: redb::Error| Error::Store { path: path.into(), source: source.into() };
    let (file, mut contents) = try_open(path).map_err(failed)?;
    for entry in fs::read_dir(containers).into_iter().flatten().flatten() {
        let record = fs::read(entry.path().join(COPY)).ok().and_then(|b| serde_json::from_slice::<Record>(&b).ok());
        match record {
            Some(record) if entry.file_name() == *record.id => contents.records.push(record),
            _ => tracing::warn!(directory = %entry.path().display(), "a directory without a record is not taken over"),
        }
    }
    for entry in fs::read_dir(networks).into_iter().flatten().flatten() {
        let read = fs::read(entry.path()).ok().and_then(|b| serde_json::from_slice::<Definition>(&b).ok());
        match read {
            Some(network) if entry.file_name() == *format!("{}.json", network.id) => contents.networks.push(network),
            _ => tracing::warn!(file = %entry.path().display(), "a file that is no network's is not taken over"),
        }
    }
    let puts = contents.records.iter().map(|r| Change { put: Some(Arc::new(r.clone())), ..Change::default() });
    let puts = puts.chain(
        contents.networks.iter().map(|n| Change { put_network: Some(Arc::new(n.clone())), ..Change::default() }),
    );
    let puts: Vec<_> = puts.collect();
    file.with(|database, _| write(database, &puts, &mut Undo::default(), false)).map_err(failed)?;
    Ok((file, contents))
}

/// What stood in the store, by its key, before the last changes; nothing where these were written. What failed may have
/// been written all the same, and nobody was told so.
#[derive(Debug, Default)]
struct Undo {
    containers: BTreeMap<String, Option<Vec<u8>>>,
    networks: BTreeMap<String, Option<Vec<u8>>>,
    jobs: BTreeMap<String, Option<Vec<u8>>>,
}

struct Writer {
    path: PathBuf,
    containers: PathBuf,
    networks: PathBuf,
    file: StoreFile,
    undo: Undo,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<(Change, Answer)>) {
        while let Some(first) = queue.blocking_recv() {
            let mut batch = vec![first];
            while let Ok(more) = queue.try_recv() {
                batch.push(more);
            }
            let (changes, answers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let result = self.write(&changes);
            for answer in answers {
                let _ = answer.send(result.as_ref().map(drop).map_err(|error| self.told(error)));
            }
            if result.is_ok() {
                changes.iter().filter_map(|change| change.put.as_deref()).for_each(|record| self.copy(record));
                changes.iter().for_each(|change| self.copy_network(change));
            }
        }
    }

    fn write(&mut self, changes: &[Change]) -> Result<(), redb::Error> {
        let undo = &mut self.undo;
        self.file.with(|database, again| write(database, changes, undo, again))?;
        self.undo = Undo::default();
        Ok(())
    }

    /// One failure, for each who waits for the same commit.
    fn told(&self, error: &redb::Error) -> Error {
        match error {
            redb::Error::Io(source) => {
                let source = source
                    .raw_os_error()
                    .map_or_else(|| io::Error::new(source.kind(), source.to_string()), io::Error::from_raw_os_error);
                Error::Io { what: "cannot write the store", path: self.path.clone(), source }
            }
            other => Error::Store { path: self.path.clone(), source: Box::new(corrupted(&other.to_string())) },
        }
    }

    /// The copy is for a damaged store only, so it may lag behind and is not synced.
    fn copy(&self, record: &Record) {
        let directory = self.containers.join(&record.id);
        let new = directory.join(".container.json.new");
        let write =
            || fs::write(&new, serde_json::to_vec(record)?).and_then(|()| fs::rename(&new, directory.join(COPY)));
        match write() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, directory = %directory.display(), "the copy of a record cannot be written");
            }
            // A container that was removed meanwhile has no directory any more.
            _ => {}
        }
    }

    fn copy_network(&self, change: &Change) {
        let path = |id: &str| self.networks.join(format!("{id}.json"));
        if let Some(network) = &change.put_network {
            let new = self.networks.join(".new");
            let write =
                || fs::write(&new, serde_json::to_vec(&**network)?).and_then(|()| fs::rename(&new, path(&network.id)));
            if let Err(error) = write() {
                tracing::warn!(%error, network = network.name, "the copy of a network cannot be written");
            }
        }
        if let Some(id) = &change.remove_network {
            let _ = fs::remove_file(path(id));
        }
    }
}

/// Writes changes in one transaction; where the store was opened `again`, after what failed before was undone.
fn write(database: &Database, changes: &[Change], undo: &mut Undo, again: bool) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut containers = transaction.open_table(CONTAINERS)?;
        let mut jobs = transaction.open_table(JOBS)?;
        let mut networks = transaction.open_table(NETWORKS)?;
        if again {
            restore(&mut containers, &undo.containers)?;
            restore(&mut networks, &undo.networks)?;
            restore(&mut jobs, &undo.jobs)?;
        }
        for change in changes {
            if let Some(record) = &change.put {
                set(&mut containers, &mut undo.containers, &record.id, Some(encode(&**record)?))?;
            }
            if let Some(id) = &change.remove {
                set(&mut containers, &mut undo.containers, id, None)?;
            }
            if let Some(network) = &change.put_network {
                set(&mut networks, &mut undo.networks, &network.id, Some(encode(&**network)?))?;
            }
            if let Some(id) = &change.remove_network {
                set(&mut networks, &mut undo.networks, id, None)?;
            }
            if let Some((id, job)) = &change.put_job {
                set(&mut jobs, &mut undo.jobs, id, Some(encode(job)?))?;
            }
            if let Some(id) = &change.remove_job {
                set(&mut jobs, &mut undo.jobs, id, None)?;
            }
        }
    }
    Ok(transaction.commit()?)
}

type Rows<'a> = Table<'a, &'static str, &'static [u8]>;

fn set(
    table: &mut Rows<'_>,
    undo: &mut BTreeMap<String, Option<Vec<u8>>>,
    id: &str,
    value: Option<Vec<u8>>,
) -> Result<(), redb::Error> {
    let before = match value {
        Some(value) => table.insert(id, value.as_slice())?.map(|before| before.value().to_vec()),
        None => table.remove(id)?.map(|before| before.value().to_vec()),
    };
    // Of several changes the first knows how it was.
    undo.entry(id.to_owned()).or_insert(before);
    Ok(())
}

fn restore(table: &mut Rows<'_>, before: &BTreeMap<String, Option<Vec<u8>>>) -> Result<(), redb::Error> {
    for (id, value) in before {
        match value {
            Some(value) => drop(table.insert(id.as_str(), value.as_slice())?),
            None => drop(table.remove(id.as_str())?),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Arc<Record> {
        Arc::new(Record { id: id.into(), name: format!("name-{id}"), ..Record::default() })
    }

    /// The thread closes the database soon after the last handle is gone.
    fn reopened(path: &Path) -> Contents {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            match try_open(path) {
                Ok((_, contents)) => return contents,
                Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
            }
            thread::yield_now();
        }
    }

    #[tokio::test]
    async fn what_was_committed_is_there_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.redb");
        {
            let (store, contents) = Store::open(&path, directory.path(), directory.path()).unwrap();
            assert!(contents.records.is_empty() && contents.jobs.is_empty());
            let job = ("a".to_owned(), Job::Create { name: "x".into() });
            store.commit(Change { put_job: Some(job), ..Change::default() }).await.unwrap();
            let done = Change { put: Some(record("a")), remove_job: Some("a".into()), ..Change::default() };
            store.commit(done).await.unwrap();
            store.put(record("b")).await.unwrap();
            for id in ["kept", "gone"] {
                let network = Definition { id: id.into(), ..Definition::default() };
                let change = Change { put_network: Some(Arc::new(network)), ..Change::default() };
                store.commit(change).await.unwrap();
            }
            store.commit(Change { remove_network: Some("gone".into()), ..Change::default() }).await.unwrap();
            let job = ("b".to_owned(), Job::Remove { mounts: vec![], volumes: true });
            let change = Change { remove: Some("b".into()), put_job: Some(job), ..Change::default() };
            store.commit(change).await.unwrap();
        }
        let contents = reopened(&path);
        assert_eq!(contents.records.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["name-a"]);
        assert_eq!(contents.networks.iter().map(|n| n.id.as_str()).collect::<Vec<_>>(), ["kept"]);
        assert_eq!(contents.jobs["b"], Job::Remove { mounts: vec![], volumes: true });
    }

    /// Runs `body` on a thread that alone sees a small disk at `directory`.
    fn on_a_small_disk(directory: &Path, body: impl FnOnce() + Send) {
        use nix::{
            mount::{MsFlags, mount},
            sched::{CloneFlags, unshare},
        };
        let made = || {
            unshare(CloneFlags::CLONE_NEWNS).expect("tests run as root");
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some("none"), directory, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).unwrap();
            body();
        };
        thread::scope(|scope| scope.spawn(made).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    #[test]
    fn a_full_disk_is_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        on_a_small_disk(directory.path(), || {
            let path = directory.path().join("meta.redb");
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (store, _) = Store::open(&path, directory.path(), directory.path()).unwrap();
            runtime.block_on(store.put(record("a"))).unwrap();
            let filler = directory.path().join("filler");
            let _ = fs::write(&filler, vec![0; 8 << 20]);
            let large = |id: &str| Arc::new(Record { image: "x".repeat(100_000), ..(*record(id)).clone() });
            let failure = (0..100).find_map(|n| runtime.block_on(store.put(large(&format!("b{n}")))).err());
            let failure = berth_core::Failure::from(failure.expect("the disk is full"));
            assert_eq!(failure.reason, "NO_SPACE", "{failure}");
            fs::remove_file(&filler).unwrap();
            runtime.block_on(store.put(record("c"))).unwrap();
            drop(store);
            let ids: Vec<_> = reopened(&path).records.into_iter().map(|record| record.id).collect();
            assert!(ids.contains(&"a".to_owned()) && ids.contains(&"c".to_owned()), "{ids:?}");
        });
    }

    #[test]
    fn what_was_written_although_it_failed_is_undone() {
        let directory = tempfile::tempdir().unwrap();
        let (file, _) = try_open(&directory.path().join("meta.redb")).unwrap();
        let mut writer = Writer {
            path: directory.path().join("meta.redb"),
            containers: directory.path().into(),
            networks: directory.path().into(),
            file,
            undo: Undo::default(),
        };
        let put = |record: Record| [Change { put: Some(Arc::new(record)), ..Change::default() }];
        writer.write(&put((*record("a")).clone())).unwrap();
        let renamed = put(Record { name: "other".into(), ..(*record("a")).clone() });
        let new = put((*record("b")).clone());
        let failed = writer.file.with(|database, _| {
            write(database, &renamed, &mut writer.undo, false)?;
            write(database, &new, &mut writer.undo, false)?;
            Err::<(), _>(redb::Error::Io(io::Error::from_raw_os_error(libc::ENOSPC)))
        });
        assert!(failed.is_err());
        writer.write(&put((*record("c")).clone())).unwrap();
        drop(writer);
        let contents = reopened(&directory.path().join("meta.redb"));
        assert_eq!(contents.records.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["name-a", "name-c"]);
    }

    #[tokio::test]
    async fn a_damaged_store_is_moved_aside_and_rebuilt() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.redb");
        let containers = directory.path().join("containers");
        fs::create_dir_all(containers.join("a")).unwrap();
        fs::create_dir_all(containers.join("stray")).unwrap();
        fs::write(containers.join("a").join(COPY), serde_json::to_vec(&*record("a")).unwrap()).unwrap();
        fs::write(&path, b"this is no store").unwrap();
        let networks = directory.path().join("networks");
        fs::create_dir_all(&networks).unwrap();
        let network = Definition { id: "n".into(), name: "front".into(), ..Definition::default() };
        fs::write(networks.join("n.json"), serde_json::to_vec(&network).unwrap()).unwrap();
        fs::write(networks.join("stray.json"), b"{}").unwrap();
        let (_, contents) = Store::open(&path, &containers, &networks).unwrap();
        assert_eq!((contents.records.len(), contents.networks), (1, vec![network]));
        let aside = fs::read_dir(directory.path()).unwrap().flatten();
        assert!(aside.into_iter().any(|e| e.file_name().to_string_lossy().contains("damaged")));
    }
}
