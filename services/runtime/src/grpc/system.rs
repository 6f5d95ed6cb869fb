//! `System`: what this node is, and what happens on it.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use berth_core::config::Node;
use berth_proto::berth::runtime::v1::{
    Event, EventsRequest, InfoRequest, InfoResponse, VersionRequest, VersionResponse, system_server,
};
use tonic::{Request, Response, Status};

use super::{Answers, convert, status};
use crate::{
    container::{Containers, Status as ContainerStatus},
    events::Filter,
    host::Host,
    instant,
};

/// Version of the API in `proto/`.
const API: &str = "1";

pub(crate) struct Service {
    root: PathBuf,
    state: PathBuf,
    containers: Arc<Containers>,
}

impl Service {
    pub(super) fn new(node: &Node, containers: Arc<Containers>) -> Self {
        Self { root: node.root.clone(), state: node.state.clone(), containers }
    }
}

#[tonic::async_trait]
impl system_server::System for Service {
    type EventsStream = Answers<Event>;

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let containers = &self.containers;
        let (images, driver) = tokio::join!(containers.neighbours.image_count(), containers.storage_driver());
        let mut warnings = Vec::new();
        let mut or_warn = |what: &str, error: Option<String>| {
            warnings.extend(error.map(|error| format!("{what}: {error}")));
        };
        or_warn("images", images.as_ref().err().map(ToString::to_string));
        or_warn("storage driver", driver.as_ref().err().map(ToString::to_string));
        let all = containers.index.all();
        let statuses: Vec<_> = all.iter().map(|container| container.record().state.status).collect();
        let count =
            |wanted: fn(ContainerStatus) -> bool| statuses.iter().filter(|status| wanted(**status)).count() as u32;
        let mut runtimes: BTreeSet<String> = containers.settings.handler.keys().cloned().collect();
        runtimes.insert("berth".into());
        let default = &containers.settings.default_handler;
        let host = Host::look();
        warnings.extend(host.warnings.clone());
        Ok(Response::new(InfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            containers_running: count(|status| status == ContainerStatus::Running),
            containers_paused: count(|status| status == ContainerStatus::Paused),
            containers_stopped: count(|status| !status.is_live()),
            images: images.unwrap_or_default() as u32,
            storage_driver: driver.unwrap_or_default(),
            root: self.root.display().to_string(),
            state: self.state.display().to_string(),
            cgroup_version: host.cgroup_version.into(),
            kernel: host.kernel,
            operating_system: host.operating_system,
            architecture: std::env::consts::ARCH.into(),
            cpus: host.cpus,
            memory: host.memory,
            hostname: host.hostname,
            runtimes: runtimes.into_iter().collect(),
            default_runtime: if default.is_empty() { "berth".into() } else { default.clone() },
            security_options: host.security_options,
            warnings,
        }))
    }

    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            revision: option_env!("BERTH_REVISION").unwrap_or_default().into(),
            api_version: API.into(),
            os: std::env::consts::OS.into(),
            architecture: berth_core::Platform::host().architecture,
            kernel: Host::look().kernel,
        }))
    }

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let EventsRequest { since, until, filters } = request.into_inner();
        let since = instant::parse(&since, "since").map_err(status)?;
        let until = instant::parse(&until, "until").map_err(status)?;
        let follower = self.containers.events.follow(since, until, Filter::parse(&filters).map_err(status)?);
        let events = futures::stream::unfold(follower, |mut follower| async move {
            let event = follower.next().await?;
            Some((Ok(convert::event(&event)), follower))
        });
        Ok(Response::new(Box::pin(events)))
    }
}
