//! The rules: what may be stacked on what, what may go, and in which order things become true.
//!
//! All records are in memory behind one lock, which is held for look-ups and for one commit of the store, never while
//! files are unpacked or copied. What a call makes on disk it makes first, under a number that no record has; if the
//! record cannot be made, or the process dies, that directory is garbage and the next start throws it away.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use berth_core::{Digest, digest::chain_ids};
use berth_proto::containerd::types::Mount;
use tokio::sync::watch;

use crate::{
    directory::{Directories, Id},
    driver::{self, Driver},
    error::Error,
    filter::Filter,
    layer::{apply, growing::Arrival, sync},
    record::{Kind, Layer, Snapshot, Time, Usage},
    settings::Settings,
    store::{Change, Copy, Records, Store},
    trash::Trash,
};

/// All snapshots and layers of the node.
#[derive(Debug)]
pub(crate) struct Snapshotter {
    root: PathBuf,
    directories: Directories,
    driver: Box<dyn Driver>,
    store: Store,
    trash: Trash,
    records: Mutex<Records>,
    /// Layers that are being laid down, so that a second caller waits for the first.
    applying: Mutex<HashMap<Digest, watch::Receiver<()>>>,
}

/// What to do about a layer that is asked for.
pub(crate) enum Turn {
    /// It is here; this many bytes of tar.
    Here(u64),
    /// Another call lays it down: wait for this to close, then ask again.
    Wait(watch::Receiver<()>),
    /// It is this caller's.
    Ours(Claim),
}

