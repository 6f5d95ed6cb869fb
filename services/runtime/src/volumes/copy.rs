//! Copies a tree out of an image: owner, mode, times, extended attributes, symbolic and hard links, devices. The image's
//! maker chose how deep and how strange it is: nothing recurses, no link is followed, every path is resolved beneath the
//! tree's root by the kernel (openat2).

use std::{
    collections::HashMap,
    ffi::{CString, OsStr},
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::PathBuf,
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat,
        chownat, fstat, lgetxattr, linkat, llistxattr, lsetxattr, mkdirat, mknodat, openat, openat2, readlinkat,
        statat, symlinkat, utimensat,
    },
    io::Errno,
};

/// Overlayfs's own; they mean something only where they were made.
const OVERLAY: &[u8] = b"trusted.overlay.";
const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A path of this length is surely resolved in one go (`PATH_MAX` is 4096).
const STEP: usize = 2048;

/// Copies what is in the directory `from` into the directory `to`, which is empty, and gives that its attributes.
pub(super) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut links: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    // They get their attributes when all is in them: deepest first, and the root, which is the empty path, last.
    let mut directories = Vec::new();
    let mut pending: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let (source, target) = (descend(from, &path)?, descend(to, &path)?);
        for name in names(source.as_fd())? {
            let name = OsStr::from_bytes(name.to_bytes());
            let found = statat(&source, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let below = join(&path, name.as_bytes());
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                mkdirat(&target, name, Mode::RWXU)?;
                pending.push(below);
                continue;
            }
            if found.st_nlink > 1 {
                let inode = (found.st_dev, found.st_ino);
                if let Some(first) = links.get(&inode) {
                    let (parent, first) = split(first);
                    linkat(descend(to, parent)?, first, &target, name, AtFlags::empty())?;
                    continue;
                }
                links.insert(inode, below);
            }
            file(source.as_fd(), target.as_fd(), name, &found)?;
        }
        directories.push(path);
    }
    for path in directories.iter().rev() {
        attributes(descend(from, path)?.as_fd(), descend(to, path)?.as_fd())?;
    }
    Ok(())
}

/// Gives the directory `to` what `from` has: owner, mode, extended attributes, times.
pub(super) fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let here = OsStr::new(".");
    give((from, here), (to, here), &fstat(from)?)
}

/// What is in a directory.
pub(super) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Copies something that is no directory.
fn file(source: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &OsStr, found: &Stat) -> io::Result<()> {
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut from = File::from(openat(source, name, read, Mode::empty())?);
            let mut to = File::from(openat(target, name, write, Mode::RUSR | Mode::WUSR)?);
            // The kernel copies, and shares blocks where the file system can.
            io::copy(&mut from, &mut to)?;
        }
        FileType::Symlink => symlinkat(readlinkat(source, name, Vec::new())?, target, name)?,
        other => mknodat(target, name, other, Mode::RUSR | Mode::WUSR, found.st_rdev)?,
    }
    give((source, name), (target, name), found)
}

/// The owner comes before the mode, because changing it clears set-uid, and before capabilities, which it clears too.
fn give(from: (BorrowedFd<'_>, &OsStr), to: (BorrowedFd<'_>, &OsStr), stat: &Stat) -> io::Result<()> {
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    chownat(to.0, to.1, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)), nofollow)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        chmodat(to.0, to.1, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    let (source, target) = (through(from), through(to));
    let mut names = vec![0; 64 * 1024];
    let size = match llistxattr(&source, &mut names[..]) {
        Ok(size) => size,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    for name in names[..size].split(|b| *b == 0).filter(|name| !name.is_empty() && !name.starts_with(OVERLAY)) {
        let mut value = vec![0; 64 * 1024];
        let size = lgetxattr(&source, name, &mut value[..])?;
        match lsetxattr(&target, name, &value[..size], XattrFlags::empty()) {
            Ok(()) => {}
            // As with cp: what the volume's file system cannot keep is lost, except capabilities.
            Err(Errno::OPNOTSUPP | Errno::PERM) if name != b"security.capability" => {}
            Err(error) => return Err(error.into()),
        }
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as i64 },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 },
    };
    Ok(utimensat(to.0, to.1, &times, nofollow)?)
}

