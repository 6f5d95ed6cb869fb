//! Unpacking a tar into a layer's directory (OCI image-spec, "Image Layer Filesystem Changeset").

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, XattrFlags, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, symlinkat,
};
use tar::EntryType;

use super::{
    attributes::Attributes,
    beneath::{Inner, Root, kind_at, remove_at},
};
use crate::{error::Error, record::Usage};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names that begin so are aufs's own and mean nothing to others.
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// No file system of today takes more entries in one layer; more than this is an attack.
const MAX_ENTRIES: u64 = 50_000_000;
const BUFFER: usize = 256 * 1024;

/// Unpacks `tar` into `target`, an empty directory.
pub(crate) fn unpack(tar: impl Read, target: &Path) -> Result<Usage, Error> {
    let root = Root::open(target).map_err(Error::io("cannot open", target))?;
    let mut unpacker = Unpacker { root, directories: Vec::new(), usage: Usage::default(), buffer: vec![0; BUFFER] };
    let mut archive = tar::Archive::new(tar);
    let malformed = |source| Error::Malformed { what: "tar", source };
    for entry in archive.entries().map_err(malformed)? {
        let mut entry = entry.map_err(malformed)?;
        let name = entry.path_bytes().into_owned();
        unpacker.entry(&mut entry, &name).map_err(|fault| fault.into_error(&name, target))?;
    }
    unpacker.finish().map_err(Error::io("cannot set the times of directories in", target))?;
    Ok(unpacker.usage)
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

impl From<rustix::io::Errno> for Fault {
    fn from(error: rustix::io::Errno) -> Self {
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
                Some(libc::ENOSPC | libc::EDQUOT | libc::EIO | libc::EROFS) => {
                    Error::Io { what: "cannot unpack into", path: target.into(), source: error }
                }
                Some(_) => Error::Entry { entry, why: format!("cannot be made: {error}") },
                None if error.kind() == io::ErrorKind::UnexpectedEof => Error::Malformed { what: "tar", source: error },
                None => Error::Entry { entry, why: format!("is malformed: {error}") },
            },
        }
    }
}

