//! Layers: laid down once, whoever asks, and composed into committed snapshots.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{Arc, atomic::Ordering},
};

use berth_core::{Digest, digest::chain_ids};
use tokio::sync::watch;

use super::{Snapshotter, lock};
use crate::{
    directory::{Id, RECORD},
    driver::Composed,
    error::Error,
    layer::{apply, growing::Arrival, tree},
    record::{Kind, Layer, Snapshot, Time},
    store::{Change, Copy, Records},
};

/// How often a stack is made again because others take away what it is made on.
const TRIES: usize = 5;

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
        self.snapshotter.forget_when_idle();
    }
}

/// The name of the copy of a composed snapshot's record, which lies in a layer's directory, where there may be several.
pub(crate) fn copy_name(chain_id: &str) -> String {
    chain_id.replace(':', "-")
}

/// A snapshot that `compose` made, before its record is.
struct Made {
    name: String,
    snapshot: Snapshot,
    /// Whether its directory is its own, and garbage if no record is made.
    own: bool,
}

impl Snapshotter {
    /// Which of these layers are here, whole and durable.
    pub(crate) fn present(&self, diff_ids: &[Digest]) -> Vec<Digest> {
        let records = self.read();
        diff_ids.iter().filter(|diff_id| records.layers.contains_key(*diff_id)).cloned().collect()
    }

    /// A layer that is here, durable or not yet.
    pub(super) fn layer(&self, records: &Records, diff_id: &Digest) -> Option<Layer> {
        records.layers.get(diff_id).cloned().or_else(|| lock(&self.fresh).get(diff_id).cloned())
    }

