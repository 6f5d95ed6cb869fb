//! Limits that change after the container was made.

use berth_proto::berth::runtime::v1::Resources;

use super::{Error, host::Host, resources};

/// What the limits are after a change, in which 0 and "" leave things as they are; with warnings.
///
/// # Errors
/// The change cannot be meant, or contradicts what stays.
pub(crate) fn update(now: &Resources, change: &Resources) -> Result<(Resources, Vec<String>), Error> {
    update_on(now, change, &Host::look())
}

fn update_on(now: &Resources, change: &Resources, host: &Host) -> Result<(Resources, Vec<String>), Error> {
    let refuse = |text: &str| Err(Error::invalid(text));
    let percents = change.cpu_period > 0 || change.cpu_quota != 0;
    if change.nano_cpus > 0 && (now.cpu_period > 0 || now.cpu_quota != 0) {
        return refuse(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period or CPU Quota has already been set",
        );
    }
    if percents && now.nano_cpus > 0 && change.nano_cpus == 0 {
        return refuse(
            "Conflicting options: CPU Period and CPU Quota cannot be updated as NanoCPUs has already been set",
        );
    }
    if change.memory > 0 && change.memory_swap == 0 && now.memory_swap > 0 && change.memory > now.memory_swap {
        return refuse(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        );
    }
    let mut merged = now.clone();
    let number = |new: i64, old: &mut i64| *old = if new == 0 { *old } else { new };
    number(change.memory, &mut merged.memory);
    number(change.memory_reservation, &mut merged.memory_reservation);
    number(change.memory_swap, &mut merged.memory_swap);
    number(change.nano_cpus, &mut merged.nano_cpus);
    number(change.cpu_quota, &mut merged.cpu_quota);
    number(change.pids_limit, &mut merged.pids_limit);
    number(change.cpu_rt_period, &mut merged.cpu_rt_period);
    number(change.cpu_rt_runtime, &mut merged.cpu_rt_runtime);
    if change.cpu_shares > 0 {
        merged.cpu_shares = change.cpu_shares;
    }
    if change.cpu_period > 0 {
        merged.cpu_period = change.cpu_period;
    }
    if change.blkio_weight > 0 {
        merged.blkio_weight = change.blkio_weight;
    }
    for (new, old) in [(&change.cpuset_cpus, &mut merged.cpuset_cpus), (&change.cpuset_mems, &mut merged.cpuset_mems)] {
        if !new.is_empty() {
            old.clone_from(new);
        }
    }
    let warnings = resources::check(&merged, host)?;
    Ok((merged, warnings))
}

/// The limits as an OCI runtime takes them for a container that runs, as JSON.
///
/// # Errors
/// They cannot be written down.
pub(crate) fn limits(resources: &Resources) -> Result<Vec<u8>, Error> {
    let mut limits = resources::of(resources, &Host::look())?;
    if let Some(memory) = limits.memory_mut() {
        // Set once and for all, when the container was made.
        memory.set_swappiness(None).set_disable_oom_killer(None);
    }
    serde_json::to_vec(&limits).map_err(|e| Error::invalid(format!("the limits cannot be written down: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;

    fn after(now: &Resources, change: &Resources) -> Result<Resources, String> {
        update_on(now, change, &Host::whole(false)).map(|(merged, _)| merged).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_named_stays() {
        let now = Resources { memory: 64 * MIB, cpu_shares: 10, cpuset_cpus: "0".into(), ..Resources::default() };
        let merged = after(&now, &Resources { pids_limit: 9, cpu_shares: 20, ..Resources::default() }).unwrap();
        assert_eq!(merged, Resources { pids_limit: 9, cpu_shares: 20, ..now.clone() });
        let merged = after(&now, &Resources { memory: 512 * MIB, ..Resources::default() }).unwrap();
        assert_eq!((merged.memory, merged.memory_swap), (512 * MIB, 0), "swap follows, where nobody set it");
    }

    #[test]
    fn what_contradicts_what_stays_is_refused() {
        let none = Resources::default();
        let nano = Resources { nano_cpus: 500_000_000, ..none.clone() };
        let quota = Resources { cpu_quota: 5000, ..none.clone() };
        assert!(after(&quota, &nano).unwrap_err().contains("Conflicting options"));
        assert!(after(&nano, &quota).unwrap_err().contains("Conflicting options"));
        let small = Resources { memory: 64 * MIB, memory_swap: 64 * MIB, ..none.clone() };
        let large = Resources { memory: 128 * MIB, ..none.clone() };
        assert!(after(&small, &large).unwrap_err().contains("update the memoryswap at the same time"));
        assert!(after(&small, &Resources { memory: 1, ..none }).unwrap_err().contains("Minimum memory limit"));
    }
}
