//! Paths of a layer, resolved beneath its directory: the kernel itself (openat2, RESOLVE_IN_ROOT) sees to it that no
//! symbolic link and no `..` leads out. What was resolved last is kept, because a tar's entries come directory by
//! directory.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2},
    io::Errno,
};

/// Longest path in one call: the kernel's PATH_MAX with its NUL, and room for what we add.
const PATH: usize = 4000;
/// Longest path within a layer. Image tools end at PATH_MAX; this leaves room and bounds what one entry can cost.
const LONGEST: usize = 32 * 1024;

/// A path within a layer: components joined by `/`, relative, without `.` and `..`; empty for the layer's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inner(Vec<u8>);

impl Inner {
    /// Reads an entry's name. A leading slash is dropped, as tar does; `..` is refused, because no honest layer has it.
    pub(crate) fn parse(name: &[u8]) -> Result<Self, &'static str> {
        if name.contains(&0) {
            return Err("has a NUL in its name");
        }
        if name.len() > LONGEST {
            return Err("has a path of more than 32768 bytes");
        }
        let mut path = Vec::with_capacity(name.len());
        for component in name.split(|b| *b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err("climbs out of the layer with \"..\""),
                _ => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(component);
                }
            }
        }
        Ok(Self(path))
    }

    /// The whole path.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directory that it is in and the last component; `None` for the root.
    pub(crate) fn split(&self) -> Option<(&[u8], &OsStr)> {
        split(&self.0)
    }
}

/// Directory and last component of a path as [`Inner`] has them.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &OsStr)> {
    if path.is_empty() {
        return None;
    }
    let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    };
    Some((parent, OsStr::from_bytes(name)))
}

/// A directory that everything stays beneath.
#[derive(Debug)]
pub(crate) struct Root {
    root: OwnedFd,
    last: Option<(Vec<u8>, OwnedFd)>,
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?;
        Ok(Self { root, last: None })
    }

    /// Opens a directory, making what is missing of it. `made` is told the path of each that is made.
    pub(crate) fn directory(&mut self, path: &[u8], made: impl FnMut(&[u8])) -> io::Result<BorrowedFd<'_>> {
        if path.is_empty() {
            return Ok(self.root.as_fd());
        }
        if !matches!(&self.last, Some((last, _)) if last == path) {
            let fd = self.resolve(path, made)?;
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

    fn resolve(&self, path: &[u8], mut made: impl FnMut(&[u8])) -> io::Result<OwnedFd> {
        match self.open_beneath(path, DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        // A tar need not name the directories that its entries are in. The parent is looked for first, so that a deep
        // path costs no more than what is missing of it.
        let mut end = path.len();
        let mut directory = loop {
            end = split(&path[..end]).map_or(0, |(parent, _)| parent.len());
            match self.open_beneath(&path[..end], DIRECTORY) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && end > 0 => {}
                Err(error) => return Err(error),
                Ok(directory) => break directory,
            }
        };
        while end < path.len() {
            let start = if end == 0 { 0 } else { end + 1 };
            end = path[start..].iter().position(|b| *b == b'/').map_or(path.len(), |length| start + length);
            let name = OsStr::from_bytes(&path[start..end]);
            // A name that is there and leads nowhere is a dangling link, and nothing is made behind it.
            mkdirat(&directory, name, Mode::RWXU)?;
            made(&path[..end]);
            directory = rustix::fs::openat(&directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok(directory)
    }

    /// Opens a path beneath the root, following symbolic links as if the root were `/`.
    pub(crate) fn open_beneath(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        if path.len() > PATH {
            return descend(self.root.as_fd(), path, flags);
        }
        let path = if path.is_empty() { b".".as_slice() } else { path };
        open(self.root.as_fd(), path, flags, ResolveFlags::IN_ROOT)
    }
}

/// Opens a path of any length beneath a directory, without following any symbolic link.
pub(crate) fn descend(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mut from: Option<OwnedFd> = None;
    let mut rest = if path.is_empty() { b".".as_slice() } else { path };
    while rest.len() > PATH {
        let end = rest[..PATH].iter().rposition(|b| *b == b'/').ok_or(Errno::NAMETOOLONG)?;
        from = Some(open(from.as_ref().map_or(root, AsFd::as_fd), &rest[..end], DIRECTORY, strict)?);
        rest = &rest[end + 1..];
    }
    open(from.as_ref().map_or(root, AsFd::as_fd), rest, flags, strict)
}

fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
    let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, OsStr::from_bytes(path), flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn path(text: &str) -> Vec<u8> {
        Inner::parse(text.as_bytes()).unwrap().0
    }

    #[test]
    fn names_cannot_climb() {
        assert_eq!(path("/a/./b//c/"), b"a/b/c");
        assert_eq!(split(b"a/b/c"), Some((b"a/b".as_slice(), OsStr::new("c"))));
        assert_eq!(split(b"a"), Some((b"".as_slice(), OsStr::new("a"))));
        assert!(Inner::parse(b"a/../../b").is_err());
        assert!(Inner::parse(b"a\0b").is_err());
        assert!(Inner::parse(&vec![b'a'; LONGEST + 1]).is_err());
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
        assert!(root.directory(&path("out/x"), |_| ()).is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        mkdirat(root.directory(&path("in"), |_| ()).unwrap(), "made", Mode::RWXU).unwrap();
        assert!(inside.path().join("there/made").is_dir());
        mkdirat(root.directory(&path("up"), |_| ()).unwrap(), "top", Mode::RWXU).unwrap();
        assert!(inside.path().join("top").is_dir());
    }

    #[test]
    fn what_is_missing_is_made_and_told_however_deep() {
        let inside = tempfile::tempdir().unwrap();
        let mut root = Root::open(inside.path()).unwrap();
        let name = "n".repeat(255);
        let deep = vec![name.as_str(); 20].join("/");
        let mut made = Vec::new();
        root.directory(deep.as_bytes(), |path| made.push(path.to_vec())).unwrap();
        assert_eq!(made.len(), 20);
        assert_eq!(made[19], deep.as_bytes());
        root.forget();
        root.directory(deep.as_bytes(), |_| panic!("it is there")).unwrap();
    }
}
