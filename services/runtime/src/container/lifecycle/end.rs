//! The end of a container's task: seen by a watcher of its own, cleaned up after, told, and answered by the restart
//! policy. It needs no turn, because nobody can refuse it.

use std::{sync::Arc, time::Duration};

use berth_core::bundle::ExitRecord;
use tokio::time::{sleep, timeout};

use crate::{
    container::{
        containers::{Containers, blocking},
        live::Container,
        record::{Record, Status, Time},
        restart::Policy,
    },
    error::Result,
    shims::{Ended, Failure, Task},
};

/// Clients whose streams are open get this long to take the last output before the shim goes.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// An end is told after this time even where there is still something to clean up.
const PROMPT: Duration = Duration::from_millis(300);
/// What killed, without a record of the end, is taken to have been KILL.
const KILLED: u32 = 137;

impl Containers {
    /// Watches a task until it ends.
    pub(crate) fn watch(self: &Arc<Self>, container: &Arc<Container>, task: &Arc<Task>) {
        self.watch_health(container, task);
        let (containers, container, task) = (Arc::clone(self), Arc::clone(container), Arc::clone(task));
        tokio::spawn(async move {
            let outcome = task.wait("").await;
            containers.ended(&container, Some((task, outcome))).await;
        });
    }

    /// A task ended, or its shim did (`None`: before this service started).
    pub(crate) async fn ended(
        self: &Arc<Self>,
        container: &Arc<Container>,
        task: Option<(Arc<Task>, Result<Ended, Failure>)>,
    ) {
        container.publish(|live| live.cleaning = true);
        let bundle = self.bundle(&container.id);
        let (task, outcome) = match task {
            Some((task, Ok(ended))) => (Some(task), Some(ended)),
            Some((_, Err(failure))) => {
                tracing::warn!(id = container.id, %failure, said = bundle.complaint(), "a shim is gone");
                (None, None)
            }
            None => (None, None),
        };
        let clean = async {
            let deleted = match &task {
                Some(task) => task.delete("").await.is_ok(),
                None => false,
            };
            if !deleted && let Err(error) = bundle.delete(&self.shim).await {
                tracing::warn!(id = container.id, %error, "something of a container may be left");
            }
        };
        let clean = async { tokio::join!(clean, self.networks.detach(&container.id)) };
        let mut clean = std::pin::pin!(clean);
        // Where the shim is gone, only after this it is certain that every process is. Where it is there, it waits for
        // clients that take the last of the output slowly, which is no reason to say that the container runs.
        let prompt = match outcome {
            Some(_) => timeout(PROMPT, &mut clean).await.is_ok(),
            None => {
                (&mut clean).await;
                true
            }
        };
        let exit = bundle.exit().unwrap_or_else(|| ExitRecord {
            pid: 0,
            exit_code: outcome.map_or(KILLED, |ended| ended.code as u32),
            exited_at_ns: Time::now().0,
            oom_killed: false,
        });
        let again = self.record_end(container, &exit).await;
        if !prompt {
            clean.await;
        }
        let settle = async {
            if let Some(task) = &task {
                if timeout(LAST_WORDS, container.detached()).await.is_err() {
                    tracing::debug!(id = container.id, "a client was too slow for the last output");
                }
                if !task.shutdown().await {
                    self.clear_run(&container.id, None).await;
                }
            }
            if container.record().spec.health_check.is_some() {
                let writers = Arc::clone(container);
                let waited = blocking("waiting for the last word on its health", move || {
                    drop(writers.bundle_stays());
                    Ok(())
                });
                // A thread that panicked writes no more either.
                let _ = waited.await;
            }
            self.remove_bundle(&container.id).await;
            container.publish(|live| (live.task, live.cleaning) = (None, false));
        };
        let record = container.record();
        if record.spec.auto_remove {
            let remove = async {
                if let Err(error) = self.remove_ended(container).await {
                    tracing::warn!(id = container.id, %error, "a container that ended cannot be removed");
                }
            };
            tokio::join!(settle, remove);
            return;
        }
        settle.await;
        if let Some(wait) = again {
            self.start_later(container, wait);
        }
    }

    /// Takes a bundle away, once what its shim left in it was taken.
    pub(crate) async fn remove_bundle(&self, id: &str) {
        let (spans, bundle) = (self.spans.clone(), self.bundle(id));
        let removed = blocking("removing a bundle", move || {
            spans.export(bundle.path());
            bundle.remove();
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::warn!(id, %error, "a bundle may be left");
        }
    }

    /// Writes down the end, and tells it. Answers with how long the restart policy waits, where it wants another start.
    async fn record_end(&self, container: &Arc<Container>, exit: &ExitRecord) -> Option<Duration> {
        let at = Time(exit.exited_at_ns);
        let known = container.record();
        if !known.state.status.is_live() && known.state.finished == Some(at) {
            // It was, and the service was killed before all of it was cleared away; the policy is asked elsewhere.
            return None;
        }
        let code = i32::try_from(exit.exit_code).unwrap_or(255);
        let (mut ran, mut again) = (Duration::ZERO, None);
        let change = |record: &mut Record| {
            record.end(code, exit.oom_killed, at);
            ran = at.since(record.state.started.unwrap_or(at));
            again = decide(record, ran);
        };
        // Of one that goes with its end, the removal writes what there is to write.
        let store = (!container.record().spec.auto_remove).then_some(&self.store);
        if let Err(error) = container.note(store, change, |live| live.ends += 1).await {
            tracing::error!(id = container.id, %error, "the end of a container cannot be written down");
        }
        let told = container.record();
        if exit.oom_killed {
            self.event("oom", &told, &[]);
        }
        let seconds = ran.as_secs().to_string();
        self.volumes_event("unmount", &told);
        self.event("die", &told, &[("exitCode", code.to_string()), ("execDuration", seconds)]);
        again
    }

    /// Starts a container again after a while, unless somebody wants it otherwise meanwhile.
    pub(crate) fn start_later(self: &Arc<Self>, container: &Arc<Container>, wait: Duration) {
        let (containers, container) = (Arc::clone(self), Arc::clone(container));
        tokio::spawn(async move {
            let waits = |status| status == Status::Restarting;
            let changed = container.when(|live| !waits(live.record.state.status) || live.removed);
            tokio::select! {
                () = sleep(wait) => {}
                _ = changed => return,
            }
            let _turn = container.turn().await;
            let live = container.now();
            if live.removed || !waits(live.record.state.status) {
                return;
            }
            if let Err(error) = containers.start_again_in_turn(&container).await {
                tracing::warn!(id = container.id, %error, "a container's restart policy cannot start it");
            }
        });
    }
}

/// What the restart policy makes of an end: the record says afterwards whether it waits for another start.
pub(super) fn decide(record: &mut Record, ran: Duration) -> Option<Duration> {
    let policy = Policy::parse(&record.spec.restart_policy).unwrap_or(Policy::No);
    let (wait, restart) = policy.after(record.state.exit_code, ran, record.restart)?;
    if record.spec.auto_remove {
        return None;
    }
    record.restart = restart;
    record.state.status = Status::Restarting;
    Some(wait)
}
