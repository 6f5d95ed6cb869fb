//! Copying trees, for vfs. Blocks are shared where the file system can. Both trees are the snapshotter's own; nobody
//! writes to the source meanwhile.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, lchown, symlink},
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, chmodat, lgetxattr, llistxattr, lsetxattr, mknodat,
    utimensat,
};

use crate::error::Error;

const OPAQUE: &str = "trusted.overlay.opaque";

/// Copies everything in `from` into `to`, which is empty.
pub(crate) fn tree(from: &Path, to: &Path) -> Result<(), Error> {
    Copier { links: HashMap::new(), whiteouts: false }
        .contents(from, to)
        .and_then(|()| attributes(from, to))
        .map_err(Error::io("cannot copy", from))
}

/// Puts a layer on top of what is in `to`: white-outs take away, all else is added or replaces.
pub(crate) fn layer(from: &Path, to: &Path) -> Result<(), Error> {
    Copier { links: HashMap::new(), whiteouts: true }
        .contents(from, to)
        .and_then(|()| attributes(from, to))
        .map_err(Error::io("cannot apply the layer", from))
}

struct Copier {
    /// Copies of files with several names, by inode.
    links: HashMap<u64, PathBuf>,
    whiteouts: bool,
}

impl Copier {
    fn contents(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let metadata = source.symlink_metadata()?;
            let kind = metadata.file_type();
            if self.whiteouts {
                if kind.is_char_device() && metadata.rdev() == 0 {
                    remove(&target)?;
                    continue;
                }
                let both_directories = kind.is_dir() && target.symlink_metadata().is_ok_and(|m| m.is_dir());
                if !both_directories || is_opaque(&source) {
                    remove(&target)?;
                }
            }
            if kind.is_dir() {
                match fs::create_dir(&target) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => self.contents(&source, &target)?,
                }
            } else if metadata.nlink() > 1 && self.links.contains_key(&metadata.ino()) {
                fs::hard_link(&self.links[&metadata.ino()], &target)?;
                continue;
            } else if kind.is_symlink() {
                symlink(fs::read_link(&source)?, &target)?;
            } else if kind.is_file() {
                file(&source, &target)?;
            } else {
                let node = if kind.is_char_device() {
                    FileType::CharacterDevice
                } else if kind.is_block_device() {
                    FileType::BlockDevice
                } else if kind.is_fifo() {
                    FileType::Fifo
                } else {
                    FileType::Socket
                };
                mknodat(CWD, &target, node, Mode::from_raw_mode(metadata.mode() & 0o7777), metadata.rdev())?;
            }
            attributes(&source, &target)?;
            if metadata.nlink() > 1 && !kind.is_dir() {
                self.links.insert(metadata.ino(), target);
            }
        }
        Ok(())
    }
}

fn file(from: &Path, to: &Path) -> io::Result<()> {
    let (mut source, mut target) = (File::open(from)?, File::create_new(to)?);
    if rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    io::copy(&mut source, &mut target).map(|_| ())
}

fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 1];
    lgetxattr(path, OPAQUE, &mut value[..]).is_ok() && value == *b"y"
}

fn attributes(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = from.symlink_metadata()?;
    lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    if !metadata.is_symlink() {
        chmodat(CWD, to, Mode::from_raw_mode(metadata.mode() & 0o7777), AtFlags::empty())?;
    }
    let mut names = vec![0; 64 * 1024];
    let size = match llistxattr(from, &mut names[..]) {
        Ok(size) => size,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    for name in names[..size].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if name == OPAQUE.as_bytes() {
            continue;
        }
        let mut value = vec![0; 64 * 1024];
        let size = lgetxattr(from, name, &mut value[..])?;
        lsetxattr(to, name, &value[..size], XattrFlags::empty())?;
    }
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(metadata.atime(), metadata.atime_nsec()),
        last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
    };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
