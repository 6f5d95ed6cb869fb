//! A container while this service runs: its record, its task where it has one, and who waits for it.
//!
//! What changes a container takes its turn first ([`Container::turn`]), so that start, stop and removal follow one
//! another and hold up nobody else. Two things need no turn: signals, which must get through while a stop waits, and
//! the end of the task, which nobody can refuse. So the record changes in one way only ([`Container::keep`],
//! [`Container::note`]): whoever has something to say about it says it of the record as it is when it is written.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedMutexGuard, oneshot, watch},
    time::timeout,
};

use crate::{
    container::{
        record::Record,
        store::{Change, Store},
    },
    error::{Error, Result},
    shims::Task,
};

/// Cleaning up after a run takes milliseconds, and seconds where a client is slow.
const CLEAR: Duration = Duration::from_secs(60);

/// What is known of a container at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// As it is in the store.
    pub(crate) record: Arc<Record>,
    /// Its shim, from the moment that it is started until it is cleaned up after.
    pub(crate) task: Option<Arc<Task>>,
    /// What its last run has left is still looked at, or taken away, with a shim or without.
    pub(crate) cleaning: bool,
    /// How often it ended, or failed to start, since this service runs.
    pub(crate) ends: u64,
    /// The store has no record of it any more, and gets none again.
    pub(crate) erased: bool,
    /// It is gone, and its name is free.
    pub(crate) removed: bool,
}

impl Live {
    /// Nothing is there of an earlier run.
    pub(crate) fn is_clear(&self) -> bool {
        self.task.is_none() && !self.cleaning
    }
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
    /// Held from the look at the record until its change is written and told.
    writing: tokio::sync::Mutex<()>,
    early: Mutex<Vec<Early>>,
    execs: Mutex<BTreeSet<String>>,
    bundle: Mutex<()>,
    /// Clients whose streams are open; the shim stays until the last has seen the end.
    attached: watch::Sender<usize>,
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
        let live =
            Live { record: Arc::new(record), task: None, cleaning: false, ends: 0, erased: false, removed: false };
        Arc::new(Self {
            id,
            live: watch::Sender::new(live),
            turn: Arc::default(),
            writing: tokio::sync::Mutex::default(),
            early: Mutex::default(),
            execs: Mutex::default(),
            bundle: Mutex::default(),
            attached: watch::Sender::new(0),
        })
    }

    /// What is known now.
    pub(crate) fn now(&self) -> Live {
        self.live.borrow().clone()
    }

    pub(crate) fn record(&self) -> Arc<Record> {
        Arc::clone(&self.live.borrow().record)
    }

    /// Changes the record: first in the store, then for everybody who looks. Answers with what it is then.
    ///
    /// # Errors
    /// It cannot be written, and nothing has changed; or the container is gone.
    pub(crate) async fn keep(
        &self,
        store: &Store,
        change: impl FnOnce(&mut Record),
        also: impl FnOnce(&mut Live),
    ) -> Result<Arc<Record>> {
        let _writing = self.writing.lock().await;
        let record = self.changed(change)?;
        store.put(Arc::clone(&record)).await?;
        self.tell(&record, also);
        Ok(record)
    }

    /// Says what happened to the container, which is true whether it can be written down or not; without a store it
    /// is not tried. A restart of the service finds it out again.
    ///
    /// # Errors
    /// It could not be written; or the container is gone, and nothing was said.
    pub(crate) async fn note(
        &self,
        store: Option<&Store>,
        change: impl FnOnce(&mut Record),
        also: impl FnOnce(&mut Live),
    ) -> Result<()> {
        let _writing = self.writing.lock().await;
        let record = self.changed(change)?;
        let written = match store {
            Some(store) => store.put(Arc::clone(&record)).await,
            None => Ok(()),
        };
        self.tell(&record, also);
        written
    }

    /// Takes the record out of the store, in one step with what else that change is.
    pub(crate) async fn erase(&self, store: &Store, change: Change) -> Result<()> {
        let _writing = self.writing.lock().await;
        store.commit(Change { remove: Some(self.id.clone()), ..change }).await?;
        self.publish(|live| live.erased = true);
        Ok(())
    }

    fn changed(&self, change: impl FnOnce(&mut Record)) -> Result<Arc<Record>> {
        let live = self.now();
        if live.erased {
            return Err(Error::NotFound { name: self.id.clone() });
        }
        let mut record = (*live.record).clone();
        change(&mut record);
        Ok(Arc::new(record))
    }

    fn tell(&self, record: &Arc<Record>, also: impl FnOnce(&mut Live)) {
        self.publish(|live| {
            live.record = Arc::clone(record);
            also(live);
        });
    }

    /// Tells what changed beside the record to everybody who waits for it.
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

    /// Waits until nothing is there of an earlier run.
    ///
    /// # Errors
    /// It takes longer than anything but a shim that hangs.
    pub(crate) async fn clear(&self) -> Result<()> {
        match timeout(CLEAR, self.when(Live::is_clear)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Late { what: "cleaning up after the container's last run", seconds: CLEAR.as_secs() }),
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

    /// As long as this is held, the bundle of a container that runs is not taken away; whoever writes into it looks first
    /// whether it still runs, and whoever takes it away waits here after saying that it does not. Blocks.
    pub(crate) fn bundle_stays(&self) -> MutexGuard<'_, ()> {
        self.bundle.lock().unwrap_or_else(PoisonError::into_inner)
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::{Status, Time};

    fn container(directory: &std::path::Path) -> (Store, Arc<Container>) {
        let (store, _) = Store::open(&directory.join("meta.redb"), directory, directory).unwrap();
        let mut record = Record { id: "a".into(), name: "old".into(), ..Record::default() };
        record.state.status = Status::Running;
        (store, Container::new(record))
    }

    #[tokio::test]
    async fn an_end_is_not_undone_by_a_change_that_began_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let (store, container) = container(directory.path());
        let rename = container.keep(&store, |record| record.name = "new".into(), |_| {});
        let end = container.note(Some(&store), |record| record.end(7, false, Time(1)), |live| live.ends += 1);
        let pause = container.note(
            Some(&store),
            |record| {
                if record.state.status == Status::Running {
                    record.state.status = Status::Paused;
                }
            },
            |_| {},
        );
        // Each is polled before the first is written.
        let (renamed, ended, paused) = tokio::join!(rename, end, pause);
        assert!(renamed.is_ok() && ended.is_ok() && paused.is_ok());
        let live = container.now();
        assert_eq!((live.record.name.as_str(), live.record.state.exit_code, live.ends), ("new", 7, 1));
        assert_eq!(live.record.state.status, Status::Exited);
    }

    #[tokio::test]
    async fn what_was_erased_is_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let (store, container) = container(directory.path());
        container.keep(&store, |_| {}, |_| {}).await.unwrap();
        let erase = container.erase(&store, Change::default());
        let late = container.keep(&store, |record| record.restart.stopped_by_hand = true, |_| {});
        let (erased, late) = tokio::join!(erase, late);
        erased.unwrap();
        assert!(matches!(late, Err(Error::NotFound { .. })));
        assert!(container.now().erased);
    }
}
