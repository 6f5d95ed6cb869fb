//! What can go wrong in making a container.

/// A failure, told so that it can be shown to whoever typed the command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not there; exit code 127.
    #[error("{0}")]
    CommandNotFound(String),
    /// The program is there and cannot be executed; exit code 126.
    #[error("{0}")]
    NotExecutable(String),
    /// A step failed.
    #[error("{what}: {why}")]
    Step {
        /// What was being done, to what.
        what: String,
        /// Why it failed.
        why: String,
    },
    /// The bundle asks for something that cannot be meant.
    #[error("the container's configuration cannot be used: {0}")]
    Spec(String),
    /// The bundle asks for something that berth, or this machine, cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// The container has no process any more.
    #[error("the container is not running")]
    NotRunning,
    /// The container's processes are frozen.
    #[error("the container is paused, resume it first")]
    Paused,
}

impl Error {
    /// A failed step.
    pub fn step(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Step { what: what.into(), why: why.to_string() }
    }
}

/// Says what was being done when something failed.
pub(crate) trait Step<T> {
    /// With a text made only when needed.
    fn step<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Error>;
}

impl<T, E: ToString> Step<T> for Result<T, E> {
    fn step<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Error> {
        self.map_err(|error| Error::step(what(), error))
    }
}
