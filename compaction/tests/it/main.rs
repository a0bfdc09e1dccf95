//! Compaction through its public interface: random histories, on backends, forked, deleted, interrupted.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use govc_backends::{FaultBackend, FaultPlan, MemoryBackend, OverlayBackend, Survivors};
use govc_compaction::{CompactOptions, compact};
use govc_engine::{
    Backend, Cause, Change, CommitRequest, ErrorKind, Expected, Family, Fsck, ObjectFormat, Oid, Progress, RefEdit,
    RefName, Repo, RepoName, RepoSettings, Retention, Rewritten, Scan, Signature, Silent, Store, StoreOptions,
    object::links,
};

fn options() -> StoreOptions {
    StoreOptions { memory_budget_bytes: 64 << 20, ..StoreOptions::default() }
}

fn small() -> CompactOptions {
    CompactOptions { memory_bytes: 4 << 20, ..CompactOptions::default() }
}

fn name(name: &str) -> RepoName {
    RepoName::new(name).unwrap()
}

fn settings(object_format: ObjectFormat) -> RepoSettings {
    RepoSettings { object_format, ..RepoSettings::default() }
}

fn commit(repo: &Repo, branch: &str, second: i64, changes: Vec<Change>) -> Oid {
    let ada = Signature::new("Ada", "ada@example.org", second, 60).unwrap();
    let request = CommitRequest::new(RefName::branch(branch).unwrap(), format!("change {second}"), ada, changes);
    let create_branch_from = repo.snapshot().reference(&RefName::branch("main").unwrap());
    let committed = repo.commit(CommitRequest { allow_empty: true, create_branch_from, ..request }).unwrap();
    committed.published.ticket.wait().unwrap();
    committed.oid
}

/// A generator of numbers that looks random and is the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end
    }
}

/// Commits of all sorts: edits, renames, reverts, binary files, empty ones, files in large and deep directories.
fn grow(repo: &Repo, files: &mut BTreeMap<String, Vec<u8>>, numbers: &mut Numbers, commits: i64) {
    for second in 0..commits {
        let mut changes = Vec::new();
        for _ in 0..=numbers.below(3) {
            let path = match numbers.below(4) {
                0 => format!("src/a/b/c/file{}", numbers.below(5)),
                1 => format!("many/entry{}", numbers.below(300)),
                _ => format!("file{}", numbers.below(10)),
            };
            let content = match numbers.below(8) {
                0 => Vec::new(),
                1 => (0..numbers.below(20_000)).map(|_| numbers.below(256) as u8).collect(),
                // Of another file: a rename, or a revert.
                2 if !files.is_empty() => files.values().nth(numbers.below(files.len())).unwrap().clone(),
                _ => {
                    let mut text = files.get(&path).cloned().unwrap_or_else(|| b"a line of text\n".repeat(40));
                    let at = numbers.below(text.len().max(1)).min(text.len());
                    text.splice(at..at, format!("line {second}\n").into_bytes());
                    text
                }
            };
            changes.push(Change::put(path.clone(), content.clone()));
            files.insert(path, content);
        }
        commit(repo, "main", second, changes);
    }
}

fn rows(backend: &dyn Backend, family: Family, repo: &Repo) -> Vec<(Bytes, Bytes)> {
    let pool: u64 = repo.id().to_string().parse().unwrap();
    let scan = backend.scan(family, Scan::prefix(&pool.to_be_bytes())).unwrap();
    scan.collect::<Result<_, _>>().unwrap()
}

fn objects(repo: &Repo) -> BTreeMap<Oid, Bytes> {
    let snapshot = repo.snapshot();
    let oids = repo.stored_ids().unwrap().into_iter();
    oids.map(|oid| (oid, snapshot.object(&oid).unwrap().data)).collect()
}

#[track_caller]
fn assert_clean(disk: &MemoryBackend) {
    let overlay = Arc::new(OverlayBackend::new(Arc::new(disk.fork().unwrap())));
    assert_eq!(Fsck::run(overlay, options(), &Silent).unwrap().findings, Vec::<String>::new());
}

/// Everything that a commit leads to.
fn reached(repo: &Repo, tip: Oid) -> BTreeMap<Oid, Bytes> {
    let (snapshot, mut found, mut open) = (repo.snapshot(), BTreeMap::new(), vec![tip]);
    while let Some(oid) = open.pop() {
        let Entry::Vacant(vacant) = found.entry(oid) else { continue };
        let object = snapshot.object(&oid).unwrap();
        open.extend(links(oid.format(), object.kind, &object.data).unwrap().targets.iter().map(|(target, _)| *target));
        vacant.insert(object.data);
    }
    found
}