/// The right to lay a layer down; others wait while this lives.
pub(crate) struct Claim {
    snapshotter: Arc<Snapshotter>,
    diff_id: Digest,
    _done: watch::Sender<()>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.snapshotter.applying).remove(&self.diff_id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Records change only after their commit, in assignments that cannot fail halfway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Snapshotter {
    /// Opens everything below `root`, and takes away what a killed service left half made.
    pub(crate) fn open(root: &Path, settings: &Settings) -> Result<Self, Error> {
        fs::create_dir_all(root).map_err(Error::io("cannot make", root))?;
        let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o711);
        fs::set_permissions(root, mode).map_err(Error::io("cannot set the mode of", root))?;
        let driver = driver::choose(settings.driver, root)?;
        let base = root.join(driver.name());
        fs::create_dir_all(&base).map_err(Error::io("cannot make", &base))?;
        let directories = Directories::new(base.clone());
        let trash = Trash::open(base.join("trash"))?;
        let (store, records) = Store::open(&root.join(format!("{}.redb", driver.name())), &directories)?;
        let snapshotter = Self {
            root: root.into(),
            directories,
            driver,
            store,
            trash,
            records: Mutex::new(records),
            applying: Mutex::default(),
        };
        snapshotter.reconcile()?;
        tracing::info!(driver = snapshotter.driver.name(), root = %root.display(), "the snapshotter is open");
        Ok(snapshotter)
    }

    /// Directories without a record are garbage; records without a directory name what is lost.
    fn reconcile(&self) -> Result<(), Error> {
        let mut records = lock(&self.records);
        let mut change = Change { next: records.next, ..Change::default() };
        for (name, snapshot) in &records.snapshots {
            if !self.directories.files(snapshot.directory).is_dir() {
                tracing::error!(snapshot = name, "its directory is gone; it is forgotten");
                change.remove_snapshots.push(name.clone());
            }
        }
        for (diff_id, layer) in &records.layers {
            if !self.directories.files(layer.directory).is_dir() {
                tracing::error!(layer = %diff_id, "its directory is gone; it is forgotten");
                change.remove_layers.push(diff_id.clone());
            }
        }
        if !change.remove_snapshots.is_empty() || !change.remove_layers.is_empty() {
            self.store.commit(&change)?;
            for name in &change.remove_snapshots {
                records.snapshots.remove(name);
            }
            for diff_id in &change.remove_layers {
                records.layers.remove(diff_id);
            }
        }
        let mut known: HashSet<Id> = records.snapshots.values().map(|s| s.directory).collect();
        known.extend(records.layers.values().map(|l| l.directory));
        for id in self.directories.all().map_err(Error::io("cannot list", self.directories.base()))? {
            if !known.contains(&id) {
                self.trash.take(&self.directories.path(id))?;
            }
        }
        Ok(())
    }

    /// The driver's name.
    pub(crate) fn driver(&self) -> &'static str {
        self.driver.name()
    }

    /// Where everything is.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    // ---- Snapshots ----

    /// A new snapshot to write to (active) or to look at (view), with its mounts.
    pub(crate) fn prepare(
        &self,
        kind: Kind,
        key: &str,
        parent: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, Error> {
        let parent = (!parent.is_empty()).then(|| parent.to_owned());
        let (id, lower) = {
            let mut records = lock(&self.records);
            records.free(key)?;
            let lower = records.lower(key, parent.as_deref())?;
            (records.number(), lower)
        };
        match kind {
            Kind::View => self.directories.make(id, false)?,
            _ => self.driver.prepare(&self.directories, id, &lower)?,
        }
        let now = Time::now();
        let snapshot = Snapshot { kind, parent, directory: id, diff_id: None, labels, created: now, updated: now };
        let result = self.insert(key, snapshot.clone());
        if result.is_err() {
            self.trash.take(&self.directories.path(id))?;
        }
        result?;
        Ok(self.mounts_of(&snapshot, &lower))
    }

    fn insert(&self, name: &str, snapshot: Snapshot) -> Result<(), Error> {
        let copy = Copy::Snapshot { name: name.to_owned(), snapshot: snapshot.clone() };
        self.directories.describe(snapshot.directory, &copy)?;
        let mut records = lock(&self.records);
        // Another call may have taken the name, or removed the parent, while the directory was made.
        records.free(name)?;
        records.lower(name, snapshot.parent.as_deref())?;
        let put_snapshots = vec![(name.to_owned(), snapshot.clone())];
        self.store.commit(&Change { put_snapshots, next: records.next, ..Change::default() })?;
        records.snapshots.insert(name.to_owned(), snapshot);
        Ok(())
    }

    fn mounts_of(&self, snapshot: &Snapshot, lower: &[Id]) -> Vec<Mount> {
        let own = (snapshot.kind == Kind::Active).then_some(snapshot.directory);
        if own.is_none() && lower.is_empty() {
            return self.driver.mounts(&self.directories, None, &[snapshot.directory]);
        }
        self.driver.mounts(&self.directories, own, lower)
    }

    /// How to mount an active snapshot or a view.
    pub(crate) fn mounts(&self, key: &str) -> Result<Vec<Mount>, Error> {
        let records = lock(&self.records);
        let snapshot = records.snapshot(key)?;
        if snapshot.kind == Kind::Committed {
            return Err(Error::WrongKind { name: key.into(), is: "committed", wanted: "active or a view" });
        }
        let lower = records.lower(key, snapshot.parent.as_deref())?;
        Ok(self.mounts_of(snapshot, &lower))
    }

    /// An active snapshot becomes a committed one under another name.
    pub(crate) fn commit(
        &self,
        name: &str,
        key: &str,
        parent: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let directory = lock(&self.records).snapshot(key)?.directory;
        // What a record names is on disk before the record is.
        sync(&self.directories.path(directory))?;
        let mut records = lock(&self.records);
        records.free(name)?;
        let active = records.snapshot(key)?.clone();
        if active.kind != Kind::Active {
            return Err(Error::WrongKind { name: key.into(), is: active.kind.name(), wanted: "active" });
        }
        let parent = if parent.is_empty() { active.parent.clone() } else { Some(parent.to_owned()) };
        records.lower(name, parent.as_deref())?;
        let snapshot = Snapshot { kind: Kind::Committed, parent, labels, updated: Time::now(), ..active };
        let copy = Copy::Snapshot { name: name.to_owned(), snapshot: snapshot.clone() };
        self.directories.describe(snapshot.directory, &copy)?;
        self.store.commit(&Change {
            put_snapshots: vec![(name.to_owned(), snapshot.clone())],
            remove_snapshots: vec![key.to_owned()],
            next: records.next,
            ..Change::default()
        })?;
        records.snapshots.remove(key);
        records.snapshots.insert(name.to_owned(), snapshot);
        Ok(())
    }

    /// Takes a snapshot away. A layer that no snapshot is left of goes with it.
    pub(crate) fn remove(&self, key: &str) -> Result<(), Error> {
        let garbage = {
            let mut records = lock(&self.records);
            let snapshot = records.snapshot(key)?.clone();
            if let Some((child, _)) = records.snapshots.iter().find(|(_, s)| s.parent.as_deref() == Some(key)) {
                return Err(Error::HasChildren { name: key.into(), child: child.clone() });
            }
            let shared = |id: Id| records.snapshots.iter().any(|(name, s)| name != key && s.directory == id);
            let mut change = Change { remove_snapshots: vec![key.to_owned()], next: records.next, ..Change::default() };
            let mut garbage = Vec::new();
            if !shared(snapshot.directory) {
                garbage.push(snapshot.directory);
            }
            if let Some(diff_id) = &snapshot.diff_id {
                let used = |s: &Snapshot| s.diff_id.as_ref() == Some(diff_id);
                if !records.snapshots.iter().any(|(name, s)| name != key && used(s))
                    && let Some(layer) = records.layers.get(diff_id)
                {
                    change.remove_layers.push(diff_id.clone());
                    garbage.push(layer.directory);
                }
            }
            self.store.commit(&change)?;
            records.snapshots.remove(key);
            for diff_id in &change.remove_layers {
                records.layers.remove(diff_id);
            }
            garbage
        };
        for id in garbage {
            self.trash.take(&self.directories.path(id))?;
        }
        Ok(())
    }

    /// One snapshot's record.
    pub(crate) fn stat(&self, key: &str) -> Result<Snapshot, Error> {
        lock(&self.records).snapshot(key).cloned()
    }

    /// Replaces labels: all of them, or those that the field paths name (`labels`, `labels.KEY`).
    pub(crate) fn update(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        paths: &[String],
    ) -> Result<Snapshot, Error> {
        let mut records = lock(&self.records);
        let mut snapshot = records.snapshot(name)?.clone();
        if paths.is_empty() {
            snapshot.labels.clone_from(labels);
        }
        for path in paths {
            if path == "labels" {
                snapshot.labels.clone_from(labels);
            } else if let Some(key) = path.strip_prefix("labels.") {
                match labels.get(key) {
                    Some(value) => snapshot.labels.insert(key.to_owned(), value.clone()),
                    None => snapshot.labels.remove(key),
                };
            } else {
                return Err(Error::Immutable { field: path.clone() });
            }
        }
        snapshot.updated = Time::now();
        let put_snapshots = vec![(name.to_owned(), snapshot.clone())];
        self.store.commit(&Change { put_snapshots, next: records.next, ..Change::default() })?;
        records.snapshots.insert(name.to_owned(), snapshot.clone());
        Ok(snapshot)
    }

    /// Every snapshot that passes any of the filters; all where there are none.
    pub(crate) fn list(&self, filters: &[Filter]) -> Vec<(String, Snapshot)> {
        let admitted = |name: &str, snapshot: &Snapshot| {
            filters.is_empty() || filters.iter().any(|filter| filter.admits(name, snapshot))
        };
        let records = lock(&self.records);
        records.snapshots.iter().filter(|(n, s)| admitted(n, s)).map(|(n, s)| (n.clone(), s.clone())).collect()
    }

    /// Disk use of a snapshot without its parents. Walks the files, so it takes a while; no lock is held.
    pub(crate) fn usage(&self, key: &str) -> Result<Usage, Error> {
        let directory = {
            let records = lock(&self.records);
            let snapshot = records.snapshot(key)?;
            if let Some(layer) = snapshot.diff_id.as_ref().and_then(|diff_id| records.layers.get(diff_id)) {
                return Ok(layer.usage);
            }
            self.directories.files(snapshot.directory)
        };
        walk(&directory).map_err(Error::io("cannot walk", &directory))
    }

    // ---- Layers ----

    /// Which of these layers are here.
    pub(crate) fn present(&self, diff_ids: &[Digest]) -> Vec<Digest> {
        let records = lock(&self.records);
        diff_ids.iter().filter(|diff_id| records.layers.contains_key(*diff_id)).cloned().collect()
    }

    /// Whose turn it is to lay a layer down.
    pub(crate) fn turn(self: &Arc<Self>, diff_id: &Digest) -> Turn {
        // Held while the records are looked at, so that no layer is finished between the two looks.
        let mut applying = lock(&self.applying);
        if let Some(layer) = lock(&self.records).layers.get(diff_id) {
            return Turn::Here(layer.tar_bytes);
        }
        if let Some(other) = applying.get(diff_id) {
            return Turn::Wait(other.clone());
        }
        let (done, waiting) = watch::channel(());
        applying.insert(diff_id.clone(), waiting);
        Turn::Ours(Claim { snapshotter: Arc::clone(self), diff_id: diff_id.clone(), _done: done })
    }

    /// Lays a layer down and answers with the bytes of its tar. It is not durable before it is composed.
    pub(crate) fn apply(&self, claim: &Claim, blob: fs::File, arrival: &Arc<Arrival>) -> Result<u64, Error> {
        let id = lock(&self.records).number();
        let result = self.directories.make(id, false).and_then(|()| {
            let applied = apply(blob, arrival, &claim.diff_id, &self.directories.files(id))?;
            let layer = Layer { directory: id, tar_bytes: applied.tar_bytes, usage: applied.usage };
            self.directories.describe(id, &Copy::Layer { diff_id: claim.diff_id.clone(), layer: layer.clone() })?;
            Ok(layer)
        });
        match result {
            Ok(layer) => {
                let tar_bytes = layer.tar_bytes;
                // Committed to the store by `compose`, after the one sync that all layers share.
                lock(&self.records).layers.insert(claim.diff_id.clone(), layer);
                Ok(tar_bytes)
            }
            Err(error) => {
                self.trash.take(&self.directories.path(id))?;
                Err(error)
            }
        }
    }

    /// Makes the committed snapshots of a stack of layers, lowest first; all is durable when this answers.
    pub(crate) fn compose(&self, diff_ids: &[Digest], labels: &BTreeMap<String, String>) -> Result<Vec<String>, Error> {
        let names: Vec<String> = chain_ids(diff_ids).iter().map(Digest::to_string).collect();
        {
            let records = lock(&self.records);
            if names.iter().all(|name| records.snapshots.contains_key(name)) {
                return Ok(names);
            }
            if let Some(missing) = diff_ids.iter().find(|diff_id| !records.layers.contains_key(*diff_id)) {
                return Err(Error::LayerMissing { diff_id: missing.to_string() });
            }
        }
        let mut made: Vec<(String, Snapshot)> = Vec::new();
        let mut below: Option<(String, Id)> = None;
        for (name, diff_id) in names.iter().zip(diff_ids) {
            let (existing, layer, new) = {
                let mut records = lock(&self.records);
                let existing = records.snapshots.get(name).map(|s| s.directory);
                let layer = records.layers.get(diff_id).map(|l| l.directory);
                (existing, layer, if existing.is_none() { Some(records.number()) } else { None })
            };
            let id = match (existing, layer, new) {
                (Some(id), _, _) => id,
                (None, Some(layer), Some(new)) => {
                    let parent = below.as_ref().map(|(_, id)| *id);
                    let id = self.driver.compose(&self.directories, new, layer, parent)?;
                    let now = Time::now();
                    made.push((
                        name.clone(),
                        Snapshot {
                            kind: Kind::Committed,
                            parent: below.as_ref().map(|(name, _)| name.clone()),
                            directory: id,
                            diff_id: Some(diff_id.clone()),
                            labels: labels.clone(),
                            created: now,
                            updated: now,
                        },
                    ));
                    id
                }
                _ => return Err(Error::LayerMissing { diff_id: diff_id.to_string() }),
            };
            below = Some((name.clone(), id));
        }
        sync(self.directories.base())?;
        let mut records = lock(&self.records);
        // A stack below may have been removed, or made by another call, meanwhile.
        made.retain(|(name, _)| !records.snapshots.contains_key(name));
        let mut put_layers = Vec::new();
        for diff_id in diff_ids {
            match records.layers.get(diff_id) {
                Some(layer) => put_layers.push((diff_id.clone(), layer.clone())),
                None => return Err(Error::LayerMissing { diff_id: diff_id.to_string() }),
            }
        }
        self.store.commit(&Change {
            put_snapshots: made.clone(),
            put_layers,
            next: records.next,
            ..Change::default()
        })?;
        records.snapshots.extend(made);
        Ok(names)
    }

    /// Every layer with its disk use and how many snapshots are of it.
    pub(crate) fn layers(&self) -> Vec<(Digest, Layer, usize)> {
        let records = lock(&self.records);
        let references =
            |diff_id: &Digest| records.snapshots.values().filter(|s| s.diff_id.as_ref() == Some(diff_id)).count();
        records.layers.iter().map(|(d, l)| (d.clone(), l.clone(), references(d))).collect()
    }
}

