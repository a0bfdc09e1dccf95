//! Memory: stores larger than their budget, and repositories that live in memory alone.

use std::sync::Arc;

use bytes::Bytes;
use govc_backends::{MemoryBackend, Survivors};
use govc_engine::{
    Cause, Durability, ErrorKind, Expected, Kind, Oid, Repo, Store, StoreOptions,
    block::{Base, Location},
    hash_object,
};

use crate::helper::{
    FORMAT, branch, crash, create, disk, edit, kind, message, noise, open, options, publish, repo_name, set_durably,
};

const OBJECT_BYTES: usize = 256 << 10;

fn small_store() -> Store {
    let options = StoreOptions { memory_budget_bytes: 16 << 20, ..options() };
    Store::open(Arc::new(MemoryBackend::new()), options).unwrap()
}

/// Puts noise of these seeds through one transaction.
fn put_all(repo: &Repo, seeds: std::ops::Range<u64>) -> Vec<(u64, Oid)> {
    let mut transaction = repo.begin("tester", Cause::Import);
    let put = |seed| (seed, transaction.put(Kind::Blob, noise(seed, OBJECT_BYTES).into()).unwrap());
    let oids: Vec<_> = seeds.map(put).collect();
    publish(transaction).unwrap().ticket.wait().unwrap();
    oids
}

/// Ingests noise of these seeds through four lanes at once.
fn ingest_all(repo: &Repo, from: u64, count: u64) -> Vec<(u64, Oid)> {
    let ingest = repo.ingest();
    let fill = |from: u64| {
        let mut lane = ingest.lane();
        let add = |seed: u64| {
            let data = noise(seed, OBJECT_BYTES);
            let oid = hash_object(FORMAT, Kind::Blob, &data).unwrap();
            lane.add(oid, Kind::Blob, data.len() as u64, Base::Whole, &data).unwrap();
            (seed, oid)
        };
        let oids: Vec<_> = (from..from + count / 4).map(add).collect();
        lane.finish().unwrap();
        oids
    };
    let oids: Vec<(u64, Oid)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|lane| scope.spawn(move || fill(from + lane * (count / 4)))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let staged = ingest.finish().unwrap();
    assert_eq!(staged.len(), oids.len());
    let mut transaction = repo.begin("tester", Cause::Import);
    transaction.attach(staged).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    oids
}

#[test]
fn a_repository_larger_than_the_budget_reads_back() {
    let store = small_store();
    let repo = create(&store, "a", Durability::Durable);
    let mut oids = Vec::new();
    for batch in 0..32u64 {
        oids.extend(put_all(&repo, batch * 4..batch * 4 + 4));
    }
    oids.extend(ingest_all(&repo, 1000, 128));
    store.settle();
    assert_eq!(oids.len() * OBJECT_BYTES, 64 << 20);
    let snapshot = repo.snapshot();
    for (seed, oid) in &oids {
        let object = snapshot.object(oid).unwrap();
        assert_eq!(object.kind, Kind::Blob);
        assert!(object.data == noise(*seed, OBJECT_BYTES), "object {seed}");
    }
    let stats = store.stats();
    assert!(stats.resident_bytes <= stats.budget_bytes, "{} of {}", stats.resident_bytes, stats.budget_bytes);
    assert!(stats.evictions_total > 0 && stats.cache_misses_total > 0);
    assert_eq!((stats.unsettled_bytes, stats.open_transactions), (0, 0));
}

