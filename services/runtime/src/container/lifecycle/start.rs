//! Start: network, bundle, shim, attached clients, and then the program. Whatever fails undoes everything, and the
//! record says why.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use super::{create::said, end::decide};
use crate::{
    container::{
        containers::{Containers, blocking, to_the_end},
        live::Container,
        record::{Record, Restart, State, Status, Time},
    },
    error::{Error, Result},
    network, shims,
    shims::{Attachment, Task},
    spec,
};
use berth_core::bundle::{NAMES, Options, SHM};

/// A client that attached before the start has this long to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// Exit code of a container whose start failed for another reason than its program.
const FAILED: i32 = 128;

impl Containers {
    /// Starts a container; answers with the pid of its first process. One that runs is left as it is. The caller may go
    /// away: what was begun is brought to its end.
    pub(crate) async fn start(self: &Arc<Self>, container: &Arc<Container>) -> Result<u32> {
        let (containers, container) = (Arc::clone(self), Arc::clone(container));
        to_the_end("starting a container", async move {
            let _turn = container.turn().await;
            containers.start_in_turn(&container).await
        })
        .await
    }

    /// A person starts it: what the restart policy counted is forgotten.
    pub(super) async fn start_in_turn(self: &Arc<Self>, container: &Arc<Container>) -> Result<u32> {
        let live = container.now();
        let id = &container.id;
        if live.removed {
            return Err(Error::NotFound { name: id.clone() });
        }
        match live.record.state.status {
            Status::Running => return Ok(live.record.state.pid),
            Status::Paused => {
                return Err(Error::State("cannot start a paused container, try unpause instead".into()));
            }
            _ => {}
        }
        let result = self.launch(container, Restart::default()).await;
        if let Err((error, code)) = &result {
            self.failed(container, error, *code, false).await;
        }
        result.map_err(|(error, _)| error)
    }

    /// The restart policy starts it.
    pub(super) async fn start_again_in_turn(self: &Arc<Self>, container: &Arc<Container>) -> Result<u32> {
        let restart = container.record().restart;
        let result = self.launch(container, restart).await;
        if let Err((error, code)) = &result {
            self.failed(container, error, *code, true).await;
        }
        result.map_err(|(error, _)| error)
    }

    /// Writes down why a start failed.
    async fn failed(self: &Arc<Self>, container: &Arc<Container>, error: &Error, code: i32, again: bool) {
        let mut wait = None;
        let change = |record: &mut Record| {
            record.state.error = error.to_string();
            record.state.exit_code = code;
            if record.state.status != Status::Created {
                record.state.status = Status::Exited;
            }
            if again {
                wait = decide(record, Duration::ZERO);
            }
        };
        // Those who wait for the start to attach wait in vain.
        container.take_early();
        let auto_remove = container.record().spec.auto_remove;
        if let Err(error) = container.note(Some(&self.store), change, |live| live.ends += 1).await {
            tracing::error!(id = container.id, %error, "a failed start cannot be written down");
        }
        if auto_remove && let Err(error) = self.remove_in_turn(container, true).await {
            tracing::warn!(id = container.id, %error, "a container whose start failed cannot be removed");
        }
        if let Some(wait) = wait {
            self.start_later(container, wait);
        }
    }

