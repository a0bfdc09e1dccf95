//! RocksDB: the contract, and what a folder on a disk adds to it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use govc_backends::contract::{self, Subject};
use govc_backends::{RocksBackend, RocksOptions};
use govc_engine::backend::{Backend, BackendErrorKind, Batch, Family, Scan, Sync};
use tempfile::TempDir;

use crate::{get, put};

struct Rocks {
    folder: Option<TempDir>,
}

impl Subject for Rocks {
    fn open(&mut self) -> Arc<dyn Backend> {
        self.folder = Some(TempDir::new().expect("a temporary folder"));
        self.reopen().expect("a folder")
    }

    fn reopen(&mut self) -> Option<Arc<dyn Backend>> {
        let folder = self.folder.as_ref()?;
        Some(Arc::new(open(folder.path())))
    }
}

fn open(folder: &Path) -> RocksBackend {
    RocksBackend::open(folder, RocksOptions::default()).expect("open")
}

#[test]
fn rocksdb_keeps_the_contract() {
    contract::run(&mut Rocks { folder: None });
}

#[test]
fn rocksdb_keeps_the_contract_with_tiny_buffers() {
    // Flushes and compactions happen all the time.
    struct Tiny(Option<TempDir>);
    impl Subject for Tiny {
        fn open(&mut self) -> Arc<dyn Backend> {
            self.0 = Some(TempDir::new().expect("a temporary folder"));
            self.reopen().expect("a folder")
        }

        fn reopen(&mut self) -> Option<Arc<dyn Backend>> {
            let options = RocksOptions {
                block_cache_bytes: 1 << 20,
                write_buffer_bytes: 1 << 20,
                log_bytes_max: 1 << 20,
                open_files_max: 20,
                ..RocksOptions::default()
            };
            Some(Arc::new(RocksBackend::open(self.0.as_ref()?.path(), options).expect("open")))
        }
    }
    contract::run(&mut Tiny(None));
}

#[test]
fn a_folder_in_use_is_locked_and_the_message_names_it() {
    let folder = TempDir::new().expect("a temporary folder");
    let first = open(folder.path());
    let error = RocksBackend::open(folder.path(), RocksOptions::default()).err().expect("locked");
    assert_eq!(error.kind, BackendErrorKind::Locked, "{error}");
    assert!(error.message.contains(&folder.path().display().to_string()), "{error}");
    drop(first);
    drop(open(folder.path()));
}

#[test]
fn a_full_disk_refuses_writes_before_they_begin_and_recovers() {
    let folder = TempDir::new().expect("a temporary folder");
    let backend = open(folder.path());
    backend.write(put(b"before", b"1"), Sync::Yes).expect("write");
    drop(backend);

    let options = RocksOptions { reserve_bytes: u64::MAX, ..RocksOptions::default() };
    let backend = RocksBackend::open(folder.path(), options).expect("a full disk can be opened");
    for sync in [Sync::No, Sync::Yes] {
        let error = backend.write(put(b"during", b"2"), sync).expect_err("full");
        assert_eq!(error.kind, BackendErrorKind::Full, "{error}");
    }
    assert_eq!((get(&backend, b"before"), get(&backend, b"during")), (Some(b"1".to_vec()), None));
    assert_eq!(backend.scan(govc_engine::backend::Family::Refs, Scan::all()).expect("scan").count(), 1);
    backend.sync().expect("a sync needs no room");
    drop(backend);

    let backend = open(folder.path());
    backend.write(put(b"after", b"3"), Sync::Yes).expect("there is room again");
    assert_eq!((get(&backend, b"during"), get(&backend, b"after")), (None, Some(b"3".to_vec())));
}

#[test]
fn a_damaged_store_is_corrupt() {
    let folder = TempDir::new().expect("a temporary folder");
    drop(open(folder.path()));
    // CURRENT names the manifest; one that is not there cannot be opened.
    std::fs::write(folder.path().join("CURRENT"), "nonsense").expect("write CURRENT");
    let error = RocksBackend::open(folder.path(), RocksOptions::default()).err().expect("damaged");
    assert_eq!(error.kind, BackendErrorKind::Corrupt, "{error}");
    assert!(error.message.contains(&folder.path().display().to_string()), "{error}");
}

#[test]
fn a_place_that_is_no_folder_fails() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let error = RocksBackend::open(file.path(), RocksOptions::default()).err().expect("not a folder");
    assert_eq!(error.kind, BackendErrorKind::Failed, "{error}");
}

