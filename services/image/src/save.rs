//! Save: images as one tar that is both what `docker save` writes (manifest.json) and an OCI layout (index.json). Every
//! blob is in it once, and the same images give the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use berth_core::{Digest, Reference};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    error::Error,
    held::Hold,
    images::{Images, blocking},
    making::{self, Packed},
    manifest::{self, Document},
    store::{All, Record},
};

/// Bytes of a piece.
const PIECE: usize = 256 << 10;

/// An image and the names that it is saved under.
type Chosen = BTreeMap<Digest, (Record, BTreeSet<String>)>;

/// Writes images as a tar.
///
/// Where a platform is given, all of them must be for it.
pub(crate) async fn save(
    images: &Arc<Images>,
    texts: &[String],
    platform: &str,
    out: mpsc::Sender<Bytes>,
) -> Result<(), Error> {
    if texts.is_empty() {
        return Err(Error::Request("no image is named"));
    }
    let (choosing, texts) = (Arc::clone(images), texts.to_vec());
    let (chosen, _hold) = blocking(move || choose_held(&choosing, &texts)).await?;
    for id in chosen.keys() {
        images.find_for(&id.to_string(), platform).await?;
    }
    let mut packed = BTreeMap::new();
    for (record, _) in chosen.values().filter(|(record, _)| !record.packed.is_empty()) {
        let _stack = images.hold_stack(&record.diff_ids).await;
        for layer in record.packed.keys() {
            if !packed.contains_key(layer) {
                packed.insert(layer.clone(), Packed::of(images, layer).await?);
            }
        }
    }
    let images = Arc::clone(images);
    blocking(move || {
        let archive = Archive::of(&images, &chosen, &packed)?;
        archive.write(Pieces { out, piece: Vec::with_capacity(PIECE) })
    })
    .await
}

/// The images, whose content stays until the answer is dropped.
fn choose_held(images: &Images, texts: &[String]) -> Result<(Chosen, Hold), Error> {
    let mut hold = images.held.hold([]);
    loop {
        let chosen = choose(&images.store.records.all(), texts)?;
        let before = std::mem::replace(
            &mut hold,
            images.held.hold(chosen.values().flat_map(|(record, _)| record.blobs().cloned().collect::<Vec<_>>())),
        );
        drop(before);
        // One that was removed before it was held is not there any more now.
        let now = images.store.records.all();
        if chosen.iter().all(|(id, (record, _))| now.get(id).is_some_and(|n| n.blobs().eq(record.blobs()))) {
            return Ok((chosen, hold));
        }
    }
}

/// By a name with a tag that name, by a repository's all of its tags, by an ID none.
fn choose(all: &All, texts: &[String]) -> Result<Chosen, Error> {
    let mut chosen = Chosen::new();
    let mut add = |record: &Record, name: Option<&String>| {
        let (_, names) = chosen.entry(record.id.clone()).or_insert_with(|| (record.clone(), BTreeSet::new()));
        names.extend(name.cloned());
    };
    for text in texts {
        if let Ok(reference) = text.parse::<Reference>() {
            let only_named = reference.digest().is_none() && !text.rsplit('/').next().unwrap_or_default().contains(':');
            let repository = format!("{}:", reference.repository());
            let tags = |record: &&Record| record.names.iter().any(|name| name.starts_with(&repository));
            let of: Vec<&Record> = if only_named { all.values().filter(tags).collect() } else { Vec::new() };
            for record in &of {
                record.names.iter().filter(|name| name.starts_with(&repository)).for_each(|n| add(record, Some(n)));
            }
            if !of.is_empty() {
                continue;
            }
        }
        let record = crate::images::find_in(all, text)?;
        let record = record.ok_or_else(|| Error::NotFound { reference: text.clone() })?;
        let named = text.parse::<Reference>().ok().map(|reference| reference.to_string());
        add(record, named.as_ref().filter(|name| record.names.contains(*name)));
    }
    Ok(chosen)
}

/// What goes into the tar, by name.
struct Archive(BTreeMap<String, Content>);

enum Content {
    Document(Vec<u8>),
    Blob(PathBuf),
}

fn name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

