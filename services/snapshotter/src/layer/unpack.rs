//! Unpacking a tar into a layer's directory (OCI image-spec, "Image Layer Filesystem Changeset").
//!
//! White-outs become what overlayfs takes for them, whatever the layer will be stacked on. What depends on that is told
//! in [`Open`].

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::File,
    io::{self, BufRead, Seek as _, SeekFrom, Write as _},
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, linkat, makedev, mkdirat, mknodat, openat, symlinkat},
    io::Errno,
};

use super::{
    attributes::{Attributes, Born, set_opaque},
    beneath::{Inner, Root},
    tar::{Entry, Kind, Reader},
    tree::{kind, remove_at, stat},
};
use crate::{
    error::Error,
    record::{Open, Usage},
};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names that begin so are aufs's own and mean nothing to others.
const AUFS: &[u8] = b".wh..wh.";
/// No file system of today takes more entries in one layer; more than this is an attack.
const MAX_ENTRIES: u64 = 50_000_000;
/// A file takes whole blocks of this many bytes.
pub(super) const BLOCK: u64 = 4096;

/// Unpacks `tar` into `target`, an empty directory.
pub(crate) fn unpack(tar: impl BufRead, target: &Path) -> Result<(Usage, Open), Error> {
    let root = Root::open(target).map_err(Error::io("cannot open", target))?;
    let mut unpacker = Unpacker {
        root,
        born: born(),
        directories: Vec::new(),
        undescribed: BTreeSet::from([Vec::new()]),
        hiding: BTreeSet::new(),
        links: Vec::new(),
        usage: Usage { bytes: BLOCK, inodes: 1 },
    };
    let mut reader = Reader::new(tar);
    let mut entries = 0;
    while let Some(entry) = reader.next().map_err(|source| Error::Malformed { what: "tar", source })? {
        entries += 1;
        let unpacked = match entries {
            ..=MAX_ENTRIES => unpacker.entry(&mut reader, &entry),
            _ => Err(Fault::Wrong(format!("is one of more than {MAX_ENTRIES}"))),
        };
        unpacked.map_err(|fault| fault.into_error(&entry.name, target))?;
    }
    unpacker.finish().map_err(Error::io("cannot set the attributes of directories in", target))?;
    let Unpacker { usage, undescribed, hiding, links, .. } = unpacker;
    let open = Open { undescribed: undescribed.into_iter().collect(), hiding: hiding.into_iter().collect(), links };
    Ok((usage, open))
}

/// Whether this thread may make files with the mode they shall have. It gets a umask of its own for that; where it
/// cannot, each file is given its mode when it is there.
pub(super) fn born() -> Born {
    let alone = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).is_ok();
    if alone {
        rustix::process::umask(Mode::empty());
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Born { uid, gid, unmasked: alone }
}

