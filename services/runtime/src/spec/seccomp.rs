//! Filters of system calls: the default one, and a user's in Docker's format, which is OCI's with conditions. Conditions
//! are settled here, for the container's capabilities and this machine.

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};
use serde::{Deserialize, Deserializer};

use super::{Error, capabilities, host::Host, profile, security::Seccomp};

/// The filter of a container; `None` for none.
pub(super) fn of(wanted: &Seccomp, own: &[Capability], host: &Host) -> Result<Option<LinuxSeccomp>, Error> {
    match wanted {
        Seccomp::Unconfined => Ok(None),
        _ if !host.seccomp => match wanted {
            Seccomp::Profile(_) => {
                Err(Error::invalid("seccomp is not enabled in your kernel, cannot run a custom seccomp profile"))
            }
            _ => Ok(None),
        },
        Seccomp::Default => Ok(Some(default(own, host))),
        Seccomp::Profile(text) => parse(text)?.settle(own, host).map(Some),
    }
}

fn default(own: &[Capability], host: &Host) -> LinuxSeccomp {
    let allow = LinuxSeccompAction::ScmpActAllow;
    let mut calls = vec![rule(profile::EVERYBODY, allow, &[])];
    if host.kernel >= profile::TRACING.1 {
        calls.push(rule(profile::TRACING.0, allow, &[]));
    }
    calls.extend(sockets().map(|argument| rule("socket", allow, &[argument])));
    for personality in profile::PERSONALITIES {
        let equal = argument(0, personality, None, LinuxSeccompOperator::ScmpCmpEq);
        calls.push(rule("personality", allow, &[equal]));
    }
    for (architecture, names) in profile::ARCHITECTURES {
        if architecture == std::env::consts::ARCH {
            calls.push(rule(names, allow, &[]));
        }
    }
    for (capability, names) in profile::CAPABILITIES {
        if own.contains(&capability) {
            calls.push(rule(names, allow, &[]));
        }
    }
    if !own.contains(&Capability::SysAdmin) {
        let none = argument(0, profile::NEW_NAMESPACES, Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq);
        calls.push(rule("clone", allow, &[none]));
        let mut absent = rule("clone3", LinuxSeccompAction::ScmpActErrno, &[]);
        absent.set_errno_ret(Some(libc::ENOSYS as u32));
        calls.push(absent);
    }
    let mut filter = LinuxSeccomp::default();
    filter
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(libc::EPERM as u32))
        .set_architectures(Some(architectures()))
        .set_syscalls(Some(calls));
    filter
}

/// All families but the denied ones, as alternatives: a filter cannot say "not this and not that" of one argument.
fn sockets() -> impl Iterator<Item = LinuxSeccompArg> {
    let [low, high] = profile::FAMILIES_DENIED;
    let below = argument(0, low, None, LinuxSeccompOperator::ScmpCmpLt);
    let above = argument(0, high, None, LinuxSeccompOperator::ScmpCmpGt);
    let between = (low + 1..high).map(|family| argument(0, family, None, LinuxSeccompOperator::ScmpCmpEq));
    [below].into_iter().chain(between).chain([above])
}

/// This machine's architecture and those whose programs it runs too.
fn architectures() -> Vec<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        _ => vec![Arch::ScmpArchNative],
    }
}

fn rule(names: &str, action: LinuxSeccompAction, arguments: &[LinuxSeccompArg]) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.split_ascii_whitespace().map(str::to_owned).collect()).set_action(action);
    rule.set_args(Some(arguments.to_vec()).filter(|arguments| !arguments.is_empty()));
    rule
}

fn argument(index: usize, value: u64, two: Option<u64>, operator: LinuxSeccompOperator) -> LinuxSeccompArg {
    let argument = LinuxSeccompArgBuilder::default().index(index).value(value).op(operator);
    let argument = match two {
        Some(two) => argument.value_two(two),
        None => argument,
    };
    // Every field that must be there is.
    argument.build().unwrap_or_default()
}

