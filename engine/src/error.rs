//! The one error type of the engine: what the caller can do about it, in words, with the cause.

use std::fmt;

use crate::object::Oid;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is malformed or breaks a rule; sending it again cannot succeed.
    Invalid,
    /// A named thing (repository, reference, object, path) is not there.
    NotFound,
    /// It was there, and is not kept any more.
    Gone,
    /// A thing of that name is there already.
    Exists,
    /// A reference is not what the caller expected; read again and retry.
    Conflict(Box<RefConflict>),
    /// The input is larger than a limit allows.
    TooLarge,
    /// The request names more than a limit allows.
    LimitExceeded,
    /// The storage is full; nothing was stored, reads go on.
    StorageFull,
    /// The storage cannot be reached for now; nothing was stored, what is in memory can be read.
    Unavailable,
    /// The memory budget cannot hold the data of memory repositories.
    OutOfBudget,
    /// Stored or received bytes are not what they must be.
    Corrupt,
    /// The store is read-only after a failed write, or is closing.
    Closed,
    /// The caller's deadline passed, or it went away.
    Cancelled,
    /// The backend failed.
    Backend,
}

/// The reference that did not hold what a transaction expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefConflict {
    /// The reference's full name.
    pub name: String,
    /// What the transaction expected; `None` if the reference was to be absent.
    pub expected: Option<Oid>,
    /// What it is; `None` if it is absent.
    pub actual: Option<Oid>,
    /// Where the changes could have been redone on what it is, the paths that stood in the way.
    pub paths: Vec<String>,
}

/// An error of the engine. Cheap to clone, so that a failed group commit answers all its transactions.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<std::sync::Arc<dyn std::error::Error + Send + Sync>>,
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with a message: lower case, naming the object, no full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Whether the storage took nothing of a write, and may take a later one.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.kind, ErrorKind::StorageFull | ErrorKind::Unavailable)
    }

    /// [`ErrorKind::Invalid`] with a message.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// [`ErrorKind::NotFound`] with a message.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::Corrupt`] with a message.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// [`ErrorKind::TooLarge`] with a message.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::TooLarge, message)
    }

    /// [`ErrorKind::LimitExceeded`] by `count` things of which there may be `limit`.
    pub(crate) fn limit(what: &str, count: usize, limit: usize) -> Self {
        Self::new(ErrorKind::LimitExceeded, format!("{count} {what}; the limit is {limit}"))
    }

    /// A failed expectation on reference `name`.
    pub fn conflict(name: &str, expected: Option<Oid>, actual: Option<Oid>) -> Self {
        let show = |oid: Option<Oid>| oid.map_or_else(|| "absent".to_owned(), |oid| oid.to_string());
        let message = format!("reference {name} is {}, expected {}", show(actual), show(expected));
        let conflict = RefConflict { name: name.to_owned(), expected, actual, paths: Vec::new() };
        Self::new(ErrorKind::Conflict(Box::new(conflict)), message)
    }

    /// The same conflict with the paths that both sides changed.
    #[must_use]
    pub(crate) fn with_paths(mut self, paths: &[Vec<u8>]) -> Self {
        if let ErrorKind::Conflict(conflict) = &mut self.kind {
            conflict.paths = paths.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
            self.message = format!("{}; both sides changed {}", self.message, conflict.paths.join(", "));
        }
        self
    }

    /// The same error with the cause attached.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(std::sync::Arc::new(source));
        self
    }

    /// The same error with `context: ` before its message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The message without its causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the error is [`ErrorKind::NotFound`].
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
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