    async fn launch(self: &Arc<Self>, container: &Arc<Container>, restart: Restart) -> Result<u32, (Error, i32)> {
        let other = |error| (error, FAILED);
        // What is left of the last run goes first.
        container.clear().await.map_err(other)?;
        let record = container.record();
        let bundle = self.bundle(&record.id);
        let mode = network::Mode::parse(&record.spec.network_mode).map_err(|error| other(said(error)))?;
        let request = network::Request {
            id: record.id.clone(),
            name: record.name.clone(),
            namespace: self.network_namespace(&record, mode).map_err(other)?,
            networks: record.attachments(),
            ports: record.spec.ports.clone(),
        };
        let (attached, rootfs) = tokio::join!(self.networks.attach(request), self.neighbours.mounts(&record.id));
        let prepared = async {
            let attached = attached.map_err(said)?;
            let rootfs = rootfs?;
            let attachment = Attachment { networks: attached.endpoints, ports: attached.ports };
            let task = self.launch_shim(&record, mode, attached.netns, attachment.clone()).await?;
            Ok((task, rootfs, attachment))
        };
        let (task, rootfs, attachment) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => {
                self.networks.detach(&record.id).await;
                self.remove_bundle(&record.id).await;
                return Err(other(error));
            }
        };
        let run = async {
            task.create(bundle.path(), &rootfs, record.spec.tty).await?;
            self.connect_early(container).await;
            task.start("").await
        };
        let pid = match run.await {
            Ok(pid) => pid,
            Err(failure) => {
                let code = failure.exit_code();
                let error = self.explain(&record, failure);
                self.undo_start(&record, &task).await;
                return Err((error, code));
            }
        };
        let change = |record: &mut Record| {
            record.state = State {
                status: Status::Running,
                pid,
                started: Some(Time::now()),
                finished: record.state.finished,
                health: record.health_at_start(),
                ..State::default()
            };
            record.networks = attachment.networks;
            record.ports = attachment.ports;
            record.restart = restart;
        };
        let record = match container.keep(&self.store, change, |live| live.task = Some(Arc::clone(&task))).await {
            Ok(record) => record,
            Err(error) => {
                self.undo_start(&record, &task).await;
                return Err(other(error));
            }
        };
        self.watch(container, &task);
        self.volumes_event("mount", &record);
        self.event("start", &record, &[]);
        Ok(pid)
    }

    /// Which network namespace it gets.
    fn network_namespace(&self, record: &Record, mode: network::Mode) -> Result<network::Namespace> {
        match record.spec.network_mode.strip_prefix("container:") {
            Some(other) => Ok(network::Namespace::Of(self.pid_of(other, "network")?)),
            None if mode == network::Mode::Host => Ok(network::Namespace::Host),
            None => Ok(network::Namespace::Own),
        }
    }

    /// The first process of a container whose namespace another one shares.
    fn pid_of(&self, id: &str, what: &str) -> Result<u32> {
        let state = self.find(id)?.record().state.clone();
        if state.status.is_live() {
            Ok(state.pid)
        } else {
            Err(Error::State(format!("cannot join {what} namespace of a non running container: {id}")))
        }
    }

    /// The first process of a container whose ipc namespace and /dev/shm others may share.
    fn ipc_of(&self, id: &str) -> Result<u32> {
        let record = self.find(id)?.record();
        let refused = |why: &str| Error::State(format!("can't join IPC of container {id}: {why}"));
        match record.state.status {
            Status::Restarting => {
                Err(refused(&format!("Container {id} is restarting, wait until the container is running")))
            }
            status if !status.is_live() => Err(refused(&format!("Container {id} is not running"))),
            _ if matches!(&*record.spec.ipc_mode, "" | "none" | "private") => {
                Err(refused("non-shareable IPC (hint: use IpcMode:shareable for the donor container)"))
            }
            _ => Ok(record.state.pid),
        }
    }

    /// Writes the bundle and starts a shim on it.
    async fn launch_shim(
        self: &Arc<Self>,
        record: &Arc<Record>,
        mode: network::Mode,
        netns: Option<std::os::fd::OwnedFd>,
        attachment: Attachment,
    ) -> Result<Arc<Task>> {
        let other = |mode: &str| mode.strip_prefix("container:").map(str::to_owned);
        let pid_of = other(&record.spec.pid_mode).map(|other| self.pid_of(&other, "PID")).transpose()?;
        let ipc_of = other(&record.spec.ipc_mode).map(|other| self.ipc_of(&other)).transpose()?;
        let options = Options { shm_of: ipc_of, ..self.options(record)? };
        let (containers, record) = (Arc::clone(self), Arc::clone(record));
        let launch = move || {
            let config = containers.config(&record, mode, &attachment, netns.is_some(), pid_of, ipc_of)?;
            let bundle = containers.bundle(&record.id);
            bundle.fill(&config, &options, &attachment)?;
            containers.write_names(&record, mode, &attachment)?;
            bundle.launch(&containers.shim, netns).map(Arc::new)
        };
        blocking("starting a shim", launch).await
    }

    fn options(&self, record: &Record) -> Result<Options> {
        let spec = &record.spec;
        let log = spec::log(spec, &self.log_path(&record.id)).map_err(said)?;
        Ok(Options {
            log,
            open_stdin: spec.open_stdin,
            stdin_once: spec.stdin_once,
            oci_runtime: self.handler(&spec.runtime)?,
            seccomp_cache: self.directories.seccomp.to_str().map(str::to_owned),
            traced: self.spans.is_on(),
            shm_of: None,
        })
    }

    /// The container's files and its OCI configuration. Blocks.
    fn config(
        &self,
        record: &Record,
        mode: network::Mode,
        attachment: &Attachment,
        own_network: bool,
        pid_of: Option<u32>,
        ipc_of: Option<u32>,
    ) -> Result<Vec<u8>> {
        let files = self.names_directory(record);
        if mode != network::Mode::Container {
            let names = names(record, mode, attachment, self.networks.gateway());
            network::files::write(&files, &names).map_err(said)?;
        }
        let parent = if record.spec.cgroup_parent.is_empty() {
            &self.settings.cgroup_parent
        } else {
            &record.spec.cgroup_parent
        };
        let input = spec::Input {
            id: &record.id,
            spec: &record.spec,
            args: &record.args,
            mounts: &record.mounts,
            network: if own_network { spec::Network::Own } else { spec::Network::Host },
            pid_of,
            ipc_of,
            shm: &self.bundle(&record.id).path().join(SHM),
            init: &self.directories.init,
            files: &files,
            cgroups_path: &Path::new("/").join(parent).join(&record.id),
        };
        let config = spec::build(&input).map_err(said)?;
        serde_json::to_vec(&config)
            .map_err(|e| Error::Invalid(format!("the configuration cannot be written down: {e}")))
    }

    /// Which names a container can ask for, into its bundle; nothing where it is on no network that has names. Blocks.
    pub(crate) fn write_names(&self, record: &Record, mode: network::Mode, attachment: &Attachment) -> Result<()> {
        let bundle = self.bundle(&record.id);
        if !attachment.networks.iter().any(network::has_names) && !bundle.path().join(NAMES).exists() {
            return Ok(());
        }
        let (upstreams, ndots) = network::files::upstreams(&self.names_of(record, mode, attachment)).map_err(said)?;
        let names = self.networks.names(&attachment.networks, upstreams, ndots);
        berth_core::bundle::write(bundle.path(), NAMES, &names).map_err(Error::io("cannot write to", bundle.path()))
    }

    /// What the container's files of names say.
    pub(crate) fn names_of(
        &self,
        record: &Record,
        mode: network::Mode,
        attachment: &Attachment,
    ) -> network::files::Names {
        names(record, mode, attachment, self.networks.gateway())
    }

    /// Clients that attached before the start are connected, so that they see the first byte.
    async fn connect_early(&self, container: &Container) {
        let bundle = self.bundle(&container.id);
        let mut connected = Vec::new();
        for client in container.take_early() {
            if client.bundle.send(bundle.path().to_owned()).is_ok() {
                connected.push(client.connected);
            }
        }
        for client in connected {
            // One that went away, or is that slow, gets what comes later.
            let _ = tokio::time::timeout(CONNECT, client).await;
        }
    }

    /// A container that could not be started is nowhere any more.
    async fn undo_start(&self, record: &Record, task: &Task) {
        self.clear_run(&record.id, Some(task)).await;
        self.networks.detach(&record.id).await;
        self.remove_bundle(&record.id).await;
    }

    /// A refusal of the shim, as a person is told it. One that died is quoted.
    fn explain(&self, record: &Record, failure: shims::Failure) -> Error {
        if failure.reason == shims::Reason::Gone {
            let said = self.bundle(&record.id).complaint();
            return shims::Failure::new(failure.reason, format!("{failure}: {said}")).into();
        }
        let message = format!("failed to create task for container: {}", failure.message);
        shims::Failure::new(failure.reason, message).into()
    }
}

/// What the container is told of its names.
fn names(record: &Record, mode: network::Mode, attachment: &Attachment, gateway: IpAddr) -> network::files::Names {
    let spec = &record.spec;
    let address = |text: &str| text.parse().ok();
    network::files::Names {
        hostname: spec.hostname.clone(),
        domainname: spec.domainname.clone(),
        addresses: attachment
            .networks
            .iter()
            .flat_map(|endpoint| [address(&endpoint.ip_address), address(&endpoint.ipv6_address)])
            .flatten()
            .collect(),
        gateway: Some(gateway),
        extra_hosts: spec.extra_hosts.clone(),
        dns: spec.dns.clone(),
        dns_search: spec.dns_search.clone(),
        dns_options: spec.dns_options.clone(),
        host_network: mode == network::Mode::Host,
        served: attachment.networks.iter().any(network::has_names),
    }
}
