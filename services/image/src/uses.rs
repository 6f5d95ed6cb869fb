//! Who uses which image. The runtime service says so again whenever it starts, so it need not outlive us.
//!
//! A use and a removal of the same image exclude each other: whichever is entered first counts.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use berth_core::Digest;

#[derive(Debug, Default)]
struct State {
    /// Image by owner.
    uses: HashMap<String, Digest>,
    /// Images that are just being removed.
    leaving: HashSet<Digest>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<State>);

/// An image's removal under way; nobody can begin to use it while this lives.
pub(crate) struct Leaving<'a>(&'a Uses, Digest);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.lock().leaving.remove(&self.1);
    }
}

impl Uses {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who uses an image, in order.
    pub(crate) fn of(&self, id: &Digest) -> Vec<String> {
        let state = self.lock();
        let mut owners: Vec<String> =
            state.uses.iter().filter(|(_, used)| *used == id).map(|(owner, _)| owner.clone()).collect();
        owners.sort_unstable();
        owners
    }

    /// An owner uses an image from now on; false where the image is being removed.
    pub(crate) fn begin(&self, owner: &str, id: &Digest) -> bool {
        let mut state = self.lock();
        if state.leaving.contains(id) {
            return false;
        }
        state.uses.insert(owner.to_owned(), id.clone());
        true
    }

    /// An owner's use ends.
    pub(crate) fn end(&self, owner: &str) {
        self.lock().uses.remove(owner);
    }

    /// All uses of owners with this prefix are these.
    pub(crate) fn replace(&self, prefix: &str, uses: impl IntoIterator<Item = (String, Digest)>) {
        let mut state = self.lock();
        state.uses.retain(|owner, _| !owner.starts_with(prefix));
        state.uses.extend(uses);
    }

    /// Bars new uses of an image; the removal then asks [`Uses::of`] for those there are.
    pub(crate) fn leave(&self, id: &Digest) -> Leaving<'_> {
        self.lock().leaving.insert(id.clone());
        Leaving(self, id.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_and_a_removal_exclude_each_other() {
        let (uses, id) = (Uses::default(), Digest::sha256(b"x"));
        assert!(uses.begin("a", &id));
        let leaving = uses.leave(&id);
        assert_eq!(uses.of(&id), ["a"]);
        assert!(!uses.begin("b", &id));
        drop(leaving);
        assert!(uses.begin("b", &id));
        uses.replace("a", [("ac".to_owned(), id.clone())]);
        uses.end("b");
        assert_eq!(uses.of(&id), ["ac"]);
    }
}
