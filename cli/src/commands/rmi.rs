//! `rmi`: images go.

use berth_core::Kind;
use berth_proto::berth::image::v1::{RemoveRequest, removed::What};
use clap::Arg;

use super::each::each;
use crate::{
    args::{Completes, Entry, Given, flag::switch},
    client::Client,
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["rmi", "image rm", "image remove"],
    about: "Remove one or more images",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    operands: (1, usize::MAX),
    flags,
    completes: Completes::Images,
    run: |client, given| Box::pin(rmi(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        switch("force", "Also where stopped containers use it or it has several names").short('f'),
        switch("no-prune", "Leave what it was built on"),
    ]
}

async fn rmi(client: Client, given: Given) -> Result<u8, Error> {
    let (force, no_prune) = (given.on("force"), given.on("no-prune"));
    let images = client.images().await?;
    // One after the other: two names of one image would compete for which is the last.
    let mut code = 0;
    for name in given.operands() {
        let images = images.clone();
        code |= each(vec![name], move |reference| {
            let request = RemoveRequest { reference, force, no_prune };
            let mut images = images.clone();
            async move {
                let removed = match images.remove(request).await.map_err(Error::from) {
                    // What shall be gone is.
                    Err(error) if force && error.is(Kind::NotFound) => {
                        error.print();
                        return Ok(String::new());
                    }
                    answer => answer?.into_inner().removed,
                };
                let lines = removed.into_iter().filter_map(|one| match one.what? {
                    What::Untagged(name) => Some(format!("Untagged: {name}")),
                    What::Deleted(id) => Some(format!("Deleted: {id}")),
                });
                Ok(lines.collect::<Vec<_>>().join("\n"))
            }
        })
        .await?;
    }
    Ok(code)
}
