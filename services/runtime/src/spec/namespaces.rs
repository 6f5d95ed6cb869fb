//! Which namespaces are the container's own, which are another's, and which stay the host's.

use std::path::PathBuf;

use berth_core::bundle::NETNS_FD;
use berth_proto::berth::runtime::v1::ContainerSpec;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use super::{Error, Input, Network, host::Host};

/// The namespaces to make or to join; a kind that is not there stays the host's.
pub(super) fn of(input: &Input<'_>, host: &Host) -> Vec<LinuxNamespace> {
    let spec = input.spec;
    let mut namespaces = vec![namespace(LinuxNamespaceType::Mount, None)];
    if spec.uts_mode != "host" {
        namespaces.push(namespace(LinuxNamespaceType::Uts, None));
    }
    if spec.pid_mode != "host" {
        namespaces.push(namespace(LinuxNamespaceType::Pid, of_process(input.pid_of, "pid")));
    }
    if spec.ipc_mode != "host" {
        namespaces.push(namespace(LinuxNamespaceType::Ipc, of_process(input.ipc_of, "ipc")));
    }
    if input.network == Network::Own {
        let path = PathBuf::from(format!("/proc/self/fd/{NETNS_FD}"));
        namespaces.push(namespace(LinuxNamespaceType::Network, Some(path)));
    }
    if own_cgroups(spec, host) {
        namespaces.push(namespace(LinuxNamespaceType::Cgroup, None));
    }
    namespaces
}

fn own_cgroups(spec: &ContainerSpec, host: &Host) -> bool {
    match &*spec.cgroupns_mode {
        "private" => true,
        "host" => false,
        _ => host.cgroup2,
    }
}

fn of_process(pid: Option<u32>, kind: &str) -> Option<PathBuf> {
    pid.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/{kind}")))
}

fn namespace(typ: LinuxNamespaceType, path: Option<PathBuf>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(typ).set_path(path);
    namespace
}

/// Refuses modes that there are not, and those that contradict each other.
pub(super) fn check(spec: &ContainerSpec) -> Result<(), Error> {
    let shares = |mode: &str| mode.strip_prefix("container:").is_some_and(|other| !other.is_empty());
    let refuse = |kind, mode| Err(Error::invalid(format!("invalid {kind} mode: {mode}")));
    let (pid, ipc) = (&*spec.pid_mode, &*spec.ipc_mode);
    if !matches!(pid, "" | "host") && !shares(pid) {
        return refuse("PID", pid);
    }
    if !matches!(ipc, "" | "none" | "private" | "shareable" | "host") && !shares(ipc) {
        return refuse("IPC", ipc);
    }
    if !matches!(&*spec.uts_mode, "" | "host") {
        return refuse("UTS", &spec.uts_mode);
    }
    if !matches!(&*spec.userns_mode, "" | "host") {
        return refuse("USER", &spec.userns_mode);
    }
    if !matches!(&*spec.cgroupns_mode, "" | "private" | "host") {
        return refuse("cgroup namespace", &spec.cgroupns_mode);
    }
    if !spec.hostname.is_empty() {
        if spec.uts_mode == "host" {
            return Err(Error::invalid("conflicting options: hostname and the UTS mode"));
        }
        if shares(&spec.network_mode) {
            return Err(Error::invalid("conflicting options: hostname and the network mode"));
        }
    }
    if shares(&spec.network_mode) {
        // What belongs to the network stack is the other container's to say.
        let conflicts = [
            (!spec.dns.is_empty(), "dns and the network mode"),
            (!spec.extra_hosts.is_empty(), "custom host-to-IP mapping and the network mode"),
            (!spec.ports.is_empty(), "port publishing and the container type network mode"),
            (!spec.exposed_ports.is_empty(), "port exposing and the container type network mode"),
        ];
        if let Some((_, what)) = conflicts.iter().find(|(given, _)| *given) {
            return Err(Error::invalid(format!("conflicting options: {what}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_modes(spec: &ContainerSpec, network: Network, cgroup2: bool) -> Vec<String> {
        let input = Input { network, pid_of: Some(7), ..Input::of(spec) };
        let text = |namespace: &LinuxNamespace| {
            let path = namespace.path().as_ref().map(|path| format!(":{}", path.display())).unwrap_or_default();
            format!("{}{path}", namespace.typ())
        };
        of(&input, &Host::whole(cgroup2)).iter().map(text).collect()
    }

    #[test]
    fn by_mode() {
        let spec = ContainerSpec { pid_mode: "container:x".into(), ..ContainerSpec::default() };
        let own = of_modes(&spec, Network::Own, true);
        assert_eq!(own, ["mnt", "uts", "pid:/proc/7/ns/pid", "ipc", "net:/proc/self/fd/4", "cgroup"]);
        let spec = ContainerSpec {
            pid_mode: "host".into(),
            ipc_mode: "host".into(),
            uts_mode: "host".into(),
            ..ContainerSpec::default()
        };
        assert_eq!(of_modes(&spec, Network::Host, false), ["mnt"]);
        let spec = ContainerSpec { cgroupns_mode: "private".into(), ..spec };
        assert_eq!(of_modes(&spec, Network::Host, false), ["mnt", "cgroup"]);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let spec = ContainerSpec { hostname: "h".into(), ..ContainerSpec::default() };
        check(&spec).unwrap();
        let uts = ContainerSpec { uts_mode: "host".into(), ..spec.clone() };
        assert!(check(&uts).unwrap_err().to_string().contains("the UTS mode"));
        let network = ContainerSpec { network_mode: "container:x".into(), ..spec.clone() };
        assert!(check(&network).unwrap_err().to_string().contains("the network mode"));
        let pid = ContainerSpec { pid_mode: "container:".into(), ..spec };
        assert_eq!(check(&pid).unwrap_err().to_string(), "invalid PID mode: container:");
    }
}
