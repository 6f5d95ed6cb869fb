//! An upstream that is away is not asked again at once: clients that could be served from here should not wait for its
//! time-outs, and it should not be met by all of them when it comes back.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Whether an upstream is left alone.
#[derive(Debug, Default)]
pub(crate) struct Circuit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    until: Option<Instant>,
}

impl Circuit {
    /// For how long it is still left alone.
    pub(crate) fn open_for(&self) -> Option<Duration> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// It failed, and perhaps said for how long it wants to be left alone.
    pub(crate) fn opened(&self, asked: Option<Duration>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = (FIRST * (1 << state.failures.min(6))).min(LONGEST);
        state.failures += 1;
        state.until = Some(Instant::now() + asked.unwrap_or(own));
    }

    /// It answered.
    pub(crate) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_open_for_longer_each_time_until_an_answer() {
        let circuit = Circuit::default();
        assert_eq!(circuit.open_for(), None);
        circuit.opened(None);
        let first = circuit.open_for().unwrap();
        circuit.opened(None);
        assert!(circuit.open_for().unwrap() > first);
        circuit.opened(Some(Duration::from_secs(500)));
        assert!(circuit.open_for().unwrap() > LONGEST);
        circuit.close();
        assert_eq!(circuit.open_for(), None);
    }
}
