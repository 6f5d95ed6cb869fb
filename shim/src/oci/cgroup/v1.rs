//! cgroup v1: one directory a hierarchy.

use std::{fs, path::Path};

use oci_spec::runtime::{LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::{Cgroup, Hierarchy, number, read, write};
use crate::oci::error::{Error, Step as _};

/// Makes the directory. In a cpuset nobody can live until it has processors and memory: they come from above.
pub(super) fn make(hierarchy: &Hierarchy) -> Result<(), Error> {
    let what = || format!("making {}", hierarchy.path.display());
    fs::create_dir_all(&hierarchy.path).step(what)?;
    if hierarchy.controllers.iter().any(|controller| controller == "cpuset") {
        let beneath = hierarchy.path.strip_prefix(&hierarchy.mount).step(what)?;
        let mut here = hierarchy.mount.clone();
        for name in beneath {
            let above = here.clone();
            here.push(name);
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if read(&here, file).is_some_and(|text| text.trim().is_empty()) {
                    write(&here, file, read(&above, file).unwrap_or_default().trim())?;
                }
            }
        }
    }
    Ok(())
}

/// Devices every container has whatever its list says, for a container without its own terminal or /dev/null is none.
const ALWAYS: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// Writes the device list, in its order.
pub(super) fn devices(cgroup: &Cgroup, rules: &[LinuxDeviceCgroup]) -> Result<(), Error> {
    let Some(directory) = cgroup.controller("devices") else { return Ok(()) };
    for rule in rules {
        let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
        write(directory, file, line(rule))?;
    }
    for rule in ALWAYS {
        write(directory, "devices.allow", rule)?;
    }
    Ok(())
}

/// A rule as the kernel reads it.
fn line(rule: &LinuxDeviceCgroup) -> String {
    let part = |number: Option<i64>| match number {
        None | Some(..0) => "*".to_owned(),
        Some(number) => number.to_string(),
    };
    let kind = rule.typ().unwrap_or_default();
    let access = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
    format!("{} {}:{} {access}", kind.as_str(), part(rule.major()), part(rule.minor()))
}

/// Writes limits.
pub(super) fn limit(cgroup: &Cgroup, resources: &LinuxResources, warnings: &mut Vec<String>) -> Result<(), Error> {
    // Processors before memory limits: a cpuset that cannot be had is the likelier failure.
    if let Some(cpu) = resources.cpu() {
        cpu_limits(cgroup, cpu)?;
    }
    if let Some(memory) = resources.memory() {
        memory_limits(cgroup, memory, warnings)?;
    }
    if let Some(pids) = resources.pids()
        && let Some(directory) = need(cgroup, "pids", pids.limit() != 0)?
    {
        match pids.limit() {
            0 => {}
            limit @ 1.. => write(directory, "pids.max", limit)?,
            _ => write(directory, "pids.max", "max")?,
        }
    }
    if let Some(blkio) = resources.block_io() {
        let directory = need(cgroup, "blkio", true)?;
        if let (Some(directory), Some(weight)) = (directory, blkio.weight().filter(|weight| *weight != 0)) {
            let bfq = directory.join("blkio.bfq.weight");
            if directory.join("blkio.weight").exists() {
                write(directory, "blkio.weight", weight)?;
            } else if bfq.exists() {
                write(directory, "blkio.bfq.weight", weight)?;
            } else {
                warnings.push("this kernel has no block I/O weights; the weight has no effect".into());
            }
        }
        for device in blkio.weight_device().iter().flatten() {
            let (Some(directory), Some(weight)) = (directory, device.weight()) else { continue };
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            let file = ["blkio.weight_device", "blkio.bfq.weight_device"];
            match file.into_iter().find(|file| directory.join(file).exists()) {
                Some(file) => write(directory, file, value)?,
                None => warnings.push("this kernel has no block I/O weights; a device's weight has no effect".into()),
            }
        }
        let throttles = [
            ("blkio.throttle.read_bps_device", blkio.throttle_read_bps_device()),
            ("blkio.throttle.write_bps_device", blkio.throttle_write_bps_device()),
            ("blkio.throttle.read_iops_device", blkio.throttle_read_iops_device()),
            ("blkio.throttle.write_iops_device", blkio.throttle_write_iops_device()),
        ];
        for (file, devices) in throttles {
            for device in devices.iter().flatten() {
                if let Some(directory) = directory {
                    write(directory, file, throttle(device))?;
                }
            }
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let directory = cgroup.controller("hugetlb");
        let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size());
        match directory.filter(|directory| directory.join(&file).exists()) {
            Some(directory) => write(directory, &file, limit.limit())?,
            // On a hybrid machine the controller may be in the v2 hierarchy.
            None if hybrid_hugetlb(cgroup, limit.page_size(), limit.limit()) => {}
            None => warnings.push(format!("this machine cannot limit huge pages of {}", limit.page_size())),
        }
    }
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(Error::Unsupported("limits in `unified` need cgroup v2, and this machine has v1".into()));
    }
    Ok(())
}

