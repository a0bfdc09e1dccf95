//! Commits made from changes: what each change does, and what is refused.

use std::collections::BTreeMap;

use govc_engine::{
    Change, CommitDetails, CommitRequest, Committed, Content, Durability, EntryMode, ErrorKind, Expected, ListOptions,
    Oid, OnConflict, RefName, Repo, Result,
};

use crate::helper::{FORMAT, branch, create, disk, kind, open, signature};

pub(crate) fn put(path: &str, text: &str) -> Change {
    Change::Put { path: path.into(), content: Content::Bytes(text.to_owned().into()), mode: None }
}

pub(crate) fn delete(path: &str) -> Change {
    Change::Delete { path: path.into() }
}

fn rename(from: &str, path: &str) -> Change {
    Change::Move { from: from.into(), path: path.into(), content: None, mode: None }
}

fn chmod(path: &str, mode: EntryMode) -> Change {
    Change::Chmod { path: path.into(), mode }
}

pub(crate) fn request(branch: &RefName, changes: Vec<Change>) -> CommitRequest {
    CommitRequest {
        branch: branch.clone(),
        message: "message".to_owned(),
        author: signature(1),
        committer: signature(1),
        changes,
        expected_head: Expected::Any,
        on_conflict: OnConflict::Fail,
        create_branch_from: None,
        allow_empty: false,
        actor: "tester".to_owned(),
        deadline: None,
    }
}

pub(crate) fn commit(repo: &Repo, changes: Vec<Change>) -> Result<Committed> {
    repo.commit(request(&branch("main"), changes))
}

/// The newest version's files on a branch: mode and text by path.
pub(crate) fn files(repo: &Repo, name: &RefName) -> BTreeMap<String, (String, String)> {
    let tip = repo.begin("tester", govc_engine::Cause::Api).tip();
    let options = ListOptions { recursive: true, after: None, limit: 1000 };
    let listing = tip.list(tip.reference(name).unwrap(), b"", options).unwrap();
    let text = |oid: &Oid| String::from_utf8(tip.object(oid).unwrap().data.to_vec()).unwrap();
    let line = |entry: &govc_engine::ListedEntry| {
        (String::from_utf8(entry.path.clone()).unwrap(), (entry.mode.to_octal(), text(&entry.oid)))
    };
    listing.entries.iter().map(line).collect()
}

fn expected(files: &[(&str, &str, &str)]) -> BTreeMap<String, (String, String)> {
    files.iter().map(|(path, mode, text)| ((*path).to_owned(), ((*mode).to_owned(), (*text).to_owned()))).collect()
}

/// A repository with `a`, `d/b`, `d/e/c`.
fn seeded(durability: Durability) -> (govc_engine::Store, Repo) {
    let store = open(&disk());
    let repo = create(&store, "a", durability);
    commit(&repo, vec![put("a", "A"), put("d/b", "B"), put("d/e/c", "C")]).unwrap();
    (store, repo)
}

