//! A layer's tar while it arrives: a file that goes unless it becomes content. It is hashed as it is written; or, where
//! its digest is told at the end, afterwards, so that whoever waits for its bytes to be read waits for nothing else.

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
    hasher: Option<Hasher>,
    size: u64,
}

impl Arriving {
    /// One that is hashed as it is written.
    pub(super) fn hashed(blobs: &Blobs) -> Result<Self, Error> {
        Self::new(blobs, Some(Algorithm::Sha256.hasher()))
    }

    /// One whose digest will be told.
    pub(super) fn told(blobs: &Blobs) -> Result<Self, Error> {
        Self::new(blobs, None)
    }

    fn new(blobs: &Blobs, hasher: Option<Hasher>) -> Result<Self, Error> {
        let path = blobs.fresh("made");
        let file = File::create_new(&path).map_err(Error::io("cannot make", &path))?;
        Ok(Self { path: Left(path), file, hasher, size: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
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

    /// Nothing more comes. One that was told of is not known to be right yet.
    pub(super) fn whole_as(self, digest: Digest) -> Whole {
        Whole { digest, size: self.size, path: self.path }
    }

    /// Nothing more comes.
    pub(super) fn whole(mut self) -> Result<Whole, Error> {
        let hasher = self.hasher.take().ok_or(Error::Panicked { what: "hashing a layer" })?;
        Ok(self.whole_as(hasher.finish()))
    }
}

/// A whole file that is not content yet.
pub(super) struct Whole {
    pub(super) digest: Digest,
    pub(super) size: u64,
    path: Left,
}

impl Whole {
    /// Reads it again: it has the digest that was told.
    pub(super) fn verified(self) -> Result<Self, Error> {
        let failed = || Error::io("cannot read", &self.path.0);
        let mut file = File::open(&self.path.0).map_err(failed())?;
        let (mut hasher, mut buffer) = (self.digest.algorithm().hasher(), vec![0; BUFFER]);
        loop {
            match file.read(&mut buffer).map_err(failed())? {
                0 => break,
                size => hasher.update(&buffer[..size]),
            }
        }
        let is = hasher.finish();
        if is != self.digest {
            let (wanted, is) = (self.digest.to_string(), is.to_string());
            return Err(Error::WrongDigest { what: "the layer that the snapshotter sent".into(), wanted, is });
        }
        Ok(self)
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
    fn what_is_told_wrong_does_not_become_content() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(directory.path()).unwrap();
        let (right, wrong) = (Digest::sha256(b"tar"), Digest::sha256(b"other"));
        let arrived = || {
            let mut file = Arriving::told(&blobs).unwrap();
            file.write(b"tar").unwrap();
            file
        };
        assert!(matches!(arrived().whole_as(wrong).verified(), Err(Error::WrongDigest { .. })));
        assert_eq!(fs::read_dir(directory.path().join("ingest")).unwrap().count(), 0);
        arrived().whole_as(right.clone()).verified().unwrap().adopt(&blobs).unwrap();
        assert_eq!(blobs.read(&right).unwrap(), b"tar");
        let mut hashed = Arriving::hashed(&blobs).unwrap();
        hashed.fill(&b"tar"[..], |error| Error::Made(error.to_string())).unwrap();
        assert_eq!(hashed.whole().unwrap().digest, right);
    }
}
