//! What can go wrong, and what a caller is told of it.

use std::{io, path::PathBuf};

use berth_core::{Failure, Kind, config, failure::chain, serve};

/// A failure of the runtime service.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each is")]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Serve(#[from] serve::Error),
    #[error("[runtime] {key}: {why}")]
    Setting { key: String, why: String },
    #[error("No such container: {name}")]
    NotFound { name: String },
    #[error("Multiple IDs found with provided prefix: {prefix}")]
    Ambiguous { prefix: String },
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{by}\". You have to remove (or rename) \
         that container to be able to reuse that name."
    )]
    NameTaken { name: String, by: String },
    #[error("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    BadName { name: String },
    #[error("Renaming a container with the same name as its current name")]
    SameName,
    /// The container is in another state than this needs; the text is Docker's.
    #[error("{0}")]
    State(String),
    /// Something that cannot be meant.
    #[error("{0}")]
    Invalid(String),
    #[error("unknown or invalid runtime name: {0}")]
    UnknownHandler(String),
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the metadata store {path}: {source}")]
    Store { path: PathBuf, source: Box<redb::Error> },
    /// What another part or another service said.
    #[error("{}", .0.message)]
    Said(Box<Failure>),
    #[error("{what} did not answer within {seconds} s")]
    Late { what: &'static str, seconds: u64 },
    #[error("{what} panicked")]
    Panicked { what: &'static str },
    #[error("the call was cancelled")]
    Cancelled,
    #[error("malformed request: {0}")]
    Request(&'static str),
}

/// The result of most of what this service does.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of the file system with what was done to what.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } => Kind::NotFound,
            Self::NameTaken { .. } => Kind::AlreadyExists,
            Self::Ambiguous { .. }
            | Self::BadName { .. }
            | Self::SameName
            | Self::Invalid(_)
            | Self::UnknownHandler(_)
            | Self::Request(_) => Kind::InvalidArgument,
            Self::State(_) => Kind::FailedPrecondition,
            Self::Said(failure) => failure.kind,
            Self::Late { .. } => Kind::DeadlineExceeded,
            Self::Cancelled => Kind::Cancelled,
            Self::Io { source, .. } if is_full(source) => Kind::ResourceExhausted,
            _ => Kind::Internal,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Said(Box::new(failure))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let failure = Failure::new(error.kind(), chain(&error));
        match error {
            Error::Said(said) => *said,
            Error::NotFound { .. } => failure.reason("CONTAINER_NOT_FOUND"),
            Error::NameTaken { .. } => failure.reason("NAME_TAKEN"),
            Error::UnknownHandler(_) => failure.hint("handlers are named in [runtime.handler] of the configuration"),
            Error::Io { source, path, .. } if is_full(&source) => {
                failure.reason("NO_SPACE").hint(format!("free some space on the file system of {}", path.display()))
            }
            _ => failure,
        }
    }
}
