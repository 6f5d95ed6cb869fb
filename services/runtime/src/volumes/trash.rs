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
    sender: mpsc::Sender<PathBuf>,
}

impl Trash {
    /// Opens the trash at `path` and begins to empty it.
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&path).map_err(Error::io("cannot make", &path))?;
        let (sender, garbage) = mpsc::channel::<PathBuf>();
        for entry in fs::read_dir(&path).map_err(Error::io("cannot list", &path))?.flatten() {
            // The receiver lives as long as the thread below, which does not end before the sender.
            let _ = sender.send(entry.path());
        }
        let empty = move || {
            for path in garbage {
                if let Err(error) = fs::remove_dir_all(&path) {
                    tracing::warn!(path = %path.display(), %error, "garbage cannot be deleted now; the next start tries again");
                }
            }
        };
        thread::Builder::new()
            .name("volume-trash".into())
            .spawn(empty)
            .map_err(Error::io("cannot start the thread that empties", &path))?;
        Ok(Self { path, sender })
    }

    /// Throws a directory away; whether it was there.
    pub(super) fn take(&self, directory: &Path) -> Result<bool, Error> {
        let target = self.path.join(hex::encode(rand::random::<[u8; 16]>()));
        match fs::rename(directory, &target) {
            Ok(()) => {
                let _ = self.sender.send(target);
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("cannot throw away", directory)(error)),
        }
    }
}
