//! One blob: found in the repository, mounted from another, or uploaded; where a connection breaks, the upload goes on from
//! what has arrived.

use std::{fs::File, path::Path, sync::Arc};

use berth_core::Digest;
use berth_proto::berth::image::v1::{PushLayer, push_layer::Phase};
use bytes::Bytes;
use futures::stream;
use reqwest::Body;
use std::os::unix::fs::FileExt as _;
use tokio::sync::watch;

use super::{
    Telling,
    plan::{Layer, Source, Sources},
    retried, step,
};
use crate::{
    error::Error,
    images::Images,
    making::Packed,
    manifest::Descriptor,
    pull::{ATTEMPTS, back_off},
    registry::{Attempt, Begun, Session, Upload},
};

/// What is no larger goes in the request that ends the upload.
const SMALL: u64 = 1 << 20;
/// Bytes of a piece.
const PIECE: usize = 256 << 10;

/// What all blobs of a push share.
pub(super) struct Job<'a> {
    pub(super) images: &'a Arc<Images>,
    pub(super) session: &'a Session,
    pub(super) telling: &'a Telling,
    pub(super) sources: &'a Sources,
}

/// Brings a layer there.
pub(super) async fn layer(job: &Job<'_>, layer: &Layer) -> Result<(), Error> {
    let Descriptor { digest, size, .. } = &layer.descriptor;
    let say = |phase, from: &str| job.telling.tell(step(&layer.diff_id, phase, *size, *size, from));
    if retried(job.telling, || job.session.has_blob(digest)).await? {
        say(Phase::Exists, "").await;
        return Ok(());
    }
    let mut begun = None;
    for from in job.sources.of(digest) {
        match job.session.begin(Some((digest, &from))).await {
            Ok(Begun::Mounted) => {
                say(Phase::Mounted, &from).await;
                return Ok(());
            }
            // It may not be read there, or is not there any more.
            Ok(Begun::Upload(upload)) => begun = Some(upload),
            Err(_) => {}
        }
    }
    let packed;
    let path = match &layer.source {
        Source::Packable(here) => {
            packed = packed_again(job, here, digest).await?;
            packed.path()
        }
        source => source.path().ok_or(Error::Cancelled)?,
    };
    upload(job, Some(&layer.diff_id), digest, (path, *size), begun).await?;
    say(Phase::Pushed, "").await;
    Ok(())
}

/// Another build of the compressor may have made the manifest.
async fn packed_again(job: &Job<'_>, layer: &Digest, wanted: &Digest) -> Result<Packed, Error> {
    let packed = Packed::compressed(job.images, layer).await?;
    let (is, _) = packed.content();
    if is != wanted {
        let (wanted, is) = (wanted.to_string(), is.to_string());
        return Err(Error::WrongDigest { what: format!("the layer {layer}, compressed,"), wanted, is });
    }
    Ok(packed)
}

/// Brings the configuration there.
pub(super) async fn config(job: &Job<'_>, config: &Descriptor) -> Result<(), Error> {
    if retried(job.telling, || job.session.has_blob(&config.digest)).await? {
        return Ok(());
    }
    let blobs = &job.images.store.blobs;
    let path = blobs.find(&config.digest).unwrap_or_else(|| blobs.path(&config.digest));
    upload(job, None, &config.digest, (&path, config.size), None).await
}

async fn upload(
    job: &Job<'_>,
    diff_id: Option<&Digest>,
    digest: &Digest,
    (path, size): (&Path, u64),
    begun: Option<Upload>,
) -> Result<(), Error> {
    let file = Arc::new(File::open(path).map_err(Error::io("cannot read", path))?);
    let (mut upload, mut offset, mut fruitless) = (begun, 0, 1);
    loop {
        let attempt = attempt(job, diff_id, digest, (&file, size), &mut upload, offset).await;
        let Err(Attempt { error, retry }) = attempt else { return Ok(()) };
        let Some(wait) = retry.filter(|_| fruitless < ATTEMPTS) else { return Err(error) };
        let wait = wait.max(back_off(fruitless));
        job.telling.notice(&error, wait).await;
        tokio::time::sleep(wait).await;
        fruitless += 1;
        // Where it goes on, as far as the registry knows; else it begins anew.
        let known = match upload.take() {
            Some(before) => match job.session.arrived(&before).await {
                Ok(known) => known.filter(|(arrived, _)| *arrived <= size),
                Err(Attempt { retry: Some(_), .. }) => {
                    upload = Some(before);
                    continue;
                }
                Err(Attempt { .. }) => None,
            },
            None => None,
        };
        let arrived = known.as_ref().map_or(0, |(arrived, _)| *arrived);
        upload = known.map(|(_, upload)| upload);
        if arrived > offset {
            fruitless = 1;
        }
        offset = arrived;
    }
}

/// From `offset` to the end. What was begun stays in `upload`, for the next attempt.
async fn attempt(
    job: &Job<'_>,
    diff_id: Option<&Digest>,
    digest: &Digest,
    (file, size): (&Arc<File>, u64),
    upload: &mut Option<Upload>,
    offset: u64,
) -> Result<(), Attempt> {
    let current = match upload.clone() {
        Some(upload) => upload,
        None => match job.session.begin(None).await? {
            Begun::Upload(begun) => upload.insert(begun).clone(),
            Begun::Mounted => return Ok(()),
        },
    };
    let body = |from: u64| {
        let told = diff_id.map(|diff_id| (job.telling.clone(), diff_id.to_string()));
        body(Arc::clone(file), from, size, told)
    };
    let rest = size.saturating_sub(offset);
    if rest <= SMALL && offset == 0 {
        return job.session.finish(&current, digest, rest, || body(0)).await;
    }
    let current = if rest > 0 { job.session.send(&current, (offset, rest), || body(offset)).await? } else { current };
    *upload = Some(current.clone());
    job.session.finish(&current, digest, 0, || body(size)).await
}

/// The bytes of a file from `from` to `size`; the receiver changes as they are taken.
fn body(file: Arc<File>, from: u64, size: u64, told: Option<(Telling, String)>) -> (Body, watch::Receiver<u64>) {
    let (sender, moved) = watch::channel(from);
    let pieces = stream::try_unfold((file, from, sender, told), move |(file, at, sender, told)| async move {
        if at >= size {
            return Ok::<_, std::io::Error>(None);
        }
        let length = usize::try_from(size - at).unwrap_or(PIECE).min(PIECE);
        let reading = Arc::clone(&file);
        let piece = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; length];
            reading.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece))
        });
        let piece = piece.await.map_err(std::io::Error::other)??;
        let at = at + length as u64;
        sender.send_replace(at);
        if let Some((telling, diff_id)) = &told {
            let phase = Phase::Pushing.into();
            telling.moved(PushLayer { diff_id: diff_id.clone(), phase, current: at, total: size, from: String::new() });
        }
        Ok(Some((piece, (file, at, sender, told))))
    });
    (Body::wrap_stream(pieces), moved)
}
