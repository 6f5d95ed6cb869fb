//! The bridge on the host: made where it is missing, taken over where it is there, never removed (containers may hang on
//! it while no service runs).

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use crate::network::{
    Error, Settings, link,
    netlink::{Conversation, Refused},
    settings::POOLS,
    subnet::Subnet,
};

/// MTU where no link of the host's says otherwise.
const ETHERNET: u32 = 1500;
/// Routes shorter than this stand for "everything", as a VPN installs them in two halves; they overlap nothing.
const EVERYTHING: u8 = 1;

/// The bridge as it is.
#[derive(Clone, Debug)]
pub(crate) struct Bridge {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) subnet: Subnet,
    /// Of the containers' links.
    pub(crate) mtu: u32,
}

impl Bridge {
    /// Makes it or takes it over, with its address, up, and lets the host forward for it.
    pub(crate) fn open(settings: &Settings) -> Result<Self, Error> {
        let name = &settings.bridge;
        let failed = |what| Error::netlink(what, name);
        let mut kernel = Conversation::route().map_err(failed("cannot talk about the bridge"))?;
        let links = links(&mut kernel).map_err(failed("cannot list links beside"))?;
        let addresses = addresses(&mut kernel).map_err(failed("cannot list the addresses of"))?;
        let routes = routes(&mut kernel).map_err(failed("cannot list routes beside"))?;
        let there = links.iter().find(|link| link.name == *name);
        if there.is_some_and(|link| !link.bridge) {
            return Err(Error::NoBridge { name: name.clone() });
        }
        let index = there.map(|link| link.index);
        let has: Vec<Subnet> = addresses
            .iter()
            .filter(|(on, address, subnet)| Some(*on) == index && *address == subnet.gateway())
            .map(|(_, _, subnet)| *subnet)
            .collect();
        let others: Vec<_> = routes.into_iter().filter(|route| Some(route.link) != index).collect();
        let subnet = choose(settings, &has, &others, &links)?;
        let index = match index {
            Some(index) => index,
            None => {
                let made = kernel.ask([(new(name, subnet), NLM_F_CREATE | NLM_F_EXCL)]);
                made.map_err(failed("cannot make the bridge"))?;
                nix::net::if_::if_nametoindex(name.as_str())
                    .map_err(|errno| failed("cannot find the bridge")(std::io::Error::from(errno).into()))?
            }
        };
        if !has.contains(&subnet) {
            let address = link::address(index, subnet.gateway(), subnet);
            kernel.ask([(address, NLM_F_CREATE)]).map_err(failed("cannot give its address to"))?;
        }
        kernel.ask([(link::set_up(index), 0)]).map_err(failed("cannot bring up"))?;
        allow(name)?;
        let default = others.iter().find(|route| route.subnet.prefix() == 0).map(|route| route.link);
        let outward = links.iter().find(|link| Some(link.index) == default).map(|link| link.mtu);
        let mtu = if settings.mtu != 0 { settings.mtu } else { outward.unwrap_or(ETHERNET) };
        Ok(Self { name: name.clone(), index, subnet, mtu })
    }
}

/// The configured subnet, the one that the bridge has, or the first that is free.
fn choose(settings: &Settings, has: &[Subnet], others: &[Route], links: &[Link]) -> Result<Subnet, Error> {
    let taken = |subnet: Subnet| {
        others.iter().find(|route| route.subnet.prefix() > EVERYTHING && route.subnet.overlaps(subnet))
    };
    if let Some(text) = &settings.subnet {
        let subnet = Subnet::parse(text).map_err(|why| Error::BadSubnet { subnet: text.clone(), why })?;
        return match taken(subnet) {
            Some(route) if !has.contains(&subnet) => {
                let link = links.iter().find(|link| link.index == route.link);
                let link = link.map_or_else(|| "an unknown link".into(), |link| link.name.clone());
                Err(Error::Overlap { subnet: text.clone(), route: route.subnet.to_string(), link })
            }
            _ => Ok(subnet),
        };
    }
    if let Some(subnet) = has.first() {
        return Ok(*subnet);
    }
    let pools = POOLS.iter().filter_map(|text| Subnet::parse(text).ok());
    let free = pools.into_iter().find(|subnet| taken(*subnet).is_none());
    free.ok_or_else(|| Error::NoSubnetLeft { tried: POOLS.join(", ") })
}

