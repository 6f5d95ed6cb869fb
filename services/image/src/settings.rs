//! `[image]`

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

/// The service's section of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Layers of one image that are downloaded at the same time.
    pub(crate) max_concurrent_downloads: usize,
    /// Blobs of one image that are uploaded at the same time.
    pub(crate) max_concurrent_uploads: usize,
    /// Seconds. A connection that brings next to nothing (less than 16 KiB) in this time is given up for another.
    pub(crate) stall_timeout: u32,
    /// What is particular to a registry, by its host as it stands in references.
    pub(crate) registry: BTreeMap<String, Registry>,
}

/// `[image.registry."HOST"]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Registry {
    /// Asked in this order before the registry itself; `http://` or `https://` and a host, perhaps a path.
    pub(crate) mirrors: Vec<String>,
    /// The registry itself speaks plain HTTP.
    pub(crate) plain_http: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_concurrent_downloads: 4, max_concurrent_uploads: 5, stall_timeout: 20, registry: BTreeMap::new() }
    }
}

impl Settings {
    /// See [`Settings::stall_timeout`].
    pub(crate) fn stall(&self) -> Duration {
        Duration::from_secs(self.stall_timeout.max(1).into())
    }
}
