//! `search`: repositories by a word.

use berth_proto::berth::image::v1::{SearchRequest, SearchResult};
use clap::Arg;

use super::each::print;
use crate::{
    args::{
        Entry, Given,
        flag::{list, switch, value},
    },
    client::Client,
    credentials,
    format::{
        rows::{self, Layout, Row},
        table::ellipsis,
    },
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["search"],
    about: "Search a registry for images",
    usage: "[OPTIONS] TERM",
    operands: (1, 1),
    flags,
    run: |client, given| Box::pin(search(client, given)),
    ..Entry::PLAIN
};

/// What is shown of a description.
const COLUMNS: usize = 45;

const LAYOUT: Layout = Layout {
    table: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
    quiet: "{{.Name}}",
    headings: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
        ("IsAutomated", "AUTOMATED"),
    ],
};

fn flags() -> Vec<Arg> {
    vec![
        list("filter", "filter", "Only those for which this holds (stars=3, is-official=true)").short('f'),
        value("format", "string", "table, table TEMPLATE, json, or a Go template for each"),
        value("limit", "int", "So many at most, up to 100 (default 25)"),
        switch("no-trunc", "Descriptions not shortened"),
    ]
}

async fn search(client: Client, given: Given) -> Result<u8, Error> {
    let term = given.operand().to_owned();
    let limit = match given.text("limit") {
        None => 0,
        Some(text) => {
            text.parse().map_err(|_| format!("invalid argument {text:?} for \"--limit\" flag: it is a number"))?
        }
    };
    let host =
        term.split_once('/').map(|(host, _)| host).filter(|host| host.contains(['.', ':']) || *host == "localhost");
    let auth = credentials::of(credentials::key(host.unwrap_or_default()));
    let request = SearchRequest { term, limit, filters: given.owned("filter"), auth };
    let mut results = client.images().await?.search(request).await?.into_inner().results;
    results.sort_by_key(|found| std::cmp::Reverse(found.stars));
    let truncate = !given.on("no-trunc");
    let found = results.iter().map(|found| row(found, truncate)).collect();
    print(&rows::render(&LAYOUT, given.text("format"), false, found)?)?;
    Ok(0)
}

fn row(found: &SearchResult, truncate: bool) -> Row {
    let description = found.description.replace(['\n', '\r'], " ");
    let mark = |is: bool| if is { "[OK]" } else { "" };
    Row::from([
        ("Name", found.name.as_str().into()),
        ("Description", if truncate { ellipsis(&description, COLUMNS) } else { description }.into()),
        ("StarCount", found.stars.to_string().into()),
        ("IsOfficial", mark(found.official).into()),
        ("IsAutomated", mark(found.automated).into()),
    ])
}
