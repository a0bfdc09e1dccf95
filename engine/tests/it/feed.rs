//! The feed: in order, complete, and resumable across restarts.

use std::time::Duration;

use govc_backends::Survivors;
use govc_engine::{Durability, Expected, Publication, Seq, Store};

use crate::helper::{branch, crash, create, disk, open, set, set_durably};

/// Follows the feed in small pages to its end.
fn follow(store: &Store, mut after: Seq) -> Vec<Publication> {
    let mut found: Vec<Publication> = Vec::new();
    loop {
        let page = store.feed_after(after, 7).unwrap();
        assert!(page.len() <= 7);
        let Some(last) = page.last() else { return found };
        after = last.seq;
        found.extend(page);
    }
}

fn versions(publications: &[Publication]) -> Vec<u64> {
    assert!(publications.is_sorted_by(|a, b| a.seq < b.seq));
    publications.iter().map(|publication| publication.version).collect()
}

#[test]
fn it_resumes_across_settling_and_restarts() {
    let backend = disk();
    let store = open(&backend);
    let repo = create(&store, "a", Durability::Durable);
    let write = |from: u64, to: u64| {
        for at in from..to {
            set_durably(&repo, &branch("main"), &at.to_string()).unwrap();
        }
    };
    write(0, 10);
    let first = follow(&store, Seq(0));
    assert_eq!(versions(&first), (2..12).collect::<Vec<_>>());
    let publication = &first[0];
    assert_eq!((publication.repo, &*publication.actor, publication.changes.refs.len()), (repo.id(), "tester", 1));
    let change = &publication.changes.refs[0];
    assert_eq!((&change.name, change.before, change.after.is_some()), (&branch("main"), None, true));
    store.settle();
    write(10, 20);
    assert_eq!(versions(&follow(&store, Seq(0))), (2..22).collect::<Vec<_>>());
    assert_eq!(versions(&follow(&store, first[9].seq)), (12..22).collect::<Vec<_>>());
    assert_eq!(store.feed_last(), follow(&store, Seq(0))[19].seq);

    for (survivors, clean) in [(Survivors::Synced, false), (Survivors::All, false), (Survivors::Synced, true)] {
        // Each way of ending begins from the same disk.
        let backend = disk();
        let store = open(&backend);
        let repo = create(&store, "a", Durability::Durable);
        for at in 0..20 {
            set_durably(&repo, &branch("main"), &at.to_string()).unwrap();
        }
        let before = follow(&store, Seq(0));
        if clean {
            store.close().unwrap();
        }
        let store = open(&crash(&backend, survivors));
        let repo = store.repo(&repo.name()).unwrap();
        set_durably(&repo, &branch("main"), "more").unwrap();
        let after = follow(&store, Seq(0));
        assert_eq!(versions(&after), (2..23).collect::<Vec<_>>(), "{survivors:?}");
        assert!(before.iter().zip(&after).all(|(a, b)| (a.seq, &a.changes) == (b.seq, &b.changes)));
        assert_eq!(versions(&follow(&store, before[19].seq)), [22]);
    }
}

/// A follower that has seen a position must never miss what comes later, also after a restart.
#[test]
fn positions_are_never_given_twice() {
    let backend = disk();
    let store = open(&backend);
    let (stored, memory) = (create(&store, "a", Durability::Durable), create(&store, "m", Durability::Memory));
    set_durably(&stored, &branch("main"), "first").unwrap();
    for at in 0..5 {
        set_durably(&memory, &branch("main"), &at.to_string()).unwrap();
    }
    let later = create(&store, "b", Durability::Memory);
    let seen = store.feed_last();
    store.close().unwrap();
    let store = open(&crash(&backend, Survivors::Synced));
    set_durably(&store.repo(&stored.name()).unwrap(), &branch("main"), "second").unwrap();
    assert_eq!(versions(&store.feed_after(seen, 10).unwrap()), [3], "a follower at {seen:?} missed it");
    let new = create(&store, "c", Durability::Memory).id();
    assert!([&stored, &memory, &later].iter().all(|old| old.id() != new), "nor are the ids of repositories");
}

#[test]
fn memory_repositories_are_followed_in_order() {
    let store = open(&disk());
    let repo = create(&store, "m", Durability::Memory);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let repo = &repo;
            scope.spawn(move || {
                for at in 0..500 {
                    set_durably(repo, &branch(&format!("b{writer}")), &at.to_string()).unwrap();
                }
            });
        }
    });
    assert_eq!(versions(&follow(&store, Seq(0))), (2..2002).collect::<Vec<_>>());
}

#[test]
fn a_follower_misses_nothing_while_many_write() {
    let store = open(&disk());
    let repos: Vec<_> = (0..4).map(|at| create(&store, &format!("r{at}"), Durability::Durable)).collect();
    const EACH: usize = 1500;
    let seen = std::thread::scope(|scope| {
        for repo in &repos {
            scope.spawn(move || {
                for at in 1..EACH {
                    set(repo, &branch("main"), Expected::Any, &at.to_string()).unwrap();
                }
                set_durably(repo, &branch("main"), "last").unwrap();
            });
        }
        let follower = scope.spawn(|| {
            let mut seen: Vec<Publication> = Vec::new();
            while seen.len() < repos.len() * EACH {
                let after = seen.last().map_or(Seq(0), |publication| publication.seq);
                assert!(store.feed_wait(after, Duration::from_secs(20)), "after {} publications", seen.len());
                seen.extend(store.feed_after(after, 100).unwrap());
            }
            seen
        });
        follower.join().unwrap()
    });
    versions(&seen);
    for repo in &repos {
        let own: Vec<_> = seen.iter().filter(|publication| publication.repo == repo.id()).cloned().collect();
        assert_eq!(versions(&own), (2..2 + EACH as u64).collect::<Vec<_>>());
    }
    // More than is kept in memory: the beginning comes from the journal's settled rows or from what waits for them.
    assert_eq!(follow(&store, Seq(0)).len(), repos.len() * EACH);
    let first: Vec<Seq> = store.feed_after(Seq(0), 3).unwrap().iter().map(|publication| publication.seq).collect();
    assert_eq!(first, seen.iter().take(3).map(|publication| publication.seq).collect::<Vec<_>>());
    store.settle();
    assert_eq!(follow(&store, Seq(0)).len(), repos.len() * EACH);
    assert!(!store.feed_wait(store.feed_last(), Duration::ZERO));
}
