//! What a layer left open, settled once it is known what it is stacked on.

use std::{
    ffi::OsStr,
    io,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::Path,
};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, openat};

use super::{
    attributes::{Attributes, is_opaque},
    beneath::{Root, descend, split},
    tree::{READ, kind, stat},
};
use crate::{error::Error, record::Open};

/// What the layers below a layer have at the path of a directory.
#[derive(Debug)]
pub(crate) enum Below {
    /// Nothing, or something that the layer's directory hides altogether.
    Nothing,
    /// A directory with these attributes.
    Directory(Attributes),
}

/// Looks for a directory in the layers below, nearest first.
pub(crate) fn below(lower: &[std::path::PathBuf], path: &[u8]) -> io::Result<Below> {
    let here = OsStr::new(".");
    for layer in lower {
        let root = openat(CWD, layer, READ, Mode::empty())?;
        match descend(root.as_fd(), path, READ) {
            Ok(directory) => {
                let Some(found) = stat(directory.as_fd(), here)? else { continue };
                return Ok(Below::Directory(Attributes::of(directory.as_fd(), here, &found)?));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if hides(&root, path)? {
                    return Ok(Below::Nothing);
                }
            }
            // A file, a link or a white-out is on the way.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
                return Ok(Below::Nothing);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Below::Nothing)
}

/// Whether a directory on the way to a path that a layer does not have is opaque in that layer.
fn hides(root: &impl std::os::fd::AsFd, path: &[u8]) -> io::Result<bool> {
    let mut path = path;
    while let Some((parent, _)) = split(path) {
        match descend(root.as_fd(), parent, READ) {
            Ok(directory) if is_opaque(directory.as_fd(), OsStr::new(".")) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        path = parent;
    }
    Ok(false)
}

/// Makes a layer's links to files of the layers below, in the whole tree at `merged`.
pub(crate) fn links(merged: &Path, open: &Open) -> Result<(), Error> {
    let mut root = Root::open(merged).map_err(Error::io("cannot open", merged))?;
    for (path, target) in &open.links {
        link(&mut root, path, target).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EIO) => Error::io("cannot write to", merged)(error),
            _ => Error::Entry {
                entry: String::from_utf8_lossy(path).chars().take(300).collect(),
                why: format!(
                    "is a hard link to {:?}, which neither its layer nor those below have: {error}",
                    String::from_utf8_lossy(target).chars().take(300).collect::<String>()
                ),
            },
        })?;
    }
    Ok(())
}

fn link(root: &mut Root, path: &[u8], target: &[u8]) -> io::Result<()> {
    let (Some((parent, name)), Some((target_parent, target_name))) = (split(path), split(target)) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let source = root.open_beneath(target_parent, OFlags::PATH | OFlags::DIRECTORY)?;
    // A directory cannot be linked to; said before anything is taken away.
    match stat(source.as_fd(), target_name)? {
        None => return Err(io::ErrorKind::NotFound.into()),
        Some(stat) if kind(&stat) == FileType::Directory => return Err(io::ErrorKind::IsADirectory.into()),
        Some(_) => {}
    }
    let directory = root.directory(parent, |_| ())?;
    super::tree::remove_at(directory, OsStr::from_bytes(name.as_bytes()))?;
    Ok(linkat(&source, target_name, directory, name, AtFlags::empty())?)
}
