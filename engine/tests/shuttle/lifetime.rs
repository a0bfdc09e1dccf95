//! Ends and beginnings beside writers: closing, deletion, forks.

use govc_backends::Survivors;
use govc_engine::{Durability, ErrorKind, Repo, Store};
use shuttle::thread;

use crate::{
    crash::write_until_closed,
    run::check,
    world::{
        Reader, References, Told, branch, check_history, crash, create, disk, draw, expect, name, open, references_at,
        set, set_durably,
    },
};

fn spawn_writers(repo: &Repo, write: fn(&Repo, u64) -> Told) -> Vec<thread::JoinHandle<Told>> {
    let writer = |at| {
        let repo = repo.clone();
        thread::spawn(move || write(&repo, at))
    };
    (0..2).map(writer).collect()
}

fn dawdle() {
    for _ in 0..draw(30) {
        thread::yield_now();
    }
}

fn closed_at_any_moment(durability: Durability) {
    let first = disk();
    let store = open(&first);
    let repo = create(&store, durability);
    let writers = spawn_writers(&repo, write_until_closed);
    dawdle();
    store.close().unwrap();
    let told: Vec<Told> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    for told in &told {
        assert_eq!(told.acknowledged, told.published.len(), "what was accepted is acknowledged");
    }
    drop((repo, store));
    let store = open(&crash(&first, Survivors::Synced));
    let version = 1 + told.iter().map(|told| told.acknowledged as u64).sum::<u64>();
    check_history(&store.repo(&name("a")).unwrap(), &told, version);
}

#[test]
fn closing_keeps_what_was_accepted() {
    check(|| closed_at_any_moment(Durability::Durable));
}

#[test]
fn closing_keeps_what_relaxed_writers_were_told() {
    check(|| closed_at_any_moment(Durability::Relaxed));
}

/// Publishes on a branch of its own until the repository is deleted.
fn write_until_deleted(repo: &Repo, writer: u64) -> Told {
    let (own, mut told) = (branch(writer), Told::default());
    for at in 0..2 {
        let last = told.published.last().map(|(_, _, oid)| *oid);
        let (oid, published) = set(repo, &own, expect(last), &format!("{writer} {at}"));
        match published.and_then(|published| published.ticket.wait().map(|()| published.version)) {
            Ok(version) => told.published.push((version, own.clone(), oid)),
            Err(error) => {
                assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
                break;
            }
        }
    }
    told
}

fn deleted_at_any_moment(durability: Durability) {
    let first = disk();
    let store = open(&first);
    let repo = create(&store, durability);
    let writers = spawn_writers(&repo, write_until_deleted);
    dawdle();
    store.delete(&name("a")).unwrap();
    assert!(store.repo(&name("a")).is_err());
    let again = create(&store, durability);
    let oid = set_durably(&again, &branch("main"), expect(None), "again");
    writers.into_iter().for_each(|writer| drop(writer.join().unwrap()));
    drop(repo);
    let check = |store: &Store| {
        let again = store.repo(&name("a")).unwrap();
        let mut reader = Reader::new(&again);
        reader.look();
        assert_eq!(reader.seen, [(2, References::from([(branch("main"), oid)]))].into());
    };
    check(&store);
    if durability == Durability::Memory {
        store.delete(&name("a")).unwrap();
        drop(again);
        let stats = store.stats();
        assert_eq!((stats.objects_resident, stats.memory_repositories_bytes), (0, 0), "nothing of them stays");
        return;
    }
    store.close().unwrap();
    drop((again, store));
    check(&open(&crash(&first, Survivors::Synced)));
}

#[test]
fn a_deletion_ends_all_writers() {
    check(|| deleted_at_any_moment(Durability::Durable));
}

#[test]
fn a_deletion_ends_relaxed_writers_too() {
    check(|| deleted_at_any_moment(Durability::Relaxed));
}

