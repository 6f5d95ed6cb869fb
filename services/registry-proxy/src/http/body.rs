//! Bodies: bytes in memory, and files, whole ones and those that still grow.
//!
//! A body that cannot be sent to its end breaks its connection, so that nobody takes a part for the whole.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use rustix::io::{Errno, ReadWriteFlags};

use super::buffers::{Buffer, SIZE};
use crate::{fill::Reader, upstream::Upstream};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body in memory.
pub(super) fn bytes(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A part of a file.
pub(super) struct Part {
    pub(super) file: Arc<File>,
    pub(super) begin: u64,
    /// To its end where unset.
    pub(super) end: Option<u64>,
    /// Set where it still grows.
    pub(super) reader: Option<Reader>,
    /// Whose bytes these are.
    pub(super) upstream: Arc<Upstream>,
}

/// Sends a part of a file, as far as it is there, and waits for more.
pub(super) fn file(part: Part) -> Body {
    let stream = stream::try_unfold((part, 0), |(mut part, mut available)| async move {
        if Some(part.begin) == part.end {
            return Ok(None);
        }
        if part.begin >= available {
            available = match &mut part.reader {
                Some(reader) => reader.available(part.begin).await?,
                None => part.end.unwrap_or(u64::MAX),
            };
            if part.begin >= available {
                // Its size was not known before.
                return if part.end.is_none() { Ok(None) } else { Err(cut()) };
            }
        }
        let until = part.end.map_or(available, |end| end.min(available));
        let bytes = read(&part.file, part.begin, (until - part.begin).min(SIZE as u64) as usize).await?;
        if bytes.is_empty() {
            return Err(cut());
        }
        part.begin += bytes.len() as u64;
        part.upstream.counts().bytes_out.add(bytes.len() as u64);
        Ok(Some((Frame::data(bytes), (part, available))))
    });
    StreamBody::new(stream).boxed_unsync()
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a blob is shorter than it was")
}

/// Reads some bytes: at once where the page cache has them, else in a thread that may wait for the disk.
async fn read(file: &Arc<File>, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = Buffer::take();
    let mut slices = [io::IoSliceMut::new(&mut buffer.memory()[..length])];
    match rustix::io::preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT) {
        Ok(read) if read > 0 => return Ok(buffer.filled(read)),
        // Not in the cache, or a file system that cannot say.
        Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let file = file.clone();
    let read = tokio::task::spawn_blocking(move || {
        let read = file.read_at(&mut buffer.memory()[..length], offset)?;
        Ok(buffer.filled(read))
    });
    read.await.map_err(io::Error::other)?
}
