//! A container's link: a network namespace, and a veth pair with one end on the bridge and the other made directly in
//! the namespace; moving it there afterwards would wait for the kernel many times longer.
//!
//! A thread enters the new namespace and never comes back: it ends with its work. Nobody holds the namespace but the
//! descriptor; when the last one and the last process in it are gone, the kernel takes both ends of the pair away.

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    thread,
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{
        InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
        LinkMessage,
    },
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns, unshare},
};

use crate::network::{Error, netlink::Conversation, subnet::Subnet};

/// The loopback's index in every namespace.
const LOOPBACK: u32 = 1;

/// What a container's link is to be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Name of the end on the host.
    pub(crate) outside: String,
    /// Name of the container's end.
    pub(crate) inside: String,
    /// Index of the bridge.
    pub(crate) bridge: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) addresses: Vec<(IpAddr, Subnet)>,
    pub(crate) mtu: u32,
    /// Nothing is sent to the bridge's other isolated ports.
    pub(crate) isolated: bool,
}

/// Docker's rule: two fixed bytes, of which the first says "locally administered", and the address. So an address that
/// is given again has the same MAC, and what neighbours remember is still true.
pub(crate) fn mac_of(address: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        // The last 32 bits are as good within one subnet.
        IpAddr::V6(address) => (u128::from(address) as u32).to_be_bytes(),
    };
    [0x02, 0x42, a, b, c, d]
}

/// Name of the host's end of an endpoint's pair, as Docker's look.
pub(crate) fn outside(endpoint_id: &str) -> String {
    format!("veth{}", endpoint_id.get(..7).unwrap_or(endpoint_id))
}

/// Makes a namespace with the loopback up and these links, everything else by these gateways. Leaves the calling thread in
/// the new namespace: call it on a thread that ends.
pub(crate) fn make(plans: &[Plan], gateways: &[IpAddr]) -> Result<OwnedFd, Error> {
    let mut outside = Conversation::route().map_err(Error::netlink("cannot talk about links", "the host"))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Io {
        what: "cannot make a network namespace",
        path: "/proc/thread-self/ns/net".into(),
        source: errno.into(),
    })?;
    let namespace = current()?;
    let mut inside = Conversation::route().map_err(Error::netlink("cannot talk about links", "a new namespace"))?;
    // Without an IPv6 address a link has no part in IPv6 either, as with Docker. A kernel without IPv6 has no such file.
    if !plans.is_empty() {
        let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    }
    inside
        .ask([(set_up(LOOPBACK), 0)])
        .map_err(Error::netlink("cannot bring up the loopback of", "a new namespace"))?;
    for plan in plans {
        connect(plan, &namespace, &mut outside, &mut inside)?;
    }
    let routes = gateways.iter().map(|gateway| (default_route(*gateway), NLM_F_CREATE | NLM_F_EXCL));
    routes_in(&mut inside, routes)?;
    Ok(namespace)
}

/// Gives a container that runs another link. Leaves the calling thread in its namespace: call it on a thread that ends.
pub(crate) fn plug(namespace: &OwnedFd, plan: &Plan) -> Result<(), Error> {
    let mut outside = Conversation::route().map_err(Error::netlink("cannot talk about links", "the host"))?;
    enter(namespace.as_fd())?;
    let mut inside = Conversation::route().map_err(Error::netlink("cannot talk about links", "the container"))?;
    let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    let done = connect(plan, namespace, &mut outside, &mut inside);
    if done.is_err() {
        let _ = unplug(&mut outside, &plan.outside);
    }
    done
}

/// Takes a container's link away by its end on the host; one that is not there is no error.
pub(crate) fn unplug(host: &mut Conversation, outside: &str) -> Result<(), Error> {
    super::bridge::remove(host, outside)
}

/// Which gateways a container's packets to everywhere take. Leaves the calling thread in its namespace.
pub(crate) fn lead(namespace: &OwnedFd, gateways: &[IpAddr]) -> Result<(), Error> {
    enter(namespace.as_fd())?;
    let mut inside = Conversation::route().map_err(Error::netlink("cannot talk about routes", "the container"))?;
    for six in [false, true] {
        let gateway = gateways.iter().find(|gateway| gateway.is_ipv6() == six);
        let result = match gateway {
            Some(gateway) => inside.ask([(default_route(*gateway), NLM_F_CREATE | NLM_F_REPLACE)]),
            None => {
                let RouteNetlinkMessage::NewRoute(mut route) = default_route(unspecified(six)) else { continue };
                route.attributes.clear();
                match inside.ask([(RouteNetlinkMessage::DelRoute(route), 0)]) {
                    Err(refused) if matches!(refused.code, libc::ESRCH | libc::EAFNOSUPPORT | libc::ENETDOWN) => Ok(()),
                    other => other,
                }
            }
        };
        result.map_err(Error::netlink("cannot change the default route of", "the container"))?;
    }
    Ok(())
}

