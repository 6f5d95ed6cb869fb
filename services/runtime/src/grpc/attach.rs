//! `Containers.Attach`: a caller's streams and a container's, also of one that is yet to start.

use std::sync::Arc;

use berth_core::stream::Hello;
use berth_proto::berth::runtime::v1::{
    AttachRequest, AttachResponse, AttachStart, Attached, TerminalSize, attach_request::Message as Asked,
    attach_response::Message as Said,
};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Answers, QUEUE, status};
use crate::{
    container::{Container, Containers, Early, Status as ContainerStatus},
    error::{Error, Result},
    streams::{self, Input, Output, Session},
};

/// Answers as soon as the caller is known, which is before a container that is yet to start can have printed anything.
pub(super) async fn attach(
    containers: Arc<Containers>,
    mut requests: Streaming<AttachRequest>,
) -> Result<Answers<AttachResponse>, Status> {
    let first = requests.message().await?.and_then(|request| request.message);
    let Some(Asked::Start(start)) = first else {
        return Err(status(Error::Request("the first message of Attach must be `start`")));
    };
    let container = containers.find(&start.container).map_err(status)?;
    let record = container.record();
    let refused = |why: &str| Err(status(Error::State(format!("Container {} {why}", record.id))));
    let session = match record.state.status {
        ContainerStatus::Paused => return refused("is paused, unpause the container before attach"),
        ContainerStatus::Restarting => return refused("is restarting, wait until the container is running"),
        ContainerStatus::Running => Waiting::Session(connect(&containers, &container, &start).await.map_err(status)?),
        _ => Waiting::Start(register(&container)),
    };
    containers.event("attach", &record, &[]);
    let (output, outputs) = mpsc::channel(QUEUE);
    let tty = match &session {
        Waiting::Session(session) => session.tty,
        Waiting::Start(_) => record.spec.tty,
    };
    let size = start.size.filter(|_| tty);
    let input = stream::iter(size.map(resize)).chain(inputs(requests));
    tokio::spawn(async move {
        let attachment = container.attach();
        let session = match session {
            Waiting::Session(session) => session,
            Waiting::Start(early) => match early.start(&containers, &container, &start, &output).await {
                Some(session) => session,
                None => return,
            },
        };
        if let Err(error) = session.run(input, output).await {
            tracing::debug!(id = container.id, %error, "an attached client is cut off");
        }
        drop(attachment);
    });
    let attached = stream::once(async move { Said::Attached(Attached { tty }) });
    let answers = attached.chain(ReceiverStream::new(outputs).filter_map(|output| async { said(output) }));
    Ok(Box::pin(answers.map(|message| Ok(AttachResponse { message: Some(message) }))))
}

enum Waiting {
    Session(Session),
    Start(Registered),
}

/// A caller that waits for the start.
struct Registered {
    bundle: oneshot::Receiver<std::path::PathBuf>,
    connected: oneshot::Sender<()>,
}

fn register(container: &Container) -> Registered {
    let (bundle_sender, bundle) = oneshot::channel();
    let (connected, connected_receiver) = oneshot::channel();
    container.attach_early(Early { bundle: bundle_sender, connected: connected_receiver });
    Registered { bundle, connected }
}

impl Registered {
    /// Waits with the caller; `None` where it went away, or the start failed.
    async fn start(
        self,
        containers: &Containers,
        container: &Arc<Container>,
        start: &AttachStart,
        output: &mpsc::Sender<Output>,
    ) -> Option<Session> {
        let Self { mut bundle, connected } = self;
        tokio::select! {
            biased;
            bundle = &mut bundle => {
                bundle.ok()?;
            }
            () = output.closed() => return None,
            // Between the look at its state and the registration it was started without us.
            live = container.when(|live| live.record.state.status.is_live() || live.removed) => {
                if live.removed {
                    return None;
                }
            }
        }
        let session = connect(containers, container, start).await;
        let _ = connected.send(());
        match session {
            Ok(session) => Some(session),
            Err(error) => {
                tracing::warn!(id = container.id, %error, "a client that waited for the start cannot attach");
                None
            }
        }
    }
}

async fn connect(containers: &Containers, container: &Container, start: &AttachStart) -> Result<Session> {
    let open_stdin = container.record().spec.open_stdin;
    let hello =
        Hello { exec_id: String::new(), stdin: start.stdin && open_stdin, stdout: start.stdout, stderr: start.stderr };
    streams::attach(containers.bundle(&container.id).path(), &hello)
        .await
        .map_err(|e| berth_core::Failure::from(e).into())
}

pub(super) fn resize(size: TerminalSize) -> Input {
    let short = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    Input::Resize(short(size.columns), short(size.rows))
}

/// What the caller sends, until it ends or breaks.
fn inputs(requests: Streaming<AttachRequest>) -> impl Stream<Item = Input> {
    requests.take_while(|request| std::future::ready(request.is_ok())).filter_map(|request| async {
        match request.ok()?.message? {
            Asked::Stdin(bytes) => Some(Input::Bytes(bytes)),
            Asked::CloseStdin(_) => Some(Input::Close),
            Asked::Resize(size) => Some(resize(size)),
            Asked::Start(_) => None,
        }
    })
}

fn said(output: Output) -> Option<Said> {
    match output {
        Output::Stdout(bytes) => Some(Said::Stdout(bytes)),
        Output::Stderr(bytes) => Some(Said::Stderr(bytes)),
        Output::Lost(bytes) => {
            tracing::warn!(bytes, "an attached client was too slow; it has to read the log for what it missed");
            None
        }
    }
}
