//! What can go wrong with networks, and what a caller is told of it.

use std::{io, path::PathBuf};

use berth_core::{Failure, Kind, failure::chain};

use crate::network::netlink::Refused;

/// A failure of the networks.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each is")]
pub(crate) enum Error {
    #[error("network {name} not found")]
    NotFound { name: String },
    #[error("network mode {mode:?} is none of bridge, host, none, container:NAME and a network's name")]
    BadMode { mode: String },
    #[error("Bind for {address}:{port} failed: port is already allocated")]
    PortTaken { address: String, port: u16 },
    #[error("cannot publish port {port}: {why}")]
    BadPort { port: String, why: String },
    #[error("cannot publish on {address}:{port}: {source}")]
    CannotBind { address: String, port: u16, source: io::Error },
    #[error("no free port is left on {address} between {first} and {last}")]
    NoPortLeft { address: String, first: u16, last: u16 },
    #[error("network {text} is ambiguous: several ids begin so")]
    Ambiguous { text: String },
    #[error("network with name {name} already exists")]
    Exists { name: String },
    #[error("invalid network name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    BadName { name: String },
    #[error("{0}")]
    Predefined(String),
    #[error("only one instance of {driver:?} network is allowed")]
    OnePredefined { driver: String },
    #[error("could not find plugin {driver} in v1 plugin registry: plugin not found")]
    NoDriver { driver: String },
    /// Something that cannot be meant; the text is Docker's where it has one.
    #[error("{0}")]
    Unmeant(String),
    #[error("invalid subnet {subnet}: {why}")]
    InvalidSubnet { subnet: String, why: &'static str },
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    PoolOverlap,
    #[error("invalid pool request: the subnet {subnet} overlaps the route to {route} of {link}")]
    RouteOverlap { subnet: String, route: String, link: String },
    #[error("all predefined address pools have been fully subnetted: {tried}")]
    PoolsFull { tried: String },
    #[error("[runtime.network] pools {pool:?}: {why}")]
    BadPool { pool: String, why: &'static str },
    #[error(
        "error while removing network: network {name} has active endpoints ({})",
        endpoints.iter().map(|(name, id)| format!("name:{name:?} id:{id:?}")).collect::<Vec<_>>().join(", ")
    )]
    InUse { name: String, endpoints: Vec<(String, String)> },
    #[error("endpoint with name {container} already exists in network {network}")]
    AlreadyOn { network: String, container: String },
    #[error("Address already in use")]
    AddressTaken { address: std::net::IpAddr },
    #[error("container {container} is not connected to network {network}")]
    NotOn { network: String, container: String },
    #[error("container {id} is not attached")]
    NotAttached { id: String },
    #[error("conflicting options: cannot attach both user-defined and non-user-defined network-modes ({mode})")]
    NoEndpoint { mode: String },
    #[error("{name} is a link of the host already; choose another name for the bridge")]
    Foreign { name: String },
    #[error("no address is left in {subnet}")]
    NoAddressLeft { subnet: String },
    #[error("[runtime.network] subnet {subnet:?}: {why}")]
    BadSubnet { subnet: String, why: &'static str },
    #[error("the subnet {subnet} of the network bridge overlaps the route to {route} of {link}")]
    Overlap { subnet: String, route: String, link: String },
    #[error("every subnet that could be the bridge's overlaps a route of the host: {tried}")]
    NoSubnetLeft { tried: String },
    #[error("container {id} is attached already")]
    Attached { id: String },
    #[error("the network namespace of process {pid}: {source}")]
    Namespace { pid: u32, source: io::Error },
    #[error("{why}: {text:?}")]
    BadHost { text: String, why: &'static str },
    #[error("IP address is not correctly formatted: {text}")]
    BadServer { text: String },
    #[error("{name} is a link of the host, but no bridge; choose another name with `bridge` in [runtime.network]")]
    NoBridge { name: String },
    #[error("{what} {on}: {source}")]
    Netlink { what: &'static str, on: String, source: Refused },
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{what} panicked")]
    Panicked { what: &'static str },
}

impl Error {
    /// A failure of the file system with what was done to what.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// A refusal of the kernel with what it was asked.
    pub(crate) fn netlink(what: &'static str, on: impl Into<String>) -> impl FnOnce(Refused) -> Self {
        let on = on.into();
        move |source| Self::Netlink { what, on, source }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } => Kind::NotFound,
            Self::Exists { .. } => Kind::AlreadyExists,
            Self::Ambiguous { .. }
            | Self::BadName { .. }
            | Self::Unmeant(_)
            | Self::InvalidSubnet { .. }
            | Self::BadPool { .. }
            | Self::NoEndpoint { .. }
            | Self::NoDriver { .. }
            | Self::BadMode { .. }
            | Self::BadPort { .. }
            | Self::BadSubnet { .. }
            | Self::BadHost { .. }
            | Self::BadServer { .. } => Kind::InvalidArgument,
            Self::Predefined(_)
            | Self::OnePredefined { .. }
            | Self::PoolOverlap
            | Self::RouteOverlap { .. }
            | Self::InUse { .. }
            | Self::AlreadyOn { .. }
            | Self::AddressTaken { .. }
            | Self::NotAttached { .. }
            | Self::NotOn { .. }
            | Self::Foreign { .. }
            | Self::PortTaken { .. }
            | Self::CannotBind { .. }
            | Self::Attached { .. }
            | Self::Overlap { .. }
            | Self::NoBridge { .. }
            | Self::NoSubnetLeft { .. } => Kind::FailedPrecondition,
            Self::NoPortLeft { .. } | Self::NoAddressLeft { .. } | Self::PoolsFull { .. } => Kind::ResourceExhausted,
            Self::Namespace { .. } | Self::Netlink { .. } | Self::Io { .. } | Self::Panicked { .. } => Kind::Internal,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let failure = Failure::new(error.kind(), chain(&error));
        match error {
            Error::PortTaken { port, .. } => failure
                .reason("PORT_TAKEN")
                .hint(format!("`berth ps --filter publish={port}` or `ss -ltnup` shows who has it")),
            Error::Overlap { .. } | Error::NoSubnetLeft { .. } => {
                failure.hint("choose a free one with `subnet` in [runtime.network] of the configuration")
            }
            Error::NotFound { .. } => failure.reason("NETWORK_NOT_FOUND"),
            Error::NoDriver { .. } => failure.hint("there is the driver \"bridge\""),
            Error::PoolsFull { .. } => failure
                .hint("remove networks, name a --subnet, or add to `pools` in [runtime.network] of the configuration"),
            Error::PoolOverlap | Error::RouteOverlap { .. } => {
                failure.hint("choose a free --subnet, or none: a free one is chosen then")
            }
            Error::Netlink { source, .. } if source.code == libc::EPERM => {
                failure.hint("the runtime service needs CAP_NET_ADMIN")
            }
            _ => failure,
        }
    }
}
