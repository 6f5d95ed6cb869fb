//! Loading: an image as a tar, as `docker save` writes it (old and new form) or as an OCI layout, plain or compressed.
//!
//! Names in the archive are only keys: every file goes under a number into a scratch directory, hashed as it is written.
//! What the archive then says about itself is checked against those hashes, and only what fits becomes content.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use berth_core::{Digest, Platform, Reference, digest::Algorithm};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use crate::{
    error::Error,
    images::{Images, blocking},
    manifest::{self, Config, Descriptor, Document},
    snapshots::Arrived,
    store::Record,
};

/// More files than any image has layers, documents and legacy copies.
const MAX_FILES: usize = 10_000;
const MAX_LINKS: usize = 8;
const OCI_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A file of the archive.
#[derive(Debug)]
struct Spooled {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

/// The archive, taken apart.
#[derive(Debug)]
struct Contents {
    directory: PathBuf,
    files: HashMap<String, Spooled>,
    /// Old archives name equal layers by links.
    links: HashMap<String, String>,
}

impl Drop for Contents {
    fn drop(&mut self) {
        // What became content was moved out. What stays behind here is swept at the next start.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// An image of the archive, whose content is in the store.
struct Found {
    record: Record,
    documents: Vec<Bytes>,
    layers: Vec<Descriptor>,
    names: Vec<Reference>,
}

/// Loads every image of an archive; answers with the records and the names that the archive gave them.
pub(crate) async fn load(
    images: &Arc<Images>,
    data: mpsc::Receiver<Result<Bytes, Error>>,
    platform: Platform,
    name: Option<Reference>,
) -> Result<Vec<(Digest, Vec<Reference>)>, Error> {
    let spooling = Arc::clone(images);
    let contents = blocking(move || spool(&spooling, data)).await?;
    let finding = Arc::clone(images);
    let (found, _hold) = blocking(move || {
        let found = find(&finding, &contents, &platform, name.as_ref())?;
        let hold = finding.hold(found.iter().flat_map(|image| image.record.blobs().cloned().collect::<Vec<_>>()));
        for image in &found {
            adopt(&finding, &contents, image)?;
        }
        Ok((found, hold))
    })
    .await?;
    let mut loaded = Vec::new();
    for mut image in found {
        for (layer, diff_id) in image.layers.iter().zip(&image.record.diff_ids) {
            let path = images.store.blobs.find(&layer.digest).unwrap_or_else(|| images.store.blobs.path(&layer.digest));
            let (_sender, whole) = watch::channel(Arrived { bytes: layer.size, whole: true });
            image.record.size += images.snapshots.apply(diff_id, &path, &layer.media_type, layer.size, whole).await?;
        }
        if !image.record.diff_ids.is_empty() {
            images.snapshots.compose(&image.record.diff_ids).await?;
        }
        let id = image.record.id.clone();
        if image.names.is_empty() {
            images.record(image.record, image.documents, None).await?;
        } else {
            for name in &image.names {
                images.record(image.record.clone(), image.documents.clone(), Some(name.clone())).await?;
            }
        }
        loaded.push((id, image.names));
    }
    Ok(loaded)
}

/// Reads the whole stream into the scratch directory.
fn spool(images: &Images, data: mpsc::Receiver<Result<Bytes, Error>>) -> Result<Contents, Error> {
    let directory = images.store.blobs.scratch()?;
    let mut contents = Contents { directory, files: HashMap::new(), links: HashMap::new() };
    let mut stream = Incoming { data, current: Bytes::new(), failure: None };
    let result = read_tar(&mut stream, &mut contents);
    // The caller's own failure explains the tar's.
    match stream.failure {
        Some(failure) => Err(failure),
        None => result.map(|()| contents),
    }
}

fn read_tar(stream: &mut Incoming, contents: &mut Contents) -> Result<(), Error> {
    let malformed = |error: io::Error| Error::Archive(format!("it is no tar, or it is cut off: {error}"));
    let mut archive = tar::Archive::new(decompressed(BufReader::with_capacity(1 << 16, stream)).map_err(malformed)?);
    let mut any = false;
    for entry in archive.entries().map_err(malformed)? {
        let mut entry = entry.map_err(malformed)?;
        any = true;
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                if contents.files.len() >= MAX_FILES {
                    return Err(Error::Archive(format!("it has more than {MAX_FILES} files")));
                }
                let path = contents.directory.join(contents.files.len().to_string());
                let spooled = spool_file(&mut entry, path).map_err(|error| match error {
                    Spooling::Read(error) => malformed(error),
                    Spooling::Write(error, path) => Error::io("cannot write", path)(error),
                })?;
                contents.files.insert(name, spooled);
            }
            tar::EntryType::Symlink | tar::EntryType::Link => {
                if let (Some(target), true) = (entry.link_name_bytes(), contents.links.len() < MAX_FILES) {
                    let target = String::from_utf8_lossy(&target).into_owned();
                    contents.links.insert(name, target);
                }
            }
            _ => {}
        }
    }
    if any { Ok(()) } else { Err(Error::Archive("it is empty".into())) }
}

enum Spooling {
    Read(io::Error),
    Write(io::Error, PathBuf),
}

fn spool_file(entry: &mut impl Read, path: PathBuf) -> Result<Spooled, Spooling> {
    let failed = |error| Spooling::Write(error, path.clone());
    let mut file = File::create_new(&path).map_err(failed)?;
    let mut hasher = Algorithm::Sha256.hasher();
    let (mut size, mut buffer) = (0, vec![0; 1 << 18]);
    loop {
        let read = entry.read(&mut buffer).map_err(Spooling::Read)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        file.write_all(&buffer[..read]).map_err(failed)?;
        size += read as u64;
    }
    Ok(Spooled { path, digest: hasher.finish(), size })
}

fn decompressed<'a>(mut stream: BufReader<&'a mut Incoming>) -> io::Result<Box<dyn Read + 'a>> {
    use std::io::BufRead as _;
    let magic = stream.fill_buf()?;
    if magic.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(flate2::bufread::MultiGzDecoder::new(stream)))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Ok(Box::new(zstd::stream::read::Decoder::with_buffer(stream)?))
    } else {
        Ok(Box::new(stream))
    }
}

