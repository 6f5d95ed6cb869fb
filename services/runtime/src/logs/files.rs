//! A log's files: the one that is written, and those that were.

use std::{
    fs::{self, File},
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

/// The ages of the files that are there, youngest first. While the shim rotates there may be gaps.
pub(super) fn ages(path: &Path) -> Result<Vec<usize>> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("cannot look for logs in", directory))?,
    };
    let age = |entry: fs::DirEntry| {
        let rest = entry.file_name().to_str()?.strip_prefix(&name)?.to_owned();
        if rest.is_empty() { Some(0) } else { rest.strip_prefix('.')?.parse().ok() }
    };
    let mut ages: Vec<usize> = entries.flatten().filter_map(age).collect();
    ages.sort_unstable();
    Ok(ages)
}

impl Opened {
    /// Another handle of the same file.
    pub(super) fn again(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, identity: self.identity })
    }

    /// How old it is by now; `None` where it was removed.
    pub(super) fn age(&self, path: &Path) -> Result<Option<usize>> {
        let is_this = |age: &usize| {
            let metadata = aged(path, *age).metadata();
            metadata.is_ok_and(|m| (m.dev(), m.ino()) == self.identity)
        };
        // While it is looked for it may grow older, never younger: then it is found one further on.
        let ages = ages(path)?;
        let one_further = ages.last().map(|oldest| oldest + 1);
        Ok(ages.into_iter().chain(one_further).find(is_this))
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
