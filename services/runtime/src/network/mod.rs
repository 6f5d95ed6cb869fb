//! Networks: a bridge, an address and published ports for each container, and the files that tell it its names.
//!
//! Nothing here is stored: what is live is told by the containers' bundles at [`Networks::recover`]. A container's
//! namespace belongs to its processes, and the veth pair goes with it. Of the firewall, one table is ours and nothing
//! else is touched.

mod addresses;
mod bridge;
mod error;
pub(crate) mod files;
mod link;
mod netlink;
mod networks;
mod nft;
mod ports;
mod request;
mod resolver;
mod settings;
mod subnet;

pub(crate) use error::Error;
pub(crate) use networks::Networks;
pub(crate) use request::{Attached, Live, Mode, Request};
pub(crate) use settings::Settings;

#[cfg(test)]
mod tests;