#[test]
fn changes_do_what_they_say() {
    let plain = [("a", "100644", "A"), ("d/b", "100644", "B"), ("d/e/c", "100644", "C")];
    let content = |text: &'static str| Some(Content::Bytes(text.into()));
    let from_d = |path: &str, mode, content| Change::Move { from: b"a".to_vec(), path: path.into(), content, mode };
    type Files<'a> = Vec<(&'a str, &'a str, &'a str)>;
    let table: Vec<(Vec<Change>, Files<'_>)> = vec![
        (vec![put("a", "new")], vec![("a", "100644", "new"), plain[1], plain[2]]),
        (vec![put("x/y/z", "Z")], vec![plain[0], plain[1], plain[2], ("x/y/z", "100644", "Z")]),
        (vec![put("x", "1"), put("x", "2")], vec![plain[0], plain[1], plain[2], ("x", "100644", "2")]),
        (vec![delete("a")], vec![plain[1], plain[2]]),
        (vec![delete("d")], vec![plain[0]]),
        (vec![delete("d/e/c")], vec![plain[0], plain[1]]),
        (vec![delete("d/e/c"), delete("d/b")], vec![plain[0]]),
        (vec![delete("d"), put("d", "file")], vec![plain[0], ("d", "100644", "file")]),
        (vec![delete("d/e/c"), put("d/e", "file")], vec![plain[0], plain[1], ("d/e", "100644", "file")]),
        (vec![delete("a"), put("a/b", "deep")], vec![("a/b", "100644", "deep"), plain[1], plain[2]]),
        (vec![rename("a", "d/z")], vec![plain[1], plain[2], ("d/z", "100644", "A")]),
        (vec![rename("d", "q/r")], vec![plain[0], ("q/r/b", "100644", "B"), ("q/r/e/c", "100644", "C")]),
        (vec![put("d/b", "B2"), rename("d", "q")], vec![plain[0], ("q/b", "100644", "B2"), ("q/e/c", "100644", "C")]),
        (vec![rename("d/e/c", "d/e2")], vec![plain[0], plain[1], ("d/e2", "100644", "C")]),
        (
            vec![rename("a", "t"), rename("d/b", "a"), rename("t", "d/b")],
            vec![("a", "100644", "B"), ("d/b", "100644", "A"), plain[2]],
        ),
        (
            vec![from_d("x", Some(EntryMode::EXECUTABLE), content("new"))],
            vec![plain[1], plain[2], ("x", "100755", "new")],
        ),
        (vec![chmod("a", EntryMode::EXECUTABLE), put("a", "new")], vec![("a", "100755", "new"), plain[1], plain[2]]),
        (vec![chmod("d/b", EntryMode::SYMLINK)], vec![plain[0], ("d/b", "120000", "B"), plain[2]]),
        (vec![delete("a"), delete("d")], vec![]),
    ];
    for durability in [Durability::Durable, Durability::Memory] {
        for (changes, files_after) in &table {
            let (_store, repo) = seeded(durability);
            let committed = commit(&repo, changes.clone()).unwrap_or_else(|error| panic!("{changes:?}: {error}"));
            assert_eq!(files(&repo, &branch("main")), expected(files_after), "{changes:?}");
            committed.published.ticket.wait().unwrap();
            let commit = repo.snapshot().commit(&committed.oid).unwrap();
            assert_eq!(
                (commit.tree, commit.parents.to_vec(), commit.message),
                (committed.tree, committed.parents, b"message\n".to_vec())
            );
            if files_after.is_empty() {
                assert_eq!(committed.tree, FORMAT.empty_tree());
            }
        }
    }
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let (_store, repo) = seeded(Durability::Durable);
    let version = repo.begin("tester", govc_engine::Cause::Api).tip().version().number;
    let missing = Oid::from_bytes(&[7; FORMAT.len()]).unwrap();
    let blob = |oid| Change::Put { path: b"x".to_vec(), content: Content::Blob(oid), mode: None };
    let moded =
        |path: &str, mode| Change::Put { path: path.into(), content: Content::Bytes("x".into()), mode: Some(mode) };
    let mut table = vec![
        (vec![], ErrorKind::Invalid),
        (vec![put("a", "A")], ErrorKind::Invalid),
        (vec![put("a/b", "through a file")], ErrorKind::Invalid),
        (vec![put("d", "over a directory")], ErrorKind::Invalid),
        (vec![put("x", "1"), put("x/y", "2")], ErrorKind::Invalid),
        (vec![delete("nothing")], ErrorKind::NotFound),
        (vec![delete("d/nothing")], ErrorKind::NotFound),
        (vec![delete("a/b")], ErrorKind::Invalid),
        (vec![delete("a"), delete("a")], ErrorKind::NotFound),
        (vec![delete("d/e/c"), delete("d/e")], ErrorKind::NotFound),
        (vec![rename("nothing", "x")], ErrorKind::NotFound),
        (vec![rename("a", "d/b")], ErrorKind::Exists),
        (vec![rename("a", "d")], ErrorKind::Exists),
        (vec![rename("a", "a")], ErrorKind::Invalid),
        (vec![rename("d", "d/e/f")], ErrorKind::Invalid),
        (vec![chmod("nothing", EntryMode::BLOB)], ErrorKind::NotFound),
        (vec![chmod("d", EntryMode::EXECUTABLE)], ErrorKind::Invalid),
        (vec![chmod("a", EntryMode::TREE)], ErrorKind::Invalid),
        (vec![moded("x", EntryMode::COMMIT)], ErrorKind::Invalid),
        (vec![moded(".gitmodules", EntryMode::SYMLINK)], ErrorKind::Invalid),
        (vec![put(".gitmodules", "x"), chmod(".gitmodules", EntryMode::SYMLINK)], ErrorKind::Invalid),
        (
            vec![Change::Move { from: b"d".to_vec(), path: b"q".to_vec(), content: None, mode: Some(EntryMode::BLOB) }],
            ErrorKind::Invalid,
        ),
        (vec![blob(missing)], ErrorKind::NotFound),
        (vec![blob(FORMAT.empty_tree())], ErrorKind::Invalid),
    ];
    for path in [
        "",
        "/",
        "/x",
        "x/",
        "x//y",
        ".",
        "..",
        "../x",
        "x/../y",
        ".git/config",
        "x/.GIT/y",
        "git~1",
        "x\0y",
        "a\\.git",
        &"n/".repeat(2100),
    ] {
        table.push((vec![put(path, "x")], ErrorKind::Invalid));
        table.push((vec![rename("a", path)], ErrorKind::Invalid));
    }
    for (changes, wanted) in table {
        let shown = format!("{changes:?}");
        match commit(&repo, changes) {
            Ok(_) => panic!("{shown} was accepted"),
            Err(error) => assert_eq!(error.kind(), &wanted, "{shown}: {error}"),
        }
    }
    for message in ["", " \n", "a\0b"] {
        let request = CommitRequest { message: message.to_owned(), ..request(&branch("main"), vec![put("x", "x")]) };
        assert_eq!(kind(repo.commit(request)), ErrorKind::Invalid, "{message:?}");
    }
    assert_eq!(repo.begin("tester", govc_engine::Cause::Api).tip().version().number, version);
}

