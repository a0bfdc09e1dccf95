//! A backend in one folder of files, through RocksDB: a column family for each [`Family`], one for what deletions
//! have still to give back (`reclaim`), one log for all.
//!
//! What always holds:
//! - A write is in the log before it returns, and on the disk if it asked for [`Sync::Yes`], with all writes
//!   before it. What a crash takes away is a suffix of the unsynced writes.
//! - Preconditions are checked in the same moment as their batch is written. Batches with preconditions take
//!   `gate` alone; batches without share it. (A lock only around the former would let a plain write slip between
//!   check and write; a mutex around all would keep RocksDB from syncing concurrent plain writes together.)
//! - A write is refused with `Full`, nothing of it written, when it would leave less free space than the reserve;
//!   one that makes room may use the reserve.
//! - After a failed write or sync every later one answers `Failed` until the folder is opened again: what is on
//!   the disk is then known only by replaying the log. Reads go on.

mod failure;
mod options;
mod reclaim;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::rocksdb::{
    Cache, ColumnFamily, ColumnFamilyDescriptor, DB, IteratorMode, ReadOptions, WaitForCompactOptions, WriteBatch,
    WriteBufferManager, WriteOptions, properties,
};
use bytes::Bytes;
use govc_engine::backend::{
    Backend, BackendError, BackendErrorKind, BackendResult, Batch, Description, Entries, Family, Op, Precondition,
    Scan, Sync, Usage,
};
use parking_lot::RwLock;

pub use options::RocksOptions;

use self::reclaim::{Reclaimer, Removed};
use crate::memory::precondition_failed;
use crate::room::Room;
use crate::span::Span;

/// RocksDB keeps the lengths of keys and values in 32 bits, and its batch drops a longer one without an error
/// that its C interface would show. So the whole batch stays below.
const BATCH_BYTES_MAX: usize = u32::MAX as usize;

/// How often a store that another process writes is tried to be opened, and the first pause between two tries.
const READ_ATTEMPTS: u32 = 20;
const READ_PAUSE: Duration = Duration::from_millis(20);

/// How long closing waits for compactions.
const CLOSING_COMPACTION_MAX: Duration = Duration::from_secs(5);

/// A [`Backend`] in a folder of RocksDB files. The folder stays locked until the value is dropped, also after
/// [`Backend::close`], because scans may still borrow from it.
pub struct RocksBackend {
    /// Dropped, it lets go of the database, so before the last who holds it.
    reclaimer: Option<Reclaimer>,
    db: Arc<DB>,
    folder: PathBuf,
    room: Arc<Room>,
    /// Counts the bytes of writes not yet sorted into files.
    buffers: WriteBufferManager,
    /// Held shared by batches without preconditions, alone by batches with; guards no data of its own.
    gate: RwLock<()>,
    /// Why the first write failed; every later write is refused with it.
    failed: OnceLock<String>,
    /// Set once by `close` (release), read by every call (acquire). A call that runs beside `close` may still
    /// succeed; a write may not, because `close` holds `gate`.
    closed: AtomicBool,
    /// Whether it shows one moment and is never written.
    is_read_only: bool,
}

impl RocksBackend {
    /// Opens the store in `folder`, which is created if it is not there, and replays its log.
    ///
    /// # Errors
    /// [`BackendErrorKind::Locked`] if the folder is open elsewhere, [`BackendErrorKind::Corrupt`] if its files
    /// are damaged, [`BackendErrorKind::Full`] if there is no room to open it, [`BackendErrorKind::Failed`]
    /// otherwise, also for a folder that a newer version wrote.
    pub fn open(folder: impl AsRef<Path>, options: RocksOptions) -> BackendResult<Self> {
        let folder = folder.as_ref().to_path_buf();
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let buffers = WriteBufferManager::new_write_buffer_manager(options.write_buffer_bytes, false);
        let families = Family::ALL.map(|family| ColumnFamilyDescriptor::new(family.name(), options.family(&cache)));
        let db = DB::open_cf_descriptors(&options.database(&buffers), &folder, families)
            .map_err(|error| failure::of_open(&folder, &error))?;
        let db = Arc::new(db);
        let room = Arc::new(Room::of(folder.clone(), options.reserve_bytes)?);
        let reclaimer = Some(Reclaimer::start(db.clone(), room.clone())?);
        Ok(Self {
            reclaimer,
            db,
            folder,
            room,
            buffers,
            gate: RwLock::new(()),
            failed: OnceLock::new(),
            closed: AtomicBool::new(false),
            is_read_only: false,
        })
    }

