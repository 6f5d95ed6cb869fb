//! `stats`: what containers use, once or as it changes.

use std::fmt::Write as _;

use berth_proto::berth::runtime::v1::{ContainerStats, StatsRequest};
use clap::Arg;

use super::{each::print, list_format::list_format};
use crate::{
    args::{
        Completes, Entry, Given,
        flag::{switch, value},
    },
    client::Client,
    format::{
        container::id,
        rows::{Layout, Row, render},
        units,
    },
    outcome::Error,
    terminal::raw,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["stats", "container stats"],
    about: "Show what containers use, as it changes",
    usage: "[OPTIONS] [CONTAINER...]",
    operands: (0, usize::MAX),
    completes: Completes::Running,
    flags,
    run: |client, given| Box::pin(stats(client, given)),
    ..Entry::PLAIN
};

const LAYOUT: Layout = Layout {
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    quiet: "{{.ID}}",
    headings: &[
        ("ID", "CONTAINER ID"),
        ("Container", "CONTAINER"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
};

fn flags() -> Vec<Arg> {
    vec![
        switch("all", "Containers that do not run as well").short('a'),
        value("format", "string", "table, table TEMPLATE, json, or a Go template for each"),
        switch("no-stream", "Once, and no more"),
        switch("no-trunc", "Nothing shortened"),
    ]
}

async fn stats(client: Client, given: Given) -> Result<u8, Error> {
    let names = given.operands();
    let stream = !given.on("no-stream");
    let request = StatsRequest { containers: names.clone(), all: given.on("all"), stream };
    let mut samples = client.containers().await?.stats(request).await?.into_inner();
    let truncate = !given.on("no-trunc");
    // One table over the other, where there is a screen to draw on.
    let screen = stream && raw::stdout_is_terminal();
    let format = list_format(&given, "statsFormat", false);
    let mut first = true;
    while let Some(sample) = samples.message().await? {
        let asked = names.iter().map(Some).chain(std::iter::repeat(None));
        let rows = sample.containers.iter().zip(asked).map(|(one, asked)| row(one, asked, truncate)).collect();
        let table = render(&LAYOUT, format.as_deref(), false, rows)?;
        print(&if screen { redrawn(&table, first) } else { table })?;
        first = false;
    }
    Ok(0)
}

/// Home, each line over the one that was there, and what is left below goes. Nothing is wiped that is drawn again, so
/// nothing flickers.
fn redrawn(table: &str, first: bool) -> String {
    let mut text = String::from(if first { "\x1b[2J\x1b[H" } else { "\x1b[H" });
    for line in table.lines() {
        let _ = writeln!(text, "{line}\x1b[K");
    }
    text + "\x1b[J"
}

fn row(one: &ContainerStats, asked: Option<&String>, truncate: bool) -> Row {
    let running = one.running;
    let known = |text: String, none: &str| if running { text } else { none.to_owned() };
    let percent = |part: f64| known(format!("{part:.2}%"), "--");
    let pair = |one: u64, other: u64| known(format!("{} / {}", units::size(one), units::size(other)), "-- / --");
    let memory = if one.memory_limit == 0 { 0.0 } else { one.memory_usage as f64 / one.memory_limit as f64 * 100.0 };
    let (usage, limit) = (units::size_binary(one.memory_usage), units::size_binary(one.memory_limit));
    Row::from([
        ("ID", id(&one.id, truncate).into()),
        ("Container", asked.map_or_else(|| id(&one.id, truncate), String::as_str).into()),
        ("Name", one.name.as_str().into()),
        ("CPUPerc", percent(one.cpu_percent).into()),
        ("MemUsage", known(format!("{usage} / {limit}"), "-- / --").into()),
        ("MemPerc", percent(memory).into()),
        ("NetIO", pair(one.network_received, one.network_sent).into()),
        ("BlockIO", pair(one.block_read, one.block_written).into()),
        ("PIDs", known(one.pids.to_string(), "--").into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_docker_prints_it() {
        let one = ContainerStats {
            id: "a".repeat(64),
            name: "web".into(),
            cpu_percent: 12.345,
            memory_usage: 454_656,
            memory_limit: 64 << 20,
            network_received: 1_200,
            pids: 2,
            running: true,
            ..ContainerStats::default()
        };
        let still = ContainerStats { id: "b".repeat(64), name: "old".into(), ..ContainerStats::default() };
        let text = render(&LAYOUT, None, false, vec![row(&one, None, true), row(&still, None, true)]).unwrap();
        assert_eq!(
            text,
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O      BLOCK I/O   PIDS\n\
             aaaaaaaaaaaa   web       12.35%    444KiB / 64MiB      0.68%     1.2kB / 0B   0B / 0B     2\n\
             bbbbbbbbbbbb   old       --        -- / --             --        -- / --      -- / --     --\n"
        );
        let asked = "we".to_owned();
        let json = render(&LAYOUT, Some("{{.Container}} {{.PIDs}}"), false, vec![row(&one, Some(&asked), true)]);
        assert_eq!(json.unwrap(), "we 2\n");
    }

    #[test]
    fn a_table_is_drawn_over_the_last() {
        assert_eq!(redrawn("a\nb\n", true), "\x1b[2J\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        assert!(redrawn("a\n", false).starts_with("\x1b[Ha"));
    }
}
