//! Walking trees of any depth: without recursion, and with few descriptors open, because how deep a tree is, and how long
//! its paths are, its maker chose.

use std::{
    collections::HashSet,
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat, unlinkat},
    io::Errno,
};

use super::beneath::{descend, split};
use crate::{error::Error, record::Usage};

/// To read a directory that is surely meant, and not one behind a link.
pub(crate) const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The names in a directory.
pub(crate) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// A path and one more component.
pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(path.len() + 1 + name.len());
    joined.extend_from_slice(path);
    if !path.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

/// What is at a name in a directory, whatever it is; `None` for nothing.
pub(crate) fn stat(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Stat>> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What kind of thing that is.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Removes whatever is at a name in a directory, with everything in it; nothing there is no error.
pub(crate) fn remove_at(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let root = openat(directory, name, READ, Mode::empty())?;
    empty(root.as_fd())?;
    Ok(unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}

fn empty(root: BorrowedFd<'_>) -> io::Result<()> {
    // A directory is met twice: to take away what is in it, and, when its own directories are gone, itself.
    let mut pending = vec![(Vec::new(), false)];
    while let Some((path, emptied)) = pending.pop() {
        if emptied {
            let Some((parent, name)) = split(&path) else { continue };
            let parent = descend(root, parent, OFlags::PATH | OFlags::DIRECTORY)?;
            unlinkat(parent, name, AtFlags::REMOVEDIR)?;
            continue;
        }
        let directory = descend(root, &path, READ)?;
        let mut below = Vec::new();
        for name in names(directory.as_fd())? {
            match unlinkat(&directory, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => below.push((join(&path, name.to_bytes()), false)),
                Err(error) => return Err(error.into()),
            }
        }
        pending.push((path, true));
        pending.append(&mut below);
    }
    Ok(())
}

/// Removes a tree by its path; nothing there is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            remove_at(parent.as_fd(), name)
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Disk use of a tree; files with several names count once, and what goes away meanwhile not at all.
pub(crate) fn usage(path: &Path) -> io::Result<Usage> {
    let root: OwnedFd = openat(CWD, path, READ, Mode::empty())?;
    let own = rustix::fs::fstat(&root)?;
    let mut usage = Usage { bytes: blocks(&own), inodes: 1 };
    let mut seen = HashSet::new();
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let directory = match descend(root.as_fd(), &path, READ) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for name in names(directory.as_fd())? {
            let Some(stat) = stat(directory.as_fd(), OsStr::from_bytes(name.to_bytes()))? else { continue };
            let directory = kind(&stat) == FileType::Directory;
            if stat.st_nlink > 1 && !directory && !seen.insert(stat.st_ino) {
                continue;
            }
            usage.inodes += 1;
            usage.bytes += blocks(&stat);
            if directory {
                pending.push(join(&path, name.to_bytes()));
            }
        }
    }
    Ok(usage)
}

fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

/// Makes everything in a file system durable: one call instead of one a file.
pub(crate) fn sync(directory: &Path) -> Result<(), Error> {
    let open = || openat(CWD, directory, READ, Mode::empty());
    open().and_then(rustix::fs::syncfs).map_err(|error| Error::io("cannot sync", directory)(error.into()))
}

#[cfg(test)]
mod tests {
    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn a_tree_deeper_than_any_path_is_counted_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let top = home.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let mut directory: OwnedFd = openat(CWD, &top, READ, Mode::empty()).unwrap();
        for _ in 0..3000 {
            mkdirat(&directory, "directory", Mode::RWXU).unwrap();
            directory = openat(&directory, "directory", READ, Mode::empty()).unwrap();
        }
        rustix::fs::openat(&directory, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
        assert_eq!(usage(&top).unwrap().inodes, 3002);
        remove(&top).unwrap();
        assert!(!top.exists());
        remove(&top).unwrap();
    }
}
