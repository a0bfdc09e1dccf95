//! Linearizability: what concurrent writers and readers of references are told fits one order of all they did, in which
//! nothing comes before what had ended when it began. Histories are recorded and judged by stateright's tester.

use std::sync::{Arc, Barrier};

use govc_engine::{Cause, Durability, ErrorKind, Expected, Kind, Oid, RefEdit, Repo, Store};
use parking_lot::Mutex;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use crate::helper::{FORMAT, Gate, branch, commit_bytes, create, edit, noise, options, publish};

/// Two references, each absent or one of a few commits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct References([Option<u8>; 2]);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Op {
    Read,
    Set(usize, Option<u8>),
    CompareAndSet(usize, Option<u8>, Option<u8>),
    /// Both or none.
    Both([Option<u8>; 2], [Option<u8>; 2]),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Ret {
    Seen([Option<u8>; 2]),
    Done,
    /// The reference that was not as expected, and what it was.
    Conflict(usize, Option<u8>),
}

impl SequentialSpec for References {
    type Op = Op;
    type Ret = Ret;

    fn invoke(&mut self, op: &Op) -> Ret {
        match *op {
            Op::Read => Ret::Seen(self.0),
            Op::Set(at, value) => {
                self.0[at] = value;
                Ret::Done
            }
            Op::CompareAndSet(at, expected, _) if self.0[at] != expected => Ret::Conflict(at, self.0[at]),
            Op::CompareAndSet(at, _, value) => {
                self.0[at] = value;
                Ret::Done
            }
            Op::Both(expected, values) => {
                if let Some(at) = (0..2).find(|at| self.0[*at] != expected[*at]) {
                    return Ret::Conflict(at, self.0[at]);
                }
                self.0 = values;
                Ret::Done
            }
        }
    }
}

/// A repository whose commits are numbers.
struct World {
    repo: Repo,
    commits: Vec<Oid>,
}

impl World {
    fn new(store: &Store, durability: Durability) -> Self {
        let repo = create(store, "a", durability);
        let mut transaction = repo.begin("tester", Cause::Api);
        let mut put = |at: i64| {
            let oid = transaction.put(Kind::Commit, commit_bytes(FORMAT.empty_tree(), &[], at, "x")).unwrap();
            let tag = govc_engine::RefName::new(format!("refs/tags/{at}")).unwrap();
            transaction.edit(edit(&tag, Expected::Absent, Some(oid))).unwrap();
            oid
        };
        let commits = (0..4).map(&mut put).collect();
        publish(transaction).unwrap().ticket.wait().unwrap();
        Self { repo, commits }
    }

    fn number(&self, oid: Option<Oid>) -> Option<u8> {
        let oid = oid?;
        Some(u8::try_from(self.commits.iter().position(|commit| *commit == oid).unwrap()).unwrap())
    }

    fn run(&self, op: &Op) -> Ret {
        let names = [branch("x"), branch("y")];
        let target = |value: Option<u8>| value.map(|value| self.commits[usize::from(value)]);
        let expect = |value: Option<u8>| target(value).map_or(Expected::Absent, Expected::Is);
        let change = |at: usize, expected, value| RefEdit { name: names[at].clone(), expected, target: target(value) };
        let edits = match *op {
            Op::Read => {
                let snapshot = self.repo.snapshot();
                return Ret::Seen([0, 1].map(|at| self.number(snapshot.reference(&names[at]))));
            }
            Op::Set(at, value) => vec![change(at, Expected::Any, value)],
            Op::CompareAndSet(at, expected, value) => vec![change(at, expect(expected), value)],
            Op::Both(expected, values) => (0..2).map(|at| change(at, expect(expected[at]), values[at])).collect(),
        };
        let mut transaction = self.repo.begin("tester", Cause::Api);
        edits.into_iter().for_each(|edit| transaction.edit(edit).unwrap());
        match publish(transaction) {
            Ok(published) => {
                published.ticket.wait().unwrap();
                Ret::Done
            }
            Err(error) => {
                let ErrorKind::Conflict(conflict) = error.kind() else { panic!("{error}") };
                let at = usize::from(conflict.name.ends_with('y'));
                Ret::Conflict(at, self.number(conflict.actual))
            }
        }
    }
}

