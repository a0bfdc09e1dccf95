//! The check of a whole store: what is whole is found whole, and each kind of damage is named where it is.

use std::sync::Arc;

use bytes::Bytes;
use govc_backends::{FaultBackend, MemoryBackend, OverlayBackend, Survivors};
use govc_engine::{
    Certified, Change, CommitRequest, Durability, ErrorKind, Fsck, Kind, NonceStatus, Oid, Progress, SignatureStatus,
    Silent, Size, Sizes, Store,
    backend::{Backend, Batch, Family, Scan, Sync},
    hash_object,
};

use crate::helper::{
    FORMAT, branch, commit_bytes, create, disk, entries, kind, noise, open, options, publish, repo_name, signature,
};

fn check(disk: &MemoryBackend) -> Fsck {
    let before = rows(disk);
    let overlay = Arc::new(OverlayBackend::new(Arc::new(disk.fork().unwrap())));
    let found = Fsck::run(overlay, options(), &Silent).unwrap();
    assert_eq!(found.findings.len() as u64, found.findings_total);
    assert_eq!(rows(disk), before);
    found
}

fn rows(disk: &MemoryBackend) -> Vec<(Bytes, Bytes)> {
    Family::ALL.into_iter().flat_map(|family| entries(disk, family, b"")).collect()
}

fn commit(store: &Store, name: &str, path: &str, content: Vec<u8>) -> Oid {
    let changes = vec![Change::put(path, content)];
    let request = CommitRequest::new(branch("main"), path, signature(1), changes);
    let committed = store.repo(&repo_name(name)).unwrap().commit(request).unwrap();
    committed.published.ticket.wait().unwrap();
    committed.oid
}

/// A store with a fork of a deleted repository, a reality, a block in parts, and writes that are not settled.
fn whole() -> MemoryBackend {
    let backend = disk();
    let store = open(&backend);
    for name in ["source", "other"] {
        create(&store, name, Durability::Durable);
    }
    for at in 0..10 {
        commit(&store, "source", &format!("dir/file{at}"), format!("text {at}").into_bytes());
    }
    commit(&store, "other", "large", noise(1, 9 << 20));
    store.settle();
    store.fork(&repo_name("source"), &repo_name("fork"), "tester").unwrap();
    store.delete(&repo_name("source")).unwrap();
    store.settle();
    commit(&store, "fork", "dir/more", b"more".to_vec());
    store.settle();
    commit(&store, "fork", "dir/unsettled", b"unsettled".to_vec());
    backend.crash(Survivors::All).unwrap()
}

#[test]
fn a_whole_store_is_clean() {
    let disk = whole();
    let found = check(&disk);
    assert_eq!(found.findings, Vec::<String>::new());
    assert!(found.is_clean());
    assert_eq!((found.repositories, found.references), (2, 2));
    // Commit, root, directory and file each, two trees and a file less for "other".
    assert_eq!(found.objects, 10 * 4 + 3 + 2 * 4);
    assert!(found.object_bytes > 9 << 20);
    assert_eq!(found.rows, rows(&disk).len() as u64);
    assert!(found.blocks >= 3);
}

/// The findings after one value has been changed, or removed.
fn after(family: Family, choose: impl Fn(&[u8]) -> bool, change: impl Fn(&mut [u8]) -> bool) -> Vec<String> {
    let disk = whole();
    let (row_key, value) = entries(&disk, family, b"").into_iter().find(|(key, _)| choose(key)).expect("a row");
    let mut value = value.to_vec();
    let mut batch = Batch::new();
    match change(&mut value) {
        true => batch.put(family, row_key.to_vec(), value),
        false => batch.delete(family, row_key.to_vec()),
    }
    disk.write(batch, Sync::Yes).unwrap();
    let found = check(&disk);
    assert!(!found.is_clean());
    found.findings
}

fn flip(value: &mut [u8]) -> bool {
    let middle = value.len() / 2;
    value[middle] ^= 1;
    true
}

#[track_caller]
fn assert_told(findings: &[String], words: &[&str]) {
    let told = findings.iter().any(|finding| words.iter().all(|word| finding.contains(word)));
    assert!(told, "{words:?} in {findings:#?}");
}

#[test]
fn damage_is_named_where_it_is() {
    assert_told(&after(Family::Catalog, |_| true, flip), &["catalog row", "checksum"]);
    assert_told(&after(Family::Catalog, |_| true, flip), &["cannot be opened"]);
    assert_told(&after(Family::Journal, |_| true, flip), &["journal row", "checksum"]);
    assert_told(&after(Family::History, |key| key[0] == b'v', flip), &["history row v", "checksum"]);
    assert_told(&after(Family::History, |key| key[0] == b'f', flip), &["history row f", "checksum"]);
    let blocks = after(Family::Blocks, |_| true, flip);
    assert_told(&blocks, &["blocks row"]);
    assert_told(&blocks, &["repository ", ": object ", "checksum"]);
    let part = after(Family::Blocks, |key| key.ends_with(&[0, 1]), |_| false);
    assert_told(&part, &["blocks row", "part 1 is missing"]);
    let row = after(
        Family::Ids,
        |_| true,
        |value| {
            value[0] = 0xff;
            true
        },
    );
    assert_told(&row, &["ids row", "version 15"]);
    let wrong_size = after(
        Family::Ids,
        |_| true,
        |value| {
            value[1] ^= 1;
            true
        },
    );
    assert_told(&wrong_size, &["object", "bytes instead of"]);
}

