//! Pulls of the same image share their work: the first caller starts it, later ones join, and it ends when the last one
//! goes away.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use berth_core::{Failure, Platform, Reference};
use berth_proto::berth::image::v1::{PullProgress, pull_progress::Message};
use tokio::{sync::broadcast, task::AbortHandle};

use super::Pulled;
use crate::{error::Error, registry::Credentials};

/// Messages that a slow caller may be behind; it then hears the newest state instead.
const BEHIND: usize = 256;

/// What is pulled, and for whom: callers with other credentials do not share, what one may see another may not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    pub(crate) reference: Reference,
    pub(crate) platform: Platform,
    pub(crate) credentials: Option<Credentials>,
}

/// The pulls under way.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Wanted, Weak<Flight>>>);

#[derive(Debug)]
struct Flight {
    progress: Progress,
    work: AbortHandle,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// What a caller hears.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Progress(Box<PullProgress>),
    Done(Result<Pulled, Failure>),
}

/// What a pull tells its callers; they may be gone.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<Voice>);

#[derive(Debug)]
struct Voice {
    messages: broadcast::Sender<Event>,
    said: Mutex<Said>,
}

/// The newest of each sort, for those who join later or are behind.
#[derive(Debug, Default)]
struct Said {
    plan: Option<PullProgress>,
    layers: BTreeMap<String, PullProgress>,
    over: bool,
}

impl Progress {
    fn new() -> (Self, broadcast::Receiver<Event>) {
        let (messages, receiver) = broadcast::channel(BEHIND);
        (Self(Arc::new(Voice { messages, said: Mutex::default() })), receiver)
    }

    /// Tells whoever listens.
    pub(crate) fn tell(&self, message: Message) {
        let mut said = lock(&self.0.said);
        let progress = PullProgress { message: Some(message) };
        match &progress.message {
            Some(Message::Plan(_)) => said.plan = Some(progress.clone()),
            Some(Message::Layer(layer)) => drop(said.layers.insert(layer.digest.clone(), progress.clone())),
            _ => {}
        }
        // Under the lock, so that who joins hears each message once. Nobody listening is no error.
        let _ = self.0.messages.send(Event::Progress(Box::new(progress)));
    }

    fn finish(&self, result: Result<Pulled, Failure>) {
        let mut said = lock(&self.0.said);
        if !said.over {
            said.over = true;
            let _ = self.0.messages.send(Event::Done(result));
        }
    }

    /// What has been said, in short.
    fn backlog(said: &Said) -> VecDeque<PullProgress> {
        said.plan.iter().chain(said.layers.values()).cloned().collect()
    }

    /// `None` where everything is over.
    fn join(&self) -> Option<(broadcast::Receiver<Event>, VecDeque<PullProgress>)> {
        let said = lock(&self.0.said);
        (!said.over).then(|| (self.0.messages.subscribe(), Self::backlog(&said)))
    }
}

/// Says that the work is over, however it ends.
struct Ending(Progress);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.finish(Err(Failure::from(Error::Panicked { what: "the pull" })));
    }
}

/// A caller's part in a pull; the pull goes on while any is held.
pub(crate) struct Ticket {
    flight: Arc<Flight>,
    messages: broadcast::Receiver<Event>,
    backlog: VecDeque<PullProgress>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    /// Joins the pull of `wanted`, or starts `work`.
    pub(crate) fn join<F>(&self, wanted: Wanted, work: impl FnOnce(Progress) -> F) -> Ticket
    where
        F: Future<Output = Result<Pulled, Error>> + Send + 'static,
    {
        let mut flights = lock(&self.0);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(&wanted).and_then(Weak::upgrade)
            && let Some((messages, backlog)) = flight.progress.join()
        {
            return Ticket { flight, messages, backlog };
        }
        let (progress, messages) = Progress::new();
        let (working, ending) = (work(progress.clone()), Ending(progress.clone()));
        let task = async move {
            let result = working.await;
            ending.0.finish(result.map_err(Failure::from));
        };
        let work = tokio::spawn(tracing::Instrument::in_current_span(task)).abort_handle();
        let flight = Arc::new(Flight { progress, work });
        flights.insert(wanted, Arc::downgrade(&flight));
        Ticket { flight, messages, backlog: VecDeque::new() }
    }
}

impl Ticket {
    /// What happens next; the last is [`Event::Done`].
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            if let Some(progress) = self.backlog.pop_front() {
                return Event::Progress(Box::new(progress));
            }
            match self.messages.recv().await {
                Ok(event) => return event,
                // The last message is among those that are kept, whatever is missed before.
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.backlog = Progress::backlog(&lock(&self.flight.progress.0.said));
                }
                // The sender is in the flight that this holds.
                Err(broadcast::error::RecvError::Closed) => {
                    return Event::Done(Err(Failure::from(Error::Panicked { what: "the pull" })));
                }
            }
        }
    }
}
