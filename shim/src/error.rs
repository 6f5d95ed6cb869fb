//! What can go wrong in a shim, and how the runtime service is told.

use containerd_shim_protos::ttrpc::{self, Code};

use crate::oci;

/// A failure, told so that it can be shown to whoever typed the command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The low-level runtime failed.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// There is no such process.
    #[error("there is no process {0}")]
    NoProcess(String),
    /// There is one already.
    #[error("{0} is there already")]
    Exists(String),
    /// Not possible as things are.
    #[error("{0}")]
    Precondition(String),
    /// The request cannot be meant.
    #[error("{0}")]
    Invalid(String),
    /// Not possible here at all.
    #[error("{0}")]
    Unsupported(String),
    /// The system refused something.
    #[error("{what}: {why}")]
    System {
        /// What was being done, to what.
        what: String,
        /// Why it failed.
        why: String,
    },
}

impl Error {
    /// The code of the exit that the failure stands for, as shells count them.
    pub fn exit_code(&self) -> u32 {
        match self {
            Self::Oci(oci::Error::CommandNotFound(_)) => 127,
            Self::Oci(oci::Error::NotExecutable(_)) => 126,
            _ => 128,
        }
    }
}

/// Says what was being done when something failed.
pub(crate) trait During<T> {
    /// With a text made only when needed.
    fn during<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Error>;
}

impl<T, E: ToString> During<T> for Result<T, E> {
    fn during<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Error> {
        self.map_err(|error| Error::System { what: what().into(), why: error.to_string() })
    }
}

impl From<Error> for ttrpc::Error {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::NoProcess(_) | Error::Oci(oci::Error::CommandNotFound(_)) => Code::NOT_FOUND,
            Error::Oci(oci::Error::NotExecutable(_)) => Code::PERMISSION_DENIED,
            Error::Precondition(_) | Error::Oci(oci::Error::NotRunning | oci::Error::Paused) => {
                Code::FAILED_PRECONDITION
            }
            Error::Invalid(_) | Error::Usage(_) | Error::Oci(oci::Error::Spec(_)) => Code::INVALID_ARGUMENT,
            Error::Exists(_) => Code::ALREADY_EXISTS,
            Error::Unsupported(_) | Error::Oci(oci::Error::Unsupported(_)) => Code::UNIMPLEMENTED,
            Error::System { .. } | Error::Oci(oci::Error::Step { .. }) => Code::INTERNAL,
        };
        ttrpc::Error::RpcStatus(ttrpc::get_status(code, error.to_string()))
    }
}
