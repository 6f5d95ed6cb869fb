//! Kernel parameters of the container's namespaces.

use std::{io::Write as _, path::Path};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2};

use super::{
    error::{Error, Step as _},
    isolation::Isolation,
    mount::{PROC, Root},
};

/// Inode of procfs's root.
const PROC_ROOT: u64 = 1;

/// Writes the parameters. Only those that belong to a namespace of the container's own may be set: all others are the
/// host's.
pub(crate) fn set(spec: &Spec, root: &Root, isolation: &Isolation) -> Result<(), Error> {
    let Some(parameters) = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref()) else { return Ok(()) };
    if parameters.is_empty() {
        return Ok(());
    }
    let what = || "opening /proc of the container";
    let proc = root.open_plain(Path::new("proc"), OFlags::PATH | OFlags::DIRECTORY).step(what)?;
    if fstatfs(&proc).step(what)?.f_type as u64 != PROC || fstat(&proc).step(what)?.st_ino != PROC_ROOT {
        return Err(Error::step("setting kernel parameters", "/proc of the container is no proc file system"));
    }
    let own = isolation.all();
    for (name, value) in parameters {
        allowed(name, own).map_err(Error::Spec)?;
        let what = || format!("setting the kernel parameter {name} to {value}");
        let path = Path::new("sys").join(path_of(name));
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let file = openat2(&proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve).step(what)?;
        std::fs::File::from(file).write_all(value.as_bytes()).step(what)?;
    }
    Ok(())
}

/// `net.ipv4.ip_forward`; where the name has slashes, they are the separators and dots are dots (interfaces have them).
fn path_of(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { name.replace('.', "/") }
}

fn allowed(name: &str, namespaces: i32) -> Result<(), String> {
    let dotted = if name.contains('/') { name.replace('/', ".") } else { name.to_owned() };
    const IPC: [&str; 9] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.shm_next_id",
    ];
    let (flag, namespace) = if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        (libc::CLONE_NEWIPC, "IPC")
    } else if dotted.starts_with("net.") {
        (libc::CLONE_NEWNET, "network")
    } else if dotted == "kernel.domainname" {
        (libc::CLONE_NEWUTS, "UTS")
    } else if dotted == "kernel.hostname" {
        return Err("sysctl kernel.hostname conflicts with the container's hostname; set that instead".into());
    } else if dotted.starts_with("user.") {
        (libc::CLONE_NEWUSER, "user")
    } else {
        return Err(format!("sysctl \"{name}\" is not in a separate kernel namespace"));
    };
    if namespaces & flag != 0 {
        return Ok(());
    }
    Err(format!("sysctl \"{name}\" not allowed: the container shares the host's {namespace} namespace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_containers_own() {
        assert!(allowed("net.ipv4.ip_forward", libc::CLONE_NEWNET).is_ok());
        assert!(allowed("net/ipv4/conf/eth0.1/forwarding", libc::CLONE_NEWNET).is_ok());
        assert!(allowed("net.ipv4.ip_forward", libc::CLONE_NEWIPC).is_err());
        assert!(allowed("kernel.shmmax", libc::CLONE_NEWIPC).is_ok());
        assert!(allowed("vm.swappiness", !0).is_err());
        assert!(allowed("kernel.hostname", !0).is_err());
        assert_eq!(path_of("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
