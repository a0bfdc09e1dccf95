//! Questions about histories against a scan of each commit: histories of any shape, whatever of them is indexed.

use std::{
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    time::Instant,
};

use govc_engine::{Durability, EntryMode, ErrorKind, Kind, Oid, RefName, RepoName, RepoSettings, hash_object};
use govc_search::{
    HistoryCursor, HistoryList, HistoryOptions, HistoryRows, Partial, Search, SearchOptions, Transition, history,
};
use proptest::prelude::*;

use super::{
    past::{File, Files, Past, commit, entries, file, files, is_asked},
    world::query_of,
};

/// main: 0 – 1 – 2 – 4 (merge of 3) – 5; topic: 1 – 3. `needle` comes with 3, is in main from 4 on, and goes with 5.
fn merged() -> Past {
    let mut past = Past::new();
    past.commit(&[], 100, files(&[("a.rs", "fn one() {}\n")]));
    past.commit(&[0], 200, files(&[("a.rs", "fn one() {}\n"), ("b.rs", "two\n")]));
    past.commit(&[1], 300, files(&[("a.rs", "fn three() {}\n"), ("b.rs", "two\n")]));
    past.commit(&[1], 400, files(&[("a.rs", "fn one() {}\n"), ("b.rs", "two\n"), ("src/n.rs", "the needle\n")]));
    past.commit(&[2, 3], 500, files(&[("a.rs", "fn three() {}\n"), ("b.rs", "two\n"), ("src/n.rs", "the needle\n")]));
    past.commit(&[4], 600, files(&[("a.rs", "fn three() {}\n"), ("b.rs", "two\n")]));
    past.branch("main", 5);
    past.branch("topic", 3);
    past
}

#[test]
fn a_line_comes_and_goes() {
    let past = merged();
    for is_indexed in [false, true] {
        if is_indexed {
            past.index();
            assert_eq!(past.corpus.presence_figures().commits, 6);
        }
        let answer = past.ask("needle", &HistoryOptions::default());
        let oid = |at: usize| past.commits[at].oid;
        let HistoryRows::Events(events) = &answer.rows else { panic!("{:?}", answer.rows) };
        let told: Vec<_> = events.iter().map(|event| (event.commit.oid, event.transition)).collect();
        let (new, gone) = (Transition::Appeared, Transition::Gone);
        assert_eq!(told, [(oid(5), gone), (oid(4), new), (oid(3), new)]);
        assert_eq!(events[1].files[0].path, b"src/n.rs");
        assert_eq!(events[1].files[0].blob, hash_object(super::FORMAT, Kind::Blob, b"the needle\n").expect("an id"));
        let first = answer.first.expect("a first one");
        assert_eq!((first.oid, first.subject.as_str(), first.committed_seconds), (oid(3), "commit 3", 400));
        assert_eq!((first.author.seconds, first.files), (400, 1));
        assert_eq!(answer.last.map(|last| last.oid), Some(oid(4)));
        assert_eq!((answer.total_commits, answer.total_branches), (2, 1));
        assert_eq!(answer.branches[0].name.short(), "topic");
        assert_eq!((answer.explain.commits, answer.explain.commits_read), (6, if is_indexed { 0 } else { 6 }));
        let whole = [r"/\Athe needle/", r"/\Aneedle/"].map(|query| past.ask(query, &HistoryOptions::default()));
        assert_eq!(whole.map(|answer| answer.total_commits), [2, 0], "the beginning of the file is meant");
        // One branch: the commit that brought it there is the merge.
        let answer =
            past.ask("needle branch:main", &HistoryOptions { oldest_first: true, ..HistoryOptions::default() });
        let HistoryRows::Events(events) = &answer.rows else { panic!("{:?}", answer.rows) };
        assert_eq!(events.iter().map(|event| event.commit.oid).collect::<Vec<_>>(), [oid(4), oid(5)]);
        assert_eq!((answer.total_commits, answer.total_branches), (2, 0), "3 and 4 contain it, the tip does not");
    }
}

