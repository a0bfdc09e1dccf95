//! A full disk, and writes that fail in other ways.

use std::path::{Path, PathBuf};
use std::process::Command;

use govc_backends::{SqliteBackend, SqliteOptions};
use govc_engine::backend::{Backend, BackendError, BackendErrorKind, Batch, Family, Scan, Sync};

use super::{folder, open};
use crate::{get, put};

/// Tells a child which folder to write to.
const CHILD_FOLDER: &str = "GOVC_TEST_SQLITE_FOLDER";

#[test]
fn a_full_disk_refuses_writes_before_they_begin_and_recovers() {
    let folder = folder();
    let backend = open(folder.path());
    backend.write(put(b"before", b"1"), Sync::Yes).expect("write");
    drop(backend);

    let options = SqliteOptions { reserve_bytes: u64::MAX, ..SqliteOptions::default() };
    let backend = SqliteBackend::open(folder.path(), options).expect("a full disk can be opened");
    for sync in [Sync::No, Sync::Yes] {
        let error = backend.write(put(b"during", b"2"), sync).expect_err("full");
        assert_eq!(error.kind, BackendErrorKind::Full, "{error}");
    }
    assert_eq!((get(&backend, b"before"), get(&backend, b"during")), (Some(b"1".to_vec()), None));
    assert_eq!(backend.scan(Family::Refs, Scan::all()).expect("scan").count(), 1);
    backend.sync().expect("a sync needs no room");
    let mut batch = Batch::new();
    batch.delete(Family::Refs, b"before".to_vec());
    batch.uses_reserve = true;
    backend.write(batch, Sync::Yes).expect("what makes room is taken");
    drop(backend);

    let backend = open(folder.path());
    backend.write(put(b"after", b"3"), Sync::Yes).expect("there is room again");
    let found = [&b"before"[..], b"during", b"after"].map(|key| get(&backend, key));
    assert_eq!(found, [None, None, Some(b"3".to_vec())]);
}

/// Runs a test of this file by itself, after some words of a shell.
fn run_child(before: &str, name: &str, folder: &Path) {
    let output = Command::new("sh")
        .args(["-c", &format!("{before} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", &format!("sqlite::full::{name}"), "--ignored", "--nocapture"])
        .env(CHILD_FOLDER, folder)
        .output()
        .expect("a shell");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn child_folder() -> PathBuf {
    std::env::var_os(CHILD_FOLDER).expect("a folder").into()
}

/// Writes 64 KiB a key until a write fails; how many did not.
fn write_until_it_fails(backend: &dyn Backend, first: u32, sync: Sync) -> (u32, BackendError) {
    for number in first..100_000 {
        let mut batch = Batch::new();
        batch.put(Family::Blocks, number.to_be_bytes().to_vec(), vec![number as u8; 64 << 10]);
        if let Err(error) = backend.write(batch, sync) {
            return (number, error);
        }
    }
    panic!("no write failed");
}

/// Checks that these many values are there, and no more.
fn check(backend: &dyn Backend, count: u32) {
    let scan = backend.scan(Family::Blocks, Scan::all()).expect("scan");
    let entries: Vec<_> = scan.map(|entry| entry.expect("scan")).collect();
    assert_eq!(entries.len(), count as usize);
    for (number, (key, value)) in (0_u32..).zip(&entries) {
        assert_eq!(*key, &number.to_be_bytes()[..]);
        assert!(*value == vec![number as u8; 64 << 10]);
    }
}

#[test]
fn after_a_failed_write_none_is_taken_until_the_store_is_opened_again() {
    let folder = folder();
    // Files may not grow beyond 4 MiB (of 512 or 1024 bytes a block), and say so instead of killing the process.
    run_child("trap '' XFSZ; ulimit -f 4096;", "failing_child", folder.path());
    let backend = open(folder.path());
    let count = backend.scan(Family::Blocks, Scan::all()).expect("scan").count() as u32;
    assert!(count > 10, "{count}");
    check(&backend, count);
    let told = get(&backend, b"told").map(|told| String::from_utf8(told).expect("a number"));
    assert_eq!(told, None, "written after the failure");
    let acknowledged: u32 =
        std::fs::read_to_string(folder.path().join("acknowledged")).expect("the child's word").parse().expect("number");
    assert_eq!(count, acknowledged);
    backend.write(put(b"after", b"1"), Sync::Yes).expect("write");
}

#[test]
#[ignore = "the child of another test"]
fn failing_child() {
    let folder = child_folder();
    let backend = open(&folder);
    let (count, error) = write_until_it_fails(&backend, 0, Sync::Yes);
    assert_eq!(error.kind, BackendErrorKind::Failed, "{error}");
    for sync in [Sync::No, Sync::Yes] {
        let later = backend.write(put(b"told", b"1"), sync).expect_err("refused");
        assert_eq!(later.kind, BackendErrorKind::Failed, "{later}");
        assert!(later.message.contains("since one failed") && later.message.contains(&error.message), "{later}");
    }
    assert_eq!(backend.sync().expect_err("refused").kind, BackendErrorKind::Failed);
    check(&backend, count);
    std::fs::write(folder.join("acknowledged"), count.to_string()).expect("write");
    assert_eq!(backend.close().expect_err("not all is known to be durable").kind, BackendErrorKind::Failed);
}

#[test]
fn a_disk_that_fills_up_under_a_write_takes_it_back() {
    let folder = folder();
    let place = folder.path().display().to_string();
    let before = format!("mount -t tmpfs -o size=24m tmpfs '{place}' &&");
    // The mount is seen by the child alone and goes with it.
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", &format!("{before} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "sqlite::full::filling_child", "--ignored", "--nocapture"])
        .env(CHILD_FOLDER, folder.path())
        .output()
        .expect("unshare");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "the child of another test"]
