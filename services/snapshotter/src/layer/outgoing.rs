//! A tar on its way out: in large pieces, to whoever asked for it and, where it is wanted, to who hashes it and lays it
//! down here.

use std::{
    fs::File,
    io::{self, Read},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use berth_core::digest::{Algorithm, Hasher};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::pipeline::Inflated;
use crate::error::Error;

/// Bytes of a piece.
const PIECE: usize = 256 * 1024;
/// Pieces that wait to be laid down.
const QUEUE: usize = 4;
const BLOCK: u64 = 512;

/// Where a tar goes.
pub(crate) struct Outgoing {
    piece: Vec<u8>,
    caller: mpsc::Sender<Bytes>,
    beside: Beside,
    bytes: u64,
}

enum Beside {
    Hash(Box<Hasher>),
    LayDown(SyncSender<Bytes>),
}

impl Outgoing {
    /// To the caller; it is hashed here.
    pub(crate) fn hashed(caller: mpsc::Sender<Bytes>) -> Self {
        Self { piece: Vec::new(), caller, beside: Beside::Hash(Box::new(Algorithm::Sha256.hasher())), bytes: 0 }
    }

    /// To the caller, and to who reads the answer.
    pub(crate) fn laid_down(caller: mpsc::Sender<Bytes>) -> (Self, Copy) {
        let (sender, receiver) = sync_channel(QUEUE);
        let outgoing = Self { piece: Vec::new(), caller, beside: Beside::LayDown(sender), bytes: 0 };
        (outgoing, Copy { receiver, current: Bytes::new() })
    }

    /// More of the tar.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let size = bytes.len().min(PIECE - self.piece.len());
            self.room();
            self.piece.extend_from_slice(&bytes[..size]);
            bytes = &bytes[size..];
            self.full()?;
        }
        Ok(())
    }

    /// So many bytes of a file, and what fills its last block. One that has become shorter is filled with zeros.
    pub(crate) fn file(&mut self, file: &File, size: u64) -> Result<(), Error> {
        let mut left = size;
        let mut file = file;
        while left > 0 {
            self.room();
            let start = self.piece.len();
            let want = usize::try_from(left).unwrap_or(PIECE).min(PIECE - start);
            self.piece.resize(start + want, 0);
            match file.read(&mut self.piece[start..]) {
                Ok(read) => {
                    // At the end the zeros that stand there count.
                    let read = if read == 0 { want } else { read };
                    self.piece.truncate(start + read);
                    left -= read as u64;
                }
                Err(error) => {
                    self.piece.truncate(start);
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(Error::io("cannot read", "a file")(error));
                    }
                }
            }
            self.full()?;
        }
        let padding = size.next_multiple_of(BLOCK) - size;
        self.write(&[0; BLOCK as usize][..padding as usize])
    }

    /// All of it is there.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.send(piece)
    }

    /// What went out, where it was hashed here.
    pub(crate) fn finish(self) -> Option<Inflated> {
        match self.beside {
            Beside::Hash(hasher) => Some(Inflated { diff_id: hasher.finish(), bytes: self.bytes }),
            Beside::LayDown(_) => None,
        }
    }

    fn room(&mut self) {
        if self.piece.capacity() < PIECE {
            self.piece.reserve_exact(PIECE - self.piece.len());
        }
    }

    fn full(&mut self) -> Result<(), Error> {
        if self.piece.len() == PIECE { self.flush() } else { Ok(()) }
    }

    fn send(&mut self, piece: Bytes) -> Result<(), Error> {
        if piece.is_empty() {
            return Ok(());
        }
        self.bytes += piece.len() as u64;
        match &mut self.beside {
            Beside::Hash(hasher) => hasher.update(&piece),
            // Who lays it down says itself why it stopped.
            Beside::LayDown(copy) => copy.send(piece.clone()).map_err(|_| Error::Cancelled)?,
        }
        self.caller.blocking_send(piece).map_err(|_| Error::Cancelled)
    }
}

/// The same tar, to be read.
pub(crate) struct Copy {
    receiver: Receiver<Bytes>,
    current: Bytes,
}

impl Read for Copy {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            match self.receiver.recv() {
                Ok(next) => self.current = next,
                Err(_) => return Ok(0),
            }
        }
        let size = buffer.len().min(self.current.len());
        buffer[..size].copy_from_slice(&self.current.split_to(size));
        Ok(size)
    }
}
