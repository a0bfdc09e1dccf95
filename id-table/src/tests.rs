//! What the table does on its own, against a model, and with several threads.

use std::{
    collections::{HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{Guard, Id, IdTable, pin};

/// A key that is its own hash, so that tests can make tags collide.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) struct Key(pub(super) u64);

impl Id for Key {
    fn bits(&self) -> u64 {
        self.0
    }
}

/// Spreads small numbers over all bits; a bijection.
pub(super) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

pub(super) fn key(number: u64) -> Key {
    Key(mix(number))
}

pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// How many values have been made and dropped.
#[derive(Default)]
pub(super) struct Ledger {
    made: AtomicUsize,
    dropped: AtomicUsize,
}

impl Ledger {
    /// Frees what is due until every value is dropped.
    pub(super) fn assert_settled(&self) {
        let begin = Instant::now();
        loop {
            pin().flush();
            let (dropped, made) = (self.dropped.load(Ordering::SeqCst), self.made.load(Ordering::SeqCst));
            assert!(dropped <= made, "{dropped} drops of {made} values");
            if dropped == made {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{dropped} of {made} values are dropped");
            thread::yield_now();
        }
    }
}

const ALIVE: u64 = 0x600d_600d_600d_600d;

/// A value that carries its key and notices when it is used after its end.
pub(super) struct Value {
    pub(super) key: Key,
    pub(super) number: u64,
    seal: AtomicU64,
    ledger: Arc<Ledger>,
}

impl Value {
    pub(super) fn new(key: Key, number: u64, ledger: &Arc<Ledger>) -> Self {
        ledger.made.fetch_add(1, Ordering::SeqCst);
        Self { key, number, seal: AtomicU64::new(ALIVE ^ key.0), ledger: ledger.clone() }
    }

    pub(super) fn check(&self, key: Key) {
        assert_eq!(self.key, key, "the value of another key");
        assert_eq!(self.seal.load(Ordering::Relaxed), ALIVE ^ key.0, "a value after its end");
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        let seal = self.seal.swap(0, Ordering::Relaxed);
        assert_eq!(seal, ALIVE ^ self.key.0, "a value is dropped once");
        self.ledger.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

fn insert(table: &IdTable<Key, u64>, key: Key, value: u64, guard: &Guard) -> bool {
    table.get_or_insert_with(key, || value, guard).1
}

#[test]
fn finds_what_was_inserted_and_nothing_else() {
    let table = IdTable::new();
    let guard = pin();
    assert!(table.is_empty());
    assert_eq!(table.get(&key(1), &guard), None);
    assert_eq!(table.get_or_insert_with(key(1), || 10, &guard), (&10, true));
    assert_eq!(table.get_or_insert_with(key(1), || 11, &guard), (&10, false));
    assert_eq!(table.get(&key(1), &guard), Some(&10));
    assert_eq!(table.get(&key(2), &guard), None);
    assert_eq!(table.len(), 1);
}

#[test]
fn removes_only_where_the_predicate_holds() {
    let table = IdTable::new();
    let guard = pin();
    insert(&table, key(1), 10, &guard);
    assert!(!table.remove_if(&key(1), |value| *value == 11, &guard));
    assert!(!table.remove_if(&key(2), |_| true, &guard));
    assert_eq!(table.get(&key(1), &guard), Some(&10));
    assert!(table.remove_if(&key(1), |value| *value == 10, &guard));
    assert!(!table.remove_if(&key(1), |_| true, &guard));
    assert_eq!(table.get(&key(1), &guard), None);
    assert!(insert(&table, key(1), 12, &guard));
    assert_eq!(table.get(&key(1), &guard), Some(&12));
    assert_eq!(table.len(), 1);
}

#[test]
fn keys_with_equal_tags_are_different() {
    let table = IdTable::new();
    let guard = pin();
    // At the end of the array, so that the probe sequence wraps.
    let keys: Vec<Key> = (0..300).map(|low| Key(u64::from(u32::MAX) << 32 | low)).collect();
    for (number, key) in keys.iter().enumerate() {
        assert!(insert(&table, *key, number as u64, &guard));
        assert!(keys[..=number].iter().all(|key| table.get(key, &guard).is_some()));
        assert!(keys[number + 1..].iter().all(|key| table.get(key, &guard).is_none()));
    }
    for key in keys.iter().step_by(2) {
        assert!(table.remove_if(key, |_| true, &guard));
    }
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(table.get(key, &guard).is_some(), number % 2 == 1);
    }
}

#[test]
fn the_key_of_zeros_is_a_key() {
    let table = IdTable::new();
    let guard = pin();
    assert_eq!(table.get(&Key(0), &guard), None);
    assert!(!table.remove_if(&Key(0), |_| true, &guard));
    assert!(insert(&table, Key(0), 1, &guard));
    assert_eq!(table.get(&Key(0), &guard), Some(&1));
    assert_eq!(table.get(&Key(1), &guard), None);
}

#[test]
fn a_panic_while_a_value_is_made_changes_nothing() {
    let table = IdTable::<Key, u64>::new();
    let guard = pin();
    let made = catch_unwind(AssertUnwindSafe(|| table.get_or_insert_with(key(1), || panic!("on purpose"), &guard)));
    assert!(made.is_err());
    assert_eq!((table.get(&key(1), &guard), table.len()), (None, 0));
    assert!(insert(&table, key(1), 1, &guard));
}

#[test]
fn making_a_value_may_use_the_table() {
    let table = IdTable::new();
    let guard = pin();
    let inner = || {
        assert!(insert(&table, key(1), 7, &guard));
        8
    };
    assert_eq!(table.get_or_insert_with(key(1), inner, &guard), (&7, false));
    let grow = || {
        for number in 2..1000 {
            assert!(insert(&table, key(number), number, &guard));
        }
        1000
    };
    assert_eq!(table.get_or_insert_with(key(1000), grow, &guard), (&1000, true));
    assert!((2..=1000).all(|number| table.get(&key(number), &guard) == Some(&number)));
    assert_eq!(table.len(), 1000);
}

#[test]
fn many_lookups_at_once_are_lookups() {
    let table = IdTable::new();
    let guard = pin();
    for number in (0..1000).step_by(2) {
        insert(&table, key(number), number, &guard);
    }
    for count in [0, 1, 15, 16, 17, 1000] {
        let keys: Vec<Key> = (0..count).map(key).collect();
        let mut seen = Vec::new();
        table.get_many(&keys, &guard, |at, value| seen.push((at, value.copied())));
        let expected: Vec<_> =
            (0..count).map(|number| (number as usize, (number % 2 == 0).then_some(number))).collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_removed_value_lives_as_long_as_a_guard_that_saw_it() {
    let ledger = Arc::new(Ledger::default());
    let table = IdTable::new();
    let guard = pin();
    let (value, _) = table.get_or_insert_with(key(1), || Value::new(key(1), 1, &ledger), &guard);
    assert!(table.remove_if(&key(1), |_| true, &guard));
    for _ in 0..10 {
        guard.flush();
    }
    value.check(key(1));
    assert_eq!(ledger.dropped.load(Ordering::SeqCst), 0);
    drop(guard);
    ledger.assert_settled();
}

#[test]
fn values_are_dropped_with_the_table() {
    let ledger = Arc::new(Ledger::default());
    let table = IdTable::new();
    for number in 0..5000 {
        let guard = pin();
        table.get_or_insert_with(key(number), || Value::new(key(number), number, &ledger), &guard);
        if number % 3 == 0 {
            assert!(table.remove_if(&key(number), |_| true, &guard));
        }
    }
    assert_eq!(table.len(), 5000 - 1667);
    drop(table);
    ledger.assert_settled();
}

#[test]
fn comes_to_every_entry_once_at_every_size() {
    let table = IdTable::new();
    let guard = pin();
    for number in 0..2000 {
        insert(&table, key(number), number, &guard);
        // Beside the many sizes also in the middle of growth.
        if number % 7 == 0 {
            let seen: Vec<u64> = table.iter(&guard).map(|(_, value)| *value).collect();
            assert_eq!(seen.len() as u64, number + 1);
            assert_eq!(HashSet::<u64>::from_iter(seen).len() as u64, number + 1);
        }
    }
}

#[test]
fn iteration_outlives_growth() {
    let table = IdTable::new();
    let guard = pin();
    (0..1000).for_each(|number| assert!(insert(&table, key(number), number, &guard)));
    let mut seen = Vec::new();
    for (at, (found, value)) in table.iter(&guard).enumerate() {
        assert_eq!(*found, key(*value));
        seen.push(*value);
        // Three generations of arrays while the iteration is in the first.
        if at < 1000 {
            let more = 1000 + 20 * at as u64;
            (more..more + 20).for_each(|number| assert!(insert(&table, key(number), number, &guard)));
        }
    }
    seen.retain(|value| *value < 1000);
    seen.sort_unstable();
    assert_eq!(seen, (0..1000).collect::<Vec<u64>>());
}

#[test]
fn a_small_table_is_small() {
    let table = IdTable::<Key, [u64; 10]>::new();
    assert!(table.memory_bytes() < 4096, "{} bytes", table.memory_bytes());
    (0..8).for_each(|number| assert!(table.get_or_insert_with(key(number), || [number; 10], &pin()).1));
    assert!(table.memory_bytes() < 5000, "{} bytes", table.memory_bytes());
}

#[test]
#[should_panic(expected = "half a billion")]
fn more_slots_than_tags_are_refused() {
    let _ = IdTable::<Key, u64>::with_capacity(usize::MAX);
}

#[test]
fn a_table_with_capacity_does_not_grow() {
    let table = IdTable::with_capacity(1000);
    let guard = pin();
    let slots = table.root.load(&guard).len();
    (0..1000).for_each(|number| assert!(insert(&table, key(number), number, &guard)));
    (0..1000).for_each(|number| assert!(table.remove_if(&key(number), |_| true, &guard)));
    assert_eq!(table.root.load(&guard).len(), slots);
    assert!(table.root.load(&guard).successor(&guard).is_none());
}

#[test]
fn a_table_with_capacity_does_not_grow_for_several_threads() {
    const COUNT: u64 = 300_000;
    let table = IdTable::with_capacity(COUNT as usize);
    let slots = table.root.load(&pin()).len();
    // Threads that have been handed more room than they use.
    threads(8, |thread| assert!(insert(&table, key(thread), thread, &pin())));
    (8..COUNT).for_each(|number| assert!(insert(&table, key(number), number, &pin())));
    let guard = pin();
    assert_eq!((table.len() as u64, table.root.load(&guard).len()), (COUNT, slots));
    assert!(table.root.load(&guard).successor(&guard).is_none());
}

/// Waits until the memory of a table has come down, for other tests hold guards.
fn assert_comes_down(table: &IdTable<Key, u64>, bytes: usize) {
    let begin = Instant::now();
    while table.memory_bytes() > bytes {
        assert!(begin.elapsed() < Duration::from_secs(20), "{} bytes", table.memory_bytes());
        pin().flush();
        thread::yield_now();
    }
}

/// `GOVC_STRESS_ENTRIES` says of how many.
#[test]
fn gives_its_memory_back_after_mass_removal() {
    let count = std::env::var("GOVC_STRESS_ENTRIES").ok().and_then(|count| count.parse().ok()).unwrap_or(100_000);
    let table = IdTable::new();
    for from in (0..count).step_by(100) {
        let guard = pin();
        (from..count.min(from + 100)).for_each(|number| assert!(insert(&table, key(number), number, &guard)));
    }
    let full = table.memory_bytes();
    assert!(full as u64 > 20 * count);
    // First some at random, then the rest.
    let mut random = Random(1);
    (0..count).for_each(|_| {
        table.remove_if(&key(random.below(count)), |_| true, &pin());
    });
    for from in (0..count).step_by(100) {
        let guard = pin();
        (from..count.min(from + 100)).for_each(|number| {
            table.remove_if(&key(number), |_| true, &guard);
        });
    }
    assert_eq!(table.len(), 0);
    assert_comes_down(&table, 20_000);
    println!("{count} entries: {full} bytes, then {}", table.memory_bytes());
    assert!((0..1000).all(|number| insert(&table, key(number), number, &pin())));
}

#[test]
fn a_thread_that_pins_no_more_holds_no_garbage() {
    let ledger = Arc::new(Ledger::default());
    let table = IdTable::new();
    table.get_or_insert_with(key(1), || Value::new(key(1), 1, &ledger), &pin());
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            assert!(table.remove_if(&key(1), |_| true, &pin()));
            barrier.wait();
            // Lives on and does nothing.
            barrier.wait();
        });
        barrier.wait();
        ledger.assert_settled();
        barrier.wait();
    });
}

/// Pins when its thread ends, later than the thread's place among those that pin is gone.
struct PinsAtTheEnd;

impl Drop for PinsAtTheEnd {
    fn drop(&mut self) {
        drop(pin());
    }
}

#[test]
fn the_end_of_a_thread_frees_however_much_is_due() {
    const COUNT: u64 = 100_000;
    thread_local!(static LAST: PinsAtTheEnd = const { PinsAtTheEnd });
    let ledger = Arc::new(Ledger::default());
    let table = IdTable::new();
    for number in 0..COUNT {
        table.get_or_insert_with(key(number), || Value::new(key(number), number, &ledger), &pin());
    }
    // Nothing is freed as long as this guard lives, so then all is due at once.
    let guard = pin();
    (0..COUNT).for_each(|number| assert!(table.remove_if(&key(number), |_| true, &guard)));
    drop(guard);
    thread::scope(|scope| {
        let last = || {
            // The first to be used is the last to end.
            LAST.with(|_| ());
            drop(pin());
        };
        let ends = thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, last);
        ends.expect("a thread").join().expect("a thread that ends");
    });
    drop(table);
    ledger.assert_settled();
}

/// A value that uses its table when it is dropped.
struct Heir {
    table: Arc<IdTable<Key, Heir>>,
    next: u64,
}

impl Drop for Heir {
    fn drop(&mut self) {
        if self.next > 0 {
            self.table.remove_if(&key(self.next), |_| true, &pin());
        }
    }
}

#[test]
fn dropping_a_value_may_use_the_table() {
    const COUNT: u64 = 10_000;
    let table = Arc::new(IdTable::new());
    for number in 1..=COUNT {
        let make = || Heir { table: table.clone(), next: number - 1 };
        assert!(table.get_or_insert_with(key(number), make, &pin()).1);
    }
    // Each removal drops a value that removes the next.
    assert!(table.remove_if(&key(COUNT), |_| true, &pin()));
    let begin = Instant::now();
    while !table.is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{} left", table.len());
        pin().flush();
    }
}

