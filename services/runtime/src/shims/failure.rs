//! What a shim says when it refuses, told apart by what the caller must do.

use berth_core::{Failure as Said, Kind};
use ttrpc::Code;

use crate::error::Error;

/// What sort of refusal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The program, or the process, is not there.
    NotFound,
    /// The program cannot be executed.
    NotExecutable,
    /// Not running, or paused.
    State,
    /// The configuration cannot be used.
    Invalid,
    /// Not possible here.
    Unimplemented,
    /// It did not answer in time.
    Late,
    /// There is nobody behind the socket any more.
    Gone,
    /// Everything else.
    Internal,
}

/// A shim's refusal.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Exit code of a container, or of an exec, whose start failed so.
    pub(crate) fn exit_code(&self) -> i32 {
        match self.reason {
            Reason::NotFound => 127,
            Reason::NotExecutable => 126,
            _ => 128,
        }
    }
}

impl From<ttrpc::Error> for Failure {
    fn from(error: ttrpc::Error) -> Self {
        let ttrpc::Error::RpcStatus(status) = error else {
            return Self::new(Reason::Gone, format!("the shim is gone ({error})"));
        };
        let reason = match status.code() {
            Code::NOT_FOUND => Reason::NotFound,
            Code::PERMISSION_DENIED => Reason::NotExecutable,
            Code::FAILED_PRECONDITION => Reason::State,
            Code::INVALID_ARGUMENT => Reason::Invalid,
            Code::UNIMPLEMENTED => Reason::Unimplemented,
            Code::DEADLINE_EXCEEDED => Reason::Late,
            _ => Reason::Internal,
        };
        Self::new(reason, status.message())
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let (kind, word) = match failure.reason {
            Reason::NotFound => (Kind::NotFound, "COMMAND_NOT_FOUND"),
            Reason::NotExecutable => (Kind::InvalidArgument, "COMMAND_NOT_EXECUTABLE"),
            Reason::State => (Kind::FailedPrecondition, ""),
            Reason::Invalid => (Kind::InvalidArgument, ""),
            Reason::Unimplemented => (Kind::Unimplemented, ""),
            Reason::Late => (Kind::DeadlineExceeded, ""),
            Reason::Gone => (Kind::Unavailable, ""),
            Reason::Internal => (Kind::Internal, ""),
        };
        Said::new(kind, failure.message).reason(word).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_127_and_says_so() {
        let refused = ttrpc::get_status(Code::NOT_FOUND, "exec: \"x\": executable file not found in $PATH");
        let failure = Failure::from(ttrpc::Error::RpcStatus(refused));
        assert_eq!(failure.exit_code(), 127);
        let Error::Said(said) = Error::from(failure) else { panic!("it is the shim's word") };
        assert_eq!((said.reason.as_str(), said.kind), ("COMMAND_NOT_FOUND", Kind::NotFound));
    }
}