#[test]
fn an_unclosed_store_replays_its_log() {
    let folder = TempDir::new().expect("a temporary folder");
    let copy = TempDir::new().expect("a temporary folder");
    let backend = open(folder.path());
    for number in 0..100_u8 {
        backend.write(put(&[number], &[number; 1000]), Sync::No).expect("write");
    }
    backend.sync().expect("sync");
    // What a killed process leaves: the files as they are, with nothing flushed or closed.
    for entry in std::fs::read_dir(folder.path()).expect("list") {
        let entry = entry.expect("entry");
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copy");
    }
    let again = open(copy.path());
    for number in 0..100_u8 {
        assert_eq!(get(&again, &[number]), Some(vec![number; 1000]));
    }
    let usage = again.usage().expect("usage");
    assert!(usage.disk_bytes.is_some_and(|bytes| bytes > 100_000), "{usage:?}");
}

#[test]
fn removed_ranges_give_their_room_back() {
    const ROW: usize = 1 << 20;
    let folder = TempDir::new().expect("a temporary folder");
    // Small, so that rows are in tables when they are removed.
    let options = RocksOptions { write_buffer_bytes: 8 << 20, ..RocksOptions::default() };
    let store = RocksBackend::open(folder.path(), options.clone()).expect("open");
    let row = |of: u8, at: u8| vec![of, at];
    for at in 0..50 {
        let mut batch = Batch::new();
        batch.put(Family::Blocks, row(1, at), vec![at; ROW]);
        batch.put(Family::Blocks, row(2, at), vec![at; ROW]);
        store.write(batch, Sync::No).expect("write");
    }
    let bytes = |store: &RocksBackend| {
        let families = store.usage().expect("usage").families;
        families.iter().find(|(family, _)| *family == Family::Blocks).expect("blocks").1
    };
    assert!(bytes(&store) > 100 * ROW as u64);
    let mut batch = Batch::new();
    batch.delete_range(Family::Blocks, vec![1], vec![2]);
    store.write(batch, Sync::No).expect("write");
    let mut batch = Batch::new();
    batch.put(Family::Blocks, row(1, 7), &b"came later"[..]);
    store.write(batch, Sync::No).expect("write");
    let begin = Instant::now();
    // Nobody writes any more.
    while bytes(&store) > 56 * ROW as u64 {
        assert!(begin.elapsed() < Duration::from_secs(120), "{} bytes are left", bytes(&store));
        std::thread::sleep(Duration::from_millis(50));
    }
    let check = |store: &RocksBackend| {
        let found = store.scan(Family::Blocks, Scan::all()).expect("scan");
        let keys: Vec<Vec<u8>> = found.map(|entry| entry.expect("an entry").0.to_vec()).collect();
        let expected: Vec<Vec<u8>> = [row(1, 7)].into_iter().chain((0..50).map(|at| row(2, at))).collect();
        assert_eq!(keys, expected);
        let later = store.get(Family::Blocks, &row(1, 7)).expect("get");
        assert_eq!(later.as_deref(), Some(&b"came later"[..]));
    };
    check(&store);
    // What is removed right before the end waits for nobody.
    let mut batch = Batch::new();
    batch.delete_range(Family::Blocks, row(2, 40), vec![3]);
    store.write(batch, Sync::Yes).expect("write");
    store.close().expect("close");
    drop(store);
    let store = RocksBackend::open(folder.path(), options).expect("open once more");
    assert_eq!(store.scan(Family::Blocks, Scan::all()).expect("scan").count(), 41);
}

