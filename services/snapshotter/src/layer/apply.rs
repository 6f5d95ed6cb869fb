//! One layer from its blob to its directory.

use std::{fs::File, path::Path, sync::Arc};

use berth_core::Digest;

use super::{
    growing::{Arrival, End, Growing},
    pipeline::{self, Stopped},
    unpack,
};
use crate::{
    error::Error,
    record::{Open, Usage},
};

/// What was laid down.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) tar_bytes: u64,
    pub(crate) usage: Usage,
    pub(crate) open: Open,
}

/// Unpacks the blob in `file`, as far and as soon as it arrives, into `target`, an empty directory. Answers when the blob
/// is finished and its tar has the digest `diff_id`; on any failure `target` is garbage.
pub(crate) fn apply(file: File, arrival: &Arc<Arrival>, diff_id: &Digest, target: &Path) -> Result<Applied, Error> {
    let blob = Growing::new(file, Arc::clone(arrival));
    let (unpacked, inflated) = pipeline::run(blob, diff_id.algorithm(), |tar| unpack::unpack(tar, target));
    let interrupted = || Error::Interrupted { diff_id: diff_id.to_string() };
    match (unpacked, inflated) {
        (Ok((usage, open)), Ok(inflated)) => {
            if arrival.ended() == End::Abandoned {
                return Err(interrupted());
            }
            if inflated.diff_id != *diff_id {
                return Err(Error::WrongDiffId { wanted: diff_id.to_string(), is: inflated.diff_id.to_string() });
            }
            Ok(Applied { tar_bytes: inflated.bytes, usage, open })
        }
        // A blob that breaks off is the cause; what the tar's reader says of it is only its consequence.
        (_, Err(Stopped::Blob(_))) if arrival.abandoned() => Err(interrupted()),
        (Err(error @ Error::Io { .. }), _) => Err(error),
        (_, Err(Stopped::Blob(source))) => Err(Error::Malformed { what: "compressed tar", source }),
        (Err(error), _) => Err(error),
        (Ok(_), Err(Stopped::Unread)) => Err(Error::Panicked { what: "hashing the layer" }),
    }
}
