//! Random operations against plain maps: whatever is reopened, settled, filled up or crashed in between, the store
//! holds exactly what it acknowledged.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use govc_backends::{FaultBackend, Survivors};
use govc_engine::{Cause, Durability, ErrorKind, Expected, Kind, Oid, RefName, Retention, Store, StoreOptions};
use proptest::prelude::*;

use crate::helper::{FORMAT, commit_bytes, crash, create, disk, edit, kind, options, publish, repo_name};

const REPOS: [&str; 4] = ["a", "b/c", "d", "e"];
const REFS: [&str; 7] = [
    "refs/heads/x",
    "refs/heads/x/y",
    "refs/heads/x/y/z",
    "refs/heads/xy",
    "refs/heads/w",
    "refs/tags/x",
    "refs/tags/x.y",
];

#[derive(Debug, Clone)]
enum Expect {
    Any,
    Absent,
    Now,
    Stale,
}

#[derive(Debug, Clone)]
enum Op {
    Create(usize),
    Delete(usize),
    Rename(usize, usize),
    Fork(usize, usize),
    /// Edits by reference: what is expected, and whether the reference is set or deleted.
    Edit(usize, BTreeMap<usize, (Expect, bool)>),
    EditWhileFull(usize, usize),
    Settle,
    Reopen,
    Crash(u64),
    TurnClock(i64),
}

fn any_op() -> impl Strategy<Value = Op> {
    let repo = || 0..REPOS.len();
    let expect = prop_oneof![4 => Just(Expect::Any), 2 => Just(Expect::Absent), 3 => Just(Expect::Now), 1 => Just(Expect::Stale)];
    let edits = prop::collection::btree_map(0..REFS.len(), (expect, prop::bool::weighted(0.7)), 1..4);
    prop_oneof![
        3 => repo().prop_map(Op::Create),
        2 => repo().prop_map(Op::Delete),
        1 => (repo(), repo()).prop_map(|(from, to)| Op::Rename(from, to)),
        4 => (repo(), repo()).prop_map(|(from, to)| Op::Fork(from, to)),
        20 => (repo(), edits).prop_map(|(repo, edits)| Op::Edit(repo, edits)),
        1 => (repo(), 0..REFS.len()).prop_map(|(repo, name)| Op::EditWhileFull(repo, name)),
        2 => Just(Op::Settle),
        1 => Just(Op::Reopen),
        2 => any::<u64>().prop_map(Op::Crash),
        1 => (-5000..5000i64).prop_map(Op::TurnClock),
    ]
}

#[derive(Debug, Clone, Default)]
struct Repository {
    refs: BTreeMap<RefName, Oid>,
    version: u64,
    time_millis: i64,
}

struct World {
    disk: Arc<FaultBackend>,
    clock: Arc<AtomicI64>,
    store: Store,
    repos: BTreeMap<&'static str, Repository>,
    commits: u32,
}

fn reference(at: usize) -> RefName {
    RefName::new(REFS[at]).unwrap()
}

fn open(disk: &Arc<FaultBackend>, clock: &Arc<AtomicI64>) -> Store {
    let clock = clock.clone();
    let clock = Arc::new(move || clock.load(Ordering::Relaxed));
    // So short that forks part from their sources.
    let retention = Retention { count_max: 2, ..Retention::default() };
    Store::open(disk.clone(), StoreOptions { clock, retention, ..options() }).unwrap()
}

fn conflicts(refs: &BTreeMap<RefName, Oid>) -> bool {
    refs.keys().any(|name| refs.keys().any(|other| other.as_bytes().starts_with(&[name.as_bytes(), b"/"].concat())))
}

