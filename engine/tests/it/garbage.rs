//! Garbage: what nothing leads to goes, and nothing else, whoever needs it at the last moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;
use govc_backends::{FaultBackend, Survivors};
use govc_engine::{
    At, Cause, Certified, Change, CommitRequest, Durability, ErrorKind, Expected, Family, Kind, NewRealities,
    NonceStatus, Oid, RefName, Repo, Retention, Rewrite, Rewritten, SignatureStatus, Silent, Store, StoreOptions,
    Tracer,
    backend::{Backend, Batch, Sync},
    block::Base,
    hash_object,
    object::links,
};

use crate::{
    helper::{
        FORMAT, Gate, branch, commit_bytes, crash, create, disk, edit, entries, kind, options, publish, repo_name,
        signature,
    },
    rewrite::{Finally, MEMORY_BYTES, assert_clean, intents, pool, segments, write},
};

/// Only the newest version is retained.
fn forgetful() -> StoreOptions {
    retaining(0)
}

fn retaining(count_max: u64) -> StoreOptions {
    StoreOptions { retention: Retention { count_max, ..Retention::default() }, ..options() }
}

fn open(backend: &Arc<FaultBackend>) -> Store {
    Store::open(backend.clone(), forgetful()).unwrap()
}

struct Untraced;

impl Tracer for Untraced {
    fn below(&mut self, _: u32, _: &[u8]) -> u32 {
        1
    }
    fn met(&mut self, _: usize, _: u32) {}
}

fn begun(repo: &Repo) -> Rewrite {
    let mut rewrite = repo.rewrite(3, MEMORY_BYTES, &Silent).unwrap();
    rewrite.follow(&mut Untraced, &Silent).unwrap();
    write(&rewrite);
    rewrite
}

fn collected(repo: &Repo) -> Rewritten {
    begun(repo).install(&Silent).unwrap()
}

/// Commits a file in a directory of its own on a branch that begins at the commit of `main`, if there is one.
fn commit(repo: &Repo, on: &str, path: &str, content: &str) -> Oid {
    let request = CommitRequest::new(branch(on), path, signature(1), vec![Change::put(path, content.to_owned())]);
    let create_branch_from = repo.snapshot().reference(&branch("main"));
    let committed = repo.commit(CommitRequest { create_branch_from, ..request }).unwrap();
    committed.published.ticket.wait().unwrap();
    committed.oid
}

fn point(repo: &Repo, name: &RefName, target: Option<Oid>) -> govc_engine::Result<()> {
    let mut transaction = repo.begin("tester", Cause::Api);
    transaction.edit(edit(name, Expected::Any, target))?;
    publish(transaction)?.ticket.wait()
}

fn delete(repo: &Repo, name: &str) {
    point(repo, &branch(name), None).unwrap();
}

/// All that an object leads to, itself included.
fn closure(repo: &Repo, oid: Oid) -> BTreeMap<Oid, (Kind, Bytes)> {
    let (snapshot, mut found, mut open) = (repo.snapshot(), BTreeMap::new(), vec![oid]);
    while let Some(oid) = open.pop() {
        if found.contains_key(&oid) {
            continue;
        }
        let object = snapshot.object(&oid).unwrap();
        open.extend(links(FORMAT, object.kind, &object.data).unwrap().targets.iter().map(|(target, _)| *target));
        found.insert(oid, (object.kind, object.data));
    }
    found
}

#[track_caller]
fn assert_there(repo: &Repo, oids: &BTreeMap<Oid, (Kind, Bytes)>) {
    for (oid, (_, data)) in oids {
        assert_eq!(repo.snapshot().object(oid).unwrap().data, *data, "{oid}");
    }
}

fn stored(repo: &Repo) -> BTreeSet<Oid> {
    repo.stored_ids().unwrap().into_iter().collect()
}

fn put_into_index(repo: &Repo, store: &Store) {
    store.settle();
    assert_eq!(collected(repo).removed, 0);
}

/// A repository with a branch `main` and one that was deleted: its tip, and what is its alone.
fn littered(store: &Store, name: &str) -> (Repo, Oid, BTreeMap<Oid, (Kind, Bytes)>) {
    littered_with(store, name, 3, false)
}

