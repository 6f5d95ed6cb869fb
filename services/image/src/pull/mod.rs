//! Pulling: from a reference to an image that is here, whole. Layers are downloaded and laid down side by side, and each
//! layer is laid down while it arrives.

mod blob;
mod download;
mod ending;
mod partial;
mod resolve;
mod retry;
mod shared;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use berth_core::{Digest, Kind};
use berth_proto::berth::image::v1::{PlannedLayer, PullPlan, layer_progress::Phase, pull_progress::Message};
use blob::{Job, say};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use resolve::Resolved;
pub(crate) use retry::{ATTEMPTS, back_off};
pub(crate) use shared::{Event, Flights, Progress, Wanted};
use tokio::sync::Semaphore;

use crate::{
    error::{Error, readable},
    held::Hold,
    images::{Images, blocking},
    leftovers::{Outcome, Work, to_its_end},
    manifest::{self, Config, Descriptor},
    store::Record,
};

/// A layer that somebody removes while an image is put together is laid down again so often.
const ROUNDS: usize = 5;

/// What came of a pull.
#[derive(Clone, Debug)]
pub(crate) struct Pulled {
    pub(crate) id: Digest,
    /// The name pointed elsewhere, or nowhere, before.
    pub(crate) changed: bool,
    /// Digest of what the reference named.
    pub(crate) digest: Digest,
}

/// Pulls an image.
pub(crate) async fn pull(images: &Arc<Images>, wanted: &Wanted, progress: &Progress) -> Result<Pulled, Error> {
    let mut sessions = Vec::new();
    for host in images.registries.hosts(&wanted.reference).await {
        sessions.push(images.registries.session(host, &wanted.reference, wanted.credentials.as_ref()));
    }
    let resolved = resolve::resolve(sessions, wanted, progress).await?;
    let work = Work::begin(images).await;
    // Held until the record is there: nothing of this may be taken for garbage.
    let content: Vec<Digest> = resolved.content().cloned().collect();
    let hold = Arc::new(images.held.hold(content.clone()));
    let result = bring(images, wanted, &resolved, progress, (&work, &hold)).await;
    drop(hold);
    let outcome = Outcome::of(&result);
    let sweeping = Arc::clone(images);
    let swept = blocking(move || {
        // What a failed pull has brought is kept for the next one, but not on a full disk: others need the room.
        if outcome != Outcome::Failed {
            sweeping.discard(content.iter())?;
        }
        sweeping.prune()
    });
    if let Err(error) = swept.await {
        tracing::warn!(%error, "garbage could not be deleted now; the next start tries again");
    }
    // Before it is said how it ended, so that there is room again when somebody acts on it.
    work.end(outcome).await;
    result.map_err(|error| if outcome == Outcome::Full { no_space(images, &resolved, error) } else { error })
}

/// A full disk, with how much is needed; what there is to say about the room is known only when all is put back.
fn no_space(images: &Images, resolved: &Resolved, error: Error) -> Error {
    match (error, images.store.blobs.free()) {
        (Error::Io { path, .. }, Ok(free)) => Error::NoSpace {
            what: resolved.name.clone(),
            path,
            needed: format!("{} compressed and more unpacked", readable(resolved.compressed())),
            free: readable(free),
        },
        (Error::Snapshotter(mut failure), _) => {
            let needed = readable(resolved.compressed());
            failure.message += &format!("; {} needs {needed} compressed and more than that unpacked", resolved.name);
            Error::Snapshotter(failure)
        }
        (error, _) => error,
    }
}

/// From the manifest to the record.
async fn bring(
    images: &Arc<Images>,
    wanted: &Wanted,
    resolved: &Resolved,
    progress: &Progress,
    (work, hold): (&Arc<Work>, &Arc<Hold>),
) -> Result<Pulled, Error> {
    let manifest = &resolved.manifest;
    let slots = Semaphore::new(images.settings.max_concurrent_downloads.max(1));
    let job = Job { images, sessions: &resolved.sessions, progress, slots: &slots, ending: Default::default() };
    let reference = &wanted.reference;
    let config_bytes = small_blob(&job, &manifest.config).await?;
    let what = reference.familiar();
    let config = Config::parse(&config_bytes, &what)?;
    let diff_ids = config.rootfs.diff_ids.clone();
    if diff_ids.len() != manifest.layers.len() {
        let why = format!("its manifest has {} layers and its configuration {}", manifest.layers.len(), diff_ids.len());
        return Err(Error::Unusable { what, why });
    }
    if wanted.platform.rank(&config.platform()).is_none() {
        let offered = config.platform().to_string();
        return Err(Error::NoPlatform { reference: what, wanted: wanted.platform.to_string(), offered });
    }
    let planned = manifest.layers.iter().zip(&diff_ids).map(|(layer, diff_id)| PlannedLayer {
        digest: layer.digest.to_string(),
        diff_id: diff_id.to_string(),
        size: layer.size,
    });
    let (name, digest) = (reference.to_string(), resolved.named.to_string());
    progress.tell(Message::Plan(PullPlan { name, digest, layers: planned.collect() }));

    // Whatever is under way when this pull is given up keeps all of this until it has ended.
    let kept = (Arc::new(images.hold_stack(&diff_ids).await), Arc::clone(hold), Arc::clone(work));
    let mut round = 1;
    let (layers, packed, size) = loop {
        let laid = lay_down(&job, &manifest.config.digest, &manifest.layers, &diff_ids).await?;
        let (composing, stack) = (Arc::clone(images), diff_ids.clone());
        match to_its_end(kept.clone(), async move { composing.snapshots.compose(&stack).await }).await {
            Ok(()) => break laid,
            Err(Error::Snapshotter(failure))
                if round < ROUNDS && matches!(failure.kind, Kind::NotFound | Kind::Aborted) =>
            {
                progress.tell(Message::Notice(format!("{}; laying it down again", failure.message)));
                round += 1;
            }
            Err(error) => return Err(error),
        }
    };
    let record = Record {
        id: manifest.config.digest.clone(),
        names: Default::default(),
        repo_digests: [format!("{}@{}", reference.repository(), resolved.named)].into(),
        manifest: resolved.manifest_digest.clone(),
        manifest_media_type: manifest.media_type.clone(),
        index: resolved.index.clone(),
        layers,
        packed,
        diff_ids,
        size,
        last_tagged: 0,
        parent: None,
    };
    // A name with a digest names that one image for ever: it is no tag.
    let names = if reference.digest().is_some() { Vec::new() } else { vec![reference.clone()] };
    let (recording, documents) = (Arc::clone(images), resolved.documents.clone());
    let changed = to_its_end(kept, async move { recording.record(record, documents, names).await }).await?;
    Ok(Pulled { id: manifest.config.digest.clone(), changed, digest: resolved.named.clone() })
}

