//! Writes and hashes what arrives, in a thread that may block, behind a short queue: the download waits for the disk.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use berth_core::digest::Hasher;
use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinHandle};

/// Pieces between network and disk.
const QUEUE: usize = 32;
/// A beginning that was there already is read in steps of this size.
const STEP: usize = 1 << 20;

/// A prefix of a blob: its hash so far, and its length.
pub(super) struct Prefix {
    pub(super) hasher: Hasher,
    pub(super) length: u64,
}

/// A writer at work. Dropping the sender ends it.
pub(super) struct Writer {
    pub(super) pieces: mpsc::Sender<Bytes>,
    pub(super) task: JoinHandle<(Prefix, io::Result<()>)>,
}

/// Writes behind `prefix`; `written` is told each new length.
pub(super) fn start(file: Arc<File>, mut prefix: Prefix, written: impl Fn(u64) + Send + 'static) -> Writer {
    let (pieces, mut queue) = mpsc::channel::<Bytes>(QUEUE);
    let task = tokio::task::spawn_blocking(move || {
        while let Some(piece) = queue.blocking_recv() {
            if let Err(error) = file.write_all_at(&piece, prefix.length) {
                return (prefix, Err(error));
            }
            prefix.hasher.update(&piece);
            prefix.length += piece.len() as u64;
            written(prefix.length);
        }
        (prefix, Ok(()))
    });
    Writer { pieces, task }
}

/// Hashes what lies in the file already. Blocks.
pub(super) fn rehash(file: &File, length: u64, hasher: Hasher) -> io::Result<Prefix> {
    let mut prefix = Prefix { hasher, length: 0 };
    let mut buffer = vec![0; STEP];
    while prefix.length < length {
        let want = STEP.min((length - prefix.length) as usize);
        file.read_exact_at(&mut buffer[..want], prefix.length)?;
        prefix.hasher.update(&buffer[..want]);
        prefix.length += want as u64;
    }
    Ok(prefix)
}
