//! A store with a history of any shape, and what a naive scan of each of its commits says.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use govc_engine::{
    Cause, Commit, EntryMode, Expected, Kind, Oid, RefEdit, RefName, Repo, Signature, Store, StoreOptions,
};
use govc_search::{
    Corpus, HistoryAnswer, HistoryCommit, HistoryCursor, HistoryList, HistoryOptions, HistoryRows, Indexer, Transition,
    history, query::Query,
};

use super::{
    find::Naive,
    world::{create, query_of},
};

/// A file of a commit.
pub(super) type File = (EntryMode, Vec<u8>);
/// The files of a commit by path.
pub(super) type Files = BTreeMap<String, File>;

/// A commit as it was made.
pub(super) struct Made {
    pub(super) oid: Oid,
    pub(super) parents: Vec<usize>,
    pub(super) seconds: i64,
    pub(super) files: Files,
}

/// A store, one repository in it, and a corpus that may know some of it.
pub(super) struct Past {
    pub(super) store: Store,
    pub(super) repo: Repo,
    pub(super) corpus: Arc<Corpus>,
    pub(super) commits: Vec<Made>,
    /// Where the corpus is, if it is on a disk.
    folder: Option<PathBuf>,
}

pub(super) fn file(text: &str) -> File {
    (EntryMode::BLOB, text.as_bytes().to_vec())
}

pub(super) fn files(all: &[(&str, &str)]) -> Files {
    all.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
}

impl Past {
    pub(super) fn new() -> Self {
        Self::with(None)
    }

    pub(super) fn with(folder: Option<&Path>) -> Self {
        let backend = Arc::new(govc_backends::MemoryBackend::new());
        let store = Store::open(backend, StoreOptions::default()).expect("open");
        let repo = create(&store, "demo");
        let folder = folder.map(Path::to_owned);
        Self { store, repo, corpus: corpus(folder.as_deref()), commits: Vec::new(), folder }
    }

    /// Makes a commit that no reference names yet; its number.
    pub(super) fn commit(&mut self, parents: &[usize], seconds: i64, files: Files) -> usize {
        let mut transaction = self.repo.begin("test", Cause::Push);
        let mut put = |kind, data: Vec<u8>| transaction.put(kind, Bytes::from(data)).expect("put");
        let tree = tree(&mut put, &files);
        let of = self.commits.len();
        let parent_ids: Vec<Oid> = parents.iter().map(|parent| self.commits[*parent].oid).collect();
        let oid = put(Kind::Commit, commit(tree, &parent_ids, seconds, &format!("commit {of}\n")));
        self.keep(transaction, &format!("refs/kept/{of}"), oid);
        self.commits.push(Made { oid, parents: parents.to_vec(), seconds, files });
        of
    }

    /// Points a reference at a commit that is made in `transaction`, so that it is there to stay.
    fn keep(&self, mut transaction: govc_engine::Transaction, name: &str, oid: Oid) {
        let name = RefName::new(name).expect("name");
        transaction.edit(RefEdit { name: name.clone(), expected: Expected::Any, target: Some(oid) }).expect("edit");
        transaction.prepare().expect("prepare").publish().expect("publish").ticket.wait().expect("durable");
        // Only what a test names is reached; what it does not name stays in the store all the same.
        self.point(&name, None);
    }

    /// Points a reference at an object, or deletes it.
    pub(super) fn point(&self, name: &RefName, target: Option<Oid>) {
        let mut transaction = self.repo.begin("test", Cause::Push);
        transaction.edit(RefEdit { name: name.clone(), expected: Expected::Any, target }).expect("edit");
        transaction.prepare().expect("prepare").publish().expect("publish").ticket.wait().expect("durable");
    }

    pub(super) fn branch(&self, name: &str, commit: usize) {
        self.point(&RefName::branch(name).expect("branch"), Some(self.commits[commit].oid));
    }

    /// Adds objects and a branch, whatever they are.
    pub(super) fn publish(&self, branch: &str, objects: Vec<(Kind, Vec<u8>)>) -> Oid {
        let mut transaction = self.repo.begin("test", Cause::Push);
        let put = |(kind, data)| transaction.put(kind, Bytes::from(data)).expect("put");
        let last = objects.into_iter().map(put).last().expect("an object");
        let name = RefName::branch(branch).expect("branch");
        transaction.edit(RefEdit { name, expected: Expected::Any, target: Some(last) }).expect("edit");
        transaction.prepare().expect("prepare").publish().expect("publish").ticket.wait().expect("durable");
        last
    }

    pub(super) fn index(&self) {
        Indexer::new(self.store.clone(), self.corpus.clone(), Arc::default()).index_all(&|| false).expect("indexed");
    }

    /// Opens the corpus again, after `meanwhile` was done to its folder.
    pub(super) fn reopen(&mut self, meanwhile: impl FnOnce(&Path)) {
        self.corpus = corpus(None);
        meanwhile(self.folder.as_deref().expect("a folder"));
        self.corpus = corpus(self.folder.as_deref());
    }

