//! Large contents and locks: whole or not there after every crash, gone when nobody needs them, left alone by whatever
//! moves blocks.

use std::{str::FromStr as _, sync::Arc};

use govc_backends::{FaultBackend, FaultPlan, MemoryBackend, OverlayBackend, Survivors};
use govc_engine::{
    Durability, ErrorKind, Fsck, LFS_CHUNK_BYTES, LfsOid, Repo, Silent, Store, StoreOptions,
    backend::{Backend, Batch, Family, Sync},
};

use crate::{
    helper::{branch, crash, create, disk, entries, kind, noise, open, options, repo_name, set_durably},
    rewrite::{MEMORY_BYTES, assert_clean, commit, write},
};

/// More than two chunks, and no whole number of them.
const LARGE: usize = 2 * LFS_CHUNK_BYTES + 5;

fn sha256(content: &[u8]) -> LfsOid {
    use sha2::Digest as _;
    LfsOid::from_bytes(sha2::Sha256::digest(content).into())
}

fn put(repo: &Repo, content: &[u8]) -> govc_engine::Result<LfsOid> {
    let oid = sha256(content);
    if let Some(mut upload) = repo.lfs_upload(oid)? {
        for piece in content.chunks(300_000) {
            upload.write(piece)?;
        }
        assert_eq!(upload.size(), content.len() as u64);
        upload.finish()?;
    }
    Ok(oid)
}

/// A content as readers see it.
fn read(repo: &Repo, oid: &LfsOid) -> Option<Vec<u8>> {
    let object = repo.lfs_object(oid).unwrap()?;
    assert_eq!(object.oid(), *oid);
    let chunks = object.size().div_ceil(LFS_CHUNK_BYTES as u64);
    assert_eq!(kind(repo.lfs_chunk(&object, chunks)), ErrorKind::Invalid);
    let content: Vec<u8> = (0..chunks).flat_map(|chunk| repo.lfs_chunk(&object, chunk).unwrap()).collect();
    assert_eq!(content.len() as u64, object.size());
    Some(content)
}

/// The next life of a disk.
fn over(disk: &MemoryBackend) -> Arc<FaultBackend> {
    Arc::new(FaultBackend::over(disk, FaultPlan::none()).unwrap())
}

fn format(backend: &dyn Backend) -> Vec<u8> {
    entries(backend, Family::Meta, b"format")[0].1.to_vec()
}

fn opens(backend: &dyn Backend) -> usize {
    entries(backend, Family::Meta, b"lfs_open/").len()
}

#[test]
fn a_content_is_whole_or_not_there_after_every_crash() {
    let content = noise(1, LARGE);
    let mut seen = [0, 0];
    // Before it is finished, when it is acknowledged, and whatever reached the disk of what came before.
    for is_finished in [false, true] {
        for kept in 0..8 {
            let backend = disk();
            let store = open(&backend);
            let repo = create(&store, "a", Durability::Durable);
            store.settle();
            backend.sync().unwrap();
            let mut upload = repo.lfs_upload(sha256(&content)).unwrap().unwrap();
            upload.write(&content).unwrap();
            if is_finished {
                upload.finish().unwrap();
            } else {
                std::mem::forget(upload);
            }
            let next = crash(&backend, Survivors::First(kept));
            let store = open(&next);
            let repo = store.repo(&repo_name("a")).unwrap();
            let found = read(&repo, &sha256(&content));
            assert_eq!(found.is_some(), is_finished, "{kept} kept");
            assert!(found.is_none_or(|found| found == content));
            assert_eq!(entries(&*next, Family::Blocks, b"").len(), if is_finished { 3 } else { 0 }, "{kept} kept");
            assert_eq!(opens(&*next), 0);
            seen[usize::from(is_finished)] += 1;
            // It can come again.
            put(&repo, &content).unwrap();
            assert!(read(&repo, &sha256(&content)).unwrap() == content);
        }
    }
    assert_eq!(seen, [8, 8]);
}

