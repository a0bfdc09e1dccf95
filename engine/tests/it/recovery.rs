//! Opening after crashes, and on disks that hold what this program must not touch.

use std::time::Duration;

use govc_backends::{FaultBackend, FaultPlan, MemoryBackend, Survivors};
use govc_engine::{
    Cause, Durability, ErrorKind, Expected, Kind, RefName, Store, StoreOptions,
    backend::{Backend, Batch, Family, Sync},
    block::Base,
    hash_object,
};

use crate::helper::{
    FORMAT, branch, crash, create, disk, edit, entries, eventually, kind, message, noise, open, options, publish,
    repo_name, set, set_durably, settings,
};

/// A store with settled and unsettled writes, crashed with the first `kept` of its unsynced writes.
fn crashed(kept: usize) -> std::sync::Arc<FaultBackend> {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    for round in 0..3 {
        for at in 0..4 {
            set_durably(&repo, &branch(&format!("b{at}")), &format!("{round} {at}")).unwrap();
        }
        let mut transaction = repo.begin("tester", Cause::Push);
        transaction.edit(edit(&branch(&format!("b{round}")), Expected::Any, None)).unwrap();
        transaction.set_head(branch(&format!("head{round}")));
        publish(transaction).unwrap().ticket.wait().unwrap();
        store.settle();
    }
    set_durably(&repo, &RefName::tag("v1").unwrap(), "tagged").unwrap();
    store.settle();
    crash(&backend, Survivors::First(kept))
}

#[test]
fn every_prefix_of_the_unsynced_writes_opens_to_the_same_state() {
    for kept in 0..6 {
        let backend = crashed(kept);
        let store = open(&backend);
        check_crashed(&store, kept);
        store.settle();
        check_crashed(&open(&crash(&backend, Survivors::All)), kept);
    }
}

fn check_crashed(store: &Store, kept: usize) {
    let repo = store.repo(&repo_name("a")).unwrap();
    let snapshot = repo.snapshot();
    let names: Vec<_> = snapshot.references().map(|(name, _)| name.short().into_owned()).collect();
    assert_eq!(names, ["b0", "b1", "b3", "v1"], "{kept} kept");
    assert_eq!((snapshot.version().number, snapshot.head()), (17, &branch("head2")), "{kept} kept");
    assert_eq!(message(&repo, &branch("b3")).as_deref(), Some("2 3"), "{kept} kept");
    assert_eq!(message(&repo, &RefName::tag("v1").unwrap()).as_deref(), Some("tagged"), "{kept} kept");
}

#[test]
fn a_relaxed_repository_comes_back_as_it_was_at_some_moment() {
    for seed in 0..10 {
        let backend = disk();
        let options = StoreOptions { relaxed_delay_max: Duration::from_secs(3600), ..options() };
        let store = Store::open(backend.clone(), options).unwrap();
        let repo = create(&store, "a", Durability::Relaxed);
        for at in 2..40 {
            set(&repo, &branch("main"), Expected::Any, &format!("version {at}")).unwrap().1.ticket.wait().unwrap();
        }
        eventually("the journal has all", || store.stats().journal_transactions_total >= 39);
        let store = open(&crash(&backend, Survivors::Drawn(seed)));
        let repo = store.repo(&repo_name("a")).unwrap();
        let version = repo.stats().version;
        assert!((1..40).contains(&version));
        assert_eq!(message(&repo, &branch("main")), (version > 1).then(|| format!("version {version}")));
    }
}

#[test]
fn blocks_of_a_write_that_never_was_are_removed() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    let ingest = repo.ingest();
    let mut lane = ingest.lane();
    for seed in 0..40 {
        let data = noise(seed, 128 << 10);
        lane.add(hash_object(FORMAT, Kind::Blob, &data).unwrap(), Kind::Blob, data.len() as u64, Base::Whole, &data)
            .unwrap();
    }
    lane.finish().unwrap();
    let staged = ingest.finish().unwrap();
    assert!(
        !entries(&*backend, Family::Blocks, b"").is_empty() && !entries(&*backend, Family::Meta, b"intent/").is_empty()
    );
    let next = crash(&backend, Survivors::All);
    assert!(!entries(&*next, Family::Blocks, b"").is_empty(), "the crash kept them");
    let store = open(&next);
    assert!(entries(&*next, Family::Blocks, b"").is_empty() && entries(&*next, Family::Meta, b"intent/").is_empty());
    drop(staged);

    // The same when it is refused instead of cut off.
    let repo = store.repo(&repo_name("a")).unwrap();
    let ingest = repo.ingest();
    let mut lane = ingest.lane();
    lane.add(hash_object(FORMAT, Kind::Blob, b"x").unwrap(), Kind::Blob, 1, Base::Whole, b"x").unwrap();
    lane.finish().unwrap();
    let staged = ingest.finish().unwrap();
    assert_eq!(entries(&*next, Family::Meta, b"intent/").len(), 1);
    drop(staged);
    assert!(entries(&*next, Family::Blocks, b"").is_empty() && entries(&*next, Family::Meta, b"intent/").is_empty());
}

/// A disk whose journal and catalog hold something; `settled` says whether the journal is empty.
fn filled(settled: bool) -> MemoryBackend {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    set_durably(&repo, &branch("main"), "text").unwrap();
    if settled {
        store.close().unwrap();
    }
    backend.crash(Survivors::All).unwrap()
}

