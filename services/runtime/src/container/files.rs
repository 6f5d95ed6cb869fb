//! `cp`: files of a container, whether it runs or not, with what is mounted into it. A running one is seen through its
//! first process, so exactly as it sees itself; the files of one that does not run are mounted for the call, and it cannot
//! start meanwhile.

use std::{
    ffi::OsString,
    fs, io,
    io::Read as _,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
    sync::Arc,
};

use berth_core::{
    Failure, Kind,
    archive::{self, Beneath, Owner, Rules},
};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, StatxFlags, fstatvfs, openat, openat2,
        readlinkat, statat, statx,
    },
    io::Errno,
};

use crate::{
    container::{
        containers::{Containers, blocking},
        live::Container,
        record::Status,
    },
    error::{Error, Result},
};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Longer files of users are not a container's.
const USERS: u64 = 1 << 20;

/// What is at a path.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) kind: FileType,
    pub(crate) link_target: String,
}

/// Something in an open directory of a container.
struct Place {
    directory: OwnedFd,
    /// "." is the directory itself.
    name: OsString,
    /// Its name in an archive.
    named: OsString,
}

impl Containers {
    /// What is at a path.
    pub(crate) async fn stat_file(self: &Arc<Self>, container: &Arc<Container>, path: String) -> Result<Found> {
        let id = container.id.clone();
        self.in_root(container, move |root| {
            let place = find(root, &path).map_err(missing(&path, &id))?;
            let failed = |error: Errno| missing(&path, &id)(error.into());
            let stat = statat(&place.directory, &place.name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let link_target = match kind {
                FileType::Symlink => {
                    let target = readlinkat(&place.directory, &place.name, Vec::new()).map_err(failed)?;
                    target.to_string_lossy().into_owned()
                }
                _ => String::new(),
            };
            Ok(Found { kind, link_target })
        })
        .await
    }

    /// Packs what is at a path.
    pub(crate) async fn read_files(
        self: &Arc<Self>,
        container: &Arc<Container>,
        path: String,
        out: impl io::Write + Send + 'static,
    ) -> Result<()> {
        let (id, shown) = (container.id.clone(), path.clone());
        self.in_root(container, move |root| {
            let place = find(root, &path).map_err(missing(&path, &id))?;
            archive::pack(place.directory.as_fd(), &place.name, &place.named, out).map_err(Error::io("reading", path))
        })
        .await?;
        self.event("archive-path", &container.record(), &[("path", shown)]);
        Ok(())
    }

    /// Lays a tar down in a directory; `own` gives everything to the container's user.
    pub(crate) async fn write_files(
        self: &Arc<Self>,
        container: &Arc<Container>,
        path: String,
        own: bool,
        tar: impl io::Read + Send + 'static,
    ) -> Result<()> {
        let (id, shown) = (container.id.clone(), path.clone());
        let user = container.record().spec.user.clone();
        self.in_root(container, move |root| {
            let at = Path::new("/").join(path.trim_start_matches('/'));
            let there = beneath(root, &at, OFlags::PATH | OFlags::CLOEXEC).map_err(missing(&path, &id))?;
            let refused = |text: &str| Error::from(Failure::new(Kind::InvalidArgument, text));
            let directory = beneath(root, &at, DIRECTORY).map_err(|error| match error.raw_os_error() {
                Some(libc::ENOTDIR) => refused("extraction point is not a directory"),
                _ => missing(&path, &id)(error),
            })?;
            drop(there);
            if fstatvfs(&directory).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY)) {
                let of_the_root = mount_id(directory.as_fd()) == mount_id(root);
                let what = if of_the_root { "container rootfs" } else { "mounted volume" };
                return Err(refused(&format!("{what} is marked read-only")));
            }
            let owner = if own && !user.is_empty() { owner(root, &user)? } else { Owner::Kept };
            let rules = Rules { beneath: Beneath::AsRoot, owner, rename: None };
            archive::unpack(root, &at, tar, &rules).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => refused(&error.to_string()),
                _ => Error::Io { what: "writing to", path: path.into(), source: error },
            })
        })
        .await?;
        self.event("extract-to-dir", &container.record(), &[("path", shown)]);
        Ok(())
    }

    /// Runs `work`, which may block, with the container's root directory.
    async fn in_root<T: Send + 'static>(
        self: &Arc<Self>,
        container: &Arc<Container>,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if !container.record().state.status.is_live() {
            // Held by the thread, to its end: whoever asked may go away.
            let turn = container.turn().await;
            container.clear().await?;
            let record = container.record();
            if record.state.status == Status::Removing {
                return Err(Error::State(format!("container {} is marked for removal", container.id)));
            }
            if !record.state.status.is_live() {
                let rootfs = self.neighbours.mounts(&container.id).await?;
                let containers = Arc::clone(self);
                return blocking("looking at a container's files", move || {
                    let _turn = turn;
                    let read_only = record.spec.read_only;
                    let done = containers.volumes.visit(&rootfs, &record.mounts, read_only, work);
                    done.map_err(Failure::from)?
                })
                .await;
            }
        }
        let container = Arc::clone(container);
        blocking("looking at a container's files", move || {
            let root = root(&container)?;
            work(root.as_fd())
        })
        .await
    }
}