#[test]
fn what_is_not_finished_leaves_nothing() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    let content = noise(1, LARGE);
    let rows = |backend: &FaultBackend| (entries(backend, Family::Blocks, b"").len(), opens(backend));
    // Dropped.
    let mut upload = repo.lfs_upload(sha256(&content)).unwrap().unwrap();
    upload.write(&content).unwrap();
    assert_eq!(rows(&backend), (2, 1), "the last one waits for its end");
    drop(upload);
    assert_eq!(rows(&backend), (0, 0));
    // Of another hash.
    let mut upload = repo.lfs_upload(sha256(b"else")).unwrap().unwrap();
    upload.write(&content).unwrap();
    assert_eq!(kind(upload.finish()), ErrorKind::Invalid);
    assert_eq!(rows(&backend), (0, 0));
    // Twice at once: the second one is told that all is well, too.
    let mut uploads = [(); 2].map(|()| repo.lfs_upload(sha256(&content)).unwrap().unwrap());
    uploads.iter_mut().for_each(|upload| upload.write(&content).unwrap());
    assert_eq!(rows(&backend).1, 2);
    uploads.into_iter().for_each(|upload| upload.finish().unwrap());
    assert_eq!(rows(&backend), (3, 0));
    assert!(read(&repo, &sha256(&content)).unwrap() == content);
    assert!(repo.lfs_upload(sha256(&content)).unwrap().is_none());
    // On a full disk.
    let other = noise(2, LARGE);
    let mut upload = repo.lfs_upload(sha256(&other)).unwrap().unwrap();
    upload.write(&other[..LFS_CHUNK_BYTES]).unwrap();
    backend.set_full(true);
    assert_eq!(kind(upload.write(&other[LFS_CHUNK_BYTES..])), ErrorKind::StorageFull);
    backend.set_full(false);
    drop(upload);
    assert_eq!(rows(&backend), (3, 0));
    // An empty one has no chunk.
    let empty = put(&repo, b"").unwrap();
    assert_eq!(read(&repo, &empty), Some(Vec::new()));
    assert_eq!(rows(&backend), (3, 0));
}

#[test]
fn what_could_not_be_synced_is_not_acknowledged() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    let content = noise(1, LARGE);
    let mut upload = repo.lfs_upload(sha256(&content)).unwrap().unwrap();
    upload.write(&content).unwrap();
    backend.fail_next_sync();
    assert!(upload.finish().is_err());
    assert_eq!(kind(repo.lfs_upload(sha256(b"else"))), ErrorKind::Closed);
    let next = crash(&backend, Survivors::Synced);
    assert_eq!(read(&open(&next).repo(&repo_name("a")).unwrap(), &sha256(&content)), None);
    // The same of a content that is there, and perhaps not durable.
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    let oid = put(&repo, &content).unwrap();
    backend.fail_next_sync();
    assert!(repo.lfs_upload(oid).is_err());
}

#[test]
fn stores_with_large_contents_are_not_for_earlier_programs() {
    let fresh = || {
        let backend = disk();
        let store = open(&backend);
        let repo = create(&store, "a", Durability::Durable);
        commit(&repo, "file", b"text".to_vec());
        (backend, store, repo)
    };
    let rewritten = |repo: &Repo| {
        let rewrite = repo.rewrite(9, MEMORY_BYTES, &Silent).unwrap();
        write(&rewrite);
        rewrite.install(&Silent).unwrap();
    };
    let (backend, store, repo) = fresh();
    assert_eq!(format(&*backend), b"govc store 1");
    store.settle();
    rewritten(&repo);
    assert_eq!(format(&*backend), b"govc store 2");
    let mut upload = repo.lfs_upload(sha256(b"")).unwrap().unwrap();
    assert_eq!(format(&*backend), b"govc store 2", "nothing is there");
    upload.write(&noise(1, LFS_CHUNK_BYTES)).unwrap();
    assert_eq!(format(&*backend), b"govc store 3", "chunks are there, though nothing leads to them");
    drop(upload);
    // Also in a later life.
    commit(&repo, "file", b"other text".to_vec());
    store.close().unwrap();
    let next = crash(&backend, Survivors::All);
    let store = open(&next);
    let repo = store.repo(&repo_name("a")).unwrap();
    rewritten(&repo);
    assert_eq!(format(&*next), b"govc store 3", "it is not taken back");

    let (backend, _store, repo) = fresh();
    put(&repo, b"").unwrap();
    assert_eq!(format(&*backend), b"govc store 3");
    let (backend, _store, repo) = fresh();
    repo.lfs_lock("path", "ada").unwrap().unwrap();
    assert_eq!(format(&*backend), b"govc store 3");
}

