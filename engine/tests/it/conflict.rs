//! Commits whose branch has moved: redone or merged where both sides touched different paths, refused where not.

use std::collections::{BTreeMap, BTreeSet};

use govc_engine::{
    Change, CommitRequest, Committed, Durability, EntryMode, ErrorKind, Expected, Kind, Oid, OnConflict, Repo, Result,
};
use proptest::{collection::btree_map, prelude::*};

use crate::{
    commit::{commit, delete, files, put, request},
    helper::{FORMAT, branch, create, disk, kind, open},
};

fn on_conflict(repo: &Repo, expected: Oid, on_conflict: OnConflict, changes: Vec<Change>) -> Result<Committed> {
    let request = request(&branch("main"), changes);
    repo.commit(CommitRequest { expected_head: Expected::Is(expected), on_conflict, ..request })
}

fn texts(repo: &Repo) -> BTreeMap<String, String> {
    files(repo, &branch("main")).into_iter().map(|(path, (_, text))| (path, text)).collect()
}

#[track_caller]
fn conflicting(result: Result<Committed>) -> (Option<Oid>, Option<Oid>, Vec<String>) {
    match kind(result) {
        ErrorKind::Conflict(conflict) => (conflict.expected, conflict.actual, conflict.paths),
        other => panic!("{other:?}"),
    }
}

#[test]
fn changes_of_other_paths_are_redone_on_the_new_head() {
    let store = open(&disk());
    let repo = create(&store, "a", Durability::Durable);
    let base = commit(&repo, vec![put("a/x", "1"), put("a/y", "1"), put("b", "1")]).unwrap();
    let head = commit(&repo, vec![put("a/y", "2"), delete("b"), put("c/d", "2")]).unwrap();
    let changes = || vec![put("a/x", "3"), put("c/e", "3")];
    let stale = on_conflict(&repo, base.oid, OnConflict::Fail, changes());
    assert_eq!(conflicting(stale), (Some(base.oid), Some(head.oid), vec![]));

    let redone = on_conflict(&repo, base.oid, OnConflict::Rebase, changes()).unwrap();
    assert_eq!(redone.parents, [head.oid]);
    let expected = [("a/x", "3"), ("a/y", "2"), ("c/d", "2"), ("c/e", "3")];
    assert_eq!(texts(&repo), expected.map(|(path, text)| (path.to_owned(), text.to_owned())).into());

    let merged = on_conflict(&repo, base.oid, OnConflict::Merge, vec![put("new", "4")]).unwrap();
    let [ours, side] = merged.parents[..] else { panic!("{:?}", merged.parents) };
    assert_eq!(ours, redone.oid);
    merged.published.ticket.wait().unwrap();
    let snapshot = repo.snapshot();
    let side = snapshot.commit(&side).unwrap();
    assert_eq!((&side.parents[..], &side.message[..]), (&[base.oid][..], &b"message\n"[..]));
    assert_eq!(snapshot.entry(side.tree, b"c").unwrap(), None, "the side is what was made for the base");
    assert_eq!(texts(&repo).len(), 5);

    // Where nothing has moved, both are ordinary commits.
    for choice in [OnConflict::Rebase, OnConflict::Merge] {
        let head = repo.begin("tester", govc_engine::Cause::Api).tip().reference(&branch("main")).unwrap();
        let plain = on_conflict(&repo, head, choice, vec![put("plain", &format!("{choice:?}"))]).unwrap();
        assert_eq!(plain.parents, [head]);
    }
}

