//! What the tests share: stores on a disk that can crash, commits, and a gate that holds writes back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use govc_backends::{FaultBackend, FaultPlan, MemoryBackend, Survivors};
use govc_engine::{
    Cause, Commit, Durability, ErrorKind, Expected, Kind, ObjectFormat, Oid, Published, RefEdit, RefName, Repo,
    RepoName, RepoSettings, Result, Signature, Store, StoreOptions, Transaction,
    backend::{Backend, BackendResult, Batch, Description, Entries, Family, Precondition, Scan, Sync, Usage},
};
use parking_lot::{Condvar, Mutex};

/// What names the objects of the repositories that these tests make: every test is in two programs, `it` and `sha256`.
pub(crate) const FORMAT: ObjectFormat = match env!("CARGO_CRATE_NAME").as_bytes() {
    b"sha256" => ObjectFormat::Sha256,
    _ => ObjectFormat::Sha1,
};

pub(crate) fn settings() -> RepoSettings {
    RepoSettings { object_format: FORMAT, ..RepoSettings::default() }
}

pub(crate) fn disk() -> Arc<FaultBackend> {
    Arc::new(FaultBackend::new(FaultPlan::none()))
}

/// The next life of a disk after a crash, or after a clean close.
pub(crate) fn crash(backend: &FaultBackend, survivors: Survivors) -> Arc<FaultBackend> {
    let disk = backend.crash(survivors).unwrap();
    Arc::new(FaultBackend::over(&disk, FaultPlan::none()).unwrap())
}

pub(crate) fn options() -> StoreOptions {
    StoreOptions { memory_budget_bytes: 64 << 20, ..StoreOptions::default() }
}

pub(crate) fn open(backend: &Arc<FaultBackend>) -> Store {
    Store::open(backend.clone(), options()).unwrap()
}

pub(crate) fn repo_name(name: &str) -> RepoName {
    RepoName::new(name).unwrap()
}

pub(crate) fn create(store: &Store, name: &str, durability: Durability) -> Repo {
    store.create(&repo_name(name), RepoSettings { durability, ..settings() }, "tester").unwrap()
}

pub(crate) fn branch(short: &str) -> RefName {
    RefName::branch(short).unwrap()
}

pub(crate) fn signature(seconds: i64) -> Signature {
    Signature::new("Tester", "tester@example.com", seconds, 0).unwrap()
}

pub(crate) fn commit_bytes(tree: Oid, parents: &[Oid], seconds: i64, message: &str) -> Bytes {
    let commit = Commit {
        tree,
        parents: parents.iter().copied().collect(),
        author: signature(seconds),
        committer: signature(seconds),
        encoding: None,
        extra_headers: Vec::new(),
        message: message.as_bytes().to_vec(),
    };
    commit.to_bytes().into()
}

pub(crate) fn edit(name: &RefName, expected: Expected, target: Option<Oid>) -> RefEdit {
    RefEdit { name: name.clone(), expected, target }
}

/// Points a reference at a new commit with this message.
pub(crate) fn set(repo: &Repo, name: &RefName, expected: Expected, message: &str) -> Result<(Oid, Published)> {
    let mut transaction = repo.begin("tester", Cause::Api);
    let oid = transaction.put(Kind::Commit, commit_bytes(FORMAT.empty_tree(), &[], 1, message))?;
    transaction.edit(edit(name, expected, Some(oid)))?;
    Ok((oid, publish(transaction)?))
}

pub(crate) fn publish(transaction: Transaction) -> Result<Published> {
    transaction.prepare()?.publish()
}

/// [`set`], and waits until it is durable.
pub(crate) fn set_durably(repo: &Repo, name: &RefName, message: &str) -> Result<Oid> {
    let (oid, published) = set(repo, name, Expected::Any, message)?;
    published.ticket.wait()?;
    Ok(oid)
}

/// The message of the commit that readers see on a reference.
pub(crate) fn message(repo: &Repo, name: &RefName) -> Option<String> {
    let snapshot = repo.snapshot();
    let oid = snapshot.reference(name)?;
    Some(String::from_utf8(snapshot.commit(&oid).unwrap().message).unwrap())
}

