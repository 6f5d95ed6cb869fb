//! Downloading a blob: into a file under its digest, hashed as it passes, gone on with after a broken connection or a
//! restart.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_core::digest::Hasher;
use berth_proto::berth::image::v1::{layer_progress::Phase, pull_progress::Message};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::{ATTEMPTS, Progress, back_off, blob::say, tell};
use crate::{
    error::Error,
    images::Images,
    manifest::Descriptor,
    registry::{Attempt, Session},
    snapshots::Arrived,
};

/// Chunks that wait for the writer; a chunk is what the connection had, tens of KiB.
const QUEUE: usize = 64;
/// A person is told of progress this often, and the snapshotter after this many bytes.
const TOLD_EVERY: Duration = Duration::from_millis(100);
const TOLD_BYTES: u64 = 1 << 20;
/// A connection that brings less than this many bytes in that time is given up for another.
const SLOWEST: u64 = 16 * 1024;
const WINDOW: Duration = Duration::from_secs(20);

/// A blob's file with the hash of what is in it.
struct Partial {
    file: File,
    hasher: Hasher,
    length: u64,
}

impl Partial {
    /// Opens what an earlier attempt left, or begins.
    fn open(path: &PathBuf, descriptor: &Descriptor) -> std::io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut hasher = descriptor.digest.algorithm().hasher();
        let mut length = 0;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let size = file.read(&mut buffer)?;
            if size == 0 {
                break;
            }
            hasher.update(&buffer[..size]);
            length += size as u64;
        }
        let mut partial = Self { file, hasher, length };
        if length > descriptor.size {
            partial.restart(descriptor)?;
        }
        Ok(partial)
    }

    fn restart(&mut self, descriptor: &Descriptor) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hasher = descriptor.digest.algorithm().hasher();
        self.length = 0;
        Ok(())
    }
}

/// Downloads a blob from the first host that gives it whole.
pub(super) async fn download(
    images: &Arc<Images>,
    sessions: &[&Session],
    descriptor: &Descriptor,
    progress: &Progress,
    arrived: Option<&watch::Sender<Arrived>>,
) -> Result<(), Error> {
    let path = images.store.blobs.ingest(&descriptor.digest);
    let failed = |error| Error::io("cannot write", &path)(error);
    let opening = (path.clone(), descriptor.clone());
    let opened = tokio::task::spawn_blocking(move || Partial::open(&opening.0, &opening.1)).await;
    let mut partial = opened.map_err(|_| Error::Panicked { what: "opening a blob" })?.map_err(&failed)?;
    let mut number = 1;
    let mut at = 0;
    loop {
        let session = sessions[at % sessions.len()];
        let (back, result) = attempt(session, descriptor, partial, progress, arrived).await;
        partial = back.ok_or(Error::Panicked { what: "writing a blob" })?;
        match result {
            Ok(()) => break,
            Err(attempt) if matches!(attempt.error, Error::Io { .. }) => {
                // Nothing can be kept on a full disk, and others need the room.
                let _ = std::fs::remove_file(&path);
                return Err(attempt.error);
            }
            Err(attempt) => {
                let other = at + 1 < sessions.len();
                let wait = match attempt.retry {
                    Some(wait) if number < ATTEMPTS => wait.max(back_off(number)),
                    // Wrong content, or none: another host may do better.
                    _ if other => Duration::ZERO,
                    _ => return Err(attempt.error),
                };
                if attempt.retry.is_none() || number >= ATTEMPTS {
                    at += 1;
                    number = 0;
                }
                number += 1;
                let text = format!("{}; trying again in {:.1} s", attempt.error, wait.as_secs_f64());
                tell(progress, Message::Notice(text));
                tokio::time::sleep(wait).await;
            }
        }
    }
    images.store.blobs.verified(&descriptor.digest).map(|_| ())
}

