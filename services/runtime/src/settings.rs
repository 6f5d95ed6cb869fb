//! `[runtime]`

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::network;

/// The service's section of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Cgroup below which every container has one of its own, where its request names no other.
    pub(crate) cgroup_parent: String,
    /// Runtime handler of containers that name none; empty for the shim's own low-level runtime.
    pub(crate) default_handler: String,
    /// Further handlers, by name.
    pub(crate) handler: BTreeMap<String, Handler>,
    /// The shim's binary; unset for the one beside this service's, then the one in PATH.
    pub(crate) shim: Option<std::path::PathBuf>,
    /// `[runtime.network]`
    pub(crate) network: network::Settings,
}

/// `[runtime.handler.NAME]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Handler {
    /// Path of an OCI runtime binary (`/usr/sbin/runc`); unset for the shim's own.
    pub(crate) oci_runtime: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cgroup_parent: "/berth".into(),
            default_handler: String::new(),
            handler: BTreeMap::new(),
            shim: None,
            network: network::Settings::default(),
        }
    }
}
