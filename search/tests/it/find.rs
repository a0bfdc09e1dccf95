//! Searches against a naive scan: random queries on random histories, whatever of them is indexed.

use std::{collections::BTreeSet, ops::ControlFlow};

use bytes::Bytes;
use govc_engine::{Change, EntryMode, Oid, Snapshot};
use govc_search::{
    GrepQuery, grep,
    language::{Language, detect},
    query::{Atom, Expr, PathPattern, Pattern, Query, parse},
    symbols::{Limits, symbols},
};
use proptest::prelude::*;

use super::world::{World, all_pages, put, source};

#[test]
fn queries_find_lines_and_paths() {
    let world = source();
    for is_indexed in [false, true] {
        if is_indexed {
            world.index();
            assert_eq!(world.corpus.figures().blobs, 4);
        }
        world.check("govc", &["README.md:1", "src/lib.rs:1"]);
        world.check("foo", &["src/lib.rs:3", "src/lib.rs:4", "src/net/a.c:1", "src/net/a.c:2", "tests/foo_test.rs"]);
        world.check("content:foo", &["src/lib.rs:3", "src/lib.rs:4", "src/net/a.c:1", "src/net/a.c:2"]);
        world.check("Foo", &["src/net/a.c:1"]);
        world.check("case:yes foo lang:c", &["src/net/a.c:2"]);
        world.check("foo lang:rust -path:test", &["src/lib.rs:3", "src/lib.rs:4"]);
        world.check("/fo+b/", &["src/lib.rs:4"]);
        world.check("/^int/ path:*.c", &["src/net/a.c:1", "src/net/a.c:2"]);
        world.check("main -foo", &[]);
        world.check("(main OR server) -path:README.md", &["src/lib.rs:2"]);
        world.check("path:src/**/*.c", &["src/net/a.c"]);
        world.check("type:path foo", &["tests/foo_test.rs"]);
        world.check("sym:tries", &["tests/foo_test.rs:1"]);
        world.check("sym:/^foo$/", &["src/net/a.c:1", "src/net/a.c:2"]);
        world.check("repo:dem govc lang:rust", &["src/lib.rs:1"]);
        world.check("repo:other govc", &[]);
        world.check("fork:yes govc", &[]);
        world.check(r"/\Aint/", &["src/net/a.c:1"]);
    }
}

#[test]
fn grep_answers_the_same_with_an_index() {
    let world = source();
    world.index();
    let snapshot = world.repo.snapshot();
    let head = snapshot.resolve_commit("HEAD").expect("a commit");
    for (pattern, regex, invert_match) in [
        ("foo", false, false),
        ("nowhere", false, false),
        ("fo+b", true, false),
        ("govc", false, true),
        (".", true, false),
    ] {
        let query = GrepQuery { pattern: pattern.into(), regex, invert_match, ..GrepQuery::default() };
        let read = grep(&snapshot, head, &query, None).expect("grep");
        let known = grep(&snapshot, head, &query, Some(&world.corpus)).expect("grep");
        assert_eq!(read.lines, known.lines, "{pattern}");
        assert_eq!(
            (read.files_searched, read.binary_skipped),
            (known.files_searched, known.binary_skipped),
            "{pattern}"
        );
        assert_eq!(known.binary_skipped, 1);
    }
}

