//! `[snapshotter]`

use serde::Deserialize;

/// The service's section of the configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// How layers are stored.
    pub(crate) driver: Choice,
}

/// A storage driver, or the best that works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Choice {
    /// overlay2 where the file system can carry it, else vfs.
    #[default]
    Auto,
    /// overlayfs over one directory a layer.
    Overlay2,
    /// Copies.
    Vfs,
}
