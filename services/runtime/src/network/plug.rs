//! Connecting a container that runs to one more network, and taking it off one.

use std::sync::Arc;

use berth_proto::berth::runtime::v1::{NetworkAttachment, NetworkEndpoint};

use super::{
    Error, Networks,
    attach::{gateways, plan, redirects},
    link,
    netlink::Conversation,
    networks::Inner,
};

impl Networks {
    /// A place for an attached container on one more network: its own from now on, but without a link yet. Answers with all
    /// of its endpoints, that one last.
    ///
    /// # Errors
    /// The network is not there or the container is on it, or what it asks for is not free.
    pub(crate) fn reserve_place(&self, id: &str, asked: &NetworkAttachment) -> Result<Vec<NetworkEndpoint>, Error> {
        let mut state = self.0.state();
        state.join(id, asked)?;
        Ok(state.places.get(id).map(|place| place.endpoints.clone()).unwrap_or_default())
    }

    /// Makes the link of the endpoint that was reserved last, in the namespace of the process.
    ///
    /// # Errors
    /// The kernel refuses; the place is given back.
    pub(crate) async fn plug(&self, id: &str, pid: u32, endpoint: &NetworkEndpoint) -> Result<(), Error> {
        let (inner, id, endpoint) = (Arc::clone(&self.0), id.to_owned(), endpoint.clone());
        let plug = move || {
            let done = inner.plug(&id, pid, &endpoint);
            if done.is_err() {
                inner.state().leave(&id, &endpoint.network_id);
            }
            done
        };
        tokio::task::spawn_blocking(plug).await.unwrap_or(Err(Error::Panicked { what: "connecting a container" }))
    }

    /// Takes the link to a network away, and the place on it. Answers with the endpoints that are left.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) async fn unplug(&self, id: &str, pid: u32, network: &str) -> Result<Vec<NetworkEndpoint>, Error> {
        let (inner, id, network) = (Arc::clone(&self.0), id.to_owned(), network.to_owned());
        let unplug = tokio::task::spawn_blocking(move || inner.unplug(&id, pid, &network));
        unplug.await.unwrap_or(Err(Error::Panicked { what: "disconnecting a container" }))
    }
}

impl Inner {
    fn plug(&self, id: &str, pid: u32, endpoint: &NetworkEndpoint) -> Result<(), Error> {
        let missing = || Error::NotFound { name: endpoint.network.clone() };
        let definition = self.state().nets.get(&endpoint.network_id).map(|net| Arc::clone(&net.definition));
        let definition = definition.ok_or_else(missing)?;
        let plan = plan(endpoint, &definition, self.bridge(&definition)?);
        let namespace = link::of_process(pid)?;
        link::apart(|| link::plug(&namespace, &plan))?;
        self.settle(id, pid)?;
        self.tell_names([&endpoint.network_id]);
        Ok(())
    }

    fn unplug(&self, id: &str, pid: u32, network: &str) -> Result<Vec<NetworkEndpoint>, Error> {
        let state = self.state();
        let place = state.places.get(id).ok_or_else(|| Error::NotAttached { id: id.into() })?;
        let endpoint = place.endpoints.iter().find(|one| one.network_id == network).cloned();
        drop(state);
        if let Some(endpoint) = endpoint {
            let outside = link::outside(&endpoint.endpoint_id);
            let mut kernel = Conversation::route().map_err(Error::netlink("cannot talk about links", "the host"))?;
            link::unplug(&mut kernel, &outside)?;
            self.state().leave(id, network);
            self.settle(id, pid)?;
            self.tell_names([&endpoint.network_id]);
        }
        Ok(self.state().places.get(id).map(|place| place.endpoints.clone()).unwrap_or_default())
    }

    /// The way out, and where published ports lead, as the endpoints are now.
    fn settle(&self, id: &str, pid: u32) -> Result<(), Error> {
        let (endpoints, hosts, redirects) = {
            let state = self.state();
            let Some(place) = state.places.get(id) else { return Ok(()) };
            let hosts: Vec<_> = place.published.iter().map(|published| published.host).collect();
            (place.endpoints.clone(), hosts, redirects(&place.endpoints, &place.published))
        };
        let namespace = link::of_process(pid)?;
        link::apart(|| link::lead(&namespace, &gateways(&endpoints)))?;
        self.rules.remove(&hosts)?;
        self.rules.add(&redirects)
    }
}