fn unspecified(six: bool) -> IpAddr {
    if six { IpAddr::from([0u16; 8]) } else { IpAddr::from([0u8; 4]) }
}

fn connect(
    plan: &Plan,
    namespace: &OwnedFd,
    outside: &mut Conversation,
    inside: &mut Conversation,
) -> Result<(), Error> {
    let pair = [(pair(plan, namespace), NLM_F_CREATE | NLM_F_EXCL)];
    outside.ask(pair).map_err(Error::netlink("cannot make the link", &plan.outside))?;
    let name = plan.inside.as_str();
    let index = if_nametoindex(name)
        .map_err(|errno| Error::netlink("cannot find the link", name)(io::Error::from(errno).into()))?;
    if plan.addresses.iter().any(|(_, subnet)| subnet.is_ipv6()) {
        let path = |what: &str| format!("/proc/sys/net/ipv6/conf/{name}/{what}");
        for (what, value) in [("accept_ra", "0"), ("disable_ipv6", "0")] {
            fs::write(path(what), value).map_err(Error::io("cannot change the kernel's setting", path(what)))?;
        }
    }
    let addresses = plan.addresses.iter();
    let addresses = addresses.map(|(own, subnet)| (address(index, *own, *subnet), NLM_F_CREATE | NLM_F_EXCL));
    let requests = addresses.chain([(set_up(index), 0)]).collect::<Vec<_>>();
    inside.ask(requests).map_err(Error::netlink("cannot set up the container's link", name))?;
    let port = (port(plan), 0);
    outside.ask([port]).map_err(Error::netlink("cannot set up the link", &plan.outside))
}

fn routes_in(inside: &mut Conversation, routes: impl Iterator<Item = (RouteNetlinkMessage, u16)>) -> Result<(), Error> {
    let routes: Vec<_> = routes.collect();
    if routes.is_empty() {
        return Ok(());
    }
    inside.ask(routes).map_err(Error::netlink("cannot set the default route of", "a new namespace"))
}

fn enter(namespace: BorrowedFd<'_>) -> Result<(), Error> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Io {
        what: "cannot enter a container's network namespace",
        path: "/proc/thread-self/ns/net".into(),
        source: errno.into(),
    })
}

/// Runs what leaves its thread in another namespace, on a thread of its own.
pub(crate) fn apart<T: Send>(body: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let started = thread::Builder::new().name("network".into()).spawn_scoped(scope, body);
        let started = started.map_err(Error::io("cannot start a thread for", "a network namespace"))?;
        started.join().unwrap_or(Err(Error::Panicked { what: "working in a network namespace" }))
    })
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
        LinkAttribute::IfName(plan.inside.clone()),
        LinkAttribute::Address(plan.mac.to_vec()),
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
fn port(plan: &Plan) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    let mut flags = vec![InfoBridgePort::HairpinMode(true)];
    if plan.isolated {
        flags.push(InfoBridgePort::Isolated(true));
    }
    link.attributes = vec![
        LinkAttribute::IfName(plan.outside.clone()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(flags)),
        ]),
    ];
    RouteNetlinkMessage::NewLink(link)
}

/// An address with its subnet for a link.
pub(crate) fn address(index: u32, address: IpAddr, subnet: Subnet) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.prefix_len = subnet.prefix();
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    if address.is_ipv6() {
        message.header.family = AddressFamily::Inet6;
        // Nobody else can have it, so nobody waits to find that out.
        message.header.flags = AddressHeaderFlags::Nodad;
    } else {
        message.header.family = AddressFamily::Inet;
        message.attributes.extend(subnet.broadcast().map(AddressAttribute::Broadcast));
    }
    RouteNetlinkMessage::NewAddress(message)
}

fn default_route(gateway: IpAddr) -> RouteNetlinkMessage {
    let mut route = RouteMessage::default();
    let (family, gateway) = match gateway {
        IpAddr::V4(gateway) => (AddressFamily::Inet, RouteAddress::Inet(gateway)),
        IpAddr::V6(gateway) => (AddressFamily::Inet6, RouteAddress::Inet6(gateway)),
    };
    route.header.address_family = family;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Boot;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route.attributes = vec![RouteAttribute::Gateway(gateway)];
    RouteNetlinkMessage::NewRoute(route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_follows_from_the_address() {
        assert_eq!(mac_of([172, 30, 0, 2].into()), [0x02, 0x42, 0xac, 0x1e, 0x00, 0x02]);
        assert_eq!(mac_of("fd00::1:2".parse().unwrap()), [0x02, 0x42, 0x00, 0x01, 0x00, 0x02]);
    }
}
