//! What is deleted from the content store, and when: content that no image refers to when its image goes or at the
//! start; what is half there when it is old, or more than may wait.
//!
//! Nothing large is deleted where somebody waits: it is renamed away, and deleted afterwards.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use berth_core::{Digest, digest::Algorithm};

use super::Blobs;
use crate::error::Error;

/// What was cut off is kept so long for a pull that goes on with it,
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// and so many bytes of it, the newest first.
const KEPT_BYTES: u64 = 16 << 30;
const TRASH: &str = "trash-";

impl Blobs {
    /// What a killed service left is put in order. Content that is not in `referenced` is garbage; all of it stays
    /// where that is not known.
    pub(crate) fn recover(&self, referenced: Option<&HashSet<Digest>>) -> Result<(), Error> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for (path, name) in list(&self.root().join("blobs").join(algorithm.name()))? {
                let digest: Option<Digest> = format!("{}:{name}", algorithm.name()).parse().ok();
                let known = digest.is_some_and(|d| referenced.is_none_or(|all| all.contains(&d)));
                if !known {
                    gone(fs::remove_file(&path), &path)?;
                }
            }
        }
        for (path, name) in list(&self.root().join("ingest"))? {
            if name.starts_with("load-") {
                gone(fs::remove_dir_all(&path), &path)?;
            } else if let Some(digest) = self.ingested(&name) {
                // What was verified but not synced may have lost bytes with the power: it is verified again when it is
                // needed again.
                if path == self.whole(&digest) {
                    let partial = self.ingest(&digest);
                    fs::rename(&path, &partial).map_err(Error::io("cannot rename", &path))?;
                }
            } else {
                gone(fs::remove_file(&path), &path)?;
            }
        }
        self.prune(&|_| false)
    }

    /// Content that was made durable for a record that was never made waits with what is half there. Nobody must be at
    /// work.
    pub(crate) fn unsettle(&self, referenced: &HashSet<Digest>) -> Result<(), Error> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for (path, name) in list(&self.root().join("blobs").join(algorithm.name()))? {
                let digest: Option<Digest> = format!("{}:{name}", algorithm.name()).parse().ok();
                if let Some(digest) = digest.filter(|digest| !referenced.contains(digest)) {
                    gone(fs::rename(&path, self.whole(&digest)), &path)?;
                }
            }
        }
        Ok(())
    }

    /// Deletes what was cut off long ago, and of the rest the oldest beyond what may wait. What `needed` says stays.
    pub(crate) fn prune(&self, needed: &dyn Fn(&Digest) -> bool) -> Result<(), Error> {
        let mut waiting = Vec::new();
        for (path, name) in list(&self.root().join("ingest"))? {
            let Some(digest) = self.ingested(&name) else { continue };
            // It may have arrived whole and moved on meanwhile.
            let Ok(metadata) = path.symlink_metadata() else { continue };
            if !needed(&digest) {
                waiting.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), path));
            }
        }
        waiting.sort_by_key(|(modified, ..)| std::cmp::Reverse(*modified));
        let mut bytes = 0;
        for (modified, length, path) in waiting {
            bytes += length;
            if bytes > KEPT_BYTES || modified.elapsed().is_ok_and(|age| age > KEPT) {
                gone(fs::remove_file(&path), &path)?;
            }
        }
        Ok(())
    }

    /// Takes content away, whole or partial; it is deleted by [`Blobs::empty`]. Blocks only for a moment.
    pub(crate) fn take_away(&self, digest: &Digest) -> Result<Vec<PathBuf>, Error> {
        let mut taken = Vec::new();
        for path in [self.path(digest), self.whole(digest), self.ingest(digest)] {
            let trash = self.root().join("ingest").join(format!("{TRASH}{:016x}", rand::random::<u64>()));
            match fs::rename(&path, &trash) {
                Ok(()) => taken.push(trash),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("cannot remove", path)(error)),
            }
        }
        Ok(taken)
    }

    /// Deletes what was taken away. What stays behind is swept at the next start.
    pub(crate) fn empty(&self, taken: &[PathBuf]) {
        for path in taken {
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "garbage cannot be deleted now; the next start tries again");
            }
        }
    }

    /// Count and bytes of whole content, then of partial content.
    pub(crate) fn usage(&self) -> Result<[(u64, u64); 2], Error> {
        let mut usage = [(0, 0); 2];
        for (slot, directory) in [(0, "blobs/sha256"), (0, "blobs/sha512"), (1, "ingest")] {
            for (path, name) in list(&self.root().join(directory))? {
                if slot == 1 && self.ingested(&name).is_none() {
                    continue;
                }
                usage[slot].0 += 1;
                usage[slot].1 += path.symlink_metadata().map_or(0, |metadata| metadata.len());
            }
        }
        Ok(usage)
    }
}

fn gone(result: io::Result<()>, path: &Path) -> Result<(), Error> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("cannot remove", path)(error)),
        _ => Ok(()),
    }
}

fn list(directory: &Path) -> Result<Vec<(PathBuf, String)>, Error> {
    let read = || -> io::Result<Vec<(PathBuf, String)>> {
        fs::read_dir(directory)?.map(|e| e.map(|e| (e.path(), e.file_name().to_string_lossy().into_owned()))).collect()
    };
    read().map_err(Error::io("cannot list", directory))
}