/// A profile as Docker reads it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "or_nothing")]
    architectures: Vec<Arch>,
    #[serde(default, deserialize_with = "or_nothing")]
    arch_map: Vec<Family>,
    #[serde(default, deserialize_with = "or_nothing")]
    flags: Vec<LinuxSeccompFilterFlag>,
    listener_path: Option<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    syscalls: Vec<Call>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Family {
    architecture: Arch,
    #[serde(default, deserialize_with = "or_nothing")]
    sub_architectures: Vec<Arch>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    #[serde(default, deserialize_with = "or_nothing")]
    name: String,
    #[serde(default, deserialize_with = "or_nothing")]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "or_nothing")]
    args: Vec<LinuxSeccompArg>,
    #[serde(default, deserialize_with = "or_nothing")]
    includes: Condition,
    #[serde(default, deserialize_with = "or_nothing")]
    excludes: Condition,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default, deserialize_with = "or_nothing")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Written by programs in Go, these files have `null` for what is empty.
fn or_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn parse(text: &str) -> Result<Profile, Error> {
    let profile: Profile = serde_json::from_str(text).map_err(Error::Profile)?;
    let wrong = |text: &str| Err(Error::invalid(format!("decoding seccomp profile failed: {text}")));
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return wrong("use either 'architectures' or 'archMap'");
    }
    if profile.listener_path.as_ref().is_some_and(|path| !path.is_empty()) {
        return wrong("listeners ('listenerPath') are not supported");
    }
    for call in &profile.syscalls {
        if !call.name.is_empty() && !call.names.is_empty() {
            return wrong("use either 'name' or 'names'");
        }
        for condition in [&call.includes, &call.excludes] {
            if let Some(version) = condition.min_kernel.as_deref().filter(|version| version_of(version).is_none()) {
                return wrong(&format!("{version:?} is no version of a kernel"));
            }
        }
    }
    Ok(profile)
}

/// Whether a user's profile can be read.
pub(super) fn check(wanted: &Seccomp) -> Result<(), Error> {
    if let Seccomp::Profile(text) = wanted { parse(text).map(|_| ()) } else { Ok(()) }
}

