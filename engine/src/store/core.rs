//! The heart of a store: what all its parts share, and how an object is found.
//!
//! Lookup order: the object table; then the pool's ids (in the backend, or in memory for memory repositories),
//! which lead to a record in a block; each in the repository's own pool before those that it was forked from. A record's chain of deltas is followed to a whole object or a cached base and
//! applied from there up.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use govc_id_table::pin;

use super::{
    StoreOptions,
    catalog::Catalog,
    clock::ClockCache,
    counter::Counter,
    feed::Feed,
    health::HealthCell,
    identity::StoreId,
    ids::{PoolId, RepoId},
    ingest::{IdRow, Segments, Staged},
    journal::JournalHandle,
    links::LinkCache,
    pool::Pool,
    records::Records,
    rewrite::Leaving,
    segment_index::Pages,
    settle::SettleQueue,
    snapshot::{Object, Place, Stored},
    table::{ObjectTable, Scope},
    version::Version,
};
use crate::{
    Error, ErrorKind, Result,
    backend::{Backend, Batch, Family, key},
    object::{Kind, Oid},
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        thread,
    },
};

/// Counts for statistics.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) published: Counter,
    pub(crate) conflicts: Counter,
    pub(crate) cache_hits: Counter,
    pub(crate) cache_misses: Counter,
    pub(crate) journal_groups: AtomicU64,
    pub(crate) journal_transactions: AtomicU64,
    pub(crate) journal_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) sync_nanos: AtomicU64,
    /// Goes up and down.
    pub(crate) open_transactions: Counter,
}

