//! One blob from an upstream into its file, through broken connections, to a verified end.

use std::{
    fs::File,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::Response;

use super::{
    Fill, Fills, Started,
    writer::{self, Prefix},
};
use crate::{
    refusal::Refusal,
    store::Ingest,
    upstream::{Ask, Upstream},
};

/// A broken connection is made anew this often without a new byte.
const FRUITLESS: u32 = 5;
const BACKOFF: Duration = Duration::from_millis(200);
/// An upstream that wants to be left alone for longer ends the download.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A blob whose size the upstream does not say may be this large.
const MAX_UNANNOUNCED: u64 = 32 << 30;
/// A connection that brings less than this in a window is given up for another: a trickle could last for hours.
const TRICKLE: (u64, Duration) = (16 << 10, Duration::from_secs(60));

/// How a download ended well.
pub(super) enum Done {
    Complete,
    /// Nobody wants it; what is here stays for the next one.
    Abandoned,
}

/// How one connection ended.
enum Stop {
    Complete,
    Broken(String),
    Unwanted,
}

pub(super) async fn run(
    fills: &Arc<Fills>,
    fill: &Arc<Fill>,
    upstream: &Arc<Upstream>,
    repository: &str,
) -> Result<Done, Refusal> {
    let Ingest { file, present } = {
        let (fills, digest) = (fills.clone(), fill.digest.clone());
        blocking(move || fills.store.blobs.ingest(&digest)).await?
    };
    // Hashed when the upstream has agreed to go on behind it.
    let mut prefix: Option<Prefix> = None;
    let mut at = present;
    let mut fruitless = 0;
    let mut first = true;
    loop {
        let answer = match ask(fill, upstream, repository, at, !first).await {
            Ok(answer) => answer,
            Err(refusal) if !first && fruitless < FRUITLESS && worth_waiting(&refusal) => {
                if fill.readers.borrow().eq(&0) && fills.left(fill) {
                    return Ok(Done::Abandoned);
                }
                fruitless += 1;
                tokio::time::sleep(refusal.retry_after.unwrap_or(BACKOFF * (1 << fruitless))).await;
                continue;
            }
            Err(refusal) => return Err(refusal),
        };
        let head = Head::of(&answer, at);
        let complete = match head {
            Head::Restart if fill.state.borrow().started.is_none() => {
                // What lies here cannot be the beginning of what is there.
                file.set_len(0).map_err(|error| Refusal::own("cannot shorten a partial blob", &error))?;
                (at, prefix, first) = (0, None, false);
                continue;
            }
            Head::Restart | Head::Wrong => {
                return Err(Refusal::upstream(format!("{} answered with a wrong range", upstream.name())));
            }
            Head::Complete => {
                publish(fill, upstream, &file, Some(at), at)?;
                true
            }
            Head::Rest { size, .. } => {
                publish(fill, upstream, &file, size, at)?;
                false
            }
        };
        first = false;
        let begin = match prefix.take() {
            Some(prefix) => prefix,
            None => {
                let (file, hasher) = (file.clone(), fill.digest.algorithm().hasher());
                blocking(move || writer::rehash(&file, at, hasher)).await?
            }
        };
        let (end, stop) = if complete {
            (begin, Stop::Complete)
        } else {
            let skip = if let Head::Rest { skip, .. } = head { skip } else { 0 };
            receive(fill, upstream, &file, begin, answer, skip).await?
        };
        fruitless = if end.length > at { 0 } else { fruitless + 1 };
        at = end.length;
        match stop {
            Stop::Complete => return finish(fills, fill, upstream, file, end).await,
            Stop::Unwanted if fills.left(fill) => return Ok(Done::Abandoned),
            Stop::Unwanted => {}
            Stop::Broken(why) if fruitless >= FRUITLESS => {
                return Err(Refusal::upstream(format!("{}: {why}", upstream.name())));
            }
            Stop::Broken(why) => {
                tracing::info!(digest = %fill.digest, at, why, "the connection broke; going on behind what is here");
                if fruitless > 0 {
                    tokio::time::sleep(BACKOFF * (1 << fruitless)).await;
                }
            }
        }
        prefix = Some(end);
    }
}

/// An outage that may be over before those who wait give up.
fn worth_waiting(refusal: &Refusal) -> bool {
    refusal.is_outage() && refusal.retry_after.is_none_or(|wait| wait <= LONGEST_WAIT)
}

async fn ask(
    fill: &Fill,
    upstream: &Upstream,
    repository: &str,
    at: u64,
    persistent: bool,
) -> Result<Response, Refusal> {
    let mut headers = HeaderMap::new();
    // Bytes as they are stored, whatever an intermediary would like to do for us.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if at > 0
        && let Ok(range) = HeaderValue::from_str(&format!("bytes={at}-"))
    {
        headers.insert(header::RANGE, range);
    }
    let rest = format!("blobs/{}", fill.digest);
    upstream.ask(Ask { method: Method::GET, repository, rest: &rest, headers, persistent }).await
}

/// What the head of an answer says about the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// The body goes on where we are, after so many bytes that we have.
    Rest { size: Option<u64>, skip: u64 },
    /// Nothing is missing.
    Complete,
    /// There is nothing behind what we have, and what we have is too much.
    Restart,
    /// The range is not the one asked for.
    Wrong,
}

