//! One blob: here already, or downloaded; and one layer: laid down while its blob arrives.

use std::sync::Arc;

use berth_core::Digest;
use berth_proto::berth::image::v1::{LayerProgress, layer_progress::Phase, pull_progress::Message};
use tokio::sync::{Semaphore, watch};

use super::{Progress, download, ending::Ending};
use crate::{
    error::Error,
    images::{Images, blocking},
    manifest::Descriptor,
    registry::Session,
    snapshots::Arrived,
};

/// What all blobs of a pull have in common.
pub(super) struct Job<'a> {
    pub(super) images: &'a Arc<Images>,
    pub(super) sessions: &'a [Session],
    pub(super) progress: &'a Progress,
    /// Downloads at the same time.
    pub(super) slots: &'a Semaphore,
    /// Ends the other parts when one fails.
    pub(super) ending: Ending,
}

pub(super) fn say(progress: &Progress, layer: &Descriptor, phase: Phase, current: u64) {
    let (digest, total) = (layer.digest.to_string(), layer.size);
    progress.tell(Message::Layer(LayerProgress { digest, phase: phase.into(), current, total }));
}

/// Brings a blob here. What is known of its arrival goes to `arrived`. When this answers nobody writes to its file any more.
pub(super) async fn fetch(
    job: &Job<'_>,
    descriptor: &Descriptor,
    arrived: Option<&watch::Sender<Arrived>>,
) -> Result<(), Error> {
    // Two pulls that need the same blob: the second finds it here.
    let turn = job.ending.unless(job.images.turns.wait(&descriptor.digest)).await?;
    if job.images.store.blobs.find(&descriptor.digest).is_none() {
        let _slot = job.ending.unless(job.slots.acquire()).await?.map_err(|_| Error::Cancelled)?;
        download::download(job, descriptor, arrived, turn).await?;
    }
    if let Some(arrived) = arrived {
        arrived.send_modify(|state| (state.bytes, state.whole) = (descriptor.size, true));
    }
    Ok(())
}

/// Brings a layer here and lays it down, side by side; answers with its diff ID, the blob that holds it and the bytes
/// of its tar; with nothing where it failed, or another part did: why, the job's ending says. Neither this process nor the
/// snapshotter is at work on it any more when this answers. `other` is a blob of the same layer that another image has.
pub(super) async fn layer(
    job: &Job<'_>,
    layer: &Descriptor,
    diff_id: &Digest,
    here: bool,
    other: Option<&Digest>,
) -> Option<(Digest, Digest, u64)> {
    match try_layer(job, layer, diff_id, here, other).await {
        Ok(laid) => Some(laid),
        Err(error) => {
            job.ending.fail(error);
            None
        }
    }
}

async fn try_layer(
    job: &Job<'_>,
    layer: &Descriptor,
    diff_id: &Digest,
    here: bool,
    other: Option<&Digest>,
) -> Result<(Digest, Digest, u64), Error> {
    // One whose turn comes after the end is not begun.
    job.ending.unless(std::future::ready(())).await?;
    let (blobs, progress) = (&job.images.store.blobs, job.progress);
    if here && let Some(blob) = [Some(&layer.digest), other].into_iter().flatten().find(|b| blobs.find(b).is_some()) {
        say(progress, layer, Phase::Exists, layer.size);
        return Ok((diff_id.clone(), blob.clone(), size_of(job, layer, diff_id, blob).await?));
    }
    say(progress, layer, Phase::Waiting, 0);
    let (sender, arrived) = watch::channel(Arrived::default());
    // The sender goes with it: where the blob is not whole by then, the snapshotter lays nothing down, and answers.
    let fetching = async move {
        match fetch(job, layer, Some(&sender)).await {
            Ok(()) => say(progress, layer, Phase::Unpacking, layer.size),
            Err(error) => job.ending.fail(error),
        }
    };
    let applying = async {
        let applied = apply(job, layer, diff_id, arrived).await;
        applied.map_err(|error| job.ending.fail(error)).ok()
    };
    let ((), size) = futures::join!(fetching, applying);
    let size = size.ok_or(Error::Cancelled)?;
    say(progress, layer, Phase::Complete, layer.size);
    Ok((diff_id.clone(), layer.digest.clone(), size))
}

/// Lays a layer down while it arrives; once more where what had arrived turned out to be wrong and came anew.
async fn apply(
    job: &Job<'_>,
    layer: &Descriptor,
    diff_id: &Digest,
    mut arrived: watch::Receiver<Arrived>,
) -> Result<u64, Error> {
    loop {
        // The file is there as soon as the first byte is, or the whole blob.
        let Ok(begun) = arrived.wait_for(|a| a.bytes > 0 || a.whole).await.map(|a| *a) else {
            return Err(Error::Cancelled);
        };
        let attempt = async {
            let (images, digest) = (Arc::clone(job.images), layer.digest.clone());
            let link = blocking(move || images.store.blobs.link(&digest)).await?;
            job.images.snapshots.apply(diff_id, link.path(), &layer.media_type, layer.size, arrived.clone()).await
        };
        match attempt.await {
            Err(error) if !error.is_no_space() => {
                // Bytes are wrong or right only when all of them are there.
                let settled = arrived.wait_for(|a| a.whole || a.generation != begun.generation).await.map(|a| *a);
                match settled {
                    Ok(now) if now.generation != begun.generation => {}
                    _ => return Err(error),
                }
            }
            result => return result,
        }
    }
}

/// Bytes of the tar of a layer that is there: what laying it down again answers at once. It is laid down from `blob` if it
/// went meanwhile.
async fn size_of(job: &Job<'_>, layer: &Descriptor, diff_id: &Digest, blob: &Digest) -> Result<u64, Error> {
    let (images, digest) = (Arc::clone(job.images), blob.clone());
    let link = blocking(move || images.store.blobs.link(&digest)).await?;
    let (_sender, whole) = watch::channel(Arrived { whole: true, ..Arrived::default() });
    job.images.snapshots.apply(diff_id, link.path(), &layer.media_type, 0, whole).await
}
