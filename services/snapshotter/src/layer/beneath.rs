//! Paths of a layer, resolved beneath its directory: the kernel itself (openat2, RESOLVE_IN_ROOT) sees to it that no
//! symbolic link and no `..` leads out. What was resolved last is kept, because a tar's entries come directory by
//! directory.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::Path,
};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat2, statat, unlinkat};

/// A path within a layer: relative, without `.` and `..`; empty for the layer's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inner(Vec<OsString>);

impl Inner {
    /// Reads an entry's name. A leading slash is dropped, as tar does; `..` is refused, because no honest layer has it.
    pub(crate) fn parse(name: &[u8]) -> Result<Self, &'static str> {
        if name.contains(&0) {
            return Err("has a NUL in its name");
        }
        let mut components = Vec::new();
        for component in name.split(|b| *b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err("climbs out of the layer with \"..\""),
                _ => components.push(OsString::from_vec(component.to_vec())),
            }
        }
        Ok(Self(components))
    }

    /// The last component and the directory that it is in; `None` for the root.
    pub(crate) fn split(&self) -> Option<(&[OsString], &OsStr)> {
        self.0.split_last().map(|(name, parent)| (parent, name.as_os_str()))
    }
}

/// A directory that everything stays beneath.
#[derive(Debug)]
pub(crate) struct Root {
    root: OwnedFd,
    last: Option<(Vec<OsString>, OwnedFd)>,
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?;
        Ok(Self { root, last: None })
    }

    /// The directory itself.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens a directory, making what is missing of it.
    pub(crate) fn directory(&mut self, path: &[OsString]) -> io::Result<BorrowedFd<'_>> {
        let known = matches!(&self.last, Some((last, _)) if last == path);
        if !known {
            let fd = self.resolve(path)?;
            self.last = Some((path.to_vec(), fd));
        }
        match &self.last {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Ok(self.root.as_fd()),
        }
    }

    /// What was resolved may lead elsewhere now.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    fn resolve(&self, path: &[OsString]) -> io::Result<OwnedFd> {
        match self.open_beneath(path, DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_empty() => {}
            other => return other,
        }
        // A tar need not name the directories that its entries are in.
        let mut made = self.open_beneath(&[], DIRECTORY)?;
        for end in 1..=path.len() {
            match mkdirat(&made, &path[end - 1], Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            made = self.open_beneath(&path[..end], DIRECTORY)?;
        }
        Ok(made)
    }

    /// Opens a path beneath the root, following symbolic links as if the root were `/`.
    pub(crate) fn open_beneath(&self, path: &[OsString], flags: OFlags) -> io::Result<OwnedFd> {
        let mut joined = Vec::new();
        for component in path {
            joined.extend_from_slice(component.as_bytes());
            joined.push(b'/');
        }
        joined.pop();
        if joined.is_empty() {
            joined.push(b'.');
        }
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(&self.root, OsStr::from_bytes(&joined), flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }
}

/// What is at a name in a directory; `None` for nothing.
pub(crate) fn kind_at(directory: impl AsFd, name: &OsStr) -> io::Result<Option<FileType>> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes whatever is at a name in a directory, with everything in it.
pub(crate) fn remove_at(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&opened)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            remove_at(opened.as_fd(), name)?;
        }
    }
    Ok(unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn components(text: &str) -> Vec<OsString> {
        Inner::parse(text.as_bytes()).unwrap().0
    }

    #[test]
    fn names_cannot_climb() {
        assert_eq!(components("/a/./b//c/"), ["a", "b", "c"]);
        assert!(Inner::parse(b"a/../../b").is_err());
        assert!(Inner::parse(b"a\0b").is_err());
        assert!(Inner::parse(b"./").unwrap().split().is_none());
    }

    #[test]
    fn links_stay_inside() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        symlink(outside.path(), inside.path().join("out")).unwrap();
        symlink("../../../..", inside.path().join("up")).unwrap();
        std::fs::create_dir(inside.path().join("there")).unwrap();
        symlink("/there", inside.path().join("in")).unwrap();
        let mut root = Root::open(inside.path()).unwrap();
        // A dangling link cannot be walked through, and nothing is made behind it.
        assert!(root.directory(&components("out/x")).is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        mkdirat(root.directory(&components("in")).unwrap(), "made", Mode::RWXU).unwrap();
        assert!(inside.path().join("there/made").is_dir());
        mkdirat(root.directory(&components("up")).unwrap(), "top", Mode::RWXU).unwrap();
        assert!(inside.path().join("top").is_dir());
    }
}
