//! `port`: where a container's ports are on the host.

use berth_proto::berth::runtime::v1::InspectRequest;

use super::each::{line, print};
use crate::{
    args::{Completes, Entry, Given},
    client::Client,
    format::ports,
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["port", "container port"],
    about: "Show where a container's ports are published",
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    operands: (1, 2),
    completes: Completes::Running,
    run: |client, given| Box::pin(port(client, given)),
    ..Entry::PLAIN
};

async fn port(client: Client, given: Given) -> Result<u8, Error> {
    let request = InspectRequest { container: given.operand().to_owned(), ..InspectRequest::default() };
    let container = client.containers().await?.inspect(request).await?.into_inner().container;
    let container = container.ok_or(Error::Contract("Inspect answered no container"))?;
    let host = |ip: &str, port: u32| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    let mut all: Vec<_> = container
        .ports
        .iter()
        .map(|one| {
            (one.container_port, ports::protocol(one).to_owned(), host(ports::address(&one.host_ip), one.host_port))
        })
        .collect();
    all.sort();
    let Some(wanted) = given.operands().get(1).cloned() else {
        let lines: String = all.iter().map(|(port, protocol, host)| format!("{port}/{protocol} -> {host}\n")).collect();
        print(&lines)?;
        return Ok(0);
    };
    let (number, protocol) = wanted.split_once('/').unwrap_or((&wanted, "tcp"));
    let number: u32 = number.parse().map_err(|_| format!("invalid port: {wanted}"))?;
    all.retain(|(port, of, _)| *port == number && of == protocol);
    if all.is_empty() {
        return Err(Error::Invalid(format!("no public port '{number}/{protocol}' published for {}", given.operand())));
    }
    for (.., host) in all {
        line(&host)?;
    }
    Ok(0)
}
