//! Time travel: every version by number and time, as it was, until its retention is over.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use govc_backends::{FaultBackend, Survivors};
use govc_engine::{
    At, Cause, Durability, ErrorKind, Expected, Family, Kind, Oid, Publication, RefName, Repo, Retention, Seq,
    Snapshot, Store, StoreOptions,
};

use crate::helper::{
    branch, crash, create, disk, edit, entries, kind, noise, options, publish, repo_name, set, set_durably,
};

type Refs = BTreeMap<RefName, Oid>;

/// A clock that stands still until it is told.
#[derive(Clone, Default)]
struct Clock(Arc<AtomicI64>);

impl Clock {
    fn set(&self, millis: i64) {
        self.0.store(millis, Ordering::Relaxed);
    }

    fn options(&self, retention: Retention) -> StoreOptions {
        let clock = self.clone();
        StoreOptions { clock: Arc::new(move || clock.0.load(Ordering::Relaxed)), retention, ..options() }
    }
}

fn refs(snapshot: &Snapshot) -> Refs {
    snapshot.references().map(|(name, oid)| (name.clone(), *oid)).collect()
}

/// Every version by number and time, and the list, against what was written down; version 1 stands at the front.
#[track_caller]
fn check(repo: &Repo, expected: &[(i64, Refs, RefName)]) {
    for (at, (time, wanted, head)) in expected.iter().enumerate() {
        let number = at as u64 + 1;
        let snapshot = repo.at(At::Version(number), None).unwrap();
        assert_eq!((snapshot.version().number, snapshot.version().time_millis), (number, *time));
        assert_eq!((&refs(&snapshot), snapshot.head()), (wanted, head), "version {number}");
        for oid in wanted.values() {
            assert!(snapshot.contains(oid).unwrap(), "version {number}");
        }
        let next = expected.get(at + 1).map_or(*time + 5, |next| next.0);
        for millis in [*time, next - 1] {
            assert_eq!(repo.at(At::Time(millis), None).unwrap().version().number, number, "at {millis}");
        }
    }
    let all = repo.versions(None, usize::MAX).unwrap();
    assert_eq!(all.len(), expected.len());
    for (found, number) in all.iter().zip((1..=expected.len()).rev()) {
        let after = &expected[number - 1];
        let none = (0, Refs::new(), after.2.clone());
        let before = if number == 1 { &none } else { &expected[number - 2] };
        assert_eq!((found.version, found.time_millis), (number as u64, after.0));
        let mut undone = after.1.clone();
        for change in found.changes.refs.iter() {
            assert_eq!(change.after, after.1.get(&change.name).copied());
            match change.before {
                Some(oid) => undone.insert(change.name.clone(), oid),
                None => undone.remove(&change.name),
            };
        }
        assert_eq!(undone, before.1, "version {number}");
        let heads = found.changes.head.as_ref().map_or((&after.2, &after.2), |head| (&head.before, &head.after));
        assert_eq!(heads, (&before.2, &after.2), "version {number}");
    }
    let mut paged: Vec<Publication> = Vec::new();
    loop {
        let page = repo.versions(paged.last().map(|last| last.version), 3).unwrap();
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(
        paged.iter().map(|found| (found.version, &found.changes)).collect::<Vec<_>>(),
        all.iter().map(|found| (found.version, &found.changes)).collect::<Vec<_>>()
    );
}

/// Makes `count` versions that set, move and delete a few references and sometimes `HEAD`.
fn write(repo: &Repo, clock: &Clock, count: usize, expected: &mut Vec<(i64, Refs, RefName)>) {
    for _ in 0..count {
        let at = expected.len();
        let time = 1000 + 10 * at as i64;
        clock.set(time);
        let (_, before, mut head) = expected.last().unwrap().clone();
        let mut after = before.clone();
        let name = branch(&format!("b{}", at % 5));
        if at % 7 == 6 && before.contains_key(&name) {
            let mut transaction = repo.begin("tester", Cause::Api);
            transaction.edit(edit(&name, Expected::Is(before[&name]), None)).unwrap();
            publish(transaction).unwrap().ticket.wait().unwrap();
            after.remove(&name);
        } else if at % 11 == 10 {
            let mut transaction = repo.begin("tester", Cause::Api);
            transaction.set_head(name.clone());
            publish(transaction).unwrap().ticket.wait().unwrap();
            head = name;
        } else {
            after.insert(name.clone(), set_durably(repo, &name, &at.to_string()).unwrap());
        }
        expected.push((time, after, head));
    }
}

#[test]
fn every_version_is_as_it_was() {
    let clock = Clock::default();
    let open = |backend: &Arc<FaultBackend>| Store::open(backend.clone(), clock.options(Retention::default())).unwrap();
    for durability in [Durability::Durable, Durability::Relaxed, Durability::Memory] {
        let backend = disk();
        clock.set(1000);
        let store = open(&backend);
        let repo = create(&store, "a", durability);
        let mut expected = vec![(1000, Refs::new(), branch("main"))];
        check(&repo, &expected);
        write(&repo, &clock, 30, &mut expected);
        check(&repo, &expected);
        store.settle();
        check(&repo, &expected);
        write(&repo, &clock, 30, &mut expected);
        check(&repo, &expected);
        let newest = expected.len() as u64;
        assert_eq!(kind(repo.at(At::Version(0), None)), ErrorKind::NotFound);
        assert_eq!(kind(repo.at(At::Version(newest + 1), None)), ErrorKind::NotFound);
        assert_eq!(kind(repo.at(At::Time(999), None)), ErrorKind::NotFound);
        assert_eq!(repo.at(At::Time(i64::MAX), None).unwrap().version().number, newest);
        if durability == Durability::Memory {
            continue;
        }
        if durability == Durability::Relaxed {
            store.close().unwrap();
        }
        let store = open(&crash(&backend, Survivors::Synced));
        let repo = store.repo(&repo_name("a")).unwrap();
        check(&repo, &expected);
        store.settle();
        write(&repo, &clock, 5, &mut expected);
        check(&repo, &expected);
    }
}

#[test]
fn an_old_version_can_be_read_only_until_the_deadline() {
    let backend = disk();
    let store = Store::open(backend, options()).unwrap();
    let repo = create(&store, "a", Durability::Durable);
    for at in 0..5 {
        set_durably(&repo, &branch("main"), &at.to_string()).unwrap();
    }
    store.settle();
    assert_eq!(kind(repo.at(At::Version(2), Some(Instant::now()))), ErrorKind::Cancelled);
    assert!(repo.at(At::Version(2), Some(Instant::now() + Duration::from_secs(60))).is_ok());
}

#[test]
fn what_is_beyond_the_count_is_gone() {
    for durability in [Durability::Durable, Durability::Memory] {
        let backend = disk();
        let retention = Retention { count_max: 10, ..Retention::default() };
        let store = Store::open(backend.clone(), Clock::default().options(retention)).unwrap();
        let repo = create(&store, "a", durability);
        for round in 0..3 {
            for at in 0..20 {
                set_durably(&repo, &branch("main"), &format!("{round} {at}")).unwrap();
            }
            let newest = repo.stats().version;
            for _ in 0..2 {
                assert_eq!(kind(repo.at(At::Version(newest - 11), None)), ErrorKind::Gone);
                assert_eq!(kind(repo.at(At::Version(1), None)), ErrorKind::Gone);
                assert!(repo.at(At::Version(newest - 10), None).is_ok());
                assert_eq!(repo.versions(None, 100).unwrap().len(), 11);
                assert!(repo.versions(Some(newest - 10), 100).unwrap().is_empty());
                store.settle();
            }
        }
        // One row for each version that stays.
        let rows = entries(&*backend, Family::History, b"v").len();
        assert_eq!(rows, if durability == Durability::Memory { 0 } else { 11 });
    }
}

#[test]
fn what_is_too_old_is_gone() {
    for durability in [Durability::Durable, Durability::Memory] {
        let (backend, clock) = (disk(), Clock::default());
        let retention = Retention { age_max: Duration::from_millis(500), ..Retention::default() };
        let store = Store::open(backend.clone(), clock.options(retention)).unwrap();
        let repo = create(&store, "a", durability);
        // Version n from time 100 (n - 1) on.
        for at in 1..=20 {
            clock.set(at * 100);
            set_durably(&repo, &branch("main"), &at.to_string()).unwrap();
        }
        for _ in 0..2 {
            // Version 16 was superseded at 1600, 15 at 1500: exactly as long ago as it may.
            assert!(repo.at(At::Version(15), None).is_ok());
            assert_eq!(kind(repo.at(At::Version(14), None)), ErrorKind::Gone);
            assert!(repo.at(At::Time(1450), None).is_ok());
            assert_eq!(kind(repo.at(At::Time(1399), None)), ErrorKind::Gone);
            assert_eq!(repo.versions(None, 100).unwrap().last().unwrap().version, 15);
            assert_eq!(repo.versions(Some(18), 100).unwrap().last().unwrap().version, 15);
            store.settle();
        }
        // The newest stays for ever.
        clock.set(1_000_000);
        assert_eq!(repo.at(At::Time(900_000), None).unwrap().version().number, 21);
        assert_eq!(repo.versions(None, 100).unwrap().len(), 1);
        set_durably(&repo, &branch("main"), "more").unwrap();
        store.settle();
        set_durably(&repo, &branch("main"), "and more").unwrap();
        store.settle();
        assert_eq!(repo.versions(None, 100).unwrap().len(), 3);
        if durability == Durability::Durable {
            assert!(entries(&*backend, Family::History, b"v").len() <= 3);
            let floor = store.feed_first();
            assert!(entries(&*backend, Family::History, b"f").len() <= 3, "the feed forgets as well");
            assert_eq!(store.feed_after(floor, 10).unwrap().last().unwrap().seq, store.feed_last());
            store.close().unwrap();
            let store = Store::open(crash(&backend, Survivors::Synced), clock.options(retention)).unwrap();
            assert_eq!(store.feed_first(), floor);
            assert_eq!(kind(store.feed_after(Seq(0), 10)), ErrorKind::Gone);
        }
    }
}

#[test]
fn a_restored_version_is_a_new_one() {
    for durability in [Durability::Durable, Durability::Memory] {
        let clock = Clock::default();
        clock.set(1000);
        let store = Store::open(disk(), clock.options(Retention::default())).unwrap();
        let repo = create(&store, "a", durability);
        let mut expected = vec![(1000, Refs::new(), branch("main"))];
        write(&repo, &clock, 40, &mut expected);
        for (round, wanted) in [3u64, 20, 39, 1].into_iter().enumerate() {
            if round == 2 {
                store.settle();
            }
            let published = repo.restore(wanted, "ada", None).unwrap();
            assert_eq!(published.version, expected.len() as u64 + 1);
            published.ticket.wait().unwrap();
            let (_, refs, head) = expected[wanted as usize - 1].clone();
            expected.push((clock.0.load(Ordering::Relaxed), refs, head));
            check_newest(&repo, expected.last().unwrap());
        }
        let newest = &repo.versions(None, 1).unwrap()[0];
        assert_eq!((&*newest.actor, newest.cause), ("ada", Cause::Restore));
        assert_eq!(kind(repo.restore(0, "ada", None)), ErrorKind::NotFound);
        assert_eq!(kind(repo.restore(1000, "ada", None)), ErrorKind::NotFound);
    }
}

#[track_caller]
fn check_newest(repo: &Repo, (_, wanted, head): &(i64, Refs, RefName)) {
    let snapshot = repo.snapshot();
    assert_eq!((&refs(&snapshot), snapshot.head()), (wanted, head));
}

#[test]
fn a_pinned_reader_sees_its_version_through_ten_thousand_publications() {
    for durability in [Durability::Durable, Durability::Relaxed, Durability::Memory] {
        let store = Store::open(disk(), options()).unwrap();
        let repo = create(&store, "a", durability);
        for at in 0..50 {
            set_durably(&repo, &branch(&format!("b{at}")), &at.to_string()).unwrap();
        }
        let pinned = repo.snapshot();
        let before = refs(&pinned);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let repo = &repo;
                scope.spawn(move || {
                    for at in 0..2500 {
                        let name = branch(&format!("b{}", (writer * 2500 + at) % 60));
                        let published = set(repo, &name, Expected::Any, &format!("{writer} {at}")).unwrap().1;
                        if at == 2499 {
                            published.ticket.wait().unwrap();
                        }
                    }
                });
            }
            for _ in 0..100 {
                assert_eq!(refs(&pinned), before);
            }
        });
        assert_eq!((refs(&pinned), pinned.version().number), (before.clone(), 51));
        assert_eq!(repo.snapshot().version().number, 10_051);
        assert_eq!(refs(&repo.at(At::Version(51), None).unwrap()), before);
        for oid in before.values() {
            assert!(pinned.commit(oid).is_ok());
        }
    }
}

