//! `Commit`, `Changes` and `Export`: a container's files. The snapshotter reads them; here it is only known which.

use std::sync::Arc;

use berth_proto::berth::{
    runtime::v1::{
        ChangesRequest, ChangesResponse, CommitRequest, CommitResponse, ExportRequest, ExportResponse, FileChange,
        file_change,
    },
    snapshotter::v1::change,
};
use futures::{StreamExt as _, stream};
use tonic::{Status, Streaming};

use super::{Answers, status};
use crate::container::{Containers, lifecycle::commit::Commit};

pub(super) async fn commit(containers: &Arc<Containers>, request: CommitRequest) -> Result<CommitResponse, Status> {
    let container = containers.find(&request.container).map_err(status)?;
    let commit = Commit {
        reference: request.reference,
        author: request.author,
        comment: request.comment,
        changes: request.changes,
        no_pause: request.no_pause,
    };
    let committed = Box::pin(containers.commit(&container, commit)).await.map_err(status)?;
    Ok(CommitResponse { image_id: committed.image_id, warnings: committed.warnings })
}

pub(super) async fn changes(
    containers: &Arc<Containers>,
    request: ChangesRequest,
) -> Result<Answers<ChangesResponse>, Status> {
    let container = containers.find(&request.container).map_err(status)?;
    let changes = containers.neighbours.changes(&container.id).await.map_err(status)?;
    let file = |change: berth_proto::berth::snapshotter::v1::Change| FileChange {
        kind: match change.kind() {
            change::Kind::Unspecified => file_change::Kind::Unspecified,
            change::Kind::Added => file_change::Kind::Added,
            change::Kind::Changed => file_change::Kind::Changed,
            change::Kind::Deleted => file_change::Kind::Deleted,
        }
        .into(),
        path: change.path,
    };
    Ok(passed_on(changes, move |answer| ChangesResponse { changes: answer.changes.into_iter().map(file).collect() }))
}

pub(super) async fn export(
    containers: &Arc<Containers>,
    request: ExportRequest,
) -> Result<Answers<ExportResponse>, Status> {
    let container = containers.find(&request.container).map_err(status)?;
    let data = containers.neighbours.export(&container.id).await.map_err(status)?;
    containers.event("export", &container.record(), &[]);
    Ok(passed_on(data, |answer| ExportResponse { data: answer.data }))
}

/// A neighbour's stream, at the caller's pace.
fn passed_on<T: Send + 'static, A: Send + 'static>(
    answers: Streaming<T>,
    one: impl Fn(T) -> A + Send + Sync + Copy + 'static,
) -> Answers<A> {
    stream::unfold(Some(answers), move |answers| async move {
        let mut answers = answers?;
        match answers.message().await {
            Ok(Some(answer)) => Some((Ok(one(answer)), Some(answers))),
            Ok(None) => None,
            Err(error) => Some((Err(status(error)), None)),
        }
    })
    .boxed()
}
