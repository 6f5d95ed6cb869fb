//! cgroup v2: one directory, its controllers enabled on the way down.

use std::{collections::BTreeMap, fs, path::Path};

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::{Cgroup, read, write};
use crate::oci::error::{Error, Step as _};

/// Makes the directory and enables every controller that is there, above it.
pub(super) fn make(directory: &Path, mount: &Path, enable: bool) -> Result<(), Error> {
    let what = || format!("making {}", directory.display());
    if enable {
        let beneath = directory.strip_prefix(mount).step(what)?;
        let mut here = mount.to_owned();
        for name in beneath {
            enable_below(&here);
            here.push(name);
            match fs::create_dir(&here) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error).step(what),
                _ => {}
            }
        }
        return Ok(());
    }
    fs::create_dir_all(directory).step(what)
}

/// One at a time: a controller that cannot be had here must not keep the others away. A limit that needs it will say so.
fn enable_below(directory: &Path) {
    for controller in read(directory, "cgroup.controllers").unwrap_or_default().split_whitespace() {
        let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Writes limits.
pub(super) fn limit(cgroup: &Cgroup, resources: &LinuxResources, warnings: &mut Vec<String>) -> Result<(), Error> {
    let Some(directory) = cgroup.v2_directory() else { return Ok(()) };
    for (file, value) in values(resources, warnings)? {
        let path = directory.join(&file);
        if !path.exists() {
            let controller = file.split('.').next().unwrap_or_default();
            if file == "memory.swap.max" {
                warnings.push("this kernel does not account swap; the swap limit has no effect".into());
                continue;
            }
            if file == "io.bfq.weight" && directory.join("io.weight").exists() {
                for line in value.lines() {
                    write(directory, "io.weight", io_weight(line))?;
                }
                continue;
            }
            return Err(Error::Unsupported(format!(
                "the limit {file} cannot be set: the {controller} controller is not available in {}",
                directory.display()
            )));
        }
        // One line a write, for files that hold a line a device.
        for line in value.lines() {
            write(directory, &file, line)?;
        }
    }
    Ok(())
}

/// All control files to write, in order.
fn values(resources: &LinuxResources, warnings: &mut Vec<String>) -> Result<Vec<(String, String)>, Error> {
    let mut values: Vec<(String, String)> = Vec::new();
    let mut set = |file: &str, value: String| values.push((file.to_owned(), value));
    if let Some(cpu) = resources.cpu() {
        cpu_values(cpu, &mut set);
    }
    if let Some(memory) = resources.memory() {
        memory_values(memory, warnings, &mut set)?;
    }
    if let Some(pids) = resources.pids().as_ref().filter(|pids| pids.limit() != 0) {
        set("pids.max", max(pids.limit()));
    }
    if let Some(io) = resources.block_io() {
        if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
            set("io.bfq.weight", weight.to_string());
        }
        let mut devices: BTreeMap<(i64, i64), String> = BTreeMap::new();
        let throttles = [
            ("rbps", io.throttle_read_bps_device()),
            ("wbps", io.throttle_write_bps_device()),
            ("riops", io.throttle_read_iops_device()),
            ("wiops", io.throttle_write_iops_device()),
        ];
        for (key, list) in throttles {
            for device in list.iter().flatten() {
                let line = devices.entry((device.major(), device.minor())).or_default();
                line.push_str(&format!(" {key}={}", device.rate()));
            }
        }
        let lines: Vec<String> =
            devices.iter().map(|((major, minor), limits)| format!("{major}:{minor}{limits}")).collect();
        if !lines.is_empty() {
            set("io.max", lines.join("\n"));
        }
        if io.weight_device().as_ref().is_some_and(|devices| !devices.is_empty()) {
            let lines: Vec<String> = io
                .weight_device()
                .iter()
                .flatten()
                .filter_map(|d| d.weight().map(|weight| format!("{}:{} {weight}", d.major(), d.minor())))
                .collect();
            set("io.bfq.weight", lines.join("\n"));
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        set(&format!("hugetlb.{}.max", limit.page_size()), limit.limit().to_string());
    }
    for (file, value) in resources.unified().iter().flatten() {
        if file.contains('/') || file.starts_with("cgroup.") {
            return Err(Error::Spec(format!("{file} is no cgroup limit")));
        }
        set(file, value.clone());
    }
    Ok(values)
}

fn max(limit: i64) -> String {
    if limit < 0 { "max".into() } else { limit.to_string() }
}

fn cpu_values(cpu: &LinuxCpu, set: &mut impl FnMut(&str, String)) {
    if let Some(idle) = cpu.idle() {
        set("cpu.idle", idle.to_string());
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0)
        && cpu.idle() != Some(1)
    {
        set("cpu.weight", shares_to_weight(shares).to_string());
    }
    let (quota, period) = (cpu.quota().filter(|n| *n != 0), cpu.period().filter(|n| *n != 0));
    match (quota, period) {
        (None, None) => {}
        (quota, period) => {
            let quota = quota.map_or_else(|| "max".to_owned(), max);
            set("cpu.max", format!("{quota} {}", period.unwrap_or(100_000)));
        }
    }
    if let Some(burst) = cpu.burst() {
        set("cpu.max.burst", burst.to_string());
    }
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            set(file, value.to_owned());
        }
    }
}

