//! What a container uses and has used, in one shape for both versions.

use std::{collections::BTreeMap, fs, path::Path};

use super::{Cgroup, number, read};

/// Everything there is to say; zeroes where the machine does not say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processors.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Block devices.
    pub blkio: Vec<BlkioEntry>,
    /// Huge pages, by size.
    pub hugetlb: Vec<HugetlbStats>,
}

/// Processor time, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// In all.
    pub total: u64,
    /// In programs.
    pub user: u64,
    /// In the kernel.
    pub kernel: u64,
    /// By processor; empty on v2.
    pub per_cpu: Vec<u64>,
    /// What the quota did.
    pub throttling: Throttling,
}

/// What a quota of processor time did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which there was something to do.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// Nanoseconds spent waiting for the next period.
    pub throttled_time: u64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// In use, the page cache included.
    pub usage: u64,
    /// The most that ever was.
    pub max_usage: u64,
    /// The limit; `u64::MAX` for none.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// Swap in use (v1: with memory).
    pub swap_usage: u64,
    /// Limit of the same.
    pub swap_limit: u64,
    /// Kernel memory.
    pub kernel_usage: u64,
    /// How many processes the OOM killer took.
    pub oom_kills: u64,
    /// `memory.stat` as the kernel has it.
    pub detail: BTreeMap<String, u64>,
}

impl MemoryStats {
    /// What the container needs, as Docker shows it: without the file pages that nobody touched for a while.
    pub fn working_set(&self) -> u64 {
        let inactive = self.detail.get("total_inactive_file").or_else(|| self.detail.get("inactive_file"));
        self.usage.saturating_sub(inactive.copied().unwrap_or(0))
    }
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// At most; 0 for no limit.
    pub limit: u64,
}

/// What was done on one block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlkioEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    /// `2MB`
    pub page_size: String,
    /// Now.
    pub usage: u64,
    /// The most that ever was; 0 on v2.
    pub max: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// Lines of a key and a number.
fn table(directory: &Path, file: &str) -> BTreeMap<String, u64> {
    let text = read(directory, file).unwrap_or_default();
    let entry = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(entry).collect()
}

/// `USER_HZ`, a constant of the kernel's interface.
const TICK: u64 = 1_000_000_000 / 100;

impl Cgroup {
    pub(crate) fn stats(&self) -> Stats {
        match self.v2_directory() {
            Some(directory) => v2(directory),
            None => self.v1_stats(),
        }
    }

    fn v1_stats(&self) -> Stats {
        let mut stats = Stats::default();
        let get = |directory: &Path, file: &str| number(directory, file).unwrap_or(0);
        if let Some(directory) = self.controller("cpuacct") {
            let split = table(directory, "cpuacct.stat");
            stats.cpu.total = get(directory, "cpuacct.usage");
            stats.cpu.user = split.get("user").copied().unwrap_or(0) * TICK;
            stats.cpu.kernel = split.get("system").copied().unwrap_or(0) * TICK;
            let each = read(directory, "cpuacct.usage_percpu").unwrap_or_default();
            stats.cpu.per_cpu = each.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        }
        if let Some(directory) = self.controller("cpu") {
            let quota = table(directory, "cpu.stat");
            let of = |key: &str| quota.get(key).copied().unwrap_or(0);
            stats.cpu.throttling = Throttling {
                periods: of("nr_periods"),
                throttled_periods: of("nr_throttled"),
                throttled_time: of("throttled_time"),
            };
        }
        if let Some(directory) = self.controller("memory") {
            stats.memory = MemoryStats {
                usage: get(directory, "memory.usage_in_bytes"),
                max_usage: get(directory, "memory.max_usage_in_bytes"),
                limit: unlimited(get(directory, "memory.limit_in_bytes")),
                failures: get(directory, "memory.failcnt"),
                swap_usage: get(directory, "memory.memsw.usage_in_bytes"),
                swap_limit: unlimited(get(directory, "memory.memsw.limit_in_bytes")),
                kernel_usage: get(directory, "memory.kmem.usage_in_bytes"),
                oom_kills: self.oom_kills(),
                detail: table(directory, "memory.stat"),
            };
        }
        if let Some(directory) = self.controller("pids") {
            let limit = number(directory, "pids.max").filter(|limit| *limit != u64::MAX).unwrap_or(0);
            stats.pids = PidsStats { current: get(directory, "pids.current"), limit };
        }
        if let Some(directory) = self.controller("blkio") {
            stats.blkio = blkio_v1(directory);
        }
        if let Some(directory) = self.controller("hugetlb") {
            stats.hugetlb = hugetlb(directory, ".usage_in_bytes", ".max_usage_in_bytes");
        }
        stats
    }
}

