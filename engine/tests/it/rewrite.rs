//! Rewriting a pool: nothing is lost, whatever happens meanwhile, and what is replaced goes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;
use govc_backends::{FaultBackend, MemoryBackend, OverlayBackend, Survivors};
use govc_engine::{
    Cause, Change, CommitRequest, Durability, ErrorKind, Expected, Family, Fsck, Kind, Oid, Progress, RefName, Repo,
    Rewrite, Rewritten, Silent, Store, StoreOptions,
    backend::{Backend, Batch, Sync},
    block::{Base, Location, make_delta},
};

use crate::helper::{
    FORMAT, Gate, branch, crash, create, disk, edit, entries, kind, noise, open, options, publish, repo_name, signature,
};

pub(crate) const MEMORY_BYTES: u64 = 1 << 20;

pub(crate) fn commit(repo: &Repo, path: &str, content: Vec<u8>) -> Oid {
    let request = CommitRequest::new(branch("main"), path, signature(1), vec![Change::put(path, content)]);
    let committed = repo.commit(request).unwrap();
    committed.published.ticket.wait().unwrap();
    committed.oid
}

/// A repository of some commits in several segments.
fn filled(store: &Store, name: &str) -> Repo {
    let repo = create(store, name, Durability::Durable);
    for at in 0..40_u64 {
        let mut text = format!("the text of file {}\n", at % 8).repeat(50).into_bytes();
        text.extend(noise(at, 40));
        commit(&repo, &format!("dir{}/file", at % 8), text);
        if at % 10 == 9 {
            store.settle();
        }
    }
    // A block in parts.
    commit(&repo, "large", noise(99, 9 << 20));
    store.settle();
    repo
}

/// Writes every object that is not left out, as a delta against one of the same kind where that is shorter.
pub(crate) fn write(rewrite: &Rewrite) {
    let mut lane = rewrite.lane();
    let mut last: BTreeMap<u8, (Bytes, Location)> = BTreeMap::new();
    for (at, object) in rewrite.objects().iter().enumerate().filter(|(at, _)| !rewrite.is_left_out(*at)) {
        let data = rewrite.read(at).unwrap();
        let delta = last.get(&(object.kind as u8)).and_then(|(base, place)| {
            let delta = make_delta(base, &data, data.len() / 2)?;
            Some((Base::Near { block: place.block, slot: place.slot }, delta))
        });
        let place = match &delta {
            Some((base, delta)) => lane.add(object.oid, object.kind, object.size, *base, delta),
            None => lane.add(object.oid, object.kind, object.size, Base::Whole, &data),
        };
        if delta.is_none() {
            last.insert(object.kind as u8, (data, place.unwrap()));
        }
    }
    lane.finish().unwrap();
}

fn rewritten(repo: &Repo) -> Rewritten {
    let rewrite = repo.rewrite(9, MEMORY_BYTES, &Silent).unwrap();
    write(&rewrite);
    rewrite.install(&Silent).unwrap()
}

/// What the keys of a repository's rows begin with.
pub(crate) fn pool(repo: &Repo) -> [u8; 8] {
    repo.id().to_string().parse::<u64>().unwrap().to_be_bytes()
}

/// Every object that is stored in the pool, with its bytes.
fn objects(repo: &Repo) -> BTreeMap<Oid, Bytes> {
    let snapshot = repo.snapshot();
    let oids = repo.stored_ids().unwrap().into_iter();
    oids.map(|oid| (oid, snapshot.object(&oid).unwrap().data)).collect()
}

pub(crate) fn segments(backend: &dyn Backend, repo: &Repo) -> Vec<u32> {
    let rows = entries(backend, Family::Blocks, &pool(repo));
    let mut found: Vec<_> = rows.iter().map(|(key, _)| u32::from_be_bytes(key[8..12].try_into().unwrap())).collect();
    found.dedup();
    found
}

/// Whether a row of blocks is a page or the head of an index, by its key.
fn is_of_index(row_key: &[u8]) -> bool {
    row_key[12] >= 0xc0
}

pub(crate) fn block_bytes(backend: &dyn Backend, repo: &Repo) -> u64 {
    let rows = entries(backend, Family::Blocks, &pool(repo)).into_iter();
    rows.filter(|(row_key, _)| !is_of_index(row_key)).map(|(_, value)| value.len() as u64).sum()
}