fn delete_branch(repo: &Repo, branch: &str) {
    let mut transaction = repo.begin("ada", Cause::Api);
    let name = RefName::branch(branch).unwrap();
    transaction.edit(RefEdit { name, expected: Expected::Any, target: None }).unwrap();
    transaction.prepare().unwrap().publish().unwrap().ticket.wait().unwrap();
}

#[test]
fn random_histories_survive_any_sequence_of_commits_forks_deletions_compactions_and_kills() {
    let options = || StoreOptions { retention: Retention { count_max: 2, ..Retention::default() }, ..options() };
    let (mut removed, mut aside) = (0, 0);
    for (seed, format) in (0..6).flat_map(|seed| ObjectFormat::ALL.map(|format| (seed, format))) {
        let (mut numbers, mut files) = (Numbers(seed), BTreeMap::new());
        let mut backend = Arc::new(FaultBackend::new(FaultPlan::none()));
        let mut store = Store::open(backend.clone(), options()).unwrap();
        let first = store.create(&name("repo"), settings(format), "ada").unwrap();
        grow(&first, &mut files, &mut numbers, 20);
        drop(first);
        let mut known: BTreeMap<(RepoName, Oid), Bytes> = BTreeMap::new();
        let (mut forks, mut compactions) = (0, 0);
        for step in 0..20 {
            let repos = store.list(None, 100);
            let repo = repos[numbers.below(repos.len())].clone();
            match numbers.below(10) {
                8 | 9 => {
                    // Something that nothing leads to in the end.
                    aside += 1;
                    let put = Change::put(format!("aside{aside}"), format!("{aside}\n").repeat(100));
                    commit(&repo, "aside", aside, vec![put]);
                    delete_branch(&repo, "aside");
                }
                0 | 1 => grow(&repo, &mut files, &mut numbers, 20),
                2 => {
                    forks += 1;
                    store.fork(&repo.name(), &name(&format!("fork{forks}")), "ada").unwrap();
                }
                3 if repos.len() > 2 => {
                    store.delete(&repo.name()).unwrap();
                    known.retain(|(of, _), _| *of != repo.name());
                }
                4 | 5 => {
                    let disk = backend.crash(Survivors::All).unwrap();
                    assert_clean(&disk);
                    backend = Arc::new(FaultBackend::over(&disk, FaultPlan::none()).unwrap());
                    store = Store::open(backend.clone(), options()).unwrap();
                }
                _ => {
                    store.settle();
                    let done = compact(&repo, &small(), &Silent).unwrap();
                    assert_eq!(done.objects, repo.stored_ids().unwrap().len() as u64);
                    removed += done.removed;
                    compactions += 1;
                }
            }
            store.settle();
            for repo in store.list(None, 100) {
                if let Some(tip) = repo.snapshot().reference(&RefName::branch("main").unwrap()) {
                    known.extend(reached(&repo, tip).into_iter().map(|(oid, data)| ((repo.name(), oid), data)));
                }
            }
            for ((of, oid), data) in &known {
                let found = store.repo(of).unwrap().snapshot().object(oid).unwrap();
                assert_eq!(found.data, *data, "{format}, seed {seed}, step {step}: {of} {oid}");
            }
        }
        assert!(
            compactions > 0 && known.len() > 50,
            "{format}, seed {seed} did something: {compactions}, {}",
            known.len()
        );
    }
    assert!(removed > 10, "something went: {removed}");
}

#[test]
fn many_versions_become_much_smaller_and_reading_them_goes_on() {
    ObjectFormat::ALL.into_iter().for_each(many_versions_become_much_smaller);
}

