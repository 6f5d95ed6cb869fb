//! Content by digest. `blobs/<algorithm>/<hex>` holds what is whole, verified and synced, as an OCI layout does;
//! `ingest/<algorithm>-<hex>` what is arriving, and `….whole` what is verified but not synced yet.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use berth_core::{Digest, digest::Algorithm};
use rustix::fs::{CWD, Mode, OFlags, openat, syncfs};

use crate::error::Error;

const WHOLE: &str = ".whole";

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

    fn whole(&self, digest: &Digest) -> PathBuf {
        self.root.join("ingest").join(format!("{}-{}{WHOLE}", digest.algorithm().name(), digest.hex()))
    }

    /// A private directory for an archive's contents; left ones are swept at the start.
    pub(crate) fn scratch(&self) -> Result<PathBuf, Error> {
        let path = self.root.join("ingest").join(format!("load-{:016x}", rand::random::<u64>()));
        fs::create_dir(&path).map_err(Error::io("cannot make", &path))?;
        Ok(path)
    }

    /// Where verified content can be read; `None` where it is not here.
    pub(crate) fn find(&self, digest: &Digest) -> Option<PathBuf> {
        [self.path(digest), self.whole(digest)].into_iter().find(|path| path.exists())
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

    /// Puts small content here, verified by its digest, which is given back.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::sha256(bytes);
        if self.find(&digest).is_none() {
            // Written under a name of its own: two calls may put the same content.
            let new = self.root.join("ingest").join(format!("put-{:016x}", rand::random::<u64>()));
            fs::write(&new, bytes).map_err(Error::io("cannot write", &new))?;
            fs::rename(&new, self.whole(&digest)).map_err(Error::io("cannot rename", &new))?;
        }
        Ok(digest)
    }

    /// Small content.
    pub(crate) fn read(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let path = self.find(digest).unwrap_or_else(|| self.path(digest));
        fs::read(&path).map_err(Error::io("cannot read", path))
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

    /// Deletes content.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<(), Error> {
        for path in [self.path(digest), self.whole(digest)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("cannot remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes what no image refers to. Partial content stays for a day, so that a pull can go on.
    pub(crate) fn sweep(&self, referenced: &HashSet<Digest>) -> Result<(), Error> {
        const KEPT: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for (path, name) in list(&self.root.join("blobs").join(algorithm.name()))? {
                let known = format!("{}:{name}", algorithm.name()).parse().is_ok_and(|d| referenced.contains(&d));
                if !known {
                    fs::remove_file(&path).map_err(Error::io("cannot remove", &path))?;
                }
            }
        }
        for (path, name) in list(&self.root.join("ingest"))? {
            if name.starts_with("load-") {
                fs::remove_dir_all(&path).map_err(Error::io("cannot remove", &path))?;
                continue;
            }
            let metadata = path.symlink_metadata().map_err(Error::io("cannot look at", &path))?;
            let old = metadata.modified().ok().and_then(|time| time.elapsed().ok()).is_none_or(|age| age > KEPT);
            // What was verified but not synced may have lost bytes with the power.
            if old || name.ends_with(WHOLE) || name.starts_with("put-") {
                fs::remove_file(&path).map_err(Error::io("cannot remove", &path))?;
            }
        }
        Ok(())
    }

    /// Count and bytes of whole content, then of partial content.
    pub(crate) fn usage(&self) -> Result<[(u64, u64); 2], Error> {
        let mut usage = [(0, 0); 2];
        for (slot, directory) in [(0, "blobs/sha256"), (0, "blobs/sha512"), (1, "ingest")] {
            for (path, _) in list(&self.root.join(directory))? {
                usage[slot].0 += 1;
                usage[slot].1 += path.symlink_metadata().map_or(0, |metadata| metadata.len());
            }
        }
        Ok(usage)
    }
}

fn list(directory: &Path) -> Result<Vec<(PathBuf, String)>, Error> {
    let read = || -> io::Result<Vec<(PathBuf, String)>> {
        fs::read_dir(directory)?.map(|e| e.map(|e| (e.path(), e.file_name().to_string_lossy().into_owned()))).collect()
    };
    read().map_err(Error::io("cannot list", directory))
}
