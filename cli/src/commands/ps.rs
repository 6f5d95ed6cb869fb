//! `ps`: the containers.

use berth_proto::berth::runtime::v1::ListRequest;
use clap::Arg;
use jiff::Timestamp;

use super::{each::print, list_format::list_format};
use crate::{
    args::{
        Entry, Given,
        flag::{list, switch, value},
    },
    client::Client,
    format::{container, rows},
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["ps", "container ls", "container list", "container ps"],
    about: "List containers",
    usage: "[OPTIONS]",
    flags,
    run: |client, given| Box::pin(ps(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        switch("all", "Those that do not run too").short('a'),
        list(
            "filter",
            "filter",
            "Only those for which this holds (status=exited, name=web, label=k=v, ancestor=redis, …)",
        )
        .short('f'),
        value("format", "string", "table, table TEMPLATE, json, or a Go template for each"),
        value("last", "int", "The n newest, in any state").short('n'),
        switch("latest", "The newest, in any state").short('l'),
        switch("no-trunc", "Nothing shortened"),
        switch("quiet", "IDs only").short('q'),
        switch("size", "Size of each container's own layer").short('s'),
    ]
}

async fn ps(client: Client, given: Given) -> Result<u8, Error> {
    let last = match given.text("last") {
        _ if given.on("latest") => 1,
        None | Some("-1") => 0,
        Some(text) => text
            .parse()
            .map_err(|_| Error::Invalid(format!("invalid argument {text:?} for \"-n, --last\" flag: not a number")))?,
    };
    let format = list_format(&given, "psFormat", given.on("quiet"));
    // A template that shows sizes asks for them.
    let size = given.on("size") || format.as_ref().is_some_and(|format| format.contains(".Size"));
    let request = ListRequest { all: given.on("all") || last > 0, filters: given.owned("filter"), last, size };
    let containers = client.containers().await?.list(request).await?.into_inner().containers;
    let (now, truncate) = (Timestamp::now(), !given.on("no-trunc"));
    let rows = containers.iter().map(|one| container::row(one, now, truncate)).collect();
    let layout = if given.on("size") { &container::LAYOUT_WITH_SIZE } else { &container::LAYOUT };
    print(&rows::render(layout, format.as_deref(), given.on("quiet"), rows)?)?;
    Ok(0)
}
