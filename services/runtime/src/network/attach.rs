//! Attaching a container that starts, with all that it is connected to, and letting it go.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, PoisonError},
    thread,
};

use berth_proto::berth::runtime::v1::{NetworkEndpoint, PortMapping};
use tokio::sync::oneshot;

use super::{
    Attached, Error, Live, Networks, Request,
    bridge::Bridge,
    definition::Definition,
    host::Host,
    link::{self, Plan},
    netlink::Conversation,
    networks::Inner,
    nft::Target,
    ports::{self, HostPort, Published, Reach},
    request::{self, Namespace, ways_out},
    state::{self, Place},
    subnet::Subnet,
};

impl Networks {
    /// Gives a container its namespace, addresses and ports. Failed or cancelled, it leaves nothing.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn attach(&self, request: Request) -> Result<Attached, Error> {
        ports::check(&request.ports)?;
        let alone = |netns| Ok(Attached { netns, endpoints: Vec::new(), ports: Vec::new() });
        match request.namespace {
            Namespace::Host => return alone(None),
            Namespace::Of(pid) => return alone(Some(link::of_process(pid)?)),
            Namespace::Own => {}
        }
        let (answer, receiver) = oneshot::channel();
        let mut waiting = Waiting { receiver, inner: Arc::clone(&self.0), id: request.id.clone() };
        let inner = Arc::clone(&self.0);
        // The thread ends in the container's namespace, so it cannot be one that is used again.
        let started = thread::Builder::new().name("network".into()).spawn(move || {
            let attached = inner.attach(&request);
            let unused = Arc::downgrade(&inner);
            // Whoever gets the answer finds no trace of this thread.
            drop(inner);
            if let (Err(Ok(_unwanted)), Some(inner)) = (answer.send(attached), unused.upgrade()) {
                inner.release(&request.id);
            }
        });
        started.map_err(Error::io("cannot start a thread for", "a network namespace"))?;
        (&mut waiting.receiver).await.unwrap_or(Err(Error::Panicked { what: "attaching a container" }))
    }

    /// Frees a container's addresses and ports; one that is not attached is no error. The links go with the namespace.
    pub(crate) async fn detach(&self, id: &str) {
        let (inner, id) = (Arc::clone(&self.0), id.to_owned());
        // It cannot fail but by a panic, which the runtime reports.
        let _ = tokio::task::spawn_blocking(move || inner.release(&id)).await;
    }
}

/// Waits for the thread that attaches. If nobody waits any more, what it made is given back.
struct Waiting {
    receiver: oneshot::Receiver<Result<Attached, Error>>,
    inner: Arc<Inner>,
    id: String,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // From here on the thread cannot hand anything over and cleans up itself; what it handed over before is ours.
        self.receiver.close();
        if let Ok(Ok(_unwanted)) = self.receiver.try_recv() {
            self.inner.release(&self.id);
        }
    }
}

impl Inner {
    /// Leaves the calling thread in the container's namespace.
    fn attach(&self, request: &Request) -> Result<Attached, Error> {
        {
            let mut state = self.state();
            if state.places.contains_key(&request.id) {
                return Err(Error::Attached { id: request.id.clone() });
            }
            let place = Place { name: request.name.clone(), ..Place::default() };
            state.places.insert(request.id.clone(), place);
        }
        let done = self.connect_all(request);
        match &done {
            Ok((_, endpoints, _)) => self.tell_names(endpoints.iter().map(|endpoint| &endpoint.network_id)),
            Err(_) => self.release(&request.id),
        }
        done.map(|(netns, endpoints, ports)| Attached { netns: Some(netns), endpoints, ports })
    }

    fn connect_all(&self, request: &Request) -> Result<(OwnedFd, Vec<NetworkEndpoint>, Vec<PortMapping>), Error> {
        let mut endpoints = Vec::new();
        let mut plans = Vec::new();
        for asked in &request.networks {
            let definition = Arc::clone(&self.state().of(asked)?.definition);
            let bridge = self.bridge(&definition)?;
            let endpoint = self.state().join(&request.id, asked)?;
            plans.push(plan(&endpoint, &definition, bridge));
            endpoints.push(endpoint);
        }
        let reach = self.reach(&endpoints);
        let published = if reach.v4 || reach.v6 {
            ports::hold(&request.ports, reach, |host| self.state().is_published(host))?
        } else {
            Vec::new()
        };
        let ports = published.iter().map(Published::mapping).collect();
        let redirects = redirects(&endpoints, &published);
        if let Some(place) = self.state().places.get_mut(&request.id) {
            place.published = published;
        }
        let netns = link::make(&plans, &gateways(&endpoints))?;
        self.rules.add(&redirects)?;
        Ok((netns, endpoints, ports))
    }

    /// The bridge of a network, made again where somebody took it away.
    pub(super) fn bridge(&self, definition: &Definition) -> Result<Bridge, Error> {
        let known = self.state().nets.get(&definition.id).and_then(|net| net.bridge);
        let there = nix::net::if_::if_nametoindex(definition.interface.as_str()).ok();
        match known {
            Some(bridge) if there == Some(bridge.index) => Ok(bridge),
            _ => self.make_bridge(definition),
        }
    }

