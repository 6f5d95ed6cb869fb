//! The service `containerd.task.v2.Task`, and v3, which is the same by another name: requests in, the shim's answers out.
//!
//! ttrpc wants handlers that could move between threads; the shim's state cannot. So a handler sends what is to be done to
//! the one local task that has the state, and waits for the answer.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc};

use async_trait::async_trait;
use berth_core::bundle::NAMES_CAME;
use containerd_shim_protos::{
    api::{self, Empty, ProcessInfo, Status},
    protobuf::{
        MessageField,
        well_known_types::{any::Any, timestamp::Timestamp},
    },
    shim_async::{Task, create_task},
    ttrpc::{self, r#async::TtrpcContext, asynchronous::Service},
};
use tokio::sync::{mpsc, oneshot};

use crate::{error::Error, process::Exit, shim::Shim, spans::Spans, stamp::timestamp, trim::trim};

/// Requests that may wait.
const WAITING: usize = 64;

type Job = Box<dyn FnOnce(Rc<Shim>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// The handlers.
pub(crate) struct Handlers {
    jobs: mpsc::Sender<Job>,
    spans: Spans,
}

/// The services by both names, and the requests that come in.
pub(crate) fn services(spans: Spans) -> (std::collections::HashMap<String, Service>, mpsc::Receiver<Job>) {
    let (jobs, receiver) = mpsc::channel(WAITING);
    let handlers = Arc::new(Handlers { jobs, spans });
    let mut services = create_task(handlers.clone());
    let older = create_task(handlers).into_iter().map(|(name, service)| (name.replace(".v3.", ".v2."), service));
    services.extend(older);
    (services, receiver)
}

/// Does what is asked for, in the order in which it came.
pub(crate) async fn work(shim: Rc<Shim>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.recv().await {
        tokio::task::spawn_local(job(Rc::clone(&shim)));
    }
}

impl Handlers {
    async fn ask<T, F>(
        &self,
        context: &TtrpcContext,
        name: &'static str,
        act: impl FnOnce(Rc<Shim>) -> F + Send + 'static,
    ) -> ttrpc::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + 'static,
    {
        let span = self.spans.begin(name, &context.metadata);
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |shim| {
            Box::pin(async move {
                // Who asked may have gone.
                let _ = answer.send(act(shim).await);
            })
        });
        let ending = || Error::Precondition("the shim is ending".into());
        self.jobs.send(job).await.map_err(|_| ending())?;
        let answer = answered.await.map_err(|_| ending())?;
        self.spans.end(span);
        Ok(answer?)
    }
}

fn exited(exit: Exit) -> MessageField<Timestamp> {
    Some(timestamp(exit.at_ns)).into()
}

#[async_trait]
impl Task for Handlers {
    async fn create(
        &self,
        context: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> ttrpc::Result<api::CreateTaskResponse> {
        self.ask(context, "shim.create", move |shim| async move {
            let pid = shim.create(&request)?;
            if let Err(error) = shim.serve_names() {
                // It must not run without the names it counts on.
                shim.delete_init().await?;
                return Err(error);
            }
            shim.events.created(&shim, &request, pid);
            shim.watch_memory();
            Ok(api::CreateTaskResponse { pid, ..Default::default() })
        })
        .await
    }

    async fn start(&self, context: &TtrpcContext, request: api::StartRequest) -> ttrpc::Result<api::StartResponse> {
        self.ask(context, "shim.start", move |shim| async move {
            let id = &request.exec_id;
            let pid = if id.is_empty() { shim.start_init()? } else { shim.start_exec(id)? };
            shim.events.started(&shim, id, pid);
            tokio::task::spawn_local(async { trim() });
            Ok(api::StartResponse { pid, ..Default::default() })
        })
        .await
    }

    async fn delete(&self, context: &TtrpcContext, request: api::DeleteRequest) -> ttrpc::Result<api::DeleteResponse> {
        self.ask(context, "shim.delete", move |shim| async move {
            let id = &request.exec_id;
            let (pid, exit) = if id.is_empty() { shim.delete_init().await? } else { shim.delete_exec(id).await? };
            shim.events.deleted(&shim, id, pid, exit);
            Ok(api::DeleteResponse { pid, exit_status: exit.code, exited_at: exited(exit), ..Default::default() })
        })
        .await
    }

    async fn exec(&self, context: &TtrpcContext, request: api::ExecProcessRequest) -> ttrpc::Result<Empty> {
        self.ask(context, "shim.exec", move |shim| async move {
            shim.add_exec(&request)?;
            shim.events.exec_added(&shim, &request.exec_id);
            Ok(Empty::new())
        })
        .await
    }

    async fn wait(&self, context: &TtrpcContext, request: api::WaitRequest) -> ttrpc::Result<api::WaitResponse> {
        self.ask(context, "shim.wait", move |shim| async move {
            let waiting = shim.process(&request.exec_id)?.wait();
            let exit = waiting.await;
            Ok(api::WaitResponse { exit_status: exit.code, exited_at: exited(exit), ..Default::default() })
        })
        .await
    }

    async fn state(&self, context: &TtrpcContext, request: api::StateRequest) -> ttrpc::Result<api::StateResponse> {
        self.ask(context, "shim.state", move |shim| async move {
            let process = shim.process(&request.exec_id)?;
            let exit = process.exit();
            let status = match exit {
                Some(_) => Status::STOPPED,
                None if !process.started.get() => Status::CREATED,
                None if shim.paused.get() => Status::PAUSED,
                None => Status::RUNNING,
            };
            Ok(api::StateResponse {
                id: if request.exec_id.is_empty() { shim.id.clone() } else { request.exec_id.clone() },
                bundle: shim.bundle.to_string_lossy().into_owned(),
                pid: process.pid.get(),
                status: status.into(),
                stdin: process.plugs.stdin.name(),
                stdout: process.plugs.stdout.name(),
                stderr: process.plugs.stderr.name(),
                terminal: process.tty,
                exit_status: exit.map_or(0, |exit| exit.code),
                exited_at: exit.map(|exit| timestamp(exit.at_ns)).into(),
                exec_id: request.exec_id,
                ..Default::default()
            })
        })
        .await
    }

    async fn kill(&self, context: &TtrpcContext, request: api::KillRequest) -> ttrpc::Result<Empty> {
        self.ask(context, "shim.kill", move |shim| async move {
            shim.kill(&request)?;
            Ok(Empty::new())
        })
        .await
    }

    async fn pause(&self, context: &TtrpcContext, _: api::PauseRequest) -> ttrpc::Result<Empty> {
        self.ask(context, "shim.pause", move |shim| async move {
            shim.with_container(|engine, container| engine.pause(container))?;
            shim.paused.set(true);
            shim.events.paused(&shim);
            Ok(Empty::new())
        })
        .await
    }

    async fn resume(&self, context: &TtrpcContext, _: api::ResumeRequest) -> ttrpc::Result<Empty> {
        self.ask(context, "shim.resume", move |shim| async move {
            shim.with_container(|engine, container| engine.resume(container))?;
            shim.paused.set(false);
            shim.events.resumed(&shim);
            Ok(Empty::new())
        })
        .await
    }

    async fn resize_pty(&self, context: &TtrpcContext, request: api::ResizePtyRequest) -> ttrpc::Result<Empty> {
        self.ask(context, "shim.resize", move |shim| async move {
            let cells = |count: u32| count.min(u16::MAX.into()) as u16;
            shim.process(&request.exec_id)?.resize(cells(request.width), cells(request.height))?;
            Ok(Empty::new())
        })
        .await
    }

    async fn close_io(&self, context: &TtrpcContext, request: api::CloseIORequest) -> ttrpc::Result<Empty> {
        self.ask(context, "shim.close_io", move |shim| async move {
            let process = shim.process(&request.exec_id)?;
            if request.stdin {
                process.close_input();
            }
            Ok(Empty::new())
        })
        .await
    }

    async fn pids(&self, context: &TtrpcContext, _: api::PidsRequest) -> ttrpc::Result<api::PidsResponse> {
        self.ask(context, "shim.pids", move |shim| async move {
            let pids = shim.with_container(|engine, container| engine.pids(container))?;
            let processes = pids.into_iter().map(|pid| ProcessInfo { pid, ..Default::default() }).collect();
            Ok(api::PidsResponse { processes, ..Default::default() })
        })
        .await
    }

    async fn stats(&self, context: &TtrpcContext, _: api::StatsRequest) -> ttrpc::Result<api::StatsResponse> {
        self.ask(context, "shim.stats", move |shim| async move {
            let stats: Any = shim.metrics()?;
            Ok(api::StatsResponse { stats: Some(stats).into(), ..Default::default() })
        })
        .await
    }

    async fn update(&self, context: &TtrpcContext, request: api::UpdateTaskRequest) -> ttrpc::Result<Empty> {
        self.ask(context, "shim.update", move |shim| async move {
            let names_came = request.annotations.contains_key(NAMES_CAME);
            if request.resources.is_some() || !names_came {
                let bytes = request.resources.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
                let resources = serde_json::from_slice(bytes)
                    .map_err(|error| Error::Invalid(format!("the limits cannot be read: {error}")))?;
                shim.with_container(|engine, container| engine.update(container, &resources))?;
            }
            if names_came {
                shim.serve_names()?;
            }
            Ok(Empty::new())
        })
        .await
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: api::CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(Error::Unsupported("checkpoints are not supported: the container's state cannot be written to disk".into())
            .into())
    }

    async fn connect(&self, context: &TtrpcContext, _: api::ConnectRequest) -> ttrpc::Result<api::ConnectResponse> {
        self.ask(context, "shim.connect", move |shim| async move {
            let task_pid = shim.init.borrow().as_ref().map_or(0, |init| init.pid.get());
            let version = env!("CARGO_PKG_VERSION").to_owned();
            Ok(api::ConnectResponse { shim_pid: std::process::id(), task_pid, version, ..Default::default() })
        })
        .await
    }

    async fn shutdown(&self, context: &TtrpcContext, request: api::ShutdownRequest) -> ttrpc::Result<Empty> {
        self.ask(context, "shim.shutdown", move |shim| async move {
            // While it holds a container it goes on, unless it is told to leave at once.
            if request.now || shim.container.borrow().is_none() {
                shim.end.notify_one();
            }
            Ok(Empty::new())
        })
        .await
    }
}
