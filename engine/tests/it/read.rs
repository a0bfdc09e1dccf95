//! Reading: revisions, directories, histories and changes.

use std::ops::ControlFlow;

use govc_engine::{
    Cause, Change, ChangeStatus, CommitRequest, Content, Durability, EntryMode, ErrorKind, Expected, Filter, Kind,
    ListOptions, LogCursor, LogOptions, Oid, PathRule, ReachOptions, RefName, Repo, Snapshot, TAG_DEPTH_MAX,
    hash_object,
};

use crate::{
    commit::{put, request},
    helper::{FORMAT, branch, commit_bytes, create, disk, edit, kind, open, publish, set, signature},
};

/// `c1 - c2 - m - c3` on main, with `s` between `c1` and `m`; `a` changes in c1 and c3, `b` in c2, `c` in s.
struct History {
    repo: Repo,
    c1: Oid,
    c2: Oid,
    s: Oid,
    m: Oid,
    c3: Oid,
}

fn commit_at(repo: &Repo, name: &str, seconds: i64, from: Option<Oid>, changes: Vec<Change>) -> Oid {
    let request = request(&branch(name), changes);
    let request = CommitRequest { committer: signature(seconds), create_branch_from: from, ..request };
    let committed = repo.commit(request).unwrap();
    committed.published.ticket.wait().unwrap();
    committed.oid
}

fn history() -> History {
    let store = open(&disk());
    let repo = create(&store, "a", Durability::Durable);
    let c1 = commit_at(&repo, "main", 100, None, vec![put("a", "1\n2\n3\n")]);
    let c2 = commit_at(&repo, "main", 110, None, vec![put("b", "b")]);
    let s = commit_at(&repo, "side", 105, Some(c1), vec![put("c", "c")]);
    // The merged tree comes from a commit on a branch of its own.
    let both = commit_at(&repo, "scratch", 111, Some(c2), vec![put("c", "c")]);
    let tree = repo.snapshot().commit(&both).unwrap().tree;
    let mut transaction = repo.begin("tester", Cause::Merge);
    let m = transaction.put(Kind::Commit, commit_bytes(tree, &[c2, s], 120, "merge")).unwrap();
    transaction.edit(edit(&branch("main"), Expected::Is(c2), Some(m))).unwrap();
    transaction.edit(edit(&branch("scratch"), Expected::Any, None)).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    let c3 = commit_at(&repo, "main", 130, None, vec![put("a", "1\nII\n3\n4\n")]);
    // A pattern with `..` would drop the store, and with it close the backend, at once.
    std::mem::forget(store);
    History { repo, c1, c2, s, m, c3 }
}