/// Forwarding at all, and, on this bridge alone, packets that once had a loopback address: how 127.0.0.1 reaches a
/// published port. The firewall table sees to it that no container can use that to reach the host's loopback.
fn allow(name: &str) -> Result<(), Error> {
    for path in ["/proc/sys/net/ipv4/ip_forward", &format!("/proc/sys/net/ipv4/conf/{name}/route_localnet")] {
        // Where somebody set it already, it need not be writable.
        if fs::read_to_string(path).is_ok_and(|value| value.trim() == "1") {
            continue;
        }
        fs::write(path, "1").map_err(Error::io("cannot write 1 to", path))?;
    }
    Ok(())
}

/// With a MAC of its own: otherwise the bridge takes one of its ports' and changes it as ports come and go.
fn new(name: &str, subnet: Subnet) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes = vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::Address(link::mac_of(subnet.gateway()).to_vec()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ];
    RouteNetlinkMessage::NewLink(link)
}

#[derive(Debug)]
struct Link {
    index: u32,
    name: String,
    mtu: u32,
    bridge: bool,
}

fn links(kernel: &mut Conversation) -> Result<Vec<Link>, Refused> {
    let all = kernel.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let read = |message| {
        let RouteNetlinkMessage::NewLink(link) = message else { return None };
        let mut read = Link { index: link.header.index, name: String::new(), mtu: ETHERNET, bridge: false };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => read.name = name,
                LinkAttribute::Mtu(mtu) => read.mtu = mtu,
                LinkAttribute::LinkInfo(info) => read.bridge = info.contains(&LinkInfo::Kind(InfoKind::Bridge)),
                _ => {}
            }
        }
        Some(read)
    };
    Ok(all.into_iter().filter_map(read).collect())
}

fn addresses(kernel: &mut Conversation) -> Result<Vec<(u32, Ipv4Addr, Subnet)>, Refused> {
    let mut request = AddressMessage::default();
    request.header.family = AddressFamily::Inet;
    let all = kernel.dump(RouteNetlinkMessage::GetAddress(request))?;
    let read = |message| {
        let RouteNetlinkMessage::NewAddress(address) = message else { return None };
        address.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(local)) => {
                Some((address.header.index, *local, Subnet::of(*local, address.header.prefix_len)?))
            }
            _ => None,
        })
    };
    Ok(all.into_iter().filter_map(read).collect())
}

#[derive(Debug)]
struct Route {
    subnet: Subnet,
    link: u32,
}

/// IPv4 routes to somewhere, whatever table they are in.
fn routes(kernel: &mut Conversation) -> Result<Vec<Route>, Refused> {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet;
    let all = kernel.dump(RouteNetlinkMessage::GetRoute(request))?;
    let read = |message| {
        let RouteNetlinkMessage::NewRoute(route) = message else { return None };
        if route.header.kind != RouteType::Unicast {
            return None;
        }
        let (mut to, mut link) = (Ipv4Addr::UNSPECIFIED, 0);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => to = *address,
                RouteAttribute::Oif(index) => link = *index,
                _ => {}
            }
        }
        Some(Route { subnet: Subnet::of(to, route.header.destination_prefix_length)?, link })
    };
    Ok(all.into_iter().filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> Route {
        let (address, prefix) = text.split_once('/').unwrap();
        Route { subnet: Subnet::of(address.parse().unwrap(), prefix.parse().unwrap()).unwrap(), link: 7 }
    }

    fn chosen(subnet: Option<&str>, has: &[&str], routes: &[&str]) -> Result<String, Error> {
        let settings = Settings { subnet: subnet.map(Into::into), ..Settings::default() };
        let has: Vec<_> = has.iter().map(|text| Subnet::parse(text).unwrap()).collect();
        let routes: Vec<_> = routes.iter().map(|text| route(text)).collect();
        let links = [Link { index: 7, name: "eth7".into(), mtu: 1500, bridge: false }];
        choose(&settings, &has, &routes, &links).map(|subnet| subnet.to_string())
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
        assert!(chosen(Some("10.3.0.0"), &[], &[]).is_err());
    }
}
