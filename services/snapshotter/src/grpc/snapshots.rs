//! `containerd.services.snapshots.v1`

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use berth_proto::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info, Kind as WireKind, ListSnapshotsRequest, ListSnapshotsResponse,
    MountsRequest, MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse, RemoveSnapshotRequest,
    StatSnapshotRequest, StatSnapshotResponse, UpdateSnapshotRequest, UpdateSnapshotResponse, UsageRequest,
    UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse, snapshots_server,
};
use futures::{Stream, stream};
use prost_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{blocking, status};
use crate::{
    error::Error,
    filter::Filter,
    record::{Kind, Snapshot, Time},
    snapshotter::Snapshotter,
};

/// Snapshots in one message of a list; keeps each well below gRPC's 4 MiB.
const BATCH: usize = 500;

pub(crate) struct Snapshots(Arc<Snapshotter>);

impl Snapshots {
    pub(crate) fn new(snapshotter: Arc<Snapshotter>) -> Self {
        Self(snapshotter)
    }
}

#[tonic::async_trait]
impl snapshots_server::Snapshots for Snapshots {
    type ListStream = Pin<Box<dyn Stream<Item = Result<ListSnapshotsResponse, Status>> + Send>>;

    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Result<Response<PrepareSnapshotResponse>, Status> {
        let PrepareSnapshotRequest { key, parent, labels, .. } = request.into_inner();
        let labels = labels.into_iter().collect();
        let mounts = blocking(&self.0, move |s| s.prepare(Kind::Active, &key, &parent, labels)).await?;
        Ok(Response::new(PrepareSnapshotResponse { mounts }))
    }

    async fn view(&self, request: Request<ViewSnapshotRequest>) -> Result<Response<ViewSnapshotResponse>, Status> {
        let ViewSnapshotRequest { key, parent, labels, .. } = request.into_inner();
        let labels = labels.into_iter().collect();
        let mounts = blocking(&self.0, move |s| s.prepare(Kind::View, &key, &parent, labels)).await?;
        Ok(Response::new(ViewSnapshotResponse { mounts }))
    }

    async fn mounts(&self, request: Request<MountsRequest>) -> Result<Response<MountsResponse>, Status> {
        let mounts = self.0.mounts(&request.into_inner().key).map_err(status)?;
        Ok(Response::new(MountsResponse { mounts }))
    }

    async fn commit(&self, request: Request<CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        let CommitSnapshotRequest { name, key, labels, parent, .. } = request.into_inner();
        let labels = labels.into_iter().collect();
        blocking(&self.0, move |s| s.commit(&name, &key, &parent, &labels)).await.map(Response::new)
    }

    async fn remove(&self, request: Request<RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        let key = request.into_inner().key;
        blocking(&self.0, move |s| s.remove(&key)).await.map(Response::new)
    }

    async fn stat(&self, request: Request<StatSnapshotRequest>) -> Result<Response<StatSnapshotResponse>, Status> {
        let key = request.into_inner().key;
        let snapshot = self.0.stat(&key).map_err(status)?;
        Ok(Response::new(StatSnapshotResponse { info: Some(info(key, snapshot)) }))
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateSnapshotResponse>, Status> {
        let UpdateSnapshotRequest { info: given, update_mask, .. } = request.into_inner();
        let given = given.ok_or_else(|| status(Error::Request("update without info")))?;
        let labels: BTreeMap<_, _> = given.labels.into_iter().collect();
        let paths = update_mask.map(|mask| mask.paths).unwrap_or_default();
        let name = given.name.clone();
        let snapshot = blocking(&self.0, move |s| s.update(&given.name, &labels, &paths)).await?;
        Ok(Response::new(UpdateSnapshotResponse { info: Some(info(name, snapshot)) }))
    }

    async fn list(&self, request: Request<ListSnapshotsRequest>) -> Result<Response<Self::ListStream>, Status> {
        let filters = request.into_inner().filters;
        let filters: Vec<_> = filters.iter().map(|f| Filter::parse(f)).collect::<Result<_, _>>().map_err(status)?;
        let all: Vec<Info> = self.0.list(&filters).into_iter().map(|(name, snapshot)| info(name, snapshot)).collect();
        let batches: Vec<_> =
            all.chunks(BATCH).map(|batch| Ok(ListSnapshotsResponse { info: batch.to_vec() })).collect();
        Ok(Response::new(Box::pin(stream::iter(batches))))
    }

    async fn usage(&self, request: Request<UsageRequest>) -> Result<Response<UsageResponse>, Status> {
        let key = request.into_inner().key;
        let usage = blocking(&self.0, move |s| s.usage(&key)).await?;
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Ok(Response::new(UsageResponse { size: signed(usage.bytes), inodes: signed(usage.inodes) }))
    }

    async fn cleanup(&self, _: Request<CleanupRequest>) -> Result<Response<()>, Status> {
        // Garbage is on its way out as soon as it is one; who calls wants to know when it is gone.
        self.0.cleaned().await;
        Ok(Response::new(()))
    }
}

fn info(name: String, snapshot: Snapshot) -> Info {
    let kind = match snapshot.kind {
        Kind::View => WireKind::View,
        Kind::Active => WireKind::Active,
        Kind::Committed => WireKind::Committed,
    };
    Info {
        name,
        parent: snapshot.parent.unwrap_or_default(),
        kind: kind.into(),
        created_at: Some(timestamp(snapshot.created)),
        updated_at: Some(timestamp(snapshot.updated)),
        labels: snapshot.labels.into_iter().collect(),
    }
}

fn timestamp(Time(nanoseconds): Time) -> Timestamp {
    Timestamp { seconds: (nanoseconds / 1_000_000_000) as i64, nanos: (nanoseconds % 1_000_000_000) as i32 }
}
