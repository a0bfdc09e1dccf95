//! Realities: made by the thousand, isolated, promoted or dropped, and gone when their time is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use govc_backends::Survivors;
use govc_engine::{
    At, Cause, Change, Durability, ErrorKind, Expected, Kind, Limits, NewRealities, Oid, PromoteRequest, Promoted,
    Promotion, RefName, Repo, Result, Store, StoreOptions,
};
use proptest::{collection::vec, prelude::*};

use crate::{
    commit::{commit, delete, files, put, request},
    helper::{
        FORMAT, branch, commit_bytes, crash, create, disk, edit, kind, open, options, publish, repo_name, signature,
    },
};

fn reality(name: &str) -> RefName {
    RefName::reality(name).unwrap()
}

fn new(repo: &Repo, names: &[&str], ttl: Option<Duration>) -> NewRealities {
    let snapshot = repo.snapshot();
    NewRealities {
        names: names.iter().map(|name| reality(name)).collect(),
        base: snapshot.reference(&branch("main")).unwrap(),
        version: snapshot.version().number,
        from: Some(branch("main")),
        ttl,
        actor: "tester".to_owned(),
    }
}

fn make(repo: &Repo, names: &[&str], ttl: Option<Duration>) {
    repo.create_realities(new(repo, names, ttl)).unwrap().ticket.wait().unwrap();
}

fn apply(repo: &Repo, name: &str, changes: Vec<Change>) -> Result<Oid> {
    let made = repo.commit(request(&reality(name), changes))?;
    made.published.ticket.wait()?;
    Ok(made.oid)
}

fn promote(repo: &Repo, name: &str, promotion: Promotion, keep: bool) -> Result<Promoted> {
    repo.promote(&PromoteRequest {
        reality: reality(name),
        target: branch("main"),
        promotion,
        keep,
        committer: signature(9),
        message: None,
        actor: "tester".to_owned(),
        deadline: None,
    })
}

fn texts(repo: &Repo, name: &RefName) -> BTreeMap<String, String> {
    files(repo, name).into_iter().map(|(path, (_, text))| (path, text)).collect()
}

