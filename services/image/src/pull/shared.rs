//! Pulls of the same image share their work: the first caller starts it, later ones join, and it ends when the last one
//! goes away.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use berth_core::Failure;
use berth_proto::berth::image::v1::{PullProgress, pull_progress::Message};
use tokio::{sync::broadcast, task::AbortHandle};

use super::{Progress, Pulled};
use crate::error::Error;

/// Messages that a slow caller may be behind; it then misses some, of which newer ones say the same and more.
const BEHIND: usize = 256;

/// The pulls under way, by what they pull.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<String, Weak<Flight>>>);

#[derive(Debug)]
struct Flight {
    messages: broadcast::Sender<Event>,
    /// For those who join later.
    plan: Mutex<Option<PullProgress>>,
    /// Set before the last message is sent: who subscribes and sees this may have missed it.
    over: AtomicBool,
    work: Mutex<Option<AbortHandle>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(work) = lock(&self.work).take() {
            work.abort();
        }
    }
}

/// What a caller hears.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Progress(PullProgress),
    Done(Result<Pulled, Failure>),
}

/// A caller's part in a pull; the pull goes on while any is held.
pub(crate) struct Ticket {
    _flight: Arc<Flight>,
    messages: broadcast::Receiver<Event>,
    plan: Option<PullProgress>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    /// Joins the pull of `key`, or starts `work`.
    pub(crate) fn join<F>(&self, key: String, work: impl FnOnce(Progress) -> F) -> Ticket
    where
        F: Future<Output = Result<Pulled, Error>> + Send + 'static,
    {
        let mut flights = lock(&self.0);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(&key).and_then(Weak::upgrade) {
            let messages = flight.messages.subscribe();
            if !flight.over.load(Ordering::SeqCst) {
                let plan = lock(&flight.plan).clone();
                return Ticket { _flight: flight, messages, plan };
            }
        }
        let (sender, messages) = broadcast::channel(BEHIND);
        let flight = Arc::new(Flight {
            messages: sender,
            plan: Mutex::default(),
            over: AtomicBool::new(false),
            work: Mutex::default(),
        });
        flights.insert(key, Arc::downgrade(&flight));
        let (progress, mut told) = tokio::sync::mpsc::unbounded_channel::<PullProgress>();
        let working = work(progress);
        let weak = Arc::downgrade(&flight);
        let span = tracing::Span::current();
        let task = async move {
            let say = |event: Event| {
                if let Some(flight) = weak.upgrade() {
                    if matches!(event, Event::Done(_)) {
                        flight.over.store(true, Ordering::SeqCst);
                    }
                    if let Event::Progress(message @ PullProgress { message: Some(Message::Plan(_)) }) = &event {
                        *lock(&flight.plan) = Some(message.clone());
                    }
                    // Nobody listening is no error: a caller may be about to join.
                    let _ = flight.messages.send(event);
                }
            };
            let mut working = std::pin::pin!(working);
            let result = loop {
                tokio::select! {
                    biased;
                    Some(message) = told.recv() => say(Event::Progress(message)),
                    result = &mut working => break result,
                }
            };
            while let Ok(message) = told.try_recv() {
                say(Event::Progress(message));
            }
            say(Event::Done(result.map_err(Failure::from)));
        };
        let handle = tokio::spawn(tracing::Instrument::instrument(task, span)).abort_handle();
        *lock(&flight.work) = Some(handle);
        Ticket { _flight: flight, messages, plan: None }
    }
}

impl Ticket {
    /// What happens next; the last is [`Event::Done`].
    pub(crate) async fn next(&mut self) -> Event {
        if let Some(plan) = self.plan.take() {
            return Event::Progress(plan);
        }
        loop {
            match self.messages.recv().await {
                Ok(event) => return event,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                // The sender is in the flight that this holds; its task died.
                Err(broadcast::error::RecvError::Closed) => {
                    return Event::Done(Err(Failure::from(Error::Panicked { what: "the pull" })));
                }
            }
        }
    }
}
