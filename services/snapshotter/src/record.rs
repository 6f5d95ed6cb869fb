//! What the store keeps about snapshots and layers.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use berth_core::Digest;
use serde::{Deserialize, Serialize};

use crate::directory::Id;

/// What a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Read-only and never a parent.
    View,
    /// Written to.
    Active,
    /// Read-only and fit to be a parent.
    Committed,
}

impl Kind {
    /// As containerd's filters and messages spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Active => "active",
            Self::Committed => "committed",
        }
    }
}

/// A snapshot. Its name (or key) is what the store files it under.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) kind: Kind,
    /// Name of a committed snapshot.
    pub(crate) parent: Option<String>,
    /// Where its own files are.
    pub(crate) directory: Id,
    /// A directory that this one only completes, and that lies right below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) over: Option<Id>,
    /// The layer that the directory is, where it is one of an image.
    pub(crate) diff_id: Option<Digest>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) created: Time,
    pub(crate) updated: Time,
}

/// A layer that is here, whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Layer {
    pub(crate) directory: Id,
    /// Bytes of the uncompressed tar.
    pub(crate) tar_bytes: u64,
    /// Bytes of the files, and how many there are.
    pub(crate) usage: Usage,
    #[serde(default)]
    pub(crate) open: Open,
}

/// What a layer leaves open until it is known what it is stacked on. Paths are relative to its root, which is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    /// Directories that its entries are in and that it does not describe: where the layers below have them, they stay
    /// as they are there.
    pub(crate) undescribed: Vec<Vec<u8>>,
    /// Directories that hold white-outs. overlayfs lists those of a directory that no other layer has.
    pub(crate) hiding: Vec<Vec<u8>>,
    /// Hard links, and the file of a layer below that each is one to.
    pub(crate) links: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Disk use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

/// A moment, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Time(pub(crate) u64);

impl Time {
    pub(crate) fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64))
    }
}
