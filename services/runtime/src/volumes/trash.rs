//! Deleting: renaming is what a caller waits for; the files go afterwards, one tree after the other, on a thread of their
//! own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use crate::volumes::Error;

/// Where garbage waits. What a killed service left there is deleted by the next.
#[derive(Debug)]
pub(super) struct Trash {
    path: PathBuf,
    /// Wakes the thread that empties. One word waits at most: what to delete is what lies there.
    wake: mpsc::SyncSender<()>,
}

impl Trash {
    /// Opens the trash at `path` and begins to empty it.
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&path).map_err(Error::io("cannot make", &path))?;
        let (wake, woken) = mpsc::sync_channel(1);
        let _ = wake.try_send(());
        let directory = path.clone();
        let empty = move || {
            while woken.recv().is_ok() {
                empty(&directory);
            }
        };
        thread::Builder::new()
            .name("volume-trash".into())
            .spawn(empty)
            .map_err(Error::io("cannot start the thread that empties", &path))?;
        Ok(Self { path, wake })
    }

    /// Throws a directory away; whether it was there.
    pub(super) fn take(&self, directory: &Path) -> Result<bool, Error> {
        let target = self.path.join(hex::encode(rand::random::<[u8; 16]>()));
        match fs::rename(directory, &target) {
            Ok(()) => {
                // Where it is full, a wake-up is still to come, and the look after it finds this.
                let _ = self.wake.try_send(());
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("cannot throw away", directory)(error)),
        }
    }
}

fn empty(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "garbage cannot be deleted now; it is tried again");
        }
    }
}
