//! Published ports: what was asked for, checked, with a port chosen where none was named, and held.
//!
//! A published port is held by a bound socket of ours that never listens: no other process can take the port while the
//! container lives, and the kernel itself says whether it is free. The firewall's rules redirect what arrives before a
//! socket is looked for.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use berth_proto::berth::runtime::v1::PortMapping;
use rand::Rng as _;
use rustix::net::{AddressFamily, Protocol as Number, Shutdown, SocketFlags, SocketType, ipproto, sockopt};

use crate::network::Error;

/// A transport protocol that ports can be published for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "" | "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// As in `/etc/protocols` and in IP headers.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// One port of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostPort {
    /// Unspecified for every address of the host's.
    pub(crate) address: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

impl HostPort {
    /// Whether a packet could be meant for both.
    pub(crate) fn clashes(self, other: Self) -> bool {
        let family = self.address.is_ipv4() == other.address.is_ipv4();
        let any = self.address.is_unspecified() || other.address.is_unspecified();
        self.protocol == other.protocol && self.port == other.port && family && (any || self.address == other.address)
    }
}

/// A port of the host's, and the port of the container's that it leads to.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) host: HostPort,
    pub(crate) container_port: u16,
    /// Holds the port; `None` where nobody else could take it, or where somebody did while no service ran.
    _held: Option<Held>,
}

impl Published {
    /// As the record keeps it.
    pub(crate) fn mapping(&self) -> PortMapping {
        PortMapping {
            host_ip: self.host.address.to_string(),
            host_port: self.host.port.into(),
            container_port: self.container_port.into(),
            protocol: self.host.protocol.name().into(),
            host_port_last: 0,
        }
    }
}

/// Where a container can be reached at all, and where a port is published that names no address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
    /// Address of the host's for ports that name none; every one, where unset.
    pub(crate) binding: Option<IpAddr>,
}

/// What a mapping asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    /// `None` for all of the host's.
    address: Option<IpAddr>,
    protocol: Protocol,
    /// 0 for any that the kernel gives out itself.
    port: u16,
    /// The last of those that will do; `port`, where only that one does.
    last: u16,
    container_port: u16,
}

impl Wanted {
    /// Which one it will be is known before it is looked for.
    fn is_named(&self) -> bool {
        self.port != 0 && self.last == self.port
    }