/// With everything in an index, if `is_indexed`, when the branch is deleted.
fn littered_with(
    store: &Store,
    name: &str,
    commits: usize,
    is_indexed: bool,
) -> (Repo, Oid, BTreeMap<Oid, (Kind, Bytes)>) {
    let repo = create(store, name, Durability::Durable);
    for at in 0..3 {
        commit(&repo, "main", &format!("src/file{at}"), &format!("of main {at}\n"));
    }
    let mut tip = FORMAT.empty_tree();
    for at in 0..commits {
        tip = commit(&repo, "gone", &format!("aside/deep/file{at}"), &format!("of the branch that goes {at}\n"));
    }
    let main = closure(&repo, repo.snapshot().reference(&branch("main")).unwrap());
    let mut garbage = closure(&repo, tip);
    garbage.retain(|oid, _| !main.contains_key(oid));
    if is_indexed {
        put_into_index(&repo, store);
    }
    delete(&repo, "gone");
    store.settle();
    (repo, tip, garbage)
}

#[test]
fn what_nothing_leads_to_goes_and_nothing_else() {
    [false, true].into_iter().for_each(nothing_else_goes);
}

fn nothing_else_goes(is_indexed: bool) {
    let backend = disk();
    let store = open(&backend);
    let (repo, tip, garbage) = littered_with(&store, "a", 3, is_indexed);
    let main = closure(&repo, repo.snapshot().reference(&branch("main")).unwrap());
    assert_eq!(garbage.len(), 15, "three commits, each with three trees and a file");
    repo.snapshot().object(&tip).unwrap();
    let done = collected(&repo);
    assert_eq!((done.removed, done.objects), (garbage.len() as u64, main.len() as u64));
    assert_eq!(done.removed_bytes, garbage.values().map(|(_, data)| data.len() as u64).sum::<u64>());
    assert_eq!(stored(&repo), main.keys().copied().collect());
    assert_eq!((segments(&*backend, &repo).len(), intents(&*backend)), (1, 0));
    // Not from memory either.
    for oid in garbage.keys() {
        assert!(repo.snapshot().try_object(oid).unwrap().is_none(), "{oid}");
    }
    assert_eq!(kind(point(&repo, &branch("again"), Some(tip))), ErrorKind::NotFound);
    assert_there(&repo, &main);
    assert_eq!(collected(&repo).removed, 0);
    // It can come back.
    let mut transaction = repo.begin("tester", Cause::Api);
    for (kind, data) in garbage.values() {
        transaction.put(*kind, data.clone()).unwrap();
    }
    transaction.edit(edit(&branch("gone"), Expected::Absent, Some(tip))).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    store.settle();
    assert_eq!(collected(&repo).removed, 0);
    drop((repo, store));
    let next = crash(&backend, Survivors::All);
    let store = open(&next);
    let repo = store.repo(&repo_name("a")).unwrap();
    assert_there(&repo, &main);
    assert_there(&repo, &garbage);
    store.close().unwrap();
    assert_clean(&next.crash(Survivors::All).unwrap(), "at the end");
}

#[test]
fn without_a_walk_nothing_goes() {
    let backend = disk();
    let store = open(&backend);
    let (repo, _, garbage) = littered(&store, "a");
    let rewrite = repo.rewrite(3, MEMORY_BYTES, &Silent).unwrap();
    write(&rewrite);
    assert_eq!(rewrite.install(&Silent).unwrap().removed, 0);
    assert_there(&repo, &garbage);
}

/// Makes a version with a push certificate; the blob's id, which nothing else leads to.
fn certify(repo: &Repo, text: &str, target: Oid) -> Oid {
    let mut transaction = repo.begin("tester", Cause::Push);
    let certified = Certified {
        text: Bytes::copy_from_slice(text.as_bytes()),
        nonce: NonceStatus::Slop(-7),
        signature: SignatureStatus::Verified,
        key: "SHA256:x".into(),
        signer: "ada".into(),
    };
    transaction.certify(certified).unwrap();
    transaction.edit(edit(&branch("certified"), Expected::Any, Some(target))).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    hash_object(FORMAT, Kind::Blob, text.as_bytes()).unwrap()
}

