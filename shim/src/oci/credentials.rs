//! Who the process is: user, groups, capabilities, limits, and what it may never gain again.

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use oci_spec::runtime::{PosixRlimit, Process};

use super::{
    caps,
    error::{Error, Step as _},
    seccomp::Program,
};

/// Sets the resource limits. One above what the shim itself may have is clamped to that.
pub(crate) fn limits(rlimits: Option<&Vec<PosixRlimit>>) -> Result<(), Error> {
    for limit in rlimits.into_iter().flatten() {
        let name = limit.typ().to_string();
        let resource = resource(&name).ok_or_else(|| Error::Spec(format!("there is no resource limit {name}")))?;
        let mut own = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `own` is a valid place for the answer.
        let known = unsafe { libc::getrlimit(resource, &raw mut own) } == 0;
        let mut wanted = libc::rlimit { rlim_cur: limit.soft(), rlim_max: limit.hard() };
        // SAFETY: `wanted` is a valid limit for the call to read.
        let set = |wanted: &libc::rlimit| unsafe { libc::setrlimit(resource, std::ptr::from_ref(wanted)) } == 0;
        if set(&wanted) {
            continue;
        }
        if known {
            wanted.rlim_max = wanted.rlim_max.min(own.rlim_max);
            wanted.rlim_cur = wanted.rlim_cur.min(wanted.rlim_max);
            if set(&wanted) {
                continue;
            }
        }
        return Err(std::io::Error::last_os_error()).step(|| format!("setting the limit {name}"));
    }
    Ok(())
}

fn resource(name: &str) -> Option<libc::__rlimit_resource_t> {
    Some(match name {
        "RLIMIT_AS" => libc::RLIMIT_AS,
        "RLIMIT_CORE" => libc::RLIMIT_CORE,
        "RLIMIT_CPU" => libc::RLIMIT_CPU,
        "RLIMIT_DATA" => libc::RLIMIT_DATA,
        "RLIMIT_FSIZE" => libc::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => libc::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => libc::RLIMIT_NICE,
        "RLIMIT_NOFILE" => libc::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => libc::RLIMIT_NPROC,
        "RLIMIT_RSS" => libc::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => libc::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => libc::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => libc::RLIMIT_STACK,
        _ => return None,
    })
}

/// Sets how readily the kernel's OOM killer takes this process. Where the machine forbids a value as low as asked for,
/// the lowest that it allows is kept.
pub(crate) fn oom_score(adjustment: Option<i32>) -> Result<(), Error> {
    let Some(wanted) = adjustment else { return Ok(()) };
    let path = "/proc/self/oom_score_adj";
    match std::fs::write(path, wanted.to_string()) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            let own: i32 = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            if wanted > own { Err(error).step(|| format!("writing {wanted} to {path}")) } else { Ok(()) }
        }
        Err(error) => Err(error).step(|| format!("writing {wanted} to {path}")),
    }
}

/// Becomes the user, with capabilities and seccomp. Nothing of what comes after this may need a privilege.
pub(crate) fn assume(process: &Process, seccomp: Option<&Program>) -> Result<(), Error> {
    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    // Without no-new-privileges the kernel wants CAP_SYS_ADMIN for a filter, which is about to go.
    if let (Some(program), false) = (seccomp, no_new_privileges) {
        program.load()?;
    }
    if let Some(capabilities) = process.capabilities() {
        caps::bound(capabilities)?;
    }
    let user = process.user();
    nix::sys::prctl::set_keepcaps(true).step(|| "keeping capabilities over the change of user")?;
    let groups: Vec<Gid> =
        user.additional_gids().iter().flatten().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    setgroups(&groups).step(|| "setting the supplementary groups")?;
    setresgid(gid, gid, gid).step(|| format!("becoming group {gid}"))?;
    setresuid(uid, uid, uid).step(|| format!("becoming user {uid}"))?;
    if let Some(mask) = user.umask() {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
    }
    match process.capabilities() {
        Some(capabilities) => {
            // The change of user cleared the effective set; the permitted one was kept.
            let permitted = ::caps::read(None, ::caps::CapSet::Permitted).step(|| "reading the own capabilities")?;
            ::caps::set(None, ::caps::CapSet::Effective, &permitted).step(|| "raising the own capabilities")?;
            caps::apply(capabilities)?;
        }
        None if !uid.is_root() => {
            ::caps::clear(None, ::caps::CapSet::Effective).step(|| "dropping capabilities")?;
            ::caps::clear(None, ::caps::CapSet::Permitted).step(|| "dropping capabilities")?;
        }
        None => {}
    }
    nix::sys::prctl::set_keepcaps(false).step(|| "keeping capabilities over the change of user")?;
    if no_new_privileges {
        nix::sys::prctl::set_no_new_privs().step(|| "setting no-new-privileges")?;
        if let Some(program) = seccomp {
            program.load()?;
        }
    }
    Ok(())
}
