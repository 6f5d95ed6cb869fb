//! `StatFile`, `ReadFiles` and `WriteFiles`: tars of a container's files, in pieces and no faster than they are taken.

use std::{io, sync::Arc};

use berth_proto::berth::runtime::v1::{
    ReadFilesRequest, ReadFilesResponse, StatFileRequest, StatFileResponse, WriteFilesRequest, WriteFilesResponse,
    stat_file_response::Kind, write_files_request::Message,
};
use bytes::{Buf as _, Bytes, BytesMut};
use futures::StreamExt as _;
use rustix::fs::FileType;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Answers, status};
use crate::{container::Containers, error::Error};

/// Bytes of a message, and messages that wait.
const PIECE: usize = 256 << 10;
const WAITING: usize = 4;

pub(super) async fn stat(containers: &Arc<Containers>, request: StatFileRequest) -> Result<StatFileResponse, Status> {
    let container = containers.find(&request.container).map_err(status)?;
    let found = containers.stat_file(&container, request.path).await.map_err(status)?;
    let kind = match found.kind {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    };
    Ok(StatFileResponse { kind: kind.into(), link_target: found.link_target })
}

pub(super) fn read(
    containers: &Arc<Containers>,
    request: ReadFilesRequest,
) -> Result<Answers<ReadFilesResponse>, Status> {
    let container = containers.find(&request.container).map_err(status)?;
    let (sender, pieces) = mpsc::channel(WAITING);
    let (containers, failed) = (Arc::clone(containers), sender.clone());
    let work = async move {
        let out = Pieces { sender, waiting: BytesMut::new() };
        if let Err(error) = containers.read_files(&container, request.path, out).await {
            // Nobody hears it where the caller went away.
            let _ = failed.send(Err(status(error))).await;
        }
    };
    tokio::spawn(tracing::Instrument::instrument(work, tracing::Span::current()));
    Ok(ReceiverStream::new(pieces).boxed())
}

pub(super) async fn write(
    containers: &Arc<Containers>,
    mut requests: Streaming<WriteFilesRequest>,
) -> Result<WriteFilesResponse, Status> {
    let Some(Message::Start(start)) = requests.message().await?.and_then(|request| request.message) else {
        return Err(status(Error::Request("WriteFiles begins with a start")));
    };
    let container = containers.find(&start.container).map_err(status)?;
    let (sender, pieces) = mpsc::channel(WAITING);
    let pump = async move {
        loop {
            let piece = match requests.message().await {
                Ok(Some(WriteFilesRequest { message: Some(Message::Data(data)) })) => Ok(data),
                Ok(Some(_)) => Err(io::Error::other("WriteFiles takes data after its start")),
                Ok(None) => return,
                Err(error) => Err(io::Error::other(error.message().to_owned())),
            };
            let last = piece.is_err();
            if sender.send(piece).await.is_err() || last {
                return;
            }
        }
    };
    let tar = Taken { pieces, now: Bytes::new() };
    // Whichever way it ends, what was begun with an entry is not cut in the middle by us.
    let write = containers.write_files(&container, start.path, start.own, tar);
    let (written, ()) = tokio::join!(write, pump);
    written.map_err(status)?;
    Ok(WriteFilesResponse {})
}

/// Writes into messages.
struct Pieces {
    sender: mpsc::Sender<Result<ReadFilesResponse, Status>>,
    waiting: BytesMut,
}

impl io::Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(data);
        if self.waiting.len() >= PIECE {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let data = self.waiting.split().freeze();
        if data.is_empty() {
            return Ok(());
        }
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.sender.blocking_send(Ok(ReadFilesResponse { data })).map_err(gone)
    }
}

/// Reads from messages.
struct Taken {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    now: Bytes,
}

impl io::Read for Taken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.now = piece?,
                None => return Ok(0),
            }
        }
        let size = buffer.len().min(self.now.len());
        self.now.copy_to_slice(&mut buffer[..size]);
        Ok(size)
    }
}