impl Records {
    fn snapshot(&self, name: &str) -> Result<&Snapshot, Error> {
        self.snapshots.get(name).ok_or_else(|| Error::NotFound { name: name.into() })
    }

    /// The name can be given to a new snapshot.
    fn free(&self, name: &str) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::EmptyName);
        }
        match self.snapshots.contains_key(name) {
            true => Err(Error::AlreadyExists { name: name.into() }),
            false => Ok(()),
        }
    }

    /// The directories below a snapshot with this parent, nearest first.
    fn lower(&self, name: &str, parent: Option<&str>) -> Result<Vec<Id>, Error> {
        let mut lower = Vec::new();
        let mut next = parent;
        while let Some(parent) = next {
            let snapshot = self.snapshot(parent)?;
            if snapshot.kind != Kind::Committed {
                return Err(Error::ParentNotCommitted { name: name.into(), parent: parent.into() });
            }
            lower.push(snapshot.directory);
            next = snapshot.parent.as_deref();
        }
        Ok(lower)
    }
}

fn walk(directory: &Path) -> std::io::Result<Usage> {
    use std::os::unix::fs::MetadataExt as _;
    let mut usage = Usage { bytes: 0, inodes: 1 };
    let mut seen = HashSet::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(&next)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // A container writes there; what went away meanwhile does not count.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert(metadata.ino()) {
                continue;
            }
            usage.inodes += 1;
            usage.bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(usage)
}
