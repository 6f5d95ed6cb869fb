//! A blob's file while it arrives, with the hash of what is in it. Whoever has this has the blob's turn, so no other
//! writes the same file, even where the pull that began it was given up and its last bytes are still being written.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use berth_core::{Digest, digest::Hasher};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::{held::Turn, manifest::Descriptor, snapshots::Arrived};

/// The snapshotter is told after this many bytes.
const TOLD_BYTES: u64 = 1 << 20;

pub(super) struct Partial {
    file: File,
    hasher: Hasher,
    length: u64,
    /// Its bytes come from several places, or from an earlier time: which of them is wrong cannot be said.
    pub(super) mixed: bool,
    _turn: Turn,
}

impl Partial {
    /// Opens what an earlier attempt left, or begins.
    pub(super) fn open(path: &Path, descriptor: &Descriptor, turn: Turn) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut hasher = descriptor.digest.algorithm().hasher();
        let mut length = 0;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let size = file.read(&mut buffer)?;
            if size == 0 {
                break;
            }
            hasher.update(&buffer[..size]);
            length += size as u64;
        }
        let mut partial = Self { file, hasher, length, mixed: length > 0, _turn: turn };
        if length > descriptor.size {
            partial.restart(descriptor)?;
        }
        Ok(partial)
    }

    /// Bytes that are here.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// What the bytes that are here hash to.
    pub(super) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Throws away what is here.
    pub(super) fn restart(&mut self, descriptor: &Descriptor) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hasher = descriptor.digest.algorithm().hasher();
        self.length = 0;
        self.mixed = false;
        Ok(())
    }

    /// Writes and hashes what arrives, and says how far it is. Blocks.
    pub(super) fn write(
        mut self,
        mut chunks: mpsc::Receiver<Bytes>,
        arrived: Option<&watch::Sender<Arrived>>,
    ) -> (Self, io::Result<()>) {
        let mut told = 0;
        let mut result = Ok(());
        loop {
            // What was here before is told at once.
            if let Some(arrived) = arrived
                && (self.length - told >= TOLD_BYTES || (told == 0 && self.length > 0))
            {
                told = self.length;
                arrived.send_modify(|state| state.bytes = told);
            }
            let Some(chunk) = chunks.blocking_recv() else { break };
            if let Err(error) = self.file.write_all(&chunk) {
                // What was written of it is not in the hash.
                let _ = self.file.set_len(self.length);
                result = self.file.seek(SeekFrom::Start(self.length)).and(Err(error));
                break;
            }
            self.hasher.update(&chunk);
            self.length += chunk.len() as u64;
        }
        (self, result)
    }
}
