//! Why the service cannot run. What a client is told is a [`crate::refusal::Refusal`].

use std::{io, path::PathBuf};

use berth_core::{config, serve};

/// Why the service cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value in `[registry-proxy]` cannot be meant.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The Unix socket cannot be served.
    #[error(transparent)]
    Serve(#[from] serve::Error),
    /// The HTTP address cannot be listened on.
    #[error("cannot listen on {address} (registry-proxy.listen): {source}")]
    Listen {
        /// As configured.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A file or directory of the store.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried ("cannot create").
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The records cannot be read or written.
    #[error("the records in {path}: {source}")]
    Records {
        /// The database.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// A part of the service broke off.
    #[error("{what} broke off")]
    Panicked {
        /// Which.
        what: &'static str,
    },
}

impl Error {
    /// For `map_err`.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