fn version_of(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

impl Condition {
    fn holds_all(&self, own: &[Capability], host: &Host) -> bool {
        let has = |name: &String| capabilities::named(name).is_some_and(|capability| own.contains(&capability));
        (self.arches.is_empty() || self.arches.iter().any(|name| is_this_machine(name)))
            && self.caps.iter().all(has)
            && self.min_kernel.as_deref().and_then(version_of).is_none_or(|version| host.kernel >= version)
    }

    fn holds_any(&self, own: &[Capability], host: &Host) -> bool {
        let has = |name: &String| capabilities::named(name).is_some_and(|capability| own.contains(&capability));
        self.arches.iter().any(|name| is_this_machine(name))
            || self.caps.iter().any(has)
            || self.min_kernel.as_deref().and_then(version_of).is_some_and(|version| host.kernel >= version)
    }
}

/// Architectures by Go's names.
fn is_this_machine(name: &str) -> bool {
    match std::env::consts::ARCH {
        "x86_64" => name == "amd64",
        "aarch64" => name == "arm64",
        other => name == other,
    }
}

impl Profile {
    fn settle(self, own: &[Capability], host: &Host) -> Result<LinuxSeccomp, Error> {
        let mut filter = LinuxSeccomp::default();
        let native = architectures();
        let mut wanted = self.architectures;
        for family in self.arch_map {
            if native.first() == Some(&family.architecture) {
                wanted.push(family.architecture);
                wanted.extend(family.sub_architectures);
            }
        }
        let mut calls = Vec::new();
        for call in self.syscalls {
            if !call.includes.holds_all(own, host) || call.excludes.holds_any(own, host) {
                continue;
            }
            let names = if call.name.is_empty() { call.names } else { vec![call.name] };
            if names.is_empty() {
                continue;
            }
            let mut rule = LinuxSyscall::default();
            rule.set_names(names).set_action(call.action).set_errno_ret(call.errno_ret);
            rule.set_args(Some(call.args).filter(|arguments| !arguments.is_empty()));
            calls.push(rule);
        }
        filter
            .set_default_action(self.default_action)
            .set_default_errno_ret(self.default_errno_ret)
            .set_architectures(Some(wanted).filter(|wanted| !wanted.is_empty()))
            .set_flags(Some(self.flags).filter(|flags| !flags.is_empty()))
            .set_syscalls(Some(calls));
        Ok(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(filter: &LinuxSeccomp, name: &str) -> bool {
        let named = |rule: &&LinuxSyscall| rule.names().iter().any(|other| other == name);
        let mut rules = filter.syscalls().iter().flatten().filter(named);
        rules.any(|rule| rule.action() == LinuxSeccompAction::ScmpActAllow && rule.args().is_none())
    }

    fn fourteen() -> Vec<Capability> {
        capabilities::of(false, &[], &[], &Host::whole(false)).unwrap()
    }

    #[test]
    fn the_default_lets_through_what_docker_does() {
        let host = Host::whole(false);
        let filter = of(&Seccomp::Default, &fourteen(), &host).unwrap().unwrap();
        for name in ["read", "execve", "openat2", "chroot", "ptrace"] {
            assert!(allowed(&filter, name), "{name}");
        }
        for name in ["mount", "bpf", "keyctl", "unshare", "clone", "clone3", "io_uring_setup", "socket", "reboot"] {
            assert!(!allowed(&filter, name), "{name}");
        }
        let absent = filter.syscalls().iter().flatten().find(|rule| rule.names() == &["clone3"]).unwrap();
        assert_eq!(absent.errno_ret(), Some(libc::ENOSYS as u32));
        assert_eq!(filter.default_errno_ret(), Some(1));
        let families: Vec<_> = sockets().map(|a| (a.op(), a.value())).collect();
        use LinuxSeccompOperator::*;
        assert_eq!(families, [(ScmpCmpLt, 38), (ScmpCmpEq, 39), (ScmpCmpGt, 40)]);
    }

    #[test]
    fn capabilities_and_kernels_open_more() {
        let mut host = Host::whole(false);
        let filter = default(&[Capability::SysAdmin], &host);
        assert!(allowed(&filter, "mount") && allowed(&filter, "clone") && allowed(&filter, "clone3"));
        assert!(!allowed(&filter, "chroot"));
        host.kernel = (4, 7);
        assert!(!allowed(&default(&fourteen(), &host), "ptrace"));
        host.seccomp = false;
        assert_eq!(of(&Seccomp::Default, &[], &host).unwrap(), None);
        assert!(of(&Seccomp::Profile("{}".into()), &[], &host).is_err());
    }

    #[test]
    fn a_users_profile_is_settled() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[
            {"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
            {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":null}],
          "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":null,"includes":null},
            {"name":"mount","action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["chroot"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_CHROOT"]}},
            {"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}}]}"#;
        let filter = of(&Seccomp::Profile(text.into()), &fourteen(), &Host::whole(false)).unwrap().unwrap();
        assert!(allowed(&filter, "read"));
        for name in ["mount", "chroot", "bpf"] {
            assert!(!allowed(&filter, name), "{name}");
        }
        assert_eq!(filter.architectures().as_ref().map(|all| all[0]), architectures().first().copied());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "{}",
            r#"{"defaultAction":"SCMP_ACT_FLY"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#,
        ] {
            let error = check(&Seccomp::Profile(text.into())).unwrap_err().to_string();
            assert!(error.starts_with("decoding seccomp profile failed: "), "{error}");
        }
    }
}
