//! `commit`: an image of what a container has written.

use berth_proto::berth::runtime::v1::CommitRequest;
use clap::Arg;

use super::each::{line, warn};
use crate::{
    args::{
        Completes, Entry, Given,
        flag::{list, switch, value},
    },
    client::Client,
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["commit", "container commit"],
    about: "Make an image of what a container has written",
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    operands: (1, 2),
    flags,
    completes: Completes::Containers,
    run: |client, given| Box::pin(commit(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        value("author", "string", "Who made it (\"Jane Doe <jane@example.org>\")").short('a'),
        list("change", "list", "Dockerfile instruction that changes the image's configuration").short('c'),
        value("message", "string", "Why it was made").short('m'),
        switch("no-pause", "Let the container run while its files are read"),
        switch("pause", "Pause the container while its files are read (default true)").short('p'),
    ]
}

async fn commit(client: Client, given: Given) -> Result<u8, Error> {
    let mut operands = given.operands().into_iter();
    let request = CommitRequest {
        container: operands.next().unwrap_or_default(),
        reference: operands.next().unwrap_or_default(),
        author: given.text_or_empty("author"),
        comment: given.text_or_empty("message"),
        changes: given.owned("change"),
        no_pause: given.on("no-pause") || !given.on_unless_denied("pause"),
    };
    let answer = client.containers().await?.commit(request).await?.into_inner();
    warn(&answer.warnings);
    line(&answer.image_id)?;
    Ok(0)
}
