//! Loading: an image as a tar, as `docker save` writes it (old and new form) or as an OCI layout, plain or compressed.
//!
//! Names in the archive are only keys: every file goes under a number into a scratch directory, hashed as it is written.
//! What the archive then says about itself is checked against those hashes, and only what fits becomes content.

mod contents;
mod found;

use std::{collections::HashMap, sync::Arc};

use berth_core::{Digest, Platform, Reference};
use bytes::Bytes;
use contents::Contents;
pub(crate) use contents::{Incoming, decompressed};
use found::Found;
use tokio::sync::{mpsc, watch};

use crate::{
    error::Error,
    held::Hold,
    images::{Images, blocking},
    leftovers::{Outcome, Work, to_its_end},
    snapshots::Arrived,
};

/// Loads every image of an archive; answers with the IDs and the names that the archive gave them.
pub(crate) async fn load(
    images: &Arc<Images>,
    data: mpsc::Receiver<Result<Bytes, Error>>,
    platform: Platform,
    name: Option<Reference>,
) -> Result<Vec<(Digest, Vec<Reference>)>, Error> {
    let work = Work::begin(images).await;
    let spooling = Arc::clone(images);
    let contents = blocking(move || contents::spool(&spooling.store.blobs, data)).await?;
    let finding = Arc::clone(images);
    let (contents, found) = blocking(move || {
        let found = found::find(&contents, &platform, name.as_ref())?;
        // Held before it is there, until the records name it.
        let all = |image: &Found| image.record.blobs().cloned().collect::<Vec<_>>();
        let hold = |image: &Found| Arc::new(finding.held.hold(all(image)));
        let found: Vec<_> = found.into_iter().map(|image| (hold(&image), image)).collect();
        Ok((Arc::new(contents), found))
    })
    .await?;
    let mut loaded = Vec::new();
    let mut brought = Vec::new();
    let mut result = Ok(());
    for (hold, image) in found {
        brought.extend(image.record.blobs().cloned().collect::<Vec<_>>());
        let (id, names) = (image.record.id.clone(), image.names.clone());
        result = one(images, &contents, image, (&work, &hold)).await;
        drop(hold);
        if result.is_err() {
            break;
        }
        loaded.push((id, names));
    }
    let discarding = Arc::clone(images);
    blocking(move || {
        drop(contents);
        discarding.discard(brought.iter())
    })
    .await?;
    work.end(Outcome::of(&result)).await;
    result.map(|()| loaded)
}

/// Makes one image of the archive visible.
async fn one(
    images: &Arc<Images>,
    contents: &Arc<Contents>,
    image: Found,
    (work, hold): (&Arc<Work>, &Arc<Hold>),
) -> Result<(), Error> {
    let Found { mut record, documents, layers, names } = image;
    // Whatever is under way when this load is given up keeps all of this until it has ended.
    let kept = (Arc::new(images.hold_stack(&record.diff_ids).await), Arc::clone(hold), Arc::clone(work));
    // What other images have of the same layers already; held before it is looked for.
    let known: Vec<Option<Digest>> = record.diff_ids.iter().map(|diff_id| images.blob_of_layer(diff_id)).collect();
    let _known = images.held.hold(known.iter().flatten().cloned());
    let present = images.snapshots.present(&record.diff_ids).await?;
    for (at, known) in known.into_iter().enumerate() {
        if let Some(known) = known
            && present.contains(&record.diff_ids[at])
            && images.store.blobs.find(&known).is_some()
        {
            record.layers[at] = known;
        }
    }
    let (adopting, files) = (Arc::clone(images), Arc::clone(contents));
    let wanted: Vec<Digest> = [&record.id].into_iter().chain(&record.layers).cloned().collect();
    blocking(move || adopt(&adopting, &files, &wanted)).await?;
    let mut sizes = HashMap::new();
    for ((blob, layer), diff_id) in record.layers.iter().zip(&layers).zip(&record.diff_ids) {
        if sizes.contains_key(diff_id) {
            continue;
        }
        let (linking, digest) = (Arc::clone(images), blob.clone());
        let link = blocking(move || linking.store.blobs.link(&digest)).await?;
        let (_sender, whole) = watch::channel(Arrived { whole: true, ..Arrived::default() });
        let applied = images.snapshots.apply(diff_id, link.path(), &layer.media_type, 0, whole).await?;
        sizes.insert(diff_id.clone(), applied);
    }
    record.size = sizes.values().sum();
    let images = Arc::clone(images);
    let ending = async move {
        if !record.diff_ids.is_empty() {
            images.snapshots.compose(&record.diff_ids).await?;
        }
        images.record(record, documents, names).await.map(|_| ())
    };
    to_its_end(kept, ending).await
}

/// Moves an image's files into the content store.
fn adopt(images: &Images, contents: &Contents, wanted: &[Digest]) -> Result<(), Error> {
    for digest in wanted {
        if images.store.blobs.find(digest).is_none() {
            let file = contents.by_hash(digest).ok_or_else(|| Error::Archive(format!("it lacks {digest}")))?;
            images.store.blobs.adopt(&file.path, digest)?;
        }
    }
    Ok(())
}
