//! Backends for the tests: in memory, RocksDB, and some that do what no backend may.

#[cfg(feature = "rocksdb")]
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use govc_backend_bench::{Stop, Subject, Survival, Wrapper};
use govc_backends::MemoryBackend;
use govc_engine::backend::{Batch, Description, Entries, Family, Op, Scan, Sync, Usage};
use govc_engine::{Backend, BackendError, BackendErrorKind, BackendResult};

/// The memory backend.
pub(crate) struct Memory;

impl Subject for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    fn survival(&self) -> Survival {
        Survival::Nothing
    }

    fn fresh(&mut self) -> BackendResult<Arc<dyn Backend>> {
        Ok(Arc::new(MemoryBackend::new()))
    }

    fn reopen(&mut self) -> Option<BackendResult<Arc<dyn Backend>>> {
        None
    }

    fn clear(&mut self) {}
}

/// RocksDB in a folder below the given one.
#[cfg(feature = "rocksdb")]
pub(crate) struct Rocks(PathBuf);

#[cfg(feature = "rocksdb")]
impl Rocks {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.join("rocksdb"))
    }

    fn open(&self) -> BackendResult<Arc<dyn Backend>> {
        Ok(Arc::new(govc_backends::RocksBackend::open(&self.0, govc_backends::RocksOptions::default())?))
    }
}

#[cfg(feature = "rocksdb")]
impl Subject for Rocks {
    fn name(&self) -> &str {
        "rocksdb"
    }

    fn survival(&self) -> Survival {
        Survival::Machine
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.0)
    }

    fn fresh(&mut self) -> BackendResult<Arc<dyn Backend>> {
        self.clear();
        self.open()
    }

    fn reopen(&mut self) -> Option<BackendResult<Arc<dyn Backend>>> {
        Some(self.open())
    }

    fn clear(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What is wrong with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    /// The 60th write finds no room.
    Full,
    /// The 60th write fails.
    Fails,
    /// Every 13th put of a batch without others is forgotten, and nobody told.
    Loses,
    /// The same put stores another value.
    Alters,
    /// `get` changes the last byte of a long value.
    ReadsWrong,
    /// `get` finds what is not there.
    FindsAbsent,
    /// What was deleted with a range comes back: here, an entry nobody wrote.
    Adds,
    /// It is empty when opened again.
    Forgets,
}

/// A memory backend with a defect, which says of itself that it is durable.
pub(crate) struct Faulty {
    name: &'static str,
    defect: Defect,
    content: Arc<MemoryBackend>,
}

impl Faulty {
    pub(crate) fn new(name: &'static str, defect: Defect) -> Self {
        Self { name, defect, content: Arc::new(MemoryBackend::new()) }
    }

    fn handle(&self) -> Arc<dyn Backend> {
        Arc::new(Handle { defect: self.defect, content: self.content.clone(), puts: AtomicU64::new(0) })
    }
}

impl Subject for Faulty {
    fn name(&self) -> &str {
        self.name
    }

    fn survival(&self) -> Survival {
        Survival::Process
    }

    fn fresh(&mut self) -> BackendResult<Arc<dyn Backend>> {
        self.content = Arc::new(MemoryBackend::new());
        Ok(self.handle())
    }

    fn reopen(&mut self) -> Option<BackendResult<Arc<dyn Backend>>> {
        if self.defect == Defect::Forgets {
            self.content = Arc::new(MemoryBackend::new());
        }
        Some(Ok(self.handle()))
    }

    fn clear(&mut self) {}
}

struct Handle {
    defect: Defect,
    content: Arc<MemoryBackend>,
    puts: AtomicU64,
}

impl Handle {
    /// Whether this write is the one that goes wrong.
    fn is_time(&self, every: u64) -> bool {
        self.puts.fetch_add(1, Ordering::SeqCst) % every == every - 1
    }
}

impl Backend for Handle {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        let mut found = self.content.get(family, key)?;
        if self.defect == Defect::ReadsWrong
            && let Some(value) = found.as_mut().filter(|value| value.len() > 1000)
        {
            let mut altered = value.to_vec();
            altered.iter_mut().rev().take(1).for_each(|byte| *byte ^= 1);
            *value = altered.into();
        }
        if self.defect == Defect::FindsAbsent && family == Family::Ids && found.is_none() {
            found = Some(Bytes::from_static(b"found"));
        }
        Ok(found)
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        self.content.scan(family, scan)
    }

    fn write(&self, mut batch: Batch, sync: Sync) -> BackendResult<()> {
        match self.defect {
            Defect::Full if self.is_time(20) => return Err(BackendError::new(BackendErrorKind::Full, "no room")),
            Defect::Fails if self.is_time(20) => {
                return Err(BackendError::new(BackendErrorKind::Failed, "the disk is gone"));
            }
            Defect::Adds if batch.ops.len() == 1 && self.is_time(13) => {
                batch.put(Family::Journal, b"nobody wrote this".to_vec(), &b"x"[..]);
            }
            Defect::Loses | Defect::Alters if batch.ops.len() == 1 && self.is_time(13) => {
                let ops = std::mem::take(&mut batch.ops);
                if let (Defect::Alters, Some(Op::Put { family, key, value })) = (self.defect, ops.into_iter().next()) {
                    batch.put(family, key, value.slice(..value.len().saturating_sub(1)));
                }
            }
            _ => {}
        }
        self.content.write(batch, sync)
    }

    fn sync(&self) -> BackendResult<()> {
        self.content.sync()
    }

    fn describe(&self) -> Description {
        self.content.describe()
    }

    fn usage(&self) -> BackendResult<Usage> {
        self.content.usage()
    }

    fn close(&self) -> BackendResult<()> {
        Ok(())
    }
}

/// A wrapper that passes everything on.
pub(crate) fn wrapper() -> Wrapper {
    Wrapper::new(|backend| Arc::new(Passing(backend)))
}

struct Passing(Arc<dyn Backend>);

impl Backend for Passing {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        self.0.get(family, key)
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        self.0.scan(family, scan)
    }

    fn write(&self, batch: Batch, sync: Sync) -> BackendResult<()> {
        self.0.write(batch, sync)
    }

    fn sync(&self) -> BackendResult<()> {
        self.0.sync()
    }

    fn describe(&self) -> Description {
        self.0.describe()
    }

    fn usage(&self) -> BackendResult<Usage> {
        self.0.usage()
    }

    fn close(&self) -> BackendResult<()> {
        self.0.close()
    }
}

/// Asks the run to stop when it is emptied for the third time.
pub(crate) struct Stopping {
    stop: Stop,
    emptied: u32,
    cleared: Arc<AtomicBool>,
}

impl Stopping {
    pub(crate) fn new(stop: Stop) -> (Self, Arc<AtomicBool>) {
        let cleared = Arc::new(AtomicBool::new(false));
        (Self { stop, emptied: 0, cleared: cleared.clone() }, cleared)
    }
}

impl Subject for Stopping {
    fn name(&self) -> &str {
        "stopping"
    }

    fn survival(&self) -> Survival {
        Survival::Nothing
    }

    fn fresh(&mut self) -> BackendResult<Arc<dyn Backend>> {
        self.emptied += 1;
        assert!(self.emptied <= 3, "it went on after it was asked to stop");
        if self.emptied == 3 {
            self.stop.ask();
        }
        Memory.fresh()
    }

    fn reopen(&mut self) -> Option<BackendResult<Arc<dyn Backend>>> {
        None
    }

    fn clear(&mut self) {
        self.cleared.store(true, Ordering::SeqCst);
    }
}
