//! The store: references as persistent maps in versions, objects in a table, one publish path, one journal.

mod catalog;
mod clock;
mod core;
mod counter;
mod expiry;
mod feed;
mod fork;
mod fsck;
mod garbage;
mod health;
mod history;
mod identity;
mod ids;
mod ingest;
mod journal;
mod lfs;
mod links;
mod mark;
mod notes;
mod pool;
mod pooled;
mod push_certificate;
mod record;
mod records;
mod recovery;
mod residency;
mod rewrite;
mod rules;
mod segment_index;
mod segment_rows;
mod settle;
mod sizes;
mod snapshot;
mod state;
mod stats;
mod table;
mod ticket;
mod transaction;
mod version;

use std::{sync::Arc, time::Duration};

pub use feed::Publication;
pub use fsck::Fsck;
pub use health::Health;
pub use history::{At, Retention};
pub use identity::{Holding, StoreId};
pub use ids::{Cause, Durability, PoolId, RepoId, RepoName, RepoSettings, Seq};
pub use ingest::{Ingest, Lane, Staged};
pub use lfs::{LFS_CHUNK_BYTES, LfsLock, LfsObject, LfsOid, LfsUpload};
pub use links::CommitLinks;
pub use mark::Tracer;
pub use push_certificate::{Certified, NonceStatus, PushCertificate, SignatureStatus};
pub use rewrite::{Rewrite, Rewritten, StoredObject};
pub use rules::{GitRules, SignedPush};
pub use segment_rows::StoredPool;
pub use sizes::{RepoSize, Size, Sizes};
pub use snapshot::{Object, Place, Snapshot, Stored};
pub use state::{Repo, RepoStats};
pub use stats::StoreStats;
pub use ticket::Ticket;
pub use transaction::{Prepared, Published, Transaction};
pub use version::{Changes, HeadChange, Version};

use self::core::Core;
use crate::{
    Error, ErrorKind, Result,
    backend::Backend,
    sync::{
        Mutex,
        channel::{self, Sender},
        thread::{self, JoinHandle},
    },
};

/// What a store is opened with.
#[derive(Clone)]
pub struct StoreOptions {
    /// Memory for objects and blocks, in bytes; at least 16 MiB.
    pub memory_budget_bytes: u64,
    /// Journal bytes after which they are moved into blocks.
    pub settle_bytes: usize,
    /// How long anything may be in the journal before it is moved into blocks.
    pub settle_age_max: Duration,
    /// How long a relaxed write may wait for its sync.
    pub relaxed_delay_max: Duration,
    /// How long superseded versions can be read.
    pub retention: Retention,
    /// What input may be.
    pub limits: Limits,
    /// Milliseconds since the Unix epoch.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
}

/// Limits of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest object in bytes.
    pub object_bytes_max: u64,
    /// Objects in one pack.
    pub pack_objects_max: u64,
    /// Bytes that all objects of one pack may have together.
    pub pack_expanded_bytes_max: u64,
    /// References that one transaction may change.
    pub references_max: usize,
    /// Changes of one commit.
    pub changes_max: usize,
    /// Realities that one call may make.
    pub realities_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            object_bytes_max: 128 << 20,
            pack_objects_max: 20_000_000,
            pack_expanded_bytes_max: 256 << 30,
            references_max: 1_000_000,
            changes_max: 100_000,
            realities_max: 100_000,
        }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            memory_budget_bytes: 1 << 30,
            settle_bytes: 32 << 20,
            settle_age_max: Duration::from_secs(60),
            relaxed_delay_max: Duration::from_millis(100),
            retention: Retention::default(),
            limits: Limits::default(),
            clock: Arc::new(|| {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
            }),
        }
    }
}

/// A store on a backend. Cheap to clone. When the last clone is dropped the store closes; of repositories that are
/// still held only what is in memory can be read from then on.
#[derive(Clone)]
pub struct Store(Arc<Running>);

