//! The images of an archive: what `docker save`'s manifest.json or an OCI layout's index.json says there is.

use std::collections::BTreeMap;

use berth_core::{Digest, Platform, Reference};
use bytes::Bytes;
use serde::Deserialize;

use super::contents::{Contents, Spooled};
use crate::{
    error::Error,
    manifest::{self, Config, Descriptor, Document, Index},
    store::Record,
};

const OCI_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Indexes may point to indexes; more than this is a loop or an attack.
const MAX_DEPTH: usize = 4;

/// An image of the archive, not yet in the store.
pub(super) struct Found {
    pub(super) record: Record,
    pub(super) documents: Vec<(Digest, Bytes)>,
    pub(super) layers: Vec<Descriptor>,
    pub(super) names: Vec<Reference>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Every image that the archive says it has. Blocks.
pub(super) fn find(contents: &Contents, platform: &Platform, name: Option<&Reference>) -> Result<Vec<Found>, Error> {
    if let Some(file) = contents.file("manifest.json") {
        let text = contents.read(file)?;
        let entries: Vec<DockerEntry> = serde_json::from_slice(&text)
            .map_err(|e| Error::Archive(format!("its manifest.json is malformed: {e}")))?;
        return entries.iter().map(|entry| docker_image(contents, entry)).collect();
    }
    if let Some(file) = contents.file("index.json") {
        return oci_images(contents, &contents.read(file)?, platform, name);
    }
    Err(Error::Archive("it has neither a manifest.json (docker save) nor an index.json (OCI layout)".into()))
}

fn docker_image(contents: &Contents, entry: &DockerEntry) -> Result<Found, Error> {
    let file = |name: &str| {
        let file =
            contents.file(name).ok_or_else(|| Error::Archive(format!("it names {name:?} and does not have it")))?;
        check_name(name, file)?;
        Ok::<_, Error>(file)
    };
    let config_file = file(&entry.config)?;
    let config = Config::parse(&contents.read(config_file)?, "the archive's image")?;
    let mut layers = Vec::new();
    for name in &entry.layers {
        let file = file(name)?;
        layers.push(Descriptor::new(manifest::OCI_LAYER, file.digest.clone(), file.size));
    }
    let names = entry.repo_tags.iter().flatten().map(|tag| tag.parse()).collect::<Result<Vec<Reference>, _>>()?;
    // docker save's form has no manifest that a registry could serve; this is it.
    let config_descriptor = Descriptor::new(manifest::OCI_CONFIG, config_file.digest.clone(), config_file.size);
    let document = serde_json::json!({
        "schemaVersion": 2, "mediaType": manifest::OCI_MANIFEST, "config": config_descriptor, "layers": layers,
    });
    let document = serde_json::to_vec(&document).map_err(|e| Error::Archive(e.to_string()))?;
    let documents = vec![(Digest::sha256(&document), document.into())];
    found(config_file.digest.clone(), &config, manifest::OCI_MANIFEST, layers, documents, names)
}

/// A file whose name is a digest (`blobs/sha256/…`, `….json`) has that content.
fn check_name(name: &str, file: &Spooled) -> Result<(), Error> {
    let last = name.rsplit('/').next().unwrap_or_default();
    let hex = last.strip_suffix(".json").unwrap_or(last);
    match format!("sha256:{hex}").parse::<Digest>() {
        Ok(wanted) if wanted != file.digest => {
            let (wanted, is) = (wanted.to_string(), file.digest.to_string());
            Err(Error::WrongDigest { what: format!("the archive's {name:?}"), wanted, is })
        }
        _ => Ok(()),
    }
}

fn oci_images(
    contents: &Contents,
    index: &[u8],
    platform: &Platform,
    name: Option<&Reference>,
) -> Result<Vec<Found>, Error> {
    let Document::Index(index) = manifest::parse(index, manifest::OCI_INDEX, "the archive's index.json")? else {
        return Err(Error::Archive("its index.json is no index".into()));
    };
    // Several entries of one name are one image for several platforms.
    let mut images: BTreeMap<Option<String>, Vec<Descriptor>> = BTreeMap::new();
    for descriptor in index.manifests.into_iter().filter(|descriptor| !descriptor.is_beside()) {
        let text = descriptor.annotation(CONTAINERD_NAME).or(descriptor.annotation(OCI_NAME));
        images.entry(text.filter(|text| !text.is_empty()).map(str::to_owned)).or_default().push(descriptor);
    }
    let mut all = Vec::new();
    for (text, entries) in images {
        let names = named(text.as_deref(), name)?;
        let choices = match entries.len() {
            1 => entries,
            _ if entries.iter().all(Descriptor::has_platform) => {
                vec![Index { manifests: entries }.choose(platform, "the archive")?.clone()]
            }
            _ => entries,
        };
        for descriptor in choices {
            all.push(oci_image(contents, descriptor, platform, names.clone())?);
        }
    }
    Ok(all)
}

/// Follows indexes to the platform's image.
fn oci_image(
    contents: &Contents,
    mut descriptor: Descriptor,
    platform: &Platform,
    names: Vec<Reference>,
) -> Result<Found, Error> {
    let mut documents: Vec<(Digest, Bytes)> = Vec::new();
    for _ in 0..MAX_DEPTH {
        let lacks = |digest: &Digest| Error::Archive(format!("it names {digest} and does not have it"));
        let bytes = contents.document(&descriptor.digest)?.ok_or_else(|| lacks(&descriptor.digest))?;
        documents.push((descriptor.digest.clone(), bytes.clone().into()));
        match manifest::parse(&bytes, &descriptor.media_type, "the archive's image")? {
            Document::Index(index) => descriptor = index.choose(platform, "the archive")?.clone(),
            Document::Manifest(manifest) => {
                let id = manifest.config.digest.clone();
                let config = contents.document(&id)?.ok_or_else(|| lacks(&id))?;
                let config = Config::parse(&config, "the archive's image")?;
                // Of several indexes only the outermost is kept with the image.
                if documents.len() > 2 {
                    documents.drain(1..documents.len() - 1);
                }
                return found(id, &config, &manifest.media_type, manifest.layers, documents, names);
            }
        }
    }
    Err(Error::Archive("its indexes are nested too deep".into()))
}

/// The names that an OCI layout's annotation gives: a whole reference, or only a tag for a name given otherwise.
fn named(text: Option<&str>, name: Option<&Reference>) -> Result<Vec<Reference>, Error> {
    match text {
        Some(text) if text.contains([':', '/']) => Ok(vec![text.parse()?]),
        // "latest" alone is a tag of nothing.
        _ => Ok(name.cloned().into_iter().collect()),
    }
}

/// The documents are the index, where there is one, and the manifest.
fn found(
    id: Digest,
    config: &Config,
    media_type: &str,
    layers: Vec<Descriptor>,
    documents: Vec<(Digest, Bytes)>,
    names: Vec<Reference>,
) -> Result<Found, Error> {
    let diff_ids = config.rootfs.diff_ids.clone();
    if diff_ids.len() != layers.len() {
        return Err(Error::Archive(format!("an image has {} layers and {} diff IDs", layers.len(), diff_ids.len())));
    }
    let index = documents.first().filter(|_| documents.len() > 1).map(|(digest, _)| digest.clone());
    let manifest = documents.last().map(|(digest, _)| digest.clone()).unwrap_or_else(|| id.clone());
    let record = Record {
        id,
        names: Default::default(),
        repo_digests: Default::default(),
        manifest,
        manifest_media_type: media_type.into(),
        index,
        layers: layers.iter().map(|layer| layer.digest.clone()).collect(),
        packed: Default::default(),
        diff_ids,
        size: 0,
        last_tagged: 0,
        parent: None,
    };
    Ok(Found { record, documents, layers, names })
}
