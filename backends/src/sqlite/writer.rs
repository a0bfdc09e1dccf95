//! The one connection that writes: a batch becomes a transaction, all of it or nothing.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use govc_engine::backend::{BackendError, BackendErrorKind, BackendResult, Batch, Family, Op, Precondition};
use rusqlite::hooks::Wal;
use rusqlite::limits::Limit;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, MAIN_DB, OptionalExtension, params};

use super::folder::Folder;
use super::options::SqliteOptions;
use super::sizes::Sizes;
use super::{failure, schema};
use crate::memory::precondition_failed;
use crate::room::Room;
use crate::span::Span;

/// What a record takes beside key and value: a header of at most three varints.
const RECORD_HEADER_BYTES: usize = 32;

/// The one connection that writes.
pub(super) struct Writer {
    connection: Connection,
    folder: PathBuf,
    file: PathBuf,
    room: Room,
    page_bytes: u64,
    /// Bytes that SQLite takes for a row.
    row_bytes_max: usize,
    /// As of the last commit.
    sizes: Sizes,
    /// As they are in the database.
    stored: Sizes,
    /// Frames in the log, as the last commit left it.
    frames: Arc<AtomicU64>,
}

/// Why a batch was not written.
pub(super) enum Refusal {
    /// Nothing of it is there, and the next one may fare better.
    Nothing(BackendError),
    /// It is unknown what is in the files.
    Unknown(BackendError),
}

impl Writer {
    /// Opens the connection, which replays the log of an earlier life. `frames` is told how long the log is.
    pub(super) fn open(folder: &Folder, options: &SqliteOptions, frames: Arc<AtomicU64>) -> BackendResult<Self> {
        let room = Room::of(folder.path().to_path_buf(), options.reserve_bytes)?;
        let failed = |error| failure::of_open(folder.path(), &error);
        let mut connection = options.writer(&folder.file()).map_err(failed)?;
        let page_bytes: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(failed)?;
        let sizes = Sizes::load(&connection).map_err(failed)?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, i32::MAX).map_err(failed)?;
        let row_bytes_max = connection.limit(Limit::SQLITE_LIMIT_LENGTH).map_err(failed)?;
        let told = Arc::clone(&frames);
        connection
            .wal_hook(Some(move |_: &mut Wal, pages| {
                // Only a signal to the checkpointer: no data hang on it.
                told.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
                Ok(())
            }))
            .map_err(failed)?;
        Ok(Self {
            connection,
            folder: folder.path().to_path_buf(),
            file: folder.file(),
            room,
            page_bytes: u64::try_from(page_bytes).unwrap_or(0),
            row_bytes_max: usize::try_from(row_bytes_max).unwrap_or(0),
            sizes,
            stored: sizes,
            frames,
        })
    }

    /// Bytes of keys and values of each family.
    pub(super) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Bytes of the log's pages, as the last commit left it.
    pub(super) fn log_bytes(&self) -> u64 {
        self.frames.load(Ordering::Relaxed).saturating_mul(self.page_bytes)
    }

    /// Checks the preconditions alone.
    pub(super) fn check(&self, preconditions: &[Precondition]) -> BackendResult<()> {
        for (index, precondition) in preconditions.iter().enumerate() {
            let (family, key, wanted) = match precondition {
                Precondition::Absent { family, key } => (*family, key, None),
                Precondition::Value { family, key, value } => (*family, key, Some(value)),
            };
            let holds = self
                .connection
                .prepare_cached(schema::of(family).get)
                .and_then(|mut statement| {
                    let mut rows = statement.query([&key[..]])?;
                    let found = match rows.next()? {
                        Some(row) => Some(row.get_ref(0)?.as_blob()?),
                        None => None,
                    };
                    Ok(found == wanted.map(|value| &value[..]))
                })
                .map_err(|error| failure::of_read(&self.folder, &error))?;
            if !holds {
                return Err(precondition_failed(index, family, key));
            }
        }
        Ok(())
    }

    /// Writes a batch to the log, which may be on its way to the disk then.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), Refusal> {
        let bytes = self.check_rows(&batch.ops).map_err(Refusal::Nothing)?;
        self.check(&batch.preconditions).map_err(Refusal::Nothing)?;
        self.check_room(bytes, batch.uses_reserve)?;
        let mut sizes = self.sizes;
        let mut stored = self.stored;
        let result = apply(&self.connection, &batch.ops, &mut sizes).and_then(|()| {
            if sizes.is_far_from(&stored) {
                sizes.store(&self.connection, &stored)?;
                stored = sizes;
            }
            self.connection.prepare_cached("COMMIT")?.execute([])
        });
        match result {
            Ok(_) => {
                (self.sizes, self.stored) = (sizes, stored);
                Ok(())
            }
            Err(error) => Err(self.roll_back(&error)),
        }
    }

    /// Notes that a checkpoint has emptied the log.
    pub(super) fn log_began_anew(&self) {
        self.frames.store(0, Ordering::Relaxed);
    }

    /// Copies all that the log holds to where it belongs and shortens it to nothing, which makes the next open quick.
    /// A failure loses nothing: the log, which is synced, holds everything.
    pub(super) fn empty_log(&self) {
        let _ = self.connection.busy_timeout(Duration::ZERO);
        let _ = self.connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::TRUNCATE);
    }

    /// Stores the counts of the families, all that a close has to write.
    pub(super) fn store_sizes(&mut self) -> rusqlite::Result<()> {
        self.sizes.store(&self.connection, &self.stored)?;
        self.stored = self.sizes;
        Ok(())
    }

    /// Ends the transaction after a failure. SQLite has done that itself after some.
    fn roll_back(&self, error: &rusqlite::Error) -> Refusal {
        if !self.connection.is_autocommit() {
            // Told by `is_autocommit` below.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        let rolled_back = self.connection.is_autocommit();
        let refusal = failure::of_write(&self.folder, error, rolled_back);
        let is_passing = matches!(refusal.kind, BackendErrorKind::Full | BackendErrorKind::Unavailable);
        if rolled_back && (is_passing || failure::leaves_files_alone(error)) {
            Refusal::Nothing(refusal)
        } else {
            Refusal::Unknown(refusal)
        }
    }

    /// Bytes of a batch, if each of its rows is one that SQLite takes.
    fn check_rows(&self, ops: &[Op]) -> BackendResult<usize> {
        let mut bytes = 0_usize;
        for op in ops {
            let row = match op {
                Op::Put { key, value, .. } => key.len().saturating_add(value.len()),
                Op::Delete { key, .. } => key.len(),
                Op::DeleteRange { from, to, .. } => from.len().max(to.len()),
            };
            if row.saturating_add(RECORD_HEADER_BYTES) > self.row_bytes_max {
                let message = format!("an entry of {row} bytes is more than SQLite takes ({})", self.row_bytes_max);
                return Err(BackendError::new(BackendErrorKind::Failed, message));
            }
            bytes = bytes.saturating_add(row);
        }
        Ok(bytes)
    }

    /// Begins the transaction and checks that it fits: once in the log and, as far as no freed pages take it, once in
    /// the database, with all that the log holds and the database does not.
    fn check_room(&self, bytes: usize, uses_reserve: bool) -> Result<(), Refusal> {
        let number = |pragma| -> rusqlite::Result<u64> {
            let pages: i64 = self.connection.prepare_cached(pragma)?.query_row([], |row| row.get(0))?;
            Ok(u64::try_from(pages).unwrap_or(0).saturating_mul(self.page_bytes))
        };
        let begin = || {
            self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            Ok((number("PRAGMA page_count")?, number("PRAGMA freelist_count")?))
        };
        let (pages, spare) = begin().map_err(|error| self.roll_back(&error))?;
        // A file that cannot be asked is found out by the write.
        let there = fs::metadata(&self.file).map_or(pages, |file| file.len());
        let batch = bytes as u64;
        let growth = pages.saturating_sub(there).saturating_add(batch).saturating_sub(spare);
        self.room.check(bytes, batch.saturating_add(growth), uses_reserve).map_err(|error| {
            let _ = self.connection.execute_batch("ROLLBACK");
            if self.connection.is_autocommit() { Refusal::Nothing(error) } else { Refusal::Unknown(error) }
        })
    }
}

