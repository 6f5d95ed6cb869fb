//! Reading what a container has written while it may go on writing: as a layer, as a list, as a whole tree. A layer is
//! copied, and packed from the copy whenever its tar is wanted.
//!
//! What is told is what was read. If the snapshot goes away meanwhile, that is said, so that nobody takes half of it for
//! all.

use std::{os::fd::AsFd as _, path::Path, sync::Arc, thread};

use berth_core::Digest;
use bytes::Bytes;
use rustix::fs::{CWD, Mode, openat};
use tokio::{runtime::Handle, sync::mpsc};

use super::{Snapshotter, Turn, lock};
use crate::{
    directory::Id,
    driver::Look,
    error::Error,
    layer::{
        attributes::Attributes,
        changes::{self, Change, Own},
        outgoing::Outgoing,
        pack::{self, Form, LeaveOut},
        pipeline::Inflated,
        take::{self, Gone},
        tree::{self, READ},
    },
    record::{Layer, Open, Snapshot, Usage},
};

/// Bytes of a tar without entries.
const EMPTY: u64 = 1024;

/// A layer that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) diff_id: Digest,
    /// Of its tar.
    pub(crate) bytes: u64,
}

impl Snapshotter {
    /// Lays down what a container has written as a layer, unless that is nothing. An empty piece is sent when it has
    /// been read and the container may go on.
    pub(crate) fn take(
        self: &Arc<Self>,
        key: &str,
        leave_out: &LeaveOut,
        caller: &mpsc::Sender<Bytes>,
    ) -> Result<Taken, Error> {
        let (snapshot, lower) = self.written(key)?;
        let _rest = self.trash.rest();
        let id = self.number();
        self.directories.make(id, false)?;
        let taken = self.lay_down(key, &snapshot, &lower, leave_out, id, caller).and_then(|(layer, diff_id)| {
            let bytes = layer.tar_bytes;
            let kept = bytes != EMPTY && self.keep(layer, &diff_id)?;
            Ok((Taken { diff_id, bytes }, kept))
        });
        if !matches!(taken, Ok((_, true))) {
            self.trash.take(&self.directories.path(id));
        }
        if let Err(error) = &taken
            && error.full().is_some()
        {
            self.forget_abandoned();
        }
        taken.map(|(taken, _)| taken)
    }

    fn lay_down(
        &self,
        key: &str,
        snapshot: &Snapshot,
        lower: &[Id],
        leave_out: &LeaveOut,
        id: Id,
        caller: &mpsc::Sender<Bytes>,
    ) -> Result<(Layer, Digest), Error> {
        let target = self.directories.files(id);
        let gone = || caller.is_closed();
        // On a thread of its own, which gets a umask of its own.
        let (usage, layer_open) = on_a_thread(|| self.copy_written(snapshot, lower, leave_out, &target, &gone))?;
        self.still_there(key, snapshot)?;
        caller.blocking_send(Bytes::new()).map_err(|_| Error::Cancelled)?;
        // While the one needs the processor the other waits for the disk; whoever composes the layer waits the less.
        let base = self.directories.base();
        let (hashed, synced) = thread::scope(|scope| {
            let syncing = scope.spawn(|| tree::sync(base));
            let mut out = Outgoing::hashed(&gone);
            let hashed = open(&target).and_then(|root| {
                pack::tree(root.as_fd(), Form::Layer, describes_root(&layer_open), &LeaveOut::new(), &mut out)?;
                out.finish().ok_or(Error::Panicked { what: "hashing the layer" })
            });
            (hashed, join(syncing))
        });
        let Inflated { diff_id, bytes } = synced.and(hashed)?;
        Ok((Layer { directory: id, tar_bytes: bytes, usage, open: layer_open }, diff_id))
    }

    /// Copies what was written into `target`.
    fn copy_written(
        &self,
        snapshot: &Snapshot,
        lower: &[Id],
        leave_out: &LeaveOut,
        target: &Path,
        gone: Gone<'_>,
    ) -> Result<(Usage, Open), Error> {
        let own = self.directories.files(snapshot.directory);
        match self.driver.own() {
            Own::Layer => {
                // Its times are another's as soon as anything is in it; that alone is no change.
                let changed = match lower.first() {
                    Some(below) => !same_access(&own, &self.directories.files(*below))?,
                    None => true,
                };
                take::tree(open(&own)?.as_fd(), changed, leave_out, target, gone)
            }
            Own::Whole => {
                let changes = self.compare(snapshot, lower, leave_out)?;
                take::changed(open(&own)?.as_fd(), &changes, target, gone)
            }
        }
    }

