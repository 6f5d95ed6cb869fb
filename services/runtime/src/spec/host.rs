//! What the machine can do, as far as a container's configuration depends on it.

use std::{fs, path::Path};

use super::capabilities;

/// Facts about the machine. Read anew each time: CPUs come and go, and it costs next to nothing.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Every controller is on the unified hierarchy.
    pub(super) cgroup2: bool,
    /// Memory and swap can be limited together.
    pub(super) swap_limit: bool,
    /// Time for real-time scheduling can be given to a cgroup.
    pub(super) cpu_real_time: bool,
    /// Block I/O has weights.
    pub(super) io_weight: bool,
    /// Block I/O of a device has rates.
    pub(super) io_rates: bool,
    /// CPUs that are on, as the kernel lists them ("0-3").
    pub(super) cpus: Set,
    /// Memory nodes that are on.
    pub(super) memory_nodes: Set,
    /// Bit n: this process may hand capability n on.
    pub(super) capabilities: u64,
    /// Filters of system calls can be loaded.
    pub(super) seccomp: bool,
    pub(super) apparmor: bool,
    /// Major and minor version of the kernel.
    pub(super) kernel: (u32, u32),
    /// What this process's children start with; it cannot be lowered without CAP_SYS_RESOURCE.
    pub(super) oom_score_adj: i32,
}

impl Host {
    /// Looks. What cannot be read counts as not there.
    pub(super) fn look() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cgroup2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let there = |file: &str| Path::new("/sys/fs/cgroup").join(file).exists();
        Self {
            cgroup2,
            swap_limit: cgroup2 || Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists(),
            cpu_real_time: !cgroup2 && there("cpu/cpu.rt_runtime_us"),
            // The files of weights are in none of the root cgroups: what is there of the same scheduler speaks for them.
            io_weight: if cgroup2 {
                there("io.cost.qos") || there("init.scope/io.bfq.weight") || there("system.slice/io.bfq.weight")
            } else {
                there("blkio/blkio.weight") || there("blkio/blkio.bfq.io_serviced")
            },
            io_rates: if cgroup2 {
                text("/sys/fs/cgroup/cgroup.controllers").split_whitespace().any(|controller| controller == "io")
            } else {
                there("blkio/blkio.throttle.read_bps_device")
            },
            cpus: Set::parse(text("/sys/devices/system/cpu/online").trim()).unwrap_or_else(|| Set(vec![(0, 0)])),
            memory_nodes: Set::parse(text("/sys/devices/system/node/online").trim())
                .unwrap_or_else(|| Set(vec![(0, 0)])),
            capabilities: bounding(&text("/proc/self/status")),
            seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            apparmor: text("/sys/module/apparmor/parameters/enabled").starts_with('Y'),
            kernel: kernel(&text("/proc/sys/kernel/osrelease")),
            oom_score_adj: text("/proc/self/oom_score_adj").trim().parse().unwrap_or(0),
        }
    }

    /// Whether this process has a capability to hand on.
    pub(super) fn has(&self, capability: oci_spec::runtime::Capability) -> bool {
        capabilities::number(capability).is_some_and(|number| self.capabilities & 1 << number != 0)
    }
}

fn bounding(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

fn kernel(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A set of numbers as the kernel writes it: "0-2,7".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set(Vec<(u32, u32)>);

impl Set {
    /// `None` for what is no such list, and for an empty one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first <= last && last < 1 << 16).then_some((first, last))
        };
        text.split(',').map(range).collect::<Option<Vec<_>>>().map(Self)
    }

    pub(super) fn len(&self) -> usize {
        let mut all: Vec<u32> = self.0.iter().flat_map(|(first, last)| *first..=*last).collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    }

    /// Whether everything in the other one is in this one.
    pub(super) fn holds(&self, other: &Self) -> bool {
        let in_here = |n: u32| self.0.iter().any(|(first, last)| (*first..=*last).contains(&n));
        other.0.iter().all(|(first, last)| (*first..=*last).all(in_here))
    }
}

impl std::fmt::Display for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, (first, last)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
impl Host {
    /// A machine with four CPUs that can do everything.
    pub(super) fn whole(cgroup2: bool) -> Self {
        Self {
            cgroup2,
            swap_limit: true,
            cpu_real_time: !cgroup2,
            io_weight: true,
            io_rates: true,
            cpus: Set(vec![(0, 3)]),
            memory_nodes: Set(vec![(0, 0)]),
            capabilities: (1 << 41) - 1,
            seccomp: true,
            apparmor: false,
            kernel: (6, 12),
            oom_score_adj: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_as_the_kernel_writes_them() {
        let set = Set::parse("0-2,7").unwrap();
        assert_eq!((set.len(), set.to_string()), (4, "0-2,7".into()));
        assert!(set.holds(&Set::parse("1,2,7").unwrap()) && !set.holds(&Set::parse("2-3").unwrap()));
        for wrong in ["", "a", "3-1", "1,,2", "-1", "0-99999999"] {
            assert_eq!(Set::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(kernel("6.12.3-amd64\n"), (6, 12));
        assert_eq!(kernel(""), (0, 0));
        assert_eq!(bounding("Name:\tx\nCapBnd:\t000001ffffffffff\n"), 0x1ff_ffff_ffff);
        let host = Host::look();
        assert!(host.cpus.len() >= 1 && host.kernel.0 >= 4);
    }
}