pub(crate) fn intents(backend: &dyn Backend) -> usize {
    entries(backend, Family::Meta, b"intent/").len()
}

#[track_caller]
pub(crate) fn assert_clean(disk: &MemoryBackend, when: &str) {
    let overlay = Arc::new(OverlayBackend::new(Arc::new(disk.fork().unwrap())));
    let found = Fsck::run(overlay, options(), &Silent).unwrap();
    assert_eq!(found.findings, Vec::<String>::new(), "{when}");
}

#[test]
fn a_rewritten_repository_has_what_it_had_in_one_segment() {
    let backend = disk();
    let store = open(&backend);
    let repo = filled(&store, "a");
    let other = filled(&store, "b");
    let (before, of_other) = (objects(&repo), segments(&*backend, &other));
    assert!(segments(&*backend, &repo).len() > 3);

    let done = rewritten(&repo);
    assert_eq!(done.objects, before.len() as u64);
    assert_eq!(done.object_bytes, before.values().map(|data| data.len() as u64).sum::<u64>());
    assert_eq!(block_bytes(&*backend, &repo), done.stored_bytes_after);
    assert_eq!((segments(&*backend, &repo).len(), intents(&*backend)), (1, 0));
    assert_eq!(segments(&*backend, &other), of_other);
    assert_eq!(objects(&repo), before);

    let backend = crash(&backend, Survivors::All);
    let store = open(&backend);
    assert_eq!(objects(&store.repo(&repo_name("a")).unwrap()), before);
    store.close().unwrap();
    assert_clean(&backend.crash(Survivors::All).unwrap(), "after reopening");
}

#[test]
fn what_comes_meanwhile_stays_as_it_is() {
    let backend = disk();
    let store = open(&backend);
    let repo = filled(&store, "a");
    let rewrite = repo.rewrite(9, MEMORY_BYTES, &Silent).unwrap();
    write(&rewrite);
    let waiting = commit(&repo, "new", b"in the journal".to_vec());
    let before = objects(&repo);
    // New objects, and the one that is there already in a segment that comes meanwhile.
    commit(&repo, "settled", b"in blocks".to_vec());
    let again = repo.ingest();
    let mut lane = again.lane();
    let (oid, data) = before.iter().find(|(_, data)| data.len() > 500).unwrap();
    lane.add(*oid, Kind::Blob, data.len() as u64, Base::Whole, data).unwrap();
    lane.finish().unwrap();
    let mut transaction = repo.begin("tester", Cause::Push);
    transaction.attach(again.finish().unwrap()).unwrap();
    transaction.edit(edit(&branch("again"), Expected::Absent, Some(waiting))).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    store.settle();
    rewrite.install(&Silent).unwrap();
    assert_eq!(segments(&*backend, &repo).len(), 3, "the new one and two that came");
    for (oid, data) in &before {
        assert_eq!(repo.snapshot().object(oid).unwrap().data, *data);
    }
    store.close().unwrap();
    assert_clean(&backend.crash(Survivors::All).unwrap(), "after what came");
}

#[test]
fn a_reader_finds_records_where_it_was_told_they_are() {
    let backend = disk();
    let store = open(&backend);
    let repo = filled(&store, "a");
    let oids: Vec<Oid> = objects(&repo).into_keys().collect();
    let early = repo.snapshot();
    let told = early.locate(&oids).unwrap();
    let before = segments(&*backend, &repo);
    rewritten(&repo);
    let middle = repo.snapshot();
    let told_later = middle.locate(&oids).unwrap();
    rewritten(&repo);
    assert_eq!(segments(&*backend, &repo).len(), before.len() + 2, "nothing goes that is being read");
    for places in [(&early, &told), (&middle, &told_later)] {
        for place in places.1 {
            places.0.record(place.unwrap()).unwrap();
        }
    }
    // The later reader's records stay for the earlier one, too, but not the other way round.
    drop(middle);
    rewritten(&repo);
    assert_eq!(segments(&*backend, &repo).len(), before.len() + 3);
    early.record(told[0].unwrap()).unwrap();
    drop(early);
    rewritten(&repo);
    assert_eq!(segments(&*backend, &repo).len(), 1);
    drop((repo, store));
    // Without what is still in memory.
    let store = open(&crash(&backend, Survivors::All));
    let late = store.repo(&repo_name("a")).unwrap().snapshot();
    assert_eq!(kind(late.record(told[0].unwrap())), ErrorKind::NotFound);
}

