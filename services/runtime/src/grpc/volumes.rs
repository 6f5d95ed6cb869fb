//! `Volumes`.

use std::sync::Arc;

use berth_core::Failure;
use berth_proto::berth::runtime::v1::{
    CreateVolumeRequest, CreateVolumeResponse, InspectVolumeRequest, InspectVolumeResponse, ListVolumesRequest,
    ListVolumesResponse, PruneVolumesRequest, PruneVolumesResponse, RemoveVolumeRequest, RemoveVolumeResponse, Volume,
    volumes_server,
};
use tonic::{Request, Response, Status};

use crate::{
    container::Containers,
    volumes::{Error, Told},
};

pub(crate) struct Service(pub(super) Arc<Containers>);

fn status(error: Error) -> Status {
    Failure::from(error).into()
}

#[tonic::async_trait]
impl volumes_server::Volumes for Service {
    async fn create(&self, request: Request<CreateVolumeRequest>) -> Result<Response<CreateVolumeResponse>, Status> {
        let CreateVolumeRequest { name, driver, labels, options } = request.into_inner();
        let (labels, options) = (labels.into_iter().collect(), options.into_iter().collect());
        let told = self.0.volumes.create(name, &driver, labels, &options).await.map_err(status)?;
        Ok(Response::new(CreateVolumeResponse { volume: Some(volume(told)) }))
    }

    async fn list(&self, request: Request<ListVolumesRequest>) -> Result<Response<ListVolumesResponse>, Status> {
        let ListVolumesRequest { filters, size } = request.into_inner();
        let told = self.0.volumes.wanted(&filters, size).await.map_err(status)?;
        Ok(Response::new(ListVolumesResponse { volumes: told.into_iter().map(volume).collect() }))
    }

    async fn inspect(&self, request: Request<InspectVolumeRequest>) -> Result<Response<InspectVolumeResponse>, Status> {
        let InspectVolumeRequest { name, size } = request.into_inner();
        let told = self.0.volumes.inspect(name, size).await.map_err(status)?;
        Ok(Response::new(InspectVolumeResponse { volume: Some(volume(told)) }))
    }

    async fn remove(&self, request: Request<RemoveVolumeRequest>) -> Result<Response<RemoveVolumeResponse>, Status> {
        let RemoveVolumeRequest { name, force } = request.into_inner();
        self.0.volumes.remove(&name, force).await.map_err(status)?;
        Ok(Response::new(RemoveVolumeResponse {}))
    }

    async fn prune(&self, request: Request<PruneVolumesRequest>) -> Result<Response<PruneVolumesResponse>, Status> {
        let PruneVolumesRequest { all, filters } = request.into_inner();
        let (volumes, reclaimed) = self.0.volumes.prune(all, &filters).await.map_err(status)?;
        self.0.events.say("volume", "prune", "", &[("reclaimed", reclaimed.to_string())]);
        Ok(Response::new(PruneVolumesResponse { volumes, reclaimed }))
    }
}

fn volume(told: Told) -> Volume {
    let Told { volume, users, size } = told;
    Volume {
        name: volume.name,
        driver: "local".into(),
        mountpoint: volume.mountpoint.display().to_string(),
        created: volume.details.created,
        labels: volume.details.labels.into_iter().collect(),
        anonymous: volume.details.anonymous,
        containers: users,
        size,
    }
}
