//! What can go wrong, and what a caller is told of it.

use std::{
    io,
    path::{Path, PathBuf},
};

use berth_core::{Failure, Kind, config, digest::InvalidDigest, failure::chain, serve};

use crate::store::disk_error;

/// A failure of the snapshotter.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each is")]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Serve(#[from] serve::Error),
    #[error("snapshot {name}: not found")]
    NotFound { name: String },
    #[error("snapshot {name}: already exists")]
    AlreadyExists { name: String },
    #[error("parent snapshot {parent} of {name} is not committed")]
    ParentNotCommitted { name: String, parent: String },
    #[error("snapshot {name} is {is}, not {wanted}")]
    WrongKind { name: String, is: &'static str, wanted: &'static str },
    #[error("cannot remove snapshot {name}: {child} is stacked on it")]
    HasChildren { name: String, child: String },
    #[error("snapshot names and keys must not be empty")]
    EmptyName,
    #[error("snapshot {name:?}: a name has at most {most} bytes and no control characters")]
    Name { name: String, most: usize },
    #[error("snapshot {name} was made on {is}; it cannot be committed on {wanted}")]
    OtherParent { name: String, is: String, wanted: String },
    #[error("the storage driver {driver} cannot put {name} on a parent that it was not made on")]
    Rebase { name: String, driver: &'static str },
    #[error("the stack below {name} changed while it was made; try again")]
    Changed { name: String },
    #[error("field {field:?} of a snapshot cannot be changed; only labels can")]
    Immutable { field: String },
    #[error("filter {filter:?}: {why}")]
    Filter { filter: String, why: &'static str },
    #[error("layer {diff_id} is not here")]
    LayerMissing { diff_id: String },
    #[error("{0}")]
    InvalidDigest(#[from] InvalidDigest),
    #[error("layer {wanted} unpacks to {is}: the image's configuration does not belong to this layer")]
    WrongDiffId { wanted: String, is: String },
    #[error("layer {diff_id}: the blob ended before it was whole")]
    Interrupted { diff_id: String },
    #[error("entry {entry:?} of the layer {why}")]
    Entry { entry: String, why: String },
    #[error("the layer is no valid {what}: {source}")]
    Malformed { what: &'static str, source: io::Error },
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the metadata store {path}: {source}")]
    Store { path: PathBuf, source: Box<redb::Error> },
    #[error("the storage driver {driver} does not work in {path}: {why}")]
    Driver { driver: &'static str, path: PathBuf, why: String },
    #[error("the caller went away")]
    Cancelled,
    #[error("{what} panicked")]
    Panicked { what: &'static str },
    #[error("malformed request: {0}")]
    Request(&'static str),
    #[error("another snapshotter works in {path}; stop it first or choose another root directory")]
    Taken { path: PathBuf },
}

impl Error {
    /// An I/O failure with what was done to what.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// A failure of the metadata store.
    pub(crate) fn store(path: &Path) -> impl FnOnce(redb::Error) -> Self {
        move |source| Self::Store { path: path.into(), source: source.into() }
    }

    /// The file system that is full, if that is what failed.
    pub(crate) fn full(&self) -> Option<&Path> {
        match self {
            Self::Io { source, path, .. } if is_full(source) => Some(path),
            Self::Store { source, path } if disk_error(source).is_some_and(is_full) => Some(path),
            _ => None,
        }
    }

    fn kind(&self) -> Kind {
        if self.full().is_some() {
            return Kind::ResourceExhausted;
        }
        match self {
            Self::NotFound { .. } | Self::LayerMissing { .. } => Kind::NotFound,
            Self::AlreadyExists { .. } => Kind::AlreadyExists,
            Self::WrongKind { .. } | Self::HasChildren { .. } => Kind::FailedPrecondition,
            Self::ParentNotCommitted { .. }
            | Self::OtherParent { .. }
            | Self::EmptyName
            | Self::Name { .. }
            | Self::Immutable { .. }
            | Self::Filter { .. }
            | Self::InvalidDigest(_)
            | Self::Request(_)
            | Self::Entry { .. }
            | Self::Malformed { .. } => Kind::InvalidArgument,
            Self::Rebase { .. } => Kind::Unimplemented,
            Self::WrongDiffId { .. } => Kind::DataLoss,
            Self::Cancelled => Kind::Cancelled,
            Self::Interrupted { .. } | Self::Changed { .. } => Kind::Aborted,
            _ => Kind::Internal,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let failure = Failure::new(error.kind(), chain(&error));
        match error.full() {
            Some(path) => failure.reason("NO_SPACE").hint(format!(
                "free some space on the file system of {} ({}): `berth rmi` removes images",
                path.display(),
                left(path)
            )),
            None => failure,
        }
    }
}

/// What is left of a file system, in words. A file system may be full of files while there is space for data.
fn left(path: &Path) -> String {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    match rustix::fs::statvfs(existing) {
        Ok(stat) => format!("{} MiB and {} files left", (stat.f_bavail * stat.f_frsize) >> 20, stat.f_favail),
        Err(_) => "how much is left is unknown".into(),
    }
}