/// History is what goes first when a memory repository needs room.
#[test]
fn the_history_of_a_memory_repository_makes_room() {
    let store = Store::open(disk(), StoreOptions { memory_budget_bytes: 16 << 20, ..options() }).unwrap();
    let repo = create(&store, "a", Durability::Memory);
    let target = set_durably(&repo, &branch("main"), "target").unwrap();
    let mut expected = Expected::Is(target);
    // Names of a kilobyte fill the budget with history alone.
    let name = branch(&"n".repeat(1000));
    for at in 0..12_000 {
        let after = (at % 2 == 0).then_some(target);
        let mut transaction = repo.begin("tester", Cause::Api);
        transaction.edit(edit(&name, if at == 0 { Expected::Absent } else { expected }, after)).unwrap();
        publish(transaction).unwrap();
        expected = after.map_or(Expected::Absent, Expected::Is);
    }
    let newest = repo.stats().version;
    assert_eq!(kind(repo.at(At::Version(10), None)), ErrorKind::Gone);
    assert!(repo.at(At::Version(newest - 1000), None).is_ok());
    assert!(store.stats().memory_repositories_bytes <= 8 << 20);
    store.delete(&repo_name("a")).unwrap();
    assert_eq!(store.stats().memory_repositories_bytes, 0);
}

/// What can never fit takes nothing with it.
#[test]
fn a_write_that_cannot_fit_leaves_the_history_of_a_memory_repository_alone() {
    const MIB: usize = 1 << 20;
    let store = Store::open(disk(), StoreOptions { memory_budget_bytes: 16 * MIB as u64, ..options() }).unwrap();
    let repo = create(&store, "a", Durability::Memory);
    for at in 0..100 {
        set_durably(&repo, &branch("main"), &format!("version {at}")).unwrap();
    }
    let put = |seed: u64, len: usize| {
        let mut transaction = repo.begin("tester", Cause::Api);
        transaction.put(Kind::Blob, noise(seed, len).into()).unwrap();
        publish(transaction).map(drop)
    };
    for seed in 0..5 {
        put(seed, 3 * MIB / 2).unwrap();
    }
    let held = store.stats().memory_repositories_bytes;
    assert_eq!(kind(put(5, 3 * MIB / 2)), ErrorKind::OutOfBudget);
    assert_eq!(store.stats().memory_repositories_bytes, held);
    for version in 1..=106 {
        assert!(repo.at(At::Version(version), None).is_ok(), "version {version}");
    }
}