fn filling_child() {
    const KEYS: u32 = 60_000;
    const FREE_BYTES: usize = 1 << 20;
    let folder = child_folder();
    // No reserve, and no checkpoint: the disk is what says no.
    let options = SqliteOptions { reserve_bytes: 0, ..SqliteOptions::default() };
    let batch = |step: usize, value: u8| {
        let mut batch = Batch::new();
        for number in (0..KEYS).step_by(step) {
            batch.put(Family::Ids, number.to_be_bytes().to_vec(), vec![value; 90]);
        }
        batch
    };
    let count = |backend: &dyn Backend, value: u8| {
        let scan = backend.scan(Family::Ids, Scan::all()).expect("scan");
        scan.map(|entry| entry.expect("scan").1).filter(|found| found[..] == vec![value; 90]).count()
    };
    let backend = SqliteBackend::open(&folder, options.clone()).expect("open");
    backend.write(batch(1, 1), Sync::Yes).expect("write");
    drop(backend);
    let ballast = folder.join("ballast");
    let mut left = vec![0_u8; 24 << 20];
    // A tmpfs takes what fits and then says no.
    while std::fs::write(&ballast, &left).is_err() {
        left.truncate(left.len() - (64 << 10));
    }
    std::fs::write(&ballast, &left[..left.len() - FREE_BYTES]).expect("ballast");

    let backend = SqliteBackend::open(&folder, options.clone()).expect("open");
    // A few kilobytes, for which there is room; but each key is on a page of its own.
    let error = backend.write(batch(70, 2), Sync::No).expect_err("full");
    assert_eq!(error.kind, BackendErrorKind::Full, "{error}");
    assert!(error.message.contains("database or disk is full"), "not what SQLite says: {error}");
    assert_eq!((count(&backend, 1), count(&backend, 2)), (KEYS as usize, 0));
    // What was begun has taken the last of the room, so the next one does not even begin.
    let error = backend.write(put(b"small", b"1"), Sync::Yes).expect_err("full");
    assert_eq!(error.kind, BackendErrorKind::Full, "{error}");

    std::fs::remove_file(&ballast).expect("make room");
    backend.write(batch(70, 3), Sync::Yes).expect("there is room again");
    drop(backend);
    let backend = SqliteBackend::open(&folder, options).expect("open");
    let changed = KEYS.div_ceil(70) as usize;
    assert_eq!((count(&backend, 1), count(&backend, 3)), (KEYS as usize - changed, changed));
    assert_eq!(get(&backend, b"small"), None);
}
