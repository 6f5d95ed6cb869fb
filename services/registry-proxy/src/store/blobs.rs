//! Content by digest. A blob that is evicted while it is read stays until its last reader is done, as files do.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use berth_core::Digest;

use crate::Error;

/// The time of last use is kept this exactly.
const USED_GRAIN: Duration = Duration::from_secs(60);
/// Eviction goes on down to this part of what is allowed, so that it is rare.
const LOW_WATER: (u64, u64) = (9, 10);
/// Files of small content on its way; what a killed service left of them is worth nothing.
const PUT: &str = "put-";
/// Beginnings of blobs that nobody asked for again are given up after this.
const PARTIAL_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The blobs that are here.
#[derive(Debug)]
pub(crate) struct Blobs {
    root: PathBuf,
    /// 0: no limit.
    max_size: u64,
    index: Mutex<Index>,
    /// Names files of [`Blobs::put`].
    puts: AtomicU64,
}

#[derive(Debug, Default)]
struct Index {
    entries: HashMap<Digest, Entry>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    size: u64,
    used: SystemTime,
}

/// A blob that is here, open.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub(crate) file: Arc<File>,
    pub(crate) size: u64,
}

/// A blob that is arriving: its file, and how much of it was there already.
#[derive(Debug)]
pub(crate) struct Ingest {
    pub(crate) file: Arc<File>,
    pub(crate) present: u64,
}

impl Blobs {
    pub(super) fn open(root: &Path, max_size: u64) -> Result<Self, Error> {
        let blobs = Self { root: root.into(), max_size, index: Mutex::default(), puts: AtomicU64::new(0) };
        fs::create_dir_all(root.join("ingest")).map_err(Error::io("cannot create", root.join("ingest")))?;
        let mut index = Index::default();
        for algorithm in ["sha256", "sha512"] {
            let directory = root.join("blobs").join(algorithm);
            fs::create_dir_all(&directory).map_err(Error::io("cannot create", &directory))?;
            let failed = || Error::io("cannot read", &directory);
            for entry in fs::read_dir(&directory).map_err(failed())? {
                let entry = entry.map_err(failed())?;
                let name = entry.file_name();
                let Ok(digest) = format!("{algorithm}:{}", name.to_string_lossy()).parse::<Digest>() else {
                    tracing::warn!(path = %entry.path().display(), "this is no blob; it is left alone");
                    continue;
                };
                let metadata = entry.metadata().map_err(failed())?;
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                index.bytes += metadata.len();
                index.entries.insert(digest, Entry { size: metadata.len(), used });
            }
        }
        *blobs.lock() = index;
        blobs.drop_leftovers();
        blobs.evict();
        Ok(blobs)
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // Each change is whole before anything can panic.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    fn ingest_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("ingest").join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
    }

    pub(super) fn totals(&self) -> (u64, u64) {
        let index = self.lock();
        (index.entries.len() as u64, index.bytes)
    }

