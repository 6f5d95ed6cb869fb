//! Standard input, read on a thread of its own: a read cannot be called off, and the thread ends with the process.

use std::io;

use bytes::{Bytes, BytesMut};
use nix::fcntl::{FcntlArg, fcntl};
use tokio::sync::mpsc;

use super::keys::Keys;

/// What a read asks for; also what a pipe is asked to hold.
const CHUNK: usize = 256 * 1024;
/// Chunks that wait for the connection.
const QUEUE: usize = 8;

/// What came from standard input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// Bytes.
    Bytes(Bytes),
    /// The detach keys were pressed.
    Detach,
}

/// Begins to read standard input; the channel closes at its end.
pub(crate) fn read(mut keys: Option<Keys>) -> mpsc::Receiver<Chunk> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let stdin = io::stdin();
    // Where it is no pipe, or none that may grow, it stays as it is.
    let _ = fcntl(&stdin, FcntlArg::F_SETPIPE_SZ(CHUNK as i32));
    std::thread::spawn(move || {
        let mut buffer = BytesMut::new();
        loop {
            buffer.resize(CHUNK, 0);
            // Not through the standard library's buffer: a chunk is read where it is sent from.
            let size = match nix::unistd::read(&stdin, &mut buffer[..]) {
                Ok(0) => return,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return,
                Ok(size) => size,
            };
            let mut bytes = buffer.split_to(size).freeze();
            let mut detached = false;
            if let Some(keys) = &mut keys {
                let mut passed = Vec::with_capacity(bytes.len());
                detached = keys.filter(&bytes, &mut passed);
                bytes = passed.into();
            }
            if !bytes.is_empty() && sender.blocking_send(Chunk::Bytes(bytes)).is_err() {
                return;
            }
            if detached {
                let _ = sender.blocking_send(Chunk::Detach);
                return;
            }
        }
    });
    receiver
}
