//! PostgreSQL: the contract, and what a server beyond a network adds to it. Each test has a database of its own, and
//! where it needs one, a server.

mod admin;
mod outages;
mod proxy;

use std::sync::Arc;
use std::time::Duration;

use govc_backends::contract::{self, Subject};
use govc_backends::{PostgresBackend, PostgresOptions};
use govc_engine::backend::{Backend, BackendError, BackendErrorKind, Batch, Family, Scan, Sync};
use govc_postgres_server::shared;

use self::proxy::{Proxy, until};
use crate::{get, put};

fn open(url: &str) -> PostgresBackend {
    open_with(url, PostgresOptions::default())
}

fn open_with(url: &str, options: PostgresOptions) -> PostgresBackend {
    PostgresBackend::open(url, options).unwrap_or_else(|error| panic!("open: {error} ({:?})", error.kind))
}

fn refused(url: &str) -> BackendError {
    PostgresBackend::open(url, PostgresOptions::default()).err().expect("must be refused")
}

/// Options of a test that does not want to wait long.
fn hasty() -> PostgresOptions {
    PostgresOptions { outage_max: Duration::from_secs(1), ..PostgresOptions::default() }
}

/// The error of a call that must fail in this way.
#[track_caller]
fn fails<T>(result: Result<T, BackendError>, kind: BackendErrorKind) -> BackendError {
    let error = result.err().expect("must fail");
    assert_eq!(error.kind, kind, "{error}");
    error
}

/// A batch that sets a counter to the next number if it has this one.
fn increment(from: u64) -> Batch {
    let mut batch = Batch::new();
    batch.require_value(Family::Meta, b"counter".to_vec(), from.to_string().into_bytes());
    batch.put(Family::Meta, b"counter".to_vec(), (from + 1).to_string().into_bytes());
    batch
}

fn set_counter(to: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(Family::Meta, b"counter".to_vec(), to.to_string().into_bytes());
    batch
}

fn counter(backend: &dyn Backend) -> u64 {
    let value = backend.get(Family::Meta, b"counter").expect("get").expect("a counter");
    std::str::from_utf8(&value).expect("a number").parse().expect("a number")
}

struct Postgres {
    options: PostgresOptions,
    database: String,
}

impl Subject for Postgres {
    fn open(&mut self) -> Arc<dyn Backend> {
        self.database = shared().database();
        self.reopen().expect("a database")
    }

    fn reopen(&mut self) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(open_with(&shared().url(&self.database), self.options.clone())))
    }
}

#[test]
fn postgres_keeps_the_contract() {
    contract::run(&mut Postgres { options: PostgresOptions::default(), database: String::new() });
}

#[test]
fn postgres_keeps_the_contract_with_two_connections_and_a_strange_schema() {
    let options = PostgresOptions {
        schema: "a \"strange\" 'schema'".to_owned(),
        connections_max: 2,
        ..PostgresOptions::default()
    };
    contract::run(&mut Postgres { options, database: String::new() });
}

#[test]
fn a_second_server_is_locked_out_and_told_who_has_the_store() {
    let url = shared().url(&shared().database());
    let first = open(&format!("{url}?application_name=alpha"));
    let error = refused(&url);
    assert_eq!(error.kind, BackendErrorKind::Locked, "{error}");
    for part in ["127.0.0.1", "/test", "schema govc", "'alpha lease'", "since 20", "process "] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
    first.close().expect("close");
    drop(open(&url));
    drop(first);
}

#[test]
fn stores_in_two_schemas_of_one_database_are_apart() {
    let url = shared().url(&shared().database());
    let one = open(&url);
    let other = open_with(&url, PostgresOptions { schema: "other".to_owned(), ..PostgresOptions::default() });
    one.write(put(b"key", b"1"), Sync::Yes).expect("write");
    assert_eq!((get(&one, b"key"), get(&other, b"key")), (Some(b"1".to_vec()), None));
}

#[test]
fn a_server_that_was_taken_over_cannot_write() {
    let database = shared().database();
    let proxy = Proxy::to(shared().port);
    let first = open_with(&proxy.url(&database), hasty());
    first.write(put(b"a", b"1"), Sync::Yes).expect("write");

    // The first server's lease breaks, and it cannot connect to take it again; its other sessions live on.
    proxy.refuse(true);
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'govc lease'";
    assert_eq!(shared().sql(&database, ended).len(), 1);
    let second = open(&shared().url(&database));
    for _ in 0..2 {
        let error = fails(first.write(put(b"a", b"2"), Sync::Yes), BackendErrorKind::Fenced);
        assert!(error.message.contains("another server"), "{error}");
    }
    fails(first.sync(), BackendErrorKind::Fenced);
    assert_eq!(get(&second, b"a"), Some(b"1".to_vec()));
    second.write(put(b"a", b"3"), Sync::Yes).expect("write");

    // It finds the store again, and stays fenced also when the second one has gone.
    proxy.refuse(false);
    drop(second);
    fails(first.write(put(b"a", b"4"), Sync::No), BackendErrorKind::Fenced);
    assert_eq!(get(&first, b"a"), Some(b"3".to_vec()), "reads go on");
}

