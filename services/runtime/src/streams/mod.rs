//! A client of a bundle's attach socket: between a caller's streams and a process in a container.
//!
//! Both ways are bounded: input waits for the process, output for the caller. Which clients may hold a process up is the
//! shim's decision.

mod frames;

use std::{io, path::Path};

use berth_core::{
    bundle::ATTACH_SOCKET,
    connect,
    stream::{Attached, Hello, Kind, MAX_PAYLOAD},
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::{
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::{Duration, timeout},
};

use frames::{Reader, Writer};

/// A shim answers a client within this time.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why a client is not, or no longer, attached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody listens, or the connection broke.
    #[error("attaching to the container: {0}")]
    Io(#[from] io::Error),
    /// The shim said why not.
    #[error("attaching to the container: {0}")]
    Refused(String),
    /// The peer speaks something else.
    #[error("attaching to the container: the shim said {0:?} out of turn")]
    Unexpected(Kind),
    /// It took too long.
    #[error("attaching to the container: the shim did not answer within {} s", DEADLINE.as_secs())]
    Late,
}

impl From<Error> for berth_core::Failure {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Late => berth_core::Kind::DeadlineExceeded,
            Error::Refused(_) => berth_core::Kind::FailedPrecondition,
            // The process is gone, and its shim with it.
            Error::Io(_) => berth_core::Kind::Unavailable,
            Error::Unexpected(_) => berth_core::Kind::Internal,
        };
        berth_core::Failure::from_error(kind, &error)
    }
}

/// What a caller sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Bytes(Bytes),
    /// No more bytes will come.
    Close,
    /// Columns and rows.
    Resize(u16, u16),
}

/// What a caller gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The caller was too slow and that many bytes were left out.
    Lost(u64),
}

/// An attached client; dropping it detaches, and the process goes on.
#[derive(Debug)]
pub(crate) struct Session {
    /// The process has a terminal.
    pub(crate) tty: bool,
    reader: Reader<OwnedReadHalf>,
    writer: Writer<OwnedWriteHalf>,
}

/// Attaches to a process of the container in this bundle. From now on all it prints comes here.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn attach(bundle: &Path, hello: &Hello) -> Result<Session, Error> {
    let attaching = async {
        let socket: UnixStream = connect::connect(bundle.join(ATTACH_SOCKET)).await?;
        let (read, write) = socket.into_split();
        let (mut reader, mut writer) = (Reader::new(read), Writer::new(write));
        let hello = serde_json::to_vec(hello).map_err(io::Error::from)?;
        writer.send(Kind::Hello, &hello).await?;
        let (kind, payload) = reader.next().await?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        match kind {
            Kind::Attached => {
                let attached: Attached = serde_json::from_slice(&payload).map_err(io::Error::from)?;
                Ok(Session { tty: attached.tty, reader, writer })
            }
            Kind::Refused => Err(Error::Refused(String::from_utf8_lossy(&payload).into_owned())),
            other => Err(Error::Unexpected(other)),
        }
    };
    timeout(DEADLINE, attaching).await.map_err(|_| Error::Late)?
}

impl Session {
    /// Carries bytes both ways until the process's output has ended, or the caller takes no more of it. The end of
    /// `input` alone ends nothing: a caller that is gone drops the receiver of `output`.
    ///
    /// # Errors
    /// The connection broke before the output ended: the shim is gone.
    pub(crate) async fn run(self, input: impl Stream<Item = Input>, output: mpsc::Sender<Output>) -> Result<(), Error> {
        let Self { mut reader, mut writer, .. } = self;
        let incoming = async {
            let mut input = std::pin::pin!(input);
            while let Some(message) = input.next().await {
                let sent = match message {
                    Input::Bytes(bytes) => writer.send_all(Kind::Stdin, &bytes).await,
                    Input::Close => writer.send(Kind::CloseStdin, &[]).await,
                    Input::Resize(columns, rows) => {
                        let ([a, b], [c, d]) = (columns.to_le_bytes(), rows.to_le_bytes());
                        writer.send(Kind::Resize, &[a, b, c, d]).await
                    }
                };
                if sent.is_err() {
                    // The process takes no more; what it still prints is read on.
                    break;
                }
            }
            // The writer stays open: closing it would detach.
            std::future::pending::<()>().await;
        };
        let outgoing = async {
            while let Some((kind, payload)) = reader.next().await? {
                let message = match kind {
                    Kind::Stdout => Output::Stdout(payload),
                    Kind::Stderr => Output::Stderr(payload),
                    Kind::Lost => Output::Lost(number(&payload)),
                    Kind::End => return Ok(()),
                    Kind::Refused => return Err(Error::Refused(String::from_utf8_lossy(&payload).into_owned())),
                    other => return Err(Error::Unexpected(other)),
                };
                if output.send(message).await.is_err() {
                    return Ok(());
                }
            }
            Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
        };
        tokio::select! {
            result = outgoing => result,
            () = output.closed() => Ok(()),
            () = incoming => Ok(()),
        }
    }
}

