//! A stream of the caller's on its way to a service, in large pieces and no faster than it is taken.

use std::{io, io::Read};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::outcome::Error;

/// What a message carries.
const PIECE: usize = 1 << 20;
/// Messages that wait for the connection.
const QUEUE: usize = 4;

/// Why a stream could not be read to its end, once the call is over.
pub(super) struct Upload(std::sync::mpsc::Receiver<io::Error>);

impl Upload {
    /// Sends `first` and then all of `source`.
    pub(super) fn begin<T: Send + 'static>(
        first: T,
        source: impl Read + Send + 'static,
        piece: impl Fn(Bytes) -> T + Send + 'static,
    ) -> (Self, ReceiverStream<T>) {
        let (sender, requests) = mpsc::channel(QUEUE);
        // The channel is new and holds more than one.
        let _ = sender.try_send(first);
        let (failed, failure) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            if let Err(error) = send(source, &sender, piece) {
                // Heard first, then the stream ends.
                let _ = failed.send(error);
            }
        });
        (Self(failure), ReceiverStream::new(requests))
    }

    /// Whether all of it could be read.
    ///
    /// # Errors
    /// It could not.
    pub(super) fn end(&self) -> Result<(), Error> {
        match self.0.try_recv() {
            Ok(source) => Err(Error::Io { what: "cannot read the archive".into(), source }),
            Err(_) => Ok(()),
        }
    }
}

fn send<T>(mut source: impl Read, sender: &mpsc::Sender<T>, piece: impl Fn(Bytes) -> T) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.resize(PIECE, 0);
        let mut filled = 0;
        while filled < PIECE {
            match source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(size) => filled += size,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let bytes = buffer.split_to(filled).freeze();
        if bytes.is_empty() || sender.blocking_send(piece(bytes)).is_err() {
            return Ok(());
        }
    }
}
