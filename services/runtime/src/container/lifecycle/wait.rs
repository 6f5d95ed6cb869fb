//! Waiting for the end.

use std::sync::Arc;

use crate::container::{live::Container, record::Status};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Holds at once where the container does not run.
    NotRunning,
    /// The next end, also of a container that is not started yet.
    NextExit,
    /// It is gone.
    Removed,
}

/// Answers with the exit code, and why it could not be started, once the condition holds. What happens after the call
/// is seen, however quickly it passes.
pub(crate) async fn wait(container: Arc<Container>, condition: Condition) -> (i32, String) {
    let ends = container.now().ends;
    let live = container
        .when(|live| match condition {
            _ if live.removed => true,
            // One that will be started again in a moment has not come to rest.
            Condition::NotRunning => {
                !live.record.state.status.is_live() && live.record.state.status != Status::Restarting
            }
            Condition::NextExit => live.ends != ends,
            Condition::Removed => false,
        })
        .await;
    (live.record.state.exit_code, live.record.state.error.clone())
}
