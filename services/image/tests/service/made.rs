//! Images made for a test.

use std::io::Write as _;

use berth_core::Digest;
use serde_json::json;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) blob: Vec<u8>,
    pub(crate) diff_id: Digest,
    pub(crate) media_type: String,
}

impl Layer {
    /// A layer with one file.
    pub(crate) fn plain(name: &str, content: &[u8]) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).unwrap();
        let blob = tar.into_inner().unwrap();
        Self { diff_id: Digest::sha256(&blob), blob, media_type: LAYER.into() }
    }

    /// A plain layer of about so many bytes that do not compress.
    pub(crate) fn noise(seed: u64, bytes: usize) -> Self {
        Self::plain(&format!("noise-{seed}"), &noise(seed, bytes))
    }

    pub(crate) fn gzip(self) -> Self {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&self.blob).unwrap();
        Self { blob: encoder.finish().unwrap(), media_type: format!("{LAYER}+gzip"), ..self }
    }

    pub(crate) fn zstd(self) -> Self {
        Self { blob: zstd::encode_all(&*self.blob, 1).unwrap(), media_type: format!("{LAYER}+zstd"), ..self }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::sha256(&self.blob)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) media_type: String,
    pub(crate) layers: Vec<Layer>,
}

impl Made {
    pub(crate) fn new(layers: &[Layer]) -> Self {
        Self::with(layers, json!({}))
    }

    /// With further keys of the configuration.
    pub(crate) fn with(layers: &[Layer], more: serde_json::Value) -> Self {
        let diff_ids: Vec<&Digest> = layers.iter().map(|layer| &layer.diff_id).collect();
        let mut config = json!({
            "architecture": "amd64", "os": "linux", "config": {}, "created": "2026-01-02T03:04:05Z",
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Self::of(config.to_string().into_bytes(), layers)
    }

    pub(crate) fn of(config: Vec<u8>, layers: &[Layer]) -> Self {
        let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": Digest::sha256(bytes), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &config),
            "layers": layers.iter().map(|layer| descriptor(&layer.media_type, &layer.blob)).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        Self { config, manifest, media_type: MANIFEST.into(), layers: layers.to_vec() }
    }

    /// As Docker's own formats have it.
    pub(crate) fn docker(self) -> Self {
        let text = String::from_utf8(self.manifest).unwrap();
        let text = text
            .replace(MANIFEST, DOCKER_MANIFEST)
            .replace(CONFIG, "application/vnd.docker.container.image.v1+json")
            .replace(&format!("{LAYER}+gzip"), "application/vnd.docker.image.rootfs.diff.tar.gzip");
        Self { manifest: text.into_bytes(), media_type: DOCKER_MANIFEST.into(), ..self }
    }

    /// With the manifest's text changed.
    pub(crate) fn edited(&self, from: &str, to: &str) -> Self {
        let text = String::from_utf8(self.manifest.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        Self { manifest: text.replacen(from, to, 1).into_bytes(), ..self.clone() }
    }

    pub(crate) fn id(&self) -> Digest {
        Digest::sha256(&self.config)
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.layers.iter().map(|layer| &layer.blob).chain([&self.config])
    }

    /// Bytes of all blobs.
    pub(crate) fn bytes(&self) -> u64 {
        self.blobs().map(|blob| blob.len() as u64).sum()
    }
}

/// Bytes that are the same each time and compress badly.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect()
}
