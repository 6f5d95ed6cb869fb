//! What the container uses, as containerd's metrics of cgroups v1 or v2.

use containerd_shim_protos::{
    cgroups::metrics as v1,
    cgroups_v2::metrics as v2,
    protobuf::{MessageFull, well_known_types::any::Any},
};

use crate::{
    error::{During as _, Error},
    oci::Stats,
    shim::Shim,
};

impl Shim {
    /// In the shape of the cgroups that there are.
    pub(crate) fn metrics(&self) -> Result<Any, Error> {
        let (stats, is_v2) =
            self.with_container(|engine, container| Ok((engine.stats(container)?, container.cgroup.is_v2())))?;
        if is_v2 { pack(&as_v2(&stats)) } else { pack(&as_v1(&stats)) }
    }
}

fn pack<M: MessageFull>(message: &M) -> Result<Any, Error> {
    let value = message.write_to_bytes().during(|| "packing the metrics")?;
    Ok(Any { type_url: M::descriptor().full_name().to_owned(), value, ..Any::default() })
}

fn as_v1(stats: &Stats) -> v1::Metrics {
    let mut metrics = v1::Metrics::new();
    let cpu = metrics.mut_cpu();
    let usage = cpu.mut_usage();
    (usage.total, usage.user, usage.kernel) = (stats.cpu.total, stats.cpu.user, stats.cpu.kernel);
    usage.per_cpu.clone_from(&stats.cpu.per_cpu);
    let (throttling, seen) = (cpu.mut_throttling(), &stats.cpu.throttling);
    throttling.periods = seen.periods;
    throttling.throttled_periods = seen.throttled_periods;
    throttling.throttled_time = seen.throttled_time;
    let detail = |key: &str| stats.memory.detail.get(key).copied().unwrap_or(0);
    let memory = metrics.mut_memory();
    memory.cache = detail("cache");
    memory.rss = detail("rss");
    memory.rss_huge = detail("rss_huge");
    memory.mapped_file = detail("mapped_file");
    memory.dirty = detail("dirty");
    memory.writeback = detail("writeback");
    memory.pg_pg_in = detail("pgpgin");
    memory.pg_pg_out = detail("pgpgout");
    memory.pg_fault = detail("pgfault");
    memory.pg_maj_fault = detail("pgmajfault");
    memory.inactive_anon = detail("inactive_anon");
    memory.active_anon = detail("active_anon");
    memory.inactive_file = detail("inactive_file");
    memory.active_file = detail("active_file");
    memory.unevictable = detail("unevictable");
    memory.hierarchical_memory_limit = detail("hierarchical_memory_limit");
    memory.hierarchical_swap_limit = detail("hierarchical_memsw_limit");
    memory.total_cache = detail("total_cache");
    memory.total_rss = detail("total_rss");
    memory.total_rss_huge = detail("total_rss_huge");
    memory.total_mapped_file = detail("total_mapped_file");
    memory.total_dirty = detail("total_dirty");
    memory.total_writeback = detail("total_writeback");
    memory.total_pg_pg_in = detail("total_pgpgin");
    memory.total_pg_pg_out = detail("total_pgpgout");
    memory.total_pg_fault = detail("total_pgfault");
    memory.total_pg_maj_fault = detail("total_pgmajfault");
    memory.total_inactive_anon = detail("total_inactive_anon");
    memory.total_active_anon = detail("total_active_anon");
    memory.total_inactive_file = detail("total_inactive_file");
    memory.total_active_file = detail("total_active_file");
    memory.total_unevictable = detail("total_unevictable");
    let usage = memory.mut_usage();
    (usage.usage, usage.max) = (stats.memory.usage, stats.memory.max_usage);
    (usage.limit, usage.failcnt) = (stats.memory.limit, stats.memory.failures);
    let swap = memory.mut_swap();
    (swap.usage, swap.limit) = (stats.memory.swap_usage, stats.memory.swap_limit);
    memory.mut_kernel().usage = stats.memory.kernel_usage;
    metrics.mut_memory_oom_control().oom_kill = stats.memory.oom_kills;
    let pids = metrics.mut_pids();
    (pids.current, pids.limit) = (stats.pids.current, stats.pids.limit);
    let blkio = metrics.mut_blkio();
    for device in &stats.blkio {
        let entry = |op: &str, value| v1::BlkIOEntry {
            op: op.to_owned(),
            major: device.major,
            minor: device.minor,
            value,
            ..Default::default()
        };
        blkio.io_service_bytes_recursive.push(entry("Read", device.read_bytes));
        blkio.io_service_bytes_recursive.push(entry("Write", device.write_bytes));
        blkio.io_serviced_recursive.push(entry("Read", device.reads));
        blkio.io_serviced_recursive.push(entry("Write", device.writes));
    }
    for pages in &stats.hugetlb {
        metrics.hugetlb.push(v1::HugetlbStat {
            usage: pages.usage,
            max: pages.max,
            failcnt: pages.failures,
            pagesize: pages.page_size.clone(),
            ..Default::default()
        });
    }
    metrics
}