#[test]
fn changes_of_the_same_paths_are_refused() {
    let store = open(&disk());
    let repo = create(&store, "a", Durability::Durable);
    let base = commit(&repo, vec![put("a/x", "1"), put("b", "1"), put("d/e/f", "1"), put("m", "1")]).unwrap();
    let chmod = Change::Chmod { path: b"m".to_vec(), mode: EntryMode::EXECUTABLE };
    let head =
        commit(&repo, vec![put("a/x", "2"), delete("b"), put("b/c", "2"), put("d/e/g", "2"), put("k", "2"), chmod]);
    let head = head.unwrap();
    let before = texts(&repo);
    for choice in [OnConflict::Rebase, OnConflict::Merge] {
        for (changes, paths) in [
            (vec![put("a/x", "3")], vec!["a/x"]),
            (vec![delete("a/x")], vec!["a/x"]),
            (vec![put("b", "3")], vec!["b"]),
            (vec![put("k", "3")], vec!["k"]),
            (vec![put("k/l", "3")], vec!["k"]),
            (vec![put("m", "3")], vec!["m"]),
            (vec![delete("d"), put("d", "3")], vec!["d"]),
            (vec![put("a/x", "3"), put("free", "3"), put("k", "3")], vec!["a/x", "k"]),
        ] {
            let (expected, actual, found) = conflicting(on_conflict(&repo, base.oid, choice, changes));
            assert_eq!((expected, actual), (Some(base.oid), Some(head.oid)));
            assert_eq!(found, paths);
        }
        // The same change twice is no conflict, but changes nothing.
        assert_eq!(kind(on_conflict(&repo, base.oid, choice, vec![put("a/x", "2")])), ErrorKind::Invalid);
        // What the branch never was gives nothing to compare with.
        let unknown = on_conflict(&repo, FORMAT.null(), choice, vec![put("free", "3")]);
        assert_eq!(conflicting(unknown), (Some(FORMAT.null()), Some(head.oid), vec![]));
        let request = request(&branch("main"), vec![put("free", "3")]);
        let absent = repo.commit(CommitRequest { expected_head: Expected::Absent, on_conflict: choice, ..request });
        assert_eq!(conflicting(absent), (None, Some(head.oid), vec![]));
    }
    assert_eq!(texts(&repo), before);
}

#[test]
fn twenty_writers_on_one_branch_all_succeed() {
    for choice in [OnConflict::Rebase, OnConflict::Merge] {
        let store = open(&disk());
        let repo = create(&store, "a", Durability::Durable);
        let base = commit(&repo, vec![put("base", "0")]).unwrap().oid;
        let commits: BTreeSet<Oid> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..20)
                .map(|writer| {
                    let repo = &repo;
                    scope.spawn(move || {
                        let mut made = Vec::new();
                        for at in 0..20 {
                            let change = put(&format!("w{writer}/{at}"), &format!("{writer} {at}"));
                            let committed = on_conflict(repo, base, choice, vec![change]).unwrap();
                            committed.published.ticket.wait().unwrap();
                            made.push(committed.oid);
                        }
                        made
                    })
                })
                .collect();
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
        });
        assert_eq!(commits.len(), 400);
        assert_eq!(texts(&repo).len(), 401);
        // Every commit that was answered is in the branch's history.
        let snapshot = repo.snapshot();
        let mut at = snapshot.reference(&branch("main"));
        let mut seen = BTreeSet::new();
        while let Some(oid) = at.filter(|oid| *oid != base) {
            seen.insert(oid);
            at = snapshot.commit(&oid).unwrap().parents.first().copied();
        }
        assert_eq!(seen, commits);
    }
}

type Files = BTreeMap<String, String>;

/// Files in two levels of directories, of few names and contents, so that sides meet.
fn some_files() -> impl Strategy<Value = Files> {
    btree_map("[ab](/[ab]){0,2}", "[xy]", 0..6).prop_map(|files| {
        let is_free = |path: &String| !files.keys().any(|other| other.starts_with(&format!("{path}/")));
        files.clone().into_iter().filter(|(path, _)| is_free(path)).chain([("z".to_owned(), "z".to_owned())]).collect()
    })
}

