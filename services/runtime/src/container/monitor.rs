//! Health checks of running containers: when one is due, and how it is run.
//!
//! Each container with a check has a task that sleeps until the next is due, runs it as an exec of a fixed name, and says
//! what came of it. A service that was restarted goes on where it was: the last results lie in the bundle, the next check
//! is due an interval after the last, and those that are overdue by then come spread over an interval. How many run at once
//! on the node is bounded; so is how long one may take, and what of its output is kept.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use berth_proto::berth::runtime::v1::ExecStart;
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};

use super::{
    containers::{Containers, blocking},
    health::{Checked, Health, OUTPUT, Plan},
    live::{Container, Live},
    record::{Record, Status, Time},
};
use crate::{
    exec::Exec,
    shims::Task,
    streams::{Output, Session},
};

/// The exec of a check, whoever runs it: one that was left by a service that died is found by it.
pub(crate) const EXEC: &str = "health-check";
/// What is in the bundle.
const RESULTS: &str = "health.json";
/// Output that comes after the program has ended, from what it has left behind, is waited for this long.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Checks that run at once on this node.
const AT_ONCE: usize = 32;

static RUNNING: Semaphore = Semaphore::const_new(AT_ONCE);

impl Containers {
    /// Looks after a container's health as long as this task runs.
    pub(super) fn watch_health(self: &Arc<Self>, container: &Arc<Container>, task: &Arc<Task>) {
        let Some(plan) = container.record().spec.health_check.as_ref().and_then(Plan::of) else { return };
        let (containers, container, task) = (Arc::clone(self), Arc::clone(container), Arc::clone(task));
        tokio::spawn(async move { containers.look_after(&container, &task, &plan).await });
    }

    async fn look_after(self: &Arc<Self>, container: &Arc<Container>, task: &Arc<Task>, plan: &Plan) {
        let runs = |live: &Live| {
            live.record.state.status.is_live() && live.task.as_ref().is_some_and(|own| Arc::ptr_eq(own, task))
        };
        let watched = |live: &Live| runs(live) && live.record.state.status == Status::Running;
        let started = container.record().state.started.unwrap_or_else(Time::now);
        let mut last = last_look(container.record().state.health.as_ref(), started);
        let mut first = true;
        loop {
            let condition = container.record().state.health.as_ref().map(|health| health.condition);
            let (now, interval) = (Time::now(), plan.pause(condition.unwrap_or_default(), started, Time::now()));
            let mut wait = interval.saturating_sub(now.since(last));
            if first && wait.is_zero() {
                wait = spread(interval);
            }
            first = false;
            let over = tokio::select! {
                _ = container.when(|live| !runs(live)) => true,
                () = sleep(wait) => false,
            };
            if over || !runs(&container.now()) {
                return;
            }
            if !watched(&container.now()) {
                // Frozen, it can tell nothing; thawed, it gets a whole interval.
                container.when(|live| !runs(live) || watched(live)).await;
                last = Time::now();
                continue;
            }
            let checking = async {
                let _one_of_few = RUNNING.acquire().await.ok()?;
                Some(self.check_health(container, task, plan).await)
            };
            let checked = tokio::select! {
                checked = checking => checked,
                // What is found out of one that was frozen meanwhile, or has ended, says nothing.
                _ = container.when(|live| !watched(live)) => None,
            };
            last = Time::now();
            if let Some(checked) = checked
                && !self.take_in(container, plan, started, checked).await
            {
                return;
            }
        }
    }

    /// Writes down a result, and tells it where it changes something; whether there is still something to look after.
    async fn take_in(&self, container: &Arc<Container>, plan: &Plan, started: Time, checked: Checked) -> bool {
        let mut health = container.record().state.health.clone().unwrap_or_default();
        let changed = health.add(plan, started, checked);
        let (condition, results) = (health.condition, health.clone());
        let change = |record: &mut Record| {
            if record.state.status.is_live() && record.state.started == Some(started) {
                record.state.health = Some(health);
            }
        };
        // What changes nothing is not worth a transaction: it is in the bundle, which lives as long as the run.
        match container.note(changed.then_some(&self.store), change, |_| {}).await {
            Ok(()) => {}
            Err(_) if container.now().erased => return false,
            Err(error) => tracing::warn!(id = container.id, %error, "a container's health cannot be written down"),
        }
        let (bundle, of) = (self.bundle(&container.id), Arc::clone(container));
        let written = blocking("writing down a container's health", move || {
            let _bundle_stays = of.bundle_stays();
            let record = of.record();
            if !record.state.status.is_live() || record.state.started != Some(started) {
                return Ok(());
            }
            berth_core::bundle::write(bundle.path(), RESULTS, &results)
                .map_err(crate::error::Error::io("cannot write the health in", bundle.path()))
        });
        if let Err(error) = written.await {
            tracing::debug!(id = container.id, %error, "a restart of this service will not know the last results");
        }
        if changed {
            self.event(&format!("health_status: {}", condition.name()), &container.record(), &[]);
        }
        true
    }

    /// What a service that ran before this one has found out of a run.
    pub(super) fn known_health(&self, id: &str) -> Option<Health> {
        berth_core::bundle::read(self.bundle(id).path(), RESULTS).ok().flatten()
    }