#[test]
fn a_wrong_rewrite_changes_nothing() {
    let backend = disk();
    let store = open(&backend);
    let repo = filled(&store, "a");
    let (before, segments_before) = (objects(&repo), segments(&*backend, &repo));
    let rewrite = repo.rewrite(3, MEMORY_BYTES, &Silent).unwrap();
    assert_eq!(kind(repo.rewrite(3, MEMORY_BYTES, &Silent)), ErrorKind::Exists, "one at a time");
    let mut lane = rewrite.lane();
    for (at, object) in rewrite.objects().iter().enumerate() {
        let mut data = rewrite.read(at).unwrap().to_vec();
        if at == 7 {
            data[0] ^= 1;
        }
        lane.add(object.oid, object.kind, object.size, Base::Whole, &data).unwrap();
    }
    lane.finish().unwrap();
    let error = rewrite.install(&Silent).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("rewritten wrongly"), "{error}");

    // One that says another size.
    let rewrite = repo.rewrite(3, MEMORY_BYTES, &Silent).unwrap();
    let mut lane = rewrite.lane();
    for (at, object) in rewrite.objects().iter().enumerate() {
        let size = object.size + u64::from(at == 3);
        lane.add(object.oid, object.kind, size, Base::Whole, &rewrite.read(at).unwrap()).unwrap();
    }
    lane.finish().unwrap();
    assert_eq!(kind(rewrite.install(&Silent)), ErrorKind::Corrupt);

    // One that forgets an object, and one that is given up.
    let rewrite = repo.rewrite(3, MEMORY_BYTES, &Silent).unwrap();
    let mut lane = rewrite.lane();
    for (at, object) in rewrite.objects().iter().enumerate().skip(1) {
        lane.add(object.oid, object.kind, object.size, Base::Whole, &rewrite.read(at).unwrap()).unwrap();
    }
    lane.finish().unwrap();
    assert_eq!(kind(rewrite.install(&Silent)), ErrorKind::Corrupt);
    let rewrite = repo.rewrite(3, MEMORY_BYTES, &Silent).unwrap();
    write(&rewrite);
    drop(rewrite);

    assert_eq!(segments(&*backend, &repo), segments_before);
    assert_eq!(intents(&*backend), 0);
    assert_eq!(objects(&repo), before);
    assert_eq!(rewritten(&repo).objects, before.len() as u64);
}

#[test]
fn an_index_stands_for_rows_until_objects_come_again() {
    let backend = disk();
    let store = open(&backend);
    let repo = filled(&store, "a");
    let before = objects(&repo);
    rewritten(&repo);
    assert_eq!(entries(&*backend, Family::Ids, &pool(&repo)).len(), 0, "the index has them all");
    assert_eq!(objects(&repo), before);
    // From nothing but what is stored.
    let backend = crash(&backend, Survivors::All);
    let store = open(&backend);
    let repo = store.repo(&repo_name("a")).unwrap();
    let snapshot = repo.snapshot();
    for (oid, data) in &before {
        assert_eq!(snapshot.object(oid).unwrap().data, *data);
        assert_eq!(snapshot.header(oid).unwrap().map(|(_, size)| size), Some(data.len() as u64));
        assert_eq!(snapshot.resolve(&oid.to_string()[..12]).unwrap(), *oid);
    }
    let unknown = Oid::from_bytes(&[0xab; 20]).unwrap();
    assert_eq!(snapshot.header(&unknown).unwrap(), None);
    // The same objects once more, and others.
    for at in 0..3 {
        commit(&repo, &format!("more{at}"), format!("more {at}\n").into_bytes());
        store.settle();
    }
    let grown = objects(&repo);
    let rows = entries(&*backend, Family::Ids, &pool(&repo)).len();
    assert!(grown.len() > before.len() && (grown.len() - before.len()..grown.len()).contains(&rows), "{rows} rows");
    let done = rewritten(&repo);
    assert_eq!((done.objects, done.removed), (grown.len() as u64, 0));
    assert_eq!(objects(&repo), grown);
    assert_eq!(entries(&*backend, Family::Ids, &pool(&repo)).len(), 0);
    assert_eq!(segments(&*backend, &repo).len(), 1);
    store.close().unwrap();
    assert_clean(&backend.crash(Survivors::All).unwrap(), "after two rewrites");
}

