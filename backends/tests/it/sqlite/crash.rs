//! What is left after a crash: of the process, by `kill -9` and by copies of the files; of the machine, by copies of
//! which the log lost its end.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use govc_backends::SqliteBackend;
use govc_engine::backend::{Backend, Batch, Family, Scan, Sync};
use tempfile::TempDir;

use super::{FILE, LOG, folder, open, tiny};
use crate::{get, put};

/// Tells a child which folder to write to.
const CHILD_FOLDER: &str = "GOVC_TEST_SQLITE_FOLDER";
const THREADS: u8 = 4;
/// Acknowledged batches after which a child is killed: around the first checkpoints, and later.
const KILL_AFTER: [usize; 4] = [3, 70, 250, 600];

/// The families of each batch of a child.
const FAMILIES: [Family; 3] = [Family::Journal, Family::Ids, Family::Refs];

fn key_of(thread: u8, number: u32) -> Vec<u8> {
    [&[thread][..], &number.to_be_bytes()].concat()
}

fn value_of(thread: u8, number: u32) -> Vec<u8> {
    vec![thread ^ number as u8; 3000 + number as usize % 5000]
}

/// Writes until it is killed, and says what was acknowledged. Run by `nothing_acknowledged_is_lost_by_kill_9`.
#[test]
#[ignore = "the child of another test"]
fn child() {
    let folder = std::env::var_os(CHILD_FOLDER).expect("a folder");
    let backend = SqliteBackend::open(folder, tiny()).expect("open");
    let next = |thread: u8| backend.scan(Family::Ids, Scan::prefix(&[thread])).expect("scan").count() as u32;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (backend, first) = (&backend, next(thread));
            scope.spawn(move || {
                for number in first.. {
                    let mut batch = Batch::new();
                    for family in FAMILIES {
                        batch.require_absent(family, key_of(thread, number));
                        batch.put(family, key_of(thread, number), value_of(thread, number));
                    }
                    let sync = if number.is_multiple_of(3) { Sync::No } else { Sync::Yes };
                    backend.write(batch, sync).expect("write");
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "written {thread} {number}").and_then(|()| out.flush()).expect("a parent that reads");
                }
            });
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let folder = folder();
    // Numbers that were acknowledged, of each thread.
    let mut written = [0_u32; THREADS as usize];
    for kill_after in KILL_AFTER {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "sqlite::crash::child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut seen = 0;
        for line in lines.map_while(Result::ok) {
            // The harness puts its own words before the first line.
            let Some((_, rest)) = line.split_once("written ") else { continue };
            let (thread, number) = rest.split_once(' ').expect("two numbers");
            let (thread, number): (usize, u32) = (thread.parse().expect("thread"), number.parse().expect("number"));
            written[thread] = number + 1;
            seen += 1;
            if seen == kill_after {
                // And then reads on to the end: what was said before the kill counts.
                child.kill().expect("kill");
            }
        }
        child.wait().expect("the child ends");
        assert!(seen >= kill_after, "only {seen} batches were acknowledged");
        let backend = SqliteBackend::open(folder.path(), tiny()).expect("the lock went with the process");
        check(&backend, &written);
    }
}

/// Checks that of each thread all acknowledged batches are there, whole, perhaps one more, and nothing else.
fn check(backend: &dyn Backend, written: &[u32]) {
    for (thread, &written) in (0..).zip(written) {
        let mut counts = Vec::new();
        for family in FAMILIES {
            let scan = backend.scan(family, Scan::prefix(&[thread])).expect("scan");
            let entries: Vec<_> = scan.map(|entry| entry.expect("scan")).collect();
            for (number, (key, value)) in (0..).zip(&entries) {
                assert_eq!(*key, key_of(thread, number), "{family:?}");
                assert!(*value == value_of(thread, number), "{family:?} {thread} {number}");
            }
            counts.push(entries.len() as u32);
        }
        assert!(counts.iter().all(|count| *count == counts[0]), "a torn batch of thread {thread}: {counts:?}");
        assert!((written..=written + 1).contains(&counts[0]), "thread {thread}: {written} written, {counts:?} there");
    }
}

/// A copy of the files as they are, with nothing copied from the log or closed.
fn copy(from: &Path) -> TempDir {
    let copy = folder();
    for name in [FILE, LOG] {
        fs::copy(from.join(name), copy.path().join(name)).expect("copy");
    }
    copy
}

#[test]
fn an_unclosed_store_replays_its_log() {
    let folder = folder();
    let backend = open(folder.path());
    for number in 0..100_u8 {
        backend.write(put(&[number], &[number; 1000]), Sync::No).expect("write");
    }
    let copy = copy(folder.path());
    let again = open(copy.path());
    for number in 0..100_u8 {
        assert_eq!(get(&again, &[number]), Some(vec![number; 1000]));
    }
    again.write(put(b"after", b"1"), Sync::Yes).expect("write");
}

#[test]
fn a_log_that_lost_its_end_lost_a_suffix_of_the_batches() {
    const BATCHES: u8 = 50;
    let folder = folder();
    let backend = open(folder.path());
    for number in 0..BATCHES {
        let mut batch = Batch::new();
        for family in FAMILIES {
            batch.put(family, vec![number], vec![number; 10_000]);
        }
        backend.write(batch, Sync::No).expect("write");
    }
    let whole = copy(folder.path());
    let log = fs::read(whole.path().join(LOG)).expect("the log");
    let mut last = 0;
    for part in 1..=16 {
        // Ends within a page, and a page of zeros or of something else in the middle, as a disk may write out of order.
        let end = log.len() * part / 16 - 1000;
        for damage in 0..3 {
            let crashed = copy(whole.path());
            let mut left = log.clone();
            match damage {
                0 => left.truncate(end),
                1 => left[end..end + 500].fill(0),
                _ => left[end] ^= 0x20,
            }
            fs::write(crashed.path().join(LOG), left).expect("write");
            let again = open(crashed.path());
            let count = again.scan(FAMILIES[0], Scan::all()).expect("scan").count();
            for family in FAMILIES {
                let entries: Vec<_> =
                    again.scan(family, Scan::all()).expect("scan").map(|entry| entry.expect("scan")).collect();
                let wanted: Vec<_> =
                    (0..BATCHES).take(count).map(|number| (vec![number].into(), vec![number; 10_000].into())).collect();
                assert!(entries == wanted, "part {part}, damage {damage}, {family:?}: {} entries", entries.len());
            }
            assert!(count >= last, "part {part}: {count} batches, and {last} of less");
            if damage == 2 {
                last = count;
            }
        }
    }
    assert!(last >= usize::from(BATCHES) - 1, "only {last} batches of a log that lost little");
}