#[test]
fn rewriting_leaves_contents_alone() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    let (first, second) = (noise(1, LARGE), noise(2, 77));
    for (at, content) in [&first, &second].into_iter().enumerate() {
        commit(&repo, "file", format!("text {at}").into_bytes());
        store.settle();
        put(&repo, content).unwrap();
        let rewrite = repo.rewrite(9, MEMORY_BYTES, &Silent).unwrap();
        assert!(rewrite.stored_bytes() < 10_000, "contents are none of its business");
        write(&rewrite);
        // What is on its way in meanwhile.
        let mut upload = repo.lfs_upload(sha256(b"else")).unwrap().unwrap();
        upload.write(&first).unwrap();
        rewrite.install(&Silent).unwrap();
        assert_eq!(kind(upload.finish()), ErrorKind::Invalid);
        store.settle();
    }
    let disk = backend.crash(Survivors::All).unwrap();
    assert_clean(&disk, "after two rewrites");
    let found = check(&disk);
    assert_eq!((found.large_contents, found.large_content_bytes), (2, LARGE as u64 + 77));
    let store = open(&over(&disk));
    let repo = store.repo(&repo_name("a")).unwrap();
    assert!(read(&repo, &sha256(&first)).unwrap() == first && read(&repo, &sha256(&second)).unwrap() == second);
}

#[test]
fn forks_see_what_their_source_had() {
    let backend = disk();
    let store = open(&backend);
    let source = create(&store, "source", Durability::Durable);
    let early = put(&source, b"early").unwrap();
    set_durably(&source, &branch("main"), "1").unwrap();
    let fork = store.fork(&repo_name("source"), &repo_name("fork"), "tester").unwrap();
    set_durably(&source, &branch("main"), "2").unwrap();
    let late = put(&source, b"late").unwrap();
    let own = put(&fork, b"own").unwrap();
    let check = |fork: &Repo| {
        assert_eq!(read(fork, &early).as_deref(), Some(&b"early"[..]));
        assert_eq!(read(fork, &late), None);
        assert_eq!(read(fork, &own).as_deref(), Some(&b"own"[..]));
    };
    check(&fork);
    assert_eq!(read(&source, &own), None);
    source.lfs_lock("path", "ada").unwrap().unwrap();
    assert_eq!(fork.lfs_locks(None, 10).unwrap(), []);
    // The fork outlives its source.
    let (held, mut cut) =
        (source.lfs_object(&late).unwrap().unwrap(), source.lfs_upload(sha256(b"cut")).unwrap().unwrap());
    cut.write(&noise(3, LARGE)).unwrap();
    store.delete(&repo_name("source")).unwrap();
    store.settle();
    assert_eq!(kind(source.lfs_upload(sha256(b"x"))), ErrorKind::NotFound);
    assert_eq!(kind(source.lfs_lock("other", "ada")), ErrorKind::NotFound);
    assert!(matches!(kind(cut.finish()), ErrorKind::Invalid | ErrorKind::NotFound));
    assert_eq!(source.lfs_chunk(&held, 0).unwrap(), &b"late"[..], "others need the pool");
    check(&fork);
    let disk = backend.crash(Survivors::All).unwrap();
    assert_clean(&disk, "without the source");
    let next = over(&disk);
    let store = open(&next);
    check(&store.repo(&repo_name("fork")).unwrap());
    // Once nobody needs them, they are gone.
    store.delete(&repo_name("fork")).unwrap();
    store.settle();
    assert_eq!(entries(&*next, Family::Blocks, b""), []);
    assert_eq!(entries(&*next, Family::Meta, b"lfs"), []);
}