    /// Opens the store in `folder` as it is now, also while another process has it open and writes it: later writes of
    /// that process are not seen, and every write here fails. Changes nothing in the folder.
    ///
    /// # Errors
    /// As [`RocksBackend::open`], but never [`BackendErrorKind::Locked`].
    pub fn open_to_read(folder: impl AsRef<Path>) -> BackendResult<Self> {
        let folder = folder.as_ref().to_path_buf();
        // RocksDB would make the folder.
        if !folder.join("CURRENT").exists() {
            let message = format!("there is no store in {}", folder.display());
            return Err(BackendError::new(BackendErrorKind::Failed, message));
        }
        let options = RocksOptions::default();
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let buffers = WriteBufferManager::new_write_buffer_manager(0, false);
        let database = options.database_to_read();
        let open = || {
            let families = Family::ALL.map(|family| ColumnFamilyDescriptor::new(family.name(), options.family(&cache)));
            DB::open_cf_descriptors_read_only(&database, &folder, families, false)
        };
        // RocksDB reads the list of tables before it looks for logs. What the owner moves from a log into a table between
        // the two would be in neither, so an opening during which the files changed is made again.
        let mut attempts = 0;
        let db = loop {
            attempts += 1;
            let before = files(&folder)?;
            let opened = open();
            let is_same = files(&folder)? == before;
            match opened {
                Ok(db) if is_same => break db,
                Err(error) if is_same || attempts == READ_ATTEMPTS => return Err(failure::of_open(&folder, &error)),
                _ if attempts == READ_ATTEMPTS => {
                    let message =
                        format!("the store in {} changes too fast to be read at one moment", folder.display());
                    return Err(BackendError::new(BackendErrorKind::Unavailable, message));
                }
                _ => std::thread::sleep(READ_PAUSE * attempts),
            }
        };
        let (gate, failed) = (RwLock::new(()), OnceLock::new());
        let closed = AtomicBool::new(false);
        let (db, room) = (Arc::new(db), Arc::new(Room::of(folder.clone(), 0)?));
        Ok(Self { reclaimer: None, db, folder, room, buffers, gate, failed, closed, is_read_only: true })
    }

    fn family(&self, family: Family) -> BackendResult<&ColumnFamily> {
        self.db.cf_handle(family.name()).ok_or_else(|| {
            let message = format!("the store in {} has no family {}", self.folder.display(), family.name());
            BackendError::new(BackendErrorKind::Corrupt, message)
        })
    }

    fn check_open(&self) -> BackendResult<()> {
        if self.closed.load(Ordering::Acquire) {
            let message = format!("the store in {} is closed", self.folder.display());
            return Err(BackendError::new(BackendErrorKind::Closed, message));
        }
        Ok(())
    }

    fn check_writable(&self) -> BackendResult<()> {
        self.check_open()?;
        if self.is_read_only {
            let message = format!("the store in {} was opened only to be read", self.folder.display());
            return Err(BackendError::new(BackendErrorKind::Failed, message));
        }
        self.failed.get().map_or(Ok(()), |first| {
            let message = format!("the store takes no writes since one failed: {first}");
            Err(BackendError::new(BackendErrorKind::Failed, message))
        })
    }

    /// Checks that a batch of this size, and all that waits in write buffers, fits.
    fn check_room(&self, batch_bytes: usize, uses_reserve: bool) -> BackendResult<()> {
        let waiting = self.buffers.get_usage() as u64;
        self.room.check(batch_bytes, waiting.saturating_add(batch_bytes as u64), uses_reserve)
    }

    fn check_preconditions(&self, preconditions: &[Precondition]) -> BackendResult<()> {
        for (index, precondition) in preconditions.iter().enumerate() {
            let (family, key, wanted) = match precondition {
                Precondition::Absent { family, key } => (*family, key, None),
                Precondition::Value { family, key, value } => (*family, key, Some(value)),
            };
            let found = self
                .db
                .get_pinned_cf(self.family(family)?, key)
                .map_err(|error| failure::of_read(&self.folder, &error))?;
            if found.as_deref() != wanted.map(|value| &value[..]) {
                return Err(precondition_failed(index, family, key));
            }
        }
        Ok(())
    }

    fn encode(&self, ops: &[Op], bytes: usize) -> BackendResult<WriteBatch> {
        let mut encoded = WriteBatch::with_capacity_bytes(bytes);
        for op in ops {
            match op {
                Op::Put { family, key, value } => encoded.put_cf(self.family(*family)?, key, value),
                Op::Delete { family, key } => encoded.delete_cf(self.family(*family)?, key),
                // RocksDB takes an inverted range for an error.
                Op::DeleteRange { family, from, to } if from < to => {
                    encoded.delete_range_cf(self.family(*family)?, from, to);
                    reclaim::note(&mut encoded, *family, from, to);
                }
                Op::DeleteRange { .. } => {}
            }
        }
        Ok(encoded)
    }

