//! What of the kernel's files the container must not see, and what it must not write.

use std::{os::fd::AsFd as _, path::Path};

use rustix::{
    fs::{FileType, OFlags, fstat, fstatfs, major, minor},
    io::Errno,
};

use super::{
    api::{Attributes, attach, bind_of, new_mount, set_attributes},
    beneath::{Root, is_directory},
    specified::PROC,
};
use crate::oci::error::{Error, Step as _};

/// Hides paths: an empty directory over a directory, `/dev/null` over everything else. What is not there is hidden enough.
pub(crate) fn mask(root: &Root, paths: &[String]) -> Result<(), Error> {
    let mut null = None;
    for path in paths {
        let what = || format!("masking {path}");
        let hidden = match root.open_at(Path::new(path), OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.step(what)?,
        };
        if is_directory(&hidden).step(what)? {
            let empty = [("size".to_owned(), Some("0".to_owned())), ("nr_inodes".to_owned(), Some("1".to_owned()))];
            let made = new_mount("tmpfs", Some("tmpfs"), &empty, libc::MOUNT_ATTR_RDONLY)?;
            attach(&made, &hidden).step(what)?;
            continue;
        }
        if null.is_none() {
            null = Some(open_null(root)?);
        }
        if let Some(null) = &null {
            attach(bind_of(null, false).step(what)?, &hidden).step(what)?;
        }
    }
    Ok(())
}

/// The container's /dev/null, which must be the device and nothing else: a link put in its place would bind what it
/// points to over the masked file (CVE-2025-31133).
fn open_null(root: &Root) -> Result<std::os::fd::OwnedFd, Error> {
    let what = || "opening /dev/null of the container";
    let null = root.open_at(Path::new("dev/null"), OFlags::PATH | OFlags::NOFOLLOW).step(what)?;
    let stat = fstat(&null).step(what)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3);
    if is_null {
        Ok(null)
    } else {
        Err(Error::step("masking paths", "/dev/null of the container is not the device 1:3"))
    }
}

/// Makes paths read-only, each with all beneath it. What is not there cannot be written.
pub(crate) fn make_readonly(root: &Root, paths: &[String]) -> Result<(), Error> {
    for path in paths {
        let what = || format!("making {path} read-only");
        let place = match root.open_at(Path::new(path), OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.step(what)?,
        };
        // What is called /proc must be procfs, or the real one stays writable.
        if path.starts_with("/proc/") && fstatfs(&place).step(what)?.f_type as u64 != PROC {
            return Err(Error::step(what(), "it does not lie in a proc file system"));
        }
        let tree = bind_of(&place, true).step(what)?;
        set_attributes(tree.as_fd(), Attributes::READONLY, true).step(what)?;
        attach(&tree, &place).step(what)?;
    }
    Ok(())
}