#[test]
fn an_upload_into_a_deleted_repository_leaves_nothing() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    let content = noise(1, LARGE);
    let mut upload = repo.lfs_upload(sha256(&content)).unwrap().unwrap();
    upload.write(&content[..LARGE / 2]).unwrap();
    store.delete(&repo_name("a")).unwrap();
    store.settle();
    upload.write(&content[LARGE / 2..]).unwrap();
    assert_eq!(kind(upload.finish()), ErrorKind::NotFound);
    assert_eq!(entries(&*backend, Family::Blocks, b""), []);
    assert_eq!(entries(&*backend, Family::Meta, b"lfs"), []);
}

#[test]
fn repositories_in_memory_pay_for_contents_and_are_paid_back() {
    let store =
        Store::open(Arc::new(MemoryBackend::new()), StoreOptions { memory_budget_bytes: 16 << 20, ..options() })
            .unwrap();
    let memory = create(&store, "memory", Durability::Memory);
    let content = noise(1, LARGE);
    for _ in 0..20 {
        let mut upload = memory.lfs_upload(sha256(&content)).unwrap().unwrap();
        upload.write(&content).unwrap();
    }
    let oid = put(&memory, &content).unwrap();
    assert!(read(&memory, &oid).unwrap() == content);
    let large = noise(2, 17 << 20);
    assert_eq!(kind(put(&memory, &large)), ErrorKind::OutOfBudget);
    memory.lfs_lock("path", "ada").unwrap().unwrap();
    for _ in 0..10 {
        store.delete(&repo_name("memory")).unwrap();
        let memory = create(&store, "memory", Durability::Memory);
        assert_eq!(read(&memory, &oid), None);
        assert_eq!(memory.lfs_locks(None, 10).unwrap(), []);
        put(&memory, &content).unwrap();
    }
}

#[test]
fn a_path_has_one_lock() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    let first = repo.lfs_lock("dir/a", "ada").unwrap().unwrap();
    assert_eq!(repo.lfs_lock("dir/a", "grace").unwrap(), Err(first.clone()));
    let second = repo.lfs_lock("dir", "grace").unwrap().unwrap();
    assert_eq!(repo.lfs_locks(None, 10).unwrap(), [first.clone(), second.clone()]);
    assert_eq!(repo.lfs_locks(Some(first.number), 10).unwrap(), std::slice::from_ref(&second));
    assert_eq!(repo.lfs_locks(None, 1).unwrap(), std::slice::from_ref(&first));
    for (path, owner) in [("", "ada"), ("../up", "ada"), ("b", ""), ("b", &"x".repeat(257))] {
        assert_eq!(kind(repo.lfs_lock(path, owner)), ErrorKind::Invalid);
    }
    let refused = repo.lfs_unlock(first.number, |_| Err(govc_engine::Error::invalid("no")));
    assert_eq!(kind(refused), ErrorKind::Invalid);
    // Durable on return, both ways.
    let next = crash(&backend, Survivors::Synced);
    let store = open(&next);
    let repo = store.repo(&repo_name("a")).unwrap();
    assert_eq!(repo.lfs_lock_on("dir/a").unwrap(), Some(first.clone()));
    assert_eq!(repo.lfs_unlock(first.number, |_| Ok(())).unwrap(), first);
    assert_eq!(kind(repo.lfs_unlock(first.number, |_| Ok(()))), ErrorKind::NotFound);
    let third = repo.lfs_lock("x", "ada").unwrap().unwrap();
    assert!(third.number > second.number, "no number is given twice");
    let next = crash(&next, Survivors::Synced);
    let store = open(&next);
    let repo = store.repo(&repo_name("a")).unwrap();
    assert_eq!(repo.lfs_locks(None, 10).unwrap(), [second, third]);
    assert_eq!((repo.lfs_lock_on("dir/a").unwrap(), repo.lfs_lock_numbered(first.number).unwrap()), (None, None));
    for prefix in [&b"lfs_lock/"[..], b"lfs_locked/"] {
        assert_eq!(entries(&*next, Family::Meta, prefix).len(), 2, "both rows go");
    }
}