    /// Writes an encoded batch; the caller holds the gate.
    fn commit(&self, encoded: WriteBatch, bytes: usize, uses_reserve: bool, sync: Sync) -> BackendResult<()> {
        self.check_writable()?;
        if encoded.is_empty() {
            return match sync {
                Sync::Yes => self.sync(),
                Sync::No => Ok(()),
            };
        }
        self.check_room(bytes, uses_reserve)?;
        let mut options = WriteOptions::default();
        options.set_sync(sync == Sync::Yes);
        self.db.write_opt(encoded, &options).map_err(|error| self.fail(&error))
    }

    /// Remembers the first failure of a write and tells the caller.
    fn fail(&self, error: &::rocksdb::Error) -> BackendError {
        let error = failure::of_write(&self.folder, error);
        // Only the first failure stays: those after it are its consequence.
        let _ = self.failed.set(error.message.clone());
        error
    }

    fn property(&self, family: Family, name: &properties::PropName) -> BackendResult<u64> {
        let value = self
            .db
            .property_int_value_cf(self.family(family)?, name)
            .map_err(|error| failure::of_read(&self.folder, &error))?;
        Ok(value.unwrap_or(0))
    }

    /// Writes what is in write buffers into tables; whether that went well.
    fn flush(&self) -> bool {
        // All of them, also after a failure; and the notes of removed ranges.
        let flushed = Family::ALL.map(|family| self.family(family).map(|handle| self.db.flush_cf(handle)));
        self.db.flush().is_ok() && flushed.iter().all(|flushed| matches!(flushed, Ok(Ok(()))))
    }

