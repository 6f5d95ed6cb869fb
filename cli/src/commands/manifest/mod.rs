//! Manifests and manifest lists: looked at, and lists made of images that a registry has.

mod edit;
mod inspect;
mod json;
mod local;

use berth_core::{Kind, Reference, reference::InvalidReference};
use berth_proto::berth::image::v1::{ManifestRequest, ManifestResponse};
pub(crate) use edit::{ANNOTATE, CREATE, PUSH, REMOVE};
pub(crate) use inspect::ENTRY as INSPECT;

use crate::{client::Client, credentials, outcome::Error};

fn named(text: &str) -> Result<Reference, Error> {
    Ok(text.parse().map_err(|error: InvalidReference| error.to_string())?)
}

/// What a registry has under a name.
async fn fetch(client: &Client, reference: &Reference, with_config: bool) -> Result<ManifestResponse, Error> {
    let name = reference.to_string();
    let request = ManifestRequest { reference: name.clone(), auth: credentials::find(&name), with_config };
    match client.images().await?.manifest(request).await.map_err(Error::from) {
        Err(error) if error.is(Kind::NotFound) => {
            Err(Error::Invalid(format!("no such manifest: {}", reference.familiar())))
        }
        answer => Ok(answer?.into_inner()),
    }
}