/// Opens a copy of `from` in which the values of a family that begin with `prefix` are changed.
fn reopen(
    from: &MemoryBackend,
    family: Family,
    prefix: &[u8],
    change: impl Fn(&mut Vec<u8>),
) -> govc_engine::Result<Store> {
    let backend = FaultBackend::over(from, FaultPlan::none()).unwrap();
    let found = entries(&backend, family, prefix);
    assert!(!found.is_empty(), "{} holds something", family.name());
    let mut batch = Batch::new();
    for (key, value) in found {
        let mut value = value.to_vec();
        change(&mut value);
        batch.put(family, key.to_vec(), value);
    }
    backend.write(batch, Sync::Yes).unwrap();
    Store::open(std::sync::Arc::new(backend), options())
}

#[test]
fn newer_formats_and_damage_are_refused() {
    let (journal, settled) = (filled(false), filled(true));
    assert!(
        reopen(&journal, Family::Journal, b"", |_| {}).is_ok()
            && reopen(&settled, Family::Catalog, b"", |_| {}).is_ok()
    );
    let newer = |value: &mut Vec<u8>| {
        value[0] += 1;
        let body = value.len() - 4;
        let crc = crc32c::crc32c(&value[..body]);
        value[body..].copy_from_slice(&crc.to_le_bytes());
    };
    let error = reopen(&settled, Family::Meta, b"format", |value| *value = b"govc store 4".to_vec()).err().unwrap();
    assert_eq!(error.kind(), &ErrorKind::Corrupt);
    assert!(error.message().contains("govc store 4") && error.message().contains("govc store 1"), "{error}");
    for (from, family) in [(&journal, Family::Journal), (&settled, Family::Catalog)] {
        let error = reopen(from, family, b"", newer).err().unwrap();
        assert_eq!(error.kind(), &ErrorKind::Corrupt, "{}", family.name());
        assert!(error.message().contains("version 3"), "{error}");
        for at in [0, 3, 9] {
            assert_eq!(kind(reopen(from, family, b"", |value| value[at] ^= 0x10)), ErrorKind::Corrupt, "byte {at}");
            assert_eq!(kind(reopen(from, family, b"", |value| value.truncate(at))), ErrorKind::Corrupt, "cut at {at}");
        }
    }
    let foreign = MemoryBackend::new();
    let mut batch = Batch::new();
    batch.put(Family::Catalog, b"12345678".to_vec(), &b"?"[..]);
    foreign.write(batch, Sync::Yes).unwrap();
    assert_eq!(kind(Store::open(std::sync::Arc::new(foreign), options())), ErrorKind::Corrupt);
    let small = StoreOptions { memory_budget_bytes: 1 << 20, ..options() };
    assert_eq!(kind(Store::open(disk(), small)), ErrorKind::Invalid);
}

#[test]
fn a_damaged_block_is_an_error_of_the_reader() {
    let settled = filled(true);
    let store = reopen(&settled, Family::Blocks, b"", |value| value[8] ^= 1).unwrap();
    let snapshot = store.repo(&repo_name("a")).unwrap().snapshot();
    let oid = snapshot.reference(&branch("main")).unwrap();
    assert_eq!(kind(snapshot.object(&oid)), ErrorKind::Corrupt);
}

#[test]
fn the_catalog_survives_with_its_settings() {
    let backend = disk();
    let store = open(&backend);
    create(&store, "a", Durability::Durable);
    let b = create(&store, "b", Durability::Relaxed);
    let altered = govc_engine::RepoSettings {
        description: "text".to_owned(),
        default_branch: branch("trunk"),
        durability: Durability::Durable,
        git: govc_engine::GitRules {
            deny_deletes: true,
            object_bytes_max: Some(1 << 40),
            hidden_refs: vec!["refs/internal".to_owned()],
            ..Default::default()
        },
        object_format: FORMAT,
    };
    let taken = store.alter(&repo_name("b"), Some(&repo_name("a")), Some(altered.clone()));
    assert_eq!(kind(taken), ErrorKind::Exists);
    let memory = govc_engine::RepoSettings { durability: Durability::Memory, ..settings() };
    let impossible = store.alter(&repo_name("b"), Some(&repo_name("c")), Some(memory));
    assert_eq!(kind(impossible), ErrorKind::Invalid);
    assert_eq!((b.settings().durability, b.name()), (Durability::Relaxed, repo_name("b")), "all or nothing");
    store.alter(&repo_name("b"), Some(&repo_name("y/b")), Some(altered.clone())).unwrap();
    store.alter(&repo_name("y/b"), Some(&repo_name("x/b")), None).unwrap();
    store.delete(&repo_name("a")).unwrap();
    let store = open(&crash(&backend, Survivors::Synced));
    let names: Vec<_> = store.list(None, 10).iter().map(|repo| repo.name().to_string()).collect();
    assert_eq!(names, ["x/b"]);
    let repo = store.repo(&repo_name("x/b")).unwrap();
    assert_eq!((repo.settings(), repo.id()), (altered, b.id()));
    let fresh = create(&store, "a", Durability::Durable);
    assert!(fresh.id() > b.id() && fresh.stats().references == 0);
    let memory = govc_engine::RepoSettings { durability: Durability::Memory, ..settings() };
    assert_eq!(kind(store.alter(&repo_name("a"), None, Some(memory))), ErrorKind::Invalid);
}