#[test]
fn a_certificate_stays_as_long_as_its_version() {
    let backend = disk();
    let store = Store::open(backend.clone(), retaining(2)).unwrap();
    let repo = create(&store, "a", Durability::Durable);
    let first = commit(&repo, "main", "file", "one");
    let oid = certify(&repo, "a certificate", first);
    let number = repo.snapshot().version().number;
    let recorded = |repo: &Repo| {
        let found = repo.versions(Some(number + 1), 1).unwrap().remove(0);
        assert_eq!(found.version, number);
        let certificate = found.certificate.expect("a certificate");
        assert_eq!((certificate.oid, certificate.nonce), (oid, NonceStatus::Slop(-7)));
        assert_eq!((&*certificate.key, &*certificate.signer), ("SHA256:x", "ada"));
        assert_eq!(&repo.snapshot().object(&oid).unwrap().data[..], b"a certificate");
    };
    // On its way, settled, and after a crash in either state.
    recorded(&repo);
    drop((repo, store));
    let backend = crash(&backend, Survivors::Synced);
    let store = Store::open(backend.clone(), retaining(2)).unwrap();
    let repo = store.repo(&repo_name("a")).unwrap();
    recorded(&repo);
    assert_eq!(collected(&repo).removed, 0, "while it is not settled");
    store.settle();
    recorded(&repo);
    let feed = store.feed_after(store.feed_first(), 100).unwrap();
    assert_eq!(feed.iter().filter(|publication| publication.certificate.is_some()).count(), 1);
    for at in 0..2 {
        commit(&repo, "main", "file", &at.to_string());
        store.settle();
        assert_eq!(collected(&repo).removed, 0, "{at}");
        recorded(&repo);
    }
    drop((repo, store));
    let next = crash(&backend, Survivors::All);
    let store = Store::open(next.clone(), retaining(2)).unwrap();
    let repo = store.repo(&repo_name("a")).unwrap();
    recorded(&repo);
    commit(&repo, "main", "file", "more");
    store.settle();
    collected(&repo);
    assert!(!repo.snapshot().contains(&oid).unwrap(), "it goes with its version");
    // The same text once more.
    let again = certify(&repo, "a certificate", repo.snapshot().reference(&branch("main")).unwrap());
    assert_eq!(again, oid);
    store.settle();
    assert_eq!(&repo.snapshot().object(&oid).unwrap().data[..], b"a certificate");
    store.close().unwrap();
    assert_clean(&next.crash(Survivors::All).unwrap(), "at the end");
}

#[test]
fn what_a_retained_version_leads_to_stays_until_it_is_forgotten() {
    let backend = disk();
    let store = Store::open(backend.clone(), retaining(3)).unwrap();
    let (repo, tip, garbage) = littered(&store, "a");
    let version = repo.snapshot().version().number - 1;
    assert_eq!(repo.at(At::Version(version), None).unwrap().reference(&branch("gone")), Some(tip));
    assert_eq!(collected(&repo).removed, 0);
    for at in 0..3 {
        assert_there(&repo, &garbage);
        commit(&repo, "main", "count", &at.to_string());
        store.settle();
        let is_retained = repo.at(At::Version(version), None).is_ok();
        assert_eq!(is_retained, at < 2);
        // Older tips of the branch are forgotten first.
        let removed = collected(&repo).removed;
        assert_eq!(removed > 0, !is_retained, "{at}: {removed}");
    }
    for oid in garbage.keys() {
        assert!(!repo.snapshot().contains(oid).unwrap(), "{oid}");
    }
}

