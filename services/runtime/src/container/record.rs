//! What the store keeps about a container.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_proto::berth::runtime::v1::{ContainerSpec, MountPoint, NetworkAttachment, NetworkEndpoint, PortMapping};
use serde::{Deserialize, Serialize};

use super::health::{Health, Plan};
use crate::network::{Mode, named};

/// A container, as it is filed under its id.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// 64 hex digits.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: Time,
    /// The image as it was typed.
    pub(crate) image: String,
    /// Digest of the image's configuration.
    pub(crate) image_id: String,
    /// What was asked for, completed with the image's configuration.
    pub(crate) spec: ContainerSpec,
    /// The program and its arguments.
    pub(crate) args: Vec<String>,
    /// "6379/tcp"
    pub(crate) exposed_ports: Vec<String>,
    pub(crate) mounts: Vec<MountPoint>,
    pub(crate) state: State,
    /// The networks it is connected to, whether it runs or not. `None` in a record of a version that knew one network: what
    /// the mode says.
    pub(crate) attachments: Option<Vec<NetworkAttachment>>,
    /// Where it is attached while it runs.
    pub(crate) networks: Vec<NetworkEndpoint>,
    /// What is published while it runs.
    pub(crate) ports: Vec<PortMapping>,
    pub(crate) restart: Restart,
    /// It is paused only while its files are read.
    pub(crate) held_still: bool,
}

/// How it is with the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) status: Status,
    /// Of the first process; 0 where there is none.
    pub(crate) pid: u32,
    /// Of the last end, or of the last start that failed.
    pub(crate) exit_code: i32,
    pub(crate) oom_killed: bool,
    /// Why the last start failed.
    pub(crate) error: String,
    pub(crate) started: Option<Time>,
    pub(crate) finished: Option<Time>,
    /// Where it has a health check, from its first start on.
    pub(crate) health: Option<Health>,
}

/// A container's status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Never started.
    #[default]
    Created,
    Running,
    Paused,
    Exited,
    /// On its way out.
    Removing,
    /// Ended, and its restart policy will start it again.
    Restarting,
}

impl Status {
    /// It has a process.
    pub(crate) fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// `ps` shows it without being asked for more.
    pub(crate) fn is_up(self) -> bool {
        self.is_live() || self == Self::Restarting
    }

    /// As Docker spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Restarting => "restarting",
        }
    }
}

/// What the restart policy remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Restart {
    /// Starts that the policy made since a person started it.
    pub(crate) count: u32,
    /// Milliseconds that it waits before the next one.
    pub(crate) wait_ms: u64,
    /// A person stopped it: no policy starts it again while this service runs.
    pub(crate) stopped_by_hand: bool,
}

/// A moment, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Time(pub(crate) u64);

impl Time {
    /// Now.
    pub(crate) fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64))
    }

    /// How long after `earlier` this is.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// RFC 3339 with nanoseconds.
    pub(crate) fn rfc3339(self) -> String {
        jiff::Timestamp::from_nanosecond(i128::from(self.0)).map(|t| format!("{t:.9}")).unwrap_or_default()
    }
}

impl Record {
    /// What is known of its health as a run begins; nothing, where nobody looks.
    pub(crate) fn health_at_start(&self) -> Option<Health> {
        let check = self.spec.health_check.as_ref()?;
        Plan::of(check).map(|_| Health::begin(self.state.health.as_ref()))
    }

    /// The networks it is connected to.
    pub(crate) fn attachments(&self) -> Vec<NetworkAttachment> {
        match (&self.attachments, Mode::parse(&self.spec.network_mode)) {
            (Some(attachments), _) => attachments.clone(),
            (None, Ok(Mode::Bridged)) => {
                let network = named(&self.spec.network_mode).to_owned();
                vec![NetworkAttachment { network, ..NetworkAttachment::default() }]
            }
            _ => Vec::new(),
        }
    }

    /// As people see it.
    pub(crate) fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// It ended, or its process is gone: nothing of a run is true any more.
    pub(crate) fn end(&mut self, code: i32, oom_killed: bool, at: Time) {
        let mut health = self.state.health.take();
        if let Some(health) = &mut health {
            health.end();
        }
        self.state = State {
            status: Status::Exited,
            pid: 0,
            exit_code: code,
            oom_killed,
            error: String::new(),
            started: self.state.started,
            finished: Some(at),
            health,
        };
        self.networks.clear();
        self.ports.clear();
        self.held_still = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_record_can_be_read() {
        let record: Record = serde_json::from_str(r#"{"id":"a","spec":{"image":"x"},"state":{}}"#).unwrap();
        assert_eq!((record.spec.image.as_str(), record.state.status), ("x", Status::Created));
    }

    #[test]
    fn an_older_record_is_connected_to_what_its_mode_says() {
        let of = |text: &str| {
            let record: Record = serde_json::from_str(text).unwrap();
            record.attachments().into_iter().map(|one| one.network).collect::<Vec<_>>()
        };
        assert_eq!(of(r#"{"spec":{"network_mode":""}}"#), ["bridge"]);
        assert!(of(r#"{"spec":{"network_mode":"host"}}"#).is_empty());
        assert!(of(r#"{"spec":{"network_mode":"front"},"attachments":[]}"#).is_empty(), "disconnected");
    }

    #[test]
    fn times_have_nanoseconds() {
        assert_eq!(Time(1_500_000_000_000_000_001).rfc3339(), "2017-07-14T02:40:00.000000001Z");
        assert_eq!(Time(0).rfc3339(), "1970-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn an_end_clears_what_belongs_to_a_run() {
        let mut record = Record { ports: vec![PortMapping::default()], ..Record::default() };
        record.state = State { status: Status::Running, pid: 7, started: Some(Time(1)), ..State::default() };
        record.end(137, true, Time(2));
        assert_eq!((record.state.pid, record.state.exit_code, record.ports.len()), (0, 137, 0));
        assert_eq!(record.state.started, Some(Time(1)));
    }
}
