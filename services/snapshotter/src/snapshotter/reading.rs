//! Reading what a container has written while it may go on writing: as a layer, as a list, as a whole tree.
//!
//! What is told is what was read. If the snapshot goes away meanwhile, that is said, so that nobody takes half of it for
//! all.

use std::{os::fd::AsFd as _, path::Path, sync::Arc, thread};

use berth_core::{Digest, digest::Algorithm};
use bytes::Bytes;
use rustix::fs::{CWD, Mode, openat};
use tokio::sync::mpsc;

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
        pipeline::{self, Inflated},
        tree::{self, READ},
        unpack,
    },
    record::{Layer, Snapshot},
};

/// A layer that was read.
#[derive(Debug)]
pub(crate) struct Extracted {
    pub(crate) diff_id: Digest,
    pub(crate) bytes: u64,
    /// It is here, and need not be applied.
    pub(crate) laid_down: bool,
}

impl Snapshotter {
    /// Reads what a container has written as a layer; laid down on its way where that is wanted.
    pub(crate) fn extract(
        self: &Arc<Self>,
        key: &str,
        leave_out: &LeaveOut,
        lay_down: bool,
        caller: mpsc::Sender<Bytes>,
    ) -> Result<Extracted, Error> {
        let (snapshot, lower) = self.written(key)?;
        if !lay_down {
            let mut out = Outgoing::hashed(caller);
            self.pack(key, &snapshot, &lower, leave_out, &mut out)?;
            let Inflated { diff_id, bytes } = out.finish().ok_or(Error::Panicked { what: "hashing the layer" })?;
            return Ok(Extracted { diff_id, bytes, laid_down: false });
        }
        let _rest = self.trash.rest();
        let id = self.number();
        self.directories.make(id, false)?;
        let made = self.pack_and_unpack(key, &snapshot, &lower, leave_out, id, caller);
        let kept = made.map(|(layer, diff_id)| {
            let bytes = layer.tar_bytes;
            let (laid_down, kept) = self.keep(layer, &diff_id);
            (Extracted { diff_id, bytes, laid_down }, kept)
        });
        if !matches!(kept, Ok((_, true))) {
            self.trash.take(&self.directories.path(id));
        }
        kept.map(|(extracted, _)| extracted)
    }

    fn pack_and_unpack(
        &self,
        key: &str,
        snapshot: &Snapshot,
        lower: &[Id],
        leave_out: &LeaveOut,
        id: Id,
        caller: mpsc::Sender<Bytes>,
    ) -> Result<(Layer, Digest), Error> {
        let target = self.directories.files(id);
        let (mut out, copy) = Outgoing::laid_down(caller);
        let (packed, (unpacked, hashed)) = thread::scope(|scope| {
            let unpacking = scope.spawn(|| pipeline::run(copy, Algorithm::Sha256, |tar| unpack::unpack(tar, &target)));
            let packed = self.pack(key, snapshot, lower, leave_out, &mut out);
            // The tar ends here for who unpacks it.
            drop(out);
            (packed, unpacking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        // What the one could not lay down stops the other, and is the cause.
        match (packed, unpacked) {
            (Err(Error::Cancelled), Err(error)) | (Ok(()), Err(error)) | (Err(error), _) => Err(error),
            (Ok(()), Ok((usage, open))) => {
                let hashed = hashed.map_err(|_| Error::Panicked { what: "hashing the layer" })?;
                Ok((Layer { directory: id, tar_bytes: hashed.bytes, usage, open }, hashed.diff_id))
            }
        }
    }

    /// Takes a layer in that was laid down before its digest was known. Answers whether it is here, and whether it is this
    /// one.
    fn keep(self: &Arc<Self>, layer: Layer, diff_id: &Digest) -> (bool, bool) {
        match self.turn(diff_id) {
            Turn::Here(_) => (true, false),
            // Whether that will be here nobody knows yet.
            Turn::Wait(_) => (false, false),
            Turn::Ours(_claim) => {
                lock(&self.fresh).insert(diff_id.clone(), layer);
                (true, true)
            }
        }
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
        let mut out = Outgoing::hashed(caller);
        let work: Look<'_> =
            Box::new(|root| pack::tree(open(root)?.as_fd(), Form::Whole, false, &LeaveOut::new(), &mut out));
        self.driver.look(&self.directories, &stack, work)?;
        self.still_there(key, &snapshot)
    }

    fn pack(
        &self,
        key: &str,
        snapshot: &Snapshot,
        lower: &[Id],
        leave_out: &LeaveOut,
        out: &mut Outgoing,
    ) -> Result<(), Error> {
        let own = self.directories.files(snapshot.directory);
        match self.driver.own() {
            Own::Layer => {
                // Its times are another's as soon as anything is in it; that alone is no change.
                let changed = match lower.first() {
                    Some(below) => !same_access(&own, &self.directories.files(*below))?,
                    None => true,
                };
                pack::tree(open(&own)?.as_fd(), Form::Layer, changed, leave_out, out)?;
            }
            Own::Whole => {
                let changes = self.compare(snapshot, lower, leave_out)?;
                pack::changed(open(&own)?.as_fd(), &changes, out)?;
            }
        }
        self.still_there(key, snapshot)
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