fn hybrid_hugetlb(cgroup: &Cgroup, size: &str, limit: i64) -> bool {
    let file = format!("hugetlb.{size}.max");
    cgroup.v2.as_ref().is_some_and(|directory| directory.join(&file).exists() && write(directory, &file, limit).is_ok())
}

fn throttle(device: &LinuxThrottleDevice) -> String {
    format!("{}:{} {}", device.major(), device.minor(), device.rate())
}

/// The controller's directory; an error where it is needed and not there.
fn need<'a>(cgroup: &'a Cgroup, controller: &str, needed: bool) -> Result<Option<&'a Path>, Error> {
    match cgroup.controller(controller) {
        None if needed => Err(Error::Unsupported(format!("this machine has no {controller} cgroup controller"))),
        directory => Ok(directory),
    }
}

fn cpu_limits(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<(), Error> {
    let bandwidth = cpu.shares().is_some_and(|n| n != 0) || cpu.quota().is_some_and(|n| n != 0);
    if let Some(directory) = need(cgroup, "cpu", bandwidth)? {
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            write(directory, "cpu.shares", shares)?;
        }
        if let Some(idle) = cpu.idle()
            && directory.join("cpu.idle").exists()
        {
            write(directory, "cpu.idle", idle)?;
        }
        let period = cpu.period().filter(|period| *period != 0);
        let quota = cpu.quota().filter(|quota| *quota != 0);
        // A quota that is too small for the old period, or a period too long for the old quota, is refused: what fails
        // first is tried again once the other is there.
        let first = period.map(|period| write(directory, "cpu.cfs_period_us", period));
        if let Some(quota) = quota {
            write(directory, "cpu.cfs_quota_us", quota)?;
        }
        if let (Some(Err(_)), Some(period)) = (first, period) {
            write(directory, "cpu.cfs_period_us", period)?;
        }
        if let Some(burst) = cpu.burst() {
            write(directory, "cpu.cfs_burst_us", burst)?;
        }
        if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
            write(directory, "cpu.rt_period_us", period)?;
        }
        if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
            write(directory, "cpu.rt_runtime_us", runtime).step(|| {
                "giving the container real-time CPU time (the cgroup above it needs some in cpu.rt_runtime_us first)"
                    .to_owned()
            })?;
        }
    }
    for (file, set) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(set) = set.as_deref().filter(|set| !set.is_empty())
            && let Some(directory) = need(cgroup, "cpuset", true)?
        {
            write(directory, file, set)?;
        }
    }
    Ok(())
}

fn memory_limits(cgroup: &Cgroup, memory: &LinuxMemory, warnings: &mut Vec<String>) -> Result<(), Error> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    let swap = memory.swap().filter(|swap| *swap != 0);
    let Some(directory) = need(cgroup, "memory", limit.is_some() || swap.is_some())? else { return Ok(()) };
    const LIMIT: &str = "memory.limit_in_bytes";
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    let has_swap = directory.join(SWAP).exists();
    if swap.is_some_and(|swap| swap > 0) && !has_swap {
        warnings.push("this kernel does not account swap; the swap limit has no effect".into());
    }
    let swap = swap.filter(|_| has_swap);
    // Memory with swap is never less than memory: whichever grows is written first.
    let grows = |new: i64, now: Option<u64>| new < 0 || now.is_some_and(|now| new as u64 > now);
    match (limit, swap) {
        (Some(limit), Some(swap)) if grows(swap, number(directory, SWAP)) => {
            write(directory, SWAP, swap)?;
            write(directory, LIMIT, limit)?;
        }
        (limit, swap) => {
            // Taking memory away from its user below what it has is the user's own wish.
            if let Some(limit) = limit {
                write(directory, LIMIT, limit)?;
            }
            if let Some(swap) = swap {
                write(directory, SWAP, swap)?;
            }
        }
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        write(directory, "memory.soft_limit_in_bytes", reservation)?;
    }
    if let Some(limit) = memory.kernel_tcp().filter(|limit| *limit != 0) {
        if directory.join("memory.kmem.tcp.limit_in_bytes").exists() {
            write(directory, "memory.kmem.tcp.limit_in_bytes", limit)?;
        } else {
            warnings.push("this kernel does not limit TCP memory".into());
        }
    }
    if let Some(swappiness) = memory.swappiness() {
        write(directory, "memory.swappiness", swappiness)?;
    }
    if memory.disable_oom_killer() == Some(true) {
        write(directory, "memory.oom_control", 1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_rules_as_the_kernel_reads_them() {
        let rule = |json: &str| line(&serde_json::from_str(json).unwrap());
        assert_eq!(rule(r#"{"allow":false,"access":"rwm"}"#), "a *:* rwm");
        assert_eq!(rule(r#"{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}"#), "c 1:3 rw");
        assert_eq!(rule(r#"{"allow":true,"type":"b","major":-1,"minor":-1}"#), "b *:* rwm");
    }
}
