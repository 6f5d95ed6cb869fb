//! Further processes in running containers.
//!
//! An exec belongs to its container, not to its caller: one whose caller goes away runs on, and is cleaned up after when
//! it ends, or with its container where this service was restarted meanwhile.

use std::sync::Arc;

use berth_core::{
    Failure,
    bundle::{ATTACHED, CONFIG},
    stream::Hello,
};
use berth_proto::berth::runtime::v1::ExecStart;

use crate::{
    container::{Attachment, Container, Containers, Record, Status, blocking, names},
    error::{Error, Result},
    shims::{Failure as Refusal, Reason, Task},
    spec,
    streams::{self, Session},
};

/// Exit code of what KILL hit.
const KILLED: i32 = 137;

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) pid: u32,
    task: Arc<Task>,
    containers: Arc<Containers>,
    container: Arc<Container>,
    record: Arc<Record>,
    /// The shim stays until our streams have ended.
    _attachment: Attachment,
}

impl Containers {
    /// Starts a process; its streams come with it, unless it is detached.
    pub(crate) async fn exec(self: &Arc<Self>, start: ExecStart) -> Result<(Exec, Option<Session>)> {
        self.exec_as(names::id(), start).await
    }

    /// Starts a process under this id.
    pub(crate) async fn exec_as(
        self: &Arc<Self>,
        exec_id: String,
        start: ExecStart,
    ) -> Result<(Exec, Option<Session>)> {
        let container = self.find(&start.container)?;
        let live = container.now();
        let (record, id) = (live.record, &container.id);
        let task = match (record.state.status, live.task) {
            (Status::Running, Some(task)) => task,
            (Status::Paused, _) => {
                let name = &start.container;
                return Err(Error::State(format!("Container {name} is paused, unpause the container before exec")));
            }
            (Status::Restarting, _) => {
                return Err(Error::State(format!("Container {id} is restarting, wait until the container is running")));
            }
            _ => return Err(Error::State(format!("container {id} is not running"))),
        };
        let bundle = self.bundle(id);
        let streams = match (start.detach, start.stdin, start.tty) {
            (true, ..) => ["", "", ""],
            (false, true, true) => [ATTACHED, ATTACHED, ""],
            (false, false, true) => ["", ATTACHED, ""],
            (false, true, false) => [ATTACHED, ATTACHED, ATTACHED],
            (false, false, false) => ["", ATTACHED, ATTACHED],
        };
        let hello = Hello { exec_id: exec_id.clone(), stdin: start.stdin, stdout: true, stderr: !start.tty };
        let (tty, detach, command) = (start.tty, start.detach, start.args.join(" "));
        let config = bundle.path().join(CONFIG);
        let process = blocking("reading a bundle", move || {
            let config = oci_spec::runtime::Spec::load(&config)
                .map_err(|e| Error::Invalid(format!("the container's configuration cannot be read: {e}")))?;
            let process =
                spec::exec(&config, &start).map_err(|error| Failure::from(error).reason("COMMAND_NOT_EXECUTABLE"))?;
            serde_json::to_vec(&process).map_err(|e| Error::Invalid(format!("a process cannot be written down: {e}")))
        });
        task.exec(&exec_id, process.await?, tty, streams).await.map_err(not_executable)?;
        self.event(&format!("exec_create: {command}"), &record, &[("execID", exec_id.clone())]);
        let attachment = container.attach();
        let started = async {
            let session = match detach {
                true => None,
                false => Some(streams::attach(bundle.path(), &hello).await.map_err(Failure::from)?),
            };
            let pid = task.start(&exec_id).await.map_err(not_executable)?;
            Ok((session, pid))
        };
        let (session, pid) = match started.await {
            Ok(started) => started,
            Err(error) => {
                if let Err(failure) = task.delete(&exec_id).await {
                    tracing::debug!(id, exec_id, %failure, "an exec that failed cannot be cleaned up after");
                }
                return Err(error);
            }
        };
        container.exec_begins(&exec_id);
        self.event(&format!("exec_start: {command}"), &record, &[("execID", exec_id.clone())]);
        let exec =
            Exec { id: exec_id, pid, task, containers: Arc::clone(self), container, record, _attachment: attachment };
        Ok((exec, session))
    }
}

/// A user or directory that is not there makes a command one that cannot be executed: exit code 126, as in Docker.
fn not_executable(failure: Refusal) -> Refusal {
    let reason = if failure.reason == Reason::Invalid { Reason::NotExecutable } else { failure.reason };
    Refusal { reason, ..failure }
}

impl Exec {
    /// Answers with its exit code when it has ended, and cleans up after it.
    pub(crate) async fn end(self) -> Result<i32> {
        match self.ended().await {
            Ok(code) => {
                self.forget(code).await;
                Ok(code)
            }
            Err(error) => {
                self.container.exec_ends(&self.id);
                Err(error)
            }
        }
    }

    /// Answers with its exit code when it has ended.
    pub(crate) async fn ended(&self) -> Result<i32> {
        Ok(self.task.wait(&self.id).await?.code)
    }

    /// Ends it by force, and cleans up after it.
    pub(crate) async fn kill(self) {
        self.task.end_exec(&self.id).await;
        self.forget(KILLED).await;
    }

    /// Cleans up after it, once it has ended.
    pub(crate) async fn forget(self, code: i32) {
        self.container.exec_ends(&self.id);
        let told = [("execID", self.id.clone()), ("exitCode", code.to_string())];
        self.containers.event("exec_die", &self.record, &told);
        if let Err(failure) = self.task.delete(&self.id).await {
            tracing::debug!(id = self.container.id, exec = self.id, %failure, "an exec cannot be cleaned up after");
        }
    }
}