fn apply(connection: &Connection, ops: &[Op], sizes: &mut Sizes) -> rusqlite::Result<()> {
    for op in ops {
        match op {
            Op::Put { family, key, value } => put(connection, *family, key, value, sizes)?,
            Op::Delete { family, key } => {
                if let Some(bytes) = value_bytes(connection, *family, key)? {
                    connection.prepare_cached(schema::of(*family).delete)?.execute([&key[..]])?;
                    sizes.shrink(*family, bytes.saturating_add(key.len() as u64));
                }
            }
            Op::DeleteRange { family, from, to } => {
                if let Some(Span { from, to: Some(to) }) = Span::new(from.clone(), Some(to.clone())) {
                    let statements = schema::of(*family);
                    let bytes: i64 = connection
                        .prepare_cached(statements.range_bytes)?
                        .query_row(params![from, to], |row| row.get(0))?;
                    connection.prepare_cached(statements.delete_range)?.execute(params![from, to])?;
                    sizes.shrink(*family, u64::try_from(bytes).unwrap_or(0));
                }
            }
        }
    }
    Ok(())
}

/// Most keys are new, so that is tried first; one that is there costs two more descents, through cached pages.
fn put(connection: &Connection, family: Family, key: &[u8], value: &[u8], sizes: &mut Sizes) -> rusqlite::Result<()> {
    let statements = schema::of(family);
    if connection.prepare_cached(statements.insert)?.execute(params![key, value])? == 1 {
        sizes.grow(family, key.len() + value.len());
        return Ok(());
    }
    let old = value_bytes(connection, family, key)?.unwrap_or(0);
    connection.prepare_cached(statements.update)?.execute(params![key, value])?;
    sizes.grow(family, value.len());
    sizes.shrink(family, old);
    Ok(())
}

/// Bytes of a key's value, if the key is there.
fn value_bytes(connection: &Connection, family: Family, key: &[u8]) -> rusqlite::Result<Option<u64>> {
    let bytes: Option<i64> =
        connection.prepare_cached(schema::of(family).value_bytes)?.query_row([key], |row| row.get(0)).optional()?;
    Ok(bytes.and_then(|bytes| u64::try_from(bytes).ok()))
}