    /// Whose turn it is to lay a layer down.
    pub(crate) fn turn(self: &Arc<Self>, diff_id: &Digest) -> Turn {
        // Held while the records are looked at, so that no layer is finished between the two looks.
        let mut applying = lock(&self.applying);
        if let Some(layer) = self.layer(&self.read(), diff_id) {
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
    pub(crate) fn apply(&self, claim: &Claim, blob: File, arrival: &Arc<Arrival>) -> Result<u64, Error> {
        let _rest = self.trash.rest();
        let id = self.number();
        let result = self.directories.make(id, false).and_then(|()| {
            let applied = apply(blob, arrival, &claim.diff_id, &self.directories.files(id))?;
            Ok(Layer { directory: id, tar_bytes: applied.tar_bytes, usage: applied.usage, open: applied.open })
        });
        match result {
            Ok(layer) => {
                let tar_bytes = layer.tar_bytes;
                lock(&self.fresh).insert(claim.diff_id.clone(), layer);
                Ok(tar_bytes)
            }
            Err(error) => {
                self.trash.take(&self.directories.path(id));
                if error.full().is_some() {
                    self.forget_fresh();
                }
                Err(error)
            }
        }
    }

    /// Throws fresh layers away: now, or where somebody is at work, whose layer may be whole although who asked for it has
    /// given up, as soon as that is done.
    pub(crate) fn forget_abandoned(&self) {
        self.forgetting.store(true, Ordering::SeqCst);
        self.forget_when_idle();
    }

    fn forget_when_idle(&self) {
        let idle = lock(&self.applying).is_empty();
        if idle && self.forgetting.swap(false, Ordering::SeqCst) {
            self.forget_fresh();
        }
    }

    /// Gives the space of layers back that nothing is composed of. Whoever laid one down and still wants it must do so
    /// again; without space that would have failed as well.
    fn forget_fresh(&self) {
        let forgotten = {
            // No layer is on its way into the store meanwhile.
            let _changing = lock(&self.changing);
            let records = self.read();
            let mut forgotten = std::mem::take(&mut *lock(&self.fresh));
            forgotten
                .retain(|diff_id, layer| records.layers.get(diff_id).is_none_or(|l| l.directory != layer.directory));
            forgotten
        };
        for (diff_id, layer) in forgotten {
            tracing::warn!(layer = %diff_id, "is thrown away: the space is needed, and no snapshot is of it");
            self.trash.take(&self.directories.path(layer.directory));
        }
    }

    /// Makes the committed snapshots of a stack of layers, lowest first; all is durable when this answers.
    pub(crate) fn compose(&self, diff_ids: &[Digest], labels: &BTreeMap<String, String>) -> Result<Vec<String>, Error> {
        let mut tries = 1;
        loop {
            match self.try_compose(diff_ids, labels) {
                // Somebody removed what was to be stacked on; the next look sees that.
                Err(Error::Changed { .. }) if tries < TRIES => tries += 1,
                other => return other,
            }
        }
    }

    fn try_compose(&self, diff_ids: &[Digest], labels: &BTreeMap<String, String>) -> Result<Vec<String>, Error> {
        let names: Vec<String> = chain_ids(diff_ids).iter().map(Digest::to_string).collect();
        {
            let records = self.read();
            if names.iter().all(|name| records.snapshots.contains_key(name)) {
                return Ok(names);
            }
            if let Some(missing) = diff_ids.iter().find(|diff_id| self.layer(&records, diff_id).is_none()) {
                return Err(Error::LayerMissing { diff_id: missing.to_string() });
            }
        }
        let mut made = Vec::new();
        let result =
            self.make_stack(&names, diff_ids, labels, &mut made).and_then(|layers| self.record(&made, &layers));
        match &result {
            Ok(unused) => {
                for made in made.iter().filter(|made| made.own && unused.contains(&made.name)) {
                    self.trash.take(&self.directories.path(made.snapshot.directory));
                }
            }
            Err(error) => {
                for made in made.iter().filter(|made| made.own) {
                    self.trash.take(&self.directories.path(made.snapshot.directory));
                }
                if error.full().is_some() {
                    self.forget_fresh();
                }
            }
        }
        result.map(|_| names)
    }

    /// Makes the directories of the snapshots that are missing; `made` tells of each as soon as it is begun.
    fn make_stack(
        &self,
        names: &[String],
        diff_ids: &[Digest],
        labels: &BTreeMap<String, String>,
        made: &mut Vec<Made>,
    ) -> Result<Vec<(Digest, Layer)>, Error> {
        let (mut lower, mut parent, mut layers): (Vec<Id>, Option<String>, Vec<(Digest, Layer)>) =
            (Vec::new(), None, Vec::new());
        for (name, diff_id) in names.iter().zip(diff_ids) {
            let (existing, layer) = {
                let records = self.read();
                (records.snapshots.get(name).cloned(), self.layer(&records, diff_id))
            };
            let layer = layer.ok_or_else(|| Error::LayerMissing { diff_id: diff_id.to_string() })?;
            let (directory, over) = match existing {
                Some(snapshot) => (snapshot.directory, snapshot.over),
                None => {
                    let new = self.number();
                    let now = Time::now();
                    let snapshot = Snapshot {
                        kind: Kind::Committed,
                        parent: parent.clone(),
                        directory: new,
                        over: None,
                        diff_id: Some(diff_id.clone()),
                        labels: labels.clone(),
                        created: now,
                        updated: now,
                    };
                    made.push(Made { name: name.clone(), snapshot, own: true });
                    let composed = self.driver.compose(&self.directories, new, layer.directory, &layer.open, &lower)?;
                    let Some(made) = made.last_mut() else { continue };
                    match composed {
                        Composed::Layer => (made.snapshot.directory, made.own) = (layer.directory, false),
                        Composed::Over => made.snapshot.over = Some(layer.directory),
                        Composed::New => {}
                    }
                    (made.snapshot.directory, made.snapshot.over)
                }
            };
            lower.splice(0..0, [Some(directory), over].into_iter().flatten());
            parent = Some(name.clone());
            if !layers.iter().any(|(known, _)| known == diff_id) {
                layers.push((diff_id.clone(), layer));
            }
        }
        Ok(layers)
    }

    /// Makes what was made durable and then its records. Answers with the names that another call was faster to make.
    fn record(&self, made: &[Made], layers: &[(Digest, Layer)]) -> Result<Vec<String>, Error> {
        let snapshot = |made: &Made| Copy::Snapshot { name: made.name.clone(), snapshot: made.snapshot.clone() };
        for made in made {
            self.directories.describe(made.snapshot.directory, &copy_name(&made.name), &snapshot(made))?;
        }
        let new: Vec<_> = {
            let records = self.read();
            layers.iter().filter(|(diff_id, _)| !records.layers.contains_key(diff_id)).collect()
        };
        for (diff_id, layer) in &new {
            let copy = Copy::Layer { diff_id: diff_id.clone(), layer: layer.clone() };
            self.directories.describe(layer.directory, RECORD, &copy)?;
        }
        tree::sync(self.directories.base())?;
        for made in made {
            self.directories.trust(made.snapshot.directory, &copy_name(&made.name))?;
        }
        for (_, layer) in &new {
            self.directories.trust(layer.directory, RECORD)?;
        }
        let unused = self.change(|records| {
            // Layers or snapshots below may have been removed, or made by another call, meanwhile.
            for (diff_id, layer) in layers {
                match self.layer(records, diff_id) {
                    Some(now) if now.directory == layer.directory => {}
                    _ => return Err(Error::LayerMissing { diff_id: diff_id.to_string() }),
                }
            }
            let (unused, new): (Vec<_>, Vec<_>) =
                made.iter().partition(|made| records.snapshots.contains_key(&made.name));
            for made in &new {
                if let Some(parent) = &made.snapshot.parent
                    && !records.snapshots.contains_key(parent)
                    && !new.iter().any(|made| made.name == *parent)
                {
                    return Err(Error::Changed { name: made.name.clone() });
                }
            }
            let put_snapshots = new.iter().map(|made| (made.name.clone(), made.snapshot.clone())).collect();
            let change = Change { put_snapshots, put_layers: layers.to_vec(), ..Change::default() };
            Ok((change, unused.iter().map(|made| made.name.clone()).collect()))
        })?;
        let mut fresh = lock(&self.fresh);
        for (diff_id, _) in layers {
            fresh.remove(diff_id);
        }
        Ok(unused)
    }

    /// Every layer with its disk use and how many snapshots are of it.
    pub(crate) fn layers(&self) -> Vec<(Digest, Layer, usize)> {
        let records = self.read();
        let mut references: BTreeMap<&Digest, usize> = BTreeMap::new();
        for diff_id in records.snapshots.values().filter_map(|s| s.diff_id.as_ref()) {
            *references.entry(diff_id).or_default() += 1;
        }
        let durable = records.layers.iter().map(|(d, l)| (d.clone(), l.clone()));
        let mut layers: BTreeMap<Digest, Layer> = lock(&self.fresh).clone().into_iter().collect();
        layers.extend(durable);
        let counted = |(diff_id, layer): (Digest, Layer)| {
            let count = references.get(&diff_id).copied().unwrap_or(0);
            (diff_id, layer, count)
        };
        layers.into_iter().map(counted).collect()
    }
}
