//! All volumes of the node.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use berth_proto::berth::runtime::v1::MountPoint;

use super::{
    fill,
    trash::Trash,
    volume::{Volume, check_name},
};
use crate::volumes::Error;

/// Names that no volume has begin with a dot.
const TRASH: &str = ".trash";
const DRAFT: &str = ".draft";
const ROOTFS: &str = ".rootfs";

/// The node's volumes. Cloning gives another handle.
#[derive(Clone, Debug)]
pub(crate) struct Volumes(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    directory: PathBuf,
    pub(super) trash: Trash,
    /// One at a time fills a volume.
    filling: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

impl Volumes {
    /// Opens the volumes in a directory, and ends what a killed service had begun. Blocks; belongs on a blocking thread.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        for needed in [directory, &directory.join(DRAFT), &directory.join(ROOTFS)] {
            fs::create_dir_all(needed).map_err(Error::io("cannot make", needed))?;
        }
        let trash = Trash::open(directory.join(TRASH))?;
        let inner = Inner { directory: directory.into(), trash, filling: Mutex::new(HashMap::new()) };
        let drafts = inner.draft();
        for half_made in fs::read_dir(&drafts).map_err(Error::io("cannot list", &drafts))?.flatten() {
            inner.trash.take(&half_made.path())?;
        }
        for volume in inner.list()? {
            if let Err(error) = fill::settle(&volume, &inner.trash) {
                tracing::error!(volume = volume.name, %error, "what the image has could not be put into the volume");
            }
        }
        Ok(Self(Arc::new(inner)))
    }

    /// A container is removed: its anonymous volumes among `mounts` go with it where `remove_anonymous` and no other
    /// container (`in_use`: names of volumes) has them. Named ones stay.
    pub(crate) async fn released(&self, mounts: &[MountPoint], remove_anonymous: bool, in_use: &[String]) {
        if !remove_anonymous {
            return;
        }
        let names = mounts.iter().filter(|mount| mount.r#type == "volume").map(|mount| mount.name.clone());
        let names: Vec<_> = names.filter(|name| !in_use.contains(name)).collect();
        let inner = Arc::clone(&self.0);
        let remove = move || {
            for name in names {
                let anonymous = Volume::at(&inner.directory, &name).is_ok_and(|volume| volume.details.anonymous);
                if anonymous && let Err(error) = inner.remove(&name) {
                    tracing::warn!(volume = name, %error, "an anonymous volume stays");
                }
            }
        };
        // It cannot fail but by a panic, which the runtime reports.
        let _ = tokio::task::spawn_blocking(remove).await;
    }

    /// All volumes by name.
    ///
    /// # Errors
    /// The directory cannot be read.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the volume commands, which no service offers yet"))]
    pub(crate) async fn list(&self) -> Result<Vec<Volume>, Error> {
        let inner = Arc::clone(&self.0);
        blocking("listing volumes", move || inner.list()).await
    }

    /// Removes a volume that none of `users` (container ids) has.
    ///
    /// # Errors
    /// It is in use or is not there.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the volume commands, which no service offers yet"))]
    pub(crate) async fn remove(&self, name: &str, users: &[String]) -> Result<(), Error> {
        if !users.is_empty() {
            return Err(Error::InUse { name: name.into(), by: users.to_vec() });
        }
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        blocking("removing a volume", move || inner.remove(&name)).await
    }
}

impl Inner {
    pub(super) fn volume(&self, name: &str) -> Result<Volume, Error> {
        Volume::at(&self.directory, name)
    }

    /// Where volumes are made before they have their names.
    pub(super) fn draft(&self) -> PathBuf {
        self.directory.join(DRAFT)
    }

    /// Where, in a mount namespace of its own, an image is looked at.
    pub(super) fn rootfs(&self) -> PathBuf {
        self.directory.join(ROOTFS)
    }

    /// Runs `body` while nobody else fills this volume.
    pub(super) fn alone<T>(&self, name: &str, body: impl FnOnce() -> T) -> T {
        let all = || self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = Arc::clone(all().entry(name.into()).or_default());
        let done = {
            let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
            body()
        };
        drop(lock);
        all().retain(|_, lock| Arc::strong_count(lock) > 1);
        done
    }

    fn list(&self) -> Result<Vec<Volume>, Error> {
        let entries = fs::read_dir(&self.directory).map_err(Error::io("cannot list", &self.directory))?;
        let mut names: Vec<_> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        let volumes = names.iter().filter(|name| check_name(name).is_ok()).map(|name| self.volume(name));
        volumes.filter(|volume| volume.as_ref().map_or(true, Volume::exists)).collect()
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        let there = check_name(name).is_ok() && self.trash.take(&self.directory.join(name))?;
        if there { Ok(()) } else { Err(Error::NotFound { name: name.into() }) }
    }
}

/// Runs what waits for the disk where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    what: &'static str,
    body: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(body).await.unwrap_or(Err(Error::Panicked { what }))
}
