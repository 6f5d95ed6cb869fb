//! `tag`: another name for an image.

use berth_core::{Reference, reference::InvalidReference};
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
    if let Err(error) = source.parse::<Reference>()
        && !source.starts_with("sha256:")
        && !source.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Err(invalid(&source, &error));
    }
    match target.parse::<Reference>() {
        Err(error) => return Err(invalid(&target, &error)),
        Ok(name) if name.digest().is_some() => {
            return Err(Error::Invalid("refusing to create a tag with a digest reference".into()));
        }
        Ok(_) => {}
    }
    client.images().await?.tag(TagRequest { source, target }).await?;
    Ok(0)
}

fn invalid(name: &str, error: &InvalidReference) -> Error {
    Error::Invalid(format!("Error parsing reference: {name:?} is not a valid repository/tag: {error}"))
}
