//! The container's name server: answers the names that the runtime service wrote into the bundle, and passes on the other
//! queries.
//!
//! What must always hold: no packet ends the shim or makes it keep anything; what waits for others is bounded in number and
//! in time; when the container's first process has ended, nothing here holds its network namespace any more.

mod forward;
mod message;
mod namespace;
mod server;
mod table;
mod tasks;

use std::{fs::File, rc::Rc};

use berth_core::bundle::NAMES;
pub(crate) use server::Server;

use crate::{
    error::{During as _, Error},
    shim::Shim,
};

impl Shim {
    /// Answers names from now on, where the bundle has them and nobody does yet.
    pub(crate) fn serve_names(self: &Rc<Self>) -> Result<(), Error> {
        if self.names.borrow().is_some() || !self.bundle.join(NAMES).exists() {
            return Ok(());
        }
        let init = self.process("")?;
        if init.exit().is_some() || init.reaped.get() {
            return Err(crate::oci::Error::NotRunning.into());
        }
        // Not reaped, so the pid is its own.
        let path = format!("/proc/{}/ns/net", init.pid.get());
        let netns = File::open(&path).during(|| format!("opening {path}"))?;
        let server = Server::begin(self.bundle.clone(), netns.into())
            .during(|| "answering names in the container's network namespace")?;
        *self.names.borrow_mut() = Some(server);
        Ok(())
    }
}
