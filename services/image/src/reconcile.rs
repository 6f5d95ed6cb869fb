//! At the start: snapshots that were made for an image of which no record was written, because the service was killed in
//! between, or that a removal could not take along.

use std::sync::Weak;

use crate::images::Images;

/// Takes away what belongs to no image. Where the snapshotter is away, the next start does it.
pub(crate) async fn reconcile(images: Weak<Images>) {
    let Some(images) = images.upgrade() else { return };
    let made = match images.snapshots.made_for_images().await {
        Ok(made) => made,
        Err(error) => {
            tracing::info!(%error, "snapshots are not compared with images now");
            return;
        }
    };
    for chain_id in made {
        match images.remove_snapshot(&chain_id).await {
            Ok(true) => tracing::info!(snapshot = %chain_id, "removed: no image is made of it"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, snapshot = %chain_id, "it could not be removed"),
        }
    }
}
