//! What containers use. A sample counts from the start; a rate takes two of them.

use std::{collections::HashMap, fs, sync::Arc, time::Instant};

use containerd_shim_protos::{cgroups::metrics as v1, cgroups_v2::metrics as v2, protobuf::Message as _};
use futures::{StreamExt as _, stream};

use crate::{
    container::{
        containers::Containers,
        list::Wanted,
        live::Container,
        record::{Record, Time},
    },
    error::{Error, Result},
    shims::Failure,
};

/// Shims that are asked at the same time.
const ABREAST: usize = 64;

/// Whose statistics are wanted.
#[derive(Clone, Debug)]
pub(crate) enum Whose {
    /// These, in this order, whether they run or not.
    Named(Vec<Arc<Container>>),
    /// Those that run, newest first.
    Running,
    /// All of them, newest first.
    All,
}

/// What a container has used since it was started. All is 0 where it does not run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) running: bool,
    /// Nanoseconds.
    pub(crate) cpu: u64,
    /// Of one CPU, since the sample before.
    pub(crate) cpu_percent: f64,
    /// Bytes, without the page cache that nobody has used lately.
    pub(crate) memory: u64,
    pub(crate) memory_limit: u64,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) read: u64,
    pub(crate) written: u64,
    pub(crate) pids: u64,
    /// 0 for none.
    pub(crate) pids_limit: u64,
}

/// One container at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) record: Arc<Record>,
    pub(crate) at: Time,
    pub(crate) usage: Usage,
}

/// Takes samples, and knows the last ones.
#[derive(Debug)]
pub(crate) struct Sampler {
    containers: Arc<Containers>,
    whose: Whose,
    /// Bytes of the machine.
    memory: u64,
    before: HashMap<String, (Instant, u64)>,
}

impl Sampler {
    pub(crate) fn new(containers: &Arc<Containers>, whose: Whose) -> Self {
        let memory = crate::host::Host::look().memory;
        Self { containers: Arc::clone(containers), whose, memory, before: HashMap::new() }
    }

    /// The next sample of all that are wanted.
    pub(crate) async fn next(&mut self) -> Result<Vec<Sample>> {
        let wanted = match &self.whose {
            Whose::Named(containers) => containers.clone(),
            Whose::Running => self.containers.list(&Wanted::default())?,
            Whose::All => self.containers.list(&Wanted { all: true, ..Wanted::default() })?,
        };
        let memory = self.memory;
        let looks: Vec<_> = stream::iter(wanted)
            .map(|container| async move {
                let usage = look(&container, memory).await;
                (container, Instant::now(), usage)
            })
            .buffered(ABREAST)
            .collect()
            .await;
        let mut before = std::mem::take(&mut self.before);
        let mut samples = Vec::with_capacity(looks.len());
        for (container, now, mut usage) in looks {
            if let Some((then, cpu)) = before.remove(&container.id) {
                usage.cpu_percent = percent(cpu, usage.cpu, now.duration_since(then).as_nanos());
            }
            if usage.running {
                self.before.insert(container.id.clone(), (now, usage.cpu));
            }
            samples.push(Sample { record: container.record(), at: Time::now(), usage });
        }
        Ok(samples)
    }
}

fn percent(before: u64, now: u64, nanoseconds: u128) -> f64 {
    // A restart counts from nothing again.
    if nanoseconds == 0 { 0.0 } else { now.saturating_sub(before) as f64 / nanoseconds as f64 * 100.0 }
}

async fn look(container: &Container, memory: u64) -> Usage {
    let live = container.now();
    let Some(task) = live.task.filter(|_| live.record.state.status.is_live()) else { return Usage::default() };
    let mut usage = match task.stats().await.map_err(Error::from).and_then(|stats| read(&stats)) {
        Ok(usage) => usage,
        Err(error) => {
            // It ended just now, as the next sample will show.
            tracing::debug!(id = container.id, %error, "a container's statistics cannot be had");
            return Usage::default();
        }
    };
    usage.running = true;
    usage.memory_limit = usage.memory_limit.min(memory);
    if live.record.spec.network_mode != "host" {
        let counters = fs::read_to_string(format!("/proc/{}/net/dev", live.record.state.pid)).unwrap_or_default();
        (usage.received, usage.sent) = interfaces(&counters);
    }
    usage
}

fn read(stats: &containerd_shim_protos::protobuf::well_known_types::any::Any) -> Result<Usage> {
    let unreadable =
        |error| Error::from(Failure::new(crate::shims::Reason::Internal, format!("unreadable statistics: {error}")));
    if stats.type_url.ends_with("v2.Metrics") {
        v2::Metrics::parse_from_bytes(&stats.value).map(|metrics| from_v2(&metrics)).map_err(unreadable)
    } else {
        v1::Metrics::parse_from_bytes(&stats.value).map(|metrics| from_v1(&metrics)).map_err(unreadable)
    }
}

fn from_v1(metrics: &v1::Metrics) -> Usage {
    let memory = metrics.memory();
    let blocks = |op: &str| {
        let entries = metrics.blkio().io_service_bytes_recursive.iter();
        entries.filter(|entry| entry.op.eq_ignore_ascii_case(op)).map(|entry| entry.value).sum()
    };
    Usage {
        cpu: metrics.cpu().usage().total,
        memory: memory.usage().usage.saturating_sub(memory.total_inactive_file),
        memory_limit: limit(memory.usage().limit),
        read: blocks("read"),
        written: blocks("write"),
        pids: metrics.pids().current,
        pids_limit: metrics.pids().limit,
        ..Usage::default()
    }
}

fn from_v2(metrics: &v2::Metrics) -> Usage {
    let memory = metrics.memory();
    Usage {
        cpu: metrics.cpu().usage_usec * 1000,
        memory: memory.usage.saturating_sub(memory.inactive_file),
        memory_limit: limit(memory.usage_limit),
        read: metrics.io().usage.iter().map(|entry| entry.rbytes).sum(),
        written: metrics.io().usage.iter().map(|entry| entry.wbytes).sum(),
        pids: metrics.pids().current,
        pids_limit: metrics.pids().limit,
        ..Usage::default()
    }
}

fn limit(bytes: u64) -> u64 {
    if bytes == 0 { u64::MAX } else { bytes }
}

/// Bytes received and sent over all interfaces but the loopback, from `/proc/PID/net/dev`.
fn interfaces(counters: &str) -> (u64, u64) {
    let lines = counters.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    let counts = lines.filter_map(|(_, counts)| {
        let numbers: Vec<u64> = counts.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        Some((*numbers.first()?, *numbers.get(8)?))
    });
    counts.fold((0, 0), |(received, sent), (r, s)| (received + r, sent + s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_the_kernel() {
        let text = "Inter-|   Receive                            |  Transmit\n face |bytes packets errs drop fifo frame \
                    compressed multicast|bytes packets\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 1200 10 0 0 0 \
                    0 0 0 340 4 0 0 0 0 0 0\n";
        assert_eq!(interfaces(text), (1200, 340));
        assert_eq!(interfaces(""), (0, 0));
    }

    #[test]
    fn rates() {
        assert_eq!(percent(1_000, 501_000, 1_000_000), 50.0);
        assert_eq!(percent(5_000, 1_000, 1_000_000), 0.0);
        assert_eq!(percent(1, 2, 0), 0.0);
    }
}
