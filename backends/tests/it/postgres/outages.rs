//! Connections that break, servers that stop, and writes that a crash takes away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use govc_backends::PostgresOptions;
use govc_engine::backend::{Backend, BackendErrorKind, Batch, Family, Sync};

use super::proxy::{Cut, Proxy, until};
use super::{counter, fails, hasty, increment, open, open_with, set_counter};
use crate::{get, put};
use govc_postgres_server::{Server, shared};

#[test]
fn an_answer_that_was_lost_is_found_out() {
    let database = shared().database();
    let proxy = Proxy::to(shared().port);
    let backend = open(&proxy.url(&database));
    backend.write(set_counter(0), Sync::Yes).expect("write");
    let mut expected = 0;
    for cut in [Cut::Answer, Cut::Request] {
        for sync in [Sync::Yes, Sync::No] {
            // Done a second time it would be refused: the counter has its next number already.
            proxy.arm(b"counter", cut);
            backend.write(increment(expected), sync).unwrap_or_else(|error| panic!("{cut:?}: {error}"));
            expected += 1;
            assert!(proxy.has_cut());
            assert_eq!(counter(&backend), expected, "{cut:?}");
        }
    }
}

#[test]
fn a_lost_answer_to_the_commit_of_a_large_batch_is_found_out() {
    let database = shared().database();
    let proxy = Proxy::to(shared().port);
    let backend = open(&proxy.url(&database));
    backend.write(set_counter(0), Sync::Yes).expect("write");
    let mut expected = 0;
    for (marker, cut) in [
        (&b"COMMIT"[..], Cut::Answer),
        (b"COMMIT", Cut::Request),
        (b"counter", Cut::Answer),
        (b"the last value", Cut::Answer),
        (b"BEGIN", Cut::Answer),
    ] {
        let mut batch = increment(expected);
        for number in 0..12_u8 {
            batch.put(Family::Refs, vec![number], vec![number; 1 << 20]);
        }
        batch.put(Family::Refs, vec![12], &b"the last value"[..]);
        proxy.arm(marker, cut);
        backend.write(batch, Sync::Yes).unwrap_or_else(|error| panic!("{cut:?}: {error}"));
        expected += 1;
        assert!(proxy.has_cut());
        assert_eq!(counter(&backend), expected, "{cut:?}");
        let mut remove = Batch::new();
        for number in 0..13_u8 {
            assert!(get(&backend, &[number]).is_some(), "{cut:?}, value {number}");
            remove.delete(Family::Refs, vec![number]);
        }
        backend.write(remove, Sync::No).expect("delete");
    }
}

#[test]
fn a_large_batch_that_was_not_committed_left_nothing() {
    let database = shared().database();
    let proxy = Proxy::to(shared().port);
    let backend = open_with(&proxy.url(&database), PostgresOptions { connections_max: 2, ..hasty() });
    let mut batch = Batch::new();
    for number in 0..12_u8 {
        batch.put(Family::Refs, vec![number], vec![number; 1 << 20]);
    }
    batch.put(Family::Refs, vec![12], &b"the last value"[..]);
    // The one writing connection is there before the proxy refuses.
    backend.sync().expect("sync");
    proxy.arm(b"the last value", Cut::Answer);
    proxy.refuse(true);
    fails(backend.write(batch, Sync::Yes), BackendErrorKind::Unavailable);
    assert!(proxy.has_cut());
    proxy.refuse(false);
    assert!((0..13_u8).all(|number| get(&backend, &[number]).is_none()));
    backend.write(put(b"later", b"1"), Sync::Yes).expect("a later write succeeds");
}

#[test]
fn a_request_that_arrives_late_does_nothing() {
    let database = shared().database();
    let proxy = Proxy::to(shared().port);
    let backend = open(&proxy.url(&database));
    backend.write(put(b"key", b"0"), Sync::Yes).expect("write");
    proxy.arm(b"the late value", Cut::Late);
    backend.write(put(b"key", b"the late value"), Sync::Yes).expect("write");
    assert!(proxy.has_cut());
    backend.write(put(b"key", b"newer"), Sync::Yes).expect("write");
    proxy.release();
    assert_eq!(get(&backend, b"key"), Some(b"newer".to_vec()));
}

