//! The numbered directories that hold all files: `<driver>/<id>/fs`, and beside it what the driver needs and a copy of
//! the record, from which a damaged store is rebuilt.

use std::{
    fmt, fs, io,
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

/// The copy of the record within a directory.
const RECORD: &str = "record.json";

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
        make(self.files(id))?;
        if work { make(self.work(id)) } else { Ok(()) }
    }

    /// Writes the copy of the record.
    pub(crate) fn describe<T: Serialize>(&self, id: Id, record: &T) -> Result<(), Error> {
        let path = self.path(id).join(RECORD);
        let write = || fs::write(&path, serde_json::to_vec(record)?);
        write().map_err(Error::io("cannot write", &path))
    }

    /// Reads the copy of the record; `None` where the directory never got one.
    pub(crate) fn described<T: DeserializeOwned>(&self, id: Id) -> Option<T> {
        let bytes = fs::read(self.path(id).join(RECORD)).ok()?;
        serde_json::from_slice(&bytes).ok()
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
