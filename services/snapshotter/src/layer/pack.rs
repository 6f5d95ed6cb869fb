//! Packing a tree into a tar: what a container wrote into its own directory, as a layer (OCI image-spec, "Image Layer
//! Filesystem Changeset"), or a whole root file system.
//!
//! The container may be changing the tree meanwhile, and may mean ill. An entry is always whole and of one moment: a file
//! has as many bytes as its header says, whatever becomes of it; what vanishes is left out.

use std::{
    collections::{HashMap, HashSet},
    ffi::{CString, OsStr},
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
};

use rustix::{
    fs::{FileType, Mode, OFlags, Stat, Timespec, fstat, major, minor, openat, readlinkat},
    io::Errno,
};

use super::{
    attributes::{Attributes, is_opaque},
    beneath::split,
    outgoing::Outgoing,
    tar::{Kind, write},
    tree::{READ, join, kind, stat},
    walk::{Place, Visitor, is_gone, walk},
};
use crate::error::Error;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// How often attributes are read again that change just then.
const TRIES: usize = 8;
/// A label of this machine's policy, which means nothing elsewhere.
const SELINUX: &[u8] = b"security.selinux";

/// What is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The tree is a layer, with white-outs as overlayfs has them.
    Layer,
    /// The tree is all there is.
    Whole,
}

/// Paths at which something is mounted: what lies below there is left out where it is empty.
pub(crate) type LeaveOut = HashSet<Vec<u8>>;

/// Packs a whole tree in one walk. `root` tells of its own attributes where they are to be in the tar.
pub(crate) fn tree(
    root: BorrowedFd<'_>,
    form: Form,
    describe_root: bool,
    leave_out: &LeaveOut,
    out: &mut Outgoing<'_>,
) -> Result<(), Error> {
    let mut packer = Packer { out, form, describe_root, leave_out, links: HashMap::new() };
    walk(root, &mut packer)?;
    packer.end()
}

struct Packer<'a, 'b> {
    out: &'a mut Outgoing<'b>,
    form: Form,
    describe_root: bool,
    leave_out: &'a LeaveOut,
    /// The first names of files with several.
    links: HashMap<u64, Vec<u8>>,
}

fn failed(path: &[u8]) -> impl FnOnce(io::Error) -> Error + use<> {
    Error::io("cannot read", String::from_utf8_lossy(path).into_owned())
}

impl Visitor for Packer<'_, '_> {
    fn enter(&mut self, directory: BorrowedFd<'_>, path: &[u8], _: &[CString]) -> Result<(), Error> {
        let here = OsStr::new(".");
        if path.is_empty()
            && self.describe_root
            && let Some(stat) = stat(directory, here).map_err(failed(path))?
            && let Some(attributes) = attributes(directory, here, path, &stat)?
        {
            self.head(b".", Kind::Directory, b"", &attributes, 0)?;
        }
        if self.form == Form::Layer && is_opaque(directory, here) {
            self.mark(OPAQUE, path)?;
        }
        Ok(())
    }

    fn entry(&mut self, place: Place<'_>) -> Result<bool, Error> {
        let Place { directory, name, path, stat } = place;
        let what = kind(stat);
        if self.form == Form::Layer {
            if (what, stat.st_rdev) == (FileType::CharacterDevice, 0) {
                self.mark(&[WHITEOUT, name.as_bytes()].concat(), split(path).map_or(b"", |(parent, _)| parent))?;
                return Ok(false);
            }
            if name.as_bytes().starts_with(WHITEOUT) {
                let entry = String::from_utf8_lossy(path).chars().take(300).collect();
                let why =
                    "has a name that begins with \".wh.\", which a layer has for what is deleted: rename or remove it";
                return Err(Error::Entry { entry, why: why.into() });
            }
        }
        if self.leave_out.contains(path) && is_empty(directory, name, stat) {
            return Ok(false);
        }
        match what {
            FileType::RegularFile => self.file(place)?,
            FileType::Directory => {
                let Some(attributes) = attributes(directory, name, path, stat)? else { return Ok(false) };
                self.head(path, Kind::Directory, b"", &attributes, 0)?;
            }
            FileType::Symlink | FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                self.other(place)?;
            }
            // A socket is nothing without who listens.
            _ => {}
        }
        Ok(true)
    }
}

