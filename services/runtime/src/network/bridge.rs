//! Bridges on the host. The default one is made where it is missing, taken over where it is there, and never removed
//! (containers may hang on it while no service runs). One of a network goes with the network; it carries a note of whose
//! it is, so that one that a crash left behind is known.

use std::{fs, net::IpAddr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use crate::network::{
    Error, Settings,
    host::{Host, Link},
    link,
    netlink::Conversation,
    settings::POOLS,
    subnet::Subnet,
};

/// What a bridge is to be.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// The note; empty for one that may be anybody's.
    pub(crate) alias: String,
    /// Its own addresses in its subnets.
    pub(crate) addresses: Vec<(IpAddr, Subnet)>,
    pub(crate) mtu: Option<u32>,
}

/// The bridge as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub(crate) index: u32,
    /// Of the containers' links.
    pub(crate) mtu: u32,
}

impl Wanted {
    /// Makes it or takes it over, with its addresses, up, and lets the host forward for it. Can be done again.
    pub(crate) fn make(&self, kernel: &mut Conversation, host: &Host) -> Result<Bridge, Error> {
        let name = &self.name;
        let failed = |what| Error::netlink(what, name);
        let there = host.link(name);
        if there.is_some_and(|link| !link.bridge) {
            return Err(Error::NoBridge { name: name.clone() });
        }
        // One without a note is ours too, where a crash came between making it and writing the note: before a network is
        // written down, nothing has its bridge's name.
        if there.is_some_and(|link| !link.alias.is_empty() && !self.alias.is_empty() && link.alias != self.alias) {
            return Err(Error::Foreign { name: name.clone() });
        }
        let index = match there {
            Some(link) => link.index,
            None => {
                let made = kernel.ask([(self.new_link(), NLM_F_CREATE | NLM_F_EXCL)]);
                made.map_err(failed("cannot make the bridge"))?;
                nix::net::if_::if_nametoindex(name.as_str())
                    .map_err(|errno| failed("cannot find the bridge")(std::io::Error::from(errno).into()))?
            }
        };
        if there.is_none_or(|link| link.alias != self.alias) && !self.alias.is_empty() {
            // The kernel does not take it with the rest.
            kernel.ask([(self.note(index), 0)]).map_err(failed("cannot write a note beside"))?;
        }
        let six = self.addresses.iter().any(|(_, subnet)| subnet.is_ipv6());
        allow(name, six, host)?;
        for (address, subnet) in &self.addresses {
            if !host.addresses.contains(&(index, *address, *subnet)) {
                let address = link::address(index, *address, *subnet);
                kernel.ask([(address, NLM_F_CREATE)]).map_err(failed("cannot give its address to"))?;
            }
        }
        kernel.ask([(link::set_up(index), 0)]).map_err(failed("cannot bring up"))?;
        Ok(Bridge { index, mtu: self.mtu.unwrap_or_else(|| host.outward_mtu()) })
    }

    /// With a MAC of its own: otherwise the bridge takes one of its ports' and changes it as ports come and go.
    fn new_link(&self) -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes = vec![
            LinkAttribute::IfName(self.name.clone()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        link.attributes
            .extend(self.addresses.first().map(|(own, _)| LinkAttribute::Address(link::mac_of(*own).into())));
        link.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        RouteNetlinkMessage::NewLink(link)
    }

    fn note(&self, index: u32) -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![LinkAttribute::IfAlias(self.alias.clone())];
        RouteNetlinkMessage::SetLink(link)
    }
}

/// Takes a bridge away; one that is not there is no error.
pub(crate) fn remove(kernel: &mut Conversation, name: &str) -> Result<(), Error> {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.into())];
    match kernel.ask([(RouteNetlinkMessage::DelLink(link), 0)]) {
        Err(refused) if refused.code == libc::ENODEV => Ok(()),
        removed => removed.map_err(Error::netlink("cannot remove the bridge", name)),
    }
}

/// The default bridge as configured, and the subnet of it: the configured one, the one that it has, or the first that
/// is free.
pub(crate) fn default(settings: &Settings, host: &Host) -> Result<(Wanted, Subnet), Error> {
    let there = host.link(&settings.bridge);
    if let Some(Link { bridge: false, name, .. }) = there {
        return Err(Error::NoBridge { name: name.clone() });
    }
    let index = there.map(|link| link.index);
    let has: Vec<Subnet> = host
        .addresses
        .iter()
        .filter(|(on, address, subnet)| Some(*on) == index && !subnet.is_ipv6() && *address == subnet.gateway())
        .map(|(_, _, subnet)| *subnet)
        .collect();
    let subnet = choose(settings, &has, host, index)?;
    let wanted = Wanted {
        name: settings.bridge.clone(),
        alias: String::new(),
        addresses: vec![(subnet.gateway(), subnet)],
        mtu: Some(settings.mtu).filter(|mtu| *mtu != 0),
    };
    Ok((wanted, subnet))
}

