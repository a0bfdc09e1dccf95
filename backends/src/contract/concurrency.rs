//! Checks with several threads on one backend. What a thread can observe is bounded by numbers of operations,
//! never by time.

use std::sync::Barrier;
use std::thread;

use govc_engine::backend::{Backend, BackendErrorKind, Batch, Family, Scan, Sync};

use super::{Check, Subject};

const READERS: usize = 3;
const SCANS: usize = 200;
const GENERATIONS: u64 = 100;
const KEYS: u32 = 64;

const CREATORS: usize = 6;
const ROUNDS: usize = 60;

const COUNTERS: usize = 4;
const INCREMENTS: u64 = 100;

const CHECKED_WRITERS: usize = 3;
const CHECKED_WRITES: usize = 300;

/// Each generation takes away all entries of the one before it, so a torn batch shows as a missing, a surplus or
/// a foreign entry.
pub(super) fn readers_see_whole_batches(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    let backend = &*backend;
    let write = |generation: u64| {
        let key = |parity: u64, number: u32| format!("{} {number:04}", parity % 2).into_bytes();
        let mut batch = Batch::new();
        for number in 0..KEYS {
            batch.delete(Family::Refs, key(generation + 1, number));
            batch.put(Family::Refs, key(generation, number), generation.to_be_bytes().to_vec());
        }
        check.ok("write", backend.write(batch, Sync::No));
    };
    write(0);
    thread::scope(|scope| {
        let writer = scope.spawn(|| (1..=GENERATIONS).for_each(write));
        let read = |number: usize| {
            let mut newest = Vec::new();
            let mut turn = 0;
            // Never without a writer, however seldom either gets a processor.
            while turn < SCANS || !writer.is_finished() {
                let scan = if (turn + number).is_multiple_of(2) { Scan::all() } else { Scan::all().reversed() };
                let entries = check.entries("scan", backend.scan(Family::Refs, scan));
                check.same("entries of a whole batch", entries.len(), KEYS as usize);
                let generation = entries[0].1.clone();
                check.holds("entries of one batch", entries.iter().all(|(_, value)| *value == generation));
                check.holds("a later scan shows no earlier batch", generation >= newest);
                newest = generation;
                turn += 1;
            }
        };
        thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS).map(|number| scope.spawn(move || read(number))).collect();
            for reader in readers {
                check.joined(reader.join());
            }
        });
        check.joined(writer.join());
    });
}

pub(super) fn one_creator_wins(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    let backend = &*backend;
    let start = Barrier::new(CREATORS);
    let create = |creator: usize| -> Vec<bool> {
        start.wait();
        (0..ROUNDS)
            .map(|round| {
                let mut batch = Batch::new();
                batch.require_absent(Family::Catalog, key_of(round));
                batch.put(Family::Catalog, key_of(round), vec![creator as u8]);
                won(check, backend, batch, Sync::No)
            })
            .collect()
    };
    let wins: Vec<Vec<bool>> = thread::scope(|scope| {
        let creators: Vec<_> = (0..CREATORS).map(|creator| scope.spawn(move || create(creator))).collect();
        creators.into_iter().map(|creator| check.joined(creator.join())).collect()
    });
    for round in 0..ROUNDS {
        let winners: Vec<u8> =
            (0_u8..).zip(&wins).filter(|(_, wins)| wins[round]).map(|(creator, _)| creator).collect();
        check.same("creators that won one key", winners.len(), 1);
        let found = check.ok("get", backend.get(Family::Catalog, &key_of(round)));
        check.same("the winner's value", found.as_deref(), Some(&winners[..]));
    }
}

pub(super) fn no_increment_is_lost(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    let backend = &*backend;
    let key = b"counter";
    let mut batch = Batch::new();
    batch.put(Family::Meta, key.to_vec(), 0_u64.to_be_bytes().to_vec());
    check.ok("fill", backend.write(batch, Sync::No));

    let current = || check.ok("get", backend.get(Family::Meta, key));
    let number = |bytes: &[u8]| <[u8; 8]>::try_from(bytes).map_or(u64::MAX, u64::from_be_bytes);
    let increment = || {
        for turn in 0..INCREMENTS {
            let sync = if turn.is_multiple_of(20) { Sync::Yes } else { Sync::No };
            loop {
                let old = current().unwrap_or_default();
                let next = number(&old).wrapping_add(1);
                let mut batch = Batch::new();
                batch.require_value(Family::Meta, key.to_vec(), old);
                batch.put(Family::Meta, key.to_vec(), next.to_be_bytes().to_vec());
                if won(check, backend, batch, sync) {
                    break;
                }
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..COUNTERS).map(|_| scope.spawn(increment)).collect();
        for thread in threads {
            check.joined(thread.join());
        }
    });
    let counted = number(&current().unwrap_or_default());
    check.same("increments", counted, COUNTERS as u64 * INCREMENTS);
}

/// Plain batches set both keys to a new number; checked ones set the second to the first's number if the first
/// still has it. The keys differ only if a plain write came between a check and its write.
pub(super) fn plain_writes_stay_out_of_checked_ones(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    let backend = &*backend;
    let plain = |number: u64| {
        let mut batch = Batch::new();
        for key in [b"first", b"other"] {
            batch.put(Family::Journal, key.to_vec(), number.to_be_bytes().to_vec());
        }
        check.ok("plain write", backend.write(batch, Sync::No));
        let entries = check.entries("scan", backend.scan(Family::Journal, Scan::all()));
        check.same("keys", entries.len(), 2);
        check.same("the second key, that follows the first", &entries[1].1, &entries[0].1);
    };
    let checked = || {
        for _ in 0..CHECKED_WRITES {
            let first = check.ok("get", backend.get(Family::Journal, b"first")).unwrap_or_default();
            let mut batch = Batch::new();
            batch.require_value(Family::Journal, b"first".to_vec(), first.clone());
            batch.put(Family::Journal, b"other".to_vec(), first);
            won(check, backend, batch, Sync::No);
        }
    };
    plain(0);
    thread::scope(|scope| {
        let checkers: Vec<_> = (0..CHECKED_WRITERS).map(|_| scope.spawn(checked)).collect();
        let mut number = 0;
        while checkers.iter().any(|checker| !checker.is_finished()) {
            number += 1;
            plain(number);
        }
        for checker in checkers {
            check.joined(checker.join());
        }
    });
}

fn key_of(round: usize) -> Vec<u8> {
    format!("{round:06}").into_bytes()
}

/// Whether a batch with one precondition was written; it may be refused only because of that.
fn won(check: &Check, backend: &dyn Backend, batch: Batch, sync: Sync) -> bool {
    match backend.write(batch, sync) {
        Err(error) if error.kind == (BackendErrorKind::PreconditionFailed { index: 0 }) => false,
        result => {
            check.ok("write", result);
            true
        }
    }
}
