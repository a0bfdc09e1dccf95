//! The heart of a store: what all its parts share, and how an object is found.
//!
//! Lookup order: the object table; then the pool's ids (in the backend, or in memory for memory repositories),
//! which lead to a record in a block. A record's chain of deltas is followed to a whole object or a cached base and
//! applied from there up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{
    StoreOptions,
    catalog::Catalog,
    clock::ClockCache,
    feed::Feed,
    health::HealthCell,
    ids::{PoolId, RepoId},
    ingest::{IdRow, Segments},
    journal::JournalHandle,
    settle::SettleQueue,
    snapshot::{Object, Stored},
    state::Pool,
    table::{ObjectTable, Scope},
    version::Version,
};
use crate::{
    Error, Result,
    backend::{Backend, Family, key},
    block::{Base, DecodedBlock, Location, apply_delta, join_parts},
    object::{Kind, Oid},
};

/// Longest chain of deltas that a reader follows; longer ones are damage or an attack.
pub(crate) const CHAIN_MAX: usize = 10_000;

/// Counts that only grow, for statistics.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) published: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) cache_hits: AtomicU64,
    pub(crate) cache_misses: AtomicU64,
    pub(crate) journal_groups: AtomicU64,
    pub(crate) journal_transactions: AtomicU64,
    pub(crate) journal_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) sync_nanos: AtomicU64,
    pub(crate) open_transactions: AtomicI64,
}

/// Everything that the parts of a store share.
pub(crate) struct Core {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) options: StoreOptions,
    pub(crate) table: ObjectTable,
    blocks: ClockCache<(PoolId, u32, u32), Arc<DecodedBlock>>,
    bases: ClockCache<(PoolId, Location), Bytes>,
    /// Old versions that were made again from rows.
    pub(crate) rebuilt: ClockCache<(RepoId, u64), Arc<Version>>,
    pub(crate) catalog: Catalog,
    pub(crate) feed: Feed,
    pub(crate) journal: JournalHandle,
    pub(crate) settle: SettleQueue,
    pub(crate) health: HealthCell,
    pub(crate) counters: Counters,
    /// Bytes that memory repositories hold.
    pub(crate) memory_held_bytes: AtomicU64,
    /// The numbers of segments.
    pub(crate) segments: Segments,
    /// Writers between the check that the store is open and the hand-over to the journal.
    publishing: AtomicUsize,
}

