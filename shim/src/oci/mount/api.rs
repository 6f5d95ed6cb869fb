//! The descriptor-based mount calls.

use std::{
    ffi::CString,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

use crate::oci::error::{Error, Step as _};

/// What mount_setattr(2) changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    /// `MS_PRIVATE` and its like, 0 for unchanged.
    pub(crate) propagation: u64,
}

impl Attributes {
    pub(crate) const READONLY: Self = Self { set: libc::MOUNT_ATTR_RDONLY, clear: 0, propagation: 0 };

    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Changes a mount's attributes, or those of all beneath it as well.
pub(crate) fn set_attributes(mount: BorrowedFd<'_>, attributes: Attributes, recursive: bool) -> rustix::io::Result<()> {
    let arguments = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path and arguments are valid for the call, which only reads them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const arguments,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Maps the owners of everything in a detached mount through a user namespace (idmapped mounts).
pub(crate) fn map_owners(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<()> {
    let arguments = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: as above; the namespace's descriptor is open for the length of the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const arguments,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// A detached copy of the mount at a path, with everything mounted beneath it where `recursive`.
pub(crate) fn bind_of_path(path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    open_tree(CWD, path, tree_flags(recursive))
}

/// A detached copy of the mount that an open file lies on, rooted in the file.
pub(crate) fn bind_of(file: impl AsFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    open_tree(file, "", tree_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH)
}

fn tree_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Mounts a detached mount onto an open file or directory.
pub(crate) fn attach(mount: impl AsFd, onto: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", onto, "", flags)
}

/// A new, detached mount of a file system. Each option is a flag or a key with a value.
pub(crate) fn new_mount(
    kind: &str,
    source: Option<&str>,
    options: &[(String, Option<String>)],
    attributes: u64,
) -> Result<OwnedFd, Error> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).step(|| format!("opening the file system type {kind}"))?;
    let told = |error: Errno, what: String| Error::step(what, explain(&context, error));
    if let Some(source) = source {
        fsconfig_set_string(&context, "source", source)
            .map_err(|e| told(e, format!("mounting {kind} from {source}")))?;
    }
    for (key, value) in options {
        let set = match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(&context, key.as_str()),
        };
        set.map_err(|e| told(e, format!("mounting {kind} with the option {key}")))?;
    }
    fsconfig_create(&context).map_err(|e| told(e, format!("making a {kind}")))?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|e| told(e, format!("mounting a {kind}")))
}

/// The error with what the file system itself says about it.
fn explain(context: &OwnedFd, error: Errno) -> String {
    let mut text = error.to_string();
    let mut line = [0; 512];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut line[..]) {
        let said = String::from_utf8_lossy(&line[..length]);
        // The first two characters say how grave it is.
        text.push_str(": ");
        text.push_str(said.trim_end().get(2..).unwrap_or_default());
    }
    text
}

/// mount(2) with flags only: a change of propagation.
pub(crate) fn propagate(path: &Path, flags: libc::c_ulong) -> Result<(), Error> {
    let what = || format!("changing the propagation of {}", path.display());
    let path = CString::new(path.as_os_str().as_encoded_bytes()).step(what)?;
    // SAFETY: the path is valid for the call, which reads nothing else where only the propagation changes.
    let done = unsafe { libc::mount(c"none".as_ptr(), path.as_ptr(), std::ptr::null(), flags, std::ptr::null()) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).step(what) }
}
