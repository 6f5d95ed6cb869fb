//! The image service: named, verified, complete images.
//!
//! An image is a record that names a manifest, a configuration and layers by their digests. Everything that a record names
//! is on disk, synced and verified before the record is. What arrives is kept in `ingest/` under its digest, so a pull
//! that was cut off goes on where it was.

mod archive;
mod error;
mod events;
mod filter;
mod grpc;
mod held;
mod history;
mod images;
mod leftovers;
mod making;
mod manifest;
mod prune;
mod pull;
mod push;
mod registry;
mod remote;
mod removal;
mod save;
mod settings;
mod snapshots;
mod store;
mod usage;
mod uses;

use std::sync::Arc;

use berth_core::{config::Node, connect, serve};
use berth_proto::berth::image::v1::images_server::ImagesServer;
use tonic::service::Routes;

pub use error::Error;
use images::Images;
use settings::Settings;

/// The service's name in the configuration and on the command line.
pub const NAME: &str = "image";

/// Runs the service until the process ends. The snapshotter may be away; what needs it says so.
///
/// # Errors
/// It cannot start: its directory, its store or its socket cannot be used.
pub async fn run(node: Node) -> Result<(), Error> {
    // Another part of the process may have chosen one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings: Settings = node.section(NAME)?;
    let root = node.root_of(NAME);
    let snapshotter = snapshots::Snapshots::new(connect::lazy(&node.socket("snapshotter")));
    let store = tokio::task::spawn_blocking(move || store::Store::open(&root))
        .await
        .map_err(|_| Error::Panicked { what: "opening the store" })??;
    let images = Arc::new(Images::new(store, snapshotter, registry::Registries::new(&settings)?, settings));
    let socket = serve::bind(&node, &node.socket(NAME))?;
    let routes = Routes::new(
        ImagesServer::new(grpc::Service::new(Arc::clone(&images))).max_decoding_message_size(grpc::MAX_MESSAGE),
    );
    tokio::spawn(leftovers::look_after(Arc::downgrade(&images)));
    serve::notify_ready();
    Ok(socket.serve(routes).await?)
}