#[test]
fn a_lost_lease_is_taken_again() {
    let database = shared().database();
    let url = shared().url(&database);
    let first = open(&url);
    let sessions = || {
        let sql = "SELECT pid FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'govc lease'";
        shared().sql(&database, sql)
    };
    let before = sessions();
    shared().sql(&database, &format!("SELECT pg_terminate_backend({})", before[0][0]));
    first.write(put(b"a", b"1"), Sync::Yes).expect("writes go on");
    until("another session has the lease", || sessions().iter().any(|pid| *pid != before[0]));
    let error = fails(PostgresBackend::open(&url, PostgresOptions::default()).map(drop), BackendErrorKind::Locked);
    assert!(error.message.contains("govc lease"), "{error}");
}

#[test]
fn a_large_batch_is_written_whole_or_refused_whole() {
    // A large batch is several calls; all of them are one transaction.
    let url = shared().url(&shared().database());
    let backend = open(&url);
    let value = vec![7; 1 << 20];
    let mut batch = Batch::new();
    for number in 0..20_u8 {
        batch.put(Family::Blocks, vec![number], value.clone());
    }
    batch.require_absent(Family::Blocks, vec![0]);
    backend.write(batch.clone(), Sync::No).expect("write");
    let error = fails(backend.write(batch, Sync::No), BackendErrorKind::PreconditionFailed { index: 0 });
    assert!(error.message.contains("blocks"), "{error}");
    let found = backend.scan(Family::Blocks, Scan::all()).expect("scan");
    let found: Vec<_> = found.map(|entry| entry.expect("entry")).collect();
    assert_eq!(found.len(), 20);
    assert!(found.iter().all(|(_, other)| *other == value));
    backend.write(put(b"after", b"1"), Sync::Yes).expect("the session is good after a refusal");
}

/// Enough entries for several pages.
fn fill(backend: &dyn Backend) -> usize {
    const ENTRIES: u32 = 500;
    let mut batch = Batch::new();
    for number in 0..ENTRIES {
        batch.put(Family::Blocks, number.to_be_bytes().to_vec(), vec![1; 10_000]);
    }
    backend.write(batch, Sync::No).expect("fill");
    ENTRIES as usize
}

#[test]
fn open_scans_hold_up_nobody_and_are_bounded() {
    let database = shared().database();
    let options = PostgresOptions { connections_max: 2, scans_max: 3, ..hasty() };
    let backend = open_with(&shared().url(&database), options);
    let entries = fill(&backend);
    let mut scans: Vec<_> = (0..3).map(|_| backend.scan(Family::Blocks, Scan::all()).expect("scan")).collect();
    for scan in &mut scans {
        // Beyond the first page.
        assert_eq!(scan.by_ref().take(100).filter(Result::is_ok).count(), 100);
    }
    backend.write(put(b"key", b"1"), Sync::Yes).expect("a write beside open scans");
    assert_eq!(get(&backend, b"key"), Some(b"1".to_vec()));
    let short = backend.scan(Family::Refs, Scan::all()).expect("a short scan");
    assert_eq!(short.count(), 1);
    let error = fails(backend.scan(Family::Blocks, Scan::all()).map(drop), BackendErrorKind::Failed);
    assert!(error.message.contains("scans_max"), "{error}");
    let sql =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'govc %'";
    let sessions: usize = shared().sql(&database, sql)[0][0].parse().expect("a number");
    assert!(sessions <= 1 + 2 + 3, "{sessions} sessions");

    for scan in scans {
        assert_eq!(scan.filter(Result::is_ok).count(), entries - 100);
    }
    let again = backend.scan(Family::Blocks, Scan::all().reversed()).expect("scan");
    assert_eq!(again.filter(Result::is_ok).count(), entries);
    // One that is dropped half-way gives its place back.
    for _ in 0..10 {
        let mut scan = backend.scan(Family::Blocks, Scan::all()).expect("scan");
        assert!(scan.nth(200).expect("an entry").is_ok());
        drop(scan);
        until("the place of a dropped scan is free", || {
            backend.scan(Family::Blocks, Scan::all()).is_ok_and(|mut scan| scan.all(|entry| entry.is_ok()))
        });
    }
}

#[test]
fn threads_of_another_runtime_may_call() {
    let url = shared().url(&shared().database());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let backend = open(&url);
        backend.write(put(b"key", b"1"), Sync::Yes).expect("write");
        assert_eq!(get(&backend, b"key"), Some(b"1".to_vec()));
        assert_eq!(backend.scan(Family::Refs, Scan::all()).expect("scan").count(), 1);
        backend.close().expect("close");
        drop(backend);
        drop(open(&url));
    });
}