impl World {
    fn new() -> Self {
        let (disk, clock) = (disk(), Arc::new(AtomicI64::new(1_000_000)));
        let store = open(&disk, &clock);
        Self { disk, clock, store, repos: BTreeMap::new(), commits: 0 }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(at) => self.create(REPOS[*at]),
            Op::Delete(at) => match self.repos.remove(REPOS[*at]) {
                Some(_) => self.store.delete(&repo_name(REPOS[*at])).unwrap(),
                None => assert_eq!(kind(self.store.delete(&repo_name(REPOS[*at]))), ErrorKind::NotFound),
            },
            Op::Rename(from, to) => self.rename(REPOS[*from], REPOS[*to]),
            Op::Fork(from, to) => self.fork(REPOS[*from], REPOS[*to]),
            Op::Edit(at, edits) => self.edit(REPOS[*at], edits),
            Op::EditWhileFull(at, name) => self.edit_while_full(REPOS[*at], &reference(*name)),
            Op::Settle => self.store.settle(),
            Op::Reopen => {
                self.store.close().unwrap();
                self.reopen(Survivors::Synced);
            }
            Op::Crash(seed) => self.reopen(Survivors::Drawn(*seed)),
            Op::TurnClock(by) => {
                self.clock.fetch_add(*by, Ordering::Relaxed);
            }
        }
        self.check();
    }

    fn create(&mut self, name: &'static str) {
        if self.repos.contains_key(name) {
            let outcome = self.store.create(&repo_name(name), Default::default(), "tester");
            return assert_eq!(kind(outcome), ErrorKind::Exists);
        }
        create(&self.store, name, Durability::Durable);
        let time_millis = self.clock.load(Ordering::Relaxed);
        self.repos.insert(name, Repository { version: 1, time_millis, ..Repository::default() });
    }

    fn rename(&mut self, from: &'static str, to: &'static str) {
        let outcome = self.store.alter(&repo_name(from), Some(&repo_name(to)), None);
        match (self.repos.contains_key(from), self.repos.contains_key(to)) {
            (false, _) => assert_eq!(kind(outcome), ErrorKind::NotFound),
            (true, true) if from != to => assert_eq!(kind(outcome), ErrorKind::Exists),
            (true, _) => {
                assert_eq!(outcome.unwrap().name(), repo_name(to));
                let repository = self.repos.remove(from).unwrap();
                self.repos.insert(to, repository);
            }
        }
    }

    fn fork(&mut self, from: &'static str, to: &'static str) {
        let outcome = self.store.fork(&repo_name(from), &repo_name(to), "forker");
        match (self.repos.get(from).cloned(), self.repos.contains_key(to)) {
            (None, _) => assert_eq!(kind(outcome), ErrorKind::NotFound),
            (Some(_), true) => assert_eq!(kind(outcome), ErrorKind::Exists),
            (Some(source), false) => {
                outcome.unwrap();
                let time_millis = source.time_millis.max(self.clock.load(Ordering::Relaxed));
                self.repos.insert(to, Repository { version: 1, time_millis, ..source });
            }
        }
    }

    fn edit(&mut self, at: &'static str, edits: &BTreeMap<usize, (Expect, bool)>) {
        let Some(model) = self.repos.get_mut(at) else { return };
        let repo = self.store.repo(&repo_name(at)).unwrap();
        let mut transaction = repo.begin("tester", Cause::Push);
        let mut next = model.refs.clone();
        let mut holds = true;
        for (name, (expect, set)) in edits {
            let name = reference(*name);
            let now = model.refs.get(&name).copied();
            let expected = match expect {
                Expect::Any => Expected::Any,
                Expect::Absent => Expected::Absent,
                Expect::Now => now.map_or(Expected::Absent, Expected::Is),
                Expect::Stale => Expected::Is(FORMAT.null()),
            };
            holds &= expected.holds(now);
            let target = set.then(|| {
                self.commits += 1;
                let data = commit_bytes(FORMAT.empty_tree(), &[], 1, &format!("commit {}", self.commits));
                transaction.put(Kind::Commit, data).unwrap()
            });
            match target {
                Some(oid) => next.insert(name.clone(), oid),
                None => next.remove(&name),
            };
            transaction.edit(edit(&name, expected, target)).unwrap();
        }
        let outcome = publish(transaction);
        if !holds {
            return assert!(matches!(kind(outcome), ErrorKind::Conflict(_)));
        }
        if conflicts(&next) {
            return assert_eq!(kind(outcome), ErrorKind::Exists);
        }
        let published = outcome.unwrap();
        assert_eq!(published.version, model.version + 1, "versions are dense");
        published.ticket.wait().unwrap();
        model.refs = next;
        model.version += 1;
        model.time_millis = model.time_millis.max(self.clock.load(Ordering::Relaxed));
    }

    fn edit_while_full(&mut self, at: &'static str, name: &RefName) {
        if !self.repos.contains_key(at) {
            return;
        }
        self.disk.set_full(true);
        let mut transaction = self.store.repo(&repo_name(at)).unwrap().begin("tester", Cause::Push);
        transaction.edit(edit(name, Expected::Any, None)).unwrap();
        assert_eq!(kind(publish(transaction).unwrap().ticket.wait()), ErrorKind::StorageFull);
        self.disk.set_full(false);
    }

    fn reopen(&mut self, survivors: Survivors) {
        self.disk = crash(&self.disk, survivors);
        self.store = open(&self.disk, &self.clock);
    }

    fn check(&self) {
        let names: Vec<_> = self.store.list(None, 100).iter().map(|repo| repo.name()).collect();
        assert_eq!(names, self.repos.keys().map(|name| repo_name(name)).collect::<Vec<_>>());
        for (name, model) in &self.repos {
            let snapshot = self.store.repo(&repo_name(name)).unwrap().snapshot();
            let refs: BTreeMap<RefName, Oid> = snapshot.references().map(|(name, oid)| (name.clone(), *oid)).collect();
            assert_eq!(refs, model.refs, "references of {name}");
            let version = snapshot.version();
            assert_eq!((version.number, version.time_millis), (model.version, model.time_millis), "version of {name}");
            for oid in refs.values() {
                assert!(snapshot.commit(oid).unwrap().message.starts_with(b"commit "), "{oid} of {name}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map_of_maps(ops in prop::collection::vec(any_op(), 1..60)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        world.store.close().unwrap();
        world.reopen(Survivors::Synced);
        world.check();
    }
}
