//! Commit: what a container has written becomes a layer, and with its image's layers a new image.
//!
//! The layer is read once: as its tar arrives here, the snapshotter lays the same bytes down. Everything of the image is
//! there and durable before its record is; what is given up goes.

use std::sync::Arc;

use berth_core::{Digest, Reference};
use berth_proto::berth::snapshotter::v1::{ExtractDone, extract_response::Message};
use tokio::sync::{mpsc, watch};

use super::{
    arriving::{Arriving, Whole},
    documents::{self, Step},
    instructions::{self, RunConfig},
};
use crate::{
    error::Error,
    images::{Images, blocking},
    leftovers::{Outcome, Work, to_its_end},
    snapshots::Arrived,
    store::Record,
};

/// A tar without entries.
const EMPTY: u64 = 1024;
/// Pieces that wait to be written.
const QUEUE: usize = 4;

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) snapshot: String,
    pub(crate) leave_out: Vec<String>,
    pub(crate) image_id: String,
    /// JSON.
    pub(crate) config: Vec<u8>,
    pub(crate) changes: Vec<String>,
    pub(crate) author: String,
    pub(crate) comment: String,
    pub(crate) created_by: String,
    pub(crate) name: Option<Reference>,
}

/// An image that was made, and what a person should know of it.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) id: Digest,
    pub(crate) warnings: Vec<String>,
}

/// Makes an image; `read` is called when the container may go on.
pub(crate) async fn commit(images: &Arc<Images>, order: Order, read: impl FnOnce() + Send) -> Result<Made, Error> {
    // What cannot be meant is said before anything is read.
    let mut config: RunConfig =
        serde_json::from_slice(&order.config).map_err(|_| Error::Request("the configuration is no object in JSON"))?;
    let warnings = instructions::apply(&mut config, &order.changes)?;
    let work = Work::begin(images).await;
    let made = make(images, &work, order, config, read).await;
    work.end(Outcome::of(&made)).await;
    made.map(|id| Made { id, warnings })
}

async fn make(
    images: &Arc<Images>,
    work: &Arc<Work>,
    order: Order,
    config: RunConfig,
    read: impl FnOnce() + Send,
) -> Result<Digest, Error> {
    let base = images.find(&order.image_id)?;
    let hold_base = images.held.hold(base.blobs().cloned());
    let stored = images.config(&base.id).await?;
    let (whole, done) = arrive(images, &order).await?;
    read();
    let layer = (done.size != EMPTY).then(|| whole.digest.clone());
    let created = jiff::Timestamp::now().to_string();
    let step = Step {
        created: &created,
        author: &order.author,
        comment: &order.comment,
        created_by: &order.created_by,
        layer: layer.as_ref(),
    };
    let config = documents::child(&stored.bytes, config, &step)?;
    let id = Digest::sha256(&config);
    let mut record = Record {
        id: id.clone(),
        names: Default::default(),
        repo_digests: Default::default(),
        // Known below.
        manifest: id.clone(),
        manifest_media_type: crate::manifest::OCI_MANIFEST.into(),
        index: None,
        layers: base.layers.iter().chain(&layer).cloned().collect(),
        diff_ids: base.diff_ids.iter().chain(&layer).cloned().collect(),
        size: base.size + layer.as_ref().map_or(0, |_| done.size),
        last_tagged: 0,
        parent: Some(base.id.clone()),
    };
    // Held before it is there, until the record names it.
    let hold = images.held.hold([id.clone()].into_iter().chain(layer.clone()));
    let hold_stack = images.hold_stack(&record.diff_ids).await;
    let kept = (hold_base, hold, hold_stack, Arc::clone(work));
    let images = Arc::clone(images);
    let names: Vec<Reference> = order.name.into_iter().collect();
    let ending = async move {
        let verifying = blocking(move || whole.verified());
        let (whole, composed) = if layer.is_none() || done.laid_down {
            // While the one waits for the disk the other needs the processor.
            let (whole, composed) = tokio::join!(verifying, images.snapshots.compose(&record.diff_ids));
            let composed = match composed {
                // It was thrown away for room. There is enough again, or it fails below.
                Err(Error::Snapshotter(failure)) if failure.kind == berth_core::Kind::NotFound => false,
                composed => composed.map(|()| true)?,
            };
            (whole?, composed)
        } else {
            (verifying.await?, false)
        };
        let making = Arc::clone(&images);
        let (record, documents) = blocking(move || {
            if layer.is_some() {
                whole.adopt(&making.store.blobs)?;
            }
            let manifest = documents::manifest(&making.store.blobs, &record.id, config.len() as u64, &record.layers)?;
            record.manifest = Digest::sha256(&manifest);
            let documents = vec![(record.id.clone(), config.into()), (record.manifest.clone(), manifest.into())];
            Ok((record, documents))
        })
        .await?;
        if !composed {
            for (diff_id, blob) in record.diff_ids.iter().zip(&record.layers) {
                if diff_id == blob {
                    lay_down(&images, blob).await?;
                }
            }
            images.snapshots.compose(&record.diff_ids).await?;
        }
        let _hold_manifest = images.held.hold([record.manifest.clone()]);
        images.record(record, documents, names).await.map(|_| ())
    };
    to_its_end(kept, ending).await?;
    Ok(id)
}

/// Takes the layer in.
async fn arrive(images: &Arc<Images>, order: &Order) -> Result<(Whole, ExtractDone), Error> {
    let mut extracting = images.snapshots.extract(&order.snapshot, order.leave_out.clone()).await?;
    let (pieces, mut arriving) = mpsc::channel::<bytes::Bytes>(QUEUE);
    let writing = Arc::clone(images);
    let written = blocking(move || {
        let mut file = Arriving::told(&writing.store.blobs)?;
        while let Some(piece) = arriving.blocking_recv() {
            file.write(&piece)?;
        }
        Ok(file)
    });
    let reading = async move {
        loop {
            match extracting.next().await? {
                // Whoever cannot write says why.
                Message::Data(data) => {
                    if pieces.send(data).await.is_err() {
                        return Err(Error::Cancelled);
                    }
                }
                Message::Done(done) => return Ok(done),
            }
        }
    };
    let (file, done) = match tokio::join!(written, reading) {
        (Err(error), Ok(_) | Err(Error::Cancelled)) | (_, Err(error)) => return Err(error),
        (Ok(file), Ok(done)) => (file, done),
    };
    let whole = file.whole_as(done.diff_id.parse()?);
    if done.size != whole.size {
        let (wanted, is) = (format!("{} bytes", done.size), format!("{} bytes", whole.size));
        return Err(Error::WrongDigest { what: "the layer that the snapshotter sent".into(), wanted, is });
    }
    Ok((whole, done))
}

/// Has a layer laid down from its blob, which is a plain tar.
pub(super) async fn lay_down(images: &Arc<Images>, layer: &Digest) -> Result<u64, Error> {
    let (linking, digest) = (Arc::clone(images), layer.clone());
    let link = blocking(move || linking.store.blobs.link(&digest)).await?;
    let (_sender, whole) = watch::channel(Arrived { whole: true, ..Arrived::default() });
    images.snapshots.apply(layer, link.path(), crate::manifest::OCI_LAYER, 0, whole).await
}
