//! A storm of random operations of several threads, in rounds of different shapes; `GOVC_STRESS_SECONDS` says for how
//! long, else a second.
//!
//! Each thread owns some keys: of those it knows at every moment whether they are there and with which value, whatever
//! the others do to the arrays. Keys of others it only looks at, and finds their values or nothing.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    IdTable, pin,
    tests::{Key, Ledger, Random, Value, key, threads},
};

/// What a round is like.
#[derive(Debug, Clone, Copy)]
struct Shape {
    threads: u64,
    /// Keys that a thread owns.
    keys: u64,
    /// Of a key's bits this many tell it from the others; few make tags collide.
    tag_bits: u32,
    ops: u64,
    ops_per_guard: u64,
}

impl Shape {
    fn random(random: &mut Random) -> Self {
        Self {
            threads: 2 + random.below(5),
            keys: 1 << random.below(15),
            tag_bits: if random.below(4) == 0 { 3 + random.below(4) as u32 } else { 32 },
            ops: 20_000,
            ops_per_guard: 1 << random.below(9),
        }
    }

    fn key(self, number: u64) -> Key {
        let Key(bits) = key(number);
        let tag = (bits >> 32) >> (32 - self.tag_bits) << (32 - self.tag_bits);
        // The lower half tells apart what the tag does not.
        Key(tag << 32 | number)
    }
}

fn round(seed: u64) {
    let mut random = Random(seed);
    let mut shape = Shape::random(&mut random);
    if shape.tag_bits < 32 {
        shape.keys = shape.keys.min(64);
    }
    println!("seed {seed:#x}: {shape:?}");
    let ledger = Arc::new(Ledger::default());
    let table = IdTable::<Key, Value>::with_capacity(random.below(64) as usize);
    let left: usize = threads(shape.threads, |thread| storm(&table, shape, thread, seed, &ledger)).into_iter().sum();
    assert_eq!(table.len(), left);
    let guard = pin();
    table.iter(&guard).for_each(|(key, value)| value.check(*key));
    assert_eq!(table.iter(&guard).count(), left);
    drop(guard);
    drop(table);
    ledger.assert_settled();
}

/// One thread's operations; how many of its keys are there in the end.
fn storm(table: &IdTable<Key, Value>, shape: Shape, thread: u64, seed: u64, ledger: &Arc<Ledger>) -> usize {
    let mut random = Random(seed ^ (thread + 1) << 48);
    let mut mine: HashMap<u64, u64> = HashMap::new();
    let mut guard = pin();
    // Grows for a while, then shrinks, and so on.
    let mut growing = true;
    for op in 0..shape.ops {
        if op % shape.ops_per_guard == 0 {
            drop(guard);
            guard = pin();
        }
        if random.below(4096) == 0 {
            growing = !growing;
        }
        let number = thread << 24 | random.below(shape.keys);
        let key = shape.key(number);
        let kind = random.below(10);
        if kind < 2 {
            let other = random.below(shape.threads) << 24 | random.below(shape.keys);
            let other = shape.key(other);
            if let Some(value) = table.get(&other, &guard) {
                value.check(other);
            }
        } else if kind < 3 {
            let found = table.get(&key, &guard);
            assert_eq!(found.map(|value| value.number), mine.get(&number).copied());
        } else if kind < 4 && random.below(64) == 0 {
            let numbers: Vec<u64> = (0..40).map(|_| thread << 24 | random.below(shape.keys)).collect();
            let keys: Vec<Key> = numbers.iter().map(|number| shape.key(*number)).collect();
            table.get_many(&keys, &guard, |at, value| {
                assert_eq!(value.map(|value| value.number), mine.get(&numbers[at]).copied());
            });
        } else if (kind < 8) == growing {
            let (value, inserted) = table.get_or_insert_with(key, || Value::new(key, op, ledger), &guard);
            value.check(key);
            assert_eq!(inserted, !mine.contains_key(&number));
            assert_eq!(*mine.entry(number).or_insert(op), value.number);
        } else {
            let removed =
                table.remove_if(&key, |value| value.number == mine.get(&number).copied().unwrap_or(0), &guard);
            assert_eq!(removed, mine.remove(&number).is_some());
        }
    }
    mine.len()
}

#[test]
fn storm_of_random_operations() {
    let seconds = std::env::var("GOVC_STRESS_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(1);
    let begin = Instant::now();
    let mut seed = std::env::var("GOVC_STRESS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    });
    while begin.elapsed() < Duration::from_secs(seconds) {
        round(seed);
        seed = seed.wrapping_add(1);
    }
}
