//! Signals. They need no turn: one must get through while a stop waits.

use crate::{
    container::{containers::Containers, live::Container, signal},
    error::{Error, Result},
    shims::Reason,
};

impl Containers {
    /// Sends a signal to the container's first process; KILL where `name` is empty.
    pub(crate) async fn kill(&self, container: &Container, name: &str) -> Result<()> {
        let number = if name.is_empty() { signal::KILL } else { signal::parse(name)? };
        let live = container.now();
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
            container.set_stopping(true);
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
        Ok(())
    }
}
