//! Owner, mode, times and extended attributes of what a tar's entry made.

use std::{
    ffi::OsStr,
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr,
        futimens, lgetxattr, llistxattr, lsetxattr, utimensat,
    },
    io::Errno,
};

/// Ours alone: a layer that could set these could hide or reveal files of the layers below.
const OVERLAY: &[u8] = b"trusted.overlay.";
const OPAQUE: &str = "trusted.overlay.opaque";
/// Bits that a change of the owner takes away, and that no umask knows.
const SPECIAL: u32 = 0o7000;

/// What an entry says about its file.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permission bits with set-uid, set-gid and sticky.
    pub(crate) mode: u32,
    pub(crate) modified: Timespec,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a file has from the moment it is made, so that it need not be given again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Born {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// No umask takes bits of the mode away.
    pub(crate) unmasked: bool,
}

impl Attributes {
    /// What is at a name, but for overlayfs's own attributes.
    pub(crate) fn of(directory: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> io::Result<Self> {
        let path = through(directory, name);
        let mut xattrs = Vec::new();
        let mut names = vec![0; 64 * 1024];
        let size = match llistxattr(&path, &mut names[..]) {
            Ok(size) => size,
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(error.into()),
        };
        for name in names[..size].split(|b| *b == 0).filter(|name| !name.is_empty() && !name.starts_with(OVERLAY)) {
            let mut value = vec![0; 64 * 1024];
            let size = lgetxattr(&path, name, &mut value[..])?;
            value.truncate(size);
            xattrs.push((name.to_vec(), value));
        }
        Ok(Self {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            modified: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 },
            xattrs,
        })
    }

    fn times(&self) -> Timestamps {
        Timestamps { last_access: self.modified, last_modification: self.modified }
    }

    /// The mode to make a file with; [`Attributes::apply_to_file`] gives it the rest.
    pub(crate) fn first_mode(&self) -> Mode {
        Mode::from_raw_mode(self.mode & !SPECIAL)
    }

    /// Gives them to a file that was made with [`Attributes::first_mode`]. The owner comes before the mode, because
    /// changing it clears set-uid.
    pub(crate) fn apply_to_file(&self, file: BorrowedFd<'_>, born: Born) -> io::Result<()> {
        if (born.uid, born.gid) != (self.uid, self.gid) {
            fchown(file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        }
        if self.mode & SPECIAL != 0 || !born.unmasked {
            fchmod(file, Mode::from_raw_mode(self.mode))?;
        }
        for (name, value) in self.settable() {
            fsetxattr(file, name, value, XattrFlags::empty()).or_else(|error| tolerate(name, error))?;
        }
        Ok(futimens(file, &self.times())?)
    }

    /// Gives them to what is at a name, without following a symbolic link.
    pub(crate) fn apply_at(&self, directory: BorrowedFd<'_>, name: &OsStr, link: bool) -> io::Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(directory, name, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)), flags)?;
        if !link {
            chmodat(directory, name, Mode::from_raw_mode(self.mode), AtFlags::empty())?;
        }
        if !self.xattrs.is_empty() {
            // There is no setxattrat everywhere yet; the directory's descriptor makes the path safe, `l` the last step.
            let path = through(directory, name);
            for (key, value) in self.settable() {
                lsetxattr(&path, key, value, XattrFlags::empty()).or_else(|error| tolerate(key, error))?;
            }
        }
        Ok(utimensat(directory, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Whether a directory would look the same to who uses it. Times are left out: they change with what is in it.
    pub(crate) fn same_access(&self, other: &Self) -> bool {
        (self.uid, self.gid, self.mode) == (other.uid, other.gid, other.mode) && self.xattrs == other.xattrs
    }

    fn settable(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let ours = |(name, _): &&(Vec<u8>, Vec<u8>)| !name.starts_with(OVERLAY);
        self.xattrs.iter().filter(ours).map(|(name, value)| (name.as_slice(), value.as_slice()))
    }
}

/// A file system without such attributes loses those of users and of labels it has no policy for, as with tar;
/// capabilities are never lost silently.
fn tolerate(name: &[u8], error: Errno) -> rustix::io::Result<()> {
    let unsupported = matches!(error, Errno::OPNOTSUPP | Errno::PERM);
    if unsupported && name != b"security.capability" { Ok(()) } else { Err(error) }
}

/// A path that reaches a name in an open directory.
pub(crate) fn through(directory: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)
}

/// Hides what the layers below have in a directory.
pub(crate) fn set_opaque(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(lsetxattr(through(directory, name), OPAQUE, b"y", XattrFlags::empty())?)
}

/// Whether a directory hides what the layers below have in it.
pub(crate) fn is_opaque(directory: BorrowedFd<'_>, name: &OsStr) -> bool {
    let mut value = [0; 1];
    lgetxattr(through(directory, name), OPAQUE, &mut value[..]).is_ok() && value == *b"y"
}
