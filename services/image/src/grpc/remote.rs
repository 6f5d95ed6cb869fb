//! `Tags`, `Manifest` and `Search`.

use std::sync::Arc;

use berth_core::Reference;
use berth_proto::berth::image::v1::{
    ManifestRequest, ManifestResponse, PutManifestListRequest, PutManifestListResponse, SearchRequest, SearchResponse,
    SearchResult, TagsRequest, TagsResponse,
};

use crate::{
    error::Error,
    images::Images,
    registry::Credentials,
    remote::{self, Listed},
};

pub(super) async fn tags(images: &Arc<Images>, request: TagsRequest) -> Result<TagsResponse, Error> {
    let reference: Reference = request.repository.parse()?;
    let credentials = request.auth.and_then(Credentials::from_wire);
    Ok(TagsResponse { tags: remote::tags(images, &reference, credentials.as_ref()).await? })
}

pub(super) async fn manifest(images: &Arc<Images>, request: ManifestRequest) -> Result<ManifestResponse, Error> {
    let reference: Reference = request.reference.parse()?;
    let credentials = request.auth.and_then(Credentials::from_wire);
    let (served, config) = remote::manifest(images, &reference, credentials.as_ref(), request.with_config).await?;
    Ok(ManifestResponse {
        manifest: served.bytes,
        media_type: served.content_type,
        digest: served.digest.to_string(),
        config,
    })
}

pub(super) async fn put_list(
    images: &Arc<Images>,
    request: PutManifestListRequest,
) -> Result<PutManifestListResponse, Error> {
    let reference: Reference = request.reference.parse()?;
    if reference.digest().is_some() {
        return Err(Error::Request("a manifest list is put under a tag"));
    }
    let credentials = request.auth.and_then(Credentials::from_wire);
    let listed = request.manifests.into_iter().map(|one| {
        Ok(Listed { reference: one.reference.parse()?, media_type: one.media_type, manifest: one.manifest })
    });
    let listed: Vec<Listed> = listed.collect::<Result<_, Error>>()?;
    let list = (request.media_type.as_str(), &request.list);
    let digest = remote::put_list(images, &reference, credentials.as_ref(), &listed, list).await?;
    Ok(PutManifestListResponse { digest: digest.to_string() })
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
