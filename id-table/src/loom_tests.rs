//! The protocols under loom: every interleaving within a bound on preemptions, tables of two to four slots.
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" cargo test --release -p govc-id-table --lib loom
//! ```
//!
//! Two preemptions at most; four where that takes a second, one where two take long. `LOOM_MAX_PREEMPTIONS` sets it for all.
//!
//! Reclamation is the model in `epoch.rs`, not crossbeam's. It frees as soon as it may, and a value's cell tells loom of
//! every use, so a value that is dropped under a reader is found, as is a use that is not ordered before the drop.

use std::sync::Arc;

use loom::{cell::UnsafeCell, model::Builder, thread};

use super::{
    Guard, Id, IdTable,
    arena::{Arena, Fresh},
    pin,
    slots::Present,
    sync::Memory,
    word::Word,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key(u64);

impl Id for Key {
    fn bits(&self) -> u64 {
        self.0
    }
}

const A: Key = Key(1);
const B: Key = Key(2);
/// In the second half of every array.
const C: Key = Key(1 << 63);
const D: Key = Key(3);
const E: Key = Key(1 << 63 | 1);

type Drops = Arc<std::sync::atomic::AtomicUsize>;

/// A value that loom watches.
struct Value {
    key: Key,
    alive: UnsafeCell<bool>,
    drops: Drops,
}

// SAFETY: loom checks that uses of the cell are ordered.
#[allow(unsafe_code)]
unsafe impl Send for Value {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Value {}

impl Value {
    fn new(key: Key, drops: &Drops) -> Self {
        Self { key, alive: UnsafeCell::new(true), drops: drops.clone() }
    }

    fn check(&self, key: Key) {
        assert_eq!(self.key, key, "the value of another key");
        // SAFETY: loom checks that nobody drops the value meanwhile.
        #[allow(unsafe_code)]
        let alive = self.alive.with(|alive| unsafe { *alive });
        assert!(alive, "a value after its end");
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: loom checks that nobody reads the value meanwhile.
        #[allow(unsafe_code)]
        let alive = self.alive.with_mut(|alive| unsafe { std::mem::replace(&mut *alive, false) });
        assert!(alive, "a value is dropped once");
        self.drops.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

type Table = IdTable<Key, Value>;

/// How often a thread is interrupted at most where it need not be. Two show what takes a thread that comes back late.
const PREEMPTIONS: usize = 2;
/// The same for scenes that need more and are small.
const PREEMPTIONS_MANY: usize = 4;
/// The same for large scenes.
const PREEMPTIONS_FEW: usize = 1;

/// Explores all schedules of a scene: a table of two slots with the entries `before`, in which `parts` run at once, and
/// `after` that alone. In the end every value that was made has been dropped.
fn explore<const N: usize>(
    preemptions: usize,
    before: &'static [Key],
    parts: [fn(&Table, &Drops); N],
    after: fn(&Table, &Drops),
) {
    explore_with(preemptions, move || {
        let drops = Drops::default();
        let table = Arc::new(Table::with_slots(2));
        before.iter().for_each(|key| assert!(insert(&table, *key, &drops)));
        let spawn = |part: fn(&Table, &Drops)| {
            let (table, drops) = (table.clone(), drops.clone());
            thread::spawn(move || part(&table, &drops))
        };
        let (last, others) = parts.split_last().expect("a scene has parts");
        let threads: Vec<_> = others.iter().map(|part| spawn(*part)).collect();
        last(&table, &drops);
        threads.into_iter().for_each(|thread| thread.join().expect("a thread panicked"));
        after(&table, &drops);
        assert_eq!(table.iter(&pin()).count(), table.len());
        drop(table);
        // What is left is what the ledger of `drops` and the clones of it say: one for each value, and ours.
        assert_eq!(Arc::strong_count(&drops), 1, "every value is dropped");
    });
}

/// Explores all schedules of a scene, and says how many there were.
fn explore_with(preemptions: usize, scene: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound.get_or_insert(preemptions);
    let executions = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = executions.clone();
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        scene();
    });
    println!("{executions:?} executions, {:?} preemptions at most", builder.preemption_bound);
}

fn insert(table: &Table, key: Key, drops: &Drops) -> bool {
    let guard = pin();
    let (value, inserted) = table.get_or_insert_with(key, || Value::new(key, drops), &guard);
    value.check(key);
    inserted
}

fn get(table: &Table, key: Key) -> bool {
    let guard = pin();
    let value = table.get(&key, &guard);
    if let Some(value) = value {
        value.check(key);
    }
    value.is_some()
}

fn remove(table: &Table, key: Key) -> bool {
    table.remove_if(&key, |value| value.key == key, &pin())
}

#[test]
fn a_reader_finds_a_key_while_it_moves() {
    explore(
        PREEMPTIONS_MANY,
        &[A],
        [|table, drops| assert!(insert(table, B, drops)), |table, _| assert!(get(table, A), "absent while it moved")],
        |table, _| assert!(get(table, A) && get(table, B)),
    );
}

#[test]
fn a_reader_finds_a_key_while_two_threads_move_it() {
    explore(
        PREEMPTIONS,
        &[A],
        [
            |table, drops| assert!(insert(table, B, drops)),
            |table, drops| assert!(insert(table, C, drops)),
            |table, _| assert!(get(table, A), "absent while it moved"),
        ],
        |table, _| assert!(get(table, A) && get(table, B) && get(table, C)),
    );
}

#[test]
fn one_of_two_inserts_of_a_key_wins() {
    static WON: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    fn part(table: &Table, drops: &Drops) {
        if insert(table, B, drops) {
            WON.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        assert!(get(table, B));
    }
    fn after(table: &Table, _: &Drops) {
        assert_eq!(WON.swap(0, std::sync::atomic::Ordering::Relaxed), 1);
        assert_eq!(table.iter(&pin()).filter(|(key, _)| **key == B).count(), 1);
    }
    // In an empty array; and in one that has to grow first.
    explore(PREEMPTIONS, &[], [part, part], after);
    explore(PREEMPTIONS, &[A], [part, part], after);
}

#[test]
fn inserts_of_different_keys_through_growth() {
    explore(
        PREEMPTIONS,
        &[A],
        [
            |table, drops| {
                assert!(insert(table, B, drops));
                assert!(get(table, B));
            },
            |table, drops| {
                assert!(insert(table, C, drops));
                assert!(get(table, A));
            },
        ],
        |table, _| assert!(get(table, A) && get(table, B) && get(table, C)),
    );
}

#[test]
fn a_value_is_not_dropped_under_a_reader() {
    explore(
        PREEMPTIONS_MANY,
        &[A],
        [
            |table, _| assert!(remove(table, A)),
            |table, _| {
                get(table, A);
            },
        ],
        |table, _| assert!(!get(table, A)),
    );
}

#[test]
fn an_entry_is_removed_once() {
    static WON: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    fn part(table: &Table, _: &Drops) {
        if remove(table, A) {
            WON.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    explore(PREEMPTIONS_MANY, &[A], [part, part], |table, _| {
        assert_eq!(WON.swap(0, std::sync::atomic::Ordering::Relaxed), 1);
        assert!(!get(table, A));
    });
}

#[test]
fn a_removal_meets_a_key_that_moves() {
    explore(
        PREEMPTIONS,
        &[A],
        [
            |table, drops| assert!(insert(table, B, drops)),
            |table, _| {
                assert!(remove(table, A));
                assert!(!get(table, A), "back after its removal");
            },
        ],
        |table, _| assert!(!get(table, A) && get(table, B)),
    );
}

#[test]
fn a_removal_and_a_helper_move_a_key_at_once() {
    explore(
        PREEMPTIONS_FEW,
        &[A],
        [
            |table, drops| assert!(insert(table, B, drops)),
            |table, drops| assert!(insert(table, C, drops)),
            |table, _| {
                assert!(remove(table, A));
                assert!(!get(table, A), "back after its removal");
            },
        ],
        |table, _| assert!(!get(table, A) && get(table, B) && get(table, C)),
    );
}

#[test]
fn a_key_comes_back_while_others_move_it() {
    explore(
        PREEMPTIONS_FEW,
        &[A],
        [
            |table, drops| assert!(insert(table, B, drops)),
            |table, drops| {
                assert!(remove(table, A));
                assert!(insert(table, A, drops));
                assert!(get(table, A));
            },
        ],
        |table, _| assert!(get(table, A) && get(table, B)),
    );
}

#[test]
fn a_place_is_used_again_only_after_its_readers() {
    explore(
        PREEMPTIONS_MANY,
        &[A],
        [
            |table, drops| {
                assert!(remove(table, A));
                assert!(insert(table, B, drops));
            },
            |table, _| {
                get(table, A);
                get(table, B);
            },
        ],
        |table, _| assert!(!get(table, A) && get(table, B)),
    );
}

#[test]
fn iteration_comes_to_a_key_once_while_it_moves() {
    explore(
        PREEMPTIONS,
        &[A],
        [
            |table, drops| assert!(insert(table, B, drops)),
            |table, _| {
                let guard = pin();
                let entries: Vec<_> = table.iter(&guard).collect();
                entries.iter().for_each(|(key, value)| value.check(**key));
                assert_eq!(entries.iter().filter(|(key, _)| **key == A).count(), 1);
            },
        ],
        |table, _| assert!(get(table, A) && get(table, B)),
    );
}

#[test]
fn a_reader_finds_a_key_while_the_table_shrinks() {
    explore(
        PREEMPTIONS_MANY,
        &[A, B, C],
        [
            |table, _| assert!(remove(table, A) && remove(table, B)),
            |table, _| assert!(get(table, C), "absent while it moved"),
        ],
        |table, _| assert!(!get(table, A) && !get(table, B) && get(table, C)),
    );
}

#[test]
fn an_insert_and_a_removal_meet_a_table_that_shrinks() {
    explore(
        PREEMPTIONS,
        &[A, B],
        [
            |table, _| {
                assert!(remove(table, A) && remove(table, B));
                assert!(!get(table, A), "back after its removal");
            },
            |table, drops| {
                assert!(insert(table, C, drops));
                assert!(get(table, C));
            },
        ],
        |table, _| assert!(!get(table, A) && !get(table, B) && get(table, C)),
    );
}

#[test]
fn a_reader_finds_a_key_that_another_moved() {
    // Four slots, so two blocks: whichever thread moves the last, sees what the other has moved.
    fn part(table: &Table, key: Key, drops: &Drops) {
        assert!(insert(table, key, drops));
        assert!([A, B, C].iter().all(|key| get(table, *key)), "absent after it was moved");
    }
    explore(
        PREEMPTIONS_FEW,
        &[A, B, C],
        [|table, drops| part(table, D, drops), |table, drops| part(table, E, drops)],
        |table, _| assert!([A, B, C, D, E].iter().all(|key| get(table, *key))),
    );
}

#[test]
fn who_moves_the_last_block_has_seen_the_others_moved() {
    explore_with(PREEMPTIONS, || {
        let drops = Drops::default();
        let table = Arc::new(Table::with_slots(2));
        // Eight slots that are to be moved, of which the entries are in two blocks.
        [A, B, C, D].iter().for_each(|key| assert!(insert(&table, *key, &drops)));
        assert!(remove(&table, A) && remove(&table, B));
        let other = thread::spawn({
            let (table, drops) = (table.clone(), drops.clone());
            move || {
                (0..2).for_each(|_| assert!(!insert(&table, C, &drops)));
                assert!(get(&table, D), "absent after it was moved");
            }
        });
        (0..2).for_each(|_| assert!(!insert(&table, D, &drops)));
        other.join().expect("a thread panicked");
        assert_eq!(table.len(), 2);
        drop(table);
        assert_eq!(Arc::strong_count(&drops), 1, "every value is dropped");
    });
}

#[test]
fn an_insert_with_room_left_meets_its_key_moved() {
    explore_with(PREEMPTIONS_MANY, || {
        let drops = Drops::default();
        let table = Arc::new(Table::with_slots(2));
        // Eight slots: three copies, and one more insert that leaves a reservation.
        [A, B, C, D].iter().for_each(|key| assert!(insert(&table, *key, &drops)));
        assert!(remove(&table, A));
        let other = thread::spawn({
            let (table, drops) = (table.clone(), drops.clone());
            move || {
                // Makes the table shrink, then moves two blocks; after the entry of D is an empty slot.
                assert!(remove(&table, B));
                (0..2).for_each(|_| assert!(!insert(&table, D, &drops), "a key twice"));
            }
        });
        assert!(!insert(&table, D, &drops), "a key twice");
        other.join().expect("a thread panicked");
        assert_eq!(table.iter(&pin()).count(), 2);
        assert_eq!(table.len(), 2);
        drop(table);
        assert_eq!(Arc::strong_count(&drops), 1, "every value is dropped");
    });
}

#[test]
fn a_place_becomes_free_in_a_chunk_that_was_found_full() {
    explore_with(PREEMPTIONS_MANY, || {
        let drops = Drops::default();
        let arena = Arc::new(Arena::new(&Memory::default()));
        let guard = pin();
        let [first, second] = [A, B].map(|key| arena.add(Value::new(key, &drops), &guard));
        let other = thread::spawn({
            let (arena, drops) = (arena.clone(), drops.clone());
            move || drop(arena.add(Value::new(C, &drops), &pin()))
        });
        drop(first);
        other.join().expect("a thread panicked");
        arena.check(&guard);
        drop(second);
        assert_eq!(Arc::strong_count(&drops), 1, "every value is dropped");
    });
}

#[test]
fn a_chunk_is_freed_while_others_take_from_it() {
    fn add<'g>(arena: &'g Arena<Value>, key: Key, drops: &Drops, guard: &'g Guard) -> Fresh<'g, Value> {
        let fresh = arena.add(Value::new(key, drops), guard);
        arena.get(Present::of(Word::live(0, fresh.handle()))).check(key);
        fresh
    }
    explore_with(PREEMPTIONS_MANY, || {
        let memory = Memory::default();
        let drops = Drops::default();
        let arena = Arc::new(Arena::new(&memory));
        let guard = pin();
        let [first, second, third] = [A, B, C].map(|key| add(&arena, key, &drops, &guard));
        drop((first, second));
        let other = thread::spawn({
            let (arena, drops) = (arena.clone(), drops.clone());
            move || drop(add(&arena, D, &drops, &pin()))
        });
        // The second chunk is free now, unless the other thread has taken from it.
        drop(third);
        drop(guard);
        other.join().expect("a thread panicked");
        arena.check(&pin());
        assert_eq!(Arc::strong_count(&drops), 1, "every value is dropped");
        drop(arena);
        assert_eq!(memory.load(std::sync::atomic::Ordering::Relaxed), 0, "every chunk is freed, once");
    });
}