    pub(super) fn ask(&self, query: &str, options: &HistoryOptions) -> HistoryAnswer {
        history(&self.corpus, &self.repo.snapshot(), &query_of(query), options).expect("an answer")
    }

    /// Compares an answer, page by page, with a scan of each commit that `tips` reach.
    pub(super) fn check(&self, repo: &Repo, text: &str, tips: &[usize], page: usize) {
        let query = query_of(text);
        let snapshot = repo.snapshot();
        let naive = Naive { snapshot: &snapshot, query: &query };
        let scan = Scan::new(self, &naive, tips);
        for list in [HistoryList::Events, HistoryList::Files, HistoryList::Commits] {
            for (oldest_first, all_parents) in [(false, false), (true, false), (false, true)] {
                let options = HistoryOptions {
                    list,
                    rows_max: page,
                    oldest_first,
                    all_parents,
                    with_tags: true,
                    ..HistoryOptions::default()
                };
                let (rows, last) = all_rows(&self.corpus, repo, &query, &options);
                let told = format!("{text} {options:?}");
                assert_eq!(rows, scan.rows(self, list, oldest_first, all_parents), "{told}");
                assert_eq!(last.total_rows, rows.len() as u64, "{told}");
                assert_eq!(last.total_commits, scan.containing().len() as u64, "{told}");
                let ends = [&last.first, &last.last].map(|end| end.as_ref().map(|end| (end.oid, end.files)));
                let containing = scan.containing();
                let told_end = |at: Option<&usize>| at.map(|at| (self.commits[*at].oid, scan.paths[at].len() as u64));
                assert_eq!(ends, [told_end(containing.first()), told_end(containing.last())], "{told}");
                let refs = |prefix: &str| -> Vec<(String, u64)> {
                    let named = snapshot.references_with_prefix(prefix.as_bytes());
                    let number = |oid: &Oid| self.commits.iter().position(|made| made.oid == *oid);
                    let named = named.filter(|(name, _)| is_asked(text, &name.as_str()));
                    let files = named.filter_map(|(name, oid)| {
                        let number = number(oid).filter(|number| tips.contains(number))?;
                        Some((name.as_str().into_owned(), scan.paths[&number].len() as u64))
                    });
                    files.filter(|(_, files)| *files > 0).collect()
                };
                let told_refs = |refs: &[govc_search::HistoryRef]| -> Vec<(String, u64)> {
                    refs.iter().map(|found| (found.name.as_str().into_owned(), found.files)).collect()
                };
                if !text.contains("rev:") {
                    assert_eq!(told_refs(&last.branches), refs("refs/heads/"), "{told}");
                    assert_eq!(told_refs(&last.tags), refs("refs/tags/"), "{told}");
                }
            }
        }
    }
}

/// Whether a query is about a reference: its `branch:`, if it has one, is its last word, and `main` or `topic/*`.
pub(super) fn is_asked(query: &str, name: &str) -> bool {
    match query.split_once("branch:") {
        None => true,
        Some((_, "main")) => name == "refs/heads/main",
        Some(_) => name.starts_with("refs/heads/topic/"),
    }
}

impl Drop for Past {
    fn drop(&mut self) {
        self.store.close().expect("close");
    }
}

fn corpus(folder: Option<&Path>) -> Arc<Corpus> {
    let budget_bytes = 8 << 20;
    Arc::new(match folder {
        None => Corpus::in_memory(budget_bytes, None).expect("corpus"),
        Some(folder) => Corpus::open(folder, budget_bytes, None).expect("corpus"),
    })
}

/// A commit's bytes.
pub(super) fn commit(tree: Oid, parents: &[Oid], seconds: i64, message: &str) -> Vec<u8> {
    let mut person = Signature::new("Test", "test@example.com", 0, 0).expect("signature");
    // Whatever a clock said.
    person.seconds = seconds;
    let (author, committer) = (person.clone(), person);
    let (parents, message) = (parents.iter().copied().collect(), message.into());
    Commit { tree, parents, author, committer, encoding: None, extra_headers: Vec::new(), message }.to_bytes()
}

/// A tree's bytes, of entries in their order.
pub(super) fn entries(all: &[(&str, EntryMode, Oid)]) -> Vec<u8> {
    let entry = |(name, mode, oid): &(&str, EntryMode, Oid)| {
        [mode.to_octal().as_bytes(), b" ", name.as_bytes(), b"\0", oid.as_bytes()].concat()
    };
    all.iter().flat_map(entry).collect()
}

/// Writes the tree of some files.
fn tree(put: &mut dyn FnMut(Kind, Vec<u8>) -> Oid, files: &Files) -> Oid {
    let mut dirs: BTreeMap<&str, Files> = BTreeMap::new();
    let mut all: Vec<(&str, EntryMode, Oid)> = Vec::new();
    for (path, (mode, data)) in files {
        match path.split_once('/') {
            Some((dir, rest)) => {
                dirs.entry(dir).or_default().insert(rest.to_owned(), (*mode, data.clone()));
            }
            None if mode.is_submodule() => {
                all.push((path, *mode, Oid::from_hex(&vec![b'1'; super::FORMAT.hex_len()]).expect("an id")))
            }
            None => all.push((path, *mode, put(Kind::Blob, data.clone()))),
        }
    }
    for (dir, files) in &dirs {
        all.push((dir, EntryMode::TREE, tree(put, files)));
    }
    all.sort_by_key(|(name, mode, _)| format!("{name}{}", if mode.is_tree() { "/" } else { "" }));
    put(Kind::Tree, entries(&all))
}