impl Head {
    fn of(answer: &Response, at: u64) -> Self {
        let range = answer.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => match range.and_then(content_range) {
                Some((begin, size)) if begin == at => Self::Rest { size: Some(size), skip: 0 },
                _ => Self::Wrong,
            },
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let size = range.and_then(|range| range.strip_prefix("bytes */")?.trim().parse::<u64>().ok());
                match size {
                    // Nothing was asked to be left out.
                    _ if at == 0 => Self::Wrong,
                    size if size == Some(at) => Self::Complete,
                    _ => Self::Restart,
                }
            }
            StatusCode::OK => match answer.content_length() {
                Some(size) if size < at => Self::Restart,
                size => Self::Rest { size, skip: at },
            },
            _ => Self::Wrong,
        }
    }
}

/// `bytes 10-99/100` → (10, 100)
fn content_range(value: &str) -> Option<(u64, u64)> {
    let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (begin, end) = range.split_once('-')?;
    let (begin, end, size) = (begin.trim().parse().ok()?, end.parse::<u64>().ok()?, size.trim().parse().ok()?);
    (begin <= end && end < size).then_some((begin, size))
}

/// Tells the readers what is to come.
fn publish(fill: &Fill, upstream: &Upstream, file: &Arc<File>, size: Option<u64>, at: u64) -> Result<(), Refusal> {
    let known = fill.state.borrow().started.clone();
    if let Some(Started { size: known, .. }) = known {
        return if known == size {
            Ok(())
        } else {
            Err(Refusal::upstream(format!("{} changed its mind about the size of {}", upstream.name(), fill.digest)))
        };
    }
    fill.state.send_modify(|state| {
        state.started = Some(Started { file: file.clone(), size });
        state.written = at;
    });
    Ok(())
}

/// Takes one body, as far as it comes.
async fn receive(
    fill: &Arc<Fill>,
    upstream: &Upstream,
    file: &Arc<File>,
    begin: Prefix,
    mut answer: Response,
    mut skip: u64,
) -> Result<(Prefix, Stop), Refusal> {
    let size = fill.state.borrow().started.as_ref().and_then(|started| started.size);
    let mut received = begin.length;
    let told = fill.clone();
    let writer =
        writer::start(file.clone(), begin, move |length| told.state.send_modify(|state| state.written = length));
    let mut window = (Instant::now(), 0);
    let unwanted = fill.unwanted();
    tokio::pin!(unwanted);
    let stop = loop {
        if size == Some(received) {
            break Stop::Complete;
        }
        let chunk = tokio::select! {
            chunk = answer.chunk() => chunk,
            () = &mut unwanted => break Stop::Unwanted,
        };
        let mut chunk = match chunk {
            Ok(Some(chunk)) => chunk,
            Ok(None) if size.is_none() => break Stop::Complete,
            Ok(None) => break Stop::Broken("the connection was closed early".into()),
            Err(error) => break Stop::Broken(berth_core::failure::chain(&error.without_url())),
        };
        upstream.counts().bytes_in.add(chunk.len() as u64);
        window.1 += chunk.len() as u64;
        if window.0.elapsed() > TRICKLE.1 {
            if window.1 < TRICKLE.0 {
                break Stop::Broken("hardly anything came".into());
            }
            window = (Instant::now(), 0);
        }
        let known = skip.min(chunk.len() as u64);
        skip -= known;
        let _ = chunk.split_to(known as usize);
        if chunk.is_empty() {
            continue;
        }
        received += chunk.len() as u64;
        if received > size.unwrap_or(MAX_UNANNOUNCED) {
            break Stop::Broken("more came than was announced".into());
        }
        if writer.pieces.send(chunk).await.is_err() {
            // It failed, and says below how.
            break Stop::Broken("the disk failed".into());
        }
    };
    drop(writer.pieces);
    let (prefix, written) =
        writer.task.await.map_err(|_| Refusal::upstream(format!("writing {} broke off", fill.digest)))?;
    written.map_err(|error| Refusal::own(&format!("cannot write {}", fill.digest), &error))?;
    Ok((prefix, stop))
}

/// Verifies; what is right becomes visible and durable, what is wrong is gone.
async fn finish(
    fills: &Arc<Fills>,
    fill: &Arc<Fill>,
    upstream: &Upstream,
    file: Arc<File>,
    end: Prefix,
) -> Result<Done, Refusal> {
    let Prefix { hasher, length } = end;
    let is = hasher.finish();
    let (fills, digest) = (fills.clone(), fill.digest.clone());
    if is != digest {
        let message = format!("{} sent {is} where {digest} was asked for", upstream.name());
        upstream.accuse(&message);
        blocking(move || fills.store.blobs.discard(&digest)).await?;
        return Err(Refusal::upstream(message));
    }
    blocking(move || fills.store.blobs.commit(&digest, &file, length)).await?;
    Ok(Done::Complete)
}

/// Work that blocks, away from the threads that serve.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Refusal::own("cannot use the store", &error)),
        Err(_) => Err(Refusal::upstream("the store broke off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_strictly() {
        assert_eq!(content_range("bytes 10-99/100"), Some((10, 100)));
        for wrong in ["bytes 10-100/100", "bytes 11-10/100", "bytes 0-9/*", "10-99/100", "bytes */100", ""] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
