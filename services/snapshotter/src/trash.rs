//! Deleting: renaming is what a caller waits for; the files go afterwards, one tree after the other, on a thread of their
//! own. While layers are laid down it rests, as long as there is space: a file system that has just deleted many files
//! is slow to make new ones.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use tokio::sync::watch;

use crate::{error::Error, layer::tree};

/// Where garbage waits. What a killed service left there is deleted by the next.
#[derive(Debug)]
pub(crate) struct Trash {
    path: PathBuf,
    next: AtomicU64,
    /// Trees that were thrown away, and how many of them are deleted (or cannot be).
    taken: Arc<AtomicU64>,
    deleted: watch::Receiver<u64>,
    /// There is garbage; one signal waits for all.
    signal: SyncSender<()>,
    gate: Arc<Gate>,
}

/// When deleting rests.
#[derive(Debug, Default)]
struct Gate {
    waits: Mutex<Waits>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waits {
    /// Layers being laid down.
    layers: usize,
    /// Calls that wait for the deletion.
    hurry: usize,
}

/// While this lives, deleting rests, or hurries.
#[derive(Debug)]
pub(crate) struct Wish {
    gate: Arc<Gate>,
    hurry: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Waits> {
        // Two counters, each changed in one step.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wish(self: &Arc<Self>, hurry: bool) -> Wish {
        let mut waits = self.lock();
        *(if hurry { &mut waits.hurry } else { &mut waits.layers }) += 1;
        self.changed.notify_all();
        Wish { gate: Arc::clone(self), hurry }
    }

    /// Returns when the next tree may be deleted.
    fn pass(&self, base: &Path) {
        let mut waits = self.lock();
        while waits.layers > 0 && waits.hurry == 0 && !scarce(base) {
            waits = self.changed.wait(waits).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        let mut waits = self.gate.lock();
        *(if self.hurry { &mut waits.hurry } else { &mut waits.layers }) -= 1;
        self.gate.changed.notify_all();
    }
}

/// Less than a quarter of the file system is free; then space comes before speed.
fn scarce(base: &Path) -> bool {
    rustix::fs::statvfs(base).is_ok_and(|stat| stat.f_bavail < stat.f_blocks / 4 || stat.f_favail < stat.f_files / 4)
}

impl Trash {
    /// Opens the trash at `path` and begins to empty it.
    pub(crate) fn open(path: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&path).map_err(Error::io("cannot make", &path))?;
        let mut next = 0;
        for entry in fs::read_dir(&path).map_err(Error::io("cannot list", &path))?.flatten() {
            let number: u64 = entry.file_name().to_str().and_then(|name| name.parse().ok()).unwrap_or(0);
            next = next.max(number.saturating_add(1));
        }
        let (signal, garbage) = sync_channel(1);
        let (done, deleted) = watch::channel(0);
        let (taken, gate) = (Arc::new(AtomicU64::new(1)), Arc::new(Gate::default()));
        // What lies there from before counts as one.
        let _ = signal.try_send(());
        thread::Builder::new()
            .name("trash".into())
            .spawn({
                let (path, taken, gate) = (path.clone(), Arc::clone(&taken), Arc::clone(&gate));
                move || empty(&path, &garbage, &taken, &done, &gate)
            })
            .map_err(Error::io("cannot start the thread that empties", &path))?;
        Ok(Self { path, next: AtomicU64::new(next), taken, deleted, signal, gate })
    }

    /// Throws a directory away. One that is not there is no error; one that cannot be moved is told and left to the next
    /// start, because nothing that its caller did depends on it.
    pub(crate) fn take(&self, directory: &Path) {
        let target = self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let taken = match fs::rename(directory, &target) {
            Ok(()) => {
                self.taken.fetch_add(1, Ordering::SeqCst);
                // Full means that a signal is on its way already.
                let _ = self.signal.try_send(());
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            // A full disk may have no room for the new name.
            Err(_) => tree::remove(directory),
        };
        if let Err(error) = taken {
            tracing::error!(path = %directory.display(), %error, "cannot be thrown away; the next start tries again");
        }
    }

    /// While the answer lives, a layer is being laid down.
    pub(crate) fn rest(&self) -> Wish {
        self.gate.wish(false)
    }

    /// Waits until all that was thrown away by now is deleted.
    pub(crate) async fn emptied(&self) {
        let _hurry = self.gate.wish(true);
        let taken = self.taken.load(Ordering::SeqCst);
        let mut deleted = self.deleted.clone();
        // An error would mean that the thread has ended, and nothing would be deleted any more.
        let _ = deleted.wait_for(|deleted| *deleted >= taken).await;
    }
}

/// Deletes until the trash itself is gone.
fn empty(path: &Path, garbage: &Receiver<()>, taken: &AtomicU64, deleted: &watch::Sender<u64>, gate: &Gate) {
    while garbage.recv().is_ok() {
        // All that is counted here is in the list below.
        let counted = taken.load(Ordering::SeqCst);
        match fs::read_dir(path) {
            Ok(entries) => {
                for entry in entries.flatten() {
                    gate.pass(path);
                    let path = entry.path();
                    if let Err(error) = tree::remove(&path) {
                        tracing::warn!(path = %path.display(), %error, "garbage cannot be deleted now; it is tried again");
                    }
                }
            }
            Err(error) => tracing::error!(path = %path.display(), %error, "the trash cannot be listed"),
        }
        deleted.send_replace(counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_there_and_what_is_thrown_away_goes_also_while_layers_are_laid_down() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir_all(at("trash/7/deep/er")).unwrap();
        fs::create_dir_all(at("tree/deep/er")).unwrap();
        let trash = Trash::open(at("trash")).unwrap();
        let _layer = trash.rest();
        trash.take(&at("tree"));
        trash.take(&at("nothing"));
        assert!(!at("tree").exists());
        trash.emptied().await;
        assert_eq!(fs::read_dir(at("trash")).unwrap().count(), 0);
    }
}
