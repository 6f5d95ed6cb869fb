//! Manifests and indexes, OCI and Docker schema 2 (OCI image-spec, "Image Manifest", "Image Index"): what is taken from
//! them, and what is refused.

use berth_core::{Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Larger ones are refused (the specification asks for 4 MiB at least).
pub(crate) const MAX_BYTES: u64 = 8 << 20;
/// An image of more layers than this cannot be mounted (overlayfs takes 500).
const MAX_LAYERS: usize = 500;
const MAX_ENTRIES: usize = 1000;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What old clients call a configuration, or registries in its place; what is in it decides.
const VAGUE_CONFIGS: [&str; 3] = ["application/octet-stream", "application/json", "text/html"];
/// Layers that can be laid down. The compression is found out from the first bytes, whatever stands here.
const LAYERS: [&str; 6] = [
    OCI_LAYER,
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];
/// Layers that lie elsewhere than in the registry, because their owner does not let others hand them on.
const FOREIGN: [&str; 2] =
    ["application/vnd.docker.image.rootfs.foreign.diff.", "application/vnd.oci.image.layer.nondistributable."];

/// What a registry is asked for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                                 application/vnd.docker.distribution.manifest.list.v2+json, \
                                 application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// A pointer to content.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<WirePlatform>,
    #[serde(default, skip_serializing)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.into(), digest, size, platform: None, annotations: None }
    }

    fn platform(&self) -> Option<Platform> {
        let wire = self.platform.clone()?;
        Some(Platform { os: wire.os, architecture: wire.architecture, variant: wire.variant })
    }

    /// Whether it says what it is built for.
    pub(crate) fn has_platform(&self) -> bool {
        self.platform.is_some()
    }

    /// Whether it belongs to an image of the index instead of being one.
    pub(crate) fn is_beside(&self) -> bool {
        let nowhere = self.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown");
        nowhere || self.annotation("vnd.docker.reference.type").is_some()
    }

    /// A value of the descriptor's annotations.
    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct WirePlatform {
    os: String,
    architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    variant: String,
}

/// What a reference names.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// An image for one platform.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    /// Lowest first.
    pub(crate) layers: Vec<Descriptor>,
}

/// A choice of images.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// Reads a manifest or an index that came with this content type (empty where it came with none).
pub(crate) fn parse(bytes: &[u8], content_type: &str, what: &str) -> Result<Document, Error> {
    let unusable = |why: String| Error::Unusable { what: what.into(), why };
    let wire: Wire = serde_json::from_slice(bytes).map_err(|e| unusable(format!("it is no manifest: {e}")))?;
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    let known = |t: &str| [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].contains(&t);
    if let Some(own) = wire.media_type.as_deref()
        && known(content_type)
        && own != content_type
    {
        return Err(unusable(format!("it calls itself {own} and came as {content_type}")));
    }
    if wire.schema_version == 1 {
        return Err(unusable(
            "it is in Docker's schema 1, which is no longer used; push it again with a current client, or convert it with \
             `skopeo copy --format v2s2`"
                .into(),
        ));
    }
    if let Some(manifests) = wire.manifests {
        // What one reader takes for an image and another for an index must not be either (CVE-2021-41190).
        if wire.config.is_some() || wire.layers.is_some() {
            return Err(unusable("it is an index and a manifest at once".into()));
        }
        if manifests.len() > MAX_ENTRIES {
            return Err(unusable(format!("its index has more than {MAX_ENTRIES} entries")));
        }
        return Ok(Document::Index(Index { manifests }));
    }
    let artifact = |kind: &str| unusable(format!("it is no runnable image but an artifact of the type {kind}"));
    let (config, layers) = match (wire.config, wire.layers, &wire.artifact_type) {
        (Some(config), Some(layers), _) => (config, layers),
        (_, _, Some(kind)) => return Err(artifact(kind)),
        _ => return Err(unusable("it has neither manifests nor a configuration and layers".into())),
    };
    if ![OCI_CONFIG, DOCKER_CONFIG].iter().chain(&VAGUE_CONFIGS).any(|known| *known == config.media_type) {
        return Err(artifact(wire.artifact_type.as_deref().unwrap_or(&config.media_type)));
    }
    if layers.len() > MAX_LAYERS {
        return Err(unusable(format!("it has {} layers; at most {MAX_LAYERS} can be mounted", layers.len())));
    }
    // Said before anything of it is fetched.
    if let Some(why) = layers.iter().find_map(refusal) {
        return Err(unusable(why));
    }
    let media_type = wire.media_type.unwrap_or_else(|| match content_type {
        DOCKER_MANIFEST => DOCKER_MANIFEST.into(),
        _ => OCI_MANIFEST.into(),
    });
    Ok(Document::Manifest(Manifest { media_type, config, layers }))
}

/// Why a layer cannot be laid down.
fn refusal(layer: &Descriptor) -> Option<String> {
    let Descriptor { media_type, digest, .. } = layer;
    if LAYERS.contains(&media_type.as_str()) {
        return None;
    }
    Some(if media_type.ends_with("+encrypted") {
        format!("its layer {digest} is encrypted ({media_type}), and there is no key for it here")
    } else if FOREIGN.iter().any(|foreign| media_type.starts_with(foreign)) {
        format!(
            "its layer {digest} is not to be had from registries ({media_type}), as with base images of Windows, whose \
             owner hands them out alone; images for Linux have no such layers: pull another, or build it anew on a base \
             that has none"
        )
    } else {
        format!(
            "its layer {digest} is of the type {media_type:?}, which is no layer of files (a tar of OCI or Docker, plain \
             or with gzip or zstd)"
        )
    })
}

