//! Connecting containers to networks and taking them off, whether they run or not.
//!
//! Of one that runs the bundle knows the new endpoint before the kernel does, so that an address is never given twice; the
//! record is written last. What is cut off in between is on the network after the next start, or not at all.

use std::sync::Arc;

use berth_core::bundle::NAMES;
use berth_proto::berth::runtime::v1::{NetworkAttachment, NetworkEndpoint};

use super::{
    containers::{Containers, blocking, to_the_end},
    live::Container,
    record::Record,
};
use crate::{
    error::{Error, Result},
    network::{self, Mode},
    shims::{Attachment, Task},
};

impl Containers {
    /// Connects a container to a network.
    pub(crate) async fn connect(self: &Arc<Self>, container: &Arc<Container>, asked: NetworkAttachment) -> Result<()> {
        let (containers, container) = (Arc::clone(self), Arc::clone(container));
        to_the_end("connecting a container", async move { containers.connect_in_turn(&container, asked).await }).await
    }

    async fn connect_in_turn(self: &Arc<Self>, container: &Arc<Container>, asked: NetworkAttachment) -> Result<()> {
        let _turn = container.turn().await;
        let live = container.now();
        let record = &live.record;
        bridged(record)?;
        let asked = self.networks.resolve_one(asked).map_err(said)?;
        if record.attachments().iter().any(|one| one.network_id == asked.network_id) {
            let (network, container) = (asked.network.clone(), record.name.clone());
            return Err(said(network::Error::AlreadyOn { network, container }));
        }
        let mut endpoints = record.networks.clone();
        if let Some(task) = live.task.as_ref().filter(|_| record.state.status.is_live()) {
            endpoints = self.networks.reserve_place(&record.id, &asked).map_err(said)?;
            let new = endpoints.last().cloned().unwrap_or_default();
            self.tell_bundle(record, &endpoints).await?;
            if let Err(error) = self.networks.plug(&record.id, record.state.pid, &new).await {
                self.tell_bundle(record, &record.networks).await?;
                return Err(said(error));
            }
            self.tell_names(record, &endpoints, task).await?;
        }
        let mut attachments = record.attachments();
        attachments.push(asked.clone());
        let change = |record: &mut Record| (record.attachments, record.networks) = (Some(attachments), endpoints);
        container.keep(&self.store, change, |_| {}).await?;
        self.events.network("connect", &asked.network_id, &asked.network, Some(&container.id));
        Ok(())
    }

    /// Takes a container off a network.
    pub(crate) async fn disconnect(self: &Arc<Self>, container: &Arc<Container>, network: String) -> Result<()> {
        let (containers, container) = (Arc::clone(self), Arc::clone(container));
        let disconnect = async move { containers.disconnect_in_turn(&container, &network).await };
        to_the_end("disconnecting a container", disconnect).await
    }

    async fn disconnect_in_turn(self: &Arc<Self>, container: &Arc<Container>, network: &str) -> Result<()> {
        let _turn = container.turn().await;
        let live = container.now();
        let record = &live.record;
        bridged(record)?;
        let asked = NetworkAttachment { network: network.into(), ..NetworkAttachment::default() };
        let named = self.networks.resolve_one(asked).map_err(said)?;
        let mut attachments = record.attachments();
        let Some(at) =
            attachments.iter().position(|one| one.network_id == named.network_id || one.network == named.network)
        else {
            let (network, container) = (named.network, record.name.clone());
            return Err(said(network::Error::NotOn { network, container }));
        };
        attachments.remove(at);
        let mut endpoints = record.networks.clone();
        if let Some(task) = live.task.as_ref().filter(|_| record.state.status.is_live()) {
            let unplug = self.networks.unplug(&record.id, record.state.pid, &named.network_id);
            endpoints = unplug.await.map_err(said)?;
            self.tell_bundle(record, &endpoints).await?;
            self.tell_names(record, &endpoints, task).await?;
        }
        let change = |record: &mut Record| (record.attachments, record.networks) = (Some(attachments), endpoints);
        container.keep(&self.store, change, |_| {}).await?;
        self.events.network("disconnect", &named.network_id, &named.network, Some(&container.id));
        Ok(())
    }

    /// Where the container is attached, for this service after a restart.
    async fn tell_bundle(&self, record: &Record, endpoints: &[NetworkEndpoint]) -> Result<()> {
        let bundle = self.bundle(&record.id);
        let attachment = Attachment { networks: endpoints.to_vec(), ports: record.ports.clone() };
        blocking("writing a bundle", move || bundle.attach(&attachment)).await
    }

    /// The container's files of names, and whom it can ask.
    async fn tell_names(
        self: &Arc<Self>,
        record: &Arc<Record>,
        endpoints: &[NetworkEndpoint],
        task: &Task,
    ) -> Result<()> {
        let attachment = Attachment { networks: endpoints.to_vec(), ports: record.ports.clone() };
        let (containers, record) = (Arc::clone(self), Arc::clone(record));
        let write = move || {
            let names = containers.names_of(&record, Mode::Bridged, &attachment);
            network::files::write(&containers.names_directory(&record), &names).map_err(said)?;
            let bundle = containers.bundle(&record.id);
            let had = bundle.path().join(NAMES).exists();
            containers.write_names(&record, Mode::Bridged, &attachment)?;
            Ok(!had && bundle.path().join(NAMES).exists())
        };
        if blocking("writing a container's names", write).await? {
            task.names_came().await?;
        }
        Ok(())
    }
}

fn said(error: network::Error) -> Error {
    berth_core::Failure::from(error).into()
}

/// Only who has a network namespace of its own is on networks.
fn bridged(record: &Record) -> Result<()> {
    match Mode::parse(&record.spec.network_mode).map_err(said)? {
        Mode::Bridged => Ok(()),
        Mode::Container => Err(Error::State(
            "container sharing network namespace with another container or host cannot be connected to any other network"
                .into(),
        )),
        _ => Err(said(network::Error::NoEndpoint { mode: record.spec.network_mode.clone() })),
    }
}