#[test]
fn chunks_and_pages_are_looked_at_once() {
    let mut past = Past::new();
    let text = |at: usize| (0..600).map(|line| format!("line {line} {}\n", u32::from(line == at))).collect::<String>();
    for at in 0..20_usize {
        let parents: Vec<usize> = at.checked_sub(1).into_iter().collect();
        past.commit(&parents, 100, files(&[("a.txt", &text(at))]));
    }
    past.branch("main", 19);
    past.index();
    let options = HistoryOptions { list: HistoryList::Commits, rows_max: 7, ..HistoryOptions::default() };
    let answer = past.ask("/line [0-9]*7 0/", &options);
    assert_eq!((answer.total_commits, answer.explain.files_read), (20, 0));
    assert!(answer.explain.chunks_read > 0);
    let chunks = past.corpus.figures().chunks;
    assert!(answer.explain.chunks_read <= chunks, "{} of {chunks}", answer.explain.chunks_read);
    let answer = past.ask("/line [0-9]*7 0/", &HistoryOptions { cursor: answer.next, ..options });
    assert_eq!(answer.explain.chunks_read, 0, "the second page looks at nothing again");
}

#[test]
fn only_what_references_reach_is_told() {
    let mut past = merged();
    let hidden = past.commit(&[5], 700, files(&[("secret.rs", "the needle is hidden\n")]));
    past.branch("doomed", hidden);
    past.index();
    assert_eq!(past.ask("hidden", &HistoryOptions::default()).total_commits, 1);
    past.point(&RefName::branch("doomed").expect("name"), None);
    let oid = past.commits[hidden].oid;
    for is_indexed in [false, true] {
        if is_indexed {
            past.index();
        }
        let answer = past.ask("hidden", &HistoryOptions::default());
        assert_eq!((answer.total_commits, answer.explain.commits), (0, 6));
        let ask = |rev: &str| {
            let query = query_of(&format!("needle rev:{rev}"));
            history(&past.corpus, &past.repo.snapshot(), &query, &HistoryOptions::default())
        };
        assert_eq!(ask(&oid.to_string()).expect_err("hidden").kind(), &ErrorKind::NotFound);
        assert_eq!(ask(&past.commits[4].oid.to_string()).expect("reached").total_commits, 2);
        assert_eq!(ask("topic~1").expect("reached").total_commits, 0);
    }
}

#[test]
fn forks_share_the_index_and_nothing_else() {
    let mut past = merged();
    past.index();
    let indexed = past.corpus.presence_figures();
    let (source, name) = (RepoName::new("demo").expect("name"), RepoName::new("fork").expect("name"));
    let fork = past.store.fork(&source, &name, "test").expect("fork");
    let later = past.commit(&[5], 800, files(&[("later.rs", "the needle came later\n")]));
    past.branch("main", later);
    past.check(&fork, "needle", &[5, 3], 2);
    past.check(&past.repo, "needle", &[later, 3], 2);
    let answer = history(&past.corpus, &fork.snapshot(), &query_of("needle"), &HistoryOptions::default());
    assert_eq!(answer.expect("an answer").explain.commits_read, 0, "the fork needs no indexing");
    past.index();
    let both = past.corpus.presence_figures();
    assert_eq!((both.commits, both.changes), (indexed.commits + 1, indexed.changes + 3));
    past.check(&fork, "needle", &[5, 3], 2);
    past.store.delete(&source).expect("delete");
    past.check(&fork, "needle", &[5, 3], 2);
}

#[test]
fn a_repository_in_memory_is_answered_and_leaves_nothing_on_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut past = Past::with(Some(folder.path()));
    let settings = RepoSettings { durability: Durability::Memory, ..super::settings() };
    past.repo = past.store.create(&RepoName::new("volatile").expect("name"), settings, "test").expect("create");
    past.commit(&[], 100, files(&[("only.rs", "only in memory\n")]));
    past.branch("main", 0);
    past.index();
    past.check(&past.repo, "only", &[0], 10);
    assert_eq!((past.corpus.presence_figures().commits, past.corpus.figures().messages), (0, 0));
    let mut stored = Vec::new();
    std::fs::File::open(folder.path().join("history")).expect("a file").read_to_end(&mut stored).expect("read");
    assert!(!stored.windows(7).any(|part| part == b"only.rs"));
}