#[test]
fn what_is_read_in_passing_does_not_stay() {
    let store = small_store();
    let repo = create(&store, "a", Durability::Durable);
    let oids = ingest_all(&repo, 1000, 16);
    store.settle();
    let (snapshot, resident) = (repo.snapshot(), store.stats().objects_resident);
    for (seed, oid) in &oids {
        assert!(snapshot.object_in_passing(oid, Kind::Blob).unwrap() == noise(*seed, OBJECT_BYTES), "object {seed}");
        assert_eq!(*snapshot.object_in_passing(oid, Kind::Tree).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(store.stats().objects_resident, resident);
    snapshot.object_of(&oids[0].1, Kind::Blob).unwrap();
    assert_eq!(store.stats().objects_resident, resident + 1);
}

#[test]
fn deltas_of_an_ingest_read_back() {
    let store = small_store();
    let repo = create(&store, "a", Durability::Durable);
    let base_data = noise(7, OBJECT_BYTES);
    // Git's delta: lengths, a copy of the first eight bytes, an insertion of one.
    let delta_of = |len: usize, byte: u8| {
        let mut delta = Vec::new();
        for mut size in [len, 9] {
            while size >= 0x80 {
                delta.push(size as u8 | 0x80);
                size >>= 7;
            }
            delta.push(size as u8);
        }
        delta.extend_from_slice(&[0x90, 8, 1, byte]);
        delta
    };
    let ingest = repo.ingest();
    let mut lane = ingest.lane();
    let data = |byte: u8| [&base_data[..8], &[byte]].concat();
    let oid = |byte: u8| hash_object(FORMAT, Kind::Blob, &data(byte)).unwrap();
    let near = |at: Location| Base::Near { block: at.block, slot: at.slot };
    let base = hash_object(FORMAT, Kind::Blob, &base_data).unwrap();
    let base = lane.add(base, Kind::Blob, OBJECT_BYTES as u64, Base::Whole, &base_data).unwrap();
    let first = lane.add(oid(b'x'), Kind::Blob, 9, near(base), &delta_of(OBJECT_BYTES, b'x')).unwrap();
    lane.add(oid(b'y'), Kind::Blob, 9, near(first), &delta_of(9, b'y')).unwrap();
    lane.finish().unwrap();
    let staged = ingest.finish().unwrap();
    assert_eq!(staged.object(&oid(b'y')).unwrap().unwrap().data, data(b'y'));
    assert!(!repo.snapshot().contains(&oid(b'y')).unwrap(), "it is not published");
    let mut transaction = repo.begin("tester", Cause::Import);
    transaction.attach(staged.clone()).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    for byte in [b'x', b'y'] {
        assert_eq!(repo.snapshot().object(&oid(byte)).unwrap().data, data(byte));
    }
    let mut other = create(&store, "b", Durability::Durable).begin("tester", Cause::Import);
    assert_eq!(kind(other.attach(staged)), ErrorKind::Invalid, "another repository's segment");
}

#[test]
fn memory_repositories_vanish_and_stored_ones_do_not() {
    let backend = disk();
    let store = open(&backend);
    let (memory, stored) =
        (create(&store, "memory", Durability::Memory), create(&store, "stored", Durability::Durable));
    for repo in [&memory, &stored] {
        set_durably(repo, &branch("main"), "text").unwrap();
        assert_eq!(message(repo, &branch("main")).as_deref(), Some("text"));
    }
    store.close().unwrap();
    assert_eq!(message(&memory, &branch("main")).as_deref(), Some("text"), "what is held can be read");
    let store = open(&crash(&backend, Survivors::Synced));
    assert_eq!(kind(store.repo(&repo_name("memory"))), ErrorKind::NotFound);
    assert_eq!(message(&store.repo(&repo_name("stored")).unwrap(), &branch("main")).as_deref(), Some("text"));
}

#[test]
fn memory_repositories_stay_within_their_share() {
    let store = small_store();
    let repo = create(&store, "memory", Durability::Memory);
    let put = |seed: u64, len: usize| {
        let mut transaction = repo.begin("tester", Cause::Import);
        let oid = transaction.put(Kind::Blob, Bytes::from(noise(seed, len)))?;
        publish(transaction).map(|_| oid)
    };
    let mut kept = Vec::new();
    let error = loop {
        // Small objects ride in the table, large ones go into blocks: both count.
        let len = if kept.len() % 2 == 0 { 1 << 20 } else { 3 << 20 };
        match put(kept.len() as u64, len) {
            Ok(oid) => kept.push((oid, len)),
            Err(error) => break error,
        }
        assert!(kept.len() < 16, "the budget has no end");
    };
    assert_eq!(error.kind(), &ErrorKind::OutOfBudget);
    assert!(error.message().contains("memory repositories"), "{error}");
    assert!(kept.len() >= 3);
    for (seed, (oid, len)) in kept.iter().enumerate() {
        assert!(repo.snapshot().object(oid).unwrap().data == noise(seed as u64, *len), "object {seed}");
    }
    set_durably(&create(&store, "stored", Durability::Durable), &branch("main"), "text").unwrap();
    store.delete(&repo_name("memory")).unwrap();
    assert_eq!(store.stats().memory_repositories_bytes, 0);
    set_durably(&create(&store, "memory", Durability::Memory), &branch("main"), "text").unwrap();
}

#[test]
fn one_object_of_a_memory_repository_is_paid_for_once() {
    let store = small_store();
    let repo = create(&store, "memory", Durability::Memory);
    let data = Bytes::from(noise(1, 1 << 20));
    let put = |at: usize| {
        let mut transaction = repo.begin("tester", Cause::Import);
        transaction.put(Kind::Blob, data.clone()).unwrap();
        transaction.edit(edit(&branch(&format!("b{at}")), Expected::Absent, None)).unwrap();
        publish(transaction)
    };
    let first = (put(0), store.stats().memory_repositories_bytes);
    first.0.unwrap();
    for at in 1..50 {
        put(at).unwrap();
    }
    // The versions cost a little each, the object nothing more.
    assert!(store.stats().memory_repositories_bytes - first.1 < 50 * 500);
    assert!(repo.snapshot().object(&hash_object(FORMAT, Kind::Blob, &data).unwrap()).unwrap().data == data);
}

#[test]
fn blocks_of_memory_repositories_count_against_the_budget() {
    let store = small_store();
    let memory = create(&store, "memory", Durability::Memory);
    for seed in 0..2 {
        let mut transaction = memory.begin("tester", Cause::Import);
        transaction.put(Kind::Blob, noise(seed, 3 << 20).into()).unwrap();
        publish(transaction).unwrap().ticket.wait().unwrap();
    }
    let held = store.stats().memory_repositories_bytes;
    assert!(held > 6 << 20, "{held}");
    let stored = create(&store, "stored", Durability::Durable);
    for (seed, oid) in put_all(&stored, 100..200) {
        assert!(stored.snapshot().object(&oid).unwrap().data == noise(seed, OBJECT_BYTES));
    }
    let stats = store.stats();
    assert!(stats.resident_bytes > held && stats.resident_bytes <= stats.budget_bytes, "{stats:?}");
    store.delete(&repo_name("memory")).unwrap();
    assert!(store.stats().resident_bytes <= stats.resident_bytes - held);
}

#[test]
fn what_is_read_often_stays_in_memory() {
    const HOT: usize = 200;
    let store = small_store();
    let repo = create(&store, "a", Durability::Durable);
    let mut transaction = repo.begin("tester", Cause::Import);
    let all: Vec<_> =
        (0..2000).map(|seed| transaction.put(Kind::Blob, noise(seed, 16 << 10).into()).unwrap()).collect();
    publish(transaction).unwrap().ticket.wait().unwrap();
    let snapshot = repo.snapshot();
    let mut cold = HOT;
    let mut round = || {
        for oid in &all[..HOT] {
            snapshot.object(oid).unwrap();
            // One of the many others after each, so that something must always go.
            snapshot.object(&all[cold]).unwrap();
            cold = if cold + 1 == all.len() { HOT } else { cold + 1 };
        }
    };
    (0..5).for_each(|_| round());
    let before = store.stats().cache_hits_total;
    (0..5).for_each(|_| round());
    let hits = store.stats().cache_hits_total - before;
    assert!(hits >= 5 * HOT as u64 * 9 / 10, "{hits} of {} lookups of hot objects", 5 * HOT);
}

#[test]
fn memory_is_given_back_once_when_a_repository_goes_while_it_is_filled() {
    let store = small_store();
    let repo = create(&store, "memory", Durability::Memory);
    let ingest = repo.ingest();
    let mut lane = ingest.lane();
    let data = noise(1, OBJECT_BYTES);
    lane.add(hash_object(FORMAT, Kind::Blob, &data).unwrap(), Kind::Blob, data.len() as u64, Base::Whole, &data)
        .unwrap();
    lane.finish().unwrap();
    assert!(store.stats().memory_repositories_bytes > 0);
    store.delete(&repo_name("memory")).unwrap();
    drop(ingest);
    assert_eq!(store.stats().memory_repositories_bytes, 0);
    set_durably(&create(&store, "memory", Durability::Memory), &branch("main"), "text").unwrap();
}

#[test]
fn a_failed_ingest_takes_nothing_from_a_published_one() {
    let store = small_store();
    let repo = create(&store, "memory", Durability::Memory);
    let main = branch("main");
    let data = noise(1, 1000);
    let oid = hash_object(FORMAT, Kind::Blob, &data).unwrap();
    let stage = || {
        let ingest = repo.ingest();
        let mut lane = ingest.lane();
        lane.add(oid, Kind::Blob, 1000, Base::Whole, &data).unwrap();
        lane.finish().unwrap();
        ingest.finish().unwrap()
    };
    let (failing, published) = (stage(), stage());
    let mut transaction = repo.begin("tester", Cause::Push);
    transaction.attach(failing.clone()).unwrap();
    transaction.edit(edit(&main, Expected::Absent, None)).unwrap();
    let prepared = transaction.prepare().unwrap();
    set_durably(&repo, &main, "in between").unwrap();
    assert!(matches!(kind(prepared.publish()), ErrorKind::Conflict(_)));

    let mut transaction = repo.begin("tester", Cause::Push);
    transaction.attach(published).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    drop(failing);
    assert!(repo.snapshot().object(&oid).unwrap().data == data);
}

/// Ten times as many bytes as the store may take of memory, written and read: they come and go, and the budget holds.
#[test]
fn a_repository_ten_times_larger_than_memory_stays_within_the_budget() {
    let store = small_store();
    let budget = store.stats().budget_bytes;
    let repo = create(&store, "large", Durability::Durable);
    let within = |what: &str| {
        let resident = store.stats().resident_bytes;
        assert!(resident <= budget, "{what}: {resident} bytes of {budget}");
    };
    let mut objects = Vec::new();
    while (objects.len() * OBJECT_BYTES) as u64 <= 10 * budget {
        let first = objects.len() as u64 + 1;
        objects.extend(put_all(&repo, first..first + 4));
        // What is not settled cannot go; it is bounded, and part of the budget.
        within("written");
    }
    let snapshot = repo.snapshot();
    for round in 0..2 {
        for (seed, oid) in objects.iter().skip(round).step_by(2) {
            assert_eq!(snapshot.object(oid).unwrap().data, noise(*seed, OBJECT_BYTES));
            within("read");
        }
    }
    assert!(store.stats().evictions_total > 500, "{}", store.stats().evictions_total);
}

const MANY: usize = 1000;

/// Sets or removes references `r/<from>` and so on, with one transaction.
fn change_many(repo: &Repo, range: std::ops::Range<usize>, target: Option<Oid>) -> govc_engine::Result<()> {
    let mut transaction = repo.begin("tester", Cause::Api);
    for at in range {
        let expected = if target.is_some() { Expected::Absent } else { Expected::Any };
        transaction.edit(edit(&branch(&format!("r/{at:05}")), expected, target))?;
    }
    publish(transaction)?.ticket.wait()
}

/// References are memory too: counted once however many forks share them, and given back with what held them.
#[test]
fn references_are_counted_and_given_back() {
    let backend = disk();
    let store = open(&backend);
    let resident = |store: &Store| {
        store.settle();
        // The feed remembers what references were, for a while.
        store.stats().resident_bytes - store.stats().feed_bytes
    };
    let repo = create(&store, "source", Durability::Durable);
    let target = set_durably(&repo, &branch("main"), "text").unwrap();
    let before = resident(&store);
    change_many(&repo, 0..MANY, Some(target)).unwrap();
    let all = resident(&store) - before;
    assert!(all >= (MANY * 100) as u64, "{all} bytes for {MANY} references");

    let fork = store.fork(&repo_name("source"), &repo_name("fork"), "tester").unwrap();
    assert_eq!(resident(&store), before + all, "a fork shares them");
    change_many(&fork, MANY..2 * MANY, Some(target)).unwrap();
    assert_eq!(resident(&store), before + 2 * all, "what it adds is its own");
    store.close().unwrap();
    drop((repo, fork, store));

    let store = open(&crash(&backend, Survivors::All));
    let (repo, fork) = (store.repo(&repo_name("source")).unwrap(), store.repo(&repo_name("fork")).unwrap());
    let per_reference = all / MANY as u64;
    let counted = resident(&store);
    assert!(counted.abs_diff(2 * all) < 4 * per_reference, "{counted} after opening, {all} each before");
    change_many(&repo, 0..MANY, None).unwrap();
    assert!(resident(&store).abs_diff(all) < 4 * per_reference);
    assert_eq!(fork.stats().references, 2 * MANY + 1);
    store.delete(&repo_name("fork")).unwrap();
    store.delete(&repo_name("source")).unwrap();
    let left = resident(&store);
    assert!(left < 4 * per_reference, "{left} bytes are left");
}

#[test]
fn a_memory_repository_has_no_room_for_references_without_end() {
    let store = small_store();
    let repo = create(&store, "memory", Durability::Memory);
    let target = set_durably(&repo, &branch("main"), "text").unwrap();
    let mut made = 0;
    let error = loop {
        match change_many(&repo, made..made + MANY, Some(target)) {
            Ok(()) => made += MANY,
            Err(error) => break error,
        }
        assert!(made < 1000 * MANY, "the budget has no end");
    };
    assert_eq!(error.kind(), &ErrorKind::OutOfBudget);
    assert_eq!(repo.snapshot().reference_count(), made + 1, "what was refused has changed nothing");
    change_many(&repo, 0..made, None).unwrap();
    change_many(&repo, 0..made / 2, Some(target)).unwrap();
    store.delete(&repo_name("memory")).unwrap();
    assert_eq!(store.stats().memory_repositories_bytes, 0);
}
