//! One volume on disk: its name, its directory, and what is told of it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use crate::volumes::Error;

/// Where a volume's files are, in its directory.
pub(super) const DATA: &str = "_data";
const DETAILS: &str = "volume.json";
/// How anonymous volumes are named: 32 random bytes.
const ANONYMOUS: usize = 64;

/// What is told of a volume. One without these is as good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Details {
    /// RFC 3339.
    pub(crate) created: String,
    /// Always "local".
    pub(crate) driver: String,
    /// Made without a name for one container, and to go with it where that is asked for.
    pub(crate) anonymous: bool,
    /// The container that an anonymous one was made for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) container: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// One volume.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) name: String,
    /// Where its files are.
    pub(crate) mountpoint: PathBuf,
    pub(crate) details: Details,
}

/// What a volume is made for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Purpose<'a> {
    pub(super) anonymous: bool,
    /// Empty where it is made for no container in particular.
    pub(super) container: &'a str,
    pub(super) labels: Option<&'a BTreeMap<String, String>>,
}

/// Whether a name may be a volume's: nothing else is ever joined to the volumes' directory.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    if name.len() == 1 {
        return Err(Error::ShortName { name: name.into() });
    }
    let plain = |c: char| c.is_ascii_alphanumeric();
    let well = name.starts_with(plain) && name.len() <= 255 && name.chars().all(|c| plain(c) || "_.-".contains(c));
    if well { Ok(()) } else { Err(Error::BadName { name: name.into() }) }
}

pub(super) fn invented_name() -> String {
    let name = hex::encode(rand::random::<[u8; 32]>());
    debug_assert_eq!(name.len(), ANONYMOUS);
    name
}

impl Volume {
    /// The volume of a name, whether it is there or not.
    pub(super) fn at(directory: &Path, name: &str) -> Result<Self, Error> {
        check_name(name)?;
        let path = directory.join(name);
        let details = fs::read(path.join(DETAILS)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(Self { name: name.into(), mountpoint: path.join(DATA), details: details.unwrap_or_default() })
    }

    /// The directory that holds all of it.
    pub(super) fn directory(&self) -> &Path {
        self.mountpoint.parent().unwrap_or(&self.mountpoint)
    }

    pub(super) fn exists(&self) -> bool {
        self.mountpoint.is_dir()
    }

    /// Makes it, unless it is there: whole or not at all, and on disk when this answers. `draft` is a directory of the
    /// same file system for what is half made. Answers whether it was made.
    pub(super) fn make(&self, draft: &Path, purpose: Purpose<'_>) -> Result<bool, Error> {
        if self.exists() {
            return Ok(false);
        }
        let draft = draft.join(hex::encode(rand::random::<[u8; 16]>()));
        let made = self.make_in(&draft, purpose);
        if made.is_err() {
            let _ = fs::remove_dir_all(&draft);
        }
        made.map(|()| true)
    }

    fn make_in(&self, draft: &Path, purpose: Purpose<'_>) -> Result<(), Error> {
        let failed = || Error::io("cannot make the volume", self.directory());
        let details = Details {
            created: jiff::Timestamp::now().to_string(),
            driver: "local".into(),
            anonymous: purpose.anonymous,
            container: purpose.container.into(),
            labels: purpose.labels.cloned().unwrap_or_default(),
        };
        let details = serde_json::to_vec(&details).map_err(|error| failed()(error.into()))?;
        let write = || -> io::Result<()> {
            fs::create_dir(draft)?;
            fs::create_dir(draft.join(DATA))?;
            let mut file = File::create_new(draft.join(DETAILS))?;
            file.write_all(&details)?;
            file.sync_data()?;
            File::open(draft)?.sync_all()
        };
        write().map_err(failed())?;
        match renameat_with(CWD, draft, CWD, self.directory(), RenameFlags::NOREPLACE) {
            Ok(()) => {
                let parent = self.directory().parent().unwrap_or(Path::new("/"));
                File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed())
            }
            // Somebody else was faster, and theirs is as good.
            Err(rustix::io::Errno::EXIST) if self.exists() => fs::remove_dir_all(draft).map_err(failed()),
            Err(error) => Err(failed()(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["data", "a.b-c_d", "00", &invented_name()] {
            check_name(name).unwrap();
        }
        for name in ["", "..", "a/b", "-a", ".trash", "a b", "ä1", &"x".repeat(256)] {
            let error = check_name(name).unwrap_err().to_string();
            assert!(error.contains("includes invalid characters for a local volume name"), "{error}");
        }
        assert!(check_name("a").unwrap_err().to_string().contains("too short"));
    }

    #[test]
    fn making_twice_is_making_once() {
        let directory = tempfile::tempdir().unwrap();
        let draft = directory.path().join(".draft");
        fs::create_dir(&draft).unwrap();
        let volume = Volume::at(directory.path(), "data").unwrap();
        volume.make(&draft, Purpose { anonymous: true, container: "c", labels: None }).unwrap();
        fs::write(volume.mountpoint.join("x"), "kept").unwrap();
        volume.make(&draft, Purpose::default()).unwrap();
        let again = Volume::at(directory.path(), "data").unwrap();
        assert!(again.details.anonymous && again.details.driver == "local");
        assert_eq!(fs::read(again.mountpoint.join("x")).unwrap(), b"kept");
        assert_eq!(fs::read_dir(draft).unwrap().count(), 0);
    }
}
