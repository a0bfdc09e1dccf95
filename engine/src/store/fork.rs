//! Forks: repositories that begin with what another holds, in a time and in bytes that do not depend on how much it is.
//!
//! A fork shares objects by its pool ([`super::pool`]) and, until it must not, references: its rows are then what
//! differs from the source's references at the version that was forked. Opening makes those again from the source's
//! history, which is therefore kept as far back as a fork needs it; where versions are to be forgotten, the fork gets
//! rows of its own for all of its references first ([`Core::part_forks`]). Of a source that is deleted everything stays
//! as long as it has forks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

use super::{
    Store,
    core::Core,
    ids::{Cause, Durability, PoolId, RepoId, RepoName},
    pool::{Base, Pool},
    record::{CatalogRow, ForkRow, RefRow},
    state::{Repo, RepoRecord, RepoState},
    version::{Previous, Version},
};
use crate::{
    Error, Result,
    backend::{Batch, Family, Scan, Sync, key},
    refs::{RefMap, RefName},
    sync::{
        ArcSwapOption, Mutex,
        atomic::{AtomicBool, Ordering},
        thread,
    },
};

/// Layers that lie over each other at most: a lookup goes down all of them.
const DEPTH_MAX: usize = 64;
/// References that are written at once when forks part from their source, about.
const PART_REFERENCES: usize = 100_000;

/// What a repository was forked from.
pub(crate) struct ForkOf {
    /// The source, as long as it is in memory.
    source: Weak<RepoState>,
    source_id: RepoId,
    pool: Arc<Pool>,
    /// The source's version.
    version: u64,
    /// Whether the fork is in the backend's catalog; set by the settling thread.
    settled: AtomicBool,
    /// That version's references, while the rows of the fork's are only what differs from them; taken out by the settling
    /// thread.
    shared: ArcSwapOption<RefMap>,
}

impl ForkOf {
    /// A fork of `source` at a version, whose references it shares.
    pub(crate) fn new(source: &Arc<RepoState>, version: u64, shared: Option<RefMap>) -> Self {
        Self {
            source: Arc::downgrade(source),
            source_id: source.id,
            pool: source.pool.clone(),
            version,
            settled: AtomicBool::new(false),
            shared: ArcSwapOption::new(shared.map(Arc::new)),
        }
    }

    pub(crate) fn base(&self) -> Base {
        Base { pool: self.pool.clone(), version: self.version }
    }

    pub(crate) fn row(&self) -> ForkRow {
        ForkRow { source: self.source_id, version: self.version, shares_references: self.shares_references() }
    }

    pub(crate) fn set_settled(&self) {
        self.settled.store(true, Ordering::Release);
    }

