//! The numbered directories that hold all files: `<driver>/<id>/fs`, and beside it what the driver needs and copies of
//! the records, from which a damaged store is rebuilt.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::Error;

/// The number of a directory; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Id(pub(crate) u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a driver's directories are.
#[derive(Clone, Debug)]
pub(crate) struct Directories {
    base: PathBuf,
}

/// The copy of the directory's own record.
pub(crate) const RECORD: &str = "record";
/// A copy of a record is this once what it speaks of is durable; until then its name ends otherwise.
const COPY: &str = "json";
const UNTRUSTED: &str = "new";

impl Directories {
    pub(crate) fn new(base: PathBuf) -> Self {
        Self { base }
    }

    /// The directory of all directories.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// A directory itself.
    pub(crate) fn path(&self, id: Id) -> PathBuf {
        self.base.join(id.to_string())
    }

    /// The files in it.
    pub(crate) fn files(&self, id: Id) -> PathBuf {
        self.path(id).join("fs")
    }

    /// overlayfs's work directory in it.
    pub(crate) fn work(&self, id: Id) -> PathBuf {
        self.path(id).join("work")
    }

    /// Makes an empty one; `work` says whether overlayfs will write to it.
    pub(crate) fn make(&self, id: Id, work: bool) -> Result<(), Error> {
        let make = |path: PathBuf| fs::create_dir(&path).map_err(Error::io("cannot make", path));
        make(self.path(id))?;
        let files = self.files(id);
        make(files.clone())?;
        // It is the root that a container sees, whatever umask this process has.
        fs::set_permissions(&files, fs::Permissions::from_mode(0o755))
            .map_err(Error::io("cannot set the mode of", files))?;
        if work { make(self.work(id)) } else { Ok(()) }
    }

    /// Writes a copy of a record that nobody trusts yet.
    pub(crate) fn describe<T: Serialize>(&self, id: Id, name: &str, record: &T) -> Result<(), Error> {
        self.write(id, name, record).map(|_| ())
    }

    fn write<T: Serialize>(&self, id: Id, name: &str, record: &T) -> Result<File, Error> {
        let path = self.path(id).join(name).with_extension(UNTRUSTED);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(&serde_json::to_vec(record)?).map(|()| file)
        };
        write().map_err(Error::io("cannot write", &path))
    }

    /// From now on a copy is trusted: what it speaks of is durable, and so is it.
    pub(crate) fn trust(&self, id: Id, name: &str) -> Result<(), Error> {
        let path = self.path(id).join(name);
        match fs::rename(path.with_extension(UNTRUSTED), path.with_extension(COPY)) {
            // Another call that says the same was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.with_extension(COPY).exists() => Ok(()),
            other => other.map_err(Error::io("cannot rename a record of", path)),
        }
    }

    /// Writes a copy of a record; it and the directory are durable when this answers.
    pub(crate) fn describe_durably<T: Serialize>(&self, id: Id, name: &str, record: &T) -> Result<(), Error> {
        let file = self.write(id, name, record)?;
        let path = self.path(id);
        file.sync_all().map_err(Error::io("cannot sync a record of", &path))?;
        self.trust(id, name)?;
        File::open(&path).and_then(|directory| directory.sync_all()).map_err(Error::io("cannot sync", &path))
    }

    /// Takes a copy away, if it is there.
    pub(crate) fn undescribe(&self, id: Id, name: &str) {
        let path = self.path(id).join(name).with_extension(COPY);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "the copy of a record stays behind");
            }
            _ => {}
        }
    }

    /// Reads all copies of records in a directory; what cannot be read is passed over.
    pub(crate) fn described<T: DeserializeOwned>(&self, id: Id) -> Vec<T> {
        let Ok(entries) = fs::read_dir(self.path(id)) else { return Vec::new() };
        let copies =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == COPY));
        copies.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect()
    }

    /// All that exist.
    pub(crate) fn all(&self) -> io::Result<Vec<Id>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.base)? {
            if let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                ids.push(Id(id));
            }
        }
        Ok(ids)
    }
}
