//! What the store holds of one repository, and the handle that users have of it.

use std::sync::Arc;

use super::{
    core::Core,
    fork::{ForkOf, Forks},
    garbage::HeldVersions,
    history::MemoryHistory,
    ids::{Cause, Durability, PoolId, RepoId, RepoName, RepoSettings},
    pool::Pool,
    residency::ReferenceBytes,
    rules::GitRules,
    snapshot::Snapshot,
    transaction::Transaction,
    version::Version,
};
use crate::object::ObjectFormat;
use crate::sync::{
    ArcSwap, Mutex, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// What the catalog records of a repository.
#[derive(Debug, Clone)]
pub(crate) struct RepoRecord {
    pub(crate) name: RepoName,
    pub(crate) description: String,
    pub(crate) durability: Durability,
    pub(crate) created_millis: i64,
    pub(crate) git: Arc<GitRules>,
    /// Never changes.
    pub(crate) format: ObjectFormat,
}

/// One repository in memory.
pub(crate) struct RepoState {
    pub(crate) id: RepoId,
    pub(crate) pool: Arc<Pool>,
    /// What it was forked from; `None` if it was created empty.
    pub(crate) fork_of: Option<Box<ForkOf>>,
    pub(crate) forks: Forks,
    /// Written by the journal thread (or the caller, for memory repositories) when a change is durable.
    pub(crate) record: ArcSwap<RepoRecord>,
    /// The newest version, durable or not. Advanced by writers with compare-and-swap, reset by the journal thread.
    pub(crate) tip: ArcSwap<Version>,
    /// The newest version that readers see. Written by the journal thread; in memory and relaxed repositories by
    /// writers. Only ever advances.
    pub(crate) published: ArcSwap<Version>,
    /// The newest version that is in the backend, journal included; what unpublished versions fall back to. Written by
    /// the journal thread; stays behind in memory repositories.
    pub(crate) written: ArcSwap<Version>,
    /// The newest version whose references are in their checkpoint. Written by the settling thread.
    pub(crate) settled: ArcSwap<Version>,
    /// Number and lineage of the newest version that the journal has taken; the journal thread's own. In memory
    /// repositories the number of the newest version in the feed, written under the history's lock.
    pub(crate) journaled: AtomicU64,
    pub(crate) lineage: AtomicU64,
    /// The versions of a memory repository; `None` where they are in the backend.
    pub(crate) memory_history: Option<MemoryHistory>,
    /// Set when deletion has begun, cleared if it fails: no new transactions.
    pub(crate) deleted: AtomicBool,
    /// Set by the journal thread when the deletion is durable: nothing more is written.
    pub(crate) gone: AtomicBool,
    pub(crate) reference_bytes: ReferenceBytes,
    /// Versions that were superseded and that readers may still hold.
    pub(crate) held: Mutex<HeldVersions>,
    /// Read by readers of earlier versions, until what they found is among those that are held; who forgets versions
    /// waits for them by writing it.
    pub(crate) finding: RwLock<()>,
    /// Whether its pool is being rewritten.
    pub(crate) rewriting: AtomicBool,
    /// Held while the record changes, so that changes do not overwrite one another.
    pub(crate) changing: Mutex<()>,
}

impl RepoState {
    /// A repository whose newest, published and settled version is `version`.
    pub(crate) fn new(id: RepoId, record: RepoRecord, version: Version, fork_of: Option<ForkOf>) -> Self {
        let is_memory = record.durability == Durability::Memory;
        let memory_history = is_memory.then(MemoryHistory::default);
        let version = Arc::new(version);
        let base = fork_of.as_ref().map(ForkOf::base);
        let shared = fork_of.as_ref().map_or(0, |_| version.refs.resident_bytes());
        Self {
            id,
            pool: Arc::new(Pool::new(PoolId::of(id), record.format, base, is_memory)),
            fork_of: fork_of.map(Box::new),
            forks: Forks::default(),
            record: ArcSwap::from_pointee(record),
            tip: ArcSwap::new(version.clone()),
            published: ArcSwap::new(version.clone()),
            written: ArcSwap::new(version.clone()),
            journaled: AtomicU64::new(version.number),
            settled: ArcSwap::new(version),
            lineage: AtomicU64::new(0),
            memory_history,
            deleted: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            reference_bytes: ReferenceBytes::new(shared),
            held: Mutex::default(),
            finding: RwLock::new(()),
            rewriting: AtomicBool::new(false),
            changing: Mutex::new(()),
        }
    }

    pub(crate) fn durability(&self) -> Durability {
        self.record.load().durability
    }

    /// Advances `published` to `version` unless it is there already.
    pub(crate) fn publish(&self, version: &Arc<Version>) {
        self.published.rcu(|now| if now.number < version.number { version.clone() } else { now.clone() });
    }
}

/// A repository of a store. Cheap to clone; stays valid, and fails, after the repository is deleted.
#[derive(Clone)]
pub struct Repo {
    pub(crate) core: Arc<Core>,
    pub(crate) state: Arc<RepoState>,
}

/// Figures of one repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepoStats {
    /// Number of the published version.
    pub version: u64,
    /// References in it, without realities.
    pub references: usize,
    /// Realities in it.
    pub realities: usize,
}