    /// Counts the fork among those that there are, or no more.
    pub(crate) fn count(&self, is_there: bool) {
        let forks = &self.pool.live_forks;
        if is_there {
            forks.fetch_add(1, Ordering::Relaxed);
        } else {
            forks.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn shares_references(&self) -> bool {
        self.shared.load().is_some()
    }

    /// Says what the shared references are.
    pub(crate) fn set_shared(&self, references: RefMap) {
        self.shared.store(Some(Arc::new(references)));
    }

    /// Whether a reference must be marked as removed, for it would come back from the source.
    pub(crate) fn shares(&self, name: &RefName) -> bool {
        self.shared.load().as_ref().is_some_and(|shared| shared.get(name).is_some())
    }
}

/// Forks whose references are made from this repository's, by the version that they need; also those that have been
/// deleted and stay for forks of their own.
#[derive(Default)]
pub(crate) struct Forks(Mutex<BTreeMap<(u64, RepoId), Arc<RepoState>>>);

impl Forks {
    /// The greatest version up to `version` that no fork needs anything before.
    fn floor(&self, version: u64) -> u64 {
        let mut forks = self.0.lock();
        while let Some(first) = forks.first_entry() {
            if first.get().needs_references() {
                return version.min(first.key().0);
            }
            first.remove();
        }
        version
    }

    /// The forks that need versions before `version`, the oldest first.
    fn before(&self, version: u64) -> Vec<Arc<RepoState>> {
        let forks = self.0.lock();
        forks.range(..(version, RepoId(0))).map(|(_, fork)| fork.clone()).collect()
    }
}

impl RepoState {
    /// Notes a fork of this repository that is there when the store is opened.
    pub(crate) fn add_known_fork(&self, fork: &Arc<RepoState>) {
        if let Some(fork_of) = &fork.fork_of {
            self.forks.0.lock().insert((fork_of.version, fork.id), fork.clone());
        }
    }

    /// Whether it is a fork whose references are made from its source's, as long as it is in the backend: the next
    /// opening needs them, also those of a deleted one that stays for its own forks.
    fn needs_references(&self) -> bool {
        let shares = self.fork_of.as_ref().is_some_and(|fork_of| fork_of.shares_references());
        shares && !self.pool.is_purged()
    }
}

impl Repo {
    /// The repository that this one was forked from, unless that has been deleted.
    pub fn forked_from(&self) -> Option<RepoName> {
        let source = self.state.fork_of.as_ref()?.source.upgrade()?;
        (!source.deleted.load(Ordering::Acquire)).then(|| source.record.load().name.clone())
    }

    /// Forks of this repository that there are.
    pub fn fork_count(&self) -> usize {
        self.state.pool.live_forks.load(Ordering::Relaxed)
    }
}

impl Store {
    /// Creates a repository that holds what `source` holds now, and waits until that is as durable as `source` is.
    ///
    /// It has the description, durability, rules, default branch and references of the source, but its realities and its past
    /// not: its first version is this one. It costs the same whatever the source holds, and outlives it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] for the source, [`crate::ErrorKind::Exists`] if the name is taken,
    /// [`crate::ErrorKind::LimitExceeded`] for a fork of a fork of a fork, 64 deep; else when the write fails.
    pub fn fork(&self, source: &RepoName, name: &RepoName, actor: &str) -> Result<Repo> {
        let core = self.core();
        core.health.check_writable()?;
        let source = self.repo(source)?;
        core.catalog.check_free(name)?;
        let depth = source.state.pool.depth() + 1;
        if depth > DEPTH_MAX {
            return Err(Error::limit("forks over each other", depth, DEPTH_MAX));
        }
        let layer = Layer::add(core, &source.state)?;
        let draft = Draft::of(core, &source.state, name, actor);
        draft.wait_for_source(core)?;
        let repo = Repo { core: core.clone(), state: draft.fork.clone() };
        self.enlist(&repo)?;
        draft.keep();
        layer.keep();
        Ok(repo)
    }
}

/// A layer over a pool that is taken off again unless it is kept.
struct Layer<'a>(Option<(&'a Core, &'a Arc<Pool>)>);

impl<'a> Layer<'a> {
    fn add(core: &'a Core, source: &'a RepoState) -> Result<Self> {
        source.pool.add_fork(core)?;
        let layer = Self(Some((core, &source.pool)));
        // After the layer is counted: a deletion that has not seen it is seen here.
        if source.deleted.load(Ordering::SeqCst) {
            return Err(Error::not_found(format!("repository {} has been deleted", source.record.load().name)));
        }
        Ok(layer)
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Layer<'_> {
    fn drop(&mut self) {
        let Some((core, pool)) = self.0 else { return };
        // What is in the backend and not needed any more is found at the next opening.
        if pool.remove_fork() && pool.memory.is_some() {
            core.free_memory_pool(pool);
        }
    }
}

/// A fork that nobody finds yet, and that its source forgets again unless it is kept.
struct Draft<'a> {
    source: &'a Arc<RepoState>,
    fork: Arc<RepoState>,
    /// The source's version.
    version: u64,
    kept: bool,
}

impl<'a> Draft<'a> {
    /// A fork of what readers of `source` see now.
    fn of(core: &Core, source: &'a Arc<RepoState>, name: &RepoName, actor: &str) -> Self {
        // What is chosen under the lock is not forgotten: trimming takes it, too, and ends before what is published.
        let mut forks = source.forks.0.lock();
        let version = source.published.load_full();
        let old = source.record.load();
        let now = core.now_millis().max(version.time_millis);
        let record = RepoRecord { name: name.clone(), created_millis: now, ..RepoRecord::clone(&old) };
        let first = Version {
            number: 1,
            time_millis: now,
            actor: actor.into(),
            cause: Cause::Fork,
            certificate: None,
            head: version.head.clone(),
            refs: version.refs.without_realities(),
            lineage: 0,
            acknowledged: 0,
            previous: Previous::default(),
        };
        let shared = (record.durability != Durability::Memory).then(|| first.refs.clone());
        let is_stored = shared.is_some();
        let fork_of = ForkOf::new(source, version.number, shared);
        let fork = Arc::new(RepoState::new(core.catalog.take_id(), record, first, Some(fork_of)));
        fork.pool.set_no_index();
        if is_stored {
            forks.insert((version.number, fork.id), fork.clone());
        }
        Self { source, fork, version: version.number, kept: false }
    }

    /// Waits until the source's version, which readers may see before that, is complete: in the journal before the fork,
    /// or, in memory, with all that earlier versions brought.
    fn wait_for_source(&self, core: &Core) -> Result<()> {
        let source = self.source;
        let is_behind = || match source.is_journaled() {
            true => source.written.load().number < self.version,
            false => source.journaled.load(Ordering::Acquire) < self.version,
        };
        while is_behind() {
            if source.deleted.load(Ordering::SeqCst) {
                return Err(Error::not_found(format!("repository {} has been deleted", source.record.load().name)));
            }
            if source.is_journaled() {
                core.journal.barrier().wait()?;
            }
            // A writer may still be about to send an earlier version.
            thread::yield_now();
        }
        Ok(())
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.source.forks.0.lock().remove(&(self.version, self.fork.id));
        }
    }
}

impl Core {
    /// The greatest version up to `first` that `repo` may begin its history with, for its forks' sake.
    pub(crate) fn history_floor(&self, repo: &RepoState, first: u64) -> u64 {
        repo.forks.floor(first)
    }

