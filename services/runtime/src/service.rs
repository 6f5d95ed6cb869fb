//! The service from its start: opened, recovered, and only then answering.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc};

use berth_core::{Failure, config::Node, serve};
use tokio::sync::{OnceCell, watch};

use crate::{
    NAME,
    container::{Containers, Contents, Directories, Gone, Index, Store, Told, blocking},
    error::{Error, Result},
    events::Events,
    faces, grpc, init,
    neighbours::Neighbours,
    network::Networks,
    settings::Settings,
    shims::{Binary, Exporter},
    volumes::Volumes,
};

/// Runs the service until the process ends. The neighbours may be away; what needs one says so.
///
/// # Errors
/// It cannot start: its directories, its store, its network or its sockets cannot be used.
pub async fn run(node: Node) -> Result<(), Error> {
    let settings: Settings = node.section(NAME)?;
    settings.check()?;
    // Bound before anything is touched, so that neither a second service nor a stranger's directory gets that far. Who
    // connects now is answered when the truth is known.
    let socket = serve::bind(&node, &node.socket(NAME))?;
    let faces = faces::bind(&node)?;
    let (containers, contents) = open(&node, settings).await?;
    let known = containers.recover(contents.records).await?;
    let jobs = containers.drop_finished_jobs(contents.jobs.into_iter().collect()).await?;
    tokio::spawn(Arc::clone(&containers).settle(known, jobs));
    let routes = grpc::routes(&node, &containers);
    serve::notify_ready();
    tokio::try_join!(socket.serve(routes.clone()), faces.serve(routes))?;
    Ok(())
}

async fn open(node: &Node, settings: Settings) -> Result<(Arc<Containers>, Contents)> {
    let (root, state) = (node.root_of(NAME), node.state_of(NAME));
    let directories = Directories {
        containers: root.join("containers"),
        bundles: state.join("bundles"),
        networks: root.join("networks"),
        seccomp: state.join("seccomp"),
        init: root.join("init"),
        root,
    };
    let zones = state.join("zones");
    let events = Events::default();
    let told = events.clone();
    let (places, chosen) = (directories.clone(), settings.clone());
    let opened = blocking("opening the store", move || {
        for directory in [&places.root, &places.containers, &places.networks, &places.bundles, &places.seccomp] {
            fs::create_dir_all(directory).map_err(Error::io("cannot make", directory))?;
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
                .map_err(Error::io("cannot protect", directory))?;
        }
        init::place(&places.init).map_err(Error::io("cannot write", &places.init))?;
        let (store, mut contents) = Store::open(&places.root.join("meta.redb"), &places.containers, &places.networks)?;
        let volumes = Volumes::open(&places.root.join("volumes"), told).map_err(Failure::from)?;
        let networks =
            Networks::open(&chosen.network, std::mem::take(&mut contents.networks), &zones).map_err(Failure::from)?;
        let shim = Binary::load(chosen.shim.as_deref())?;
        Ok((store, contents, volumes, networks, shim))
    });
    let (store, contents, volumes, networks, shim) = opened.await?;
    let containers = Containers {
        settings,
        directories,
        store,
        index: Arc::new(Index::default()),
        gone: Gone::default(),
        neighbours: Neighbours::new(node),
        networks,
        volumes,
        shim,
        spans: Exporter::new(node.telemetry.otlp_endpoint.as_deref()),
        events,
        driver: OnceCell::new(),
        uses_told: watch::Sender::new(Told::default()),
    };
    Ok((Arc::new(containers), contents))
}
