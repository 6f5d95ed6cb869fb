//! The services that this one calls: images and their use, snapshots and their mounts.
//!
//! A neighbour that restarts is back in a moment, so what finds nobody is tried again for a few seconds; every call has
//! a deadline, and each can be repeated without harm.

use std::{future::Future, time::Duration};

use berth_core::{Failure, config::Node, connect, connect::Channel};
use berth_proto::{
    berth::{
        image::v1::{
            Auth, CommitProgress, CommitRequest, EventsRequest, GetRequest, Image, ImageEvent, ListRequest,
            PullProgress, PullRequest, ReleaseRequest, SetUsesRequest, Use, images_client::ImagesClient,
        },
        snapshotter::v1::{
            ChangesRequest, ChangesResponse, DiskUsageRequest, ExportRequest, ExportResponse,
            layers_client::LayersClient,
        },
    },
    containerd::{
        services::snapshots::v1::{
            ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, UsageRequest,
            snapshots_client::SnapshotsClient,
        },
        types::Mount,
    },
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    container::lifecycle::commit::MOUNT_POINTS,
    error::{Error, Result},
};

/// A call that is answered from what is there.
const DEADLINE: Duration = Duration::from_secs(20);
/// A neighbour that restarts is back within this time.
const PATIENCE: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// What marks a snapshot as a container's of this service.
const LABEL: &str = "berth.container";

/// Clients of the other services. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Neighbours {
    images: ImagesClient<Channel>,
    image_health: HealthClient<Channel>,
    snapshots: SnapshotsClient<Channel>,
    layers: LayersClient<Channel>,
}

impl Neighbours {
    pub(crate) fn new(node: &Node) -> Self {
        let image = connect::lazy(&node.socket("image"));
        let snapshotter = connect::lazy(&node.socket("snapshotter"));
        Self {
            images: ImagesClient::new(image.clone()).max_decoding_message_size(64 << 20),
            image_health: HealthClient::new(image),
            snapshots: SnapshotsClient::new(snapshotter.clone()).max_decoding_message_size(64 << 20),
            layers: LayersClient::new(snapshotter),
        }
    }

    /// An image, in use by `owner` from now on where one is named.
    pub(crate) async fn image(&self, reference: &str, platform: &str, owner: &str) -> Result<Image> {
        let request = GetRequest { reference: reference.into(), platform: platform.into(), use_by: owner.into() };
        let answer = call("the image service", || {
            let (mut client, request) = (self.images.clone(), request.clone());
            async move { client.get(request).await }
        });
        answer.await?.image.ok_or_else(|| Failure::from(Status::internal("an answer without an image")).into())
    }

    /// Pulls an image. What it takes is the caller's to bound, by dropping the stream.
    pub(crate) async fn pull(
        &self,
        reference: &str,
        platform: &str,
        auth: Option<Auth>,
    ) -> Result<Streaming<PullProgress>> {
        let request = PullRequest { reference: reference.into(), platform: platform.into(), auth };
        call("the image service", || {
            let (mut client, request) = (self.images.clone(), request.clone());
            async move { client.pull(request).await }
        })
        .await
    }

    /// The container's use of its image ends.
    pub(crate) async fn release(&self, owner: &str) -> Result<()> {
        call("the image service", || {
            let (mut client, owner) = (self.images.clone(), owner.to_owned());
            async move { client.release(ReleaseRequest { owner }).await }
        })
        .await
        .map(|_| ())
    }

    /// All uses are these: owner and image id.
    pub(crate) async fn set_uses(&self, uses: Vec<(String, String)>) -> Result<()> {
        let uses: Vec<Use> = uses.into_iter().map(|(owner, image_id)| Use { owner, image_id }).collect();
        call("the image service", || {
            let mut client = self.images.clone();
            let request = SetUsesRequest { owner_prefix: String::new(), uses: uses.clone() };
            async move { client.set_uses(request).await }
        })
        .await
        .map(|_| ())
    }

    /// How many images there are.
    pub(crate) async fn image_count(&self) -> Result<usize> {
        let answer = call("the image service", || {
            let mut client = self.images.clone();
            async move { client.list(ListRequest::default()).await }
        });
        Ok(answer.await?.images.len())
    }

    /// What happens to images from now on, as long as the image service that answers now is there.
    pub(crate) async fn image_events(&self) -> Result<Streaming<ImageEvent>> {
        Ok(self.images.clone().events(EventsRequest {}).await.map_err(Failure::from)?.into_inner())
    }

