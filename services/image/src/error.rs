//! What can go wrong, and what a caller is told of it.

use std::{io, path::PathBuf};

use berth_core::{
    Failure, Kind, config,
    digest::InvalidDigest,
    failure::chain,
    platform::InvalidPlatform,
    reference::{InvalidReference, Reference},
    serve,
};

/// A failure of the image service.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each is")]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Serve(#[from] serve::Error),
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    #[error(transparent)]
    Platform(#[from] InvalidPlatform),
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    #[error("No such image: {reference}")]
    NotFound { reference: String },
    #[error("{prefix:?} could be several images: {candidates}")]
    Ambiguous { prefix: String, candidates: String },
    #[error("image {reference} is for {is}, not for {wanted}")]
    OtherPlatform { reference: String, is: String, wanted: String },
    #[error("conflict: {0}")]
    Conflict(String),
    #[error("invalid filter '{0}'")]
    Filter(String),
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the metadata store {path}: {source}")]
    Store { path: PathBuf, source: Box<redb::Error> },
    #[error("the metadata store {path} is in use by another process; is another image service running on this root?")]
    InUse { path: PathBuf },
    #[error("no space left in {path}: {what} needs at least {needed}, and {free} are free")]
    NoSpace { what: String, path: PathBuf, needed: String, free: String },
    #[error("{what} is not {wanted} but {is}: it was damaged or exchanged on its way")]
    WrongDigest { what: String, wanted: String, is: String },
    #[error("{what} has more than the {wanted} bytes that its manifest announces")]
    WrongSize { what: String, wanted: u64 },
    #[error("{what} cannot be used: {why}")]
    Unusable { what: String, why: String },
    #[error("no matching manifest for {wanted} in the manifest list entries of {reference}: there is {offered}")]
    NoPlatform { reference: String, wanted: String, offered: String },
    #[error("manifest for {reference} not found: {why}")]
    ManifestUnknown { reference: String, why: String },
    #[error("pull access denied for {repository}, repository does not exist or may require authorization: {why}")]
    Denied { repository: String, why: String },
    #[error("denied: requested access to the resource is denied: {why}")]
    PushDenied { repository: String, why: String },
    #[error("repository {repository} not found: {why}")]
    RepositoryUnknown { repository: String, why: String },
    #[error("{0}")]
    Search(String),
    #[error("An image does not exist locally with the tag: {repository}")]
    NothingToPush { repository: String },
    #[error("tag does not exist: {reference}")]
    NoTag { reference: String },
    #[error("{host} does not accept the credentials: {why}")]
    Credentials { host: String, why: String },
    #[error("login attempt to {url} failed with status: {status}")]
    Login { url: String, status: http::StatusCode },
    #[error("{host} cannot be trusted over TLS: {why}")]
    Tls { host: String, why: String, hint: String },
    #[error("{host}: {why}")]
    Registry { host: String, why: String },
    #[error("{host} asks to wait: {why}")]
    TooMany { host: String, why: String },
    #[error("the archive cannot be loaded: {0}")]
    Archive(String),
    #[error("{0}")]
    Change(String),
    #[error("the image cannot be made: {0}")]
    Made(String),
    #[error("the snapshotter: {0}")]
    Snapshotter(Box<Failure>),
    #[error("the pull was cancelled")]
    Cancelled,
    #[error("{what} panicked")]
    Panicked { what: &'static str },
    #[error("malformed request: {0}")]
    Request(&'static str),
}

impl Error {
    /// Nothing has this name; it is told with the tag that it means, as Docker does.
    pub(crate) fn absent(text: &str) -> Self {
        let named = text.parse::<Reference>().ok().filter(|reference| reference.digest().is_none());
        Self::NotFound { reference: named.map_or_else(|| text.to_owned(), |reference| reference.familiar()) }
    }

    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. }
            | Self::OtherPlatform { .. }
            | Self::NoPlatform { .. }
            | Self::NothingToPush { .. }
            | Self::RepositoryUnknown { .. }
            | Self::NoTag { .. }
            | Self::ManifestUnknown { .. } => Kind::NotFound,
            Self::Reference(_)
            | Self::Platform(_)
            | Self::Digest(_)
            | Self::Ambiguous { .. }
            | Self::Filter(_)
            | Self::Archive(_)
            | Self::Change(_)
            | Self::Search(_)
            | Self::Made(_)
            | Self::Unusable { .. }
            | Self::Request(_) => Kind::InvalidArgument,
            Self::Conflict(_) => Kind::FailedPrecondition,
            Self::WrongDigest { .. } | Self::WrongSize { .. } => Kind::DataLoss,
            Self::Denied { .. } | Self::PushDenied { .. } => Kind::PermissionDenied,
            Self::Credentials { .. } | Self::Login { .. } => Kind::Unauthenticated,
            Self::Registry { .. } | Self::TooMany { .. } | Self::Tls { .. } => Kind::Unavailable,
            Self::NoSpace { .. } => Kind::ResourceExhausted,
            Self::Snapshotter(failure) => failure.kind,
            Self::Cancelled => Kind::Cancelled,
            error if error.is_no_space() => Kind::ResourceExhausted,
            _ => Kind::Internal,
        }
    }

    /// As it is said of a host that is named already.
    pub(crate) fn of_host(&self) -> String {
        match self {
            Self::Registry { why, .. } | Self::ManifestUnknown { why, .. } => why.clone(),
            Self::TooMany { why, .. } => format!("it asks to wait: {why}"),
            Self::Tls { why, .. } => format!("it cannot be trusted over TLS: {why}"),
            error => error.to_string(),
        }
    }

    /// Whether a full disk is the cause, here or at the neighbour.
    pub(crate) fn is_no_space(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Io { source, .. } => is_full(source),
            Self::Store { source, .. } => matches!(&**source, redb::Error::Io(source) if is_full(source)),
            Self::Snapshotter(failure) => failure.reason == NO_SPACE,
            _ => false,
        }
    }
}

const NO_SPACE: &str = "NO_SPACE";

/// Bytes as people read them.
pub(crate) fn readable(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{bytes} bytes"),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let failure = Failure::new(error.kind(), chain(&error));
        match &error {
            Error::Snapshotter(inner) => failure.reason(inner.reason.clone()).hint(inner.hint.clone()),
            Error::NotFound { .. } => failure.reason("IMAGE_NOT_FOUND"),
            Error::Denied { .. } => {
                failure.hint("check the name; a private repository needs credentials: `berth login` keeps them in ~/.docker/config.json")
            }
            Error::PushDenied { repository, .. } => failure.hint(format!(
                "who may push to {repository} is the registry's to say: `berth login` tells it who you are"
            )),
            Error::Credentials { .. } => {
                failure.hint("user or password are wrong, or the login has expired: log in again")
            }
            Error::Tls { hint, .. } => failure.hint(hint.clone()),
            Error::NoSpace { path, .. } => failure.reason(NO_SPACE).hint(free_some(path)),
            Error::Io { path, .. } | Error::Store { path, .. } if error.is_no_space() => {
                failure.reason(NO_SPACE).hint(free_some(path))
            }
            _ => failure,
        }
    }
}

fn free_some(path: &std::path::Path) -> String {
    format!("free some space on the file system of {}: `berth rmi` removes images", path.display())
}
