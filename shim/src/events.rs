//! What happens to the container, told to containerd: over ttrpc to its events service, in order, with retries, and never
//! holding anything up. Bundles of ours have nobody to tell: the runtime service asks.

use std::{cell::Cell, rc::Rc, time::Duration};

use containerd_shim_protos::{
    api,
    events::task as messages,
    protobuf::{MessageFull, well_known_types::any::Any},
    shim::{event::Envelope, events::ForwardRequest},
    shim_async::{Client, EventsClient},
    ttrpc::{self, context},
};
use tokio::sync::{Notify, mpsc};

use crate::{
    process::{Exit, Process},
    shim::Shim,
    stamp::timestamp,
};

/// Events that may wait for containerd to come back.
const WAITING: usize = 1024;
/// How often one is sent, and how long it may take.
const TRIES: u32 = 5;
const DEADLINE: Duration = Duration::from_secs(5);

/// Where events go.
#[derive(Debug, Default)]
pub(crate) struct Events {
    sender: Option<mpsc::Sender<Envelope>>,
    waiting: Rc<Waiting>,
}

/// How many are not sent yet.
#[derive(Debug, Default)]
struct Waiting {
    count: Cell<usize>,
    none: Notify,
}

impl Events {
    /// Publishes to containerd's socket. Must run within the runtime's local tasks.
    pub(crate) fn to(address: &str) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let waiting = Rc::<Waiting>::default();
        let address = address.trim_start_matches("unix://").to_owned();
        tokio::task::spawn_local(publish(address, receiver, Rc::clone(&waiting)));
        Self { sender: Some(sender), waiting }
    }

    /// Somebody listens.
    pub(crate) fn are_wanted(&self) -> bool {
        self.sender.is_some()
    }

    /// Waits until all are sent, but not for ever.
    pub(crate) async fn flushed(&self) {
        let all = async {
            while self.waiting.count.get() > 0 {
                self.waiting.none.notified().await;
            }
        };
        let _ = tokio::time::timeout(DEADLINE, all).await;
    }

    fn send<M: MessageFull>(&self, shim: &Shim, topic: &str, message: &M) {
        let Some(sender) = &self.sender else { return };
        let Ok(value) = message.write_to_bytes() else { return };
        let event = Any { type_url: M::descriptor().full_name().to_owned(), value, ..Any::default() };
        let envelope = Envelope {
            timestamp: Some(timestamp(crate::log::now_ns())).into(),
            namespace: shim.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(event).into(),
            ..Envelope::default()
        };
        if sender.try_send(envelope).is_ok() {
            self.waiting.count.set(self.waiting.count.get() + 1);
        } else {
            crate::note::note!("the event {topic} is lost: {WAITING} others wait for containerd");
        }
    }

    pub(crate) fn created(&self, shim: &Shim, request: &api::CreateTaskRequest, pid: u32) {
        let io = messages::TaskIO {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
            ..Default::default()
        };
        let mut message = messages::TaskCreate {
            container_id: shim.id.clone(),
            bundle: request.bundle.clone(),
            io: Some(io).into(),
            checkpoint: request.checkpoint.clone(),
            pid,
            ..Default::default()
        };
        for mount in &request.rootfs {
            message.rootfs.push(Default::default());
            if let Some(copy) = message.rootfs.last_mut() {
                copy.type_.clone_from(&mount.type_);
                copy.source.clone_from(&mount.source);
                copy.target.clone_from(&mount.target);
                copy.options.clone_from(&mount.options);
            }
        }
        self.send(shim, "/tasks/create", &message);
    }

    pub(crate) fn started(&self, shim: &Shim, exec_id: &str, pid: u32) {
        let container_id = shim.id.clone();
        if exec_id.is_empty() {
            let message = messages::TaskStart { container_id, pid, ..Default::default() };
            self.send(shim, "/tasks/start", &message);
        } else {
            let exec_id = exec_id.to_owned();
            let message = messages::TaskExecStarted { container_id, exec_id, pid, ..Default::default() };
            self.send(shim, "/tasks/exec-started", &message);
        }
    }

    pub(crate) fn exec_added(&self, shim: &Shim, exec_id: &str) {
        let (container_id, exec_id) = (shim.id.clone(), exec_id.to_owned());
        let message = messages::TaskExecAdded { container_id, exec_id, ..Default::default() };
        self.send(shim, "/tasks/exec-added", &message);
    }

    pub(crate) fn exited(&self, shim: &Shim, process: &Rc<Process>, exit: Exit) {
        let id = if process.exec_id.is_empty() { &shim.id } else { &process.exec_id };
        let message = messages::TaskExit {
            container_id: shim.id.clone(),
            id: id.clone(),
            pid: process.pid.get(),
            exit_status: exit.code,
            exited_at: Some(timestamp(exit.at_ns)).into(),
            ..Default::default()
        };
        self.send(shim, "/tasks/exit", &message);
    }

    pub(crate) fn deleted(&self, shim: &Shim, exec_id: &str, pid: u32, exit: Exit) {
        let message = messages::TaskDelete {
            container_id: shim.id.clone(),
            id: exec_id.to_owned(),
            pid,
            exit_status: exit.code,
            exited_at: Some(timestamp(exit.at_ns)).into(),
            ..Default::default()
        };
        self.send(shim, "/tasks/delete", &message);
    }

    pub(crate) fn paused(&self, shim: &Shim) {
        let message = messages::TaskPaused { container_id: shim.id.clone(), ..Default::default() };
        self.send(shim, "/tasks/paused", &message);
    }

    pub(crate) fn resumed(&self, shim: &Shim) {
        let message = messages::TaskResumed { container_id: shim.id.clone(), ..Default::default() };
        self.send(shim, "/tasks/resumed", &message);
    }

    pub(crate) fn out_of_memory(&self, shim: &Shim) {
        let message = messages::TaskOOM { container_id: shim.id.clone(), ..Default::default() };
        self.send(shim, "/tasks/oom", &message);
    }
}

async fn publish(path: String, mut events: mpsc::Receiver<Envelope>, waiting: Rc<Waiting>) {
    let mut client = None;
    while let Some(envelope) = events.recv().await {
        let topic = envelope.topic.clone();
        let request = ForwardRequest { envelope: Some(envelope).into(), ..Default::default() };
        for attempt in 1..=TRIES {
            match forward(&path, &mut client, &request).await {
                Ok(()) => break,
                Err(error) if attempt == TRIES => crate::note::note!("publishing the event {topic}: {error}"),
                // Until containerd listens again nothing tells that it does.
                Err(_) => tokio::time::sleep(Duration::from_millis(100) * 4u32.pow(attempt - 1)).await,
            }
        }
        waiting.count.set(waiting.count.get() - 1);
        if waiting.count.get() == 0 {
            waiting.none.notify_one();
        }
    }
}

async fn forward(path: &str, client: &mut Option<EventsClient>, request: &ForwardRequest) -> Result<(), ttrpc::Error> {
    let events = match client {
        Some(events) => events,
        None => client.insert(EventsClient::new(Client::connect(&format!("unix://{path}")).await?)),
    };
    let sent = events.forward(context::with_duration(DEADLINE), request).await;
    if sent.is_err() {
        *client = None;
    }
    sent.map(|_| ())
}
