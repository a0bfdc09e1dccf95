//! Many lanes of one ingest.

use govc_backends::Survivors;
use govc_engine::{
    Cause, Durability, Family, Ingest, Kind, Lane, Oid, Repo, Silent, Store,
    block::{Base, Location, make_delta},
    hash_object,
};

use crate::{
    helper::{FORMAT, crash, create, disk, entries, noise, open, publish, repo_name},
    rewrite::{MEMORY_BYTES, write},
};

/// Versions of something, each a little longer than the one before.
fn version(at: u64) -> Vec<u8> {
    (0..=at).flat_map(|line| noise(line, 400)).collect()
}

fn add(lane: &mut Lane<'_>, at: u64, base: Option<(u64, Location)>) -> Location {
    let data = version(at);
    let oid = hash_object(FORMAT, Kind::Blob, &data).unwrap();
    let (base, body) = match base {
        None => (Base::Whole, data.clone()),
        Some((from, place)) => {
            let delta = make_delta(&version(from), &data, data.len()).unwrap();
            (Base::Near { block: place.block, slot: place.slot }, delta)
        }
    };
    lane.add(oid, Kind::Blob, data.len() as u64, base, &body).unwrap()
}

/// Each version stands on the one before, which is in the same lane or the other, whose open block may have an earlier number
/// or a later one; between them the blocks fill and change.
fn chain(ingest: &Ingest, count: u64) {
    let mut lanes = [ingest.lane(), ingest.lane()];
    let mut last = None;
    let mut places = Vec::new();
    for at in 0..count {
        let lane = &mut lanes[usize::from(at % 3 == 1)];
        let place = add(lane, at, last);
        let filler = noise(1000 + at, 20_000);
        let oid = hash_object(FORMAT, Kind::Blob, &filler).unwrap();
        lane.add(oid, Kind::Blob, filler.len() as u64, Base::Whole, &filler).unwrap();
        last = Some((at, place));
        places.push((place.block, place.slot));
    }
    assert!(places.is_sorted(), "bases come first: {places:?}");
    assert!(places.iter().zip(places.iter().skip(1)).any(|(base, delta)| base.0 == delta.0), "{places:?}");
    lanes.into_iter().for_each(|lane| lane.finish().unwrap());
}

#[track_caller]
fn assert_reads(repo: &Repo, count: u64) {
    let snapshot = repo.snapshot();
    // The last first: its whole chain is read.
    for at in (0..count).rev() {
        let data = version(at);
        let oid: Oid = hash_object(FORMAT, Kind::Blob, &data).unwrap();
        assert!(snapshot.object(&oid).unwrap().data == data, "version {at}");
    }
}

fn filled(store: &Store, durability: Durability) -> Repo {
    let repo = create(store, "a", durability);
    let ingest = repo.ingest();
    chain(&ingest, 60);
    let mut transaction = repo.begin("tester", Cause::Import);
    transaction.attach(ingest.finish().unwrap()).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    repo
}

#[test]
fn deltas_stand_on_records_of_other_lanes() {
    let store = open(&disk());
    assert_reads(&filled(&store, Durability::Memory), 60);

    let backend = disk();
    let store = open(&backend);
    let repo = filled(&store, Durability::Durable);
    assert_reads(&repo, 60);
    drop((repo, store));
    let backend = crash(&backend, Survivors::Synced);
    let store = open(&backend);
    let repo = store.repo(&repo_name("a")).unwrap();
    assert_reads(&repo, 60);
    // Compaction reads all in the order of its places, and verifies what it has written.
    let rewrite = repo.rewrite(3, MEMORY_BYTES, &Silent).unwrap();
    write(&rewrite);
    rewrite.install(&Silent).unwrap();
    assert_reads(&repo, 60);
}

#[test]
fn large_bodies_do_not_wait_for_the_next_one() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    let ingest = repo.ingest();
    let mut lane = ingest.lane();
    let data = noise(1, 5 << 20);
    let oid = hash_object(FORMAT, Kind::Blob, &data).unwrap();
    lane.add(oid, Kind::Blob, data.len() as u64, Base::Whole, &data).unwrap();
    let written = entries(&*backend, Family::Blocks, b"");
    assert!(!written.is_empty(), "it is with the backend before the lane ends");
}