#[test]
fn revisions_name_objects_as_in_git() {
    let History { repo, c1, c2, s, m, c3, .. } = history();
    let tag = RefName::tag("v1").unwrap();
    let (tag_oid, published) = repo.create_tag(&tag, c2, signature(1), "first", "tester").unwrap();
    published.ticket.wait().unwrap();
    let again = repo.create_tag(&tag, c2, signature(1), "second", "tester");
    assert_eq!(kind(again), ErrorKind::Exists);
    let snapshot = repo.snapshot();
    let tree = snapshot.commit(&c3).unwrap().tree;
    let hex = c3.to_string();
    for (rev, oid) in [
        ("HEAD", c3),
        ("@", c3),
        ("main", c3),
        ("heads/main", c3),
        ("refs/heads/main", c3),
        (hex.as_str(), c3),
        (&hex[..10], c3),
        (&hex.to_uppercase(), c3),
        (&hex[..39], c3),
        ("side", s),
        ("v1", tag_oid),
        ("tags/v1", tag_oid),
        ("main~", m),
        ("main^", m),
        ("main~1", m),
        ("main~0", c3),
        ("main^0", c3),
        ("main~2", c2),
        ("main^^2", s),
        ("main~1^2~1", c1),
        ("main^^2^", c1),
        ("main^1^2", s),
        ("main^{}", c3),
        ("main^{commit}", c3),
        ("main^{tree}", tree),
        ("v1^{}", c2),
        ("v1^{tag}", tag_oid),
        ("v1~1", c1),
        ("v1^{commit}^{tree}", snapshot.commit(&c2).unwrap().tree),
        ("@^{object}", c3),
    ] {
        assert_eq!(snapshot.resolve(rev).unwrap_or_else(|error| panic!("{rev}: {error}")), oid, "{rev}");
    }
    for (rev, wanted) in [
        ("", ErrorKind::Invalid),
        ("nothing", ErrorKind::NotFound),
        ("é", ErrorKind::NotFound),
        ("main:a", ErrorKind::NotFound),
        ("main~é", ErrorKind::Invalid),
        ("main^é", ErrorKind::Invalid),
        ("main^{é}", ErrorKind::Invalid),
        ("main~1é2", ErrorKind::Invalid),
        ("main^{", ErrorKind::Invalid),
        ("main^{é", ErrorKind::Invalid),
        ("main^{bush}", ErrorKind::Invalid),
        ("main^{/text}", ErrorKind::Invalid),
        ("main~99999999999", ErrorKind::Invalid),
        ("main~4294967295", ErrorKind::NotFound),
        ("main^3", ErrorKind::NotFound),
        ("main^{tag}", ErrorKind::NotFound),
        ("main^{blob}", ErrorKind::NotFound),
        ("main^{tree}~1", ErrorKind::NotFound),
        ("@{-1}", ErrorKind::NotFound),
        ("main@{1}", ErrorKind::NotFound),
        ("~", ErrorKind::NotFound),
        ("main^-", ErrorKind::Invalid),
        (&hex[..3], ErrorKind::NotFound),
        (&"f".repeat(40), ErrorKind::NotFound),
        (&"x".repeat(3000), ErrorKind::Invalid),
        ("-main", ErrorKind::NotFound),
        ("main\0", ErrorKind::NotFound),
        ("refs/heads", ErrorKind::NotFound),
    ] {
        assert_eq!(kind(snapshot.resolve(rev)), wanted, "{rev:?}");
    }
    assert_eq!(snapshot.resolve_commit("v1").unwrap(), c2);
    let now = Some(std::time::Instant::now());
    assert_eq!(kind(snapshot.resolve_commit_until("main~1", now)), ErrorKind::Cancelled);
    assert_eq!(kind(snapshot.resolve_until("main^^{commit}", now)), ErrorKind::Cancelled);
    assert_eq!(snapshot.resolve_until("main", now).unwrap(), c3, "without a walk nothing is late");
    assert_eq!(kind(snapshot.resolve_commit("main^{tree}")), ErrorKind::Invalid);
    assert!(snapshot.is_ancestor(s, c3, None).unwrap() && snapshot.is_ancestor(m, m, None).unwrap());
    assert!(!snapshot.is_ancestor(c2, s, None).unwrap() && !snapshot.is_ancestor(c3, m, None).unwrap());
}

#[test]
fn abbreviations_that_fit_several_objects_are_refused() {
    let store = open(&disk());
    let repo = create(&store, "a", Durability::Durable);
    let mut transaction = repo.begin("tester", Cause::Import);
    let mut oids: Vec<String> =
        (0..3000u32).map(|at| transaction.put(Kind::Blob, at.to_string().into()).unwrap().to_string()).collect();
    publish(transaction).unwrap().ticket.wait().unwrap();
    oids.sort();
    let twins = oids.windows(2).find(|pair| pair[0][..4] == pair[1][..4]).expect("some of 3000 share four digits");
    for settled in [false, true] {
        let snapshot = repo.snapshot();
        assert_eq!(kind(snapshot.resolve(&twins[0][..4])), ErrorKind::Invalid, "settled: {settled}");
        assert_eq!(snapshot.resolve(&twins[0][..20]).unwrap().to_string(), twins[0], "settled: {settled}");
        store.settle();
    }
}

fn list_all(snapshot: &Snapshot, root: Oid, path: &[u8], recursive: bool, limit: usize) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = snapshot.list(root, path, ListOptions { recursive, after: after.take(), limit }).unwrap();
        assert!(page.entries.len() <= limit && (!page.more || page.entries.len() == limit));
        after = page.entries.last().map(|entry| entry.path.clone());
        found.extend(
            page.entries.iter().map(|entry| (String::from_utf8(entry.path.clone()).unwrap(), entry.mode.to_octal())),
        );
        if !page.more {
            return found;
        }
    }
}

