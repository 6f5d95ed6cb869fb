//! Networks made, found and removed by their names. What the store has to say in between is said by the caller: a network
//! is reserved, then written down, then built; and closed, then struck out, then taken down.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError},
};

use berth_proto::berth::runtime::v1::{
    AddressPool, CreateNetworkRequest, Network, NetworkAttachment, NetworkEndpoint, NetworkMember,
};

use super::{
    Error, Networks, bridge,
    definition::{Definition, Draft, PREDEFINED, Pool},
    filter::Filter,
    host::Host,
    netlink::Conversation,
    networks::{Inner, predefined_id},
    pools,
    request::{self, DEFAULT, Mode},
    state::{Net, State, mac},
};

impl Networks {
    /// Reserves a network's name and subnets: nobody else gets them, and nobody is attached yet.
    ///
    /// # Errors
    /// It cannot be meant, there is one of that name, or its subnet is not free.
    pub(crate) async fn reserve(&self, asked: CreateNetworkRequest) -> Result<Arc<Definition>, Error> {
        let draft = Definition::draft(asked)?;
        let inner = Arc::clone(&self.0);
        blocking("making a network", move || inner.reserve(draft)).await
    }

    /// Makes the bridge of a reserved network that is written down. From now on containers can be attached.
    ///
    /// # Errors
    /// The kernel refuses; the caller strikes the network out and forgets it.
    pub(crate) async fn build(&self, definition: &Arc<Definition>) -> Result<(), Error> {
        let (inner, definition) = (Arc::clone(&self.0), Arc::clone(definition));
        let build = move || {
            inner.make_bridge(&definition)?;
            inner.close(&definition.id, false);
            Ok(())
        };
        blocking("making a bridge", build).await
    }

    /// A network that is being removed: nobody is attached, and nobody will be.
    ///
    /// # Errors
    /// It is not there, is one of every node's, or a running container is attached.
    pub(crate) fn close(&self, name: &str) -> Result<Arc<Definition>, Error> {
        let mut state = self.0.state();
        let definition = Arc::clone(&self.0.removable(&state, name)?.definition);
        let members: Vec<_> = match state.nets.get(&definition.id) {
            Some(net) if net.closed => return Err(Error::NotFound { name: name.into() }),
            Some(net) => net.members.iter().cloned().collect(),
            None => Vec::new(),
        };
        if !members.is_empty() {
            let name_of = |id: &String| state.places.get(id).map(|place| place.name.clone()).unwrap_or_default();
            let endpoints = members.iter().map(|id| (name_of(id), id.get(..12).unwrap_or(id).to_owned())).collect();
            return Err(Error::InUse { name: definition.name.clone(), endpoints });
        }
        if let Some(net) = state.nets.get_mut(&definition.id) {
            net.closed = true;
        }
        Ok(definition)
    }

    /// What was to be removed stays.
    pub(crate) fn reopen(&self, definition: &Definition) {
        self.0.close(&definition.id, false);
    }

    /// Takes down what a network had that the store does not know any more.
    pub(crate) async fn take_down(&self, definition: &Arc<Definition>) {
        let (inner, definition) = (Arc::clone(&self.0), Arc::clone(definition));
        // It cannot fail but by a panic, which the runtime reports.
        let _ = tokio::task::spawn_blocking(move || inner.take_down(&definition)).await;
    }

    /// The networks that are wanted, by name.
    ///
    /// # Errors
    /// A filter cannot be meant.
    pub(crate) fn list(&self, filters: &[String]) -> Result<Vec<Network>, Error> {
        let filter = Filter::parse(filters)?;
        let mut all = self.0.all();
        all.retain(|network| filter.admits(network));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// One network, by name, id, or a beginning of the id.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub(crate) fn inspect(&self, text: &str) -> Result<Network, Error> {
        if let Some(name) = predefined(text) {
            return Ok(plain(name, &self.0.opened));
        }
        let state = self.0.state();
        let net = state.find(text)?;
        Ok(told(net, &state))
    }

    /// The attachments of a container as it will have them, each with its network's name and id.
    ///
    /// # Errors
    /// A network is not there, is named twice, or something that it does not have is asked of it.
    pub(crate) fn resolve(&self, mode: &str, asked: &[NetworkAttachment]) -> Result<Vec<NetworkAttachment>, Error> {
        let parsed = Mode::parse(mode)?;
        let mut asked = asked.to_vec();
        if asked.is_empty() && parsed == Mode::Bridged {
            asked.push(NetworkAttachment { network: request::named(mode).into(), ..NetworkAttachment::default() });
        }
        if parsed != Mode::Bridged {
            return match asked.iter().find(|one| !(one.network.is_empty() || one.network == mode) || says_more(one)) {
                Some(_) => Err(Error::NoEndpoint { mode: mode.into() }),
                None => Ok(Vec::new()),
            };
        }
        let mut resolved: Vec<NetworkAttachment> = Vec::new();
        for mut one in asked {
            let name = if one.network.is_empty() { request::named(mode) } else { request::named(&one.network) };
            one.network = name.into();
            let one = self.resolve_one(one)?;
            if resolved.iter().any(|other| other.network_id == one.network_id) {
                return Err(Error::Unmeant(format!("network {:?} is specified multiple times", one.network)));
            }
            resolved.push(one);
        }
        Ok(resolved)
    }

