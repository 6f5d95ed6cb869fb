//! Layers that were made here have no blob: their tar is packed again when it is wanted, into a file that goes with its
//! reader, and handed out only where it has the digest that the image says.

use std::{path::Path, sync::Arc};

use berth_core::Digest;
use tokio::sync::mpsc;

use super::arriving::{Arriving, Whole};
use crate::{
    error::Error,
    images::{Images, blocking},
};

/// Pieces that wait to be written.
const QUEUE: usize = 4;

/// The plain tar of a layer, verified; it goes with this.
pub(crate) struct Packed(Whole);

impl Packed {
    /// Packs a layer, which must be held.
    pub(crate) async fn of(images: &Arc<Images>, layer: &Digest) -> Result<Self, Error> {
        let mut packing = images.snapshots.pack(layer).await?;
        let (pieces, mut arriving) = mpsc::channel::<bytes::Bytes>(QUEUE);
        let writing = Arc::clone(images);
        let written = blocking(move || {
            let mut file = Arriving::new(&writing.store.blobs)?;
            while let Some(piece) = arriving.blocking_recv() {
                file.write(&piece)?;
            }
            Ok(file.whole())
        });
        let reading = async move {
            while let Some(piece) = packing.next().await? {
                // Whoever cannot write says why.
                pieces.send(piece).await.map_err(|_| Error::Cancelled)?;
            }
            Ok(())
        };
        let whole = match tokio::join!(written, reading) {
            (Err(error), Ok(()) | Err(Error::Cancelled)) | (_, Err(error)) => return Err(error),
            (Ok(whole), Ok(())) => whole,
        };
        if whole.digest != *layer {
            let (wanted, is) = (layer.to_string(), whole.digest.to_string());
            return Err(Error::WrongDigest { what: format!("the layer {layer} as it lies here"), wanted, is });
        }
        Ok(Self(whole))
    }

    /// Where it can be read while this lives.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}
