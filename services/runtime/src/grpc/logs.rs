//! `Containers.Logs`.

use berth_proto::berth::runtime::v1::{LogsRequest, LogsResponse, logs_response::Message};
use futures::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Answers, status};
use crate::{
    container::Containers,
    error::Error,
    instant,
    logs::{self, Lines, Query},
};

/// What was written to the log; followed until the container comes to rest.
pub(super) async fn logs(containers: &Containers, request: LogsRequest) -> Result<Answers<LogsResponse>, Status> {
    let LogsRequest { container, follow, stdout, stderr, since, until, tail, timestamps, details } = request;
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
        since: instant::parse(&since, "since").map_err(status)?,
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
    Ok(Box::pin(lines.map(|lines| match lines {
        Ok(Lines::Stdout(bytes)) => Ok(LogsResponse { message: Some(Message::Stdout(bytes)) }),
        Ok(Lines::Stderr(bytes)) => Ok(LogsResponse { message: Some(Message::Stderr(bytes)) }),
        Err(error) => Err(status(error)),
    })))
}