/// v1 says "no limit" with the greatest number of pages.
fn unlimited(limit: u64) -> u64 {
    if limit >= i64::MAX as u64 / 4096 * 4096 { u64::MAX } else { limit }
}

fn blkio_v1(directory: &Path) -> Vec<BlkioEntry> {
    let mut devices: BTreeMap<(u64, u64), BlkioEntry> = BTreeMap::new();
    let files = [("blkio.throttle.io_service_bytes_recursive", true), ("blkio.throttle.io_serviced_recursive", false)];
    for (file, bytes) in files {
        for line in read(directory, file).unwrap_or_default().lines() {
            let mut words = line.split_whitespace();
            let (Some(device), Some(what), Some(count)) = (words.next(), words.next(), words.next()) else { continue };
            let Some((major, minor)) = device.split_once(':') else { continue };
            let (Ok(major), Ok(minor), Ok(count)) = (major.parse(), minor.parse(), count.parse::<u64>()) else {
                continue;
            };
            let entry = devices.entry((major, minor)).or_default();
            (entry.major, entry.minor) = (major, minor);
            match (what, bytes) {
                ("Read", true) => entry.read_bytes = count,
                ("Write", true) => entry.write_bytes = count,
                ("Read", false) => entry.reads = count,
                ("Write", false) => entry.writes = count,
                _ => {}
            }
        }
    }
    devices.into_values().collect()
}

fn hugetlb(directory: &Path, usage: &str, max: &str) -> Vec<HugetlbStats> {
    let mut sizes = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let size = name.to_str().and_then(|name| name.strip_prefix("hugetlb.")?.strip_suffix(usage));
        let Some(size) = size.filter(|size| !size.contains('.')) else { continue };
        sizes.push(HugetlbStats {
            page_size: size.to_owned(),
            usage: number(directory, &format!("hugetlb.{size}{usage}")).unwrap_or(0),
            max: number(directory, &format!("hugetlb.{size}{max}")).unwrap_or(0),
            failures: number(directory, &format!("hugetlb.{size}.failcnt")).unwrap_or(0),
        });
    }
    sizes
}

fn v2(directory: &Path) -> Stats {
    let cpu = table(directory, "cpu.stat");
    let of = |key: &str| cpu.get(key).copied().unwrap_or(0) * 1000;
    let get = |file: &str| number(directory, file).unwrap_or(0);
    let detail = table(directory, "memory.stat");
    let events = table(directory, "memory.events");
    let count = |key: &str| events.get(key).copied().unwrap_or(0);
    let mut blkio = Vec::new();
    for line in read(directory, "io.stat").unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|device| device.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(a, b)| (a.parse(), b.parse())) else { continue };
        let mut entry = BlkioEntry { major, minor, ..BlkioEntry::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match key {
                "rbytes" => entry.read_bytes = value,
                "wbytes" => entry.write_bytes = value,
                "rios" => entry.reads = value,
                "wios" => entry.writes = value,
                _ => {}
            }
        }
        blkio.push(entry);
    }
    Stats {
        cpu: CpuStats {
            total: of("usage_usec"),
            user: of("user_usec"),
            kernel: of("system_usec"),
            per_cpu: Vec::new(),
            throttling: Throttling {
                periods: of("nr_periods") / 1000,
                throttled_periods: of("nr_throttled") / 1000,
                throttled_time: of("throttled_usec"),
            },
        },
        memory: MemoryStats {
            usage: get("memory.current"),
            max_usage: get("memory.peak"),
            limit: number(directory, "memory.max").unwrap_or(u64::MAX),
            failures: count("max"),
            swap_usage: get("memory.swap.current"),
            swap_limit: number(directory, "memory.swap.max").unwrap_or(u64::MAX),
            kernel_usage: detail.get("kernel").copied().unwrap_or(0),
            oom_kills: count("oom_kill"),
            detail,
        },
        pids: PidsStats {
            current: get("pids.current"),
            limit: number(directory, "pids.max").filter(|limit| *limit != u64::MAX).unwrap_or(0),
        },
        blkio,
        hugetlb: hugetlb(directory, ".current", ".none"),
    }
}