#[test]
fn what_is_stored_is_found_while_it_is_rewritten_again_and_again() {
    let backend = disk();
    let store = open(&backend);
    let repo = filled(&store, "a");
    let oids: Vec<Oid> = objects(&repo).into_keys().collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in 0..2 {
            let (repo, oids, is_over) = (&repo, &oids, &is_over);
            scope.spawn(move || {
                let mut rounds = 0;
                while !is_over.load(Ordering::Relaxed) || rounds == 0 {
                    let snapshot = repo.snapshot();
                    // Past the table: where they are, by one and by many.
                    for some in oids.chunks(1 + 6 * reader) {
                        let places = snapshot.locate(some).unwrap();
                        assert!(places.iter().all(Option::is_some), "{some:?}: {places:?}");
                    }
                    for oid in oids {
                        assert_eq!(snapshot.resolve(&oid.to_string()[..16]).unwrap(), *oid);
                    }
                    rounds += 1;
                }
            });
        }
        for round in 0..15 {
            // Rows come and go with the index.
            commit(&repo, "rows", format!("{round}\n").into_bytes());
            store.settle();
            let before = repo.stored_ids().unwrap().len() as u64;
            let done = rewritten(&repo);
            assert_eq!(done.objects, before);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    store.close().unwrap();
    assert_clean(&backend.crash(Survivors::All).unwrap(), "after many rewrites");
}

#[test]
fn a_damaged_or_missing_index_is_told_and_panics_nowhere() {
    let backend = disk();
    let store = open(&backend);
    let repo = filled(&store, "a");
    let oid = *objects(&repo).keys().next().unwrap();
    rewritten(&repo);
    store.close().unwrap();
    let disk = backend.crash(Survivors::All).unwrap();
    let index: Vec<_> = entries(&disk, Family::Blocks, b"").into_iter().filter(|(key, _)| is_of_index(key)).collect();
    assert_eq!(index.len(), 2, "a page and the head");
    for (row_key, value) in &index {
        for is_missing in [true, false] {
            let damaged = disk.fork().unwrap();
            let mut batch = Batch::new();
            if is_missing {
                batch.delete(Family::Blocks, row_key.to_vec());
            } else {
                let mut value = value.to_vec();
                value[7] ^= 0x10;
                batch.put(Family::Blocks, row_key.to_vec(), value);
            }
            damaged.write(batch, Sync::Yes).unwrap();
            let found = Fsck::run(Arc::new(OverlayBackend::new(Arc::new(damaged.fork().unwrap()))), options(), &Silent);
            assert!(!found.unwrap().findings.is_empty(), "missing: {is_missing}");
            let backend = Arc::new(FaultBackend::over(&damaged, Default::default()).unwrap());
            let store = open(&backend);
            let repo = store.repo(&repo_name("a")).unwrap();
            assert_eq!(kind(repo.snapshot().object(&oid)), ErrorKind::Corrupt);
            assert_eq!(kind(repo.rewrite(3, MEMORY_BYTES, &Silent)), ErrorKind::Corrupt);
        }
    }
}

#[test]
fn a_deleted_repository_is_not_rewritten() {
    let backend = disk();
    let store = open(&backend);
    let repo = filled(&store, "a");
    let rewrite = repo.rewrite(3, MEMORY_BYTES, &Silent).unwrap();
    write(&rewrite);
    store.delete(&repo_name("a")).unwrap();
    store.settle();
    assert_eq!(kind(rewrite.install(&Silent)), ErrorKind::NotFound);
    assert_eq!(kind(repo.rewrite(3, MEMORY_BYTES, &Silent)), ErrorKind::NotFound);
    for family in [Family::Ids, Family::Blocks] {
        assert_eq!(entries(&*backend, family, b"").len(), 0, "{family:?}");
    }
    assert_eq!(intents(&*backend), 0);

    let memory = create(&store, "m", Durability::Memory);
    assert_eq!(kind(memory.rewrite(3, MEMORY_BYTES, &Silent)), ErrorKind::Invalid);
}

#[test]
fn a_fork_goes_on_seeing_what_it_saw() {
    let backend = disk();
    let store = open(&backend);
    let source = filled(&store, "source");
    let inherited: Vec<Oid> = objects(&source).into_keys().collect();
    let fork = store.fork(&repo_name("source"), &repo_name("fork"), "tester").unwrap();
    let later = commit(&source, "later", b"of the source alone".to_vec());
    let own = commit(&fork, "own", b"of the fork alone".to_vec());
    store.settle();
    rewritten(&source);
    rewritten(&fork);
    let check = |source: &Repo, fork: &Repo| {
        for oid in &inherited {
            fork.snapshot().object(oid).unwrap();
        }
        assert!(fork.snapshot().contains(&own).unwrap() && !fork.snapshot().contains(&later).unwrap());
        assert!(source.snapshot().contains(&later).unwrap() && !source.snapshot().contains(&own).unwrap());
        let prefix = |oid: &Oid| oid.to_string()[..12].to_owned();
        assert_eq!(fork.snapshot().resolve(&prefix(&own)).unwrap(), own);
        assert_eq!(kind(fork.snapshot().resolve(&prefix(&later))), ErrorKind::NotFound);
        assert_eq!(source.snapshot().resolve(&prefix(&later)).unwrap(), later);
    };
    check(&source, &fork);
    drop((source, fork, store));
    let store = open(&crash(&backend, Survivors::All));
    let repo = |name: &str| store.repo(&repo_name(name)).unwrap();
    check(&repo("source"), &repo("fork"));
    // A source that is gone but for its forks keeps what they see, rewritten or not.
    store.delete(&repo_name("source")).unwrap();
    store.settle();
    for oid in &inherited {
        repo("fork").snapshot().object(oid).unwrap();
    }
}

/// A crash can leave any number of the writes that a rewrite makes.
#[test]
fn a_crash_at_any_write_loses_nothing() {
    let life = || -> (Arc<FaultBackend>, Repo, usize) {
        let backend = disk();
        let store = open(&backend);
        let repo = filled(&store, "a");
        let before = backend.unsynced();
        rewritten(&repo);
        let written = backend.unsynced() - before;
        // The store is not closed: that would write more.
        std::mem::forget(store);
        (backend, repo, written)
    };
    let (backend, repo, written) = life();
    let expected = objects(&repo);
    assert!(written >= 5, "blocks, rows, intents, removals: {written}");
    let total = backend.unsynced();
    let mut intents_max = 0;
    for survivors in total - written..=total {
        let (backend, _, _) = life();
        let disk = backend.crash(Survivors::First(survivors)).unwrap();
        assert_clean(&disk, &format!("{survivors} of {total} writes"));
        let left = segments(&disk, &repo).len() - intents(&disk);
        intents_max = intents_max.max(intents(&disk));
        let backend = Arc::new(FaultBackend::over(&disk, Default::default()).unwrap());
        let store = open(&backend);
        let repo = store.repo(&repo_name("a")).unwrap();
        assert_eq!(objects(&repo), expected, "{survivors} of {total} writes");
        assert_eq!((segments(&*backend, &repo).len(), intents(&*backend)), (left, 0), "{survivors} of {total} writes");
        // What the crash has left is found by the next one.
        rewritten(&repo);
        assert_eq!(segments(&*backend, &repo).len(), 1, "{survivors} of {total} writes");
        assert_eq!(objects(&repo), expected);
    }
    assert!(intents_max > 3, "the old segments were to go: {intents_max}");
}

#[test]
fn a_write_that_fails_leaves_everything_readable() {
    for nth in 1.. {
        let backend = disk();
        let store = open(&backend);
        let repo = filled(&store, "a");
        let before = objects(&repo);
        let rewrite = repo.rewrite(9, MEMORY_BYTES, &Silent).unwrap();
        write(&rewrite);
        let before_it = backend.writes();
        backend.be_full_once(nth);
        let result = rewrite.install(&Silent);
        if result.is_ok() {
            assert!(nth > 5 && backend.writes() - before_it < nth, "each of {nth} writes was refused once");
            break;
        }
        assert_eq!(kind(result), ErrorKind::StorageFull, "write {nth}");
        assert_eq!(objects(&repo), before, "write {nth}");
        rewritten(&repo);
        assert_eq!(objects(&repo), before, "write {nth}");
        assert_eq!(segments(&*backend, &repo).len(), 1, "write {nth}");
        store.close().unwrap();
        assert_clean(&backend.crash(Survivors::All).unwrap(), &format!("write {nth}"));
    }
}

/// A push publishes its segment reference by reference if they do not go together.
#[test]
fn a_segment_that_is_published_in_pieces_is_left_alone_until_the_last() {
    let backend = disk();
    let store = open(&backend);
    let repo = filled(&store, "a");
    let contents = [b"of one reference".to_vec(), b"of another".to_vec(), b"of a third".to_vec()];
    let ids: Vec<Oid> =
        contents.iter().map(|data| govc_engine::hash_object(FORMAT, Kind::Blob, data).unwrap()).collect();
    let ingest = repo.ingest();
    let mut lane = ingest.lane();
    for (oid, data) in ids.iter().zip(&contents) {
        lane.add(*oid, Kind::Blob, data.len() as u64, Base::Whole, data).unwrap();
    }
    lane.finish().unwrap();
    let staged = ingest.finish().unwrap();
    let publish_piece = |at: usize| {
        let mut transaction = repo.begin("tester", Cause::Push);
        transaction.attach(staged.only(|oid| *oid == ids[at])).unwrap();
        let tag = RefName::new(format!("refs/tags/{at}")).unwrap();
        transaction.edit(edit(&tag, Expected::Absent, Some(ids[at]))).unwrap();
        publish(transaction).unwrap().ticket.wait().unwrap();
    };
    publish_piece(0);
    let rewrite = repo.rewrite(3, MEMORY_BYTES, &Silent).unwrap();
    publish_piece(1);
    write(&rewrite);
    rewrite.install(&Silent).unwrap();
    publish_piece(2);
    let check = |repo: &Repo| {
        for (oid, data) in ids.iter().zip(&contents) {
            assert_eq!(repo.snapshot().object(oid).unwrap().data, *data);
        }
    };
    check(&repo);
    drop(staged);
    rewritten(&repo);
    assert_eq!(segments(&*backend, &repo).len(), 1);
    drop((repo, store));
    let store = open(&crash(&backend, Survivors::All));
    check(&store.repo(&repo_name("a")).unwrap());
}

/// More than is kept in memory to be applied at once.
#[test]
fn a_chain_of_large_deltas_is_read() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    let versions: Vec<Vec<u8>> = (0..4).map(|seed| noise(seed, 6 << 20)).collect();
    let ids: Vec<Oid> =
        versions.iter().map(|data| govc_engine::hash_object(FORMAT, Kind::Blob, data).unwrap()).collect();
    let ingest = repo.ingest();
    let mut lane = ingest.lane();
    let mut place = lane.add(ids[0], Kind::Blob, 6 << 20, Base::Whole, &versions[0]).unwrap();
    for at in 1..4 {
        let delta = make_delta(&versions[at - 1], &versions[at], usize::MAX).unwrap();
        let base = Base::Near { block: place.block, slot: place.slot };
        place = lane.add(ids[at], Kind::Blob, 6 << 20, base, &delta).unwrap();
    }
    lane.finish().unwrap();
    let mut transaction = repo.begin("tester", Cause::Push);
    transaction.attach(ingest.finish().unwrap()).unwrap();
    transaction.edit(edit(&RefName::new("refs/tags/last").unwrap(), Expected::Absent, Some(ids[3]))).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    assert_eq!(repo.snapshot().object(&ids[3]).unwrap().data, versions[3]);
}