/// The archive as it arrives.
struct Incoming {
    data: mpsc::Receiver<Result<Bytes, Error>>,
    current: Bytes,
    failure: Option<Error>,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.data.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(error)) => {
                    self.failure = Some(error);
                    return Err(io::Error::other("the stream broke off"));
                }
            }
        }
        let size = buffer.len().min(self.current.len());
        buffer[..size].copy_from_slice(&self.current.split_to(size));
        Ok(size)
    }
}

impl Contents {
    fn file(&self, name: &str) -> Option<&Spooled> {
        let mut name = name.trim_start_matches("./").to_owned();
        for _ in 0..MAX_LINKS {
            if let Some(file) = self.files.get(&name) {
                return Some(file);
            }
            let target = self.links.get(&name)?;
            name = normal(Path::new(&name).parent().unwrap_or(Path::new("")), target);
        }
        None
    }

    fn read(&self, file: &Spooled) -> Result<Vec<u8>, Error> {
        if file.size > manifest::MAX_BYTES {
            return Err(Error::Archive("one of its documents is larger than 8 MiB".into()));
        }
        fs::read(&file.path).map_err(Error::io("cannot read", &file.path))
    }

    fn by_digest(&self, digest: &Digest) -> Option<&Spooled> {
        self.file(&format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()))
    }

    /// A document of an OCI layout, which must be what its digest says.
    fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let Some(file) = self.by_digest(digest) else { return Ok(None) };
        if file.digest != *digest {
            let (wanted, is) = (digest.to_string(), file.digest.to_string());
            return Err(Error::WrongDigest { what: "a blob of the archive".into(), wanted, is });
        }
        self.read(file).map(Some)
    }
}

