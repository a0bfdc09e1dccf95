//! Whose folder it is, and which files are refused.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use govc_backends::{SqliteBackend, SqliteOptions};
use govc_engine::backend::{Backend, BackendError, BackendErrorKind, Batch, Family, Scan, Sync};

use super::{FILE, LOG, folder, open};
use crate::{get, put};

/// SQLite's header: the version that a program gives its tables, and the program.
const VERSION_AT: u64 = 60;
const APPLICATION_AT: u64 = 68;

fn refused(folder: &Path) -> BackendError {
    let error = SqliteBackend::open(folder, SqliteOptions::default()).err().expect("refused");
    assert!(error.message.contains(&folder.display().to_string()), "{error}");
    error
}

/// All files of a folder but the lock.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("list")
        .map(|entry| entry.expect("entry"))
        .filter(|entry| entry.file_name() != "lock")
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("read")))
        .collect();
    files.sort();
    files
}

/// Overwrites bytes of the database of a closed store.
fn patch(folder: &Path, at: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(folder.join(FILE)).expect("the database");
    file.write_all_at(bytes, at).expect("patch");
}

#[test]
fn a_folder_in_use_is_locked_until_the_backend_is_dropped() {
    let folder = folder();
    let first = open(folder.path());
    assert_eq!(refused(folder.path()).kind, BackendErrorKind::Locked);
    first.write(put(b"key", b"1"), Sync::Yes).expect("the first still has it");
    first.close().expect("close");
    assert_eq!(refused(folder.path()).kind, BackendErrorKind::Locked);
    drop(first);
    assert_eq!(get(&open(folder.path()), b"key"), Some(b"1".to_vec()));
}

#[test]
fn a_newer_version_is_refused_and_stays_as_it_is() {
    let folder = folder();
    drop(open(folder.path()));
    patch(folder.path(), VERSION_AT, &2_u32.to_be_bytes());
    let before = contents(folder.path());
    let error = refused(folder.path());
    assert_eq!(error.kind, BackendErrorKind::Failed, "{error}");
    assert!(error.message.contains("version 2"), "{error}");
    assert!(contents(folder.path()) == before, "a refused store was changed");
}

#[test]
fn a_database_of_another_program_is_refused_and_stays_as_it_is() {
    let folder = folder();
    let backend = open(folder.path());
    backend.write(put(b"key", b"1"), Sync::Yes).expect("write");
    // A log that whoever owns the database would replay.
    let (file, log) = (fs::read(folder.path().join(FILE)), fs::read(folder.path().join(LOG)));
    drop(backend);
    fs::write(folder.path().join(FILE), file.expect("the database")).expect("write");
    fs::write(folder.path().join(LOG), log.expect("the log")).expect("write");
    patch(folder.path(), APPLICATION_AT, b"them");
    let before = contents(folder.path());
    let error = refused(folder.path());
    assert_eq!(error.kind, BackendErrorKind::Failed, "{error}");
    assert!(error.message.contains("another program"), "{error}");
    assert!(contents(folder.path()) == before, "a foreign database was changed");
}

#[test]
fn what_is_no_database_is_corrupt() {
    for bytes in [&b""[..], b"SQLite format 3\0", &[7; 4096]] {
        let folder = folder();
        fs::write(folder.path().join(FILE), bytes).expect("write");
        let error = refused(folder.path());
        assert_eq!(error.kind, BackendErrorKind::Corrupt, "{error}");
        assert_eq!(fs::read(folder.path().join(FILE)).expect("read"), bytes);
    }
}

#[test]
fn a_log_without_its_database_is_corrupt() {
    let folder = folder();
    drop(open(folder.path()));
    fs::remove_file(folder.path().join(FILE)).expect("remove");
    let error = refused(folder.path());
    assert_eq!(error.kind, BackendErrorKind::Corrupt, "{error}");
}

#[test]
fn a_damaged_page_is_corrupt_when_it_is_read() {
    let folder = folder();
    let backend = open(folder.path());
    let mut batch = Batch::new();
    for number in 0..20_000_u32 {
        batch.put(Family::Ids, number.to_be_bytes().to_vec(), vec![1_u8; 40]);
    }
    backend.write(batch, Sync::Yes).expect("write");
    drop(backend);
    let bytes = fs::metadata(folder.path().join(FILE)).expect("the database").len();
    // Past the pages that say where the tables are.
    patch(folder.path(), 200 << 10, &vec![0xa5; usize::try_from(bytes - (200 << 10)).expect("small")]);
    let backend = open(folder.path());
    let error = backend.scan(Family::Ids, Scan::all()).and_then(|mut scan| {
        // An error is the last that a scan says.
        scan.find_map(Result::err).map_or(Ok(()), Err)
    });
    let error = error.expect_err("damaged");
    assert_eq!(error.kind, BackendErrorKind::Corrupt, "{error}");
}

#[test]
fn a_creation_that_was_interrupted_begins_anew() {
    let folder = folder();
    fs::write(folder.path().join("govc.sqlite.new"), [7; 5000]).expect("write");
    fs::write(folder.path().join("govc.sqlite.new-wal"), [7; 5000]).expect("write");
    let backend = open(folder.path());
    backend.write(put(b"key", b"1"), Sync::Yes).expect("write");
    let left = contents(folder.path()).into_iter().filter(|(name, _)| name.starts_with("govc.sqlite.new"));
    assert_eq!(left.count(), 0, "nothing is left of the creation");
}

#[test]
fn a_program_that_writes_the_database_holds_writes_up_and_loses_none() {
    let folder = folder();
    let backend = open(folder.path());
    backend.write(put(b"key", b"1"), Sync::Yes).expect("write");
    let foreign = rusqlite::Connection::open(folder.path().join(FILE)).expect("the database");
    foreign.execute_batch("BEGIN IMMEDIATE").expect("nobody writes");
    let error = backend.write(put(b"key", b"2"), Sync::Yes).expect_err("somebody writes");
    assert_eq!(error.kind, BackendErrorKind::Unavailable, "{error}");
    assert_eq!(get(&backend, b"key"), Some(b"1".to_vec()), "reads go on");
    foreign.execute_batch("ROLLBACK").expect("rollback");
    backend.write(put(b"key", b"3"), Sync::Yes).expect("the handle is as it was");
    assert_eq!(get(&backend, b"key"), Some(b"3".to_vec()));
}

#[test]
fn a_place_that_is_no_folder_fails() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let error = SqliteBackend::open(file.path(), SqliteOptions::default()).err().expect("not a folder");
    assert_eq!(error.kind, BackendErrorKind::Failed, "{error}");
}
