//! Pools: the objects that a repository has brought, over those that it began with.
//!
//! Every repository has a pool of its own. A fork's pool is a layer over its source's: what the source had at the
//! version that was forked is found there, and what either brings later is its own. So a fork costs nothing, whatever
//! its source holds, and neither reads what only the other has. For that, a pool that was forked notes with each object
//! since which version it has it. A pool stays as long as there is a layer over it, also when its repository is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock, Weak},
};

use bytes::Bytes;

use super::{
    core::Core,
    garbage::Doomed,
    ids::PoolId,
    ingest::{IdRow, Staged},
    lfs::{LfsLock, LfsOid, LfsRow},
    segment_index::IndexCell,
    table::Scope,
};
use crate::{
    Error, Result,
    object::{ObjectFormat, Oid},
    sync::{
        ArcSwapOption, Mutex, RwLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
        thread,
    },
};

/// The objects of a repository.
pub(crate) struct Pool {
    pub(crate) id: PoolId,
    /// The hash of its ids, and of those of all pools that it lies over.
    pub(crate) format: ObjectFormat,
    /// What a fork's pool lies over.
    pub(crate) base: Option<Base>,
    /// Blocks and ids of a memory repository; `None` where they are in the backend.
    pub(crate) memory: Option<MemoryPool>,
    /// Segments whose version is in `tip`, or about to be, and whose rows are not written yet. Writers add before they
    /// advance `tip`; the journal (or the writer of a memory repository) removes once the rows are there or the version
    /// is not.
    pub(crate) in_flight: RwLock<Vec<Staged>>,
    sharing: AtomicU8,
    life: Mutex<Life>,
    /// Set by the settling thread when nothing of the repository is in the backend any more.
    purged: AtomicBool,
    /// Segments that may still get rows: who writes them, or has them to publish, is there.
    pub(crate) open_segments: Mutex<BTreeSet<u32>>,
    /// What readers hold who have been told where records are.
    generation: Mutex<Arc<Generation>>,
    /// Objects that are being removed. Set by who collects them, cleared by it or by a fork that begins.
    pub(crate) doomed: ArcSwapOption<Doomed>,
    /// Grows whenever rows have gone of objects that may be in memory. Written by who collects them.
    pub(crate) removals: AtomicU64,
    /// Where the objects of its rewritten segment are.
    pub(crate) index: IndexCell,
    /// Forks that there are, without those that are deleted or were never enlisted.
    pub(crate) live_forks: AtomicUsize,
}

/// No fork has begun: rows in the backend do not say since when.
const ALONE: u8 = 0;
/// A first fork has begun: rows that are made from now on say it.
const BEGUN: u8 = 1;
/// All rows of versions that are still to come say it.
const SHARED: u8 = 2;

/// Where a pool's records are, until a rewrite moves them. Who holds one can read each record that was there when it was
/// taken; an earlier one holds all later ones.
#[derive(Default)]
pub(crate) struct Generation {
    next: OnceLock<Arc<Generation>>,
}

/// The pool under a fork's.
pub(crate) struct Base {
    pub(crate) pool: Arc<Pool>,
    /// The source's version: what later ones brought is not seen.
    pub(crate) version: u64,
}

/// Who needs a pool.
#[derive(Default)]
struct Life {
    /// Layers right over it, also of repositories that are not enlisted yet, or that stay for forks of their own.
    forks: usize,
    /// Whether its repository has been deleted.
    retired: bool,
}

/// What a memory repository holds.
#[derive(Default)]
pub(crate) struct MemoryPool {
    /// Made when something comes in blocks: most repositories hold their objects in the table, and maps are large.
    segments: OnceLock<Box<MemorySegments>>,
    /// Bytes held for this pool: blocks, rows, and objects in the table. Written by its writers.
    pub(crate) held_bytes: AtomicU64,
    /// Those of blocks, rows and the history alone.
    pub(crate) block_bytes: AtomicU64,
}

/// Blocks that never leave memory.
#[derive(Default)]
pub(crate) struct MemorySegments {
    pub(crate) ids: papaya::HashMap<Oid, IdRow>,
    pub(crate) blocks: papaya::HashMap<(u32, u32), Bytes>,
    /// Large contents, whose chunks are among the blocks.
    pub(crate) lfs: papaya::HashMap<LfsOid, LfsRow>,
    pub(crate) lfs_locks: Mutex<BTreeMap<u32, LfsLock>>,
}

impl MemoryPool {
    /// What came in blocks, if anything has.
    pub(crate) fn segments(&self) -> Option<&MemorySegments> {
        self.segments.get().map(|segments| &**segments)
    }

    pub(crate) fn make_segments(&self) -> &MemorySegments {
        self.segments.get_or_init(Box::default)
    }

    pub(crate) fn row(&self, oid: &Oid) -> Option<IdRow> {
        self.segments()?.ids.pin().get(oid).copied()
    }
}

impl Pool {
    pub(crate) fn new(id: PoolId, format: ObjectFormat, base: Option<Base>, is_memory: bool) -> Self {
        Self {
            id,
            format,
            base,
            memory: is_memory.then(MemoryPool::default),
            in_flight: RwLock::default(),
            sharing: AtomicU8::new(ALONE),
            life: Mutex::default(),
            purged: AtomicBool::new(false),
            open_segments: Mutex::default(),
            generation: Mutex::default(),
            doomed: ArcSwapOption::new(None),
            removals: AtomicU64::new(0),
            index: IndexCell::default(),
            live_forks: AtomicUsize::new(0),
        }
    }

    /// The pools in which objects are looked up, the nearest first, each with the last version whose objects are seen.
    pub(crate) fn layers(&self) -> impl Iterator<Item = (&Pool, u64)> {
        std::iter::successors(Some((self, u64::MAX)), |(pool, _)| {
            pool.base.as_ref().map(|base| (&*base.pool, base.version))
        })
    }

