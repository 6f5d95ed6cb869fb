//! What a container has added, changed and deleted, told by comparing what it wrote with what lies below: as Docker
//! tells it, so that a file that was opened for writing and not written to is no change, and the directories that lead
//! to a change are changed.

use std::{
    collections::HashSet,
    ffi::{CString, OsStr},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::fs::{FileType, OFlags, Stat, readlinkat};

use super::{
    attributes::{Attributes, is_opaque},
    beneath::{descend, split},
    pack::{LeaveOut, is_empty},
    tree::{join, kind, names, stat},
    walk::{Place, Visitor, is_gone, walk},
};
use crate::error::Error;

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Added,
    Changed,
    Deleted,
}

/// A path, relative to the root, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
}

/// How what a container wrote lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// As a layer: what is not there is as it is below.
    Layer,
    /// As the whole tree: what is not there was deleted.
    Whole,
}

/// Compares; sorted by path. `below` is what the container was made on, where there is anything.
pub(crate) fn changes(
    own: BorrowedFd<'_>,
    how: Own,
    below: Option<BorrowedFd<'_>>,
    leave_out: &LeaveOut,
) -> Result<Vec<Change>, Error> {
    let mut comparison = Comparison { how, root: below, below: None, leave_out, changes: Vec::new() };
    walk(own, &mut comparison)?;
    let mut changes = comparison.changes;
    let mut known: HashSet<Vec<u8>> = changes.iter().map(|change| change.path.clone()).collect();
    for at in 0..changes.len() {
        let mut path = changes[at].path.as_slice();
        let mut leading = Vec::new();
        while let Some((parent, _)) = split(path).filter(|(parent, _)| !parent.is_empty()) {
            if !known.insert(parent.to_vec()) {
                break;
            }
            leading.push(Change { path: parent.to_vec(), kind: Kind::Changed });
            path = parent;
        }
        changes.append(&mut leading);
    }
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

struct Comparison<'a> {
    how: Own,
    /// What lies below, and the directory of it that the walk is in.
    root: Option<BorrowedFd<'a>>,
    below: Option<OwnedFd>,
    leave_out: &'a LeaveOut,
    changes: Vec<Change>,
}

fn failed(path: &[u8]) -> impl FnOnce(std::io::Error) -> Error + use<> {
    Error::io("cannot compare", String::from_utf8_lossy(path).into_owned())
}

impl Comparison<'_> {
    fn add(&mut self, path: &[u8], kind: Kind) {
        self.changes.push(Change { path: path.to_vec(), kind });
    }
}

impl Visitor for Comparison<'_> {
    fn enter(&mut self, directory: BorrowedFd<'_>, path: &[u8], own: &[CString]) -> Result<(), Error> {
        self.below = None;
        if let Some(root) = self.root {
            match descend(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
                Ok(below) => self.below = Some(below),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(failed(path)(error)),
            }
        }
        let Some(below) = &self.below else { return Ok(()) };
        if self.how == Own::Layer && !is_opaque(directory, OsStr::new(".")) {
            return Ok(());
        }
        let there = names(below.as_fd()).map_err(failed(path))?;
        for name in there.iter().filter(|name| own.binary_search(name).is_err()) {
            self.add(&join(path, name.to_bytes()), Kind::Deleted);
        }
        Ok(())
    }

    fn entry(&mut self, place: Place<'_>) -> Result<bool, Error> {
        let Place { directory, name, path, stat: own } = place;
        let below = match &self.below {
            Some(below) => stat(below.as_fd(), name).map_err(failed(path))?,
            None => None,
        };
        if self.how == Own::Layer && (kind(own), own.st_rdev) == (FileType::CharacterDevice, 0) {
            if below.is_some() {
                self.add(path, Kind::Deleted);
            }
            return Ok(false);
        }
        if kind(own) == FileType::Socket {
            // It is in no layer either.
            return Ok(false);
        }
        match (&self.below, below) {
            (Some(directory_below), Some(below)) => {
                let same = is_same((directory, own), (directory_below.as_fd(), &below), name);
                if !same.map_err(failed(path))? {
                    self.add(path, Kind::Changed);
                }
            }
            _ if self.leave_out.contains(path) && is_empty(directory, name, own) => return Ok(false),
            _ => self.add(path, Kind::Added),
        }
        Ok(true)
    }
}

/// Whether two things of one name are the same to who looks at them. What is in a directory is compared by itself.
fn is_same(
    (directory, own): (BorrowedFd<'_>, &Stat),
    (directory_below, below): (BorrowedFd<'_>, &Stat),
    name: &OsStr,
) -> std::io::Result<bool> {
    let access = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    let content = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    if access(own) != access(below) || (kind(own) != FileType::Directory && content(own) != content(below)) {
        return Ok(false);
    }
    if kind(own) == FileType::Symlink
        && readlinkat(directory, name, Vec::new())? != readlinkat(directory_below, name, Vec::new())?
    {
        return Ok(false);
    }
    let attributes = |directory, stat| -> std::io::Result<_> {
        let mut xattrs = Attributes::of(directory, name, stat)?.xattrs;
        xattrs.sort();
        Ok(xattrs)
    };
    match (attributes(directory, own), attributes(directory_below, below)) {
        (Ok(own), Ok(below)) => Ok(own == below),
        // It changes just now.
        (Err(error), _) if is_gone(&error) || error.raw_os_error() == Some(libc::ENODATA) => Ok(false),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}
