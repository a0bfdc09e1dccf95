//! A backend in one folder with one SQLite database: a table for each [`Family`], one write-ahead log.
//!
//! What always holds:
//! - A write is in the log before it returns, and on the disk if it asked for [`Sync::Yes`], with all writes before
//!   it. What a crash takes away is a suffix of the unsynced writes.
//! - One connection writes, a transaction for each batch, its preconditions checked under the same lock. The lock is
//!   free again before the batch is synced, so that the next one is written meanwhile; see `log`. A batch can
//!   therefore be read before its sync has ended.
//! - Readers have connections of their own and wait for nobody.
//! - A write is refused with `Full`, nothing of it written, when it would leave less free space than the reserve, or
//!   when the disk fills up under it.
//! - After any other failed write, a failed sync or a failed checkpoint every later write answers `Failed` until the
//!   folder is opened again, and the log is left alone, because what is on the disk is known only by replaying it.
//!   Reads go on.
//!
//! Order of locks: `checkpointer`, `writer`, then those inside `log`, `readers` and `checkpoint`.

mod checkpoint;
mod failure;
mod folder;
mod log;
mod moment;
mod options;
mod readers;
mod scan;
mod schema;
mod sizes;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use govc_engine::backend::{
    Backend, BackendError, BackendErrorKind, BackendResult, Batch, Description, Entries, Family, Scan, Sync, Usage,
};
use parking_lot::Mutex;

pub use moment::SqliteMoment;
pub use options::SqliteOptions;

use self::checkpoint::{Bell, Checkpointer};
use self::folder::Folder;
use self::log::Log;
use self::readers::{Reader, Readers};
use self::scan::Walk;
use self::writer::{Refusal, Writer};
use crate::span::Span;

/// A [`Backend`] in a folder with a SQLite database. The folder stays locked until the value is dropped.
pub struct SqliteBackend {
    shared: Arc<Shared>,
    /// `None` once closed.
    checkpointer: Mutex<Option<Checkpointer>>,
}

/// What the callers' threads and the checkpointer's have in common. Fields are dropped in this order: connections
/// before the lock of the folder.
struct Shared {
    /// `None` once closed.
    writer: Mutex<Option<Writer>>,
    readers: Readers,
    log: Log,
    bell: Arc<Bell>,
    options: SqliteOptions,
    /// Why the first write failed; every later write is refused with it.
    failed: OnceLock<String>,
    /// Set once by `close` (release), read by every call (acquire). A read that runs beside `close` may still
    /// succeed; a write may not, because `close` takes the writer away.
    closed: AtomicBool,
    folder: Folder,
}

impl SqliteBackend {
    /// Opens the store in `folder` as it is now, also while another process has it open and writes it: later writes of
    /// that process are not seen, and every write to the moment fails.
    ///
    /// # Errors
    /// [`BackendErrorKind::Failed`] if there is no store, or another program's; [`BackendErrorKind::Corrupt`] if it is
    /// damaged.
    pub fn open_to_read(folder: impl AsRef<Path>) -> BackendResult<SqliteMoment> {
        SqliteMoment::open(folder.as_ref())
    }

    /// Opens the store in `folder`, which is created if it is not there, and replays its log.
    ///
    /// # Errors
    /// [`BackendErrorKind::Locked`] if the folder is open elsewhere, [`BackendErrorKind::Corrupt`] if its files are
    /// damaged, [`BackendErrorKind::Full`] if there is no room to open it, [`BackendErrorKind::Failed`] otherwise,
    /// also for a database that a newer version or another program wrote, which stays as it is.
    pub fn open(folder: impl AsRef<Path>, options: SqliteOptions) -> BackendResult<Self> {
        let folder = Folder::open(folder.as_ref())?;
        let writer = Writer::open(&folder, &options, Arc::new(AtomicU64::new(0)))?;
        let readers =
            Readers::open(folder.file(), options.clone()).map_err(|error| failure::of_open(folder.path(), &error))?;
        let log = Log::open(&folder.log()).map_err(|error| failure::of_file(&folder.log(), "open", &error))?;
        // The log may be new in the folder.
        folder.sync()?;
        let bell = Arc::new(Bell::default());
        // What an earlier life left in the log is put where it belongs.
        bell.ring();
        let shared = Arc::new(Shared {
            writer: Mutex::new(Some(writer)),
            readers,
            log,
            bell,
            options,
            failed: OnceLock::new(),
            closed: AtomicBool::new(false),
            folder,
        });
        let checkpointer = Checkpointer::start(&shared)?;
        Ok(Self { shared, checkpointer: Mutex::new(Some(checkpointer)) })
    }
}

impl Shared {
    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn closed(&self) -> BackendError {
        let message = format!("the store in {} is closed", self.folder().display());
        BackendError::new(BackendErrorKind::Closed, message)
    }

