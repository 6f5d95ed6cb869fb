//! The container's view of its cgroup, usually /sys/fs/cgroup.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::{
    api::{Attributes, attach, bind_of_path, new_mount, set_attributes},
    options::Options,
    specified::Surroundings,
};
use crate::oci::error::{Error, Step as _};

const SAFE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

pub(super) fn mount(around: &Surroundings<'_>, onto: &OwnedFd, options: &Options) -> Result<(), Error> {
    let attributes = Attributes { set: options.own.set, ..Attributes::default() };
    if let Some(directory) = around.cgroup.v2_directory() {
        // Without a namespace the whole tree would be seen: show the container's part.
        let whole = around.own_cgroup_namespace.then(|| new_mount("cgroup2", Some("cgroup"), &[], options.own.set));
        let made = match whole {
            Some(Ok(made)) => made,
            _ => {
                let made = bind_of_path(directory, false).step(|| "opening the container's cgroup")?;
                set_attributes(made.as_fd(), attributes, false).step(|| "setting mount options")?;
                made
            }
        };
        return attach(&made, onto).step(|| "attaching the cgroup mount");
    }
    // One directory a hierarchy, in a tmpfs.
    let data = [("mode".to_owned(), Some("755".to_owned()))];
    let tmpfs = new_mount("tmpfs", Some("tmpfs"), &data, options.own.set & !libc::MOUNT_ATTR_RDONLY)?;
    attach(&tmpfs, onto).step(|| "attaching the mount")?;
    for hierarchy in around.cgroup.v1_hierarchies() {
        let name = hierarchy.directory_name();
        rustix::fs::mkdirat(&tmpfs, name, Mode::from_raw_mode(0o755)).step(|| format!("making {name}"))?;
        let place = rustix::fs::openat(&tmpfs, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .step(|| format!("opening {name}"))?;
        let made = if around.own_cgroup_namespace {
            new_mount("cgroup", Some("cgroup"), &hierarchy.mount_data(), SAFE | options.own.set)?
        } else {
            let made = bind_of_path(&hierarchy.path, false).step(|| format!("opening the {name} cgroup"))?;
            let attributes = Attributes { set: SAFE | options.own.set, ..Attributes::default() };
            set_attributes(made.as_fd(), attributes, false).step(|| "setting mount options")?;
            made
        };
        attach(&made, &place).step(|| format!("attaching the {name} cgroup"))?;
        // "cpu" and "cpuacct" are looked for by name even where they share a hierarchy.
        for alias in hierarchy.aliases() {
            rustix::fs::symlinkat(name, &tmpfs, alias).step(|| format!("linking {alias}"))?;
        }
    }
    if options.own.set & libc::MOUNT_ATTR_RDONLY != 0 {
        set_attributes(tmpfs.as_fd(), Attributes::READONLY, false).step(|| "making the cgroup mount read-only")?;
    }
    Ok(())
}