    /// Removes the logs, if all that they hold is in tables and nothing is written any more. RocksDB keeps some at their full
    /// size to write over them, and would remove them when it opens.
    fn remove_spent_logs(&self) {
        let counts = [properties::NUM_ENTRIES_ACTIVE_MEM_TABLE, properties::NUM_ENTRIES_IMM_MEM_TABLES];
        let is_spent = |family| counts.iter().all(|count| matches!(self.property(family, count), Ok(0)));
        let noted = counts.iter().all(|count| matches!(self.db.property_int_value(*count), Ok(Some(0))));
        if !(noted && Family::ALL.into_iter().all(is_spent)) {
            return;
        }
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let is_number = |stem: &std::ffi::OsStr| stem.as_encoded_bytes().iter().all(u8::is_ascii_digit);
            // Others may have logs of their own there.
            if path.extension().is_some_and(|extension| extension == "log") && path.file_stem().is_some_and(is_number) {
                // One that stays takes room until then.
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// Bytes of the folder's files. Files come and go meanwhile; one that is gone counts nothing.
    fn disk_bytes(&self) -> std::io::Result<u64> {
        let mut bytes = 0_u64;
        for entry in std::fs::read_dir(&self.folder)? {
            if let Ok(metadata) = entry?.metadata()
                && metadata.is_file()
            {
                bytes = bytes.saturating_add(metadata.len());
            }
        }
        Ok(bytes)
    }
}

impl Backend for RocksBackend {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        self.check_open()?;
        let value =
            self.db.get_pinned_cf(self.family(family)?, key).map_err(|error| failure::of_read(&self.folder, &error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> BackendResult<Vec<Option<Bytes>>> {
        self.check_open()?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.db
            .batched_multi_get_cf(self.family(family)?, keys, false)
            .into_iter()
            .map(|value| match value {
                Ok(value) => Ok(value.map(|value| Bytes::copy_from_slice(&value))),
                Err(error) => Err(failure::of_read(&self.folder, &error)),
            })
            .collect()
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        self.check_open()?;
        let mode = if scan.reverse { IteratorMode::End } else { IteratorMode::Start };
        let Some(span) = Span::of(scan) else { return Ok(Box::new(std::iter::empty())) };
        let mut options = ReadOptions::default();
        if !span.from.is_empty() {
            options.set_iterate_lower_bound(span.from);
        }
        if let Some(to) = span.to {
            options.set_iterate_upper_bound(to);
        }
        // The iterator reads the sequence number of its creation, whatever is written later.
        let entries = self.db.iterator_cf_opt(self.family(family)?, options, mode);
        Ok(Box::new(entries.map(|entry| match entry {
            Ok((key, value)) => Ok((Bytes::from(key), Bytes::from(value))),
            Err(error) => Err(failure::of_read(&self.folder, &error)),
        })))
    }

    fn write(&self, batch: Batch, sync: Sync) -> BackendResult<()> {
        self.check_writable()?;
        let bytes = batch_bytes(&batch);
        if bytes > BATCH_BYTES_MAX {
            let message = format!("a batch of {bytes} bytes is more than RocksDB takes ({BATCH_BYTES_MAX})");
            return Err(BackendError::new(BackendErrorKind::Failed, message));
        }
        let encoded = self.encode(&batch.ops, bytes)?;
        if batch.preconditions.is_empty() {
            let _shared = self.gate.read();
            self.commit(encoded, bytes, batch.uses_reserve, sync)?;
        } else {
            let _alone = self.gate.write();
            self.check_preconditions(&batch.preconditions)?;
            self.commit(encoded, bytes, batch.uses_reserve, sync)?;
        }
        if let Some(reclaimer) = &self.reclaimer {
            reclaimer.add(batch.ops.into_iter().filter_map(removed).collect());
        }
        Ok(())
    }

    fn sync(&self) -> BackendResult<()> {
        self.check_writable()?;
        self.db.flush_wal(true).map_err(|error| self.fail(&error))
    }

    fn describe(&self) -> Description {
        Description { kind: "rocksdb", location: self.folder.display().to_string(), durable: true }
    }

    fn usage(&self) -> BackendResult<Usage> {
        self.check_open()?;
        let disk_bytes = self.disk_bytes().map_err(|error| {
            let message = format!("cannot list {}: {error}", self.folder.display());
            BackendError::new(BackendErrorKind::Failed, message)
        })?;
        let mut families = Vec::with_capacity(Family::ALL.len());
        for family in Family::ALL {
            let files = self.property(family, properties::LIVE_SST_FILES_SIZE)?;
            let buffers = self.property(family, properties::CUR_SIZE_ALL_MEM_TABLES)?;
            families.push((family, files.saturating_add(buffers)));
        }
        Ok(Usage { disk_bytes: Some(disk_bytes), families })
    }

    fn close(&self) -> BackendResult<()> {
        // Alone, so that no write is under way behind the last sync.
        let _alone = self.gate.write();
        if self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.is_read_only {
            self.closed.store(true, Ordering::Release);
            return Ok(());
        }
        let synced = self.sync();
        self.closed.store(true, Ordering::Release);
        // Only to make the next open quick, and the folder small: the log, which is synced, holds everything already. So a
        // failure here loses nothing.
        let flushed = synced.is_ok() && self.check_room(0, false).is_ok() && self.flush();
        if flushed {
            self.reclaimer.iter().for_each(|reclaimer| reclaimer.finish(CLOSING_COMPACTION_MAX));
            // One that is broken off leaves its unfinished tables until the next opening.
            let mut patience = WaitForCompactOptions::default();
            patience.set_timeout(u64::try_from(CLOSING_COMPACTION_MAX.as_micros()).unwrap_or(u64::MAX));
            let _ = self.db.wait_for_compact(&patience);
        }
        self.db.cancel_all_background_work(true);
        self.reclaimer.iter().for_each(Reclaimer::stop);
        if flushed {
            self.remove_spent_logs();
        }
        synced
    }
}

/// What tells whether an owner has moved anything from its logs into tables: the logs' names, and the list of tables.
fn files(folder: &Path) -> BackendResult<(Vec<std::ffi::OsString>, String, u64)> {
    let read = || {
        let mut logs = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name();
            if name.as_encoded_bytes().ends_with(b".log") {
                logs.push(name);
            }
        }
        logs.sort();
        let list = std::fs::read_to_string(folder.join("CURRENT"))?;
        let bytes = std::fs::metadata(folder.join(list.trim_end()))?.len();
        Ok((logs, list, bytes))
    };
    read().map_err(|error: std::io::Error| {
        let message = format!("cannot list {}: {error}", folder.display());
        BackendError::new(BackendErrorKind::Failed, message)
    })
}

/// What an operation removes, if that is a range.
fn removed(op: Op) -> Option<Removed> {
    match op {
        Op::DeleteRange { family, from, to } if from < to => Some(Removed { family, from, to }),
        _ => None,
    }
}

/// Bytes of a batch's keys and values. Counted here, because a caller may have filled the lists by hand.
fn batch_bytes(batch: &Batch) -> usize {
    batch.ops.iter().fold(0, |bytes: usize, op| {
        let (one, other) = match op {
            Op::Put { key, value, .. } => (key.len(), value.len()),
            Op::Delete { key, .. } => (key.len(), 0),
            Op::DeleteRange { from, to, .. } => (from.len(), to.len()),
        };
        bytes.saturating_add(one).saturating_add(other)
    })
}
