//! What is known of the networks while the service runs: which there are, which addresses are taken, and who is
//! attached. The lock around it is held for look-ups only.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use berth_proto::berth::runtime::v1::{NetworkAttachment, NetworkEndpoint};

use crate::network::{
    Error,
    addresses::Addresses,
    bridge::{Bridge, Wanted},
    definition::{Definition, Pool},
    link,
    nft::Traffic,
    ports::{HostPort, Published},
    request::{self, DEFAULT},
    subnet::Subnet,
};

/// All of it.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Bridge networks, by id.
    pub(super) nets: BTreeMap<String, Net>,
    /// Attached containers, by id.
    pub(super) places: HashMap<String, Place>,
}

/// A bridge network.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) definition: Arc<Definition>,
    /// Its bridge, once it was made or found.
    pub(super) bridge: Option<Bridge>,
    v4: Option<Addresses>,
    v6: Option<Addresses>,
    /// Containers that are attached.
    pub(super) members: BTreeSet<String>,
    /// It is being made, or on its way out: nobody can be attached.
    pub(super) closed: bool,
}

/// What one container has.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) endpoints: Vec<NetworkEndpoint>,
    pub(super) published: Vec<Published>,
}

impl Net {
    pub(super) fn new(definition: Definition) -> Self {
        let addresses = |pool: &Pool| {
            let reserved = pool.reserved.values().copied().chain([pool.gateway]);
            Addresses::new(pool.subnet, pool.range, reserved)
        };
        Self {
            v4: definition.v4.as_ref().map(addresses),
            v6: definition.v6.as_ref().map(addresses),
            definition: Arc::new(definition),
            bridge: None,
            members: BTreeSet::new(),
            closed: false,
        }
    }

    pub(super) fn is_default(&self) -> bool {
        self.definition.name == DEFAULT
    }

    /// What its bridge is to be; `node` tells this node's bridges from others'.
    pub(super) fn wanted(&self, node: &str) -> Wanted {
        let Definition { id, interface, .. } = &*self.definition;
        Wanted {
            name: interface.clone(),
            alias: if self.is_default() { String::new() } else { alias(node, id) },
            addresses: self.definition.pools().map(|pool| (pool.gateway, pool.subnet)).collect(),
            mtu: self.definition.mtu(),
        }
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic {
            subnets: self.definition.pools().map(|pool| pool.subnet).collect(),
            internal: self.definition.internal,
            masquerade: self.definition.masquerade(),
        }
    }

    /// An address of its subnet; the one that is asked for, where one is.
    fn take(&mut self, six: bool, asked: &str) -> Result<Option<IpAddr>, Error> {
        let addresses = if six { &mut self.v6 } else { &mut self.v4 };
        let pool = if six { &self.definition.v6 } else { &self.definition.v4 };
        if asked.is_empty() {
            let (Some(addresses), Some(pool)) = (addresses, pool) else { return Ok(None) };
            return addresses.take().map(Some).ok_or_else(|| Error::NoAddressLeft { subnet: pool.subnet.to_string() });
        }
        let none = || Error::Unmeant(format!("no configured subnet or ip-range contain the IP address {asked}"));
        let address: IpAddr = asked.parse().map_err(|_| Error::Unmeant(format!("invalid IP address: {asked}")))?;
        let addresses = addresses.as_mut().filter(|addresses| addresses.can_have(address)).ok_or_else(none)?;
        if addresses.take_this(address) { Ok(Some(address)) } else { Err(Error::AddressTaken { address }) }
    }

    fn free(&mut self, endpoint: &NetworkEndpoint) {
        for address in request::addresses(endpoint) {
            let addresses = if address.is_ipv6() { &mut self.v6 } else { &mut self.v4 };
            if let Some(addresses) = addresses {
                addresses.free(address);
            }
        }
    }

    /// Takes the addresses of an endpoint that was there before this service started.
    fn keep(&mut self, endpoint: &NetworkEndpoint) {
        for address in request::addresses(endpoint) {
            let addresses = if address.is_ipv6() { &mut self.v6 } else { &mut self.v4 };
            if let Some(addresses) = addresses {
                addresses.keep(address);
            }
        }
    }

