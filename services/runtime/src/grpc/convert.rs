//! A container as it is told.

use berth_proto::berth::runtime::v1::{
    Container as Wire, Event as WireEvent, Health as WireHealth, HealthResult, NetworkAttachment, NetworkEndpoint,
    State as WireState, state::Status as WireStatus,
};

use crate::{
    container::{Checked, Container, Containers, Health, Record, State, Status},
    events::Event,
};

/// What `ps` and `inspect` show.
pub(super) fn container(containers: &Containers, container: &Container) -> Wire {
    let record = container.record();
    let names = containers.names_directory(&record);
    let networks = endpoints(&record);
    let file = |name: &str| names.join(name).display().to_string();
    let Record { id, name, created, image, image_id, spec, args, exposed_ports, mounts, state, ports, restart, .. } =
        (*record).clone();
    Wire {
        log_path: if spec.log.as_ref().is_some_and(|log| log.driver == "none") {
            String::new()
        } else {
            containers.log_path(&id).display().to_string()
        },
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        resolv_conf_path: file("resolv.conf"),
        network_sandbox: if state.pid == 0 { String::new() } else { format!("/proc/{}/ns/net", state.pid) },
        exec_ids: container.exec_ids(),
        id,
        name,
        created: created.rfc3339(),
        image,
        image_id,
        state: Some(to_state(state)),
        spec: Some(spec),
        args,
        networks,
        ports,
        mounts,
        restart_count: restart.count,
        storage_driver: containers.driver.get().cloned().unwrap_or_default(),
        exposed_ports,
        size_rw: 0,
        size_root_fs: 0,
        // Only told where one container is asked for: lists are long.
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
    }
}

/// The networks it is connected to, in their order: with addresses where it runs.
fn endpoints(record: &Record) -> Vec<NetworkEndpoint> {
    if record.state.status.is_live() {
        return record.networks.clone();
    }
    let idle = |one: NetworkAttachment| NetworkEndpoint {
        network: one.network,
        network_id: one.network_id,
        aliases: one.aliases,
        asked_ip: one.ip,
        asked_ip6: one.ip6,
        mac_address: one.mac_address,
        gw_priority: one.gw_priority,
        links: one.links,
        driver_opts: one.driver_opts,
        ..NetworkEndpoint::default()
    };
    record.attachments().into_iter().map(idle).collect()
}

fn to_state(state: State) -> WireState {
    WireState {
        status: to_status(state.status).into(),
        pid: state.pid,
        exit_code: state.exit_code,
        oom_killed: state.oom_killed,
        error: state.error,
        started_at: state.started.map(|time| time.rfc3339()).unwrap_or_default(),
        finished_at: state.finished.map(|time| time.rfc3339()).unwrap_or_default(),
        health: state.health.map(to_health),
    }
}

fn to_health(health: Health) -> WireHealth {
    let result = |checked: Checked| HealthResult {
        start: checked.start.rfc3339(),
        end: checked.end.rfc3339(),
        exit_code: checked.exit_code,
        output: checked.output,
    };
    WireHealth {
        status: health.condition.name().into(),
        failing_streak: health.streak,
        log: health.log.into_iter().map(result).collect(),
    }
}

fn to_status(status: Status) -> WireStatus {
    match status {
        Status::Created => WireStatus::Created,
        Status::Running => WireStatus::Running,
        Status::Paused => WireStatus::Paused,
        Status::Exited => WireStatus::Exited,
        Status::Removing => WireStatus::Removing,
        Status::Restarting => WireStatus::Restarting,
    }
}

/// What happened.
pub(super) fn event(event: &Event) -> WireEvent {
    WireEvent {
        time: event.time.rfc3339(),
        r#type: event.kind.into(),
        action: event.action.clone(),
        id: event.id.clone(),
        attributes: event.attributes.clone().into_iter().collect(),
    }
}
