//! Which containers somebody wants to see.

use std::sync::Arc;

use crate::{
    container::{containers::Containers, live::Container},
    error::Result,
    filter::Filter,
};

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Stopped ones too.
    pub(crate) all: bool,
    pub(crate) filters: Vec<String>,
    /// Only the newest so many, of any state; 0 for all.
    pub(crate) last: usize,
}

impl Containers {
    /// The containers that are wanted, newest first.
    ///
    /// # Errors
    /// A filter cannot be meant.
    pub(crate) fn list(&self, wanted: &Wanted) -> Result<Vec<Arc<Container>>> {
        let filter = Filter::parse(&wanted.filters, |name| Ok(self.find(name)?.record().created))?;
        let any_state = wanted.all || wanted.last > 0 || filter.means_all();
        let mut found: Vec<_> = self
            .index
            .all()
            .into_iter()
            .map(|container| (container.record(), container))
            .filter(|(record, _)| any_state || record.state.status.is_up())
            .filter(|(record, _)| filter.admits(record))
            .collect();
        found.sort_by(|(a, _), (b, _)| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        if wanted.last > 0 {
            found.truncate(wanted.last);
        }
        Ok(found.into_iter().map(|(_, container)| container).collect())
    }
}
