//! A container's task: `containerd.task.v2.Task` over a bundle's socket.

use std::{path::Path, time::Duration};

use berth_core::{bundle::NAMES_CAME, telemetry};
use berth_proto::containerd::types;
use containerd_shim_protos::{api, protobuf};
use protobuf::{Message, MessageField, well_known_types::any::Any};
use tokio::net::UnixStream;
use ttrpc::{
    r#async::Client,
    context,
    proto::{Codec as _, Request},
};

use super::failure::{Failure, Reason};

const SERVICE: &str = "containerd.task.v2.Task";
/// Most of what a shim does takes milliseconds; a machine under load gets time.
const DEADLINE: Duration = Duration::from_secs(20);
/// Mounting, hooks, a low-level runtime that is a process of its own.
const CREATE_DEADLINE: Duration = Duration::from_secs(120);
/// An exec that was sent KILL is waited for this long.
const EXEC_END: Duration = Duration::from_secs(5);
/// Type URL of an OCI process, as containerd writes it.
const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// Type URL of OCI limits.
const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// A connection to a shim.
pub(crate) struct Task {
    id: String,
    client: Client,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
}

/// What the first process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskState {
    /// Made, and waits for the start.
    Created,
    Running,
    Paused,
    Stopped,
}

impl Task {
    /// Speaks over a connection to the container's shim.
    pub(crate) fn new(id: &str, stream: UnixStream) -> Self {
        Self { id: id.into(), client: Client::new(stream.into()) }
    }

    async fn call<Q: Message, A: Message>(
        &self,
        method: &str,
        request: &Q,
        deadline: Option<Duration>,
    ) -> Result<A, Failure> {
        let payload = request
            .write_to_bytes()
            .map_err(|e| Failure::new(Reason::Internal, format!("a request to the shim cannot be written: {e}")))?;
        let mut context = context::Context::default();
        if let Some(traceparent) = telemetry::traceparent() {
            context.add("traceparent".into(), traceparent);
        }
        let request = Request {
            service: SERVICE.into(),
            method: method.into(),
            timeout_nano: deadline.map_or(0, |d| d.as_nanos() as i64),
            metadata: context::to_pb(context.metadata),
            payload,
            ..Request::default()
        };
        let answer = self.client.request(request).await?;
        A::decode(&answer.payload)
            .map_err(|e| Failure::new(Reason::Internal, format!("the shim's answer to {method} cannot be read: {e}")))
    }

    async fn ask<Q: Message, A: Message>(&self, method: &str, request: &Q) -> Result<A, Failure> {
        self.call(method, request, Some(DEADLINE)).await
    }

    async fn tell<Q: Message>(&self, method: &str, request: &Q) -> Result<(), Failure> {
        let _: protobuf::well_known_types::empty::Empty = self.ask(method, request).await?;
        Ok(())
    }

    /// Makes the container; its first process waits for [`Task::start`]. Answers with its pid.
    pub(crate) async fn create(&self, bundle: &Path, rootfs: &[types::Mount], tty: bool) -> Result<u32, Failure> {
        let mounts = rootfs.iter().map(|mount| api::Mount {
            type_: mount.r#type.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
            ..Default::default()
        });
        let request = api::CreateTaskRequest {
            id: self.id.clone(),
            bundle: bundle.display().to_string(),
            rootfs: mounts.collect(),
            terminal: tty,
            ..Default::default()
        };
        let answer: api::CreateTaskResponse = self.call("Create", &request, Some(CREATE_DEADLINE)).await?;
        Ok(answer.pid)
    }

    /// Starts the first process (`exec_id` empty) or an exec; answers with its pid.
    pub(crate) async fn start(&self, exec_id: &str) -> Result<u32, Failure> {
        let request = api::StartRequest { id: self.id.clone(), exec_id: exec_id.into(), ..Default::default() };
        let answer: api::StartResponse = self.call("Start", &request, Some(CREATE_DEADLINE)).await?;
        Ok(answer.pid)
    }

    /// Answers when the process has ended. It takes as long as it takes.
    pub(crate) async fn wait(&self, exec_id: &str) -> Result<Ended, Failure> {
        let request = api::WaitRequest { id: self.id.clone(), exec_id: exec_id.into(), ..Default::default() };
        let answer: api::WaitResponse = self.call("Wait", &request, None).await?;
        Ok(Ended { code: answer.exit_status as i32 })
    }

    /// Sends a signal to the first process.
    pub(crate) async fn kill(&self, signal: u32) -> Result<(), Failure> {
        let request = api::KillRequest { id: self.id.clone(), signal, ..Default::default() };
        self.tell("Kill", &request).await
    }

    /// Whether the shim has an exec of this name.
    pub(crate) async fn is_executing(&self, exec_id: &str) -> bool {
        let request = api::StateRequest { id: self.id.clone(), exec_id: exec_id.into(), ..Default::default() };
        let answer: Result<api::StateResponse, _> = self.ask("State", &request).await;
        answer.is_ok()
    }

