//! Health: what is known of it, and what a check's result makes of that, as Docker has it. When a check is due and how it
//! is run is said in [`super::monitor`].

use std::time::Duration;

use berth_proto::berth::runtime::v1::HealthCheck;
use serde::{Deserialize, Serialize};

use super::record::Time;

/// Results that are kept.
const KEPT: usize = 5;
/// Bytes of output that a result keeps, with what says that there was more.
pub(super) const OUTPUT: usize = 4096;

/// How a container is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Health {
    pub(crate) condition: Condition,
    /// Failures in a row.
    pub(crate) streak: u32,
    /// The last results, oldest first.
    pub(crate) log: Vec<Checked>,
}

/// In one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Condition {
    /// No check has succeeded yet, and not enough have failed.
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

impl Condition {
    /// As Docker spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// A check that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Checked {
    pub(crate) start: Time,
    pub(crate) end: Time,
    /// -1 where it could not be run, or took too long.
    pub(crate) exit_code: i32,
    /// At most [`OUTPUT`] bytes.
    pub(crate) output: String,
}

impl Health {
    /// A run begins; the results of the one before stay to be read.
    pub(crate) fn begin(before: Option<&Self>) -> Self {
        Self { log: before.map(|health| health.log.clone()).unwrap_or_default(), ..Self::default() }
    }

    /// The run is over. Docker calls what is no longer looked at unhealthy.
    pub(crate) fn end(&mut self) {
        self.condition = Condition::Unhealthy;
    }

    /// Takes in a result of the run that began at `started`; whether it is in another condition than before.
    pub(crate) fn add(&mut self, plan: &Plan, started: Time, checked: Checked) -> bool {
        let before = self.condition;
        if checked.exit_code == 0 {
            self.streak = 0;
            self.condition = Condition::Healthy;
        } else if before != Condition::Starting || checked.start.since(started) >= plan.start_period {
            self.streak = self.streak.saturating_add(1);
            if self.streak >= plan.retries {
                self.condition = Condition::Unhealthy;
            }
        }
        self.log.push(checked);
        let surplus = self.log.len().saturating_sub(KEPT);
        self.log.drain(..surplus);
        self.condition != before
    }
}

/// A check that is to be made, with Docker's defaults where nothing is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The program and its arguments.
    pub(crate) args: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) start_period: Duration,
    pub(crate) start_interval: Duration,
    pub(crate) retries: u32,
}

impl Plan {
    /// What a container's settings come to; `None` where nothing is checked.
    pub(crate) fn of(check: &HealthCheck) -> Option<Self> {
        let (kind, words) = check.test.split_first()?;
        let args = match kind.as_str() {
            "CMD" => words.to_vec(),
            "CMD-SHELL" if check.shell.is_empty() => [&["/bin/sh".to_owned(), "-c".to_owned()], words].concat(),
            "CMD-SHELL" => [&check.shell[..], words].concat(),
            _ => return None,
        };
        if words.is_empty() {
            return None;
        }
        let or = |nanoseconds: i64, default: u64| match u64::try_from(nanoseconds) {
            Ok(nanoseconds) if nanoseconds > 0 => Duration::from_nanos(nanoseconds),
            _ => Duration::from_secs(default),
        };
        Some(Self {
            args,
            interval: or(check.interval, 30),
            timeout: or(check.timeout, 30),
            start_period: or(check.start_period, 0),
            start_interval: or(check.start_interval, 5),
            retries: if check.retries == 0 { 3 } else { check.retries },
        })
    }

    /// How long after the last look the next one comes, in a run that began at `started`.
    pub(crate) fn pause(&self, condition: Condition, started: Time, now: Time) -> Duration {
        if condition == Condition::Starting && now.since(started) < self.start_period {
            self.start_interval
        } else {
            self.interval
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn plan(change: impl FnOnce(&mut HealthCheck)) -> Plan {
        let mut check = HealthCheck { test: vec!["CMD-SHELL".into(), "x".into()], ..HealthCheck::default() };
        change(&mut check);
        Plan::of(&check).unwrap()
    }

    fn checked(at: u64, exit_code: i32) -> Checked {
        Checked { start: Time(at * SECOND), end: Time(at * SECOND), exit_code, output: String::new() }
    }

    #[test]
    fn dockers_defaults() {
        let plan = plan(|_| {});
        assert_eq!(plan.args, ["/bin/sh", "-c", "x"]);
        assert_eq!((plan.interval.as_secs(), plan.timeout.as_secs(), plan.retries), (30, 30, 3));
        for test in [&[][..], &["NONE"], &["CMD"], &["what", "x"]] {
            let test = test.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(Plan::of(&HealthCheck { test, ..HealthCheck::default() }), None);
        }
    }

    #[test]
    fn so_many_failures_in_a_row_are_unhealthy_and_one_success_is_healthy() {
        let (plan, mut health) = (plan(|_| {}), Health::default());
        assert!(!health.add(&plan, Time(0), checked(1, 1)));
        assert!(!health.add(&plan, Time(0), checked(2, 1)));
        assert_eq!((health.condition, health.streak), (Condition::Starting, 2));
        assert!(health.add(&plan, Time(0), checked(3, 1)));
        assert_eq!((health.condition, health.streak), (Condition::Unhealthy, 3));
        assert!(health.add(&plan, Time(0), checked(4, 0)));
        assert_eq!((health.condition, health.streak), (Condition::Healthy, 0));
        assert!(!health.add(&plan, Time(0), checked(5, 1)), "one failure is none yet");
        assert!(!health.add(&plan, Time(0), checked(6, 1)));
        assert_eq!(health.log.len(), 5);
        assert_eq!(health.log[0].start, Time(2 * SECOND), "the oldest goes");
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let plan = plan(|check| (check.start_period, check.retries) = (10 * SECOND as i64, 1));
        let mut health = Health::default();
        assert!(!health.add(&plan, Time(0), checked(9, 1)));
        assert_eq!((health.condition, health.streak), (Condition::Starting, 0));
        assert_eq!(plan.pause(health.condition, Time(0), Time(SECOND)), Duration::from_secs(5));
        assert_eq!(plan.pause(health.condition, Time(0), Time(10 * SECOND)), Duration::from_secs(30));
        assert!(health.add(&plan, Time(0), checked(10, 1)));
        assert_eq!(health.condition, Condition::Unhealthy);
        let mut well = Health::default();
        assert!(well.add(&plan, Time(0), checked(1, 0)));
        assert!(well.add(&plan, Time(0), checked(2, 1)), "once it was well, it counts");
        assert_eq!(plan.pause(well.condition, Time(0), Time(SECOND)), Duration::from_secs(30));
    }

    #[test]
    fn a_new_run_begins_anew_and_keeps_the_results() {
        let mut health = Health { streak: 4, ..Health::default() };
        health.add(&plan(|_| {}), Time(0), checked(1, 1));
        health.end();
        assert_eq!(health.condition, Condition::Unhealthy);
        let next = Health::begin(Some(&health));
        assert_eq!((next.condition, next.streak, next.log.len()), (Condition::Starting, 0, 1));
    }
}
