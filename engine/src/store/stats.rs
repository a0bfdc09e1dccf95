//! Figures of a store, as plain values.

use super::{Health, Seq, Store};
use std::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering};

/// Figures of a store. Totals count since it was opened.
#[derive(Debug, Clone)]
pub struct StoreStats {
    /// Repositories.
    pub repositories: usize,
    /// Transactions published.
    pub published_total: u64,
    /// Transactions refused because an expectation did not hold.
    pub conflicts_total: u64,
    /// Transactions begun and neither published nor dropped.
    pub open_transactions: i64,
    /// Objects in memory.
    pub objects_resident: usize,
    /// Memory that repository data take, in bytes: objects, blocks, rows and references, with what the allocator and the
    /// tables add; within a tenth of what the process grows by, for what is not freed again at once.
    pub resident_bytes: u64,
    /// Of these, the newest publications of the feed.
    pub feed_bytes: u64,
    /// Memory that they may take, in bytes.
    pub budget_bytes: u64,
    /// Memory that memory repositories hold, in bytes.
    pub memory_repositories_bytes: u64,
    /// Journal bytes that are not settled.
    pub unsettled_bytes: u64,
    /// How long the oldest of them has been there, or since the store was opened.
    pub unsettled_age: Option<Duration>,
    /// Group commits written.
    pub journal_groups_total: u64,
    /// Transactions in them.
    pub journal_transactions_total: u64,
    /// Their bytes.
    pub journal_bytes_total: u64,
    /// Syncs made for them.
    pub syncs_total: u64,
    /// Time spent in synced writes, in nanoseconds.
    pub sync_nanos_total: u64,
    /// Objects evicted.
    pub evictions_total: u64,
    /// Lookups answered from memory.
    pub cache_hits_total: u64,
    /// Lookups that read a record.
    pub cache_misses_total: u64,
    /// The newest position of the feed.
    pub last_seq: Seq,
    /// Whether the store can be written.
    pub health: Health,
}

impl Store {
    /// The store's figures now.
    pub fn stats(&self) -> StoreStats {
        let core = &self.0.core;
        let counters = &core.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            repositories: core.catalog.len(),
            published_total: counters.published.total(),
            conflicts_total: counters.conflicts.total(),
            open_transactions: counters.open_transactions.sum(),
            objects_resident: core.table.len(),
            resident_bytes: core.resident_bytes(),
            feed_bytes: core.feed.resident_bytes(),
            budget_bytes: core.options.memory_budget_bytes,
            memory_repositories_bytes: read(&core.memory_held_bytes),
            unsettled_bytes: core.settle.bytes(),
            unsettled_age: core.settle.age(),
            journal_groups_total: read(&counters.journal_groups),
            journal_transactions_total: read(&counters.journal_transactions),
            journal_bytes_total: read(&counters.journal_bytes),
            syncs_total: read(&counters.syncs),
            sync_nanos_total: read(&counters.sync_nanos),
            evictions_total: core.table.evictions(),
            cache_hits_total: counters.cache_hits.total(),
            cache_misses_total: counters.cache_misses.total(),
            last_seq: core.feed.last(),
            health: core.health.get(),
        }
    }
}