#[test]
fn time_that_is_over_is_said_and_gone_on_from() {
    let mut past = Past::new();
    for at in 0..300_usize {
        let parents: Vec<usize> = at.checked_sub(1).into_iter().collect();
        past.commit(&parents, 100, files(&[("a", &format!("needle {at}\n")), ("b", &format!("{}\n", at / 2))]));
    }
    past.branch("main", 299);
    let mut options = HistoryOptions { deadline: Some(Instant::now()), ..HistoryOptions::default() };
    let answer = past.ask("needle", &options);
    assert_eq!((answer.partial, answer.total_commits), (Some(Partial::Deadline), 0));
    let next = answer.next.expect("where to go on");
    options.cursor = Some(HistoryCursor::decode(&next.encode()).expect("the same cursor"));
    // Ever more time: some of it ends in the midst.
    let mut micros = 1;
    let answer = loop {
        options.deadline = Some(Instant::now() + std::time::Duration::from_micros(micros));
        let answer = past.ask("needle", &options);
        match answer.partial {
            None => break answer,
            Some(_) => options.cursor = Some(answer.next.expect("where to go on")),
        }
        micros *= 2;
    };
    assert_eq!((answer.total_commits, answer.total_rows), (300, 1));
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let past = merged();
    let refused = |query: &str, options: &HistoryOptions| {
        let refused = history(&past.corpus, &past.repo.snapshot(), &query_of(query), options);
        refused.expect_err(query).kind().clone()
    };
    let options = HistoryOptions::default();
    for query in ["sym:main", "type:commit x", "type:symbol x", "select:repo x", "count:all x", "lang:nonesuch x"] {
        assert_eq!(refused(query, &options), ErrorKind::Invalid, "{query}");
    }
    assert_eq!(refused("x rev:nowhere", &options), ErrorKind::NotFound);
    let list = HistoryList::Commits;
    let cursor = past.ask("fn", &HistoryOptions { rows_max: 1, list, ..options.clone() }).next;
    assert!(cursor.is_some());
    assert_eq!(refused("two", &HistoryOptions { list, cursor: cursor.clone(), ..options.clone() }), ErrorKind::Invalid);
    assert_eq!(refused("fn", &HistoryOptions { cursor, ..options }), ErrorKind::Invalid);
    let empty = Past::new();
    let answer = empty.ask("x", &HistoryOptions::default());
    assert_eq!((answer.total_commits, answer.explain.commits, answer.partial), (0, 0, None));
}

#[test]
fn damaged_commits_are_clear_errors_and_stop_nothing_else() {
    let past = merged();
    let blob = hash_object(super::FORMAT, Kind::Blob, b"two\n").expect("an id");
    let missing = Oid::from_hex(&vec![b'2'; super::FORMAT.hex_len()]).expect("an id");
    let tree = entries(&[("lost", EntryMode::TREE, missing)]);
    let id = hash_object(super::FORMAT, Kind::Tree, &tree).expect("an id");
    past.publish("no-tree", vec![(Kind::Commit, commit(missing, &[], 100, "no tree"))]);
    past.publish("no-dir", vec![(Kind::Tree, tree), (Kind::Commit, commit(id, &[], 100, "no directory"))]);
    past.publish("a-blob", vec![(Kind::Commit, commit(blob, &[], 100, "a blob for a tree"))]);
    past.publish("no-parent", vec![(Kind::Commit, commit(super::FORMAT.empty_tree(), &[missing], 100, "no parent"))]);
    let broken = b"100644 name-without-end".to_vec();
    let id = hash_object(super::FORMAT, Kind::Tree, &broken).expect("an id");
    past.publish("broken", vec![(Kind::Tree, broken), (Kind::Commit, commit(id, &[], 100, "a broken tree"))]);
    for is_indexed in [false, true] {
        if is_indexed {
            past.index();
            assert_eq!(past.corpus.presence_figures().commits, 6, "those that can be read");
        }
        for branch in ["no-tree", "no-dir", "a-blob", "no-parent", "broken"] {
            let query = query_of(&format!("x branch:{branch}"));
            let refused = history(&past.corpus, &past.repo.snapshot(), &query, &HistoryOptions::default());
            let kind = refused.expect_err(branch).kind().clone();
            assert!(
                matches!(kind, ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Corrupt),
                "{branch}: {kind:?}"
            );
        }
        past.check(&past.repo, "needle branch:main", &[5], 3);
    }
}

