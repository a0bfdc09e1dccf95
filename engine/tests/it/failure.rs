//! Full disks, failed syncs, memory that runs out: who is told, what stays, and how it goes on.

use std::{sync::Arc, time::Duration};

use govc_backends::Survivors;
use govc_engine::{Cause, Durability, ErrorKind, Expected, Health, Kind, RefName, Store, StoreOptions};

use crate::helper::{
    Gate, branch, crash, create, disk, edit, eventually, kind, message, noise, open, options, publish, repo_name, set,
    set_durably, settings,
};

#[test]
fn a_full_disk_fails_what_waits_and_nothing_else() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    let main = branch("main");
    let first = set_durably(&repo, &main, "first").unwrap();

    backend.set_full(true);
    let (lost, one) = set(&repo, &main, Expected::Is(first), "lost").unwrap();
    assert_eq!(kind(one.ticket.wait()), ErrorKind::StorageFull);
    assert!(matches!(store.health(), Health::Full(_)));
    assert_eq!(message(&repo, &main).as_deref(), Some("first"), "reads go on");
    assert!(!repo.snapshot().contains(&lost).unwrap());
    assert_eq!(kind(store.create(&repo_name("b"), settings(), "tester")), ErrorKind::StorageFull);
    assert_eq!(kind(store.delete(&repo_name("a"))), ErrorKind::StorageFull);
    assert!(!repo.is_deleted());

    backend.set_full(false);
    let (_, second) = set(&repo, &main, Expected::Is(first), "second").unwrap();
    assert_eq!(second.version, 3, "the number of the lost version is given again");
    second.ticket.wait().unwrap();
    assert_eq!(store.health(), Health::Ok);
    drop(store);
    let store = open(&crash(&backend, Survivors::Synced));
    assert_eq!(message(&store.repo(&repo_name("a")).unwrap(), &main).as_deref(), Some("second"));
}

#[test]
fn what_was_built_on_a_lost_write_is_lost_too() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    backend.set_full(true);
    let tickets: Vec<_> =
        (0..50).filter_map(|at| set(&repo, &branch(&format!("b{at}")), Expected::Absent, "lost").ok()).collect();
    for (_, published) in tickets {
        assert_eq!(kind(published.ticket.wait()), ErrorKind::StorageFull);
    }
    assert_eq!((repo.stats().version, repo.stats().references), (1, 0));
    backend.set_full(false);
    set_durably(&repo, &branch("b0"), "kept").unwrap();
    assert_eq!((repo.stats().version, repo.stats().references), (2, 1));
}

#[test]
fn a_failed_sync_leaves_the_store_read_only() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    let main = branch("main");
    set_durably(&repo, &main, "first").unwrap();
    backend.fail_next_sync();
    assert_eq!(kind(set_durably(&repo, &main, "unknown")), ErrorKind::Backend);
    assert!(matches!(store.health(), Health::Poisoned(_)));
    for _ in 0..2 {
        assert_eq!(kind(set_durably(&repo, &main, "later")), ErrorKind::Closed);
    }
    assert_eq!(kind(store.create(&repo_name("b"), settings(), "tester")), ErrorKind::Closed);
    assert_eq!(kind(store.delete(&repo_name("a"))), ErrorKind::Closed);
    assert_eq!(message(&repo, &main).as_deref(), Some("first"), "reads go on");
    assert_eq!(kind(store.close()), ErrorKind::Closed);
    let store = open(&crash(&backend, Survivors::Synced));
    assert_eq!(message(&store.repo(&repo_name("a")).unwrap(), &main).as_deref(), Some("first"));
}

#[test]
fn a_failed_write_shows_nothing_of_it() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    backend.fail_next_write();
    let (oid, published) = set(&repo, &branch("main"), Expected::Absent, "lost").unwrap();
    assert_eq!(kind(published.ticket.wait()), ErrorKind::Backend);
    assert_eq!(repo.snapshot().try_object(&oid).unwrap(), None);
    assert_eq!(repo.stats().references, 0);
}