    /// See [`Networks::resolve`].
    ///
    /// # Errors
    /// The network is not there, or something that it does not have is asked of it.
    pub(crate) fn resolve_one(&self, mut asked: NetworkAttachment) -> Result<NetworkAttachment, Error> {
        if let Some(name) = predefined(&asked.network) {
            return Err(Error::NoEndpoint { mode: name.into() });
        }
        let state = self.0.state();
        let net = state.find(&asked.network)?;
        check(&asked, net)?;
        asked.network.clone_from(&net.definition.name);
        asked.network_id.clone_from(&net.definition.id);
        Ok(asked)
    }
}

/// "host" or "none", or the id of either.
fn predefined(text: &str) -> Option<&'static str> {
    let is = |name: &&&str| **name == text || (text.len() >= 4 && predefined_id(name).starts_with(text));
    PREDEFINED.iter().filter(|name| **name != DEFAULT).find(is).copied()
}

/// Whether more is asked for than to be connected.
fn says_more(asked: &NetworkAttachment) -> bool {
    !(asked.aliases.is_empty()
        && asked.links.is_empty()
        && asked.ip.is_empty()
        && asked.ip6.is_empty()
        && asked.mac_address.is_empty())
}

/// Whether the network has what is asked of it.
fn check(asked: &NetworkAttachment, net: &Net) -> Result<(), Error> {
    let unmeant = |why: &str| Err(Error::Unmeant(why.into()));
    if net.is_default() {
        if !asked.aliases.is_empty() {
            return unmeant("network-scoped aliases are only supported for user-defined networks");
        }
        if !(asked.ip.is_empty() && asked.ip6.is_empty()) {
            return unmeant("user specified IP address is supported on user defined networks only");
        }
    }
    for (text, pool, six) in [(&asked.ip, &net.definition.v4, false), (&asked.ip6, &net.definition.v6, true)] {
        if text.is_empty() {
            continue;
        }
        let address = text.parse::<IpAddr>().ok().filter(|address| address.is_ipv6() == six);
        let Some(address) = address else {
            return Err(Error::Unmeant(format!("invalid IPv{} address: {text}", if six { 6 } else { 4 })));
        };
        match pool {
            Some(Pool { asked: false, .. }) => {
                return unmeant(
                    "user specified IP address is supported only when connecting to networks with user configured subnets",
                );
            }
            Some(pool) if pool.subnet.contains(address) => {}
            _ => {
                return Err(Error::Unmeant(format!(
                    "no configured subnet or ip-range contain the IP address {address}"
                )));
            }
        }
    }
    if let Some(alias) = asked.aliases.iter().find(|alias| alias.is_empty() || alias.len() > 253) {
        return Err(Error::Unmeant(format!("invalid alias {alias:?}: a name has up to 253 characters")));
    }
    match mac(&asked.mac_address) {
        None if !asked.mac_address.is_empty() => {
            Err(Error::Unmeant(format!("invalid MAC address: {}", asked.mac_address)))
        }
        Some(mac) if mac[0] & 1 != 0 => {
            Err(Error::Unmeant(format!("invalid MAC address: {} is a group's", asked.mac_address)))
        }
        _ => Ok(()),
    }
}

impl Inner {
    fn reserve(&self, draft: Draft) -> Result<Arc<Definition>, Error> {
        let Draft { mut definition, choose_v4, choose_v6 } = draft;
        let failed = |what| Error::netlink(what, &definition.interface);
        let mut kernel = Conversation::route().map_err(failed("cannot talk about the bridge"))?;
        let host = Host::look(&mut kernel).map_err(failed("cannot see what the host has beside"))?;
        if host.link(&definition.interface).is_some() {
            return Err(Error::Foreign { name: definition.interface });
        }
        let mut state = self.state();
        if state.nets.values().any(|net| net.definition.name == definition.name) {
            return Err(Error::Exists { name: definition.name });
        }
        if state.nets.values().any(|net| net.definition.interface == definition.interface) {
            return Err(Error::Foreign { name: definition.interface });
        }
        let taken = state.subnets();
        for pool in definition.pools() {
            pools::check(pool.subnet, &host, &taken)?;
        }
        if choose_v4 {
            definition.v4 = Some(pools::free_v4(&self.settings, &host, &taken)?);
        }
        if choose_v6 {
            definition.v6 = Some(pools::free_v6(&host, &taken));
        }
        let mut net = Net::new(definition);
        net.closed = true;
        let definition = Arc::clone(&net.definition);
        state.nets.insert(definition.id.clone(), net);
        Ok(definition)
    }

