//! Downloading a blob: into a file under its digest, hashed as it passes, gone on with after a broken connection or a
//! restart.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_proto::berth::image::v1::{layer_progress::Phase, pull_progress::Message};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::{
    blob::{Job, say},
    partial::Partial,
    retry::{ATTEMPTS, ATTEMPTS_AT_MIRROR, back_off},
};
use crate::{
    error::Error,
    held::Turn,
    images::blocking,
    manifest::Descriptor,
    registry::{Attempt, Session},
    snapshots::Arrived,
};

/// Chunks that wait for the writer; a chunk is what the connection had, tens of KiB.
const QUEUE: usize = 64;
/// A person is told of progress this often.
const TOLD_EVERY: Duration = Duration::from_millis(100);
/// An attempt that brings less has brought nothing.
const LEAST: u64 = 16 * 1024;

/// Where a blob goes, and who hears of it.
struct Download<'a> {
    job: &'a Job<'a>,
    descriptor: &'a Descriptor,
    arrived: Option<&'a watch::Sender<Arrived>>,
    path: &'a Path,
}

/// Downloads a blob from the first host that gives it whole.
pub(super) async fn download(
    job: &Job<'_>,
    descriptor: &Descriptor,
    arrived: Option<&watch::Sender<Arrived>>,
    turn: Turn,
) -> Result<(), Error> {
    let path = job.images.store.blobs.ingest(&descriptor.digest);
    let (file, wanted) = (path.clone(), descriptor.clone());
    let opening = move || Partial::open(&file, &wanted, turn).map_err(Error::io("cannot write", file));
    let mut partial = blocking(opening).await?;
    let download = Download { job, descriptor, arrived, path: &path };
    let (mut at, mut fruitless) = (0, 0);
    loop {
        let before = partial.length();
        let session = &job.sessions[at];
        let (back, result) = download.attempt(session, partial).await;
        partial = back.ok_or(Error::Panicked { what: "writing a blob" })?;
        let Err(Attempt { error, retry }) = result else { break };
        if matches!(error, Error::Io { .. } | Error::Cancelled) {
            return Err(given_up(partial, &path, error));
        }
        let brought = partial.length().saturating_sub(before);
        fruitless = if brought >= LEAST { 0 } else { fruitless + 1 };
        let next = job.sessions.get(at + 1);
        let attempts = if next.is_some() { ATTEMPTS_AT_MIRROR } else { ATTEMPTS };
        match (retry, next) {
            (Some(wait), _) if fruitless < attempts => {
                let wait = wait.max(if fruitless == 0 { back_off(0) / 4 } else { back_off(fruitless) });
                let (is, of) = (partial.length(), descriptor.size);
                let text = format!("{error}; going on at {is} of {of} bytes in {:.1} s", wait.as_secs_f64());
                job.progress.tell(Message::Notice(text));
                if let Err(ended) = job.ending.unless(tokio::time::sleep(wait)).await {
                    return Err(given_up(partial, &path, ended));
                }
            }
            // Wrong content, or none: another host may do better.
            (_, Some(next)) => {
                job.progress.tell(Message::Notice(format!("{error}; asking {} instead", next.host())));
                (at, fruitless) = (at + 1, 0);
                partial.mixed |= partial.length() > 0;
            }
            (_, None) => return Err(given_up(partial, &path, error)),
        }
    }
    let (images, digest) = (Arc::clone(job.images), descriptor.digest.clone());
    // The turn is kept until the name is right.
    blocking(move || images.store.blobs.verified(&digest).map(|_| drop(partial))).await
}

/// What has arrived stays for the next pull; a file of nothing does not.
fn given_up(partial: Partial, path: &Path, error: Error) -> Error {
    if partial.length() == 0 {
        // The turn for it is still ours. One that stays behind is swept later.
        let _ = std::fs::remove_file(path);
    }
    error
}

