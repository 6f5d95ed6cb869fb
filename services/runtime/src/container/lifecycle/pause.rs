//! Pause and unpause.

use std::sync::Arc;

use crate::{
    container::{
        containers::{Containers, to_the_end},
        live::Container,
        record::{Record, Status},
    },
    error::{Error, Result},
    shims::{Reason, Task},
};

impl Containers {
    /// Freezes a running container.
    pub(crate) async fn pause(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let (containers, container) = (Arc::clone(self), Arc::clone(container));
        to_the_end("pausing a container", async move { containers.pause_in_turn(&container).await }).await
    }

    async fn pause_in_turn(&self, container: &Container) -> Result<()> {
        let _turn = container.turn().await;
        let live = container.now();
        let id = &container.id;
        let task = match live.record.state.status {
            Status::Running => running(&live.task, id)?,
            Status::Paused => return Err(Error::State(format!("Container {id} is already paused"))),
            Status::Restarting => {
                return Err(Error::State(format!("Container {id} is restarting, wait until the container is running")));
            }
            _ => return Err(not_running(id)),
        };
        match task.pause().await {
            Ok(()) => {}
            // It ended just now.
            Err(failure) if matches!(failure.reason, Reason::NotFound | Reason::Gone | Reason::State) => {
                return Err(not_running(id));
            }
            Err(failure) => return Err(failure.into()),
        }
        self.set_status(container, Status::Running, Status::Paused).await?;
        self.event("pause", &live.record, &[]);
        Ok(())
    }

    /// Thaws a paused container.
    pub(crate) async fn unpause(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let (containers, container) = (Arc::clone(self), Arc::clone(container));
        to_the_end("unpausing a container", async move { containers.unpause_in_turn(&container).await }).await
    }

    async fn unpause_in_turn(&self, container: &Container) -> Result<()> {
        let _turn = container.turn().await;
        let live = container.now();
        let id = &container.id;
        if live.record.state.status != Status::Paused {
            return Err(Error::State(format!("Container {id} is not paused")));
        }
        running(&live.task, id)?.resume().await?;
        self.set_status(container, Status::Paused, Status::Running).await?;
        self.event("unpause", &live.record, &[]);
        Ok(())
    }

    /// The end needs no turn, so it may have come meanwhile. Its word is the last: what is written is what is known at
    /// that moment.
    pub(super) async fn set_status(&self, container: &Container, from: Status, to: Status) -> Result<()> {
        let change = |record: &mut Record| {
            if record.state.status == from {
                record.state.status = to;
            }
        };
        container.note(Some(&self.store), change, |_| {}).await
    }
}

fn running(task: &Option<Arc<Task>>, id: &str) -> Result<Arc<Task>> {
    task.clone().ok_or_else(|| not_running(id))
}

fn not_running(id: &str) -> Error {
    Error::State(format!("Container {id} is not running"))
}
