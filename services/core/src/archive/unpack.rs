//! A tar, laid down beneath a root.
//!
//! Whoever else writes there may swap a directory for a link at any moment: a parent is resolved by the kernel beneath the
//! root, and what was made is given its attributes through a descriptor, never through its name.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_NOW, Uid, XattrFlags, chmod,
        chownat, fchmod, fchown, fsetxattr, fstat, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2,
        statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};
use tar::{Archive, Entry, EntryType};

/// How links are followed on the way to a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beneath {
    /// As in a chroot: the root is where absolute ones begin.
    AsRoot,
    /// One that leads out is an error.
    Within,
}

/// Who owns what is laid down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// As the tar says.
    Kept,
    /// Who unpacks.
    Caller,
    /// User and group.
    Fixed(u32, u32),
}

/// What the tar's own names become.
#[derive(Clone, Debug, Default)]
pub struct Rename {
    /// So many first components are taken away.
    pub strip: usize,
    /// What stands there then.
    pub to: OsString,
}

/// How a tar is laid down.
#[derive(Clone, Debug)]
pub struct Rules {
    /// See [`Beneath`].
    pub beneath: Beneath,
    /// See [`Owner`].
    pub owner: Owner,
    /// See [`Rename`].
    pub rename: Option<Rename>,
}

/// Lays `tar` down in the directory `at` of `root`. A directory replaces nothing else, and nothing else replaces one.
///
/// # Errors
/// The tar is none or leads out, or a file cannot be written; what was laid down stays.
pub fn unpack(root: BorrowedFd<'_>, at: &Path, tar: impl Read, rules: &Rules) -> io::Result<()> {
    let mut archive = Archive::new(tar);
    // They get their times when all is in them.
    let mut directories: Vec<(PathBuf, u64)> = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = placed(&entry.path()?, rules)?;
        let mtime = entry.header().mtime().unwrap_or(0);
        if one(root, at, &mut entry, &path, rules).map_err(of(&path))? {
            directories.push((path, mtime));
        }
    }
    for (path, mtime) in directories.iter().rev() {
        if let Ok(directory) = open_directory(root, &at.join(path), rules.beneath) {
            futimens(&directory, &times(*mtime))?;
        }
    }
    Ok(())
}

fn of(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| match error.raw_os_error() {
        Some(_) => io::Error::new(error.kind(), format!("{path}: {error}")),
        None => error,
    }
}

