//! Copy-up: a volume that is empty gets what the image has at its place.
//!
//! Files are copied into `_filling` beside the volume's data. That it is whole is said by a rename to `_filled`; what is
//! in there is then moved into the data directory, which stays the same directory, because it may be mounted already. A
//! service that is killed meanwhile either throws `_filling` away or ends the moving: a volume is never half filled and
//! taken for whole.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    sync::Arc,
};

use berth_proto::{berth::runtime::v1::MountPoint, containerd::types};
use rustix::{
    fs::{Mode, OFlags, RenameFlags, ResolveFlags, openat2, renameat_with, syncfs},
    io::Errno,
};

use super::{
    copy,
    mounts::NO_COPY,
    rootfs,
    store::{Inner, Volumes, blocking},
    trash::Trash,
    volume::Volume,
};
use crate::volumes::Error;

const FILLING: &str = "_filling";
const FILLED: &str = "_filled";

impl Volumes {
    /// Fills the empty volumes among `mounts` from the root file system that `rootfs` mounts, except those whose mode
    /// says `nocopy`. To be called at create, before the first start.
    ///
    /// # Errors
    /// The root file system cannot be mounted, or a file not be copied; the volume is then as empty as before.
    pub(crate) async fn fill(&self, mounts: &[MountPoint], rootfs: &[types::Mount]) -> Result<(), Error> {
        let copied = |mount: &&MountPoint| mount.r#type == "volume" && !mount.mode.split(',').any(|m| m == NO_COPY);
        let wanted: Vec<_> =
            mounts.iter().filter(copied).map(|mount| (mount.name.clone(), mount.destination.clone())).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let (inner, rootfs) = (Arc::clone(&self.0), rootfs.to_vec());
        blocking("filling volumes", move || fill(&inner, &wanted, &rootfs)).await
    }
}

fn fill(inner: &Inner, wanted: &[(String, String)], rootfs: &[types::Mount]) -> Result<(), Error> {
    let mut empty = Vec::new();
    for (name, destination) in wanted {
        let volume = inner.volume(name)?;
        let still = || -> Result<bool, Error> {
            settle(&volume, &inner.trash)?;
            is_empty(&volume.mountpoint).map_err(Error::io("cannot look into", &volume.mountpoint))
        };
        if inner.alone(name, still)? {
            empty.push((volume, destination));
        }
    }
    if empty.is_empty() {
        return Ok(());
    }
    rootfs::look(rootfs, &inner.rootfs(), |root| {
        for (volume, destination) in &empty {
            let failed = |source| Error::Fill { name: volume.name.clone(), path: (*destination).clone(), source };
            let Some(image) = beneath(root, destination).map_err(failed)? else { continue };
            inner.alone(&volume.name, || one(volume, &image, &inner.trash).map_err(failed))?;
        }
        Ok(())
    })
}

/// The image's directory; `None` where it has none there. Links are followed as the container would.
fn beneath(root: BorrowedFd<'_>, destination: &str) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, destination, flags, Mode::empty(), resolve) {
        Ok(directory) => Ok(Some(directory.into())),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn one(volume: &Volume, image: &File, trash: &Trash) -> io::Result<()> {
    // Another container may have filled it, or written to it, since it was looked at.
    if !is_empty(&volume.mountpoint)? {
        return Ok(());
    }
    let filling = volume.directory().join(FILLING);
    let copied = || -> io::Result<()> {
        fs::create_dir(&filling)?;
        let copy = File::open(&filling)?;
        copy::tree(image.as_fd(), copy.as_fd())?;
        // What is renamed to "whole" is whole after a power cut too.
        syncfs(&copy)?;
        fs::rename(&filling, volume.directory().join(FILLED))
    };
    if let Err(error) = copied() {
        if let Err(error) = trash.take(&filling) {
            tracing::warn!(volume = volume.name, %error, "the beginning of a copy stays until the next start");
        }
        return Err(error);
    }
    move_in(volume)
}

/// Ends what a killed service had begun with a volume.
pub(super) fn settle(volume: &Volume, trash: &Trash) -> Result<(), Error> {
    trash.take(&volume.directory().join(FILLING))?;
    if volume.directory().join(FILLED).is_dir() {
        move_in(volume).map_err(Error::io("cannot move the image's files into", &volume.mountpoint))?;
    }
    Ok(())
}

/// Moves what was copied into the data directory. What is there under the same name was written by a container and stays.
fn move_in(volume: &Volume) -> io::Result<()> {
    let filled = volume.directory().join(FILLED);
    let (from, to) = (File::open(&filled)?, File::open(&volume.mountpoint)?);
    for name in copy::names(from.as_fd())? {
        match renameat_with(&from, &name, &to, &name, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let name = std::ffi::OsStr::from_bytes(name.to_bytes());
                tracing::warn!(volume = volume.name, ?name, "a container wrote this file before the image's was there");
            }
            Err(error) => return Err(error.into()),
        }
    }
    copy::attributes(from.as_fd(), to.as_fd())?;
    fs::remove_dir_all(filled)
}