#[test]
fn acknowledged_relaxed_writes_outlive_a_full_disk() {
    let backend = disk();
    let store = open(&backend);
    let (repo, main) = (create(&store, "a", Durability::Relaxed), branch("main"));
    backend.set_full(true);
    set_durably(&repo, &main, "acknowledged").unwrap();
    eventually("the store notices", || matches!(store.health(), Health::Full(_)));
    assert_eq!(kind(set(&repo, &main, Expected::Any, "refused")), ErrorKind::StorageFull);
    assert_eq!(message(&repo, &main).as_deref(), Some("acknowledged"));
    backend.set_full(false);
    eventually("the store tries again", || store.health() == Health::Ok);
    set_durably(&repo, &branch("next"), "more").unwrap();
    store.settle();
    let store = open(&crash(&backend, Survivors::Synced));
    let repo = store.repo(&repo_name("a")).unwrap();
    assert_eq!(message(&repo, &main).as_deref(), Some("acknowledged"));
    assert_eq!((message(&repo, &branch("next")).as_deref(), repo.stats().version), (Some("more"), 3));
}

#[test]
fn a_deletion_that_fails_loses_nothing_that_was_acknowledged() {
    let backend = disk();
    let store = open(&backend);
    let (repo, main) = (create(&store, "a", Durability::Relaxed), branch("main"));
    set_durably(&repo, &main, "first").unwrap();
    store.settle();
    backend.set_full(true);
    set_durably(&repo, &main, "acknowledged").unwrap();
    assert_eq!(kind(store.delete(&repo_name("a"))), ErrorKind::StorageFull);
    backend.set_full(false);
    eventually("the store tries again", || store.health() == Health::Ok);
    assert_eq!(message(&repo, &main).as_deref(), Some("acknowledged"));
    set_durably(&repo, &branch("next"), "more").unwrap();
    let _ = store.close();
    let store = open(&crash(&backend, Survivors::Synced));
    let repo = store.repo(&repo_name("a")).unwrap();
    assert_eq!(message(&repo, &main).as_deref(), Some("acknowledged"));
    assert_eq!((message(&repo, &branch("next")).as_deref(), repo.stats().version), (Some("more"), 4));
    store.delete(&repo_name("a")).unwrap();
    assert_eq!(kind(set(&repo, &main, Expected::Any, "late")), ErrorKind::NotFound);
}

#[test]
fn who_is_faster_than_the_disk_waits_for_it_and_loses_nothing_when_it_is_full() {
    let gate = Arc::new(Gate::new());
    let store = Store::open(gate.clone(), StoreOptions { settle_bytes: 64 << 10, ..options() }).unwrap();
    let (repo, tag) = (create(&store, "a", Durability::Relaxed), |at: u64| RefName::new(format!("refs/tags/t{at}")));
    let put = |at: u64| {
        let mut transaction = repo.begin("tester", Cause::Api);
        let oid = transaction.put(Kind::Blob, noise(at, 40 << 10).into()).unwrap();
        transaction.edit(edit(&tag(at).unwrap(), Expected::Absent, Some(oid))).unwrap();
        publish(transaction).unwrap().ticket
    };
    let sees = |at: u64| repo.snapshot().reference(&tag(at).unwrap()).is_some();
    let shut = gate.shut();
    for at in 0..2 {
        put(at).wait().unwrap();
        assert!(sees(at), "acknowledged at once");
    }
    let waiting = put(2);
    assert!(!sees(2), "it waits for the disk");
    gate.disk().set_full(true);
    drop(shut);
    eventually("the store notices", || matches!(store.health(), Health::Full(_)));
    assert!(sees(1));
    gate.disk().set_full(false);
    waiting.wait().unwrap();
    assert!(sees(2));
    store.close().unwrap();
    let store = open(&crash(gate.disk(), Survivors::Synced));
    let repo = store.repo(&repo_name("a")).unwrap();
    assert_eq!((repo.stats().version, repo.stats().references), (4, 3));
}

#[test]
fn relaxed_writes_are_synced_while_later_ones_wait_for_room() {
    let backend = disk();
    let store =
        Store::open(backend.clone(), StoreOptions { relaxed_delay_max: Duration::from_millis(200), ..options() })
            .unwrap();
    let (repo, main) = (create(&store, "a", Durability::Relaxed), branch("main"));
    set_durably(&repo, &main, "written").unwrap();
    eventually("the journal has it", || store.stats().journal_transactions_total >= 2);
    backend.set_full(true);
    set_durably(&repo, &branch("waits"), "text").unwrap();
    eventually("the sync", || backend.unsynced() == 0);
    let store = open(&crash(&backend, Survivors::Synced));
    assert_eq!(message(&store.repo(&repo_name("a")).unwrap(), &main).as_deref(), Some("written"));
}

#[test]
fn closing_on_a_full_disk_says_that_acknowledged_writes_are_lost() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Relaxed);
    backend.set_full(true);
    set_durably(&repo, &branch("main"), "acknowledged").unwrap();
    assert!(store.close().is_err(), "what was accepted could not be made durable");
}

