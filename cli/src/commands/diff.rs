//! `diff`: what a container has added, changed and deleted.

use berth_proto::berth::runtime::v1::{ChangesRequest, file_change::Kind};

use super::each::print_bytes;
use crate::{
    args::{Completes, Entry, Given},
    client::Client,
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["diff", "container diff"],
    about: "Show which files a container has added (A), changed (C) and deleted (D)",
    usage: "CONTAINER",
    operands: (1, 1),
    completes: Completes::Containers,
    run: |client, given| Box::pin(diff(client, given)),
    ..Entry::PLAIN
};

async fn diff(client: Client, given: Given) -> Result<u8, Error> {
    let request = ChangesRequest { container: given.operand().to_owned() };
    let mut answers = client.containers().await?.changes(request).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        let mut lines = Vec::new();
        for change in answer.changes {
            let letter = match change.kind() {
                Kind::Added => b'A',
                Kind::Changed => b'C',
                Kind::Deleted => b'D',
                Kind::Unspecified => return Err(Error::Contract("Changes answered a change of no kind")),
            };
            lines.extend([letter, b' ']);
            lines.extend_from_slice(&change.path);
            lines.push(b'\n');
        }
        print_bytes(&lines)?;
    }
    Ok(0)
}
