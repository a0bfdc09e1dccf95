//! The one error type of the benchmark: what its caller can do about it, and in words what happened.

use std::fmt;

use govc_engine::{BackendError, BackendErrorKind};

/// What went wrong, by what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The plan, or the file that it names, cannot be used.
    Invalid,
    /// The run was asked to stop.
    Cancelled,
    /// The two reports do not measure the same.
    Incomparable,
    /// A file could not be read or written.
    Files,
    /// The backend, or the engine above it, failed.
    Storage,
    /// A preparation took so long that it was given up.
    TooSlow,
    /// What was read is not what was written.
    Wrong,
}

/// An error of the benchmark.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// The benchmark's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind` with a message: lower case, naming the object, no full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "the benchmark was asked to stop")
    }

    pub(crate) fn wrong(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Wrong, message)
    }

    pub(crate) fn files(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Files, format!("{what}: {error}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<BackendError> for Error {
    fn from(error: BackendError) -> Self {
        let kind = if error.kind == BackendErrorKind::Corrupt { ErrorKind::Wrong } else { ErrorKind::Storage };
        Self::new(kind, format!("{} ({:?})", error.message, error.kind))
    }
}

impl From<govc_engine::Error> for Error {
    fn from(error: govc_engine::Error) -> Self {
        use govc_engine::ErrorKind::{Corrupt, Gone, NotFound};
        // The benchmark asks for nothing that it has not stored.
        let is_wrong = matches!(error.kind(), Corrupt | NotFound | Gone);
        let kind = if is_wrong { ErrorKind::Wrong } else { ErrorKind::Storage };
        Self::new(kind, format!("the engine: {error}"))
    }
}
