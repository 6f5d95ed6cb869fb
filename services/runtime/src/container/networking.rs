//! Networks as the store and the containers know them: made, removed, pruned.

use std::sync::Arc;

use berth_proto::berth::runtime::v1::CreateNetworkRequest;

use super::{
    containers::{Containers, to_the_end},
    record::Time,
    store::Change,
};
use crate::{
    error::{Error, Result},
    network,
};

impl Containers {
    /// Makes a network; answers with its id. What is cut off after it was written down is finished by the next start.
    pub(crate) async fn create_network(self: &Arc<Self>, asked: CreateNetworkRequest) -> Result<String> {
        let containers = Arc::clone(self);
        to_the_end("making a network", async move { containers.try_create_network(asked).await }).await
    }

    async fn try_create_network(&self, asked: CreateNetworkRequest) -> Result<String> {
        let definition = self.networks.reserve(asked).await.map_err(said)?;
        let written = self.store.commit(Change { put_network: Some(Arc::clone(&definition)), ..Change::default() });
        let built = match written.await {
            Ok(()) => self.networks.build(&definition).await.map_err(said),
            Err(error) => Err(error),
        };
        if let Err(error) = built {
            let strike_out = Change { remove_network: Some(definition.id.clone()), ..Change::default() };
            if let Err(error) = self.store.commit(strike_out).await {
                tracing::error!(network = definition.name, %error, "a network that could not be made is written down");
            }
            self.networks.take_down(&definition).await;
            return Err(error);
        }
        self.events.network("create", &definition.id, &definition.name, None);
        Ok(definition.id.clone())
    }

    /// Removes a network that no running container is connected to.
    pub(crate) async fn remove_network(self: &Arc<Self>, name: String) -> Result<()> {
        let containers = Arc::clone(self);
        to_the_end("removing a network", async move { containers.try_remove_network(&name).await }).await
    }

    async fn try_remove_network(&self, name: &str) -> Result<()> {
        let definition = self.networks.close(name).map_err(said)?;
        let strike_out = Change { remove_network: Some(definition.id.clone()), ..Change::default() };
        if let Err(error) = self.store.commit(strike_out).await {
            self.networks.reopen(&definition);
            return Err(error);
        }
        self.networks.take_down(&definition).await;
        self.events.network("destroy", &definition.id, &definition.name, None);
        Ok(())
    }

    /// Removes the networks that no container is connected to, running or not; answers with their names.
    pub(crate) async fn prune_networks(self: &Arc<Self>, filters: &[String]) -> Result<Vec<String>> {
        let (mut until, mut others) = (Vec::new(), Vec::new());
        for filter in filters {
            let wrong = || Error::Invalid(format!("invalid filter '{filter}'"));
            match filter.split_once('=').ok_or_else(wrong)? {
                ("until", moment) => until.push(crate::instant::parse(moment, "until")?.ok_or_else(wrong)?),
                ("label" | "label!", _) => others.push(filter.clone()),
                _ => return Err(wrong()),
            }
        }
        others.extend(["type=custom".to_owned(), "dangling=true".to_owned()]);
        let mut pruned = Vec::new();
        for network in self.networks.list(&others).map_err(said)? {
            let made = crate::instant::parse(&network.created, "created").ok().flatten().unwrap_or(Time(u64::MAX));
            let used = self
                .index
                .all()
                .iter()
                .any(|container| container.record().attachments().iter().any(|one| one.network_id == network.id));
            if used || until.iter().any(|until| made >= *until) {
                continue;
            }
            match self.remove_network(network.id.clone()).await {
                Ok(()) => pruned.push(network.name),
                // Somebody was attached, or removed it, meanwhile.
                Err(Error::Said(failure)) => tracing::debug!(network = network.name, %failure, "a network stays"),
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }
}

fn said(error: network::Error) -> Error {
    berth_core::Failure::from(error).into()
}
