//! Configurations of images as they are asked for again and again, kept in memory: every `run` looks at one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use berth_core::Digest;
use bytes::Bytes;

use super::Blobs;
use crate::{error::Error, manifest::Config};

/// Larger configurations are read from the disk each time.
const LARGEST: usize = 256 << 10;
/// So many are kept; beyond that all are forgotten, and read again as they are asked for.
const KEPT: usize = 1024;

/// A configuration, as stored and as read.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) bytes: Bytes,
    pub(crate) config: Config,
}

/// Those that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Configs(Mutex<HashMap<Digest, Arc<Stored>>>);

impl Configs {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Stored>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without touching the disk.
    pub(crate) fn known(&self, id: &Digest) -> Option<Arc<Stored>> {
        self.lock().get(id).cloned()
    }

    /// From memory, or from the content store. Blocks.
    pub(crate) fn get(&self, blobs: &Blobs, id: &Digest) -> Result<Arc<Stored>, Error> {
        if let Some(stored) = self.known(id) {
            return Ok(stored);
        }
        let bytes = blobs.read(id)?;
        let config = Config::parse(&bytes, &format!("the image {}", id.short()))?;
        let stored = Arc::new(Stored { bytes: bytes.into(), config });
        if stored.bytes.len() <= LARGEST {
            let mut known = self.lock();
            if known.len() >= KEPT {
                known.clear();
            }
            known.insert(id.clone(), Arc::clone(&stored));
        }
        Ok(stored)
    }

    /// An image is gone.
    pub(crate) fn forget(&self, id: &Digest) {
        self.lock().remove(id);
    }
}
