//! Taking what a container has written as a layer: copied as it lies there, white-outs and all, and not packed on the way.
//! The copy is the layer; what its tar is, is told by packing the copy, which nobody changes any more. So the tar can be
//! packed again at any time, and is the same.
//!
//! The container may be changing its tree meanwhile, and may mean ill: nothing is followed, what vanishes is left out.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::{CString, OsStr},
    fs::File,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, Stat, Timespec, fstat, linkat, makedev, mkdirat, mknodat, openat, readlinkat,
        symlinkat,
    },
    io::Errno,
};

use super::{
    attributes::{Attributes, Born, is_opaque, set_opaque},
    beneath::{Root, descend, split},
    changes::{Change, Kind as Changed},
    copy,
    pack::{LeaveOut, attributes, is_empty},
    tree::{READ, kind, stat},
    unpack::{BLOCK, born},
    walk::{Place, Visitor, is_gone, walk},
};
use crate::{
    error::Error,
    record::{Open, Usage},
};

/// Whether nobody waits for the layer any more.
pub(crate) type Gone<'a> = &'a (dyn Fn() -> bool + Sync);

/// Copies a tree that is a layer, with white-outs as overlayfs has them, into `target`, an empty directory. Changes the
/// thread's umask.
pub(crate) fn tree(
    own: BorrowedFd<'_>,
    describe_root: bool,
    leave_out: &LeaveOut,
    target: &Path,
    gone: Gone<'_>,
) -> Result<(Usage, Open), Error> {
    let mut taker = Taker::new(target, leave_out, gone)?;
    taker.describe_root = describe_root;
    walk(own, &mut taker)?;
    taker.finish()
}

/// Copies what changed of a whole tree into `target`, an empty directory. The changes are sorted. Changes the thread's
/// umask.
pub(crate) fn changed(
    own: BorrowedFd<'_>,
    changes: &[Change],
    target: &Path,
    gone: Gone<'_>,
) -> Result<(Usage, Open), Error> {
    let nothing = LeaveOut::new();
    let mut taker = Taker::new(target, &nothing, gone)?;
    for change in changes {
        let Some((parent, name)) = split(&change.path) else { continue };
        if change.kind == Changed::Deleted {
            taker.whiteout(&change.path)?;
            continue;
        }
        let directory = match descend(own, parent, READ) {
            Ok(directory) => directory,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(unread(&change.path)(error)),
        };
        if let Some(stat) = stat(directory.as_fd(), name).map_err(unread(&change.path))? {
            taker.entry(Place { directory: directory.as_fd(), name, path: &change.path, stat: &stat })?;
        }
    }
    taker.finish()
}

struct Taker<'a> {
    target: &'a Path,
    root: Root,
    born: Born,
    leave_out: &'a LeaveOut,
    gone: Gone<'a>,
    describe_root: bool,
    /// The first names of files with several.
    links: HashMap<u64, Vec<u8>>,
    /// They get their attributes when all is in them.
    directories: Vec<(Vec<u8>, Attributes)>,
    undescribed: BTreeSet<Vec<u8>>,
    hiding: BTreeSet<Vec<u8>>,
    usage: Usage,
}

fn unread(path: &[u8]) -> impl FnOnce(io::Error) -> Error + use<> {
    Error::io("cannot read", String::from_utf8_lossy(path).into_owned())
}

impl<'a> Taker<'a> {
    fn new(target: &'a Path, leave_out: &'a LeaveOut, gone: Gone<'a>) -> Result<Self, Error> {
        let root = Root::open(target).map_err(Error::io("cannot open", target))?;
        Ok(Self {
            target,
            root,
            born: born(),
            leave_out,
            gone,
            describe_root: false,
            links: HashMap::new(),
            directories: Vec::new(),
            undescribed: BTreeSet::from([Vec::new()]),
            hiding: BTreeSet::new(),
            usage: Usage { bytes: BLOCK, inodes: 1 },
        })
    }