    fn close(&self, id: &str, closed: bool) {
        if let Some(net) = self.state().nets.get_mut(id) {
            net.closed = closed;
        }
    }

    fn removable<'a>(&self, state: &'a State, name: &str) -> Result<&'a Net, Error> {
        let refused =
            |name: &str| Err(Error::Predefined(format!("{name} is a pre-defined network and cannot be removed")));
        if let Some(name) = predefined(name) {
            return refused(name);
        }
        match state.find(name)? {
            net if net.is_default() => refused(&net.definition.name),
            net => Ok(net),
        }
    }

    fn take_down(&self, definition: &Definition) {
        {
            let _one_at_a_time = self.bridges.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = self.rules.close_bridge(&definition.interface) {
                tracing::warn!(network = definition.name, %error, "rules for a network that is gone stay for now");
            }
            let removed = Conversation::route()
                .map_err(Error::netlink("cannot talk about the bridge", &definition.interface))
                .and_then(|mut kernel| bridge::remove(&mut kernel, &definition.interface));
            if let Err(error) = removed {
                tracing::warn!(network = definition.name, %error, "the bridge of a network that is gone stays for now");
            }
        }
        self.state().nets.remove(&definition.id);
        self.forget_names(&definition.id);
    }

    fn all(&self) -> Vec<Network> {
        let state = self.state();
        let bridges = state.nets.values().map(|net| told(net, &state));
        bridges.chain(["host", "none"].map(|name| plain(name, &self.opened))).collect()
    }
}

/// "host" or "none".
fn plain(name: &str, opened: &str) -> Network {
    Network {
        id: predefined_id(name),
        name: name.into(),
        driver: if name == "none" { "null".into() } else { name.into() },
        created: opened.into(),
        ipv4: true,
        predefined: true,
        ..Network::default()
    }
}

fn told(net: &Net, state: &State) -> Network {
    let definition = (*net.definition).clone();
    let pool = |pool: &Pool| AddressPool {
        subnet: pool.subnet.to_string(),
        ip_range: pool.range.map(|range| range.to_string()).unwrap_or_default(),
        gateway: pool.gateway.to_string(),
        aux_addresses: pool.reserved.iter().map(|(name, address)| (name.clone(), address.to_string())).collect(),
    };
    let endpoints = net.members.iter().filter_map(|id| {
        let place = state.places.get(id)?;
        let endpoint = place.endpoints.iter().find(|endpoint| endpoint.network_id == definition.id)?;
        Some(member(id, &place.name, endpoint))
    });
    Network {
        subnet: definition.v4.as_ref().map(|v4| v4.subnet.to_string()).unwrap_or_default(),
        gateway: definition.v4.as_ref().map(|v4| v4.gateway.to_string()).unwrap_or_default(),
        pools: definition.pools().map(pool).collect(),
        members: endpoints.collect(),
        ipv4: definition.v4.is_some(),
        ipv6: definition.v6.is_some(),
        predefined: net.is_default(),
        driver: "bridge".into(),
        id: definition.id,
        name: definition.name,
        interface: definition.interface,
        created: definition.created,
        internal: definition.internal,
        attachable: definition.attachable,
        labels: definition.labels.into_iter().collect(),
        options: definition.options.into_iter().collect(),
        ipam_options: definition.ipam_options.into_iter().collect(),
    }
}

fn member(container: &str, name: &str, endpoint: &NetworkEndpoint) -> NetworkMember {
    let with_prefix = |address: &str, prefix: u32| match address {
        "" => String::new(),
        address => format!("{address}/{prefix}"),
    };
    NetworkMember {
        container: container.into(),
        name: name.into(),
        endpoint_id: endpoint.endpoint_id.clone(),
        mac_address: endpoint.mac_address.clone(),
        ipv4_address: with_prefix(&endpoint.ip_address, endpoint.ip_prefix_len),
        ipv6_address: with_prefix(&endpoint.ipv6_address, endpoint.ipv6_prefix_len),
    }
}

/// Runs what waits for the kernel where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    what: &'static str,
    body: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(body).await.unwrap_or(Err(Error::Panicked { what }))
}
