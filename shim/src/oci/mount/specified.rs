//! What the configuration mounts, in its order.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use oci_spec::runtime::Mount;
use rustix::{
    fs::{OFlags, fstatfs},
    io::Errno,
};

use super::{
    api::{Attributes, attach, bind_of_path, new_mount, set_attributes},
    beneath::{Missing, Root, is_directory},
    cgroups,
    options::Options,
};
use crate::oci::{
    cgroup::Cgroup,
    error::{Error, Step as _},
};

/// Superblock magic of procfs.
pub(crate) const PROC: u64 = 0x9fa0;
/// Files of procfs that may be replaced by others (lxcfs does).
const REPLACEABLE: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// What a mount may need to know.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    /// The container's root, bound and ready.
    pub(crate) root: &'a Root,
    /// Relative sources are relative to it.
    pub(crate) bundle: &'a Path,
    /// The container's cgroup, and whether it has a cgroup namespace of its own.
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) own_cgroup_namespace: bool,
    /// Bind mounts that the shim made ready (see [`super::root`]); one a mount, in order.
    pub(crate) ready: &'a [Option<OwnedFd>],
}

/// Mounts everything. What must become read-only later, once it is filled, comes back.
pub(crate) fn mount_all(around: &Surroundings<'_>, mounts: &[Mount]) -> Result<Vec<OwnedFd>, Error> {
    let mut later = Vec::new();
    for (number, mount) in mounts.iter().enumerate() {
        let ready = around.ready.get(number).and_then(Option::as_ref);
        mount_one(around, mount, ready, &mut later).map_err(|error| {
            let to = mount.destination().display();
            match error {
                Error::Step { what, why } => Error::step(format!("mounting onto {to}"), format!("{what}: {why}")),
                other => other,
            }
        })?;
    }
    Ok(later)
}

fn mount_one(
    around: &Surroundings<'_>,
    mount: &Mount,
    ready: Option<&OwnedFd>,
    later: &mut Vec<OwnedFd>,
) -> Result<(), Error> {
    let mut options = Options::parse(mount.options().as_deref().unwrap_or_default());
    let kind = mount.typ().as_deref().unwrap_or("none");
    let destination = mount.destination();
    if options.copy_up {
        return Err(Error::Unsupported("the mount option tmpcopyup is not supported".into()));
    }
    if options.bind.is_some() || kind == "bind" {
        return bind(around, mount, &options, ready);
    }
    match kind {
        "cgroup" | "cgroup2" => {
            let onto = place(around.root, destination, Missing::Directory)?;
            return cgroups::mount(around, &onto, &options);
        }
        "proc" | "sysfs" => {
            let onto = plain_directory(around.root, destination)?;
            if kind == "sysfs" && options.own.set & libc::MOUNT_ATTR_RDONLY != 0 {
                options.data.push(("ro".into(), None));
            }
            let made = match new_mount(kind, Some(kind), &options.data, options.own.set) {
                Ok(made) => made,
                // Only the network namespace's owner may have a sysfs of it: show the host's, read-only.
                Err(error) if kind == "sysfs" => {
                    let made = bind_of_path(Path::new("/sys"), true).map_err(|_| error)?;
                    set_attributes(made.as_fd(), Attributes::READONLY, true).step(|| "making /sys read-only")?;
                    made
                }
                Err(error) => return Err(error),
            };
            return finish(&made, &onto, &options);
        }
        _ => {}
    }
    let onto = place(around.root, destination, Missing::Directory)?;
    refuse_inside_proc(destination, &onto, None)?;
    // /dev is filled after this, so it is made read-only at the end.
    let delay = kind == "tmpfs" && destination == Path::new("/dev") && options.own.set & libc::MOUNT_ATTR_RDONLY != 0;
    if delay {
        options.own.set &= !libc::MOUNT_ATTR_RDONLY;
    }
    let source = mount.source().as_ref().map(|source| source.to_string_lossy());
    let made = new_mount(kind, Some(source.as_deref().unwrap_or(kind)), &options.data, options.own.set)?;
    finish(&made, &onto, &options)?;
    if delay {
        later.push(made);
    }
    Ok(())
}

