//! What can be wrong with what is asked for, and what a caller is told of it.

use std::{io, path::PathBuf};

use berth_core::{Failure, Kind, failure::chain};

/// A configuration that cannot be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each is")]
pub(crate) enum Error {
    /// Something that cannot be meant; the text is Docker's where Docker has one.
    #[error("{0}")]
    Invalid(String),
    #[error("no command specified")]
    NoCommand,
    #[error("error gathering device information while adding custom device {path:?}: {source}")]
    Device { path: PathBuf, source: io::Error },
    #[error("decoding seccomp profile failed: {0}")]
    Profile(serde_json::Error),
    #[error("the configuration cannot be made: {0}")]
    Oci(#[from] oci_spec::OciSpecError),
}

impl Error {
    /// Something that cannot be meant.
    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let kind = match &error {
            Error::Invalid(_) | Error::NoCommand | Error::Profile(_) => Kind::InvalidArgument,
            Error::Device { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::InvalidArgument,
            Error::Device { .. } | Error::Oci(_) => Kind::Internal,
        };
        let failure = Failure::new(kind, chain(&error));
        match error {
            Error::NoCommand => failure.hint("the image names no program: give one after the image"),
            _ => failure,
        }
    }
}
