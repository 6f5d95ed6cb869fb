//! Who the process is: user, groups, capabilities, limits, and what it may never gain again.

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use oci_spec::runtime::{PosixRlimit, Process};

use super::{
    caps,
    channel::Child,
    error::{Error, Step as _},
    seccomp::Program,
    user::Identity,
};

/// Sets the resource limits. One above what the shim itself may have is clamped to that.
pub(crate) fn limits(rlimits: Option<&Vec<PosixRlimit>>, channel: &Child) -> Result<(), Error> {
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
                channel.warn(&format!(
                    "{name} cannot be raised on this machine: it is {} (at most {}) instead of {} (at most {})",
                    wanted.rlim_cur,
                    wanted.rlim_max,
                    limit.soft(),
                    limit.hard()
                ));
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
/// the lowest that it allows is taken.
pub(crate) fn oom_score(adjustment: Option<i32>, channel: &Child) -> Result<(), Error> {
    let Some(wanted) = adjustment else { return Ok(()) };
    let path = "/proc/self/oom_score_adj";
    let write = |value: i32| std::fs::write(path, value.to_string());
    let denied = match write(wanted) {
        Ok(()) => return Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => error,
        Err(error) => return Err(error).step(|| format!("writing {wanted} to {path}")),
    };
    let own: i32 = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    if wanted > own {
        return Err(denied).step(|| format!("writing {wanted} to {path}"));
    }
    // The own value is always allowed; the lowest allowed lies between.
    let (mut refused, mut allowed) = (wanted, own);
    while allowed - refused > 1 {
        let middle = refused + (allowed - refused) / 2;
        if write(middle).is_ok() {
            allowed = middle;
        } else {
            refused = middle;
        }
    }
    write(allowed).step(|| format!("writing {allowed} to {path}"))?;
    if allowed != wanted {
        channel.warn(&format!("this machine does not allow an OOM score adjustment of {wanted}; it is {allowed}"));
    }
    Ok(())
}

/// Becomes the user, with capabilities and seccomp. Nothing of what comes after this may need a privilege.
pub(crate) fn assume(
    process: &Process,
    identity: &Identity,
    seccomp: Option<&Program>,
    channel: &Child,
) -> Result<(), Error> {
    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    // Without no-new-privileges the kernel wants CAP_SYS_ADMIN for a filter, which is about to go.
    if let (Some(program), false) = (seccomp, no_new_privileges) {
        program.load()?;
    }
    if let Some(capabilities) = process.capabilities() {
        caps::bound(capabilities)?;
    }
    nix::sys::prctl::set_keepcaps(true).step(|| "keeping capabilities over the change of user")?;
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    match setgroups(&groups) {
        // A user namespace may forbid it; then there is nothing to set.
        Err(nix::Error::EPERM) if groups.is_empty() => {}
        other => other.step(|| "setting the supplementary groups")?,
    }
    setresgid(gid, gid, gid).step(|| format!("becoming group {gid}"))?;
    setresuid(uid, uid, uid).step(|| format!("becoming user {uid}"))?;
    // Not what the shim happens to have.
    let mask = process.user().umask().unwrap_or(0o022);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
    match process.capabilities() {
        Some(capabilities) => {
            // The change of user cleared the effective set; the permitted one was kept.
            let permitted = ::caps::read(None, ::caps::CapSet::Permitted).step(|| "reading the own capabilities")?;
            ::caps::set(None, ::caps::CapSet::Effective, &permitted).step(|| "raising the own capabilities")?;
            caps::apply(capabilities, channel)?;
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