fn as_v2(stats: &Stats) -> v2::Metrics {
    let mut metrics = v2::Metrics::new();
    let cpu = metrics.mut_cpu();
    // Microseconds, as the kernel has them.
    cpu.usage_usec = stats.cpu.total / 1000;
    cpu.user_usec = stats.cpu.user / 1000;
    cpu.system_usec = stats.cpu.kernel / 1000;
    cpu.nr_periods = stats.cpu.throttling.periods;
    cpu.nr_throttled = stats.cpu.throttling.throttled_periods;
    cpu.throttled_usec = stats.cpu.throttling.throttled_time / 1000;
    let detail = |key: &str| stats.memory.detail.get(key).copied().unwrap_or(0);
    let memory = metrics.mut_memory();
    memory.anon = detail("anon");
    memory.file = detail("file");
    memory.kernel_stack = detail("kernel_stack");
    memory.slab = detail("slab");
    memory.sock = detail("sock");
    memory.shmem = detail("shmem");
    memory.file_mapped = detail("file_mapped");
    memory.file_dirty = detail("file_dirty");
    memory.file_writeback = detail("file_writeback");
    memory.anon_thp = detail("anon_thp");
    memory.inactive_anon = detail("inactive_anon");
    memory.active_anon = detail("active_anon");
    memory.inactive_file = detail("inactive_file");
    memory.active_file = detail("active_file");
    memory.unevictable = detail("unevictable");
    memory.slab_reclaimable = detail("slab_reclaimable");
    memory.slab_unreclaimable = detail("slab_unreclaimable");
    memory.pgfault = detail("pgfault");
    memory.pgmajfault = detail("pgmajfault");
    memory.usage = stats.memory.usage;
    memory.usage_limit = stats.memory.limit;
    memory.swap_usage = stats.memory.swap_usage;
    memory.swap_limit = stats.memory.swap_limit;
    let events = metrics.mut_memory_events();
    (events.oom_kill, events.max) = (stats.memory.oom_kills, stats.memory.failures);
    let pids = metrics.mut_pids();
    (pids.current, pids.limit) = (stats.pids.current, stats.pids.limit);
    let io = metrics.mut_io();
    for device in &stats.blkio {
        io.usage.push(v2::IOEntry {
            major: device.major,
            minor: device.minor,
            rbytes: device.read_bytes,
            wbytes: device.write_bytes,
            rios: device.reads,
            wios: device.writes,
            ..Default::default()
        });
    }
    for pages in &stats.hugetlb {
        metrics.hugetlb.push(v2::HugeTlbStat {
            current: pages.usage,
            max: pages.max,
            pagesize: pages.page_size.clone(),
            failcnt: pages.failures,
            ..Default::default()
        });
    }
    metrics
}
