//! A tar on its way out: in large pieces, to whoever asked for it, or to nobody, where only its digest is wanted.

use std::{
    fs::File,
    io::{self, Read as _},
};

use berth_core::digest::{Algorithm, Hasher};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{pipeline::Inflated, take::Gone};
use crate::error::Error;

/// Bytes of a piece.
const PIECE: usize = 256 * 1024;
const BLOCK: u64 = 512;

/// Where a tar goes.
pub(crate) struct Outgoing<'a> {
    piece: Vec<u8>,
    to: To<'a>,
    bytes: u64,
}

enum To<'a> {
    Caller(mpsc::Sender<Bytes>),
    /// It is hashed, while somebody waits for that.
    Hash(Box<Hasher>, Gone<'a>),
}

impl<'a> Outgoing<'a> {
    /// To the caller.
    pub(crate) fn to(caller: mpsc::Sender<Bytes>) -> Self {
        Self { piece: Vec::new(), to: To::Caller(caller), bytes: 0 }
    }

    /// To nobody; [`Outgoing::finish`] tells its digest.
    pub(crate) fn hashed(gone: Gone<'a>) -> Self {
        Self { piece: Vec::new(), to: To::Hash(Box::new(Algorithm::Sha256.hasher()), gone), bytes: 0 }
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
        if self.piece.is_empty() {
            return Ok(());
        }
        self.bytes += self.piece.len() as u64;
        match &mut self.to {
            To::Hash(_, gone) if gone() => Err(Error::Cancelled),
            To::Hash(hasher, _) => {
                hasher.update(&self.piece);
                self.piece.clear();
                Ok(())
            }
            To::Caller(caller) => {
                caller.blocking_send(std::mem::take(&mut self.piece).into()).map_err(|_| Error::Cancelled)
            }
        }
    }

    /// What it was, where it was hashed.
    pub(crate) fn finish(self) -> Option<Inflated> {
        match self.to {
            To::Hash(hasher, _) => Some(Inflated { diff_id: hasher.finish(), bytes: self.bytes }),
            To::Caller(_) => None,
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
}
