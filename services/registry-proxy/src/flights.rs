//! Single flight: who asks for what is already being asked for gets the same answer.
//!
//! The work runs in a task of its own, so that a client that leaves does not take the answer from the others.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};

type Flight<V> = Shared<BoxFuture<'static, Option<V>>>;

/// Work under way, by key.
pub(crate) struct Flights<K, V: Clone> {
    flying: Arc<Mutex<HashMap<K, Flight<V>>>>,
}

impl<K, V: Clone> Default for Flights<K, V> {
    fn default() -> Self {
        Self { flying: Arc::default() }
    }
}

impl<K: Clone + Eq + Hash + Send + 'static, V: Clone + Send + Sync + 'static> Flights<K, V> {
    /// Joins the flight of this key, or starts it. `None` where the work broke off.
    pub(crate) async fn join<F>(&self, key: K, start: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let flight = {
            let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
            match flying.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let (work, landed, at) = (start(), Landed(self.flying.clone(), key.clone()), key.clone());
                    let task = tokio::spawn(async move {
                        let _landed = landed;
                        work.await
                    });
                    let flight = task.map(Result::ok).boxed().shared();
                    flying.insert(at, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }
}

/// Takes the flight off the list when its work ends, in whatever way.
struct Landed<K: Eq + Hash, V: Clone>(Arc<Mutex<HashMap<K, Flight<V>>>>, K);

impl<K: Eq + Hash, V: Clone> Drop for Landed<K, V> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_works_for_all_and_the_next_starts_anew() {
        let (flights, count) = (Flights::default(), Arc::new(AtomicU32::new(0)));
        let work = || {
            let count = count.clone();
            async move {
                tokio::task::yield_now().await;
                count.fetch_add(1, Ordering::Relaxed) + 1
            }
        };
        let all = futures::future::join_all((0..8).map(|_| flights.join("key", work))).await;
        assert_eq!(all, [Some(1); 8]);
        assert_eq!(flights.join("key", work).await, Some(2));
    }

    #[tokio::test]
    async fn who_leaves_takes_nothing_along() {
        let flights = Arc::new(Flights::<_, u32>::default());
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let first = tokio::spawn({
            let flights = flights.clone();
            async move { flights.join("key", || async move { told.await.map_or(0, |()| 7) }).await }
        });
        while flights.flying.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        first.abort();
        let second = flights.join("key", || async { 8 });
        tell.send(()).unwrap();
        assert_eq!(second.await, Some(7));
    }
}
