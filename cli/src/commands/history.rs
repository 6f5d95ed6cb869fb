//! `history`: how an image came to be.

use berth_proto::berth::image::v1::HistoryRequest;
use clap::Arg;
use jiff::Timestamp;

use super::each::print;
use crate::{
    args::{
        Completes, Entry, Given,
        flag::{switch, value},
    },
    client::Client,
    format::{history, rows},
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["history", "image history"],
    about: "Show how an image came to be",
    usage: "[OPTIONS] IMAGE",
    operands: (1, 1),
    flags,
    completes: Completes::Images,
    run: |client, given| Box::pin(show(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        value("format", "string", "table, table TEMPLATE, json, or a Go template for each"),
        switch("human", "Sizes and dates as people read them (default true)").short('H'),
        switch("no-trunc", "Nothing shortened"),
        switch("quiet", "IDs only").short('q'),
    ]
}

async fn show(client: Client, given: Given) -> Result<u8, Error> {
    let request = HistoryRequest { reference: given.operand().to_owned() };
    let steps = client.images().await?.history(request).await?.into_inner().steps;
    let human = given.on_unless_denied("human");
    let (now, truncate) = (Timestamp::now(), !given.on("no-trunc"));
    let rows = steps.iter().map(|step| history::row(step, now, truncate, human)).collect();
    let layout = if human { &history::LAYOUT } else { &history::LAYOUT_EXACT };
    print(&rows::render(layout, given.text("format"), given.on("quiet"), rows)?)?;
    Ok(0)
}
