//! A container in the shape of `docker container inspect`.

use std::collections::BTreeMap;

use berth_proto::berth::runtime::v1::{
    Container, ContainerSpec, DeviceRate, Health, HealthCheck, Mount, NetworkEndpoint, PortMapping, Resources, State,
    mount::Type, state::Status,
};

use super::{
    container::status_word,
    json::{Json, object},
    ports,
};

/// What Go prints for a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Docker's JSON of a container.
pub(crate) fn container(container: &Container, with_size: bool) -> Json {
    let spec = container.spec.clone().unwrap_or_default();
    let state = container.state.clone().unwrap_or_default();
    let (path, args) = container.args.split_first().map_or(("", &[][..]), |(path, args)| (path.as_str(), args));
    let running = matches!(state.status(), Status::Running | Status::Paused | Status::Restarting);
    object! {
        "Id": container.id.as_str(),
        "ID": alias(container.id.as_str()),
        "Created": container.created.as_str(),
        "Path": path,
        "Args": args.to_vec(),
        "State": self::state(&state),
        "Image": container.image_id.as_str(),
        "ResolvConfPath": container.resolv_conf_path.as_str(),
        "HostnamePath": container.hostname_path.as_str(),
        "HostsPath": container.hosts_path.as_str(),
        "LogPath": container.log_path.as_str(),
        "Name": format!("/{}", container.name.trim_start_matches('/')),
        "RestartCount": container.restart_count,
        "Driver": container.storage_driver.as_str(),
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": Json::list_or_null(container.exec_ids.clone()),
        "HostConfig": host_config(container, &spec),
        "GraphDriver": object! { "Data": Json::NULL, "Name": container.storage_driver.as_str() },
        "SizeRw": Json::from(container.size_rw).omitted_if(!with_size),
        "SizeRootFs": Json::from(container.size_root_fs).omitted_if(!with_size),
        "Mounts": mounts(container),
        "Config": config(container, &spec),
        "NetworkSettings": network_settings(container, running),
    }
}

/// What templates may call a member too, because that is its name in Docker's program.
fn alias(value: impl Into<Json>) -> Json {
    value.into().omitted_if(true)
}

fn time(text: &str) -> &str {
    if text.is_empty() { NEVER } else { text }
}

fn state(state: &State) -> Json {
    let status = state.status();
    object! {
        "Status": status_word(status),
        "Running": matches!(status, Status::Running | Status::Paused | Status::Restarting),
        "Paused": status == Status::Paused,
        "Restarting": status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error.as_str(),
        "StartedAt": time(&state.started_at),
        "FinishedAt": time(&state.finished_at),
        "Health": state.health.as_ref().map_or(Json::NULL, health).omitted_if(state.health.is_none()),
    }
}

fn health(health: &Health) -> Json {
    let results = health.log.iter().map(|result| {
        object! {
            "Start": result.start.as_str(),
            "End": result.end.as_str(),
            "ExitCode": result.exit_code,
            "Output": result.output.as_str(),
        }
    });
    object! {
        "Status": health.status.as_str(),
        "FailingStreak": health.failing_streak,
        "Log": Json::List(results.collect()),
    }
}

/// Docker leaves out what is 0.
fn health_check(check: &HealthCheck) -> Json {
    object! {
        "Test": Json::from(check.test.clone()).omitted_if(check.test.is_empty()),
        "Interval": Json::from(check.interval).omitted_if(check.interval == 0),
        "Timeout": Json::from(check.timeout).omitted_if(check.timeout == 0),
        "StartPeriod": Json::from(check.start_period).omitted_if(check.start_period == 0),
        "StartInterval": Json::from(check.start_interval).omitted_if(check.start_interval == 0),
        "Retries": Json::from(check.retries).omitted_if(check.retries == 0),
    }
}

