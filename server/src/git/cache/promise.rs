//! Kept packs that clients were told to download: they stay until the clients have come for them.
//!
//! A promise ends with its time, its pack's repository, or the disk's room. All promises together take at most half of
//! each budget, so that what else is kept always finds a place; beyond that nothing more is promised.
//!
//! Who was told within a fetch may have the pack for as long as the promise, also when the references move on meanwhile:
//! the download is a part of that fetch, which was answered from a snapshot as well.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use govc_engine::{Oid, RepoId};

use super::{KeptPack, PackCache};

/// For what a pack is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PromisedFor {
    /// The rest of a fetch: it is served whatever becomes of the references.
    Fetch,
    /// A client that goes on without it: it is served while the references lead to it.
    Bundle,
}

/// What was promised of a pack. Times are milliseconds of [`now`]; they are written under the lock of the cache's list,
/// and order nothing.
#[derive(Debug, Default)]
pub(super) struct Promise {
    until: AtomicU64,
    fetch_until: AtomicU64,
}

impl Promise {
    pub(super) fn holds(&self) -> bool {
        self.until.load(Ordering::Relaxed) > now()
    }
}

/// Milliseconds, from 1 on, of a clock that only goes forward.
fn now() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(BEGAN.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

impl KeptPack {
    /// Whether somebody was told of it within a fetch, and may still come.
    pub(crate) fn is_part_of_a_fetch(&self) -> bool {
        self.promise.fetch_until.load(Ordering::Relaxed) > now()
    }
}

impl PackCache {
    /// Promises that a pack can be downloaded for `lifetime` from now on; whether it can. It cannot when it is not kept any
    /// more, would not outlive a restart that the repositories outlive, or too much is promised already.
    pub(crate) fn promise(&self, pack: &Arc<KeptPack>, lifetime: Duration, reason: PromisedFor) -> bool {
        if self.folder.is_some() && !pack.is_file() {
            return false;
        }
        let packs = self.packs.lock();
        if !packs.get(&pack.repo).is_some_and(|packs| packs.iter().any(|kept| Arc::ptr_eq(kept, pack))) {
            return false;
        }
        let others = packs.values().flatten().filter(|kept| kept.promise.holds() && !Arc::ptr_eq(kept, pack));
        let promised = others.map(|kept| kept.bytes()).chain([pack.bytes()]);
        let promised = promised.fold([0u64; 2], |sums, bytes| [sums[0] + bytes[0], sums[1] + bytes[1]]);
        if promised.iter().zip(self.budgets()).any(|(promised, budget)| *promised > budget / 2) {
            return false;
        }
        let until = now().saturating_add(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX));
        pack.promise.until.fetch_max(until, Ordering::Relaxed);
        if reason == PromisedFor::Fetch {
            pack.promise.fetch_until.fetch_max(until, Ordering::Relaxed);
        }
        true
    }

    /// The pack of a repository with nothing left out that ends with this checksum.
    pub(crate) fn find(&self, repo: RepoId, checksum: &Oid) -> Option<Arc<KeptPack>> {
        self.of(repo).into_iter().find(|pack| pack.checksum == *checksum && pack.form.is_whole())
    }
}

#[cfg(test)]
mod tests {
    use govc_engine::Repo;

    use super::{
        super::{
            PackCacheOptions,
            tests::{create, keep_as, store},
        },
        *,
    };

    const HOUR: Duration = Duration::from_secs(3600);

    fn options(memory_bytes: u64) -> PackCacheOptions {
        PackCacheOptions { dir: None, memory_bytes, disk_bytes: 0, reserve_bytes: 0 }
    }

    /// Keeps a pack with a checksum of its own.
    fn keep(cache: &PackCache, repo: &Repo, number: u8, len: usize) {
        keep_as(cache, repo, Oid::from_bytes(&[number; 20]).expect("an id"), len);
    }

    #[test]
    fn what_is_promised_is_not_pushed_out() {
        let cache = PackCache::open(options(10_000)).expect("no folder is needed");
        let store = store();
        let [a, b] = ["a", "b"].map(|name| create(&store, name));
        keep(&cache, &a, 1, 3000);
        let first = cache.of(a.id()).remove(0);
        assert!(cache.promise(&first, HOUR, PromisedFor::Bundle));
        assert!(!first.is_part_of_a_fetch());
        // By newer ones of the same repository, and for want of room.
        for number in 2..8 {
            keep(&cache, &a, number, 100);
        }
        for number in 8..14 {
            keep(&cache, &b, number, 4000);
        }
        let found = cache.find(a.id(), &first.checksum()).expect("it was promised");
        assert!(Arc::ptr_eq(&found, &first));
        assert!(cache.find(b.id(), &first.checksum()).is_none(), "it is another repository's");
        assert!(cache.promise(&first, HOUR, PromisedFor::Fetch));
        assert!(first.is_part_of_a_fetch());
        store.delete(&a.name()).expect("a repository");
        cache.retain(|repo| repo != a.id());
        assert!(cache.find(a.id(), &first.checksum()).is_none());
        assert!(!cache.promise(&first, HOUR, PromisedFor::Fetch), "it is gone");
    }

    #[test]
    fn a_promise_ends() {
        let cache = PackCache::open(options(10_000)).expect("no folder is needed");
        let store = store();
        let repo = create(&store, "a");
        keep(&cache, &repo, 1, 3000);
        let first = cache.of(repo.id()).remove(0);
        assert!(cache.promise(&first, Duration::ZERO, PromisedFor::Fetch));
        assert!(!first.is_part_of_a_fetch());
        for number in 2..5 {
            keep(&cache, &repo, number, 100);
        }
        assert!(cache.find(repo.id(), &first.checksum()).is_none());
    }

    #[test]
    fn promises_take_half_of_the_room() {
        let cache = PackCache::open(options(10_000)).expect("no folder is needed");
        let store = store();
        let [a, b] = ["a", "b"].map(|name| create(&store, name));
        keep(&cache, &a, 1, 3000);
        keep(&cache, &b, 2, 3000);
        let [first, second] = [&a, &b].map(|repo| cache.of(repo.id()).remove(0));
        assert!(cache.promise(&first, HOUR, PromisedFor::Fetch));
        assert!(cache.promise(&first, HOUR, PromisedFor::Bundle), "it is counted once");
        assert!(!cache.promise(&second, HOUR, PromisedFor::Fetch));
    }

    #[test]
    fn what_a_restart_would_lose_is_not_promised() {
        let dir = tempfile::tempdir().expect("a folder");
        let options = PackCacheOptions {
            dir: Some(dir.path().to_owned()),
            memory_bytes: 64 << 20,
            disk_bytes: 64 << 20,
            reserve_bytes: 0,
        };
        let cache = PackCache::open(options.clone()).expect("a folder");
        let store = store();
        let repo = create(&store, "a");
        keep(&cache, &repo, 1, 1000);
        assert!(!cache.promise(&cache.of(repo.id())[0], HOUR, PromisedFor::Bundle));
        keep(&cache, &repo, 2, 9 << 20);
        let large = cache.of(repo.id()).remove(0);
        assert!(cache.promise(&large, HOUR, PromisedFor::Bundle));
        drop(cache);
        let cache = PackCache::open(options).expect("a folder");
        assert!(cache.find(repo.id(), &large.checksum()).is_some());
    }
}