impl Index {
    /// The entry that runs best on `wanted`; attestations are never chosen.
    pub(crate) fn choose(&self, wanted: &Platform, reference: &str) -> Result<&Descriptor, Error> {
        let platform = Descriptor::platform;
        // Attestations, signatures and the like lie beside the images.
        let images: Vec<&Descriptor> = self.manifests.iter().filter(|d| !d.is_beside()).collect();
        let best = images.iter().filter_map(|d| Some((wanted.rank(&platform(d)?)?, *d))).min_by_key(|(rank, _)| *rank);
        if let Some((_, descriptor)) = best {
            return Ok(descriptor);
        }
        // An index of one entry that says nothing leaves no choice; the configuration is checked afterwards.
        if let [only] = images.as_slice()
            && only.platform.is_none()
        {
            return Ok(only);
        }
        let offered: Vec<String> = images.iter().filter_map(|d| platform(d)).map(|p| p.to_string()).collect();
        let offered = if offered.is_empty() { "nothing".into() } else { offered.join(", ") };
        Err(Error::NoPlatform { reference: reference.into(), wanted: wanted.to_string(), offered })
    }
}

/// What is taken from an image's configuration (OCI image-spec, "Image Configuration").
#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) created: Option<String>,
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) variant: String,
    pub(crate) rootfs: RootFs,
    #[serde(default)]
    pub(crate) config: Option<RunConfig>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RunConfig {
    #[serde(default)]
    pub(crate) labels: Option<std::collections::HashMap<String, String>>,
}

impl Config {
    /// Reads a configuration.
    pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Self, Error> {
        serde_json::from_slice(bytes)
            .map_err(|e| Error::Unusable { what: what.into(), why: format!("its configuration is malformed: {e}") })
    }

    /// When it was made, where it says so.
    pub(crate) fn created(&self) -> Option<jiff::Timestamp> {
        self.created.as_deref()?.parse().ok()
    }

    pub(crate) fn platform(&self) -> Platform {
        Platform { os: self.os.clone(), architecture: self.architecture.clone(), variant: self.variant.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn index(entries: &[&str]) -> Index {
        let entries: Vec<String> = entries
            .iter()
            .enumerate()
            .map(|(n, platform)| format!(r#"{{"mediaType":"m","digest":"{DIGEST}","size":{n},{platform}}}"#))
            .collect();
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
        match parse(text.as_bytes(), OCI_INDEX, "x").unwrap() {
            Document::Index(index) => index,
            Document::Manifest(_) => panic!("an index"),
        }
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let index = index(&[
            r#""platform":{"os":"unknown","architecture":"unknown"},"annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#,
            r#""platform":{"os":"linux","architecture":"arm","variant":"v6"}"#,
            r#""platform":{"os":"linux","architecture":"arm","variant":"v7"}"#,
        ]);
        assert_eq!(index.choose(&"linux/arm/v7".parse().unwrap(), "x").unwrap().size, 2);
        let error = index.choose(&"linux/s390x".parse().unwrap(), "x").unwrap_err().to_string();
        assert!(error.contains("linux/s390x") && error.contains("linux/arm/v6"), "{error}");
    }

    #[test]
    fn what_is_no_image_is_refused_with_a_reason() {
        let refuse =
            |text: &str, content_type: &str| parse(text.as_bytes(), content_type, "x").unwrap_err().to_string();
        assert!(refuse(r#"{"schemaVersion":1,"name":"x"}"#, "").contains("schema 1"));
        assert!(refuse("[]", "").contains("no manifest"));
        let helm = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"{DIGEST}","size":2}},"layers":[]}}"#
        );
        assert!(refuse(&helm, "").contains("helm"));
        let signature = r#"{"schemaVersion":2,"artifactType":"application/vnd.example.signature","blobs":[]}"#;
        assert!(refuse(signature, "").contains("an artifact of the type application/vnd.example.signature"));
        let lying = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
        assert!(refuse(&lying, OCI_MANIFEST).contains("came as"));
    }

    #[test]
    fn layers_are_files_in_a_tar_or_refused_by_name() {
        let image = |config: &str, layer: &str| {
            let text = format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"{DIGEST}","size":2}},
                "layers":[{{"mediaType":"{layer}","digest":"{DIGEST}","size":2}}]}}"#
            );
            parse(text.as_bytes(), "", "x").map(|_| ()).map_err(|error| error.to_string())
        };
        for config in [OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream"] {
            for layer in LAYERS {
                image(config, layer).unwrap();
            }
        }
        for (layer, why) in [
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "is encrypted"),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "as with base images of Windows"),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", "as with base images of Windows"),
            ("application/vnd.oci.image.layer.v1.squashfs", "which is no layer of files"),
            ("application/vnd.in-toto+json", "which is no layer of files"),
            ("", "of the type \"\""),
        ] {
            let said = image(OCI_CONFIG, layer).unwrap_err();
            assert!(said.contains(why) && said.contains(layer) && said.contains(DIGEST), "{said}");
        }
    }
}
