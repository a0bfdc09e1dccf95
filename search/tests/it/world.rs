//! What the tests of searches share: a store with a repository, a corpus that may know some of it, commits of any shape.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use govc_engine::{
    Cause, Change, Commit, CommitRequest, Content, Expected, Kind, Oid, RefEdit, RefName, Repo, RepoName, Signature,
    Store, StoreOptions, Transaction,
};
use govc_search::{
    Corpus, Cursor, Definer, FindOptions, Found, InProcess, Indexer, Place, find,
    query::{Query, parse},
};

/// A store with one repository, and a corpus that may know some of it.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) repo: Repo,
    pub(crate) corpus: Arc<Corpus>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_definer(Arc::new(InProcess::default()))
    }

    /// With somebody who tells definitions.
    pub(crate) fn with_definer(definer: Arc<dyn Definer>) -> Self {
        Self::with(memory_store(StoreOptions::default()), Corpus::in_memory(8 << 20, Some(definer)).expect("corpus"))
    }

    /// Of a store, which gets a repository, and what to search it with.
    pub(crate) fn with(store: Store, corpus: Corpus) -> Self {
        let repo = create(&store, "demo");
        Self { store, repo, corpus: Arc::new(corpus) }
    }

    pub(crate) fn commit(&self, branch: &str, changes: Vec<Change>) -> Oid {
        commit(&self.repo, branch, changes)
    }

    pub(crate) fn put(&self, branch: &str, files: &[(&str, &[u8])]) -> Oid {
        self.commit(branch, files.iter().map(|(path, data)| put(path, data)).collect())
    }

    pub(crate) fn index(&self) {
        Indexer::new(self.store.clone(), self.corpus.clone(), Arc::default()).index_all(&|| false).expect("indexed");
    }

    /// Indexes, and has the files of all tips told what they define.
    pub(crate) fn define(&self) {
        Indexer::new(self.store.clone(), self.corpus.clone(), Arc::default()).define_all(&|| false).expect("recorded");
    }

    pub(crate) fn place(&self, rev: &str) -> Place {
        place(&self.repo, rev)
    }

    pub(crate) fn find(&self, query: &str, rev: &str) -> Found {
        find(&self.corpus, &query_of(query), &[self.place(rev)], &FindOptions::default()).expect("found")
    }

    /// The `path:line` of each line of the first page, files by path.
    pub(crate) fn lines(&self, query: &str, rev: &str) -> Vec<String> {
        let found = self.find(query, rev);
        let mut lines: Vec<String> = Vec::new();
        for file in &found.files {
            let path = String::from_utf8_lossy(&file.path);
            match file.lines.is_empty() {
                true => lines.push(path.into_owned()),
                false => lines.extend(file.lines.iter().map(|line| format!("{path}:{}", line.line_number))),
            }
        }
        lines.sort();
        lines
    }

    pub(crate) fn check(&self, query: &str, expected: &[&str]) {
        assert_eq!(self.lines(query, "HEAD"), expected, "{query}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.store.close().expect("close");
    }
}

pub(crate) fn create(store: &Store, name: &str) -> Repo {
    store.create(&RepoName::new(name).expect("name"), super::settings(), "test").expect("create")
}

pub(crate) fn put(path: &str, data: &[u8]) -> Change {
    Change::Put { path: path.into(), content: Content::Bytes(Bytes::copy_from_slice(data)), mode: None }
}

pub(crate) fn memory_store(options: StoreOptions) -> Store {
    Store::open(Arc::new(govc_backends::MemoryBackend::new()), options).expect("open")
}

pub(crate) fn commit(repo: &Repo, branch: &str, changes: Vec<Change>) -> Oid {
    let committed = repo.commit(request(branch, "work", 1_700_000_000, changes)).expect("commit");
    committed.published.ticket.wait().expect("durable");
    committed.oid
}

/// A commit as of `seconds`, also if it changes nothing.
pub(crate) fn request(branch: &str, message: &str, seconds: i64, changes: Vec<Change>) -> CommitRequest {
    let person = Signature::new("Test", "test@example.com", seconds, 0).expect("signature");
    let branch = RefName::branch(branch).expect("branch");
    CommitRequest { allow_empty: true, ..CommitRequest::new(branch, message, person, changes) }
}

