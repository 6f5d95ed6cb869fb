//! `Take`, `Pack`, `Changes` and `Export`: what a container has written, on its way to whoever asked.

use std::{pin::Pin, sync::Arc};

use berth_core::Digest;
use berth_proto::berth::snapshotter::v1::{
    Change as WireChange, ChangesRequest, ChangesResponse, ExportRequest, ExportResponse, PackRequest, PackResponse,
    TakeDone, TakeRead, TakeRequest, TakeResponse, change, take_response::Message,
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{blocking, status};
use crate::{
    error::Error,
    layer::{changes::Kind, pack::LeaveOut},
    snapshotter::Snapshotter,
};

/// Pieces that wait for a slow caller.
const QUEUE: usize = 4;
/// Changes in one message; keeps each well below gRPC's 4 MiB.
const BATCH: usize = 500;

pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) fn take(snapshotter: &Arc<Snapshotter>, request: TakeRequest) -> Answers<TakeResponse> {
    let TakeRequest { key, leave_out } = request;
    let leave_out = paths(&leave_out);
    let work = move |snapshotter: &Arc<Snapshotter>, caller| snapshotter.take(&key, &leave_out, &caller);
    sent(
        snapshotter,
        work,
        |_| Message::Read(TakeRead {}),
        |taken| Some(Message::Done(TakeDone { diff_id: taken.diff_id.to_string(), size: taken.bytes })),
    )
    .map(|message| message.map(|message| TakeResponse { message: Some(message) }))
    .boxed()
}

pub(super) fn pack(snapshotter: &Arc<Snapshotter>, request: &PackRequest) -> Result<Answers<PackResponse>, Status> {
    let diff_id: Digest = request.diff_id.parse().map_err(Error::from).map_err(status)?;
    let work = move |snapshotter: &Arc<Snapshotter>, caller| snapshotter.pack(&diff_id, caller);
    Ok(sent(snapshotter, work, |data| PackResponse { data }, |()| None).boxed())
}

pub(super) fn export(snapshotter: &Arc<Snapshotter>, request: ExportRequest) -> Answers<ExportResponse> {
    let work = move |snapshotter: &Arc<Snapshotter>, caller| snapshotter.export(&request.key, caller);
    sent(snapshotter, work, |data| ExportResponse { data }, |()| None).boxed()
}

pub(super) async fn changes(
    snapshotter: &Arc<Snapshotter>,
    request: ChangesRequest,
) -> Result<Answers<ChangesResponse>, Status> {
    let ChangesRequest { key, leave_out } = request;
    let leave_out = paths(&leave_out);
    let changes = blocking(snapshotter, move |snapshotter| snapshotter.changes(&key, &leave_out)).await?;
    let wire: Vec<WireChange> = changes
        .into_iter()
        .map(|change| WireChange {
            kind: match change.kind {
                Kind::Added => change::Kind::Added,
                Kind::Changed => change::Kind::Changed,
                Kind::Deleted => change::Kind::Deleted,
            }
            .into(),
            path: [b"/".as_slice(), &change.path].concat().into(),
        })
        .collect();
    let batches: Vec<_> = wire.chunks(BATCH).map(|batch| Ok(ChangesResponse { changes: batch.to_vec() })).collect();
    Ok(stream::iter(batches).boxed())
}

fn paths(paths: &[String]) -> LeaveOut {
    paths.iter().map(|path| path.trim_matches('/').as_bytes().to_vec()).collect()
}

/// Works where it may block. What it sends is answered piece by piece, and what it answers last.
fn sent<T: Send + 'static, A: Send + 'static>(
    snapshotter: &Arc<Snapshotter>,
    work: impl FnOnce(&Arc<Snapshotter>, mpsc::Sender<Bytes>) -> Result<T, Error> + Send + 'static,
    piece: impl Fn(Bytes) -> A + Send + 'static,
    last: impl FnOnce(T) -> Option<A> + Send + 'static,
) -> impl Stream<Item = Result<A, Status>> + Send + 'static {
    let (sender, pieces) = mpsc::channel(QUEUE);
    let (done, result) = oneshot::channel();
    let (snapshotter, span) = (Arc::clone(snapshotter), tracing::Span::current());
    tokio::task::spawn_blocking(move || {
        // The pieces end before the result is told.
        let worked = span.in_scope(|| work(&snapshotter, sender));
        let _ = done.send(worked);
    });
    let result = async move {
        match result.await {
            Ok(Ok(result)) => last(result).map(Ok),
            Ok(Err(error)) => Some(Err(status(error))),
            Err(_) => Some(Err(status(Error::Panicked { what: "reading a snapshot" }))),
        }
    };
    let last = stream::once(result).filter_map(|last| async move { last });
    ReceiverStream::new(pieces).map(move |data| Ok(piece(data))).chain(last)
}