fn check(disk: &MemoryBackend) -> Fsck {
    Fsck::run(Arc::new(OverlayBackend::new(Arc::new(disk.fork().unwrap()))), options(), &Silent).unwrap()
}

#[test]
fn damage_is_named() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    let oid = put(&repo, &noise(1, LARGE)).unwrap();
    repo.lfs_lock("path", "ada").unwrap().unwrap();
    store.close().unwrap();
    let disk = backend.crash(Survivors::All).unwrap();
    let found = check(&disk);
    assert_eq!((found.findings, found.large_contents), (Vec::new(), 1));
    // One value changed, exchanged or removed: what is told, and what a reader gets.
    let damaged = |family, prefix: &[u8], nth: usize, change: &dyn Fn(&mut Vec<u8>) -> bool| {
        let disk = disk.fork().unwrap();
        let (row_key, value) = entries(&disk, family, prefix).swap_remove(nth);
        let (mut value, mut batch) = (value.to_vec(), Batch::new());
        match change(&mut value) {
            true => batch.put(family, row_key.to_vec(), value),
            false => batch.delete(family, row_key.to_vec()),
        }
        disk.write(batch, Sync::Yes).unwrap();
        let findings = check(&disk).findings;
        assert!(!findings.is_empty());
        let store = Store::open(Arc::new(disk), options()).unwrap();
        let repo = store.repo(&repo_name("a")).unwrap();
        let read = repo.lfs_object(&oid).and_then(|object| repo.lfs_chunk(&object.expect("a row"), 1));
        (findings.join("\n"), read.err().map(|error| error.kind().clone()))
    };
    let flip = |value: &mut Vec<u8>| {
        value[3] ^= 1;
        true
    };
    let (told, error) = damaged(Family::Blocks, b"", 1, &flip);
    assert!(told.contains("checksum") && told.contains(&oid.to_string()), "{told}");
    assert_eq!(error, Some(ErrorKind::Corrupt));
    let (told, error) = damaged(Family::Blocks, b"", 1, &|_| false);
    assert!(told.contains("chunk 1 is missing"), "{told}");
    assert_eq!(error, Some(ErrorKind::Corrupt));
    let reseal = |value: &mut Vec<u8>| {
        let body = value.len() - 4;
        let crc = crc32c::crc32c(&value[..body]);
        value[body..].copy_from_slice(&crc.to_le_bytes());
        true
    };
    let (told, _) = damaged(Family::Blocks, b"", 2, &|value| flip(value) && reseal(value));
    assert!(told.contains("has the SHA-256"), "{told}");
    let short = |value: &mut Vec<u8>| {
        value.remove(0);
        reseal(value)
    };
    let (told, error) = damaged(Family::Blocks, b"", 1, &short);
    assert!(told.contains("bytes, not"), "{told}");
    assert_eq!(error, Some(ErrorKind::Corrupt));
    let (told, error) = damaged(Family::Meta, b"lfs/", 0, &flip);
    assert!(told.contains("checksum"), "{told}");
    assert_eq!(error, Some(ErrorKind::Corrupt));
    let (told, _) = damaged(Family::Meta, b"lfs_lock/", 0, &flip);
    assert!(told.contains("checksum"), "{told}");
    let (told, _) = damaged(Family::Meta, b"lfs_lock/", 0, &|_| false);
    assert!(told.contains("\"path\""), "{told}");
    let (told, _) = damaged(Family::Meta, b"lfs_locked/", 0, &|_| false);
    assert!(told.contains("\"path\""), "{told}");
    // A content of a repository that is nowhere.
    let mut batch = Batch::new();
    let (row_key, value) = entries(&disk, Family::Meta, b"lfs/").swap_remove(0);
    let mut foreign = row_key.to_vec();
    foreign[4..12].fill(0x77);
    batch.put(Family::Meta, foreign, value);
    let other = disk.fork().unwrap();
    other.write(batch, Sync::Yes).unwrap();
    assert!(check(&other).findings.join("\n").contains("which is unknown"));
    assert!(LfsOid::from_str("x").is_err());
}