fn many_versions_become_much_smaller(format: ObjectFormat) {
    let backend = Arc::new(FaultBackend::new(FaultPlan::none()));
    let store = Store::open(backend.clone(), options()).unwrap();
    let repo = store.create(&name("repo"), settings(format), "ada").unwrap();
    let mut numbers = Numbers(7);
    let mut lines: Vec<String> = (0..400).map(|line| format!("line {line} of {}\n", numbers.below(1 << 30))).collect();
    for second in 0..300 {
        let at = numbers.below(lines.len());
        lines[at] = format!("changed in {second} to {}\n", numbers.below(1 << 30));
        let put = |path: String| Change::put(path, lines.concat());
        commit(&repo, "main", second, vec![put("dir/file".to_owned()), put(format!("copies/{}", second % 7))]);
    }
    // The version that had it is retained.
    let gone = commit(&repo, "aside", 1, vec![Change::put("aside", "of a branch that is deleted\n")]);
    delete_branch(&repo, "aside");
    store.settle();
    let before = objects(&repo);
    let done = compact(&repo, &small(), &Silent).unwrap();
    assert!(done.stored_bytes_after * 2 < done.stored_bytes_before, "{done:?}");
    assert_eq!(objects(&repo), before);
    assert!(before.contains_key(&gone));
    // Again, of what is good already.
    let again = compact(&repo, &small(), &Silent).unwrap();
    assert_eq!((again.objects, again.stored_bytes_before), (done.objects, done.stored_bytes_after));
    assert_eq!(objects(&repo), before);
    let archived =
        compact(&repo, &CompactOptions { memory_bytes: 4 << 20, ..CompactOptions::archive() }, &Silent).unwrap();
    assert!(archived.stored_bytes_after < again.stored_bytes_after, "{archived:?}");
    drop(repo);
    store.close().unwrap();
    assert_clean(&backend.crash(Survivors::All).unwrap());
}

/// Ends after so many questions.
struct Impatient(AtomicUsize);

impl Progress for Impatient {
    fn begin(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn is_cancelled(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }
}

#[test]
fn a_cancelled_compaction_leaves_everything_as_it_was() {
    let backend = Arc::new(FaultBackend::new(FaultPlan::none()));
    let store = Store::open(backend.clone(), options()).unwrap();
    let repo = store.create(&name("repo"), RepoSettings::default(), "ada").unwrap();
    let (mut numbers, mut files) = (Numbers(3), BTreeMap::new());
    grow(&repo, &mut files, &mut numbers, 100);
    store.settle();
    let all = || [Family::Ids, Family::Blocks].map(|family| rows(&*backend, family, &repo));
    let before = all();
    let mut patience = 0;
    loop {
        match compact(&repo, &small(), &Impatient(AtomicUsize::new(patience))) {
            Ok(_) => break,
            Err(error) => assert_eq!(*error.kind(), ErrorKind::Cancelled, "{error}"),
        }
        assert_eq!(all(), before, "after {patience}");
        patience += 1;
    }
    assert!(patience > 10, "it asked often: {patience}");
    assert_ne!(all(), before);
}

#[test]
fn what_is_empty_or_tiny_is_no_trouble() {
    let backend = Arc::new(FaultBackend::new(FaultPlan::none()));
    let store = Store::open(backend.clone(), options()).unwrap();
    let repo = store.create(&name("repo"), RepoSettings::default(), "ada").unwrap();
    assert_eq!(compact(&repo, &small(), &Silent).unwrap(), Rewritten::default());
    let first = commit(&repo, "main", 1, Vec::new());
    store.settle();
    assert_eq!(compact(&repo, &small(), &Silent).unwrap().objects, 2, "a commit and the empty tree");
    repo.snapshot().commit(&first).unwrap();
}

#[test]
fn what_nothing_leads_to_takes_no_room_once_it_is_not_retained() {
    let backend = Arc::new(FaultBackend::new(FaultPlan::none()));
    let retention = Retention { count_max: 1, ..Retention::default() };
    let store = Store::open(backend.clone(), StoreOptions { retention, ..options() }).unwrap();
    let repo = store.create(&name("repo"), RepoSettings::default(), "ada").unwrap();
    let (mut numbers, mut files) = (Numbers(5), BTreeMap::new());
    grow(&repo, &mut files, &mut numbers, 30);
    store.settle();
    let small_one = compact(&repo, &small(), &Silent).unwrap();
    let kept = objects(&repo);
    for at in 0..50 {
        let noise: Vec<u8> = (0..20_000).map(|_| numbers.below(256) as u8).collect();
        commit(&repo, "aside", at, vec![Change::put(format!("aside{at}"), noise)]);
    }
    delete_branch(&repo, "aside");
    commit(&repo, "main", 100, Vec::new());
    store.settle();
    let done = compact(&repo, &small(), &Silent).unwrap();
    assert_eq!(done.removed, 150, "fifty commits, root trees and files");
    assert!(done.removed_bytes > 1_000_000 && done.stored_bytes_before > 1_000_000, "{done:?}");
    assert!(done.stored_bytes_after < small_one.stored_bytes_after + 1000, "{done:?} {small_one:?}");
    let now = objects(&repo);
    assert!(kept.iter().all(|(oid, data)| now[oid] == *data) && now.len() == kept.len() + 1);
    drop(repo);
    store.close().unwrap();
    assert_clean(&backend.crash(Survivors::All).unwrap());
}
