//! What is asked of the networks for one container, and what it gets.

use std::{net::IpAddr, os::fd::OwnedFd};

use berth_proto::berth::runtime::v1::{NetworkAttachment, NetworkEndpoint, PortMapping};

use crate::network::Error;

/// Name of the network that a container is in where it asks for none.
pub(crate) const DEFAULT: &str = "bridge";

/// Which network namespace a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One of its own with nothing but the loopback.
    None,
    /// The host's.
    Host,
    /// That of another container.
    Container,
    /// One of its own with a link to each of its networks.
    Bridged,
}

impl Mode {
    /// Reads `ContainerSpec.network_mode`.
    ///
    /// # Errors
    /// The name could not be a network's.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            name if name.starts_with("container:") => Ok(Self::Container),
            name if name.contains(':') => Err(Error::BadMode { mode: name.into() }),
            _ => Ok(Self::Bridged),
        }
    }
}

/// The network that a mode names: the default one under each of its names.
pub(crate) fn named(mode: &str) -> &str {
    if matches!(mode, "" | "default") { DEFAULT } else { mode }
}

/// Which namespace a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// The host's.
    Host,
    /// That of another container, whose first process this is.
    Of(u32),
    /// One of its own.
    Own,
}

/// What one container needs.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The container's id; what [`crate::network::Networks::detach`] is called with.
    pub(crate) id: String,
    /// Its name: networks that have names know it by this.
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
    /// The networks that it is connected to; with a namespace of its own alone.
    pub(crate) networks: Vec<NetworkAttachment>,
    /// Ports to publish; `host_port` 0 for a free one. Where no network leads out, they are not published.
    pub(crate) ports: Vec<PortMapping>,
}

/// What one container got.
#[derive(Debug)]
pub(crate) struct Attached {
    /// Its network namespace; `None` for the host's. The last holder takes the links with it.
    pub(crate) netns: Option<OwnedFd>,
    /// Its place in each network.
    pub(crate) endpoints: Vec<NetworkEndpoint>,
    /// The published ports, with the host ports that were chosen.
    pub(crate) ports: Vec<PortMapping>,
}

/// A container that was attached before this service started, from its record.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// The container's id.
    pub(crate) id: String,
    pub(crate) name: String,
    /// As [`Attached::endpoints`].
    pub(crate) endpoints: Vec<NetworkEndpoint>,
    /// As [`Attached::ports`].
    pub(crate) ports: Vec<PortMapping>,
}

/// The addresses of an endpoint.
pub(crate) fn addresses(endpoint: &NetworkEndpoint) -> impl Iterator<Item = IpAddr> {
    [&endpoint.ip_address, &endpoint.ipv6_address].into_iter().filter_map(|text| text.parse().ok())
}

/// The networks by which a container's packets to everywhere leave, IPv4 and IPv6: of those with a way out the one with
/// the highest priority, and of equal ones the first by name.
pub(crate) fn ways_out(endpoints: &[NetworkEndpoint]) -> [Option<&NetworkEndpoint>; 2] {
    let by = |gateway: fn(&NetworkEndpoint) -> &String| {
        let leading = endpoints.iter().filter(|endpoint| !gateway(endpoint).is_empty());
        leading.min_by(|a, b| (b.gw_priority, &a.network).cmp(&(a.gw_priority, &b.network)))
    };
    [by(|endpoint| &endpoint.gateway), by(|endpoint| &endpoint.ipv6_gateway)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_docker_writes_them() {
        for (text, mode) in [
            ("", Mode::Bridged),
            ("default", Mode::Bridged),
            ("front", Mode::Bridged),
            ("host", Mode::Host),
            ("none", Mode::None),
            ("container:a", Mode::Container),
        ] {
            assert_eq!(Mode::parse(text).unwrap(), mode, "{text}");
        }
        assert!(Mode::parse("ns:/x").is_err());
        assert_eq!((named(""), named("default"), named("front")), ("bridge", "bridge", "front"));
    }

    #[test]
    fn the_way_out() {
        let endpoint = |network: &str, gateway: &str, six: &str, gw_priority| NetworkEndpoint {
            network: network.into(),
            gateway: gateway.into(),
            ipv6_gateway: six.into(),
            gw_priority,
            ..NetworkEndpoint::default()
        };
        let of = |endpoints: &[NetworkEndpoint]| ways_out(endpoints).map(|way| way.map(|e| e.network.clone()));
        let [inner, b, a] = [endpoint("0", "", "", 9), endpoint("b", "x", "y", 0), endpoint("a", "x", "", 0)];
        assert_eq!(of(&[inner.clone(), b.clone(), a.clone()]), [Some("a".into()), Some("b".into())]);
        assert_eq!(of(&[a, endpoint("z", "x", "", 1)]), [Some("z".into()), None]);
        assert_eq!(of(&[inner]), [None, None]);
    }
}
