//! Forks: what they begin with, what they do and do not share, what stays when a source goes, in every life of a disk.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use govc_backends::{FaultBackend, Survivors};
use govc_engine::{
    At, Cause, Durability, ErrorKind, Expected, Family, Kind, Oid, OidPrefix, RefName, Repo, Retention, Store,
    StoreOptions,
};

use crate::helper::{
    FORMAT, branch, commit_bytes, crash, create, disk, edit, entries, kind, message, noise, open, options, publish,
    repo_name, set, set_durably,
};

fn fork(store: &Store, source: &str, name: &str) -> Repo {
    store.fork(&repo_name(source), &repo_name(name), "forker").unwrap()
}

fn refs(repo: &Repo) -> BTreeMap<RefName, Oid> {
    repo.snapshot().references().map(|(name, oid)| (name.clone(), *oid)).collect()
}

fn reopen(disk: &FaultBackend, survivors: Survivors) -> (Arc<FaultBackend>, Store) {
    let disk = crash(disk, survivors);
    let store = open(&disk);
    (disk, store)
}

/// Publishes a blob in a segment, reachable from nothing.
fn put_in_segment(repo: &Repo, data: &[u8]) -> Oid {
    let oid = govc_engine::hash_object(FORMAT, Kind::Blob, data).unwrap();
    let ingest = repo.ingest();
    let mut lane = ingest.lane();
    lane.add(oid, Kind::Blob, data.len() as u64, govc_engine::block::Base::Whole, data).unwrap();
    lane.finish().unwrap();
    let mut transaction = repo.begin("tester", Cause::Push);
    transaction.attach(ingest.finish().unwrap()).unwrap();
    let tag = RefName::new(format!("refs/tags/{oid}")).unwrap();
    transaction.edit(edit(&tag, Expected::Absent, Some(oid))).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    oid
}

fn put_in_journal(repo: &Repo, data: &[u8]) -> Oid {
    let mut transaction = repo.begin("tester", Cause::Push);
    let oid = transaction.put(Kind::Blob, data.to_vec().into()).unwrap();
    let tag = RefName::new(format!("refs/tags/{oid}-{}", repo.snapshot().version().number)).unwrap();
    transaction.edit(edit(&tag, Expected::Absent, Some(oid))).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    oid
}

const DURABILITIES: [Durability; 3] = [Durability::Memory, Durability::Relaxed, Durability::Durable];

#[test]
fn a_fork_begins_with_what_its_source_holds_and_goes_its_own_way() {
    for durability in DURABILITIES {
        let store = open(&disk());
        let source = create(&store, "source", durability);
        let (main, other) = (branch("main"), branch("other"));
        set_durably(&source, &main, "one").unwrap();
        set_durably(&source, &other, "two").unwrap();
        let made = fork(&store, "source", "team/fork");
        assert_eq!(refs(&made), refs(&source), "{durability}");
        assert_eq!(message(&made, &main).unwrap(), "one");
        let version = made.snapshot().version().clone();
        assert_eq!((version.number, version.cause, &*version.actor), (1, Cause::Fork, "forker"));
        assert_eq!(made.settings(), source.settings());
        assert_eq!(made.forked_from(), Some(repo_name("source")));
        assert_eq!((source.fork_count(), made.fork_count()), (1, 0));

        set_durably(&source, &main, "of the source").unwrap();
        set_durably(&made, &main, "of the fork").unwrap();
        let mut transaction = made.begin("tester", Cause::Api);
        transaction.edit(edit(&other, Expected::Any, None)).unwrap();
        publish(transaction).unwrap().ticket.wait().unwrap();
        assert_eq!(message(&source, &main).unwrap(), "of the source");
        assert_eq!(message(&made, &main).unwrap(), "of the fork");
        assert_eq!((message(&source, &other).unwrap().as_str(), message(&made, &other)), ("two", None));
        let first = made.at(At::Version(1), None).unwrap();
        assert!(first.reference(&other).is_some());
        assert_eq!(kind(made.at(At::Version(4), None)), ErrorKind::NotFound);
    }
}

