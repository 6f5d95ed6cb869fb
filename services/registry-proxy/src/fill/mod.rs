//! Blobs on their way here: one download of each, read by all who ask while it grows.
//!
//! A fill belongs to nobody: it goes on while somebody reads it, or once it has come far enough to be worth finishing.
//! Else it stops and leaves its beginning in `ingest/`, where the next one goes on. Exactly one fill of a digest exists
//! at a time: it is on the list from before its file is opened until after its file is closed.

mod download;
mod writer;

use std::{
    collections::HashMap,
    fs::File,
    sync::{Arc, Mutex, PoisonError},
};

use berth_core::Digest;
use tokio::sync::watch;

use crate::{refusal::Refusal, store::Store, upstream::Upstream};

/// Without readers, a fill goes on when this part of it is here.
const WORTH_FINISHING: (u64, u64) = (1, 2);

/// How far a fill has got.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// Set when the upstream has answered: from now on there is something to serve.
    pub(crate) started: Option<Started>,
    /// Bytes in the file.
    pub(crate) written: u64,
    /// Set once, at the end. `Ok` when the digest was right and the blob is durable.
    pub(crate) end: Option<Result<(), Refusal>>,
}

/// What is known from the head of the upstream's answer.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    pub(crate) file: Arc<File>,
    /// Bytes of the whole blob, where the upstream says.
    pub(crate) size: Option<u64>,
}

/// One download.
#[derive(Debug)]
struct Fill {
    digest: Digest,
    state: watch::Sender<State>,
    readers: watch::Sender<usize>,
}

/// All downloads under way.
pub(crate) struct Fills {
    store: Arc<Store>,
    list: Mutex<HashMap<Digest, Arc<Fill>>>,
}

/// Somebody who reads a fill; while there is one, the fill goes on.
#[derive(Debug)]
pub(crate) struct Reader {
    fill: Arc<Fill>,
    state: watch::Receiver<State>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fill.readers.send_modify(|readers| *readers -= 1);
    }
}

impl Reader {
    fn new(fill: Arc<Fill>) -> Self {
        fill.readers.send_modify(|readers| *readers += 1);
        Self { state: fill.state.subscribe(), fill }
    }

    /// Waits for the head of the upstream's answer.
    pub(crate) async fn started(&mut self) -> Result<Started, Refusal> {
        let state = self.state.wait_for(|state| state.started.is_some() || state.end.is_some()).await;
        let state = state.map_err(|_| broke_off(&self.fill.digest))?;
        match (&state.started, &state.end) {
            (_, Some(Err(refusal))) => Err(refusal.clone()),
            (Some(started), _) => Ok(started.clone()),
            (None, _) => Err(broke_off(&self.fill.digest)),
        }
    }

    /// Waits until there is something to read at `offset`, and says up to where; `offset` itself at the end.
    ///
    /// The last byte of the blob is held back until the digest is known to be right.
    pub(crate) async fn available(&mut self, offset: u64) -> Result<u64, Refusal> {
        let readable = |state: &State| match (&state.end, &state.started) {
            (Some(_), _) => state.written,
            (None, Some(Started { size: Some(size), .. })) => state.written.min(size.saturating_sub(1)),
            (None, _) => state.written.saturating_sub(1),
        };
        let state = self.state.wait_for(|state| state.end.is_some() || readable(state) > offset).await;
        let state = state.map_err(|_| broke_off(&self.fill.digest))?;
        match &state.end {
            Some(Err(refusal)) => Err(refusal.clone()),
            _ => Ok(readable(&state)),
        }
    }
}

fn broke_off(digest: &Digest) -> Refusal {
    Refusal::upstream(format!("the download of {digest} broke off"))
}

