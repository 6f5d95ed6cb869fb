//! Stop: the signal, patience, then KILL. And restart, which is a stop and a start in one turn.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    container::{
        containers::{Containers, to_the_end},
        live::Container,
        record::{Record, Status},
        signal,
    },
    error::{Error, Result},
    shims::{Failure, Reason, Task},
};

/// Seconds between signal and KILL where nobody says otherwise.
const DEFAULT_TIMEOUT: u32 = 10;
/// What KILL hits is gone within this time, or the kernel holds it.
const KILL_DEADLINE: Duration = Duration::from_secs(30);

/// How to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    /// Empty for the container's own.
    pub(crate) signal: String,
    /// Seconds; unset for the container's own, negative for ever.
    pub(crate) timeout: Option<i32>,
}

impl Containers {
    /// Stops a container; one that does not run is left as it is.
    pub(crate) async fn stop(self: &Arc<Self>, container: &Arc<Container>, how: Stop) -> Result<()> {
        let (containers, container) = (Arc::clone(self), Arc::clone(container));
        to_the_end("stopping a container", async move {
            let _turn = container.turn().await;
            containers.stop_in_turn(&container, &how).await
        })
        .await
    }

    /// Stops a container where it runs, then starts it.
    pub(crate) async fn restart(self: &Arc<Self>, container: &Arc<Container>, how: Stop) -> Result<()> {
        let (containers, container) = (Arc::clone(self), Arc::clone(container));
        to_the_end("restarting a container", async move {
            let _turn = container.turn().await;
            containers.stop_in_turn(&container, &how).await?;
            containers.start_in_turn(&container).await?;
            containers.event("restart", &container.record(), &[]);
            Ok(())
        })
        .await
    }

    async fn stop_in_turn(&self, container: &Arc<Container>, how: &Stop) -> Result<()> {
        let live = container.now();
        let record = &live.record;
        let name = if how.signal.is_empty() { &record.spec.stop_signal } else { &how.signal };
        let number = if name.is_empty() { libc::SIGTERM as u32 } else { signal::parse(name)? };
        if record.state.status == Status::Restarting {
            return self.stop_restarting(container, "stop").await;
        }
        let Some(task) = live.task.as_ref().filter(|_| record.state.status.is_live()) else {
            return Ok(());
        };
        self.stopped_by_hand(container).await;
        self.send(container, task, number).await?;
        let seconds = how
            .timeout
            .unwrap_or_else(|| i32::try_from(record.spec.stop_timeout.unwrap_or(DEFAULT_TIMEOUT)).unwrap_or(i32::MAX));
        let ended = container.when(|live| !live.record.state.status.is_live());
        match u64::try_from(seconds) {
            Err(_) => {
                ended.await;
            }
            Ok(seconds) => {
                if timeout(Duration::from_secs(seconds), ended).await.is_err() {
                    self.kill_in_turn(container).await?;
                }
            }
        }
        if container.record().state.status == Status::Restarting {
            // It ended by itself before anybody knew that a person wants it so.
            return self.stop_restarting(container, "stop").await;
        }
        self.event("stop", &container.record(), &[]);
        Ok(())
    }

    /// KILL, and nothing else is waited for than the end.
    pub(super) async fn kill_in_turn(&self, container: &Container) -> Result<()> {
        let live = container.now();
        let Some(task) = live.task.as_ref().filter(|_| live.record.state.status.is_live()) else {
            return Ok(());
        };
        self.stopped_by_hand(container).await;
        self.send(container, task, signal::KILL).await?;
        let ended = container.when(|live| !live.record.state.status.is_live());
        match timeout(KILL_DEADLINE, ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Late { what: "a container that was sent KILL", seconds: KILL_DEADLINE.as_secs() }),
        }
    }

    async fn send(&self, container: &Container, task: &Task, number: u32) -> Result<()> {
        let record = container.record();
        match task.kill(number).await {
            Ok(()) => self.event("kill", &record, &[("signal", number.to_string())]),
            // It is ending by itself.
            Err(Failure { reason: Reason::NotFound | Reason::Gone | Reason::State, .. }) => return Ok(()),
            Err(failure) => return Err(failure.into()),
        }
        // A frozen process takes its signals when it is thawed.
        if record.state.status == Status::Paused
            && let Err(failure) = task.resume().await
        {
            tracing::debug!(id = record.id, %failure, "a paused container cannot be thawed to be stopped");
        }
        Ok(())
    }

    /// It waits for its policy to start it again, which does not come now.
    pub(super) async fn stop_restarting(&self, container: &Container, event: &str) -> Result<()> {
        let change = |record: &mut Record| {
            record.state.status = Status::Exited;
            record.restart.stopped_by_hand = true;
        };
        container.keep(&self.store, change, |_| {}).await?;
        self.event(event, &container.record(), &[]);
        Ok(())
    }
}
