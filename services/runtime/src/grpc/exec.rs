//! `Containers.Exec`.

use std::sync::Arc;

use berth_proto::berth::runtime::v1::{
    ExecExited, ExecRequest, ExecResponse, ExecStarted, exec_request::Message as Asked, exec_response::Message as Said,
};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Answers, QUEUE, attach::resize, status};
use crate::{
    container::Containers,
    error::Error,
    streams::{Input, Output},
};

/// Answers when the process runs, or could not be started.
pub(super) async fn exec(
    containers: Arc<Containers>,
    mut requests: Streaming<ExecRequest>,
) -> Result<Answers<ExecResponse>, Status> {
    let first = requests.message().await?.and_then(|request| request.message);
    let Some(Asked::Start(start)) = first else {
        return Err(status(Error::Request("the first message of Exec must be `start`")));
    };
    let size = start.size.filter(|_| start.tty);
    // The start is not torn in two by a caller that goes away; what it started then runs on.
    let span = tracing::Span::current();
    let starting = tracing::Instrument::instrument(async move { containers.exec(start).await }, span);
    let started = tokio::spawn(starting).await.map_err(|_| status(Error::Panicked { what: "starting an exec" }))?;
    let (exec, session) = started.map_err(status)?;
    let first = Said::Started(ExecStarted { exec_id: exec.id.clone(), pid: exec.pid });
    let (answers, last) = mpsc::channel(1);
    let (output, outputs) = mpsc::channel(QUEUE);
    let detached = session.is_none();
    let input = stream::iter(size.map(resize)).chain(inputs(requests));
    tokio::spawn(async move {
        if let Some(session) = session
            && let Err(error) = session.run(input, output).await
        {
            tracing::debug!(exec = exec.id, %error, "an exec's client is cut off");
        }
        let ended = exec.end().await.map(|exit_code| Said::Exited(ExecExited { exit_code })).map_err(status);
        // A caller that is gone need not know.
        let _ = answers.send(ended).await;
    });
    let first = stream::once(async move { Ok(first) });
    let messages: Answers<Said> = if detached {
        Box::pin(first)
    } else {
        let outputs = ReceiverStream::new(outputs).filter_map(|output| async { said(output).map(Ok) });
        Box::pin(first.chain(outputs).chain(ReceiverStream::new(last)))
    };
    Ok(Box::pin(messages.map(|message| message.map(|message| ExecResponse { message: Some(message) }))))
}

/// What the caller sends, until it ends or breaks.
fn inputs(requests: Streaming<ExecRequest>) -> impl Stream<Item = Input> {
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
            tracing::warn!(bytes, "the client of an exec was too slow; what it missed is lost");
            None
        }
    }
}