struct Unpacker {
    root: Root,
    /// Directories get their times when nothing is put into them any more.
    directories: Vec<(Vec<OsString>, OsString, Attributes)>,
    usage: Usage,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, name: &[u8]) -> Result<(), Fault> {
        let inner = Inner::parse(name).map_err(|why| Fault::Wrong(why.into()))?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        self.usage.inodes += 1;
        if self.usage.inodes > MAX_ENTRIES {
            return Err(Fault::Wrong(format!("is one of more than {MAX_ENTRIES}")));
        }
        let attributes = Attributes::read(entry)?;
        let Some((parent, name)) = inner.split() else {
            if kind.is_dir() {
                return Ok(attributes.apply_at(self.root.fd(), OsStr::new("."), false, true)?);
            }
            return Err(Fault::Wrong("has no name".into()));
        };
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(parent, name);
        }
        if kind.is_dir() {
            return self.directory(parent, name, attributes);
        }
        self.make_room(parent, name)?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, parent, name, &attributes)
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().ok_or_else(|| Fault::Wrong("is a hard link to nothing".into()))?;
                self.link(&target, parent, name)
            }
            EntryType::Symlink => {
                let target =
                    entry.link_name_bytes().ok_or_else(|| Fault::Wrong("is a symbolic link to nothing".into()))?;
                // What leads through it must be resolved anew.
                self.root.forget();
                let directory = self.root.directory(parent)?;
                symlinkat(OsStr::from_bytes(&target), directory, name)?;
                Ok(attributes.apply_at(directory, name, true, true)?)
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => self.node(entry, kind, parent, name, &attributes),
            other => Err(Fault::Wrong(format!("has the type {:?}, which layers do not have", other.as_byte() as char))),
        }
    }

    /// Takes away what an earlier entry put at this name.
    fn make_room(&mut self, parent: &[OsString], name: &OsStr) -> Result<(), Fault> {
        let directory = self.root.directory(parent)?;
        match kind_at(directory, name)? {
            None => Ok(()),
            Some(kind) => {
                remove_at(directory, name)?;
                if kind == FileType::Directory {
                    self.root.forget();
                }
                Ok(())
            }
        }
    }

    fn directory(&mut self, parent: &[OsString], name: &OsStr, attributes: Attributes) -> Result<(), Fault> {
        let directory = self.root.directory(parent)?;
        match kind_at(directory, name)? {
            Some(FileType::Directory) => {}
            None => mkdirat(directory, name, Mode::from_raw_mode(0o755))?,
            Some(kind) => {
                remove_at(directory, name)?;
                mkdirat(directory, name, Mode::from_raw_mode(0o755))?;
                if kind == FileType::CharacterDevice {
                    // It may have been a white-out: what the layers below have there stays hidden.
                    set_opaque(directory, name)?;
                }
                self.root.forget();
            }
        }
        let directory = self.root.directory(parent)?;
        attributes.apply_at(directory, name, false, false)?;
        self.directories.push((parent.to_vec(), name.to_owned(), attributes));
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        parent: &[OsString],
        name: &OsStr,
        attributes: &Attributes,
    ) -> Result<(), Fault> {
        let directory = self.root.directory(parent)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(directory, name, flags, Mode::from_raw_mode(0o600))?);
        loop {
            let size = entry.read(&mut self.buffer)?;
            if size == 0 {
                break;
            }
            file.write_all(&self.buffer[..size])?;
            self.usage.bytes += size as u64;
        }
        Ok(attributes.apply_to_file(file.as_fd())?)
    }

    /// The target is another entry of this layer. One in a layer below cannot be linked to: layers are laid down on their
    /// own, and the specification lets such a layer fail.
    fn link(&mut self, target: &[u8], parent: &[OsString], name: &OsStr) -> Result<(), Fault> {
        let inner = Inner::parse(target).map_err(|why| Fault::Wrong(format!("links to a path that {why}")))?;
        let Some((target_parent, target_name)) = inner.split() else {
            return Err(Fault::Wrong("links to the layer's root".into()));
        };
        let missing = || {
            let shown = String::from_utf8_lossy(target);
            Fault::Wrong(format!("is a hard link to {shown:?}, which this layer does not have"))
        };
        let source = self.root.open_beneath(target_parent, OFlags::PATH | OFlags::DIRECTORY).map_err(|_| missing())?;
        let directory = self.root.directory(parent)?;
        match linkat(&source, target_name, directory, name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::NOENT) => Err(missing()),
            Err(error) => Err(error.into()),
        }
    }

    fn node<R: Read>(
        &mut self,
        entry: &tar::Entry<'_, R>,
        kind: EntryType,
        parent: &[OsString],
        name: &OsStr,
        attributes: &Attributes,
    ) -> Result<(), Fault> {
        let header = entry.header();
        let number = |part: io::Result<Option<u32>>| part.map(|part| part.unwrap_or(0));
        let (major, minor) = (number(header.device_major())?, number(header.device_minor())?);
        let file_type = match kind {
            EntryType::Char if (major, minor) == (0, 0) => {
                return Err(Fault::Wrong("is a character device 0:0, which would be a white-out".into()));
            }
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let directory = self.root.directory(parent)?;
        mknodat(directory, name, file_type, Mode::from_raw_mode(0o600), makedev(major, minor))?;
        Ok(attributes.apply_at(directory, name, false, true)?)
    }

    fn whiteout(&mut self, parent: &[OsString], name: &OsStr) -> Result<(), Fault> {
        let bytes = name.as_bytes();
        if bytes == OPAQUE {
            let Some((name, above)) = parent.split_last() else {
                return Ok(set_opaque(self.root.fd(), OsStr::new("."))?);
            };
            // The directory may not have been named yet.
            self.root.directory(parent)?;
            return Ok(set_opaque(self.root.directory(above)?, name)?);
        }
        if bytes.starts_with(AUFS) {
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&bytes[WHITEOUT.len()..]);
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(Fault::Wrong("is a white-out of nothing".into()));
        }
        let directory = self.root.directory(parent)?;
        // It hides what is below; what this layer itself has there stays.
        if kind_at(directory, hidden)?.is_some() {
            return Ok(());
        }
        Ok(mknodat(directory, hidden, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))?)
    }

    /// Sets the directories' times, the innermost first.
    fn finish(&mut self) -> io::Result<()> {
        for (parent, name, attributes) in std::mem::take(&mut self.directories).into_iter().rev() {
            let directory = self.root.directory(&parent)?;
            match attributes.set_times(directory, &name) {
                Ok(()) => {}
                // A later entry replaced it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn set_opaque(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(lsetxattr(through(directory, name), OPAQUE_XATTR, b"y", XattrFlags::empty())?)
}

/// A path that reaches a name in an open directory.
pub(crate) fn through(directory: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)
}

/// Makes everything that was unpacked durable: one call for the whole file system instead of one a file.
pub(crate) fn sync(directory: &Path) -> Result<(), Error> {
    let open = || openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    open().and_then(rustix::fs::syncfs).map_err(|error| Error::io("cannot sync", directory)(error.into()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

    use super::*;

    struct Tape(tar::Builder<Vec<u8>>);

    impl Tape {
        fn new() -> Self {
            Self(tar::Builder::new(Vec::new()))
        }

        /// Writes the name as it is, whatever a well-meaning library thinks of it.
        fn add(mut self, kind: EntryType, name: &str, link: &str, data: &[u8]) -> Self {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(if kind.is_dir() { 0o755 } else { 0o4711 });
            (header.set_uid(1000), header.set_gid(100), header.set_mtime(1_000_000_000));
            header.set_size(data.len() as u64);
            if kind == EntryType::Char {
                header.set_device_major(0).unwrap();
                header.set_device_minor(0).unwrap();
            }
            header.set_cksum();
            self.0.append(&header, data).unwrap();
            self
        }

        fn file(self, name: &str, data: &str) -> Self {
            self.add(EntryType::Regular, name, "", data.as_bytes())
        }

        fn unpack(self) -> Result<tempfile::TempDir, Error> {
            let target = tempfile::tempdir().unwrap();
            unpack(self.0.into_inner().unwrap().as_slice(), target.path()).map(|_| target)
        }
    }

    #[test]
    fn files_keep_what_the_tar_says() {
        let tape = Tape::new().add(EntryType::Directory, "d/", "", b"").file("d/f", "text");
        let target = tape
            .add(EntryType::Link, "hard", "d/f", b"")
            .add(EntryType::Symlink, "soft", "/d/f", b"")
            .unpack()
            .unwrap();
        let metadata = target.path().join("d/f").metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (1000, 100, 0o4711));
        assert_eq!((metadata.mtime(), metadata.nlink()), (1_000_000_000, 2));
        assert_eq!(target.path().join("d").metadata().unwrap().mtime(), 1_000_000_000);
        assert_eq!(std::fs::read_link(target.path().join("soft")).unwrap(), Path::new("/d/f"));
    }

    #[test]
    fn white_outs_are_real_and_spare_their_own_layer() {
        let tape =
            Tape::new().file("a/.wh.gone", "").file("b/kept", "x").file("b/.wh.kept", "").file("a/.wh..wh..opq", "");
        let tape = tape.file(".wh.dir", "").add(EntryType::Directory, "dir", "", b"");
        let target = tape.unpack().unwrap();
        let gone = target.path().join("a/gone").symlink_metadata().unwrap();
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        assert_eq!(std::fs::read(target.path().join("b/kept")).unwrap(), b"x");
        let opaque = |name: &str| {
            let mut value = [0; 1];
            rustix::fs::lgetxattr(target.path().join(name), OPAQUE_XATTR, &mut value).map(|_| value) == Ok(*b"y")
        };
        assert!(opaque("a") && opaque("dir") && !opaque("b"));
    }

    #[test]
    fn hostile_entries_are_refused_by_name() {
        for (tape, name) in [
            (Tape::new().file("../escape", "x"), "../escape"),
            (Tape::new().file("a/../../escape", "x"), "a/../../escape"),
            (Tape::new().add(EntryType::Link, "l", "/etc/shadow", b""), "l"),
            (Tape::new().add(EntryType::Link, "l", "../../etc/shadow", b""), "l"),
            (Tape::new().add(EntryType::Char, "zero", "", b""), "zero"),
            (Tape::new().file(".wh...", ""), ".wh..."),
            (Tape::new().add(EntryType::Symlink, "s", "/tmp", b"").file("s/escape", "x"), "s/escape"),
        ] {
            match tape.unpack() {
                Err(Error::Entry { entry, .. }) => assert_eq!(entry, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn links_of_the_layer_stay_in_the_layer() {
        let tape = Tape::new().add(EntryType::Directory, "tmp", "", b"").add(EntryType::Symlink, "s", "/tmp", b"");
        let target = tape.file("s/file", "x").file("/absolute", "y").unpack().unwrap();
        assert_eq!(std::fs::read(target.path().join("tmp/file")).unwrap(), b"x");
        assert_eq!(std::fs::read(target.path().join("absolute")).unwrap(), b"y");
    }

    #[test]
    fn later_entries_replace_earlier_ones() {
        let tape = Tape::new().file("d/one", "1").file("d", "now a file").file("d2", "file").file("d2/below", "x");
        assert!(matches!(tape.unpack(), Err(Error::Entry { .. })), "a file is no directory");
        let target = Tape::new().file("d/one", "1").file("d", "now a file").unpack().unwrap();
        assert_eq!(std::fs::read(target.path().join("d")).unwrap(), b"now a file");
    }

    #[test]
    fn garbage_is_an_error_and_no_panic() {
        for seed in 0..200u64 {
            let mut state = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bytes: Vec<u8> = (0..2048)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .collect();
            let target = tempfile::tempdir().unwrap();
            let _ = unpack(bytes.as_slice(), target.path());
        }
    }
}
