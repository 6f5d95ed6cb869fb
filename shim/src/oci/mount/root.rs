//! The container's root: bound, entered, and the host's left behind.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxIdMapping, Mount, Spec};
use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{UnmountFlags, unmount},
};

use super::{
    api::{Attributes, attach, bind_of_path, map_owners, propagate, set_attributes},
    beneath::Root,
    options::Options,
    specified::open_source,
};
use crate::oci::{
    clone,
    error::{Error, Step as _},
    isolation,
};

/// Where the root file system is.
pub(crate) fn path(spec: &Spec, bundle: &Path) -> Result<PathBuf, Error> {
    let root = spec.root().as_ref().ok_or_else(|| Error::Spec("it has no root".into()))?;
    Ok(bundle.join(root.path()))
}

/// Bind mounts that the shim must make ready before the child exists: those with mapped owners, and, where the child
/// will live in a new user namespace, all, because there it may not be allowed to reach the sources.
pub(crate) fn ready_binds(spec: &Spec, bundle: &Path, in_user_namespace: bool) -> Result<Vec<Option<OwnedFd>>, Error> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    mounts.iter().map(|mount| ready_bind(spec, mount, bundle, in_user_namespace)).collect()
}

fn ready_bind(spec: &Spec, mount: &Mount, bundle: &Path, in_user_namespace: bool) -> Result<Option<OwnedFd>, Error> {
    let options = Options::parse(mount.options().as_deref().unwrap_or_default());
    let mapped = options.idmap.is_some() || mount.uid_mappings().as_ref().is_some_and(|maps| !maps.is_empty());
    let is_bind = options.bind.is_some() || mount.typ().as_deref() == Some("bind");
    if !is_bind || !(mapped || in_user_namespace) {
        return Ok(None);
    }
    let what = || format!("making the mount for {} ready", mount.destination().display());
    let tree = open_source(mount, bundle, &options)?;
    // A copy made here would be a peer of the host's mount, and what the container mounts beneath would appear there.
    let slave = Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() };
    set_attributes(tree.as_fd(), slave, true).step(what)?;
    if mapped {
        let linux = spec.linux().as_ref();
        let given = |maps: &Option<Vec<LinuxIdMapping>>, own: Option<&Vec<LinuxIdMapping>>| {
            maps.clone().filter(|maps| !maps.is_empty()).or_else(|| own.cloned()).unwrap_or_default()
        };
        let uids = given(mount.uid_mappings(), linux.and_then(|linux| linux.uid_mappings().as_ref()));
        let gids = given(mount.gid_mappings(), linux.and_then(|linux| linux.gid_mappings().as_ref()));
        let namespace = user_namespace(&uids, &gids)?;
        let recursive = options.idmap == Some(true);
        map_owners(tree.as_fd(), namespace.as_fd(), recursive).step(what)?;
    }
    Ok(Some(tree))
}

/// A user namespace with these maps and nobody in it.
fn user_namespace(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd, Error> {
    let what = || "making a user namespace for a mount";
    let (hold, held) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step(what)?;
    let birth = clone::Birth { flags: libc::CLONE_NEWUSER, cgroup: None };
    let child = clone::spawn(&birth, || {
        // Lives until the shim has what it needs, or is gone.
        // SAFETY: the descriptor is this child's own copy, which nothing uses after this.
        unsafe { libc::close(std::os::fd::AsRawFd::as_raw_fd(&held)) };
        let _ = rustix::io::read(&hold, &mut [0; 1]);
        clone::exit(0)
    })?;
    let made = isolation::write_id_maps(child.pid, uids, gids).and_then(|()| {
        let path = format!("/proc/{}/ns/user", child.pid);
        rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).step(what)
    });
    drop(held);
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child.pid), None);
    made
}

/// Gives the mount namespace the propagation asked for and binds the root file system onto itself, as pivot_root wants a
/// mount. `from_shim` is a copy that the shim made, for a child in a user namespace.
pub(crate) fn prepare(spec: &Spec, root: &Path) -> Result<Root, Error> {
    let asked = spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or_default();
    let flags = propagation(asked)?.unwrap_or(libc::MS_SLAVE | libc::MS_REC);
    propagate(Path::new("/"), flags)?;
    let what = || format!("binding the root file system {}", root.display());
    let tree = bind_of_path(root, true).step(what)?;
    // pivot_root refuses shared mounts, and what is mounted beneath must not travel to the host.
    let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
    set_attributes(tree.as_fd(), private, false).step(what)?;
    let onto = Root::open(root).step(what)?;
    attach(&tree, &onto).step(what)?;
    // Again: now it leads into the new mount.
    Root::open(root).step(what)
}

fn propagation(word: &str) -> Result<Option<libc::c_ulong>, Error> {
    let flag = match word.strip_prefix('r').unwrap_or(word) {
        "" => return Ok(None),
        "private" => libc::MS_PRIVATE,
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return Err(Error::Spec(format!("there is no mount propagation {word}"))),
    };
    Ok(Some(if word.starts_with('r') { flag | libc::MS_REC } else { flag }))
}

/// Enters the root and leaves the host's file systems behind.
pub(crate) fn pivot(root: &Root) -> Result<(), Error> {
    let what = || "entering the container's root";
    let old = rustix::fs::openat(CWD, "/", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step(what)?;
    let new = rustix::fs::openat(root, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step(what)?;
    rustix::process::fchdir(&new).step(what)?;
    // The old root comes to lie over the new one, at the same place: no directory is needed for it.
    rustix::process::pivot_root(".", ".").step(what)?;
    rustix::process::fchdir(&old).step(what)?;
    // Unmounting must not travel to the host.
    propagate(Path::new("."), libc::MS_SLAVE | libc::MS_REC)?;
    unmount(".", UnmountFlags::DETACH).step(what)?;
    rustix::process::chdir("/").step(what)
}

/// What is done once everything is in place: the root's own propagation, and read-only where asked for.
pub(crate) fn finish(spec: &Spec, later: &[OwnedFd]) -> Result<(), Error> {
    for mount in later {
        set_attributes(mount.as_fd(), Attributes::READONLY, false).step(|| "making /dev read-only")?;
    }
    let asked = spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or_default();
    if let Some(flags) = propagation(asked)? {
        propagate(Path::new("/"), flags)?;
    }
    if spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false) {
        let root =
            rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(|| "opening the root")?;
        set_attributes(root.as_fd(), Attributes::READONLY, false).step(|| "making the root read-only")?;
    }
    Ok(())
}