    async fn check_health(self: &Arc<Self>, container: &Arc<Container>, task: &Arc<Task>, plan: &Plan) -> Checked {
        let start = Time::now();
        let asked = || ExecStart { container: container.id.clone(), args: plan.args.clone(), ..ExecStart::default() };
        let mut begun = self.exec_as(EXEC.into(), asked()).await;
        if begun.is_err() && task.is_executing(EXEC).await {
            // Of a service that died while it ran, or of a check that a pause cut off.
            task.end_exec(EXEC).await;
            begun = self.exec_as(EXEC.into(), asked()).await;
        }
        let (exit_code, output) = match begun {
            Ok((exec, session)) => run(exec, session, plan.timeout).await,
            Err(error) => (-1, error.to_string()),
        };
        Checked { start, end: Time::now(), exit_code, output }
    }
}

/// Runs a check to its end, or its time-out: its exit code, and what it said.
async fn run(exec: Exec, session: Option<Session>, limit: Duration) -> (i32, String) {
    let mut said = Said::default();
    let reading = async {
        let Some(session) = session else { return };
        let (sender, mut receiver) = mpsc::channel(4);
        let gathering = async {
            while let Some(output) = receiver.recv().await {
                if let Output::Stdout(bytes) | Output::Stderr(bytes) = output {
                    said.add(&bytes);
                }
            }
        };
        let _ = tokio::join!(session.run(futures::stream::pending(), sender), gathering);
    };
    let ended = async {
        let mut reading = std::pin::pin!(reading);
        tokio::select! {
            ended = exec.ended() => {
                let _ = timeout(LAST_WORDS, &mut reading).await;
                ended
            }
            () = &mut reading => exec.ended().await,
        }
    };
    let outcome = timeout(limit, ended).await;
    match outcome {
        Ok(ended) => {
            let code = ended.unwrap_or(-1);
            exec.forget(code).await;
            (code, said.text(""))
        }
        Err(_) => {
            exec.kill().await;
            let late = format!("Health check exceeded timeout ({})", duration(limit));
            (-1, said.text(&late))
        }
    }
}

/// When it was last looked at in a run that began at `started`.
fn last_look(health: Option<&Health>, started: Time) -> Time {
    let last = health.and_then(|health| health.log.last()).map(|checked| checked.end);
    last.filter(|last| *last > started).unwrap_or(started)
}

/// Some part of an interval, another one each time.
fn spread(interval: Duration) -> Duration {
    let part = RandomState::new().hash_one(()) as u32;
    interval.mul_f64(f64::from(part) / f64::from(u32::MAX))
}

/// A duration as Go writes it: "1m30s", "500ms".
fn duration(duration: Duration) -> String {
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    if seconds == 0 {
        return format!("{}ms", f64::from(nanoseconds) / 1e6);
    }
    let (hours, minutes, rest) =
        (seconds / 3600, seconds / 60 % 60, (seconds % 60) as f64 + f64::from(nanoseconds) / 1e9);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// The beginning of what a check says.
#[derive(Debug, Default)]
struct Said {
    bytes: Vec<u8>,
    more: bool,
}

impl Said {
    fn add(&mut self, bytes: &Bytes) {
        let room = OUTPUT - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.more |= bytes.len() > room;
    }

    /// All of it, behind what is said of it, in so many bytes as are kept.
    fn text(&self, before: &str) -> String {
        let said = String::from_utf8_lossy(&self.bytes);
        let mut text = match (before, &*said) {
            ("", said) => said.to_owned(),
            (before, "") => before.to_owned(),
            (before, said) => format!("{before}: {said}"),
        };
        if self.more || text.len() > OUTPUT {
            const MORE: &str = "...";
            let mut end = OUTPUT - MORE.len();
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push_str(MORE);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_bounded_whatever_it_is() {
        for chunk in [&b"x"[..], &[0xff; 300], "ü".as_bytes()] {
            let mut said = Said::default();
            for _ in 0..5000 {
                said.add(&Bytes::copy_from_slice(chunk));
            }
            assert!(said.text("").len() <= OUTPUT && said.text("").ends_with("..."));
            assert!(said.text("late").len() <= OUTPUT && said.text("late").starts_with("late: "));
        }
        let mut said = Said::default();
        assert_eq!((said.text(""), said.text("late")), (String::new(), "late".into()));
        said.add(&Bytes::from_static(b"a\n"));
        assert_eq!(said.text(""), "a\n");
    }

    #[test]
    fn a_check_that_was_missed_is_due_within_an_interval() {
        let interval = Duration::from_secs(30);
        assert!(spread(interval) <= interval);
        let log = vec![Checked { end: Time(7), ..Checked::default() }];
        let health = Health { log, ..Health::default() };
        assert_eq!(last_look(Some(&health), Time(5)), Time(7));
        assert_eq!(last_look(Some(&health), Time(8)), Time(8), "a result of the run before counts for nothing");
        assert_eq!(last_look(None, Time(8)), Time(8));
    }

    #[test]
    fn durations_are_gos() {
        for (milliseconds, text) in
            [(500, "500ms"), (3000, "3s"), (1500, "1.5s"), (90_000, "1m30s"), (3_600_000, "1h0m0s")]
        {
            assert_eq!(duration(Duration::from_millis(milliseconds)), text);
        }
    }
}