#[test]
fn lookups_complete_growth() {
    let table = IdTable::new();
    let guard = pin();
    let growing = |table: &IdTable<Key, u64>| table.root.load(&guard).successor(&guard).is_some();
    let mut count = 0;
    while count < 10_000 || !growing(&table) {
        assert!(insert(&table, key(count), count, &guard));
        count += 1;
    }
    for number in 0..count {
        assert_eq!(table.get(&key(number), &guard), Some(&number));
    }
    assert!(!growing(&table));
    assert_eq!(table.iter(&guard).count() as u64, count);
}

#[test]
fn churn_at_constant_size_takes_constant_memory() {
    let table = IdTable::new();
    for number in 0..10_000 {
        insert(&table, key(number), number, &pin());
    }
    for number in 10_000..1_000_000 {
        assert!(table.remove_if(&key(number - 10_000), |_| true, &pin()));
        assert!(insert(&table, key(number), number, &pin()));
    }
    assert_eq!(table.len(), 10_000);
    let slots = table.root.load(&pin()).len();
    assert!(slots < 40_000, "{slots} slots, mostly for the dead");
    // What was removed takes 16 MB by now; guards of other tests may keep some of it.
    assert_comes_down(&table, 3_000_000);
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u64),
    Remove(u64),
    RemoveOdd(u64),
    Get(u64),
    GetMany(Vec<u64>),
    InsertRange(u64, u64),
    RemoveRange(u64, u64),
    Iterate,
}