#[test]
fn a_deletion_in_memory_frees_all() {
    check(|| deleted_at_any_moment(Durability::Memory));
}

/// A fork beside writers of its source, which is deleted then, as drawn.
fn forked_at_any_moment(durability: Durability) {
    let first = disk();
    let store = open(&first);
    let source = create(&store, durability);
    let writers = spawn_writers(&source, write_until_deleted);
    dawdle();
    let fork = store.fork(&name("a"), &name("b"), "tester").unwrap();
    let mut reader = Reader::new(&fork);
    reader.look();
    let deleted = draw(2) == 0;
    if deleted {
        store.delete(&name("a")).unwrap();
    }
    let told: Vec<Told> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    let forked = reader.seen[&1].clone();
    let last = told.iter().flat_map(|told| &told.published).map(|(version, ..)| *version).max().unwrap_or(1);
    let version = (1..=last).find(|version| references_at(&told, *version) == forked);
    let version = version.expect("a fork has the references of one version");
    for (_, _, oid) in told.iter().flat_map(|told| &told.published).filter(|(number, ..)| *number > version) {
        assert!(!fork.snapshot().contains(oid).unwrap(), "a fork has nothing that came later");
    }
    let own = set_durably(&fork, &branch("own"), expect(None), "own");
    if !deleted {
        assert!(!source.snapshot().contains(&own).unwrap(), "a source has nothing of its fork");
        check_history(&source, &told, last);
    }
    let mut expected = forked;
    expected.insert(branch("own"), own);
    let check = |store: &Store| {
        let mut reader = Reader::new(&store.repo(&name("b")).unwrap());
        reader.look();
        assert_eq!(reader.seen, [(2, expected.clone())].into());
    };
    check(&store);
    if durability == Durability::Memory {
        return;
    }
    store.close().unwrap();
    drop((source, fork, reader, store));
    let store = open(&crash(&first, Survivors::Synced));
    check(&store);
    assert_eq!(store.repo(&name("a")).is_err(), deleted);
}

#[test]
fn a_fork_has_one_version_of_its_source() {
    check(|| forked_at_any_moment(Durability::Durable));
}

#[test]
fn a_fork_of_a_relaxed_repository_has_one_version_of_its_source() {
    check(|| forked_at_any_moment(Durability::Relaxed));
}

#[test]
fn a_fork_in_memory_has_one_version_of_its_source() {
    check(|| forked_at_any_moment(Durability::Memory));
}

/// A fork and the deletion of its source, at the same time.
#[test]
fn a_fork_outlives_a_deletion_beside_it_or_fails() {
    check(|| {
        let first = disk();
        let store = open(&first);
        let durability = [Durability::Durable, Durability::Memory][draw(2) as usize];
        let source = create(&store, durability);
        let oid = set_durably(&source, &branch("main"), expect(None), "text");
        let forker = {
            let store = store.clone();
            thread::spawn(move || store.fork(&name("a"), &name("b"), "tester"))
        };
        dawdle();
        store.delete(&name("a")).unwrap();
        drop(source);
        let forked = forker.join().unwrap();
        let check = |store: &Store, is_there: bool| match store.repo(&name("b")) {
            Ok(fork) => {
                assert!(is_there);
                assert_eq!(fork.snapshot().reference(&branch("main")), Some(oid));
                fork.snapshot().commit(&oid).unwrap();
            }
            Err(error) => assert!(!is_there, "{error}"),
        };
        let is_there = match forked {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
                false
            }
        };
        check(&store, is_there);
        if durability == Durability::Memory {
            if is_there {
                store.delete(&name("b")).unwrap();
            }
            let stats = store.stats();
            assert_eq!((stats.objects_resident, stats.memory_repositories_bytes), (0, 0), "nothing of them stays");
            return;
        }
        store.close().unwrap();
        drop(store);
        check(&open(&crash(&first, Survivors::Synced)), is_there);
    });
}
