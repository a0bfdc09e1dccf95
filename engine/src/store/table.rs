//! The object table: every object that is in memory, of all pools.
//!
//! An entry is *claimed* while a transaction in flight or an unsettled journal record carries it, *accepted* once such
//! a transaction is in `tip`, and *live* once its publication is visible. Live entries without claims may be evicted,
//! for they are in the backend; entries that are neither live nor claimed belong to transactions that failed, and go
//! at once. Entries of memory repositories keep their claim until the repository is deleted.

use std::collections::BTreeSet;

use bytes::Bytes;
use govc_id_table::{Guard, pin};

use super::{
    ids::{PoolId, PooledId},
    pooled::{PooledQueue, PooledTable},
    snapshot::Object,
};
use crate::{
    object::{Kind, ObjectFormat, Oid},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
        thread,
    },
};

/// Bytes that an entry takes beside its object's: entry, slot, ring and allocator.
const ENTRY_OVERHEAD_BYTES: u64 = 216;
/// What one of a SHA-256 repository takes beyond that: a longer key, in entry and ring.
const SHA256_BYTES: u64 = 24;
const RINGS: usize = 16;
/// Entries that one flush of a guard frees, at least.
const FREED_AT_ONCE: usize = 128;
const CLAIMED: u8 = 0;
const ACCEPTED: u8 = 1;
const LIVE: u8 = 2;
/// The claims of an entry that has been taken out of the table.
const DEAD: u32 = u32::MAX;

/// One object in memory.
struct Entry {
    kind: Kind,
    data: Bytes,
    /// Only grows, but for [`ObjectTable::forget`]: [`CLAIMED`], then [`ACCEPTED`] by the writer whose transaction is in `tip`, then [`LIVE`] by the
    /// publisher (journal thread, or the writer of a memory repository) once the object is as durable as promised.
    state: AtomicU8,
    /// The first version that is known to have brought the object; only shrinks.
    since: AtomicU64,
    /// Counted by writers and the settler; [`DEAD`] once and for all when the entry leaves the table.
    claims: AtomicU32,
    /// Set by readers, cleared by the clock's hand.
    hot: AtomicBool,
    /// Whether the key is in a ring, so that it is there once; written by whoever pushes or pops it.
    in_ring: AtomicBool,
}

impl Entry {
    fn is_live(&self) -> bool {
        self.state.load(Ordering::Acquire) == LIVE
    }

    fn bytes(&self, oid: &Oid) -> u64 {
        let format = if oid.format() == ObjectFormat::Sha256 { SHA256_BYTES } else { 0 };
        self.data.len() as u64 + ENTRY_OVERHEAD_BYTES + format
    }

    /// One claim more, unless the entry is dead or dying.
    fn try_claim(&self) -> bool {
        let claim = |claims: u32| match claims {
            DEAD => None,
            0 if !self.is_live() => None,
            claims => Some(claims + 1),
        };
        self.claims.fetch_update(Ordering::AcqRel, Ordering::Acquire, claim).is_ok()
    }
}

/// Objects in memory, under a budget.
pub(crate) struct ObjectTable {
    entries: PooledTable<Entry>,
    rings: [Mutex<PooledQueue>; RINGS],
    /// May be below zero for a moment: what is claimed is counted after it has been put in.
    used_bytes: AtomicI64,
    limit_bytes: u64,
    evictions: AtomicU64,
    /// Bytes held elsewhere that count against the limit.
    reserved_bytes: AtomicU64,
    /// The clock's hand: whose turn it is among the rings, and among the formats in each.
    hand: AtomicUsize,
}

/// Which objects a lookup finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of publications that are as durable as promised: for readers of such versions.
    Live,
    /// Also those of transactions in `tip`, which stay unless a write fails: what new objects may point at. Waits out
    /// the moment in which a transaction is between its claims and its success or failure.
    Accepted,
    /// The same without waiting: what is in that moment is not found. For writers who have made claims of their own.
    AcceptedByNow,
    /// Whatever is there: for readers of `tip`, who ask only for what it reaches.
    Any,
}

