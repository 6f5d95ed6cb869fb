//! A container while this service runs: its record, its task where it has one, and who waits for it.
//!
//! What changes a container takes its turn first ([`Container::turn`]), so that start, stop and removal follow one
//! another and hold up nobody else. Two things need no turn: signals, which must get through while a stop waits, and
//! the end of the task, which nobody can refuse.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{OwnedMutexGuard, oneshot, watch};

use crate::{container::record::Record, shims::Task};

/// What is known of a container at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// As it is in the store.
    pub(crate) record: Arc<Record>,
    /// Its shim, from the moment that it is started until it is cleaned up after.
    pub(crate) task: Option<Arc<Task>>,
    /// How often it ended, or failed to start, since this service runs.
    pub(crate) ends: u64,
    /// It is gone, and its name is free.
    pub(crate) removed: bool,
}

/// A client that attached before the container started: it is told of the bundle, connects, and says so.
#[derive(Debug)]
pub(crate) struct Early {
    /// Where the shim's sockets are; dropped where the start fails.
    pub(crate) bundle: oneshot::Sender<PathBuf>,
    /// Answers, or breaks, when the client is connected or gone.
    pub(crate) connected: oneshot::Receiver<()>,
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    live: watch::Sender<Live>,
    turn: Arc<tokio::sync::Mutex<()>>,
    early: Mutex<Vec<Early>>,
    execs: Mutex<BTreeSet<String>>,
    /// Clients whose streams are open; the shim stays until the last has seen the end.
    attached: watch::Sender<usize>,
    /// A person wants it stopped: its end is no reason to start it again. Not yet in the store.
    stopping: AtomicBool,
}

/// See [`Container::attach`].
#[derive(Debug)]
pub(crate) struct Attachment(Arc<Container>);

impl Drop for Attachment {
    fn drop(&mut self) {
        self.0.attached.send_modify(|count| *count -= 1);
    }
}

impl Container {
    pub(crate) fn new(record: Record) -> Arc<Self> {
        let id = record.id.clone();
        let live = Live { record: Arc::new(record), task: None, ends: 0, removed: false };
        Arc::new(Self {
            id,
            live: watch::Sender::new(live),
            turn: Arc::default(),
            early: Mutex::default(),
            execs: Mutex::default(),
            attached: watch::Sender::new(0),
            stopping: AtomicBool::new(false),
        })
    }

    /// What is known now.
    pub(crate) fn now(&self) -> Live {
        self.live.borrow().clone()
    }

    pub(crate) fn record(&self) -> Arc<Record> {
        Arc::clone(&self.live.borrow().record)
    }

    /// Tells what changed to everybody who waits for it.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut Live)) {
        self.live.send_modify(change);
    }

    /// Answers when this holds.
    pub(crate) async fn when(&self, condition: impl FnMut(&Live) -> bool) -> Live {
        let mut receiver = self.live.subscribe();
        match receiver.wait_for(condition).await {
            Ok(live) => live.clone(),
            // The sender is ours, so it lives.
            Err(_) => self.now(),
        }
    }

    /// Whoever holds this is the only one who changes the container. First come, first served.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Whether somebody changes the container just now.
    pub(crate) fn is_busy(&self) -> bool {
        self.turn.try_lock().is_err()
    }

    fn early(&self) -> MutexGuard<'_, Vec<Early>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client that waits for the start.
    pub(crate) fn attach_early(&self, client: Early) {
        let mut early = self.early();
        // Those that went away meanwhile make room.
        early.retain(|client| !client.bundle.is_closed());
        early.push(client);
    }

    /// Those who wait for the start.
    pub(crate) fn take_early(&self) -> Vec<Early> {
        std::mem::take(&mut *self.early())
    }

    /// A client's streams are open as long as this lives.
    pub(crate) fn attach(self: &Arc<Self>) -> Attachment {
        self.attached.send_modify(|count| *count += 1);
        Attachment(Arc::clone(self))
    }

    /// Answers when no client's streams are open any more.
    pub(crate) async fn detached(&self) {
        let mut receiver = self.attached.subscribe();
        let _ = receiver.wait_for(|count| *count == 0).await;
    }

    fn execs(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ids of the processes that run beside the first.
    pub(crate) fn exec_ids(&self) -> Vec<String> {
        self.execs().iter().cloned().collect()
    }

    pub(crate) fn exec_begins(&self, id: &str) {
        self.execs().insert(id.to_owned());
    }

    pub(crate) fn exec_ends(&self, id: &str) {
        self.execs().remove(id);
    }

    pub(crate) fn set_stopping(&self, stopping: bool) {
        self.stopping.store(stopping, Ordering::SeqCst);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}
