//! Memory comes back: everything that a million realities took is given back when they are dropped.
//!
//! In a program of its own, for it counts every byte that is allocated.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use govc_backends::MemoryBackend;
use govc_engine::{
    Cause, Durability, Expected, Kind, NewRealities, RefEdit, RefName, Repo, RepoName, RepoSettings, Retention, Store,
    StoreOptions,
};

struct Counting;

static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator as it came; counting touches no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD_BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: usize = 10;
const EACH: usize = 100_000;

/// Makes realities and drops them again; the bytes that are held with them and without.
fn round(repo: &Repo, number: usize) -> (usize, usize) {
    let snapshot = repo.snapshot();
    let names: Vec<RefName> =
        (0..EACH).map(|at| RefName::reality(&format!("round{number}/{at:06}")).unwrap()).collect();
    let new = NewRealities {
        names: names.clone(),
        base: snapshot.reference(&RefName::branch("main").unwrap()).unwrap(),
        version: snapshot.version().number,
        from: None,
        ttl: None,
        actor: "tester".to_owned(),
    };
    drop(snapshot);
    repo.create_realities(new).unwrap().ticket.wait().unwrap();
    assert_eq!(repo.stats().realities, EACH);
    let with = HELD_BYTES.load(Ordering::Relaxed);
    repo.drop_realities(&names, "tester").unwrap().ticket.wait().unwrap();
    assert_eq!(repo.stats().realities, 0);
    drop(names);
    (with, HELD_BYTES.load(Ordering::Relaxed))
}

#[test]
fn a_million_realities_leave_nothing_behind() {
    // The feed, too, keeps what versions keep.
    let retention = Retention { count_max: 2, age_max: Duration::from_millis(1) };
    for durability in [Durability::Memory, Durability::Durable] {
        let backend = Arc::new(MemoryBackend::new());
        let store = Store::open(backend, StoreOptions { retention, ..StoreOptions::default() }).unwrap();
        let settings = RepoSettings { durability, ..RepoSettings::default() };
        let repo = store.create(&RepoName::new("a").unwrap(), settings, "tester").unwrap();
        let mut transaction = repo.begin("tester", Cause::Api);
        let tree = transaction.put(Kind::Tree, Vec::new().into()).unwrap();
        let commit = format!("tree {tree}\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n\nx\n");
        let target = transaction.put(Kind::Commit, commit.into_bytes().into()).unwrap();
        let name = RefName::branch("main").unwrap();
        transaction.edit(RefEdit { name, expected: Expected::Absent, target: Some(target) }).unwrap();
        transaction.prepare().unwrap().publish().unwrap().ticket.wait().unwrap();

        let mut after_first = 0;
        for number in 0..ROUNDS {
            let (with, _) = round(&repo, number);
            store.settle();
            let without = HELD_BYTES.load(Ordering::Relaxed);
            assert!(with > EACH * 50, "they take memory: {with} bytes");
            match number {
                0 => after_first = without,
                // The feed keeps the last publications in memory, whose changes are large here; they are the same number
                // of bytes from the second round on.
                1 => after_first = after_first.max(without),
                _ => {
                    let limit = after_first + after_first / 4 + (4 << 20);
                    assert!(without < limit, "{durability}, round {number}: {without} bytes after {after_first}");
                }
            }
        }
    }
}