impl ObjectTable {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self {
            entries: PooledTable::new(),
            rings: std::array::from_fn(|_| Mutex::new(PooledQueue::default())),
            used_bytes: AtomicI64::new(0),
            limit_bytes,
            evictions: AtomicU64::new(0),
            reserved_bytes: AtomicU64::new(0),
            hand: AtomicUsize::new(0),
        }
    }

    /// The object, if it is in memory and in scope, and a version up to `until` is known to have brought it.
    pub(crate) fn get(&self, pool: PoolId, oid: &Oid, scope: Scope, until: u64) -> Option<Object> {
        let key = PooledId { pool, oid: *oid };
        let mut guard = pin();
        let mut entry = self.entries.get(&key, &guard)?;
        match scope {
            Scope::Any => {}
            Scope::Live if entry.is_live() => {}
            Scope::AcceptedByNow if entry.state.load(Ordering::Acquire) != CLAIMED => {}
            Scope::Live | Scope::AcceptedByNow => return None,
            Scope::Accepted => {
                while entry.state.load(Ordering::Acquire) == CLAIMED {
                    // Without the guard: the writer may wait for somebody who waits for all guards to be gone.
                    drop(guard);
                    thread::yield_now();
                    guard = pin();
                    entry = self.entries.get(&key, &guard)?;
                }
            }
        }
        if until != u64::MAX && entry.since.load(Ordering::Relaxed) > until {
            return None;
        }
        if !entry.hot.load(Ordering::Relaxed) {
            entry.hot.store(true, Ordering::Relaxed);
        }
        Some(Object { kind: entry.kind, data: entry.data.clone() })
    }

    /// Puts an object of a transaction into the table, invisible if it is new, and claims it. Whether it was live before.
    ///
    /// A claimed entry stays until [`ObjectTable::release`], unless its pool is forgotten. The bytes that it takes are added
    /// to `used`, for [`ObjectTable::count`].
    pub(crate) fn claim(&self, pool: PoolId, oid: Oid, kind: Kind, data: &Bytes, used: &mut u64) -> bool {
        let (guard, key) = (pin(), PooledId { pool, oid });
        loop {
            let make = || Entry {
                kind,
                data: data.clone(),
                state: AtomicU8::new(CLAIMED),
                since: AtomicU64::new(u64::MAX),
                claims: AtomicU32::new(1),
                hot: AtomicBool::new(true),
                in_ring: AtomicBool::new(false),
            };
            let (entry, inserted) = self.entries.get_or_insert_with(&key, make, &guard);
            if inserted {
                *used += entry.bytes(&key.oid);
                return false;
            }
            if entry.try_claim() {
                return entry.is_live();
            }
            // Dead or dying: whoever made it so removes it; help, then try again.
            self.remove(&key, entry, &guard);
        }
    }

    /// Counts the bytes of objects that were claimed, of all of a transaction at once.
    pub(crate) fn count(&self, used: u64) {
        self.used_bytes.fetch_add(used as i64, Ordering::Relaxed);
    }

    /// Tells that a transaction that carries a claimed object is in `tip`.
    pub(crate) fn set_accepted(&self, pool: PoolId, oid: Oid) {
        if let Some(entry) = self.entries.get(&PooledId { pool, oid }, &pin()) {
            entry.state.fetch_max(ACCEPTED, Ordering::Release);
        }
    }

    /// Makes a claimed object visible to readers, brought by a version; pairs with the acquire in [`Entry::is_live`].
    pub(crate) fn set_live(&self, pool: PoolId, oid: Oid, version: u64) {
        if let Some(entry) = self.entries.get(&PooledId { pool, oid }, &pin()) {
            entry.since.fetch_min(version, Ordering::Relaxed);
            entry.state.fetch_max(LIVE, Ordering::Release);
        }
    }

    /// Gives a claim back: what is live may be evicted from now on, what is not goes. In a `memory` pool everything
    /// goes, for there is no backend that has it.
    pub(crate) fn release(&self, pool: PoolId, oid: Oid, memory: bool) {
        let (guard, key) = (pin(), PooledId { pool, oid });
        let Some(entry) = self.entries.get(&key, &guard) else { return };
        if entry.claims.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        if entry.is_live() && !memory {
            self.enter_ring(key, entry);
            self.evict();
        } else {
            self.remove_unclaimed(&key, entry, &guard);
        }
    }

    /// Keeps an object that was read from the backend, where it is since a version.
    pub(crate) fn insert_loaded(&self, pool: PoolId, oid: Oid, object: &Object, since: u64) {
        if object.data.len() as u64 > self.limit_bytes / 8 {
            return;
        }
        let (guard, key) = (pin(), PooledId { pool, oid });
        let make = || Entry {
            kind: object.kind,
            data: object.data.clone(),
            state: AtomicU8::new(LIVE),
            since: AtomicU64::new(since),
            claims: AtomicU32::new(0),
            hot: AtomicBool::new(false),
            in_ring: AtomicBool::new(false),
        };
        let (entry, inserted) = self.entries.get_or_insert_with(&key, make, &guard);
        if inserted {
            self.used_bytes.fetch_add(entry.bytes(&key.oid) as i64, Ordering::Relaxed);
            self.enter_ring(key, entry);
            self.evict();
        }
    }

    /// Drops an object that the backend does not have any more, and that nobody has published since. If somebody is about
    /// to, readers find it again once that is done.
    pub(crate) fn forget(&self, pool: PoolId, oid: &Oid) {
        let (guard, key) = (pin(), PooledId { pool, oid: *oid });
        let Some(entry) = self.entries.get(&key, &guard) else { return };
        if !self.remove_unclaimed(&key, entry, &guard) {
            // Whoever brings it now is the first.
            entry.since.store(u64::MAX, Ordering::Relaxed);
            let _ = entry.state.compare_exchange(LIVE, CLAIMED, Ordering::AcqRel, Ordering::Acquire);
            // Who gave its claim back before that has left the entry.
            self.remove_unclaimed(&key, entry, &guard);
        }
    }

    /// The objects of a pool that somebody brings; walks the whole table.
    pub(crate) fn claimed(&self, pool: PoolId) -> Vec<Oid> {
        let guard = pin();
        let is_claimed = |entry: &Entry| !matches!(entry.claims.load(Ordering::Acquire), 0 | DEAD);
        let entries = self.entries.iter(&guard);
        entries.filter(|(key, entry)| key.pool == pool && is_claimed(entry)).map(|(key, _)| key.oid).collect()
    }

    fn enter_ring(&self, key: PooledId, entry: &Entry) {
        if !entry.in_ring.swap(true, Ordering::AcqRel) {
            self.rings[usize::from(key.oid.as_bytes()[19]) % RINGS].lock().push_back(key);
        }
    }

    /// Takes out this very entry; whether it was this call that did.
    fn remove(&self, key: &PooledId, entry: &Entry, guard: &Guard) -> bool {
        self.entries.remove_if(key, |found| std::ptr::eq(found, entry), guard)
    }

    /// Takes out an entry that nobody claims; whether it was this call that did.
    fn remove_unclaimed(&self, key: &PooledId, entry: &Entry, guard: &Guard) -> bool {
        if entry.claims.compare_exchange(0, DEAD, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return false;
        }
        self.remove(key, entry, guard);
        self.used_bytes.fetch_sub(entry.bytes(&key.oid) as i64, Ordering::Relaxed);
        true
    }

    /// Moves the clock's hand until the table is within its budget or everything left is claimed or hot.
    ///
    /// The rings are one clock: the hand takes an entry of each in turn, so it comes back to an entry only after it has
    /// seen all others.
    fn evict(&self) {
        if !self.is_over_limit() {
            return;
        }
        let mut steps = 2 * self.entries.len() + RINGS;
        // Where all that is left is claimed or counted elsewhere, one round of empty rings shows it.
        let mut empty = 0;
        while self.is_over_limit() && steps > 0 && empty < 2 * RINGS {
            let hand = self.hand.fetch_add(1, Ordering::Relaxed);
            let format = if (hand / RINGS).is_multiple_of(2) { ObjectFormat::Sha1 } else { ObjectFormat::Sha256 };
            let Some(key) = self.rings[hand % RINGS].lock().pop_front(format) else {
                empty += 1;
                continue;
            };
            empty = 0;
            steps -= 1;
            // One guard a step, so that what is taken out is freed on the way.
            let guard = pin();
            let Some(entry) = self.entries.get(&key, &guard) else { continue };
            entry.in_ring.store(false, Ordering::Release);
            if entry.hot.swap(false, Ordering::Relaxed) {
                self.enter_ring(key, entry);
            } else if self.remove_unclaimed(&key, entry, &guard) {
                self.evictions.fetch_add(1, Ordering::Relaxed);
            }
            // A claimed entry comes back to the ring when its last claim is released.
        }
    }

    fn is_over_limit(&self) -> bool {
        self.used_bytes() > self.limit_bytes
    }

    /// Counts bytes that are held elsewhere against the limit.
    pub(crate) fn reserve(&self, bytes: u64) {
        self.reserved_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.evict();
    }

    /// Gives back what [`ObjectTable::reserve`] took.
    pub(crate) fn unreserve(&self, bytes: u64) {
        self.reserved_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The visible objects in memory from `from` to `to`, both included; walks the whole table.
    pub(crate) fn ids_between(&self, pool: PoolId, from: &Oid, to: &Oid, scope: Scope, until: u64) -> Vec<Oid> {
        let guard = pin();
        let fits = |key: &PooledId| key.pool == pool && (from..=to).contains(&&key.oid);
        let visible = |entry: &Entry| {
            (scope != Scope::Live || entry.is_live())
                && (until == u64::MAX || entry.since.load(Ordering::Relaxed) <= until)
        };
        let entries = self.entries.iter(&guard);
        entries.filter(|(key, entry)| fits(key) && visible(entry)).map(|(key, _)| key.oid).collect()
    }

    /// Drops every entry of pools that nobody needs any more; walks the whole table.
    pub(crate) fn forget_pools(&self, pools: &BTreeSet<PoolId>) {
        let mut removed = 0;
        {
            let guard = pin();
            for (key, entry) in self.entries.iter(&guard).filter(|(key, _)| pools.contains(&key.pool)) {
                if entry.claims.swap(DEAD, Ordering::AcqRel) != DEAD {
                    self.remove(&key, entry, &guard);
                    self.used_bytes.fetch_sub(entry.bytes(&key.oid) as i64, Ordering::Relaxed);
                    removed += 1;
                }
            }
        }
        // Nobody may come by for long who would free so much.
        for _ in 0..removed / FREED_AT_ONCE + 2 {
            pin().flush();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        let objects = self.used_bytes.load(Ordering::Relaxed).max(0).unsigned_abs();
        objects.saturating_add(self.reserved_bytes.load(Ordering::Relaxed))
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }
}
