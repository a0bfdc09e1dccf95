//! What is known of pools without reading blocks, what settles by its age, and notes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use govc_backends::{FaultBackend, Survivors};
use govc_engine::{
    Cause, Durability, ErrorKind, Expected, Family, Kind, RefName, Repo, Silent, Store, StoreOptions, StoredPool,
    block::Base,
};

use crate::{
    helper::{FORMAT, crash, create, disk, edit, entries, eventually, kind, noise, open, options, publish, repo_name},
    rewrite::{MEMORY_BYTES, block_bytes, commit, write},
};

/// What is known of a repository.
fn known(store: &Store, repo: &Repo) -> StoredPool {
    let pools = store.stored_pools().unwrap();
    pools.into_iter().find(|(of, _)| of.id() == repo.id()).map(|(_, pool)| pool).unwrap_or_default()
}

fn rows(backend: &FaultBackend) -> usize {
    entries(backend, Family::Meta, b"segment/").len()
}

#[test]
fn what_a_pool_takes_is_known_without_its_blocks() {
    let backend = disk();
    let store = Store::open(backend.clone(), StoreOptions { clock: Arc::new(|| 4_000), ..options() }).unwrap();
    let repo = create(&store, "a", Durability::Durable);
    let other = create(&store, "b", Durability::Durable);
    assert!(store.stored_pools().unwrap().is_empty());
    for at in 0..3 {
        commit(&repo, "file", noise(at, 3000));
        commit(&other, "file", noise(at, 10));
        store.settle();
    }
    // One that is published in pieces is one.
    let ingest = repo.ingest();
    let mut lane = ingest.lane();
    let ids: Vec<_> = (0..2_u8).map(|at| govc_engine::hash_object(FORMAT, Kind::Blob, &[at]).unwrap()).collect();
    for (at, oid) in ids.iter().enumerate() {
        lane.add(*oid, Kind::Blob, 1, Base::Whole, &[at as u8]).unwrap();
    }
    lane.finish().unwrap();
    let staged = ingest.finish().unwrap();
    assert_eq!(rows(&backend), 6, "not before it is published");
    for (at, oid) in ids.iter().enumerate() {
        let mut transaction = repo.begin("tester", Cause::Push);
        transaction.attach(staged.only(|found| found == oid)).unwrap();
        let tag = RefName::new(format!("refs/tags/{at}")).unwrap();
        transaction.edit(edit(&tag, Expected::Absent, Some(*oid))).unwrap();
        publish(transaction).unwrap().ticket.wait().unwrap();
    }
    drop(staged);
    let fresh = known(&store, &repo);
    assert_eq!((fresh.fresh_segments, fresh.fresh_bytes), (4, block_bytes(&*backend, &repo)));
    assert_eq!((fresh.compacted_bytes, fresh.compacted_millis), (0, None));

    let rewrite = repo.rewrite(3, MEMORY_BYTES, &Silent).unwrap();
    write(&rewrite);
    rewrite.install(&Silent).unwrap();
    let compacted = known(&store, &repo);
    assert_eq!((compacted.fresh_segments, compacted.fresh_bytes), (0, 0));
    assert_eq!(compacted.compacted_bytes, block_bytes(&*backend, &repo));
    assert_eq!((compacted.compacted_millis, compacted.first_version), (Some(4_000), repo.first_version().unwrap()));
    assert_eq!(compacted.level, 3);
    assert_eq!(known(&store, &other).fresh_segments, 3);
    commit(&repo, "file", noise(9, 3000));
    store.settle();
    let grown = known(&store, &repo);
    assert_eq!((grown.fresh_segments, grown.compacted_bytes), (1, compacted.compacted_bytes));
    assert_eq!(grown.fresh_bytes + grown.compacted_bytes, block_bytes(&*backend, &repo));

    let id = repo.id();
    drop((repo, other, store));
    let next = crash(&backend, Survivors::All);
    let store = open(&next);
    let repo = store.repo(&repo_name("a")).unwrap();
    assert_eq!((repo.id(), known(&store, &repo)), (id, grown));
    store.delete(&repo_name("a")).unwrap();
    store.settle();
    assert_eq!(rows(&next), 3, "those of the other");
    store.delete(&repo_name("b")).unwrap();
    store.settle();
    assert_eq!(rows(&next), 0);
}

#[test]
fn what_has_been_in_the_journal_for_a_while_settles() {
    let backend = disk();
    let options = StoreOptions { settle_age_max: Duration::from_millis(30), ..options() };
    let store = Store::open(backend.clone(), options).unwrap();
    let repo = create(&store, "a", Durability::Durable);
    for at in 0..3 {
        commit(&repo, "file", noise(at, 100));
        eventually("it settles", || store.stats().unsettled_bytes == 0);
        assert_eq!(store.stats().unsettled_age, None);
    }
    assert_eq!(entries(&*backend, Family::Journal, b"").len(), 0);
    // What is found at opening, too.
    let backend = disk();
    let store = open(&backend);
    commit(&create(&store, "a", Durability::Durable), "file", noise(1, 100));
    assert!(store.stats().unsettled_age.is_some());
    std::mem::forget(store);
    let next = crash(&backend, Survivors::All);
    assert!(!entries(&*next, Family::Journal, b"").is_empty());
    let options = StoreOptions { settle_age_max: Duration::from_millis(30), ..crate::helper::options() };
    let _store = Store::open(next.clone(), options).unwrap();
    eventually("it settles", || entries(&*next, Family::Journal, b"").is_empty());
}

#[test]
fn notes_are_kept_until_they_are_removed() {
    let backend = disk();
    let store = open(&backend);
    let note = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    store.set_note(b"jobs/2", note("two")).unwrap();
    store.set_note(b"jobs/1", note("one")).unwrap();
    store.set_note(b"other", note("")).unwrap();
    store.set_note(b"jobs/1", note("another")).unwrap();
    let named = |store: &Store, prefix: &[u8]| -> Vec<(Vec<u8>, Vec<u8>)> {
        store.notes(prefix).unwrap().iter().map(|(name, note)| (name.to_vec(), note.to_vec())).collect()
    };
    let jobs = vec![(b"jobs/1".to_vec(), b"another".to_vec()), (b"jobs/2".to_vec(), b"two".to_vec())];
    assert_eq!(named(&store, b"jobs/"), jobs);
    assert_eq!(named(&store, b"").len(), 3);
    // Durable on return.
    let next = crash(&backend, Survivors::First(0));
    let store = open(&next);
    assert_eq!(named(&store, b"jobs/"), jobs);
    store.set_note(b"jobs/2", None).unwrap();
    store.set_note(b"jobs/none", None).unwrap();
    assert_eq!(named(&store, b"jobs/"), jobs[..1]);
    store.close().unwrap();
    assert_eq!(kind(store.set_note(b"jobs/3", note("three"))), ErrorKind::Closed);
}
