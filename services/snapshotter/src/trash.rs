//! Deleting: renaming is what a caller waits for; the files go afterwards, one tree after the other, on a thread of their
//! own, so that the file system's journal is left to those who create.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use crate::error::Error;

/// Where garbage waits. What a killed service left there is deleted by the next.
#[derive(Debug)]
pub(crate) struct Trash {
    path: PathBuf,
    next: AtomicU64,
    sender: mpsc::Sender<PathBuf>,
}

impl Trash {
    /// Opens the trash at `path` and begins to empty it.
    pub(crate) fn open(path: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&path).map_err(Error::io("cannot make", &path))?;
        let (sender, garbage) = mpsc::channel::<PathBuf>();
        let mut next = 0;
        for entry in fs::read_dir(&path).map_err(Error::io("cannot list", &path))?.flatten() {
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok()).unwrap_or(0);
            next = next.max(number + 1);
            // The receiver lives as long as the thread below, which does not end before the sender.
            let _ = sender.send(entry.path());
        }
        thread::Builder::new()
            .name("trash".into())
            .spawn(move || {
                for path in garbage {
                    if let Err(error) = fs::remove_dir_all(&path) {
                        tracing::warn!(path = %path.display(), %error, "garbage cannot be deleted now; the next start tries again");
                    }
                }
            })
            .map_err(Error::io("cannot start the thread that empties", &path))?;
        Ok(Self { path, next: AtomicU64::new(next), sender })
    }

    /// Throws a directory away. One that is not there is no error.
    pub(crate) fn take(&self, directory: &Path) -> Result<(), Error> {
        let target = self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        match fs::rename(directory, &target) {
            Ok(()) => {
                let _ = self.sender.send(target);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("cannot throw away", directory)(error)),
        }
    }
}