    fn unwritten(&self) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io("cannot write to", self.target.to_owned())
    }

    /// The directory of the copy that something is put into; `None` where, in a tree that changes, it has become
    /// something else.
    fn parent(&mut self, path: &[u8]) -> Result<Option<BorrowedFd<'_>>, Error> {
        let failed = self.unwritten();
        let (undescribed, usage) = (&mut self.undescribed, &mut self.usage);
        let made = |made: &[u8]| {
            undescribed.insert(made.to_vec());
            usage.inodes += 1;
            usage.bytes += BLOCK;
        };
        match self.root.directory(path, made) {
            Ok(directory) => Ok(Some(directory)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::EEXIST)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes something; `false` where it cannot be where its tree has changed.
    fn make<T>(
        &mut self,
        path: &[u8],
        make: impl FnOnce(BorrowedFd<'_>, &OsStr) -> io::Result<T>,
    ) -> Result<Option<T>, Error> {
        let failed = self.unwritten();
        let Some((parent, name)) = split(path) else { return Ok(None) };
        let Some(directory) = self.parent(parent)? else { return Ok(None) };
        match make(directory, name) {
            Ok(made) => {
                self.usage.inodes += 1;
                Ok(Some(made))
            }
            // A tree that changes may show a name twice.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), Error> {
        let node = |directory: BorrowedFd<'_>, name: &OsStr| {
            Ok(mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))?)
        };
        if self.make(path, node)?.is_some() {
            self.usage.inodes -= 1;
            self.hiding.insert(split(path).map_or(Vec::new(), |(parent, _)| parent.to_vec()));
        }
        Ok(())
    }

    /// Whether this was a further name of a file that is there already.
    fn linked(&mut self, path: &[u8], stat: &Stat) -> Result<bool, Error> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        let Some(first) = self.links.get(&stat.st_ino).cloned() else {
            self.links.insert(stat.st_ino, path.to_vec());
            return Ok(false);
        };
        let Some((parent, first_name)) = split(&first) else { return Ok(false) };
        let failed = self.unwritten();
        let source = self.root.open_beneath(parent, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
        let link = |directory: BorrowedFd<'_>, name: &OsStr| {
            Ok(linkat(&source, first_name, directory, name, AtFlags::empty())?)
        };
        if self.make(path, link)?.is_some() {
            self.usage.inodes -= 1;
        }
        Ok(true)
    }

    fn file(&mut self, place: Place<'_>) -> Result<(), Error> {
        let Place { directory, name, path, .. } = place;
        // What takes its place meanwhile must neither be followed nor waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let source = match openat(directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NXIO) => return Ok(()),
            Err(error) if is_gone(&error.into()) => return Ok(()),
            Err(error) => return Err(unread(path)(error.into())),
        };
        let stat = fstat(&source).map_err(|error| unread(path)(error.into()))?;
        if kind(&stat) != FileType::RegularFile {
            return Ok(());
        }
        let Some(attributes) = attributes(directory, name, path, &stat)? else { return Ok(()) };
        if self.linked(path, &stat)? {
            return Ok(());
        }
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = attributes.first_mode();
        let made = self.make(path, |directory, name| Ok(File::from(openat(directory, name, write, mode)?)))?;
        let Some(target) = made else { return Ok(()) };
        let filled = copy::fill(&source, &target).map_err(self.unwritten())?;
        self.usage.bytes += filled.next_multiple_of(BLOCK);
        attributes.apply_to_file(target.as_fd(), self.born).map_err(self.unwritten())
    }

    /// A link, a device, a pipe.
    fn other(&mut self, place: Place<'_>) -> Result<(), Error> {
        let Place { directory, name, path, stat } = place;
        let Some(attributes) = attributes(directory, name, path, stat)? else { return Ok(()) };
        if self.linked(path, stat)? {
            return Ok(());
        }
        let what = kind(stat);
        let is_link = what == FileType::Symlink;
        let link = match readlinkat(directory, name, Vec::new()) {
            Ok(target) => target,
            Err(Errno::INVAL) if !is_link => CString::default(),
            Err(Errno::INVAL) => return Ok(()),
            Err(error) if is_gone(&error.into()) => return Ok(()),
            Err(error) => return Err(unread(path)(error.into())),
        };
        self.make(path, |directory, name| {
            match what {
                FileType::Symlink => symlinkat(&link, directory, name)?,
                what => mknodat(directory, name, what, Mode::from_raw_mode(0o600), stat.st_rdev)?,
            }
            attributes.apply_at(directory, name, is_link)
        })?;
        Ok(())
    }

    fn directory(&mut self, place: Place<'_>) -> Result<bool, Error> {
        let Place { directory, name, path, stat } = place;
        let Some(attributes) = attributes(directory, name, path, stat)? else { return Ok(false) };
        if self.make(path, |directory, name| Ok(mkdirat(directory, name, Mode::RWXU)?))?.is_none() {
            return Ok(false);
        }
        self.usage.bytes += BLOCK;
        self.undescribed.remove(path);
        self.directories.push((path.to_vec(), attributes));
        Ok(true)
    }

    /// Gives the directories their attributes, the innermost first.
    fn finish(mut self) -> Result<(Usage, Open), Error> {
        let (uid, gid, modified) = (self.born.uid, self.born.gid, Timespec { tv_sec: 0, tv_nsec: 0 });
        let plain = Attributes { uid, gid, mode: 0o755, modified, xattrs: Vec::new() };
        self.directories.extend(self.undescribed.iter().map(|path| (path.clone(), plain.clone())));
        self.directories.sort_by(|(a, _), (b, _)| b.cmp(a));
        for (path, attributes) in &self.directories {
            let opened = self.root.open_beneath(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW);
            opened
                .and_then(|directory| attributes.apply_at(directory.as_fd(), OsStr::new("."), false))
                .map_err(self.unwritten())?;
        }
        let Self { usage, undescribed, hiding, .. } = self;
        let open = Open {
            undescribed: undescribed.into_iter().collect(),
            hiding: hiding.into_iter().collect(),
            links: Vec::new(),
        };
        Ok((usage, open))
    }
}

impl Visitor for Taker<'_> {
    fn enter(&mut self, directory: BorrowedFd<'_>, path: &[u8], _: &[CString]) -> Result<(), Error> {
        let here = OsStr::new(".");
        if path.is_empty()
            && self.describe_root
            && let Some(stat) = stat(directory, here).map_err(unread(path))?
            && let Some(attributes) = attributes(directory, here, path, &stat)?
        {
            self.undescribed.remove(path);
            self.directories.push((Vec::new(), attributes));
        }
        if is_opaque(directory, here) {
            let failed = self.unwritten();
            if let Some(target) = self.parent(path)? {
                set_opaque(target, here).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, place: Place<'_>) -> Result<bool, Error> {
        if (self.gone)() {
            return Err(Error::Cancelled);
        }
        let Place { directory, name, path, stat } = place;
        let what = kind(stat);
        if (what, stat.st_rdev) == (FileType::CharacterDevice, 0) {
            self.whiteout(path)?;
            return Ok(false);
        }
        if self.leave_out.contains(path) && is_empty(directory, name, stat) {
            return Ok(false);
        }
        match what {
            FileType::Directory => return self.directory(place),
            FileType::RegularFile => self.file(place)?,
            FileType::Symlink | FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                self.other(place)?;
            }
            // A socket is nothing without who listens.
            _ => {}
        }
        Ok(false)
    }
}
