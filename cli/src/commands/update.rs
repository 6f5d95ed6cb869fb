//! `update`: other limits, or another restart policy, for containers that are there.

use berth_proto::berth::runtime::v1::UpdateRequest;
use clap::Arg;

use super::each::{each, warn};
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
    let restart = value("restart", "policy", "When it is started again: no, always, unless-stopped, on-failure[:N]");
    spec::changeable_limits().into_iter().chain([restart]).collect()
}

async fn update(client: Client, given: Given) -> Result<u8, Error> {
    if !flags().iter().any(|flag| given.has(flag.get_id().as_str())) {
        return Err(Error::Invalid("you must provide one or more flags when using this command".into()));
    }
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
            warn(&containers.update(request).await?.into_inner().warnings);
            Ok(name)
        }
    })
    .await
}
