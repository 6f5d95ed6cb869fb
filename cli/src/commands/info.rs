//! `info`: the node.

use std::fmt::Write as _;

use berth_proto::berth::runtime::v1::{InfoRequest, InfoResponse};
use clap::Arg;

use super::each::{print, warn};
use crate::{
    args::{Entry, Given, flag::value},
    client::Client,
    format::{
        json::{Json, object},
        template::Format,
        units,
    },
    outcome::Error,
};

pub(crate) const ENTRY: Entry = Entry {
    paths: &["info", "system info"],
    about: "Show what the node is and how it is set up",
    usage: "[OPTIONS]",
    flags: || -> Vec<Arg> { vec![value("format", "string", "json, or a Go template").short('f')] },
    run: |client, given| Box::pin(info(client, given)),
    ..Entry::PLAIN
};

async fn info(client: Client, given: Given) -> Result<u8, Error> {
    let info = client.system().await?.info(InfoRequest {}).await?.into_inner();
    match given.text("format") {
        None | Some("") => {
            print(&text(&info))?;
            warn(&info.warnings);
        }
        Some(format) => {
            let format = Format::parse(if format == "json" { "{{json .}}" } else { format })?;
            print(&(format.execute(&json(&info).to_template())? + "\n"))?;
        }
    }
    Ok(0)
}

fn text(info: &InfoResponse) -> String {
    let containers = info.containers_running + info.containers_paused + info.containers_stopped;
    let mut text = format!("Client:\n Version:    {}\n\nServer:\n", env!("CARGO_PKG_VERSION"));
    let mut row = |indent: usize, name: &str, value: String| {
        let _ = writeln!(text, "{:indent$}{name}: {value}", "");
    };
    row(1, "Containers", containers.to_string());
    row(2, "Running", info.containers_running.to_string());
    row(2, "Paused", info.containers_paused.to_string());
    row(2, "Stopped", info.containers_stopped.to_string());
    row(1, "Images", info.images.to_string());
    row(1, "Server Version", info.version.clone());
    row(1, "Storage Driver", info.storage_driver.clone());
    row(1, "Logging Driver", "json-file".into());
    row(1, "Cgroup Driver", "cgroupfs".into());
    row(1, "Cgroup Version", info.cgroup_version.clone());
    row(1, "Runtimes", info.runtimes.join(" "));
    row(1, "Default Runtime", info.default_runtime.clone());
    row(1, "Security Options", info.security_options.join(" "));
    row(1, "Kernel Version", info.kernel.clone());
    row(1, "Operating System", info.operating_system.clone());
    row(1, "OSType", "linux".into());
    row(1, "Architecture", info.architecture.clone());
    row(1, "CPUs", info.cpus.to_string());
    row(1, "Total Memory", units::size_binary(info.memory));
    row(1, "Name", info.hostname.clone());
    row(1, "Berth Root Dir", info.root.clone());
    row(1, "Berth State Dir", info.state.clone());
    text
}

fn json(info: &InfoResponse) -> Json {
    let runtimes = info.runtimes.iter().map(|name| (name.clone(), object! {}));
    object! {
        "Containers": info.containers_running + info.containers_paused + info.containers_stopped,
        "ContainersRunning": info.containers_running,
        "ContainersPaused": info.containers_paused,
        "ContainersStopped": info.containers_stopped,
        "Images": info.images,
        "Driver": info.storage_driver.as_str(),
        "Plugins": object! {
            "Volume": vec!["local"],
            "Network": vec!["bridge", "host", "none"],
            "Authorization": Json::NULL,
            "Log": vec!["json-file", "none"],
        },
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        // Docker knows no third one: with controllers on the old hierarchies it is the old one.
        "CgroupVersion": if info.cgroup_version == "2" { "2" } else { "1" },
        "KernelVersion": info.kernel.as_str(),
        "OperatingSystem": info.operating_system.as_str(),
        "OSType": "linux",
        "Architecture": info.architecture.as_str(),
        "NCPU": info.cpus,
        "MemTotal": info.memory,
        "DockerRootDir": info.root.as_str(),
        "StateDir": info.state.as_str(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "Name": info.hostname.as_str(),
        "Labels": Vec::<String>::new(),
        "ServerVersion": info.version.as_str(),
        "Runtimes": Json::map(runtimes),
        "DefaultRuntime": info.default_runtime.as_str(),
        "LiveRestoreEnabled": true,
        "Swarm": object! { "LocalNodeState": "inactive" },
        "SecurityOptions": Json::from(info.security_options.clone()),
        "Warnings": Json::list_or_null(info.warnings.clone()),
        "ClientInfo": object! { "Version": env!("CARGO_PKG_VERSION") },
    }
}
