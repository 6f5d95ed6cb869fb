//! Frames of the attach protocol, as they lie on the socket.

use std::io;

use berth_core::stream::{HEADER, Kind, MAX_PAYLOAD, header, parse};
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Reads frames; payloads are slices of what was read, not copies.
#[derive(Debug)]
pub(super) struct Reader<R> {
    from: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, buffer: BytesMut::new() }
    }

    /// The next frame; `None` at an end between frames. May be cancelled: nothing read is lost.
    pub(super) async fn next(&mut self) -> io::Result<Option<(Kind, Bytes)>> {
        loop {
            if let Some(head) = self.buffer.first_chunk::<HEADER>() {
                let (kind, len) = parse(*head).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                if self.buffer.len() >= HEADER + len {
                    self.buffer.advance(HEADER);
                    return Ok(Some((kind, self.buffer.split_to(len).freeze())));
                }
            }
            self.buffer.reserve(HEADER + MAX_PAYLOAD);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }
}

/// Writes frames.
#[derive(Debug)]
pub(super) struct Writer<W> {
    to: W,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to }
    }

    /// Writes one frame, header and payload in one system call where the socket has room.
    pub(super) async fn send(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let head = header(kind, payload.len());
        let mut frame = Buf::chain(&head[..], payload);
        while frame.has_remaining() {
            if self.to.write_buf(&mut frame).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_arrive_however_they_are_cut() {
        let (mut near, far) = tokio::io::duplex(7);
        let mut reader = Reader::new(far);
        let large = vec![5; MAX_PAYLOAD];
        let bytes =
            [&header(Kind::Stdout, 3)[..], b"abc", &header(Kind::End, 0), &header(Kind::Stderr, large.len()), &large]
                .concat();
        let writing = tokio::spawn(async move { near.write_all(&bytes).await.unwrap() });
        assert_eq!(reader.next().await.unwrap(), Some((Kind::Stdout, Bytes::from_static(b"abc"))));
        assert_eq!(reader.next().await.unwrap(), Some((Kind::End, Bytes::new())));
        assert_eq!(reader.next().await.unwrap(), Some((Kind::Stderr, large.into())));
        assert_eq!(reader.next().await.unwrap(), None);
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn nonsense_and_torn_frames_are_errors() {
        assert!(Reader::new(&b"GET / HTTP/1.1"[..]).next().await.is_err());
        assert!(Reader::new(&header(Kind::Stdout, 3)[..4]).next().await.is_err());
    }
}