/// A row of an answer, or of a scan: the commit, for files the path, and what became of it.
pub(super) type Row = (Oid, Option<Vec<u8>>, Option<bool>);

fn of_commit(commit: &HistoryCommit) -> Row {
    (commit.oid, None, None)
}

/// All rows of all pages, and the last page.
pub(super) fn all_rows(
    corpus: &Corpus,
    repo: &Repo,
    query: &Query,
    options: &HistoryOptions,
) -> (Vec<Row>, HistoryAnswer) {
    let (mut rows, mut options) = (Vec::new(), options.clone());
    let is_new = |transition: Transition| Some(transition == Transition::Appeared);
    loop {
        let answer = history(corpus, &repo.snapshot(), query, &options).expect("an answer");
        assert_eq!(answer.partial, None);
        let before = rows.len();
        match &answer.rows {
            HistoryRows::Commits(commits) => rows.extend(commits.iter().map(of_commit)),
            HistoryRows::Events(events) => {
                rows.extend(events.iter().map(|event| (event.commit.oid, None, is_new(event.transition))));
            }
            HistoryRows::Files(files) => rows.extend(
                files.iter().map(|(commit, file)| (commit.oid, Some(file.path.clone()), is_new(file.transition))),
            ),
        }
        assert!(rows.len() - before <= options.rows_max);
        let Some(next) = &answer.next else { return (rows, answer) };
        assert_eq!(rows.len() - before, options.rows_max, "a page that is not the last one is full");
        options.cursor = Some(HistoryCursor::decode(&next.encode()).expect("the same cursor"));
    }
}

/// What a scan of each commit says.
struct Scan {
    /// The matching paths of each commit that is reached.
    paths: BTreeMap<usize, BTreeSet<Vec<u8>>>,
    /// The commits in the order of history.
    order: Vec<usize>,
    /// Those that are reached by first parents.
    chain: BTreeSet<usize>,
}

impl Scan {
    fn new(past: &Past, naive: &Naive<'_>, tips: &[usize]) -> Self {
        let mut paths = BTreeMap::new();
        let mut queue = tips.to_vec();
        while let Some(at) = queue.pop() {
            let made = &past.commits[at];
            let is_file = |mode: EntryMode| mode == EntryMode::BLOB || mode == EntryMode::EXECUTABLE;
            if let Entry::Vacant(vacant) = paths.entry(at) {
                let files = made.files.iter().filter(|(_, (mode, _))| is_file(*mode));
                let matching = files.filter(|(path, (_, data))| naive.holds(&naive.query.expr, path.as_bytes(), data));
                vacant.insert(matching.map(|(path, _)| path.clone().into_bytes()).collect());
                queue.extend(&made.parents);
            }
        }
        let mut chain = BTreeSet::new();
        for tip in tips {
            let mut at = Some(*tip);
            while let Some(commit) = at {
                chain.insert(commit);
                at = past.commits[commit].parents.first().copied();
            }
        }
        // Parents are made before their children.
        let mut corrected: Vec<i64> = Vec::new();
        for made in &past.commits {
            let after = made.parents.iter().map(|parent| corrected[*parent] + 1);
            corrected.push(after.fold(made.seconds, i64::max));
        }
        let mut order: Vec<usize> = paths.keys().copied().collect();
        order.sort_by_key(|at| (corrected[*at], past.commits[*at].oid));
        Self { paths, order, chain }
    }

    fn containing(&self) -> Vec<usize> {
        self.order.iter().copied().filter(|at| !self.paths[at].is_empty()).collect()
    }

    fn rows(&self, past: &Past, list: HistoryList, oldest_first: bool, all_parents: bool) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut order = self.order.clone();
        if !oldest_first {
            order.reverse();
        }
        let none = BTreeSet::new();
        for at in order {
            let made = &past.commits[at];
            let after = &self.paths[&at];
            let before = made.parents.first().map_or(&none, |parent| &self.paths[parent]);
            if list == HistoryList::Commits {
                rows.extend((!after.is_empty()).then_some((made.oid, None, None)));
            } else if !all_parents && !self.chain.contains(&at) {
            } else if list == HistoryList::Events {
                rows.extend((before.is_empty() != after.is_empty()).then_some((
                    made.oid,
                    None,
                    Some(before.is_empty()),
                )));
            } else {
                let turned = before.symmetric_difference(after);
                rows.extend(turned.map(|path| (made.oid, Some(path.clone()), Some(after.contains(path)))));
            }
        }
        rows
    }
}