#[test]
fn what_is_too_large_is_refused_before_it_is_written() {
    let backend = open(&shared().url(&shared().database()));
    let mut batch = put(b"beside", b"1");
    batch.put(Family::Blocks, b"large".to_vec(), vec![0; (512 << 20) + 1]);
    let error = fails(backend.write(batch, Sync::Yes), BackendErrorKind::Failed);
    assert!(error.message.contains("nothing was written"), "{error}");
    let error = fails(backend.write(put(&[1; 3000], b"1"), Sync::Yes), BackendErrorKind::Failed);
    assert!(error.message.contains("nothing was written"), "{error}");
    // The longest key, of bytes that do not compress.
    let mut random = 1_u64;
    let key: Vec<u8> = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    })
    .take(2600)
    .collect();
    backend.write(put(&key, b"1"), Sync::Yes).expect("write");
    assert_eq!(get(&backend, &key), Some(b"1".to_vec()));
    assert_eq!(get(&backend, b"beside"), None);
}

#[test]
fn sizes_are_told() {
    let backend = open(&shared().url(&shared().database()));
    fill(&backend);
    let usage = backend.usage().expect("usage");
    let blocks = usage.families.iter().find(|(family, _)| *family == Family::Blocks).expect("blocks").1;
    assert!((4_000_000..20_000_000).contains(&blocks), "{usage:?}");
    assert!(usage.disk_bytes.is_some_and(|bytes| bytes > blocks), "{usage:?}");
    let description = backend.describe();
    assert_eq!((description.kind, description.durable), ("postgres", true));
    assert!(description.location.contains("127.0.0.1") && backend.warnings().is_empty(), "{description:?}");
}

#[test]
fn a_moment_is_read_while_its_owner_writes_on() {
    let database = shared().database();
    let url = shared().url(&database);
    let missing = PostgresBackend::open_to_read(&url, PostgresOptions::default()).err().expect("nothing is there");
    assert!(missing.kind == BackendErrorKind::Failed && missing.message.contains("there is no store"), "{missing}");
    let owner = open(&url);
    let put_all = |from: u32, to: u32| {
        let mut batch = Batch::new();
        (from..to).for_each(|number| batch.put(Family::Refs, number.to_be_bytes().to_vec(), vec![7; 2000]));
        owner.write(batch, Sync::No).expect("write");
    };
    put_all(0, 2000);
    let moment = PostgresBackend::open_to_read(&url, PostgresOptions::default()).expect("open to read");
    put_all(2000, 4000);
    owner.write(put(&0_u32.to_be_bytes(), b"changed"), Sync::Yes).expect("write");
    let keys: Vec<Vec<u8>> = (0..2000_u32).map(|number| number.to_be_bytes().to_vec()).collect();
    for reverse in [false, true] {
        let scan = if reverse { Scan::all().reversed() } else { Scan::all() };
        let found: Vec<_> = moment.scan(Family::Refs, scan).expect("scan").map(|row| row.expect("entry")).collect();
        let mut found_keys: Vec<_> = found.iter().map(|(key, _)| key.to_vec()).collect();
        if reverse {
            found_keys.reverse();
        }
        assert_eq!(found_keys, keys);
        assert!(found.iter().all(|(_, value)| value[..] == [7; 2000]));
    }
    let within = Scan { from: std::ops::Bound::Excluded(keys[10].clone()), ..Scan::prefix(&[0, 0, 0]) };
    assert_eq!(moment.scan(Family::Refs, within).expect("scan").count(), 256 - 11);
    assert_eq!(get(&moment, &0_u32.to_be_bytes()).as_deref(), Some(&[7; 2000][..]));
    assert_eq!(get(&moment, &3000_u32.to_be_bytes()), None);
    for result in [moment.write(put(b"x", b"y"), Sync::No), moment.sync()] {
        assert!(fails(result, BackendErrorKind::Failed).message.contains("opened only to be read"));
    }
    moment.close().expect("close");
    fails(moment.get(Family::Refs, b"x"), BackendErrorKind::Closed);
    fails(moment.write(put(b"x", b"y"), Sync::No), BackendErrorKind::Closed);
    assert_eq!(owner.scan(Family::Refs, Scan::all()).expect("scan").count(), 4000);
}

#[test]
fn a_url_names_a_schema_and_its_store_is_removed() {
    let database = shared().database();
    let (first, second) = (shared().url(&database), format!("{}?schema=other", shared().url(&database)));
    let (one, other) = (open(&first), open(&second));
    one.write(put(b"a", b"one"), Sync::Yes).expect("write");
    assert_eq!(get(&other, b"a"), None);
    let error = PostgresBackend::remove(&second, hasty()).expect_err("it is open");
    assert_eq!(error.kind, BackendErrorKind::Locked, "{error}");
    other.close().expect("close");
    drop(other);
    PostgresBackend::remove(&second, PostgresOptions::default()).expect("remove");
    PostgresBackend::remove(&second, PostgresOptions::default()).expect("it is gone, and that is fine");
    let schemas = shared().sql(&database, "SELECT nspname FROM pg_namespace WHERE nspname IN ('govc', 'other')");
    assert_eq!(schemas, [["govc"]]);
    assert!(get(&one, b"a").is_some());
}
