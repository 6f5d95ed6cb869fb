//! Networks: bridges, an address on each of its networks and published ports for each container, and the files that tell
//! it its names.
//!
//! Which networks there are is stored; who is attached is not: what is live is told by the containers' bundles at
//! [`Networks::recover`]. A container's namespace belongs to its processes, and the veth pairs go with it. Of the
//! firewall, one table is ours and nothing else is touched.

mod addresses;
mod attach;
mod bridge;
mod definition;
mod error;
pub(crate) mod files;
mod filter;
mod host;
mod link;
mod manage;
mod netlink;
mod networks;
mod nft;
mod plug;
mod pools;
mod ports;
mod request;
mod resolver;
mod settings;
mod state;
mod subnet;
mod zones;

pub(crate) use definition::Definition;
pub(crate) use error::Error;
pub(crate) use networks::Networks;
pub(crate) use ports::check as check_ports;
pub(crate) use request::{Attached, Live, Mode, Namespace, Request, named};
pub(crate) use settings::Settings;
pub(crate) use state::dns_names;
pub(crate) use zones::has_names;

#[cfg(test)]
mod tests;
