//! What a push brings: the manifest and its blobs, and where the registry may have them already.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use berth_core::{Digest, Reference};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    error::Error,
    images::{Images, blocking},
    making::{self, Packed},
    manifest::{self, Descriptor, Document, Manifest},
    store::{All, Record},
};

/// All of a push.
pub(super) struct Plan {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    /// The manifest.
    pub(super) bytes: Bytes,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Layer>,
}

/// A layer of it.
pub(super) struct Layer {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
    pub(super) source: Source,
}

/// Where the bytes of a layer are.
pub(super) enum Source {
    Blob(PathBuf),
    /// Compressed for this push.
    Made(Packed),
    /// Pushed before, and to be packed again where the registry lacks it: the layer.
    Packable(Digest),
}

impl Source {
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Blob(path) => Some(path),
            Self::Made(packed) => Some(packed.path()),
            Self::Packable(_) => None,
        }
    }
}

/// The image must be held.
pub(super) async fn plan(images: &Arc<Images>, record: &Record) -> Result<Plan, Error> {
    let (mut media_type, mut bytes, mut own) = own(images, record).await?;
    let mut made = BTreeMap::new();
    for layer in record.packed.keys() {
        if own.layers.iter().any(|descriptor| descriptor.digest == *layer) {
            made.insert(layer.clone(), Packed::compressed(images, layer).await?);
        }
    }
    if !made.is_empty() {
        (media_type, bytes) = (own.media_type.clone(), exchanged(&bytes, &made)?.into());
        own = parsed(&bytes, &media_type)?;
    }
    let mut layers = Vec::new();
    for ((descriptor, diff_id), here) in own.layers.into_iter().zip(&record.diff_ids).zip(&record.layers) {
        let source = match made.remove(here) {
            Some(packed) => Source::Made(packed),
            None if record.packed.contains_key(here) => Source::Packable(here.clone()),
            None => {
                let blobs = &images.store.blobs;
                Source::Blob(blobs.find(here).unwrap_or_else(|| blobs.path(here)))
            }
        };
        layers.push(Layer { descriptor, diff_id: diff_id.clone(), source });
    }
    Ok(Plan { media_type, digest: Digest::sha256(&bytes), bytes, config: own.config, layers })
}

/// The image's manifest, where it names the very blobs that are here or can be made; else one that does.
async fn own(images: &Arc<Images>, record: &Record) -> Result<(String, Bytes, Manifest), Error> {
    let (images, record) = (Arc::clone(images), record.clone());
    blocking(move || {
        let blobs = &images.store.blobs;
        let bytes = blobs.read(&record.manifest)?;
        if let Ok(Document::Manifest(own)) = manifest::parse(&bytes, &record.manifest_media_type, "the image")
            && own.config.digest == record.id
            && own.layers.len() == record.layers.len()
            && own
                .layers
                .iter()
                .zip(&record.layers)
                .all(|(d, here)| d.digest == *here || record.packed.contains_key(here))
        {
            return Ok((record.manifest_media_type.clone(), bytes.into(), own));
        }
        let size = blobs.read(&record.id)?.len() as u64;
        let bytes = making::manifest(blobs, &record.id, size, &record.layers, &record.packed)?;
        let own = parsed(&bytes, manifest::OCI_MANIFEST)?;
        Ok((manifest::OCI_MANIFEST.into(), bytes.into(), own))
    })
    .await
}

fn parsed(bytes: &[u8], media_type: &str) -> Result<Manifest, Error> {
    match manifest::parse(bytes, media_type, "the image")? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => Err(Error::Made("its manifest is an index".into())),
    }
}

/// The manifest with compressed layers in the places of plain ones.
fn exchanged(bytes: &[u8], made: &BTreeMap<Digest, Packed>) -> Result<Vec<u8>, Error> {
    let broken = |error: serde_json::Error| Error::Made(error.to_string());
    let mut document: Value = serde_json::from_slice(bytes).map_err(broken)?;
    for layer in document["layers"].as_array_mut().into_iter().flatten() {
        let digest = layer["digest"].as_str().and_then(|digest| digest.parse::<Digest>().ok());
        if let Some(packed) = digest.and_then(|digest| made.get(&digest)) {
            let (digest, size) = packed.content();
            *layer = json!({ "mediaType": format!("{}+gzip", manifest::OCI_LAYER), "digest": digest, "size": size });
        }
    }
    serde_json::to_vec(&document).map_err(broken)
}

/// Repositories of one registry by the blobs that they have, as far as is known from what was pulled and pushed.
pub(super) struct Sources(BTreeMap<Digest, BTreeSet<String>>);

/// More than this are not asked for one blob.
const MOUNTS: usize = 3;

impl Sources {
    /// Repositories to mount a blob from.
    pub(super) fn of(&self, digest: &Digest) -> Vec<String> {
        self.0.get(digest).into_iter().flatten().take(MOUNTS).cloned().collect()
    }
}

/// What other repositories of the registry of `reference` have.
pub(super) fn sources(all: &All, reference: &Reference) -> Sources {
    let mut sources: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
    for record in all.values() {
        let known = record.repo_digests.iter().filter_map(|name| name.parse::<Reference>().ok());
        for known in known.filter(|known| known.domain() == reference.domain() && known.path() != reference.path()) {
            for layer in record.kept_layers() {
                sources.entry(layer.clone()).or_default().insert(known.path().to_owned());
            }
        }
    }
    Sources(sources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::tests::{all, record};

    #[test]
    fn other_repositories_of_the_same_registry_are_sources() {
        let layer = Digest::sha256(b"layer");
        let mut one = record("one", &[]);
        one.layers = vec![layer.clone()];
        let digest = Digest::sha256(b"m");
        for name in ["r.lan/a/b", "r.lan/c", "elsewhere.lan/d"] {
            one.repo_digests.insert(format!("{name}@{digest}"));
        }
        let found = sources(&all(&[one]), &"r.lan/c:1".parse().unwrap());
        assert_eq!(found.of(&layer), ["a/b"]);
        assert!(found.of(&digest).is_empty());
    }
}