    /// The addresses of the host's that it means.
    fn addresses(&self, reach: Reach) -> Result<Vec<IpAddr>, Error> {
        let any = |six: bool| if six { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let reached = |address: IpAddr| if address.is_ipv4() { reach.v4 } else { reach.v6 };
        match self.address.or(reach.binding) {
            Some(address) if reached(address) => Ok(vec![address]),
            Some(address) => Err(Error::BadPort {
                port: format!("{}:{}", shown(address), self.port),
                why: format!(
                    "none of the container's networks that have a way out has IPv{0}; publish on an address of the other \
                     family, or connect it to a network with IPv{0}",
                    if address.is_ipv4() { 4 } else { 6 }
                ),
            }),
            None => Ok([false, true].map(any).into_iter().filter(|address| reached(*address)).collect()),
        }
    }
}

/// As it stands before a port.
fn shown(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

fn read(mapping: &PortMapping) -> Result<Wanted, Error> {
    let bad = |port: String, why: &str| Error::BadPort { port, why: why.into() };
    let protocol = Protocol::parse(&mapping.protocol).ok_or_else(|| {
        bad(format!("{}/{}", mapping.container_port, mapping.protocol), "its protocol is none of tcp, udp, sctp")
    })?;
    let address = match mapping.host_ip.trim_matches(['[', ']']) {
        "" => None,
        text => Some(text.parse().map_err(|_| bad(format!("{text}:{}", mapping.host_port), "that is no IP address"))?),
    };
    let host_port =
        |port: u32| u16::try_from(port).map_err(|_| bad(port.to_string(), &format!("invalid hostPort: {port}")));
    let port = host_port(mapping.host_port)?;
    let last = match mapping.host_port_last {
        0 => port,
        last => host_port(last)?,
    };
    if last < port || (port == 0 && last != 0) {
        return Err(bad(format!("{port}-{last}"), "that is no range of ports"));
    }
    let container_port = u16::try_from(mapping.container_port).ok().filter(|port| *port != 0).ok_or_else(|| {
        bad(mapping.container_port.to_string(), &format!("invalid containerPort: {}", mapping.container_port))
    })?;
    Ok(Wanted { address, protocol, port, last, container_port })
}

/// Whether the mappings can be meant, without holding anything.
///
/// # Errors
/// [`Error::BadPort`]
pub(crate) fn check(mappings: &[PortMapping]) -> Result<(), Error> {
    mappings.iter().try_for_each(|mapping| read(mapping).map(|_| ()))
}

/// A port of the host's at several addresses.
type Ports = Vec<(HostPort, Option<Held>)>;

/// Holds every port that is asked for, in the order of the mappings; one that is asked for twice is held once. Named
/// ports come first, so that none of them is chosen for another mapping. Holds none if one cannot be had. Must run in
/// the host's network namespace. `taken` says which ports containers have.
pub(crate) fn hold(
    mappings: &[PortMapping],
    reach: Reach,
    taken: impl Fn(HostPort) -> bool,
) -> Result<Vec<Published>, Error> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for mapping in mappings {
        let read = read(mapping)?;
        if !read.is_named() || !wanted.contains(&read) {
            wanted.push(read);
        }
    }
    let mut published: Vec<Vec<Published>> = wanted.iter().map(|_| Vec::new()).collect();
    for named in [true, false] {
        for (at, wanted) in wanted.iter().enumerate().filter(|(_, wanted)| wanted.is_named() == named) {
            let ours = |host: HostPort| taken(host) || published.iter().flatten().any(|p| p.host.clashes(host));
            let protocol = wanted.protocol;
            let port = |port: u16, addresses: &[IpAddr]| -> Result<Ports, Error> {
                let hosts = addresses.iter().map(|address| HostPort { address: *address, protocol, port });
                hosts.map(|host| Ok((host, one(host, ours)?))).collect()
            };
            let addresses = wanted.addresses(reach)?;
            let held = match wanted.port {
                _ if named => port(wanted.port, &addresses)?,
                0 => any(|number| port(number, &addresses), &addresses)?,
                first => out_of(first..=wanted.last, |number| port(number, &addresses), &addresses)?,
            };
            let container_port = wanted.container_port;
            published[at] =
                held.into_iter().map(|(host, held)| Published { host, container_port, _held: held }).collect();
        }
    }
    Ok(published.into_iter().flatten().collect())
}

/// Holds again what a container has since before this service started. What somebody took meanwhile is the container's
/// still, as far as rules go.
pub(crate) fn hold_again(mappings: &[PortMapping]) -> Vec<Published> {
    let mut published = Vec::new();
    for mapping in mappings {
        let Wanted { address, protocol, port, container_port, .. } = match read(mapping) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "a port in a container's record is left out");
                continue;
            }
        };
        let host = HostPort { address: address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), protocol, port };
        let held = one(host, |_| false).unwrap_or_else(|error| {
            tracing::warn!(%error, "another process took a container's port while no runtime service ran");
            None
        });
        published.push(Published { host, container_port, _held: held });
    }
    published
}

fn one(host: HostPort, taken: impl Fn(HostPort) -> bool) -> Result<Option<Held>, Error> {
    let address = shown(host.address);
    let allocated = Error::PortTaken { address: address.clone(), port: host.port };
    if taken(host) {
        return Err(allocated);
    }
    bind(host).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => allocated,
        _ => Error::CannotBind { address, port: host.port, source },
    })
}

/// A free port out of those that the kernel gives out itself, beginning anywhere.
fn any(hold: impl Fn(u16) -> Result<Ports, Error>, addresses: &[IpAddr]) -> Result<Ports, Error> {
    let (first, last) = range();
    let count = u32::from(last - first) + 1;
    let start = rand::rng().random_range(0..count);
    out_of((0..count).map(|step| first + ((start + step) % count) as u16), hold, addresses)
}

/// The first free one of some ports.
fn out_of(
    ports: impl IntoIterator<Item = u16>,
    hold: impl Fn(u16) -> Result<Ports, Error>,
    addresses: &[IpAddr],
) -> Result<Ports, Error> {
    let (mut first, mut last) = (u16::MAX, 0);
    for port in ports {
        (first, last) = (first.min(port), last.max(port));
        match hold(port) {
            Err(Error::PortTaken { .. }) => {}
            held => return held,
        }
    }
    let address = addresses.first().map(|address| shown(*address)).unwrap_or_default();
    Err(Error::NoPortLeft { address, first, last })
}

fn range() -> (u16, u16) {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if 0 < first && first <= last => (first, last),
        _ => (49_153, 65_535),
    }
}

/// A socket that has the port. `None` where the kernel does not know the protocol, so that nobody can have it.
/// A socket that holds a port until it is dropped.
#[derive(Debug)]
pub(super) struct Held(OwnedFd);

impl Drop for Held {
    fn drop(&mut self) {
        // A process that is being started has a copy until it executes its program. With "reuse" on both (TCP), not
        // even that is in the way of whoever of us holds the port next. Failed, the port is free a moment later.
        let _ = sockopt::set_socket_reuseaddr(&self.0, true);
    }
}

