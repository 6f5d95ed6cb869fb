//! What pulls and loads under way need, though no record names it yet: it is not garbage while they are at work.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use berth_core::Digest;

/// How many pulls and loads need what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(Arc<Mutex<HashMap<Digest, usize>>>);

/// Holds content (by its digest) and snapshots (by their chain ID) while it lives.
#[derive(Debug)]
pub(crate) struct Hold {
    held: Held,
    digests: Vec<Digest>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        for digest in &self.digests {
            if let Some(count) = held.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    held.remove(digest);
                }
            }
        }
    }
}

/// Nothing can be held anew while this lives: what is not held is nobody's.
pub(crate) struct Still<'a>(MutexGuard<'a, HashMap<Digest, usize>>);

impl Still<'_> {
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.0.contains_key(digest)
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds these until the answer is dropped.
    pub(crate) fn hold(&self, digests: impl IntoIterator<Item = Digest>) -> Hold {
        let digests: Vec<Digest> = digests.into_iter().collect();
        let mut held = self.lock();
        for digest in &digests {
            *held.entry(digest.clone()).or_default() += 1;
        }
        Hold { held: self.clone(), digests }
    }

    /// Stops new holds while something is decided; for moments only.
    pub(crate) fn still(&self) -> Still<'_> {
        Still(self.lock())
    }
}

/// The right to do something to some content: one at a time for each.
pub(crate) type Turn = tokio::sync::OwnedMutexGuard<()>;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for the turn.
    pub(crate) async fn wait(&self, digest: &Digest) -> Turn {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            match turns.get(digest).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::default();
                    turns.insert(digest.clone(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_need_stays_until_both_are_done() {
        let (held, digest) = (Held::default(), Digest::sha256(b"x"));
        let (one, two) = (held.hold([digest.clone()]), held.hold([digest.clone()]));
        drop(one);
        assert!(held.still().holds(&digest));
        drop(two);
        assert!(!held.still().holds(&digest));
    }
}