impl Archive {
    fn of(images: &Images, chosen: &Chosen, packed: &BTreeMap<Digest, Packed>) -> Result<Self, Error> {
        let blobs = &images.store.blobs;
        let mut files = BTreeMap::new();
        let (mut entries, mut descriptors): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (record, names) in chosen.values() {
            let config = blobs.read(&record.id)?;
            let (media_type, document) = own_manifest(images, record, config.len() as u64)?;
            let digest = Digest::sha256(&document);
            for layer in &record.layers {
                let path = match packed.get(layer) {
                    Some(packed) => packed.path().to_owned(),
                    None => blobs.find(layer).unwrap_or_else(|| blobs.path(layer)),
                };
                files.insert(name(layer), Content::Blob(path));
            }
            files.insert(name(&record.id), Content::Document(config));
            let tags: Vec<Reference> = names.iter().filter_map(|name| name.parse().ok()).collect();
            entries.push(json!({
                "Config": name(&record.id),
                "RepoTags": if tags.is_empty() { Value::Null } else { tags.iter().map(Reference::familiar).collect() },
                "Layers": record.layers.iter().map(name).collect::<Vec<_>>(),
            }));
            let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": document.len() });
            if tags.is_empty() {
                descriptors.push(descriptor.clone());
            }
            for tag in &tags {
                let mut named = descriptor.clone();
                named["annotations"] = json!({
                    "io.containerd.image.name": tag.to_string(),
                    "org.opencontainers.image.ref.name": tag.tag().unwrap_or("latest"),
                });
                descriptors.push(named);
                if let Some(top) = record.layers.last() {
                    let repository = repositories.entry(tag.familiar_repository()).or_default();
                    repository.insert(tag.tag().unwrap_or("latest").into(), top.hex().into());
                }
            }
            files.insert(name(&digest), Content::Document(document));
        }
        let index = json!({ "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": descriptors });
        let mut document =
            |name: &str, value: Value| files.insert(name.into(), Content::Document(value.to_string().into()));
        document("index.json", index);
        document("manifest.json", entries.into());
        document("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }));
        if !repositories.is_empty() {
            document("repositories", json!(repositories));
        }
        Ok(Self(files))
    }

    fn write(&self, out: Pieces) -> Result<(), Error> {
        // Beside the disk only a caller that goes away can stop this.
        let gone = |_: io::Error| Error::Cancelled;
        let mut tar = tar::Builder::new(out);
        let mut directories = BTreeSet::new();
        for (name, content) in &self.0 {
            for (end, _) in name.match_indices('/') {
                if directories.insert(&name[..=end]) {
                    let mut header = header(0, 0o755);
                    header.set_entry_type(tar::EntryType::Directory);
                    tar.append_data(&mut header, &name[..=end], io::empty()).map_err(gone)?;
                }
            }
            match content {
                Content::Document(bytes) => {
                    tar.append_data(&mut header(bytes.len() as u64, 0o644), name, bytes.as_slice()).map_err(gone)?;
                }
                Content::Blob(path) => {
                    let open = || File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
                    let (size, file) = open().map_err(Error::io("cannot read", path))?;
                    tar.append_data(&mut header(size, 0o644), name, file).map_err(|error| match error.kind() {
                        io::ErrorKind::BrokenPipe => Error::Cancelled,
                        _ => Error::io("cannot read", path)(error),
                    })?;
                }
            }
        }
        let mut pieces = tar.into_inner().map_err(gone)?;
        pieces.flush().map_err(gone)
    }
}

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// The image's manifest, where it names the very blobs that are here; else one that does.
fn own_manifest(images: &Images, record: &Record, config_size: u64) -> Result<(String, Vec<u8>), Error> {
    let blobs = &images.store.blobs;
    let bytes = blobs.read(&record.manifest)?;
    let parsed = manifest::parse(&bytes, &record.manifest_media_type, "the image");
    if let Ok(Document::Manifest(own)) = parsed
        && own.config.digest == record.id
        && own.layers.iter().map(|layer| &layer.digest).eq(&record.layers)
    {
        return Ok((record.manifest_media_type.clone(), bytes));
    }
    let made = making::manifest(blobs, &record.id, config_size, &record.layers, &record.packed)?;
    Ok((manifest::OCI_MANIFEST.into(), made))
}

/// A stream that leaves in large pieces.
struct Pieces {
    out: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..size]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        if piece.is_empty() {
            return Ok(());
        }
        self.out.blocking_send(piece.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::tests::{all, record};

    #[test]
    fn names_choose_as_in_docker() {
        let one = record("one", &["a:1", "a:2", "b:1"]);
        let two = record("two", &["a:3"]);
        let images = all(&[one.clone(), two.clone()]);
        let names = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let chosen = choose(&images, &texts)?;
            Ok::<_, Error>(chosen.into_values().flat_map(|(_, names)| names).collect::<BTreeSet<_>>())
        };
        let of = |names: &[&str]| names.iter().map(|name| format!("docker.io/library/{name}")).collect::<BTreeSet<_>>();
        assert_eq!(names(&["a:1"]).unwrap(), of(&["a:1"]));
        assert_eq!(names(&["a"]).unwrap(), of(&["a:1", "a:2", "a:3"]));
        assert_eq!(names(&[&one.id.hex()[..12], "b:1"]).unwrap(), of(&["b:1"]));
        assert_eq!(names(&[&two.id.to_string()]).unwrap(), of(&[]));
        assert!(matches!(names(&["c"]), Err(Error::NotFound { .. })));
    }
}