#[test]
fn what_a_reader_holds_stays() {
    let backend = disk();
    let store = Store::open(backend.clone(), retaining(1)).unwrap();
    let repo = create(&store, "a", Durability::Durable);
    commit(&repo, "main", "file", "of main");
    let tip = commit(&repo, "gone", "aside/file", "of the branch that goes");
    let all = closure(&repo, tip);
    // One that had it for the newest, one that goes back to it, one that stages upon it.
    let newest = repo.snapshot();
    let staging = repo.stage(branch("gone")).unwrap();
    delete(&repo, "gone");
    let back = repo.at(At::Version(newest.version().number), None).unwrap();
    for at in 0..4 {
        commit(&repo, "main", "count", &at.to_string());
        store.settle();
    }
    assert_eq!(kind(repo.at(At::Version(newest.version().number), None)), ErrorKind::Gone);
    let check = |repo: &Repo| {
        collected(repo);
        assert_there(repo, &all);
    };
    check(&repo);
    drop(newest);
    check(&repo);
    drop(staging);
    check(&repo);
    drop(back);
    assert!(collected(&repo).removed > 0);
    assert!(!repo.snapshot().contains(&tip).unwrap());
    // A version that was the newest for longer than one settling.
    let tip = commit(&repo, "gone", "aside/file", "once more");
    store.settle();
    let newest = repo.snapshot();
    let all = closure(&repo, tip);
    delete(&repo, "gone");
    for at in 4..8 {
        commit(&repo, "main", "count", &at.to_string());
    }
    store.settle();
    collected(&repo);
    assert_there(&repo, &all);
    drop(newest);
    collected(&repo);
    assert!(!repo.snapshot().contains(&tip).unwrap());
}

#[test]
fn what_realities_and_tags_lead_to_stays() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    commit(&repo, "main", "file", "of main");
    let base = commit(&repo, "base", "aside/file", "where realities begin");
    let side = commit(&repo, "side", "aside/other", "what one was moved to");
    let one = RefName::new("refs/realities/one").unwrap();
    let new = NewRealities {
        names: vec![one.clone()],
        base,
        version: repo.snapshot().version().number,
        from: None,
        ttl: None,
        actor: "tester".to_owned(),
    };
    repo.create_realities(new).unwrap().ticket.wait().unwrap();
    point(&repo, &one, Some(side)).unwrap();
    delete(&repo, "side");
    delete(&repo, "base");
    store.settle();
    // What it is at, and what it began at, which it is compared with.
    assert_eq!(collected(&repo).removed, 0);
    point(&repo, &one, None).unwrap();
    store.settle();
    let tree = repo.snapshot().commit(&base).unwrap().tree;
    let tag = RefName::new("refs/tags/tree").unwrap();
    point(&repo, &tag, Some(tree)).unwrap();
    store.settle();
    collected(&repo);
    assert!(repo.snapshot().contains(&tree).unwrap() && !repo.snapshot().contains(&base).unwrap());
}

#[test]
fn a_fork_keeps_what_it_can_see_and_one_that_begins_ends_a_collection() {
    let backend = disk();
    let store = open(&backend);
    let (repo, tip, garbage) = littered(&store, "a");
    let rewrite = begun(&repo);
    assert!(rewrite.objects().iter().enumerate().any(|(at, _)| rewrite.is_left_out(at)));
    let fork = store.fork(&repo_name("a"), &repo_name("fork"), "tester").unwrap();
    let done = rewrite.install(&Silent).unwrap();
    assert_eq!(done.removed, 0);
    assert_there(&repo, &garbage);
    // The fork may point at it as before.
    point(&fork, &branch("again"), Some(tip)).unwrap();
    assert_eq!(collected(&repo).removed, 0);
    assert_there(&fork, &garbage);
    // The fork's own garbage goes.
    let own = commit(&fork, "own", "file", "of the fork");
    delete(&fork, "own");
    store.settle();
    assert_eq!(collected(&fork).removed, 3);
    assert!(!fork.snapshot().contains(&own).unwrap());
    assert_there(&fork, &garbage);
    store.delete(&repo_name("fork")).unwrap();
    store.settle();
    assert_eq!(collected(&repo).removed, garbage.len() as u64);
    store.close().unwrap();
    assert_clean(&backend.crash(Survivors::All).unwrap(), "without forks");
}

