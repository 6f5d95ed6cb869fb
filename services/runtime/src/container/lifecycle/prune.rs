//! Prune: every container that does not run goes.

use std::sync::Arc;

use super::remove::Remove;
use crate::{
    container::{
        containers::Containers,
        record::{Record, Status, Time},
    },
    error::{Error, Result},
    labels,
};

/// Which of those that do not run go.
#[derive(Clone, Debug, Default)]
struct Filter {
    /// Made before any of these.
    until: Vec<Time>,
    /// "k" or "k=v", and whether it must be so or must not.
    labels: Vec<(String, bool)>,
}

impl Containers {
    /// Removes what does not run; answers with the ids, and the bytes that they had written. One that somebody starts or
    /// removes meanwhile is passed over.
    pub(crate) async fn prune(self: &Arc<Self>, filters: &[String]) -> Result<(Vec<String>, u64)> {
        let filter = Filter::parse(filters)?;
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for container in self.index.all() {
            let record = container.record();
            if !matches!(record.state.status, Status::Created | Status::Exited) || !filter.admits(&record) {
                continue;
            }
            let size = self.neighbours.snapshot_size(&container.id).await.unwrap_or_default();
            match self.remove(&container, Remove { force: false, volumes: false }).await {
                Ok(()) => {
                    bytes += size;
                    removed.push(container.id.clone());
                }
                Err(Error::State(_) | Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((removed, bytes))
    }
}

impl Filter {
    fn parse(filters: &[String]) -> Result<Self> {
        let mut parsed = Self::default();
        for filter in filters {
            let wrong = || Error::Invalid(format!("invalid filter '{filter}'"));
            match filter.split_once('=').ok_or_else(wrong)? {
                ("until", moment) => parsed.until.push(crate::instant::parse(moment, "until")?.ok_or_else(wrong)?),
                ("label", label) => parsed.labels.push((label.into(), true)),
                ("label!", label) => parsed.labels.push((label.into(), false)),
                _ => return Err(wrong()),
            }
        }
        Ok(parsed)
    }

    fn admits(&self, record: &Record) -> bool {
        let labelled = |wanted: &str| labels::holds(wanted, |name| record.spec.labels.get(name));
        self.until.iter().all(|until| record.created < *until)
            && self.labels.iter().all(|(label, must)| labelled(label) == *must)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_go() {
        let mut record = Record { created: Time(5_000_000_000), ..Record::default() };
        record.spec.labels.insert("tier".into(), "db".into());
        for (filters, goes) in [
            (&["until=1970-01-01T00:00:06Z"][..], true),
            (&["until=1970-01-01T00:00:05Z"], false),
            (&["label=tier"], true),
            (&["label=tier=web"], false),
            (&["label!=tier=web", "label=tier=db"], true),
            (&["label!=tier"], false),
        ] {
            let filters: Vec<_> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            assert_eq!(Filter::parse(&filters).unwrap().admits(&record), goes, "{filters:?}");
        }
        assert!(Filter::parse(&["status=exited".into()]).is_err() && Filter::parse(&["until=soon".into()]).is_err());
    }
}
