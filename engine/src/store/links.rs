//! What commits point at, parsed once: walks through a history would else parse each commit again.

use govc_id_table::pin;
use smallvec::SmallVec;

use super::{
    ids::{PoolId, PooledId},
    pooled::PooledTable,
    snapshot::Snapshot,
};
use crate::{
    Error, Result,
    object::{Kind, ObjectFormat, Oid, links},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Memory that an entry takes, in bytes: key, value, slot, and what a merge of many has beside.
const ENTRY_BYTES: u64 = 160;
/// What that of a SHA-256 repository takes beyond it: a longer key.
const SHA256_BYTES: u64 = 8;
/// Bytes of ids that an entry has room for: of SHA-1 a tree and two parents or three, of SHA-256 a tree and a parent.
const INLINE_BYTES: usize = 64;

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
    pub fn parse(format: ObjectFormat, data: &[u8]) -> Result<Self> {
        let links = links(format, Kind::Commit, data)?;
        let mut targets = links.targets.into_iter().map(|(oid, _)| oid);
        let tree = targets.next().ok_or_else(|| Error::corrupt("malformed commit"))?;
        Ok(Self { tree, parents: targets.collect(), seconds: links.commit_seconds })
    }
}

struct Entry {
    /// The bytes of tree and parents, one after another.
    ids: SmallVec<[u8; INLINE_BYTES]>,
    seconds: i64,
    /// Set by readers, cleared when the cache is swept.
    hot: AtomicBool,
}

impl Entry {
    fn new(links: &CommitLinks) -> Self {
        let ids = std::iter::once(&links.tree).chain(&links.parents).flat_map(|oid| oid.as_bytes()).copied();
        Self { ids: ids.collect(), seconds: links.seconds, hot: AtomicBool::new(false) }
    }

    fn links(&self, format: ObjectFormat) -> Option<CommitLinks> {
        let mut ids = self.ids.chunks(format.len()).map_while(|id| Oid::from_bytes(id).ok());
        Some(CommitLinks { tree: ids.next()?, parents: ids.collect(), seconds: self.seconds })
    }

    /// Memory that it takes, in the table of the commit's format.
    fn bytes(&self, oid: &Oid) -> u64 {
        let format = if oid.format() == ObjectFormat::Sha256 { SHA256_BYTES } else { 0 };
        let heap = if self.ids.spilled() { self.ids.capacity() as u64 + 16 } else { 0 };
        ENTRY_BYTES + format + heap
    }
}

/// Links of commits, under a budget.
pub(crate) struct LinkCache {
    entries: PooledTable<Entry>,
    /// Bytes of entries, counted by who inserts and by who sweeps.
    used_bytes: AtomicU64,
    limit_bytes: u64,
    /// Held by the one who sweeps.
    sweeping: Mutex<()>,
}

impl LinkCache {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self { entries: PooledTable::new(), used_bytes: AtomicU64::new(0), limit_bytes, sweeping: Mutex::new(()) }
    }

    fn get(&self, pool: PoolId, oid: &Oid) -> Option<CommitLinks> {
        let guard = pin();
        let entry = self.entries.get(&PooledId { pool, oid: *oid }, &guard)?;
        if !entry.hot.load(Ordering::Relaxed) {
            entry.hot.store(true, Ordering::Relaxed);
        }
        entry.links(oid.format())
    }

    fn insert(&self, pool: PoolId, oid: Oid, links: CommitLinks) {
        if links.parents.spilled() {
            // Not worth the room: few merges have so many.
            return;
        }
        let guard = pin();
        let (entry, inserted) = self.entries.get_or_insert_with(&PooledId { pool, oid }, || Entry::new(&links), &guard);
        if inserted && self.used_bytes.fetch_add(entry.bytes(&oid), Ordering::Relaxed) >= self.limit_bytes {
            self.sweep();
        }
    }

    /// Takes out what nobody has asked for since the last sweep; everything, if that is too little.
    fn sweep(&self) {
        let Some(_sweeping) = self.sweeping.try_lock() else { return };
        for spares_hot in [true, false] {
            if self.used_bytes.load(Ordering::Relaxed) <= self.limit_bytes / 2 {
                break;
            }
            let guard = pin();
            for (key, entry) in self.entries.iter(&guard) {
                let is_spared = entry.hot.swap(false, Ordering::Relaxed) && spares_hot;
                if !is_spared && self.entries.remove_if(&key, |_| true, &guard) {
                    self.used_bytes.fetch_sub(entry.bytes(&key.oid), Ordering::Relaxed);
                }
            }
        }
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
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
        let links = CommitLinks::parse(self.object_format(), &self.object_of(oid, Kind::Commit)?)?;
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

    #[test]
    fn links_come_back_as_they_went_in_and_are_counted() {
        let cache = LinkCache::new(1000 * ENTRY_BYTES);
        for format in ObjectFormat::ALL {
            let oid = |byte: u8| Oid::from_bytes(&vec![byte; format.len()]).expect("an id");
            for parents in 0..3 {
                let links =
                    CommitLinks { tree: oid(200), parents: (100..100 + parents).map(oid).collect(), seconds: 7 };
                let before = cache.used_bytes();
                cache.insert(PoolId(1), oid(parents), links.clone());
                assert_eq!(cache.get(PoolId(1), &oid(parents)), Some(links), "{format} {parents}");
                assert!((ENTRY_BYTES..ENTRY_BYTES + 160).contains(&(cache.used_bytes() - before)));
            }
        }
    }
}
