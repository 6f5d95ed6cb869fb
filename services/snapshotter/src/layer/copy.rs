//! Copying trees, for vfs. Blocks are shared where the file system can, holes stay holes. Both trees are the
//! snapshotter's own; nobody writes to the source meanwhile.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, Stat, linkat, llistxattr, lremovexattr, mkdirat, mknodat, openat,
        readlinkat, symlinkat,
    },
    io::Errno,
};

use super::{
    attributes::{Attributes, is_opaque, through},
    beneath::{descend, split},
    tree::{READ, join, kind, names, remove_at, stat},
};
use crate::{error::Error, record::Open};

/// Copies everything in `from` into `to`, which is empty.
pub(crate) fn tree(from: &Path, to: &Path) -> Result<(), Error> {
    copy(from, to, None).map_err(failed("cannot copy", from, to))
}

/// Puts a layer on top of what is in `to`: white-outs take away, all else is added or replaces.
pub(crate) fn layer(from: &Path, to: &Path, open: &Open) -> Result<(), Error> {
    copy(from, to, Some(open)).map_err(failed("cannot put the layer on top of", from, to))
}

/// No space is said of where it is needed.
fn failed(what: &'static str, from: &Path, to: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Error::io("cannot write to", to)(error),
        _ => Error::io(what, from)(error),
    }
}

fn copy(from: &Path, to: &Path, layer: Option<&Open>) -> io::Result<()> {
    let open = |path| openat(CWD, path, READ, Mode::empty());
    let (from, to) = (open(from)?, open(to)?);
    let keep = layer.map(|open| open.undescribed.iter().map(Vec::as_slice).collect()).unwrap_or_default();
    let mut copier =
        Copier { from, to, links: HashMap::new(), whiteouts: layer.is_some(), keep, directories: Vec::new() };
    copier.directories.push(Vec::new());
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        copier.directory(&path, &mut pending)?;
    }
    copier.finish()
}

struct Copier<'a> {
    from: OwnedFd,
    to: OwnedFd,
    /// First copies of files with several names, by inode.
    links: HashMap<u64, Vec<u8>>,
    whiteouts: bool,
    /// Directories whose attributes stay where they are there already.
    keep: BTreeSet<&'a [u8]>,
    /// They get their attributes when all is in them.
    directories: Vec<Vec<u8>>,
}

impl Copier<'_> {
    fn directory(&mut self, path: &[u8], pending: &mut Vec<Vec<u8>>) -> io::Result<()> {
        let source = descend(self.from.as_fd(), path, READ)?;
        let target = descend(self.to.as_fd(), path, READ)?;
        for name in names(source.as_fd())? {
            let name = OsStr::from_bytes(name.to_bytes());
            let Some(found) = stat(source.as_fd(), name)? else { continue };
            let path = join(path, name.as_bytes());
            let mut there = false;
            if self.whiteouts {
                if (kind(&found), found.st_rdev) == (FileType::CharacterDevice, 0) {
                    remove_at(target.as_fd(), name)?;
                    continue;
                }
                let is_directory = |stat: &Stat| kind(stat) == FileType::Directory;
                there = is_directory(&found)
                    && stat(target.as_fd(), name)?.is_some_and(|stat| is_directory(&stat))
                    && !is_opaque(source.as_fd(), name);
                if !there {
                    remove_at(target.as_fd(), name)?;
                }
            }
            if kind(&found) == FileType::Directory {
                if !there {
                    mkdirat(&target, name, Mode::RWXU)?;
                }
                if !there || !self.keep.contains(path.as_slice()) {
                    self.directories.push(path.clone());
                }
                pending.push(path);
                continue;
            }
            self.file(source.as_fd(), target.as_fd(), name, &found, path)?;
        }
        Ok(())
    }

    /// Copies something that is no directory.
    fn file(
        &mut self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        name: &OsStr,
        found: &Stat,
        path: Vec<u8>,
    ) -> io::Result<()> {
        if found.st_nlink > 1 {
            if let Some(first) = self.links.get(&found.st_ino)
                && let Some((parent, first)) = split(first)
            {
                let parent = descend(self.to.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY)?;
                return Ok(linkat(parent, first, target, name, AtFlags::empty())?);
            }
            self.links.insert(found.st_ino, path);
        }
        match kind(found) {
            FileType::RegularFile => contents(source, target, name)?,
            FileType::Symlink => symlinkat(readlinkat(source, name, Vec::new())?, target, name)?,
            other => mknodat(target, name, other, Mode::from_raw_mode(0o600), found.st_rdev)?,
        }
        Attributes::of(source, name, found)?.apply_at(target, name, kind(found) == FileType::Symlink)
    }

    fn finish(self) -> io::Result<()> {
        let here = OsStr::new(".");
        for path in self.directories.iter().rev() {
            if path.is_empty() && self.keep.contains(path.as_slice()) {
                continue;
            }
            let source = descend(self.from.as_fd(), path, READ)?;
            let target = descend(self.to.as_fd(), path, READ)?;
            let Some(found) = stat(source.as_fd(), here)? else { continue };
            let attributes = Attributes::of(source.as_fd(), here, &found)?;
            forget_others(target.as_fd(), &attributes)?;
            attributes.apply_at(target.as_fd(), here, false)?;
        }
        Ok(())
    }
}

/// A directory that was there may have attributes that the one put over it has not.
fn forget_others(directory: BorrowedFd<'_>, kept: &Attributes) -> io::Result<()> {
    let path = through(directory, OsStr::new("."));
    let mut names = vec![0; 64 * 1024];
    let size = match llistxattr(&path, &mut names[..]) {
        Ok(size) => size,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for name in names[..size].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if !kept.xattrs.iter().any(|(kept, _)| kept == name) {
            lremovexattr(&path, name)?;
        }
    }
    Ok(())
}

fn contents(source: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = File::from(openat(source, name, read, Mode::empty())?);
    let target = File::from(openat(target, name, write, Mode::RUSR | Mode::WUSR)?);
    fill(&source, &target).map(|_| ())
}

/// Copies what is in a file into an empty one; answers with the bytes of it that are no holes.
pub(super) fn fill(mut source: &File, mut target: &File) -> io::Result<u64> {
    let size = source.metadata()?.len();
    if size == 0 {
        return Ok(0);
    }
    if rustix::fs::ioctl_ficlone(target, source).is_ok() {
        return Ok(size);
    }
    let (mut end, mut filled) = (0, 0);
    while end < size {
        let start = match rustix::fs::seek(source, rustix::fs::SeekFrom::Data(end)) {
            Ok(start) => start,
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            // No holes are known here.
            Err(Errno::INVAL) if end == 0 => 0,
            Err(error) => return Err(error.into()),
        };
        end = match rustix::fs::seek(source, rustix::fs::SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            Err(_) => size,
        };
        source.seek(SeekFrom::Start(start))?;
        target.seek(SeekFrom::Start(start))?;
        filled += io::copy(&mut source.take(end.saturating_sub(start)), &mut target)?;
        if start >= size {
            break;
        }
    }
    target.set_len(size)?;
    Ok(filled)
}
