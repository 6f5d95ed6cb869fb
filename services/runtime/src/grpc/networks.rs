//! `Networks`.

use std::sync::Arc;

use berth_proto::berth::runtime::v1::{ListNetworksRequest, ListNetworksResponse, networks_server};
use tonic::{Request, Response, Status};

use crate::container::Containers;

pub(crate) struct Service(pub(super) Arc<Containers>);

#[tonic::async_trait]
impl networks_server::Networks for Service {
    async fn list(&self, _: Request<ListNetworksRequest>) -> Result<Response<ListNetworksResponse>, Status> {
        Ok(Response::new(ListNetworksResponse { networks: self.0.networks.list() }))
    }
}