    /// Answers when the image service that answers now is gone. It waits for one that is not there yet for ever.
    pub(crate) async fn image_service_lives(&self) -> impl Future<Output = ()> + use<> {
        let mut wait = FIRST_WAIT;
        let mut watch = loop {
            match self.image_health.clone().watch(HealthCheckRequest { service: String::new() }).await {
                Ok(answer) => break answer.into_inner(),
                Err(status) => tracing::debug!(%status, "the image service is away"),
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        };
        async move { while let Ok(Some(_)) = watch.message().await {} }
    }

    /// The container's own snapshot on its image's, made if it is not there.
    pub(crate) async fn prepare(&self, id: &str, chain_id: &str) -> Result<Vec<Mount>> {
        let request = PrepareSnapshotRequest {
            key: id.into(),
            parent: chain_id.into(),
            labels: [(LABEL.to_owned(), id.to_owned())].into(),
            ..PrepareSnapshotRequest::default()
        };
        let prepared = call_status("the snapshotter", || {
            let (mut client, request) = (self.snapshots.clone(), request.clone());
            async move { client.prepare(request).await }
        });
        match prepared.await {
            Ok(answer) => Ok(answer.mounts),
            // Made by a call whose answer was lost.
            Err(status) if status.code() == Code::AlreadyExists => self.mounts(id).await,
            Err(status) => Err(Failure::from(status).into()),
        }
    }

    /// How the container's root file system is mounted.
    pub(crate) async fn mounts(&self, id: &str) -> Result<Vec<Mount>> {
        let answer = call("the snapshotter", || {
            let (mut client, key) = (self.snapshots.clone(), id.to_owned());
            async move { client.mounts(MountsRequest { key, ..MountsRequest::default() }).await }
        });
        Ok(answer.await?.mounts)
    }

    /// Takes the container's snapshot away; one that is not there is no error.
    pub(crate) async fn remove_snapshot(&self, id: &str) -> Result<()> {
        let removed = call_status("the snapshotter", || {
            let (mut client, key) = (self.snapshots.clone(), id.to_owned());
            async move { client.remove(RemoveSnapshotRequest { key, ..RemoveSnapshotRequest::default() }).await }
        });
        match removed.await {
            Ok(()) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(Failure::from(status).into()),
        }
    }

    /// Bytes of what the container has written or changed; 0 where it is gone by now.
    pub(crate) async fn snapshot_size(&self, id: &str) -> Result<u64> {
        let used = call_status("the snapshotter", || {
            let (mut client, key) = (self.snapshots.clone(), id.to_owned());
            async move { client.usage(UsageRequest { key, ..UsageRequest::default() }).await }
        });
        match used.await {
            Ok(answer) => Ok(u64::try_from(answer.size).unwrap_or(0)),
            Err(status) if status.code() == Code::NotFound => Ok(0),
            Err(status) => Err(Failure::from(status).into()),
        }
    }

    /// An image of what a container has written. What it takes is the caller's to bound, by dropping the stream.
    pub(crate) async fn commit(&self, request: CommitRequest) -> Result<Streaming<CommitProgress>> {
        call("the image service", || {
            let (mut client, request) = (self.images.clone(), request.clone());
            async move { client.commit(request).await }
        })
        .await
    }

    /// What a container has added, changed and deleted.
    pub(crate) async fn changes(&self, id: &str) -> Result<Streaming<ChangesResponse>> {
        let leave_out = MOUNT_POINTS.map(str::to_owned).to_vec();
        call("the snapshotter", || {
            let (mut client, leave_out) = (self.layers.clone(), leave_out.clone());
            let request = ChangesRequest { key: id.into(), leave_out };
            async move { client.changes(request).await }
        })
        .await
    }

    /// All files of a container as a tar. What it takes is the caller's to bound, by dropping the stream.
    pub(crate) async fn export(&self, id: &str) -> Result<Streaming<ExportResponse>> {
        call("the snapshotter", || {
            let (mut client, key) = (self.layers.clone(), id.to_owned());
            async move { client.export(ExportRequest { key }).await }
        })
        .await
    }

    /// Keys of all snapshots that were made for containers of this service.
    pub(crate) async fn container_snapshots(&self) -> Result<Vec<String>> {
        let mut stream = call("the snapshotter", || {
            let mut client = self.snapshots.clone();
            async move { client.list(ListSnapshotsRequest::default()).await }
        })
        .await?;
        let mut keys = Vec::new();
        while let Some(batch) = within("the snapshotter", stream.message()).await.map_err(Failure::from)? {
            let ours = batch.info.into_iter().filter(|info| info.labels.get(LABEL) == Some(&info.name));
            keys.extend(ours.map(|info| info.name));
        }
        Ok(keys)
    }

    /// Name of the storage driver.
    pub(crate) async fn storage_driver(&self) -> Result<String> {
        let answer = call("the snapshotter", || {
            let mut client = self.layers.clone();
            async move { client.usage(DiskUsageRequest {}).await }
        });
        Ok(answer.await?.driver)
    }
}

async fn within<T>(who: &'static str, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match timeout(DEADLINE, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(format!("{who} did not answer within {} s", DEADLINE.as_secs()))),
    }
}

async fn call<T, F>(who: &'static str, ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    call_status(who, ask).await.map_err(|status| Failure::from(status).into())
}

/// Asks again, for a while, where nobody is there.
async fn call_status<T, F>(who: &'static str, mut ask: impl FnMut() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let until = Instant::now() + PATIENCE;
    let mut wait = FIRST_WAIT;
    loop {
        match within(who, ask()).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) if is_away(&status) && Instant::now() < until => sleep(wait).await,
            Err(status) if is_away(&status) => {
                return Err(Status::unavailable(format!("{who} is away: {}", status.message())));
            }
            Err(status) => return Err(status),
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Nobody is behind the socket, or whoever was died over the call.
fn is_away(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Cancelled | Code::Internal => std::error::Error::source(status).is_some(),
        _ => false,
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Failure::from(status).into()
    }
}
