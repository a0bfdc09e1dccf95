//! Stores that move: copies, backups, restoration, and what goes wrong on the way.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod backup;
mod copy;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use govc_backends::MemoryBackend;
use govc_engine::{
    Backend, Change, CommitRequest, Durability, Family, ObjectFormat, Oid, RefName, RepoName, RepoSettings, Scan,
    Signature, Store, StoreOptions,
};
use govc_transfer::Progress;

type Rows = Vec<(Family, Vec<u8>, Vec<u8>)>;

/// All rows of a backend.
fn rows(backend: &dyn Backend) -> Rows {
    let rows = |family| {
        let entries = backend.scan(family, Scan::all()).expect("scan").map(|entry| entry.expect("entry"));
        entries.map(move |(key, value)| (family, key.to_vec(), value.to_vec())).collect::<Vec<_>>()
    };
    Family::ALL.into_iter().flat_map(rows).collect()
}

fn options() -> StoreOptions {
    StoreOptions { memory_budget_bytes: 64 << 20, ..StoreOptions::default() }
}

/// Adds repositories of these names, or commits to them, so many each; settled where asked for, else in the journal.
fn commit(backend: &Arc<MemoryBackend>, names: &[&str], commits: u32, settles: bool) {
    // Closing a store closes its backend, so it works on a fork that is kept.
    let store = Store::open(backend.clone(), options()).expect("open");
    for name in names {
        let name = RepoName::new(name).expect("name");
        let repo = store.repo(&name).or_else(|_| {
            // Of both formats, so that a store of either moves.
            let object_format = if name.as_str() == "two" { ObjectFormat::Sha256 } else { ObjectFormat::Sha1 };
            let settings = RepoSettings { durability: Durability::Durable, object_format, ..RepoSettings::default() };
            store.create(&name, settings, "tester")
        });
        let repo = repo.expect("repository");
        for number in 0..commits {
            let signature = Signature::new("Tester", "tester@example.com", 1_700_000_000, 0).expect("signature");
            let text = format!("{name} {number} {}", repo.stats().version);
            let changes = vec![Change::put(format!("dir/file {number}"), text.clone().repeat(50))];
            let request = CommitRequest::new(RefName::branch("main").expect("branch"), text, signature, changes);
            repo.commit(request).expect("commit").published.ticket.wait().expect("durable");
        }
    }
    if settles {
        store.settle();
    }
    // As a crash would leave it: the journal is not settled by closing.
    std::mem::forget(store);
}

/// A backend with a store of two repositories, in blocks and in the journal.
fn source() -> Arc<MemoryBackend> {
    let backend = Arc::new(MemoryBackend::new());
    commit(&backend, &["one", "two"], 20, true);
    let moment = Arc::new(backend.fork().expect("fork"));
    commit(&moment, &["two"], 5, false);
    Arc::new(moment.fork().expect("fork"))
}

/// The next moment of a store, some commits later; a repository goes, and another comes.
fn later(moment: &MemoryBackend) -> Arc<MemoryBackend> {
    let backend = Arc::new(moment.fork().expect("fork"));
    let store = Store::open(backend.clone(), options()).expect("open");
    store.delete(&RepoName::new("one").expect("name")).expect("delete");
    store.settle();
    std::mem::forget(store);
    let backend = Arc::new(backend.fork().expect("fork"));
    commit(&backend, &["two", "three"], 7, true);
    Arc::new(backend.fork().expect("fork"))
}

/// What a person would find: each repository's branches with what their files say.
fn seen(backend: &Arc<MemoryBackend>) -> BTreeMap<String, (Oid, usize)> {
    let store = Store::open(Arc::new(backend.fork().expect("fork")), options()).expect("open");
    let look = |repo: &govc_engine::Repo| {
        let snapshot = repo.snapshot();
        let head = snapshot.reference(&RefName::branch("main").expect("branch")).expect("main");
        let commit = snapshot.commit(&head).expect("commit");
        let mut bytes = 0;
        let entry = snapshot.entry(head, b"dir").expect("readable").expect("there");
        let tree = snapshot.object(&entry.oid).expect("tree");
        for entry in govc_engine::tree_entries(entry.oid.format(), &tree.data) {
            bytes += snapshot.object(&entry.expect("entry").oid).expect("file").data.len();
        }
        assert!(!commit.message.is_empty());
        (repo.name().to_string(), (head, bytes))
    };
    store.list(None, usize::MAX).iter().map(look).collect()
}

/// Ends the work after so many steps.
struct Impatient {
    steps: AtomicU64,
    max: u64,
}

impl Impatient {
    fn new(max: u64) -> Self {
        Self { steps: AtomicU64::new(0), max }
    }
}

impl Progress for Impatient {
    fn begin(&self, _what: &str, _bytes: Option<u64>) {}

    fn advance(&self, _bytes: u64) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {}

    fn is_cancelled(&self) -> bool {
        self.steps.load(Ordering::Relaxed) >= self.max
    }
}