#[test]
fn two_objects_that_took_each_others_place_are_found() {
    let disk = whole();
    let ids: Vec<_> = entries(&disk, Family::Ids, b"").into_iter().take(2).collect();
    let mut batch = Batch::new();
    batch.put(Family::Ids, ids[0].0.to_vec(), ids[1].1.clone());
    batch.put(Family::Ids, ids[1].0.to_vec(), ids[0].1.clone());
    disk.write(batch, Sync::Yes).unwrap();
    assert_told(&check(&disk).findings, &["object ", ": it is "]);
}

#[test]
fn a_hole_is_told_where_a_reference_reaches_it() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    commit(&store, "a", "dir/file", b"text".to_vec());
    let file = govc_engine::hash_object(FORMAT, Kind::Blob, b"text").unwrap();
    // Something that nobody reaches and that was never whole.
    let mut transaction = repo.begin("tester", govc_engine::Cause::Api);
    let missing = Oid::from_hex("11".repeat(FORMAT.len()).as_bytes()).unwrap();
    transaction.put(Kind::Commit, commit_bytes(missing, &[], 1, "unreached")).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    let mut transaction = repo.begin("tester", govc_engine::Cause::Push);
    let certified = Certified {
        text: Bytes::from_static(b"signed"),
        nonce: NonceStatus::Ok,
        signature: SignatureStatus::Unchecked,
        key: "".into(),
        signer: "".into(),
    };
    transaction.certify(certified).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    let certificate = hash_object(FORMAT, Kind::Blob, b"signed").unwrap();
    store.settle();
    let disk = backend.crash(Survivors::All).unwrap();
    assert_eq!(check(&disk).findings, Vec::<String>::new());

    let remove = |oid: Oid| {
        let disk = disk.fork().unwrap();
        let row = entries(&disk, Family::Ids, b"").into_iter().find(|(key, _)| key.ends_with(oid.as_bytes()));
        let mut batch = Batch::new();
        batch.delete(Family::Ids, row.expect("its row").0.to_vec());
        disk.write(batch, Sync::Yes).unwrap();
        check(&disk).findings
    };
    let findings = remove(file);
    assert_told(&findings, &["repository a: refs/heads/main reaches", &file.to_string(), "missing"]);
    assert_eq!(findings.len(), 1, "{findings:?}");
    let head = store_head(&disk);
    let findings = remove(head);
    assert_told(&findings, &["repository a: refs/heads/main points at", &head.to_string(), "missing"]);
    assert_eq!(findings.len(), 1, "{findings:?}");
    let findings = remove(certificate);
    assert_told(&findings, &["repository a: the push certificate", &certificate.to_string(), "missing"]);
    assert_eq!(findings.len(), 1, "{findings:?}");
}

fn store_head(disk: &MemoryBackend) -> Oid {
    let disk = Arc::new(OverlayBackend::new(Arc::new(disk.fork().unwrap())));
    let store = Store::open(disk, options()).unwrap();
    store.repo(&repo_name("a")).unwrap().snapshot().reference(&branch("main")).unwrap()
}

#[test]
fn objects_of_no_repository_are_told() {
    let disk = whole();
    let (row_key, value) = entries(&disk, Family::Ids, b"").remove(0);
    let mut batch = Batch::new();
    batch.put(Family::Ids, [&99_u64.to_be_bytes()[..], &row_key[8..]].concat(), value);
    disk.write(batch, Sync::Yes).unwrap();
    assert_told(&check(&disk).findings, &["1 objects belong to repository 99, which is unknown"]);
}

/// Asks for the end at once.
struct Ended;

impl Progress for Ended {
    fn begin(&self, _what: &str, _bytes: Option<u64>) {}

    fn advance(&self, _bytes: u64) {}

    fn end(&self) {}

    fn is_cancelled(&self) -> bool {
        true
    }
}

#[test]
fn it_ends_on_request_and_tells_failures_of_the_backend() {
    let overlay = || Arc::new(OverlayBackend::new(Arc::new(whole())));
    assert_eq!(kind(Fsck::run(overlay(), options(), &Ended)), ErrorKind::Cancelled);
    let closed: Arc<FaultBackend> = disk();
    closed.close().unwrap();
    assert_eq!(kind(Fsck::run(closed, options(), &Silent)), ErrorKind::Closed);
}

#[test]
fn sizes_add_up_by_family_and_repository() {
    let disk = whole();
    let sizes = Sizes::of(&disk, &Silent).unwrap();
    for family in Family::ALL {
        let rows: Vec<_> = disk.scan(family, Scan::all()).unwrap().map(Result::unwrap).collect();
        let bytes = rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        assert_eq!(sizes.families[family as usize], Size { rows: rows.len() as u64, bytes }, "{}", family.name());
        let of_repositories: u64 = sizes.repositories.iter().map(|repo| repo.families[family as usize].rows).sum();
        let shared = match family {
            Family::Journal | Family::Meta => rows.len(),
            Family::History => rows.iter().filter(|(key, _)| key[0] == b'f').count(),
            _ => 0,
        };
        assert_eq!(of_repositories, (rows.len() - shared) as u64, "{}", family.name());
    }
    let names: Vec<_> = sizes.repositories.iter().map(|repo| repo.name.as_ref().map(ToString::to_string)).collect();
    assert_eq!(names[0].as_deref(), Some("other"), "nine MiB");
    assert_eq!((names.len(), names.contains(&None)), (3, true), "the deleted source still holds its fork's objects");
    assert_eq!(kind(Sizes::of(&disk, &Ended)), ErrorKind::Cancelled);
}
