//! What is on disk: content by digest, what arrives, and the records beside them.
//!
//! ```text
//! ROOT/registry-proxy/
//! ├── blobs/<algorithm>/<hex>    whole, verified, synced; its time is when it was last used
//! ├── ingest/<algorithm>-<hex>   the beginning of a blob
//! └── meta.redb                  tags, and the media types of manifests
//! ```
//!
//! The directory is the truth about content: it is read at each start. The records can be lost: a tag is asked for
//! again, and a manifest says its media type itself.

mod blobs;
mod records;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

pub(crate) use blobs::{Blob, Blobs, Ingest};
pub(crate) use records::{Records, Tag};

use crate::Error;

/// All of it.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) blobs: Blobs,
    pub(crate) records: Records,
}

impl Store {
    /// Opens the store, and makes what is not there. Blocks.
    pub(crate) fn open(root: &Path, max_size: u64) -> Result<Self, Error> {
        fs::create_dir_all(root).map_err(Error::io("cannot create", root))?;
        // What an upstream gives to us with a password is not for everybody on this machine.
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(root, private).map_err(Error::io("cannot set the mode of", root))?;
        let blobs = Blobs::open(root, max_size)?;
        Ok(Self { blobs, records: Records::open(&root.join("meta.redb"))? })
    }

    /// How many blobs, and their bytes.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.blobs.totals()
    }
}