#[test]
fn a_lost_file_is_said_and_the_others_are_told() {
    let past = merged();
    let (lost, kept) =
        (Oid::from_hex(&vec![b'3'; super::FORMAT.hex_len()]).expect("an id"), b"the needle is here\n".to_vec());
    let id = hash_object(super::FORMAT, Kind::Blob, &kept).expect("an id");
    let tree = entries(&[("a-lost", EntryMode::BLOB, lost), ("b-kept", EntryMode::BLOB, id)]);
    let root = hash_object(super::FORMAT, Kind::Tree, &tree).expect("an id");
    let objects = vec![(Kind::Blob, kept), (Kind::Tree, tree), (Kind::Commit, commit(root, &[], 900, "lost"))];
    past.publish("lossy", objects);
    for is_indexed in [false, true] {
        if is_indexed {
            past.index();
            assert_eq!((past.corpus.presence_figures().commits, past.corpus.figures().blobs), (7, 5));
        }
        let answer = past.ask("needle", &HistoryOptions::default());
        assert_eq!((answer.partial, answer.total_commits, answer.total_branches), (Some(Partial::Unreadable), 3, 2));
        past.check(&past.repo, "needle branch:main", &[5], 3);
    }
}

#[test]
fn a_lost_file_whose_name_does_not_tell_its_language_is_in_none() {
    let past = merged();
    let (lost, kept) = (Oid::from_hex(&vec![b'3'; super::FORMAT.hex_len()]).expect("an id"), b"int needle;\n".to_vec());
    let id = hash_object(super::FORMAT, Kind::Blob, &kept).expect("an id");
    let tree = entries(&[("a-lost.h", EntryMode::BLOB, lost), ("b-kept.c", EntryMode::BLOB, id)]);
    let root = hash_object(super::FORMAT, Kind::Tree, &tree).expect("an id");
    let objects = vec![(Kind::Blob, kept), (Kind::Tree, tree), (Kind::Commit, commit(root, &[], 900, "lost"))];
    past.publish("lossy", objects);
    let answer = past.ask("lang:c branch:lossy", &HistoryOptions::default());
    assert_eq!((answer.partial, answer.total_commits), (Some(Partial::Unreadable), 1));
}

#[test]
fn a_tree_of_ever_the_same_tree_ends_with_an_error() {
    let past = merged();
    let mut objects = vec![(Kind::Blob, b"lol\n".to_vec())];
    let mut id = hash_object(super::FORMAT, Kind::Blob, b"lol\n").expect("an id");
    for depth in 0..12 {
        let mode = if depth == 0 { EntryMode::BLOB } else { EntryMode::TREE };
        let names: Vec<String> = (0..10).map(|name| format!("f{name}")).collect();
        let tree = entries(&names.iter().map(|name| (name.as_str(), mode, id)).collect::<Vec<_>>());
        id = hash_object(super::FORMAT, Kind::Tree, &tree).expect("an id");
        objects.push((Kind::Tree, tree));
    }
    objects.push((Kind::Commit, commit(id, &[], 100, "a million million files")));
    past.publish("bomb", objects);
    past.corpus.presence_figures();
    let query = query_of("lol branch:bomb");
    let refused = history(&past.corpus, &past.repo.snapshot(), &query, &HistoryOptions::default());
    assert_eq!(refused.expect_err("too many files").kind(), &ErrorKind::TooLarge);
}

