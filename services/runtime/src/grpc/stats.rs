//! `Containers.Stats`.

use std::{sync::Arc, time::Duration};

use berth_proto::berth::runtime::v1::{ContainerStats, StatsRequest, StatsResponse};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Answers, status};
use crate::{
    container::{Containers, Sample, Sampler, Whose},
    error::Result,
};

/// Between two samples.
const PERIOD: Duration = Duration::from_secs(1);
/// Between the first two, of which the first is only what the second is compared with.
const FIRST: Duration = Duration::from_millis(250);

pub(super) fn stats(containers: &Arc<Containers>, request: StatsRequest) -> Result<Answers<StatsResponse>, Status> {
    let StatsRequest { containers: names, all, stream } = request;
    let whose = match (names.is_empty(), all) {
        (true, true) => Whose::All,
        (true, false) => Whose::Running,
        (false, _) => {
            let named: Result<_> = names.iter().map(|name| containers.find(name)).collect();
            Whose::Named(named.map_err(status)?)
        }
    };
    let mut sampler = Sampler::new(containers, whose);
    // One sample waits at most: who reads slowly sees fewer.
    let (answers, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        if let Err(error) = sampler.next().await {
            let _ = answers.send(Err(status(error))).await;
            return;
        }
        sleep(FIRST).await;
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = answers.closed() => return,
            }
            let sample = sampler.next().await.map(message).map_err(status);
            let over = sample.is_err() || !stream;
            if answers.send(sample).await.is_err() || over {
                return;
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

fn message(samples: Vec<Sample>) -> StatsResponse {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let one = |Sample { record, at, usage }: Sample| ContainerStats {
        id: record.id.clone(),
        name: record.name.clone(),
        time: at.rfc3339(),
        cpu_total: usage.cpu,
        cpu_percent: usage.cpu_percent,
        online_cpus: cpus,
        memory_usage: usage.memory,
        memory_limit: usage.memory_limit,
        network_received: usage.received,
        network_sent: usage.sent,
        block_read: usage.read,
        block_written: usage.written,
        pids: usage.pids,
        pids_limit: usage.pids_limit,
        running: usage.running,
    };
    StatsResponse { containers: samples.into_iter().map(one).collect() }
}
