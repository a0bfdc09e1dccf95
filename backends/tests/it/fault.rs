//! The fault wrapper does what its script says: tests elsewhere rely on it.

use std::time::{Duration, Instant};

use govc_backends::{FaultBackend, FaultPlan, Survivors};
use govc_engine::backend::{Backend, BackendErrorKind, Batch, Family, Scan, Sync};

use crate::{get, put};

fn write(backend: &FaultBackend, key: &[u8], sync: Sync) -> Result<(), BackendErrorKind> {
    backend.write(put(key, key), sync).map_err(|error| error.kind)
}

#[test]
fn the_nth_write_fails_and_leaves_nothing() {
    let backend = FaultBackend::new(FaultPlan::none().fail_write(2));
    assert_eq!(write(&backend, b"a", Sync::No), Ok(()));
    assert_eq!(write(&backend, b"b", Sync::No), Err(BackendErrorKind::Failed));
    assert_eq!(write(&backend, b"c", Sync::No), Ok(()));
    assert_eq!((get(&backend, b"a").is_some(), get(&backend, b"b"), get(&backend, b"c").is_some()), (true, None, true));
    assert_eq!((backend.writes(), backend.syncs(), backend.unsynced()), (3, 0, 2));

    backend.fail_next_write();
    assert_eq!(write(&backend, b"d", Sync::No), Err(BackendErrorKind::Failed));
    assert_eq!(write(&backend, b"d", Sync::No), Ok(()), "only one write fails");
}

#[test]
fn the_next_sync_fails_when_told() {
    let backend = FaultBackend::new(FaultPlan::none());
    assert_eq!(write(&backend, b"a", Sync::Yes), Ok(()));
    backend.fail_next_sync();
    assert_eq!(backend.sync().map_err(|error| error.kind), Err(BackendErrorKind::Failed));
    assert_eq!(backend.syncs(), 2);
}

#[test]
fn a_full_disk_refuses_until_there_is_room() {
    let backend = FaultBackend::new(FaultPlan::none());
    assert_eq!(write(&backend, b"a", Sync::Yes), Ok(()));
    backend.set_full(true);
    assert_eq!(write(&backend, b"b", Sync::Yes), Err(BackendErrorKind::Full));
    assert_eq!((get(&backend, b"a").is_some(), get(&backend, b"b")), (true, None));
    backend.set_full(false);
    assert_eq!(write(&backend, b"b", Sync::Yes), Ok(()));
    assert_eq!(backend.writes(), 2, "a refused write is not counted");
}

#[test]
fn a_crash_keeps_what_was_synced_and_the_wanted_prefix() {
    for (survivors, kept) in [
        (Survivors::Synced, vec!["a", "b"]),
        (Survivors::First(1), vec!["a", "b", "c"]),
        (Survivors::First(9), vec!["a", "b", "c", "d"]),
        (Survivors::All, vec!["a", "b", "c", "d"]),
    ] {
        let backend = FaultBackend::new(FaultPlan::none());
        for (key, sync) in [("a", Sync::No), ("b", Sync::Yes), ("c", Sync::No), ("d", Sync::No)] {
            assert_eq!(write(&backend, key.as_bytes(), sync), Ok(()));
        }
        let disk = backend.crash(survivors).expect("crash");
        let left: Vec<_> =
            ["a", "b", "c", "d"].into_iter().filter(|key| get(&disk, key.as_bytes()).is_some()).collect();
        assert_eq!(left, kept, "{survivors:?}");
        assert_eq!(write(&backend, b"e", Sync::No), Err(BackendErrorKind::Closed), "the old life is over");
        assert_eq!(backend.get(Family::Refs, b"a").map_err(|error| error.kind), Err(BackendErrorKind::Closed));
    }
}

