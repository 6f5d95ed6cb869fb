//! What the upstream said is not there, for a moment: a client that asks in a loop costs one request, and an image that
//! was just pushed is soon seen.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::refusal::Refusal;

/// More than these are forgotten, all at once.
const MAX: usize = 10_000;

/// Refusals by key, each until its time.
#[derive(Debug, Default)]
pub(crate) struct Negative(Mutex<HashMap<String, (Refusal, Instant)>>);

impl Negative {
    pub(crate) fn get(&self, key: &str) -> Option<Refusal> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (refusal, until) = map.get(key)?;
        if *until > Instant::now() {
            return Some(refusal.clone());
        }
        map.remove(key);
        None
    }

    /// Remembers a refusal that is the upstream's word on the matter; outages are not.
    pub(crate) fn put(&self, key: String, refusal: &Refusal, ttl: Duration) {
        if refusal.is_outage() {
            return;
        }
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MAX {
            map.clear();
        }
        map.insert(key, (refusal.clone(), Instant::now() + ttl));
    }
}