/// The changes that make `new` of `old`.
fn changes(old: &Files, new: &Files) -> Vec<Change> {
    let gone = old.keys().filter(|path| !new.contains_key(*path)).map(|path| delete(path));
    let set = new.iter().filter(|(path, text)| old.get(*path) != Some(text)).map(|(path, text)| put(path, text));
    gone.chain(set).collect()
}

/// What both sides make of `base`, path by path; `None` if they meet.
fn merged(base: &Files, ours: &Files, theirs: &Files) -> Option<Files> {
    let mut result = ours.clone();
    for path in base.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
        let (before, own, wanted) = (base.get(path), ours.get(path), theirs.get(path));
        if before == wanted {
            continue;
        }
        if own != before && own != wanted {
            return None;
        }
        match wanted {
            Some(text) => result.insert(path.clone(), text.clone()),
            None => result.remove(path),
        };
    }
    let is_directory = |path: &String| result.keys().any(|other| other.starts_with(&format!("{path}/")));
    (!result.keys().any(is_directory)).then_some(result)
}

/// Whether some path is a file on one side and a directory on another.
fn changes_kind(sides: [&Files; 3]) -> bool {
    let is_directory =
        |path: &String| sides.iter().any(|side| side.keys().any(|other| other.starts_with(&format!("{path}/"))));
    sides.iter().any(|side| side.keys().any(is_directory))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn merges_are_those_of_paths(base in some_files(), ours in some_files(), theirs in some_files()) {
        prop_assume!(base != ours && base != theirs);
        let store = open(&disk());
        let repo = create(&store, "a", Durability::Memory);
        let first = commit(&repo, changes(&Files::new(), &base)).unwrap().oid;
        commit(&repo, changes(&base, &ours)).unwrap();
        let outcome = on_conflict(&repo, first, OnConflict::Rebase, changes(&base, &theirs));
        match (merged(&base, &ours, &theirs), outcome) {
            (Some(expected), Ok(_)) => prop_assert_eq!(texts(&repo), expected),
            // Both came to the same: nothing is left to do.
            (Some(expected), Err(error)) if *error.kind() == ErrorKind::Invalid => prop_assert_eq!(expected, ours),
            // A file that became a directory is left to people.
            (Some(_), Err(_)) => prop_assert!(changes_kind([&base, &ours, &theirs])),
            (None, Err(error)) => prop_assert!(matches!(error.kind(), ErrorKind::Conflict(_)), "{}", error),
            (None, Ok(_)) => prop_assert!(false, "the sides meet"),
        }
    }
}

#[test]
fn a_submodule_is_merged_like_a_file() {
    let store = open(&disk());
    let repo = create(&store, "a", Durability::Memory);
    let base = commit(&repo, vec![put("a", "1")]).unwrap();
    // Only a pushed tree can have one.
    let mut transaction = repo.begin("tester", govc_engine::Cause::Api);
    let blob = transaction.put(Kind::Blob, "1".into()).unwrap();
    let mut tree = b"100644 a\0".to_vec();
    tree.extend_from_slice(blob.as_bytes());
    tree.extend_from_slice(b"160000 sub\0");
    tree.extend_from_slice(&[7; FORMAT.len()]);
    let tree = transaction.put(Kind::Tree, tree.into()).unwrap();
    let oid = transaction.put(Kind::Commit, crate::helper::commit_bytes(tree, &[base.oid], 2, "sub\n")).unwrap();
    transaction.edit(crate::helper::edit(&branch("main"), Expected::Is(base.oid), Some(oid))).unwrap();
    crate::helper::publish(transaction).unwrap();
    let redone = on_conflict(&repo, base.oid, OnConflict::Rebase, vec![put("b", "2")]).unwrap();
    let snapshot = repo.snapshot();
    assert!(snapshot.entry(redone.oid, b"sub").unwrap().unwrap().mode.is_submodule());
    assert_eq!(conflicting(on_conflict(&repo, base.oid, OnConflict::Rebase, vec![put("sub/x", "2")])).2, ["sub"]);
}
