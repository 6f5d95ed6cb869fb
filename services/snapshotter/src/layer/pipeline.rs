//! Inflating and hashing on one thread, unpacking on another, with a few large buffers going around between them.

use std::{
    io::{self, Read},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread,
};

use berth_core::{Digest, digest::Algorithm};

use super::inflate::Inflate;

/// Bytes of a buffer, and how many go around for one layer.
const BUFFER: usize = 512 * 1024;
const BUFFERS: usize = 4;

/// What came out of a blob.
pub(crate) struct Inflated {
    /// Digest of the uncompressed tar.
    pub(crate) diff_id: Digest,
    /// Bytes of it.
    pub(crate) bytes: u64,
}

/// Inflates `blob` on this thread's helper and lets `unpack` read the tar. `unpack` may stop early; the rest is hashed
/// all the same.
pub(crate) fn run<T, E>(
    blob: impl Read + Send,
    algorithm: Algorithm,
    unpack: impl FnOnce(&mut Tar) -> Result<T, E>,
) -> (Result<T, E>, io::Result<Inflated>) {
    let (filled, tar) = sync_channel(BUFFERS);
    let (emptied, empty) = channel();
    for _ in 0..BUFFERS {
        // The receiver is in this function.
        let _ = emptied.send(Vec::new());
    }
    thread::scope(|scope| {
        let inflating = scope.spawn(move || inflate(blob, algorithm, &filled, &empty));
        let mut tar = Tar { tar, emptied, current: Vec::new(), position: 0 };
        let unpacked = unpack(&mut tar);
        if unpacked.is_ok() {
            tar.drain();
        }
        // Whoever failed to unpack does not need the rest; inflating ends when nobody takes its buffers.
        drop(tar);
        let inflated = inflating.join().unwrap_or_else(|_| Err(io::Error::other("inflating panicked")));
        (unpacked, inflated)
    })
}

fn inflate(
    blob: impl Read,
    algorithm: Algorithm,
    filled: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> io::Result<Inflated> {
    let mut inflate = Inflate::new(blob)?;
    let mut hasher = algorithm.hasher();
    let mut bytes = 0;
    while let Ok(mut buffer) = empty.recv() {
        buffer.clear();
        buffer.reserve(BUFFER);
        inflate.by_ref().take(BUFFER as u64).read_to_end(&mut buffer)?;
        if buffer.is_empty() {
            return Ok(Inflated { diff_id: hasher.finish(), bytes });
        }
        hasher.update(&buffer);
        bytes += buffer.len() as u64;
        if filled.send(buffer).is_err() {
            break;
        }
    }
    Err(io::Error::other("unpacking stopped"))
}

/// The uncompressed tar, as its reader sees it.
pub(crate) struct Tar {
    tar: Receiver<Vec<u8>>,
    emptied: Sender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
}

impl Tar {
    /// Takes what is left, so that all of it is hashed.
    fn drain(&mut self) {
        while let Ok(buffer) = self.tar.recv() {
            let _ = self.emptied.send(buffer);
        }
    }
}

impl Read for Tar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.current.len() {
            let Ok(next) = self.tar.recv() else { return Ok(0) };
            let used = std::mem::replace(&mut self.current, next);
            self.position = 0;
            let _ = self.emptied.send(used);
        }
        let size = buffer.len().min(self.current.len() - self.position);
        buffer[..size].copy_from_slice(&self.current[self.position..self.position + size]);
        self.position += size;
        Ok(size)
    }
}