/// Numbers of keys, of which every fifth has the tag of the one before.
fn model_key(number: u64) -> Key {
    if number % 5 == 4 { Key(mix(number - 1) ^ 1) } else { Key(mix(number)) }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let number = 0u64..200;
    let op = prop_oneof![
        8 => number.clone().prop_map(Op::Insert),
        6 => number.clone().prop_map(Op::Remove),
        2 => number.clone().prop_map(Op::RemoveOdd),
        4 => number.clone().prop_map(Op::Get),
        1 => prop::collection::vec(number.clone(), 0..40).prop_map(Op::GetMany),
        1 => (number.clone(), 0u64..600).prop_map(|(from, count)| Op::InsertRange(from, count)),
        1 => (number, 0u64..600).prop_map(|(from, count)| Op::RemoveRange(from, count)),
        1 => Just(Op::Iterate),
    ];
    prop::collection::vec(op, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_map(ops in ops(), capacity in 0usize..50) {
        let table = IdTable::with_capacity(capacity);
        let mut model = HashMap::new();
        let mut stamp = 0;
        let mut put = |model: &mut HashMap<Key, u64>, key: Key| {
            stamp += 1;
            let guard = pin();
            let (value, inserted) = table.get_or_insert_with(key, || stamp, &guard);
            assert_eq!(inserted, !model.contains_key(&key));
            assert_eq!(value, model.entry(key).or_insert(stamp));
        };
        for op in ops {
            let guard = pin();
            match op {
                Op::Insert(number) => put(&mut model, model_key(number)),
                Op::InsertRange(from, count) => (from..from + count).for_each(|number| put(&mut model, model_key(number))),
                Op::Remove(number) => {
                    let removed = table.remove_if(&model_key(number), |_| true, &guard);
                    prop_assert_eq!(removed, model.remove(&model_key(number)).is_some());
                }
                Op::RemoveRange(from, count) => for number in from..from + count {
                    let removed = table.remove_if(&model_key(number), |_| true, &guard);
                    prop_assert_eq!(removed, model.remove(&model_key(number)).is_some());
                },
                Op::RemoveOdd(number) => {
                    let key = model_key(number);
                    let odd = model.get(&key).is_some_and(|value| value % 2 == 1);
                    prop_assert_eq!(table.remove_if(&key, |value| value % 2 == 1, &guard), odd);
                    if odd {
                        model.remove(&key);
                    }
                }
                Op::Get(number) => {
                    prop_assert_eq!(table.get(&model_key(number), &guard), model.get(&model_key(number)));
                }
                Op::GetMany(numbers) => {
                    let keys: Vec<Key> = numbers.into_iter().map(model_key).collect();
                    let mut found = vec![None; keys.len()];
                    table.get_many(&keys, &guard, |at, value| found[at] = value);
                    prop_assert!(keys.iter().zip(found).all(|(key, found)| model.get(key) == found));
                }
                Op::Iterate => {
                    let mut seen: Vec<(Key, u64)> = table.iter(&guard).map(|(key, value)| (*key, *value)).collect();
                    let mut expected: Vec<(Key, u64)> = model.iter().map(|(key, value)| (*key, *value)).collect();
                    seen.sort_unstable();
                    expected.sort_unstable();
                    prop_assert_eq!(seen, expected);
                }
            }
            prop_assert_eq!(table.len(), model.len());
        }
    }
}

/// Runs a closure in several threads at once.
pub(super) fn threads<R: Send>(count: u64, work: impl Fn(u64) -> R + Sync) -> Vec<R> {
    let barrier = Barrier::new(count as usize);
    thread::scope(|scope| {
        let spawn = |thread| {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                work(thread)
            })
        };
        let handles: Vec<_> = (0..count).map(spawn).collect();
        handles.into_iter().map(|handle| handle.join().expect("a thread panicked")).collect()
    })
}