/// There is no `getxattrat` everywhere yet: a path that reaches a name in an open directory.
fn through((directory, name): (BorrowedFd<'_>, &OsStr)) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name)
}

/// Opens a directory of a tree, of any depth, without following a link.
fn descend(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let open = |at: BorrowedFd<'_>, step: &[u8]| openat2(at, step, READ, Mode::empty(), resolve);
    let mut rest = path;
    let mut reached = open(root, b".")?;
    while !rest.is_empty() {
        let end = match rest.get(..STEP).and_then(|long| long.iter().rposition(|b| *b == b'/')) {
            Some(slash) => slash,
            None => rest.len(),
        };
        reached = open(reached.as_fd(), &rest[..end])?;
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    Ok(reached)
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// The directory that a path's last component is in, and that component.
fn split(path: &[u8]) -> (&[u8], &OsStr) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], OsStr::from_bytes(&path[slash + 1..])),
        None => (&[], OsStr::from_bytes(path)),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, symlink},
        path::Path,
        process::Command,
    };

    use super::*;

    fn sh(script: &str, directory: &Path) {
        assert!(Command::new("sh").args(["-c", script]).current_dir(directory).status().unwrap().success(), "{script}");
    }

    fn copied(from: &Path, to: &Path) -> io::Result<()> {
        tree(File::open(from).unwrap().as_fd(), File::open(to).unwrap().as_fd())
    }

    #[test]
    fn everything_is_kept() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        sh(
            "echo a > plain; ln plain hard; mkdir -p d/e; ln plain d/e/hard; ln -s /etc/passwd link; mkfifo fifo; \
             mknod null c 1 3; echo s > suid; chown 33:44 suid d; chmod 4711 suid; chmod 1750 d/e; \
             touch -d '2001-02-03 04:05:06' plain d; touch -h -d '2002-02-03 04:05:06' link; chmod 2755 .; chown 5:6 .; \
             : > empty; head -c 300000 /dev/urandom > large",
            from.path(),
        );
        lsetxattr(from.path().join("d"), "user.x", b"y", XattrFlags::empty()).unwrap();
        copied(from.path(), to.path()).unwrap();
        let mut value = [0; 8];
        assert_eq!(lgetxattr(to.path().join("d"), "user.x", &mut value[..]).map(|size| &value[..size]), Ok(&b"y"[..]));
        let list = |directory: &Path| {
            let list = "find . -printf '%p %y %U:%G %m %T@ %l %n %s\\n' | grep -v '^[.]/d/e d' | sort; cat large plain; stat -c %t:%T null";
            Command::new("sh").args(["-c", list]).current_dir(directory).output().unwrap().stdout
        };
        assert_eq!(String::from_utf8_lossy(&list(to.path())), String::from_utf8_lossy(&list(from.path())));
        let inode = |name: &str| fs::metadata(to.path().join(name)).unwrap().ino();
        assert_eq!(inode("plain"), inode("d/e/hard"));
        assert_eq!(fs::metadata(to.path().join("d/e")).unwrap().mode() & 0o7777, 0o1750);
    }

    #[test]
    fn a_very_deep_tree_is_copied_and_links_lead_nowhere() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        symlink(outside.path(), from.path().join("out")).unwrap();
        let deep = "import os\nfor n in range(300):\n os.mkdir('d' * 20)\n os.chdir('d' * 20)\nopen('end', 'w')\n";
        assert!(Command::new("python3").args(["-c", deep]).current_dir(from.path()).status().unwrap().success());
        copied(from.path(), to.path()).unwrap();
        assert!(fs::symlink_metadata(to.path().join("out")).unwrap().is_symlink());
        let count = Command::new("find").arg(to.path()).output().unwrap().stdout;
        assert_eq!(count.iter().filter(|b| **b == b'\n').count(), 303);
    }
}
