//! Docker's `config.json`. It is other programs' as well: what we do not know in it stays as it is, it is replaced in one
//! step, and one that cannot be read is never written over.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize as _};
use serde_json::{Map, Value};

use crate::outcome::Error;

/// It holds secrets.
const MODE: u32 = 0o600;

/// What we read of it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Config {
    pub(super) auths: HashMap<String, Entry>,
    creds_store: String,
    cred_helpers: HashMap<String, String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Credentials for one registry.
#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
pub(super) struct Entry {
    pub(super) auth: String,
    pub(super) username: String,
    pub(super) password: String,
    pub(super) identitytoken: String,
    pub(super) registrytoken: String,
}

impl Config {
    /// Nothing where there is no file; the reason where it cannot be read.
    pub(super) fn read() -> Result<Option<Self>, String> {
        let Some(path) = file() else { return Ok(None) };
        match fs::read(&path) {
            Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => Ok(Some(Self::default())),
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| malformed(&path, &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{} is not read ({error})", path.display())),
        }
    }

    /// A text that is kept under `name`, if it says anything.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.rest.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// The helper program for a registry, without its prefix.
    pub(super) fn helper(&self, key: &str) -> Option<&str> {
        let own = self.cred_helpers.get(key).or_else(|| self.cred_helpers.get(super::bare(key)));
        let docker_io = || self.cred_helpers.get("docker.io").filter(|_| key == super::HUB);
        Some(own.or_else(docker_io).unwrap_or(&self.creds_store).as_str()).filter(|helper| !helper.is_empty())
    }
}

/// Where it is.
pub(super) fn file() -> Option<PathBuf> {
    let named = std::env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    Some(directory.join("config.json"))
}

/// Where, not what: the file is full of secrets.
fn malformed(path: &Path, error: &serde_json::Error) -> String {
    format!("{} is not read ({:?} at line {})", path.display(), error.classify(), error.line())
}

/// Changes the file, or makes it. `change` says whether it changed anything; nothing is written otherwise. The path, and
/// whether it was written.
pub(super) fn change(
    change: impl FnOnce(&mut Map<String, Value>) -> Result<bool, String>,
) -> Result<(PathBuf, bool), Error> {
    let shown =
        file().ok_or_else(|| Error::Invalid("neither DOCKER_CONFIG nor HOME says where config.json is".into()))?;
    // A link stays one.
    let path = fs::canonicalize(&shown).unwrap_or_else(|_| shown.clone());
    let directory = path.parent().unwrap_or(Path::new("/"));
    let failed = |what: &str| format!("cannot {what} {}", path.display());
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(Error::io(failed("make the directory of")))?;
    let handle = File::open(directory).map_err(Error::io(failed("open the directory of")))?;
    // Two logins at once keep both. Where the file system has no locks, the last one wins.
    let locked = Flock::lock(handle, FlockArg::LockExclusive);
    let (before, owner) = match fs::read(&path) {
        Ok(bytes) => (bytes, fs::metadata(&path).map(|is| (is.uid(), is.gid())).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), None),
        Err(error) => return Err(Error::io(failed("read"))(error)),
    };
    let mut root: Map<String, Value> = if before.iter().all(u8::is_ascii_whitespace) {
        Map::new()
    } else {
        serde_json::from_slice(&before).map_err(|error| {
            Error::Invalid(format!(
                "{}, and therefore not written: repair it or move it away",
                malformed(&path, &error)
            ))
        })?
    };
    let changed = change(&mut root).map_err(|why| Error::Invalid(format!("{}: {why}", path.display())))?;
    if changed {
        replace(&path, owner, &root).map_err(Error::io(failed("write")))?;
    }
    drop(locked);
    Ok((shown, changed))
}

/// Writes it beside and renames; under the lock, so that what a killed one left is ours to take away.
fn replace(path: &Path, owner: Option<(u32, u32)>, root: &Map<String, Value>) -> io::Result<()> {
    let beside = path.with_file_name(".config.json.berth");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut bytes = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    root.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, tabs))?;
    let mut file = File::options().write(true).create_new(true).mode(MODE).open(&beside)?;
    let written = || {
        file.set_permissions(Permissions::from_mode(MODE))?;
        if let Some((uid, gid)) = owner {
            // With sudo in the user's home it stays the user's.
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    let done = { written }();
    if done.is_err() {
        let _ = fs::remove_file(&beside);
    }
    done
}
