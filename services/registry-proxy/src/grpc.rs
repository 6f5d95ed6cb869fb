//! `berth.registry.v1`.

use std::sync::Arc;

use berth_proto::berth::registry::v1::{StatusRequest, StatusResponse, Upstream, registry_server};
use tonic::{Request, Response, Status};

use crate::mirror::Mirror;

pub(crate) struct Service {
    mirror: Arc<Mirror>,
    address: String,
}

impl Service {
    pub(crate) fn new(mirror: Arc<Mirror>, address: String) -> Self {
        Self { mirror, address }
    }
}

#[tonic::async_trait]
impl registry_server::Registry for Service {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let (blobs, bytes) = self.mirror.store.totals();
        let upstreams = self.mirror.upstreams().map(|upstream| {
            let counts = upstream.counts();
            Upstream {
                name: upstream.name().into(),
                url: upstream.base().into(),
                hits: counts.hits.get(),
                misses: counts.misses.get(),
                bytes_from_upstream: counts.bytes_in.get(),
                bytes_to_clients: counts.bytes_out.get(),
                last_error: upstream.last_error(),
                stale: counts.stale.get(),
                requests: counts.requests.get(),
            }
        });
        Ok(Response::new(StatusResponse {
            address: self.address.clone(),
            upstreams: upstreams.collect(),
            blobs,
            bytes,
        }))
    }
}