/// A writer that closing waits for.
pub(crate) struct Publishing<'a>(&'a AtomicUsize);

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Core {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        options: StoreOptions,
        journal: JournalHandle,
        feed: Feed,
        next_segment: u32,
    ) -> Self {
        let budget = options.memory_budget_bytes;
        let (blocks, bases, rebuilt) = (budget / 4, budget / 16, budget / 64);
        Self {
            backend,
            table: ObjectTable::new(budget - blocks - bases - rebuilt),
            blocks: ClockCache::new(blocks),
            bases: ClockCache::new(bases),
            rebuilt: ClockCache::new(rebuilt),
            catalog: Catalog::default(),
            feed,
            journal,
            settle: SettleQueue::default(),
            health: HealthCell::default(),
            counters: Counters::default(),
            memory_held_bytes: AtomicU64::new(0),
            segments: Segments::new(next_segment),
            publishing: AtomicUsize::new(0),
            options,
        }
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn now_millis(&self) -> i64 {
        (self.options.clock)()
    }

    /// Marks a writer that is about to publish.
    pub(crate) fn publishing(&self) -> Publishing<'_> {
        self.publishing.fetch_add(1, Ordering::SeqCst);
        Publishing(&self.publishing)
    }

    /// Waits for the writers that began before the store was marked as closed.
    pub(crate) fn wait_for_publishing(&self) {
        while self.publishing.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Bytes of memory that the caches and the table hold.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.table.used_bytes() + self.blocks.used_bytes() + self.bases.used_bytes() + self.rebuilt.used_bytes()
    }

    /// Reserves memory for a memory repository.
    ///
    /// # Errors
    /// [`crate::ErrorKind::OutOfBudget`] if memory repositories alone would exceed the budget.
    pub(crate) fn hold_memory(&self, pool: &Pool, bytes: u64) -> Result<()> {
        let Some(memory) = &pool.memory else { return Ok(()) };
        let limit = self.options.memory_budget_bytes / 2;
        let grow = |held: u64| held.checked_add(bytes).filter(|held| *held <= limit);
        if self.memory_held_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).is_err() {
            let message = format!("memory repositories may hold {limit} bytes in all; {bytes} more do not fit");
            return Err(Error::new(crate::ErrorKind::OutOfBudget, message));
        }
        memory.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Gives memory of a memory repository back.
    pub(crate) fn free_memory(&self, pool: &Pool, bytes: u64) {
        let Some(memory) = &pool.memory else { return };
        // Deletion frees everything at once, so what a writer gives back afterwards counts for nothing.
        let shrink = |held: u64| Some(held.saturating_sub(bytes));
        let held = memory.held_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shrink).unwrap_or(0);
        self.memory_held_bytes.fetch_sub(held.min(bytes), Ordering::Relaxed);
    }

    /// Reserves memory for blocks or the history of a memory repository, which the object table makes room for.
    ///
    /// # Errors
    /// As [`Core::hold_memory`].
    pub(crate) fn hold_blocks(&self, pool: &Pool, bytes: u64) -> Result<()> {
        self.hold_memory(pool, bytes)?;
        if let Some(memory) = &pool.memory {
            memory.block_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.table.reserve(bytes);
        }
        Ok(())
    }

    /// Gives back what [`Core::hold_blocks`] took.
    pub(crate) fn free_blocks(&self, pool: &Pool, bytes: u64) {
        self.free_memory(pool, bytes);
        if let Some(memory) = &pool.memory {
            let shrink = |held: u64| Some(held.saturating_sub(bytes));
            let held = memory.block_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shrink).unwrap_or(0);
            self.table.unreserve(held.min(bytes));
        }
    }

    /// An object of a pool.
    pub(crate) fn find(&self, pool: &Pool, oid: &Oid, scope: Scope) -> Result<Option<Object>> {
        if let Some(object) = self.table.get(pool.id, oid, scope) {
            self.counters.cache_hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(object));
        }
        // Before the rows: a segment leaves flight after its rows are there.
        if let Some(staged) = pool.in_flight(oid, scope) {
            return staged.object(oid);
        }
        let Some(row) = self.row(pool, oid)? else {
            // Every git knows the empty tree without being given it.
            let empty = *oid == Oid::empty_tree();
            return Ok(empty.then(|| Object { kind: Kind::Tree, data: Bytes::new() }));
        };
        self.counters.cache_misses.fetch_add(1, Ordering::Relaxed);
        let data = self.materialise(pool, row.location)?;
        if data.len() as u64 != row.size {
            return Err(Error::corrupt(format!("object {oid} has {} bytes instead of {}", data.len(), row.size)));
        }
        let object = Object { kind: row.kind, data };
        if pool.memory.is_none() {
            self.table.insert_loaded(pool.id, *oid, &object);
        }
        Ok(Some(object))
    }

    /// An object's kind and size.
    pub(crate) fn header(&self, pool: &Pool, oid: &Oid, scope: Scope) -> Result<Option<(Kind, u64)>> {
        if let Some(object) = self.table.get(pool.id, oid, scope) {
            return Ok(Some((object.kind, object.data.len() as u64)));
        }
        if let Some(header) = pool.in_flight(oid, scope).and_then(|staged| staged.header(oid)) {
            return Ok(Some(header));
        }
        match self.row(pool, oid)? {
            Some(row) => Ok(Some((row.kind, row.size))),
            None => Ok((*oid == Oid::empty_tree()).then_some((Kind::Tree, 0))),
        }
    }

    fn row(&self, pool: &Pool, oid: &Oid) -> Result<Option<IdRow>> {
        if let Some(memory) = &pool.memory {
            return Ok(memory.ids.pin().get(oid).copied());
        }
        match self.backend.get(Family::Ids, &key::id(pool.id, oid))? {
            Some(value) => IdRow::decode(&value).map(Some),
            None => Ok(None),
        }
    }

    /// Where objects of a pool are stored.
    pub(crate) fn locate(&self, pool: &Pool, oids: &[Oid]) -> Result<Vec<Option<Location>>> {
        if pool.memory.is_some() {
            return oids.iter().map(|oid| Ok(self.row(pool, oid)?.map(|row| row.location))).collect();
        }
        let keys: Vec<_> = oids.iter().map(|oid| key::id(pool.id, oid)).collect();
        let rows = self.backend.get_many(Family::Ids, &keys)?;
        rows.into_iter().map(|row| row.map(|row| Ok(IdRow::decode(&row)?.location)).transpose()).collect()
    }

    /// The ids of a pool's stored objects from `from` to `to`, both included, in order; at most `limit`.
    pub(crate) fn ids_between(&self, pool: &Pool, from: &Oid, to: &Oid, limit: usize) -> Result<Vec<Oid>> {
        if let Some(memory) = &pool.memory {
            let ids = memory.ids.pin();
            let mut found: Vec<Oid> = ids.keys().filter(|oid| (from..=to).contains(oid)).copied().collect();
            found.sort_unstable();
            found.truncate(limit);
            return Ok(found);
        }
        use std::ops::Bound::Included;
        let (from, to) = (key::id(pool.id, from), key::id(pool.id, to));
        let scan = crate::backend::Scan { from: Included(from), to: Included(to), reverse: false };
        let rows = self.backend.scan(Family::Ids, scan)?.take(limit);
        rows.map(|row| Oid::from_bytes(row?.0.get(8..).unwrap_or_default())).collect()
    }

    /// A record as it is stored.
    pub(crate) fn record(&self, pool: &Pool, location: Location) -> Result<Stored> {
        let block = self.block(pool, location.segment, location.block)?;
        let (header, body) = record_of(&block, location)?;
        let base = match header.base {
            Base::Whole => None,
            Base::Near { block, slot } => Some(Location { segment: location.segment, block, slot }),
        };
        Ok(Stored { kind: header.kind, size: header.size, base, body })
    }

    /// The bytes of the object whose record is at `location`.
    pub(crate) fn materialise(&self, pool: &Pool, location: Location) -> Result<Bytes> {
        // Locations only: bodies would keep every block of the chain in memory.
        let mut chain = Vec::new();
        let mut at = location;
        let mut data = loop {
            if let Some(data) = self.bases.get(&(pool.id, at)) {
                break data;
            }
            let Stored { base, body, .. } = self.record(pool, at)?;
            let Some(base) = base else {
                // Not a slice of the block, which would stay in memory as long as the object.
                let data = Bytes::copy_from_slice(&body);
                self.keep_base(pool, at, &data);
                break data;
            };
            if chain.len() == CHAIN_MAX {
                return Err(Error::corrupt(format!("a chain of more than {CHAIN_MAX} deltas")));
            }
            chain.push(at);
            at = base;
        };
        for at in chain.into_iter().rev() {
            data = apply_delta(&data, &self.record(pool, at)?.body)?.into();
            self.keep_base(pool, at, &data);
        }
        Ok(data)
    }

    fn keep_base(&self, pool: &Pool, at: Location, data: &Bytes) {
        self.bases.insert((pool.id, at), data.clone(), data.len() as u64 + 96);
    }

    fn block(&self, pool: &Pool, segment: u32, block: u32) -> Result<Arc<DecodedBlock>> {
        let cache_key = (pool.id, segment, block);
        if let Some(decoded) = self.blocks.get(&cache_key) {
            return Ok(decoded);
        }
        let missing = || Error::not_found(format!("block {segment}/{block} of pool {} is missing", pool.id.0));
        let encoded = match &pool.memory {
            Some(memory) => memory.blocks.pin().get(&(segment, block)).cloned().ok_or_else(missing)?,
            None => {
                let part = |part: u16| -> Result<Bytes> {
                    let key = key::block_part(pool.id, segment, block, part);
                    self.backend.get(Family::Blocks, &key)?.ok_or_else(missing)
                };
                join_parts(part(0)?, part)?
            }
        };
        let decoded = Arc::new(DecodedBlock::decode(&encoded)?);
        self.blocks.insert(cache_key, decoded.clone(), decoded.resident_bytes() as u64);
        Ok(decoded)
    }
}

fn record_of(block: &DecodedBlock, at: Location) -> Result<(crate::block::RecordHeader, Bytes)> {
    let slot = usize::from(at.slot);
    match (block.header(slot), block.body(slot)) {
        (Some(header), Some(body)) => Ok((*header, body)),
        _ => Err(Error::corrupt(format!("block {}/{} has no record {slot}", at.segment, at.block))),
    }
}
