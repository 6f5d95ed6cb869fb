//! The machine, as `info` tells it.

use std::{fs, path::Path};

/// What the machine is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    pub(crate) kernel: String,
    pub(crate) hostname: String,
    pub(crate) operating_system: String,
    /// "1", "hybrid" or "2"
    pub(crate) cgroup_version: &'static str,
    pub(crate) cpus: u32,
    /// Bytes.
    pub(crate) memory: u64,
    pub(crate) security_options: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

impl Host {
    /// Asks the kernel.
    pub(crate) fn look() -> Self {
        let uname = rustix::system::uname();
        let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
        let mut host = Self {
            kernel: text(uname.release()),
            hostname: text(uname.nodename()),
            operating_system: operating_system(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
            cgroup_version: cgroup_version(Path::new("/sys/fs/cgroup")),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            memory: memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            security_options: vec!["name=seccomp,profile=builtin".into()],
            warnings: Vec::new(),
        };
        if fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|enabled| enabled.starts_with('Y')) {
            host.security_options.insert(0, "name=apparmor".into());
        }
        if host.cgroup_version == "2" {
            host.security_options.push("name=cgroupns".into());
        }
        if fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|on| on.starts_with('0')) {
            host.warnings.push("IPv4 forwarding is disabled".into());
        }
        host
    }
}

fn operating_system(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| std::env::consts::OS.into(), |name| name.trim_matches('"').to_owned())
}

fn cgroup_version(root: &Path) -> &'static str {
    if root.join("cgroup.controllers").exists() {
        "2"
    } else if root.join("unified/cgroup.controllers").exists() {
        "hybrid"
    } else {
        "1"
    }
}

fn memory(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or_default() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_machine_says() {
        assert_eq!(memory("MemTotal:       24576000 kB\nMemFree: 1 kB\n"), 24_576_000 * 1024);
        assert_eq!(operating_system("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        let host = Host::look();
        assert!(host.memory > 0 && host.cpus > 0 && !host.kernel.is_empty());
    }
}
