//! `[runtime.network]`

use serde::Deserialize;

/// The section of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The bridge's interface on the host.
    pub(crate) bridge: String,
    /// The bridge's subnet ("172.30.0.0/16"). Unset: the first of [`POOLS`] that no route of the host overlaps.
    pub(crate) subnet: Option<String>,
    /// MTU of the containers' links; 0 for that of the link with the host's default route.
    pub(crate) mtu: u32,
    /// Where the subnets of networks that name none are taken from, in this order.
    pub(crate) pools: Vec<String>,
    /// Prefix length of such a subnet.
    pub(crate) pool_prefix: u8,
}

/// Subnets for the bridge, in the order they are tried; Docker's own default is not among them.
pub(crate) const POOLS: [&str; 6] =
    ["172.30.0.0/16", "172.29.0.0/16", "172.28.0.0/16", "172.31.0.0/16", "192.168.224.0/20", "10.211.0.0/16"];

impl Default for Settings {
    fn default() -> Self {
        let pools = ["172.24.0.0/14", "172.20.0.0/14", "10.208.0.0/12"].map(Into::into).into();
        Self { bridge: "berth0".into(), subnet: None, mtu: 0, pools, pool_prefix: 24 }
    }
}
