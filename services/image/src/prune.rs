//! Prune: images that nobody needs go. By Docker's rules those without any name, and with `all` those that no container
//! uses.

use std::sync::Arc;

use crate::{
    error::Error,
    filter::Filters,
    images::{Images, blocking},
    removal::Removed,
};

impl Images {
    /// Removes what is not used; answers with what was done, and with the bytes that it freed. One that somebody begins
    /// to use meanwhile stays.
    pub(crate) async fn prune_images(
        self: &Arc<Self>,
        all: bool,
        filters: Vec<String>,
    ) -> Result<(Vec<Removed>, u64), Error> {
        let images = Arc::clone(self);
        let unused = blocking(move || {
            let records = images.store.records.all();
            let filters = Filters::parse(&filters, &images, &records)?;
            let mut unused = Vec::new();
            for record in records.values() {
                let nameless = record.names.is_empty() && record.repo_digests.is_empty();
                if !(all || nameless) || !images.uses.of(&record.id).is_empty() {
                    continue;
                }
                let stored = images.store.configs.get(&images.store.blobs, &record.id)?;
                if filters.admit(record.clone(), &stored.config).is_some() {
                    unused.push(record.id.to_string());
                }
            }
            Ok(unused)
        });
        let unused = unused.await?;
        let before = self.bytes().await?;
        let mut removed = Vec::new();
        for id in unused {
            match self.remove(&id, true).await {
                Ok(of_one) => removed.extend(of_one),
                // In use by now, or removed by somebody else.
                Err(Error::Conflict(_) | Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let after = self.bytes().await?;
        Ok((removed, before.saturating_sub(after)))
    }

    /// Bytes of all content and of all layers that are laid down.
    async fn bytes(self: &Arc<Self>) -> Result<u64, Error> {
        let images = Arc::clone(self);
        let [(_, content), _] = blocking(move || images.store.blobs.usage()).await?;
        Ok(content + self.snapshots.layer_bytes().await?)
    }
}
