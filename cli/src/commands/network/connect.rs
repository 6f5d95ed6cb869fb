//! `network connect` and `network disconnect`.

use berth_proto::berth::runtime::v1::{ConnectNetworkRequest, DisconnectNetworkRequest, NetworkAttachment};

use crate::{
    args::{
        Completes, Entry, Given,
        flag::{list, switch, value},
    },
    client::Client,
    outcome::Error,
    spec,
};

pub(crate) const CONNECT: Entry = Entry {
    paths: &["network connect"],
    about: "Connect a container to a network",
    usage: "[OPTIONS] NETWORK CONTAINER",
    operands: (2, 2),
    flags: || {
        vec![
            list("alias", "strings", "Further name on the network"),
            list("driver-opt", "strings", "Option of the driver (NAME=value)"),
            value("gw-priority", "int", "The network with the highest is the way out"),
            value("ip", "string", "IPv4 address"),
            value("ip6", "string", "IPv6 address"),
        ]
    },
    completes: Completes::Containers,
    run: |client, given| Box::pin(connect(client, given)),
    ..Entry::PLAIN
};

pub(crate) const DISCONNECT: Entry = Entry {
    paths: &["network disconnect"],
    about: "Take a container off a network",
    usage: "[OPTIONS] NETWORK CONTAINER",
    operands: (2, 2),
    flags: || vec![switch("force", "Accepted for compatibility: nothing holds a container on a network").short('f')],
    completes: Completes::Containers,
    run: |client, given| Box::pin(disconnect(client, given)),
    ..Entry::PLAIN
};

async fn connect(client: Client, given: Given) -> Result<u8, Error> {
    let mut operands = given.operands().into_iter();
    let (network, container) = (operands.next().unwrap_or_default(), operands.next().unwrap_or_default());
    let priority = given.text("gw-priority").unwrap_or("0");
    let gw_priority = priority.parse().map_err(|_| {
        Error::Invalid(format!("invalid argument {priority:?} for \"--gw-priority\" flag: not a number that fits"))
    })?;
    let attachment = NetworkAttachment {
        network,
        aliases: given.owned("alias"),
        ip: given.text_or_empty("ip"),
        ip6: given.text_or_empty("ip6"),
        gw_priority,
        driver_opts: spec::labels(&[], &given.all("driver-opt"))?,
        ..NetworkAttachment::default()
    };
    let request = ConnectNetworkRequest { container, attachment: Some(attachment) };
    client.networks().await?.connect_container(request).await?;
    Ok(0)
}

async fn disconnect(client: Client, given: Given) -> Result<u8, Error> {
    let mut operands = given.operands().into_iter();
    let (network, container) = (operands.next().unwrap_or_default(), operands.next().unwrap_or_default());
    client.networks().await?.disconnect_container(DisconnectNetworkRequest { container, network }).await?;
    Ok(0)
}
