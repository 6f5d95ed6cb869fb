//! What there is of a container's run when the service starts, as its bundle and the shim behind it tell.

use std::{io, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use crate::{
    container::{containers::Containers, signal},
    shims::{Bundle, Reason, Task, TaskState},
};

/// The service answers after this time, even where a shim has not.
pub(super) const TRUTH: Duration = Duration::from_millis(500);
/// Between two tries to connect to a shim that has too many callers, or where we have too many descriptors.
const AGAIN: Duration = Duration::from_secs(1);

/// What is found of a container that has a bundle.
pub(super) enum Found {
    Lives(Arc<Task>, TaskState, u32),
    /// It was not started to the end; or it ended, or its shim did, while nobody looked.
    Ended(Option<Arc<Task>>),
    /// Somebody is behind the socket, and does not answer now: stopped, or starved. That is no end.
    Silent(Option<Arc<Task>>),
}

impl Containers {
    pub(super) async fn look(&self, id: &str) -> Found {
        self.look_within(id, Some(TRUTH)).await
    }

    async fn look_within(&self, id: &str, patience: Option<Duration>) -> Found {
        let bundle = self.bundle(id);
        match bundle.connect().await {
            Ok(task) => ask(&bundle, Arc::new(task), patience).await,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Found::Ended(None)
            }
            Err(error) => {
                tracing::warn!(id, %error, "a shim cannot be asked now");
                Found::Silent(None)
            }
        }
    }

    /// What is found once a silent shim has answered, or is gone. It takes as long as it takes.
    pub(super) async fn once_it_answers(&self, id: &str, mut task: Option<Arc<Task>>) -> Found {
        tracing::warn!(id, "a shim does not answer; until it does, its container is as it was last known");
        loop {
            let found = match task {
                Some(task) => ask(&self.bundle(id), task, None).await,
                None => self.look_within(id, None).await,
            };
            let Found::Silent(same) = found else { return found };
            task = same;
            sleep(AGAIN).await;
        }
    }

    /// Takes away what there is of a run: its processes, its mounts, its shim. Its bundle stays.
    pub(super) async fn clear_run(&self, id: &str, task: Option<&Task>) {
        if let Some(task) = task {
            let _ = task.kill(signal::KILL).await;
            if task.delete("").await.is_ok() && task.shutdown().await {
                return;
            }
        }
        if let Err(error) = self.bundle(id).delete(&self.shim).await {
            tracing::warn!(id, %error, "something of a container may be left");
        }
    }
}

async fn ask(bundle: &Bundle, task: Arc<Task>, patience: Option<Duration>) -> Found {
    // A shim writes the end down before it tells anybody.
    if bundle.exit().is_some() {
        return Found::Ended(Some(task));
    }
    let answer = match patience {
        Some(patience) => timeout(patience, task.state()).await,
        None => Ok(task.state().await),
    };
    match answer {
        Ok(Ok((TaskState::Running | TaskState::Paused, _))) if bundle.exit().is_some() => Found::Ended(Some(task)),
        Ok(Ok((state @ (TaskState::Running | TaskState::Paused), pid))) => Found::Lives(task, state, pid),
        Ok(Ok((TaskState::Created | TaskState::Stopped, _))) => Found::Ended(Some(task)),
        Ok(Err(failure)) if matches!(failure.reason, Reason::Gone | Reason::NotFound) => {
            tracing::debug!(%failure, "a shim has no task");
            Found::Ended(None)
        }
        Ok(Err(failure)) => {
            tracing::warn!(%failure, "a shim does not say how its container is");
            Found::Silent(Some(task))
        }
        Err(_) => Found::Silent(Some(task)),
    }
}
