//! Walking through a tree that others may be changing: each directory is told before what is in it, names in their order,
//! without recursion, and never through a symbolic link. What goes away meanwhile is passed over.

use std::{
    ffi::{CString, OsStr},
    io,
    os::{fd::BorrowedFd, unix::ffi::OsStrExt as _},
};

use rustix::fs::{FileType, Stat};

use super::{
    beneath::descend,
    tree::{READ, join, kind, names, stat},
};
use crate::error::Error;

/// Something in a directory.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The directory that it is in.
    pub(crate) directory: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    /// From the root of the walk.
    pub(crate) path: &'a [u8],
    pub(crate) stat: &'a Stat,
}

/// Who is told what there is.
pub(crate) trait Visitor {
    /// A directory whose names, which are sorted, come next; the root's path is empty.
    fn enter(&mut self, directory: BorrowedFd<'_>, path: &[u8], names: &[CString]) -> Result<(), Error>;

    /// Something in it. A directory is entered later, where the answer is true.
    fn entry(&mut self, place: Place<'_>) -> Result<bool, Error>;
}

/// Walks through everything beneath `root`.
pub(crate) fn walk(root: BorrowedFd<'_>, visitor: &mut impl Visitor) -> Result<(), Error> {
    let failed = |path: &[u8]| Error::io("cannot read", String::from_utf8_lossy(path).into_owned());
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let directory = match descend(root, &path, READ) {
            Ok(directory) => directory,
            Err(error) if !path.is_empty() && is_gone(&error) => continue,
            Err(error) => return Err(failed(&path)(error)),
        };
        let directory = std::os::fd::AsFd::as_fd(&directory);
        let mut names = names(directory).map_err(failed(&path))?;
        names.sort_unstable();
        visitor.enter(directory, &path, &names)?;
        let first = pending.len();
        for name in &names {
            let name = OsStr::from_bytes(name.to_bytes());
            let Some(stat) = stat(directory, name).map_err(failed(&path))? else { continue };
            let path = join(&path, name.as_bytes());
            let enters = visitor.entry(Place { directory, name, path: &path, stat: &stat })?;
            if enters && kind(&stat) == FileType::Directory {
                pending.push(path);
            }
        }
        // The next to be taken is the last.
        pending[first..].reverse();
    }
    Ok(())
}

/// Nothing is there any more, or something else.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ESTALE))
}