/// Walks over trees recurse, so no way may lead to trees that are nested without end.
#[test]
fn directories_cannot_be_nested_ever_deeper() {
    let (_store, repo) = seeded(Durability::Durable);
    let deep = |name: &str, levels: usize| format!("{}/", name).repeat(levels);
    let too_deep = |changes| assert_eq!(kind(commit(&repo, changes)), ErrorKind::TooLarge);
    too_deep(vec![put(&format!("{}f", deep("p", 1025)), "x")]);
    commit(&repo, vec![put(&format!("{}f", deep("p", 1024)), "x")]).unwrap();
    too_deep(vec![rename("p", "q/p")]);
    too_deep(vec![put("p/g", "opens the overlay"), rename("p", "q/p")]);
    // Step by step within one commit, and from commit to commit.
    let half = || put(&format!("{}f", deep("r", 600)), "x");
    let onto = |name: &str, moved: &str| rename(moved, &format!("{}{moved}", deep(name, 400)));
    too_deep(vec![half(), onto("s", "r"), onto("t", "s")]);
    commit(&repo, vec![half(), onto("s", "r")]).unwrap();
    too_deep(vec![onto("t", "s")]);
    commit(&repo, vec![rename("s", "t/s"), rename("p", "u")]).unwrap();
}

#[test]
fn expectations_and_new_branches() {
    let (_store, repo) = seeded(Durability::Durable);
    let (main, next) = (branch("main"), branch("next"));
    let head = repo.begin("tester", govc_engine::Cause::Api).tip().reference(&main).unwrap();
    let ask = |branch: &RefName, expected_head, create_branch_from, text: &str| {
        let request = request(branch, vec![put("x", text)]);
        repo.commit(CommitRequest { expected_head, create_branch_from, ..request })
    };
    match kind(ask(&main, Expected::Absent, None, "1")) {
        ErrorKind::Conflict(conflict) => assert_eq!((conflict.expected, conflict.actual), (None, Some(head))),
        other => panic!("{other:?}"),
    }
    let second = ask(&main, Expected::Is(head), None, "2").unwrap();
    assert_eq!(second.parents, [head]);
    match kind(ask(&main, Expected::Is(head), None, "3")) {
        ErrorKind::Conflict(conflict) => {
            assert_eq!((conflict.expected, conflict.actual), (Some(head), Some(second.oid)))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(kind(ask(&next, Expected::Any, None, "4")), ErrorKind::NotFound, "nothing to begin from");
    assert!(matches!(kind(ask(&next, Expected::Is(head), Some(head), "5")), ErrorKind::Conflict(_)));
    assert_eq!(kind(ask(&next, Expected::Any, Some(second.tree), "6")), ErrorKind::Invalid);
    assert_eq!(kind(ask(&next, Expected::Any, Some(FORMAT.null()), "7")), ErrorKind::NotFound);
    assert_eq!(kind(ask(&RefName::tag("t").unwrap(), Expected::Any, Some(head), "8")), ErrorKind::Invalid);
    assert_eq!(kind(ask(&branch("main/x"), Expected::Any, Some(head), "9")), ErrorKind::Exists);
    let created = ask(&next, Expected::Absent, Some(head), "10").unwrap();
    assert_eq!(created.parents, [head]);
    let empty = CommitRequest { allow_empty: true, ..request(&next, vec![]) };
    let empty = repo.commit(empty).unwrap();
    assert_eq!((empty.tree, empty.parents), (created.tree, vec![created.oid]));
    empty.published.ticket.wait().unwrap();
    assert_eq!(repo.snapshot().reference(&main), Some(second.oid));
}

#[test]
fn commits_without_an_expectation_all_arrive() {
    let (_store, repo) = seeded(Durability::Durable);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let repo = &repo;
            scope.spawn(move || {
                for at in 0..25 {
                    let committed = commit(repo, vec![put(&format!("t{thread}/{at}"), "x")]).unwrap();
                    committed.published.ticket.wait().unwrap();
                }
            });
        }
    });
    assert_eq!(files(&repo, &branch("main")).len(), 103);
}

