//! Disks that are full for a while, and disks that fail.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use govc_backends::{FaultBackend, Survivors};
use govc_engine::{Durability, ErrorKind, Health, Oid, Repo};
use shuttle::thread;

use crate::{
    crash::{wait_for_writes, write_until_closed},
    run::check,
    world::{
        Reader, Told, branch, check_feed, check_history, crash, create, disk, draw, expect, name, open, references_at,
        set, set_durably,
    },
};

/// Publishes on a branch of its own, as often as it takes.
fn write_until_done(repo: &Repo, writer: u64) -> Told {
    let (own, mut told) = (branch(writer), Told::default());
    for at in 0..2 {
        for attempt in 0.. {
            let last = told.published.last().map(|(_, _, oid)| *oid);
            let (oid, published) = set(repo, &own, expect(last), &format!("{writer} {at} {attempt}"));
            let outcome = published.and_then(|published| published.ticket.wait().map(|()| published.version));
            match outcome {
                Ok(version) => {
                    told.published.push((version, own.clone(), oid));
                    told.acknowledged += 1;
                    break;
                }
                Err(error) => assert_eq!(*error.kind(), ErrorKind::StorageFull, "{error}"),
            }
            thread::yield_now();
        }
    }
    told
}

/// Fills the disk at some moments, and makes room again at others.
fn fill_for_a_while(disk: &Arc<FaultBackend>, done: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (disk, done) = (disk.clone(), done.clone());
    thread::spawn(move || {
        for _ in 0..=draw(2) {
            wait_for_writes(&disk, &done);
            disk.set_full(true);
            for _ in 0..draw(40) {
                thread::yield_now();
            }
            disk.set_full(false);
        }
    })
}

fn full_for_a_while(durability: Durability) {
    let first = disk();
    let store = open(&first);
    let repo = create(&store, durability);
    let done = Arc::new(AtomicBool::new(false));
    let reader = Reader::watch(&repo, &done);
    let filler = fill_for_a_while(&first, &done);
    let writer = |at| {
        let repo = repo.clone();
        thread::spawn(move || write_until_done(&repo, at))
    };
    let writers: Vec<_> = (0..2).map(writer).collect();
    let mut told: Vec<Told> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    done.store(true, Ordering::SeqCst);
    filler.join().unwrap();
    told.push(write_until_done(&repo, 2));
    // Each number was given to one acknowledged version, whatever failed in between.
    check_history(&repo, &told, 7);
    for (number, references) in reader.join().unwrap().seen {
        assert_eq!(references, references_at(&told, number), "version {number} as it was seen");
    }
    store.settle();
    check_feed(&store, 7);
    store.close().unwrap();
    drop((repo, store));
    let store = open(&crash(&first, Survivors::Synced));
    check_history(&store.repo(&name("a")).unwrap(), &told, 7);
}

#[test]
fn a_full_disk_fails_who_waits_and_goes_on() {
    check(|| full_for_a_while(Durability::Durable));
}

#[test]
fn a_full_disk_takes_nothing_back_from_relaxed_writers() {
    check(|| full_for_a_while(Durability::Relaxed));
}

/// Adds a commit to a shared branch; who is told of a conflict sees what it names, though the disk is full at times.
fn race_until_done(repo: &Repo, writer: u64) {
    let main = branch("main");
    for attempt in 0.. {
        let head: Option<Oid> = repo.snapshot().reference(&main);
        let (_, outcome) = set(repo, &main, expect(head), &format!("{writer} {attempt}"));
        match outcome.and_then(|published| published.ticket.wait()) {
            Ok(()) => return,
            Err(error) => match error.kind() {
                ErrorKind::Conflict(conflict) => {
                    let actual = conflict.actual.unwrap();
                    let mut at = repo.snapshot().reference(&main);
                    while at.is_some_and(|oid| oid != actual) {
                        at = repo.snapshot().commit(&at.unwrap()).unwrap().parents.first().copied();
                    }
                    assert_eq!(at, Some(actual), "a conflict names what could be seen");
                }
                kind => assert_eq!(*kind, ErrorKind::StorageFull, "{error}"),
            },
        }
        thread::yield_now();
    }
}

#[test]
fn no_conflict_names_what_a_full_disk_refused() {
    check(|| {
        let first = disk();
        let store = open(&first);
        let repo = create(&store, Durability::Durable);
        let done = Arc::new(AtomicBool::new(false));
        let filler = fill_for_a_while(&first, &done);
        let racer = |writer| {
            let repo = repo.clone();
            thread::spawn(move || race_until_done(&repo, writer))
        };
        let racers: Vec<_> = (0..3).map(racer).collect();
        racers.into_iter().for_each(|racer| racer.join().unwrap());
        done.store(true, Ordering::SeqCst);
        filler.join().unwrap();
        assert_eq!(repo.stats().version, 4);
    });
}

/// One write or sync fails at some moment, the settling thread's perhaps.
fn failed_once(fail: fn(&FaultBackend)) {
    let first = disk();
    let store = open(&first);
    let repo = create(&store, Durability::Durable);
    let done = Arc::new(AtomicBool::new(false));
    let reader = Reader::watch(&repo, &done);
    let saboteur = {
        let (disk, done) = (first.clone(), done.clone());
        thread::spawn(move || {
            wait_for_writes(&disk, &done);
            fail(&disk);
        })
    };
    let writer = |at| {
        let repo = repo.clone();
        thread::spawn(move || write_until_closed(&repo, at))
    };
    let writers: Vec<_> = (0..2).map(writer).collect();
    let told: Vec<Told> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    done.store(true, Ordering::SeqCst);
    saboteur.join().unwrap();
    let reader = reader.join().unwrap();
    let acknowledged = told.iter().map(|told| told.acknowledged as u64).sum::<u64>();
    let seen = reader.seen.keys().max().copied().unwrap_or_default();
    assert!(seen <= 1 + acknowledged, "version {seen} was read, and {acknowledged} were acknowledged");
    if acknowledged < 4 {
        assert!(matches!(store.health(), Health::Poisoned(_)), "{:?}", store.health());
        let refused = set(&repo, &branch("later"), expect(None), "later").1.map(|_| ()).unwrap_err();
        assert_eq!(*refused.kind(), ErrorKind::Closed);
        check_history(&repo, &told, 1 + acknowledged);
    }
    let second = crash(&first, Survivors::Drawn(draw(u64::MAX)));
    let _ = store.close();
    drop((repo, store));
    let store = open(&second);
    let repo = store.repo(&name("a")).unwrap();
    // Of what a failed sync had written, a crash may leave some.
    let version = repo.stats().version;
    assert!(version > acknowledged, "version {version} after {acknowledged} acknowledged ones");
    check_history(&repo, &told, version);
    set_durably(&repo, &branch("later"), expect(None), "later");
}

#[test]
fn a_failed_write_poisons_and_loses_nothing() {
    check(|| failed_once(FaultBackend::fail_next_write));
}

#[test]
fn a_failed_sync_poisons_and_loses_nothing() {
    check(|| failed_once(FaultBackend::fail_next_sync));
}
