//! A session: the caller's streams joined to those of a process in a container, over `Attach` or `Exec`.
//!
//! What holds: nothing is looked at byte by byte unless detach keys may be in it; each queue on the way is bounded, so a slow
//! side slows the other down; input that ends is told to the process, and output goes on.

use berth_proto::berth::runtime::v1::{
    AttachRequest, AttachResponse, CloseStdin, ExecRequest, ExecResponse, TerminalSize, attach_request,
    attach_response, exec_request, exec_response,
};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{
    input::Chunk,
    output::{Output, Stream},
    raw,
    signals::{self, Came},
};

/// Messages that wait for the connection.
const QUEUE: usize = 8;

/// A request that can carry input.
pub(crate) trait Sends: Sized + Send + 'static {
    /// Bytes for standard input.
    fn stdin(bytes: Bytes) -> Self;
    /// Standard input ends.
    fn close() -> Self;
    /// The terminal has this size.
    fn resize(size: TerminalSize) -> Self;
}

/// What the service says.
pub(crate) enum Event {
    /// Output.
    Output(Stream, Bytes),
    /// The process ended with this code.
    Exited(i32),
    /// Nothing that the streams are changed by.
    Other,
}

impl Sends for AttachRequest {
    fn stdin(bytes: Bytes) -> Self {
        Self { message: Some(attach_request::Message::Stdin(bytes)) }
    }
    fn close() -> Self {
        Self { message: Some(attach_request::Message::CloseStdin(CloseStdin {})) }
    }
    fn resize(size: TerminalSize) -> Self {
        Self { message: Some(attach_request::Message::Resize(size)) }
    }
}

impl Sends for ExecRequest {
    fn stdin(bytes: Bytes) -> Self {
        Self { message: Some(exec_request::Message::Stdin(bytes)) }
    }
    fn close() -> Self {
        Self { message: Some(exec_request::Message::CloseStdin(CloseStdin {})) }
    }
    fn resize(size: TerminalSize) -> Self {
        Self { message: Some(exec_request::Message::Resize(size)) }
    }
}

impl From<AttachResponse> for Event {
    fn from(response: AttachResponse) -> Self {
        match response.message {
            Some(attach_response::Message::Stdout(bytes)) => Self::Output(Stream::Stdout, bytes),
            Some(attach_response::Message::Stderr(bytes)) => Self::Output(Stream::Stderr, bytes),
            _ => Self::Other,
        }
    }
}

impl From<ExecResponse> for Event {
    fn from(response: ExecResponse) -> Self {
        match response.message {
            Some(exec_response::Message::Stdout(bytes)) => Self::Output(Stream::Stdout, bytes),
            Some(exec_response::Message::Stderr(bytes)) => Self::Output(Stream::Stderr, bytes),
            Some(exec_response::Message::Exited(exited)) => Self::Exited(exited.exit_code),
            _ => Self::Other,
        }
    }
}

/// The requests of a session, the first one being there already.
pub(crate) fn requests<T: Sends>(first: T) -> (mpsc::Sender<T>, ReceiverStream<T>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    // The channel is new and holds more than one.
    let _ = sender.try_send(first);
    (sender, ReceiverStream::new(receiver))
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The process's streams ended; with its exit code where the session knows it.
    Streams(Option<i32>),
    /// The detach keys were pressed.
    Detached,
    /// A signal that ends the command.
    Signal(i32),
    /// The reader of our output is gone.
    ReaderGone,
    /// The service says no, or is gone.
    Failed(Status),
}

/// What a session goes by; it can be joined to a second connection where the first one broke.
pub(crate) struct Session {
    /// Standard input; `None` where it is not passed on, or ended.
    pub(crate) input: Option<mpsc::Receiver<Chunk>>,
    /// Where output goes.
    pub(crate) output: Output,
    /// Signals that are passed on with [`Session::proxy`].
    pub(crate) signals: mpsc::Receiver<Came>,
    /// The process has a terminal whose size follows ours.
    pub(crate) tty: bool,
}

impl Session {
    /// A session whose signals are handled as the process's terminal demands: with one, those that end the command put our
    /// terminal back; without, they are passed on where `proxy` says so.
    pub(crate) fn new(input: Option<mpsc::Receiver<Chunk>>, tty: bool, proxy: bool) -> Self {
        let signals = match (tty, proxy) {
            (true, _) => signals::ending(),
            (false, true) => signals::proxied(),
            (false, false) => signals::none(),
        };
        Self { input, output: Output::new(), signals, tty }
    }

    /// Joins the streams until either side ends. `signal` passes a signal on.
    pub(crate) async fn join<S: Sends, R: Into<Event>>(
        &mut self,
        requests: mpsc::Sender<S>,
        mut answers: Streaming<R>,
        mut signal: impl AsyncFnMut(&'static str),
    ) -> End {
        let Self { input, output, signals, tty } = self;
        let outputs = async {
            let mut code = None;
            loop {
                match answers.message().await.map(|answer| answer.map(Into::into)) {
                    Err(status) => return End::Failed(status),
                    Ok(None) => return End::Streams(code),
                    Ok(Some(Event::Output(stream, bytes))) => {
                        if !output.write(stream, bytes).await {
                            return End::ReaderGone;
                        }
                    }
                    Ok(Some(Event::Exited(exited))) => code = Some(exited),
                    Ok(Some(Event::Other)) => {}
                }
            }
        };
        let inputs = async {
            let mut sizes = if *tty { signals::resized() } else { None };
            loop {
                tokio::select! {
                    next = next_input(input, &requests) => match next {
                        Next::Chunk(permit, Chunk::Bytes(bytes)) => permit.send(S::stdin(bytes)),
                        Next::Chunk(_, Chunk::Detach) => return End::Detached,
                        Next::Ended(permit) => {
                            permit.send(S::close());
                            *input = None;
                        }
                        // The answers say why.
                        Next::Closed => *input = None,
                    },
                    Some((name, number)) = signals.recv() => {
                        if *tty {
                            return End::Signal(number);
                        }
                        signal(name).await;
                    }
                    Some(()) = size_change(&mut sizes) => {
                        if let Some(size) = raw::size() {
                            // A queue that is full of input gets the next size.
                            let _ = requests.try_send(S::resize(size));
                        }
                    }
                }
            }
        };
        // Side by side: output that stands still holds up neither input nor signals.
        tokio::select! {
            end = outputs => end,
            end = inputs => end,
        }
    }
}

enum Next<'a, S> {
    Chunk(mpsc::Permit<'a, S>, Chunk),
    Ended(mpsc::Permit<'a, S>),
    Closed,
}

/// The next input, with the place in the queue it will have; never, where there is none.
async fn next_input<'a, S>(input: &mut Option<mpsc::Receiver<Chunk>>, requests: &'a mpsc::Sender<S>) -> Next<'a, S> {
    let Some(input) = input else { return std::future::pending().await };
    let Ok(permit) = requests.reserve().await else { return Next::Closed };
    match input.recv().await {
        Some(chunk) => Next::Chunk(permit, chunk),
        None => Next::Ended(permit),
    }
}

async fn size_change(sizes: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match sizes {
        Some(sizes) => sizes.recv().await,
        None => std::future::pending().await,
    }
}
