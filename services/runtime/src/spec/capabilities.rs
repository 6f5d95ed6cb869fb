//! Capabilities: their names, Docker's fourteen, and what adding and dropping makes of them.

use std::collections::HashSet;

use oci_spec::runtime::{Capabilities, Capability, Capability::*, LinuxCapabilities};

use super::{Error, host::Host};

/// In the kernel's order: the place is the number.
const ALL: [Capability; 41] = [
    Chown,
    DacOverride,
    DacReadSearch,
    Fowner,
    Fsetid,
    Kill,
    Setgid,
    Setuid,
    Setpcap,
    LinuxImmutable,
    NetBindService,
    NetBroadcast,
    NetAdmin,
    NetRaw,
    IpcLock,
    IpcOwner,
    SysModule,
    SysRawio,
    SysChroot,
    SysPtrace,
    SysPacct,
    SysAdmin,
    SysBoot,
    SysNice,
    SysResource,
    SysTime,
    SysTtyConfig,
    Mknod,
    Lease,
    AuditWrite,
    AuditControl,
    Setfcap,
    MacOverride,
    MacAdmin,
    Syslog,
    WakeAlarm,
    BlockSuspend,
    AuditRead,
    Perfmon,
    Bpf,
    CheckpointRestore,
];

/// What a container has unless told otherwise.
const DEFAULT: [Capability; 14] = [
    Chown,
    DacOverride,
    Fsetid,
    Fowner,
    Mknod,
    NetRaw,
    Setgid,
    Setuid,
    Setfcap,
    Setpcap,
    NetBindService,
    SysChroot,
    Kill,
    AuditWrite,
];

/// Its number in the kernel.
pub(super) fn number(capability: Capability) -> Option<usize> {
    ALL.iter().position(|other| *other == capability)
}

/// "NET_ADMIN", "cap_net_admin"; `None` where there is no such capability.
pub(super) fn named(name: &str) -> Option<Capability> {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").unwrap_or(&name).parse().ok()
}

/// What somebody asked to add or to drop.
#[derive(Debug, Default)]
struct Names {
    all: bool,
    named: HashSet<Capability>,
}

impl Names {
    fn parse(names: &[String], what: &str) -> Result<Self, Error> {
        let mut parsed = Self::default();
        for name in names {
            if name.eq_ignore_ascii_case("ALL") {
                parsed.all = true;
                continue;
            }
            let unknown = || {
                let upper = name.to_ascii_uppercase();
                let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
                Error::invalid(format!("invalid {what}: unknown capability: {full:?}"))
            };
            parsed.named.insert(named(name).ok_or_else(unknown)?);
        }
        Ok(parsed)
    }
}

/// The capabilities of a container, in the kernel's order. "All" are those that this machine has to give.
pub(super) fn of(privileged: bool, add: &[String], drop: &[String], host: &Host) -> Result<Vec<Capability>, Error> {
    let (add, drop) = (Names::parse(add, "CapAdd")?, Names::parse(drop, "CapDrop")?);
    let kept = |capability: &Capability| {
        if privileged {
            host.has(*capability)
        } else if add.all {
            host.has(*capability) && !drop.named.contains(capability)
        } else if drop.all {
            add.named.contains(capability)
        } else {
            // Added wins over dropped.
            add.named.contains(capability) || DEFAULT.contains(capability) && !drop.named.contains(capability)
        }
    };
    Ok(ALL.into_iter().filter(kept).collect())
}

/// Those among them that nobody can give on this machine.
pub(super) fn not_to_be_had(add: &[String], host: &Host) -> Vec<String> {
    let missing = |capability: &Capability| !host.has(*capability);
    let mut names: Vec<String> =
        add.iter().filter_map(|name| named(name)).filter(missing).map(|c| format!("CAP_{c}")).collect();
    names.dedup();
    names
}

/// The sets of a process. Nothing is inheritable or ambient: a program gets what its user and its file give it.
pub(super) fn sets(capabilities: &[Capability]) -> LinuxCapabilities {
    let all: Capabilities = capabilities.iter().copied().collect();
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(all.clone())).set_effective(Some(all.clone())).set_permitted(Some(all));
    sets.set_inheritable(None).set_ambient(None);
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(add: &[&str], drop: &[&str]) -> u64 {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let of = of(false, &owned(add), &owned(drop), &Host::whole(false)).unwrap();
        of.into_iter().map(|capability| 1u64 << number(capability).unwrap()).sum()
    }

    #[test]
    fn dockers_fourteen() {
        assert_eq!(mask(&[], &[]), 0xa804_25fb);
    }

    #[test]
    fn adding_and_dropping() {
        const NET_ADMIN: u64 = 1 << 12;
        const CHOWN: u64 = 1;
        assert_eq!(mask(&["NET_ADMIN"], &["cap_chown"]), 0xa804_25fb - CHOWN + NET_ADMIN);
        assert_eq!(mask(&["net_admin"], &["all"]), NET_ADMIN);
        assert_eq!(mask(&["ALL"], &["CHOWN"]), (1 << 41) - 1 - CHOWN);
        assert_eq!(mask(&["chown"], &["chown"]), 0xa804_25fb, "added wins");
    }

    #[test]
    fn privileged_is_all_that_the_machine_has() {
        let mut host = Host::whole(false);
        host.capabilities &= !(1 << 24);
        let all = of(true, &[], &["ALL".into()], &host).unwrap();
        assert!(all.len() == 40 && !all.contains(&SysResource));
        assert_eq!(not_to_be_had(&["SYS_RESOURCE".into(), "KILL".into()], &host), ["CAP_SYS_RESOURCE"]);
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = of(false, &["fly".into()], &[], &Host::whole(false)).unwrap_err();
        assert_eq!(error.to_string(), "invalid CapAdd: unknown capability: \"CAP_FLY\"");
    }

    #[test]
    fn all_names_are_read() {
        for capability in ALL {
            assert_eq!(named(&format!("CAP_{capability}")), Some(capability));
        }
    }
}
