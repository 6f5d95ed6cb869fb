//! What a process prints, from its pipes or its terminal to the log and the listeners.

use std::{
    cell::{Cell, RefCell},
    os::fd::OwnedFd,
    rc::Rc,
    time::{Duration, Instant},
};

use berth_core::stream::Kind;
use bytes::Bytes;
use rustix::io::Errno;
use tokio::{io::unix::AsyncFd, sync::Notify, time::timeout};

use super::{Outbox, Want};
use crate::log::{JsonLog, Stream};

/// Bytes that are read at once: what a pipe holds.
const PIECE: usize = 64 * 1024;
/// Bytes that are read after the process's end at most: more than a pipe or a terminal holds. A process that inherited
/// the pipe and goes on printing cannot hold up the exit.
const REMAINDER: usize = 1024 * 1024;

thread_local! {
    /// One buffer for everything that is read: reading and handing on are one step.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into());
}

/// One pipe, or a terminal's master.
#[derive(Debug)]
pub(crate) struct Source {
    fd: Rc<AsyncFd<OwnedFd>>,
    kind: Kind,
    ended: Cell<bool>,
}

/// All that a process prints.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    log: RefCell<Option<JsonLog>>,
    listeners: RefCell<Vec<Rc<Outbox>>>,
    sources: RefCell<Vec<Rc<Source>>>,
    room: Rc<Notify>,
    finished: Cell<bool>,
}

enum Taken {
    Some(usize),
    NothingYet,
    End,
}

impl Outputs {
    /// With a log or without.
    pub(crate) fn new(log: Option<JsonLog>) -> Rc<Self> {
        Rc::new(Self { log: RefCell::new(log), ..Self::default() })
    }

    /// A listener from now on. One that comes after the end is told so.
    pub(crate) fn listen(&self, want: Want) -> Rc<Outbox> {
        let outbox = Outbox::new(want, Rc::clone(&self.room));
        self.add(&outbox);
        outbox
    }

    /// What a listener's queue tells when it has room.
    pub(crate) fn room(&self) -> Rc<Notify> {
        Rc::clone(&self.room)
    }

    /// The same for a listener whose first frames are in its queue already.
    pub(crate) fn add(&self, outbox: &Rc<Outbox>) {
        if self.finished.get() {
            outbox.say(Kind::End, Bytes::new());
        } else {
            self.listeners.borrow_mut().push(Rc::clone(outbox));
        }
    }

    /// Begins to read.
    pub(crate) fn read(self: &Rc<Self>, kind: Kind, fd: Rc<AsyncFd<OwnedFd>>) {
        let source = Rc::new(Source { fd, kind, ended: Cell::new(false) });
        self.sources.borrow_mut().push(Rc::clone(&source));
        let outputs = Rc::clone(self);
        tokio::task::spawn_local(async move { outputs.pump(&source).await });
    }

    async fn pump(&self, source: &Source) {
        while !source.ended.get() {
            self.until_they_keep_up(source.kind).await;
            let Ok(mut ready) = source.fd.readable().await else { break };
            match self.take(source, false) {
                Taken::Some(_) => {}
                Taken::NothingYet => ready.clear_ready(),
                Taken::End => break,
            }
        }
        self.end(source);
    }

