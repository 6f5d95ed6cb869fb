//! The two gRPC faces. Nothing of the rules is here: a message is taken apart, the call is made off the async threads,
//! the answer is put together.

mod layers;
mod reading;
mod snapshots;

use std::sync::Arc;

use berth_core::Failure;
pub(crate) use layers::Layers;
pub(crate) use snapshots::Snapshots;
use tonic::Status;

use crate::{error::Error, snapshotter::Snapshotter};

fn status(error: Error) -> Status {
    Failure::from(error).into()
}

/// Runs a call that touches the disk where it may block.
async fn blocking<T: Send + 'static>(
    snapshotter: &Arc<Snapshotter>,
    call: impl FnOnce(&Snapshotter) -> Result<T, Error> + Send + 'static,
) -> Result<T, Status> {
    let snapshotter = Arc::clone(snapshotter);
    let span = tracing::Span::current();
    let result = tokio::task::spawn_blocking(move || span.in_scope(|| call(&snapshotter))).await;
    result.unwrap_or(Err(Error::Panicked { what: "the call" })).map_err(status)
}
