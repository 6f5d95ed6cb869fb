//! Cleaning up after a shim that died, at whatever line.

use std::{fs, io::Write as _};

use berth_core::bundle::{EXIT, ExitRecord, INIT_PID, ROOTFS, SHIM_PID};
use containerd_shim_protos::{api::DeleteResponse, protobuf::Message as _};

use crate::{
    address,
    arguments::Arguments,
    error::{During as _, Error},
    log::now_ns,
    oci, rootfs,
    stamp::timestamp,
};

/// Ends what is left of the container and prints how it ended, as shim v2 wants it. May be called again.
///
/// # Errors
/// Something cannot be removed; calling again goes on.
pub fn delete(arguments: &Arguments) -> Result<(), Error> {
    let mut response =
        DeleteResponse { exit_status: 137, exited_at: Some(timestamp(now_ns())).into(), ..Default::default() };
    if let Ok(bundle) = arguments.bundle() {
        let pid = fs::read_to_string(bundle.join(INIT_PID)).ok().and_then(|text| text.trim().parse().ok());
        response.pid = pid.unwrap_or(0);
        if let Ok(Some(exit)) = berth_core::bundle::read::<ExitRecord>(&bundle, EXIT) {
            response.exit_status = exit.exit_code;
            response.exited_at = Some(timestamp(exit.exited_at_ns)).into();
        }
        // One that lives is in the way of whoever calls this: it was given up.
        let shim = fs::read_to_string(bundle.join(SHIM_PID)).unwrap_or_default();
        if let Some((Ok(pid), Ok(started))) = shim.split_once(' ').map(|(pid, at)| (pid.parse(), at.parse())) {
            oci::kill(pid, started);
        }
        oci::remove(&bundle)?;
        // The shim's mounts went with it; those of another runtime service are in the host's namespace.
        rootfs::clear(&bundle.join(ROOTFS));
        address::forget(&bundle);
    }
    let bytes = response.write_to_bytes().during(|| "packing the answer")?;
    std::io::stdout().write_all(&bytes).during(|| "answering")
}
