//! What can go wrong with volumes and mounts, and what a caller is told of it.

use std::{io, path::PathBuf};

use berth_core::{Failure, Kind, failure::chain};

/// A failure of the volumes.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each is")]
pub(crate) enum Error {
    #[error("get {name}: no such volume")]
    NotFound { name: String },
    #[error("remove {name}: volume is in use - [{}]", .by.join(", "))]
    InUse { name: String, by: Vec<String> },
    #[error(
        "create {name}: {name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" \
         are allowed. If you intended to pass a host directory, use absolute path"
    )]
    BadName { name: String },
    #[error("create {name}: volume name is too short, names should be at least two alphanumeric characters")]
    ShortName { name: String },
    #[error("invalid mount config for type \"{kind}\": {why}")]
    BadMount { kind: &'static str, why: String },
    #[error("Duplicate mount point: {target}")]
    Duplicate { target: String },
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("a root file system of {count} mounts cannot be looked at to fill volumes")]
    Stacked { count: usize },
    #[error("cannot mount the image to fill volumes from it: {source}")]
    Rootfs { source: io::Error },
    #[error("cannot mount the container's files: {source}")]
    Visit { source: io::Error },
    #[error("cannot fill volume {name} with the image's {path}: {source}")]
    Fill { name: String, path: String, source: io::Error },
    #[error(
        "create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found: there is \"local\""
    )]
    NoDriver { name: String, driver: String },
    #[error("create {name}: the option {option:?} is not known: the driver \"local\" has none yet")]
    NoOption { name: String, option: String },
    #[error("invalid filter '{0}'")]
    BadFilter(String),
    #[error("{what} panicked")]
    Panicked { what: &'static str },
}

impl Error {
    /// A failure of the file system with what was done to what.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } => Kind::NotFound,
            Self::InUse { .. } => Kind::FailedPrecondition,
            Self::NoDriver { .. } => Kind::NotFound,
            Self::BadName { .. }
            | Self::ShortName { .. }
            | Self::BadMount { .. }
            | Self::Duplicate { .. }
            | Self::NoOption { .. }
            | Self::BadFilter(_) => Kind::InvalidArgument,
            Self::Io { source, .. } | Self::Fill { source, .. }
                if matches!(source.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) =>
            {
                Kind::ResourceExhausted
            }
            Self::Stacked { .. }
            | Self::Rootfs { .. }
            | Self::Visit { .. }
            | Self::Io { .. }
            | Self::Fill { .. }
            | Self::Panicked { .. } => Kind::Internal,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let failure = Failure::new(error.kind(), chain(&error));
        if error.kind() == Kind::ResourceExhausted {
            return failure.reason("NO_SPACE").hint("free some space on the file system of the volumes");
        }
        failure
    }
}