#[test]
fn threads_insert_different_keys() {
    const COUNT: u64 = 40_000;
    let table = IdTable::new();
    threads(4, |thread| {
        for number in (thread..COUNT).step_by(4) {
            assert!(insert(&table, key(number), number, &pin()));
        }
    });
    assert_eq!(table.len() as u64, COUNT);
    let guard = pin();
    assert!((0..COUNT).all(|number| table.get(&key(number), &guard) == Some(&number)));
    assert_eq!(table.iter(&guard).count() as u64, COUNT);
}

#[test]
fn one_of_several_inserts_of_a_key_wins() {
    const COUNT: u64 = 40_000;
    let ledger = Arc::new(Ledger::default());
    let table = IdTable::new();
    let winners = threads(4, |thread| {
        let mut won = 0;
        for number in 0..COUNT {
            let guard = pin();
            let make = || Value::new(key(number), thread, &ledger);
            let (value, inserted) = table.get_or_insert_with(key(number), make, &guard);
            value.check(key(number));
            assert!(!inserted || value.number == thread);
            assert!(std::ptr::eq(value, table.get(&key(number), &guard).expect("just inserted")));
            won += u64::from(inserted);
        }
        won
    });
    assert_eq!(winners.iter().sum::<u64>(), COUNT);
    assert_eq!(table.len() as u64, COUNT);
    assert_eq!(table.iter(&pin()).count() as u64, COUNT);
    drop(table);
    ledger.assert_settled();
}

