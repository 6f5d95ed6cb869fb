//! A layer's tar while it arrives: a file that goes unless it becomes content. It is hashed as it is written.

use std::{
    fs::{self, File},
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
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
    /// Where it can be read while this lives.
    pub(super) fn path(&self) -> &Path {
        &self.path.0
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_become_content_goes() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(directory.path()).unwrap();
        let arrived = || {
            let mut file = Arriving::new(&blobs).unwrap();
            file.fill(&b"tar"[..], |error| Error::Made(error.to_string())).unwrap();
            file.whole()
        };
        drop(arrived());
        assert_eq!(fs::read_dir(directory.path().join("ingest")).unwrap().count(), 0);
        let whole = arrived();
        assert_eq!((whole.digest.clone(), whole.size), (Digest::sha256(b"tar"), 3));
        whole.adopt(&blobs).unwrap();
        assert_eq!(blobs.read(&whole.digest).unwrap(), b"tar");
    }
}
