//! The documents of an image that is made here: its configuration (OCI image-spec, "Image Configuration") and its
//! manifest.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
};

use berth_core::{Digest, Platform};
use serde_json::{Map, Value, json};

use super::instructions::RunConfig;
use crate::{
    error::Error,
    manifest::{self, Descriptor},
    store::Blobs,
};

/// A step of an image's history.
pub(super) struct Step<'a> {
    pub(super) created: &'a str,
    pub(super) author: &'a str,
    pub(super) comment: &'a str,
    pub(super) created_by: &'a str,
    /// `None` where nothing was written.
    pub(super) layer: Option<&'a Digest>,
}

impl Step<'_> {
    fn history(&self) -> Value {
        let mut entry = Map::new();
        for (key, text) in [
            ("created", self.created),
            ("author", self.author),
            ("created_by", self.created_by),
            ("comment", self.comment),
        ] {
            if !text.is_empty() {
                entry.insert(key.into(), text.into());
            }
        }
        if self.layer.is_none() {
            entry.insert("empty_layer".into(), true.into());
        }
        entry.into()
    }
}

/// The configuration of an image with one more step than `base` has.
pub(super) fn child(base: &[u8], config: RunConfig, step: &Step<'_>) -> Result<Vec<u8>, Error> {
    let malformed = || Error::Made("the configuration of the image that it is made on is malformed".into());
    let mut document: Map<String, Value> = serde_json::from_slice(base).map_err(|_| malformed())?;
    // They speak of the container that the base was made of.
    for key in ["container", "container_config", "id", "parent", "author"] {
        document.remove(key);
    }
    if !step.author.is_empty() {
        document.insert("author".into(), step.author.into());
    }
    document.insert("created".into(), step.created.into());
    document.insert("config".into(), config.into());
    if let Some(layer) = step.layer {
        let diff_ids = document.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids"));
        diff_ids.and_then(Value::as_array_mut).ok_or_else(malformed)?.push(layer.to_string().into());
    }
    match document.get_mut("history").and_then(Value::as_array_mut) {
        Some(history) => history.push(step.history()),
        None => drop(document.insert("history".into(), json!([step.history()]))),
    }
    serde_json::to_vec(&document).map_err(|error| Error::Made(error.to_string()))
}

/// The configuration of an image of one layer.
pub(super) fn first(platform: &Platform, config: RunConfig, step: &Step<'_>) -> Result<Vec<u8>, Error> {
    let mut base = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    if !platform.variant.is_empty() {
        base["variant"] = platform.variant.clone().into();
    }
    child(base.to_string().as_bytes(), config, step)
}

/// The manifest of an image whose layers are these blobs, which are here, but for those that can be packed.
pub(crate) fn manifest(
    blobs: &Blobs,
    config: &Digest,
    config_size: u64,
    layers: &[Digest],
    packed: &BTreeMap<Digest, u64>,
) -> Result<Vec<u8>, Error> {
    let layers = layers.iter().map(|layer| match packed.get(layer) {
        Some(size) => Ok(Descriptor::new(manifest::OCI_LAYER, layer.clone(), *size)),
        None => descriptor(blobs, layer),
    });
    let layers: Vec<Descriptor> = layers.collect::<Result<_, _>>()?;
    let document = json!({
        "schemaVersion": 2,
        "mediaType": manifest::OCI_MANIFEST,
        "config": Descriptor::new(manifest::OCI_CONFIG, config.clone(), config_size),
        "layers": layers,
    });
    serde_json::to_vec(&document).map_err(|error| Error::Made(error.to_string()))
}

/// A layer as it lies here; its first bytes tell how it is compressed.
fn descriptor(blobs: &Blobs, digest: &Digest) -> Result<Descriptor, Error> {
    let path = blobs.find(digest).unwrap_or_else(|| blobs.path(digest));
    let look = || -> io::Result<(u64, Vec<u8>)> {
        let mut file = File::open(&path)?;
        let mut magic = Vec::new();
        file.by_ref().take(4).read_to_end(&mut magic)?;
        Ok((file.metadata()?.len(), magic))
    };
    let (size, magic) = look().map_err(Error::io("cannot read", &path))?;
    let compression = match magic.as_slice() {
        [0x1f, 0x8b, ..] => "+gzip",
        [0x28, 0xb5, 0x2f, 0xfd] => "+zstd",
        _ => "",
    };
    Ok(Descriptor::new(&format!("{}{compression}", manifest::OCI_LAYER), digest.clone(), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_added_and_the_rest_stays() {
        let base = json!({
            "os": "linux", "architecture": "arm64", "author": "them", "container": "x", "os.version": "1",
            "config": {"Cmd": ["old"]}, "rootfs": {"type": "layers", "diff_ids": ["sha256:aa"]},
            "history": [{"created_by": "them"}],
        });
        let layer = Digest::sha256(b"x");
        let config = json!({"Cmd": ["new"]}).as_object().unwrap().clone();
        let step = Step { created: "now", author: "", comment: "why", created_by: "sh", layer: Some(&layer) };
        let read = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        let made = read(child(base.to_string().as_bytes(), config.clone(), &step).unwrap());
        assert_eq!(made["rootfs"]["diff_ids"], json!(["sha256:aa", layer.to_string()]));
        assert_eq!(made["history"][1], json!({"created": "now", "created_by": "sh", "comment": "why"}));
        assert_eq!((&made["os.version"], &made["config"]["Cmd"]), (&json!("1"), &json!(["new"])));
        assert!(made.get("author").is_none() && made.get("container").is_none());
        let empty = read(child(base.to_string().as_bytes(), config.clone(), &Step { layer: None, ..step }).unwrap());
        assert_eq!(empty["history"][1]["empty_layer"], true);
        assert_eq!(empty["rootfs"]["diff_ids"], json!(["sha256:aa"]));
        assert!(
            child(b"{}", config, &Step { created: "", author: "", comment: "", created_by: "", layer: Some(&layer) })
                .is_err()
        );
    }
}