#[test]
fn removed_ranges_are_not_forgotten_when_the_store_is_closed_or_killed() {
    const ROW: usize = 1 << 20;
    let sizes = |folder: &Path| {
        let tables = std::fs::read_dir(folder).expect("list").map(|entry| entry.expect("an entry").path());
        let tables = tables.filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
        tables.map(|path| path.metadata().map_or(0, |metadata| metadata.len())).sum::<u64>()
    };
    let folder = TempDir::new().expect("a temporary folder");
    let store = open(folder.path());
    for at in 0..60 {
        let mut batch = Batch::new();
        batch.put(Family::Blocks, vec![at / 20, at], vec![at; ROW]);
        store.write(batch, Sync::No).expect("write");
    }
    store.close().expect("close");
    drop(store);
    assert!(sizes(folder.path()) > 60 * ROW as u64);
    // A closed store gives room back at once.
    let store = open(folder.path());
    let remove = |store: &RocksBackend, of: u8| {
        let mut batch = Batch::new();
        batch.delete_range(Family::Blocks, vec![of], vec![of + 1]);
        store.write(batch, Sync::Yes).expect("write");
    };
    remove(&store, 1);
    store.close().expect("close");
    drop(store);
    assert!(sizes(folder.path()) < 41 * ROW as u64, "{} bytes are left", sizes(folder.path()));
    // One that was not closed, when it runs again.
    let store = open(folder.path());
    remove(&store, 0);
    drop(store);
    assert!(sizes(folder.path()) > 40 * ROW as u64, "nothing has been done about it");
    let again = open(folder.path());
    let begin = Instant::now();
    while sizes(folder.path()) > 21 * ROW as u64 {
        assert!(begin.elapsed() < Duration::from_secs(120), "{} bytes are left", sizes(folder.path()));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(again.scan(Family::Blocks, Scan::all()).expect("scan").count(), 20);
    // What has been given back is noted no more.
    again.close().expect("close");
    drop(again);
    let left = rocksdb_notes(folder.path());
    assert_eq!(left, 0);
}

/// How many notes of removed ranges a closed store has.
fn rocksdb_notes(folder: &Path) -> usize {
    let options = rocksdb::Options::default();
    let names = rocksdb::DB::list_cf(&options, folder).expect("families");
    let database = rocksdb::DB::open_cf_for_read_only(&options, folder, names, false).expect("open");
    database.iterator(rocksdb::IteratorMode::Start).count()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

#[test]
fn a_moment_is_read_while_its_owner_writes_on() {
    let folder = TempDir::new().expect("a temporary folder");
    let missing = folder.path().join("missing");
    assert_eq!(RocksBackend::open_to_read(&missing).err().expect("nothing").kind, BackendErrorKind::Failed);
    assert!(!missing.exists());

    // Small buffers: files are flushed, merged and removed meanwhile.
    let options = RocksOptions { write_buffer_bytes: 1 << 20, log_bytes_max: 1 << 20, ..RocksOptions::default() };
    let owner = RocksBackend::open(folder.path(), options).expect("open");
    let fill = |from: u32, to: u32| {
        for number in from..to {
            owner.write(put(&number.to_be_bytes(), &[7; 4000]), Sync::No).expect("write");
        }
    };
    fill(0, 2000);
    let moment = RocksBackend::open_to_read(folder.path()).expect("open to read");
    fill(2000, 6000);
    owner.write(put(&0_u32.to_be_bytes(), b"changed"), Sync::Yes).expect("write");
    let found: Vec<_> = moment.scan(Family::Refs, Scan::all()).expect("scan").map(|row| row.expect("entry")).collect();
    assert_eq!(found.len(), 2000);
    assert!(found.iter().all(|(_, value)| value[..] == [7; 4000]));
    let error = moment.write(put(b"x", b"y"), Sync::No).expect_err("only to be read");
    assert!(error.kind == BackendErrorKind::Failed && error.message.contains("opened only to be read"), "{error}");
    moment.close().expect("close");
    assert_eq!(moment.get(Family::Refs, b"x").expect_err("closed").kind, BackendErrorKind::Closed);
    drop(moment);
    assert_eq!(get(&owner, &5999_u32.to_be_bytes()).map(|value| value.len()), Some(4000));
    owner.close().expect("close");
    drop(owner);
    let before = names(folder.path());
    let moment = RocksBackend::open_to_read(folder.path()).expect("open to read");
    assert_eq!(moment.scan(Family::Refs, Scan::all()).expect("scan").count(), 6000);
    drop(moment);
    assert_eq!(names(folder.path()), before, "reading leaves no trace");
}

/// Enough for some dozens of flushes.
const MOMENT_BATCHES: u32 = 6000;

/// Batches are numbered in their order, so a moment with a hole, or half a batch, shows.
#[test]
fn moments_under_load_are_whole() {
    let folder = TempDir::new().expect("a temporary folder");
    let options = RocksOptions { write_buffer_bytes: 1 << 20, log_bytes_max: 1 << 20, ..RocksOptions::default() };
    let owner = RocksBackend::open(folder.path(), options).expect("open");
    let (ended, written) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..MOMENT_BATCHES {
                if ended.load(Ordering::Acquire) {
                    break;
                }
                let mut batch = Batch::new();
                for family in [Family::Refs, Family::Journal, Family::Blocks] {
                    batch.put(family, number.to_be_bytes().to_vec(), vec![7; 2000]);
                }
                owner.write(batch, Sync::No).expect("write");
                written.store(number + 1, Ordering::Release);
                if number % 32 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
        });
        for _ in 0..8 {
            let before = written.load(Ordering::Acquire);
            let moment = RocksBackend::open_to_read(folder.path()).expect("open to read");
            let counts = [Family::Refs, Family::Journal, Family::Blocks].map(|family| {
                let keys = moment.scan(family, Scan::all()).expect("scan").map(|row| row.expect("entry").0);
                let keys: Vec<_> = keys.collect();
                assert!((0_u32..).zip(&keys).all(|(number, key)| key[..] == number.to_be_bytes()), "a hole");
                keys.len()
            });
            assert!(counts.iter().all(|count| *count == counts[0]), "half a batch: {counts:?}");
            assert!(counts[0] >= before as usize, "what was written before: {counts:?}, {before}");
        }
        ended.store(true, Ordering::Release);
    });
}