#[test]
fn one_of_several_removals_of_an_entry_wins() {
    const COUNT: u64 = 20_000;
    let ledger = Arc::new(Ledger::default());
    let table = IdTable::new();
    for number in 0..COUNT {
        table.get_or_insert_with(key(number), || Value::new(key(number), number, &ledger), &pin());
    }
    // Half of the threads also insert others, so that entries move while they are removed.
    let removed = threads(4, |thread| {
        let mut removed = 0;
        for number in 0..COUNT {
            removed += u64::from(table.remove_if(&key(number), |_| true, &pin()));
            if thread < 2 {
                let key = key(COUNT + 2 * number + thread);
                assert!(table.get_or_insert_with(key, || Value::new(key, 0, &ledger), &pin()).1);
            }
        }
        removed
    });
    assert_eq!(removed.iter().sum::<u64>(), COUNT);
    assert_eq!(table.len() as u64, 2 * COUNT);
    drop(table);
    ledger.assert_settled();
}

#[test]
fn a_predicate_removes_nothing_that_others_inserted() {
    let ledger = Arc::new(Ledger::default());
    let table = IdTable::new();
    let left: i64 = threads(4, |thread| {
        let mut balance = 0;
        for round in 0..40_000 {
            let (key, number) = (key(round % 8), thread << 32 | round);
            let guard = pin();
            let (value, inserted) = table.get_or_insert_with(key, || Value::new(key, number, &ledger), &guard);
            value.check(key);
            assert_eq!(inserted, value.number == number);
            let removed = table.remove_if(&key, |value| value.number == number, &guard);
            // Nobody else removes it.
            assert_eq!(removed, inserted);
            value.check(key);
            balance += i64::from(inserted) - i64::from(removed);
        }
        balance
    })
    .into_iter()
    .sum();
    assert_eq!((left, table.len()), (0, 0));
    drop(table);
    ledger.assert_settled();
}