fn is_empty(directory: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(directory)?.next().is_none())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};

    use berth_proto::berth::runtime::v1::{Mount, mount::Type};
    use tempfile::TempDir;

    use super::*;
    use crate::events::Events;

    struct Test {
        directory: TempDir,
        volumes: Volumes,
    }

    impl Test {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir_all(directory.path().join("image/data/sub")).unwrap();
            fs::write(directory.path().join("image/data/file"), "image").unwrap();
            chown(directory.path().join("image/data"), Some(7), Some(8)).unwrap();
            symlink("/data", directory.path().join("image/link")).unwrap();
            symlink("/../../../../..", directory.path().join("image/out")).unwrap();
            let volumes = Volumes::open(&directory.path().join("volumes"), Events::default()).unwrap();
            Self { directory, volumes }
        }

        fn rootfs(&self) -> Vec<types::Mount> {
            let source = self.directory.path().join("image").to_str().unwrap().to_owned();
            vec![types::Mount { r#type: "bind".into(), source, ..types::Mount::default() }]
        }

        async fn filled(&self, name: &str, target: &str, no_copy: bool) -> std::path::PathBuf {
            let mount = Mount {
                r#type: Type::Volume.into(),
                source: name.into(),
                target: target.into(),
                no_copy,
                ..Mount::default()
            };
            let points = self.volumes.resolve("c", &[mount], &[]).await.unwrap();
            self.volumes.fill(&points, &self.rootfs()).await.unwrap();
            points[0].source.clone().into()
        }
    }

    #[tokio::test]
    async fn an_empty_volume_is_filled_once() {
        let test = Test::new();
        let data = test.filled("named", "/data", false).await;
        assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "image");
        assert_eq!((fs::metadata(&data).unwrap().uid(), fs::metadata(&data).unwrap().gid()), (7, 8));
        assert!(data.join("sub").is_dir());
        fs::write(data.join("file"), "mine").unwrap();
        test.filled("named", "/data", false).await;
        assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "mine");
        let around: Vec<_> = fs::read_dir(data.parent().unwrap()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(around.len(), 2, "the data and what is told of it: {around:?}");
    }

    #[tokio::test]
    async fn what_is_not_filled() {
        let test = Test::new();
        let empty = |data: std::path::PathBuf| fs::read_dir(data).unwrap().count() == 0;
        assert!(empty(test.filled("no-copy", "/data", true).await));
        assert!(empty(test.filled("missing", "/no/such/place", false).await));
        assert!(empty(test.filled("file", "/data/file", false).await));
        assert!(!empty(test.filled("link", "/link", false).await), "links are followed within the image");
        let out = test.filled("out", "/out/data", false).await;
        assert_eq!(fs::read_to_string(out.join("file")).unwrap(), "image", "and never out of it");
    }

    #[tokio::test]
    async fn what_a_killed_service_had_begun_is_ended() {
        let test = Test::new();
        let data = test.filled("half", "/data", true).await;
        let beside = |name: &str| data.parent().unwrap().join(name);
        fs::create_dir_all(beside(FILLING)).unwrap();
        fs::write(beside(FILLING).join("half"), "").unwrap();
        test.filled("half", "/data", false).await;
        assert!(!data.join("half").exists() && data.join("file").exists() && !beside(FILLING).exists());

        fs::create_dir_all(beside(FILLED).join("more")).unwrap();
        fs::write(beside(FILLED).join("file"), "copied").unwrap();
        Volumes::open(&test.directory.path().join("volumes"), Events::default()).unwrap();
        assert!(data.join("more").is_dir() && !beside(FILLED).exists());
        assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "image", "what is there stays");
    }

    #[tokio::test]
    async fn many_containers_fill_one_volume() {
        let test = Arc::new(Test::new());
        let all = (0..16).map(|_| {
            let test = Arc::clone(&test);
            tokio::spawn(async move { test.filled("shared", "/data", false).await })
        });
        for one in all.collect::<Vec<_>>() {
            assert!(one.await.unwrap().join("file").exists());
        }
    }
}