#[test]
fn relaxed_writes_come_back_after_settling_found_no_room() {
    let backend = disk();
    let store = open(&backend);
    let (repo, main) = (create(&store, "a", Durability::Relaxed), branch("main"));
    set_durably(&repo, &main, "first").unwrap();
    eventually("the journal has it", || store.stats().journal_transactions_total >= 2);
    backend.set_full(true);
    store.settle();
    assert!(matches!(store.health(), Health::Full(_)));
    backend.set_full(false);
    eventually("the store tries again", || store.health() == Health::Ok);
    set_durably(&repo, &main, "second").unwrap();
}

#[test]
fn relaxed_writes_are_synced_after_the_delay() {
    let backend = disk();
    let store = Store::open(backend.clone(), StoreOptions { relaxed_delay_max: Duration::from_millis(1), ..options() })
        .unwrap();
    let repo = create(&store, "a", Durability::Relaxed);
    let oid = set_durably(&repo, &branch("main"), "text").unwrap();
    assert_eq!(repo.snapshot().reference(&branch("main")), Some(oid), "seen at once");
    eventually("the sync", || store.stats().journal_transactions_total >= 2 && backend.unsynced() == 0);
    let store = open(&crash(&backend, Survivors::Synced));
    assert_eq!(message(&store.repo(&repo_name("a")).unwrap(), &branch("main")).as_deref(), Some("text"));
}

#[test]
fn a_closed_store_refuses_writes_and_closes_twice() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    set_durably(&repo, &branch("main"), "first").unwrap();
    store.close().unwrap();
    store.close().unwrap();
    assert_eq!(store.health(), Health::Closed);
    assert_eq!(kind(set(&repo, &branch("main"), Expected::Any, "late")), ErrorKind::Closed);
    assert_eq!(kind(store.create(&repo_name("b"), settings(), "tester")), ErrorKind::Closed);
}

/// A database that cannot be reached for a while: nothing is lost, nothing is poisoned, and writes go on by themselves.
#[test]
fn a_storage_that_was_away_is_written_again() {
    let backend = disk();
    let store = open(&backend);
    let durable = create(&store, "durable", Durability::Durable);
    let relaxed = create(&store, "relaxed", Durability::Relaxed);
    let main = branch("main");
    set_durably(&durable, &main, "before").unwrap();
    let (_, accepted) = set(&relaxed, &main, Expected::Any, "accepted").unwrap();
    accepted.ticket.wait().unwrap();
    backend.set_away(true);
    let (_, refused) = set(&durable, &main, Expected::Any, "refused").unwrap();
    let error = refused.ticket.wait().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(matches!(store.health(), Health::Unavailable(_)), "{:?}", store.health());
    assert_eq!(message(&durable, &main).as_deref(), Some("before"));
    assert_eq!(kind(set(&relaxed, &main, Expected::Any, "refused")), ErrorKind::Unavailable);
    backend.set_away(false);
    eventually("it takes writes again", || store.health() == Health::Ok);
    set_durably(&durable, &main, "after").unwrap();
    store.close().unwrap();
    let store = open(&crash(&backend, Survivors::Synced));
    for (name, wanted) in [("durable", "after"), ("relaxed", "accepted")] {
        let repo = store.repo(&repo_name(name)).unwrap();
        assert_eq!(message(&repo, &main).as_deref(), Some(wanted));
    }
}

/// A sync that could not be asked for is asked for again, and poisons nothing.
#[test]
fn a_sync_that_was_refused_is_made_later() {
    let backend = disk();
    let delay = Duration::from_secs(1);
    let store = Store::open(backend.clone(), StoreOptions { relaxed_delay_max: delay, ..options() }).unwrap();
    let relaxed = create(&store, "relaxed", Durability::Relaxed);
    let main = branch("main");
    let writes = backend.writes();
    set(&relaxed, &main, Expected::Any, "accepted").unwrap().1.ticket.wait().unwrap();
    eventually("it is written", || backend.writes() > writes);
    backend.set_away(true);
    assert_eq!(backend.unsynced(), 1, "written, not synced, before the storage goes away");
    eventually("a sync is refused", || matches!(store.health(), Health::Unavailable(_)));
    backend.set_away(false);
    eventually("it takes writes again", || store.health() == Health::Ok);
    eventually("it is synced", || backend.unsynced() == 0);
}