fn memory_values(
    memory: &LinuxMemory,
    warnings: &mut Vec<String>,
    set: &mut impl FnMut(&str, String),
) -> Result<(), Error> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    // v1 counts memory and swap together, v2 swap alone.
    match (memory.swap().filter(|swap| *swap != 0), limit) {
        (None, _) => {}
        (Some(..0), _) => set("memory.swap.max", "max".into()),
        (Some(_), None | Some(..0)) => {
            return Err(Error::Spec("a limit of memory and swap together needs a limit of memory".into()));
        }
        (Some(swap), Some(limit)) if swap < limit => {
            return Err(Error::Spec("memory and swap together cannot be less than memory".into()));
        }
        (Some(swap), Some(limit)) => set("memory.swap.max", (swap - limit).to_string()),
    }
    if let Some(limit) = limit {
        set("memory.max", max(limit));
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        set("memory.low", max(reservation));
    }
    if memory.swappiness().is_some() {
        warnings.push("cgroup v2 has no swappiness; it has no effect".into());
    }
    if memory.disable_oom_killer() == Some(true) {
        warnings.push("cgroup v2 cannot disable the OOM killer; it stays enabled".into());
    }
    Ok(())
}

/// v1's 2–262144 (1024 where nothing is said) as v2's 1–10000 (100), on the logarithmic curve that the OCI runtimes agreed
/// on, where the two defaults meet.
fn shares_to_weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// A line for `io.weight` from one for `io.bfq.weight`: a weight, or a device and its weight, where 0 is its default.
fn io_weight(line: &str) -> String {
    let (device, weight) = line.rsplit_once(' ').map_or(("", line), |(device, weight)| (device, weight));
    let weight = match weight.parse() {
        Ok(0) | Err(_) => "default".to_owned(),
        Ok(weight) => bfq_to_weight(weight).to_string(),
    };
    format!("{device} {weight}").trim_start().to_owned()
}

/// 10–1000 as 1–10000.
fn bfq_to_weight(weight: u64) -> u64 {
    1 + weight.clamp(10, 1000).saturating_sub(10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(json: &str) -> Result<Vec<(String, String)>, Error> {
        values(&serde_json::from_str(json).unwrap(), &mut Vec::new())
    }

    #[test]
    fn converts_what_is_said_for_v1() {
        let of = |json: &str| -> Vec<String> {
            converted(json).unwrap().into_iter().map(|(file, value)| format!("{file}={value}")).collect()
        };
        assert_eq!(
            of(r#"{"memory":{"limit":100,"swap":300},"pids":{"limit":-1}}"#),
            ["memory.swap.max=200", "memory.max=100", "pids.max=max"]
        );
        assert_eq!(of(r#"{"cpu":{"quota":50000}}"#), ["cpu.max=50000 100000"]);
        assert_eq!(of(r#"{"cpu":{"shares":1024}}"#), ["cpu.weight=100"]);
        assert!(converted(r#"{"memory":{"limit":300,"swap":100}}"#).is_err());
        assert!(converted(r#"{"unified":{"../x":"1"}}"#).is_err());
        assert!(converted(r#"{"unified":{"cgroup.procs":"1"}}"#).is_err());
    }

    #[test]
    fn the_ends_and_the_defaults_of_shares_meet() {
        assert_eq!((shares_to_weight(2), shares_to_weight(1024), shares_to_weight(262_144)), (1, 100, 10_000));
        assert_eq!(
            (&*io_weight("1000"), &*io_weight("8:0 10"), &*io_weight("8:0 0")),
            ("10000", "8:0 1", "8:0 default")
        );
        assert_eq!((bfq_to_weight(10), bfq_to_weight(1000)), (1, 10_000));
    }
}
