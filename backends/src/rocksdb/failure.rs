//! What RocksDB's statuses mean to the caller.
//!
//! RocksDB reports a status as text whose first words are its code; its Rust binding has no sub-codes, so "no
//! space" and "locked" are told from the words that RocksDB itself puts there.

use std::path::Path;

use govc_engine::backend::{BackendError, BackendErrorKind};

/// RocksDB's words for the sub-code of a full disk.
const NO_SPACE: &str = "No space left on device";
/// RocksDB's words when this process, or another one, holds the folder's lock.
const LOCK_HELD: [&str; 2] = ["lock hold by current process", "While lock file"];

/// The error of a failed open.
pub(super) fn of_open(folder: &Path, error: &::rocksdb::Error) -> BackendError {
    let folder = folder.display();
    if LOCK_HELD.iter().any(|words| error.as_ref().contains(words)) {
        let message =
            format!("the store in {folder} is in use by another process (it holds the lock file there): {error}");
        return BackendError::new(BackendErrorKind::Locked, message);
    }
    BackendError::new(kind_of(error), format!("cannot open the store in {folder}: {error}"))
}

/// The error of a failed read.
pub(super) fn of_read(folder: &Path, error: &::rocksdb::Error) -> BackendError {
    BackendError::new(kind_of(error), format!("cannot read the store in {}: {error}", folder.display()))
}

/// The error of a failed write or sync. Never [`BackendErrorKind::Full`], which promises that nothing was
/// written: a log record that met a full disk half-way, or whose sync did, may be there after a restart.
pub(super) fn of_write(folder: &Path, error: &::rocksdb::Error) -> BackendError {
    let kind = match kind_of(error) {
        BackendErrorKind::Corrupt => BackendErrorKind::Corrupt,
        _ => BackendErrorKind::Failed,
    };
    BackendError::new(kind, format!("cannot write the store in {}: {error}", folder.display()))
}

fn kind_of(error: &::rocksdb::Error) -> BackendErrorKind {
    match error.kind() {
        ::rocksdb::ErrorKind::Corruption => BackendErrorKind::Corrupt,
        ::rocksdb::ErrorKind::IOError if error.as_ref().contains(NO_SPACE) => BackendErrorKind::Full,
        _ => BackendErrorKind::Failed,
    }
}
