//! Restart policies: whether a container that ended is started again, and after how long.

use std::time::Duration;

use crate::{
    container::record::Restart,
    error::{Error, Result},
};

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A container that ran for this long was well; its next wait is the first again.
const WELL: Duration = Duration::from_secs(10);

/// `ContainerSpec.restart_policy`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    No,
    Always,
    UnlessStopped,
    /// How often at most; 0 for ever.
    OnFailure(u32),
}

impl Policy {
    /// Reads a policy as Docker writes it.
    ///
    /// # Errors
    /// There is no such policy.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (name, limit) = text.split_once(':').unwrap_or((text, ""));
        let policy = match name {
            "" | "no" => Self::No,
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => {
                let limit = if limit.is_empty() { Ok(0) } else { limit.parse() };
                return limit.map(Self::OnFailure).map_err(|_| {
                    Error::Invalid(format!("invalid restart policy {text:?}: maximum retry count must be a number"))
                });
            }
            _ => {
                return Err(Error::Invalid(format!(
                    "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or \
                     'unless-stopped'"
                )));
            }
        };
        if text.contains(':') {
            let why = "maximum retry count can only be used with 'on-failure'";
            return Err(Error::Invalid(format!("invalid restart policy: {why}")));
        }
        Ok(policy)
    }

    /// What comes after an end with this exit code: `None` for nothing, else how long to wait and what to remember.
    pub(crate) fn after(self, code: i32, ran: Duration, restart: Restart) -> Option<(Duration, Restart)> {
        if restart.stopped_by_hand {
            return None;
        }
        let again = match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure(limit) => code != 0 && (limit == 0 || restart.count < limit),
        };
        let wait = match Duration::from_millis(restart.wait_ms) {
            Duration::ZERO => FIRST_WAIT,
            _ if ran >= WELL => FIRST_WAIT,
            last => (last * 2).min(LONGEST_WAIT),
        };
        let next = Restart { count: restart.count + 1, wait_ms: wait.as_millis() as u64, stopped_by_hand: false };
        again.then_some((wait, next))
    }

    /// Whether a container that this service finds ended at its start is started.
    pub(crate) fn at_service_start(self, code: i32, restart: Restart) -> bool {
        match self {
            Self::No => false,
            // As Docker has it: what a person stopped is started with the service.
            Self::Always => true,
            Self::UnlessStopped => !restart.stopped_by_hand,
            Self::OnFailure(limit) => !restart.stopped_by_hand && code != 0 && (limit == 0 || restart.count < limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(11);

    #[test]
    fn reads_dockers_policies() {
        assert_eq!(Policy::parse("").unwrap(), Policy::No);
        assert_eq!(Policy::parse("on-failure").unwrap(), Policy::OnFailure(0));
        assert_eq!(Policy::parse("on-failure:3").unwrap(), Policy::OnFailure(3));
        for text in ["sometimes", "always:3", "on-failure:x", "on-failure:-1", "no:"] {
            assert!(Policy::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn waits_double_up_to_a_minute_and_begin_again_after_a_good_run() {
        let mut restart = Restart::default();
        let mut waits = Vec::new();
        for _ in 0..12 {
            let (wait, next) = Policy::Always.after(0, Duration::ZERO, restart).unwrap();
            waits.push(wait.as_millis());
            restart = next;
        }
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 60_000);
        assert_eq!(restart.count, 12);
        assert_eq!(Policy::Always.after(0, LONG, restart).unwrap().0, FIRST_WAIT);
    }

    #[test]
    fn only_failures_count_and_only_so_often() {
        let policy = Policy::OnFailure(2);
        assert!(policy.after(0, LONG, Restart::default()).is_none());
        let (_, once) = policy.after(1, LONG, Restart::default()).unwrap();
        let (_, twice) = policy.after(1, LONG, once).unwrap();
        assert!(policy.after(1, LONG, twice).is_none());
    }

    #[test]
    fn what_a_person_stopped_stays_stopped() {
        let stopped = Restart { stopped_by_hand: true, ..Restart::default() };
        assert!(Policy::Always.after(1, LONG, stopped).is_none());
        assert!(Policy::Always.at_service_start(0, stopped));
        assert!(!Policy::UnlessStopped.at_service_start(0, stopped));
    }
}
