//! `network create`.

use berth_proto::berth::runtime::v1::CreateNetworkRequest;

use super::pools;
use crate::{
    args::{
        Entry, Given,
        flag::{list, switch, value},
    },
    client::Client,
    commands::each::line,
    outcome::Error,
    spec,
};

pub(crate) const CREATE: Entry = Entry {
    paths: &["network create"],
    about: "Make a network",
    usage: "[OPTIONS] NETWORK",
    operands: (1, 1),
    flags: || {
        vec![
            switch("attachable", "Accepted for compatibility: containers can always be attached"),
            list("aux-address", "map", "An address that somebody else has (NAME=address)"),
            value("config-from", "string", "Network to take the configuration from (swarm)").hide(true),
            switch("config-only", "Make a configuration only (swarm)").hide(true),
            value("driver", "string", "Driver of the network; there is \"bridge\"").short('d'),
            list("gateway", "strings", "The bridge's own address"),
            switch("ingress", "Make the swarm's own network").hide(true),
            switch("internal", "Nothing outside is reached, and nothing is reached from outside"),
            list("ip-range", "strings", "The part of the subnet that addresses are given from"),
            value("ipam-driver", "string", "Who gives addresses; there is \"default\""),
            list("ipam-opt", "map", "Option of who gives addresses (NAME=value)"),
            switch("ipv4", "IPv4 addresses (default true)"),
            switch("ipv6", "IPv6 addresses"),
            list("label", "list", "A label (NAME=value)"),
            list("opt", "map", "An option of the driver (NAME=value)").short('o'),
            value("scope", "string", "Scope of the network; there is \"local\""),
            list("subnet", "strings", "The subnet, as in 172.28.0.0/16; a free one where none is given"),
        ]
    },
    run: |client, given| Box::pin(create(client, given)),
    ..Entry::PLAIN
};

async fn create(client: Client, given: Given) -> Result<u8, Error> {
    for flag in ["config-from", "config-only", "ingress"] {
        if given.text(flag).is_some_and(|text| !text.is_empty()) || given.on(flag) {
            let why = "it belongs to a swarm's networks; a node has its own only".into();
            return Err(Error::Unsupported { flag: flag.into(), why });
        }
    }
    if let Some(scope) = given.text("scope").filter(|scope| !matches!(*scope, "" | "local")) {
        let why = format!("{scope:?} is a swarm's; the networks of a node have the scope \"local\"");
        return Err(Error::Unsupported { flag: "scope".into(), why });
    }
    let request = CreateNetworkRequest {
        name: given.operand().to_owned(),
        driver: given.text_or_empty("driver"),
        internal: given.on("internal"),
        ipv4: given.has("ipv4").then(|| given.on("ipv4")),
        ipv6: given.on("ipv6"),
        attachable: given.on("attachable"),
        labels: spec::labels(&[], &given.all("label"))?,
        options: spec::labels(&[], &given.all("opt"))?,
        ipam_driver: given.text_or_empty("ipam-driver"),
        ipam_options: spec::labels(&[], &given.all("ipam-opt"))?,
        pools: pools::pools(&pools::Asked {
            subnets: words(&given, "subnet"),
            ranges: words(&given, "ip-range"),
            gateways: words(&given, "gateway"),
            others: given.all("aux-address"),
        })
        .map_err(Error::Invalid)?,
    };
    let made = client.networks().await?.create(request).await?.into_inner();
    line(&made.id)?;
    Ok(0)
}

/// Several in one word, too.
fn words<'a>(given: &'a Given, flag: &str) -> Vec<&'a str> {
    given.all(flag).into_iter().flat_map(|word| word.split(',')).filter(|word| !word.is_empty()).collect()
}