#[test]
fn drawn_survivors_are_reproducible_and_vary() {
    let survivors = |seed: u64| {
        let backend = FaultBackend::new(FaultPlan::none());
        for key in 0..20_u8 {
            assert_eq!(write(&backend, &[key], Sync::No), Ok(()));
        }
        let disk = backend.crash(Survivors::Drawn(seed)).expect("crash");
        (0..20_u8).filter(|key| get(&disk, &[*key]).is_some()).count()
    };
    let first: Vec<usize> = (0..20).map(survivors).collect();
    let again: Vec<usize> = (0..20).map(survivors).collect();
    assert_eq!(first, again);
    assert!(first.iter().any(|count| *count != first[0]), "{first:?}");
}

#[test]
fn after_a_failed_sync_nothing_becomes_durable() {
    let backend = FaultBackend::new(FaultPlan::none().fail_sync(2));
    assert_eq!(write(&backend, b"a", Sync::Yes), Ok(()));
    assert_eq!(write(&backend, b"b", Sync::Yes), Err(BackendErrorKind::Failed));
    assert!(get(&backend, b"b").is_some(), "its batch is visible");
    assert_eq!(write(&backend, b"c", Sync::Yes), Ok(()), "a later sync claims to succeed");
    let disk = backend.crash(Survivors::Synced).expect("crash");
    assert_eq!((get(&disk, b"a").is_some(), get(&disk, b"b"), get(&disk, b"c")), (true, None, None));
}

#[test]
fn a_seeded_plan_fails_the_same_writes_each_time() {
    let failures = |seed: u64| -> Vec<u64> {
        let backend = FaultBackend::new(FaultPlan::seeded(seed, 200));
        (1..=100).filter(|_| write(&backend, b"a", Sync::No).is_err()).collect()
    };
    assert_eq!(failures(7), failures(7));
    assert_ne!(failures(7), failures(8));
    assert!((5..50).contains(&failures(7).len()), "about a fifth: {:?}", failures(7));
}

#[test]
fn a_torn_write_leaves_its_first_operations_and_fails() {
    let left = |nth: u64| {
        let backend = FaultBackend::new(FaultPlan::none().tear_write(nth));
        for write in 1..=nth {
            let mut batch = Batch::new();
            (0..10_u8).for_each(|key| batch.put(Family::Refs, vec![key], write.to_be_bytes().to_vec()));
            let result = backend.write(batch, Sync::Yes).map_err(|error| error.kind);
            assert_eq!(result, if write == nth { Err(BackendErrorKind::Failed) } else { Ok(()) });
        }
        let disk = backend.crash(Survivors::All).expect("crash");
        let entries = disk.scan(Family::Refs, Scan::all()).expect("scan").map(|entry| entry.expect("entry").1);
        let own: Vec<bool> = entries.map(|value| value[..] == nth.to_be_bytes()).collect();
        assert!(own.is_sorted_by(|a, b| a >= b), "the first operations, not others: {own:?}");
        own.into_iter().filter(|own| *own).count()
    };
    let counts: Vec<usize> = (1..=20).map(left).collect();
    assert!(counts.iter().any(|count| (1..10).contains(count)), "{counts:?}");
    assert!(counts.iter().any(|count| *count != counts[0]), "{counts:?}");

    let torn = |seed: u64| -> Vec<u64> {
        let backend = FaultBackend::new(FaultPlan::none().tear_seeded(seed, 200));
        (1..=100).filter(|_| write(&backend, b"a", Sync::No).is_err()).collect()
    };
    assert_eq!(torn(7), torn(7));
    assert_ne!(torn(7), torn(8));
}

#[test]
fn a_slow_disk_is_slow() {
    let delay = Duration::from_millis(30);
    let backend = FaultBackend::new(FaultPlan::none().delay_seeded(1, 1000, delay));
    let begin = Instant::now();
    assert_eq!(write(&backend, b"a", Sync::Yes), Ok(()));
    assert!(begin.elapsed() >= 2 * delay, "a write and a sync");
}
