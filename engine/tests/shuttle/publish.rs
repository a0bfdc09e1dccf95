//! Writers of different references, and readers beside them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use govc_backends::Survivors;
use govc_engine::{Durability, Repo, Store};
use shuttle::thread;

use crate::{
    run::check,
    world::{Reader, Told, branch, check_feed, check_history, crash, create, disk, expect, open, set},
};

const WRITERS: u64 = 2;
const EACH: usize = 2;

/// Publishes on a branch of its own, each time on what it published before; nothing may fail.
fn write(repo: &Repo, writer: u64) -> Told {
    let (own, mut told) = (branch(writer), Told::default());
    for at in 0..EACH {
        let last = told.published.last().map(|(_, _, oid)| *oid);
        let (oid, published) = set(repo, &own, expect(last), &format!("{writer} {at}"));
        let published = published.unwrap();
        told.published.push((published.version, own.clone(), oid));
        published.ticket.wait().unwrap();
        told.acknowledged += 1;
        let snapshot = repo.snapshot();
        assert!(snapshot.version().number >= published.version, "a writer reads what it wrote");
        assert_eq!(snapshot.reference(&own), Some(oid));
    }
    told
}

/// Runs writers and a reader, and checks what they made of the repository.
fn write_and_read(store: &Store, durability: Durability) -> (Repo, Vec<Told>, Reader) {
    let repo = create(store, durability);
    let done = Arc::new(AtomicBool::new(false));
    let reader = Reader::watch(&repo, &done);
    let writer = |at| {
        let repo = repo.clone();
        thread::spawn(move || write(&repo, at))
    };
    let writers: Vec<_> = (0..WRITERS).map(writer).collect();
    let told: Vec<Told> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    done.store(true, Ordering::SeqCst);
    let reader = reader.join().unwrap();
    let version = 1 + WRITERS * EACH as u64;
    check_history(&repo, &told, version);
    let memory = durability == Durability::Memory;
    if !memory {
        // In a relaxed repository the journal follows.
        store.settle();
    }
    check_feed(store, version);
    for (number, references) in &reader.seen {
        assert_eq!(*references, crate::world::references_at(&told, *number), "version {number} as it was seen");
    }
    (repo, told, reader)
}

fn durable_after_closing(durability: Durability) {
    let disk = disk();
    let store = open(&disk);
    let (repo, told, reader) = write_and_read(&store, durability);
    store.close().unwrap();
    drop((repo, reader, store));
    let store = open(&crash(&disk, Survivors::Synced));
    let repo = store.repo(&crate::world::name("a")).unwrap();
    check_history(&repo, &told, 1 + WRITERS * EACH as u64);
    check_feed(&store, 1 + WRITERS * EACH as u64);
}

#[test]
fn writers_of_different_references_all_arrive() {
    check(|| durable_after_closing(Durability::Durable));
}

#[test]
fn relaxed_writers_all_arrive_too() {
    check(|| durable_after_closing(Durability::Relaxed));
}

#[test]
fn writers_of_a_memory_repository_all_arrive() {
    check(|| {
        let store = open(&disk());
        drop(write_and_read(&store, Durability::Memory));
    });
}