#[test]
fn a_key_that_was_inserted_is_never_absent_during_growth() {
    const COUNT: u64 = 200_000;
    let table = IdTable::new();
    let inserted = AtomicU64::new(0);
    threads(4, |thread| {
        let mut random = Random(thread << 32);
        if thread == 0 {
            for number in 0..COUNT {
                assert!(insert(&table, key(number), number, &pin()));
                inserted.store(number + 1, Ordering::Release);
            }
            return;
        }
        loop {
            let known = inserted.load(Ordering::Acquire);
            let guard = pin();
            for _ in 0..known.min(50) {
                // Mostly recent ones, at various distances.
                let number = (known - 1 - random.next() % known) >> random.below(16);
                assert_eq!(table.get(&key(number), &guard), Some(&number), "{number} of {known}");
            }
            if known == COUNT {
                return;
            }
        }
    });
}

#[test]
fn permanent_keys_stay_while_others_come_and_go() {
    const PERMANENT: u64 = 500;
    let table = IdTable::new();
    for number in 0..PERMANENT {
        insert(&table, key(number), number, &pin());
    }
    let done = AtomicBool::new(false);
    threads(4, |thread| {
        if thread < 2 {
            // Up and down, through growth and shrinking.
            for round in 0..20 {
                let from = PERMANENT + (thread << 40);
                let count = 1000 << (round % 5);
                (from..from + count).for_each(|number| assert!(insert(&table, key(number), number, &pin())));
                (from..from + count).for_each(|number| assert!(table.remove_if(&key(number), |_| true, &pin())));
            }
            done.store(true, Ordering::Release);
            return;
        }
        let keys: Vec<Key> = (0..PERMANENT).map(key).collect();
        while !done.load(Ordering::Acquire) {
            let guard = pin();
            if thread == 2 {
                table.get_many(&keys, &guard, |at, value| assert_eq!(value, Some(&(at as u64))));
                assert!((0..PERMANENT).all(|number| table.get(&key(number), &guard) == Some(&number)));
            } else {
                let seen: Vec<u64> =
                    table.iter(&guard).map(|(_, value)| *value).filter(|value| *value < PERMANENT).collect();
                assert_eq!(seen.len() as u64, PERMANENT);
                assert_eq!(HashSet::<u64>::from_iter(seen).len() as u64, PERMANENT);
            }
        }
    });
    assert_eq!(table.len() as u64, PERMANENT);
}