struct Running {
    core: Arc<Core>,
    /// Dropped to end the thread that removes realities.
    expiry: Mutex<Option<Sender<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Store {
    /// Opens the store that a backend holds, or begins a new one in an empty backend.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if what the backend holds is damaged or of a newer format; [`ErrorKind::Invalid`] for
    /// a budget that is too small; else when the backend fails.
    pub fn open(backend: Arc<dyn Backend>, options: StoreOptions) -> Result<Self> {
        if options.memory_budget_bytes < 16 << 20 {
            return Err(Error::invalid("the memory budget is below 16 MiB"));
        }
        let mut options = options;
        // What is unsettled stays in memory, so it must be a small part of it.
        let share = usize::try_from(options.memory_budget_bytes / 16).unwrap_or(usize::MAX);
        options.settle_bytes = options.settle_bytes.min(share);
        let (core, queue) = recovery::open(backend, options)?;
        let (expiry, stop) = channel::bounded(0);
        let running = Running { core: core.clone(), expiry: Mutex::new(Some(expiry)), threads: Mutex::new(Vec::new()) };
        let journal = core.clone();
        running.start("govc-journal", move || journal::run(journal, queue))?;
        let settler = core.clone();
        running.start("govc-settle", move || settle::run(settler))?;
        running.start("govc-expiry", move || expiry::run(&core, &stop))?;
        Ok(Self(Arc::new(running)))
    }

    fn core(&self) -> &Arc<Core> {
        &self.0.core
    }

    /// What tells this store, and its copies, from others.
    pub fn id(&self) -> StoreId {
        self.core().id
    }

    /// Whether the store can be written.
    pub fn health(&self) -> Health {
        self.core().health.get()
    }

    /// The publications after a position, in order, at most `limit`; see [`Publication`].
    ///
    /// # Errors
    /// [`ErrorKind::Gone`] if what followed `after` is older than versions are kept; else when the storage fails or is
    /// damaged.
    pub fn feed_after(&self, after: Seq, limit: usize) -> Result<Vec<Publication>> {
        self.core().feed_after(after, limit)
    }

    /// The position after which everything is still kept: where a new follower begins.
    pub fn feed_first(&self) -> Seq {
        self.core().feed.floor()
    }

    /// The newest position that [`Store::feed_after`] would give.
    pub fn feed_last(&self) -> Seq {
        self.core().feed.last()
    }

    /// Waits until the feed goes beyond `after`, at most `timeout`; whether it does.
    pub fn feed_wait(&self, after: Seq, timeout: Duration) -> bool {
        self.core().feed.wait(after, timeout)
    }

    /// Moves everything from the journal to its place, as closing does; for tests and tools.
    pub fn settle(&self) {
        let _ = self.core().journal.barrier().wait();
        self.core().settle.flush(self.core());
    }

    /// Removes the realities whose time was over some minutes ago, as a thread does now and then; how many there were.
    ///
    /// # Errors
    /// When a removal cannot be published.
    pub fn remove_expired_realities(&self) -> Result<usize> {
        expiry::sweep(self.core())
    }

    /// The limits of input.
    pub fn limits(&self) -> Limits {
        self.core().options.limits
    }

    /// Ends the store: what was accepted becomes durable, the journal is settled, threads stop, the backend closes.
    /// Later writes fail with [`ErrorKind::Closed`]. Closing twice is fine.
    ///
    /// # Errors
    /// When what was accepted could not be made durable.
    pub fn close(&self) -> Result<()> {
        self.0.close()
    }
}

impl Running {
    fn start(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
        let thread = thread
            .map_err(|error| Error::new(ErrorKind::Backend, format!("cannot start {name}")).with_source(error))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    fn close(&self) -> Result<()> {
        let mut threads = self.threads.lock();
        if threads.is_empty() {
            return Ok(());
        }
        let core = &self.core;
        drop(self.expiry.lock().take());
        // From here on nothing new is accepted; what was, is written.
        core.health.close();
        core.wait_for_publishing();
        let written = core.journal.barrier().wait();
        core.settle.flush(core);
        core.settle.stop();
        core.journal.stop();
        let panicked = threads.drain(..).map(JoinHandle::join).filter(Result::is_err).count();
        core.backend.close()?;
        if panicked > 0 {
            return Err(Error::new(ErrorKind::Backend, "a thread of the store panicked"));
        }
        written
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the store did not close cleanly");
        }
    }
}

/// Feeds arbitrary bytes to the journal's reader, with and without a right checksum; a fuzz target.
pub fn fuzz_journal(data: &[u8]) {
    let mut sealed = data.to_vec();
    crate::backend::key::seal(&mut sealed);
    for bytes in [data.to_vec(), sealed] {
        if let Ok(entries) = record::read_record(&bytes.into()) {
            assert!(entries.len() <= data.len(), "every entry takes at least a byte");
        }
    }
}
