//! `why`: what a container waits for, or why it ended, and what to do.

use berth_proto::berth::runtime::v1::WhyRequest;

use super::each::each;
use crate::{
    args::{Completes, Entry, Given},
    client::Client,
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["why", "container why"],
    about: "Explain what a container waits for or why it ended, and what to do",
    usage: "CONTAINER [CONTAINER...]",
    operands: (1, usize::MAX),
    completes: Completes::Containers,
    run: |client, given| Box::pin(why(client, given)),
    ..Entry::PLAIN
};

async fn why(client: Client, given: Given) -> Result<u8, Error> {
    let containers = client.containers().await?;
    each(given.operands(), |name| {
        let mut containers = containers.clone();
        async move {
            let answer = containers.why(WhyRequest { container: name }).await?.into_inner();
            let hint = if answer.hint.is_empty() { String::new() } else { format!("\n  {}", answer.hint) };
            Ok(answer.sentence + &hint)
        }
    })
    .await
}
