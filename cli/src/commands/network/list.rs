//! `network ls`.

use berth_proto::berth::runtime::v1::{ListNetworksRequest, Network};

use crate::{
    args::{
        Entry, Given,
        flag::{list, switch, value},
    },
    client::Client,
    commands::each::print,
    commands::list_format::list_format,
    format::{
        container::id,
        rows::{Layout, Row, render},
        template::LABELS,
        units,
    },
    outcome::Error,
};

pub(crate) const LIST: Entry = Entry {
    paths: &["network ls", "network list"],
    about: "List networks",
    usage: "[OPTIONS]",
    flags: || {
        vec![
            list("filter", "filter", "Only those for which this holds (driver=bridge, label=tier, dangling=true)")
                .short('f'),
            value("format", "string", "table, table TEMPLATE, json, or a Go template for each"),
            switch("no-trunc", "Nothing shortened"),
            switch("quiet", "IDs only").short('q'),
        ]
    },
    run: |client, given| Box::pin(ls(client, given)),
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

async fn ls(client: Client, given: Given) -> Result<u8, Error> {
    let truncate = !given.on("no-trunc");
    let request = ListNetworksRequest { filters: given.owned("filter") };
    let networks = client.networks().await?.list(request).await?.into_inner().networks;
    let rows = networks.iter().map(|network| row(network, truncate)).collect();
    let format = list_format(&given, "networksFormat", given.on("quiet"));
    print(&render(&LAYOUT, format.as_deref(), given.on("quiet"), rows)?)?;
    Ok(0)
}

fn row(network: &Network, truncate: bool) -> Row {
    let mut labels: Vec<_> = network.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.sort_unstable();
    Row::from([
        ("ID", id(&network.id, truncate).into()),
        ("Name", network.name.as_str().into()),
        ("Driver", network.driver.as_str().into()),
        ("Scope", "local".into()),
        ("IPv4", network.ipv4.to_string().into()),
        ("IPv6", network.ipv6.to_string().into()),
        ("Internal", network.internal.to_string().into()),
        ("CreatedAt", units::local(&network.created).into()),
        ("Labels", labels.join(",").into()),
        (LABELS, gotmpl::to_value(&network.labels).unwrap_or(gotmpl::Value::Nil)),
    ])
}