    /// Takes a layer in that was laid down before its digest was known; false where it is here already.
    fn keep(self: &Arc<Self>, layer: Layer, diff_id: &Digest) -> Result<bool, Error> {
        loop {
            match self.turn(diff_id) {
                Turn::Here(_) => return Ok(false),
                // Whether that will be here is known when it closes.
                Turn::Wait(mut other) => drop(Handle::current().block_on(other.changed())),
                Turn::Ours(_claim) => {
                    lock(&self.fresh).insert(diff_id.clone(), layer);
                    return Ok(true);
                }
            }
        }
    }

    /// The tar of a layer, as this service writes one: that of a layer that was taken here is always the same.
    pub(crate) fn pack(&self, diff_id: &Digest, caller: mpsc::Sender<Bytes>) -> Result<(), Error> {
        let layer = self.layer(&self.read(), diff_id);
        let layer = layer.ok_or_else(|| Error::LayerMissing { diff_id: diff_id.to_string() })?;
        let root = open(&self.directories.files(layer.directory))?;
        let mut out = Outgoing::to(caller);
        pack::tree(root.as_fd(), Form::Layer, describes_root(&layer.open), &LeaveOut::new(), &mut out)
    }

    /// What a container has added, changed and deleted.
    pub(crate) fn changes(&self, key: &str, leave_out: &LeaveOut) -> Result<Vec<Change>, Error> {
        let (snapshot, lower) = self.written(key)?;
        let changes = self.compare(&snapshot, &lower, leave_out)?;
        self.still_there(key, &snapshot)?;
        Ok(changes)
    }

    /// Reads the whole tree of a snapshot.
    pub(crate) fn export(&self, key: &str, caller: mpsc::Sender<Bytes>) -> Result<(), Error> {
        let (snapshot, lower) = self.written(key)?;
        let stack: Vec<Id> = match self.driver.own() {
            Own::Layer => std::iter::once(snapshot.directory).chain(lower).collect(),
            Own::Whole => vec![snapshot.directory],
        };
        let mut out = Outgoing::to(caller);
        let work: Look<'_> =
            Box::new(|root| pack::tree(open(root)?.as_fd(), Form::Whole, false, &LeaveOut::new(), &mut out));
        self.driver.look(&self.directories, &stack, work)?;
        self.still_there(key, &snapshot)
    }

    fn compare(&self, snapshot: &Snapshot, lower: &[Id], leave_out: &LeaveOut) -> Result<Vec<Change>, Error> {
        let own = open(&self.directories.files(snapshot.directory))?;
        let how = self.driver.own();
        if lower.is_empty() {
            return changes::changes(own.as_fd(), how, None, leave_out);
        }
        let mut found = Vec::new();
        let work: Look<'_> = Box::new(|below| {
            let below = open(below)?;
            found = changes::changes(own.as_fd(), how, Some(below.as_fd()), leave_out)?;
            Ok(())
        });
        self.driver.look(&self.directories, lower, work)?;
        Ok(found)
    }

    /// An active snapshot, and the directories below it.
    fn written(&self, key: &str) -> Result<(Snapshot, Vec<Id>), Error> {
        let snapshot = self.active(key)?;
        let lower = self.read().lower(key, snapshot.parent.as_deref())?;
        Ok((snapshot, lower))
    }

    fn still_there(&self, key: &str, snapshot: &Snapshot) -> Result<(), Error> {
        match self.read().snapshot(key) {
            Ok(now) if now.directory == snapshot.directory => Ok(()),
            _ => Err(Error::NotFound { name: key.into() }),
        }
    }
}

fn open(path: &Path) -> Result<std::os::fd::OwnedFd, Error> {
    openat(CWD, path, READ, Mode::empty()).map_err(|error| Error::io("cannot open", path)(error.into()))
}

/// Whether a layer says what its root is like.
fn describes_root(open: &Open) -> bool {
    !open.undescribed.iter().any(Vec::is_empty)
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| join(scope.spawn(work)))
}

/// What a thread answered; its panic goes on here.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Whether two directories look the same to who uses them.
fn same_access(one: &Path, other: &Path) -> Result<bool, Error> {
    let attributes = |path: &Path| -> Result<Option<Attributes>, Error> {
        let (directory, here) = (open(path)?, std::ffi::OsStr::new("."));
        let look = || match tree::stat(directory.as_fd(), here)? {
            Some(stat) => Attributes::of(directory.as_fd(), here, &stat).map(Some),
            None => Ok(None),
        };
        look().map_err(Error::io("cannot look at", path))
    };
    Ok(match (attributes(one)?, attributes(other)?) {
        (Some(one), Some(other)) => one.same_access(&other),
        _ => false,
    })
}