    /// Whether the blob is here, as far as is known without looking.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.lock().entries.contains_key(digest)
    }

    /// Opens a blob to be served; `None` where it is not here. Blocks for as long as opening a file does.
    pub(crate) fn get(&self, digest: &Digest) -> io::Result<Option<Blob>> {
        let Some(entry) = self.lock().entries.get(digest).copied() else { return Ok(None) };
        let file = match File::open(self.path(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.forget(digest);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() != entry.size {
            tracing::error!(%digest, "a blob changed its length on disk; it is fetched again");
            self.remove(digest)?;
            return Ok(None);
        }
        let now = SystemTime::now();
        if now.duration_since(entry.used).map_or(true, |age| age > USED_GRAIN) {
            if let Some(entry) = self.lock().entries.get_mut(digest) {
                entry.used = now;
            }
            if let Err(error) = file.set_modified(now) {
                tracing::debug!(%digest, %error, "its last use cannot be recorded");
            }
        }
        Ok(Some(Blob { file: Arc::new(file), size: entry.size }))
    }

    fn forget(&self, digest: &Digest) {
        let mut index = self.lock();
        if let Some(entry) = index.entries.remove(digest) {
            index.bytes -= entry.size;
        }
    }

    /// Takes a blob away: it is evicted, or was found to be damaged.
    pub(crate) fn remove(&self, digest: &Digest) -> io::Result<()> {
        self.forget(digest);
        gone(fs::remove_file(self.path(digest)))
    }

    /// Opens the file that a blob arrives in. Only one at a time may do so. Blocks.
    pub(crate) fn ingest(&self, digest: &Digest) -> io::Result<Ingest> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(self.ingest_path(digest))?;
        let present = file.metadata()?.len();
        Ok(Ingest { file: Arc::new(file), present })
    }

    /// Gives up what arrived. Blocks.
    pub(crate) fn discard(&self, digest: &Digest) -> io::Result<()> {
        gone(fs::remove_file(self.ingest_path(digest)))
    }

    /// Gives up an arrival that has not begun. Blocks.
    pub(crate) fn discard_empty(&self, digest: &Digest) {
        let path = self.ingest_path(digest);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == 0) {
            let _ = fs::remove_file(path);
        }
    }

    /// What arrived has been verified: from now on, also after a power loss, it is here. Blocks.
    pub(crate) fn commit(&self, digest: &Digest, file: &File, size: u64) -> io::Result<()> {
        file.sync_data()?;
        let path = self.path(digest);
        fs::rename(self.ingest_path(digest), &path)?;
        self.added(digest, &path, size)
    }

    /// Stores verified bytes. Blocks.
    pub(crate) fn put(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        if self.has(digest) {
            return Ok(());
        }
        // A file of its own: several may store the same bytes at once, and a fill may have the other file open.
        let unique = self.puts.fetch_add(1, Ordering::Relaxed);
        let new = self.root.join("ingest").join(format!("{PUT}{unique}"));
        let path = self.path(digest);
        let write = || {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0)?;
            file.sync_data()?;
            fs::rename(&new, &path)
        };
        // Half of one only takes room.
        write().inspect_err(|_| drop(fs::remove_file(&new)))?;
        self.added(digest, &path, bytes.len() as u64)
    }

    fn added(&self, digest: &Digest, path: &Path, size: u64) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        {
            let mut index = self.lock();
            index.bytes += size;
            if let Some(old) = index.entries.insert(digest.clone(), Entry { size, used: SystemTime::now() }) {
                index.bytes -= old.size;
            }
        }
        self.evict();
        Ok(())
    }

    /// Makes room where there is more than allowed. What is still arriving is not in the index, so it stays.
    fn evict(&self) {
        let mut victims: Vec<(SystemTime, Digest, u64)> = {
            let index = self.lock();
            if self.max_size == 0 || index.bytes <= self.max_size {
                return;
            }
            index.entries.iter().map(|(digest, entry)| (entry.used, digest.clone(), entry.size)).collect()
        };
        victims.sort_unstable_by_key(|(used, ..)| *used);
        let target = self.max_size / LOW_WATER.1 * LOW_WATER.0;
        for (_, digest, size) in victims {
            if self.lock().bytes <= target {
                break;
            }
            tracing::debug!(%digest, size, "evicted");
            if let Err(error) = self.remove(&digest) {
                tracing::warn!(%digest, %error, "cannot evict");
            }
        }
    }

    /// Beginnings that were not written to for long, with the digests that they are of.
    pub(crate) fn old_partials(&self) -> Vec<(PathBuf, Option<Digest>)> {
        let now = SystemTime::now();
        let old = |metadata: &fs::Metadata| {
            metadata.modified().is_ok_and(|time| now.duration_since(time).is_ok_and(|age| age > PARTIAL_KEPT))
        };
        let entries = fs::read_dir(self.root.join("ingest")).into_iter().flatten().flatten();
        let entries = entries.filter(|entry| entry.metadata().is_ok_and(|metadata| old(&metadata)));
        let digest = |name: &std::ffi::OsStr| name.to_string_lossy().replacen('-', ":", 1).parse().ok();
        entries.map(|entry| (entry.path(), digest(&entry.file_name()))).collect()
    }

    /// At the start, when nobody writes.
    fn drop_leftovers(&self) {
        for (path, _) in self.old_partials() {
            let _ = fs::remove_file(path);
        }
        for entry in fs::read_dir(self.root.join("ingest")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(PUT) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// What is not there need not be removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(directory.path(), 1000).unwrap();
        let contents: Vec<Vec<u8>> = (0..3u8).map(|n| vec![n; 400]).collect();
        let digests: Vec<Digest> = contents.iter().map(|content| Digest::sha256(content)).collect();
        blobs.put(&digests[0], &contents[0]).unwrap();
        blobs.put(&digests[1], &contents[1]).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        for digest in &digests[..2] {
            blobs.lock().entries.get_mut(digest).unwrap().used = long_ago;
        }
        let open = blobs.get(&digests[0]).unwrap().unwrap();
        blobs.put(&digests[2], &contents[2]).unwrap();
        assert!(blobs.has(&digests[0]) && !blobs.has(&digests[1]) && blobs.has(&digests[2]));
        assert_eq!(open.size, 400);
        assert_eq!(blobs.totals(), (2, 800));
        assert!(!blobs.path(&digests[1]).exists());
    }

    #[test]
    fn beginnings_that_nobody_goes_on_with_are_old_some_day() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(directory.path(), 0).unwrap();
        let [new, old] = [b"new", b"old"].map(|content| Digest::sha256(content));
        blobs.ingest(&new).unwrap();
        let long_ago = SystemTime::now() - PARTIAL_KEPT - Duration::from_secs(60);
        blobs.ingest(&old).unwrap().file.set_modified(long_ago).unwrap();
        assert_eq!(blobs.old_partials(), [(blobs.ingest_path(&old), Some(old))]);
        fs::write(directory.path().join("ingest/put-0"), "half").unwrap();
        let blobs = Blobs::open(directory.path(), 0).unwrap();
        assert_eq!(fs::read_dir(directory.path().join("ingest")).unwrap().count(), 1);
        assert!(blobs.ingest_path(&new).exists());
    }

    #[test]
    fn the_directory_is_the_truth_at_a_start() {
        let directory = tempfile::tempdir().unwrap();
        let digest = Digest::sha256(b"content");
        Blobs::open(directory.path(), 0).unwrap().put(&digest, b"content").unwrap();
        fs::write(directory.path().join("blobs/sha256/stray"), "x").unwrap();
        let blobs = Blobs::open(directory.path(), 0).unwrap();
        assert_eq!(blobs.totals(), (1, 7));
        fs::write(blobs.path(&digest), "cut").unwrap();
        assert!(blobs.get(&digest).unwrap().is_none(), "a blob of the wrong length is not served");
        assert_eq!(blobs.totals(), (0, 0));
    }
}
