//! How containers ended that went with their end (`--rm`): a client that lost its connection comes back and asks.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::container::record::Record;

/// As many as are told of; the oldest is forgotten first.
const KEPT: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gone(Mutex<VecDeque<(String, i32, String)>>);

impl Gone {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(String, i32, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container is removed.
    pub(crate) fn keep(&self, record: &Record) {
        if !record.spec.auto_remove {
            return;
        }
        let mut gone = self.lock();
        gone.truncate(KEPT - 1);
        gone.push_front((record.id.clone(), record.state.exit_code, record.state.error.clone()));
    }

    /// The exit code of the container that had this id, and why it could not be started.
    pub(crate) fn find(&self, id: &str) -> Option<(i32, String)> {
        self.lock().iter().find(|(gone, ..)| gone == id).map(|(_, code, error)| (*code, error.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_known() {
        let gone = Gone::default();
        let mut record = Record::default();
        record.state.exit_code = 3;
        record.id = "named".into();
        gone.keep(&record);
        assert_eq!(gone.find("named"), None, "its removal was asked for by somebody who knows");
        record.spec.auto_remove = true;
        for n in 0..=KEPT {
            record.id = n.to_string();
            gone.keep(&record);
        }
        assert_eq!((gone.find("0"), gone.find("1")), (None, Some((3, String::new()))));
        assert_eq!(gone.lock().len(), KEPT);
    }
}
