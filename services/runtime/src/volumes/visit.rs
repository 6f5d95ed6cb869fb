//! The files of a container that does not run, as it would see them: its root file system and what is mounted into it, in
//! a mount namespace that belongs to one thread and ends with it.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
    thread,
};

use berth_core::archive::{Beneath, make_directories};
use berth_proto::{berth::runtime::v1::MountPoint, containerd::types};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use super::{Error, Volumes, rootfs};

const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

impl Volumes {
    /// Runs `body` with the container's root directory, which is `read_only` where the container's is. Nobody else may
    /// mount its root file system meanwhile. Blocks.
    ///
    /// # Errors
    /// Something cannot be mounted.
    pub(crate) fn visit<T: Send>(
        &self,
        rootfs: &[types::Mount],
        points: &[MountPoint],
        read_only: bool,
        body: impl FnOnce(BorrowedFd<'_>) -> T + Send,
    ) -> Result<T, Error> {
        let [one] = rootfs else { return Err(Error::Stacked { count: rootfs.len() }) };
        let at = self.0.rootfs();
        thread::scope(|scope| {
            let visiting = scope.spawn(|| -> io::Result<T> {
                // Only threads that share no current directory with others may change their mount namespace.
                unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
                let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
                rootfs::mount_writable(one, &at)?;
                let done = (|| {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    let root = openat(CWD, &at, flags, Mode::empty())?;
                    let mut points: Vec<_> = points.iter().filter(|point| point.r#type != "tmpfs").collect();
                    points.sort_by_key(|point| point.destination.len());
                    for point in points {
                        place(root.as_fd(), point)?;
                    }
                    if read_only {
                        remount(&at)?;
                    }
                    Ok(body(root.as_fd()))
                })();
                // At once and not some time after the thread: the container's own mount comes next.
                umount2(&at, MntFlags::MNT_DETACH)?;
                done
            });
            match visiting.join() {
                Ok(done) => done.map_err(|source| Error::Visit { source }),
                Err(_) => Err(Error::Panicked { what: "looking at a container's files" }),
            }
        })
    }
}

/// Mounts one thing where the container has it, and makes that place where it never ran.
fn place(root: BorrowedFd<'_>, point: &MountPoint) -> io::Result<()> {
    let destination = Path::new(&point.destination);
    let beneath = || -> rustix::io::Result<OwnedFd> {
        openat2(root, destination, PLACE, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    };
    let target = match beneath() {
        Ok(target) => target,
        Err(rustix::io::Errno::NOENT) => {
            if fs::metadata(&point.source)?.is_dir() {
                make_directories(root, destination, Beneath::AsRoot)?;
            } else {
                let above = destination.parent().unwrap_or(Path::new("/"));
                let parent = make_directories(root, above, Beneath::AsRoot)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let name = destination.file_name().unwrap_or_default();
                openat(parent, name, flags, Mode::from_raw_mode(0o644))?;
            }
            beneath()?
        }
        Err(error) => return Err(error.into()),
    };
    let recursive = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(point.source.as_str()), &name_of(&target), None::<&str>, recursive, None::<&str>)?;
    if !point.read_write {
        remount(&name_of(&beneath()?))?;
    }
    Ok(())
}

fn name_of(place: &OwnedFd) -> std::path::PathBuf {
    format!("/proc/self/fd/{}", place.as_raw_fd()).into()
}

fn remount(at: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    Ok(mount(None::<&str>, at, None::<&str>, flags, None::<&str>)?)
}