/// One connection. The partial blob comes back with what arrived; it is gone only if its writer panicked.
async fn attempt(
    session: &Session,
    descriptor: &Descriptor,
    mut partial: Partial,
    progress: &Progress,
    arrived: Option<&watch::Sender<Arrived>>,
) -> (Option<Partial>, Result<(), Attempt>) {
    let last = |error| Err(Attempt { error, retry: None });
    let io = |error| Error::io("cannot write the blob", descriptor.digest.to_string())(error);
    let again = |why: String| {
        let error = Error::Registry { host: session.host().into(), why };
        Err(Attempt { error, retry: Some(Duration::ZERO) })
    };
    if partial.length < descriptor.size || descriptor.size == 0 {
        let (mut answer, begins) = match session.blob(&descriptor.digest, partial.length).await {
            Ok(answer) => answer,
            Err(attempt) => return (Some(partial), Err(attempt)),
        };
        if begins != partial.length
            && let Err(error) = partial.restart(descriptor)
        {
            return (Some(partial), last(io(error)));
        }
        let mut received = partial.length;
        let (chunks, writer) = mpsc::channel::<Bytes>(QUEUE);
        let arrived = arrived.cloned();
        let writing = tokio::task::spawn_blocking(move || write(partial, writer, arrived.as_ref()));
        let mut broken = None;
        let mut told = Instant::now();
        let (mut window, mut window_bytes) = (Instant::now(), 0);
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => {
                    received += chunk.len() as u64;
                    window_bytes += chunk.len() as u64;
                    if received > descriptor.size {
                        break;
                    }
                    if chunks.send(chunk).await.is_err() {
                        break;
                    }
                    if told.elapsed() >= TOLD_EVERY {
                        told = Instant::now();
                        say(progress, descriptor, Phase::Downloading, received);
                    }
                    if window.elapsed() >= WINDOW {
                        if window_bytes < SLOWEST {
                            broken = Some(format!("it sent {window_bytes} bytes in {} s", WINDOW.as_secs()));
                            break;
                        }
                        (window, window_bytes) = (Instant::now(), 0);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    broken = Some(format!("the connection broke: {}", berth_core::failure::chain(&error)));
                    break;
                }
            }
        }
        drop(chunks);
        let Ok((back, written)) = writing.await else {
            return (None, last(Error::Panicked { what: "writing a blob" }));
        };
        partial = back;
        if let Err(error) = written {
            return (Some(partial), last(io(error)));
        }
        if received > descriptor.size {
            let _ = partial.restart(descriptor);
            let what = format!("blob {} from {}", descriptor.digest, session.host());
            return (Some(partial), last(Error::WrongSize { what, wanted: descriptor.size, is: received }));
        }
        if let Some(why) = broken {
            return (Some(partial), again(why));
        }
        if partial.length < descriptor.size {
            let why = format!("it ended after {} of {} bytes", partial.length, descriptor.size);
            return (Some(partial), again(why));
        }
    }
    say(progress, descriptor, Phase::Verifying, descriptor.size);
    let is = partial.hasher.clone().finish();
    if is != descriptor.digest {
        let what = format!("the blob from {}", session.host());
        let error = Error::WrongDigest { what, wanted: descriptor.digest.to_string(), is: is.to_string() };
        if let Err(error) = partial.restart(descriptor) {
            return (Some(partial), last(io(error)));
        }
        return (Some(partial), last(error));
    }
    (Some(partial), Ok(()))
}

/// Writes and hashes what arrives, and says how far it is.
fn write(
    mut partial: Partial,
    mut chunks: mpsc::Receiver<Bytes>,
    arrived: Option<&watch::Sender<Arrived>>,
) -> (Partial, std::io::Result<()>) {
    let mut told = partial.length;
    if let (Some(arrived), true) = (arrived, told > 0) {
        arrived.send_replace(Arrived { bytes: told, whole: false });
    }
    let mut result = Ok(());
    while let Some(chunk) = chunks.blocking_recv() {
        if let Err(error) = partial.file.write_all(&chunk) {
            result = Err(error);
            break;
        }
        partial.hasher.update(&chunk);
        partial.length += chunk.len() as u64;
        if let Some(arrived) = arrived
            && (partial.length - told >= TOLD_BYTES || told == 0)
        {
            told = partial.length;
            arrived.send_replace(Arrived { bytes: told, whole: false });
        }
    }
    (partial, result)
}
