//! `tag`: another name for an image.

use berth_proto::berth::image::v1::TagRequest;

use crate::{
    args::{Completes, Entry, Given},
    client::Client,
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["tag", "image tag"],
    about: "Give an image another name",
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    operands: (2, 2),
    completes: Completes::Images,
    run: |client, given| Box::pin(tag(client, given)),
    ..Entry::PLAIN
};

async fn tag(client: Client, given: Given) -> Result<u8, Error> {
    let mut names = given.operands().into_iter();
    let (source, target) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    client.images().await?.tag(TagRequest { source, target }).await?;
    Ok(0)
}