/// Whoever needs it at the last moment: after it was found that nothing leads to it, before it goes.
#[test]
fn what_is_needed_again_stays_with_all_it_leads_to() {
    for way in 0..5 {
        let backend = disk();
        let store = open(&backend);
        let (repo, tip, garbage) = littered(&store, "a");
        if way == 4 {
            // Rows say since when, and an older one stays as it is.
            store.fork(&repo_name("a"), &repo_name("fork"), "tester").unwrap();
            store.delete(&repo_name("fork")).unwrap();
            store.settle();
        }
        let rewrite = begun(&repo);
        match way {
            // A branch.
            0 => point(&repo, &branch("again"), Some(tip)).unwrap(),
            // A commit on it.
            1 => {
                let tree = repo.snapshot().commit(&tip).unwrap().tree;
                let mut transaction = repo.begin("tester", Cause::Api);
                let oid = transaction.put(Kind::Commit, commit_bytes(tree, &[tip], 9, "on it")).unwrap();
                transaction.edit(edit(&branch("again"), Expected::Absent, Some(oid))).unwrap();
                publish(transaction).unwrap().ticket.wait().unwrap();
            }
            // One of its trees in another commit, in a segment.
            2 => {
                let tree = repo.snapshot().commit(&tip).unwrap().tree;
                let data = commit_bytes(tree, &[], 9, "its tree");
                let oid = govc_engine::hash_object(FORMAT, Kind::Commit, &data).unwrap();
                let ingest = repo.ingest();
                let mut lane = ingest.lane();
                lane.add(oid, Kind::Commit, data.len() as u64, Base::Whole, &data).unwrap();
                lane.finish().unwrap();
                let mut transaction = repo.begin("tester", Cause::Push);
                transaction.attach(ingest.finish().unwrap()).unwrap();
                transaction.edit(edit(&branch("again"), Expected::Absent, Some(oid))).unwrap();
                publish(transaction).unwrap().ticket.wait().unwrap();
            }
            // It is brought once more, but not all of it.
            _ => {
                let mut transaction = repo.begin("tester", Cause::Api);
                for (kind, data) in garbage.values().filter(|(kind, _)| *kind != Kind::Blob) {
                    transaction.put(*kind, data.clone()).unwrap();
                }
                transaction.edit(edit(&branch("again"), Expected::Absent, Some(tip))).unwrap();
                publish(transaction).unwrap().ticket.wait().unwrap();
            }
        }
        if way % 2 == 0 {
            store.settle();
        }
        rewrite.install(&Silent).unwrap();
        let needed = closure(&repo, repo.snapshot().reference(&branch("again")).unwrap());
        assert!(needed.len() > 7, "way {way}");
        store.settle();
        drop((repo, store));
        let next = crash(&backend, Survivors::All);
        let store = open(&next);
        let repo = store.repo(&repo_name("a")).unwrap();
        assert_there(&repo, &needed);
        collected(&repo);
        assert_there(&repo, &needed);
        assert_eq!(segments(&*next, &repo).len(), 1, "way {way}");
        store.close().unwrap();
        assert_clean(&next.crash(Survivors::All).unwrap(), &format!("way {way}"));
    }
}

/// Checked before it went, published after.
#[test]
fn who_comes_too_late_is_told() {
    let backend = disk();
    let store = open(&backend);
    let (repo, tip, garbage) = littered(&store, "a");
    let rewrite = begun(&repo);
    let tree = repo.snapshot().commit(&tip).unwrap().tree;
    let mut late = repo.begin("tester", Cause::Api);
    let oid = late.put(Kind::Commit, commit_bytes(tree, &[], 9, "late")).unwrap();
    late.edit(edit(&branch("late"), Expected::Absent, Some(oid))).unwrap();
    let late = late.prepare().unwrap();
    let mut directly = repo.begin("tester", Cause::Api);
    directly.edit(edit(&branch("directly"), Expected::Absent, Some(tip))).unwrap();
    let directly = directly.prepare().unwrap();
    // A third brings all of it, and is refused for another reason.
    let mut failing = repo.begin("tester", Cause::Api);
    for (kind, data) in garbage.values() {
        failing.put(*kind, data.clone()).unwrap();
    }
    failing.edit(edit(&branch("main"), Expected::Absent, Some(tip))).unwrap();
    assert!(matches!(kind(failing.prepare()), ErrorKind::Conflict(_)));

    let (ingest, seen) = (repo.ingest(), repo.snapshot());
    assert_eq!(rewrite.install(&Silent).unwrap().removed, garbage.len() as u64);
    // A segment that was begun, and perhaps checked, before.
    let data = commit_bytes(tree, &[], 9, "its tree");
    let pushed = govc_engine::hash_object(FORMAT, Kind::Commit, &data).unwrap();
    let mut lane = ingest.lane();
    lane.add(pushed, Kind::Commit, data.len() as u64, Base::Whole, &data).unwrap();
    lane.finish().unwrap();
    let mut push = repo.begin("tester", Cause::Push);
    push.attach(ingest.finish().unwrap()).unwrap();
    push.edit(edit(&branch("push"), Expected::Absent, Some(pushed))).unwrap();
    assert_eq!(kind(publish(push)), ErrorKind::NotFound);
    // A small push, whose objects ride with the transaction, which is begun when all is checked.
    let mut push = repo.begin("tester", Cause::Push);
    push.relies_on(&seen);
    push.put_hashed(pushed, Kind::Commit, data);
    push.edit(edit(&branch("push"), Expected::Absent, Some(pushed))).unwrap();
    assert_eq!(kind(publish(push)), ErrorKind::NotFound);
    for late in [late, directly] {
        assert_eq!(kind(late.publish()), ErrorKind::NotFound);
    }
    assert_eq!(repo.snapshot().reference(&branch("late")), None);
    store.settle();
    assert_clean(&backend.crash(Survivors::All).unwrap(), "after those who came late");
}

