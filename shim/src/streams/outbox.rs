//! What waits to be sent to a listener.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, IoSlice},
    rc::Rc,
    time::Duration,
};

use berth_core::stream::{HEADER, Kind, header};
use bytes::Bytes;
use tokio::{net::unix::OwnedWriteHalf, sync::Notify};

/// Bytes that may wait. One piece of output may go over it.
const LIMIT: usize = 1024 * 1024;
/// How long others wait for a listener that is behind, all in all, until it has caught up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// Frames that are sent with one call.
const TOGETHER: usize = 16;

/// Which streams a listener wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl Want {
    pub(crate) fn includes(self, kind: Kind) -> bool {
        match kind {
            Kind::Stdout => self.stdout,
            Kind::Stderr => self.stderr,
            _ => true,
        }
    }
}

/// A listener's queue.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) want: Want,
    queue: RefCell<VecDeque<(Kind, Bytes)>>,
    queued: Cell<usize>,
    lost: Cell<u64>,
    patience: Cell<Duration>,
    gone: Cell<bool>,
    news: Notify,
    end: Notify,
    /// Told whenever there is room again, or the listener is gone.
    room: Rc<Notify>,
}

impl Outbox {
    pub(crate) fn new(want: Want, room: Rc<Notify>) -> Rc<Self> {
        Rc::new(Self {
            want,
            queue: RefCell::default(),
            queued: Cell::new(0),
            lost: Cell::new(0),
            patience: Cell::new(PATIENCE),
            gone: Cell::new(false),
            news: Notify::new(),
            end: Notify::new(),
            room,
        })
    }

    pub(crate) fn is_full(&self) -> bool {
        self.queued.get() >= LIMIT
    }

    /// How long others wait for it, if it is full; not at all where it used that up.
    pub(crate) fn patience(&self) -> Duration {
        self.patience.get()
    }

    /// Others have waited for it.
    pub(crate) fn was_waited_for(&self, time: Duration) {
        self.patience.set(self.patience.get().saturating_sub(time));
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// Adds output; a listener that is behind loses it and will be told how much it lost.
    pub(crate) fn offer(&self, kind: Kind, bytes: &Bytes) {
        if self.is_full() {
            self.lost.set(self.lost.get() + bytes.len() as u64);
            return;
        }
        self.say(kind, bytes.clone());
    }

    /// Adds a frame whatever the queue's length.
    pub(crate) fn say(&self, kind: Kind, bytes: Bytes) {
        if self.gone.get() {
            return;
        }
        let lost = self.lost.replace(0);
        let mut queue = self.queue.borrow_mut();
        if lost > 0 {
            queue.push_back((Kind::Lost, Bytes::copy_from_slice(&lost.to_le_bytes())));
        }
        self.queued.set(self.queued.get() + bytes.len());
        queue.push_back((kind, bytes));
        drop(queue);
        self.news.notify_one();
    }

    /// Nobody takes from here any more.
    pub(crate) fn abandon(&self) {
        self.gone.set(true);
        self.queue.borrow_mut().clear();
        self.queued.set(0);
        self.room.notify_waiters();
        self.news.notify_one();
        self.end.notify_waiters();
    }

    /// Waits until nobody takes from here any more.
    pub(crate) async fn abandoned(&self) {
        let end = self.end.notified();
        if !self.gone.get() {
            end.await;
        }
    }

    /// The next frames; none when the listener was abandoned. What is taken counts as waiting until it is [`sent`].
    ///
    /// [`sent`]: Self::sent
    pub(crate) async fn next(&self) -> Vec<(Kind, Bytes)> {
        loop {
            if self.gone.get() {
                return Vec::new();
            }
            if let Some(frames) = self.take() {
                return frames;
            }
            self.news.notified().await;
        }
    }

    fn take(&self) -> Option<Vec<(Kind, Bytes)>> {
        let mut queue = self.queue.borrow_mut();
        if queue.is_empty() {
            queue.shrink_to(TOGETHER);
            return None;
        }
        let count = queue.len().min(TOGETHER);
        Some(queue.drain(..count).collect())
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.queued.set(self.queued.get().saturating_sub(bytes));
        if self.queued.get() == 0 {
            self.patience.set(PATIENCE);
        }
        self.room.notify_waiters();
    }
}

/// Sends frames to a client until the last one, or until it is gone.
pub(crate) async fn send(outbox: Rc<Outbox>, socket: OwnedWriteHalf) {
    loop {
        let frames = outbox.next().await;
        let last = frames.iter().any(|(kind, _)| matches!(kind, Kind::End | Kind::Refused));
        if frames.is_empty() || send_all(&socket, &frames).await.is_err() {
            outbox.abandon();
            return;
        }
        outbox.sent(frames.iter().map(|(_, bytes)| bytes.len()).sum());
        if last {
            // Dropping the half says so to the client.
            outbox.abandon();
            return;
        }
    }
}

async fn send_all(socket: &OwnedWriteHalf, frames: &[(Kind, Bytes)]) -> io::Result<()> {
    let headers: Vec<[u8; HEADER]> = frames.iter().map(|(kind, bytes)| header(*kind, bytes.len())).collect();
    let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(frames.len() * 2);
    for (header, (_, bytes)) in headers.iter().zip(frames) {
        slices.push(IoSlice::new(header));
        if !bytes.is_empty() {
            slices.push(IoSlice::new(bytes));
        }
    }
    let mut left = &mut slices[..];
    while !left.is_empty() {
        socket.writable().await?;
        match socket.try_write_vectored(left) {
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_listener_that_is_behind_is_told_what_it_lost() {
        let outbox = Outbox::new(Want { stdout: true, stderr: true }, Rc::default());
        let piece = Bytes::from(vec![b'x'; LIMIT]);
        outbox.offer(Kind::Stdout, &piece);
        assert!(outbox.is_full());
        outbox.offer(Kind::Stdout, &piece);
        let frames = outbox.next().await;
        assert_eq!(frames.len(), 1);
        outbox.offer(Kind::Stdout, &piece);
        outbox.sent(LIMIT);
        outbox.offer(Kind::Stderr, &Bytes::from_static(b"y"));
        let frames = outbox.next().await;
        assert_eq!(frames[0], (Kind::Lost, Bytes::copy_from_slice(&(2 * LIMIT as u64).to_le_bytes())));
        assert_eq!(frames[1], (Kind::Stderr, Bytes::from_static(b"y")));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_abandoned_one_takes_nothing() {
        let outbox = Outbox::new(Want { stdout: true, stderr: true }, Rc::default());
        outbox.offer(Kind::Stdout, &Bytes::from_static(b"x"));
        outbox.abandon();
        outbox.offer(Kind::Stdout, &Bytes::from_static(b"x"));
        assert!(outbox.is_gone() && outbox.next().await.is_empty());
    }
}
