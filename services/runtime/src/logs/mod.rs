//! A container's log, read while the shim writes it.
//!
//! What is read is a file of [`berth_core::bundle::LogLine`]s and its rotated predecessors (`json.log.1` is the one before
//! `json.log`, and so on). The reader holds the file it reads open, so a rotation takes nothing away from it; it holds
//! one block at a time, whatever the log's size. A line that a crash tore is passed over.

mod files;
mod line;
mod reader;
mod seek;
mod watch;

use std::{future::Future, path::PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    container::record::Time,
    error::{Error, Result},
};
use reader::{Batch, Reader};
use watch::Watch;

/// Batches that wait for a slow caller.
const QUEUE: usize = 4;

/// What is wanted of a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    /// Go on until the container has ended.
    pub(crate) follow: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// Nothing earlier.
    pub(crate) since: Option<Time>,
    /// Nothing later; following ends there.
    pub(crate) until: Option<Time>,
    /// Only the last lines, of both streams together.
    pub(crate) tail: Option<u64>,
    /// Each line begins with its time.
    pub(crate) timestamps: bool,
    /// Each line begins with its attributes.
    pub(crate) details: bool,
}

/// Whole lines of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lines {
    Stdout(Bytes),
    Stderr(Bytes),
}

/// Reads the log at `path`, oldest line first; with lines comes the time of the last of them. `ended` answers when nothing will be written any more; what is there then
/// is still read.
pub(crate) fn read(
    path: PathBuf,
    query: Query,
    ended: impl Future<Output = ()> + Send + 'static,
) -> mpsc::Receiver<Result<(Lines, Time)>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        tokio::select! {
            result = send(path, query, ended, &sender) => {
                if let Err(error) = result {
                    let _ = sender.send(Err(error)).await;
                }
            }
            () = sender.closed() => {}
        }
    });
    receiver
}

async fn send(
    path: PathBuf,
    query: Query,
    ended: impl Future<Output = ()>,
    to: &mpsc::Sender<Result<(Lines, Time)>>,
) -> Result<()> {
    let follow = query.follow;
    let until = query.until;
    // Watched before it is read, so that nothing is written unseen between the two.
    let mut watch = match follow {
        true => Some(Watch::of(&path)?),
        false => None,
    };
    let mut reader = blocking(move || Reader::open(path, query)).await?;
    let mut ended = std::pin::pin!(ended);
    let mut last = !follow;
    loop {
        let (batch, back) = blocking(move || {
            let batch = reader.next()?;
            Ok((batch, reader))
        })
        .await?;
        reader = back;
        let waits = match batch {
            Batch::Lines(lines) => {
                for lines in lines {
                    if to.send(Ok(lines)).await.is_err() {
                        return Ok(());
                    }
                }
                false
            }
            Batch::Done => return Ok(()),
            Batch::AtTheEnd => true,
        };
        if !waits {
            continue;
        }
        let Some(watch) = watch.as_mut().filter(|_| !last) else { return Ok(()) };
        tokio::select! {
            changed = watch.changed() => changed?,
            () = &mut ended => last = true,
            () = reached(until) => last = true,
        }
    }
}

/// Answers when the moment has come.
async fn reached(until: Option<Time>) {
    match until {
        Some(until) => tokio::time::sleep(until.since(Time::now())).await,
        None => std::future::pending().await,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Panicked { what: "reading a log" })?
}

#[cfg(test)]
mod tests;
