//! How much disk containers use. It is asked for by itself, because their files are walked over for it.

use std::collections::BTreeMap;

use berth_proto::berth::runtime::v1::Container as Wire;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{error::Result, neighbours::Neighbours};

/// Walks at the same time.
const ABREAST: usize = 4;

/// Fills the sizes in. An image that is gone counts nothing.
pub(super) async fn measure(neighbours: &Neighbours, containers: &mut [Wire]) -> Result<()> {
    let mut images = BTreeMap::new();
    for container in &*containers {
        if !images.contains_key(&container.image_id) {
            let size = neighbours.image(&container.image_id, "", "").await.map_or(0, |image| image.size);
            images.insert(container.image_id.clone(), size);
        }
    }
    let ids: Vec<String> = containers.iter().map(|container| container.id.clone()).collect();
    let written: Vec<u64> = stream::iter(ids)
        .map(|id| async move { neighbours.snapshot_size(&id).await })
        .buffered(ABREAST)
        .try_collect()
        .await?;
    for (container, written) in containers.iter_mut().zip(written) {
        container.size_rw = written;
        container.size_root_fs = written + images.get(&container.image_id).copied().unwrap_or(0);
    }
    Ok(())
}
