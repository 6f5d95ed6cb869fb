//! Waiting for a state, which ends.

use std::fmt::Debug;

pub(crate) use berth_tests::patience::{PATIENCE, Watchdog, watched};
use tokio::sync::watch;

/// Waits until a state is as it should be.
pub(crate) async fn reached<T: Debug>(state: &watch::Sender<T>, is: impl FnMut(&T) -> bool) {
    let mut states = state.subscribe();
    if tokio::time::timeout(PATIENCE, states.wait_for(is)).await.is_err() {
        panic!("waited {} s in vain: it is {:?}", PATIENCE.as_secs(), *state.borrow());
    }
}
