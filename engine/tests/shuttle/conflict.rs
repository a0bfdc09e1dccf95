//! Writers of one reference.

use govc_engine::{Cause, Durability, ErrorKind, Oid, RefName, Repo};
use shuttle::thread;

use crate::{
    run::check,
    world::{branch, create, disk, expect, open, set},
};

/// Sets a reference that is expected to be `head`; gives the commit, or the one that was there before it, which readers
/// see by then.
fn race(repo: &Repo, main: &RefName, head: Option<Oid>, text: &str) -> Result<Oid, Oid> {
    let (oid, outcome) = set(repo, main, expect(head), text);
    match outcome {
        Ok(published) => {
            published.ticket.wait().unwrap();
            Ok(oid)
        }
        Err(error) => {
            let ErrorKind::Conflict(conflict) = error.kind() else { panic!("{error}") };
            assert_eq!((&*conflict.name, conflict.expected), (&*main.as_str(), head));
            let actual = conflict.actual.unwrap();
            let snapshot = repo.snapshot();
            assert_eq!(snapshot.reference(main), Some(actual), "a conflict names what can be seen");
            snapshot.commit(&actual).unwrap();
            Err(actual)
        }
    }
}

/// Two rounds of three writers that all expect the same.
fn one_wins(durability: Durability) {
    let store = open(&disk());
    let (repo, main) = (create(&store, durability), branch("main"));
    let mut head = None;
    for round in 0..2 {
        let racer = |writer| {
            let (repo, main) = (repo.clone(), main.clone());
            thread::spawn(move || race(&repo, &main, head, &format!("{round} {writer}")))
        };
        let racers: Vec<_> = (0..3).map(racer).collect();
        let outcomes: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
        let winners: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.ok()).collect();
        let [winner] = winners[..] else { panic!("{outcomes:?}") };
        assert!(outcomes.iter().all(|outcome| *outcome == Ok(winner) || *outcome == Err(winner)), "{outcomes:?}");
        head = Some(winner);
    }
    assert_eq!((repo.stats().version, repo.snapshot().reference(&main)), (3, head));
}

/// Two writers that each add two commits to the same branch, whatever the other does.
fn no_commit_is_lost(durability: Durability) {
    let store = open(&disk());
    let (repo, main) = (create(&store, durability), branch("main"));
    let writer = |writer: u64| {
        let (repo, main) = (repo.clone(), main.clone());
        thread::spawn(move || {
            for at in 0..2 {
                loop {
                    // Durable or not.
                    let head = repo.begin("tester", Cause::Api).tip().reference(&main);
                    match set(&repo, &main, expect(head), &format!("{writer} {at}")).1 {
                        Ok(published) => break published.ticket.wait().unwrap(),
                        Err(error) => assert!(matches!(error.kind(), ErrorKind::Conflict(_)), "{error}"),
                    }
                }
            }
        })
    };
    let writers: Vec<_> = (0..2).map(writer).collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let snapshot = repo.snapshot();
    let (mut at, mut messages) = (snapshot.reference(&main), Vec::new());
    while let Some(oid) = at {
        let commit = snapshot.commit(&oid).unwrap();
        at = commit.parents.first().copied();
        messages.push(String::from_utf8(commit.message).unwrap());
    }
    messages.sort();
    assert_eq!(messages, ["0 0", "0 1", "1 0", "1 1"]);
    assert_eq!(snapshot.version().number, 5);
}

#[test]
fn of_writers_that_expect_the_same_one_wins() {
    check(|| one_wins(Durability::Durable));
}

#[test]
fn of_relaxed_writers_that_expect_the_same_one_wins() {
    check(|| one_wins(Durability::Relaxed));
}

#[test]
fn of_writers_in_memory_that_expect_the_same_one_wins() {
    check(|| one_wins(Durability::Memory));
}

#[test]
fn no_commit_on_a_shared_branch_is_lost() {
    check(|| no_commit_is_lost(Durability::Durable));
}

#[test]
fn no_commit_on_a_shared_branch_in_memory_is_lost() {
    check(|| no_commit_is_lost(Durability::Memory));
}