#[test]
fn a_reader_that_is_overtaken_looks_again() {
    let gate = Arc::new(Gate::new());
    let store = Store::open(gate.clone(), options()).unwrap();
    let oid = *objects(&filled(&store, "a")).keys().next().unwrap();
    drop(store);
    let gate = Arc::new(Gate::over(&gate.disk().crash(Survivors::All).unwrap()));
    let store = Store::open(gate.clone(), options()).unwrap();
    let repo = store.repo(&repo_name("a")).unwrap();
    // It has been told where the object is, and then all blocks that there were go.
    let (overtaking, happened) = (repo.clone(), Arc::new(AtomicBool::new(false)));
    let flag = happened.clone();
    gate.before_block(move || {
        rewritten(&overtaking);
        flag.store(true, Ordering::Relaxed);
    });
    repo.snapshot().object(&oid).unwrap();
    assert!(happened.load(Ordering::Relaxed));
    assert_eq!(segments(gate.disk(), &repo).len(), 1);
}

/// Does something when the new segment is about to be installed.
struct Installing<F: Fn()>(F);

impl<F: Fn() + std::marker::Sync> Progress for Installing<F> {
    fn begin(&self, what: &str, _: Option<u64>) {
        if what == "installing" {
            self.0();
        }
    }
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn is_cancelled(&self) -> bool {
        false
    }
}

