//! A bounded cache with CLOCK eviction over a concurrent map: blocks, and bases of deltas.

use std::{collections::VecDeque, hash::Hash, sync::Arc};

use crate::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

struct Slot<V> {
    value: V,
    bytes: u64,
    /// Written by readers, cleared by the hand; a lost update costs one round of the clock, nothing else.
    hot: AtomicBool,
}

/// Values by key, at most `limit_bytes` of them; values are cheap to clone.
pub(crate) struct ClockCache<K, V> {
    map: papaya::HashMap<K, Arc<Slot<V>>>,
    /// Keys in the order of insertion, the hand at the front.
    ring: Mutex<VecDeque<K>>,
    used_bytes: AtomicU64,
    limit_bytes: u64,
}

impl<K: Hash + Eq + Copy, V: Clone> ClockCache<K, V> {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self {
            map: papaya::HashMap::new(),
            ring: Mutex::new(VecDeque::new()),
            used_bytes: AtomicU64::new(0),
            limit_bytes,
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let map = self.map.pin();
        let slot = map.get(key)?;
        if !slot.hot.load(Ordering::Relaxed) {
            slot.hot.store(true, Ordering::Relaxed);
        }
        Some(slot.value.clone())
    }

    /// Keeps `value`, which takes `bytes`, unless it alone would fill a quarter of the cache.
    pub(crate) fn insert(&self, key: K, value: V, bytes: u64) {
        if bytes > self.limit_bytes / 4 {
            return;
        }
        let slot = Arc::new(Slot { value, bytes, hot: AtomicBool::new(false) });
        if self.map.pin().try_insert(key, slot).is_err() {
            return;
        }
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut ring = self.ring.lock();
        ring.push_back(key);
        // Two rounds find a victim even if everything was hot.
        let mut steps = ring.len() * 2;
        while self.used_bytes.load(Ordering::Relaxed) > self.limit_bytes && steps > 0 {
            steps -= 1;
            let Some(candidate) = ring.pop_front() else { break };
            let map = self.map.pin();
            match map.get(&candidate) {
                Some(slot) if slot.hot.swap(false, Ordering::Relaxed) => ring.push_back(candidate),
                Some(_) => {
                    if let Some(slot) = map.remove(&candidate) {
                        self.used_bytes.fetch_sub(slot.bytes, Ordering::Relaxed);
                    }
                }
                None => {}
            }
        }
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }
}