impl Fills {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, list: Mutex::default() }
    }

    /// Joins the download of a blob, where there is one.
    pub(crate) fn under_way(&self, digest: &Digest) -> Option<Reader> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.get(digest).map(|fill| Reader::new(fill.clone()))
    }

    /// Joins the download of a blob, or starts it; `None` where the blob has arrived meanwhile. Says whether it was
    /// joined.
    pub(crate) fn join(
        self: &Arc<Self>,
        digest: &Digest,
        upstream: &Arc<Upstream>,
        repository: &str,
    ) -> Option<(Reader, bool)> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fill) = list.get(digest) {
            return Some((Reader::new(fill.clone()), true));
        }
        // A fill leaves the list after its blob is in the index, so there is no moment in which it is in neither.
        if self.store.blobs.has(digest) {
            return None;
        }
        let fill = Arc::new(Fill {
            digest: digest.clone(),
            state: watch::Sender::default(),
            readers: watch::Sender::default(),
        });
        let reader = Reader::new(fill.clone());
        list.insert(digest.clone(), fill.clone());
        let (fills, upstream, repository) = (self.clone(), upstream.clone(), repository.to_owned());
        tokio::spawn(async move {
            let landing = Landing(fills, fill);
            landing.0.run(&landing.1, upstream, repository).await;
        });
        Some((reader, false))
    }

    async fn run(self: &Arc<Self>, fill: &Arc<Fill>, upstream: Arc<Upstream>, repository: String) {
        let _turn = upstream.turn().await;
        if *fill.readers.borrow() == 0 && self.left(fill) {
            return;
        }
        let end = match download::run(self, fill, &upstream, &repository).await {
            // Nobody reads it: `left` took it off the list.
            Ok(download::Done::Abandoned) => return,
            Ok(download::Done::Complete) => Ok(()),
            Err(refusal) => {
                let (store, digest) = (self.store.clone(), fill.digest.clone());
                // On a full disk others need the room; else what came is a beginning for the next.
                let full = refusal.status == http::StatusCode::INSUFFICIENT_STORAGE;
                // It only tidies up.
                let _ = tokio::task::spawn_blocking(move || match full {
                    true => drop(store.blobs.discard(&digest)),
                    false => store.blobs.discard_empty(&digest),
                })
                .await;
                Err(refusal)
            }
        };
        self.list.lock().unwrap_or_else(PoisonError::into_inner).remove(&fill.digest);
        fill.state.send_modify(|state| state.end = Some(end));
    }

    /// Deletes beginnings that nobody has asked for again for long. Blocks.
    pub(crate) fn sweep(&self) {
        for (path, digest) in self.store.blobs.old_partials() {
            // With the list locked, so that nobody goes on with it in the same moment.
            let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
            if !digest.is_some_and(|digest| list.contains_key(&digest)) {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// Whether nobody reads this fill, which is then off the list, so that nobody joins it any more. Its file is closed.
    fn left(&self, fill: &Fill) -> bool {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        // Readers are made with the list locked.
        let left = *fill.readers.borrow() == 0;
        if left {
            list.remove(&fill.digest);
        }
        left
    }
}

/// Ends a fill, in whatever way its work ended: else its readers would wait for ever.
struct Landing(Arc<Fills>, Arc<Fill>);

impl Drop for Landing {
    fn drop(&mut self) {
        let Self(fills, fill) = self;
        {
            let mut list = fills.list.lock().unwrap_or_else(PoisonError::into_inner);
            // One that was abandoned may have a successor.
            if list.get(&fill.digest).is_some_and(|listed| Arc::ptr_eq(listed, fill)) {
                list.remove(&fill.digest);
            }
        }
        fill.state.send_if_modified(|state| {
            let open = state.end.is_none();
            if open {
                state.end = Some(Err(broke_off(&fill.digest)));
            }
            open
        });
    }
}

impl Fill {
    /// Answers when nobody reads any more and what is here is not worth finishing.
    async fn unwanted(&self) {
        let mut readers = self.readers.subscribe();
        loop {
            if readers.wait_for(|readers| *readers == 0).await.is_err() {
                return;
            }
            let worth = {
                let state = self.state.borrow();
                let size = state.started.as_ref().and_then(|started| started.size);
                size.is_some_and(|size| state.written * WORTH_FINISHING.1 >= size * WORTH_FINISHING.0)
            };
            if !worth {
                return;
            }
            // From here on it only gets more worth.
            std::future::pending::<()>().await;
        }
    }
}
