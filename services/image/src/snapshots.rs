//! The neighbour that lays layers down.

use std::{path::Path, pin::pin};

use berth_core::{Digest, Failure, connect::Channel};
use berth_proto::{
    berth::snapshotter::v1::{
        ApplyFinish, ApplyRequest, ApplyStart, ComposeRequest, StatRequest, apply_request::Message, apply_response,
        layers_client::LayersClient,
    },
    containerd::services::snapshots::v1::{RemoveSnapshotRequest, snapshots_client::SnapshotsClient},
};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::error::Error;

/// Client of the snapshotter.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    layers: LayersClient<Channel>,
    snapshots: SnapshotsClient<Channel>,
}

/// How far a blob has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) bytes: u64,
    /// The blob is whole and its digest right.
    pub(crate) whole: bool,
}

fn failed(status: Status) -> Error {
    Error::Snapshotter(Box::new(Failure::from(status)))
}

impl Snapshots {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { layers: LayersClient::new(channel.clone()), snapshots: SnapshotsClient::new(channel) }
    }

    /// Which of these layers are there.
    pub(crate) async fn present(&self, diff_ids: &[Digest]) -> Result<Vec<Digest>, Error> {
        let diff_ids = diff_ids.iter().map(Digest::to_string).collect();
        let answer = self.layers.clone().stat(StatRequest { diff_ids }).await.map_err(failed)?;
        answer.into_inner().diff_ids.iter().map(|text| text.parse().map_err(Error::from)).collect()
    }

    /// Lays a layer down while its blob arrives at `path`; answers with the bytes of its tar. If the sender of `arrived`
    /// goes away before the blob is whole, nothing is laid down.
    pub(crate) async fn apply(
        &self,
        diff_id: &Digest,
        path: &Path,
        media_type: &str,
        size: u64,
        arrived: watch::Receiver<Arrived>,
    ) -> Result<u64, Error> {
        let start = ApplyStart {
            diff_id: diff_id.to_string(),
            path: path.display().to_string(),
            media_type: media_type.into(),
            size,
        };
        let messages = stream::once(async { Message::Start(start) })
            .chain(arrivals(arrived))
            .map(|message| ApplyRequest { message: Some(message) });
        let answers = self.layers.clone().apply(messages).await.map_err(failed)?.into_inner();
        let mut answers = pin!(answers);
        while let Some(answer) = answers.message().await.map_err(failed)? {
            if let Some(apply_response::Message::Done(done)) = answer.message {
                return Ok(done.size);
            }
        }
        Err(failed(Status::unavailable("it ended while a layer was laid down; pull again")))
    }

    /// Makes the snapshots of a stack; durable when this answers.
    pub(crate) async fn compose(&self, diff_ids: &[Digest]) -> Result<(), Error> {
        let diff_ids = diff_ids.iter().map(Digest::to_string).collect();
        let request = ComposeRequest { diff_ids, labels: Default::default() };
        self.layers.clone().compose(request).await.map_err(failed).map(|_| ())
    }

    /// Takes a committed snapshot away; false where it stays because something is stacked on it.
    pub(crate) async fn remove(&self, chain_id: &Digest) -> Result<bool, Error> {
        let request = RemoveSnapshotRequest { snapshotter: String::new(), key: chain_id.to_string() };
        match self.snapshots.clone().remove(request).await {
            Ok(_) => Ok(true),
            Err(status) if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) => Ok(false),
            Err(status) => Err(failed(status)),
        }
    }
}

/// What is said about a blob's arrival: only the newest state, however often it changed meanwhile.
fn arrivals(arrived: watch::Receiver<Arrived>) -> impl Stream<Item = Message> {
    stream::unfold((arrived, 0, false), |(mut arrived, told, ended)| async move {
        if ended {
            return None;
        }
        loop {
            let now = *arrived.borrow_and_update();
            if now.whole {
                return Some((Message::Finish(ApplyFinish {}), (arrived, told, true)));
            }
            if now.bytes > told {
                return Some((Message::Available(now.bytes), (arrived, now.bytes, false)));
            }
            if arrived.changed().await.is_err() {
                return None;
            }
        }
    })
}
