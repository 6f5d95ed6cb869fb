//! The rules: what may be stacked on what, what may go, and in which order things become true.
//!
//! What a call makes on disk it makes first, under a number that no record has; if the record cannot be made, or the
//! process dies, that directory is garbage and the next start throws it away. Records change one commit after the other;
//! who only looks at them never waits for the disk.

mod layers;
mod reading;
mod snapshots;

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use berth_core::Digest;
pub(crate) use layers::Turn;
use tokio::sync::watch;

use crate::{
    directory::{Directories, Id},
    driver::{self, Driver},
    error::Error,
    record::{Kind, Layer, Snapshot},
    settings::Settings,
    store::{Change, Records, Store},
    trash::Trash,
};

/// How long before the last record a directory was made that a loss of power may have taken, in nanoseconds: file systems
/// write their journal every few seconds.
const RECENT: u64 = 60_000_000_000;

/// All snapshots and layers of the node.
#[derive(Debug)]
pub(crate) struct Snapshotter {
    root: PathBuf,
    directories: Directories,
    driver: Box<dyn Driver>,
    store: Store,
    trash: Trash,
    /// As the store has them. Locked for a look or an assignment, never while the disk is waited for.
    records: RwLock<Records>,
    /// Held while the records change, from the look at them to the commit.
    changing: Mutex<()>,
    /// The next directory's number.
    next: AtomicU64,
    /// Layers that are whole but not durable yet, because no snapshot was composed of them.
    fresh: Mutex<HashMap<Digest, Layer>>,
    /// Fresh layers are to be thrown away as soon as nobody is at work.
    forgetting: AtomicBool,
    /// Layers that are being laid down, so that a second caller waits for the first.
    applying: Mutex<HashMap<Digest, watch::Receiver<()>>>,
    /// Keeps other processes out of the root.
    _lock: File,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold changes in assignments that cannot fail halfway.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Snapshotter {
    /// Opens everything below `root`, and takes away what a killed service left half made.
    pub(crate) fn open(root: &Path, settings: &Settings) -> Result<Self, Error> {
        fs::create_dir_all(root).map_err(Error::io("cannot make", root))?;
        // Images hold set-uid programs. Whoever is in a container reaches its files by the mount, not from here.
        fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(Error::io("cannot set the mode of", root))?;
        let held = hold(root)?;
        let driver = driver::choose(settings.driver, root)?;
        let base = root.join(driver.name());
        fs::create_dir_all(&base).map_err(Error::io("cannot make", &base))?;
        let directories = Directories::new(base.clone());
        let trash = Trash::open(base.join("trash"))?;
        let (store, records) = Store::open(&base.join("meta.redb"), &directories)?;
        let snapshotter = Self {
            root: root.into(),
            next: AtomicU64::new(records.next.unwrap_or(1)),
            directories,
            driver,
            store,
            trash,
            records: RwLock::new(records),
            changing: Mutex::default(),
            fresh: Mutex::default(),
            forgetting: AtomicBool::new(false),
            applying: Mutex::default(),
            _lock: held,
        };
        snapshotter.reconcile()?;
        tracing::info!(driver = snapshotter.driver.name(), root = %root.display(), "the snapshotter is open");
        Ok(snapshotter)
    }

    /// Directories without a record are garbage; records without a directory name what is lost.
    fn reconcile(&self) -> Result<(), Error> {
        self.make_again();
        let here = |id: Id| self.directories.files(id).is_dir();
        self.change(|records| {
            let mut change = Change::default();
            for (name, snapshot) in &records.snapshots {
                if !here(snapshot.directory) || !snapshot.over.is_none_or(here) {
                    tracing::error!(snapshot = name, "its directory is gone; it is forgotten");
                    change.remove_snapshots.push(name.clone());
                }
            }
            for (diff_id, layer) in &records.layers {
                if !here(layer.directory) {
                    tracing::error!(layer = %diff_id, "its directory is gone; it is forgotten");
                    change.remove_layers.push(diff_id.clone());
                }
            }
            Ok((change, ()))
        })?;
        let all = self.directories.all().map_err(Error::io("cannot list", self.directories.base()))?;
        // Numbers are handed out before they are recorded, so one in use may be larger than the store knows.
        let largest = all.iter().map(|id| id.0.saturating_add(1)).max().unwrap_or(1);
        self.next.fetch_max(largest, Ordering::SeqCst);
        let known: HashSet<Id> = {
            let records = self.read();
            let snapshots = records.snapshots.values().flat_map(|s| [Some(s.directory), s.over]).flatten();
            snapshots.chain(records.layers.values().map(|l| l.directory)).collect()
        };
        for id in all.into_iter().filter(|id| !known.contains(id)) {
            self.trash.take(&self.directories.path(id));
        }
        Ok(())
    }

    /// A loss of power may take the directories of snapshots that were just prepared, and not their records. They were
    /// empty, or what was written to them had not been synced either; so they are made again.
    fn make_again(&self) {
        let records = self.read();
        let last = records.snapshots.values().map(|s| s.updated.0).max().unwrap_or(0);
        let lost = |s: &Snapshot| {
            let recent = last.saturating_sub(s.created.0) < RECENT;
            // A driver that copies has synced what it copied.
            recent
                && s.kind != Kind::Committed
                && self.driver.rebases()
                && !self.directories.files(s.directory).is_dir()
        };
        for (name, snapshot) in records.snapshots.iter().filter(|(_, s)| lost(s)) {
            tracing::error!(snapshot = name, "its directory is gone; it is made again, empty");
            self.trash.take(&self.directories.path(snapshot.directory));
            let lower = records.lower(name, snapshot.parent.as_deref());
            if let Err(error) = lower.and_then(|lower| self.make(name, snapshot, &lower)) {
                tracing::error!(snapshot = name, %error, "its directory cannot be made again");
            }
        }
    }

    /// The driver's name.
    pub(crate) fn driver(&self) -> &'static str {
        self.driver.name()
    }

    /// Where everything is.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Waits until all that was thrown away by now is deleted.
    pub(crate) async fn cleaned(&self) {
        self.trash.emptied().await;
    }

    fn read(&self) -> RwLockReadGuard<'_, Records> {
        self.records.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the records: `decide` looks at them as they are and says what shall change; that is durable when this
    /// answers, and only then seen by others.
    fn change<T>(&self, decide: impl FnOnce(&Records) -> Result<(Change, T), Error>) -> Result<T, Error> {
        let _changing = lock(&self.changing);
        let (change, answer) = decide(&self.read())?;
        // Also a start on a full disk.
        if change.is_empty() {
            return Ok(answer);
        }
        // Nobody else changes them meanwhile, so that nobody waits for this look.
        self.store.commit(&self.read(), &change, self.next.load(Ordering::SeqCst))?;
        self.records.write().unwrap_or_else(PoisonError::into_inner).apply(change);
        Ok(answer)
    }

    /// A number for a new directory.
    fn number(&self) -> Id {
        Id(self.next.fetch_add(1, Ordering::SeqCst))
    }
}

/// The root is this process's as long as the answer lives.
fn hold(root: &Path) -> Result<File, Error> {
    let file = File::open(root).map_err(Error::io("cannot open", root))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Taken { path: root.into() }),
        Err(error) => Err(Error::io("cannot lock", root)(error.into())),
    }
}
