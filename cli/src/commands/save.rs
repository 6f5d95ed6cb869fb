//! `save`: images as a tar that `load` reads, and Docker, and whatever reads an OCI layout.

use berth_proto::berth::image::v1::SaveRequest;
use clap::Arg;

use super::destination::Destination;
use crate::{
    args::{Completes, Entry, Given, flag::value},
    client::Client,
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["save", "image save"],
    about: "Write one or more images as a tar",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    operands: (1, usize::MAX),
    flags,
    completes: Completes::Images,
    run: |client, given| Box::pin(save(client, given)),
    ..Entry::PLAIN
};

fn flags() -> Vec<Arg> {
    vec![
        value("output", "string", "Write to this file instead of standard output").short('o'),
        value("platform", "string", "Only where the images are for this platform (os[/arch[/variant]])"),
    ]
}

async fn save(client: Client, given: Given) -> Result<u8, Error> {
    let mut destination = Destination::open(given.text("output"))?;
    let request = SaveRequest { references: given.operands(), platform: given.text_or_empty("platform") };
    let mut answers = client.images().await?.save(request).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        destination.write(&answer.data)?;
    }
    destination.finish()?;
    Ok(0)
}
