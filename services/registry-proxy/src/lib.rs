//! The registry-proxy: a pull-through mirror of the configured registries.
//!
//! A client reads a blob from the file it is being downloaded into, at its own offset, so that a first pull is as fast as
//! the upstream and costs it one request however many clients ask. What must always hold: below `blobs/` lies only what
//! has the digest of its name, synced; what is still arriving lies below `ingest/`, and a client that reads it gets the
//! last byte only when the digest was right. What is here is served whether or not the upstream answers.

mod error;
mod fill;
mod flights;
mod grpc;
mod http;
mod manifests;
mod mirror;
mod negative;
mod passed;
mod refusal;
mod settings;
mod store;
mod upstream;

use std::sync::Arc;

use berth_core::{config::Node, serve};
use berth_proto::berth::registry::v1::registry_server::RegistryServer;
use tonic::service::Routes;

pub use error::Error;
use mirror::Mirror;
use settings::Settings;

/// The service's name in the configuration and on the command line.
pub const NAME: &str = "registry-proxy";

/// Runs the service until the process ends. Upstreams may be away: what is here is served.
///
/// # Errors
/// It cannot start: its configuration, directory, socket or address cannot be used. Or a listener broke.
pub async fn run(node: Node) -> Result<(), Error> {
    // Another part of the process may have chosen one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings: Settings = node.section(NAME)?;
    settings.check()?;
    let root = node.root_of(NAME);
    let max_size = settings.max_size;
    // The socket first: who holds it is alone with the directory.
    let socket = serve::bind(&node, &node.socket(NAME))?;
    let store = tokio::task::spawn_blocking(move || store::Store::open(&root, max_size))
        .await
        .map_err(|_| Error::Panicked { what: "opening the store" })??;
    let mirror = Arc::new(Mirror::new(store, &settings)?);
    let listener = match settings.listen.as_str() {
        "" => None,
        address => Some(http::bind(address).await?),
    };
    let address = match &listener {
        None => String::new(),
        Some(listener) => listener
            .local_addr()
            .map_err(|source| Error::Listen { address: settings.listen.clone(), source })?
            .to_string(),
    };
    let routes = Routes::new(RegistryServer::new(grpc::Service::new(mirror.clone(), address.clone())));
    if address.is_empty() {
        tracing::info!("no address is configured: nothing is mirrored");
    } else {
        tracing::info!(%address, "mirroring");
    }
    serve::notify_ready();
    match listener {
        None => Ok(socket.serve(routes).await?),
        Some(listener) => tokio::select! {
            served = socket.serve(routes) => Ok(served?),
            never = http::serve(listener, mirror) => match never {},
        },
    }
}
