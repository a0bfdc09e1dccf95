//! Random histories, whatever of them is indexed, against a naive comparison.

use std::collections::BTreeSet;

use govc_engine::{EntryMode, RepoName};
use govc_search::DiffOptions;
use proptest::prelude::*;

use super::super::past::{Files, Past};
use super::naive::check;

#[derive(Debug, Clone)]
enum Step {
    /// A commit on some commits, which changes some files of the first; then a branch is pointed at it.
    Commit {
        parents: Vec<prop::sample::Index>,
        edits: Vec<(usize, Edit)>,
        seconds: i64,
        branch: usize,
    },
    Index,
    Fork,
    Ask {
        query: usize,
        page: usize,
    },
}

#[derive(Debug, Clone)]
enum Edit {
    /// Some lines at some place become others.
    Lines {
        at: prop::sample::Index,
        removed: usize,
        added: Vec<Vec<u8>>,
        ends: bool,
    },
    Write(EntryMode, Vec<u8>),
    Mode(EntryMode),
    Remove,
    /// From another path.
    Move(usize),
}

const BRANCHES: [&str; 3] = ["main", "topic/a", "topic/b"];
const PATHS: [&str; 6] = ["a.rs", "b.c", "docs/x.md", "src/a.rs", "src/lib.rs", "t"];
const QUERIES: [&str; 18] = [
    "foo",
    "Foo branch:*",
    "foo bar branch:*",
    "foo -bar",
    "(foo OR path:src/**) branch:*",
    "-foo",
    "",
    "path:src",
    "lang:rust foo branch:*",
    "/fo+ b/",
    "/^foo/ branch:*",
    r"/foo\r?$/ branch:*",
    "zzz",
    "baz after:@50 before:@150 branch:*",
    "bar -path:src/** branch:topic/*",
    "((message:2 foo) OR (before:@120 bar))",
    "/[a-c]/ -lang:c repo:demo branch:*",
    r"/\Aba/ branch:*",
];

fn line() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec!["foo", "bar", "Foo", "baz", "foo bar", "a", "", "}", "foo\r", "  bar"]);
    prop_oneof![
        8 => word.prop_map(|word| word.as_bytes().to_vec()),
        1 => (0..6_u32).prop_map(|at| format!("line {at}").into_bytes()),
        1 => Just(b"\xff foo \xfe".to_vec()),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    let mode = prop_oneof![
        8 => Just(EntryMode::BLOB),
        2 => Just(EntryMode::EXECUTABLE),
        1 => Just(EntryMode::SYMLINK),
        1 => Just(EntryMode::COMMIT),
    ];
    let text = (prop::collection::vec(line(), 0..60), any::<bool>(), 0..12_u8).prop_map(|(lines, ends, special)| {
        let mut data = lines.join(&b'\n');
        if ends {
            data.push(b'\n');
        }
        match special {
            0 => data.push(0),
            1 => data.extend(b"line foo\nother\n".repeat(300)),
            _ => {}
        }
        data
    });
    prop_oneof![
        6 => (any::<prop::sample::Index>(), 0..4_usize, prop::collection::vec(line(), 0..4), any::<bool>())
            .prop_map(|(at, removed, added, ends)| Edit::Lines { at, removed, added, ends }),
        3 => (mode.clone(), text).prop_map(|(mode, data)| Edit::Write(mode, data)),
        1 => mode.prop_map(Edit::Mode),
        1 => Just(Edit::Remove),
        1 => (0..PATHS.len()).prop_map(Edit::Move),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let parents = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    let edits = prop::collection::vec((0..PATHS.len(), edit()), 0..4);
    prop_oneof![
        10 => (parents, edits, prop_oneof![Just(100_i64), 0..200_i64], 0..BRANCHES.len())
            .prop_map(|(parents, edits, seconds, branch)| Step::Commit { parents, edits, seconds, branch }),
        2 => Just(Step::Index),
        1 => Just(Step::Fork),
        4 => (0..QUERIES.len(), 1..5_usize).prop_map(|(query, page)| Step::Ask { query, page }),
    ]
}

fn edited(mut files: Files, edits: Vec<(usize, Edit)>) -> Files {
    for (path, edit) in edits {
        let path = PATHS[path];
        let before = files.get(path).cloned().unwrap_or((EntryMode::BLOB, Vec::new()));
        match edit {
            Edit::Lines { at, removed, added, ends } => {
                let mut lines: Vec<Vec<u8>> = before.1.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
                let at = at.index(lines.len() + 1);
                let end = (at + removed).min(lines.len());
                lines.splice(at..end, added);
                let mut data = lines.join(&b'\n');
                if ends && !data.ends_with(b"\n") {
                    data.push(b'\n');
                }
                files.insert(path.to_owned(), (before.0, data));
            }
            Edit::Write(mode, data) => drop(files.insert(path.to_owned(), (mode, data))),
            Edit::Mode(mode) => drop(files.insert(path.to_owned(), (mode, before.1))),
            Edit::Remove => drop(files.remove(path)),
            Edit::Move(from) => {
                if let Some(moved) = files.remove(PATHS[from]) {
                    files.insert(path.to_owned(), moved);
                }
            }
        }
    }
    files
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_a_comparison_of_each_commit(steps in prop::collection::vec(step(), 5..40)) {
        let mut past = Past::new();
        let mut repos = vec![past.repo.clone()];
        let options = |page: usize| DiffOptions {
            commits_max: page,
            files_max: if page == 1 { 1 } else { 100 },
            lines_max: if page == 2 { 2 } else { 10_000 },
            ..DiffOptions::default()
        };
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Commit { parents, edits, seconds, branch } => {
                    let count = past.commits.len();
                    let mut parents: Vec<usize> =
                        parents.iter().filter(|_| count > 0).map(|parent| parent.index(count.max(1))).collect();
                    let mut seen = BTreeSet::new();
                    parents.retain(|parent| seen.insert(*parent));
                    let before = parents.first().map_or_else(Files::new, |first| past.commits[*first].files.clone());
                    let commit = past.commit(&parents, seconds, edited(before, edits));
                    past.branch(BRANCHES[branch], commit);
                }
                Step::Index => past.index(),
                Step::Fork => {
                    let name = RepoName::new(&format!("fork{number}")).expect("name");
                    repos.push(past.store.fork(&past.repo.name(), &name, "test").expect("fork"));
                }
                Step::Ask { query, page } => {
                    for repo in &repos {
                        check(&past, repo, &format!("type:diff {}", QUERIES[query]), &options(page));
                    }
                }
            }
        }
        past.index();
        for repo in &repos {
            for (number, query) in QUERIES.iter().enumerate() {
                check(&past, repo, &format!("type:diff {query}"), &options(1 + number % 4));
            }
        }
    }
}
