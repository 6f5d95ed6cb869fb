//! What happened with an upstream since the service started.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// An upstream's numbers.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Answers that cost the upstream nothing.
    pub(crate) hits: Count,
    /// Answers that it was asked for.
    pub(crate) misses: Count,
    /// Answers from here because it did not answer.
    pub(crate) stale: Count,
    /// Requests sent.
    pub(crate) requests: Count,
    pub(crate) bytes_in: Count,
    pub(crate) bytes_out: Count,
}