/// Everything that the parts of a store share.
pub(crate) struct Core {
    pub(crate) id: StoreId,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) options: StoreOptions,
    pub(crate) table: ObjectTable,
    pub(crate) records: Records,
    /// Pages of indexes.
    pub(crate) index_pages: Pages,
    /// What commits point at.
    pub(crate) links: LinkCache,
    /// What references' objects point at as tags, `None` for those that are none.
    pub(crate) tags: ClockCache<(PoolId, Oid), Option<Oid>>,
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
    /// Which version of the layout the backend says, once that has been looked up; see `identity.rs`. Its lock is taken after
    /// `id_rows`.
    pub(crate) format: Mutex<Option<usize>>,
    /// Held while rows of pools that have forks, or that are rewritten, are compared and written.
    pub(crate) id_rows: Mutex<()>,
    /// Segments that were rewritten and wait for their last readers.
    pub(crate) leaving: Mutex<Vec<Leaving>>,
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
        id: StoreId,
        backend: Arc<dyn Backend>,
        options: StoreOptions,
        journal: JournalHandle,
        feed: Feed,
        next_segment: u32,
    ) -> Self {
        let budget = options.memory_budget_bytes;
        let (pages, bases, links, tags, rebuilt) = (budget / 32, budget / 16, budget / 64, budget / 128, budget / 64);
        let blocks = budget / 4 - pages;
        Self {
            id,
            records: Records::new(backend.clone(), blocks, bases),
            backend,
            index_pages: Pages::new(pages),
            table: ObjectTable::new(budget - pages - blocks - bases - links - tags - rebuilt - Feed::share_of(budget)),
            links: LinkCache::new(links),
            tags: ClockCache::new(tags),
            rebuilt: ClockCache::new(rebuilt),
            catalog: Catalog::default(),
            feed,
            journal,
            settle: SettleQueue::default(),
            health: HealthCell::default(),
            counters: Counters::default(),
            memory_held_bytes: AtomicU64::new(0),
            segments: Segments::new(next_segment),
            format: Mutex::new(None),
            id_rows: Mutex::new(()),
            leaving: Mutex::new(Vec::new()),
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
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Bytes of memory that the caches, the table, what it makes room for, and the feed hold.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let caches = self.records.resident_bytes()
            + self.index_pages.used_bytes()
            + self.tags.used_bytes()
            + self.rebuilt.used_bytes();
        self.table.used_bytes() + caches + self.links.used_bytes() + self.feed.resident_bytes()
    }

    /// An object of a pool or those under it. What is read from storage comes into the table if it `stays`.
    pub(crate) fn find(&self, pool: &Pool, oid: &Oid, scope: Scope, stays: bool) -> Result<Option<Object>> {
        // Before its row is looked up.
        let removals = pool.removals.load(Ordering::SeqCst);
        let mut scope_here = scope;
        for (layer, until) in pool.layers() {
            if let Some(object) = self.table.get(layer.id, oid, scope_here, until) {
                self.counters.cache_hits.add(1);
                return Ok(Some(object));
            }
            scope_here = Scope::Live;
        }
        // Before the rows: a segment leaves flight after its rows are there.
        if let Some(staged) = pool.in_flight(oid, scope) {
            match staged.object(oid) {
                // Its rows came, and it was rewritten, since it was looked up.
                Err(error) if *error.kind() == ErrorKind::NotFound => {}
                found => return found,
            }
        }
        let mut before = None;
        let (layer, row, data) = loop {
            let Some((layer, row)) = self.row(pool, oid)? else {
                // Every git knows the empty tree without being given it.
                let empty = *oid == pool.format.empty_tree();
                return Ok(empty.then(|| Object { kind: Kind::Tree, data: Bytes::new() }));
            };
            match self.records.materialise(layer, row.location) {
                // What was rewritten since is somewhere else now.
                Err(error) if *error.kind() == ErrorKind::NotFound && before != Some(row.location) => {
                    before = Some(row.location);
                }
                data => break (layer, row, data?),
            }
        };
        self.counters.cache_misses.add(1);
        if data.len() as u64 != row.size {
            return Err(Error::corrupt(format!("object {oid} has {} bytes instead of {}", data.len(), row.size)));
        }
        let object = Object { kind: row.kind, data };
        if stays && layer.memory.is_none() {
            // Unless its row may have gone since. Who removes it waits for the guard before it looks into the table.
            let _guard = pin();
            if pool.removals.load(Ordering::SeqCst) == removals {
                self.table.insert_loaded(layer.id, *oid, &object, row.since);
            }
        }
        Ok(Some(object))
    }

    /// An object that a pool has itself, or that is on its way there.
    pub(crate) fn find_own(&self, pool: &Pool, oid: &Oid) -> Result<Option<Object>> {
        if let Some(object) = self.table.get(pool.id, oid, Scope::Any, u64::MAX) {
            return Ok(Some(object));
        }
        if let Some(staged) = pool.in_flight(oid, Scope::Any) {
            match staged.object(oid) {
                Err(error) if *error.kind() == ErrorKind::NotFound => {}
                found => return found,
            }
        }
        match self.stored(pool, oid) {
            Ok((kind, data)) => Ok(Some(Object { kind, data })),
            Err(error) if *error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An object that is stored in a pool itself, past the table.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it is not; else when the storage fails.
    fn stored(&self, pool: &Pool, oid: &Oid) -> Result<(Kind, Bytes)> {
        let row = self.stored_row(pool, oid)?;
        Ok((row.kind, self.records.materialise(pool, row.location)?))
    }

    /// The row of an object that is stored in a pool itself.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it is not; else when the storage fails.
    pub(super) fn stored_row(&self, pool: &Pool, oid: &Oid) -> Result<IdRow> {
        let row = self.stored_rows(pool, &[oid])?.pop().flatten();
        row.ok_or_else(|| Error::not_found(format!("object {oid} is not stored here")))
    }

    /// An object's kind and size.
    pub(crate) fn header(&self, pool: &Pool, oid: &Oid, scope: Scope) -> Result<Option<(Kind, u64)>> {
        if let Some(header) = self.header_in_memory(pool, oid, scope) {
            return Ok(Some(header));
        }
        match self.row(pool, oid)? {
            Some((_, row)) => Ok(Some((row.kind, row.size))),
            None => Ok((*oid == pool.format.empty_tree()).then_some((Kind::Tree, 0))),
        }
    }

    /// Kinds and sizes of objects, in the order of `oids`.
    pub(crate) fn headers(&self, pool: &Pool, oids: &[Oid], scope: Scope) -> Result<Vec<Option<(Kind, u64)>>> {
        let mut found: Vec<_> = oids.iter().map(|oid| self.header_in_memory(pool, oid, scope)).collect();
        let missing: Vec<usize> = (0..oids.len()).filter(|at| found[*at].is_none()).collect();
        let ids: Vec<Oid> = missing.iter().map(|at| oids[*at]).collect();
        for (at, row) in missing.into_iter().zip(self.rows(pool, &ids)?) {
            found[at] = match row {
                Some((_, row)) => Some((row.kind, row.size)),
                None => (oids[at] == pool.format.empty_tree()).then_some((Kind::Tree, 0)),
            };
        }
        Ok(found)
    }

    /// The kind and size of an object that is in the table or on its way to the pool.
    fn header_in_memory(&self, pool: &Pool, oid: &Oid, scope: Scope) -> Option<(Kind, u64)> {
        let mut scope_here = scope;
        for (layer, until) in pool.layers() {
            if let Some(object) = self.table.get(layer.id, oid, scope_here, until) {
                return Some((object.kind, object.data.len() as u64));
            }
            scope_here = Scope::Live;
        }
        pool.in_flight(oid, scope).and_then(|staged| staged.header(oid))
    }

    /// An object's row, and the pool that has it.
    fn row<'a>(&self, pool: &'a Pool, oid: &Oid) -> Result<Option<(&'a Pool, IdRow)>> {
        Ok(self.rows(pool, std::slice::from_ref(oid))?.pop().flatten())
    }

    /// Rows of objects, in the order of `oids`, each with the pool that has it.
    fn rows<'a>(&self, pool: &'a Pool, oids: &[Oid]) -> Result<Vec<Option<(&'a Pool, IdRow)>>> {
        let mut found = vec![None; oids.len()];
        for (layer, until) in pool.layers() {
            let missing: Vec<usize> = (0..oids.len()).filter(|at| found[*at].is_none()).collect();
            if missing.is_empty() {
                break;
            }
            if let Some(memory) = &layer.memory {
                for at in missing {
                    found[at] = memory.row(&oids[at]).filter(|row| row.since <= until).map(|row| (layer, row));
                }
                continue;
            }
            let wanted: Vec<&Oid> = missing.iter().map(|at| &oids[*at]).collect();
            for (at, row) in missing.into_iter().zip(self.stored_rows(layer, &wanted)?) {
                found[at] = row.filter(|row| row.since <= until).map(|row| (layer, row));
            }
        }
        Ok(found)
    }

    /// Where objects of a pool, or those under it, are stored.
    pub(crate) fn locate(&self, pool: &Pool, oids: &[Oid]) -> Result<Vec<Option<Place>>> {
        let rows = self.rows(pool, oids)?.into_iter();
        Ok(rows.map(|row| row.map(|(layer, row)| Place { pool: layer.id, location: row.location })).collect())
    }

    /// The ids of stored objects of a pool, or those under it, from `from` to `to`, both included, in order; at most
    /// `limit`.
    pub(crate) fn ids_between(&self, pool: &Pool, from: &Oid, to: &Oid, limit: usize) -> Result<Vec<Oid>> {
        let mut found: Vec<Oid> = Vec::new();
        for (layer, until) in pool.layers() {
            if let Some(memory) = &layer.memory {
                let Some(segments) = memory.segments() else { continue };
                let ids = segments.ids.pin();
                let fits = |oid: &Oid, row: &IdRow| (from..=to).contains(&oid) && row.since <= until;
                found.extend(ids.iter().filter(|(oid, row)| fits(oid, row)).map(|(oid, _)| *oid));
                continue;
            }
            found.extend(self.stored_between(layer, (from, to), until, limit)?);
        }
        found.sort_unstable();
        found.dedup();
        found.truncate(limit);
        Ok(found)
    }

    /// Adds to `batch` the rows that make a segment's objects findable, where `since` says which version brought each.
    ///
    /// In a pool that has forks, what an earlier version brought stays as it is, for a fork may see it only there; hold
    /// [`Core::id_rows`] from then until the batch is written. `batched` are rows in `batch` since that lock was taken.
    pub(crate) fn put_rows(
        &self,
        batch: &mut Batch,
        staged: &Staged,
        since: impl Fn(&Oid) -> u64,
        batched: &mut HashSet<(PoolId, Oid)>,
    ) -> Result<()> {
        staged.end_intent(batch, None);
        let pool = staged.pool();
        if !pool.is_shared() {
            for (oid, row) in staged.rows() {
                batch.put(Family::Ids, key::id(pool.id, oid), row.encode());
            }
            return Ok(());
        }
        for rows in staged.rows().chunks(1024) {
            for ((oid, row), old) in rows.iter().zip(self.readable_rows(pool, rows)?) {
                let row = IdRow { since: since(oid), ..*row };
                let is_older = old.is_some_and(|old| old.since <= row.since);
                if !is_older && batched.insert((pool.id, *oid)) {
                    batch.put(Family::Ids, key::id(pool.id, oid), row.encode());
                }
            }
        }
        Ok(())
    }

    /// The stored rows of the same objects; without those that cannot be read, which are of no use to anybody.
    fn readable_rows(&self, pool: &Pool, rows: &[(Oid, IdRow)]) -> Result<Vec<Option<IdRow>>> {
        let is_damage = |error: &Error| *error.kind() == ErrorKind::Corrupt;
        let oids: Vec<&Oid> = rows.iter().map(|(oid, _)| oid).collect();
        match self.stored_rows(pool, &oids) {
            Err(error) if is_damage(&error) => {
                let each = oids.iter().map(|oid| match self.stored_rows(pool, &[*oid]) {
                    Err(error) if is_damage(&error) => Ok(None),
                    found => Ok(found?.pop().flatten()),
                });
                each.collect()
            }
            found => found,
        }
    }

    /// A record as it is stored.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if it is not there, also because neither the pool nor those under it are the one.
    pub(crate) fn record_at(&self, pool: &Pool, place: Place) -> Result<Stored> {
        let layer = pool.layers().find(|(layer, _)| layer.id == place.pool);
        let (layer, _) = layer.ok_or_else(|| Error::not_found("a record of a pool that is not the repository's"))?;
        self.records.record(layer, place.location)
    }
}
