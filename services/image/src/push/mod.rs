//! Pushing: an image's blobs, those that the registry lacks, then its manifest, byte for byte as it came. The tag is last, so
//! that it never names what is not there.
//!
//! Layers that were made here have no blob: their tars are packed and compressed for the push. The manifest that this makes
//! takes the place of the image's own, so that the next push asks the registry before it packs anything.

mod blob;
mod plan;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use berth_core::{Digest, Reference};
use berth_proto::berth::image::v1::{PushLayer, PushStart, PushedTag, push_layer::Phase, push_progress::Message};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;

use crate::{
    error::Error,
    images::{Images, blocking},
    pull::{ATTEMPTS, back_off},
    registry::{Attempt, Credentials},
    store::Record,
};

/// What is to be pushed.
pub(crate) struct Order {
    pub(crate) reference: Reference,
    pub(crate) all_tags: bool,
    pub(crate) platform: String,
    pub(crate) credentials: Option<Credentials>,
}

/// Tells how far it is. Bytes are told where there is room; who is slow misses some, and no more.
#[derive(Clone)]
pub(crate) struct Telling(pub(crate) mpsc::Sender<Message>);

impl Telling {
    async fn tell(&self, message: Message) {
        // One who has gone cancels the push.
        let _ = self.0.send(message).await;
    }

    fn moved(&self, layer: PushLayer) {
        let _ = self.0.try_send(Message::Layer(layer));
    }

    async fn notice(&self, error: &Error, wait: Duration) {
        self.tell(Message::Notice(format!("{error}; trying again in {:.1} s", wait.as_secs_f64()))).await;
    }
}

/// Pushes one tag, or all of a repository.
pub(crate) async fn push(images: &Arc<Images>, order: Order, telling: &Telling) -> Result<(), Error> {
    let repository = order.reference.familiar_repository();
    telling.tell(Message::Start(PushStart { repository: repository.clone() })).await;
    let prefix = format!("{}:", order.reference.repository());
    let all = images.store.records.all();
    let tags: BTreeSet<Reference> = all
        .values()
        .flat_map(|record| &record.names)
        .filter(|name| name.starts_with(&prefix))
        .filter_map(|name| name.parse().ok())
        .collect();
    if tags.is_empty() {
        return Err(Error::NothingToPush { repository });
    }
    let chosen: Vec<Reference> = match order.all_tags {
        true => tags.into_iter().collect(),
        false if tags.contains(&order.reference) => vec![order.reference.clone()],
        false => return Err(Error::NoTag { reference: order.reference.familiar() }),
    };
    for reference in &chosen {
        let (record, _) = images.find_for(&reference.to_string(), &order.platform).await?;
        let pushed = one(images, reference, record.clone(), order.credentials.as_ref(), telling).await;
        let_go(images, &record).await;
        pushed?;
    }
    Ok(())
}