#[test]
fn objects_are_readable_only_where_they_are() {
    for durability in DURABILITIES {
        for put in [put_in_segment, put_in_journal] {
            let store = open(&disk());
            let source = create(&store, "source", durability);
            let before = put(&source, b"before the fork");
            let made = fork(&store, "source", "fork");
            let again = fork(&store, "fork", "again");
            let (after, own) = (put(&source, b"after the fork"), put(&made, b"of the fork"));
            for settle in [false, true] {
                if settle {
                    store.settle();
                }
                for (repo, has) in [
                    (&source, [(before, true), (after, true), (own, false)]),
                    (&made, [(before, true), (after, false), (own, true)]),
                    (&again, [(before, true), (after, false), (own, false)]),
                ] {
                    let snapshot = repo.snapshot();
                    for (oid, has) in has {
                        let what = format!("{oid} through {repo:?}, {durability}, settled: {settle}");
                        assert_eq!(snapshot.try_object(&oid).unwrap().is_some(), has, "{what}");
                        assert_eq!(snapshot.contains(&oid).unwrap(), has, "{what}");
                        assert_eq!(snapshot.kind_to_build_on(&oid).unwrap().is_some(), has, "{what}");
                        let prefix = OidPrefix::parse(&oid.to_string()[..12]).unwrap();
                        assert_eq!(snapshot.ids_with_prefix(&prefix, 10).unwrap().contains(&oid), has, "{what}");
                        let place = snapshot.locate(&[before, oid]).unwrap()[1];
                        if let Some(place) = place {
                            assert!(has, "{what}");
                            assert_eq!(snapshot.record(place).unwrap().kind, Kind::Blob);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn nothing_can_be_built_on_what_only_a_relative_has() {
    let store = open(&disk());
    let source = create(&store, "source", Durability::Durable);
    let made = fork(&store, "source", "fork");
    let (secret, _) = set(&source, &branch("main"), Expected::Any, "a secret").unwrap();
    let mut transaction = made.begin("tester", Cause::Api);
    transaction.edit(edit(&branch("main"), Expected::Any, Some(secret))).unwrap();
    assert_eq!(kind(transaction.prepare()), ErrorKind::NotFound);
}

/// What a later version of the source brings again stays visible to a fork that has it from the earlier one.
#[test]
fn an_object_that_comes_again_keeps_its_first_version() {
    let puts = [put_in_segment, put_in_journal];
    for (first, second) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for settle in [false, true] {
            for durability in DURABILITIES {
                let disk = disk();
                let store = open(&disk);
                let source = create(&store, "source", durability);
                // So that rows say since when.
                let early = fork(&store, "source", "early");
                let data = noise(7, 3000);
                let oid = puts[first](&source, &data);
                let late = fork(&store, "source", "late");
                if settle {
                    store.settle();
                }
                let mut transaction = source.begin("tester", Cause::Api);
                let tag = RefName::new(format!("refs/tags/{oid}")).unwrap();
                transaction.edit(edit(&tag, Expected::Any, None)).unwrap();
                publish(transaction).unwrap().ticket.wait().unwrap();
                puts[second](&source, &data);
                let check = |source: &Repo, early: &Repo, late: &Repo| {
                    let what = format!("{durability}, {first}, {second}, settled: {settle}");
                    assert_eq!(source.snapshot().object(&oid).unwrap().data, data, "{what}");
                    assert_eq!(late.snapshot().object(&oid).unwrap().data, data, "{what}");
                    assert!(!early.snapshot().contains(&oid).unwrap(), "{what}");
                };
                check(&source, &early, &late);
                store.settle();
                check(&source, &early, &late);
                if durability != Durability::Memory {
                    store.close().unwrap();
                    let (_disk, store) = reopen(&disk, Survivors::Synced);
                    let repo = |name| store.repo(&repo_name(name)).unwrap();
                    check(&repo("source"), &repo("early"), &repo("late"));
                }
            }
        }
    }
}

#[test]
fn forks_come_back_after_a_crash_whatever_was_settled() {
    for settle_at in 0..6 {
        let disk = disk();
        let store = open(&disk);
        let (main, other) = (branch("main"), branch("other"));
        let steps = |step: usize, store: &Store| {
            let repo = |name| store.repo(&repo_name(name)).unwrap();
            match step {
                0 => drop(create(store, "source", Durability::Durable)),
                1 => drop(set_durably(&repo("source"), &main, "one").unwrap()),
                2 => drop((set_durably(&repo("source"), &other, "gone soon").unwrap(), fork(store, "source", "fork"))),
                3 => {
                    let mut transaction = repo("fork").begin("tester", Cause::Api);
                    transaction.edit(edit(&other, Expected::Any, None)).unwrap();
                    publish(transaction).unwrap().ticket.wait().unwrap();
                    set_durably(&repo("source"), &main, "two").unwrap();
                }
                4 => drop(fork(store, "fork", "grandchild")),
                _ => drop(set_durably(&repo("fork"), &main, "own").unwrap()),
            }
        };
        for step in 0..6 {
            steps(step, &store);
            if step == settle_at {
                store.settle();
            }
        }
        let (disk, store) = reopen(&disk, Survivors::Synced);
        let check = |store: &Store| {
            let heads = |name| {
                let repo = store.repo(&repo_name(name)).unwrap();
                [&main, &other].map(|name| message(&repo, name).unwrap_or_default())
            };
            assert_eq!(heads("source"), ["two", "gone soon"], "settled at {settle_at}");
            assert_eq!(heads("fork"), ["own", ""], "settled at {settle_at}");
            assert_eq!(heads("grandchild"), ["one", ""], "settled at {settle_at}");
            assert_eq!(store.repo(&repo_name("source")).unwrap().fork_count(), 1);
            assert_eq!(store.repo(&repo_name("fork")).unwrap().forked_from(), Some(repo_name("source")));
        };
        check(&store);
        store.settle();
        check(&store);
        store.close().unwrap();
        check(&reopen(&disk, Survivors::Synced).1);
    }
}

#[test]
fn a_fork_costs_the_same_whatever_its_source_holds() {
    let mut rows = Vec::new();
    for count in [1, 2000] {
        let disk = disk();
        let store = open(&disk);
        let source = create(&store, "source", Durability::Durable);
        let mut transaction = source.begin("tester", Cause::Api);
        for at in 0..count {
            let oid = transaction.put(Kind::Commit, commit_bytes(FORMAT.empty_tree(), &[], at, "many")).unwrap();
            transaction.edit(edit(&branch(&format!("b{at:05}")), Expected::Absent, Some(oid))).unwrap();
        }
        publish(transaction).unwrap().ticket.wait().unwrap();
        store.settle();
        let stored = |disk: &FaultBackend| -> usize {
            let families = [Family::Catalog, Family::Refs, Family::History, Family::Ids, Family::Blocks];
            let rows = families.iter().flat_map(|family| entries(disk, *family, b""));
            rows.map(|(key, value)| key.len() + value.len()).sum()
        };
        let before = stored(&disk);
        let made = fork(&store, "source", "fork");
        assert_eq!(made.snapshot().reference_count(), count as usize);
        store.settle();
        rows.push(stored(&disk) - before);
    }
    assert!(rows[0] == rows[1] && rows[0] < 300, "bytes of a fork of 1 and of 2000 references: {rows:?}");
}

/// Everything of a source stays while it has a fork, and goes with the last, whenever its deletion was settled.
#[test]
fn a_fork_survives_its_source() {
    for durability in [Durability::Relaxed, Durability::Durable] {
        for settle in [false, true] {
            let disk = disk();
            let store = open(&disk);
            let source = create(&store, "source", durability);
            let main = branch("main");
            set_durably(&source, &main, "one").unwrap();
            let kept = put_in_segment(&source, &noise(1, 5000));
            fork(&store, "source", "fork");
            fork(&store, "fork", "grandchild");
            let sweep = |store: &Store| {
                if settle {
                    store.settle();
                }
            };
            sweep(&store);
            store.delete(&repo_name("source")).unwrap();
            sweep(&store);
            store.delete(&repo_name("fork")).unwrap();
            sweep(&store);
            let check = |store: &Store| {
                let names: Vec<_> = store.list(None, 9).iter().map(|repo| repo.name()).collect();
                assert_eq!(names, [repo_name("grandchild")]);
                let repo = store.repo(&repo_name("grandchild")).unwrap();
                assert_eq!(message(&repo, &main).unwrap(), "one", "{durability}, settled: {settle}");
                assert_eq!(repo.snapshot().object(&kept).unwrap().data.len(), 5000);
                assert_eq!(repo.forked_from(), None);
            };
            check(&store);
            // Its name is free.
            let other = create(&store, "source", durability);
            assert_eq!(message(&other, &main), None);
            store.delete(&repo_name("source")).unwrap();
            store.close().unwrap();
            let (disk, store) = reopen(&disk, Survivors::Synced);
            check(&store);
            store.delete(&repo_name("grandchild")).unwrap();
            store.settle();
            for family in [Family::Catalog, Family::Refs, Family::Ids, Family::Blocks] {
                assert_eq!(entries(&*disk, family, b"").len(), 0, "{family:?}, {durability}, settled: {settle}");
            }
            assert_eq!(entries(&*disk, Family::History, b"v").len(), 0);
        }
    }
}

#[test]
fn memory_is_given_back_with_the_last_fork() {
    let store = open(&disk());
    let source = create(&store, "source", Durability::Memory);
    set_durably(&source, &branch("main"), "one").unwrap();
    let kept = put_in_segment(&source, &noise(1, 1 << 20));
    for at in 0..10 {
        fork(&store, "source", &format!("fork{at}"));
    }
    let chain = fork(&store, "fork3", "chain");
    store.delete(&repo_name("source")).unwrap();
    for at in 0..10 {
        let name = repo_name(&format!("fork{at}"));
        assert_eq!(store.repo(&name).unwrap().snapshot().object(&kept).unwrap().data.len(), 1 << 20);
        store.delete(&name).unwrap();
    }
    assert_eq!(chain.snapshot().object(&kept).unwrap().data.len(), 1 << 20);
    assert!(store.stats().memory_repositories_bytes > 1 << 20);
    store.delete(&repo_name("chain")).unwrap();
    assert_eq!(store.stats().memory_repositories_bytes, 0);
}

/// Where versions are forgotten, forks get references of their own first, and the history goes.
#[test]
fn the_history_goes_when_forks_have_parted() {
    for reopened in [false, true] {
        parting(reopened);
    }
}

fn parting(reopened: bool) {
    let disk = disk();
    let retention = Retention { count_max: 5, age_max: Duration::from_secs(3600) };
    let begin = |disk: &Arc<FaultBackend>| Store::open(disk.clone(), StoreOptions { retention, ..options() }).unwrap();
    let store = begin(&disk);
    let source = create(&store, "source", Durability::Durable);
    let (main, other) = (branch("main"), branch("other"));
    set_durably(&source, &main, "one").unwrap();
    set_durably(&source, &other, "two").unwrap();
    let made = fork(&store, "source", "fork");
    fork(&store, "fork", "grandchild");
    let mut transaction = made.begin("tester", Cause::Api);
    transaction.edit(edit(&other, Expected::Any, None)).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    store.delete(&repo_name("fork")).unwrap();
    // Nobody holds the deleted fork but those who must.
    drop((made, source));
    let (disk, store) = match reopened {
        true => {
            let disk = crash(&disk, Survivors::Synced);
            let store = begin(&disk);
            (disk, store)
        }
        false => (disk, store),
    };
    let source = store.repo(&repo_name("source")).unwrap();
    for at in 0..20 {
        set_durably(&source, &main, &format!("later {at}")).unwrap();
        store.settle();
    }
    let versions = entries(&*disk, Family::History, &[&b"v"[..], &source.id().as_u64().to_be_bytes()].concat());
    assert!(versions.len() <= 7, "{} rows of versions", versions.len());
    store.close().unwrap();
    let (_disk, store) = reopen(&disk, Survivors::Synced);
    let grandchild = store.repo(&repo_name("grandchild")).unwrap();
    assert_eq!(message(&grandchild, &main).unwrap(), "one");
    assert_eq!(message(&grandchild, &other).unwrap(), "two");
}

#[test]
fn bad_forks_are_refused_and_leave_nothing() {
    let disk = disk();
    let store = open(&disk);
    let source = create(&store, "source", Durability::Durable);
    create(&store, "taken", Durability::Durable);
    let fork = |source: &str, name: &str| store.fork(&repo_name(source), &repo_name(name), "forker");
    assert_eq!(kind(fork("absent", "new")), ErrorKind::NotFound);
    assert_eq!(kind(fork("source", "taken")), ErrorKind::Exists);
    assert_eq!(kind(fork("source", "source")), ErrorKind::Exists);
    disk.set_full(true);
    assert_eq!(kind(fork("source", "new")), ErrorKind::StorageFull);
    disk.set_full(false);
    assert_eq!(source.fork_count(), 0);
    set_durably(&source, &branch("main"), "room again").unwrap();
    fork("source", "new").unwrap();
    assert_eq!(source.fork_count(), 1);
    store.close().unwrap();
    assert_eq!(kind(fork("source", "late")), ErrorKind::Closed);
}

#[test]
fn forks_are_counted_and_as_deep_as_is_sensible() {
    for durability in DURABILITIES {
        let store = open(&disk());
        let source = create(&store, "f0", durability);
        set_durably(&source, &branch("main"), "one").unwrap();
        for depth in 1..=64 {
            fork(&store, &format!("f{}", depth - 1), &format!("f{depth}"));
        }
        let last = store.repo(&repo_name("f64")).unwrap();
        assert_eq!(message(&last, &branch("main")).unwrap(), "one");
        let deeper = store.fork(&repo_name("f64"), &repo_name("f65"), "forker");
        assert_eq!(kind(deeper), ErrorKind::LimitExceeded);
        fork(&store, "f0", "other");
        assert_eq!((source.fork_count(), last.fork_count()), (2, 0));
        store.delete(&repo_name("f1")).unwrap();
        assert_eq!(source.fork_count(), 1, "a deleted fork is none, though its own forks need it");
        store.delete(&repo_name("other")).unwrap();
        assert_eq!(source.fork_count(), 0);
        assert_eq!(message(&last, &branch("main")).unwrap(), "one");
    }
}

#[test]
fn ten_thousand_forks_of_one_repository_are_ordinary() {
    let store = open(&disk());
    let source = create(&store, "source", Durability::Memory);
    set_durably(&source, &branch("main"), "one").unwrap();
    let forks: Vec<Repo> = (0..10_000).map(|at| fork(&store, "source", &format!("f{at}"))).collect();
    assert_eq!((store.repo_count(), source.fork_count()), (10_001, 10_000));
    for (at, repo) in forks.iter().enumerate().step_by(997) {
        set_durably(repo, &branch("own"), &format!("of {at}")).unwrap();
        assert_eq!(message(repo, &branch("own")).unwrap(), format!("of {at}"));
        assert_eq!(message(repo, &branch("main")).unwrap(), "one");
    }
    assert_eq!(message(&source, &branch("own")), None);
}

/// Forks, commits and deletions at once: every fork that was acknowledged holds a version that its source had.
#[test]
fn forks_race_with_writers_and_deletion() {
    for durability in DURABILITIES {
        let disk = disk();
        let store = open(&disk);
        let source = create(&store, "source", durability);
        let main = branch("main");
        set_durably(&source, &main, "0").unwrap();
        let made = std::thread::scope(|scope| {
            let writer =
                scope.spawn(|| (1..400).take_while(|at| set_durably(&source, &main, &at.to_string()).is_ok()).count());
            let forkers: Vec<_> = (0..2)
                .map(|thread| {
                    let store = &store;
                    scope.spawn(move || {
                        let name = |at| repo_name(&format!("f{thread}-{at}"));
                        let fork = |at| store.fork(&repo_name("source"), &name(at), "forker").map(|_| name(at));
                        (0..60).map(fork).take_while(Result::is_ok).flatten().collect::<Vec<_>>()
                    })
                })
                .collect();
            while store.repo_count() < 60 {
                std::thread::yield_now();
            }
            store.delete(&repo_name("source")).unwrap();
            assert!(writer.join().unwrap() < 1000);
            forkers.into_iter().flat_map(|forker| forker.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(made.len() >= 59);
        let check = |store: &Store| {
            for name in &made {
                let number: u32 = message(&store.repo(name).unwrap(), &main).unwrap().parse().unwrap();
                assert!(number < 400);
            }
        };
        check(&store);
        if durability != Durability::Memory {
            store.close().unwrap();
            let (_disk, store) = reopen(&disk, Survivors::Synced);
            check(&store);
        }
    }
}
