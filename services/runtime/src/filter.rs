//! Which containers somebody wants, as `docker ps --filter`: the values of one key are alternatives, the keys must all
//! hold, and so must every label.

use std::collections::BTreeMap;

use regex_lite::Regex;

use crate::{
    container::record::{Record, Status, Time},
    error::{Error, Result},
    labels,
};

const KEYS: [&str; 14] = [
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network", "publish",
    "since", "status", "volume",
];
const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];

/// See the module.
#[derive(Debug)]
pub(crate) struct Filter {
    filters: BTreeMap<String, Vec<Value>>,
}

#[derive(Debug)]
enum Value {
    Text(String),
    Number(i32),
    Name(Regex),
    Moment(Time),
    Ports(Ports),
}

/// "80", "80/udp", "8000-8010/tcp"
#[derive(Debug, PartialEq, Eq)]
struct Ports {
    first: u16,
    last: u16,
    protocol: String,
}

impl Filter {
    /// Reads `key=value` filters. `created` says when the container with this id or name was made.
    ///
    /// # Errors
    /// No such filter, a value that cannot be meant, or no such container for `before` and `since`.
    pub(crate) fn parse(filters: &[String], created: impl Fn(&str) -> Result<Time>) -> Result<Self> {
        let mut parsed: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for filter in filters {
            let (key, text) = filter
                .split_once('=')
                .ok_or_else(|| Error::Invalid(format!("bad format of filter {filter:?} (expected name=value)")))?;
            let wrong = || Error::Invalid(format!("invalid filter '{key}={text}'"));
            let value = match key {
                _ if !KEYS.contains(&key) => return Err(Error::Invalid(format!("invalid filter '{key}'"))),
                "status" if !STATES.contains(&text) => {
                    let states = STATES.join(", ");
                    return Err(Error::Invalid(format!("invalid filter 'status={text}': must be one of {states}")));
                }
                "exited" => Value::Number(text.parse().map_err(|_| wrong())?),
                "before" | "since" => Value::Moment(created(text)?),
                "publish" | "expose" => Value::Ports(Ports::parse(text).ok_or_else(wrong)?),
                "health" if !["starting", "healthy", "unhealthy", "none"].contains(&text) => return Err(wrong()),
                "is-task" if !["true", "false", "1", "0"].contains(&text) => return Err(wrong()),
                // As in Docker, part of a name or a pattern; what is no pattern is meant as it stands.
                "name" => Value::Name(
                    Regex::new(text).or_else(|_| Regex::new(&regex_lite::escape(text))).map_err(|_| wrong())?,
                ),
                _ => Value::Text(text.into()),
            };
            parsed.entry(key.into()).or_default().push(value);
        }
        Ok(Self { filters: parsed })
    }

    /// Stopped containers are meant too, without being asked for.
    pub(crate) fn means_all(&self) -> bool {
        self.filters.contains_key("status") || self.filters.contains_key("exited")
    }

    /// The container is wanted.
    pub(crate) fn admits(&self, record: &Record) -> bool {
        self.filters.iter().all(|(key, values)| {
            let holds = |value: &Value| holds(record, key, value);
            if key == "label" { values.iter().all(holds) } else { values.iter().any(holds) }
        })
    }
}

fn holds(record: &Record, key: &str, value: &Value) -> bool {
    match value {
        Value::Number(code) => record.state.status == Status::Exited && record.state.exit_code == *code,
        Value::Name(pattern) => pattern.is_match(&record.name) || pattern.is_match(&format!("/{}", record.name)),
        Value::Moment(time) if key == "before" => record.created < *time,
        Value::Moment(time) => record.created > *time,
        Value::Ports(ports) if key == "publish" => {
            record.ports.iter().chain(&record.spec.ports).any(|port| {
                ports.hold(port.container_port, &port.protocol) || ports.hold(port.host_port, &port.protocol)
            })
        }
        Value::Ports(ports) => record.exposed_ports.iter().any(|exposed| {
            let (port, protocol) = exposed.split_once('/').unwrap_or((exposed, "tcp"));
            port.parse().is_ok_and(|port| ports.hold(port, protocol))
        }),
        Value::Text(text) => match key {
            "id" => record.id.starts_with(text),
            "status" => record.state.status.name() == text,
            "label" => labels::holds(text, |name| record.spec.labels.get(name)),
            "ancestor" => is_image(record, text),
            "network" => {
                let by = |name: &str, id: &str| name == text || (!text.is_empty() && id.starts_with(text));
                record.spec.network_mode == *text
                    || record.attachments().iter().any(|one| by(&one.network, &one.network_id))
                    || record.networks.iter().any(|endpoint| by(&endpoint.network, &endpoint.network_id))
            }
            "volume" => record.mounts.iter().any(|m| [&m.name, &m.source, &m.destination].contains(&text)),
            "health" => record.state.health.as_ref().map_or("none", |health| health.condition.name()) == text,
            // None is a swarm's task.
            _ => matches!(text.as_str(), "false" | "0"),
        },
    }
}