fn host_config(container: &Container, spec: &ContainerSpec) -> Json {
    let limits = spec.resources.clone().unwrap_or_default();
    let log = spec.log.clone().unwrap_or_default();
    let (restart, retries) = spec.restart_policy.split_once(':').unwrap_or((&spec.restart_policy, "0"));
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let devices = spec.devices.iter().map(|device| {
        object! {
            "PathOnHost": device.host_path.as_str(),
            "PathInContainer": device.container_path.as_str(),
            "CgroupPermissions": device.permissions.as_str(),
        }
    });
    let ulimits = spec
        .ulimits
        .iter()
        .map(|limit| object! { "Name": limit.name.as_str(), "Hard": limit.hard, "Soft": limit.soft });
    let mut members = vec![
        ("Binds", Json::list_or_null(binds(spec))),
        ("ContainerIDFile", "".into()),
        ("LogConfig", object! { "Type": or(&log.driver, "json-file"), "Config": Json::map(log.options) }),
        ("NetworkMode", or(&spec.network_mode, "bridge").into()),
        ("PortBindings", port_bindings(&spec.ports)),
        (
            "RestartPolicy",
            object! { "Name": or(restart, "no"), "MaximumRetryCount": retries.parse::<u32>().unwrap_or_default() },
        ),
        ("AutoRemove", spec.auto_remove.into()),
        ("ConsoleSize", vec![0, 0].into()),
        ("VolumeDriver", "".into()),
        ("VolumesFrom", Json::list_or_null(spec.volumes_from.clone())),
        ("CapAdd", Json::list_or_null(spec.cap_add.clone())),
        ("CapDrop", Json::list_or_null(spec.cap_drop.clone())),
        ("Annotations", Json::map(spec.annotations.clone()).omitted_if(spec.annotations.is_empty())),
        ("CgroupnsMode", or(&spec.cgroupns_mode, "private").into()),
        ("DNS", alias(spec.dns.clone())),
        ("DNSOptions", alias(spec.dns_options.clone())),
        ("DNSSearch", alias(spec.dns_search.clone())),
        ("Dns", spec.dns.clone().into()),
        ("DnsOptions", spec.dns_options.clone().into()),
        ("DnsSearch", spec.dns_search.clone().into()),
        ("ExtraHosts", Json::list_or_null(spec.extra_hosts.clone())),
        ("GroupAdd", Json::list_or_null(spec.group_add.clone())),
        ("Mounts", long_mounts(spec)),
        ("IpcMode", or(&spec.ipc_mode, "private").into()),
        ("Cgroup", "".into()),
        ("Links", Json::NULL),
        ("OomScoreAdj", spec.oom_score_adj.unwrap_or_default().into()),
        ("PidMode", spec.pid_mode.as_str().into()),
        ("Privileged", spec.privileged.into()),
        ("PublishAllPorts", false.into()),
        ("ReadonlyRootfs", spec.read_only.into()),
        ("SecurityOpt", Json::list_or_null(spec.security_opts.clone())),
        ("Tmpfs", tmpfs(spec)),
        ("UTSMode", spec.uts_mode.as_str().into()),
        ("UsernsMode", spec.userns_mode.as_str().into()),
        ("ShmSize", if spec.shm_size == 0 { 64 << 20 } else { spec.shm_size }.into()),
        ("StorageOpt", Json::map(spec.storage_opts.clone()).omitted_if(spec.storage_opts.is_empty())),
        ("Sysctls", Json::map(spec.sysctls.clone()).omitted_if(spec.sysctls.is_empty())),
        ("Runtime", or(&spec.runtime, "berth").into()),
        ("Isolation", "".into()),
    ];
    members.extend(resources(&limits, spec));
    members.extend([
        ("Devices", devices.collect::<Vec<_>>().into()),
        ("DeviceCgroupRules", Json::list_or_null(spec.device_cgroup_rules.clone())),
        ("Ulimits", Json::List(ulimits.collect())),
        ("CpuCount", 0.into()),
        ("CpuPercent", 0.into()),
        ("IOMaximumIOps", 0.into()),
        ("IOMaximumBandwidth", 0.into()),
        ("DeviceRequests", Json::NULL),
        ("MaskedPaths", Json::list_or_null(container.masked_paths.clone())),
        ("ReadonlyPaths", Json::list_or_null(container.readonly_paths.clone())),
        ("Init", if spec.init { Json::from(true) } else { Json::NULL }),
    ]);
    Json::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn rates(devices: &[DeviceRate]) -> Json {
    let rate = |device: &DeviceRate| object! { "Path": device.path.as_str(), "Rate": device.rate };
    Json::List(devices.iter().map(rate).collect())
}

fn resources(limits: &Resources, spec: &ContainerSpec) -> Vec<(&'static str, Json)> {
    let weights = limits.blkio_weight_devices.iter();
    let weights = weights.map(|device| object! { "Path": device.path.as_str(), "Weight": device.weight });
    vec![
        ("CPUPeriod", alias(limits.cpu_period)),
        ("CPUQuota", alias(limits.cpu_quota)),
        ("CPUShares", alias(limits.cpu_shares)),
        ("NanoCPUs", alias(limits.nano_cpus)),
        ("CpuShares", limits.cpu_shares.into()),
        ("Memory", limits.memory.into()),
        ("NanoCpus", limits.nano_cpus.into()),
        ("CgroupParent", spec.cgroup_parent.as_str().into()),
        ("BlkioWeight", limits.blkio_weight.into()),
        ("BlkioWeightDevice", Json::List(weights.collect())),
        ("BlkioDeviceReadBps", rates(&limits.device_read_bps)),
        ("BlkioDeviceWriteBps", rates(&limits.device_write_bps)),
        ("BlkioDeviceReadIOps", rates(&limits.device_read_iops)),
        ("BlkioDeviceWriteIOps", rates(&limits.device_write_iops)),
        ("CpuPeriod", limits.cpu_period.into()),
        ("CpuQuota", limits.cpu_quota.into()),
        ("CpuRealtimePeriod", limits.cpu_rt_period.into()),
        ("CpuRealtimeRuntime", limits.cpu_rt_runtime.into()),
        ("CpusetCpus", limits.cpuset_cpus.as_str().into()),
        ("CpusetMems", limits.cpuset_mems.as_str().into()),
        ("MemoryReservation", limits.memory_reservation.into()),
        ("MemorySwap", limits.memory_swap.into()),
        ("MemorySwappiness", limits.memory_swappiness.into()),
        ("OomKillDisable", limits.oom_kill_disable.into()),
        ("PidsLimit", if limits.pids_limit == 0 { Json::NULL } else { limits.pids_limit.into() }),
    ]
}

/// Binds and named volumes as `-v` writes them.
fn binds(spec: &ContainerSpec) -> Vec<String> {
    let shown = spec.mounts.iter().filter(|mount| !mount.long_form && mount.r#type() != Type::Tmpfs);
    let shown = shown.filter(|mount| !mount.source.is_empty());
    let write = |mount: &Mount| {
        let options =
            [if mount.read_only { "ro" } else { "" }, &mount.propagation, if mount.no_copy { "nocopy" } else { "" }];
        let options: Vec<_> = options.into_iter().filter(|option| !option.is_empty()).collect();
        let end = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
        format!("{}:{}{end}", mount.source, mount.target)
    };
    shown.map(write).collect()
}

/// What `--mount` asks for.
fn long_mounts(spec: &ContainerSpec) -> Json {
    let show = |mount: &Mount| {
        let bind = object! { "Propagation": mount.propagation.as_str() };
        let tmpfs = object! {
            "SizeBytes": Json::from(mount.tmpfs_size).omitted_if(mount.tmpfs_size == 0),
            "Mode": Json::from(mount.tmpfs_mode).omitted_if(mount.tmpfs_mode == 0),
        };
        let volume = object! { "NoCopy": true };
        object! {
            "Type": match mount.r#type() {
                Type::Bind => "bind",
                Type::Tmpfs => "tmpfs",
                Type::Volume | Type::Unspecified => "volume",
            },
            "Source": Json::from(mount.source.as_str()).omitted_if(mount.source.is_empty()),
            "Target": mount.target.as_str(),
            "ReadOnly": Json::from(true).omitted_if(!mount.read_only),
            "BindOptions": bind.omitted_if(mount.propagation.is_empty()),
            "TmpfsOptions": tmpfs.omitted_if(mount.tmpfs_size == 0 && mount.tmpfs_mode == 0),
            "VolumeOptions": volume.omitted_if(!mount.no_copy),
        }
    };
    let mounts: Vec<_> = spec.mounts.iter().filter(|mount| mount.long_form).map(show).collect();
    if mounts.is_empty() { Json::NULL.omitted_if(true) } else { Json::List(mounts) }
}

fn tmpfs(spec: &ContainerSpec) -> Json {
    let mounts = spec.mounts.iter().filter(|mount| !mount.long_form && mount.r#type() == Type::Tmpfs);
    let mounts: Vec<_> = mounts.map(|mount| (mount.target.clone(), mount.options.join(","))).collect();
    let none = mounts.is_empty();
    Json::map(mounts).omitted_if(none)
}

fn port_bindings(mappings: &[PortMapping]) -> Json {
    let mut ports: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    for mapping in mappings {
        let port = if mapping.host_port == 0 { String::new() } else { mapping.host_port.to_string() };
        let name = format!("{}/{}", mapping.container_port, ports::protocol(mapping));
        ports.entry(name).or_default().push(object! { "HostIp": mapping.host_ip.as_str(), "HostPort": port });
    }
    Json::map(ports)
}

fn mounts(container: &Container) -> Json {
    let mounts = container.mounts.iter().map(|mount| {
        let volume = mount.r#type == "volume";
        object! {
            "Type": mount.r#type.as_str(),
            "Name": Json::from(mount.name.as_str()).omitted_if(!volume),
            "Source": mount.source.as_str(),
            "Destination": mount.destination.as_str(),
            "Driver": Json::from(mount.driver.as_str()).omitted_if(!volume),
            "Mode": mount.mode.as_str(),
            "RW": mount.read_write,
            "Propagation": mount.propagation.as_str(),
        }
    });
    Json::List(mounts.collect())
}

fn config(container: &Container, spec: &ContainerSpec) -> Json {
    let exposed = match container.exposed_ports.is_empty() {
        true => Json::NULL.omitted_if(true),
        false => Json::map(container.exposed_ports.iter().map(|port| (port.clone(), object! {}))),
    };
    let anonymous = spec.mounts.iter().filter(|mount| mount.r#type() == Type::Volume && mount.source.is_empty());
    let volumes: Vec<_> = anonymous.map(|mount| (mount.target.clone(), object! {})).collect();
    object! {
        "Hostname": spec.hostname.as_str(),
        "Domainname": spec.domainname.as_str(),
        "User": spec.user.as_str(),
        "AttachStdin": spec.stdin_once,
        "AttachStdout": spec.stdin_once,
        "AttachStderr": spec.stdin_once,
        "ExposedPorts": exposed,
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Env": spec.env.clone(),
        "Cmd": Json::list_or_null(spec.command.clone()),
        "Healthcheck": spec.health_check.as_ref().map_or(Json::NULL, health_check).omitted_if(spec.health_check.is_none()),
        "Image": container.image.as_str(),
        "Volumes": if volumes.is_empty() { Json::NULL } else { Json::map(volumes) },
        "WorkingDir": spec.working_dir.as_str(),
        "Entrypoint": Json::list_or_null(spec.entrypoint.clone()),
        "OnBuild": Json::NULL,
        "Labels": Json::map(spec.labels.clone()),
        "StopSignal": Json::from(spec.stop_signal.as_str()).omitted_if(spec.stop_signal.is_empty()),
        "StopTimeout": Json::from(spec.stop_timeout).omitted_if(spec.stop_timeout.is_none()),
    }
}

fn network_settings(container: &Container, running: bool) -> Json {
    let first = container.networks.first().cloned().unwrap_or_default();
    let mut members = vec![
        ("Bridge".to_owned(), Json::from("")),
        ("SandboxID".to_owned(), "".into()),
        ("HairpinMode".to_owned(), false.into()),
        ("LinkLocalIPv6Address".to_owned(), "".into()),
        ("LinkLocalIPv6PrefixLen".to_owned(), 0.into()),
        ("SecondaryIPAddresses".to_owned(), Json::NULL),
        ("SecondaryIPv6Addresses".to_owned(), Json::NULL),
        ("SandboxKey".to_owned(), container.network_sandbox.as_str().into()),
        (
            "Ports".to_owned(),
            if running {
                bound(container)
            } else {
                object! {}
            },
        ),
    ];
    members.extend(endpoint(&first));
    let networks = container.networks.iter().map(|network| (network.network.clone(), self::network(network)));
    members.push(("Networks".to_owned(), Json::map(networks)));
    Json::Object(members)
}

/// The ports with the host's that were chosen; `null` for one that is only exposed.
fn bound(container: &Container) -> Json {
    let mut ports: BTreeMap<String, Json> =
        container.exposed_ports.iter().map(|port| (port.clone(), Json::NULL)).collect();
    for mapping in &container.ports {
        let name = format!("{}/{}", mapping.container_port, ports::protocol(mapping));
        let binding = object! { "HostIp": ports::address(&mapping.host_ip), "HostPort": mapping.host_port.to_string() };
        match ports.entry(name).or_insert(Json::NULL) {
            Json::List(bindings) => bindings.push(binding),
            empty => *empty = Json::List(vec![binding]),
        }
    }
    Json::map(ports)
}

fn endpoint(endpoint: &NetworkEndpoint) -> Vec<(String, Json)> {
    let members = [
        ("EndpointID", Json::from(endpoint.endpoint_id.as_str())),
        ("Gateway", endpoint.gateway.as_str().into()),
        ("GlobalIPv6Address", endpoint.ipv6_address.as_str().into()),
        ("GlobalIPv6PrefixLen", endpoint.ipv6_prefix_len.into()),
        ("IPAddress", endpoint.ip_address.as_str().into()),
        ("IPPrefixLen", endpoint.ip_prefix_len.into()),
        ("IPv6Gateway", endpoint.ipv6_gateway.as_str().into()),
        ("MacAddress", endpoint.mac_address.as_str().into()),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The addresses that were asked for.
fn ipam(network: &NetworkEndpoint) -> Json {
    let (ip, ip6) = (network.asked_ip.as_str(), network.asked_ip6.as_str());
    if ip.is_empty() && ip6.is_empty() {
        return Json::NULL;
    }
    object! {
        "IPv4Address": Json::from(ip).omitted_if(ip.is_empty()),
        "IPv6Address": Json::from(ip6).omitted_if(ip6.is_empty()),
    }
}

fn network(network: &NetworkEndpoint) -> Json {
    let mut members = vec![
        ("IPAMConfig".to_owned(), ipam(network)),
        ("Links".to_owned(), Json::NULL),
        ("Aliases".to_owned(), Json::list_or_null(network.aliases.clone())),
        ("NetworkID".to_owned(), network.network_id.as_str().into()),
    ];
    members.extend(endpoint(network));
    members.push((
        "DriverOpts".to_owned(),
        if network.driver_opts.is_empty() { Json::NULL } else { Json::map(network.driver_opts.clone()) },
    ));
    members.push(("GwPriority".to_owned(), network.gw_priority.into()));
    members.push(("DNSNames".to_owned(), Json::list_or_null(network.dns_names.clone())));
    Json::Object(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::template::Format;

    #[test]
    fn what_scripts_ask_for() {
        let mut state = State { pid: 7, exit_code: 137, oom_killed: true, ..State::default() };
        state.set_status(Status::Running);
        let port = |ip: &str, host| PortMapping {
            host_ip: ip.into(),
            host_port: host,
            container_port: 80,
            ..PortMapping::default()
        };
        let wire = Container {
            id: "abc".into(),
            name: "web".into(),
            args: vec!["sleep".into(), "5".into()],
            state: Some(state),
            spec: Some(ContainerSpec {
                resources: Some(Resources { memory: 16 << 20, ..Resources::default() }),
                ..ContainerSpec::default()
            }),
            ports: vec![port("", 8080), port("127.0.0.1", 32768)],
            exposed_ports: vec!["80/tcp".into(), "443/tcp".into()],
            networks: vec![NetworkEndpoint {
                network: "bridge".into(),
                ip_address: "10.0.0.2".into(),
                ..Default::default()
            }],
            ..Container::default()
        };
        let json = container(&wire, false);
        for (format, text) in [
            ("{{.State.OOMKilled}} {{.State.ExitCode}} {{.HostConfig.Memory}}", "true 137 16777216"),
            ("{{.Name}} {{.State.Pid}} {{.Path}} {{.Args}}", "/web 7 sleep [5]"),
            (r#"{{(index (index .NetworkSettings.Ports "80/tcp") 1).HostPort}}"#, "32768"),
            ("{{.NetworkSettings.IPAddress}} {{.NetworkSettings.Networks.bridge.IPAddress}}", "10.0.0.2 10.0.0.2"),
            (
                "{{json .NetworkSettings.Ports}}",
                r#"{"443/tcp":null,"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"127.0.0.1","HostPort":"32768"}]}"#,
            ),
            ("{{json .Config.Labels}} {{.State.StartedAt}}", "{} 0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(Format::parse(format).unwrap().execute(&json.to_template()).unwrap(), text, "{format}");
        }
    }
}
