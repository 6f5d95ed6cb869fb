//! `Containers.Logs`.

use berth_proto::berth::runtime::v1::{LogsRequest, LogsResponse, logs_response::Message};
use futures::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Answers, status};
use crate::{
    container::{Containers, Time},
    error::Error,
    instant,
    logs::{self, Lines, Query},
};

/// What was written to the log; followed until the container comes to rest.
pub(super) async fn logs(containers: &Containers, request: LogsRequest) -> Result<Answers<LogsResponse>, Status> {
    let LogsRequest { container, follow, stdout, stderr, since, until, tail, timestamps, details, after } = request;
    let container = containers.find(&container).map_err(status)?;
    if !stdout && !stderr {
        return Err(status(Error::Invalid("You must choose at least one stream".into())));
    }
    if container.record().spec.log.as_ref().is_some_and(|log| log.driver == "none") {
        return Err(status(Error::Invalid("configured logging driver does not support reading".into())));
    }
    let query = Query {
        follow,
        stdout,
        stderr,
        since: match instant::parse(&after, "after").map_err(status)? {
            Some(Time(last)) => Some(Time(last.saturating_add(1))),
            None => instant::parse(&since, "since").map_err(status)?,
        },
        until: instant::parse(&until, "until").map_err(status)?,
        tail,
        timestamps,
        details,
    };
    let ended = {
        let container = container.clone();
        async move {
            container.when(|live| live.removed || !live.record.state.status.is_up()).await;
        }
    };
    let lines = ReceiverStream::new(logs::read(containers.log_path(&container.id), query, ended));
    Ok(Box::pin(lines.map(|lines| {
        let (lines, last) = lines.map_err(status)?;
        let message = match lines {
            Lines::Stdout(bytes) => Message::Stdout(bytes),
            Lines::Stderr(bytes) => Message::Stderr(bytes),
        };
        Ok(LogsResponse { message: Some(message), last: last.rfc3339() })
    })))
}
