//! Commit: what a container has written becomes a layer, and with its image's layers a new image.
//!
//! The snapshotter copies what was written and tells the digest of its tar. The tar itself is made when somebody wants it
//! (see [`super::Packed`]). Everything of the image is there and durable before its record is; what is given up goes.

use std::sync::Arc;

use berth_core::{Digest, Kind, Reference};
use berth_proto::berth::snapshotter::v1::TakeDone;

use super::{
    documents::{self, Step},
    instructions::{self, RunConfig},
};
use crate::{
    error::Error,
    images::{Images, blocking},
    leftovers::{Outcome, Work, to_its_end},
    store::Record,
};

/// A tar without entries.
const EMPTY: u64 = 1024;

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
    let mut taking = images.snapshots.take(&order.snapshot, order.leave_out).await?;
    taking.read().await?;
    read();
    let TakeDone { diff_id, size } = taking.done().await?;
    let layer: Option<Digest> = if size == EMPTY { None } else { Some(diff_id.parse()?) };
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
        packed: base.packed.clone().into_iter().chain(layer.clone().map(|layer| (layer, size))).collect(),
        diff_ids: base.diff_ids.iter().chain(&layer).cloned().collect(),
        size: base.size + layer.as_ref().map_or(0, |_| size),
        last_tagged: 0,
        parent: Some(base.id.clone()),
    };
    let making = Arc::clone(images);
    let (record, documents) = blocking(move || {
        let blobs = &making.store.blobs;
        let manifest = documents::manifest(blobs, &record.id, config.len() as u64, &record.layers, &record.packed)?;
        record.manifest = Digest::sha256(&manifest);
        let documents = vec![(record.id.clone(), config.into()), (record.manifest.clone(), manifest.into())];
        Ok((record, documents))
    })
    .await?;
    // Held before it is there, until the record names it.
    let hold = images.held.hold([id.clone(), record.manifest.clone()]);
    let hold_stack = images.hold_stack(&record.diff_ids).await;
    let kept = (hold_base, hold, hold_stack, Arc::clone(work));
    let images = Arc::clone(images);
    let names: Vec<Reference> = order.name.into_iter().collect();
    let ending = async move {
        images.snapshots.compose(&record.diff_ids).await.map_err(|error| match error {
            Error::Snapshotter(failure) if failure.kind == Kind::NotFound => {
                Error::Made(format!("its layers were thrown away meanwhile ({}); commit again", failure.message))
            }
            error => error,
        })?;
        images.record(record, documents, names).await.map(|_| ())
    };
    to_its_end(kept, ending).await?;
    Ok(id)
}
