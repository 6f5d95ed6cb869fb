//! `update`: other limits, or another restart policy, for containers that are there.

use std::io::Write as _;

use berth_proto::berth::runtime::v1::UpdateRequest;
use clap::Arg;

use super::each::each;
use crate::{
    args::{Completes, Entry, Given, flag::value},
    client::Client,
    outcome::Error,
    spec,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["update", "container update"],
    about: "Change limits or the restart policy of one or more containers",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    operands: (1, usize::MAX),
    completes: Completes::Containers,
    flags,
    run: |client, given| Box::pin(update(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        value("blkio-weight", "uint16", "Weight of block I/O (10 to 1000)"),
        value("cpu-period", "int", "Microseconds of a scheduling period"),
        value("cpu-quota", "int", "Microseconds of CPU time in a period"),
        value("cpu-shares", "int", "Weight of CPU time").short('c'),
        value("cpus", "decimal", "Number of CPUs"),
        value("cpuset-cpus", "string", "CPUs to run on (0-3, 0,1)"),
        value("cpuset-mems", "string", "Memory nodes to use (0-3, 0,1)"),
        value("memory", "bytes", "Memory").short('m'),
        value("memory-reservation", "bytes", "Memory below which nothing is reclaimed"),
        value("memory-swap", "bytes", "Memory and swap together; -1 for no limit"),
        value("pids-limit", "int", "Number of processes; -1 for no limit"),
        value("restart", "policy", "When it is started again: no, always, unless-stopped, on-failure[:N]"),
    ]
}

async fn update(client: Client, given: Given) -> Result<u8, Error> {
    let mut resources = spec::resources(&given)?;
    if given.has("pids-limit") && resources.pids_limit == 0 {
        resources.pids_limit = -1;
    }
    let restart_policy = given.text("restart").map(str::to_owned);
    if let Some(policy) = &restart_policy {
        spec::check_restart(policy)?;
    }
    let containers = client.containers().await?;
    each(given.operands(), |name| {
        let mut containers = containers.clone();
        let request = UpdateRequest {
            container: name.clone(),
            resources: Some(resources.clone()),
            restart_policy: restart_policy.clone(),
        };
        async move {
            for warning in containers.update(request).await?.into_inner().warnings {
                let _ = writeln!(std::io::stderr(), "WARNING: {warning}");
            }
            Ok(name)
        }
    })
    .await
}
