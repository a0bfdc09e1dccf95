//! Concurrent publication: nothing is lost, one writer wins, and readers see versions that never change.

use std::sync::{Arc, Barrier};

use govc_engine::{Cause, Durability, ErrorKind, Expected, Kind, Oid, RefName, Repo, Store};

use crate::helper::{
    FORMAT, Gate, branch, commit_bytes, create, disk, edit, kind, message, open, options, publish, set, set_durably,
};

const THREADS: usize = 8;

#[test]
fn writers_of_different_references_lose_nothing() {
    let store = open(&disk());
    let repo = create(&store, "a", Durability::Durable);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let repo = &repo;
            scope.spawn(move || {
                for at in 0..100 {
                    let name = branch(&format!("t{thread}/b{at}"));
                    let (_, published) = set(repo, &name, Expected::Absent, &format!("{thread} {at}")).unwrap();
                    published.ticket.wait().unwrap();
                    assert_eq!(message(repo, &name), Some(format!("{thread} {at}")), "an acknowledged write is seen");
                }
            });
        }
    });
    let stats = repo.stats();
    assert_eq!((stats.version, stats.references), (1 + 100 * THREADS as u64, 100 * THREADS));
    assert_eq!((store.stats().open_transactions, store.stats().conflicts_total), (0, 0));
}

#[test]
fn one_writer_wins_each_round() {
    let store = open(&disk());
    let repo = create(&store, "a", Durability::Durable);
    let main = branch("main");
    let mut expected = Expected::Absent;
    for round in 0..50 {
        let start = Barrier::new(THREADS);
        let winners: Vec<Oid> = std::thread::scope(|scope| {
            let write = |thread: usize| {
                start.wait();
                match set(&repo, &main, expected, &format!("{round} {thread}")) {
                    Ok((oid, published)) => published.ticket.wait().map(|()| Some(oid)).unwrap(),
                    Err(error) => {
                        assert!(
                            matches!(error.kind(), ErrorKind::Conflict(conflict) if conflict.name == "refs/heads/main")
                        );
                        None
                    }
                }
            };
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || write(thread))).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(repo.snapshot().reference(&main), Some(winners[0]));
        expected = Expected::Is(winners[0]);
    }
    assert_eq!(repo.stats().version, 51);
}

/// Adds one to the counter in the message of the newest commit, until nobody else does at the same time.
fn count_up(repo: &Repo, main: &RefName) {
    loop {
        let mut transaction = repo.begin("tester", Cause::Commit);
        let tip = transaction.tip();
        let head = tip.reference(main).unwrap();
        let counter: u64 = String::from_utf8(tip.commit(&head).unwrap().message).unwrap().parse().unwrap();
        let data = commit_bytes(FORMAT.empty_tree(), &[head], 1, &(counter + 1).to_string());
        let oid = transaction.put(Kind::Commit, data).unwrap();
        transaction.edit(edit(main, Expected::Is(head), Some(oid))).unwrap();
        match publish(transaction) {
            Ok(published) => return published.ticket.wait().unwrap(),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Conflict(_)), "{error}"),
        }
    }
}

#[test]
fn no_update_of_a_counter_is_lost() {
    for durability in [Durability::Durable, Durability::Relaxed, Durability::Memory] {
        let store = open(&disk());
        let (repo, main) = (create(&store, "a", durability), branch("main"));
        set_durably(&repo, &main, "0").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..50).for_each(|_| count_up(&repo, &main)));
            }
        });
        let snapshot = repo.snapshot();
        let mut at = snapshot.reference(&main);
        let mut expected = 50 * THREADS as u64;
        while let Some(oid) = at {
            let commit = snapshot.commit(&oid).unwrap();
            assert_eq!(commit.message, expected.to_string().into_bytes(), "{durability}");
            expected = expected.wrapping_sub(1);
            at = commit.parents.first().copied();
        }
        assert_eq!(expected, u64::MAX, "{durability}: the chain reaches the beginning");
    }
}

#[test]
fn a_snapshot_never_changes() {
    let store = open(&disk());
    let (repo, main) = (create(&store, "a", Durability::Durable), branch("main"));
    let first = set_durably(&repo, &main, "first").unwrap();
    let pinned = repo.snapshot();
    for at in 0..9999 {
        set(&repo, &main, Expected::Any, &at.to_string()).unwrap();
    }
    set_durably(&repo, &main, "last").unwrap();
    set_durably(&repo, &branch("other"), "x").unwrap();
    store.settle();
    assert_eq!((pinned.version().number, pinned.reference_count()), (2, 1));
    assert_eq!(pinned.references().collect::<Vec<_>>(), [(&main, &first)]);
    assert_eq!(pinned.commit(&first).unwrap().message, b"first");
    assert_eq!(repo.stats().version, 10_003);
}

#[test]
fn readers_see_nothing_before_it_is_durable() {
    let gate = Arc::new(Gate::new());
    let store = Store::open(gate.clone(), options()).unwrap();
    let (repo, main) = (create(&store, "a", Durability::Durable), branch("main"));
    let shut = gate.shut();
    let (oid, published) = set(&repo, &main, Expected::Absent, "text").unwrap();
    let (snapshot, hex) = (repo.snapshot(), oid.to_string());
    let absent = |snapshot: &govc_engine::Snapshot| {
        assert_eq!(snapshot.reference(&main), None);
        assert_eq!(snapshot.try_object(&oid).unwrap(), None);
        assert_eq!(snapshot.header(&oid).unwrap(), None);
        assert_eq!(kind(snapshot.resolve(&hex[..12])), ErrorKind::NotFound);
        assert_eq!(kind(snapshot.resolve(&hex)), ErrorKind::NotFound);
    };
    absent(&snapshot);
    absent(&repo.snapshot());
    let transaction = repo.begin("tester", Cause::Api);
    assert_eq!(transaction.tip().reference(&main), Some(oid), "writers build on what is coming");
    assert_eq!(transaction.object(&oid).unwrap().kind, Kind::Commit);
    drop(shut);
    published.ticket.wait().unwrap();
    assert_eq!(repo.snapshot().resolve("main").unwrap(), oid);
    assert_eq!(snapshot.reference(&main), None, "an old snapshot keeps its references");
}

#[test]
fn references_need_objects_and_branches_need_commits() {
    let store = open(&disk());
    let repo = create(&store, "a", Durability::Durable);
    let missing = Oid::from_bytes(&[7; FORMAT.len()]).unwrap();
    let mut transaction = repo.begin("tester", Cause::Push);
    transaction.edit(edit(&branch("main"), Expected::Any, Some(missing))).unwrap();
    assert_eq!(kind(transaction.prepare()), ErrorKind::NotFound);
    let mut transaction = repo.begin("tester", Cause::Push);
    let blob = transaction.put(Kind::Blob, "text".into()).unwrap();
    transaction.edit(edit(&branch("main"), Expected::Any, Some(blob))).unwrap();
    assert_eq!(kind(transaction.edit(edit(&branch("main"), Expected::Any, None))), ErrorKind::Invalid);
    assert_eq!(kind(transaction.prepare()), ErrorKind::Invalid);
    assert_eq!((repo.stats().version, store.stats().open_transactions), (1, 0));
    assert!(!repo.snapshot().contains(&blob).unwrap());
}