/// Why an entry was not unpacked: it is wrong, or the file system failed.
enum Fault {
    Wrong(String),
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Fault {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl Fault {
    fn into_error(self, name: &[u8], target: &Path) -> Error {
        let entry: String = String::from_utf8_lossy(name).chars().take(300).collect();
        match self {
            Self::Wrong(why) => Error::Entry { entry, why },
            // What the kernel says about this one path is the entry's fault, the rest the file system's or the tar's.
            Self::Io(error) => match error.raw_os_error() {
                Some(
                    libc::ENOSPC | libc::EDQUOT | libc::EIO | libc::EROFS | libc::EMFILE | libc::ENFILE | libc::ENOMEM,
                ) => Error::Io { what: "cannot unpack into", path: target.into(), source: error },
                Some(_) => Error::Entry { entry, why: format!("cannot be made: {error}") },
                None if error.kind() == io::ErrorKind::UnexpectedEof => Error::Malformed { what: "tar", source: error },
                None => Error::Entry { entry, why: format!("is malformed: {error}") },
            },
        }
    }
}

struct Unpacker {
    root: Root,
    born: Born,
    /// Directories get their attributes when nothing is put into them any more: what they pass on to what is made in
    /// them (set-gid, default access lists) is not meant for us, and their times would not stay.
    directories: Vec<(Vec<u8>, Attributes)>,
    undescribed: BTreeSet<Vec<u8>>,
    hiding: BTreeSet<Vec<u8>>,
    links: Vec<(Vec<u8>, Vec<u8>)>,
    usage: Usage,
}

impl Unpacker {
    fn entry<R: BufRead>(&mut self, tar: &mut Reader<R>, entry: &Entry) -> Result<(), Fault> {
        let inner = Inner::parse(&entry.name).map_err(|why| Fault::Wrong(why.into()))?;
        let Some((parent, name)) = inner.split() else {
            if entry.kind == Kind::Directory {
                self.described(inner.as_bytes(), &entry.attributes);
                return Ok(());
            }
            return Err(Fault::Wrong("has no name".into()));
        };
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(parent, name);
        }
        if entry.link.contains(&0) {
            return Err(Fault::Wrong("links to a name with a NUL in it".into()));
        }
        match entry.kind {
            Kind::File => self.file(tar, entry, parent, name),
            Kind::Directory => self.directory(inner.as_bytes(), parent, name, &entry.attributes),
            Kind::HardLink => self.hard_link(&inner, &entry.link),
            Kind::SymbolicLink => {
                self.anew(parent, name, |directory| symlinkat(OsStr::from_bytes(&entry.link), directory, name))?;
                // What leads through it must be resolved anew.
                self.root.forget();
                self.usage.inodes += 1;
                Ok(entry.attributes.apply_at(self.parent(parent)?, name, true)?)
            }
            Kind::Character | Kind::Block | Kind::Fifo => self.node(entry, parent, name),
            Kind::Other(byte) => {
                Err(Fault::Wrong(format!("has the type {:?}, which layers do not have", char::from(byte))))
            }
        }
    }

    /// The directory that an entry is in.
    fn parent(&mut self, path: &[u8]) -> io::Result<std::os::fd::BorrowedFd<'_>> {
        let (undescribed, usage) = (&mut self.undescribed, &mut self.usage);
        self.root.directory(path, |made| {
            undescribed.insert(made.to_vec());
            usage.inodes += 1;
            usage.bytes += BLOCK;
        })
    }

    /// Makes something at a name, in the place of what an earlier entry put there.
    fn anew<T>(
        &mut self,
        parent: &[u8],
        name: &OsStr,
        make: impl Fn(std::os::fd::BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        let directory = self.parent(parent)?;
        match make(directory) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        let file = stat(directory, name)?.is_some_and(|stat| kind(&stat) == FileType::RegularFile);
        remove_at(directory, name)?;
        if !file {
            // What was resolved last may have led through it.
            self.root.forget();
        }
        Ok(make(self.parent(parent)?)?)
    }

    fn described(&mut self, path: &[u8], attributes: &Attributes) {
        self.undescribed.remove(path);
        self.directories.push((path.to_vec(), attributes.clone()));
    }

    fn directory(&mut self, path: &[u8], parent: &[u8], name: &OsStr, attributes: &Attributes) -> Result<(), Fault> {
        let directory = self.parent(parent)?;
        match mkdirat(directory, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => match stat(directory, name)?.map(|stat| (kind(&stat), stat.st_rdev)) {
                Some((FileType::Directory, _)) => {
                    self.described(path, attributes);
                    return Ok(());
                }
                there => {
                    remove_at(directory, name)?;
                    mkdirat(directory, name, Mode::RWXU)?;
                    if there == Some((FileType::CharacterDevice, 0)) {
                        // It was a white-out: what the layers below have there stays hidden.
                        set_opaque(directory, name)?;
                    }
                    self.root.forget();
                }
            },
            Err(error) => return Err(error.into()),
        }
        self.usage.inodes += 1;
        self.usage.bytes += BLOCK;
        self.described(path, attributes);
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        tar: &mut Reader<R>,
        entry: &Entry,
        parent: &[u8],
        name: &OsStr,
    ) -> Result<(), Fault> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = entry.attributes.first_mode();
        let mut file = File::from(self.anew(parent, name, |directory| openat(directory, name, flags, mode))?);
        let mut stored = entry.size;
        match &entry.segments {
            None => tar.data(entry.size, |part| file.write_all(part))?,
            Some(segments) => {
                stored = 0;
                for segment in segments {
                    file.seek(SeekFrom::Start(segment.offset))?;
                    tar.data(segment.size, |part| file.write_all(part))?;
                    stored += segment.size;
                }
                file.set_len(entry.size)?;
            }
        }
        self.usage.inodes += 1;
        self.usage.bytes += stored.next_multiple_of(BLOCK);
        Ok(entry.attributes.apply_to_file(file.as_fd(), self.born)?)
    }

