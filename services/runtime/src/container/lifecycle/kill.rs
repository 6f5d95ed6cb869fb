//! Signals. They need no turn: one must get through while a stop waits.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    container::{
        containers::Containers,
        live::Container,
        record::{Record, Status},
        restart::Policy,
        signal,
    },
    error::{Error, Result},
    shims::Reason,
};

/// How long KILL is waited for.
const DEATH: Duration = Duration::from_secs(10);

impl Containers {
    /// Sends a signal to the container's first process; KILL where `name` is empty.
    pub(crate) async fn kill(&self, container: &Container, name: &str) -> Result<()> {
        let number = if name.is_empty() { signal::KILL } else { signal::parse(name)? };
        let mut live = container.now();
        if live.record.state.status == Status::Restarting {
            // There is nobody to signal: whoever kills it does not want it back, which is all that is left to do. Its turn
            // comes when nobody starts it just now.
            let _turn = container.turn().await;
            live = container.now();
            if live.record.state.status == Status::Restarting {
                return self.stop_restarting(container, "kill").await;
            }
        }
        let refused = || {
            Error::State(format!(
                "cannot kill container: {}: container {} is not running",
                live.record.name, live.record.id
            ))
        };
        let Some(task) = live.task.as_ref().filter(|_| live.record.state.status.is_live()) else {
            return Err(refused());
        };
        let stops = signal::parse(&live.record.spec.stop_signal).unwrap_or(libc::SIGTERM as u32);
        // Whoever kills it does not want it back.
        if number == signal::KILL || number == stops {
            self.stopped_by_hand(container).await;
        }
        match task.kill(number).await {
            Ok(()) => {}
            // It ended just now.
            Err(failure) if matches!(failure.reason, Reason::NotFound | Reason::Gone | Reason::State) => {
                return Err(refused());
            }
            Err(failure) => return Err(failure.into()),
        }
        self.event("kill", &live.record, &[("signal", number.to_string())]);
        // A frozen process takes its signals when it is thawed.
        if live.record.state.status == Status::Paused && (number == signal::KILL || number == stops) {
            match task.resume().await {
                // It may be gone by now, which is what was asked for.
                Ok(()) => drop(self.set_status(container, Status::Paused, Status::Running).await),
                Err(failure) => {
                    tracing::debug!(id = container.id, %failure, "a paused container cannot be thawed to be killed");
                }
            }
        }
        if number == signal::KILL {
            // Who kills may remove next. What the kernel holds longer than this is not waited for, as in Docker.
            let _ = timeout(DEATH, container.when(|live| !live.record.state.status.is_live())).await;
        }
        Ok(())
    }

    /// A person wants it to end: no policy starts it again, not even where this service is killed before the end is
    /// seen. Written down before the signal is sent; a full disk is no reason not to send it.
    pub(super) async fn stopped_by_hand(&self, container: &Container) {
        let record = container.record();
        let policy = Policy::parse(&record.spec.restart_policy).unwrap_or(Policy::No);
        if policy == Policy::No || record.restart.stopped_by_hand {
            return;
        }
        let change = |record: &mut Record| record.restart.stopped_by_hand |= record.state.status.is_live();
        if let Err(error) = container.note(Some(&self.store), change, |_| {}).await {
            tracing::warn!(id = container.id, %error, "that a container is to stay stopped cannot be written down");
        }
    }
}
