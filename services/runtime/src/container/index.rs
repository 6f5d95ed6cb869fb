//! Who is called what: containers by id, by name and by prefix, and names that are reserved for one that is being made.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    container::{live::Container, names},
    error::{Error, Result},
};

/// All containers of the node. Ids and names are each unique.
#[derive(Debug, Default)]
pub(crate) struct Index(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    containers: BTreeMap<String, Arc<Container>>,
    /// To ids, also of containers that are being made.
    names: HashMap<String, String>,
}

/// A name that is taken for a container that is being made, or for one that is being renamed. It is free again when
/// this is dropped, unless it was kept.
#[derive(Debug)]
pub(crate) struct Reservation {
    index: Arc<Index>,
    pub(crate) name: String,
    kept: bool,
}

impl Reservation {
    /// The name stays taken.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.kept {
            self.index.lock().names.remove(&self.name);
        }
    }
}

impl Index {
    fn lock(&self) -> MutexGuard<'_, Names> {
        // Each change is one step, so nothing is half done where a thread panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a name, or invents one where it is empty, for the container with this id.
    pub(crate) fn reserve(self: &Arc<Self>, name: &str, id: &str) -> Result<Reservation> {
        let mut inner = self.lock();
        let name = match name {
            "" => names::invent(|name| inner.names.contains_key(name)),
            name => names::check(name)?.to_owned(),
        };
        if let Some(by) = inner.names.get(&name) {
            return Err(Error::NameTaken { name, by: by.clone() });
        }
        inner.names.insert(name.clone(), id.to_owned());
        Ok(Reservation { index: Arc::clone(self), name, kept: false })
    }

    /// Adds a container under its name.
    pub(crate) fn insert(&self, container: Arc<Container>) {
        let mut inner = self.lock();
        inner.names.insert(container.record().name.clone(), container.id.clone());
        inner.containers.insert(container.id.clone(), container);
    }

    /// Removes a container; its name is free.
    pub(crate) fn remove(&self, id: &str) {
        let mut inner = self.lock();
        if let Some(container) = inner.containers.remove(id) {
            inner.names.remove(&container.record().name);
        }
    }

    /// A name is nobody's any more.
    pub(crate) fn free(&self, name: &str) {
        self.lock().names.remove(name);
    }

    /// The container with this id, name, or beginning of an id.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Container>> {
        let inner = self.lock();
        let missing = || Error::NotFound { name: text.into() };
        let name = text.strip_prefix('/').unwrap_or(text);
        if name.is_empty() {
            return Err(missing());
        }
        if let Some(container) = inner.containers.get(name) {
            return Ok(Arc::clone(container));
        }
        if let Some(id) = inner.names.get(name) {
            // One that is being made is not there yet.
            return inner.containers.get(id).cloned().ok_or_else(missing);
        }
        let from = inner.containers.range(name.to_owned()..);
        let mut candidates = from.take_while(|(id, _)| id.starts_with(name)).map(|(_, container)| container);
        match (candidates.next(), candidates.next()) {
            (Some(container), None) => Ok(Arc::clone(container)),
            (Some(_), Some(_)) => Err(Error::Ambiguous { prefix: text.into() }),
            (None, _) => Err(missing()),
        }
    }

    /// A container with this id is being made.
    pub(crate) fn is_being_made(&self, id: &str) -> bool {
        let inner = self.lock();
        !inner.containers.contains_key(id) && inner.names.values().any(|named| named == id)
    }

    /// All containers, in no particular order.
    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.lock().containers.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::Record;

    fn index(containers: &[(&str, &str)]) -> Arc<Index> {
        let index = Arc::new(Index::default());
        for (id, name) in containers {
            index.insert(Container::new(Record { id: (*id).into(), name: (*name).into(), ..Record::default() }));
        }
        index
    }

    #[test]
    fn finds_by_id_name_and_prefix() {
        let index = index(&[("abc1", "web"), ("abd2", "abc")]);
        let found = |text: &str| index.find(text).map(|c| c.id.clone());
        assert_eq!(found("abc1").unwrap(), "abc1");
        assert_eq!(found("/web").unwrap(), "abc1");
        assert_eq!(found("abc").unwrap(), "abd2", "a name goes before a prefix");
        assert_eq!(found("abd").unwrap(), "abd2");
        assert!(matches!(found("ab"), Err(Error::Ambiguous { .. })));
        assert!(matches!(found(""), Err(Error::NotFound { .. })));
        assert!(matches!(found("zz"), Err(Error::NotFound { .. })));
    }

    #[test]
    fn a_name_is_taken_from_the_first_moment_and_free_after_a_failure() {
        let index = index(&[("a", "web")]);
        assert!(index.reserve("web", "b").unwrap_err().to_string().contains("already in use by container \"a\""));
        let reservation = index.reserve("new", "b").unwrap();
        assert!(matches!(index.reserve("/new", "c"), Err(Error::NameTaken { .. })));
        assert!(matches!(index.find("new"), Err(Error::NotFound { .. })));
        drop(reservation);
        index.reserve("new", "c").unwrap().keep();
        assert!(index.reserve("new", "d").is_err());
    }
}