#[test]
fn a_late_request_whose_repetition_was_refused_does_nothing() {
    let database = shared().database();
    let proxy = Proxy::to(shared().port);
    let backend = open(&proxy.url(&database));
    let value =
        |number: u64| format!("SET value = convert_to('{number}', 'UTF8') WHERE key = convert_to('counter', 'UTF8')");
    let set = |number: u64| shared().sql(&database, &format!("UPDATE govc.meta {}", value(number)));
    backend.write(set_counter(0), Sync::Yes).expect("write");

    proxy.arm(b"counter", Cut::Late);
    // Between the attempts somebody changes what the batch asks for.
    proxy.refuse(true);
    std::thread::scope(|scope| {
        let write = scope.spawn(|| backend.write(increment(0), Sync::Yes));
        until("the request is kept back", || proxy.has_cut());
        set(5);
        proxy.refuse(false);
        fails(write.join().expect("a result"), BackendErrorKind::PreconditionFailed { index: 0 });
    });
    // Now it would hold again.
    set(0);
    proxy.release();
    assert_eq!(counter(&backend), 0);
    backend.write(increment(0), Sync::Yes).expect("a later write is made, not taken for that one");
    assert_eq!(counter(&backend), 1);
}

#[test]
fn an_unknown_outcome_ends_the_handle() {
    let database = shared().database();
    let proxy = Proxy::to(shared().port);
    let backend = open_with(&proxy.url(&database), hasty());
    backend.write(put(b"key", b"1"), Sync::Yes).expect("write");
    proxy.arm(b"the value", Cut::Answer);
    proxy.refuse(true);
    let error = fails(backend.write(put(b"key", b"the value"), Sync::Yes), BackendErrorKind::Failed);
    assert!(error.message.contains("while a write was being committed"), "{error}");
    proxy.refuse(false);
    fails(backend.write(put(b"key", b"2"), Sync::Yes), BackendErrorKind::Failed);
    drop(backend);
    let backend = open(&shared().url(&database));
    assert_eq!(get(&backend, b"key"), Some(b"the value".to_vec()), "opening again finds out");
}

#[test]
fn a_server_that_is_away_is_unavailable_and_nothing_was_written() {
    let database = shared().database();
    let proxy = Proxy::to(shared().port);
    let backend = open_with(&proxy.url(&database), hasty());
    backend.write(put(b"key", b"1"), Sync::Yes).expect("write");
    proxy.refuse(true);
    proxy.arm(b"second", Cut::Request);
    // The request is cut off before the server has it, which this side cannot know.
    fails(backend.write(put(b"second", b"1"), Sync::Yes), BackendErrorKind::Failed);
    drop(backend);

    proxy.refuse(false);
    let backend = open_with(&proxy.url(&database), hasty());
    proxy.refuse(true);
    // No writing connection was made yet: nothing can have been sent.
    let error = fails(backend.write(put(b"third", b"1"), Sync::Yes), BackendErrorKind::Unavailable);
    assert!(error.message.contains("cannot be reached"), "{error}");
    proxy.refuse(false);
    backend.write(put(b"fourth", b"1"), Sync::Yes).expect("a later write succeeds");
    assert_eq!((get(&backend, b"second"), get(&backend, b"third")), (None, None));
}

/// Writers count and put numbered keys while the server is stopped and started; all that was acknowledged is there, once.
#[test]
fn restarts_under_load_lose_nothing_and_repeat_nothing() {
    const WRITERS: u64 = 3;
    let server = Server::start(&["wal_writer_delay=10s"]);
    let database = server.database();
    let backend = open(&server.url(&database));
    backend.write(set_counter(0), Sync::Yes).expect("write");
    let stop = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (backend, stop, written) = (&backend, &stop, &written);
                scope.spawn(move || {
                    let (mut puts, mut increments) = (0_u64, 0_u64);
                    while !stop.load(Ordering::Relaxed) {
                        let mut batch = Batch::new();
                        batch.put(Family::Journal, format!("{writer} {puts:08}").into_bytes(), vec![1; 3000]);
                        backend.write(batch, Sync::Yes).expect("a plain write");
                        puts += 1;
                        let from = counter(backend);
                        match backend.write(increment(from), Sync::Yes) {
                            Ok(()) => increments += 1,
                            Err(error) if error.kind == (BackendErrorKind::PreconditionFailed { index: 0 }) => {}
                            Err(error) => panic!("a checked write: {error}"),
                        }
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                    (puts, increments)
                })
            })
            .collect();
        for mode in ["fast", "immediate", "immediate"] {
            let before = written.load(Ordering::Relaxed);
            until("writes go on", || written.load(Ordering::Relaxed) > before + 50);
            server.down(mode);
            server.up();
        }
        let before = written.load(Ordering::Relaxed);
        until("writes go on", || written.load(Ordering::Relaxed) > before + 50);
        stop.store(true, Ordering::Relaxed);
        let mut increments = 0;
        for (writer, thread) in (0..WRITERS).zip(writers) {
            let (puts, counted) = thread.join().expect("a writer");
            increments += counted;
            let keys: Vec<Vec<u8>> = (0..=puts).map(|number| format!("{writer} {number:08}").into_bytes()).collect();
            let found = backend.get_many(Family::Journal, &keys).expect("get_many");
            let there = found.iter().filter(|value| value.is_some()).count() as u64;
            assert_eq!(there, puts, "keys of writer {writer}");
        }
        assert_eq!(counter(&backend), increments);
    });
}