#[test]
fn the_same_times_and_roots_and_many_parents() {
    let mut past = Past::new();
    let one = |text: &str| files(&[("d/a", text)]);
    past.commit(&[], 0, one("alpha\n"));
    past.commit(&[], 0, one("beta\n"));
    past.commit(&[], 5_000_000_000, one("alpha beta\n"));
    past.commit(&[0, 1, 2], 0, one("gamma\n"));
    // Criss-cross, with clocks that go back; a directory becomes a file, a file a link, then a submodule.
    past.commit(&[0, 1], 7, files(&[("d", "alpha\n")]));
    past.commit(
        &[1, 0],
        i64::from(i32::MAX),
        Files::from([("d".to_owned(), (EntryMode::SYMLINK, b"alpha\n".to_vec()))]),
    );
    past.commit(&[4, 5, 3], 3, Files::from([("d".to_owned(), (EntryMode::COMMIT, Vec::new()))]));
    past.commit(&[5, 4], 4, files(&[("d", "alpha\n"), ("e", "alpha\n"), ("f/d", "alpha\n")]));
    past.commit(&[7], 4, Files::new());
    past.commit(&[8], 4, Files::from([("d".to_owned(), (EntryMode::EXECUTABLE, b"alpha\n".to_vec()))]));
    past.branch("main", 6);
    past.branch("other", 9);
    for is_indexed in [false, true] {
        if is_indexed {
            past.index();
        }
        for query in ["alpha", "beta OR gamma", "NOT alpha", "path:d", "alpha path:f/d", "alpha branch:main"] {
            let tips: &[usize] = if query.contains("branch:") { &[6] } else { &[6, 9] };
            past.check(&past.repo, query, tips, 2);
        }
    }
}

#[test]
fn a_service_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut past = merged();
    let open = |past: &Past| {
        let options = SearchOptions { folder: Some(folder.path().to_owned()), ..SearchOptions::default() };
        Search::open(past.store.clone(), options).expect("open")
    };
    let wait = |search: &Search, commits: u64| {
        while search.status().presence.commits < commits {
            assert_eq!(search.status().last_error, None);
            std::thread::yield_now();
        }
    };
    let search = open(&past);
    wait(&search, 6);
    drop(search);
    let later = past.commit(&[5], 800, files(&[("later.rs", "the needle came later\n")]));
    past.branch("main", later);
    let search = open(&past);
    past.corpus = search.corpus();
    past.check(&past.repo, "needle", &[later, 3], 2);
    wait(&search, 7);
    past.check(&past.repo, "needle", &[later, 3], 2);
    let figures = search.status().presence;
    assert!(figures.stored_bytes > 0 && figures.resident_bytes > 0);
    assert!(search.rebuild());
    while search.status().rebuilds == 0 {
        std::thread::yield_now();
    }
    past.corpus = search.corpus();
    assert_eq!(past.corpus.presence_figures().commits, 7, "what was made anew has all of it");
    past.check(&past.repo, "needle", &[later, 3], 2);
}

/// Overwrites one byte of the file of the presence index, or cuts it off there.
pub(super) fn damage(folder: &Path, at: u64, cuts: bool) {
    let path = folder.join("history");
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("a file");
    let at = at % file.metadata().expect("a size").len();
    if cuts {
        return file.set_len(at).expect("cut");
    }
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut byte)).expect("read");
    file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(&[byte[0] ^ 0x55])).expect("written");
}