/// A commit on `branch` whose only file, with a needle, lies below `depth` directories. Those of two such commits are
/// the same, but for how many there are. No way of committing files makes so many; a push may.
pub(crate) fn commit_deep(repo: &Repo, branch: &str, depth: usize) -> Oid {
    let entry = |mode: &str, name: &str, oid: Oid| -> Bytes {
        [format!("{mode} {name}\0").as_bytes(), oid.as_bytes()].concat().into()
    };
    let mut transaction = repo.begin("test", Cause::Push);
    let file = transaction.put(Kind::Blob, Bytes::from_static(b"a needle\n")).expect("a blob");
    let mut tree = transaction.put(Kind::Tree, entry("100644", "f.rs", file)).expect("a tree");
    for _ in 0..depth {
        tree = transaction.put(Kind::Tree, entry("40000", "d", tree)).expect("a tree");
    }
    let person = Signature::new("Test", "test@example.com", 1_700_000_000, 0).expect("signature");
    let commit = Commit {
        tree,
        parents: [].into_iter().collect(),
        author: person.clone(),
        committer: person,
        encoding: None,
        extra_headers: Vec::new(),
        message: b"deep".to_vec(),
    };
    let oid = transaction.put(Kind::Commit, commit.to_bytes().into()).expect("a commit");
    point(&mut transaction, branch, oid);
    publish(transaction);
    oid
}

/// Points a branch at a commit.
pub(crate) fn point(transaction: &mut Transaction, branch: &str, commit: Oid) {
    let name = RefName::branch(branch).expect("branch");
    transaction.edit(RefEdit { name, expected: Expected::Any, target: Some(commit) }).expect("an edit");
}

/// A new branch at a commit.
pub(crate) fn branch(repo: &Repo, name: &str, commit: Oid) {
    let mut transaction = repo.begin("test", Cause::Push);
    point(&mut transaction, name, commit);
    publish(transaction);
}

pub(crate) fn publish(transaction: Transaction) {
    let published = transaction.prepare().and_then(|prepared| prepared.publish()).expect("published");
    published.ticket.wait().expect("durable");
}

/// Runs on a stack as large as those of the threads that search: directories are walked by recursion.
pub(crate) fn on_a_large_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(run).expect("a thread");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn place(repo: &Repo, rev: &str) -> Place {
    let snapshot = repo.snapshot();
    let commit = snapshot.resolve_commit(rev).expect("a commit");
    Place { repo: repo.name().to_string(), is_fork: repo.forked_from().is_some(), rev: rev.into(), commit, snapshot }
}

pub(crate) fn query_of(text: &str) -> Query {
    parse(text, 1_800_000_000).expect("a query")
}

pub(crate) fn source() -> World {
    let world = World::new();
    world.put(
        "main",
        &[
            ("README.md", b"govc.\nA server of git.\n"),
            ("logo.png", b"\x89PNG\0govc"),
            ("src/lib.rs", b"//! govc\nfn main() {\n    let foo = 1;\n    let foobar = foo;\n}\n"),
            ("src/net/a.c", b"int Foo;\r\nint foo"),
            ("tests/foo_test.rs", b"fn tries() {}\n"),
        ],
    );
    world
}

/// Everything that a query finds, by pages of `page` files, with the totals of the last page.
pub(crate) fn all_pages(
    corpus: &Corpus,
    query: &Query,
    places: &[Place],
    page: usize,
) -> (BTreeSet<Vec<u8>>, u64, u64) {
    let (mut paths, mut cursor) = (BTreeSet::new(), None);
    loop {
        let options = FindOptions { files_max: page, cursor, ..FindOptions::default() };
        let found = find(corpus, query, places, &options).expect("found");
        assert_eq!(found.partial, None);
        for file in found.files {
            assert!(paths.insert(file.path.clone()), "{:?} comes twice", String::from_utf8_lossy(&file.path));
        }
        let Some(next) = found.next else {
            assert!(found.is_exact);
            return (paths, found.total_files, found.total_matches);
        };
        cursor = Some(Cursor::decode(&next.encode()).expect("the same cursor"));
    }
}