#[test]
fn patterns_that_match_the_empty_text_find_what_is_not_empty() {
    let world = World::new();
    world.put("main", &[("a.txt", b"xx\n\nyxy\n"), ("b.txt", b"yy\n"), ("empty.txt", b"")]);
    for is_indexed in [false, true] {
        if is_indexed {
            world.index();
        }
        // The query, and of each line that matches: its number and where.
        for (query, expected) in [
            ("content:/x*/", [(1, 0, 2), (3, 1, 2)].as_slice()),
            ("content:/x*?x/", &[(1, 0, 1), (1, 1, 2), (3, 1, 2)]),
            ("content:/^x*/", &[(1, 0, 2)]),
            ("content:/x*$/", &[(1, 0, 2)]),
            ("content:/(?m)^x*$/", &[(1, 0, 2)]),
            ("content:/x|/", &[(1, 0, 1), (1, 1, 2), (3, 1, 2)]),
            // What is preferred is empty wherever it is.
            ("content:/|x/", &[]),
            ("content:/x??/", &[]),
            ("content:/\\bx*\\b/", &[(1, 0, 2)]),
        ] {
            let found = world.find(query, "HEAD");
            let lines = found.files.iter().flat_map(|file| &file.lines);
            let spans = lines.flat_map(|line| line.matches.iter().map(|span| (line.line_number, span.start, span.end)));
            assert_eq!(spans.collect::<Vec<_>>(), expected, "{query}");
            let files = u64::from(!expected.is_empty());
            assert_eq!((found.total_files, found.total_matches), (files, expected.len() as u64), "{query}");
            assert_eq!((found.is_exact, found.partial), (true, None), "{query}");
        }
        // In names an empty match is none either: `b.txt` has no x but in its ending.
        world.check("type:path /^x*/", &[]);
        world.check("type:path /q*/", &[]);
        world.check("-/x*/ -path:q", &[]);
        world.check("-content:/x*/", &["b.txt", "empty.txt"]);
    }
    for query in ["/^/", "/$/", "/(?m)^$/", "/()/", r"/\b/", "/x{0}/", "content:/^$/", "sym:/^/", "path:/$/"] {
        let error = parse(query, 0).expect_err("refused");
        assert!(error.to_string().contains("only the empty text"), "{query}: {error}");
    }
}

#[test]
fn a_commit_is_found_before_it_is_indexed() {
    let world = source();
    world.index();
    world.put("main", &[("src/new.rs", b"fn newcomer() { foo() }\n")]);
    world.check("newcomer", &["src/new.rs:1"]);
    world.check("foo path:src/new.rs", &["src/new.rs:1"]);
    world.index();
    world.check("newcomer", &["src/new.rs:1"]);
    let gone = world.commit("main", vec![Change::delete("src/new.rs")]);
    world.check("newcomer", &[]);
    assert_eq!(world.lines("newcomer", &format!("{gone}~1")), ["src/new.rs:1"], "in the commit before it is");
}

/// A naive evaluation of a query: every file, every line, with regular expressions.
pub(super) struct Naive<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) query: &'a Query,
}

impl Naive<'_> {
    fn files(&self, commit: Oid) -> (BTreeSet<Vec<u8>>, u64) {
        let tree = self.snapshot.commit(&commit).expect("commit").tree;
        let (mut paths, mut matches) = (BTreeSet::new(), 0);
        self.snapshot
            .walk_files(tree, b"", &mut |path, mode, oid| {
                let is_file = mode.is_blob() && mode != EntryMode::SYMLINK;
                let data = if is_file { self.snapshot.object(&oid)?.data } else { Bytes::new() };
                if is_file && self.holds(&self.query.expr, path, &data) {
                    paths.insert(path.to_vec());
                    let mut patterns: Vec<(bool, &Pattern)> = Vec::new();
                    positive(&self.query.expr, true, &mut patterns);
                    let count = |(is_symbol, pattern): &(bool, &Pattern)| match is_symbol {
                        true => definitions(pattern, path, &data),
                        false => count(pattern, &data),
                    };
                    matches += patterns.iter().map(count).sum::<u64>();
                }
                Ok(ControlFlow::Continue(()))
            })
            .expect("walk");
        (paths, matches)
    }

    pub(super) fn holds(&self, expr: &Expr, path: &[u8], data: &[u8]) -> bool {
        match expr {
            Expr::Const(holds) => *holds,
            Expr::And(parts) => parts.iter().all(|part| self.holds(part, path, data)),
            Expr::Or(parts) => parts.iter().any(|part| self.holds(part, path, data)),
            Expr::Not(inner) => !self.holds(inner, path, data),
            Expr::Atom(Atom::Text(pattern)) => regex(pattern).is_match(path) || count(pattern, data) > 0,
            Expr::Atom(Atom::Content(pattern)) => count(pattern, data) > 0,
            Expr::Atom(Atom::Path(PathPattern::Pattern(pattern))) => regex(pattern).is_match(path),
            Expr::Atom(Atom::Path(PathPattern::Glob { glob, case_sensitive, span })) => {
                let text = govc_search::query::glob_regex(glob);
                regex(&Pattern { text, regex: true, case_sensitive: *case_sensitive, span: span.clone() })
                    .is_match(path)
            }
            Expr::Atom(Atom::Lang(name)) => detect(path, data) == Language::from_name(name),
            Expr::Atom(Atom::Symbol(pattern)) => definitions(pattern, path, data) > 0,
            Expr::Atom(other) => panic!("{other:?} is not asked"),
        }
    }
}