/// A configuration: from the store, or from the hosts.
async fn small_blob(job: &Job<'_>, descriptor: &Descriptor) -> Result<Bytes, Error> {
    if descriptor.size > manifest::MAX_BYTES {
        let (what, why) = (format!("the configuration {}", descriptor.digest), "it is larger than 8 MiB".into());
        return Err(Error::Unusable { what, why });
    }
    blob::fetch(job, descriptor, None).await?;
    let (images, digest) = (Arc::clone(job.images), descriptor.digest.clone());
    blocking(move || images.store.blobs.read(&digest)).await.map(Bytes::from)
}

/// Brings all layers here and lays them down; answers with the blobs that hold them, those of
/// them that are packed when they are wanted, and the bytes of their tars. Also
/// where one fails, this waits until all have ended: what is done about the failure then must not be overtaken.
async fn lay_down(
    job: &Job<'_>,
    id: &Digest,
    layers: &[Descriptor],
    diff_ids: &[Digest],
) -> Result<(Vec<Digest>, BTreeMap<Digest, u64>, u64), Error> {
    let images = job.images;
    // What holds a layer already, learnt from other images; held before it is looked for.
    let other: BTreeMap<&Digest, Digest> =
        diff_ids.iter().filter_map(|diff_id| Some((diff_id, images.blob_of_layer(diff_id)?))).collect();
    let _other = images.held.hold(other.values().cloned());
    let present = images.snapshots.present(diff_ids).await?;
    if let Some(known) = images.store.records.all().get(id)
        && diff_ids.iter().all(|diff_id| present.contains(diff_id))
        && known.kept_layers().all(|blob| images.store.blobs.find(blob).is_some())
    {
        layers.iter().for_each(|layer| say(job.progress, layer, Phase::Exists, layer.size));
        return Ok((known.layers.clone(), known.packed.clone(), known.size));
    }
    check_room(images, layers, diff_ids, &present).await?;
    // A layer that is in the stack twice is laid down once.
    let mut once = BTreeSet::new();
    let mut work = Vec::new();
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        if once.insert(diff_id) {
            let here = present.contains(diff_id);
            let blob = other.get(diff_id).filter(|_| here);
            work.push(blob::layer(job, layer, diff_id, here, blob));
        }
    }
    // The lowest first. More at once than are downloaded: while one is unpacked, the next arrives.
    let abreast = 2 * images.settings.max_concurrent_downloads.max(1);
    let laid: Vec<Option<_>> = stream::iter(work).buffer_unordered(abreast).collect().await;
    job.ending.reason()?;
    let laid: BTreeMap<Digest, (Digest, u64)> =
        laid.into_iter().flatten().map(|(id, blob, size)| (id, (blob, size))).collect();
    let size = laid.values().map(|(_, size)| size).sum();
    Ok((diff_ids.iter().filter_map(|diff_id| Some(laid.get(diff_id)?.0.clone())).collect(), BTreeMap::new(), size))
}

/// What cannot fit is not begun.
async fn check_room(
    images: &Arc<Images>,
    layers: &[Descriptor],
    diff_ids: &[Digest],
    present: &[Digest],
) -> Result<(), Error> {
    let absent: BTreeMap<&Digest, &Descriptor> = layers
        .iter()
        .zip(diff_ids)
        .filter(|(_, diff_id)| !present.contains(diff_id))
        .map(|(layer, _)| (&layer.digest, layer))
        .collect();
    let absent: Vec<Descriptor> = absent.into_values().cloned().collect();
    let images = Arc::clone(images);
    blocking(move || {
        let blobs = &images.store.blobs;
        let missing = absent.iter().filter(|layer| blobs.find(&layer.digest).is_none());
        let needed = missing.fold(0_u64, |sum, layer| {
            let partial = blobs.ingest(&layer.digest).metadata().map_or(0, |metadata| metadata.len());
            sum.saturating_add(layer.size.saturating_sub(partial))
        });
        let free = blobs.free()?;
        if needed <= free {
            return Ok(());
        }
        Err(Error::NoSpace {
            what: "the image".into(),
            path: blobs.root().into(),
            needed: format!("{} compressed and more unpacked", readable(needed)),
            free: readable(free),
        })
    })
    .await
}
