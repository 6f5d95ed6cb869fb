//! Pulling: from a reference to an image that is here, whole. Layers are downloaded and laid down side by side, and each
//! layer is laid down while it arrives.

mod blob;
mod download;
mod shared;

use std::{collections::HashSet, sync::Arc, time::Duration};

use berth_core::{Digest, Platform, Reference};
use berth_proto::berth::image::v1::{PlannedLayer, PullPlan, PullProgress, pull_progress::Message};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rand::Rng as _;
pub(crate) use shared::{Event, Flights};
use tokio::sync::mpsc;

use crate::{
    error::Error,
    images::Images,
    manifest::{self, Config, Descriptor, Document, Manifest},
    registry::{Credentials, Session},
    store::Record,
};

/// Indexes may point to indexes; more than this is a loop or an attack.
const MAX_DEPTH: usize = 4;
const ATTEMPTS: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// What a pull tells its callers.
pub(crate) type Progress = mpsc::UnboundedSender<PullProgress>;

/// What came of a pull.
#[derive(Clone, Debug)]
pub(crate) struct Pulled {
    pub(crate) id: Digest,
    /// The name pointed elsewhere, or nowhere, before.
    pub(crate) changed: bool,
    /// Digest of what the reference named.
    pub(crate) digest: Digest,
}

/// Tells the callers; they may be gone.
pub(crate) fn tell(progress: &Progress, message: Message) {
    let _ = progress.send(PullProgress { message: Some(message) });
}

/// An image's documents, fetched and checked.
struct Resolved {
    /// What the reference named.
    named: Digest,
    index: Option<Digest>,
    manifest_digest: Digest,
    manifest: Manifest,
    /// The host that had it, asked first from now on.
    session: Session,
    rest: Vec<Session>,
    /// Bytes to be stored: the index, the manifest.
    documents: Vec<bytes::Bytes>,
}

/// Pulls an image.
pub(crate) async fn pull(
    images: &Arc<Images>,
    reference: &Reference,
    platform: &Platform,
    credentials: Option<&Credentials>,
    progress: &Progress,
) -> Result<Pulled, Error> {
    let mut sessions = Vec::new();
    for host in images.registries.hosts(reference).await {
        sessions.push(images.registries.session(host, reference, credentials));
    }
    let resolved = resolve(sessions, reference, platform, progress).await?;
    let Resolved { manifest, session, rest, .. } = &resolved;
    let sessions: Vec<&Session> = [session].into_iter().chain(rest).collect();
    // Held until the record is there: nothing of this may be taken for garbage.
    let wanted = [&manifest.config].into_iter().chain(&manifest.layers).map(|d| d.digest.clone());
    let _held = images.hold(wanted.chain([resolved.manifest_digest.clone(), resolved.named.clone()]));

    let config_bytes = small_blob(images, &sessions, &manifest.config, progress).await?;
    let what = reference.familiar();
    let config = Config::parse(&config_bytes, &what)?;
    let diff_ids = config.rootfs.diff_ids.clone();
    if diff_ids.len() != manifest.layers.len() {
        let why = format!("its manifest has {} layers and its configuration {}", manifest.layers.len(), diff_ids.len());
        return Err(Error::Unusable { what, why });
    }
    if platform.rank(&config.platform()).is_none() {
        let offered = config.platform().to_string();
        return Err(Error::NoPlatform { reference: what, wanted: platform.to_string(), offered });
    }
    let planned = manifest.layers.iter().zip(&diff_ids).map(|(layer, diff_id)| PlannedLayer {
        digest: layer.digest.to_string(),
        diff_id: diff_id.to_string(),
        size: layer.size,
    });
    let (name, digest) = (reference.to_string(), resolved.named.to_string());
    tell(progress, Message::Plan(PullPlan { name, digest, layers: planned.collect() }));

    let size = layers(images, &sessions, manifest, &diff_ids, progress).await?;
    if !diff_ids.is_empty() {
        images.snapshots.compose(&diff_ids).await?;
    }
    let record = Record {
        id: manifest.config.digest.clone(),
        names: Default::default(),
        repo_digests: [format!("{}@{}", reference.repository(), resolved.named)].into(),
        manifest: resolved.manifest_digest.clone(),
        manifest_media_type: manifest.media_type.clone(),
        index: resolved.index.clone(),
        layers: manifest.layers.iter().map(|layer| layer.digest.clone()).collect(),
        diff_ids,
        size,
        last_tagged: 0,
    };
    let changed = images.record(record, resolved.documents.clone(), reference.tag().map(|_| reference.clone())).await?;
    Ok(Pulled { id: manifest.config.digest.clone(), changed, digest: resolved.named })
}