#[test]
fn a_damaged_file_is_cut_where_it_is_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut past = Past::with(Some(folder.path()));
    for at in 0..10_usize {
        let parents: Vec<usize> = at.checked_sub(1).into_iter().collect();
        past.commit(&parents, 100, files(&[("a", &format!("needle {at}\n"))]));
        past.branch("main", at);
        // A frame each.
        past.index();
    }
    let bytes = past.corpus.presence_figures().stored_bytes;
    past.reopen(|_| {});
    assert_eq!(past.corpus.presence_figures().commits, 10);
    past.reopen(|folder| damage(folder, bytes / 2, false));
    let commits = past.corpus.presence_figures().commits;
    assert!((1..9).contains(&commits), "{commits}");
    past.check(&past.repo, "needle", &[9], 3);
    past.index();
    assert_eq!(past.corpus.presence_figures().commits, 10);
    past.check(&past.repo, "needle", &[9], 3);
    past.reopen(|_| {});
    assert_eq!(past.corpus.presence_figures().commits, 10, "nothing damaged is left in front of what was added");
    past.reopen(|folder| damage(folder, 9, false));
    assert_eq!(past.corpus.presence_figures().commits, 0, "another format");
    past.index();
    past.check(&past.repo, "needle", &[9], 3);
    past.reopen(|folder| std::fs::remove_file(folder.join("history")).expect("removed"));
    past.index();
    assert_eq!(past.corpus.presence_figures().commits, 10);
}

/// What is done next to a random history.
#[derive(Debug, Clone)]
enum Step {
    /// A commit on some commits, which changes some files of the first; then a branch is pointed at it.
    Commit {
        parents: Vec<prop::sample::Index>,
        edits: Vec<(usize, Option<File>)>,
        seconds: i64,
        branch: usize,
    },
    /// A reference is pointed at some commit: a force push.
    Point {
        commit: prop::sample::Index,
        branch: usize,
    },
    /// A branch is deleted.
    Delete {
        branch: usize,
    },
    Index,
    Reopen {
        damage: Option<(u64, bool)>,
    },
    Fork,
    Ask {
        query: usize,
        page: usize,
    },
}

const NAMES: [&str; 6] =
    ["refs/heads/main", "refs/heads/topic/a", "refs/heads/topic/b", "refs/tags/v1", "refs/tags/v2", "refs/heads/x"];
const PATHS: [&str; 8] = ["a.rs", "b.c", "src/lib.rs", "src/a.rs", "src", "docs/x.md", "docs/y/z", "t"];
const QUERIES: [&str; 14] = [
    "foo",
    "content:bar",
    "Foo",
    "foo -bar",
    "foo OR path:src/**",
    "NOT foo",
    "path:src",
    "lang:rust foo",
    "/fo+ b/",
    "/^foo/",
    "zzz",
    "foo branch:topic/*",
    "bar branch:main",
    "/[a-c]/ -lang:c",
];

fn blob() -> impl Strategy<Value = File> {
    let word = prop::sample::select(vec!["foo", "bar", "Foo", "baz", "foo bar", "a", "b"]);
    let mode = prop_oneof![
        12 => Just(EntryMode::BLOB),
        2 => Just(EntryMode::EXECUTABLE),
        1 => Just(EntryMode::SYMLINK),
        1 => Just(EntryMode::COMMIT),
    ];
    (prop::collection::vec(word, 0..3), mode, 0..12_u8).prop_map(|(words, mode, special)| {
        let mut data = words.join("\n").into_bytes();
        match special {
            0 => data.push(0),
            1 => data.extend(b"\nline foo\n".repeat(300)),
            _ => data.push(b'\n'),
        }
        (mode, data)
    })
}

fn step() -> impl Strategy<Value = Step> {
    let parent = any::<prop::sample::Index>();
    let edit = (0..PATHS.len(), prop::option::weighted(0.7, blob()));
    prop_oneof![
        12 => (
            prop::collection::vec(parent, 0..4),
            prop::collection::vec(edit, 0..4),
            prop_oneof![Just(100_i64), 0..200_i64],
            0..NAMES.len(),
        ).prop_map(|(parents, edits, seconds, branch)| Step::Commit { parents, edits, seconds, branch }),
        2 => (any::<prop::sample::Index>(), 0..NAMES.len()).prop_map(|(commit, branch)| Step::Point { commit, branch }),
        1 => (0..NAMES.len()).prop_map(|branch| Step::Delete { branch }),
        2 => Just(Step::Index),
        1 => prop::option::of((any::<u64>(), any::<bool>())).prop_map(|damage| Step::Reopen { damage }),
        1 => Just(Step::Fork),
        5 => (0..QUERIES.len(), 1..5_usize).prop_map(|(query, page)| Step::Ask { query, page }),
    ]
}