/// The root directory of a container that runs.
fn root(container: &Container) -> Result<OwnedFd> {
    let pid = container.record().state.pid;
    let ended = || Error::State(format!("container {} is not running", container.id));
    let root = openat(CWD, format!("/proc/{pid}/root"), DIRECTORY, Mode::empty()).map_err(|_| ended())?;
    // A process that took its number meanwhile would be another's: it is still this container's, and no process of ours.
    let namespace = |who: &str| fs::metadata(format!("/proc/{who}/ns/mnt")).map(|found| found.ino());
    let foreign = match (namespace(&pid.to_string()), namespace("self")) {
        (Ok(its), Ok(ours)) => its == ours,
        _ => true,
    };
    let now = container.record();
    if pid == 0 || foreign || !now.state.status.is_live() || now.state.pid != pid {
        return Err(ended());
    }
    Ok(root)
}

/// Opens a path as the container would.
fn beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?)
}

/// What a path means: a link at its end itself, unless a slash or a dot stands behind it.
fn find(root: BorrowedFd<'_>, path: &str) -> io::Result<Place> {
    let whole = format!("/{path}");
    let (above, name) = archive::split(&whole);
    let above = Path::new(&above);
    if name == "." || whole.ends_with('/') {
        let full = if name == "." { above.to_owned() } else { above.join(&name) };
        let named = if name == "." { OsString::new() } else { name.into() };
        return Ok(Place { directory: beneath(root, &full, DIRECTORY)?, name: ".".into(), named });
    }
    let directory = beneath(root, above, DIRECTORY)?;
    statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Place { directory, name: name.clone().into(), named: name.into() })
}

fn missing(path: &str, id: &str) -> impl Fn(io::Error) -> Error + use<> {
    let (path, id) = (path.to_owned(), id.to_owned());
    move |error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Failure::new(Kind::NotFound, format!("Could not find the file {path} in container {id}")).into()
        }
        _ => Error::Io { what: "looking at", path: path.clone().into(), source: error },
    }
}

fn mount_id(file: BorrowedFd<'_>) -> Option<u64> {
    statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok().map(|found| found.stx_mnt_id)
}

/// The container's user, by number or as its own `/etc/passwd` and `/etc/group` name it.
fn owner(root: BorrowedFd<'_>, user: &str) -> Result<Owner> {
    let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let field = |file: &str, name: &str, at: usize| -> Option<u32> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mut text = String::new();
        let opened = beneath(root, Path::new(file), flags).ok()?;
        fs::File::from(opened).take(USERS).read_to_string(&mut text).ok()?;
        text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|line| {
            let is_it = line.first() == Some(&name) || line.get(2) == Some(&name);
            is_it.then(|| line.get(at)?.parse().ok()).flatten()
        })
    };
    let unknown = || Error::Invalid(format!("unable to find user {user}: no matching entries in passwd or group file"));
    let uid = name.parse().ok().or_else(|| field("/etc/passwd", name, 2)).ok_or_else(unknown)?;
    let gid = match group {
        Some(group) => group.parse().ok().or_else(|| field("/etc/group", group, 2)).ok_or_else(unknown)?,
        None => field("/etc/passwd", name, 3).unwrap_or(0),
    };
    Ok(Owner::Fixed(uid, gid))
}
