//! All volumes of the node.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use berth_proto::berth::runtime::v1::MountPoint;

use super::{
    fill,
    trash::Trash,
    volume::{Purpose, Volume, check_name},
};
use crate::{events::Events, volumes::Error};

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
    users: Mutex<Users>,
    /// Where is said what is made and removed.
    events: Events,
}

/// Which containers have a volume, by its name: from before it is made for them until they are removed.
pub(super) type Users = HashMap<String, BTreeSet<String>>;

impl Volumes {
    /// Opens the volumes in a directory, and ends what a killed service had begun. Blocks; belongs on a blocking thread.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(crate) fn open(directory: &Path, events: Events) -> Result<Self, Error> {
        for needed in [directory, &directory.join(DRAFT), &directory.join(ROOTFS)] {
            fs::create_dir_all(needed).map_err(Error::io("cannot make", needed))?;
        }
        let trash = Trash::open(directory.join(TRASH))?;
        let (filling, users) = (Mutex::default(), Mutex::default());
        let inner = Inner { directory: directory.into(), trash, filling, users, events };
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

    /// A container that was made before this service started has these.
    pub(crate) fn belong(&self, container: &str, mounts: &[MountPoint]) {
        let mut users = self.0.users();
        for name in names(mounts) {
            users.entry(name.into()).or_default().insert(container.into());
        }
    }

    /// A container is removed: its anonymous volumes among `mounts` go with it where `remove_anonymous` and no other
    /// container has them. Named ones stay.
    pub(crate) async fn released(&self, container: &str, mounts: &[MountPoint], remove_anonymous: bool) {
        let names: Vec<_> = names(mounts).map(str::to_owned).collect();
        let (inner, container) = (Arc::clone(&self.0), container.to_owned());
        let release = move || {
            // Held until they are thrown away, so that nobody gets one that goes.
            let mut users = inner.users();
            for name in names {
                let_go(&mut users, &name, &container);
                if !remove_anonymous || users.contains_key(&name) {
                    continue;
                }
                let anonymous = Volume::at(&inner.directory, &name).is_ok_and(|volume| volume.details.anonymous);
                if anonymous && let Err(error) = inner.remove(&name) {
                    tracing::warn!(volume = name, %error, "an anonymous volume stays");
                }
            }
        };
        // It cannot fail but by a panic, which the runtime reports.
        let _ = tokio::task::spawn_blocking(release).await;
    }

    /// The anonymous volumes that were made for a container: a create that was cut off names them nowhere else.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) async fn made_for(&self, container: &str) -> Result<Vec<MountPoint>, Error> {
        let (inner, container) = (Arc::clone(&self.0), container.to_owned());
        let made = move || {
            let its = |volume: &Volume| volume.details.anonymous && volume.details.container == container;
            let point =
                |volume: Volume| MountPoint { r#type: "volume".into(), name: volume.name, ..Default::default() };
            Ok(inner.list()?.into_iter().filter(its).map(point).collect())
        };
        blocking("listing volumes", made).await
    }
}

/// The volumes among mounts.
fn names(mounts: &[MountPoint]) -> impl Iterator<Item = &str> {
    mounts.iter().filter(|mount| mount.r#type == "volume").map(|mount| mount.name.as_str())
}

fn let_go(users: &mut Users, name: &str, container: &str) {
    if let Some(by) = users.get_mut(name) {
        by.remove(container);
        if by.is_empty() {
            users.remove(name);
        }
    }
}

impl Inner {
    pub(super) fn volume(&self, name: &str) -> Result<Volume, Error> {
        Volume::at(&self.directory, name)
    }

    pub(super) fn users(&self) -> MutexGuard<'_, Users> {
        // It is whole at every line, so a panic elsewhere does not spoil it.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nobody removes these.
    pub(super) fn take(&self, container: &str, name: &str) {
        self.users().entry(name.into()).or_default().insert(container.into());
    }

    /// A container does not come to be.
    pub(super) fn give_back<'a>(&self, container: &str, names: impl Iterator<Item = &'a str>) {
        let mut users = self.users();
        names.for_each(|name| let_go(&mut users, name, container));
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

    pub(super) fn list(&self) -> Result<Vec<Volume>, Error> {
        let entries = fs::read_dir(&self.directory).map_err(Error::io("cannot list", &self.directory))?;
        let mut names: Vec<_> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        let volumes = names.iter().filter(|name| check_name(name).is_ok()).map(|name| self.volume(name));
        volumes.filter(|volume| volume.as_ref().map_or(true, Volume::exists)).collect()
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        if check_name(name).is_err() || !self.trash.take(&self.directory.join(name))? {
            return Err(Error::NotFound { name: name.into() });
        }
        self.events.say("volume", "destroy", name, &[("driver", "local".into())]);
        Ok(())
    }

    /// Makes a volume, unless it is there.
    pub(super) fn make(&self, volume: &Volume, purpose: Purpose<'_>) -> Result<(), Error> {
        if volume.make(&self.draft(), purpose)? {
            self.events.say("volume", "create", &volume.name, &[("driver", "local".into())]);
        }
        Ok(())
    }
}

/// Runs what waits for the disk where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    what: &'static str,
    body: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(body).await.unwrap_or(Err(Error::Panicked { what }))
}