/// Pushes an image under one name.
async fn one(
    images: &Arc<Images>,
    reference: &Reference,
    record: Record,
    credentials: Option<&Credentials>,
    telling: &Telling,
) -> Result<(), Error> {
    // Held before it is looked for again: what was removed meanwhile is not there then.
    let _hold = images.held.hold(record.blobs().cloned().collect::<Vec<_>>());
    let _stack = images.hold_stack(&record.diff_ids).await;
    let record = images.find(&reference.to_string()).and_then(|now| match now.id == record.id {
        true => Ok(now),
        false => Err(Error::Conflict(format!("{} was given to another image during the push", reference.familiar()))),
    })?;
    let _now = images.held.hold(record.blobs().cloned().collect::<Vec<_>>());
    for diff_id in &record.diff_ids {
        telling.tell(step(diff_id, Phase::Preparing, 0, 0, "")).await;
    }
    let plan = plan::plan(images, &record).await?;
    let sources = plan::sources(&images.store.records.all(), reference);
    let from: BTreeSet<String> = plan.layers.iter().flat_map(|layer| sources.of(&layer.descriptor.digest)).collect();
    let from: Vec<String> = from.into_iter().collect();
    let session = images.registries.session_for_push(reference, credentials, &from).await;
    let job = blob::Job { images, session: &session, telling, sources: &sources };
    let mut seen = BTreeSet::new();
    // A layer that is in the stack twice is pushed once.
    let once = plan.layers.iter().filter(|layer| seen.insert(layer.descriptor.digest.clone()));
    let layers: Vec<_> = once.map(|layer| blob::layer(&job, layer)).collect();
    stream::iter(layers)
        .buffer_unordered(images.settings.max_concurrent_uploads.max(1))
        .try_collect::<Vec<()>>()
        .await?;
    blob::config(&job, &plan.config).await?;
    let tag = reference.tag().unwrap_or("latest");
    let put = || session.put_manifest(tag, &plan.media_type, &plan.bytes);
    retried(telling, put).await?;
    remember(images, &record.id, reference, &plan).await?;
    let (digest, size) = (plan.digest.to_string(), plan.bytes.len() as u64);
    telling.tell(Message::Tag(PushedTag { tag: tag.into(), digest, size })).await;
    Ok(())
}

/// What was kept for the push of an image that was removed meanwhile goes now. Where the push was cut off before this, the
/// next start finds it.
async fn let_go(images: &Arc<Images>, record: &Record) {
    if images.store.records.all().contains_key(&record.id) {
        return;
    }
    let (discarding, blobs) = (Arc::clone(images), record.blobs().cloned().collect::<Vec<_>>());
    let discarded = blocking(move || discarding.discard(blobs.iter())).await;
    let mut removed = discarded.map(|()| true);
    for chain_id in berth_core::digest::chain_ids(&record.diff_ids).iter().rev() {
        if !matches!(removed, Ok(true)) {
            break;
        }
        removed = images.remove_snapshot(chain_id).await;
    }
    if let Err(error) = removed {
        tracing::warn!(%error, image = record.id.short(), "what was kept for its push could not be removed now");
    }
}

/// The image is from now on known by the digest that it has in the registry, where it is still here.
async fn remember(images: &Arc<Images>, id: &Digest, reference: &Reference, plan: &plan::Plan) -> Result<(), Error> {
    let name = format!("{}@{}", reference.repository(), plan.digest);
    let (images, id) = (Arc::clone(images), id.clone());
    let (digest, bytes, media_type) = (plan.digest.clone(), plan.bytes.clone(), plan.media_type.clone());
    blocking(move || {
        let hold = images.held.hold([digest.clone()]);
        images.store.blobs.put(&digest, &bytes)?;
        images.store.blobs.settle(std::slice::from_ref(&digest))?;
        let before = images.store.records.change(|all| {
            let Some(record) = all.get_mut(&id) else { return Ok(None) };
            record.repo_digests.insert(name.clone());
            record.manifest_media_type.clone_from(&media_type);
            Ok(Some(std::mem::replace(&mut record.manifest, digest.clone())))
        })?;
        drop(hold);
        // Where another manifest was pushed, the one before belongs to nobody.
        images.discard([&digest].into_iter().chain(&before))
    })
    .await
}

fn step(diff_id: &Digest, phase: Phase, current: u64, total: u64, from: &str) -> Message {
    let diff_id = diff_id.to_string();
    Message::Layer(PushLayer { diff_id, phase: phase.into(), current, total, from: from.into() })
}

/// Tries again what may succeed the next time; each further attempt is told.
async fn retried<T, F: Future<Output = Result<T, Attempt>>>(
    telling: &Telling,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error> {
    let mut number = 1;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(failed) => {
                let Some(wait) = failed.retry.filter(|_| number < ATTEMPTS) else { return Err(failed.error) };
                let wait = wait.max(back_off(number));
                telling.notice(&failed.error, wait).await;
                tokio::time::sleep(wait).await;
                number += 1;
            }
        }
    }
}