/// Whether everything that is stored is there with all that it leads to.
fn is_complete(repo: &Repo) -> bool {
    let stored = stored(repo);
    stored.iter().all(|oid| {
        let object = repo.snapshot().object(oid).unwrap();
        let links = links(FORMAT, object.kind, &object.data).unwrap();
        links.targets.iter().all(|(target, _)| stored.contains(target) || *target == FORMAT.empty_tree())
    })
}

#[test]
fn a_crash_at_any_write_leaves_nothing_incomplete() {
    [false, true].into_iter().for_each(a_crash_leaves_nothing_incomplete);
}

fn a_crash_leaves_nothing_incomplete(is_indexed: bool) {
    let life = || -> (Arc<FaultBackend>, Oid, usize) {
        let backend = disk();
        let store = open(&backend);
        // Enough for some batches of rows.
        let repo = create(&store, "a", Durability::Durable);
        commit(&repo, "main", "file", "of main");
        let mut tip = FORMAT.empty_tree();
        for at in 0..80 {
            tip = commit(&repo, "gone", &format!("a/b/file{at}"), &at.to_string());
        }
        if is_indexed {
            put_into_index(&repo, &store);
        }
        delete(&repo, "gone");
        store.settle();
        let before = backend.unsynced();
        let removed = collected(&repo).removed;
        assert!(removed > 300, "{removed}");
        let written = backend.unsynced() - before;
        // The store is not closed: that would write more.
        std::mem::forget(store);
        (backend, tip, written)
    };
    let (backend, _, written) = life();
    assert!(written >= 8, "{written}");
    let total = backend.unsynced();
    let mut partly = 0;
    for survivors in total - written..=total {
        let (backend, tip, _) = life();
        let disk = backend.crash(Survivors::First(survivors)).unwrap();
        assert_clean(&disk, &format!("{survivors} of {total} writes"));
        let backend = Arc::new(FaultBackend::over(&disk, Default::default()).unwrap());
        let store = open(&backend);
        let repo = store.repo(&repo_name("a")).unwrap();
        assert!(is_complete(&repo), "{survivors} of {total} writes");
        let left = stored(&repo).len();
        partly += usize::from(left > 3 && !stored(&repo).contains(&tip));
        assert_eq!(collected(&repo).removed as usize, left - 3, "{survivors} of {total} writes");
        assert_eq!((stored(&repo).len(), segments(&*backend, &repo).len()), (3, 1));
    }
    assert!(partly > 3, "some had gone and others had not: {partly}");
}

#[test]
fn a_write_that_fails_leaves_nothing_incomplete() {
    [false, true].into_iter().for_each(a_failure_leaves_nothing_incomplete);
}

