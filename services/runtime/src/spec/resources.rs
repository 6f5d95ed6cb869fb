//! Limits: what can be refused of them, and what the cgroup is told.

use berth_proto::berth::runtime::v1::Resources;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::{
    Error, block_io,
    host::{Host, Set},
};

/// Less, and nothing starts.
const LEAST_MEMORY: i64 = 6 << 20;
/// Microseconds over which a share of CPU time is counted.
const PERIOD: u64 = 100_000;

/// Refuses limits that cannot be meant; answers with warnings about those that this machine cannot keep.
pub(super) fn check(asked: &Resources, host: &Host) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    memory(asked, host, &mut warnings)?;
    cpu(asked, host)?;
    real_time(asked, host)?;
    warnings.extend(block_io::check(asked, host)?);
    if asked.pids_limit < -1 {
        return Err(Error::invalid(format!("invalid pids limit: {}; -1 means none", asked.pids_limit)));
    }
    Ok(warnings)
}

fn memory(asked: &Resources, host: &Host, warnings: &mut Vec<String>) -> Result<(), Error> {
    let refuse = |text: &str| Err(Error::invalid(text));
    if asked.memory != 0 && asked.memory < LEAST_MEMORY {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if asked.memory_swap < -1 {
        return refuse("invalid memory swap limit: -1 means none");
    }
    if asked.memory == 0 && asked.memory_swap > 0 {
        return refuse("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if asked.memory_swap > 0 && asked.memory_swap < asked.memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if asked.memory > 0 && asked.memory_swap >= 0 && !host.swap_limit {
        warnings.push(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without \
             swap."
                .into(),
        );
    }
    if asked.memory_reservation != 0 && asked.memory_reservation < LEAST_MEMORY {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if asked.memory > 0 && asked.memory < asked.memory_reservation {
        return refuse("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    match asked.memory_swappiness {
        None | Some(-1) => {}
        Some(swappiness) if !(0..=100).contains(&swappiness) => {
            return Err(Error::invalid(format!("Invalid value: {swappiness}, valid memory swappiness range is 0-100")));
        }
        Some(_) if host.cgroup2 => warnings.push(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory \
             swappiness discarded."
                .into(),
        ),
        Some(_) => {}
    }
    if asked.oom_kill_disable {
        if host.cgroup2 {
            warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.".into());
        } else if asked.memory == 0 {
            warnings.push(
                "OOM killer is disabled for the container, but no memory limit is set, this can result in the system \
                 running out of resources."
                    .into(),
            );
        }
    }
    Ok(())
}

fn cpu(asked: &Resources, host: &Host) -> Result<(), Error> {
    let refuse = |text: &str| Err(Error::invalid(text));
    if asked.nano_cpus != 0 {
        if asked.cpu_period > 0 {
            return refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set.");
        }
        if asked.cpu_quota > 0 {
            return refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set.");
        }
        let cpus = host.cpus.len() as i64;
        if asked.nano_cpus < 10_000_000 || asked.nano_cpus > cpus * 1_000_000_000 {
            return Err(Error::invalid(format!(
                "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            )));
        }
    }
    if asked.cpu_period != 0 && !(1000..=1_000_000).contains(&asked.cpu_period) {
        return refuse("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if asked.cpu_quota > 0 && asked.cpu_quota < 1000 || asked.cpu_quota < -1 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    set(&asked.cpuset_cpus, &host.cpus, "cpus", "CPUs")?;
    set(&asked.cpuset_mems, &host.memory_nodes, "mems", "memory nodes")
}

fn real_time(asked: &Resources, host: &Host) -> Result<(), Error> {
    let (period, runtime) = (asked.cpu_rt_period, asked.cpu_rt_runtime);
    if period < 0 || runtime < 0 {
        return Err(Error::invalid("CPU real-time period and runtime are microseconds, not below 0"));
    }
    if (period > 0 || runtime > 0) && !host.cpu_real_time {
        return Err(Error::invalid("Your kernel does not support CPU real-time scheduler"));
    }
    // The kernel's own period, where none is given, is a second.
    let period = if period == 0 { 1_000_000 } else { period };
    if runtime > period {
        return Err(Error::invalid("cpu real-time runtime cannot be higher than cpu real-time period"));
    }
    Ok(())
}

fn set(wanted: &str, there: &Set, kind: &str, what: &str) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    let set = Set::parse(wanted).ok_or_else(|| Error::invalid(format!("Invalid value {wanted} for cpuset {kind}")))?;
    if there.holds(&set) {
        return Ok(());
    }
    Err(Error::invalid(format!("Requested {what} are not available - requested {wanted}, available: {there}")))
}

/// What the cgroup is told. What [`check`] warned of is left out.
///
/// # Errors
/// A device is not there.
pub(super) fn of(asked: &Resources, host: &Host) -> Result<LinuxResources, Error> {
    let mut resources = LinuxResources::default();
    resources.set_memory(memory_of(asked, host)).set_cpu(cpu_of(asked)).set_block_io(block_io::of(asked, host)?);
    if asked.pids_limit != 0 {
        let mut pids = LinuxPids::default();
        pids.set_limit(asked.pids_limit);
        resources.set_pids(Some(pids));
    }
    Ok(resources)
}

fn memory_of(asked: &Resources, host: &Host) -> Option<LinuxMemory> {
    let positive = |n: i64| Some(n).filter(|n| *n > 0);
    let mut memory = LinuxMemory::default();
    memory.set_limit(positive(asked.memory)).set_reservation(positive(asked.memory_reservation));
    if asked.memory > 0 && host.swap_limit {
        let swap = if asked.memory_swap == 0 { asked.memory.saturating_mul(2) } else { asked.memory_swap };
        memory.set_swap(Some(swap));
    }
    if !host.cgroup2 {
        memory.set_swappiness(asked.memory_swappiness.and_then(|swappiness| u64::try_from(swappiness).ok()));
        memory.set_disable_oom_killer(Some(true).filter(|_| asked.oom_kill_disable));
    }
    Some(memory).filter(|memory| *memory != LinuxMemory::default())
}

fn cpu_of(asked: &Resources) -> Option<LinuxCpu> {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(Some(asked.cpu_shares).filter(|shares| *shares > 0));
    if asked.nano_cpus > 0 {
        let quota = i128::from(asked.nano_cpus) * i128::from(PERIOD) / 1_000_000_000;
        cpu.set_period(Some(PERIOD)).set_quota(i64::try_from(quota).ok());
    } else {
        cpu.set_period(Some(asked.cpu_period).filter(|period| *period > 0));
        cpu.set_quota(Some(asked.cpu_quota).filter(|quota| *quota != 0));
    }
    let positive = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
    cpu.set_realtime_period(positive(asked.cpu_rt_period));
    cpu.set_realtime_runtime(Some(asked.cpu_rt_runtime).filter(|n| *n > 0));
    cpu.set_cpus(Some(asked.cpuset_cpus.clone()).filter(|cpus| !cpus.is_empty()));
    cpu.set_mems(Some(asked.cpuset_mems.clone()).filter(|mems| !mems.is_empty()));
    Some(cpu).filter(|cpu| *cpu != LinuxCpu::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;

    fn refusal(asked: &Resources) -> String {
        check(asked, &Host::whole(false)).unwrap_err().to_string()
    }

    #[test]
    fn dockers_refusals() {
        let none = Resources::default();
        for (asked, text) in [
            (Resources { memory: 1024, ..none.clone() }, "Minimum memory limit allowed is 6MB"),
            (Resources { memory: -1, ..none.clone() }, "Minimum memory limit allowed is 6MB"),
            (Resources { memory_swap: 64 * MIB, ..none.clone() }, "You should always set the Memory limit"),
            (
                Resources { memory: 64 * MIB, memory_swap: 32 * MIB, ..none.clone() },
                "Minimum memoryswap limit should be larger",
            ),
            (Resources { memory_reservation: 1, ..none.clone() }, "Minimum memory reservation allowed is 6MB"),
            (
                Resources { memory: 8 * MIB, memory_reservation: 9 * MIB, ..none.clone() },
                "can not be less than memory reservation",
            ),
            (Resources { memory_swappiness: Some(101), ..none.clone() }, "Invalid value: 101"),
            (
                Resources { nano_cpus: 5_000_000_000, ..none.clone() },
                "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available",
            ),
            (Resources { nano_cpus: -1, ..none.clone() }, "range of CPUs"),
            (Resources { nano_cpus: 1_000_000_000, cpu_quota: 5000, ..none.clone() }, "Conflicting options"),
            (Resources { cpu_period: 10, ..none.clone() }, "CPU cfs period"),
            (Resources { cpu_quota: 10, ..none.clone() }, "CPU cfs quota"),
            (Resources { cpuset_cpus: "0-9".into(), ..none.clone() }, "requested 0-9, available: 0-3"),
            (Resources { cpuset_mems: "x".into(), ..none.clone() }, "Invalid value x for cpuset mems"),
            (Resources { blkio_weight: 5, ..none.clone() }, "Range of blkio weight"),
            (Resources { pids_limit: -2, ..none.clone() }, "pids limit"),
        ] {
            assert!(refusal(&asked).contains(text), "{asked:?}: {}", refusal(&asked));
        }
        assert!(check(&none, &Host::whole(true)).unwrap().is_empty());
    }

    #[test]
    fn what_the_machine_cannot_keep_is_told_and_left_out() {
        let asked = Resources { oom_kill_disable: true, memory_swappiness: Some(10), ..Resources::default() };
        assert_eq!(check(&asked, &Host::whole(true)).unwrap().len(), 2);
        assert_eq!(of(&asked, &Host::whole(true)).unwrap().memory(), &None);
        assert_eq!(check(&asked, &Host::whole(false)).unwrap().len(), 1);
        let memory = of(&asked, &Host::whole(false)).unwrap().memory().unwrap();
        assert_eq!((memory.disable_oom_killer(), memory.swappiness()), (Some(true), Some(10)));
        let mut host = Host::whole(false);
        host.swap_limit = false;
        let asked = Resources { memory: 64 * MIB, ..Resources::default() };
        assert!(check(&asked, &host).unwrap()[0].contains("Memory limited without swap"));
        assert_eq!(of(&asked, &host).unwrap().memory().unwrap().swap(), None);
    }

    #[test]
    fn the_cgroup_is_told() {
        let asked = Resources {
            memory: 64 * MIB,
            nano_cpus: 500_000_000,
            pids_limit: 7,
            cpu_shares: 512,
            cpuset_cpus: "0".into(),
            blkio_weight: 300,
            ..Resources::default()
        };
        let resources = of(&asked, &Host::whole(false)).unwrap();
        let memory = resources.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 * MIB), Some(128 * MIB)));
        let cpu = resources.cpu().clone().unwrap();
        assert_eq!((cpu.quota(), cpu.period(), cpu.shares()), (Some(50_000), Some(100_000), Some(512)));
        assert_eq!(cpu.cpus().as_deref(), Some("0"));
        assert_eq!(resources.pids().unwrap().limit(), 7);
        assert_eq!(resources.block_io().clone().unwrap().weight(), Some(300));
        let none = of(&Resources { pids_limit: -1, ..Resources::default() }, &Host::whole(true)).unwrap();
        assert_eq!(none.pids().unwrap().limit(), -1, "an update takes a limit away by this");
    }
}
