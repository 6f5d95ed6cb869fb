//! A tree as a tar: owner, mode, times, file capabilities, symbolic and hard links, devices.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read as _, Write},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, fstat, fstatfs, major, minor, openat,
        openat2, readlinkat, statat,
    },
    io::Errno,
};
use tar::{Builder, EntryType, Header};

/// What the kernel makes up (proc, sysfs, cgroup v1 and v2): not a container's files.
const MADE_UP: [u64; 4] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270];
const CAPABILITY: &str = "security.capability";
/// A path of this length is surely resolved in one go (`PATH_MAX` is 4096).
const STEP: usize = 2048;

/// Packs the entry `name` of `directory`, and all below it, under `named`; "." is the directory itself, whose contents
/// then have names of their own. What vanishes or changes its kind meanwhile is left out, sockets too.
///
/// # Errors
/// A file cannot be read, or `out` not be written.
pub fn pack(directory: BorrowedFd<'_>, name: &OsStr, named: &OsStr, out: impl Write) -> io::Result<()> {
    let mut tar = Builder::new(out);
    let mut links = HashMap::new();
    let mut pending = vec![(name.as_bytes().to_vec(), PathBuf::from(named))];
    while let Some((path, named)) = pending.pop() {
        let (parent, last) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], OsStr::from_bytes(&path[slash + 1..])),
            None => (&b"."[..], OsStr::from_bytes(&path)),
        };
        let Some(parent) = present(descend(directory, parent))? else { continue };
        let Some(found) = present(statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW))? else { continue };
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Some(opened) = present(openat(&parent, last, flags, Mode::empty()))? else { continue };
            tar.append_data(&mut header(&found, EntryType::Directory), directory_name(&named), io::empty())?;
            #[allow(clippy::unnecessary_cast, reason = "its type differs between architectures")]
            if MADE_UP.contains(&(fstatfs(&opened)?.f_type as u64)) {
                continue;
            }
            for entry in Dir::read_from(&opened)? {
                let entry = entry?;
                let below = entry.file_name().to_bytes();
                if !matches!(below, b"." | b"..") {
                    pending.push(([&path[..], b"/", below].concat(), named.join(OsStr::from_bytes(below))));
                }
            }
            continue;
        }
        file(&mut tar, parent.as_fd(), last, &named, &found, &mut links)?;
    }
    tar.into_inner()?.flush()
}

/// Something that is no directory.
fn file(
    tar: &mut Builder<impl Write>,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    named: &Path,
    found: &Stat,
    links: &mut HashMap<(u64, u64), PathBuf>,
) -> io::Result<()> {
    if found.st_nlink > 1 {
        if let Some(first) = links.get(&(found.st_dev, found.st_ino)) {
            return tar.append_link(&mut header(found, EntryType::Link), named, first);
        }
        links.insert((found.st_dev, found.st_ino), named.into());
    }
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let Some(opened) = present(openat(parent, name, flags, Mode::empty()))? else { return Ok(()) };
            let now = fstat(&opened)?;
            if FileType::from_raw_mode(now.st_mode) != FileType::RegularFile {
                return Ok(());
            }
            let mut value = vec![0; 1024];
            if let Ok(size) = fgetxattr(&opened, CAPABILITY, &mut value[..]) {
                tar.append_pax_extensions([("SCHILY.xattr.security.capability", &value[..size])])?;
            }
            let mut header = header(&now, EntryType::Regular);
            let size = u64::try_from(now.st_size).unwrap_or(0);
            header.set_size(size);
            // One that shrinks while it is read keeps the length that was promised.
            tar.append_data(&mut header, named, File::from(opened).take(size).chain(io::repeat(0)).take(size))
        }
        FileType::Symlink => {
            let Some(target) = present(readlinkat(parent, name, Vec::new()))? else { return Ok(()) };
            let mut header = header(found, EntryType::Symlink);
            // Word for word where it has room; what is longer loses doubled slashes.
            match header.set_link_name_literal(target.as_bytes()) {
                Ok(()) => tar.append_data(&mut header, named, io::empty()),
                Err(_) => tar.append_link(&mut header, named, OsStr::from_bytes(target.as_bytes())),
            }
        }
        FileType::Fifo => tar.append_data(&mut header(found, EntryType::Fifo), named, io::empty()),
        FileType::CharacterDevice => device(tar, found, EntryType::Char, named),
        FileType::BlockDevice => device(tar, found, EntryType::Block, named),
        _ => Ok(()),
    }
}

fn device(tar: &mut Builder<impl Write>, found: &Stat, kind: EntryType, named: &Path) -> io::Result<()> {
    let mut header = header(found, kind);
    header.set_device_major(major(found.st_rdev))?;
    header.set_device_minor(minor(found.st_rdev))?;
    tar.append_data(&mut header, named, io::empty())
}

fn header(found: &Stat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(found.st_mode & 0o7777);
    header.set_uid(found.st_uid.into());
    header.set_gid(found.st_gid.into());
    header.set_mtime(u64::try_from(found.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

/// Directories end with a slash.
fn directory_name(named: &Path) -> PathBuf {
    if named.as_os_str().is_empty() {
        return "./".into();
    }
    PathBuf::from(OsStr::from_bytes(&[named.as_os_str().as_bytes(), b"/"].concat()))
}

/// What is there and still what it was.
fn present<T>(found: Result<T, Errno>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory of the tree, of any depth, without following a link.
fn descend(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |at: BorrowedFd<'_>, step: &[u8]| openat2(at, step, flags, Mode::empty(), resolve);
    let mut rest = path;
    let mut reached = open(root, b".")?;
    while !rest.is_empty() {
        let end = rest.get(..STEP).and_then(|long| long.iter().rposition(|b| *b == b'/')).unwrap_or(rest.len());
        reached = open(reached.as_fd(), &rest[..end])?;
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    Ok(reached)
}