/// How many definitions of a file have such a name.
fn definitions(pattern: &Pattern, path: &[u8], data: &[u8]) -> u64 {
    let Some(language) = detect(path, data).filter(|_| !is_binary(data)) else { return 0 };
    let defined = symbols(language, data, &Limits::default()).unwrap_or_default();
    let regex = regex(pattern);
    defined.iter().filter(|symbol| regex.is_match(&data[symbol.name.clone()])).count() as u64
}

fn is_binary(data: &[u8]) -> bool {
    data.iter().take(8000).any(|byte| *byte == 0)
}

/// The distinct patterns whose matches are counted; true for those of definitions.
fn positive<'a>(expr: &'a Expr, is_positive: bool, found: &mut Vec<(bool, &'a Pattern)>) {
    let (is_symbol, pattern) = match expr {
        Expr::And(parts) | Expr::Or(parts) => return parts.iter().for_each(|part| positive(part, is_positive, found)),
        Expr::Not(inner) => return positive(inner, !is_positive, found),
        Expr::Atom(Atom::Text(pattern) | Atom::Content(pattern)) if is_positive => (false, pattern),
        Expr::Atom(Atom::Symbol(pattern)) if is_positive => (true, pattern),
        _ => return,
    };
    let what =
        |is_symbol: bool, pattern: &Pattern| (is_symbol, pattern.text.clone(), pattern.regex, pattern.case_sensitive);
    if !found.iter().any(|(other, known)| what(*other, known) == what(is_symbol, pattern)) {
        found.push((is_symbol, pattern));
    }
}

fn regex(pattern: &Pattern) -> regex::bytes::Regex {
    let source = if pattern.regex { pattern.text.clone() } else { regex_syntax::escape(&pattern.text) };
    regex::bytes::RegexBuilder::new(&source)
        .case_insensitive(!pattern.case_sensitive)
        .multi_line(true)
        .build()
        .expect("a regex")
}

fn count(pattern: &Pattern, data: &[u8]) -> u64 {
    if is_binary(data) {
        return 0;
    }
    let regex = regex(pattern);
    data.split(|byte| *byte == b'\n')
        .map(|line| regex.find_iter(line).filter(|found| !found.is_empty()).count() as u64)
        .sum()
}

/// A line of a few words, some with bytes that are no UTF-8.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        6 => "(foo|bar|baz|Foo|BAR|alpha|beta|fn|struct|mutex)".prop_map(String::into_bytes),
        2 => "[a-f]{1,5}".prop_map(String::into_bytes),
        1 => "[äöß\u{212a}\u{17f}]{1,2}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(128_u8..=255, 1..3),
    ];
    proptest::collection::vec(word, 0..6).prop_map(|words| words.join(&b' '))
}

fn file() -> impl Strategy<Value = Vec<u8>> {
    (proptest::collection::vec(line(), 0..120), any::<bool>(), 0..30_u8).prop_map(|(lines, ends, special)| {
        let mut data = lines.join(&b'\n');
        if ends {
            data.push(b'\n');
        }
        match special {
            0 => data.insert(0, 0),
            1 => data.extend(std::iter::repeat_n(b"foo bar ", 1500).flatten()),
            _ => {}
        }
        data
    })
}

