//! A container as a row of `ps`.

use berth_proto::berth::runtime::v1::{Container, State, state::Status};
use gotmpl::Value;
use jiff::Timestamp;

use super::{
    ports,
    rows::{Layout, Row},
    table::ellipsis,
    template::LABELS,
    units,
};

/// How `ps` looks.
pub(crate) const LAYOUT: Layout = Layout {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    quiet: "{{.ID}}",
    headings: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("State", "STATE"),
        ("HealthStatus", "HEALTH STATUS"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
        ("Size", "SIZE"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("Networks", "NETWORKS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Platform", "PLATFORM"),
    ],
};

/// How `ps --size` looks.
pub(crate) const LAYOUT_WITH_SIZE: Layout = Layout {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}",
    ..LAYOUT
};

/// The row of a container.
pub(crate) fn row(container: &Container, now: Timestamp, truncate: bool) -> Row {
    let spec = container.spec.clone().unwrap_or_default();
    let state = container.state.clone().unwrap_or_default();
    let command = container.args.join(" ");
    let command = if truncate { ellipsis(&command, 20) } else { command };
    let running = matches!(state.status(), Status::Running | Status::Paused | Status::Restarting);
    let mut labels: Vec<_> = spec.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.sort_unstable();
    let networks: Vec<_> = container.networks.iter().map(|endpoint| endpoint.network.as_str()).collect();
    let mounts: Vec<_> = container
        .mounts
        .iter()
        .map(|mount| if mount.name.is_empty() { mount.source.as_str() } else { mount.name.as_str() })
        .map(|name| if truncate { ellipsis(name, 15) } else { name.to_owned() })
        .collect();
    let volumes = container.mounts.iter().filter(|mount| mount.r#type == "volume").count();
    let ports = if running { ports::shown(&container.ports, &container.exposed_ports) } else { String::new() };
    let text = |text: String| Value::from(text);
    Row::from([
        ("ID", text(id(&container.id, truncate).to_owned())),
        ("Image", text(image(container, truncate))),
        ("Command", text(quoted(&command))),
        ("CreatedAt", text(units::local(&container.created))),
        ("RunningFor", text(units::ago(&container.created, now))),
        ("Status", text(status(&state, now))),
        ("State", text(status_word(state.status()).to_owned())),
        ("HealthStatus", text(health(&state).unwrap_or("none").to_owned())),
        ("Ports", text(ports)),
        ("Names", text(container.name.trim_start_matches('/').to_owned())),
        ("Size", text(size(container))),
        ("Labels", text(labels.join(","))),
        ("Mounts", text(mounts.join(","))),
        ("Networks", text(networks.join(","))),
        ("LocalVolumes", text(volumes.to_string())),
        ("Platform", text(spec.platform.clone())),
        (LABELS, gotmpl::to_value(&spec.labels).unwrap_or(Value::Nil)),
    ])
}

/// What it has written, and what it sees.
fn size(container: &Container) -> String {
    let written = units::size(container.size_rw);
    match container.size_root_fs {
        0 => written,
        all => format!("{written} (virtual {})", units::size(all)),
    }
}

/// A shortened ID is its first twelve digits.
pub(crate) fn id(id: &str, truncate: bool) -> &str {
    let id = if truncate { id.strip_prefix("sha256:").unwrap_or(id) } else { id };
    if truncate { id.get(..12).unwrap_or(id) } else { id }
}

fn image(container: &Container, truncate: bool) -> String {
    match container.image.as_str() {
        "" => id(&container.image_id, truncate).to_owned(),
        typed if typed.starts_with("sha256:") => id(typed, truncate).to_owned(),
        typed => typed.to_owned(),
    }
}

/// In double quotes, as Go writes a text.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// "Up 3 minutes (Paused)"
fn status(state: &State, now: Timestamp) -> String {
    let up = || format!("Up {}", units::since(&state.started_at, now));
    let well = match health(state) {
        None => String::new(),
        Some("starting") => " (health: starting)".into(),
        Some(status) => format!(" ({status})"),
    };
    let ended = |word: &str| format!("{word} ({}) {}", state.exit_code, units::ago(&state.finished_at, now));
    match state.status() {
        Status::Running => up() + &well,
        Status::Paused => up() + " (Paused)",
        Status::Exited => ended("Exited"),
        Status::Restarting => ended("Restarting"),
        Status::Removing => "Removal In Progress".into(),
        Status::Dead => "Dead".into(),
        Status::Created | Status::Unspecified => "Created".into(),
    }
}

fn health(state: &State) -> Option<&str> {
    state.health.as_ref().map(|health| health.status.as_str())
}

/// A state in the word that filters and inspect use.
pub(crate) fn status_word(status: Status) -> &'static str {
    match status {
        Status::Unspecified | Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Exited => "exited",
        Status::Removing => "removing",
        Status::Restarting => "restarting",
        Status::Dead => "dead",
    }
}

#[cfg(test)]
mod tests {
    use berth_proto::berth::runtime::v1::Health;

    use super::*;

    #[test]
    fn states_are_told_in_dockers_words() {
        let now: Timestamp = "2026-01-01T02:00:00Z".parse().unwrap();
        let mut state = State { exit_code: 3, started_at: "2026-01-01T01:57:00Z".into(), ..State::default() };
        state.finished_at = "2026-01-01T00:00:00Z".into();
        for (status_now, text) in [
            (Status::Created, "Created"),
            (Status::Running, "Up 3 minutes"),
            (Status::Paused, "Up 3 minutes (Paused)"),
            (Status::Exited, "Exited (3) 2 hours ago"),
            (Status::Restarting, "Restarting (3) 2 hours ago"),
            (Status::Removing, "Removal In Progress"),
        ] {
            state.set_status(status_now);
            assert_eq!(status(&state, now), text);
        }
        state.set_status(Status::Running);
        for (word, text) in [
            ("starting", "Up 3 minutes (health: starting)"),
            ("healthy", "Up 3 minutes (healthy)"),
            ("unhealthy", "Up 3 minutes (unhealthy)"),
        ] {
            state.health = Some(Health { status: word.into(), ..Health::default() });
            assert_eq!(status(&state, now), text);
        }
    }

    #[test]
    fn a_command_is_quoted_and_cut() {
        let container = Container {
            id: "0123456789abcdef".into(),
            args: vec!["sh".into(), "-c".into(), "echo \"a\"; sleep 1000".into()],
            ..Container::default()
        };
        let row = row(&container, Timestamp::UNIX_EPOCH, true);
        assert_eq!(row["Command"].to_string(), "\"sh -c echo \\\"a\\\"; sle…\"");
        assert_eq!(row["ID"].to_string(), "0123456789ab");
    }
}