/// The files of a commit on `before`, with some paths set or removed. What is in the way goes.
fn edited(mut files: Files, edits: Vec<(usize, Option<File>)>) -> Files {
    for (path, new) in edits {
        let path = PATHS[path];
        files.remove(path);
        if let Some(new) = new {
            let is_in_way = |other: &str| {
                other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
                    || path.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'))
            };
            files.retain(|other, _| !is_in_way(other));
            files.insert(path.to_owned(), new);
        }
    }
    files
}

/// The commits that the named references of a repository point at.
fn tips(past: &Past, repo: &govc_engine::Repo, query: &str) -> Vec<usize> {
    let snapshot = repo.snapshot();
    let names = NAMES.iter().filter(|name| is_asked(query, name));
    let tips = names.filter_map(|name| snapshot.reference(&RefName::new(name).expect("name")));
    tips.filter_map(|oid| past.commits.iter().position(|made| made.oid == oid)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_a_scan_of_each_commit(steps in prop::collection::vec(step(), 5..40)) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut past = Past::with(Some(folder.path()));
        let mut repos = vec![past.repo.clone()];
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Commit { parents, edits, seconds, branch } => {
                    let count = past.commits.len();
                    let mut parents: Vec<usize> =
                        parents.iter().filter(|_| count > 0).map(|parent| parent.index(count.max(1))).collect();
                    let mut seen = std::collections::BTreeSet::new();
                    parents.retain(|parent| seen.insert(*parent));
                    let before = parents.first().map_or_else(Files::new, |first| past.commits[*first].files.clone());
                    let commit = past.commit(&parents, seconds, edited(before, edits));
                    past.point(&RefName::new(NAMES[branch]).expect("name"), Some(past.commits[commit].oid));
                }
                Step::Point { commit, branch } if !past.commits.is_empty() => {
                    let oid = past.commits[commit.index(past.commits.len())].oid;
                    past.point(&RefName::new(NAMES[branch]).expect("name"), Some(oid));
                }
                Step::Point { .. } => {}
                Step::Delete { branch } => past.point(&RefName::new(NAMES[branch]).expect("name"), None),
                Step::Index => past.index(),
                Step::Reopen { damage: how } => past.reopen(|folder| {
                    if let Some((at, cuts)) = how {
                        damage(folder, at, cuts);
                    }
                }),
                Step::Fork => {
                    let name = RepoName::new(&format!("fork{number}")).expect("name");
                    repos.push(past.store.fork(&past.repo.name(), &name, "test").expect("fork"));
                }
                Step::Ask { query, page } => {
                    for repo in &repos {
                        past.check(repo, QUERIES[query], &tips(&past, repo, QUERIES[query]), page);
                    }
                }
            }
        }
        past.index();
        for repo in &repos {
            for query in QUERIES {
                past.check(repo, query, &tips(&past, repo, query), 3);
            }
        }
    }
}

#[test]
fn a_file_that_is_moved_is_gone_and_appeared() {
    let mut past = Past::new();
    past.commit(&[], 1, files(&[("old/a", "needle\n")]));
    past.commit(&[0], 2, files(&[("new/a", "needle\n")]));
    past.commit(&[1], 3, Files::from([("new/a".to_owned(), file("needle\nmore\n"))]));
    past.branch("main", 2);
    past.index();
    let answer = past.ask("needle", &HistoryOptions { list: HistoryList::Files, ..HistoryOptions::default() });
    let HistoryRows::Files(rows) = &answer.rows else { panic!("{:?}", answer.rows) };
    let told: Vec<_> = rows
        .iter()
        .map(|(commit, file)| (commit.committed_seconds, file.path.as_slice(), file.transition == Transition::Appeared))
        .collect();
    assert_eq!(told, [(2, &b"new/a"[..], true), (2, b"old/a", false), (1, b"old/a", true)]);
    let events = past.ask("needle", &HistoryOptions::default());
    assert_eq!(events.total_rows, 1, "it was there all the time");
}
