//! What the host has: links, addresses, routes. Looked at anew each time, for others change it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};

use crate::network::{
    netlink::{Conversation, Refused},
    subnet::Subnet,
};

/// MTU where no link of the host's says otherwise.
const ETHERNET: u32 = 1500;
/// Routes shorter than this stand for "everything", as a VPN installs them in two halves; they overlap nothing.
const EVERYTHING: u8 = 1;

/// A look at the host.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) links: Vec<Link>,
    /// With the link that has them.
    pub(crate) addresses: Vec<(u32, IpAddr, Subnet)>,
    pub(crate) routes: Vec<Route>,
}

#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    pub(crate) bridge: bool,
    /// What somebody wrote beside it.
    pub(crate) alias: String,
}

/// A route to somewhere, whatever table it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) subnet: Subnet,
    pub(crate) link: u32,
}

impl Host {
    /// Looks.
    pub(crate) fn look(kernel: &mut Conversation) -> Result<Self, Refused> {
        Ok(Self { links: links(kernel)?, addresses: addresses(kernel)?, routes: routes(kernel)? })
    }

    pub(crate) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// MTU of the way to everywhere.
    pub(crate) fn outward_mtu(&self) -> u32 {
        let default = self.routes.iter().find(|route| route.subnet.prefix() == 0).map(|route| route.link);
        self.links.iter().find(|link| Some(link.index) == default).map_or(ETHERNET, |link| link.mtu)
    }

    /// A route that does not stand for everything and has an address of the subnet, by any other link than `own`.
    pub(crate) fn overlapping(&self, subnet: Subnet, own: Option<u32>) -> Option<&Route> {
        self.routes.iter().find(|route| {
            Some(route.link) != own && route.subnet.prefix() > EVERYTHING && route.subnet.overlaps(subnet)
        })
    }

    /// A link's name, for people.
    pub(crate) fn name_of(&self, index: u32) -> String {
        let link = self.links.iter().find(|link| link.index == index);
        link.map_or_else(|| "an unknown link".into(), |link| link.name.clone())
    }
}

fn links(kernel: &mut Conversation) -> Result<Vec<Link>, Refused> {
    let all = kernel.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let read = |message| {
        let RouteNetlinkMessage::NewLink(link) = message else { return None };
        let index = link.header.index;
        let mut read = Link { index, name: String::new(), mtu: ETHERNET, bridge: false, alias: String::new() };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => read.name = name,
                LinkAttribute::IfAlias(alias) => read.alias = alias,
                LinkAttribute::Mtu(mtu) => read.mtu = mtu,
                LinkAttribute::LinkInfo(info) => read.bridge = info.contains(&LinkInfo::Kind(InfoKind::Bridge)),
                _ => {}
            }
        }
        Some(read)
    };
    Ok(all.into_iter().filter_map(read).collect())
}

fn addresses(kernel: &mut Conversation) -> Result<Vec<(u32, IpAddr, Subnet)>, Refused> {
    let all = kernel.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let read = |message| {
        let RouteNetlinkMessage::NewAddress(address) = message else { return None };
        let (mut local, mut other) = (None, None);
        for attribute in &address.attributes {
            match attribute {
                AddressAttribute::Local(own) => local = Some(*own),
                // With IPv6 there is no other name for one's own.
                AddressAttribute::Address(either) => other = Some(*either),
                _ => {}
            }
        }
        let own = local.or(other)?;
        Some((address.header.index, own, Subnet::of(own, address.header.prefix_len)?))
    };
    Ok(all.into_iter().filter_map(read).collect())
}

fn routes(kernel: &mut Conversation) -> Result<Vec<Route>, Refused> {
    let mut list = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let all = match kernel.dump(RouteNetlinkMessage::GetRoute(request)) {
            // A kernel without this family has no routes of it.
            Err(_) if family == AddressFamily::Inet6 => Vec::new(),
            other => other?,
        };
        list.extend(all.into_iter().filter_map(route));
    }
    Ok(list)
}

fn route(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let mut to: IpAddr = match route.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut link = 0;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = (*address).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => to = (*address).into(),
            RouteAttribute::Oif(index) => link = *index,
            _ => {}
        }
    }
    Some(Route { subnet: Subnet::of(to, route.header.destination_prefix_length)?, link })
}
