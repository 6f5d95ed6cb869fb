//! A log's files: the one that is written, and those that were.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// An open file, known by what it is rather than by its name.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    identity: (u64, u64),
}

/// Opens the log's file of an age: 0 is the one that is written; `None` where there is none.
pub(super) fn open(path: &Path, age: usize) -> Result<Option<Opened>> {
    let path = aged(path, age);
    let failed = Error::io("cannot read", &path);
    let opened = File::open(&path).and_then(|file| {
        let metadata = file.metadata()?;
        Ok(Opened { file, identity: (metadata.dev(), metadata.ino()) })
    });
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// How many files there are.
pub(super) fn count(path: &Path) -> usize {
    (0..).take_while(|age| aged(path, *age).exists()).count()
}

impl Opened {
    /// How old it is by now; `None` where it was removed.
    pub(super) fn age(&self, path: &Path) -> Option<usize> {
        let is_this = |age: &usize| {
            let metadata = aged(path, *age).metadata();
            metadata.is_ok_and(|m| (m.dev(), m.ino()) == self.identity)
        };
        // While it is looked for it may grow older; then it is found one further on.
        (0..count(path) + 1).find(is_this)
    }
}

fn aged(path: &Path, age: usize) -> PathBuf {
    match age {
        0 => path.to_owned(),
        age => {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{age}"));
            name.into()
        }
    }
}