fn a_failure_leaves_nothing_incomplete(is_indexed: bool) {
    for nth in 1.. {
        let backend = disk();
        let store = open(&backend);
        let (repo, _, garbage) = littered_with(&store, "a", 3, is_indexed);
        let main = closure(&repo, repo.snapshot().reference(&branch("main")).unwrap());
        let rewrite = begun(&repo);
        let before = backend.writes();
        backend.be_full_once(nth);
        let result = rewrite.install(&Silent);
        if result.is_ok() {
            assert!(nth > 3 && backend.writes() - before < nth, "each of {nth} writes was refused once");
            break;
        }
        assert_eq!(kind(result), ErrorKind::StorageFull, "write {nth}");
        assert_there(&repo, &main);
        assert!(is_complete(&repo), "write {nth}");
        collected(&repo);
        for oid in garbage.keys() {
            assert!(!repo.snapshot().contains(oid).unwrap(), "write {nth}");
        }
        store.close().unwrap();
        assert_clean(&backend.crash(Survivors::All).unwrap(), &format!("write {nth}"));
    }
}

/// Somebody brings garbage once more, in the moment in which it gets a row because its index is about to go.
#[test]
fn what_comes_again_while_it_gets_a_row_stays() {
    let gate = Arc::new(Gate::new());
    let store = Store::open(gate.clone(), forgetful()).unwrap();
    let (repo, tip, garbage) = littered_with(&store, "a", 3, true);
    assert_eq!(entries(gate.disk(), Family::Ids, b"").len(), 0);
    let row_key = [&pool(&repo)[..], tip.as_bytes()].concat();
    // Where it says that the object is nothing is; that it is another place matters.
    let brought = vec![1 << 4 | Kind::Commit as u8, 100, 0xff, 0x7f, 1, 1];
    let (at, value) = (row_key.clone(), brought.clone());
    gate.before_ids(move |disk, batch| {
        assert!(batch.ops.len() > 1);
        let mut other = Batch::new();
        other.put(Family::Ids, at, value);
        disk.write(other, Sync::No).unwrap();
    });
    let done = begun(&repo).install(&Silent).unwrap();
    assert_eq!(done.removed as usize, garbage.len() - 1);
    let rows = entries(gate.disk(), Family::Ids, b"");
    assert_eq!(
        rows.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect::<Vec<_>>(),
        [(row_key, brought)]
    );
}

/// Acts when a walk has met its first object.
struct Meanwhile<F: FnMut()>(Option<F>);

impl<F: FnMut()> Tracer for Meanwhile<F> {
    fn below(&mut self, _: u32, _: &[u8]) -> u32 {
        1
    }
    fn met(&mut self, _: usize, _: u32) {
        self.0.take().into_iter().for_each(|mut act| act());
    }
}

/// After it was asked what leads to anything, and before it is known what is to go.
#[test]
fn what_comes_during_the_walk_stays_with_all_it_leads_to() {
    for (way, is_indexed) in (0..3).flat_map(|way| [(way, false), (way, true)]) {
        let backend = disk();
        let store = open(&backend);
        let (repo, tip, garbage) = littered_with(&store, "a", 3, is_indexed);
        let writer = repo.clone();
        let act = move || {
            let mut transaction = writer.begin("tester", Cause::Api);
            let mut put =
                || transaction.put(Kind::Commit, commit_bytes(FORMAT.empty_tree(), &[tip], 9, "on it")).unwrap();
            let target = match way {
                0 => put(),
                // Brought for nothing, by which it is there none the less.
                1 => {
                    put();
                    writer.snapshot().reference(&branch("main")).unwrap()
                }
                // Nothing is brought.
                _ => tip,
            };
            transaction.edit(edit(&branch("again"), Expected::Absent, Some(target))).unwrap();
            publish(transaction).unwrap().ticket.wait().unwrap();
        };
        let mut rewrite = repo.rewrite(3, MEMORY_BYTES, &Silent).unwrap();
        rewrite.follow(&mut Meanwhile(Some(act)), &Silent).unwrap();
        write(&rewrite);
        assert_eq!(rewrite.install(&Silent).unwrap().removed, 0, "way {way}");
        assert_there(&repo, &garbage);
        store.settle();
        assert!(is_complete(&repo));
    }
}

