//! What can go wrong while a store is moved.

use std::fmt;

use govc_engine::{BackendError, Progress};

/// What went wrong, by what the caller can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It was refused, and nothing was changed: the target holds something, or files do not belong together.
    Refused,
    /// A file, or what a backend gives, is damaged.
    Damaged,
    /// What was written is not what is read back.
    Unequal,
    /// A backend failed. A copy may be begun again, and goes on.
    Backend,
    /// A file could not be read or written.
    File,
    /// The caller asked for the end. A copy may be begun again, and goes on.
    Cancelled,
}

/// An error, in words.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn damaged(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    /// A failure of a file, named with its path or role.
    pub(crate) fn file(what: impl fmt::Display, error: std::io::Error) -> Self {
        let message = format!("{what}: {error}");
        Self { kind: ErrorKind::File, message, source: Some(Box::new(error)) }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

impl From<BackendError> for Error {
    fn from(error: BackendError) -> Self {
        Self { kind: ErrorKind::Backend, message: error.message.clone(), source: Some(Box::new(error)) }
    }
}

impl From<govc_engine::Error> for Error {
    fn from(error: govc_engine::Error) -> Self {
        let kind = match error.kind() {
            govc_engine::ErrorKind::Corrupt => ErrorKind::Damaged,
            _ => ErrorKind::Backend,
        };
        Self { kind, message: error.to_string(), source: Some(Box::new(error)) }
    }
}

/// Ends the work if that was asked for.
pub(crate) fn check_cancelled(progress: &dyn Progress) -> Result<()> {
    if progress.is_cancelled() { Err(Error::new(ErrorKind::Cancelled, "ended on request")) } else { Ok(()) }
}