fn number(payload: &[u8]) -> u64 {
    payload.try_into().map(u64::from_le_bytes).unwrap_or_default()
}

impl<W: tokio::io::AsyncWrite + Unpin> Writer<W> {
    /// Sends bytes in as many frames as they need.
    async fn send_all(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(MAX_PAYLOAD) {
            self.send(kind, chunk).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use berth_core::stream::header;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;

    async fn read_frame(socket: &mut UnixStream) -> (Kind, Vec<u8>) {
        let mut head = [0; 5];
        socket.read_exact(&mut head).await.unwrap();
        let (kind, len) = berth_core::stream::parse(head).unwrap();
        let mut payload = vec![0; len];
        socket.read_exact(&mut payload).await.unwrap();
        (kind, payload)
    }

    async fn write_frame(socket: &mut UnixStream, kind: Kind, payload: &[u8]) {
        socket.write_all(&[&header(kind, payload.len()), payload].concat()).await.unwrap();
    }

    #[tokio::test]
    async fn carries_bytes_both_ways_until_the_end() {
        let bundle = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(bundle.path().join(ATTACH_SOCKET)).unwrap();
        let shim = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (kind, hello) = read_frame(&mut socket).await;
            let hello: Hello = serde_json::from_slice(&hello).unwrap();
            assert_eq!((kind, hello.exec_id.as_str(), hello.stdout), (Kind::Hello, "e", true));
            write_frame(&mut socket, Kind::Attached, br#"{"tty":true}"#).await;
            assert_eq!(read_frame(&mut socket).await, (Kind::Stdin, b"in".to_vec()));
            assert_eq!(read_frame(&mut socket).await, (Kind::Resize, vec![80, 0, 24, 0]));
            assert_eq!(read_frame(&mut socket).await, (Kind::CloseStdin, vec![]));
            write_frame(&mut socket, Kind::Stdout, b"out").await;
            write_frame(&mut socket, Kind::Lost, &7u64.to_le_bytes()).await;
            write_frame(&mut socket, Kind::Stderr, b"err").await;
            write_frame(&mut socket, Kind::End, &[]).await;
        });
        let hello = Hello { exec_id: "e".into(), stdin: true, stdout: true, stderr: true };
        let session = attach(bundle.path(), &hello).await.unwrap();
        assert!(session.tty);
        let input = [Input::Bytes(Bytes::from_static(b"in")), Input::Resize(80, 24), Input::Close];
        let (sender, mut output) = mpsc::channel(1);
        let running = tokio::spawn(session.run(futures::stream::iter(input), sender));
        assert_eq!(output.recv().await, Some(Output::Stdout(Bytes::from_static(b"out"))));
        assert_eq!(output.recv().await, Some(Output::Lost(7)));
        assert_eq!(output.recv().await, Some(Output::Stderr(Bytes::from_static(b"err"))));
        assert_eq!(output.recv().await, None);
        running.await.unwrap().unwrap();
        shim.await.unwrap();
    }

    #[tokio::test]
    async fn a_refusal_and_a_death_are_told() {
        let bundle = tempfile::tempdir().unwrap();
        assert!(matches!(attach(bundle.path(), &Hello::default()).await, Err(Error::Io(_))));
        let listener = UnixListener::bind(bundle.path().join(ATTACH_SOCKET)).unwrap();
        let shim = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            read_frame(&mut socket).await;
            write_frame(&mut socket, Kind::Refused, b"no such exec").await;
            let (mut socket, _) = listener.accept().await.unwrap();
            read_frame(&mut socket).await;
            write_frame(&mut socket, Kind::Attached, b"{}").await;
        });
        let refused = attach(bundle.path(), &Hello::default()).await.unwrap_err();
        assert!(refused.to_string().contains("no such exec"));
        let session = attach(bundle.path(), &Hello::default()).await.unwrap();
        let (sender, _output) = mpsc::channel(1);
        assert!(session.run(futures::stream::pending(), sender).await.is_err());
        shim.await.unwrap();
    }
}
