//! `Networks`.

use std::sync::Arc;

use berth_core::Failure;
use berth_proto::berth::runtime::v1::{
    ConnectNetworkRequest, ConnectNetworkResponse, CreateNetworkRequest, CreateNetworkResponse,
    DisconnectNetworkRequest, DisconnectNetworkResponse, InspectNetworkRequest, InspectNetworkResponse,
    ListNetworksRequest, ListNetworksResponse, PruneNetworksRequest, PruneNetworksResponse, RemoveNetworkRequest,
    RemoveNetworkResponse, networks_server,
};
use tonic::{Request, Response, Status};

use super::status;
use crate::{container::Containers, network::Error};

pub(crate) struct Service(pub(super) Arc<Containers>);

fn of(error: Error) -> Status {
    Failure::from(error).into()
}

#[tonic::async_trait]
impl networks_server::Networks for Service {
    async fn list(&self, request: Request<ListNetworksRequest>) -> Result<Response<ListNetworksResponse>, Status> {
        let networks = self.0.networks.list(&request.into_inner().filters).map_err(of)?;
        Ok(Response::new(ListNetworksResponse { networks }))
    }

    async fn inspect(
        &self,
        request: Request<InspectNetworkRequest>,
    ) -> Result<Response<InspectNetworkResponse>, Status> {
        let network = self.0.networks.inspect(&request.into_inner().network).map_err(of)?;
        Ok(Response::new(InspectNetworkResponse { network: Some(network) }))
    }

    async fn create(&self, request: Request<CreateNetworkRequest>) -> Result<Response<CreateNetworkResponse>, Status> {
        let id = self.0.create_network(request.into_inner()).await.map_err(status)?;
        Ok(Response::new(CreateNetworkResponse { id }))
    }

    async fn remove(&self, request: Request<RemoveNetworkRequest>) -> Result<Response<RemoveNetworkResponse>, Status> {
        self.0.remove_network(request.into_inner().network).await.map_err(status)?;
        Ok(Response::new(RemoveNetworkResponse {}))
    }

    async fn connect_container(
        &self,
        request: Request<ConnectNetworkRequest>,
    ) -> Result<Response<ConnectNetworkResponse>, Status> {
        let ConnectNetworkRequest { container, attachment } = request.into_inner();
        let container = self.0.find(&container).map_err(status)?;
        self.0.connect(&container, attachment.unwrap_or_default()).await.map_err(status)?;
        Ok(Response::new(ConnectNetworkResponse {}))
    }

    async fn disconnect_container(
        &self,
        request: Request<DisconnectNetworkRequest>,
    ) -> Result<Response<DisconnectNetworkResponse>, Status> {
        let DisconnectNetworkRequest { container, network } = request.into_inner();
        let container = self.0.find(&container).map_err(status)?;
        self.0.disconnect(&container, network).await.map_err(status)?;
        Ok(Response::new(DisconnectNetworkResponse {}))
    }

    async fn prune(&self, request: Request<PruneNetworksRequest>) -> Result<Response<PruneNetworksResponse>, Status> {
        let networks = self.0.prune_networks(&request.into_inner().filters).await.map_err(status)?;
        Ok(Response::new(PruneNetworksResponse { networks }))
    }
}
