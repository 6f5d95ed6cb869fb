//! What can go wrong in making a container.

/// A failure, told so that it can be shown to whoever typed the command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The program is not there.
    #[error("{0}")]
    CommandNotFound(String),
    /// The program is there and cannot be executed.
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
    /// The bundle asks for something that does not exist or is not supported.
    #[error("the container's configuration cannot be used: {0}")]
    Spec(String),
}

impl Error {
    /// A failed step.
    pub(crate) fn step(what: impl Into<String>, why: impl ToString) -> Self {
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
