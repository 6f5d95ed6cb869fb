//! Inflating on one thread, hashing on another, unpacking on a third, with a few large buffers going around between them.

use std::{
    io::{self, BufRead, Read},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread,
};

use berth_core::{Digest, digest::Algorithm};

use super::inflate::Inflate;

/// Bytes of a buffer, and how many go around for one layer. Large, because every hand-over wakes a thread; few, so that
/// what is written to files still lies in the processor's cache.
const BUFFER: usize = 256 * 1024;
const BUFFERS: usize = 6;

/// What came out of a blob.
#[derive(Debug)]
pub(crate) struct Inflated {
    /// Digest of the uncompressed tar.
    pub(crate) diff_id: Digest,
    /// Bytes of it.
    pub(crate) bytes: u64,
}

/// Why not all of a blob was inflated and hashed.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The blob is at fault.
    Blob(io::Error),
    /// Nobody took what came out.
    Unread,
}

/// Inflates `blob` and lets `unpack` read the tar. `unpack` may stop early; the rest is hashed all the same, unless it
/// failed.
pub(crate) fn run<T: Send, E: Send>(
    blob: impl Read + Send,
    algorithm: Algorithm,
    unpack: impl FnOnce(&mut Tar) -> Result<T, E> + Send,
) -> (Result<T, E>, Result<Inflated, Stopped>) {
    let (inflated, to_hash) = sync_channel(BUFFERS);
    let (hashed, tar) = sync_channel(BUFFERS);
    let (emptied, empty) = channel();
    for _ in 0..BUFFERS {
        // The receiver is in this function.
        let _ = emptied.send(Vec::new());
    }
    thread::scope(|scope| {
        let inflating = scope.spawn(move || inflate(blob, &inflated, &empty));
        let hashing = scope.spawn(move || hash(algorithm, &to_hash, &hashed));
        // On a thread of its own as well: unpacking gives it a umask of its own.
        let unpacking = scope.spawn(move || {
            let mut tar = Tar { tar, emptied, current: Vec::new(), position: 0 };
            let unpacked = unpack(&mut tar);
            if unpacked.is_ok() {
                tar.drain();
            }
            // Whoever failed to unpack does not need the rest; inflating ends when nobody takes its buffers.
            unpacked
        });
        let unpacked = join(unpacking);
        let hashed = join(hashing);
        (unpacked, join(inflating).and(hashed))
    })
}

/// What a thread answered; its panic goes on here, as if there were no thread.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn inflate(blob: impl Read, inflated: &SyncSender<Vec<u8>>, empty: &Receiver<Vec<u8>>) -> Result<(), Stopped> {
    let mut inflate = Inflate::new(blob).map_err(Stopped::Blob)?;
    while let Ok(mut buffer) = empty.recv() {
        buffer.resize(BUFFER, 0);
        let mut filled = 0;
        while filled < BUFFER {
            match inflate.read(&mut buffer[filled..]).map_err(Stopped::Blob)? {
                0 => break,
                size => filled += size,
            }
        }
        if filled == 0 {
            return Ok(());
        }
        buffer.truncate(filled);
        if inflated.send(buffer).is_err() {
            break;
        }
    }
    Err(Stopped::Unread)
}

fn hash(algorithm: Algorithm, inflated: &Receiver<Vec<u8>>, hashed: &SyncSender<Vec<u8>>) -> Result<Inflated, Stopped> {
    let mut hasher = algorithm.hasher();
    let mut bytes = 0;
    while let Ok(buffer) = inflated.recv() {
        hasher.update(&buffer);
        bytes += buffer.len() as u64;
        hashed.send(buffer).map_err(|_| Stopped::Unread)?;
    }
    Ok(Inflated { diff_id: hasher.finish(), bytes })
}

/// The uncompressed tar, as its reader sees it.
#[derive(Debug)]
pub(crate) struct Tar {
    tar: Receiver<Vec<u8>>,
    emptied: Sender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
}

impl Tar {
    /// Takes what is left, so that all of it is hashed.
    fn drain(&mut self) {
        let _ = self.emptied.send(std::mem::take(&mut self.current));
        while let Ok(buffer) = self.tar.recv() {
            let _ = self.emptied.send(buffer);
        }
    }
}

impl BufRead for Tar {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.len()
            && let Ok(next) = self.tar.recv()
        {
            let used = std::mem::replace(&mut self.current, next);
            self.position = 0;
            let _ = self.emptied.send(used);
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, size: usize) {
        self.position += size;
    }
}

impl Read for Tar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let filled = self.fill_buf()?;
        let size = buffer.len().min(filled.len());
        buffer[..size].copy_from_slice(&filled[..size]);
        self.consume(size);
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_hashed_even_what_nobody_reads() {
        let bytes = vec![7; 5_000_000];
        let (read, inflated) = run(bytes.as_slice(), Algorithm::Sha256, |tar| {
            let mut some = [0; 10];
            tar.read_exact(&mut some).map(|()| some)
        });
        assert_eq!(read.unwrap(), [7; 10]);
        let inflated = inflated.unwrap();
        assert_eq!((inflated.bytes, inflated.diff_id), (5_000_000, Digest::sha256(&bytes)));
    }

    #[test]
    fn who_fails_stops_the_rest() {
        let (failed, inflated) = run(io::repeat(1), Algorithm::Sha256, |_| Err::<(), _>("no"));
        assert_eq!(failed, Err("no"));
        assert!(matches!(inflated, Err(Stopped::Unread)));
    }
}