#[test]
fn a_row_that_says_since_when_anew_stays() {
    let backend = disk();
    let store = open(&backend);
    let repo = filled(&store, "a");
    let before = objects(&repo);
    let (row_key, value) = entries(&*backend, Family::Ids, &pool(&repo)).remove(3);
    assert_eq!(value[0] >> 4, 1, "it says no version");
    let with_since = [&[2 << 4 | value[0] & 0xf][..], &value[1..], &[5]].concat();
    let rewrite = repo.rewrite(3, MEMORY_BYTES, &Silent).unwrap();
    write(&rewrite);
    let act = || {
        let mut batch = Batch::new();
        batch.put(Family::Ids, row_key.to_vec(), with_since.clone());
        backend.write(batch, Sync::No).unwrap();
    };
    rewrite.install(&Installing(act)).unwrap();
    let rows = entries(&*backend, Family::Ids, &pool(&repo));
    let [(left, value)] = &rows[..] else { panic!("{} rows", rows.len()) };
    assert_eq!((left, value[0] >> 4, value.last()), (&row_key, 2, Some(&5)));
    store.close().unwrap();
    let store = open(&crash(&backend, Survivors::All));
    assert_eq!(objects(&store.repo(&repo_name("a")).unwrap()), before);
}

#[test]
fn a_deletion_in_the_last_moment_leaves_nothing() {
    let backend = disk();
    let store = open(&backend);
    let repo = filled(&store, "a");
    let rewrite = repo.rewrite(3, MEMORY_BYTES, &Silent).unwrap();
    write(&rewrite);
    let act = || {
        store.delete(&repo_name("a")).unwrap();
        store.settle();
    };
    assert_eq!(kind(rewrite.install(&Installing(act))), ErrorKind::NotFound);
    assert_eq!((segments(&*backend, &repo).len(), intents(&*backend)), (0, 0));
    assert_eq!(entries(&*backend, Family::Ids, b"").len(), 0);
}

#[test]
fn readers_notice_nothing() {
    let backend = disk();
    let options = StoreOptions { memory_budget_bytes: 16 << 20, ..options() };
    let store = Store::open(backend.clone(), options).unwrap();
    let repo = create(&store, "a", Durability::Durable);
    // More than memory holds, so that each is read from its block again.
    for at in 0..60 {
        commit(&repo, &format!("file{at}"), noise(at, 400 << 10));
    }
    store.settle();
    let expected = objects(&repo);
    let done = AtomicBool::new(false);
    let reads = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for (oid, data) in &expected {
                        assert_eq!(repo.snapshot().object(oid).unwrap().data, *data);
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let finished = Finally(&done);
        for _ in 0..8 {
            rewritten(&repo);
        }
        drop(finished);
    });
    assert!(reads.load(Ordering::Relaxed) > expected.len(), "they read meanwhile");
    assert!(store.stats().cache_misses_total > 60, "from blocks");
}

/// Sets a flag at its end, also by a panic.
pub(crate) struct Finally<'a>(pub(crate) &'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