fn bind(host: HostPort) -> io::Result<Option<Held>> {
    let address = SocketAddr::new(host.address, host.port);
    let socket = |kind, protocol: Option<Number>| {
        let family = if host.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
        if host.address.is_ipv6() {
            // The same port of IPv4 is another's.
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        Ok::<_, rustix::io::Errno>(socket)
    };
    match host.protocol {
        Protocol::Tcp => {
            let socket = socket(SocketType::STREAM, Some(ipproto::TCP))?;
            // With "reuse" the remains of old connections (TIME_WAIT) are in nobody's way. Without it afterwards, no
            // other socket gets the port, whatever it asks for; that the kernel may not remember that the port was
            // once bound with "reuse", the socket listens for a moment.
            sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &address)?;
            rustix::net::listen(&socket, 0)?;
            rustix::net::shutdown(&socket, Shutdown::Both)?;
            sockopt::set_socket_reuseaddr(&socket, false)?;
            Ok(Some(Held(socket)))
        }
        Protocol::Udp => {
            let socket = socket(SocketType::DGRAM, Some(ipproto::UDP))?;
            // Nothing is ever read from it.
            sockopt::set_socket_recv_buffer_size(&socket, 0)?;
            rustix::net::bind(&socket, &address)?;
            Ok(Some(Held(socket)))
        }
        Protocol::Sctp => match socket(SocketType::STREAM, Some(ipproto::SCTP)) {
            Ok(socket) => {
                rustix::net::bind(&socket, &address)?;
                Ok(Some(Held(socket)))
            }
            Err(rustix::io::Errno::PROTONOSUPPORT | rustix::io::Errno::SOCKTNOSUPPORT) => Ok(None),
            Err(error) => Err(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host_ip: &str, host_port: u32, container_port: u32, protocol: &str) -> PortMapping {
        PortMapping {
            host_ip: host_ip.into(),
            host_port,
            container_port,
            protocol: protocol.into(),
            ..PortMapping::default()
        }
    }

    #[test]
    fn what_cannot_be_published() {
        for (bad, word) in [
            (mapping("", 70_000, 1, ""), "invalid hostPort: 70000"),
            (mapping("", 1, 0, ""), "invalid containerPort: 0"),
            (mapping("x", 1, 1, ""), "no IP address"),
            (mapping("", 1, 1, "icmp"), "protocol"),
        ] {
            let error = check(&[bad]).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    const V4: Reach = Reach { v4: true, v6: false, binding: None };

    #[test]
    fn a_port_is_published_where_the_container_is_reached() {
        let addresses = |host_ip: &str, reach: Reach| {
            let wanted = read(&mapping(host_ip, 80, 80, "")).unwrap();
            wanted.addresses(reach).map(|all| all.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(addresses("", V4).unwrap(), "0.0.0.0");
        assert_eq!(addresses("", Reach { v6: true, ..V4 }).unwrap(), "0.0.0.0 ::");
        assert_eq!(addresses("", Reach { binding: "127.0.0.1".parse().ok(), ..V4 }).unwrap(), "127.0.0.1");
        assert_eq!(addresses("[::1]", Reach { v6: true, ..V4 }).unwrap(), "::1");
        assert!(addresses("::1", V4).unwrap_err().to_string().contains("[::1]:80"));
    }

    #[test]
    fn any_free_port_of_a_range_will_do() {
        let range = PortMapping { host_port_last: 40_001, ..mapping("127.9.8.7", 40_000, 80, "") };
        let first = hold(&[range.clone(), mapping("127.9.8.7", 40_000, 81, "")], V4, |_| false).unwrap();
        let ports: Vec<u16> = first.iter().map(|published| published.host.port).collect();
        assert_eq!(ports, [40_001, 40_000], "the one that is named for another mapping is left to it");
        let none = hold(std::slice::from_ref(&range), V4, |_| false).unwrap_err();
        assert!(matches!(none, Error::NoPortLeft { first: 40_000, last: 40_001, .. }), "{none}");
        assert!(check(&[PortMapping { host_port_last: 39_999, ..range }]).is_err());
    }

    #[test]
    fn every_address_clashes_with_one() {
        let at = |address: [u8; 4], port| HostPort { address: IpAddr::from(address), protocol: Protocol::Tcp, port };
        assert!(at([0; 4], 80).clashes(at([127, 0, 0, 1], 80)));
        assert!(!at([127, 0, 0, 2], 80).clashes(at([127, 0, 0, 1], 80)));
        assert!(!at([0; 4], 80).clashes(HostPort { protocol: Protocol::Udp, ..at([0; 4], 80) }));
    }
}