    /// Makes a network's bridge, or takes it over, and lets its traffic through.
    pub(super) fn make_bridge(&self, definition: &Definition) -> Result<Bridge, Error> {
        let _one_at_a_time = self.bridges.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || Error::NotFound { name: definition.name.clone() };
        let (wanted, traffic) = {
            let state = self.state();
            let net = state.nets.get(&definition.id).ok_or_else(missing)?;
            (net.wanted(&self.settings.bridge), net.traffic())
        };
        let failed = |what| Error::netlink(what, &definition.interface);
        let mut kernel = Conversation::route().map_err(failed("cannot talk about the bridge"))?;
        let host = Host::look(&mut kernel).map_err(failed("cannot see what the host has beside"))?;
        let bridge = wanted.make(&mut kernel, &host)?;
        self.rules.open_bridge(&definition.interface, traffic)?;
        if let Some(net) = self.state().nets.get_mut(&definition.id) {
            net.bridge = Some(bridge);
        }
        Ok(bridge)
    }

    /// Where ports of a container with these endpoints can be published.
    pub(super) fn reach(&self, endpoints: &[NetworkEndpoint]) -> Reach {
        let [v4, v6] = ways_out(endpoints);
        let state = self.state();
        let net = v4.or(v6).and_then(|way| state.nets.get(&way.network_id));
        Reach { v4: v4.is_some(), v6: v6.is_some(), binding: net.and_then(|net| net.definition.host_binding()) }
    }

    /// The rules go first: as long as they are there, nobody else may have the ports.
    pub(super) fn release(&self, id: &str) {
        let hosts: Vec<_> = match self.state().places.get(id) {
            Some(place) => place.published.iter().map(|published| published.host).collect(),
            None => return,
        };
        if let Err(error) = self.rules.remove(&hosts) {
            // They are no longer among those that should be, and go with the next change.
            tracing::error!(container = id, %error, "rules for published ports stay for now");
        }
        let mut state = self.state();
        let networks = state.places.get(id).map(|place| &place.endpoints).into_iter().flatten();
        let networks: Vec<_> = networks.map(|endpoint| endpoint.network_id.clone()).collect();
        for network in &networks {
            state.leave(id, network);
        }
        state.places.remove(id);
        drop(state);
        self.tell_names(&networks);
    }

    pub(super) fn recover(&self, live: Vec<Live>) -> Result<(), Error> {
        let mut all = Vec::new();
        for Live { id, name, endpoints, ports } in live {
            let published = if endpoints.is_empty() { Vec::new() } else { ports::hold_again(&ports) };
            all.extend(redirects(&endpoints, &published));
            let mut state = self.state();
            state.places.insert(id.clone(), Place { name, published, ..Place::default() });
            for endpoint in endpoints {
                state.rejoin(&id, endpoint);
            }
        }
        let networks: Vec<String> = self.state().nets.keys().cloned().collect();
        self.tell_names(&networks);
        let bridges: Vec<_> = {
            let state = self.state();
            state.nets.values().map(|net| (net.definition.interface.clone(), net.traffic())).collect()
        };
        self.rules.install(bridges, all)
    }
}

/// The link of an endpoint.
pub(super) fn plan(endpoint: &NetworkEndpoint, definition: &Definition, bridge: Bridge) -> Plan {
    let subnet = |six: bool| -> Option<Subnet> {
        let pool = if six { &definition.v6 } else { &definition.v4 };
        pool.as_ref().map(|pool| pool.subnet)
    };
    Plan {
        outside: link::outside(&endpoint.endpoint_id),
        inside: endpoint.interface.clone(),
        bridge: bridge.index,
        mac: state::mac(&endpoint.mac_address).unwrap_or_default(),
        addresses: request::addresses(endpoint)
            .filter_map(|address| Some((address, subnet(address.is_ipv6())?)))
            .collect(),
        mtu: bridge.mtu,
        isolated: !definition.icc(),
    }
}

/// Where everything leaves that is for elsewhere.
pub(super) fn gateways(endpoints: &[NetworkEndpoint]) -> Vec<std::net::IpAddr> {
    let [v4, v6] = ways_out(endpoints);
    let v4 = v4.and_then(|way| way.gateway.parse().ok());
    v4.into_iter().chain(v6.and_then(|way| way.ipv6_gateway.parse().ok())).collect()
}

/// Where a container's published ports lead.
pub(super) fn redirects(endpoints: &[NetworkEndpoint], published: &[Published]) -> Vec<(HostPort, Target)> {
    let [v4, v6] = ways_out(endpoints);
    let v4 = v4.and_then(|way| way.ip_address.parse().ok());
    let v6 = v6.and_then(|way| way.ipv6_address.parse().ok());
    let target = |published: &Published| {
        let address = if published.host.address.is_ipv4() { v4 } else { v6 };
        address.map(|address| (published.host, Target { address, port: published.container_port }))
    };
    published.iter().filter_map(target).collect()
}
