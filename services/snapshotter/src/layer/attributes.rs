//! Owner, mode, times and extended attributes of what a tar's entry made.

use std::{collections::BTreeMap, ffi::OsStr, io, os::fd::BorrowedFd};

use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr, futimens,
    lsetxattr, utimensat,
};

/// A pax record that holds an extended attribute.
const PAX_XATTR: &[u8] = b"SCHILY.xattr.";
/// Ours alone: a layer that could set these could hide or reveal files of the layers below.
const OVERLAY: &[u8] = b"trusted.overlay.";

/// What an entry says about its file.
#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permission bits with set-uid, set-gid and sticky.
    pub(crate) mode: u32,
    pub(crate) modified: Timespec,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Attributes {
    /// Reads an entry's header and pax records (POSIX pax, "pax Extended Header").
    pub(crate) fn read<R: io::Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Self> {
        let header = entry.header();
        let narrow = |value: u64| u32::try_from(value).map_err(|_| io::Error::other("an owner is larger than 32 bits"));
        let mut attributes = Self {
            uid: narrow(header.uid()?)?,
            gid: narrow(header.gid()?)?,
            mode: header.mode()? & 0o7777,
            modified: Timespec { tv_sec: i64::try_from(header.mtime()?).unwrap_or(0), tv_nsec: 0 },
            xattrs: BTreeMap::new(),
        };
        let Some(extensions) = entry.pax_extensions()? else { return Ok(attributes) };
        for extension in extensions {
            let extension = extension?;
            let (key, value) = (extension.key_bytes(), extension.value_bytes());
            if let Some(name) = key.strip_prefix(PAX_XATTR) {
                if !name.starts_with(OVERLAY) {
                    attributes.xattrs.insert(name.to_vec(), value.to_vec());
                }
                continue;
            }
            let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<u32>().ok());
            match key {
                b"uid" => attributes.uid = number().ok_or_else(|| io::Error::other("malformed pax uid"))?,
                b"gid" => attributes.gid = number().ok_or_else(|| io::Error::other("malformed pax gid"))?,
                b"mtime" => {
                    attributes.modified = time(value).ok_or_else(|| io::Error::other("malformed pax mtime"))?;
                }
                _ => {}
            }
        }
        Ok(attributes)
    }

    fn times(&self) -> Timestamps {
        Timestamps { last_access: self.modified, last_modification: self.modified }
    }

    /// Gives them to an open file. The owner comes before the mode, because changing it clears set-uid.
    pub(crate) fn apply_to_file(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        fchown(file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        fchmod(file, Mode::from_raw_mode(self.mode))?;
        for (name, value) in &self.xattrs {
            fsetxattr(file, name.as_slice(), value, XattrFlags::empty()).or_else(|error| tolerate(name, error))?;
        }
        Ok(futimens(file, &self.times())?)
    }

    /// Gives them to what is at a name, without following a symbolic link. Times come later for directories.
    pub(crate) fn apply_at(&self, directory: BorrowedFd<'_>, name: &OsStr, link: bool, times: bool) -> io::Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(directory, name, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)), flags)?;
        if !link {
            chmodat(directory, name, Mode::from_raw_mode(self.mode), AtFlags::empty())?;
        }
        if !self.xattrs.is_empty() {
            // There is no setxattrat everywhere yet; the directory's descriptor makes the path safe, `l` the last step.
            let path = crate::layer::unpack::through(directory, name);
            for (key, value) in &self.xattrs {
                lsetxattr(&path, key.as_slice(), value, XattrFlags::empty()).or_else(|error| tolerate(key, error))?;
            }
        }
        if times { self.set_times(directory, name) } else { Ok(()) }
    }

    /// Sets the times of what is at a name.
    pub(crate) fn set_times(&self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        Ok(utimensat(directory, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// A file system without user attributes loses those, as with tar; security attributes (capabilities) are never lost
/// silently.
fn tolerate(name: &[u8], error: rustix::io::Errno) -> rustix::io::Result<()> {
    let unsupported = matches!(error, rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM);
    if unsupported && name.starts_with(b"user.") { Ok(()) } else { Err(error) }
}

/// Seconds with a fraction, before or after 1970.
fn time(text: &[u8]) -> Option<Timespec> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let mut nanoseconds: i64 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        seconds -= 1;
        nanoseconds = 1_000_000_000 - nanoseconds;
    }
    Some(Timespec { tv_sec: seconds, tv_nsec: nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_signs() {
        let read = |text: &str| time(text.as_bytes()).map(|t| (t.tv_sec, t.tv_nsec));
        assert_eq!(read("1700000000.123456789"), Some((1_700_000_000, 123_456_789)));
        assert_eq!(read("5.5"), Some((5, 500_000_000)));
        assert_eq!(read("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(read("x"), None);
    }
}