/// A path beside another, as a key of the archive.
fn normal(directory: &Path, target: &str) -> String {
    let mut parts: Vec<&str> = directory.to_str().unwrap_or_default().split('/').filter(|p| !p.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn find(
    images: &Images,
    contents: &Contents,
    platform: &Platform,
    name: Option<&Reference>,
) -> Result<Vec<Found>, Error> {
    if let Some(file) = contents.file("manifest.json") {
        let text = contents.read(file)?;
        let entries: Vec<DockerEntry> = serde_json::from_slice(&text)
            .map_err(|e| Error::Archive(format!("its manifest.json is malformed: {e}")))?;
        return entries.iter().map(|entry| docker_image(images, contents, entry)).collect();
    }
    if let Some(file) = contents.file("index.json") {
        return oci_images(contents, &contents.read(file)?, platform, name);
    }
    Err(Error::Archive("it has neither a manifest.json (docker save) nor an index.json (OCI layout)".into()))
}

fn docker_image(images: &Images, contents: &Contents, entry: &DockerEntry) -> Result<Found, Error> {
    let missing = |name: &str| Error::Archive(format!("it names {name:?} and does not have it"));
    let config_file = contents.file(&entry.config).ok_or_else(|| missing(&entry.config))?;
    let config_bytes = contents.read(config_file)?;
    let config = Config::parse(&config_bytes, "the archive's image")?;
    let mut layers = Vec::new();
    for name in &entry.layers {
        let file = contents.file(name).ok_or_else(|| missing(name))?;
        layers.push(Descriptor::new(manifest::OCI_LAYER, file.digest.clone(), file.size));
    }
    let names = entry.repo_tags.iter().flatten().map(|tag| tag.parse()).collect::<Result<Vec<Reference>, _>>()?;
    // docker save's form has no manifest that a registry could serve; this is it.
    let config_descriptor = Descriptor::new(manifest::OCI_CONFIG, config_file.digest.clone(), config_file.size);
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": manifest::OCI_MANIFEST, "config": config_descriptor, "layers": layers,
    });
    let manifest = serde_json::to_vec(&manifest).map_err(|e| Error::Archive(e.to_string()))?;
    images.store.blobs.put(&config_bytes)?;
    found(
        config_file.digest.clone(),
        &config,
        Digest::sha256(&manifest),
        manifest::OCI_MANIFEST,
        layers,
        vec![manifest.into()],
        names,
    )
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
    let mut images = Vec::new();
    for descriptor in &index.manifests {
        let names = match descriptor.annotation(CONTAINERD_NAME).or(descriptor.annotation(OCI_NAME)) {
            Some(text) if !text.is_empty() => named(text, name)?,
            _ => name.cloned().into_iter().collect(),
        };
        let mut descriptor = descriptor.clone();
        let mut documents: Vec<Bytes> = Vec::new();
        for depth in 0.. {
            let missing =
                || Error::Archive(format!("it names the manifest {} and does not have it", descriptor.digest));
            let bytes = contents.document(&descriptor.digest)?.ok_or_else(missing)?;
            documents.push(bytes.clone().into());
            match manifest::parse(&bytes, &descriptor.media_type, "the archive's image")? {
                Document::Index(index) if depth < 4 => descriptor = index.choose(platform, "the archive")?.clone(),
                Document::Index(_) => return Err(Error::Archive("its indexes are nested too deep".into())),
                Document::Manifest(manifest) => {
                    let id = manifest.config.digest.clone();
                    let config = contents.document(&id)?.ok_or_else(|| Error::Archive(format!("it lacks {id}")))?;
                    let config = Config::parse(&config, "the archive's image")?;
                    let (digest, media_type) = (descriptor.digest.clone(), manifest.media_type.clone());
                    images.push(found(id, &config, digest, &media_type, manifest.layers, documents, names)?);
                    break;
                }
            }
        }
    }
    Ok(images)
}

/// The names that an OCI layout's annotation gives: a whole reference, or only a tag for a name given otherwise.
fn named(text: &str, name: Option<&Reference>) -> Result<Vec<Reference>, Error> {
    if let Some(name) = name {
        return Ok(vec![name.clone()]);
    }
    // "latest" alone is a tag of nothing.
    if !text.contains([':', '/']) {
        return Ok(Vec::new());
    }
    Ok(vec![text.parse()?])
}

fn found(
    id: Digest,
    config: &Config,
    manifest: Digest,
    media_type: &str,
    layers: Vec<Descriptor>,
    documents: Vec<Bytes>,
    names: Vec<Reference>,
) -> Result<Found, Error> {
    let diff_ids = config.rootfs.diff_ids.clone();
    if diff_ids.len() != layers.len() {
        return Err(Error::Archive(format!("an image has {} layers and {} diff IDs", layers.len(), diff_ids.len())));
    }
    let record = Record {
        id,
        names: Default::default(),
        repo_digests: Default::default(),
        manifest,
        manifest_media_type: media_type.into(),
        index: None,
        layers: layers.iter().map(|layer| layer.digest.clone()).collect(),
        diff_ids,
        size: 0,
        last_tagged: 0,
    };
    Ok(Found { record, documents, layers, names })
}

/// Moves an image's files into the content store.
fn adopt(images: &Images, contents: &Contents, image: &Found) -> Result<(), Error> {
    let by_hash: HashMap<&Digest, &Spooled> = contents.files.values().map(|file| (&file.digest, file)).collect();
    for digest in [&image.record.id].into_iter().chain(&image.record.layers) {
        if images.store.blobs.find(digest).is_some() {
            continue;
        }
        let file = by_hash.get(digest).ok_or_else(|| Error::Archive(format!("it lacks {digest}")))?;
        images.store.blobs.adopt(&file.path, digest)?;
    }
    Ok(())
}