fn choose(settings: &Settings, has: &[Subnet], host: &Host, index: Option<u32>) -> Result<Subnet, Error> {
    if let Some(text) = &settings.subnet {
        let refused = |why| Error::BadSubnet { subnet: text.clone(), why };
        let subnet = Subnet::parse(text).map_err(refused)?;
        if subnet.is_ipv6() {
            return Err(refused("the default bridge has IPv4 only"));
        }
        return match host.overlapping(subnet, index) {
            Some(route) if !has.contains(&subnet) => {
                let link = host.name_of(route.link);
                Err(Error::Overlap { subnet: text.clone(), route: route.subnet.to_string(), link })
            }
            _ => Ok(subnet),
        };
    }
    if let Some(subnet) = has.first() {
        return Ok(*subnet);
    }
    let pools = POOLS.iter().filter_map(|text| Subnet::parse(text).ok());
    let free = pools.into_iter().find(|subnet| host.overlapping(*subnet, index).is_none());
    free.ok_or_else(|| Error::NoSubnetLeft { tried: POOLS.join(", ") })
}

/// Forwarding at all, and, on this bridge alone, packets that once had a loopback address: how 127.0.0.1 reaches a
/// published port. The firewall table sees to it that no container can use that to reach the host's loopback.
fn allow(name: &str, six: bool, host: &Host) -> Result<(), Error> {
    set("/proc/sys/net/ipv4/ip_forward", "1")?;
    set(&format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), "1")?;
    let of = |link: &str, what: &str| format!("/proc/sys/net/ipv6/conf/{link}/{what}");
    if !six {
        return Ok(());
    }
    // What somebody announces from within a container is nothing to the host.
    set(&of(name, "accept_ra"), "0")?;
    set(&of(name, "disable_ipv6"), "0")?;
    let all = of("all", "forwarding");
    if fs::read_to_string(&all).is_ok_and(|value| value.trim() == "0") {
        // A host that forwards believes no router unless it is told to: those that did shall do so still.
        for link in host.links.iter().map(|link| of(&link.name, "accept_ra")).chain([of("default", "accept_ra")]) {
            if fs::read_to_string(&link).is_ok_and(|value| value.trim() == "1") {
                set(&link, "2")?;
            }
        }
        set(&all, "1")?;
    }
    Ok(())
}

/// Where somebody set it already, it need not be writable.
fn set(path: &str, value: &str) -> Result<(), Error> {
    if fs::read_to_string(path).is_ok_and(|is| is.trim() == value) {
        return Ok(());
    }
    fs::write(path, value).map_err(Error::io("cannot change the kernel's setting", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::host::Route;

    fn chosen(subnet: Option<&str>, has: &[&str], routes: &[&str]) -> Result<String, Error> {
        let settings = Settings { subnet: subnet.map(Into::into), ..Settings::default() };
        let has: Vec<_> = has.iter().map(|text| Subnet::parse(text).unwrap()).collect();
        let routes = routes.iter().map(|text| Route { subnet: Subnet::read(text).unwrap(), link: 7 }).collect();
        let links = vec![Link { index: 7, name: "eth7".into(), mtu: 1500, bridge: false, alias: String::new() }];
        let host = Host { links, routes, ..Host::default() };
        choose(&settings, &has, &host, None).map(|subnet| subnet.to_string())
    }

    #[test]
    fn a_free_subnet_is_found() {
        assert_eq!(chosen(None, &[], &[]).unwrap(), POOLS[0]);
        assert_eq!(chosen(None, &[], &["0.0.0.0/0", "128.0.0.0/1", "172.30.7.0/24"]).unwrap(), POOLS[1]);
        assert_eq!(chosen(None, &["10.3.0.0/16"], &["10.0.0.0/8"]).unwrap(), "10.3.0.0/16", "it is there already");
        assert!(chosen(None, &[], &["172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/8"]).is_err());
    }

    #[test]
    fn a_configured_subnet_is_taken_or_refused() {
        assert_eq!(chosen(Some("10.3.0.0/16"), &["172.30.0.0/16"], &[]).unwrap(), "10.3.0.0/16");
        let refused = chosen(Some("10.3.0.0/16"), &[], &["10.3.9.0/24"]).unwrap_err().to_string();
        assert!(refused.contains("10.3.0.0/16") && refused.contains("10.3.9.0/24 of eth7"), "{refused}");
        assert!(chosen(Some("10.3.0.0"), &[], &[]).is_err() && chosen(Some("fd00::/64"), &[], &[]).is_err());
    }
}
