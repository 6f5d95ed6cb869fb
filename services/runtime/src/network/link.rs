//! A container's link: a network namespace, and a veth pair with one end on the bridge and the other made directly in
//! the namespace as `eth0`; moving it there afterwards would wait for the kernel many times longer.
//!
//! A thread enters the new namespace and never comes back: it ends with its work. Nobody holds the namespace but the
//! descriptor; when the last one and the last process in it are gone, the kernel takes both ends of the pair away.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{
        InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
        LinkMessage,
    },
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};

use crate::network::{Error, netlink::Conversation, subnet::Subnet};

/// The container's end.
const INSIDE: &str = "eth0";
/// The loopback's index in every namespace.
const LOOPBACK: u32 = 1;

/// What a container's link is to be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Name of the end on the host.
    pub(crate) outside: String,
    /// Index of the bridge.
    pub(crate) bridge: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) subnet: Subnet,
    pub(crate) mtu: u32,
}

/// Docker's rule: two fixed bytes, of which the first says "locally administered", and the address. So an address that
/// is given again has the same MAC, and what neighbours remember is still true.
pub(crate) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// Name of the host's end of an endpoint's pair, as Docker's look.
pub(crate) fn outside(endpoint_id: &str) -> String {
    format!("veth{}", endpoint_id.get(..7).unwrap_or(endpoint_id))
}

/// Makes a namespace with the loopback up and, where there is a plan, `eth0`. Leaves the calling thread in the new
/// namespace: call it on a thread that ends.
pub(crate) fn make(plan: Option<&Plan>) -> Result<OwnedFd, Error> {
    let mut outside = Conversation::route().map_err(Error::netlink("cannot talk about links", "the host"))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Io {
        what: "cannot make a network namespace",
        path: "/proc/thread-self/ns/net".into(),
        source: errno.into(),
    })?;
    let namespace = current()?;
    let mut inside = Conversation::route().map_err(Error::netlink("cannot talk about links", "a new namespace"))?;
    let mut requests = vec![(set_up(LOOPBACK), 0)];
    if let Some(plan) = plan {
        // Containers have no IPv6 address yet; without one, the link has no part in IPv6 either, as with Docker.
        // A kernel without IPv6 has no such file.
        let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        let pair = [(pair(plan, &namespace), NLM_F_CREATE | NLM_F_EXCL)];
        outside.ask(pair).map_err(Error::netlink("cannot make the link", &plan.outside))?;
        let index = if_nametoindex(INSIDE)
            .map_err(|errno| Error::netlink("cannot find the link", INSIDE)(io::Error::from(errno).into()))?;
        requests.push((address(index, plan.address, plan.subnet), NLM_F_CREATE | NLM_F_EXCL));
        requests.push((set_up(index), 0));
        requests.push((default_route(plan.subnet.gateway()), NLM_F_CREATE | NLM_F_EXCL));
    }
    inside.ask(requests).map_err(Error::netlink("cannot set up the links of the namespace", INSIDE))?;
    if let Some(plan) = plan {
        outside.ask([(hairpin(&plan.outside), 0)]).map_err(Error::netlink("cannot set up the link", &plan.outside))?;
    }
    Ok(namespace)
}

/// The network namespace of the calling thread.
pub(crate) fn current() -> Result<OwnedFd, Error> {
    let path = "/proc/thread-self/ns/net";
    Ok(File::open(path).map_err(Error::io("cannot open", path))?.into())
}

/// The network namespace of a process.
pub(crate) fn of_process(pid: u32) -> Result<OwnedFd, Error> {
    Ok(File::open(format!("/proc/{pid}/ns/net")).map_err(|source| Error::Namespace { pid, source })?.into())
}

pub(crate) fn set_up(index: u32) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(link)
}

/// The end on the bridge comes up as it is made; the other can do so only when the pair is whole.
fn pair(plan: &Plan, namespace: &OwnedFd) -> RouteNetlinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(INSIDE.into()),
        LinkAttribute::Address(mac_of(plan.address).to_vec()),
        LinkAttribute::Mtu(plan.mtu),
        LinkAttribute::NetNsFd(namespace.as_raw_fd()),
    ];
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes = vec![
        LinkAttribute::IfName(plan.outside.clone()),
        LinkAttribute::Mtu(plan.mtu),
        LinkAttribute::Controller(plan.bridge),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    RouteNetlinkMessage::NewLink(link)
}

/// The bridge may send back through the port that something came from: a container that calls its own published port.
fn hairpin(name: &str) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
        ]),
    ];
    RouteNetlinkMessage::NewLink(link)
}

/// An address with its subnet for a link.
pub(crate) fn address(index: u32, address: Ipv4Addr, subnet: Subnet) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = subnet.prefix();
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
        AddressAttribute::Broadcast(subnet.broadcast()),
    ];
    RouteNetlinkMessage::NewAddress(message)
}

fn default_route(gateway: Ipv4Addr) -> RouteNetlinkMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Boot;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway))];
    RouteNetlinkMessage::NewRoute(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_follows_from_the_address() {
        assert_eq!(mac_of(Ipv4Addr::new(172, 30, 0, 2)), [0x02, 0x42, 0xac, 0x1e, 0x00, 0x02]);
    }
}
