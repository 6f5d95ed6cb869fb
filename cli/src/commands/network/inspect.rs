//! `network inspect`, and a network in Docker's shape.

use berth_core::Kind;
use berth_proto::berth::runtime::v1::{InspectNetworkRequest, Network};

use crate::{
    args::{
        Entry, Given,
        flag::{switch, value},
    },
    client::Client,
    commands::each::print,
    format::{
        json::{Json, object},
        template::Format,
    },
    outcome::Error,
};

pub(crate) const INSPECT: Entry = Entry {
    paths: &["network inspect"],
    about: "Show all about one or more networks",
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    operands: (1, usize::MAX),
    flags: || {
        vec![
            value("format", "string", "json, or a Go template for each").short('f'),
            switch("verbose", "More about networks of a swarm, of which there are none").short('v'),
        ]
    },
    run: |client, given| Box::pin(inspect(client, given)),
    ..Entry::PLAIN
};

async fn inspect(client: Client, given: Given) -> Result<u8, Error> {
    let format = match given.text("format") {
        None | Some("") => None,
        Some("json") => Some(Format::parse("{{json .}}")?),
        Some(format) => Some(Format::parse(format)?),
    };
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for name in given.operands() {
        match one(&client, &name).await {
            Ok(network) => found.push(network),
            Err(error) if error.is(Kind::NotFound) || error.is(Kind::InvalidArgument) => errors.push(error),
            Err(error) => return Err(error),
        }
    }
    match format {
        None => print(&(Json::List(found).pretty() + "\n"))?,
        Some(format) => {
            for network in &found {
                print(&(format.execute(&network.to_template())? + "\n"))?;
            }
        }
    }
    errors.iter().for_each(Error::print);
    Ok(u8::from(!errors.is_empty()))
}

/// A network by name, ID, or a unique beginning of its ID, in Docker's shape.
///
/// # Errors
/// The service does not answer.
pub(crate) async fn find(client: &Client, name: &str) -> Result<Option<Json>, Error> {
    match one(client, name).await {
        Ok(network) => Ok(Some(network)),
        Err(error) if error.is(Kind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn one(client: &Client, name: &str) -> Result<Json, Error> {
    let request = InspectNetworkRequest { network: name.into() };
    let network = client.networks().await?.inspect(request).await?.into_inner().network;
    Ok(json(&network.ok_or(Error::Contract("Inspect answered no network"))?))
}

fn json(network: &Network) -> Json {
    let pools = network.pools.iter().map(|pool| {
        object! {
            "Subnet": pool.subnet.as_str(),
            "IPRange": Json::from(pool.ip_range.as_str()).omitted_if(pool.ip_range.is_empty()),
            "Gateway": Json::from(pool.gateway.as_str()).omitted_if(pool.gateway.is_empty()),
            "AuxiliaryAddresses": Json::map(pool.aux_addresses.clone()).omitted_if(pool.aux_addresses.is_empty()),
        }
    });
    let members = network.members.iter().map(|member| {
        let shown = object! {
            "Name": member.name.as_str(),
            "EndpointID": member.endpoint_id.as_str(),
            "MacAddress": member.mac_address.as_str(),
            "IPv4Address": member.ipv4_address.as_str(),
            "IPv6Address": member.ipv6_address.as_str(),
        };
        (member.container.clone(), shown)
    });
    let ipam_options = if network.predefined { Json::NULL } else { Json::map(network.ipam_options.clone()) };
    let pools: Vec<_> = pools.collect();
    object! {
        "Name": network.name.as_str(),
        "Id": network.id.as_str(),
        "Created": network.created.as_str(),
        "Scope": "local",
        "Driver": network.driver.as_str(),
        "EnableIPv4": network.ipv4,
        "EnableIPv6": network.ipv6,
        "IPAM": object! {
            "Driver": "default",
            "Options": ipam_options,
            "Config": if pools.is_empty() { Json::NULL } else { Json::List(pools) },
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": object! { "Network": "" },
        "ConfigOnly": false,
        "Containers": Json::map(members),
        "Options": Json::map(network.options.clone()),
        "Labels": Json::map(network.labels.clone()),
    }
}
