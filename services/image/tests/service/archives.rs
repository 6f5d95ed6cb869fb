//! Archives made for a test, in every form that there is.

use std::io::Write as _;

use berth_core::Digest;
use serde_json::json;

use crate::made::{INDEX, Made};

/// A tar with whatever is put into it.
pub(crate) struct Archive(tar::Builder<Vec<u8>>);

impl Default for Archive {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Archive {
    pub(crate) fn file(mut self, name: &str, content: &[u8]) -> Self {
        let mut header = header(tar::EntryType::Regular, name);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn link(mut self, name: &str, target: &str, hard: bool) -> Self {
        let mut header = header(if hard { tar::EntryType::Link } else { tar::EntryType::Symlink }, name);
        header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_size(0);
        header.set_cksum();
        self.0.append(&header, &[][..]).unwrap();
        self
    }

    /// Says that it has so many bytes, and has none.
    pub(crate) fn claiming(mut self, kind: tar::EntryType, name: &str, bytes: u64) -> Vec<u8> {
        let mut header = header(kind, name);
        header.set_size(bytes);
        header.set_cksum();
        self.0.get_mut().extend_from_slice(header.as_bytes());
        std::mem::take(self.0.get_mut())
    }

    pub(crate) fn tar(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// Names as they are given: the library would refuse some.
fn header(kind: tar::EntryType, name: &str) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header
}

/// `docker save` before version 25: layers as ID/layer.tar, equal ones as links.
pub(crate) fn old(images: &[(&Made, &[&str])]) -> Vec<u8> {
    let mut archive = Archive::default();
    let mut entries = Vec::new();
    let mut first: Vec<(Digest, String)> = Vec::new();
    for (number, (made, tags)) in images.iter().enumerate() {
        let mut layers = Vec::new();
        for (at, layer) in made.layers.iter().enumerate() {
            let name = format!("{number}{at}/layer.tar");
            archive = match first.iter().find(|(digest, _)| *digest == layer.digest()) {
                Some((_, other)) => archive.link(&name, &format!("../{other}"), false),
                None => archive.file(&name, &layer.blob),
            };
            first.push((layer.digest(), name.clone()));
            layers.push(name);
        }
        let config = format!("{}.json", made.id().hex());
        archive = archive.file(&config, &made.config);
        entries.push(json!({ "Config": config, "RepoTags": tags, "Layers": layers }));
    }
    archive.file("manifest.json", json!(entries).to_string().as_bytes()).tar()
}

/// `docker save` since version 25: an OCI layout with a manifest.json that points into it.
pub(crate) fn hybrid(made: &Made, tags: &[&str]) -> Vec<u8> {
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let layers: Vec<String> = made.layers.iter().map(|layer| path(&layer.digest())).collect();
    let entries = json!([{ "Config": path(&made.id()), "RepoTags": tags, "Layers": layers }]);
    with_blobs(made).file("manifest.json", entries.to_string().as_bytes()).tar()
}

/// An OCI layout; entries of the index with their annotations and platforms.
pub(crate) fn layout(images: &[(&Made, serde_json::Value)]) -> Vec<u8> {
    let mut archive = Archive::default();
    let mut manifests = Vec::new();
    for (made, more) in images {
        let mut inner = tar::Archive::new(std::io::Cursor::new(with_blobs(made).tar()));
        for entry in inner.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            if manifests.is_empty() || name.starts_with("blobs/") {
                archive = archive.file(&name, &content);
            }
        }
        let mut entry = json!({ "mediaType": made.media_type, "digest": made.digest(), "size": made.manifest.len() });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        manifests.push(entry);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    archive.file("index.json", index.to_string().as_bytes()).tar()
}

fn with_blobs(made: &Made) -> Archive {
    let mut archive = Archive::default().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let mut names = std::collections::BTreeSet::new();
    for blob in made.blobs().chain([&made.manifest]) {
        let name = format!("blobs/sha256/{}", Digest::sha256(blob).hex());
        if names.insert(name.clone()) {
            archive = archive.file(&name, blob);
        }
    }
    archive
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
