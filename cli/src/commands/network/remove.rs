//! `network rm` and `network prune`.

use berth_core::Kind;
use berth_proto::berth::runtime::v1::{PruneNetworksRequest, RemoveNetworkRequest};

use crate::{
    args::{
        Entry, Given,
        flag::{list, switch},
    },
    client::Client,
    commands::{
        each::each,
        prune::{confirmed, filters, list_gone},
    },
    outcome::Error,
};

pub(crate) const REMOVE: Entry = Entry {
    paths: &["network rm", "network remove"],
    about: "Remove one or more networks that no running container is connected to",
    usage: "NETWORK [NETWORK...]",
    operands: (1, usize::MAX),
    flags: || vec![switch("force", "One that is not there is no error").short('f')],
    run: |client, given| Box::pin(remove(client, given)),
    ..Entry::PLAIN
};

pub(crate) const PRUNE: Entry = Entry {
    paths: &["network prune"],
    about: "Remove the networks that no container is connected to",
    usage: "[OPTIONS]",
    flags: || {
        vec![
            list("filter", "filter", "Only those for which this holds (until=24h, label=tier, label!=keep)"),
            switch("force", "Do not ask").short('f'),
        ]
    },
    run: |client, given| Box::pin(prune(client, given)),
    ..Entry::PLAIN
};

async fn remove(client: Client, given: Given) -> Result<u8, Error> {
    let force = given.on("force");
    let networks = client.networks().await?;
    each(given.operands(), |network| {
        let mut networks = networks.clone();
        async move {
            match networks.remove(RemoveNetworkRequest { network: network.clone() }).await.map_err(Error::from) {
                Ok(_) => Ok(network),
                Err(error) if force && error.is(Kind::NotFound) => Ok(String::new()),
                Err(error) => Err(error),
            }
        }
    })
    .await
}

async fn prune(client: Client, given: Given) -> Result<u8, Error> {
    let warning = "WARNING! This will remove all custom networks not used by at least one container.";
    if !given.on("force") && !confirmed(warning)? {
        return Err(Error::Invalid("network prune has been cancelled".into()));
    }
    let request = PruneNetworksRequest { filters: filters(&given)? };
    let pruned = client.networks().await?.prune(request).await?.into_inner();
    list_gone("Deleted Networks:", &pruned.networks)?;
    Ok(0)
}