#[test]
fn directories_are_listed_in_git_s_order_page_by_page() {
    let store = open(&disk());
    let repo = create(&store, "a", Durability::Durable);
    let paths = ["a-b", "a.txt", "a/b-c", "a/b/x", "a/b/y", "a/b0", "a/c", "a0", "z/only/file"];
    let root = commit_at(&repo, "main", 1, None, paths.iter().rev().map(|path| put(path, path)).collect());
    let snapshot = repo.snapshot();
    let all = list_all(&snapshot, root, b"", true, 1000);
    assert_eq!(all.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), paths);
    let top = list_all(&snapshot, root, b"", false, 1000);
    let shown: Vec<_> = top.iter().map(|(path, mode)| (path.as_str(), mode.as_str())).collect();
    assert_eq!(shown, [("a-b", "100644"), ("a.txt", "100644"), ("a", "040000"), ("a0", "100644"), ("z", "040000")]);
    let below = list_all(&snapshot, root, b"a", false, 1000);
    assert_eq!(below.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), ["a/b-c", "a/b", "a/b0", "a/c"]);
    assert_eq!(list_all(&snapshot, root, b"a/", false, 1000), below);
    for limit in 1..10 {
        for (path, recursive) in [(&b""[..], true), (b"", false), (b"a", true), (b"a", false), (b"z/only", true)] {
            let whole = list_all(&snapshot, root, path, recursive, 1000);
            assert_eq!(list_all(&snapshot, root, path, recursive, limit), whole, "{path:?} {recursive} by {limit}");
        }
    }
    let entry = &snapshot.list(root, b"a/b", ListOptions { limit: 1, ..ListOptions::default() }).unwrap().entries[0];
    assert_eq!((entry.kind, entry.size), (Kind::Blob, Some(5)));
    for missing in [&b"nothing"[..], b"a0", b"a/c/d", b"a/nothing"] {
        assert_eq!(
            kind(snapshot.list(root, missing, ListOptions { limit: 9, ..ListOptions::default() })),
            ErrorKind::NotFound
        );
    }
    let mut walked = Vec::new();
    let tree = snapshot.root_tree(root).unwrap();
    let mut visit = |path: &[u8], _: EntryMode, _: Oid| {
        walked.push(String::from_utf8(path.to_vec()).unwrap());
        Ok(if walked.len() == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    snapshot.walk_files(tree, b"in/", &mut visit).unwrap();
    assert_eq!(walked, ["in/a-b", "in/a.txt", "in/a/b-c", "in/a/b/x"]);
    assert_eq!(snapshot.entry(root, b"a/b").unwrap().unwrap().mode, EntryMode::TREE);
    assert_eq!(snapshot.entry(root, b"a0/x").unwrap(), None);
}

fn log(snapshot: &Snapshot, from: &[Oid], path: Option<&str>, limit: usize) -> Vec<Oid> {
    let mut found = Vec::new();
    let mut after: Option<LogCursor> = None;
    loop {
        let options = LogOptions { from: from.to_vec(), path: path.map(Into::into), after, limit, deadline: None };
        let page = snapshot.log(options).unwrap();
        assert!(page.commits.len() <= limit);
        found.extend(page.commits.iter().map(|(oid, _)| *oid));
        let Some(next) = page.next else { return found };
        after = Some(next.to_string().parse().unwrap());
    }
}

#[test]
fn histories_are_ordered_and_simplified_as_by_git() {
    let History { repo, c1, c2, s, m, c3, .. } = history();
    let snapshot = repo.snapshot();
    for limit in [1, 2, 3, 100] {
        assert_eq!(log(&snapshot, &[c3], None, limit), [c3, m, c2, s, c1]);
        assert_eq!(log(&snapshot, &[c3], Some(""), limit), [c3, m, c2, s, c1]);
        assert_eq!(log(&snapshot, &[c3], Some("a"), limit), [c3, c1]);
        assert_eq!(log(&snapshot, &[c3], Some("b"), limit), [c2]);
        assert_eq!(log(&snapshot, &[c3], Some("c"), limit), [s]);
        assert!(log(&snapshot, &[c3], Some("nothing"), limit).is_empty());
        assert_eq!(log(&snapshot, &[s, c2], None, limit), [c2, s, c1]);
    }
    for bad in ["", "x", "1", "1-", "1-abc", "-1-abc", "é"] {
        assert!(bad.parse::<LogCursor>().is_err(), "{bad:?}");
    }
    let now = Some(std::time::Instant::now());
    let late = LogOptions { from: vec![c3], limit: 9, deadline: now, ..LogOptions::default() };
    assert_eq!(kind(snapshot.log(late)), ErrorKind::Cancelled);
    let missing = LogOptions { from: vec![FORMAT.null()], limit: 9, ..LogOptions::default() };
    assert_eq!(kind(snapshot.log(missing)), ErrorKind::NotFound);
}

#[test]
fn changes_are_counted_against_the_first_parent() {
    let History { repo, c1, m, c3, .. } = history();
    let changes = |oid| {
        let found = repo.snapshot().changes(oid, 100, None).unwrap();
        assert!(!found.truncated);
        let line = |file: govc_engine::FileChange| {
            (String::from_utf8(file.path).unwrap(), file.status, file.additions, file.deletions)
        };
        found.files.into_iter().map(line).collect::<Vec<_>>()
    };
    let (added, deleted, modified) = (ChangeStatus::Added, ChangeStatus::Deleted, ChangeStatus::Modified);
    assert_eq!(changes(c1), [("a".to_owned(), added, Some(3), Some(0))]);
    assert_eq!(changes(c3), [("a".to_owned(), modified, Some(2), Some(1))]);
    assert_eq!(changes(m), [("c".to_owned(), added, Some(1), Some(0))], "against the first parent");
    let link = Change::Chmod { path: b"c".to_vec(), mode: EntryMode::SYMLINK };
    let run = Change::Chmod { path: b"a".to_vec(), mode: EntryMode::EXECUTABLE };
    let move_b = Change::Move { from: b"b".to_vec(), path: b"d/b".to_vec(), content: None, mode: None };
    let binary = Change::Put { path: b"x".to_vec(), content: Content::Bytes(b"a\0b"[..].into()), mode: None };
    let last = commit_at(&repo, "main", 140, None, vec![link, run, move_b, binary]);
    assert_eq!(
        changes(last),
        [
            ("a".to_owned(), modified, Some(0), Some(0)),
            ("b".to_owned(), deleted, Some(0), Some(1)),
            ("c".to_owned(), ChangeStatus::TypeChanged, Some(0), Some(0)),
            ("d/b".to_owned(), added, Some(1), Some(0)),
            ("x".to_owned(), added, None, None),
        ]
    );
    let cut = repo.snapshot().changes(last, 2, None).unwrap();
    assert_eq!((cut.files.len(), cut.truncated), (2, true));
    let whole = repo.snapshot().changes(last, 5, None).unwrap();
    assert_eq!((whole.files.len(), whole.truncated), (5, false));
    let late = repo.snapshot().changes(last, 5, Some(std::time::Instant::now()));
    assert_eq!(kind(late), ErrorKind::Cancelled);
}

/// Trees in each other, each with a file of its own, on top of `below`; the highest.
fn nested(repo: &Repo, below: Option<Oid>, count: usize, name: &str) -> Oid {
    let mut transaction = repo.begin("tester", Cause::Push);
    let mut tree = below;
    for at in 0..count {
        let blob = transaction.put(Kind::Blob, format!("{name} {at}\n").into()).unwrap();
        let mut data = Vec::new();
        if let Some(tree) = tree {
            data.extend_from_slice(&[b"40000 d\0", tree.as_bytes()].concat());
        }
        data.extend_from_slice(&[b"100644 file\0", blob.as_bytes()].concat());
        tree = Some(transaction.put(Kind::Tree, data.into()).unwrap());
    }
    let tree = tree.unwrap();
    let commit = transaction.put(Kind::Commit, commit_bytes(tree, &[], 1, name)).unwrap();
    transaction.edit(edit(&branch(name), Expected::Absent, Some(commit))).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    tree
}

#[test]
fn directories_of_any_depth_are_reached() {
    let store = open(&disk());
    let repo = create(&store, "a", Durability::Durable);
    let mut tree = None;
    for name in ["a", "b", "c"] {
        tree = Some(nested(&repo, tree, 1000, name));
    }
    let snapshot = repo.snapshot();
    let tips: Vec<Oid> = ["a", "b", "c"].map(|name| snapshot.reference(&branch(name)).unwrap()).to_vec();
    let reach = |wants: &[Oid], haves: &[Oid], filter: Option<&Filter>| {
        let found = snapshot.reach(&ReachOptions { wants, haves, filter, ..ReachOptions::default() }).unwrap().objects;
        let distinct: std::collections::HashSet<_> = found.iter().map(|(oid, _)| *oid).collect();
        assert_eq!(distinct.len(), found.len(), "each once");
        let count = |kind| found.iter().filter(|(_, found)| *found == kind).count();
        [Kind::Commit, Kind::Tree, Kind::Blob].map(count)
    };
    for wants in [&tips[2..], &tips] {
        assert_eq!(reach(wants, &[], None), [wants.len(), 3000, 3000]);
        let no_blobs = Filter { blob_bytes: Some(0), ..Filter::default() };
        assert_eq!(reach(wants, &[], Some(&no_blobs)), [wants.len(), 3000, 0]);
        let shallow = Filter { depth: Some(2500), ..Filter::default() };
        assert_eq!(reach(&tips[2..], &[], Some(&shallow)), [1, 2500, 2499]);
        let by_path = Filter { paths: vec![std::sync::Arc::new(Deep)], ..Filter::default() };
        assert_eq!(reach(&tips[2..], &[], Some(&by_path)), [1, 3000, 500]);
    }
    // What somebody has who has the deepest is not sent again.
    assert_eq!(reach(&tips[2..], &tips[..1], None), [1, 2000, 2000]);
    assert_eq!(reach(&tips[..2], &tips[2..], None), [2, 0, 0]);
    // What reads by paths says that it does not go as deep.
    let list = snapshot.list(tree.unwrap(), b"", ListOptions { recursive: true, after: None, limit: 10_000 });
    assert_eq!(kind(list), ErrorKind::TooLarge);
}

/// Files that are at least 2500 directories deep.
struct Deep;

impl PathRule for Deep {
    fn takes(&self, path: &[u8], is_tree: bool) -> Option<bool> {
        Some(!is_tree && path.iter().filter(|byte| **byte == b'/').count() >= 2500)
    }
}

#[test]
fn tags_are_made_on_as_many_as_are_followed() {
    let store = open(&disk());
    let repo = create(&store, "a", Durability::Durable);
    let mut target = set(&repo, &branch("main"), Expected::Absent, "tagged").unwrap().0;
    for at in 0..TAG_DEPTH_MAX - 1 {
        let name = RefName::tag(&format!("t{at}")).unwrap();
        let (oid, published) = repo.create_tag(&name, target, signature(1), "message", "tester").unwrap();
        published.ticket.wait().unwrap();
        // Looked up, and then remembered.
        for _ in 0..2 {
            assert_eq!(repo.snapshot().tag_target(&target).unwrap().is_some(), at > 0, "{at}");
            assert_eq!(repo.snapshot().tag_target(&oid).unwrap(), Some(target), "{at}");
        }
        target = oid;
        assert_eq!(repo.snapshot().peel(target).unwrap().1, Kind::Commit, "{at}");
    }
    // What is not there yet is no tag that comes to be none for ever.
    let mut transaction = repo.begin("tester", Cause::Push);
    let tag = format!("object {target}\ntype tag\ntag later\ntagger T <t@example.com> 6 +0000\n\nlater\n");
    let later = hash_object(FORMAT, Kind::Tag, tag.as_bytes()).unwrap();
    assert_eq!(repo.snapshot().tag_target(&later).unwrap(), None);
    transaction.put(Kind::Tag, tag.into()).unwrap();
    transaction.edit(edit(&RefName::tag("later").unwrap(), Expected::Absent, Some(later))).unwrap();
    publish(transaction).unwrap().ticket.wait().unwrap();
    assert_eq!(repo.snapshot().tag_target(&later).unwrap(), Some(target));
    let name = RefName::tag("one-too-many").unwrap();
    assert_eq!(kind(repo.create_tag(&name, target, signature(1), "message", "tester")), ErrorKind::TooLarge);
}