/// Directories with many changes are searched through an index; what it finds is what a search finds.
#[test]
fn thousands_of_changes_are_one_commit() {
    let (_store, repo) = seeded(Durability::Durable);
    let path = |at: usize| format!("many/f{at}");
    commit(&repo, (0..2000).map(|at| put(&path(at), "old")).collect()).unwrap();
    let changes = (0..2000).map(|at| match at % 4 {
        0 => put(&path(at), "new"),
        1 => delete(&path(at)),
        2 => rename(&path(at), &format!("moved/f{at}")),
        _ => chmod(&path(at), EntryMode::EXECUTABLE),
    });
    commit(&repo, changes.collect()).unwrap();
    let found = files(&repo, &branch("main"));
    let file = |path: String| found.get(&path).map(|(mode, text)| (mode.as_str(), text.as_str()));
    // What the helper lists ends at a thousand files; these stand before that.
    for at in (0..400).step_by(4) {
        assert_eq!(file(path(at)), Some(("100644", "new")), "{at}");
        assert_eq!(file(path(at + 1)), None, "{at}");
        assert_eq!(file(path(at + 2)), None, "{at}");
        assert_eq!(file(path(at + 3)), Some(("100755", "old")), "{at}");
    }
    for unknown in ["many/f0", "many/f1", "many/g"] {
        let deleted = (0..80).step_by(4).map(|at| delete(&path(at))).chain([delete(unknown)]);
        assert_eq!(kind(commit(&repo, deleted.collect())), ErrorKind::NotFound, "{unknown}");
    }
}

#[test]
fn a_late_commit_is_given_up() {
    let (_store, repo) = seeded(Durability::Durable);
    let version = repo.begin("tester", govc_engine::Cause::Api).tip().version().number;
    let deadline = Some(std::time::Instant::now());
    let late = CommitRequest { deadline, ..request(&branch("main"), vec![put("x", "x")]) };
    assert_eq!(kind(repo.commit(late)), ErrorKind::Cancelled);
    assert_eq!(repo.begin("tester", govc_engine::Cause::Api).tip().version().number, version);
}

#[test]
fn staged_changes_wait_for_their_commit() {
    let (_store, repo) = seeded(Durability::Durable);
    let main = branch("main");
    commit(&repo, vec![put("seen", "1")]).unwrap().published.ticket.wait().unwrap();
    let details = |on_conflict| CommitDetails {
        message: "staged".to_owned(),
        author: signature(1),
        committer: signature(1),
        on_conflict,
        actor: "tester".to_owned(),
        deadline: None,
    };
    let mut staging = repo.stage(main.clone()).unwrap();
    let before = files(&repo, &main);
    staging.add("staged/file", Content::Bytes("1".into()), Some(EntryMode::EXECUTABLE)).unwrap();
    staging.rename("staged/file", "staged/moved").unwrap();
    let version = repo.stats().version;
    let tree = staging.validate(details(OnConflict::Fail)).unwrap();
    assert_eq!((files(&repo, &main), repo.stats().version), (before.clone(), version));
    staging.remove("nothing").unwrap();
    assert_eq!(kind(staging.validate(details(OnConflict::Fail))), ErrorKind::NotFound);

    let mut staging = repo.stage(main.clone()).unwrap();
    staging.add("staged/moved", Content::Bytes("1".into()), Some(EntryMode::EXECUTABLE)).unwrap();
    commit(&repo, vec![put("between", "1")]).unwrap().published.ticket.wait().unwrap();
    for failing in [kind(staging.validate(details(OnConflict::Fail))), kind(staging.commit(details(OnConflict::Fail)))]
    {
        assert!(matches!(failing, ErrorKind::Conflict(_)));
    }
    let committed = staging.commit(details(OnConflict::Rebase)).unwrap();
    assert_ne!(committed.tree, tree, "what came between is in it");
    let mut expected = before;
    expected.insert("staged/moved".to_owned(), ("100755".to_owned(), "1".to_owned()));
    expected.insert("between".to_owned(), ("100644".to_owned(), "1".to_owned()));
    assert_eq!(files(&repo, &main), expected);
    assert_eq!(kind(repo.stage(branch("nowhere")).map(drop)), ErrorKind::NotFound);
}