/// The operations of one thread, the same for the same seed.
fn ops(seed: u64, count: usize) -> Vec<Op> {
    let bytes = noise(seed, count * 8);
    let value = |byte: u8| (byte % 4 != 3).then_some(byte % 3);
    bytes
        .chunks_exact(8)
        .map(|b| match b[0] % 5 {
            0 | 1 => Op::Read,
            2 => Op::Set(usize::from(b[1] % 2), value(b[2])),
            3 => Op::CompareAndSet(usize::from(b[1] % 2), value(b[2]), value(b[3])),
            _ => Op::Both([value(b[2]), value(b[3])], [value(b[4]), value(b[5])]),
        })
        .collect()
}

/// Runs threads of operations at once and gives the history.
fn history(world: &World, seed: u64, threads: u64, count: usize) -> LinearizabilityTester<u64, References> {
    let begin = match world.run(&Op::Read) {
        Ret::Seen(values) => References(values),
        other => panic!("{other:?}"),
    };
    let tester = Mutex::new(LinearizabilityTester::new(begin));
    let start = Barrier::new(usize::try_from(threads).unwrap());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (tester, start) = (&tester, &start);
            scope.spawn(move || {
                start.wait();
                for op in ops(seed * 31 + thread, count) {
                    tester.lock().on_invoke(thread, op.clone()).unwrap();
                    let ret = world.run(&op);
                    tester.lock().on_return(thread, ret).unwrap();
                }
            });
        }
    });
    tester.into_inner()
}

#[test]
fn references_are_linearizable() {
    for durability in [Durability::Durable, Durability::Relaxed, Durability::Memory] {
        let gate = Arc::new(Gate::slow());
        let store = Store::open(gate, options()).unwrap();
        let world = World::new(&store, durability);
        for seed in 0..150 {
            let found = history(&world, seed, 4, 5);
            assert!(found.is_consistent(), "{durability}, seed {seed}: {found:?}");
        }
    }
}

#[test]
fn the_judge_finds_what_is_not_linearizable() {
    let mut tester = LinearizabilityTester::new(References::default());
    tester.on_invret(0, Op::Set(0, Some(1)), Ret::Done).unwrap();
    tester.on_invret(1, Op::Read, Ret::Seen([None, None])).unwrap();
    assert!(!tester.is_consistent());
}

/// A million transactions of four threads on two references; each is a step of a counter, and its version is told to
/// nobody else.
#[test]
fn a_million_transactions_lose_no_update() {
    const THREADS: u64 = 4;
    const EACH: u64 = 250_000;
    const STEPS: usize = 257;
    let store = Store::open(crate::helper::disk(), options()).unwrap();
    let repo = create(&store, "a", Durability::Memory);
    let mut transaction = repo.begin("tester", Cause::Api);
    let put = |at: usize| {
        let data = commit_bytes(FORMAT.empty_tree(), &[], i64::try_from(at).unwrap(), "x");
        transaction.put(Kind::Commit, data).unwrap()
    };
    let steps: Vec<Oid> = (0..STEPS).map(put).collect();
    let names = [branch("x"), branch("y")];
    for name in &names {
        transaction.edit(edit(name, Expected::Absent, Some(steps[0]))).unwrap();
    }
    publish(transaction).unwrap();
    let next_of: std::collections::HashMap<Oid, Oid> =
        (0..STEPS).map(|at| (steps[at], steps[(at + 1) % STEPS])).collect();
    let versions: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let count = |thread: u64| {
            let (repo, next_of, name) = (&repo, &next_of, &names[usize::try_from(thread % 2).unwrap()]);
            scope.spawn(move || {
                let mut versions = Vec::new();
                while (versions.len() as u64) < EACH {
                    let mut transaction = repo.begin("tester", Cause::Api);
                    let now = transaction.tip().reference(name).unwrap();
                    transaction.edit(edit(name, Expected::Is(now), Some(next_of[&now]))).unwrap();
                    match publish(transaction) {
                        Ok(published) => versions.push(published.version),
                        Err(error) => assert!(matches!(error.kind(), ErrorKind::Conflict(_)), "{error}"),
                    }
                }
                versions
            })
        };
        let threads: Vec<_> = (0..THREADS).map(count).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(versions.iter().all(|versions| versions.is_sorted()), "a thread's versions grow");
    let mut all: Vec<u64> = versions.into_iter().flatten().collect();
    all.sort_unstable();
    assert!(all.iter().copied().eq(3..3 + THREADS * EACH), "each made a version of its own");
    let end = steps[usize::try_from(THREADS * EACH / 2).unwrap() % STEPS];
    assert_eq!(names.map(|name| repo.snapshot().reference(&name)), [Some(end), Some(end)]);
}
