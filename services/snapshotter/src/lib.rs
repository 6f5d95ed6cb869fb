//! The snapshotter: layers laid down once by diff ID, and snapshots stacked on them.
//!
//! A *directory* (a number) holds files: either a layer's or what a container writes. A *snapshot* is a name, a parent and
//! a directory. What a record names is on disk before the record is; a directory without a record is garbage.

mod directory;
mod driver;
mod error;
mod filter;
mod grpc;
mod layer;
mod record;
mod settings;
mod snapshotter;
mod store;
mod trash;

use std::sync::Arc;

use berth_core::{config::Node, serve};
use berth_proto::{
    berth::snapshotter::v1::layers_server::LayersServer,
    containerd::services::snapshots::v1::snapshots_server::SnapshotsServer,
};
use tonic::service::Routes;

pub use error::Error;
use settings::Settings;
use snapshotter::Snapshotter;

/// The service's name in the configuration and on the command line.
pub const NAME: &str = "snapshotter";

/// Runs the service until the process ends.
///
/// # Errors
/// It cannot start: its directory, its store or its socket cannot be used.
pub async fn run(node: Node) -> Result<(), Error> {
    let settings: Settings = node.section(NAME)?;
    let root = node.root_of(NAME);
    let snapshotter = tokio::task::spawn_blocking(move || Snapshotter::open(&root, &settings))
        .await
        .map_err(|_| Error::Panicked { what: "opening the store" })??;
    let snapshotter = Arc::new(snapshotter);
    let socket = serve::bind(&node, &node.socket(NAME))?;
    let routes = Routes::new(SnapshotsServer::new(grpc::Snapshots::new(Arc::clone(&snapshotter))))
        .add_service(LayersServer::new(grpc::Layers::new(snapshotter)));
    serve::notify_ready();
    Ok(socket.serve(routes).await?)
}