    /// Gives forks of `repo` that need versions before `first` rows of their own for all of their references, some
    /// each time. For the settling thread alone, which writes these rows.
    pub(crate) fn part_forks(&self, repo: &RepoState, first: u64) -> Result<()> {
        let mut written = 0;
        for fork in repo.forks.before(first) {
            let Some(fork_of) = fork.fork_of.as_ref().filter(|_| fork.needs_references()) else { continue };
            // What is not in the catalog may never come there; until it does, its source's history stays.
            if !fork_of.settled.load(Ordering::Acquire) {
                continue;
            }
            if written > PART_REFERENCES {
                break;
            }
            let settled = fork.settled.load_full();
            let mut batch = Batch::new();
            for row in self.backend.scan(Family::Refs, Scan::prefix(&key::repo(fork.id)))? {
                let (ref_key, value) = row?;
                if value == RefRow::REMOVED {
                    batch.delete(Family::Refs, ref_key.to_vec());
                }
            }
            for (name, oid) in settled.refs.range(..) {
                batch.put(Family::Refs, key::reference(fork.id, name), RefRow::encode(oid, None));
                written += 1;
            }
            let mut row = CatalogRow::new(&fork, &fork.record.load(), &settled);
            row.is_retired = fork.pool.is_retired();
            if let Some(fork) = &mut row.fork {
                fork.shares_references = false;
            }
            batch.put(Family::Catalog, key::repo(fork.id), row.encode());
            batch.uses_reserve = true;
            self.health.check_not_poisoned()?;
            self.backend.write(batch, Sync::No)?;
            fork_of.shared.store(None);
        }
        Ok(())
    }
}

/// What becomes of the storage of deleted repositories.
#[derive(Default)]
pub(crate) struct Purge {
    /// Pools that nobody needs any more.
    pub(crate) gone: BTreeMap<PoolId, Arc<Pool>>,
    /// Pools that stay for the forks over them.
    pub(crate) retired: BTreeSet<PoolId>,
}

impl Purge {
    /// Of repositories that are deleted now, and of sources that were deleted before and had only these for forks.
    pub(crate) fn plan<'a>(deleted: impl Iterator<Item = &'a Arc<Pool>>) -> Self {
        let mut plan = Self::default();
        let mut open: BTreeMap<PoolId, Arc<Pool>> = deleted.map(|pool| (pool.id, pool.clone())).collect();
        let mut gone_forks: BTreeMap<PoolId, usize> = BTreeMap::new();
        // Forks are younger than their sources.
        while let Some((id, pool)) = open.pop_last() {
            if pool.forks() > gone_forks.get(&id).copied().unwrap_or_default() {
                plan.retired.insert(id);
                continue;
            }
            if let Some(base) = &pool.base {
                let base = &base.pool;
                let gone = gone_forks.entry(base.id).or_default();
                *gone += 1;
                if base.is_retired() && base.forks() == *gone {
                    open.insert(base.id, base.clone());
                }
            }
            plan.gone.insert(id, pool);
        }
        plan
    }

    /// Notes what has been done.
    pub(crate) fn apply<'a>(&self, deleted: impl Iterator<Item = &'a Arc<Pool>>) {
        for pool in deleted {
            pool.retire();
        }
        for pool in self.gone.values() {
            pool.set_purged();
            if let Some(base) = &pool.base {
                base.pool.remove_fork();
            }
        }
    }
}
