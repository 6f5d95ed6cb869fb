//! Another container's /dev/shm, for one that shares its System V memory, semaphores and message queues.
//!
//! That mount is in the other container's mount namespace alone, so this process goes there, picks a copy of the mount up,
//! comes back and puts it down where the container's configuration says.

use std::{fs, os::fd::AsFd as _, path::Path};

use nix::sched::{CloneFlags, setns};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mount::{OpenTreeFlags, open_tree},
};

use crate::{
    error::{During as _, Error},
    oci::mount::attach,
};

/// Mounts the /dev/shm of the container that `pid` is a process of.
///
/// # Errors
/// It is not there, or has none.
pub(crate) fn share(pid: u32, onto: &Path) -> Result<(), Error> {
    let what = || "joining the other container's /dev/shm";
    let open = |path: &Path, flags| openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty());
    let theirs = open(Path::new(&format!("/proc/{pid}/ns/mnt")), OFlags::RDONLY).during(what)?;
    let ours = open(Path::new("/proc/self/ns/mnt"), OFlags::RDONLY).during(what)?;
    let here = open(Path::new("."), OFlags::PATH | OFlags::DIRECTORY).during(what)?;
    setns(theirs, CloneFlags::CLONE_NEWNS).during(what)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let tree = open_tree(CWD, "/dev/shm", flags);
    // Here, every path would be the other container's.
    let back = setns(ours, CloneFlags::CLONE_NEWNS).and_then(|()| nix::unistd::fchdir(here.as_fd()));
    if let Err(error) = back {
        crate::note::note!("the shim cannot come back from another container's mounts: {error}");
        std::process::abort();
    }
    let tree = tree.during(what)?;
    fs::create_dir_all(onto).during(what)?;
    let onto = open(onto, OFlags::PATH | OFlags::DIRECTORY).during(what)?;
    attach(&tree, &onto).during(what)
}
