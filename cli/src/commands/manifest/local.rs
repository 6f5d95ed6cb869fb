//! Lists that are being made: a directory for each, a file for each of its manifests, where Docker's program has them
//! (`manifests` beside its `config.json`) and in its form.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use berth_core::{Digest, Reference};
use berth_proto::berth::image::v1::ManifestResponse;
use serde_json::{Value, json};

use crate::{credentials, outcome::Error};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A list; its directory may not be there.
pub(super) struct List {
    name: Reference,
    directory: PathBuf,
}

/// A manifest of a list.
pub(super) struct Member {
    pub(super) name: Reference,
    pub(super) media_type: String,
    pub(super) raw: Vec<u8>,
    /// As in a list's descriptor.
    pub(super) platform: Value,
}

fn file_of(reference: &Reference) -> String {
    reference.to_string().replace(':', "-").replace('/', "_")
}

impl List {
    pub(super) fn open(name: &Reference) -> Result<Self, Error> {
        let beside = credentials::directory()
            .ok_or_else(|| Error::Invalid("neither DOCKER_CONFIG nor HOME says where manifests are".into()))?;
        Ok(Self { name: name.clone(), directory: beside.join("manifests").join(file_of(name)) })
    }

    pub(super) fn is_there(&self) -> bool {
        self.directory.is_dir()
    }

    /// In the order of their names; none where there is no list.
    pub(super) fn members(&self) -> Result<Vec<Member>, Error> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(self.failed("read"))?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(self.failed("read"))?.path());
        }
        // What a killed call left beside a file begins with a dot.
        let hidden = |path: &Path| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        paths.retain(|path| !hidden(path));
        paths.sort();
        paths.iter().map(|path| self.read(path)).collect()
    }

    pub(super) fn member(&self, name: &Reference) -> Result<Member, Error> {
        let path = self.directory.join(file_of(name));
        if !path.is_file() {
            return Err(Error::Invalid(format!("manifest for image {name} does not exist in {}", self.name)));
        }
        self.read(&path)
    }

    fn failed(&self, what: &str) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(format!("cannot {what} {}", self.directory.display()))
    }

    fn read(&self, path: &Path) -> Result<Member, Error> {
        let bytes = fs::read(path).map_err(self.failed("read"))?;
        let broken = || Error::Invalid(format!("{} is no manifest of a list; remove the list", path.display()));
        let stored: Value = serde_json::from_slice(&bytes).map_err(|_| broken())?;
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(broken);
        Ok(Member {
            name: text(&stored["Ref"])?.parse().map_err(|_| broken())?,
            media_type: text(&stored["Descriptor"]["mediaType"])?,
            raw: BASE64_STANDARD.decode(text(&stored["Raw"])?).map_err(|_| broken())?,
            platform: stored["Descriptor"]["platform"].clone(),
        })
    }

    /// Adds a manifest, or writes over it, in one step.
    pub(super) fn put(&self, member: &Member) -> Result<(), Error> {
        let written = || {
            fs::create_dir_all(&self.directory)?;
            let beside = self.directory.join(format!(".{}", std::process::id()));
            let name = self.directory.join(file_of(&member.name));
            fs::write(&beside, member.shown().map_err(io::Error::other)?.to_string())?;
            fs::rename(&beside, name)
        };
        written().map_err(self.failed("write"))
    }

    pub(super) fn remove(&self) -> Result<(), Error> {
        if !self.is_there() {
            return Err(Error::Invalid(format!("No such manifest: {}", self.name.familiar())));
        }
        fs::remove_dir_all(&self.directory).map_err(self.failed("remove"))
    }

    /// The list itself: its media type, which is that of its manifests' kind, and its bytes.
    pub(super) fn document(&self, members: &[Member]) -> Result<(&'static str, Vec<u8>), Error> {
        let oci = members.first().is_some_and(|member| member.media_type == OCI_MANIFEST);
        let media_type = if oci { OCI_INDEX } else { DOCKER_LIST };
        let manifests: Vec<Value> = members.iter().map(Member::descriptor).collect();
        let list = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
        let bytes = serde_json::to_vec(&list).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok((media_type, bytes))
    }
}

impl Member {
    /// From a registry, with the platform that its configuration tells.
    pub(super) fn of(name: &Reference, served: &ManifestResponse) -> Result<Self, Error> {
        let raw = served.manifest.to_vec();
        let document: Value = serde_json::from_slice(&raw)
            .map_err(|error| Error::Invalid(format!("the manifest of {name} is no JSON: {error}")))?;
        let config: Value = serde_json::from_slice(&served.config).unwrap_or(Value::Null);
        let mut platform = json!({});
        for member in ["architecture", "os", "os.version", "os.features", "variant"] {
            if let Some(value) = config.get(member).filter(|value| value.as_str() != Some("")) {
                platform[member] = value.clone();
            }
        }
        let media_type = document.get("mediaType").and_then(Value::as_str).unwrap_or(&served.media_type);
        Ok(Self { name: name.clone(), media_type: media_type.to_owned(), raw, platform })
    }

    fn descriptor(&self) -> Value {
        let digest = Digest::sha256(&self.raw);
        json!({ "mediaType": self.media_type, "digest": digest, "size": self.raw.len(), "platform": self.platform })
    }

    /// As Docker's program shows and keeps it.
    pub(super) fn shown(&self) -> Result<Value, Error> {
        let member = if self.media_type.contains("oci") { "OCIManifest" } else { "SchemaV2Manifest" };
        let document: Value = serde_json::from_slice(&self.raw)
            .map_err(|error| Error::Invalid(format!("the manifest of {} is no JSON: {error}", self.name)))?;
        Ok(json!({
            "Ref": self.name.to_string(),
            "Descriptor": self.descriptor(),
            "Raw": BASE64_STANDARD.encode(&self.raw),
            member: document,
        }))
    }
}