impl Repo {
    /// The key; stays the same when the repository is renamed.
    pub fn id(&self) -> RepoId {
        self.state.id
    }

    /// The current name.
    pub fn name(&self) -> RepoName {
        self.state.record.load().name.clone()
    }

    /// The current settings.
    pub fn settings(&self) -> RepoSettings {
        let record = self.state.record.load();
        RepoSettings {
            description: record.description.clone(),
            default_branch: self.state.published.load().head.clone(),
            durability: record.durability,
            git: GitRules::clone(&record.git),
            object_format: record.format,
        }
    }

    /// The current rules for Git's protocol.
    pub fn git_rules(&self) -> Arc<GitRules> {
        Arc::clone(&self.state.record.load().git)
    }

    /// The hash that names its objects.
    pub fn object_format(&self) -> ObjectFormat {
        self.state.pool.format
    }

    /// When the repository was created, in seconds since the Unix epoch.
    pub fn created_seconds(&self) -> i64 {
        self.state.record.load().created_millis.div_euclid(1000)
    }

    /// Whether the repository has been deleted since this handle was got.
    pub fn is_deleted(&self) -> bool {
        self.state.deleted.load(Ordering::Acquire)
    }

    /// The published version, pinned: what readers see, and go on seeing through this snapshot.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(self, self.state.published.load_full())
    }

    /// The newest version, durable or not: what a writer builds on.
    pub(crate) fn tip_snapshot(&self) -> Snapshot {
        Snapshot::of_tip(self, self.state.tip.load_full())
    }

    pub(crate) fn limits(&self) -> super::Limits {
        self.core.options.limits
    }

    /// What [`Pool::removals`] is now.
    pub(super) fn removals(&self) -> u64 {
        self.state.pool.removals.load(Ordering::SeqCst)
    }

    /// A number that grows when versions that were not published are given up.
    pub fn lineage(&self) -> u64 {
        self.state.tip.load().lineage
    }

    pub(crate) fn tip_number(&self) -> u64 {
        self.state.tip.load().number
    }

    pub(crate) fn now_millis(&self) -> i64 {
        self.core.now_millis()
    }

    /// Starts a transaction of `actor`.
    pub fn begin(&self, actor: &str, cause: Cause) -> Transaction {
        Transaction::new(self.clone(), actor, cause)
    }

    /// Figures of the repository.
    pub fn stats(&self) -> RepoStats {
        let version = self.state.published.load();
        RepoStats { version: version.number, references: version.refs.len(), realities: version.refs.reality_count() }
    }
}

impl std::fmt::Debug for Repo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repo({} {})", self.state.id, self.name())
    }
}