    /// Ends an exec by force, and cleans up after it. Best effort: one that is gone already is gone.
    pub(crate) async fn end_exec(&self, exec_id: &str) {
        let signal = libc::SIGKILL as u32;
        let request = api::KillRequest { id: self.id.clone(), exec_id: exec_id.into(), signal, ..Default::default() };
        let _ = self.tell("Kill", &request).await;
        // In an uninterruptible sleep, or a frozen cgroup, it may take as long as it likes.
        let _ = tokio::time::timeout(EXEC_END, self.wait(exec_id)).await;
        let _ = self.delete(exec_id).await;
    }

    pub(crate) async fn pause(&self) -> Result<(), Failure> {
        self.tell("Pause", &api::PauseRequest { id: self.id.clone(), ..Default::default() }).await
    }

    pub(crate) async fn resume(&self) -> Result<(), Failure> {
        self.tell("Resume", &api::ResumeRequest { id: self.id.clone(), ..Default::default() }).await
    }

    /// Prepares another process; `streams` is what its standard streams are called, empty for `/dev/null`.
    pub(crate) async fn exec(
        &self,
        exec_id: &str,
        process: Vec<u8>,
        tty: bool,
        streams: [&str; 3],
    ) -> Result<(), Failure> {
        let spec = Any { type_url: PROCESS.into(), value: process, ..Default::default() };
        let [stdin, stdout, stderr] = streams.map(str::to_owned);
        let request = api::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec_id.into(),
            terminal: tty,
            stdin,
            stdout,
            stderr,
            spec: MessageField::some(spec),
            ..Default::default()
        };
        self.tell("Exec", &request).await
    }

    pub(crate) async fn resize(&self, exec_id: &str, columns: u32, rows: u32) -> Result<(), Failure> {
        let request = api::ResizePtyRequest {
            id: self.id.clone(),
            exec_id: exec_id.into(),
            width: columns,
            height: rows,
            ..Default::default()
        };
        self.tell("ResizePty", &request).await
    }

    /// Changes limits: all of them or none.
    pub(crate) async fn update(&self, resources: Vec<u8>) -> Result<(), Failure> {
        let resources = Any { type_url: RESOURCES.into(), value: resources, ..Default::default() };
        let request = api::UpdateTaskRequest {
            id: self.id.clone(),
            resources: MessageField::some(resources),
            ..Default::default()
        };
        self.tell("Update", &request).await
    }

    /// Says that the container has names from now on.
    pub(crate) async fn names_came(&self) -> Result<(), Failure> {
        let annotations = [(NAMES_CAME.to_owned(), String::new())].into();
        self.tell("Update", &api::UpdateTaskRequest { id: self.id.clone(), annotations, ..Default::default() }).await
    }

    /// The pids of its processes, as the host counts them.
    pub(crate) async fn pids(&self) -> Result<Vec<u32>, Failure> {
        let request = api::PidsRequest { id: self.id.clone(), ..Default::default() };
        let answer: api::PidsResponse = self.ask("Pids", &request).await?;
        Ok(answer.processes.iter().map(|process| process.pid).collect())
    }

    /// What its cgroup counts, as containerd's metrics of v1 or v2.
    pub(crate) async fn stats(&self) -> Result<Any, Failure> {
        let request = api::StatsRequest { id: self.id.clone(), ..Default::default() };
        let answer: api::StatsResponse = self.call("Stats", &request, Some(Duration::from_secs(5))).await?;
        answer.stats.into_option().ok_or_else(|| Failure::new(Reason::Internal, "the shim answers without statistics"))
    }

    /// Cleans up after a process that ended; after the first, the container is gone.
    pub(crate) async fn delete(&self, exec_id: &str) -> Result<(), Failure> {
        let request = api::DeleteRequest { id: self.id.clone(), exec_id: exec_id.into(), ..Default::default() };
        let _: api::DeleteResponse = self.ask("Delete", &request).await?;
        Ok(())
    }

    /// Ends the shim; whether it is gone, or will be at once.
    pub(crate) async fn shutdown(&self) -> bool {
        let request = api::ShutdownRequest { id: self.id.clone(), now: true, ..Default::default() };
        let ended: Result<protobuf::well_known_types::empty::Empty, _> =
            self.call("Shutdown", &request, Some(Duration::from_secs(5))).await;
        match ended {
            Ok(_) | Err(Failure { reason: Reason::Gone, .. }) => true,
            Err(failure) => {
                tracing::warn!(id = self.id, %failure, "a shim does not end");
                false
            }
        }
    }

    /// What the first process does, and its pid.
    pub(crate) async fn state(&self) -> Result<(TaskState, u32), Failure> {
        use api::Status;
        let request = api::StateRequest { id: self.id.clone(), ..Default::default() };
        let answer: api::StateResponse = self.call("State", &request, Some(Duration::from_secs(5))).await?;
        let state = match answer.status.enum_value_or_default() {
            Status::RUNNING => TaskState::Running,
            Status::PAUSED | Status::PAUSING => TaskState::Paused,
            Status::STOPPED => TaskState::Stopped,
            Status::CREATED | Status::UNKNOWN => TaskState::Created,
        };
        Ok((state, answer.pid))
    }
}
