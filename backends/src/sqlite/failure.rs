//! What SQLite's results mean to the caller.

use std::path::Path;

use govc_engine::backend::{BackendError, BackendErrorKind};
use rusqlite::ErrorCode;

/// The error of a failed open.
pub(super) fn of_open(folder: &Path, error: &rusqlite::Error) -> BackendError {
    let folder = folder.display();
    let kind = kind_of(error);
    let message = if kind == BackendErrorKind::Locked {
        format!("the database in {folder} is in use by another process: {error}")
    } else {
        format!("cannot open the store in {folder}: {error}")
    };
    BackendError::new(kind, message)
}

/// The error of a file or folder that could not be used.
pub(super) fn of_file(path: &Path, what: &str, error: &std::io::Error) -> BackendError {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => BackendErrorKind::Full,
        _ => BackendErrorKind::Failed,
    };
    BackendError::new(kind, format!("cannot {what} {}: {error}", path.display()))
}

/// The error of a failed read.
pub(super) fn of_read(folder: &Path, error: &rusqlite::Error) -> BackendError {
    let kind = match kind_of(error) {
        BackendErrorKind::Corrupt => BackendErrorKind::Corrupt,
        _ => BackendErrorKind::Failed,
    };
    BackendError::new(kind, format!("cannot read the store in {}: {error}", folder.display()))
}

/// The error of a write that was rolled back, so that nothing of it is there, or not, which the caller says: only
/// the former can be [`BackendErrorKind::Full`] or [`BackendErrorKind::Unavailable`].
pub(super) fn of_write(folder: &Path, error: &rusqlite::Error, rolled_back: bool) -> BackendError {
    let folder = folder.display();
    match kind_of(error) {
        BackendErrorKind::Full if rolled_back => {
            BackendError::new(BackendErrorKind::Full, format!("the disk of {folder} is full: {error}"))
        }
        BackendErrorKind::Locked if rolled_back => {
            let message =
                format!("another program writes the database in {folder}, which belongs to this one: {error}");
            BackendError::new(BackendErrorKind::Unavailable, message)
        }
        BackendErrorKind::Corrupt => {
            BackendError::new(BackendErrorKind::Corrupt, format!("cannot write the store in {folder}: {error}"))
        }
        _ => BackendError::new(BackendErrorKind::Failed, format!("cannot write the store in {folder}: {error}")),
    }
}

/// Whether a write failed for a reason that lies in the batch or in the process's memory rather than in the files.
pub(super) fn leaves_files_alone(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::OutOfMemory | ErrorCode::TooBig))
}

/// Whether a checkpoint could not end because somebody reads an old moment.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether there was no room.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    kind_of(error) == BackendErrorKind::Full
}

fn kind_of(error: &rusqlite::Error) -> BackendErrorKind {
    match error {
        // A column that does not hold what the schema says.
        rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => {
            BackendErrorKind::Corrupt
        }
        error => match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => BackendErrorKind::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => BackendErrorKind::Corrupt,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => BackendErrorKind::Locked,
            _ => BackendErrorKind::Failed,
        },
    }
}
