//! `top`: the processes of a container.

use berth_proto::berth::runtime::v1::TopRequest;

use super::each::print;
use crate::{
    args::{Completes, Entry, Given},
    client::Client,
    format::table,
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["top", "container top"],
    about: "Show the processes of a container",
    usage: "CONTAINER [ps OPTIONS]",
    operands: (1, usize::MAX),
    ends_at: 1,
    completes: Completes::Running,
    run: |client, given| Box::pin(top(client, given)),
    ..Entry::PLAIN
};

async fn top(client: Client, given: Given) -> Result<u8, Error> {
    let mut words = given.operands();
    let container = words.remove(0);
    let request = TopRequest { container, ps_arguments: words };
    let answer = client.containers().await?.top(request).await?.into_inner();
    let rows = answer.rows.into_iter().map(|row| row.fields.join("\t"));
    let lines: Vec<String> = std::iter::once(answer.titles.join("\t")).chain(rows).collect();
    // As wide as Docker's columns, which scripts cut by.
    print(&table::align_at_least(20, &lines))?;
    Ok(0)
}
