//! Standard output and error, written on a thread of their own and in the order things came: a reader that is slow or
//! stands still holds up only what it should, never signals or standard input.

use std::{io, thread};

use bytes::Bytes;
use nix::fcntl::{FcntlArg, fcntl};
use tokio::sync::{mpsc, oneshot};

/// Pieces that wait for a slow reader.
const QUEUE: usize = 16;
/// What a pipe is asked to hold.
const PIPE: i32 = 256 * 1024;

/// Where a piece goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The way to standard output and error.
#[derive(Debug)]
pub(crate) struct Output {
    pieces: mpsc::Sender<(Stream, Bytes)>,
    written: oneshot::Receiver<()>,
}

impl Output {
    /// Begins.
    pub(crate) fn new() -> Self {
        let (pieces, queue) = mpsc::channel(QUEUE);
        let (done, written) = oneshot::channel();
        let _ = fcntl(io::stdout(), FcntlArg::F_SETPIPE_SZ(PIPE));
        thread::spawn(move || {
            if drain(queue).is_ok() {
                let _ = done.send(());
            }
        });
        Self { pieces, written }
    }

    /// Passes a piece on; false where its reader is gone.
    pub(crate) async fn write(&self, stream: Stream, bytes: Bytes) -> bool {
        self.pieces.send((stream, bytes)).await.is_ok()
    }

    /// Waits until all is written; false where a reader is gone.
    pub(crate) async fn flush(self) -> bool {
        drop(self.pieces);
        self.written.await.is_ok()
    }
}

fn drain(mut queue: mpsc::Receiver<(Stream, Bytes)>) -> nix::Result<()> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    while let Some((stream, bytes)) = queue.blocking_recv() {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let written = match stream {
                Stream::Stdout => nix::unistd::write(&stdout, rest),
                Stream::Stderr => nix::unistd::write(&stderr, rest),
            };
            match written {
                Ok(size) => rest = &rest[size..],
                Err(nix::errno::Errno::EINTR) => {}
                // A terminal that another program made non-blocking: wait until it takes more.
                Err(nix::errno::Errno::EAGAIN) => wait_writable(stream)?,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn wait_writable(stream: Stream) -> nix::Result<()> {
    use std::os::fd::AsFd as _;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let fd = match stream {
        Stream::Stdout => stdout.as_fd(),
        Stream::Stderr => stderr.as_fd(),
    };
    poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], PollTimeout::NONE).map(drop)
}