/// Something is missing already: nobody may make that worse.
#[test]
fn where_something_is_missing_nothing_goes() {
    let backend = disk();
    let store = open(&backend);
    let (repo, _, garbage) = littered(&store, "a");
    let main = repo.snapshot().commit(&repo.snapshot().reference(&branch("main")).unwrap()).unwrap();
    store.close().unwrap();
    drop((repo, store));
    let next = crash(&backend, Survivors::All);
    let mut batch = govc_engine::Batch::new();
    let pool = [0; 8];
    batch.delete(Family::Ids, [&pool[..], main.tree.as_bytes()].concat());
    next.write(batch, Sync::Yes).unwrap();
    let store = open(&next);
    let repo = store.repo(&repo_name("a")).unwrap();
    assert_eq!(crate::rewrite::pool(&repo), pool);
    assert!(!repo.snapshot().contains(&main.tree).unwrap());
    assert_eq!(collected(&repo).removed, 0);
    assert_there(&repo, &garbage);
}

/// Writers who point at, build on, and bring again what may be going at that very moment, beside a collector that never
/// rests. `GOVC_RACES` says how many times each writes.
#[test]
fn writers_race_the_collector() {
    race(false);
}

/// Rows say since when, and an older one stays as it is.
#[test]
fn writers_race_the_collector_of_what_was_forked_once() {
    race(true);
}

fn race(was_forked: bool) {
    let races: usize = std::env::var("GOVC_RACES").map_or(400, |races| races.parse().unwrap());
    let backend = disk();
    let store = open(&backend);
    // More than goes at once.
    let (repo, tip, garbage) = littered_with(&store, "a", 40, false);
    if was_forked {
        store.fork(&repo_name("a"), &repo_name("fork"), "tester").unwrap();
        store.delete(&repo_name("fork")).unwrap();
        store.settle();
    }
    let tree = repo.snapshot().commit(&tip).unwrap().tree;
    let (done, won, lost, removed) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        let collector = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                removed.fetch_add(collected(&repo).removed as usize, Ordering::Relaxed);
            }
        });
        let writers: Vec<_> = (0..3_usize)
            .map(|writer| {
                let (repo, store, garbage, won, lost) = (&repo, &store, &garbage, &won, &lost);
                scope.spawn(move || {
                    let name = branch(&format!("writer{writer}"));
                    for at in 0..races {
                        let mut transaction = repo.begin("tester", Cause::Api);
                        let brings_all = (at + writer) % 4 == 3;
                        // Who builds on something looks whether it is there.
                        if !brings_all && transaction.object(&tip).is_err() {
                            lost.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        let target = match (at + writer) % 4 {
                            0 => Ok(tip),
                            1 => transaction.put(Kind::Commit, commit_bytes(tree, &[tip], at as i64, "on it")),
                            2 => transaction.put(Kind::Commit, commit_bytes(tree, &[], at as i64, "its tree")),
                            // Whoever brings all of it always succeeds.
                            _ => {
                                for (kind, data) in garbage.values() {
                                    transaction.put(*kind, data.clone()).unwrap();
                                }
                                Ok(tip)
                            }
                        };
                        transaction.edit(edit(&name, Expected::Any, Some(target.unwrap()))).unwrap();
                        match publish(transaction) {
                            Ok(published) => {
                                published.ticket.wait().unwrap();
                                won.fetch_add(1, Ordering::Relaxed);
                                let reached = closure(repo, repo.snapshot().reference(&name).unwrap());
                                assert!(reached.len() > 7);
                            }
                            Err(error) => {
                                assert!(*error.kind() == ErrorKind::NotFound && !brings_all, "{error}");
                                lost.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        if at % 3 == 0 {
                            point(repo, &name, None).unwrap();
                        }
                        if at % 5 == 0 {
                            store.settle();
                        }
                    }
                    point(repo, &name, None).unwrap();
                })
            })
            .collect();
        let finished = Finally(&done);
        for writer in writers {
            writer.join().unwrap();
        }
        drop(finished);
        collector.join().unwrap();
    });
    let (won, lost, removed) = (won.into_inner(), lost.into_inner(), removed.into_inner());
    assert!(won > races / 10 && removed > 200, "it was a race: {won} won, {lost} lost, {removed} objects removed");
    store.settle();
    collected(&repo);
    assert!(!repo.snapshot().contains(&tip).unwrap());
    assert!(is_complete(&repo));
    drop(repo);
    store.close().unwrap();
    assert_clean(&backend.crash(Survivors::All).unwrap(), "after the races");
}
