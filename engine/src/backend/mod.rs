//! What the engine asks of a durable store: an atomic, ordered map with named key spaces.
//!
//! All meaning stays in the engine, so every backend holds the same bytes and a store can be copied from one to
//! another. The trait belongs to its caller; the crate `govc-backends` implements it.

mod batch;
pub(crate) mod key;

use std::{fmt, ops::Bound};

use bytes::Bytes;

pub use batch::{Batch, Op, Precondition};

/// A key space of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// Repositories.
    Catalog,
    /// References as of the newest settled version.
    Refs,
    /// Versions: edits, time, actor, cause; and the feed.
    History,
    /// Group commits that are not settled.
    Journal,
    /// Blocks of objects.
    Blocks,
    /// Where each object is.
    Ids,
    /// The format version and the server's own records.
    Meta,
}

impl Family {
    /// All families, in the order of their numbers.
    pub const ALL: [Family; 7] =
        [Family::Catalog, Family::Refs, Family::History, Family::Journal, Family::Blocks, Family::Ids, Family::Meta];

    /// The family's word, as backends name tables and column families.
    pub fn name(self) -> &'static str {
        match self {
            Family::Catalog => "catalog",
            Family::Refs => "refs",
            Family::History => "history",
            Family::Journal => "journal",
            Family::Blocks => "blocks",
            Family::Ids => "ids",
            Family::Meta => "meta",
        }
    }
}

/// Whether a write must be on stable storage before it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// It must, with all writes before it.
    Yes,
    /// It may be lost in a crash, but only together with every later write.
    No,
}

/// What a scan visits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The lower bound.
    pub from: Bound<Vec<u8>>,
    /// The upper bound.
    pub to: Bound<Vec<u8>>,
    /// Whether the greatest key comes first.
    pub reverse: bool,
}

impl Scan {
    /// Every key, ascending.
    pub fn all() -> Self {
        Self { from: Bound::Unbounded, to: Bound::Unbounded, reverse: false }
    }

    /// Every key that begins with `prefix`, ascending.
    pub fn prefix(prefix: &[u8]) -> Self {
        let to = key::after_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        Self { from: Bound::Included(prefix.to_vec()), to, reverse: false }
    }

    /// The same keys, greatest first.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.reverse = !self.reverse;
        self
    }
}

/// Where a backend keeps its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The backend's word: `rocksdb`, `memory`, ...
    pub kind: &'static str,
    /// Folder or address.
    pub location: String,
    /// Whether [`Sync::Yes`] survives the process and the machine.
    pub durable: bool,
}

/// What a backend holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk, log included, where there is a disk.
    pub disk_bytes: Option<u64>,
    /// Bytes of each family, as far as the backend can tell; estimates.
    pub families: Vec<(Family, u64)>,
}

/// What went wrong in a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendErrorKind {
    /// No room; nothing of the batch was written, and a later write may succeed.
    Full,
    /// The precondition of this position in the batch does not hold; nothing was written.
    PreconditionFailed {
        /// Index into [`Batch::preconditions`].
        index: usize,
    },
    /// Another process has the store open.
    Locked,
    /// What is stored is damaged.
    Corrupt,
    /// The backend has been closed.
    Closed,
    /// Another server has taken the store over; nothing was written, and no later write of this handle will be.
    Fenced,
    /// The storage cannot be reached for now; nothing of a write was written, and a later call may succeed.
    Unavailable,
    /// Anything else; what became of a write is not known.
    Failed,
}

impl BackendErrorKind {
    /// Whether nothing of a write is there, and a later one may succeed.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Full | Self::Unavailable)
    }
}

/// An error of a backend.
#[derive(Debug, Clone)]
pub struct BackendError {
    /// What went wrong.
    pub kind: BackendErrorKind,
    /// In words, lower case.
    pub message: String,
}

impl BackendError {
    /// An error of this kind.
    pub fn new(kind: BackendErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BackendError {}

impl From<BackendError> for crate::Error {
    fn from(error: BackendError) -> Self {
        use crate::ErrorKind;
        let kind = match error.kind {
            BackendErrorKind::Full => ErrorKind::StorageFull,
            BackendErrorKind::Unavailable => ErrorKind::Unavailable,
            BackendErrorKind::Corrupt => ErrorKind::Corrupt,
            BackendErrorKind::Closed => ErrorKind::Closed,
            BackendErrorKind::PreconditionFailed { .. }
            | BackendErrorKind::Locked
            | BackendErrorKind::Fenced
            | BackendErrorKind::Failed => ErrorKind::Backend,
        };
        crate::Error::new(kind, error.message.clone()).with_source(error)
    }
}

/// A backend's result.
pub type BackendResult<T> = std::result::Result<T, BackendError>;

/// The entries of a scan, in order.
pub type Entries<'a> = Box<dyn Iterator<Item = BackendResult<(Bytes, Bytes)>> + 'a>;

/// A durable, atomic, ordered map. `govc_backends::contract` tests what is promised here.
pub trait Backend: Send + std::marker::Sync + 'static {
    /// The value of `key`, as of the last write that returned.
    ///
    /// # Errors
    /// When the backend fails or is closed.
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>>;

    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// As [`Backend::get`].
    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> BackendResult<Vec<Option<Bytes>>> {
        keys.iter().map(|key| self.get(family, key)).collect()
    }

    /// The entries of a range in key order, as of the moment of the call.
    ///
    /// # Errors
    /// As [`Backend::get`]; also from each entry.
    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>>;

    /// Applies a batch: all of it or nothing, after its preconditions were found to hold in the same moment.
    /// Operations apply in order, so the last one on a key wins.
    ///
    /// # Errors
    /// [`BackendErrorKind::Full`], [`BackendErrorKind::PreconditionFailed`], [`BackendErrorKind::Fenced`] and
    /// [`BackendErrorKind::Unavailable`]: nothing was written.
    /// [`BackendErrorKind::Failed`]: it is unknown whether the batch is there, now or after a restart.
    fn write(&self, batch: Batch, sync: Sync) -> BackendResult<()>;

    /// Makes every earlier write durable.
    ///
    /// # Errors
    /// As [`Backend::write`].
    fn sync(&self) -> BackendResult<()>;

    /// What this backend is.
    fn describe(&self) -> Description;

    /// What it holds.
    ///
    /// # Errors
    /// As [`Backend::get`].
    fn usage(&self) -> BackendResult<Usage>;

    /// Makes everything durable and lets go of the data; every later call fails with
    /// [`BackendErrorKind::Closed`]. Closing twice is fine.
    ///
    /// # Errors
    /// As [`Backend::sync`].
    fn close(&self) -> BackendResult<()>;
}
