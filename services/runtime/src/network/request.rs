//! What is asked of the networks for one container, and what it gets.

use std::os::fd::OwnedFd;

use berth_proto::berth::runtime::v1::{NetworkEndpoint, PortMapping};

use crate::network::Error;

/// Name of the network that a container is in where it asks for none.
pub(crate) const DEFAULT: &str = "bridge";

/// Which network namespace a container is in, and what is in that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One of its own with nothing but the loopback.
    None,
    /// The host's.
    Host,
    /// That of another container, whose first process this is.
    Container {
        /// The process.
        pid: u32,
    },
    /// One of its own with a link to the network of this name.
    Bridge(String),
}

impl Mode {
    /// Reads `ContainerSpec.network_mode`. For "container:ID" the caller resolves the container; here it is an error.
    ///
    /// # Errors
    /// The name could not be a network's.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "" | "default" | DEFAULT => Ok(Self::Bridge(DEFAULT.into())),
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            name if name.contains(':') => Err(Error::BadMode { mode: name.into() }),
            name => Ok(Self::Bridge(name.into())),
        }
    }
}

/// What one container needs.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The container's id; what [`crate::network::Networks::detach`] is called with.
    pub(crate) id: String,
    /// Where it is attached.
    pub(crate) mode: Mode,
    /// Ports to publish; `host_port` 0 for a free one. Only a bridge publishes; elsewhere they are ignored.
    pub(crate) ports: Vec<PortMapping>,
}

/// What one container got.
#[derive(Debug)]
pub(crate) struct Attached {
    /// Its network namespace; `None` for the host's. The last holder takes the links with it.
    pub(crate) netns: Option<OwnedFd>,
    /// Its place in each network: none or one.
    pub(crate) endpoints: Vec<NetworkEndpoint>,
    /// The published ports, with the host ports that were chosen.
    pub(crate) ports: Vec<PortMapping>,
}

/// A container that was attached before this service started, from its record.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// The container's id.
    pub(crate) id: String,
    /// As [`Attached::endpoints`].
    pub(crate) endpoints: Vec<NetworkEndpoint>,
    /// As [`Attached::ports`].
    pub(crate) ports: Vec<PortMapping>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_docker_writes_them() {
        assert_eq!(Mode::parse("").unwrap(), Mode::Bridge("bridge".into()));
        assert_eq!(Mode::parse("default").unwrap(), Mode::Bridge("bridge".into()));
        assert_eq!(Mode::parse("host").unwrap(), Mode::Host);
        assert_eq!(Mode::parse("none").unwrap(), Mode::None);
        assert_eq!(Mode::parse("nowhere").unwrap(), Mode::Bridge("nowhere".into()));
        assert!(Mode::parse("ns:/x").is_err());
    }
}
