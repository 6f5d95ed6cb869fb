//! What the image service keeps: content by digest, and records of images.

mod blobs;
mod configs;
mod garbage;
mod records;

use std::{fs, path::Path};

pub(crate) use blobs::Blobs;
pub(crate) use configs::{Configs, Stored};
pub(crate) use records::{All, Record, Records};

use crate::error::Error;

/// Content and records.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) blobs: Blobs,
    pub(crate) records: Records,
    pub(crate) configs: Configs,
}

impl Store {
    /// Opens everything below `root`.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        fs::create_dir_all(root).map_err(Error::io("cannot make", root))?;
        let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
        fs::set_permissions(root, mode).map_err(Error::io("cannot set the mode of", root))?;
        let blobs = Blobs::open(root)?;
        let records = Records::open(root)?;
        blobs.recover(records.complete().then(|| records.referenced()).as_ref())?;
        Ok(Self { blobs, records, configs: Configs::default() })
    }
}
