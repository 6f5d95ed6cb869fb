//! Signals to the container's processes.

use containerd_shim_protos::api::KillRequest;

use crate::{error::Error, shim::Shim};

impl Shim {
    /// Sends a signal to a process, or to all of them.
    pub(crate) fn kill(&self, request: &KillRequest) -> Result<(), Error> {
        let signal = i32::try_from(request.signal).ok().filter(|signal| (0..=64).contains(signal));
        let signal = signal.ok_or_else(|| Error::Invalid(format!("there is no signal {}", request.signal)))?;
        let process = self.process(&request.exec_id)?;
        if !request.exec_id.is_empty() {
            return process.signal(signal);
        }
        if process.exit().is_some() && !request.all {
            return Err(crate::oci::Error::NotRunning.into());
        }
        self.with_container(|engine, container| engine.kill(container, signal, request.all))
    }
}
