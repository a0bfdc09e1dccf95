//! The object table beside other concurrent maps of the same keys and values: ids of 20 bytes with a pool, and what the
//! engine keeps of an object. All get the same hash, bits of the id, and are asked 100 times under one guard where they have
//! guards; of the others the best counts.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use govc_id_table::{Id, IdTable, pin};

use super::SUITE;
use crate::bench::{Bench, progress};
use crate::error::Result;
use crate::random::Random;
use crate::report::{Row, median};

const ENTRIES: usize = 1_000_000;
const OPS_PER_GUARD: usize = 100;

pub(super) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut random = Random::new(3);
    let keys: Vec<Key> = (0..ENTRIES).map(|_| Key::random(&mut random)).collect();
    let mut shuffled = keys.clone();
    for at in (1..shuffled.len()).rev() {
        shuffled.swap(at, random.below(at + 1));
    }
    let mut figures: HashMap<(&str, &str), Vec<f64>> = HashMap::new();
    let mut bytes = 0.0;
    let mut verified = true;
    for number in 1..=bench.runs.max(3) {
        progress(&format!("engine, object table, run {number}"));
        // Turns, so that all meet the same weather.
        let table = Ours(IdTable::new());
        verified &= measure(&table, "govc", &keys, &shuffled, &mut figures);
        bytes = table.0.memory_bytes() as f64 / ENTRIES as f64 - size_of::<(Key, Value)>() as f64;
        drop(table);
        verified &= measure(&dashmap::DashMap::default(), "dashmap", &keys, &shuffled, &mut figures);
        verified &= measure(&papaya::HashMap::default(), "papaya", &keys, &shuffled, &mut figures);
        verified &= measure(&scc::HashMap::default(), "scc", &keys, &shuffled, &mut figures);
    }
    let mut of = |work: &'static str, name: &'static str| median(figures.remove(&(work, name)).unwrap_or_default());
    let mut rows = Vec::new();
    for (work, text) in
        [(HIT, "object table: lookups that hit, random order"), (INSERT, "object table: inserts of two threads")]
    {
        let ours = of(work, "govc");
        let peers = ["dashmap", "papaya", "scc"].map(|name| (of(work, name), name));
        let (best, name) = peers.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, "-"));
        let text = format!("{text}, {ENTRIES} entries");
        let peer = format!("best of dashmap, papaya, scc: {name}");
        rows.push(Row::new(SUITE, text, "1/s", ours).beside(peer, best).verified(verified));
    }
    let text = "object table: memory of an entry beside key and value";
    rows.push(Row::new(SUITE, text, "bytes", bytes).verified(verified));
    Ok(rows)
}

const HIT: &str = "hit";
const INSERT: &str = "insert";

/// Fills a map by two threads, then looks everything up; whether everything was found.
fn measure<M: Map>(
    map: &M,
    name: &'static str,
    keys: &[Key],
    shuffled: &[Key],
    figures: &mut HashMap<(&'static str, &'static str), Vec<f64>>,
) -> bool {
    let barrier = Barrier::new(3);
    let (one, two) = keys.split_at(keys.len() / 2);
    let seconds = std::thread::scope(|scope| {
        for half in [one, two] {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                map.insert(half);
                barrier.wait();
            });
        }
        barrier.wait();
        let start = Instant::now();
        barrier.wait();
        start.elapsed().as_secs_f64()
    });
    figures.entry((INSERT, name)).or_default().push(keys.len() as f64 / seconds);
    let start = Instant::now();
    let found = map.hits(shuffled);
    figures.entry((HIT, name)).or_default().push(shuffled.len() as f64 / start.elapsed().as_secs_f64());
    found == keys.len()
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    pool: u64,
    oid: [u8; 20],
}

impl Key {
    fn random(random: &mut Random) -> Self {
        let mut oid = [0; 20];
        for bytes in oid.chunks_mut(8) {
            let drawn = random.next().to_le_bytes();
            bytes.copy_from_slice(&drawn[..bytes.len()]);
        }
        Self { pool: 1 + random.next() % 8, oid }
    }
}

impl Id for Key {
    fn bits(&self) -> u64 {
        let first = self.oid.first_chunk::<8>().copied().unwrap_or_default();
        u64::from_le_bytes(first) ^ self.pool.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.bits());
    }
}

/// Takes the bits as they are.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type Build = BuildHasherDefault<Identity>;

/// As much as the engine keeps of an object.
struct Value {
    kind: u8,
    data: &'static [u8],
    owner: [u64; 2],
    state: AtomicU8,
    since: AtomicU64,
    claims: AtomicU32,
}

impl Value {
    fn new() -> Self {
        Self {
            kind: 1,
            data: b"data",
            owner: [0; 2],
            state: AtomicU8::new(1),
            since: AtomicU64::new(0),
            claims: AtomicU32::new(0),
        }
    }

    /// 1, by way of all that a reader looks at.
    fn read(&self) -> usize {
        let is_there = self.state.load(Ordering::Relaxed) == 1 && self.since.load(Ordering::Relaxed) == 0;
        let is_free = self.claims.load(Ordering::Relaxed) == 0 && self.owner[0] == 0;
        usize::from(is_there && is_free && self.kind == 1 && self.data.len() == 4)
    }
}

trait Map: Sync {
    fn insert(&self, keys: &[Key]);
    fn hits(&self, keys: &[Key]) -> usize;
}

struct Ours(IdTable<Key, Value>);

impl Map for Ours {
    fn insert(&self, keys: &[Key]) {
        for keys in keys.chunks(OPS_PER_GUARD) {
            let guard = pin();
            for key in keys {
                self.0.get_or_insert_with(*key, Value::new, &guard);
            }
        }
    }

    fn hits(&self, keys: &[Key]) -> usize {
        let mut hits = 0;
        for keys in keys.chunks(OPS_PER_GUARD) {
            let guard = pin();
            hits += keys.iter().map(|key| self.0.get(key, &guard).map_or(0, Value::read)).sum::<usize>();
        }
        hits
    }
}

impl Map for dashmap::DashMap<Key, Value, Build> {
    fn insert(&self, keys: &[Key]) {
        for key in keys {
            self.entry(*key).or_insert_with(Value::new);
        }
    }

    fn hits(&self, keys: &[Key]) -> usize {
        keys.iter().map(|key| self.get(key).map_or(0, |value| value.read())).sum()
    }
}

impl Map for papaya::HashMap<Key, Value, Build> {
    fn insert(&self, keys: &[Key]) {
        for keys in keys.chunks(OPS_PER_GUARD) {
            let map = self.pin();
            for key in keys {
                let _ = map.try_insert(*key, Value::new());
            }
        }
    }

    fn hits(&self, keys: &[Key]) -> usize {
        let mut hits = 0;
        for keys in keys.chunks(OPS_PER_GUARD) {
            let map = self.pin();
            hits += keys.iter().map(|key| map.get(key).map_or(0, Value::read)).sum::<usize>();
        }
        hits
    }
}

impl Map for scc::HashMap<Key, Value, Build> {
    fn insert(&self, keys: &[Key]) {
        for key in keys {
            let _ = self.insert_sync(*key, Value::new());
        }
    }

    fn hits(&self, keys: &[Key]) -> usize {
        keys.iter().map(|key| self.read_sync(key, |_, value| value.read()).unwrap_or(0)).sum()
    }
}
