//! What pulls and loads leave that fail or are given up: layers that were laid down for nothing, snapshots without an
//! image, content that no record names. It is put in order as soon as nobody is at work who may need any of it, by whoever
//! is the last; what was downloaded waits for a while for a pull that goes on with it.
//!
//! Who is at work holds a [`Work`] from before the first thing is made until the record is there.

use std::{
    collections::HashSet,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use berth_core::{Digest, digest::chain_ids};
use tokio::{
    sync::{OwnedRwLockReadGuard, RwLock},
    task::JoinHandle,
};

use crate::{
    error::Error,
    images::{Images, blocking},
};

/// How often content is looked for that has waited too long.
const LOOKS: Duration = Duration::from_secs(3600);
/// What goes is decided at once; that the snapshotter has deleted it is waited for so long, unless the room is needed.
const MOMENT: Duration = Duration::from_secs(3);

/// Who is at work, and whether something was left.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    /// Read while work is done, written while what was left is put in order.
    at_work: Arc<RwLock<()>>,
    any: AtomicBool,
}

/// How a pull or a load ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Well,
    Failed,
    /// For want of space.
    Full,
}

impl Outcome {
    pub(crate) fn of<T>(result: &Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self::Well,
            Err(error) if error.is_no_space() => Self::Full,
            Err(_) => Self::Failed,
        }
    }
}

/// A pull or a load under way. One that is dropped without [`Work::end`] was given up.
#[derive(Debug)]
pub(crate) struct Work {
    images: Arc<Images>,
    ended: bool,
    /// Until the end.
    part: Option<OwnedRwLockReadGuard<()>>,
}

impl Work {
    pub(crate) async fn begin(images: &Arc<Images>) -> Arc<Self> {
        let part = Arc::clone(&images.leftovers.at_work).read_owned().await;
        Arc::new(Self { images: Arc::clone(images), ended: false, part: Some(part) })
    }

    /// It is over. What one leaves that failed is put in order before this answers, where nobody else is at work.
    pub(crate) async fn end(self: Arc<Self>, outcome: Outcome) {
        // Who else has a part in it ends it when it is dropped.
        let Some(mut work) = Arc::into_inner(self) else { return };
        work.ended = true;
        let images = Arc::clone(&work.images);
        drop(work);
        images.leftovers.any.fetch_or(outcome != Outcome::Well, Ordering::SeqCst);
        if !images.leftovers.any.load(Ordering::SeqCst) {
            return;
        }
        let tidying = tokio::spawn(async move { images.tidy().await });
        // Who has an image need not wait for it; who had no room waits until there is some.
        if outcome != Outcome::Well
            && let Ok(Some(deleting)) = tidying.await
            && outcome == Outcome::Full
        {
            let _ = deleting.await;
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        drop(self.part.take());
        if !self.ended {
            self.images.leftovers.any.store(true, Ordering::SeqCst);
            // Without a runtime the process ends, and the next start does it.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                let images = Arc::clone(&self.images);
                runtime.spawn(async move { drop(images.tidy().await) });
            }
        }
    }
}

/// Does what must not be broken off, also where the caller is gone; `kept` is kept until it is over.
pub(crate) async fn to_its_end<T: Send + 'static>(
    kept: impl Send + 'static,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let working = tokio::spawn(tracing::Instrument::in_current_span(async move {
        let result = work.await;
        drop(kept);
        result
    }));
    working.await.unwrap_or(Err(Error::Panicked { what: "the call" }))
}

impl Images {
    /// Puts what was left in order, unless somebody is at work, who does it in the end. Answers with what is still being
    /// deleted then.
    async fn tidy(self: &Arc<Self>) -> Option<JoinHandle<()>> {
        let leftovers = &self.leftovers;
        let alone = leftovers.at_work.try_write().ok()?;
        if !leftovers.any.swap(false, Ordering::SeqCst) {
            return None;
        }
        let images = Arc::clone(self);
        let swept = blocking(move || {
            if images.store.records.complete() {
                images.store.blobs.unsettle(&images.store.records.referenced())?;
            }
            images.prune()
        });
        if let Err(error) = swept.await {
            tracing::warn!(%error, "garbage could not be deleted now; the next start tries again");
        }
        let snapshots = self.snapshots.clone();
        let mut forgetting = tokio::spawn(async move { snapshots.forget().await });
        let forgotten = tokio::time::timeout(MOMENT, &mut forgetting).await.is_ok();
        self.reconcile().await;
        drop(alone);
        (!forgotten).then_some(forgetting)
    }

    /// Deletes what waits too long for a pull that goes on with it. Blocks.
    pub(crate) fn prune(&self) -> Result<(), Error> {
        self.store.blobs.prune(&|digest| self.held.still().holds(digest))
    }

    /// Takes snapshots away that were made for an image of which there is no record: the service was killed in between,
    /// or it could not be written, or a removal could not take them along. Where the snapshotter is away, the next start
    /// does it.
    pub(crate) async fn reconcile(&self) {
        let made = match self.snapshots.made_for_images().await {
            Ok(made) => made,
            Err(error) => {
                tracing::info!(%error, "snapshots are not compared with images now");
                return;
            }
        };
        let all = self.store.records.all();
        let needed: HashSet<Digest> = all.values().flat_map(|record| chain_ids(&record.diff_ids)).collect();
        for chain_id in made.iter().filter(|chain_id| !needed.contains(chain_id)) {
            // Looked at again: a pull may have come to need it meanwhile.
            match self.remove_snapshot(chain_id).await {
                Ok(true) => tracing::info!(snapshot = %chain_id, "removed: no image is made of it"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, snapshot = %chain_id, "it could not be removed"),
            }
        }
    }
}

/// Once at the start, and whenever time has passed.
pub(crate) async fn look_after(images: Weak<Images>) {
    let mut first = true;
    let mut looks = tokio::time::interval(LOOKS);
    loop {
        looks.tick().await;
        let Some(images) = images.upgrade() else { return };
        if std::mem::take(&mut first) {
            images.reconcile().await;
            continue;
        }
        let pruning = Arc::clone(&images);
        if let Err(error) = blocking(move || pruning.prune()).await {
            tracing::warn!(%error, "garbage could not be deleted now; the next start tries again");
        }
    }
}