impl Packer<'_, '_> {
    fn head(&mut self, path: &[u8], kind: Kind, link: &[u8], attributes: &Attributes, size: u64) -> Result<(), Error> {
        self.out.write(&write::Head { path, kind, link, attributes, size, device: (0, 0) }.bytes())
    }

    /// A file without content that says something about its directory.
    fn mark(&mut self, name: &[u8], directory: &[u8]) -> Result<(), Error> {
        let modified = Timespec { tv_sec: 0, tv_nsec: 0 };
        let attributes = Attributes { uid: 0, gid: 0, mode: 0, modified, xattrs: Vec::new() };
        self.head(&join(directory, name), Kind::File, b"", &attributes, 0)
    }

    /// Whether this was a further name of a file that is there already.
    fn linked(&mut self, path: &[u8], stat: &Stat, attributes: &Attributes) -> Result<bool, Error> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        match self.links.get(&stat.st_ino) {
            Some(first) => {
                let link = first.clone();
                self.head(path, Kind::HardLink, &link, attributes, 0)?;
                Ok(true)
            }
            None => {
                self.links.insert(stat.st_ino, path.to_vec());
                Ok(false)
            }
        }
    }

    fn file(&mut self, place: Place<'_>) -> Result<(), Error> {
        let Place { directory, name, path, .. } = place;
        // What takes its place meanwhile must neither be followed nor waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat(directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NXIO) => return Ok(()),
            Err(error) if is_gone(&error.into()) => return Ok(()),
            Err(error) => return Err(failed(path)(error.into())),
        };
        let stat = fstat(&file).map_err(|error| failed(path)(error.into()))?;
        if kind(&stat) != FileType::RegularFile {
            return Ok(());
        }
        let Some(attributes) = attributes(directory, name, path, &stat)? else { return Ok(()) };
        if self.linked(path, &stat, &attributes)? {
            return Ok(());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.head(path, Kind::File, b"", &attributes, size)?;
        self.out.file(&file, size).map_err(|error| match error {
            Error::Io { source, .. } => failed(path)(source),
            error => error,
        })
    }

    fn other(&mut self, place: Place<'_>) -> Result<(), Error> {
        let Place { directory, name, path, stat } = place;
        let Some(attributes) = attributes(directory, name, path, stat)? else { return Ok(()) };
        if self.linked(path, stat, &attributes)? {
            return Ok(());
        }
        let mut link = Vec::new();
        let what = match kind(stat) {
            FileType::Symlink => {
                link = match readlinkat(directory, name, Vec::new()) {
                    Ok(target) => target.into_bytes(),
                    Err(Errno::INVAL) => return Ok(()),
                    Err(error) if is_gone(&error.into()) => return Ok(()),
                    Err(error) => return Err(failed(path)(error.into())),
                };
                Kind::SymbolicLink
            }
            FileType::CharacterDevice => Kind::Character,
            FileType::BlockDevice => Kind::Block,
            _ => Kind::Fifo,
        };
        let device = match what {
            Kind::Character | Kind::Block => (major(stat.st_rdev), minor(stat.st_rdev)),
            _ => (0, 0),
        };
        let head = write::Head { path, kind: what, link: &link, attributes: &attributes, size: 0, device };
        self.out.write(&head.bytes())
    }

    fn end(self) -> Result<(), Error> {
        self.out.write(&write::END)?;
        self.out.flush()
    }
}

/// What is at a name; `None` where nothing is any more.
pub(super) fn attributes(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    path: &[u8],
    stat: &Stat,
) -> Result<Option<Attributes>, Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        match Attributes::of(directory, name, stat) {
            Ok(mut attributes) => {
                attributes.xattrs.retain(|(name, _)| name != SELINUX);
                attributes.xattrs.sort();
                return Ok(Some(attributes));
            }
            // It went between the list and the look.
            Err(error) if error.raw_os_error() == Some(libc::ENODATA) && tries < TRIES => {}
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(failed(path)(error)),
        }
    }
}

/// Whether there is nothing in a file or a directory.
pub(crate) fn is_empty(directory: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> bool {
    match kind(stat) {
        FileType::RegularFile => stat.st_size == 0,
        FileType::Directory => {
            let opened = openat(directory, name, READ, Mode::empty());
            opened.is_ok_and(|opened| super::tree::names(opened.as_fd()).is_ok_and(|names| names.is_empty()))
        }
        _ => false,
    }
}