/// How often a server may crash without a loss: its log writer may come before the crash.
const CRASHES_MAX: u8 = 5;

#[test]
fn unsynced_writes_that_a_crash_took_end_the_handle() {
    let server = Server::start(&["wal_writer_delay=10s", "wal_writer_flush_after=1GB"]);
    let url = server.url(&server.database());
    let options = PostgresOptions { outage_max: Duration::from_secs(10), ..PostgresOptions::default() };
    let backend = open_with(&url, options.clone());
    backend.write(put(b"synced", b"1"), Sync::Yes).expect("write");
    let lost = (0..CRASHES_MAX).any(|crash| {
        for number in 0..50_u8 {
            backend.write(put(&[b'u', crash, number], b"1"), Sync::No).expect("write");
        }
        server.down("immediate");
        server.up();
        // Reads go on, and show whether there was a loss.
        let is_left = |number: u8| get(&backend, &[b'u', crash, number]).is_some();
        let left = (0..50_u8).filter(|number| is_left(*number)).count();
        assert!((0..50_u8).all(|number| is_left(number) == (usize::from(number) < left)), "a suffix");
        left < 50
    });
    assert!(lost, "no crash lost anything, so there is nothing to notice");
    for sync in [Sync::Yes, Sync::No] {
        let error = fails(backend.write(put(b"later", b"1"), sync), BackendErrorKind::Failed);
        assert!(error.message.contains("acknowledged before they were synced"), "{error}");
    }
    drop(backend);
    let backend = open_with(&url, options.clone());
    assert_eq!((get(&backend, b"synced"), get(&backend, b"later")), (Some(b"1".to_vec()), None));

    // What was synced, by a call of its own too, is not lost, and the handle lives.
    for number in 0..50_u8 {
        backend.write(put(&[b'v', number], b"1"), Sync::No).expect("write");
    }
    backend.sync().expect("sync");
    server.down("immediate");
    server.up();
    backend.write(put(b"later", b"1"), Sync::Yes).expect("write");
    assert!((0..50_u8).all(|number| get(&backend, &[b'v', number]).is_some()));
}

/// The connection that writes next after the crash has lost nothing itself.
#[test]
fn a_loss_of_another_connection_ends_the_handle() {
    let server = Server::start(&["wal_writer_delay=10s", "wal_writer_flush_after=1GB"]);
    let database = server.database();
    let backend = open(&server.url(&database));
    backend.write(put(b"synced", b"1"), Sync::Yes).expect("write");
    let lost = (0..CRASHES_MAX).any(|crash| {
        let (lost, later) = ([b'l', crash], [b'w', crash]);
        std::thread::scope(|scope| {
            // While the table is locked, the plain write waits for it, and the checked one, in another slot, for the
            // plain one. So it ends last, refused, and its slot is taken first.
            let lock = "BEGIN; LOCK TABLE govc.lease; SELECT pg_sleep(1); COMMIT";
            scope.spawn(|| server.sql(&database, lock));
            let waiting = |count: usize| {
                let sql = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' OR wait_event = 'PgSleep'";
                until("sessions wait", || server.sql(&database, sql).len() == count);
            };
            waiting(1);
            scope.spawn(|| backend.write(put(&lost, b"1"), Sync::No).expect("write"));
            waiting(2);
            let mut checked = Batch::new();
            checked.require_absent(Family::Refs, b"synced".to_vec());
            fails(backend.write(checked, Sync::No), BackendErrorKind::PreconditionFailed { index: 0 });
        });
        server.down("immediate");
        server.up();
        // Without a read before, which would have noticed.
        let written = backend.write(put(&later, b"1"), Sync::Yes);
        let is_lost = get(&backend, &lost).is_none();
        if is_lost {
            fails(written, BackendErrorKind::Failed);
            assert_eq!(get(&backend, &later), None, "written after the loss");
        } else {
            written.expect("nothing was lost");
        }
        is_lost
    });
    assert!(lost, "no crash lost anything, so there is nothing to notice");
}