    /// A place on it for a container, with addresses that are its own from now on.
    fn endpoint(&mut self, asked: &NetworkAttachment, container: &str, name: &str) -> Result<NetworkEndpoint, Error> {
        let v4 = self.take(false, &asked.ip)?;
        let v6 = match self.take(true, &asked.ip6) {
            Ok(v6) => v6,
            Err(error) => {
                let taken = v4.map(|v4| NetworkEndpoint { ip_address: v4.to_string(), ..NetworkEndpoint::default() });
                taken.iter().for_each(|taken| self.free(taken));
                return Err(error);
            }
        };
        let definition = &self.definition;
        let first = v4.or(v6).unwrap_or_else(|| [0; 4].into());
        let mac = mac(&asked.mac_address).unwrap_or_else(|| link::mac_of(first));
        let prefix = |pool: &Option<Pool>| pool.as_ref().map_or(0, |pool| u32::from(pool.subnet.prefix()));
        let gateway = |pool: &Option<Pool>| match pool {
            Some(pool) if !definition.internal => pool.gateway.to_string(),
            _ => String::new(),
        };
        Ok(NetworkEndpoint {
            network: definition.name.clone(),
            network_id: definition.id.clone(),
            endpoint_id: hex::encode(rand::random::<[u8; 32]>()),
            ip_address: v4.map(|v4| v4.to_string()).unwrap_or_default(),
            ip_prefix_len: prefix(&definition.v4),
            gateway: gateway(&definition.v4),
            mac_address: mac.map(|byte| format!("{byte:02x}")).join(":"),
            ipv6_address: v6.map(|v6| v6.to_string()).unwrap_or_default(),
            ipv6_prefix_len: prefix(&definition.v6),
            ipv6_gateway: gateway(&definition.v6),
            aliases: asked.aliases.clone(),
            interface: definition.inside().to_owned(),
            gw_priority: asked.gw_priority,
            dns_names: if self.is_default() { Vec::new() } else { dns_names(name, &asked.aliases, container) },
            asked_ip: asked.ip.clone(),
            asked_ip6: asked.ip6.clone(),
            links: asked.links.clone(),
            driver_opts: asked.driver_opts.clone(),
        })
    }
}

/// The note on a network's bridge.
pub(super) fn alias(node: &str, id: &str) -> String {
    format!("{node} network {id}")
}

/// All names that a container is answered for: its own, those that were given, and the beginning of its id.
pub(crate) fn dns_names(name: &str, aliases: &[String], container: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let short = container.get(..12).unwrap_or(container);
    for one in [name].into_iter().chain(aliases.iter().map(String::as_str)).chain([short]) {
        if !one.is_empty() && !names.iter().any(|other| other == one) {
            names.push(one.to_owned());
        }
    }
    names
}

/// Reads a MAC address.
pub(crate) fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

impl State {
    /// The network with this id or name, or whose id alone begins so.
    pub(super) fn find(&self, text: &str) -> Result<&Net, Error> {
        let missing = || Error::NotFound { name: text.into() };
        if let Some(net) = self.nets.get(text) {
            return Ok(net);
        }
        if let Some(net) = self.nets.values().find(|net| net.definition.name == text) {
            return Ok(net);
        }
        if text.is_empty() {
            return Err(missing());
        }
        let mut beginning = self.nets.range(text.to_owned()..).map(|(_, net)| net);
        let mut beginning = beginning.by_ref().take_while(|net| net.definition.id.starts_with(text));
        match (beginning.next(), beginning.next()) {
            (Some(net), None) => Ok(net),
            (Some(_), Some(_)) => Err(Error::Ambiguous { text: text.into() }),
            _ => Err(missing()),
        }
    }

    /// The one that an attachment means: by id, and, where that one is gone, by name.
    pub(super) fn of(&self, attachment: &NetworkAttachment) -> Result<&Net, Error> {
        match self.nets.get(&attachment.network_id) {
            Some(net) if !attachment.network_id.is_empty() => Ok(net),
            _ => self.find(request::named(&attachment.network)),
        }
    }

    /// Every subnet of every network.
    pub(super) fn subnets(&self) -> Vec<Subnet> {
        self.nets.values().flat_map(|net| net.definition.pools()).map(|pool| pool.subnet).collect()
    }

    /// Gives a container a place on a network.
    pub(super) fn join(&mut self, id: &str, asked: &NetworkAttachment) -> Result<NetworkEndpoint, Error> {
        let net_id = {
            let net = self.of(asked)?;
            if net.closed {
                return Err(Error::NotFound { name: asked.network.clone() });
            }
            net.definition.id.clone()
        };
        let place = self.places.get_mut(id).ok_or_else(|| Error::NotAttached { id: id.into() })?;
        let net = self.nets.get_mut(&net_id).ok_or_else(|| Error::NotFound { name: asked.network.clone() })?;
        if net.members.contains(id) {
            return Err(Error::AlreadyOn { network: net.definition.name.clone(), container: place.name.clone() });
        }
        let mut endpoint = net.endpoint(asked, id, &place.name)?;
        // The next number that none of its links has.
        let prefix = endpoint.interface.clone();
        let used = |name: &str| place.endpoints.iter().any(|other| other.interface == name);
        endpoint.interface = (0..).map(|number| format!("{prefix}{number}")).find(|name| !used(name)).unwrap_or(prefix);
        net.members.insert(id.into());
        place.endpoints.push(endpoint.clone());
        Ok(endpoint)
    }

