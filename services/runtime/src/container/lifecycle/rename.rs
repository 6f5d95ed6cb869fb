//! Rename.

use std::sync::Arc;

use crate::{
    container::{
        containers::{Containers, to_the_end},
        live::Container,
        names,
        record::Record,
    },
    error::{Error, Result},
    network,
};

impl Containers {
    /// Gives a container another name.
    pub(crate) async fn rename(self: &Arc<Self>, container: &Arc<Container>, name: String) -> Result<()> {
        let (containers, container) = (Arc::clone(self), Arc::clone(container));
        to_the_end("renaming a container", async move { containers.rename_in_turn(&container, &name).await }).await
    }

    async fn rename_in_turn(&self, container: &Container, name: &str) -> Result<()> {
        let _turn = container.turn().await;
        let live = container.now();
        if live.removed {
            return Err(Error::NotFound { name: container.id.clone() });
        }
        if name.is_empty() {
            return Err(Error::Invalid("Neither old nor new names may be empty".into()));
        }
        if names::check(name)? == live.record.name {
            return Err(Error::SameName);
        }
        let old = live.record.name.clone();
        let reservation = self.index.reserve(name, &container.id)?;
        let new = reservation.name.clone();
        let change = |record: &mut Record| {
            for endpoint in record.networks.iter_mut().filter(|endpoint| network::has_names(endpoint)) {
                endpoint.dns_names = network::dns_names(&new, &endpoint.aliases, &record.id);
            }
            record.name = new;
        };
        container.keep(&self.store, change, |_| {}).await?;
        reservation.keep();
        self.index.free(&old);
        self.networks.rename(&container.id, name).await;
        self.event("rename", &container.record(), &[("oldName", format!("/{old}"))]);
        Ok(())
    }
}
