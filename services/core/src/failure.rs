//! The error that travels: what a service tells its caller when something fails.
//!
//! Each crate has an error enum of its own; at the edge it becomes a [`Failure`], and that a gRPC status. The message is
//! for the person who must act (what failed, on what, why); the hint says what to do; the reason is for programs.
//! Reason and hint travel as `google.rpc.ErrorInfo` in the status's details.

use std::{collections::HashMap, fmt};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// `ErrorInfo.domain` of all our reasons.
pub const DOMAIN: &str = "berth";
const HINT: &str = "hint";

/// What sort of failure it is; each is one gRPC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The caller asked for something that cannot be meant.
    InvalidArgument,
    /// What was named is not there.
    NotFound,
    /// What should be made is there already.
    AlreadyExists,
    /// The caller may not.
    PermissionDenied,
    /// The other side does not know who is asking.
    Unauthenticated,
    /// The thing named is not in the state for this.
    FailedPrecondition,
    /// No space, no addresses, no quota left.
    ResourceExhausted,
    /// Somebody else changed it meanwhile; try again.
    Aborted,
    /// Something needed is away at the moment; try again.
    Unavailable,
    /// It took longer than it may.
    DeadlineExceeded,
    /// The caller went away.
    Cancelled,
    /// berth cannot do this (here).
    Unimplemented,
    /// Content is not what its digest says, or a store is damaged.
    DataLoss,
    /// Everything else.
    Internal,
}

impl Kind {
    fn code(self) -> Code {
        match self {
            Self::InvalidArgument => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::PermissionDenied => Code::PermissionDenied,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::FailedPrecondition => Code::FailedPrecondition,
            Self::ResourceExhausted => Code::ResourceExhausted,
            Self::Aborted => Code::Aborted,
            Self::Unavailable => Code::Unavailable,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Cancelled => Code::Cancelled,
            Self::Unimplemented => Code::Unimplemented,
            Self::DataLoss => Code::DataLoss,
            Self::Internal => Code::Internal,
        }
    }

    fn from_code(code: Code) -> Self {
        match code {
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidArgument,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::PermissionDenied => Self::PermissionDenied,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::FailedPrecondition => Self::FailedPrecondition,
            Code::ResourceExhausted => Self::ResourceExhausted,
            Code::Aborted => Self::Aborted,
            Code::Unavailable => Self::Unavailable,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::Cancelled => Self::Cancelled,
            Code::Unimplemented => Self::Unimplemented,
            Code::DataLoss => Self::DataLoss,
            Code::Ok | Code::Unknown | Code::Internal => Self::Internal,
        }
    }
}

/// A failure as a caller is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The sort of failure.
    pub kind: Kind,
    /// What failed, on what, and why, in one sentence without a full stop.
    pub message: String,
    /// A stable upper-case word for programs (`COMMAND_NOT_FOUND`); empty where the kind says it all.
    pub reason: String,
    /// What to do about it; empty where nothing helps.
    pub hint: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), reason: String::new(), hint: String::new() }
    }

    /// From an error with everything that caused it.
    pub fn from_error(kind: Kind, error: &dyn std::error::Error) -> Self {
        Self::new(kind, chain(error))
    }

    /// With a stable word for programs.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// An error and its causes, joined by colons, none said twice.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " ({})", self.hint) }
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        if failure.reason.is_empty() && failure.hint.is_empty() {
            return Status::new(failure.kind.code(), failure.message);
        }
        let mut metadata = HashMap::new();
        if !failure.hint.is_empty() {
            metadata.insert(HINT.to_owned(), failure.hint);
        }
        let details = ErrorDetails::with_error_info(failure.reason, DOMAIN, metadata);
        Status::with_error_details(failure.kind.code(), failure.message, details)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        let mut failure = Failure::new(Kind::from_code(status.code()), status.message());
        if let Some(mut info) = status.get_details_error_info()
            && info.domain == DOMAIN
        {
            failure.reason = std::mem::take(&mut info.reason);
            failure.hint = info.metadata.remove(HINT).unwrap_or_default();
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_wire() {
        let failure = Failure::new(Kind::NotFound, "no such image: x")
            .reason("IMAGE_NOT_FOUND")
            .hint("pull it with berth pull x");
        assert_eq!(Failure::from(Status::from(failure.clone())), failure);
        let plain = Failure::new(Kind::Internal, "boom");
        assert_eq!(Failure::from(Status::from(plain.clone())), plain);
    }
}
