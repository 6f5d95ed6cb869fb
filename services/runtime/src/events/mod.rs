//! What happened to containers, images, volumes and networks: the last events of this run of the service, and those that come.
//!
//! A follower never waits for another: events lie in a ring that is bounded in number and bytes, and each follower reads
//! from its own place in it. One that is slower than the ring turns misses the oldest.

mod filter;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use berth_proto::berth::image::v1::ImageEvent;
use tokio::sync::watch;

pub(crate) use filter::Filter;

use crate::container::record::{Record, Time};

/// Events that are kept, if they are not too large together.
const MOST: usize = 4096;
/// Bytes that are kept.
const MOST_BYTES: usize = 4 << 20;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) time: Time,
    /// "container", "image", "network", "volume"
    pub(crate) kind: &'static str,
    /// "create", "start", "die", …
    pub(crate) action: String,
    pub(crate) id: String,
    /// For a container: name, image, its labels, and what the action adds.
    pub(crate) attributes: BTreeMap<String, String>,
}

impl Event {
    fn size(&self) -> usize {
        let attributes: usize = self.attributes.iter().map(|(key, value)| key.len() + value.len() + 64).sum();
        size_of::<Self>() + self.action.len() + self.id.len() + attributes
    }
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ring: Mutex<Ring>,
    /// How many events there have been.
    count: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Events that were dropped from the front.
    dropped: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self(Arc::new(Inner { ring: Mutex::default(), count: watch::Sender::new(0) }))
    }
}

impl Events {
    /// Says what happened to a container.
    pub(crate) fn container(&self, action: &str, record: &Record, more: &[(&str, String)]) {
        let mut attributes: BTreeMap<String, String> =
            record.spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        attributes.insert("image".into(), record.image.clone());
        attributes.insert("name".into(), record.name.clone());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let (kind, action, id) = ("container", action.to_owned(), record.id.clone());
        self.add(Event { time: Time::now(), kind, action, id, attributes });
    }

    /// Says what happened to a network.
    pub(crate) fn network(&self, action: &str, id: &str, name: &str, container: Option<&str>) {
        let mut attributes =
            BTreeMap::from([("name".to_owned(), name.to_owned()), ("type".to_owned(), "bridge".to_owned())]);
        attributes.extend(container.map(|container| ("container".to_owned(), container.to_owned())));
        let (kind, action, id) = ("network", action.to_owned(), id.to_owned());
        self.add(Event { time: Time::now(), kind, action, id, attributes });
    }

    /// Says what happened to something that is no container.
    pub(crate) fn say(&self, kind: &'static str, action: &str, id: &str, attributes: &[(&str, String)]) {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        self.add(Event { time: Time::now(), kind, action: action.to_owned(), id: id.to_owned(), attributes });
    }

    /// Says what the image service told.
    pub(crate) fn image(&self, told: ImageEvent) {
        let attributes = told.attributes.into_iter().collect();
        self.add(Event { time: Time::now(), kind: "image", action: told.action, id: told.id, attributes });
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Whatever a thread left half done here is an event too few at most.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, event: Event) {
        let mut ring = self.ring();
        ring.bytes += event.size();
        ring.events.push_back(Arc::new(event));
        while ring.events.len() > MOST || ring.bytes > MOST_BYTES {
            let Some(oldest) = ring.events.pop_front() else { break };
            ring.bytes -= oldest.size();
            ring.dropped += 1;
        }
        let count = ring.dropped + ring.events.len() as u64;
        self.0.count.send_replace(count);
    }

    /// Follows events from `since` (from now on, where that is none and `until` is too) to `until`.
    pub(crate) fn follow(&self, since: Option<Time>, until: Option<Time>, filter: Filter) -> Follower {
        let count = self.0.count.subscribe();
        let ring = self.ring();
        let from_the_past = since.is_some() || until.is_some();
        let next = if from_the_past { ring.dropped } else { ring.dropped + ring.events.len() as u64 };
        drop(ring);
        Follower { events: self.clone(), count, next, since: since.unwrap_or_default(), until, filter }
    }
}

/// One who reads events; see [`Events::follow`].
#[derive(Debug)]
pub(crate) struct Follower {
    events: Events,
    count: watch::Receiver<u64>,
    /// Number of the next event to look at.
    next: u64,
    since: Time,
    until: Option<Time>,
    filter: Filter,
}

impl Follower {
    /// The next event that is wanted; `None` when there can be none any more.
    pub(crate) async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            let seen = *self.count.borrow_and_update();
            while let Some(event) = self.take() {
                if self.until.is_some_and(|until| event.time > until) {
                    return None;
                }
                if event.time >= self.since && self.filter.admits(&event) {
                    return Some(event);
                }
            }
            let more = self.count.wait_for(|count| *count > seen);
            match self.until {
                None => drop(more.await.ok()?),
                Some(until) => {
                    let left = until.since(Time::now());
                    if left.is_zero() {
                        return None;
                    }
                    // When the time has come, what was added until then is still looked at, once.
                    let _ = tokio::time::timeout(left, more).await;
                }
            }
        }
    }

    fn take(&mut self) -> Option<Arc<Event>> {
        let ring = self.events.ring();
        let at = self.next.max(ring.dropped);
        let event = ring.events.get(usize::try_from(at - ring.dropped).ok()?).cloned()?;
        drop(ring);
        self.next = at + 1;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Record {
        Record { id: format!("id-of-{name}"), name: name.into(), image: "busybox".into(), ..Record::default() }
    }

    fn all() -> Filter {
        Filter::parse(&[]).unwrap()
    }

    #[tokio::test]
    async fn followers_see_what_comes_and_what_was() {
        let events = Events::default();
        events.container("create", &record("a"), &[]);
        let mut later = events.follow(None, None, all());
        events.container("start", &record("a"), &[("x", "y".into())]);
        let event = later.next().await.unwrap();
        assert_eq!((event.action.as_str(), event.attributes["name"].as_str()), ("start", "a"));
        assert_eq!((event.attributes["image"].as_str(), event.attributes["x"].as_str()), ("busybox", "y"));
        let mut past = events.follow(Some(Time(1)), Some(Time::now()), all());
        assert_eq!(past.next().await.unwrap().action, "create");
        assert_eq!(past.next().await.unwrap().action, "start");
        assert_eq!(past.next().await, None, "until has come");
    }

    #[tokio::test]
    async fn a_waiting_follower_is_woken() {
        let events = Events::default();
        let mut follower = events.follow(None, None, all());
        let waiting = tokio::spawn(async move { follower.next().await });
        events.container("die", &record("a"), &[]);
        assert_eq!(waiting.await.unwrap().unwrap().action, "die");
    }

    #[tokio::test]
    async fn the_ring_is_bounded_and_the_slow_miss_the_oldest() {
        let events = Events::default();
        let mut slow = events.follow(None, None, all());
        for n in 0..MOST + 10 {
            events.container(&n.to_string(), &record("a"), &[]);
        }
        assert_eq!(slow.next().await.unwrap().action, "10");
        for _ in 0..20 {
            events.container("large", &record("a"), &[("x", "y".repeat(1 << 20))]);
        }
        assert!(events.ring().bytes <= MOST_BYTES);
    }
}