/// The container was made from the image that a person means: by (the beginning of) its ID, or by name, `latest` where
/// no tag is written.
fn is_image(record: &Record, text: &str) -> bool {
    let id = record.image_id.strip_prefix("sha256:").unwrap_or(&record.image_id);
    let wanted = text.strip_prefix("sha256:").unwrap_or(text);
    if wanted.len() >= 4 && wanted.bytes().all(|b| b.is_ascii_hexdigit()) && id.starts_with(wanted) {
        return true;
    }
    let canonical = |text: &str| text.parse::<berth_core::Reference>().ok();
    canonical(text).is_some_and(|wanted| canonical(&record.image) == Some(wanted))
}

impl Ports {
    fn parse(text: &str) -> Option<Self> {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let ports = Self { first: first.parse().ok()?, last: last.parse().ok()?, protocol: protocol.to_lowercase() };
        (ports.first <= ports.last && ["tcp", "udp", "sctp"].contains(&ports.protocol.as_str())).then_some(ports)
    }

    fn hold(&self, port: u32, protocol: &str) -> bool {
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        protocol == self.protocol && (u32::from(self.first)..=u32::from(self.last)).contains(&port)
    }
}

#[cfg(test)]
mod tests {
    use berth_proto::berth::runtime::v1::{MountPoint, NetworkEndpoint, PortMapping};
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record {
        let mut record = Record {
            id: "abcdef0123".into(),
            name: "web-1".into(),
            created: Time(50),
            image: "nginx:1.18".into(),
            image_id: format!("sha256:{}", "0123456789abcdef".repeat(4)),
            exposed_ports: vec!["80/tcp".into()],
            mounts: vec![MountPoint { name: "data".into(), destination: "/data".into(), ..MountPoint::default() }],
            ports: vec![PortMapping { host_port: 8080, container_port: 80, ..PortMapping::default() }],
            networks: vec![NetworkEndpoint {
                network: "bridge".into(),
                network_id: "ff00".into(),
                ..Default::default()
            }],
            ..Record::default()
        };
        record.state.status = Status::Exited;
        record.state.exit_code = 3;
        record.state.health = Some(crate::container::Health::default());
        record.spec.labels = [("tier".to_owned(), "front".to_owned()), ("zone".to_owned(), "a".to_owned())].into();
        record
    }

    fn admits(filters: &[&str]) -> bool {
        let filters: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
        Filter::parse(&filters, |name| name.parse().map(Time).map_err(|_| Error::NotFound { name: name.into() }))
            .unwrap()
            .admits(&record())
    }

    #[test]
    fn every_filter_holds_and_fails() {
        for (yes, no) in [
            ("id=abc", "id=bc"),
            ("name=eb", "name=db"),
            ("name=^/web", "name=^eb"),
            ("label=tier", "label=tie"),
            ("label=tier=front", "label=tier=back"),
            ("exited=3", "exited=0"),
            ("status=exited", "status=dead"),
            ("ancestor=nginx:1.18", "ancestor=nginx"),
            ("ancestor=0123456789ab", "ancestor=1234"),
            ("before=51", "before=50"),
            ("since=49", "since=50"),
            ("network=bridge", "network=none"),
            ("network=ff", "network=fe"),
            ("volume=data", "volume=other"),
            ("volume=/data", "volume=/"),
            ("publish=8080", "publish=8081"),
            ("publish=80/tcp", "publish=80/udp"),
            ("expose=70-90", "expose=443"),
            ("health=starting", "health=none"),
            ("is-task=false", "is-task=true"),
        ] {
            assert!(admits(&[yes]), "{yes}");
            assert!(!admits(&[no]), "{no}");
        }
    }

    #[test]
    fn values_are_alternatives_and_keys_and_labels_are_not() {
        assert!(admits(&["name=db", "name=web"]));
        assert!(!admits(&["name=web", "status=running"]));
        assert!(!admits(&["label=tier=front", "label=zone=b"]));
        assert!(admits(&[]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for filter in ["what=1", "status=foo", "exited=x", "publish=x", "health=x", "nothing", "before=gone"] {
            let created = |name: &str| Err(Error::NotFound { name: name.into() });
            assert!(Filter::parse(&[filter.into()], created).is_err(), "{filter}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(filters in proptest::collection::vec("[a-z-]{2,9}=[ -~]{0,20}", 0..4)) {
            if let Ok(filter) = Filter::parse(&filters, |_| Ok(Time(1))) {
                filter.admits(&record());
            }
        }
    }
}