fn select(texts: &[&str]) -> impl Strategy<Value = String> + use<> {
    proptest::sample::select(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
}

/// A query that both can answer.
fn query() -> impl Strategy<Value = String> {
    let words = ["foo", "bar", "Foo", "fo", "o b", "alpha", "mutex", "ba", "a", "k", "s", "ß", "ä"];
    let contents = ["foo", "BAR", "z", "struct", "beta", "r f"];
    let regexes = [
        "fo+",
        "b.r",
        "^foo",
        "bar$",
        "[a-f]{3}",
        "foo|alpha",
        r"\w+x|foo",
        "(foo|bar) (baz|foo)",
        r"\bfn\b",
        "f[^o]",
        ".a",
        r"\s\S+\s",
        "o{2}",
        "(?i)FOO",
        "a*b",
    ];
    let paths = ["src", r"\.rs$", "a", "*.c", "src/**", "lib*", "t", "/a/", "foo"];
    let leaf = prop_oneof![
        5 => select(&words).prop_map(|word| format!("\"{word}\"")),
        3 => select(&contents).prop_map(|word| format!("content:\"{word}\"")),
        3 => select(&regexes).prop_map(|regex| format!("/{regex}/")),
        1 => select(&paths).prop_map(|path| format!("path:{path}")),
        1 => select(&["rust", "c", "Markdown"]).prop_map(|language| format!("lang:{language}")),
        1 => select(&["foo", "a", "/^f/"]).prop_map(|name| format!("sym:{name}")),
    ];
    let tree = leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join(" "))),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(|parts| format!("({})", parts.join(" OR "))),
            inner.clone().prop_map(|inner| format!("NOT {inner}")),
            inner.prop_map(|inner| format!("(case:yes {inner})")),
        ]
    });
    (tree, prop_oneof!["", "", Just(" case:no".to_owned())]).prop_map(|(tree, case)| format!("{tree}{case}"))
}

const PATHS: [&str; 8] = [
    "a.rs",
    "src/lib.rs",
    "src/net/b.c",
    "README.md",
    "tests/foo_test.rs",
    "vendor/alpha/x.c",
    "src/foo/bar",
    "docs/ba.md",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_a_naive_scan(
        commits in proptest::collection::vec(proptest::collection::vec((0..PATHS.len(), proptest::option::weighted(0.9, file())), 1..6), 1..5),
        indexed_after in proptest::collection::vec(any::<bool>(), 5),
        queries in proptest::collection::vec(query(), 12),
        page in 1..6_usize,
    ) {
        let world = World::new();
        let mut heads = Vec::new();
        for (number, files) in commits.into_iter().enumerate() {
            let head = heads.last().copied();
            let changes = files.into_iter().filter_map(|(path, data)| match data {
                Some(data) => Some(put(PATHS[path], &data)),
                None => {
                    let snapshot = world.repo.snapshot();
                    let tree = snapshot.commit(&head?).ok()?.tree;
                    snapshot.entry(tree, PATHS[path].as_bytes()).ok().flatten().map(|_| Change::delete(PATHS[path]))
                }
            });
            // One change for a path.
            let mut changes: Vec<Change> = changes.collect();
            let mut seen = BTreeSet::new();
            changes.retain(|change| match change {
                Change::Put { path, .. } | Change::Delete { path, .. } => seen.insert(path.clone()),
                _ => true,
            });
            heads.push(world.commit("main", changes));
            if indexed_after[number] {
                world.index();
            }
        }
        for text in &queries {
            let query = parse(text, 0).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
            for head in &heads {
                let place = world.place(&head.to_string());
                let naive = Naive { snapshot: &place.snapshot, query: &query };
                let (paths, matches) = naive.files(*head);
                let found = all_pages(&world.corpus, &query, std::slice::from_ref(&place), page);
                prop_assert_eq!(&(paths.clone(), paths.len() as u64, matches), &found, "{}", text);
            }
        }
    }
}
