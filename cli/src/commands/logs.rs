//! `logs`: what a container printed.

use berth_core::Kind;
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
    let mut request = LogsRequest {
        container: given.operand().to_owned(),
        follow: given.on("follow"),
        stdout: true,
        stderr: true,
        since: time("since")?.unwrap_or_default(),
        until: time("until")?.unwrap_or_default(),
        tail,
        timestamps: given.on("timestamps"),
        details: given.on("details"),
        after: String::new(),
    };
    let output = Output::new();
    let failure = loop {
        match show(&client, &mut request, &output).await {
            Ok(()) => break None,
            // Where the service was killed it is there again soon, and so is what was printed meanwhile.
            Err(Error::Broken(_)) if request.follow => {}
            // It went away with the service.
            Err(error) if error.is(Kind::NotFound) && !request.after.is_empty() => break None,
            Err(error) => break Some(error),
        }
    };
    // What came is printed, also where the rest could not be had.
    let read = output.flush().await;
    match failure {
        Some(error) => Err(error),
        None if read => Ok(0),
        None => Err(Error::Said(141)),
    }
}

/// Prints what the service sends, until it has no more. What is asked for afterwards is what was not printed yet.
async fn show(client: &Client, request: &mut LogsRequest, output: &Output) -> Result<(), Error> {
    let mut answers = client.containers().await?.logs(request.clone()).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        if !answer.last.is_empty() {
            (request.after, request.tail) = (answer.last, None);
        }
        let (stream, bytes) = match answer.message {
            Some(Message::Stdout(bytes)) => (Stream::Stdout, bytes),
            Some(Message::Stderr(bytes)) => (Stream::Stderr, bytes),
            None => continue,
        };
        if !output.write(stream, bytes).await {
            return Err(Error::Said(141));
        }
    }
    Ok(())
}