    /// The target is another entry of this layer, or a file of a layer below, which is not known here.
    fn hard_link(&mut self, inner: &Inner, target: &[u8]) -> Result<(), Fault> {
        let target = Inner::parse(target).map_err(|why| Fault::Wrong(format!("links to a path that {why}")))?;
        let (Some((parent, name)), Some((target_parent, target_name))) = (inner.split(), target.split()) else {
            return Err(Fault::Wrong("links to the layer's root".into()));
        };
        if target == *inner {
            return Err(Fault::Wrong("is a hard link to itself".into()));
        }
        let source = match self.root.open_beneath(target_parent, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(source) => stat(source.as_fd(), target_name)?
                // A white-out hides what is below; it is nothing to link to.
                .filter(|stat| (kind(stat), stat.st_rdev) != (FileType::CharacterDevice, 0))
                .map(|_| source),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let Some(source) = source else {
            // Whatever this layer had at that name is replaced by what is found below.
            let directory = self.parent(parent)?;
            remove_at(directory, name)?;
            self.links.push((inner.as_bytes().to_vec(), target.as_bytes().to_vec()));
            return Ok(());
        };
        Ok(self.anew(parent, name, |directory| linkat(&source, target_name, directory, name, AtFlags::empty()))?)
    }

    fn node(&mut self, entry: &Entry, parent: &[u8], name: &OsStr) -> Result<(), Fault> {
        let file_type = match entry.kind {
            Kind::Character if entry.device == (0, 0) => {
                return Err(Fault::Wrong("is a character device 0:0, which would be a white-out".into()));
            }
            Kind::Character => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let (mode, device) = (Mode::from_raw_mode(0o600), makedev(entry.device.0, entry.device.1));
        self.anew(parent, name, |directory| mknodat(directory, name, file_type, mode, device))?;
        self.usage.inodes += 1;
        Ok(entry.attributes.apply_at(self.parent(parent)?, name, false)?)
    }

    fn whiteout(&mut self, parent: &[u8], name: &OsStr) -> Result<(), Fault> {
        let bytes = name.as_bytes();
        if bytes == OPAQUE {
            // The directory may not have been named yet.
            return Ok(set_opaque(self.parent(parent)?, OsStr::new("."))?);
        }
        if bytes.starts_with(AUFS) {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&bytes[WHITEOUT.len()..]);
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(Fault::Wrong("is a white-out of nothing".into()));
        }
        let directory = self.parent(parent)?;
        match mknodat(directory, hidden, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)) {
            Ok(()) => {
                self.hiding.insert(parent.to_vec());
                Ok(())
            }
            // It hides what is below, also within a directory that this layer has too; what the layer itself has stays.
            Err(Errno::EXIST) => {
                let is_directory = stat(directory, hidden)?.is_some_and(|stat| kind(&stat) == FileType::Directory);
                if is_directory { Ok(set_opaque(directory, hidden)?) } else { Ok(()) }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the directories their attributes, the innermost first.
    fn finish(&mut self) -> io::Result<()> {
        self.root.forget();
        let default = Attributes {
            uid: self.born.uid,
            gid: self.born.gid,
            mode: 0o755,
            modified: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
            xattrs: Vec::new(),
        };
        for path in &self.undescribed {
            self.directories.push((path.clone(), default.clone()));
        }
        // Of two entries for one directory the last one counts; a path sorts behind those that lead to it.
        self.directories.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut done: Option<Vec<u8>> = None;
        for (path, attributes) in std::mem::take(&mut self.directories).into_iter().rev() {
            if done.as_ref() == Some(&path) {
                continue;
            }
            let opened = self.root.open_beneath(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW);
            match opened.and_then(|directory| attributes.apply_at(directory.as_fd(), OsStr::new("."), false)) {
                Ok(()) => {}
                // A later entry replaced it.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    self.undescribed.remove(&path);
                }
                Err(error) => return Err(error),
            }
            done = Some(path);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
