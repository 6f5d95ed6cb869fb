//! Paths beneath the container's root.
//!
//! A path is resolved one component after the other from the root's descriptor, as the container would see it: absolute
//! links start at the root, `..` stops there. Nothing else in the process is asked, so no link leads out, however often
//! somebody exchanges the files meanwhile.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Component, Path},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// What to make where there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Nothing; it must be there.
    Fail,
    /// A directory, mode 0755.
    Directory,
    /// An empty file, mode 0644, in directories of mode 0755.
    File,
}

/// The container's root directory.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// The directory at a path of the host.
    pub(crate) fn open(path: &Path) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, path, flags, Mode::empty()).map(Self)
    }

    /// Opens what is there, following links beneath the root.
    pub(crate) fn open_at(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.openat2(path, flags, ResolveFlags::empty())
    }

    /// Opens what is there and must not be reached through any link.
    pub(crate) fn open_plain(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.openat2(path, flags, ResolveFlags::NO_SYMLINKS)
    }

    fn openat2(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // Somebody renames beneath us; the kernel asks us to try again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// A descriptor (`O_PATH`) of what is at a path, made where it is missing.
    pub(crate) fn place(&self, path: &Path, missing: Missing) -> rustix::io::Result<OwnedFd> {
        match self.open_at(path, OFlags::PATH) {
            Err(Errno::NOENT) if missing != Missing::Fail => self.make(path, missing),
            other => other,
        }
    }

    /// Walks by itself, making what is missing. A link that leads nowhere is followed and what it names is made.
    fn make(&self, path: &Path, missing: Missing) -> rustix::io::Result<OwnedFd> {
        let mut ahead: VecDeque<OsString> = components(path).collect();
        let mut behind: Vec<OwnedFd> = vec![self.0.try_clone().map_err(|_| Errno::MFILE)?];
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            let Some(here) = behind.last() else { return Err(Errno::NOENT) };
            if name == ".." {
                if behind.len() > 1 {
                    behind.pop();
                }
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = match rustix::fs::openat(here, &name, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    let made = if missing == Missing::File && ahead.is_empty() {
                        let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                        rustix::fs::openat(here, &name, create, Mode::from_raw_mode(0o644)).map(drop)
                    } else {
                        rustix::fs::mkdirat(here, &name, Mode::from_raw_mode(0o755))
                    };
                    match made {
                        // Somebody else was faster.
                        Ok(()) | Err(Errno::EXIST) => rustix::fs::openat(here, &name, flags, Mode::empty())?,
                        Err(error) => return Err(error),
                    }
                }
                other => other?,
            };
            if FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode) == FileType::Symlink {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = OsString::from_vec(rustix::fs::readlinkat(&next, "", Vec::new())?.into_bytes());
                if target.as_encoded_bytes().first() == Some(&b'/') {
                    behind.truncate(1);
                }
                for part in components(Path::new(&target)).collect::<Vec<_>>().into_iter().rev() {
                    ahead.push_front(part);
                }
            } else {
                behind.push(next);
            }
        }
        behind.pop().ok_or(Errno::NOENT)
    }

    /// Reads a small file of the container, at most `limit` bytes; `None` where it is not there.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
        use std::io::Read as _;
        // Not blocking: a hostile image may have put a FIFO there.
        let file = match self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            other => std::fs::File::from(other?),
        };
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

/// The kind of what an open descriptor refers to.
pub(crate) fn is_directory(fd: impl AsFd) -> rustix::io::Result<bool> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn components(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("root")).unwrap();
        let root = Root::open(&directory.path().join("root")).unwrap();
        (directory, root)
    }

    #[test]
    fn links_never_lead_out() {
        let (outside, root) = root();
        let inside = outside.path().join("root");
        symlink("/", inside.join("absolute")).unwrap();
        symlink("../../../..", inside.join("up")).unwrap();
        symlink(outside.path(), inside.join("named")).unwrap();
        for path in ["absolute/a/b", "up/c", "../../d", "/named/e"] {
            root.place(Path::new(path), Missing::Directory).unwrap();
        }
        for made in ["a/b", "c", "d"] {
            assert!(inside.join(made).is_dir(), "{made}");
        }
        let elsewhere = inside.join(outside.path().strip_prefix("/").unwrap()).join("e");
        assert!(elsewhere.is_dir(), "an absolute link starts at the root");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_followed_and_its_target_made() {
        let (outside, root) = root();
        let inside = outside.path().join("root");
        fs::create_dir(inside.join("etc")).unwrap();
        symlink("../run/resolve/stub.conf", inside.join("etc/resolv.conf")).unwrap();
        root.place(Path::new("/etc/resolv.conf"), Missing::File).unwrap();
        assert!(inside.join("run/resolve/stub.conf").is_file());
    }

    #[test]
    fn loops_end() {
        let (outside, root) = root();
        let inside = outside.path().join("root");
        symlink("b", inside.join("a")).unwrap();
        symlink("a", inside.join("b")).unwrap();
        assert_eq!(root.place(Path::new("a/x"), Missing::Directory).unwrap_err(), Errno::LOOP);
        assert_eq!(root.make(Path::new("a/x"), Missing::Directory).unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn reads_files_alone() {
        let (outside, root) = root();
        let inside = outside.path().join("root");
        fs::write(inside.join("file"), "12345").unwrap();
        nix::unistd::mkfifo(&inside.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(root.read(Path::new("file"), 3).unwrap().unwrap(), b"123");
        assert_eq!(root.read(Path::new("fifo"), 3).unwrap(), None);
        assert_eq!(root.read(Path::new("nothing"), 3).unwrap(), None);
    }
}
