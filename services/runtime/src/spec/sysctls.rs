//! `--sysctl`: only parameters that belong to a namespace of the container's own.

use berth_proto::berth::runtime::v1::ContainerSpec;

use super::Error;

const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Refuses parameters that are the host's, or another container's.
pub(super) fn check(spec: &ContainerSpec) -> Result<(), Error> {
    for name in spec.sysctls.keys() {
        let dotted = name.replace('/', ".");
        let shared = if IPC.contains(&&*dotted) || dotted.starts_with("fs.mqueue.") {
            matches!(&*spec.ipc_mode, "host").then_some("IPC")
        } else if dotted.starts_with("net.") {
            matches!(&*spec.network_mode, "host").then_some("network")
        } else {
            return Err(Error::invalid(format!("sysctl '{name}' is not allowed")));
        };
        if let Some(kind) = shared {
            return Err(Error::invalid(format!("sysctl '{name}' is not allowed in the host {kind} namespace")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, network: &str, ipc: &str) -> Result<(), String> {
        let spec = ContainerSpec {
            sysctls: [(name.to_owned(), "1".to_owned())].into(),
            network_mode: network.into(),
            ipc_mode: ipc.into(),
            ..ContainerSpec::default()
        };
        check(&spec).map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_is_the_containers_own() {
        of("net.ipv4.ip_forward", "", "").unwrap();
        of("kernel.shmmax", "host", "private").unwrap();
        assert!(of("net.core.somaxconn", "host", "").unwrap_err().contains("host network namespace"));
        assert!(of("fs.mqueue.msg_max", "", "host").unwrap_err().contains("host IPC namespace"));
        assert_eq!(of("vm.swappiness", "", "").unwrap_err(), "sysctl 'vm.swappiness' is not allowed");
    }
}
