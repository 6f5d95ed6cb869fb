//! One blob: here already, or downloaded; and one layer: laid down while its blob arrives.

use std::sync::Arc;

use berth_core::Digest;
use berth_proto::berth::image::v1::{LayerProgress, layer_progress::Phase, pull_progress::Message};
use tokio::sync::watch;

use super::{Progress, download, tell};
use crate::{error::Error, images::Images, manifest::Descriptor, registry::Session, snapshots::Arrived};

pub(super) fn say(progress: &Progress, layer: &Descriptor, phase: Phase, current: u64) {
    let (digest, total) = (layer.digest.to_string(), layer.size);
    tell(progress, Message::Layer(LayerProgress { digest, phase: phase.into(), current, total }));
}

/// Brings a blob here. What is known of its arrival goes to `arrived`.
pub(super) async fn fetch(
    images: &Arc<Images>,
    sessions: &[&Session],
    descriptor: &Descriptor,
    progress: &Progress,
    arrived: Option<&watch::Sender<Arrived>>,
) -> Result<(), Error> {
    // Two pulls that need the same blob: the second finds it here.
    let _turn = images.blob_turn(&descriptor.digest).await;
    if images.store.blobs.find(&descriptor.digest).is_none() {
        download::download(images, sessions, descriptor, progress, arrived).await?;
    }
    if let Some(arrived) = arrived {
        arrived.send_replace(Arrived { bytes: descriptor.size, whole: true });
    }
    Ok(())
}

/// Brings a layer here and lays it down, side by side; answers with the bytes of its tar.
pub(super) async fn layer(
    images: &Arc<Images>,
    sessions: &[&Session],
    layer: &Descriptor,
    diff_id: &Digest,
    here: bool,
    progress: &Progress,
) -> Result<u64, Error> {
    let blob = images.store.blobs.find(&layer.digest);
    if here && blob.is_some() {
        say(progress, layer, Phase::Exists, layer.size);
        return size_of(images, diff_id).await;
    }
    say(progress, layer, Phase::Waiting, 0);
    if here {
        fetch(images, sessions, layer, progress, None).await?;
        say(progress, layer, Phase::Complete, layer.size);
        return size_of(images, diff_id).await;
    }
    let (sender, arrived) = watch::channel(Arrived::default());
    let path = match blob {
        Some(path) => path,
        None => images.store.blobs.ingest(&layer.digest),
    };
    let fetching = async {
        let result = fetch(images, sessions, layer, progress, Some(&sender)).await;
        if result.is_ok() {
            say(progress, layer, Phase::Unpacking, layer.size);
        } else {
            // The snapshotter gives up as soon as nobody can say that the blob is whole.
            drop(sender);
        }
        result
    };
    let applying = async {
        // The file is there as soon as the first byte is, or the whole blob.
        let mut begun = arrived.clone();
        if begun.wait_for(|a| a.bytes > 0 || a.whole).await.is_err() {
            return Ok(0);
        }
        let path = images.store.blobs.find(&layer.digest).unwrap_or(path);
        images.snapshots.apply(diff_id, &path, &layer.media_type, layer.size, arrived).await
    };
    // The download's failure explains the other's.
    let (fetched, applied) = tokio::join!(fetching, applying);
    fetched?;
    let size = applied?;
    say(progress, layer, Phase::Complete, layer.size);
    Ok(size)
}

/// Bytes of the tar of a layer that is there: what laying it down again answers at once.
async fn size_of(images: &Arc<Images>, diff_id: &Digest) -> Result<u64, Error> {
    let (_sender, whole) = watch::channel(Arrived { bytes: 0, whole: true });
    images.snapshots.apply(diff_id, std::path::Path::new(""), "", 0, whole).await
}