/// Attaches a mount whose attributes are set already, with its propagation.
fn finish(made: &OwnedFd, onto: &OwnedFd, options: &Options) -> Result<(), Error> {
    if !options.all.is_empty() {
        set_attributes(made.as_fd(), options.all, true).step(|| "setting recursive mount options")?;
    }
    propagate(made, options)?;
    attach(made, onto).step(|| "attaching the mount")
}

fn propagate(made: &OwnedFd, options: &Options) -> Result<(), Error> {
    for (propagation, recursive) in &options.propagation {
        let attributes = Attributes { propagation: *propagation, ..Attributes::default() };
        set_attributes(made.as_fd(), attributes, *recursive).step(|| "setting the mount's propagation")?;
    }
    Ok(())
}

fn bind(around: &Surroundings<'_>, mount: &Mount, options: &Options, ready: Option<&OwnedFd>) -> Result<(), Error> {
    let opened;
    let tree = match ready {
        Some(ready) => ready,
        None => {
            opened = open_source(mount, around.bundle, options)?;
            &opened
        }
    };
    let missing = if is_directory(tree).step(|| "looking at the source")? { Missing::Directory } else { Missing::File };
    let onto = place(around.root, mount.destination(), missing)?;
    refuse_inside_proc(mount.destination(), &onto, Some(tree))?;
    if !options.own.is_empty() {
        set_attributes(tree.as_fd(), options.own, false).step(|| "setting mount options")?;
    }
    match attach_bind(tree, &onto, options) {
        Err(Error::Step { what, why }) if missing == Missing::File && is_directory(&onto).unwrap_or(false) => {
            Err(Error::step(what, format!("{why}: the source is a file and the destination a directory")))
        }
        other => other,
    }
}

fn attach_bind(tree: &OwnedFd, onto: &OwnedFd, options: &Options) -> Result<(), Error> {
    finish(tree, onto, options)
}

/// A detached copy of a bind mount's source.
pub(crate) fn open_source(mount: &Mount, bundle: &Path, options: &Options) -> Result<OwnedFd, Error> {
    let source = mount
        .source()
        .as_ref()
        .ok_or_else(|| Error::Spec(format!("the bind mount onto {} has no source", mount.destination().display())))?;
    let source: PathBuf = bundle.join(source);
    bind_of_path(&source, options.bind.unwrap_or(false)).step(|| format!("opening the source {}", source.display()))
}

fn place(root: &Root, destination: &Path, missing: Missing) -> Result<OwnedFd, Error> {
    root.place(destination, missing).step(|| "making the place beneath the container's root")
}

/// A directory that no link leads to: procfs and sysfs elsewhere than where everybody takes them to be would undo what is
/// masked there (CVE-2019-19921, CVE-2023-27561).
fn plain_directory(root: &Root, destination: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let opened = match root.open_plain(destination, flags) {
        Err(Errno::NOENT) => {
            place(root, destination, Missing::Directory)?;
            root.open_plain(destination, flags)
        }
        other => other,
    };
    opened.map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR => Error::Spec(format!(
            "{} must be an ordinary directory in the image, and no symbolic link may lead there",
            destination.display()
        )),
        error => Error::step("opening the place beneath the container's root", error),
    })
}

/// Nothing may be put over procfs but procfs itself, and few harmless files in it.
fn refuse_inside_proc(destination: &Path, onto: &OwnedFd, source: Option<&OwnedFd>) -> Result<(), Error> {
    let is_proc = |fd: &OwnedFd| fstatfs(fd).is_ok_and(|stat| stat.f_type as u64 == PROC);
    let named = Path::new("/").join(destination);
    if named == Path::new("/proc") {
        return match source {
            Some(source) if is_proc(source) => Ok(()),
            _ => Err(Error::Spec("only a proc file system can be mounted onto /proc".into())),
        };
    }
    if is_proc(onto) && !REPLACEABLE.iter().any(|path| named == Path::new(path)) {
        return Err(Error::Spec(format!("{} lies inside /proc, where nothing can be mounted", named.display())));
    }
    Ok(())
}