#[track_caller]
pub(crate) fn kind<T>(result: Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("this should have failed"),
        Err(error) => error.kind().clone(),
    }
}

/// Waits for what other threads bring about; only a hang makes it fail.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "it never came: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes without any pattern, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    out.truncate(len);
    out
}

pub(crate) fn entries(backend: &dyn Backend, family: Family, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
    backend.scan(family, Scan::prefix(prefix)).unwrap().collect::<BackendResult<_>>().unwrap()
}

type BeforeIds = Box<dyn FnOnce(&FaultBackend, &Batch) + Send>;

/// A disk whose writes wait while the gate is shut, and whose reads of blocks can be kept waiting for something.
pub(crate) struct Gate {
    disk: FaultBackend,
    /// What is done before the next block is read.
    before_block: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// What is done before the next rows of ids are written that must not be there.
    before_ids: Mutex<Option<BeforeIds>>,
    shut: Mutex<bool>,
    opened: Condvar,
    /// How long each write takes at least.
    delay: Duration,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let disk = FaultBackend::new(FaultPlan::none());
        let shut = Mutex::new(false);
        Self {
            disk,
            before_block: Mutex::new(None),
            before_ids: Mutex::new(None),
            shut,
            opened: Condvar::new(),
            delay: Duration::ZERO,
        }
    }

    /// One that begins with what `disk` holds.
    pub(crate) fn over(disk: &MemoryBackend) -> Self {
        Self { disk: FaultBackend::over(disk, FaultPlan::none()).unwrap(), ..Self::new() }
    }

    /// A disk that takes its time, so that much happens between a write and its end.
    pub(crate) fn slow() -> Self {
        Self { delay: Duration::from_micros(300), ..Self::new() }
    }

    pub(crate) fn disk(&self) -> &FaultBackend {
        &self.disk
    }

    /// Has something done when a block is about to be read, by whoever reads it.
    pub(crate) fn before_block(&self, what: impl FnOnce() + Send + 'static) {
        *self.before_block.lock() = Some(Box::new(what));
    }

    /// Has something done when rows of ids are about to be written that must not be there.
    pub(crate) fn before_ids(&self, what: impl FnOnce(&FaultBackend, &Batch) + Send + 'static) {
        *self.before_ids.lock() = Some(Box::new(what));
    }

    /// Shuts the gate until the answer is dropped, also by a test that fails.
    pub(crate) fn shut(self: &Arc<Self>) -> Shut {
        *self.shut.lock() = true;
        Shut(self.clone())
    }
}

pub(crate) struct Shut(Arc<Gate>);

impl Drop for Shut {
    fn drop(&mut self) {
        *self.0.shut.lock() = false;
        self.0.opened.notify_all();
    }
}

impl Backend for Gate {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        let before = (family == Family::Blocks).then(|| self.before_block.lock().take()).flatten();
        before.into_iter().for_each(|what| what());
        self.disk.get(family, key)
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        self.disk.scan(family, scan)
    }

    fn write(&self, batch: Batch, sync: Sync) -> BackendResult<()> {
        let mut shut = self.shut.lock();
        while *shut {
            self.opened.wait(&mut shut);
        }
        drop(shut);
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        let is_of_ids = |demand: &Precondition| matches!(demand, Precondition::Absent { family: Family::Ids, .. });
        if batch.preconditions.iter().any(is_of_ids)
            && let Some(what) = self.before_ids.lock().take()
        {
            what(&self.disk, &batch);
        }
        self.disk.write(batch, sync)
    }

    fn sync(&self) -> BackendResult<()> {
        self.disk.sync()
    }

    fn describe(&self) -> Description {
        self.disk.describe()
    }

    fn usage(&self) -> BackendResult<Usage> {
        self.disk.usage()
    }

    fn close(&self) -> BackendResult<()> {
        self.disk.close()
    }
}