/// Lays one entry down; whether it is a directory.
fn one(
    root: BorrowedFd<'_>,
    at: &Path,
    entry: &mut Entry<'_, impl Read>,
    path: &Path,
    rules: &Rules,
) -> io::Result<bool> {
    let kind = entry.header().entry_type();
    let mode = Mode::from_raw_mode(entry.header().mode()? & 0o7777);
    let Some(name) = path.file_name() else {
        let directory = open_directory(root, at, rules.beneath)?;
        own(directory.as_fd(), entry, rules)?;
        fchmod(&directory, mode)?;
        return Ok(true);
    };
    let parent = make_directories(root, &at.join(path.parent().unwrap_or(Path::new(""))), rules.beneath)?;
    let parent = parent.as_fd();
    let is_there = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Some(FileType::from_raw_mode(found.st_mode) == FileType::Directory),
        Err(Errno::NOENT) => None,
        Err(error) => return Err(error.into()),
    };
    match (is_there, kind.is_dir()) {
        (Some(true), false) => return Err(clash("directory", "non-directory", path)),
        (Some(false), true) => return Err(clash("non-directory", "directory", path)),
        (Some(false), false) => unlinkat(parent, name, AtFlags::empty())?,
        (Some(true), true) => {}
        (None, true) => mkdirat(parent, name, Mode::RWXU)?,
        (None, false) => {}
    }
    match kind {
        EntryType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = openat(parent, name, flags, Mode::empty())?;
            own(directory.as_fd(), entry, rules)?;
            fchmod(&directory, mode)?;
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
            let capability = capability(entry)?;
            io::copy(entry, &mut file)?;
            own(file.as_fd(), entry, rules)?;
            fchmod(&file, mode)?;
            if let Some(value) = capability.filter(|_| rules.owner == Owner::Kept) {
                fsetxattr(&file, "security.capability", &value, XattrFlags::empty())?;
            }
            futimens(&file, &times(entry.header().mtime().unwrap_or(0)))?;
        }
        EntryType::Link => {
            let target = placed(&link_name(entry)?, rules)?;
            let first = target.file_name().ok_or_else(|| broken("a hard link to no file"))?;
            let directory = open_directory(root, &at.join(target.parent().unwrap_or(Path::new(""))), rules.beneath)?;
            linkat(&directory, first, parent, name, AtFlags::empty())?;
        }
        EntryType::Symlink => {
            symlinkat(&link_name(entry)?, parent, name)?;
            if let Some((user, group)) = owner(entry, rules)? {
                chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            utimensat(parent, name, &times(entry.header().mtime().unwrap_or(0)), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        EntryType::Fifo | EntryType::Char | EntryType::Block => {
            let (major, minor) = (entry.header().device_major()?, entry.header().device_minor()?);
            let device = makedev(major.unwrap_or(0), minor.unwrap_or(0));
            let node = match kind {
                EntryType::Fifo => FileType::Fifo,
                EntryType::Char => FileType::CharacterDevice,
                _ => FileType::BlockDevice,
            };
            mknodat(parent, name, node, Mode::RUSR | Mode::WUSR, device)?;
            if let Some((user, group)) = owner(entry, rules)? {
                chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            let made = openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            if FileType::from_raw_mode(fstat(&made)?.st_mode) == node {
                chmod(format!("/proc/self/fd/{}", made.as_raw_fd()), mode)?;
            }
        }
        _ => {}
    }
    Ok(kind.is_dir())
}

fn clash(there: &str, comes: &str, path: &Path) -> io::Error {
    broken(&format!("cannot overwrite {there} {:?} with {comes} {:?}", path.display(), path.display()))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn link_name(entry: &Entry<'_, impl Read>) -> io::Result<PathBuf> {
    Ok(entry.link_name()?.ok_or_else(|| broken("a link to nothing"))?.into_owned())
}

fn capability(entry: &mut Entry<'_, impl Read>) -> io::Result<Option<Vec<u8>>> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(None) };
    for extension in extensions {
        let extension = extension?;
        if extension.key_bytes() == b"SCHILY.xattr.security.capability" {
            return Ok(Some(extension.value_bytes().to_vec()));
        }
    }
    Ok(None)
}

fn owner(entry: &Entry<'_, impl Read>, rules: &Rules) -> io::Result<Option<(Uid, Gid)>> {
    let number = |number: u64| match u32::try_from(number) {
        Ok(number) if number != u32::MAX => Ok(number),
        _ => Err(broken("a user or group that cannot be")),
    };
    Ok(match rules.owner {
        Owner::Caller => None,
        Owner::Fixed(user, group) => Some((Uid::from_raw(user), Gid::from_raw(group))),
        Owner::Kept => {
            let header = entry.header();
            Some((Uid::from_raw(number(header.uid()?)?), Gid::from_raw(number(header.gid()?)?)))
        }
    })
}

fn own(file: BorrowedFd<'_>, entry: &Entry<'_, impl Read>, rules: &Rules) -> io::Result<()> {
    if let Some((user, group)) = owner(entry, rules)? {
        fchown(file, Some(user), Some(group))?;
    }
    Ok(())
}

fn times(mtime: u64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        last_modification: Timespec { tv_sec: i64::try_from(mtime).unwrap_or(0), tv_nsec: 0 },
    }
}

/// Where an entry belongs, beneath the destination.
fn placed(name: &Path, rules: &Rules) -> io::Result<PathBuf> {
    let mut parts = Vec::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::ParentDir => {
                return Err(broken(&format!("{:?} is outside of the destination", name.display())));
            }
            _ => {}
        }
    }
    Ok(match &rules.rename {
        Some(rename) => {
            let rest = parts.get(rename.strip..).unwrap_or_default();
            std::iter::once(rename.to.as_os_str()).chain(rest.iter().copied()).collect()
        }
        None => parts.into_iter().collect(),
    })
}

fn open_directory(root: BorrowedFd<'_>, path: &Path, beneath: Beneath) -> Result<OwnedFd, Errno> {
    let resolve = match beneath {
        Beneath::AsRoot => ResolveFlags::IN_ROOT,
        Beneath::Within => ResolveFlags::BENEATH,
    };
    let path = if path.as_os_str().is_empty() { OsStr::from_bytes(b".") } else { path.as_os_str() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(root, path, flags, Mode::empty(), resolve | ResolveFlags::NO_MAGICLINKS)
}

/// Opens a directory beneath `root`, and makes what is missing of it.
///
/// # Errors
/// It cannot be made, or is something else.
pub fn make_directories(root: BorrowedFd<'_>, path: &Path, beneath: Beneath) -> io::Result<OwnedFd> {
    match open_directory(root, path, beneath) {
        Err(Errno::NOENT) => {}
        opened => return Ok(opened?),
    }
    let mut reached = PathBuf::new();
    for part in path.components() {
        let parent = open_directory(root, &reached, beneath)?;
        reached.push(part);
        if let Component::Normal(name) = part {
            match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(open_directory(root, path, beneath)?)
}
