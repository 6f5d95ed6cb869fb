//! `rm`: containers go.

use berth_core::Kind;
use berth_proto::berth::runtime::v1::RemoveRequest;
use clap::Arg;

use super::each::each;
use crate::{
    args::{Completes, Entry, Given, flag::switch},
    client::Client,
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["rm", "container rm", "container remove"],
    about: "Remove one or more containers",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    operands: (1, usize::MAX),
    flags,
    completes: Completes::Containers,
    run: |client, given| Box::pin(rm(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        switch("force", "Those that run too (they are killed)").short('f'),
        switch("link", "Remove a link between containers").short('l').hide(true),
        switch("volumes", "Their anonymous volumes too").short('v'),
    ]
}

async fn rm(client: Client, given: Given) -> Result<u8, Error> {
    if given.on("link") {
        return Err(Error::Unsupported {
            flag: "link".into(),
            why: "there are no links between containers in this version".into(),
        });
    }
    let (force, volumes) = (given.on("force"), given.on("volumes"));
    let containers = client.containers().await?;
    each(given.operands(), |name| {
        let mut containers = containers.clone();
        async move {
            let request = RemoveRequest { container: name.clone(), force, volumes };
            match containers.remove(request).await.map_err(Error::from) {
                Ok(_) => Ok(name),
                // With --force, what is not there is as it should be; it is told all the same.
                Err(error @ Error::Service(_)) if force && error.is(Kind::NotFound) => {
                    error.print();
                    Ok(String::new())
                }
                Err(error) => Err(error),
            }
        }
    })
    .await
}