fn text(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn a_thousand_realities_are_isolated() {
    for durability in [Durability::Durable, Durability::Relaxed, Durability::Memory] {
        let backend = disk();
        let store = open(&backend);
        let repo = create(&store, "a", durability);
        commit(&repo, vec![put("base", "0")]).unwrap().published.ticket.wait().unwrap();
        let names: Vec<String> = (0..1000).map(|at| format!("agent/{at:04}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        make(&repo, &names, None);
        assert_eq!((repo.stats().realities, repo.stats().references), (1000, 1));
        assert_eq!(repo.snapshot().references().count(), 1, "nothing that lists references meets them");
        for at in [0, 1, 500, 999] {
            apply(&repo, names[at], vec![put("own", names[at])]).unwrap();
        }
        let check = |repo: &Repo| {
            let snapshot = repo.snapshot();
            assert_eq!(snapshot.realities(None).count(), 1000);
            let after = snapshot.realities(Some(&reality(names[989]))).map(|(name, _)| name.short().into_owned());
            assert_eq!(after.collect::<Vec<_>>(), names[990..].to_vec());
            for at in [0, 1, 2, 500, 999] {
                let expected = [("base", "0"), ("own", names[at])];
                let expected = if at == 2 { &expected[..1] } else { &expected[..] };
                assert_eq!(texts(repo, &reality(names[at])), text(expected));
                let found = snapshot.reality(&reality(names[at])).unwrap();
                assert_eq!((found.origin.version, &found.origin.from), (2, &Some(branch("main"))));
                assert_eq!(found.origin.base, snapshot.reference(&branch("main")).unwrap());
                let compared = snapshot.compare_reality(&reality(names[at]), 10, None).unwrap();
                assert_eq!((compared.commits, compared.changes.files.len()), if at == 2 { (0, 0) } else { (1, 1) });
            }
            assert_eq!(texts(repo, &branch("main")), text(&[("base", "0")]));
        };
        check(&repo);
        store.settle();
        check(&repo);
        if durability != Durability::Durable {
            continue;
        }
        // From the journal, from the checkpoint, and from both.
        let (mut backend, mut store, mut repo) = (backend, store, repo);
        for settle in [false, true] {
            apply(&repo, names[0], vec![put("own", names[0]), put("more", "1")]).unwrap();
            apply(&repo, names[0], vec![delete("more")]).unwrap();
            repo.drop_realities(&[reality(names[3])], "tester").unwrap().ticket.wait().unwrap();
            make(&repo, &[names[3]], None);
            if settle {
                store.settle();
            }
            backend = crash(&backend, Survivors::Synced);
            store = open(&backend);
            repo = store.repo(&repo_name("a")).unwrap();
            let snapshot = repo.snapshot();
            assert_eq!(snapshot.realities(None).count(), 1000);
            let origin = |at: usize| snapshot.reality(&reality(names[at])).unwrap().origin.clone();
            assert_eq!(origin(1).version, 2);
            assert!(origin(3).version > 2);
            assert!(Arc::ptr_eq(&origin(4), &origin(5)), "they share what they have in common");
            assert_eq!(texts(&repo, &reality(names[500])), text(&[("base", "0"), ("own", names[500])]));
        }
    }
}

#[test]
fn all_are_made_or_none() {
    let small = Limits { realities_max: 5, references_max: 7, changes_max: 3, ..Limits::default() };
    let store = Store::open(disk(), StoreOptions { limits: small, ..options() }).unwrap();
    let repo = create(&store, "a", Durability::Durable);
    commit(&repo, vec![put("base", "0")]).unwrap().published.ticket.wait().unwrap();
    make(&repo, &["one"], None);
    let version = repo.stats().version;
    let made = |names: &[&str]| kind(repo.create_realities(new(&repo, names, None)));
    assert_eq!(made(&["two", "one"]), ErrorKind::Exists);
    assert_eq!(made(&["two", "two"]), ErrorKind::Invalid);
    assert_eq!(made(&[]), ErrorKind::Invalid);
    assert_eq!(made(&["one/two"]), ErrorKind::Exists);
    assert_eq!(made(&["a", "b", "c", "d", "e", "f"]), ErrorKind::LimitExceeded);
    let outside = NewRealities { names: vec![branch("two")], ..new(&repo, &[], None) };
    assert_eq!(kind(repo.create_realities(outside)), ErrorKind::Invalid);
    let unknown = NewRealities { base: FORMAT.null(), ..new(&repo, &["two"], None) };
    assert_eq!(kind(repo.create_realities(unknown)), ErrorKind::NotFound);
    let tree = NewRealities { base: FORMAT.empty_tree(), ..new(&repo, &["two"], None) };
    assert_eq!(kind(repo.create_realities(tree)), ErrorKind::Invalid);
    // None is made by the way: not by a commit, not by a reference's edit.
    assert_eq!(kind(apply(&repo, "two", vec![put("x", "x")])), ErrorKind::NotFound);
    let mut transaction = repo.begin("tester", Cause::Push);
    let target = repo.snapshot().reference(&branch("main"));
    transaction.edit(edit(&reality("two"), Expected::Absent, target)).unwrap();
    assert_eq!(kind(transaction.prepare().map(drop)), ErrorKind::Invalid);
    assert_eq!(kind(repo.drop_realities(&[reality("one"), reality("two")], "tester")), ErrorKind::NotFound);
    assert_eq!((repo.stats().version, repo.stats().realities), (version, 1));
    // The other limits.
    let changes = (0..4).map(|at| put(&format!("{at}"), "x")).collect();
    assert_eq!(kind(commit(&repo, changes)), ErrorKind::LimitExceeded);
    let mut transaction = repo.begin("tester", Cause::Push);
    let edits = (0..8).map(|at| transaction.edit(edit(&branch(&format!("b{at}")), Expected::Absent, target)));
    assert_eq!(edits.filter_map(Result::err).map(|e| e.kind().clone()).collect::<Vec<_>>(), [ErrorKind::LimitExceeded]);
}

#[test]
fn work_is_promoted_in_three_ways() {
    let store = open(&disk());
    let repo = create(&store, "a", Durability::Durable);
    let main = branch("main");
    commit(&repo, vec![put("a", "0"), put("b", "0")]).unwrap().published.ticket.wait().unwrap();
    make(&repo, &["ff", "merge", "rebase", "clash", "none"], None);
    let two = |name: &str| {
        let first = apply(&repo, name, vec![put(name, "1")]).unwrap();
        (first, apply(&repo, name, vec![put(name, "2"), put(&format!("{name}.more"), "2")]).unwrap())
    };
    let (_, ff_head) = two("ff");
    let (_, merge_head) = two("merge");
    two("rebase");
    apply(&repo, "clash", vec![put("a", "9")]).unwrap();

    let promoted = promote(&repo, "ff", Promotion::FastForward, false).unwrap();
    promoted.published.ticket.wait().unwrap();
    assert_eq!((promoted.oid, repo.snapshot().reference(&main)), (ff_head, Some(ff_head)));
    assert_eq!(kind(repo.snapshot().reality(&reality("ff")).map(drop)), ErrorKind::NotFound);

    match kind(promote(&repo, "merge", Promotion::FastForward, false)) {
        ErrorKind::Conflict(conflict) => assert_eq!(conflict.actual, Some(ff_head)),
        other => panic!("{other:?}"),
    }
    let merged = promote(&repo, "merge", Promotion::Merge, true).unwrap();
    merged.published.ticket.wait().unwrap();
    let snapshot = repo.snapshot();
    assert_eq!(snapshot.commit(&merged.oid).unwrap().parents[..], [ff_head, merge_head]);
    assert!(snapshot.reality(&reality("merge")).is_ok(), "it is kept");
    assert_eq!(kind(promote(&repo, "merge", Promotion::Merge, true)), ErrorKind::Invalid, "nothing is left to do");

    let rebased = promote(&repo, "rebase", Promotion::Rebase, false).unwrap();
    rebased.published.ticket.wait().unwrap();
    let snapshot = repo.snapshot();
    let second = snapshot.commit(&rebased.oid).unwrap();
    let first = snapshot.commit(&second.parents[0]).unwrap();
    assert_eq!(first.parents[..], [merged.oid]);
    assert_eq!((second.committer.seconds, second.author.seconds), (9, 1));
    let expected = [("a", "0"), ("b", "0"), ("ff", "2"), ("ff.more", "2"), ("merge", "2"), ("merge.more", "2")];
    let expected = [&expected[..], &[("rebase", "2"), ("rebase.more", "2")]].concat();
    assert_eq!(texts(&repo, &main), text(&expected));

    let head = commit(&repo, vec![put("a", "1")]).unwrap();
    for promotion in [Promotion::Merge, Promotion::Rebase] {
        match kind(promote(&repo, "clash", promotion, false)) {
            ErrorKind::Conflict(conflict) => {
                assert_eq!((conflict.actual, conflict.paths), (Some(head.oid), vec!["a".to_owned()]))
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(repo.snapshot().reality(&reality("clash")).is_ok());
    // One that did nothing just ends.
    assert_eq!(promote(&repo, "none", Promotion::Merge, false).unwrap().oid, head.oid);
    assert_eq!(kind(promote(&repo, "none", Promotion::Merge, false)), ErrorKind::NotFound);
    assert_eq!(texts(&repo, &main)["a"], "1");
}

#[test]
fn promotions_race_with_commits_and_lose_nothing() {
    let store = open(&disk());
    let repo = create(&store, "a", Durability::Memory);
    commit(&repo, vec![put("base", "0")]).unwrap();
    let names: Vec<String> = (0..20).map(|at| format!("r{at}")).collect();
    make(&repo, &names.iter().map(String::as_str).collect::<Vec<_>>(), None);
    std::thread::scope(|scope| {
        for name in &names {
            let repo = &repo;
            scope.spawn(move || {
                apply(repo, name, vec![put(name, "1")]).unwrap();
                promote(repo, name, Promotion::Merge, false).unwrap();
            });
        }
        scope.spawn(|| {
            for at in 0..50 {
                commit(&repo, vec![put(&format!("c{at}"), "1")]).unwrap();
            }
        });
    });
    assert_eq!((texts(&repo, &branch("main")).len(), repo.stats().realities), (71, 0));
}

#[test]
fn their_time_ends() {
    for durability in [Durability::Durable, Durability::Memory] {
        let clock = Arc::new(AtomicI64::new(1_000_000));
        let now = clock.clone();
        let options = || StoreOptions {
            clock: {
                let now = now.clone();
                Arc::new(move || now.load(Ordering::Relaxed))
            },
            ..options()
        };
        let backend = disk();
        let mut store = Store::open(backend.clone(), options()).unwrap();
        let mut repo = create(&store, "a", durability);
        commit(&repo, vec![put("base", "0")]).unwrap().published.ticket.wait().unwrap();
        make(&repo, &["short", "short2"], Some(Duration::from_secs(60)));
        make(&repo, &["long"], Some(Duration::from_secs(3600)));
        make(&repo, &["ever"], None);
        let state = |repo: &Repo| {
            let snapshot = repo.snapshot();
            ["short", "long", "ever"].map(|name| match snapshot.reality(&reality(name)) {
                Ok(_) => 200,
                Err(error) if *error.kind() == ErrorKind::Gone => 410,
                Err(_) => 404,
            })
        };
        clock.fetch_add(59_999, Ordering::Relaxed);
        assert_eq!(state(&repo), [200; 3]);
        clock.fetch_add(1, Ordering::Relaxed);
        assert_eq!(state(&repo), [410, 200, 200]);
        assert_eq!(repo.snapshot().realities(None).count(), 2);
        assert_eq!(kind(repo.snapshot().resolve("refs/realities/short")), ErrorKind::Gone);
        assert_eq!(kind(apply(&repo, "short", vec![put("x", "x")])), ErrorKind::Gone);
        assert_eq!(kind(promote(&repo, "short", Promotion::Merge, false)), ErrorKind::Gone);
        assert_eq!(store.remove_expired_realities().unwrap(), 0, "it is remembered for a while");
        if durability == Durability::Durable {
            store = Store::open(crash(&backend, Survivors::Synced), options()).unwrap();
            repo = store.repo(&repo_name("a")).unwrap();
            assert_eq!(state(&repo), [410, 200, 200]);
        }
        clock.fetch_add(600_000, Ordering::Relaxed);
        assert_eq!(store.remove_expired_realities().unwrap(), 2);
        assert_eq!((state(&repo), repo.stats().realities), ([404, 200, 200], 2));
        clock.fetch_add(i64::from(u32::MAX), Ordering::Relaxed);
        assert_eq!(store.remove_expired_realities().unwrap(), 1);
        assert_eq!(state(&repo), [404, 404, 200]);
    }
}

#[test]
fn realities_have_no_past() {
    let store = open(&disk());
    let repo = create(&store, "a", Durability::Durable);
    commit(&repo, vec![put("base", "0")]).unwrap().published.ticket.wait().unwrap();
    make(&repo, &["one"], None);
    apply(&repo, "one", vec![put("x", "x")]).unwrap();
    make(&repo, &["two"], None);
    for _ in 0..2 {
        for version in 3..5 {
            let old = repo.at(At::Version(version), None).unwrap();
            assert_eq!((old.realities(None).count(), old.references().count()), (0, 1));
        }
        let newest = repo.versions(None, 1).unwrap().remove(0);
        assert_eq!((newest.cause, &newest.changes.refs[0].name), (Cause::Reality, &reality("two")));
        store.settle();
    }
    repo.restore(2, "tester", None).unwrap().ticket.wait().unwrap();
    assert_eq!(repo.stats().realities, 2, "what is restored leaves them alone");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Against the definition, on histories of any shape, also where dates lie.
    #[test]
    fn histories_meet_at_a_best_common_ancestor(shape in vec((vec(any::<prop::sample::Index>(), 0..3), 0i64..20), 2..24)) {
        let store = open(&disk());
        let repo = create(&store, "a", Durability::Memory);
        let mut transaction = repo.begin("tester", Cause::Api);
        let tree = transaction.put(Kind::Tree, Vec::new().into()).unwrap();
        let (mut oids, mut ancestors): (Vec<Oid>, Vec<BTreeSet<usize>>) = (Vec::new(), Vec::new());
        for (at, (parents, seconds)) in shape.iter().enumerate() {
            let parents: BTreeSet<usize> =
                if at == 0 { BTreeSet::new() } else { parents.iter().map(|parent| parent.index(at)).collect() };
            let own: BTreeSet<usize> =
                parents.iter().flat_map(|parent| ancestors[*parent].iter().copied()).chain([at]).collect();
            let parents: Vec<Oid> = parents.iter().map(|parent| oids[*parent]).collect();
            let bytes = commit_bytes(tree, &parents, *seconds, &format!("{at}\n"));
            let oid = transaction.put(Kind::Commit, bytes).unwrap();
            transaction.edit(edit(&branch(&format!("b{at}")), Expected::Absent, Some(oid))).unwrap();
            oids.push(oid);
            ancestors.push(own);
        }
        publish(transaction).unwrap();
        let snapshot = repo.snapshot();
        for (a, of_a) in ancestors.iter().enumerate() {
            for (b, of_b) in ancestors.iter().enumerate() {
                let common: BTreeSet<usize> = of_a.intersection(of_b).copied().collect();
                let best = common.iter().filter(|at| !common.iter().any(|other| other != *at && ancestors[*other].contains(at)));
                let best: BTreeSet<Oid> = best.map(|at| oids[*at]).collect();
                let found = snapshot.merge_base(oids[a], oids[b], None).unwrap();
                prop_assert_eq!(found.is_some(), !best.is_empty());
                prop_assert!(found.is_none_or(|found| best.contains(&found)), "{} and {}", a, b);
                prop_assert_eq!(snapshot.is_ancestor(oids[a], oids[b], None).unwrap(), of_b.contains(&a));
            }
        }
    }
}
