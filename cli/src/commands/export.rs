//! `export`: all files of a container as a tar.

use berth_proto::berth::runtime::v1::ExportRequest;

use super::destination::Destination;
use crate::{
    args::{Completes, Entry, Given, flag::value},
    client::Client,
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["export", "container export"],
    about: "Write all files of a container as a tar",
    usage: "[OPTIONS] CONTAINER",
    operands: (1, 1),
    flags: || vec![value("output", "string", "Write to this file instead of standard output").short('o')],
    completes: Completes::Containers,
    run: |client, given| Box::pin(export(client, given)),
    ..Entry::PLAIN
};

async fn export(client: Client, given: Given) -> Result<u8, Error> {
    let mut destination = Destination::open(given.text("output"))?;
    let request = ExportRequest { container: given.operand().to_owned() };
    let mut answers = client.containers().await?.export(request).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        destination.write(&answer.data)?;
    }
    destination.finish()?;
    Ok(0)
}
