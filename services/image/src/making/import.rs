//! Import: a tar of a root file system becomes an image of one layer.

use std::{io, sync::Arc};

use berth_core::{Digest, Platform, Reference};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::{
    arriving::Arriving,
    commit::Made,
    documents::{self, Step},
    instructions::{self, RunConfig},
};
use crate::{
    archive::{Incoming, decompressed},
    error::Error,
    images::{Images, blocking},
    leftovers::{Outcome, Work, to_its_end},
    snapshots::Arrived,
    store::Record,
};

const COMMENT: &str = "Imported from -";

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) name: Option<Reference>,
    pub(crate) changes: Vec<String>,
    pub(crate) comment: String,
    pub(crate) platform: Platform,
}

/// Makes an image of what arrives.
pub(crate) async fn import(
    images: &Arc<Images>,
    order: Order,
    data: mpsc::Receiver<Result<Bytes, Error>>,
) -> Result<Made, Error> {
    let mut config = RunConfig::new();
    let warnings = instructions::apply(&mut config, &order.changes)?;
    let work = Work::begin(images).await;
    let made = make(images, &work, order, config, data).await;
    work.end(Outcome::of(&made)).await;
    made.map(|id| Made { id, warnings })
}

async fn make(
    images: &Arc<Images>,
    work: &Arc<Work>,
    order: Order,
    config: RunConfig,
    data: mpsc::Receiver<Result<Bytes, Error>>,
) -> Result<Digest, Error> {
    let writing = Arc::clone(images);
    let whole = blocking(move || {
        let mut file = Arriving::new(&writing.store.blobs)?;
        let mut stream = Incoming::new(data);
        let malformed = |error: io::Error| Error::Made(format!("the archive cannot be read: {error}"));
        let filled = decompressed(&mut stream).and_then(|tar| file.fill(tar, malformed));
        let filled = filled.map_err(|error| match error {
            Error::Archive(why) => Error::Made(why.replace("| berth load", "| berth import -")),
            error => error,
        });
        // The caller's own failure explains the rest.
        match stream.failure() {
            Some(failure) => Err(failure),
            None => filled.map(|()| file.whole()),
        }
    })
    .await?;
    if whole.size == 0 {
        return Err(Error::Made("the archive is empty".into()));
    }
    let layer = whole.digest.clone();
    let hold = images.held.hold([layer.clone()]);
    let diff_ids = vec![layer.clone()];
    let hold_stack = images.hold_stack(&diff_ids).await;
    let adopting = Arc::clone(images);
    let whole = blocking(move || whole.adopt(&adopting.store.blobs).map(|()| whole)).await?;
    let size = lay_down(images, &layer).await?;
    let created = jiff::Timestamp::now().to_string();
    let comment = if order.comment.is_empty() { COMMENT } else { &order.comment };
    let step = Step { created: &created, author: "", comment, created_by: "", layer: Some(&layer) };
    let config = documents::first(&order.platform, config, &step)?;
    let id = Digest::sha256(&config);
    let manifest = documents::manifest(&images.store.blobs, &id, config.len() as u64, &diff_ids, &Default::default())?;
    let record = Record {
        id: id.clone(),
        names: Default::default(),
        repo_digests: Default::default(),
        manifest: Digest::sha256(&manifest),
        manifest_media_type: crate::manifest::OCI_MANIFEST.into(),
        index: None,
        layers: diff_ids.clone(),
        packed: Default::default(),
        diff_ids,
        size,
        last_tagged: 0,
        parent: None,
    };
    let documents = vec![(id.clone(), config.into()), (record.manifest.clone(), manifest.into())];
    let hold_documents = images.held.hold(documents.iter().map(|(digest, _): &(Digest, Bytes)| digest.clone()));
    let kept = (hold, hold_stack, hold_documents, whole, Arc::clone(work));
    let images = Arc::clone(images);
    let names: Vec<Reference> = order.name.into_iter().collect();
    let ending = async move {
        images.snapshots.compose(&record.diff_ids).await?;
        images.record(record, documents, names).await.map(|_| ())
    };
    to_its_end(kept, ending).await?;
    Ok(id)
}

/// Has a layer laid down from its blob, which is a plain tar.
async fn lay_down(images: &Arc<Images>, layer: &Digest) -> Result<u64, Error> {
    let (linking, digest) = (Arc::clone(images), layer.clone());
    let link = blocking(move || linking.store.blobs.link(&digest)).await?;
    let (_sender, whole) = watch::channel(Arrived { whole: true, ..Arrived::default() });
    images.snapshots.apply(layer, link.path(), crate::manifest::OCI_LAYER, 0, whole).await
}
