//! A backend under measurement, and how the workloads get it: empty, again, and again with a cold cache.
//!
//! A backend that keeps nothing beyond its handle cannot be opened again, and a store that closes would empty it. For such
//! a one the handle is kept here, and whoever gets it cannot close it; so every workload runs on it too.

use std::path::Path;
use std::sync::Arc;

use govc_engine::BackendResult;
use govc_engine::backend::{Backend, Batch, Description, Entries, Family, Scan, Sync, Usage};
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::error::{Error, Result};

/// What a synced write of a backend survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Survival {
    /// Nothing: it ends with the handle.
    Nothing,
    /// The end of the process, but not of the machine.
    Process,
    /// The end of the process and of the machine.
    Machine,
}

impl Survival {
    /// In words, as a report says it.
    pub fn in_words(self) -> &'static str {
        match self {
            Survival::Nothing => "survives nothing: memory only",
            Survival::Process => "synced writes survive the process, not the machine",
            Survival::Machine => "synced writes survive the process and the machine",
        }
    }
}

/// A backend under measurement. Whoever implements it says where the data are; all of them are the benchmark's to
/// empty.
pub trait Subject {
    /// The name in the report. Must not tell what only the operator may know, such as a password in an address.
    fn name(&self) -> &str;

    /// What a synced write survives. A subject that survives more than nothing can be opened again.
    fn survival(&self) -> Survival;

    /// The folder of its files, if it runs in this process and has one: for sizes, cold reads and bytes written.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// Bytes on the disk while it is closed: by default those of the files in [`Subject::folder`]; without one, what the
    /// backend says, opened again.
    fn disk_bytes(&mut self) -> Option<u64> {
        if let Some(folder) = self.folder() {
            return disk::used_bytes(folder).ok();
        }
        let backend = self.reopen()?.ok()?;
        let usage = backend.usage();
        backend.close().ok()?;
        usage.ok()?.disk_bytes
    }

    /// An empty backend, which later calls of [`Subject::reopen`] mean. All handles on the one before are gone.
    ///
    /// # Errors
    /// When it cannot be made.
    fn fresh(&mut self) -> BackendResult<Arc<dyn Backend>>;

    /// The backend of the last [`Subject::fresh`] again, with what it held. It was closed, and all handles on it are gone.
    /// `None` if it does not outlive its handle.
    fn reopen(&mut self) -> Option<BackendResult<Arc<dyn Backend>>>;

    /// Removes everything that was made. All handles are gone. Called at the end of a run, however it ends.
    fn clear(&mut self);
}

/// What is left in the page cache when a cold read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coldness {
    /// The backend was opened again and its files dropped from the page cache.
    Dropped,
    /// The backend was opened again; what caches its files have elsewhere is not known.
    ReopenedOnly,
}

/// A subject, and its handle where nothing else keeps the data.
pub(crate) struct Bench<'a> {
    pub(crate) subject: &'a mut dyn Subject,
    kept: Option<Arc<dyn Backend>>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(subject: &'a mut dyn Subject) -> Self {
        Self { subject, kept: None }
    }

    pub(crate) fn is_volatile(&self) -> bool {
        self.subject.survival() == Survival::Nothing
    }

    pub(crate) fn fresh(&mut self) -> Result<Arc<dyn Backend>> {
        self.kept = None;
        let backend = self.subject.fresh()?;
        if !self.is_volatile() {
            return Ok(backend);
        }
        let backend: Arc<dyn Backend> = Arc::new(Unclosed(backend));
        self.kept = Some(backend.clone());
        Ok(backend)
    }

    /// The backend again; the caller has closed and dropped it.
    pub(crate) fn reopen(&mut self) -> Result<Arc<dyn Backend>> {
        if let Some(kept) = &self.kept {
            return Ok(kept.clone());
        }
        let again = self.subject.reopen();
        Ok(again.ok_or_else(|| Error::wrong("the backend is said to be durable and cannot be opened again"))??)
    }

    /// The backend again after its last handle was given back: what is read from now on has been stored.
    pub(crate) fn stored(&mut self, backend: Arc<dyn Backend>) -> Result<Arc<dyn Backend>> {
        backend.close()?;
        drop(backend);
        self.reopen()
    }

    /// As [`Bench::stored`], with caches as cold as can be had.
    pub(crate) fn cold(&mut self, backend: Arc<dyn Backend>) -> Result<(Arc<dyn Backend>, Coldness)> {
        backend.close()?;
        drop(backend);
        let dropped = self.subject.folder().is_some_and(|folder| disk::drop_from_cache(folder).is_ok());
        Ok((self.reopen()?, if dropped { Coldness::Dropped } else { Coldness::ReopenedOnly }))
    }

    /// Removes everything.
    pub(crate) fn clear(&mut self) {
        self.kept = None;
        self.subject.clear();
    }
}

/// A backend that closing only syncs.
struct Unclosed(Arc<dyn Backend>);

impl Backend for Unclosed {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<bytes::Bytes>> {
        self.0.get(family, key)
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> BackendResult<Vec<Option<bytes::Bytes>>> {
        self.0.get_many(family, keys)
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
        self.0.sync()
    }
}
