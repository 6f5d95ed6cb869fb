//! The neighbour that lays layers down.

use std::{collections::HashMap, path::Path, pin::pin, time::Duration};

use berth_core::{Digest, Failure, connect::Channel};
use berth_proto::{
    berth::snapshotter::v1::{
        ApplyFinish, ApplyRequest, ApplyStart, ComposeRequest, DiskUsageRequest, ForgetRequest, PackRequest,
        PackResponse, StatRequest, TakeDone, TakeRequest, TakeResponse, apply_request::Message, apply_response,
        layers_client::LayersClient, take_response,
    },
    containerd::services::snapshots::v1::{
        ListSnapshotsRequest, RemoveSnapshotRequest, snapshots_client::SnapshotsClient,
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::watch;
use tonic::{Code, Request, Status, Streaming};

use crate::error::Error;

/// For what is looked up.
const SHORT: Duration = Duration::from_secs(30);
/// For what writes to the disk or waits for it: one sync of everything that was unpacked.
const LONG: Duration = Duration::from_secs(600);
/// For what is left of a layer's unpacking when all of it has arrived.
const UNPACKING: Duration = Duration::from_secs(3600);
/// On the snapshots that are made here, so that those of others are left alone.
const LABEL: (&str, &str) = ("berth.io/made-by", "image");

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
    /// Counts how often everything that had arrived turned out to be wrong and came anew.
    pub(crate) generation: u64,
}

fn within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
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
        let answer = self.layers.clone().stat(within(SHORT, StatRequest { diff_ids })).await.map_err(failed)?;
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
            .chain(arrivals(arrived.clone()))
            .map(|message| ApplyRequest { message: Some(message) });
        let applying = async {
            let mut answers = self.layers.clone().apply(messages).await.map_err(failed)?.into_inner();
            while let Some(answer) = answers.message().await.map_err(failed)? {
                if let Some(apply_response::Message::Done(done)) = answer.message {
                    return Ok(done.size);
                }
            }
            Err(failed(Status::unavailable("it ended while a layer was laid down; pull again")))
        };
        // While the blob arrives its own download has the deadline.
        let late = async {
            let mut arrived = arrived;
            // It goes away without that where the blob will never be whole; then there is only a little left to do.
            let left = if arrived.wait_for(|state| state.whole).await.is_ok() { UNPACKING } else { LONG };
            tokio::time::sleep(left).await;
            left
        };
        let (mut applying, mut late) = (pin!(applying), pin!(late));
        tokio::select! {
            result = &mut applying => result,
            left = &mut late => {
                let minutes = left.as_secs() / 60;
                Err(failed(Status::deadline_exceeded(format!("layer {diff_id} is not unpacked after {minutes} minutes"))))
            }
        }
    }

    /// What a container has written becomes a layer. `leave_out` are paths where something is mounted.
    pub(crate) async fn take(&self, key: &str, leave_out: Vec<String>) -> Result<Taking, Error> {
        let request = TakeRequest { key: key.into(), leave_out };
        self.layers.clone().take(request).await.map(|answers| Taking(answers.into_inner())).map_err(failed)
    }

    /// The tar of a layer that was taken.
    pub(crate) async fn pack(&self, layer: &Digest) -> Result<Packing, Error> {
        let request = PackRequest { diff_id: layer.to_string() };
        self.layers.clone().pack(request).await.map(|answers| Packing(answers.into_inner())).map_err(failed)
    }

    /// Bytes of the files of each layer.
    pub(crate) async fn sizes(&self) -> Result<HashMap<String, u64>, Error> {
        let answer = self.layers.clone().usage(within(SHORT, DiskUsageRequest {})).await.map_err(failed)?;
        Ok(answer.into_inner().layers.into_iter().map(|layer| (layer.diff_id, layer.bytes)).collect())
    }

    /// Makes the snapshots of a stack; durable when this answers.
    pub(crate) async fn compose(&self, diff_ids: &[Digest]) -> Result<(), Error> {
        let diff_ids = diff_ids.iter().map(Digest::to_string).collect();
        let labels = [(LABEL.0.to_owned(), LABEL.1.to_owned())].into();
        let request = within(LONG, ComposeRequest { diff_ids, labels });
        self.layers.clone().compose(request).await.map_err(failed).map(|_| ())
    }

    /// Takes a committed snapshot away; false where it stays because something is stacked on it.
    pub(crate) async fn remove(&self, chain_id: &Digest) -> Result<bool, Error> {
        let request = RemoveSnapshotRequest { snapshotter: String::new(), key: chain_id.to_string() };
        match self.snapshots.clone().remove(within(LONG, request)).await {
            Ok(_) => Ok(true),
            Err(status) if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) => Ok(false),
            Err(status) => Err(failed(status)),
        }
    }

    /// The committed snapshots that were made for images, those that nothing is stacked on before what they are stacked
    /// on.
    pub(crate) async fn made_for_images(&self) -> Result<Vec<Digest>, Error> {
        let filters = vec![format!("kind==committed,labels.\"{}\"=={}", LABEL.0, LABEL.1)];
        let request = within(SHORT, ListSnapshotsRequest { snapshotter: String::new(), filters });
        let mut answers = self.snapshots.clone().list(request).await.map_err(failed)?.into_inner();
        let mut parents: HashMap<String, String> = HashMap::new();
        while let Some(answer) = answers.message().await.map_err(failed)? {
            parents.extend(answer.info.into_iter().map(|info| (info.name, info.parent)));
        }
        let depth = |name: &String| std::iter::successors(Some(name), |name| parents.get(*name)).take(1000).count();
        let mut names: Vec<&String> = parents.keys().collect();
        names.sort_by_key(|name| std::cmp::Reverse(depth(name)));
        Ok(names.into_iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Bytes on disk of all layers that are there.
    pub(crate) async fn layer_bytes(&self) -> Result<u64, Error> {
        let answer = self.layers.clone().usage(within(SHORT, DiskUsageRequest {})).await.map_err(failed)?;
        Ok(answer.into_inner().layers.iter().map(|layer| layer.bytes).sum())
    }

    /// Layers that were laid down and belong to no snapshot need not stay.
    pub(crate) async fn forget(&self) {
        if let Err(error) = self.layers.clone().forget(within(LONG, ForgetRequest {})).await {
            tracing::warn!(%error, "the snapshotter could not throw layers away now; it does when it starts");
        }
    }
}

/// A layer that is being made of what a container has written.
pub(crate) struct Taking(Streaming<TakeResponse>);

impl Taking {
    /// Waits until the container may go on.
    pub(crate) async fn read(&mut self) -> Result<(), Error> {
        match self.next().await? {
            take_response::Message::Read(_) => Ok(()),
            take_response::Message::Done(_) => Err(failed(Status::internal("a layer was made before it was read"))),
        }
    }

    /// Waits until the layer is there.
    pub(crate) async fn done(mut self) -> Result<TakeDone, Error> {
        loop {
            if let take_response::Message::Done(done) = self.next().await? {
                return Ok(done);
            }
        }
    }

    async fn next(&mut self) -> Result<take_response::Message, Error> {
        let message = in_time(UNPACKING, self.0.message()).await?.and_then(|answer| answer.message);
        message.ok_or_else(|| failed(Status::unavailable("it ended while a layer was read; try again")))
    }
}

/// A tar that is being read.
pub(crate) struct Packing(Streaming<PackResponse>);

impl Packing {
    /// More of it; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(in_time(LONG, self.0.message()).await?.map(|answer| answer.data))
    }
}

async fn in_time<T>(longest: Duration, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Error> {
    let late = |_| {
        let minutes = longest.as_secs() / 60;
        Status::deadline_exceeded(format!("nothing more of a layer was read for {minutes} minutes"))
    };
    tokio::time::timeout(longest, answer).await.map_err(late).flatten().map_err(failed)
}

/// What is said about a blob's arrival: only the newest state, however often it changed meanwhile. It ends unfinished where
/// what has arrived counts no more.
fn arrivals(arrived: watch::Receiver<Arrived>) -> impl Stream<Item = Message> {
    let generation = arrived.borrow().generation;
    stream::unfold((arrived, 0, false), move |(mut arrived, told, ended)| async move {
        if ended {
            return None;
        }
        loop {
            let now = *arrived.borrow_and_update();
            if now.generation != generation {
                return None;
            }
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