    fn check_open(&self) -> BackendResult<()> {
        if self.closed.load(Ordering::Acquire) { Err(self.closed()) } else { Ok(()) }
    }

    fn check_writable(&self) -> BackendResult<()> {
        self.check_open()?;
        self.check_failed()
    }

    fn check_failed(&self) -> BackendResult<()> {
        self.failed.get().map_or(Ok(()), |first| {
            let message = format!("the store takes no writes since one failed: {first}");
            Err(BackendError::new(BackendErrorKind::Failed, message))
        })
    }

    fn has_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    /// Remembers the first failure: those after it are its consequence.
    fn fail(&self, message: &str) {
        let _ = self.failed.set(message.to_owned());
    }

    fn reader(&self) -> BackendResult<Reader<'_>> {
        self.check_open()?;
        self.readers.take().map_err(|error| failure::of_read(self.folder(), &error))
    }

    /// Writes a batch to the log; the number of the commit that has to be synced for it.
    fn commit(&self, batch: &Batch) -> BackendResult<u64> {
        let mut writer = self.writer.lock();
        let Some(writer) = writer.as_mut() else { return Err(self.closed()) };
        self.check_writable()?;
        if batch.is_empty() {
            writer.check(&batch.preconditions)?;
            return Ok(self.log.committed());
        }
        writer.write(batch).map_err(|refusal| match refusal {
            Refusal::Nothing(error) => error,
            Refusal::Unknown(error) => {
                self.fail(&error.message);
                error
            }
        })?;
        if writer.log_bytes() >= self.options.log_bytes {
            self.bell.ring();
        }
        Ok(self.log.commit())
    }

    /// Returns when the commit of this number is on the disk.
    fn sync_to(&self, number: u64) -> BackendResult<()> {
        self.log.sync(number).map_err(|message| {
            let message = format!("cannot write the store in {}: {message}", self.folder().display());
            self.fail(&message);
            BackendError::new(BackendErrorKind::Failed, message)
        })
    }

    /// What `close` does with the writer taken away.
    fn finish(&self, mut writer: Writer) -> BackendResult<()> {
        self.check_failed()?;
        // Only counts: without them they are off by a little.
        let stored = writer.store_sizes();
        if stored.is_ok() {
            self.log.commit();
        }
        self.sync_to(self.log.committed())?;
        // A failed write leaves the log alone.
        if stored.is_ok() {
            writer.empty_log();
        }
        Ok(())
    }
}

impl Backend for SqliteBackend {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        let reader = self.shared.reader()?;
        reader.get(schema::of(family).get, key).map_err(|error| failure::of_read(self.shared.folder(), &error))
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> BackendResult<Vec<Option<Bytes>>> {
        let reader = self.shared.reader()?;
        reader.get_many(schema::of(family).get, keys).map_err(|error| failure::of_read(self.shared.folder(), &error))
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        self.shared.check_open()?;
        let reverse = scan.reverse;
        let Some(span) = Span::of(scan) else { return Ok(Box::new(std::iter::empty())) };
        Ok(Box::new(Walk::begin(&self.shared, family, span, reverse)?))
    }

    fn write(&self, batch: Batch, sync: Sync) -> BackendResult<()> {
        self.shared.check_writable()?;
        let number = self.shared.commit(&batch)?;
        match sync {
            Sync::Yes => self.shared.sync_to(number),
            Sync::No => Ok(()),
        }
    }

    fn sync(&self) -> BackendResult<()> {
        self.shared.check_writable()?;
        self.shared.sync_to(self.shared.log.committed())
    }

    fn describe(&self) -> Description {
        Description { kind: "sqlite", location: self.shared.folder().display().to_string(), durable: true }
    }

    fn usage(&self) -> BackendResult<Usage> {
        let sizes = match &*self.shared.writer.lock() {
            Some(writer) => writer.sizes(),
            None => return Err(self.shared.closed()),
        };
        let families = Family::ALL.iter().map(|&family| (family, sizes[family])).collect();
        Ok(Usage { disk_bytes: Some(self.shared.folder.files().disk_bytes()), families })
    }

    fn close(&self) -> BackendResult<()> {
        let mut checkpointer = self.checkpointer.lock();
        if let Some(checkpointer) = checkpointer.take() {
            // Without the writer held, for which it may be waiting.
            checkpointer.stop();
        }
        let mut writer = self.shared.writer.lock();
        let Some(writer) = writer.take() else { return Ok(()) };
        self.shared.closed.store(true, Ordering::Release);
        self.shared.readers.close();
        self.shared.finish(writer)
    }
}

impl Drop for SqliteBackend {
    fn drop(&mut self) {
        // Nobody is left to be told; what a failure leaves in the log is replayed at the next open.
        let _ = self.close();
    }
}