impl Download<'_> {
    /// People are told of layers only: the rest is small.
    fn say(&self, phase: Phase, current: u64) {
        if self.arrived.is_some() {
            say(self.job.progress, self.descriptor, phase, current);
        }
    }

    fn last(&self, source: io::Error) -> Attempt {
        Attempt::last(Error::io("cannot write", self.path)(source))
    }

    /// Begins again. Who reads the file behind us is told that what it has read counts no more.
    fn restart(&self, partial: &mut Partial) -> Result<(), Attempt> {
        if let Some(arrived) = self.arrived {
            arrived.send_modify(|state| {
                (state.bytes, state.generation) = (0, state.generation + 1);
            });
        }
        partial.restart(self.descriptor).map_err(|error| self.last(error))
    }

    /// One connection. The partial blob comes back with what arrived; it is gone only if its writer panicked.
    async fn attempt(&self, session: &Session, partial: Partial) -> (Option<Partial>, Result<(), Attempt>) {
        let (descriptor, from) = (self.descriptor, partial.length());
        let mut partial = partial;
        if from < descriptor.size || from == 0 {
            let ending = &self.job.ending;
            let asked = ending.unless(session.blob(&descriptor.digest, from)).await;
            let answer = match asked.map_err(Attempt::last).flatten() {
                Ok(answer) => answer,
                Err(attempt) => return (Some(partial), Err(attempt)),
            };
            let (chunks, queue) = mpsc::channel::<Bytes>(QUEUE);
            let arrived = self.arrived.cloned();
            let writing = tokio::task::spawn_blocking(move || partial.write(queue, arrived.as_ref()));
            let received = ending.unless(self.receive(session, answer, from, chunks)).await;
            let received = received.map_err(Attempt::last).flatten();
            // However that ended, nothing more comes: the writer ends, and only then is the file nobody's.
            let Ok((back, written)) = writing.await else {
                return (None, Err(Attempt::last(Error::Panicked { what: "writing a blob" })));
            };
            partial = back;
            let result = match (written, received) {
                (Err(error), _) => Err(self.last(error)),
                (Ok(()), Err(attempt)) => match attempt.error {
                    // It has more than it should: nothing of it can be trusted.
                    Error::WrongSize { .. } => self.restart(&mut partial).and(Err(attempt)),
                    _ => Err(attempt),
                },
                (Ok(()), Ok(())) => Ok(()),
            };
            if result.is_err() {
                return (Some(partial), result);
            }
        }
        self.say(Phase::Verifying, descriptor.size);
        let is = partial.digest();
        if is == descriptor.digest {
            return (Some(partial), Ok(()));
        }
        let what = format!("the blob from {}", session.host());
        let error = Error::WrongDigest { what, wanted: descriptor.digest.to_string(), is: is.to_string() };
        // The host may be right where what was here before is wrong.
        let retry = partial.mixed.then_some(Duration::ZERO);
        let result = self.restart(&mut partial).and(Err(Attempt { error, retry }));
        (Some(partial), result)
    }

    /// Passes a body on to the writer, from the offset `from` of the blob.
    async fn receive(
        &self,
        session: &Session,
        (mut answer, begins): (reqwest::Response, u64),
        from: u64,
        chunks: mpsc::Sender<Bytes>,
    ) -> Result<(), Attempt> {
        let Descriptor { size, digest, .. } = self.descriptor;
        let size = *size;
        let broken = |why: String| {
            Err(Attempt { error: Error::Registry { host: session.host().into(), why }, retry: Some(Duration::ZERO) })
        };
        // A host that cannot begin in the middle sends what is here already once more.
        let mut at = begins;
        let stall = self.job.images.settings.stall();
        // Only the time spent waiting for the host counts, not that for our own disk.
        let (mut waited, mut in_window) = (Duration::ZERO, 0);
        let mut told = Instant::now();
        while at < size || size == 0 {
            let asked = Instant::now();
            let chunk = tokio::time::timeout(stall.saturating_sub(waited), answer.chunk()).await;
            waited += asked.elapsed();
            let mut chunk = match chunk {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => {
                    let why = berth_core::failure::chain(&error.without_url());
                    return broken(format!("the connection broke after {at} of {size} bytes of blob {digest}: {why}"));
                }
                Err(_) if in_window < LEAST => {
                    return broken(format!("it sent {in_window} bytes of blob {digest} in {} s", stall.as_secs()));
                }
                Err(_) => {
                    (waited, in_window) = (Duration::ZERO, 0);
                    continue;
                }
            };
            in_window += chunk.len() as u64;
            if waited >= stall {
                if in_window < LEAST {
                    return broken(format!("it sent {in_window} bytes of blob {digest} in {} s", stall.as_secs()));
                }
                (waited, in_window) = (Duration::ZERO, 0);
            }
            let begin = at;
            at += chunk.len() as u64;
            if at > size {
                break;
            }
            if at <= from {
                continue;
            }
            if begin < from {
                chunk = chunk.split_off((from - begin) as usize);
            }
            if chunks.send(chunk).await.is_err() {
                // The writer says why.
                return Ok(());
            }
            if told.elapsed() >= TOLD_EVERY {
                told = Instant::now();
                self.say(Phase::Downloading, at);
            }
        }
        // Where everything that was announced is here, more of it is an error, and its end makes the connection free for
        // the next request.
        if at == size && matches!(tokio::time::timeout(stall, answer.chunk()).await, Ok(Ok(Some(_)))) {
            at += 1;
        }
        if at > size {
            let what = format!("blob {digest} from {}", session.host());
            return Err(Attempt::last(Error::WrongSize { what, wanted: size }));
        }
        if at < size {
            return broken(format!("blob {digest} ended after {at} of {size} bytes"));
        }
        Ok(())
    }
}
