//! `network ls` and `network inspect`.

use berth_proto::berth::runtime::v1::{ListNetworksRequest, Network};
use clap::Arg;

use super::each::print;
use crate::{
    args::{
        Entry, Given,
        flag::{switch, value},
    },
    client::Client,
    format::{
        container::id,
        json::{Json, object},
        rows::{Layout, Row, render},
        template::Format,
        units,
    },
    outcome::Error,
};

pub(crate) const LIST: Entry = Entry {
    paths: &["network ls", "network list"],
    about: "List networks",
    usage: "[OPTIONS]",
    flags: list_flags,
    run: |client, given| Box::pin(list(client, given)),
    ..Entry::PLAIN
};

pub(crate) const INSPECT: Entry = Entry {
    paths: &["network inspect"],
    about: "Show all about one or more networks",
    usage: "[OPTIONS] NETWORK [NETWORK...]",
    operands: (1, usize::MAX),
    flags: || vec![value("format", "string", "json, or a Go template for each").short('f')],
    run: |client, given| Box::pin(inspect(client, given)),
    ..Entry::PLAIN
};

const LAYOUT: Layout = Layout {
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    quiet: "{{.ID}}",
    headings: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("CreatedAt", "CREATED AT"),
        ("Labels", "LABELS"),
    ],
};

fn list_flags() -> Vec<Arg> {
    vec![
        value("format", "string", "table, table TEMPLATE, json, or a Go template for each"),
        switch("no-trunc", "Nothing shortened"),
        switch("quiet", "IDs only").short('q'),
    ]
}

async fn networks(client: &Client) -> Result<Vec<Network>, Error> {
    Ok(client.networks().await?.list(ListNetworksRequest {}).await?.into_inner().networks)
}

async fn list(client: Client, given: Given) -> Result<u8, Error> {
    let truncate = !given.on("no-trunc");
    let row = |network: &Network| {
        Row::from([
            ("ID", id(&network.id, truncate).into()),
            ("Name", network.name.as_str().into()),
            ("Driver", network.driver.as_str().into()),
            ("Scope", "local".into()),
            ("IPv4", "true".into()),
            ("IPv6", "false".into()),
            ("Internal", "false".into()),
            ("CreatedAt", units::local(&network.created).into()),
            ("Labels", "".into()),
        ])
    };
    let rows = networks(&client).await?.iter().map(row).collect();
    print(&render(&LAYOUT, given.text("format"), given.on("quiet"), rows)?)?;
    Ok(0)
}

async fn inspect(client: Client, given: Given) -> Result<u8, Error> {
    let (mut found, mut code) = (Vec::new(), 0);
    for name in given.operands() {
        match find(&client, &name).await? {
            Some(network) => found.push(network),
            None => {
                Error::Invalid(format!("Error: No such network: {name}")).print();
                code = 1;
            }
        }
    }
    match given.text("format") {
        None | Some("") => print(&(Json::List(found).pretty() + "\n"))?,
        Some(format) => {
            let format = Format::parse(if format == "json" { "{{json .}}" } else { format })?;
            for network in &found {
                print(&(format.execute(&network.to_template())? + "\n"))?;
            }
        }
    }
    Ok(code)
}

/// A network by name, ID, or a unique beginning of its ID, in Docker's shape.
///
/// # Errors
/// The networks cannot be listed.
pub(crate) async fn find(client: &Client, name: &str) -> Result<Option<Json>, Error> {
    let all = networks(client).await?;
    let exact = all.iter().find(|network| network.name == name || network.id == name);
    let mut beginning = all.iter().filter(|network| network.id.starts_with(name));
    let network = match (exact, beginning.next(), beginning.next()) {
        (Some(network), ..) | (None, Some(network), None) => network,
        _ => return Ok(None),
    };
    let pool = object! { "Subnet": network.subnet.as_str(), "Gateway": network.gateway.as_str() };
    let config = if network.subnet.is_empty() { vec![] } else { vec![pool] };
    Ok(Some(object! {
        "Name": network.name.as_str(),
        "Id": network.id.as_str(),
        "Created": network.created.as_str(),
        "Scope": "local",
        "Driver": network.driver.as_str(),
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": object! { "Driver": "default", "Options": Json::NULL, "Config": Json::List(config) },
        "Internal": false,
        "Attachable": false,
        "Options": object! { "com.docker.network.bridge.name": network.interface.as_str() },
        "Labels": object! {},
    }))
}
