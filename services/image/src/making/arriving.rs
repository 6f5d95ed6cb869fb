//! A layer's tar while it arrives: a file that is hashed as it is written, and that goes unless it becomes content.

use std::{
    fs::{self, File},
    io::{self, Read, Write as _},
    path::PathBuf,
};

use berth_core::{
    Digest,
    digest::{Algorithm, Hasher},
};

use crate::{error::Error, store::Blobs};

/// Bytes that are read at once.
const BUFFER: usize = 256 << 10;

/// A file on its way.
pub(super) struct Arriving {
    path: Left,
    file: File,
    hasher: Hasher,
    size: u64,
}

impl Arriving {
    pub(super) fn new(blobs: &Blobs) -> Result<Self, Error> {
        let path = blobs.fresh("made");
        let file = File::create_new(&path).map_err(Error::io("cannot make", &path))?;
        Ok(Self { path: Left(path), file, hasher: Algorithm::Sha256.hasher(), size: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).map_err(Error::io("cannot write", &self.path.0))
    }

    /// Writes all that comes; `failed` says what it means that something cannot be read.
    pub(super) fn fill(&mut self, mut from: impl Read, failed: impl Fn(io::Error) -> Error) -> Result<(), Error> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(size) => self.write(&buffer[..size])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Nothing more comes.
    pub(super) fn whole(self) -> Whole {
        Whole { digest: self.hasher.finish(), size: self.size, path: self.path }
    }
}

/// A whole file that is not content yet.
pub(super) struct Whole {
    pub(super) digest: Digest,
    pub(super) size: u64,
    path: Left,
}

impl Whole {
    /// It becomes content.
    pub(super) fn adopt(&self, blobs: &Blobs) -> Result<(), Error> {
        blobs.adopt(&self.path.0, &self.digest)
    }
}

/// Where the file was; what is still there goes.
struct Left(PathBuf);

impl Drop for Left {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
