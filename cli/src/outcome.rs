//! How a command ends: what it says on standard error and with which exit code, as Docker does: 125 for what berth
//! refuses in `run`, 126 and 127 for programs that cannot be executed or are not there, the container's own code
//! otherwise, 1 elsewhere.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use berth_core::{Failure, Kind, failure::chain};

use crate::{args::Entry, client::Unanswered};

/// Why a command cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A flag that is not there, or one without its value.
    #[error("{message}\nSee '{see}'.")]
    Usage {
        /// What is wrong.
        message: String,
        /// Which command explains.
        see: String,
    },
    /// Too few or too many operands.
    #[error("'berth {path}' {wanted}\n\n{usage}\nSee 'berth {path} --help'.")]
    Operands {
        /// The command.
        path: String,
        /// How many it takes.
        wanted: String,
        /// How it is used.
        usage: String,
    },
    /// No such command.
    #[error("unknown command: berth {command}{}\n\nRun 'berth --help' for a list of commands", said(like))]
    UnknownCommand {
        /// What was typed.
        command: String,
        /// What may have been meant.
        like: Option<&'static str>,
    },
    /// A command of Docker's that this version does not have.
    #[error(
        "berth {command} is not there yet: this version of berth has no service for it; 'berth --help' lists what it can do"
    )]
    Absent {
        /// The command.
        command: String,
    },
    /// A value that cannot be meant.
    #[error("{0}")]
    Invalid(String),
    /// A flag that Docker has and this version's services do not.
    #[error("--{flag} is not supported: {why}")]
    Unsupported {
        /// The flag, without hyphens.
        flag: String,
        /// Why, and what to do.
        why: String,
    },
    /// The service says no.
    #[error("Error response from daemon: {0}")]
    Service(Failure),
    /// `--host` cannot be used.
    #[error("the host {host:?} cannot be used: {why}")]
    Host {
        /// What was given.
        host: String,
        /// Why not.
        why: String,
    },
    /// Nobody answers on the socket.
    #[error("cannot connect to berth at unix://{}: {source}. {hint}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The connection broke in the middle of a call.
    #[error("the connection to the node broke: {0}. The node went away during the call; containers go on. Try again")]
    Broken(String),
    /// The node hung up before it ever answered.
    #[error(
        "the node closed the connection without an answer: {0}. It does so to users that are neither root nor in its group \
         (berth): call berth as root, or join the group and log in again"
    )]
    Refused(String),
    /// A file or stream of the caller's.
    #[error("{what}: {}", plain(source))]
    Io {
        /// What was done to what.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// `--format` cannot be used.
    #[error("template parsing error: {0}")]
    Template(String),
    /// A service answered something that it must not answer.
    #[error("the service broke its contract: {0}")]
    Contract(&'static str),
    /// Standard input is not a terminal.
    #[error("the input device is not a TTY")]
    NotATerminal,
    /// Everything is said; only the exit code is left.
    #[error("exit code {0}")]
    Said(u8),
}

fn said(like: &Option<&'static str>) -> String {
    like.map(|like| format!("; did you mean 'berth {like}'?")).unwrap_or_default()
}

/// What the system says, as Docker words it: "no such file or directory".
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        (Some(first), Some(' ')) => first.to_lowercase().chain(text.chars().skip(1)).collect(),
        _ => text.to_owned(),
    }
}

impl Error {
    /// What was done to which file or stream, and why it failed.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The service said no in this way.
    pub(crate) fn is(&self, kind: Kind) -> bool {
        matches!(self, Self::Service(failure) if failure.kind == kind)
    }

    /// The exit code for a command with these codes.
    pub(crate) fn code(&self, entry: Option<&Entry>) -> u8 {
        let (refused, denied) = entry.map_or((1, 1), |entry| entry.codes);
        match self {
            Self::Said(code) => *code,
            Self::Usage { .. } => 125,
            Self::NotATerminal => 1,
            Self::Invalid(_) | Self::Unsupported { .. } => refused,
            Self::Service(failure) if denied != 1 || refused != 1 => match failure.reason.as_str() {
                "COMMAND_NOT_FOUND" => 127,
                "COMMAND_NOT_EXECUTABLE" => 126,
                _ => denied,
            },
            Self::Service(_) => 1,
            Self::Connect { .. }
            | Self::Broken(_)
            | Self::Refused(_)
            | Self::Io { .. }
            | Self::Contract(_)
            | Self::Host { .. } => denied,
            Self::Operands { .. } | Self::UnknownCommand { .. } | Self::Absent { .. } | Self::Template(_) => 1,
        }
    }

    /// What a person reads.
    pub(crate) fn print(&self) {
        if !matches!(self, Self::Said(_)) {
            // A standard error that is gone is no reason to fail otherwise.
            let _ = writeln!(io::stderr(), "berth: {self}");
        }
    }
}

/// Why a call was not answered: what tonic has to say about it, without that it was not.
fn reason(call: &Unanswered) -> String {
    std::error::Error::source(call).map(chain).unwrap_or_default()
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        let cause = std::error::Error::source(&status);
        if let Some(cause) = cause {
            return match cause.downcast_ref::<Unanswered>() {
                Some(call) if call.may_be_refused => Self::Refused(reason(call)),
                Some(call) => Self::Broken(reason(call)),
                None => Self::Broken(chain(cause)),
            };
        }
        let code = status.code();
        let mut failure = Failure::from(status);
        if failure.message.is_empty() {
            // What answers for a method that nobody serves.
            failure.message = code.description().to_owned();
            if code == tonic::Code::Unimplemented {
                failure.message = "the service that listens there does not have this call".into();
                failure.hint = "is --host the node's berth.sock, and berthd as new as berth?".into();
            }
        }
        Self::Service(failure)
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::Invalid(message)
    }
}
