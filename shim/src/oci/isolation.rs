//! Namespaces: which are new, which are joined, and in what order.
//!
//! Paths are opened by the shim before any child exists, so that nothing in a container can change what they mean. The
//! user namespace comes first where it is joined, because it owns the others; where it is new it comes last, because
//! entering it gives up the right to join those that the host owns.

use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
};

use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

use super::error::{Error, Step as _};

/// What the configuration says about namespaces.
#[derive(Debug)]
pub(crate) struct Isolation {
    /// `CLONE_NEW*` of those made new.
    pub(crate) new: i32,
    /// Those joined, in the order to join them.
    pub(crate) joined: Vec<(i32, OwnedFd)>,
    /// Offsets of the clocks in a new time namespace, as the kernel reads them.
    time_offsets: String,
}

impl Isolation {
    /// Reads the configuration and opens what is to be joined.
    pub(crate) fn of(spec: &Spec) -> Result<Self, Error> {
        let mut isolation = Self { new: 0, joined: Vec::new(), time_offsets: String::new() };
        let Some(linux) = spec.linux() else { return Ok(isolation) };
        let mut seen = 0;
        for namespace in linux.namespaces().iter().flatten() {
            let flag = flag(namespace.typ());
            if seen & flag != 0 {
                return Err(Error::Spec(format!("the {} namespace is named twice", namespace.typ())));
            }
            seen |= flag;
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    let file = File::open(path)
                        .step(|| format!("opening the {} namespace {}", namespace.typ(), path.display()))?;
                    isolation.joined.push((flag, file.into()));
                }
                _ => isolation.new |= flag,
            }
        }
        if isolation.new & libc::CLONE_NEWNS == 0 {
            return Err(Error::Unsupported("a container needs a mount namespace of its own".into()));
        }
        isolation.joined.sort_by_key(|(flag, _)| *flag != libc::CLONE_NEWUSER);
        for (clock, offset) in linux.time_offsets().iter().flatten() {
            if isolation.new & libc::CLONE_NEWTIME == 0 {
                return Err(Error::Spec("time offsets need a new time namespace".into()));
            }
            let (seconds, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            isolation.time_offsets.push_str(&format!("{clock} {seconds} {nanos}\n"));
        }
        let mapped = linux.uid_mappings().iter().flatten().next().is_some();
        if isolation.new & libc::CLONE_NEWUSER != 0 && !mapped {
            return Err(Error::Spec("a new user namespace needs uid and gid mappings".into()));
        }
        Ok(isolation)
    }

    /// All flags: what another process must join to be inside.
    pub(crate) fn all(&self) -> i32 {
        self.joined.iter().fold(self.new, |all, (flag, _)| all | flag)
    }

    /// The namespace is new.
    pub(crate) fn makes(&self, flag: i32) -> bool {
        self.new & flag != 0
    }

    /// A helper must join first and make the process then: a pid or time namespace takes in only children, and what
    /// the host owns cannot be joined from inside a new user namespace.
    pub(crate) fn needs_helper(&self) -> bool {
        let late = libc::CLONE_NEWPID | libc::CLONE_NEWTIME;
        self.makes(libc::CLONE_NEWTIME)
            || self.joined.iter().any(|(flag, _)| flag & late != 0)
            || (self.makes(libc::CLONE_NEWUSER) && !self.joined.is_empty())
    }

    /// Flags of clone: all that are new, but for the cgroup namespace, whose root is the cgroup one is in when making it,
    /// and the time namespace, whose clocks must be set before anybody lives in it.
    pub(crate) fn clone_flags(&self) -> i32 {
        self.new & !(libc::CLONE_NEWCGROUP | libc::CLONE_NEWTIME)
    }

    /// Joins what is to be joined.
    pub(crate) fn join(&self) -> Result<(), Error> {
        for (flag, fd) in &self.joined {
            let flags = CloneFlags::from_bits_retain(*flag);
            setns(fd.as_fd(), flags).step(|| format!("joining the {} namespace", name(*flag)))?;
            if *flag == libc::CLONE_NEWUSER {
                become_root()?;
            }
        }
        Ok(())
    }

    /// Makes a new time namespace for the children, with its clocks set.
    pub(crate) fn new_time(&self) -> Result<(), Error> {
        if self.makes(libc::CLONE_NEWTIME) {
            unshare(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME)).step(|| "making a time namespace")?;
            if !self.time_offsets.is_empty() {
                std::fs::write("/proc/self/timens_offsets", &self.time_offsets).step(|| "setting the clocks")?;
            }
        }
        Ok(())
    }

    /// Makes the cgroup namespace, once the process is in its cgroup.
    pub(crate) fn new_cgroup(&self) -> Result<(), Error> {
        if self.makes(libc::CLONE_NEWCGROUP) {
            unshare(CloneFlags::CLONE_NEWCGROUP).step(|| "making a cgroup namespace")?;
        }
        Ok(())
    }
}

/// Becomes the user namespace's root, with its groups given up.
pub(crate) fn become_root() -> Result<(), Error> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid).step(|| "becoming the user namespace's root group")?;
    // Where setgroups is denied in the namespace, there are no groups to give up.
    let _ = setgroups(&[]);
    setresuid(uid, uid, uid).step(|| "becoming the user namespace's root")
}

/// Writes the maps of a child's new user namespace.
pub(crate) fn write_maps(spec: &Spec, pid: i32) -> Result<(), Error> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let maps = |maps: &Option<Vec<LinuxIdMapping>>| maps.clone().unwrap_or_default();
    write_id_maps(pid, &maps(linux.uid_mappings()), &maps(linux.gid_mappings()))
}

/// Writes a user namespace's maps, each at once, as the kernel wants it.
pub(crate) fn write_id_maps(pid: i32, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<(), Error> {
    for (file, mappings) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("/proc/{pid}/{file}");
        let line = |m: &LinuxIdMapping| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size());
        let text: String = mappings.iter().map(line).collect();
        std::fs::write(&path, text).step(|| format!("writing {path}"))?;
    }
    Ok(())
}

/// `CLONE_NEW*` of a namespace.
pub(crate) fn flag(namespace: LinuxNamespaceType) -> i32 {
    match namespace {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => libc::CLONE_NEWTIME,
    }
}

fn name(flag: i32) -> &'static str {
    match flag {
        libc::CLONE_NEWNS => "mount",
        libc::CLONE_NEWCGROUP => "cgroup",
        libc::CLONE_NEWUTS => "uts",
        libc::CLONE_NEWIPC => "ipc",
        libc::CLONE_NEWUSER => "user",
        libc::CLONE_NEWPID => "pid",
        libc::CLONE_NEWNET => "network",
        _ => "time",
    }
}

/// Brings up the loopback interface of a new network namespace, as every container expects it.
pub(crate) fn loopback_up() -> Result<(), Error> {
    use std::os::fd::AsRawFd as _;
    let what = || "bringing up the loopback interface";
    let flags = nix::sys::socket::SockFlag::SOCK_CLOEXEC;
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        flags,
        None,
    )
    .step(what)?;
    // SAFETY: ifreq is plain data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: the request is valid for the call, which only reads it.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).step(what) }
}