    /// Waits until there is room for more: with every listener, or with some where the others had their time to catch up.
    /// Those lose what comes now.
    async fn until_they_keep_up(&self, kind: Kind) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // From here on no news is missed.
            room.as_mut().enable();
            let (full, others) = self.full(kind);
            if full.is_empty() {
                return;
            }
            if !others {
                room.await;
                continue;
            }
            let Some(patience) = full.iter().map(|outbox| outbox.patience()).filter(|left| !left.is_zero()).min()
            else {
                return;
            };
            let begun = Instant::now();
            let _ = timeout(patience, room).await;
            full.iter().for_each(|outbox| outbox.was_waited_for(begun.elapsed()));
        }
    }

    /// The listeners that have no room for this, and whether others have.
    fn full(&self, kind: Kind) -> (Vec<Rc<Outbox>>, bool) {
        let mut listeners = self.listeners.borrow_mut();
        listeners.retain(|outbox| !outbox.is_gone());
        if self.finished.get() {
            return (Vec::new(), false);
        }
        let wanting = listeners.iter().filter(|outbox| outbox.want.includes(kind));
        let (full, others): (Vec<_>, Vec<_>) = wanting.partition(|outbox| outbox.is_full());
        (full.into_iter().cloned().collect(), !others.is_empty())
    }

    /// Reads once and hands on.
    fn take(&self, source: &Source, last: bool) -> Taken {
        if source.ended.get() {
            return Taken::End;
        }
        BUFFER.with_borrow_mut(|buffer| {
            loop {
                match rustix::io::read(source.fd.get_ref(), &mut buffer[..]) {
                    Ok(0) => return Taken::End,
                    Ok(length) => {
                        self.hand_on(source.kind, &buffer[..length], last);
                        return Taken::Some(length);
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return Taken::NothingYet,
                    // A terminal whose last user is gone says EIO.
                    Err(_) => return Taken::End,
                }
            }
        })
    }

    /// What is `last` is little, and nobody can be held up for it any more: every listener gets it.
    fn hand_on(&self, kind: Kind, bytes: &[u8], last: bool) {
        if self.finished.get() {
            return;
        }
        if let Some(log) = self.log.borrow_mut().as_mut() {
            log.write(stream(kind), bytes);
        }
        let listeners = self.listeners.borrow();
        let mut wanting = listeners.iter().filter(|outbox| outbox.want.includes(kind)).peekable();
        if wanting.peek().is_some() {
            let bytes = Bytes::copy_from_slice(bytes);
            wanting.for_each(|outbox| if last { outbox.say(kind, bytes.clone()) } else { outbox.offer(kind, &bytes) });
        }
    }

    fn end(&self, source: &Source) {
        if !source.ended.replace(true)
            && !self.finished.get()
            && let Some(log) = self.log.borrow_mut().as_mut()
        {
            log.end(stream(source.kind));
        }
        self.sources.borrow_mut().retain(|other| !other.ended.get());
    }

    /// The process has ended: what it printed is handed on, to the last byte.
    pub(crate) fn drain(&self) {
        let sources = self.sources.borrow().clone();
        for source in sources {
            let mut left = REMAINDER;
            while left > 0 {
                match self.take(&source, true) {
                    Taken::Some(length) => left = left.saturating_sub(length),
                    Taken::NothingYet => break,
                    Taken::End => {
                        self.end(&source);
                        break;
                    }
                }
            }
            if let Some(log) = self.log.borrow_mut().as_mut() {
                log.end(stream(source.kind));
            }
        }
    }

    /// The listeners are told that no more will come. What a process that inherited the streams may still print is read,
    /// so that it is not held up, and thrown away.
    pub(crate) fn finish(&self) {
        if self.finished.replace(true) {
            return;
        }
        self.log.borrow_mut().take();
        for outbox in self.listeners.borrow_mut().iter() {
            outbox.say(Kind::End, Bytes::new());
        }
        self.room.notify_waiters();
    }

    /// Waits until all listeners have everything, or are gone; false when for as long as `patience` none took anything.
    pub(crate) async fn all_sent(&self, patience: Duration) -> bool {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.listeners.borrow().iter().all(|outbox| outbox.is_gone()) {
                return true;
            }
            if tokio::time::timeout(patience, room).await.is_err() {
                return false;
            }
        }
    }

    /// Lets go of everything.
    pub(crate) fn close(&self) {
        for source in self.sources.borrow_mut().drain(..) {
            source.ended.set(true);
        }
        let listeners = std::mem::take(&mut *self.listeners.borrow_mut());
        listeners.iter().for_each(|outbox| outbox.abandon());
    }
}

fn stream(kind: Kind) -> Stream {
    if kind == Kind::Stderr { Stream::Stderr } else { Stream::Stdout }
}
