//! `berth.runtime.v1`. Nothing of the rules is here: a message is taken apart, the call is made, the answer is put
//! together.

mod attach;
mod containers;
mod convert;
mod copy;
mod exec;
mod files;
mod logs;
mod networks;
mod sizes;
mod stats;
mod system;
mod volumes;

use std::{pin::Pin, sync::Arc};

use berth_core::{Failure, config::Node};
use berth_proto::berth::runtime::v1::{
    containers_server::ContainersServer, networks_server::NetworksServer, system_server::SystemServer,
    volumes_server::VolumesServer,
};
use futures::Stream;
use tonic::{Status, service::Routes};

use crate::{container::Containers, error::Error};

/// Messages that wait for a slow caller.
const QUEUE: usize = 16;
/// Requests are small; standard input comes in pieces.
const MAX_MESSAGE: usize = 16 << 20;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// All services of this crate.
pub(crate) fn routes(node: &Node, containers: &Arc<Containers>) -> Routes {
    let service = containers::Service(Arc::clone(containers));
    Routes::new(ContainersServer::new(service).max_decoding_message_size(MAX_MESSAGE))
        .add_service(NetworksServer::new(networks::Service(Arc::clone(containers))))
        .add_service(VolumesServer::new(volumes::Service(Arc::clone(containers))))
        .add_service(SystemServer::new(system::Service::new(node, Arc::clone(containers))))
}

fn status(error: impl Into<Error>) -> Status {
    Failure::from(error.into()).into()
}
