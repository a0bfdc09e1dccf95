//! A crash at any moment: what a store opened on the same disk then has.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use govc_backends::{FaultBackend, Survivors};
use govc_engine::{Durability, ErrorKind, Repo};
use shuttle::thread;

use crate::{
    run::check,
    world::{Reader, Told, branch, check_history, crash, create, disk, draw, expect, name, open, set},
};

/// Publishes on a branch of its own until the store's disk is gone.
pub(crate) fn write_until_closed(repo: &Repo, writer: u64) -> Told {
    let (own, mut told) = (branch(writer), Told::default());
    for at in 0..2 {
        let last = told.published.last().map(|(_, _, oid)| *oid);
        let (oid, published) = set(repo, &own, expect(last), &format!("{writer} {at}"));
        let outcome = published.and_then(|published| {
            told.published.push((published.version, own.clone(), oid));
            published.ticket.wait()
        });
        match outcome {
            Ok(()) => told.acknowledged += 1,
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Closed | ErrorKind::Backend), "{error}");
                break;
            }
        }
    }
    told
}

/// Waits until the disk has been written some more times, as drawn, or `done`.
pub(crate) fn wait_for_writes(disk: &FaultBackend, done: &AtomicBool) {
    let wanted = disk.writes() + draw(6);
    while disk.writes() < wanted && !done.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    for _ in 0..draw(10) {
        thread::yield_now();
    }
}

fn crash_at_any_moment(durability: Durability) {
    let first = disk();
    let store = open(&first);
    let repo = create(&store, durability);
    let done = Arc::new(AtomicBool::new(false));
    let reader = Reader::watch(&repo, &done);
    let writer = |at| {
        let repo = repo.clone();
        thread::spawn(move || write_until_closed(&repo, at))
    };
    let writers: Vec<_> = (0..2).map(writer).collect();
    let crasher = {
        let (disk, done) = (first.clone(), done.clone());
        thread::spawn(move || {
            wait_for_writes(&disk, &done);
            crash(&disk, Survivors::Drawn(draw(u64::MAX)))
        })
    };
    let told: Vec<Told> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    done.store(true, Ordering::SeqCst);
    let (reader, second) = (reader.join().unwrap(), crasher.join().unwrap());
    let _ = store.close();
    drop((repo, store));
    let store = open(&second);
    let repo = store.repo(&name("a")).unwrap();
    let version = repo.stats().version;
    check_history(&repo, &told, version);
    if durability == Durability::Durable {
        let acknowledged = told.iter().flat_map(Told::acknowledged).map(|(number, ..)| *number).max();
        assert!(acknowledged.is_none_or(|acknowledged| acknowledged <= version), "{acknowledged:?}, not {version}");
        let seen = reader.seen.keys().max();
        assert!(seen.is_none_or(|seen| *seen <= version), "{seen:?} was read, and is not in {version}");
    }
    set(&repo, &branch("later"), expect(None), "later").1.unwrap().ticket.wait().unwrap();
    store.close().unwrap();
}

#[test]
fn what_was_acknowledged_or_read_survives_a_crash() {
    check(|| crash_at_any_moment(Durability::Durable));
}

#[test]
fn what_survives_of_relaxed_writes_is_a_version() {
    check(|| crash_at_any_moment(Durability::Relaxed));
}
