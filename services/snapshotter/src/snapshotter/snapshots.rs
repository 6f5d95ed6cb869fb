//! Snapshots: active ones and views, which become committed ones, which others are stacked on.

use std::{collections::BTreeMap, path::PathBuf};

use berth_proto::containerd::types::Mount;

use super::Snapshotter;
use crate::{
    directory::{Id, RECORD},
    error::Error,
    filter::Filter,
    layer::tree,
    record::{Kind, Snapshot, Time, Usage},
    store::{Change, Copy},
};

/// Longest name of a snapshot, in bytes. containerd's own are a namespace, a number and a chain ID.
const NAME: usize = 4096;

impl Snapshotter {
    /// A new snapshot to write to (active) or to look at (view), with its mounts.
    pub(crate) fn prepare(
        &self,
        kind: Kind,
        key: &str,
        parent: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, Error> {
        proper(key)?;
        let parent = (!parent.is_empty()).then(|| parent.to_owned());
        let lower = {
            let records = self.read();
            records.free(key)?;
            records.lower(key, parent.as_deref())?
        };
        let id = self.number();
        let now = Time::now();
        let snapshot =
            Snapshot { kind, parent, directory: id, over: None, diff_id: None, labels, created: now, updated: now };
        if let Err(error) = self.make(key, &snapshot, &lower).and_then(|()| self.insert(key, &snapshot)) {
            self.trash.take(&self.directories.path(id));
            return Err(error);
        }
        Ok(self.mounts_of(&snapshot, &lower))
    }

    /// Makes the directory of an active snapshot or a view. Where it is empty it is not synced, which would cost more than
    /// all the rest: after a loss of power it is made again from its record.
    pub(super) fn make(&self, name: &str, snapshot: &Snapshot, lower: &[Id]) -> Result<(), Error> {
        match snapshot.kind {
            Kind::View => self.directories.make(snapshot.directory, false)?,
            _ => self.driver.prepare(&self.directories, snapshot.directory, lower)?,
        }
        self.describe(name, snapshot, RECORD)
    }

    fn describe(&self, name: &str, snapshot: &Snapshot, copy_name: &str) -> Result<(), Error> {
        let copy = Copy::Snapshot { name: name.to_owned(), snapshot: snapshot.clone() };
        self.directories.describe(snapshot.directory, copy_name, &copy)?;
        self.directories.trust(snapshot.directory, copy_name)
    }

    fn insert(&self, name: &str, snapshot: &Snapshot) -> Result<(), Error> {
        self.change(|records| {
            // Another call may have taken the name, or removed the parent, while the directory was made.
            records.free(name)?;
            records.lower(name, snapshot.parent.as_deref())?;
            let put_snapshots = vec![(name.to_owned(), snapshot.clone())];
            Ok((Change { put_snapshots, ..Change::default() }, ()))
        })
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
        let records = self.read();
        let snapshot = records.snapshot(key)?;
        if snapshot.kind == Kind::Committed {
            return Err(Error::WrongKind { name: key.into(), is: "committed", wanted: "active or a view" });
        }
        let lower = records.lower(key, snapshot.parent.as_deref())?;
        Ok(self.mounts_of(snapshot, &lower))
    }

    /// An active snapshot becomes a committed one under another name. One that has no parent yet may be given one.
    pub(crate) fn commit(
        &self,
        name: &str,
        key: &str,
        parent: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        proper(name)?;
        let active = self.active(key)?;
        self.read().free(name)?;
        // What a record names is on disk before the record is.
        tree::sync(&self.directories.path(active.directory))?;
        self.change(|records| {
            records.free(name)?;
            // Another call may have removed it, and made another of that name, during the sync.
            if records.snapshot(key)?.directory != active.directory {
                return Err(Error::Changed { name: key.into() });
            }
            let parent = match &active.parent {
                Some(own) if !parent.is_empty() && own != parent => {
                    return Err(Error::OtherParent { name: key.into(), is: own.clone(), wanted: parent.into() });
                }
                Some(own) => Some(own.clone()),
                None => (!parent.is_empty()).then(|| parent.to_owned()),
            };
            records.lower(name, parent.as_deref())?;
            if parent != active.parent && !self.driver.rebases() {
                return Err(Error::Rebase { name: name.into(), driver: self.driver.name() });
            }
            let now = Time::now();
            let snapshot = Snapshot {
                kind: Kind::Committed,
                parent,
                labels: labels.clone(),
                created: now,
                updated: now,
                ..active.clone()
            };
            let copy = Copy::Snapshot { name: name.to_owned(), snapshot: snapshot.clone() };
            self.directories.describe_durably(snapshot.directory, RECORD, &copy)?;
            let (put_snapshots, remove_snapshots) = (vec![(name.to_owned(), snapshot)], vec![key.to_owned()]);
            Ok((Change { put_snapshots, remove_snapshots, ..Change::default() }, ()))
        })
    }

    pub(super) fn active(&self, key: &str) -> Result<Snapshot, Error> {
        match self.read().snapshot(key)? {
            active if active.kind == Kind::Active => Ok(active.clone()),
            other => Err(Error::WrongKind { name: key.into(), is: other.kind.name(), wanted: "active" }),
        }
    }

    /// Takes a snapshot away. A layer that no snapshot is left of goes with it.
    pub(crate) fn remove(&self, key: &str) -> Result<(), Error> {
        let (copy, garbage) = self.change(|records| {
            let snapshot = records.snapshot(key)?;
            if let Some((child, _)) = records.snapshots.iter().find(|(_, s)| s.parent.as_deref() == Some(key)) {
                return Err(Error::HasChildren { name: key.into(), child: child.clone() });
            }
            let mut change = Change { remove_snapshots: vec![key.to_owned()], ..Change::default() };
            let others = || records.snapshots.iter().filter(|(name, _)| *name != key).map(|(_, s)| s);
            if let Some(diff_id) = &snapshot.diff_id
                && records.layers.contains_key(diff_id)
                && !others().any(|s| s.diff_id.as_ref() == Some(diff_id))
            {
                change.remove_layers.push(diff_id.clone());
            }
            let used = |id: Id| {
                others().any(|s| s.directory == id || s.over == Some(id))
                    || records.layers.iter().any(|(d, l)| l.directory == id && !change.remove_layers.contains(d))
            };
            let layers = change.remove_layers.iter().filter_map(|diff_id| records.layers.get(diff_id));
            let mut garbage: Vec<Id> = layers.map(|layer| layer.directory).collect();
            garbage.extend([Some(snapshot.directory), snapshot.over].into_iter().flatten());
            garbage.retain(|id| !used(*id));
            garbage.dedup();
            let copy = snapshot.diff_id.is_some().then_some(snapshot.directory);
            Ok((change, (copy, garbage)))
        })?;
        if let Some(directory) = copy {
            self.directories.undescribe(directory, &super::layers::copy_name(key));
        }
        for id in garbage {
            self.trash.take(&self.directories.path(id));
        }
        Ok(())
    }

    /// One snapshot's record.
    pub(crate) fn stat(&self, key: &str) -> Result<Snapshot, Error> {
        self.read().snapshot(key).cloned()
    }

    /// Replaces labels: all of them, or those that the field paths name (`labels`, `labels.KEY`).
    pub(crate) fn update(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        paths: &[String],
    ) -> Result<Snapshot, Error> {
        self.change(|records| {
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
            let copy_name = match snapshot.diff_id {
                Some(_) => super::layers::copy_name(name),
                None => RECORD.to_owned(),
            };
            self.describe(name, &snapshot, &copy_name)?;
            let put_snapshots = vec![(name.to_owned(), snapshot.clone())];
            Ok((Change { put_snapshots, ..Change::default() }, snapshot))
        })
    }

    /// Every snapshot that passes any of the filters, by name; all where there are none.
    pub(crate) fn list(&self, filters: &[Filter]) -> Vec<(String, Snapshot)> {
        let admitted = |name: &str, snapshot: &Snapshot| {
            filters.is_empty() || filters.iter().any(|filter| filter.admits(name, snapshot))
        };
        let records = self.read();
        let all = records.snapshots.iter().filter(|(n, s)| admitted(n, s)).map(|(n, s)| (n.clone(), s.clone()));
        let mut all: Vec<_> = all.collect();
        drop(records);
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// Disk use of a snapshot without its parents. Walks the files, so it takes a while; no lock is held.
    pub(crate) fn usage(&self, key: &str) -> Result<Usage, Error> {
        let directory: PathBuf = {
            let records = self.read();
            let snapshot = records.snapshot(key)?;
            if let Some(layer) = snapshot.diff_id.as_ref().and_then(|diff_id| records.layers.get(diff_id)) {
                return Ok(layer.usage);
            }
            self.directories.files(snapshot.directory)
        };
        tree::usage(&directory).map_err(|error| match error.kind() {
            // It was removed during the walk.
            std::io::ErrorKind::NotFound => Error::NotFound { name: key.into() },
            _ => Error::io("cannot walk", &directory)(error),
        })
    }
}

fn proper(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::EmptyName);
    }
    if name.len() > NAME || name.chars().any(char::is_control) {
        return Err(Error::Name { name: name.chars().take(100).collect(), most: NAME });
    }
    Ok(())
}
