//! Layers that were made here have no blob: their tar is packed again when it is wanted, into a file that goes with its
//! reader, and handed out only where it has the digest that the image says.

use std::{
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

use berth_core::Digest;
use flate2::{Compression, write::GzEncoder};
use tokio::sync::mpsc;

use super::arriving::{Arriving, Whole};
use crate::{
    error::Error,
    images::{Images, blocking},
};

/// Pieces that wait to be written.
const QUEUE: usize = 4;

/// The tar of a layer, verified; it goes with this.
pub(crate) struct Packed(Whole);

impl Packed {
    /// Packs a layer, which must be held, as a plain tar.
    pub(crate) async fn of(images: &Arc<Images>, layer: &Digest) -> Result<Self, Error> {
        let (packed, is) = pack(images, layer, |mut file, pieces| {
            while let Some(piece) = pieces.blocking_recv() {
                file.write(&piece)?;
            }
            let whole = file.whole();
            let is = whole.digest.clone();
            Ok((whole, is))
        })
        .await?;
        verified(packed, layer, &is)
    }

    /// The same compressed: the same bytes for the same tar.
    pub(crate) async fn compressed(images: &Arc<Images>, layer: &Digest) -> Result<Self, Error> {
        let algorithm = layer.algorithm();
        let (packed, is) = pack(images, layer, move |file, pieces| {
            let mut hasher = algorithm.hasher();
            let mut gzip = GzEncoder::new(Writing(file), Compression::default());
            while let Some(piece) = pieces.blocking_recv() {
                hasher.update(&piece);
                gzip.write_all(&piece).map_err(lost)?;
            }
            Ok((gzip.finish().map_err(lost)?.0.whole(), hasher.finish()))
        })
        .await?;
        verified(packed, layer, &is)
    }

    /// Where it can be read while this lives.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Digest and bytes of what is in the file.
    pub(crate) fn content(&self) -> (&Digest, u64) {
        (&self.0.digest, self.0.size)
    }
}

fn verified(packed: Whole, layer: &Digest, is: &Digest) -> Result<Packed, Error> {
    if is != layer {
        let (wanted, is) = (layer.to_string(), is.to_string());
        return Err(Error::WrongDigest { what: format!("the layer {layer} as it lies here"), wanted, is });
    }
    Ok(Packed(packed))
}

/// Has a layer packed and `write` write it to a file; answers with that and the digest of the plain tar.
async fn pack(
    images: &Arc<Images>,
    layer: &Digest,
    write: impl FnOnce(Arriving, &mut mpsc::Receiver<bytes::Bytes>) -> Result<(Whole, Digest), Error> + Send + 'static,
) -> Result<(Whole, Digest), Error> {
    let mut packing = images.snapshots.pack(layer).await?;
    let (pieces, mut arriving) = mpsc::channel::<bytes::Bytes>(QUEUE);
    let writing = Arc::clone(images);
    let written = blocking(move || write(Arriving::new(&writing.store.blobs)?, &mut arriving));
    let reading = async move {
        while let Some(piece) = packing.next().await? {
            // Whoever cannot write says why.
            pieces.send(piece).await.map_err(|_| Error::Cancelled)?;
        }
        Ok(())
    };
    match tokio::join!(written, reading) {
        (Err(error), Ok(()) | Err(Error::Cancelled)) | (_, Err(error)) => Err(error),
        (Ok(whole), Ok(())) => Ok(whole),
    }
}

/// A file that is compressed into.
struct Writing(Arriving);

impl io::Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The error that went through the compressor.
fn lost(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::Made(error.to_string()),
    }
}