    /// Takes a place that was there before this service started.
    pub(super) fn rejoin(&mut self, id: &str, mut endpoint: NetworkEndpoint) {
        if endpoint.interface.is_empty() {
            // Of a version that made one link at most.
            endpoint.interface = "eth0".into();
        }
        // It may have been given another name since.
        if let Some(place) = self.places.get(id).filter(|_| !endpoint.dns_names.is_empty()) {
            endpoint.dns_names = dns_names(&place.name, &endpoint.aliases, id);
        }
        let known = self.nets.get_mut(&endpoint.network_id);
        if let Some(net) = known {
            net.keep(&endpoint);
            net.members.insert(id.into());
        }
        if let Some(place) = self.places.get_mut(id) {
            place.endpoints.push(endpoint);
        }
    }

    /// Takes a container's place on a network away.
    pub(super) fn leave(&mut self, id: &str, network_id: &str) -> Option<NetworkEndpoint> {
        let place = self.places.get_mut(id)?;
        let at = place.endpoints.iter().position(|endpoint| endpoint.network_id == network_id)?;
        let endpoint = place.endpoints.remove(at);
        if let Some(net) = self.nets.get_mut(network_id) {
            net.free(&endpoint);
            net.members.remove(id);
        }
        Some(endpoint)
    }

    /// Whether a container has a port already that a packet for this one could be meant for.
    pub(super) fn is_published(&self, host: HostPort) -> bool {
        self.places.values().flat_map(|place| &place.published).any(|published| published.host.clashes(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(id: &str, name: &str, subnet: &str) -> Net {
        let mut pool = Pool::whole(Subnet::parse(subnet).unwrap());
        pool.asked = true;
        Net::new(Definition { id: id.into(), name: name.into(), v4: Some(pool), ..Definition::default() })
    }

    fn state() -> State {
        let mut state = State::default();
        for net in
            [net("aa1", "front", "10.1.0.0/24"), net("aa2", "back", "10.2.0.0/24"), net("b", "aa", "10.3.0.0/24")]
        {
            state.nets.insert(net.definition.id.clone(), net);
        }
        let place = Place { name: "web".into(), ..Place::default() };
        state.places.insert("0123456789abcdef".into(), place);
        state
    }

    fn to(network: &str) -> NetworkAttachment {
        NetworkAttachment { network: network.into(), ..NetworkAttachment::default() }
    }

    #[test]
    fn networks_by_id_name_and_beginning() {
        let state = state();
        let found = |text: &str| state.find(text).map(|net| net.definition.name.clone()).map_err(|e| e.to_string());
        assert_eq!(found("back").unwrap(), "back");
        assert_eq!(found("aa1").unwrap(), "front");
        assert_eq!(found("aa").unwrap(), "aa", "a name is before beginnings");
        assert!(found("a").unwrap_err().contains("ambiguous"));
        assert_eq!(found("x").unwrap_err(), "network x not found");
        assert!(found("").is_err());
        let gone = NetworkAttachment { network_id: "gone".into(), ..to("back") };
        assert_eq!(state.of(&gone).unwrap().definition.id, "aa2", "made anew under its name");
    }

    #[test]
    fn places_are_taken_and_given_back() {
        let (mut state, id) = (state(), "0123456789abcdef");
        let asked =
            NetworkAttachment { aliases: vec!["www".into(), "web".into()], ip: "10.1.0.9".into(), ..to("front") };
        let first = state.join(id, &asked).unwrap();
        assert_eq!((first.ip_address.as_str(), first.interface.as_str()), ("10.1.0.9", "eth0"));
        assert_eq!(first.dns_names, ["web", "www", "0123456789ab"]);
        assert!(state.join(id, &to("front")).unwrap_err().to_string().contains("already exists in network front"));
        assert_eq!(state.join(id, &to("back")).unwrap().interface, "eth1");
        assert_eq!(state.leave(id, "aa1").unwrap().ip_address, "10.1.0.9");
        assert!(state.leave(id, "aa1").is_none() && state.nets["aa1"].members.is_empty());
        assert_eq!(
            state.join(id, &asked).unwrap().interface,
            "eth0",
            "the number is free again, and so is the address"
        );
        state.places.insert("other".into(), Place::default());
        assert_eq!(state.join("other", &asked).unwrap_err().to_string(), "Address already in use");
        let outside = NetworkAttachment { ip: "10.9.0.9".into(), ..to("front") };
        assert!(state.join("other", &outside).unwrap_err().to_string().contains("10.9.0.9"));
    }

    #[test]
    fn macs() {
        assert_eq!(mac("02:42:AC:11:00:02"), Some([2, 0x42, 0xac, 0x11, 0, 2]));
        for wrong in ["", "02:42", "02:42:ac:11:00:02:03", "2:42:ac:11:00:02", "02:42:ac:11:00:0g"] {
            assert_eq!(mac(wrong), None, "{wrong}");
        }
    }
}
