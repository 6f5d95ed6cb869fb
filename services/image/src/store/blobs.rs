//! Content by digest. `blobs/<algorithm>/<hex>` holds what is whole, verified and synced, as an OCI layout does;
//! `ingest/<algorithm>-<hex>` what is arriving, and `….whole` what is verified but not synced yet. A file moves from one to
//! the next by its name alone, so who has it open, or linked under a name of its own, is not disturbed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use berth_core::{Digest, digest::Algorithm};
use rustix::fs::{CWD, Mode, OFlags, openat, statvfs, syncfs};

use crate::error::Error;

const WHOLE: &str = ".whole";

/// A further name of some content; it goes with this.
#[derive(Debug)]
pub(crate) struct Link(PathBuf);

impl Link {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // One that stays behind is swept at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

/// The content store.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    root: PathBuf,
}

impl Blobs {
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        for directory in ["blobs/sha256", "blobs/sha512", "ingest"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).map_err(Error::io("cannot make", &path))?;
        }
        Ok(Self { root: root.into() })
    }

    /// The directory of everything.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where content is once it is durable.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Where content arrives.
    pub(crate) fn ingest(&self, digest: &Digest) -> PathBuf {
        self.root.join("ingest").join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
    }

    pub(super) fn whole(&self, digest: &Digest) -> PathBuf {
        self.root.join("ingest").join(format!("{}-{}{WHOLE}", digest.algorithm().name(), digest.hex()))
    }

    /// The digest that a name in `ingest/` stands for; `None` where it is none of content.
    pub(super) fn ingested(&self, name: &str) -> Option<Digest> {
        name.strip_suffix(WHOLE).unwrap_or(name).replacen('-', ":", 1).parse().ok()
    }

    /// Another name for content, wherever it is on its way: the neighbour opens it by this, and no rename comes between.
    pub(crate) fn link(&self, digest: &Digest) -> Result<Link, Error> {
        let link = self.root.join("ingest").join(format!("read-{:016x}", rand::random::<u64>()));
        let partial = self.ingest(digest);
        let whole = self.places(digest);
        for place in whole.iter().chain([&partial]).chain(&whole) {
            match fs::hard_link(place, &link) {
                Ok(()) => return Ok(Link(link)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("cannot link", place)(error)),
            }
        }
        Err(Error::io("cannot find", self.path(digest))(io::ErrorKind::NotFound.into()))
    }

    /// Bytes that can still be written here.
    pub(crate) fn free(&self) -> Result<u64, Error> {
        let stat = statvfs(&self.root).map_err(|error| Error::io("cannot look at", &self.root)(error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// A new name for a file that is being made; a left one is swept at the start.
    pub(crate) fn fresh(&self, what: &str) -> PathBuf {
        self.root.join("ingest").join(format!("{what}-{:016x}", rand::random::<u64>()))
    }

    /// A private directory for an archive's contents; left ones are swept at the start.
    pub(crate) fn scratch(&self) -> Result<PathBuf, Error> {
        let path = self.root.join("ingest").join(format!("load-{:016x}", rand::random::<u64>()));
        fs::create_dir(&path).map_err(Error::io("cannot make", &path))?;
        Ok(path)
    }

    /// Where verified content can be read; `None` where it is not here.
    pub(crate) fn find(&self, digest: &Digest) -> Option<PathBuf> {
        self.places(digest).into_iter().find(|path| path.exists())
    }

    /// Where verified content may be. The first comes again: it may move there just after it was looked for.
    fn places(&self, digest: &Digest) -> [PathBuf; 3] {
        [self.path(digest), self.whole(digest), self.path(digest)]
    }

    /// What arrived is verified.
    pub(crate) fn verified(&self, digest: &Digest) -> Result<PathBuf, Error> {
        let (from, to) = (self.ingest(digest), self.whole(digest));
        fs::rename(&from, &to).map_err(Error::io("cannot rename", from))?;
        Ok(to)
    }

    /// Takes over a verified file that lies elsewhere on the same file system.
    pub(crate) fn adopt(&self, file: &Path, digest: &Digest) -> Result<(), Error> {
        if self.find(digest).is_some() {
            return Ok(());
        }
        fs::rename(file, self.whole(digest)).map_err(Error::io("cannot rename", file))
    }

    /// Puts small content here, of which the digest is known to be right.
    pub(crate) fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        if self.find(digest).is_none() {
            // Written under a name of its own: two calls may put the same content.
            let new = self.root.join("ingest").join(format!("put-{:016x}", rand::random::<u64>()));
            let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, self.whole(digest)));
            written.map_err(|error| {
                let _ = fs::remove_file(&new);
                Error::io("cannot write", &new)(error)
            })?;
        }
        Ok(())
    }

    /// Small content.
    pub(crate) fn read(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        for place in self.places(digest) {
            match fs::read(&place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => return read.map_err(Error::io("cannot read", place)),
            }
        }
        Err(Error::io("cannot read", self.path(digest))(io::ErrorKind::NotFound.into()))
    }

    /// Makes all of this durable: one sync of the file system, then the names.
    pub(crate) fn settle(&self, digests: &[Digest]) -> Result<(), Error> {
        let waiting: Vec<&Digest> = digests.iter().filter(|digest| !self.path(digest).exists()).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let open = |path: &Path| openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let sync =
            |path: PathBuf| open(&path).and_then(syncfs).map_err(|error| Error::io("cannot sync", &path)(error.into()));
        sync(self.root.clone())?;
        for digest in waiting {
            match fs::rename(self.whole(digest), self.path(digest)) {
                Ok(()) => {}
                // Another call settled it meanwhile.
                Err(_) if self.path(digest).exists() => {}
                Err(error) => return Err(Error::io("cannot rename", self.whole(digest))(error)),
            }
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let path = self.root.join("blobs").join(algorithm.name());
            let synced = File::open(&path).and_then(|directory| directory.sync_all());
            synced.map_err(Error::io("cannot sync", &path))?;
        }
        Ok(())
    }
}
