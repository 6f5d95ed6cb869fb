//! `logs`: what a container printed.

use berth_proto::berth::runtime::v1::{LogsRequest, logs_response::Message};
use clap::Arg;

use crate::{
    args::{
        Completes, Entry, Given,
        flag::{switch, value},
    },
    client::Client,
    outcome::Error,
    spec,
    terminal::output::{Output, Stream},
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["logs", "container logs"],
    about: "Show what a container printed",
    usage: "[OPTIONS] CONTAINER",
    operands: (1, 1),
    flags,
    completes: Completes::Containers,
    run: |client, given| Box::pin(logs(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        switch("details", "Attributes of the log driver, too"),
        switch("follow", "Go on with what it prints").short('f'),
        value("since", "string", "From then on: a timestamp (2026-01-02T15:04:05Z), or a duration back from now (42m)"),
        value("tail", "string", "The last n lines only (default all)").short('n'),
        switch("timestamps", "With times").short('t'),
        value("until", "string", "Until then: a timestamp, or a duration back from now"),
    ]
}

async fn logs(client: Client, given: Given) -> Result<u8, Error> {
    let time = |flag: &str| given.text(flag).filter(|text| !text.is_empty()).map(spec::instant).transpose();
    let tail = match given.text("tail") {
        None | Some("all") => None,
        // As in Docker, a negative number means all of them.
        Some(text) if text.starts_with('-') && text[1..].parse::<u64>().is_ok() => None,
        Some(text) => Some(text.parse().map_err(|_| {
            Error::Invalid(format!(
                "invalid argument {text:?} for \"-n, --tail\" flag: it is a number of lines or \"all\""
            ))
        })?),
    };
    let request = LogsRequest {
        container: given.operand().to_owned(),
        follow: given.on("follow"),
        stdout: true,
        stderr: true,
        since: time("since")?.unwrap_or_default(),
        until: time("until")?.unwrap_or_default(),
        tail,
        timestamps: given.on("timestamps"),
        details: given.on("details"),
    };
    let mut answers = client.containers().await?.logs(request).await?.into_inner();
    let output = Output::new();
    let failure = loop {
        let (stream, bytes) = match answers.message().await {
            Ok(Some(answer)) => match answer.message {
                Some(Message::Stdout(bytes)) => (Stream::Stdout, bytes),
                Some(Message::Stderr(bytes)) => (Stream::Stderr, bytes),
                None => continue,
            },
            Ok(None) => break None,
            Err(status) => break Some(status),
        };
        if !output.write(stream, bytes).await {
            return Err(Error::Said(141));
        }
    };
    // What came is printed, also where the rest could not be had.
    let read = output.flush().await;
    match failure {
        Some(status) => Err(status.into()),
        None if read => Ok(0),
        None => Err(Error::Said(141)),
    }
}