/// Asks the hosts in order for what a reference names, and through indexes for the manifest of the platform.
async fn resolve(
    sessions: Vec<Session>,
    reference: &Reference,
    platform: &Platform,
    progress: &Progress,
) -> Result<Resolved, Error> {
    let mut reasons = Vec::new();
    let mut last = None;
    let count = sessions.len();
    for at in 0..count {
        let session = &sessions[at];
        match documents(session, reference, platform, progress).await {
            Ok((named, index, manifest_digest, manifest, documents)) => {
                let mut rest = sessions.clone();
                let session = rest.remove(at);
                return Ok(Resolved { named, index, manifest_digest, manifest, session, rest, documents });
            }
            // A manifest that is there and cannot be used is no better elsewhere.
            Err(error @ (Error::NoPlatform { .. } | Error::Unusable { .. })) => return Err(error),
            Err(error) => {
                if at + 1 < count {
                    tell(progress, Message::Notice(format!("{}: {error}; trying the next host", session.host())));
                }
                reasons.push(error.to_string());
                last = Some(error);
            }
        }
    }
    let why = reasons.join("; ");
    Err(match last {
        Some(Error::ManifestUnknown { .. }) => {
            Error::ManifestUnknown { reference: reference.to_string(), why: format!("manifest unknown ({why})") }
        }
        Some(Error::Denied { .. }) => Error::Denied { repository: reference.familiar_repository(), why },
        Some(Error::WrongDigest { what, wanted, is }) => Error::WrongDigest { what, wanted, is },
        _ => Error::Registry { host: format!("{reference} cannot be pulled"), why },
    })
}

type Documents = (Digest, Option<Digest>, Digest, Manifest, Vec<bytes::Bytes>);

async fn documents(
    session: &Session,
    reference: &Reference,
    platform: &Platform,
    progress: &Progress,
) -> Result<Documents, Error> {
    let mut target = reference.target();
    let mut named = None;
    let mut index = None;
    let mut kept = Vec::new();
    for _ in 0..MAX_DEPTH {
        let served = retried(progress, || session.manifest(&target)).await?;
        let digest = served.digest.clone();
        named.get_or_insert_with(|| digest.clone());
        kept.push(served.bytes.clone());
        match manifest::parse(&served.bytes, &served.content_type, &reference.familiar())? {
            Document::Manifest(manifest) => {
                // Only the outermost index is kept with the image.
                if kept.len() > 2 {
                    kept.drain(1..kept.len() - 1);
                }
                return Ok((named.unwrap_or_else(|| digest.clone()), index, digest, manifest, kept));
            }
            Document::Index(document) => {
                target = document.choose(platform, &reference.familiar())?.digest.to_string();
                index.get_or_insert(digest);
            }
        }
    }
    Err(Error::Unusable {
        what: reference.familiar(),
        why: format!("its indexes are nested more than {MAX_DEPTH} deep"),
    })
}

/// Tries again what may succeed the next time; each further attempt is told.
async fn retried<T, F>(progress: &Progress, mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, crate::registry::Attempt>>,
{
    let mut number = 1;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(failed) => {
                let Some(wait) = failed.retry.filter(|_| number < ATTEMPTS) else { return Err(failed.error) };
                let wait = wait.max(back_off(number));
                tell(
                    progress,
                    Message::Notice(format!("{}; trying again in {:.1} s", failed.error, wait.as_secs_f64())),
                );
                tokio::time::sleep(wait).await;
                number += 1;
            }
        }
    }
}

/// Twice as long each time, and never the same for two clients.
fn back_off(attempt: u32) -> Duration {
    let longest = FIRST_WAIT * 2u32.pow(attempt.min(6));
    rand::rng().random_range(longest / 2..=longest)
}

/// A configuration: from the store, or from the hosts.
async fn small_blob(
    images: &Arc<Images>,
    sessions: &[&Session],
    descriptor: &Descriptor,
    progress: &Progress,
) -> Result<Vec<u8>, Error> {
    if descriptor.size > manifest::MAX_BYTES {
        let (what, why) = (format!("the configuration {}", descriptor.digest), "it is larger than 8 MiB".into());
        return Err(Error::Unusable { what, why });
    }
    blob::fetch(images, sessions, descriptor, progress, None).await?;
    images.read_blob(&descriptor.digest).await
}

/// Brings all layers here and lays them down; answers with the bytes of their tars.
async fn layers(
    images: &Arc<Images>,
    sessions: &[&Session],
    manifest: &Manifest,
    diff_ids: &[Digest],
    progress: &Progress,
) -> Result<u64, Error> {
    let present = images.snapshots.present(diff_ids).await?;
    // A layer that is in the stack twice is laid down once.
    let mut once = HashSet::new();
    let mut work = Vec::new();
    for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
        if once.insert(diff_id) {
            work.push(blob::layer(images, sessions, layer, diff_id, present.contains(diff_id), progress));
        }
    }
    let sizes: Vec<u64> = stream::iter(work).buffer_unordered(images.downloads).try_collect().await?;
    Ok(sizes.iter().sum())
}
