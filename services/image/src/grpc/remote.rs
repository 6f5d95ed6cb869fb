//! `Tags`, `Manifest` and `Search`.

use std::sync::Arc;

use berth_core::Reference;
use berth_proto::berth::image::v1::{
    ManifestRequest, ManifestResponse, SearchRequest, SearchResponse, SearchResult, TagsRequest, TagsResponse,
};

use crate::{error::Error, images::Images, registry::Credentials, remote};

pub(super) async fn tags(images: &Arc<Images>, request: TagsRequest) -> Result<TagsResponse, Error> {
    let reference: Reference = request.repository.parse()?;
    let credentials = request.auth.and_then(Credentials::from_wire);
    Ok(TagsResponse { tags: remote::tags(images, &reference, credentials.as_ref()).await? })
}

pub(super) async fn manifest(images: &Arc<Images>, request: ManifestRequest) -> Result<ManifestResponse, Error> {
    let reference: Reference = request.reference.parse()?;
    let credentials = request.auth.and_then(Credentials::from_wire);
    let served = remote::manifest(images, &reference, credentials.as_ref()).await?;
    Ok(ManifestResponse { manifest: served.bytes, media_type: served.content_type, digest: served.digest.to_string() })
}

pub(super) async fn search(images: &Arc<Images>, request: SearchRequest) -> Result<SearchResponse, Error> {
    let SearchRequest { term, limit, filters, auth } = request;
    let credentials = auth.and_then(Credentials::from_wire);
    let found = remote::search(images, &term, limit, &filters, credentials.as_ref()).await?;
    let results = found.into_iter().map(|found| SearchResult {
        name: found.name,
        description: found.description,
        stars: found.stars,
        official: found.official,
        automated: found.automated,
    });
    Ok(SearchResponse { results: results.collect() })
}
