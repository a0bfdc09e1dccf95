//! What commits point at, parsed once: walks through a history would else parse each commit again.

use govc_id_table::{IdTable, pin};
use smallvec::SmallVec;

use super::{
    ids::{PoolId, PooledId},
    snapshot::Snapshot,
};
use crate::{
    Error, Result,
    object::{Kind, Oid, links},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Memory that an entry takes, in bytes: key, value, slot, and what a merge of many has beside.
const ENTRY_BYTES: u64 = 160;

/// What a commit points at, and when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitLinks {
    /// Its tree.
    pub tree: Oid,
    /// Its parents, in their order.
    pub parents: SmallVec<[Oid; 2]>,
    /// When it was committed, in seconds since the Unix epoch.
    pub seconds: i64,
}

impl CommitLinks {
    /// Reads them from a commit's bytes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if the structure is not a commit's.
    pub fn parse(data: &[u8]) -> Result<Self> {
        let links = links(Kind::Commit, data)?;
        let mut targets = links.targets.into_iter().map(|(oid, _)| oid);
        let tree = targets.next().ok_or_else(|| Error::corrupt("malformed commit"))?;
        Ok(Self { tree, parents: targets.collect(), seconds: links.commit_seconds })
    }
}

struct Entry {
    links: CommitLinks,
    /// Set by readers, cleared when the cache is swept.
    hot: AtomicBool,
}

/// Links of commits, under a budget.
pub(crate) struct LinkCache {
    entries: IdTable<PooledId, Entry>,
    /// Entries, counted by who inserts and by who sweeps.
    count: AtomicU64,
    count_max: u64,
    /// Held by the one who sweeps.
    sweeping: Mutex<()>,
}

impl LinkCache {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self {
            entries: IdTable::new(),
            count: AtomicU64::new(0),
            count_max: (limit_bytes / ENTRY_BYTES).max(1),
            sweeping: Mutex::new(()),
        }
    }

    fn get(&self, pool: PoolId, oid: &Oid) -> Option<CommitLinks> {
        let guard = pin();
        let entry = self.entries.get(&PooledId { pool, oid: *oid }, &guard)?;
        if !entry.hot.load(Ordering::Relaxed) {
            entry.hot.store(true, Ordering::Relaxed);
        }
        Some(entry.links.clone())
    }

    fn insert(&self, pool: PoolId, oid: Oid, links: CommitLinks) {
        if links.parents.spilled() {
            // Not worth counting what few merges take beside.
            return;
        }
        let make = || Entry { links, hot: AtomicBool::new(false) };
        let (_, inserted) = self.entries.get_or_insert_with(PooledId { pool, oid }, make, &pin());
        if inserted && self.count.fetch_add(1, Ordering::Relaxed) >= self.count_max {
            self.sweep();
        }
    }

    /// Takes out what nobody has asked for since the last sweep; everything, if that is too little.
    fn sweep(&self) {
        let Some(_sweeping) = self.sweeping.try_lock() else { return };
        for spares_hot in [true, false] {
            if self.count.load(Ordering::Relaxed) <= self.count_max / 2 {
                break;
            }
            let guard = pin();
            for (key, entry) in self.entries.iter(&guard) {
                let is_spared = entry.hot.swap(false, Ordering::Relaxed) && spares_hot;
                if !is_spared && self.entries.remove_if(key, |_| true, &guard) {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.count.load(Ordering::Relaxed) * ENTRY_BYTES
    }
}

impl Snapshot {
    /// What a commit points at; from memory, where a walk has been there before.
    ///
    /// # Errors
    /// As [`Snapshot::object_of`].
    pub fn commit_links(&self, oid: &Oid) -> Result<CommitLinks> {
        let (core, pool) = (&self.repo().core, self.repo().state.pool.id);
        if let Some(links) = core.links.get(pool, oid) {
            return Ok(links);
        }
        let links = CommitLinks::parse(&self.object_of(oid, Kind::Commit)?)?;
        core.links.insert(pool, *oid, links.clone());
        Ok(links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_makes_room() {
        let cache = LinkCache::new(100 * ENTRY_BYTES);
        let oid = |at: u64| Oid::from_bytes(&[&at.to_le_bytes()[..], &[at as u8; 12]].concat()).expect("20 bytes");
        let links = CommitLinks { tree: oid(0), parents: SmallVec::new(), seconds: 7 };
        for at in 0..5000_u64 {
            cache.insert(PoolId(1), oid(at << 40), links.clone());
            assert!(cache.used_bytes() <= 101 * ENTRY_BYTES, "after {at}");
            assert_eq!(cache.get(PoolId(1), &oid(0)), Some(links.clone()), "after {at}");
        }
        assert_eq!(cache.get(PoolId(2), &oid(0)), None, "another pool");
        assert_eq!(cache.get(PoolId(1), &oid(1 << 40)), None, "nobody asked for it");
    }
}