    /// Whether rows must say since which version the pool has an object.
    pub(crate) fn is_shared(&self) -> bool {
        self.sharing.load(Ordering::SeqCst) != ALONE
    }

    /// Counts a layer that is put over this pool; what is published from now on is noted as later than it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if the repository has been deleted; else when the journal, which may have older
    /// notions, cannot write.
    pub(crate) fn add_fork(&self, core: &Core) -> Result<()> {
        {
            let mut life = self.life.lock();
            if life.retired {
                return Err(Error::not_found("the repository has been deleted"));
            }
            life.forks += 1;
        }
        // After it is counted: a collection that begins from now on sees it.
        self.call_off(core);
        if self.memory.is_some() || self.sharing.load(Ordering::SeqCst) == SHARED {
            return Ok(());
        }
        let _ = self.sharing.compare_exchange(ALONE, BEGUN, Ordering::SeqCst, Ordering::SeqCst);
        // Rows that the settling thread took for those of an unshared pool are written before others are compared.
        drop(core.id_rows.lock());
        if let Err(error) = core.journal.barrier().wait() {
            self.remove_fork();
            return Err(error);
        }
        self.sharing.store(SHARED, Ordering::SeqCst);
        Ok(())
    }

    /// Counts a layer that is there when the store is opened.
    pub(crate) fn add_known_fork(&self) {
        self.life.lock().forks += 1;
        self.sharing.store(SHARED, Ordering::SeqCst);
    }

    /// Takes a layer off; whether nobody needs the pool any more.
    pub(crate) fn remove_fork(&self) -> bool {
        let mut life = self.life.lock();
        life.forks = life.forks.saturating_sub(1);
        life.forks == 0 && life.retired
    }

    /// Notes that the repository has been deleted; whether nobody needs the pool any more.
    pub(crate) fn retire(&self) -> bool {
        let mut life = self.life.lock();
        life.retired = true;
        life.forks == 0
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.life.lock().retired
    }

    /// Keeps all records where they are, as long as it is held.
    pub(crate) fn hold(&self) -> Arc<Generation> {
        self.generation.lock().clone()
    }

    /// Ends a generation after records were rewritten: where they were nobody looks any more once it is gone.
    pub(crate) fn end_generation(&self) -> Weak<Generation> {
        let mut current = self.generation.lock();
        let next = Arc::new(Generation::default());
        // Nobody else sets it, under this lock.
        let _ = current.next.set(next.clone());
        let ended = std::mem::replace(&mut *current, next);
        Arc::downgrade(&ended)
    }

    pub(crate) fn set_purged(&self) {
        self.purged.store(true, Ordering::Release);
    }

    pub(crate) fn is_purged(&self) -> bool {
        self.purged.load(Ordering::Acquire)
    }

    /// How many layers lie under it.
    pub(crate) fn depth(&self) -> usize {
        self.layers().count() - 1
    }

    /// How many layers lie right over it.
    pub(crate) fn forks(&self) -> usize {
        self.life.lock().forks
    }

    pub(crate) fn enter_flight(&self, staged: &[Staged]) {
        if !staged.is_empty() {
            self.in_flight.write().extend_from_slice(staged);
        }
    }

    /// The segment in flight that holds an object in scope.
    pub(crate) fn in_flight(&self, oid: &Oid, scope: Scope) -> Option<Staged> {
        if scope == Scope::Live {
            return None;
        }
        loop {
            let found = {
                let in_flight = self.in_flight.read();
                let mut holding = in_flight.iter().filter(|staged| staged.header(oid).is_some());
                let first = holding.next()?;
                // One that stays before one that may not.
                std::iter::once(first).chain(holding).find(|staged| staged.is_accepted()).unwrap_or(first).clone()
            };
            if scope == Scope::Any || found.is_accepted() {
                return Some(found);
            }
            if scope == Scope::AcceptedByNow {
                return None;
            }
            // Between its claims and its success or failure: see `Scope::Accepted`.
            thread::yield_now();
        }
    }

    /// The ids of objects in flight from `from` to `to`, both included.
    pub(crate) fn ids_in_flight(&self, from: &Oid, to: &Oid) -> Vec<Oid> {
        let in_flight = self.in_flight.read();
        let ids = in_flight.iter().flat_map(|staged| staged.rows()).map(|(oid, _)| *oid);
        ids.filter(|oid| (from..=to).contains(&oid)).collect()
    }

    pub(crate) fn leave_flight(&self, staged: &[Staged]) {
        if !staged.is_empty() {
            let mut in_flight = self.in_flight.write();
            for gone in staged {
                if let Some(at) = in_flight.iter().position(|other| other.is_same(gone)) {
                    in_flight.swap_remove(at);
                }
            }
        }
    }
}

impl Core {
    /// Frees a memory pool that nobody needs, and those under it that only it needed.
    pub(crate) fn free_memory_pool(&self, pool: &Pool) {
        let mut free = Some(pool);
        while let Some(pool) = free {
            self.table.forget_pools(&[pool.id].into());
            if let Some(memory) = &pool.memory {
                if let Some(segments) = memory.segments() {
                    segments.blocks.pin().clear();
                    segments.ids.pin().clear();
                    segments.lfs.pin().clear();
                    segments.lfs_locks.lock().clear();
                }
                self.free_blocks(pool, memory.block_bytes.load(Ordering::Relaxed));
                self.free_memory(pool, memory.held_bytes.load(Ordering::Relaxed));
            }
            free = pool.base.as_ref().filter(|base| base.pool.remove_fork()).map(|base| &*base.pool);
        }
    }
}
