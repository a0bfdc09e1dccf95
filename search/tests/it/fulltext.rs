//! Search by relevance against BM25 over all files, whatever of them is indexed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use govc_engine::{EntryMode, ErrorKind};
use govc_search::{
    FullText, FullTextCursor, FullTextHit, FullTextOptions, GroupBy, Partial, Place, aggregate, fulltext,
};
use proptest::prelude::*;

use super::world::{World, branch, commit, create, place, put, query_of, request};

/// Words of files, and the tokens that each is by hand.
const WORDS: [(&str, &[&str]); 9] = [
    ("foo", &["foo"]),
    ("Bar", &["bar"]),
    ("fooBar", &["foo", "bar", "foobar"]),
    ("foo_bar", &["foo", "bar", "foo_bar"]),
    ("HTTPRequest", &["http", "request", "httprequest"]),
    ("ünder", &["ünder"]),
    ("baz(", &["baz"]),
    ("x", &[]),
    ("da39a3ee5e6b4b0d3255bfef95601890afd80709", &[]),
];

/// Paths in the order of their tiers.
const PATHS: [(&str, u8); 6] =
    [("a.rs", 0), ("src/deep/b.c", 0), ("src/lib.rs", 0), ("README.md", 1), ("tests/t.rs", 2), ("vendor/v.c", 3)];

/// A query: its words, whether a place is searched, whether a file is a result.
type Asked = (&'static str, &'static [&'static str], fn(&str) -> bool, fn(&str, &str) -> bool);

const QUERIES: [Asked; 8] = [
    ("foo", &["foo"], |_| true, |_, _| true),
    ("foo BAR", &["foo", "bar"], |_| true, |_, _| true),
    ("\"ünder(foo_bar\"", &["ünder", "foo", "bar", "foo_bar"], |_| true, |_, _| true),
    ("httpRequest OR baz", &["http", "request", "httprequest", "baz"], |_| true, |_, _| true),
    ("bar lang:rust", &["bar"], |_| true, |path, _| path.ends_with(".rs")),
    (
        "bar foo -path:vendor -path:README",
        &["bar", "foo"],
        |_| true,
        |path, _| !path.contains("vendor") && !path.contains("README"),
    ),
    ("foo repo:demo", &["foo"], |repo| repo == "demo", |_, _| true),
    (
        "bar -baz content:foo",
        &["bar"],
        |_| true,
        |_, data| !data.contains("baz") && data.to_lowercase().contains("foo"),
    ),
];

/// Rank, place, path, and how often the file has each word.
type Row = (u64, u8, u32, String, Vec<(String, u64)>);

fn occurrences(data: &str, word: &str) -> u64 {
    let tokens = |text: &str| WORDS.iter().find(|(other, _)| *other == text).map_or(&[][..], |(_, tokens)| tokens);
    data.split_whitespace().flat_map(tokens).filter(|token| **token == word).count() as u64
}

/// The results in their order, and in how many contents each word is.
fn naive(places: &[Place], asked: &Asked) -> (Vec<Row>, Vec<u64>) {
    let (_, words, is_searched, is_result) = asked;
    let mut files = Vec::new();
    for (number, place) in (0..).zip(places).filter(|(_, place)| is_searched(&place.repo)) {
        let tree = place.snapshot.commit(&place.commit).expect("commit").tree;
        let mut each = |path: &[u8], mode: EntryMode, oid| {
            let data = place.snapshot.object(&oid)?.data;
            if mode.is_blob() && !data.contains(&0) {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
                files.push((number, text(path), text(&data)));
            }
            Ok(std::ops::ControlFlow::Continue(()))
        };
        place.snapshot.walk_files(tree, b"", &mut each).expect("walk");
    }
    let contents: BTreeSet<&String> = files.iter().map(|(_, _, data)| data).collect();
    let count = contents.len() as f64;
    let mean = contents.iter().map(|data| data.len() as f64).sum::<f64>() / count.max(1.0);
    let having: Vec<u64> =
        words.iter().map(|word| contents.iter().filter(|data| occurrences(data, word) > 0).count() as u64).collect();
    let score = |data: &str| {
        let mut score = 0.0;
        for (word, having) in words.iter().zip(&having) {
            let (often, having) = (occurrences(data, word) as f64, *having as f64);
            if often > 0.0 {
                let length = 1.0 - 0.75 + 0.75 * (data.len() as f64 / mean.max(1.0));
                score += (1.0 + (count - having + 0.5) / (having + 0.5)).ln() * often * 2.2 / (often + 1.2 * length);
            }
        }
        score
    };
    let mut rows: Vec<Row> = Vec::new();
    for (place, path, data) in &files {
        let tier = PATHS.iter().find(|(other, _)| other == path).map_or(0, |(_, tier)| *tier);
        let counts: Vec<(String, u64)> = words
            .iter()
            .map(|word| ((*word).to_owned(), occurrences(data, word)))
            .filter(|(_, count)| *count > 0)
            .collect();
        if !counts.is_empty() && is_result(path, data) {
            rows.push((score(data).to_bits(), tier, *place, path.clone(), counts));
        }
    }
    rows.sort_by(|one, other| (other.0, one.1, one.2, &one.3).cmp(&(one.0, other.1, other.2, &other.3)));
    (rows, having)
}

/// All pages, and the last answer.
fn pages(world: &World, query: &str, places: &[Place], files_max: usize) -> (Vec<FullTextHit>, FullText) {
    let (mut hits, mut cursor) = (Vec::new(), None);
    loop {
        let options = FullTextOptions { files_max, cursor, ..FullTextOptions::default() };
        let found = fulltext(&world.corpus, &query_of(query), places, &options).expect("found");
        assert_eq!((found.is_exact, found.partial), (true, None), "{query}");
        hits.extend(found.files.iter().cloned());
        let Some(next) = &found.next else { return (hits, found) };
        assert_eq!(found.files.len(), files_max, "{query}");
        cursor = Some(FullTextCursor::decode(&next.encode()).expect("the same cursor"));
    }
}

#[track_caller]
fn check(world: &World, places: &[Place], asked: &Asked, files_max: usize) {
    let (query, (rows, having)) = (asked.0, naive(places, asked));
    let (hits, found) = pages(world, query, places, files_max);
    let shown = |hit: &FullTextHit| {
        let path = String::from_utf8(hit.path.clone()).expect("a path");
        (hit.score.to_bits(), hit.repo.clone(), hit.rev.clone(), path, hit.words.clone())
    };
    let expected = |row: &Row| {
        let place = &places[row.2 as usize];
        (row.0, place.repo.clone(), place.rev.clone(), row.3.clone(), row.4.clone())
    };
    assert_eq!(hits.iter().map(shown).collect::<Vec<_>>(), rows.iter().map(expected).collect::<Vec<_>>(), "{query}");
    assert_eq!(found.total_files, rows.len() as u64, "{query}");
    assert_eq!(found.words.iter().map(|word| word.contents).collect::<Vec<_>>(), having, "{query}");
    let mut repos: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in &rows {
        let count = repos.entry(places[row.2 as usize].repo.clone()).or_default();
        *count = (count.0 + 1, count.1 + row.4.iter().map(|(_, count)| count).sum::<u64>());
    }
    let groups =
        found.facets.repositories.largest(10).into_iter().map(|group| (group.value, (group.results, group.matches)));
    assert_eq!(groups.collect::<BTreeMap<_, _>>(), repos, "{query}");
    assert_eq!(found.total_matches, repos.values().map(|(_, matches)| matches).sum::<u64>(), "{query}");
    for facet in [&found.facets.languages, &found.facets.paths] {
        assert_eq!(facet.largest(100).iter().map(|group| group.results).sum::<u64>(), rows.len() as u64, "{query}");
    }
}

fn file() -> impl Strategy<Value = Vec<u8>> {
    let line = proptest::collection::vec(proptest::sample::select(WORDS.map(|(word, _)| word).to_vec()), 0..5);
    (proptest::collection::vec(line, 0..40), 0..12_u8).prop_map(|(lines, special)| {
        let text = lines.iter().map(|words| words.join(" ")).collect::<Vec<_>>().join("\n");
        match special {
            0 => format!("\0{text}").into_bytes(),
            // The same chunk several times, and a word more often in a chunk than a byte can count.
            1 => format!("{text}\n{}", format!("{}\n", "foo ".repeat(1200)).repeat(3)).into_bytes(),
            _ => text.into_bytes(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn ranks_are_those_of_bm25_over_the_places(
        commits in proptest::collection::vec((0..2_usize, 0..2_usize, proptest::collection::vec((0..PATHS.len(), file()), 0..5)), 1..7),
        indexed_after in proptest::collection::vec(any::<bool>(), 8),
        page in 1..5_usize,
    ) {
        let world = World::new();
        let repos = [world.repo.clone(), create(&world.store, "other")];
        let branches = ["main", "side"];
        let mut places: BTreeMap<(usize, usize), Place> = BTreeMap::new();
        for (number, (repo, side, files)) in commits.into_iter().enumerate() {
            if let Some(other) = places.get(&(repo, 1 - side)).filter(|_| !places.contains_key(&(repo, side))) {
                branch(&repos[repo], branches[side], other.commit);
            }
            let files: BTreeMap<&str, Vec<u8>> = files.into_iter().map(|(path, data)| (PATHS[path].0, data)).collect();
            let oid = commit(&repos[repo], branches[side], files.iter().map(|(path, data)| put(path, data)).collect());
            let place = Place { rev: branches[side].into(), ..place(&repos[repo], &oid.to_string()) };
            places.insert((repo, side), place);
            if indexed_after[number] {
                world.index();
            }
        }
        let places: Vec<Place> = places.into_values().collect();
        for asked in &QUERIES {
            check(&world, &places, asked, page);
        }
        world.index();
        for asked in &QUERIES {
            check(&world, &places[..1], asked, page);
            check(&world, &places, asked, 1000);
        }
    }
}

#[test]
fn an_identifier_finds_itself_first() {
    let world = World::new();
    world.put(
        "main",
        &[
            ("a.rs", b"fn parse() {}\nfn http() {}\nfn request() {}\nlet x = parse(http(request()));\n"),
            ("b.rs", b"fn main() {\n    // start\n    let it = parse_http_request(input);\n    go(it);\n}\n"),
            ("c.rs", b"fn other() {}\n"),
        ],
    );
    for is_indexed in [false, true] {
        if is_indexed {
            world.index();
        }
        let found = fulltext(
            &world.corpus,
            &query_of("parse_http_request"),
            &[world.place("HEAD")],
            &FullTextOptions::default(),
        );
        let found = found.expect("found");
        let paths: Vec<&[u8]> = found.files.iter().map(|file| file.path.as_slice()).collect();
        assert_eq!(paths, [b"b.rs", b"a.rs"]);
        let best = &found.files[0];
        assert_eq!((best.size, best.language.map(|language| language.name())), (79, Some("Rust")));
        assert_eq!(best.lines.iter().map(|line| (line.line_number, line.column)).collect::<Vec<_>>(), [(3, 14)]);
        assert_eq!(found.contents, 3);
        let words: Vec<(&str, u64)> = found.words.iter().map(|word| (word.word.as_str(), word.contents)).collect();
        assert_eq!(words, [("parse", 2), ("http", 2), ("request", 2), ("parse_http_request", 1)]);
    }
}

#[test]
fn branches_with_the_same_files_are_counted_each() {
    let world = World::new();
    world.put("main", &[("a.rs", b"needle\n"), ("b.rs", b"needle in more\n"), ("c.rs", b"hay\n")]);
    for number in 0..20 {
        let name = format!("b{number:02}");
        branch(&world.repo, &name, world.place("main").commit);
        // Another commit, with the same files.
        let committed = world.repo.commit(request(&name, &name, 1_700_000_000, Vec::new())).expect("commit");
        committed.published.ticket.wait().expect("durable");
    }
    world.put("b07", &[("d.rs", b"needle, once more\n")]);
    world.index();
    let places: Vec<Place> = (0..20).map(|number| world.place(&format!("b{number:02}"))).collect();
    assert_eq!(places.iter().map(|place| place.commit).collect::<BTreeSet<_>>().len(), 20, "no two the same");
    for files_max in [1, 7, 41, 1000] {
        let (hits, found) = pages(&world, "needle", &places, files_max);
        assert_eq!((found.total_files, found.words[0].contents, found.contents), (41, 3, 4));
        let mut expected: Vec<(String, &str)> = Vec::new();
        for path in ["a.rs", "b.rs", "d.rs"] {
            let has = |number: &u32| path != "d.rs" || *number == 7;
            expected.extend((0..20).filter(has).map(|number| (format!("b{number:02}"), path)));
        }
        let found: Vec<(String, &str)> =
            hits.iter().map(|hit| (hit.rev.clone(), std::str::from_utf8(&hit.path).expect("a path"))).collect();
        assert_eq!(found, expected, "by {files_max}");
    }
    let counted =
        aggregate(&world.corpus, &query_of("needle"), &places, GroupBy::Repository, 5, None).expect("counted");
    assert_eq!(counted.total, 41, "as a search by patterns counts them");
}

#[test]
fn what_others_have_changes_nothing() {
    let world = World::new();
    world
        .put("main", &[("a.rs", b"alpha beta\n"), ("b.rs", b"alpha alpha\n"), ("c.md", b"beta, and more than that\n")]);
    world.index();
    let ask = || {
        let found =
            fulltext(&world.corpus, &query_of("alpha beta"), &[world.place("main")], &FullTextOptions::default());
        let found = found.expect("found");
        let languages = found.facets.languages.largest(9);
        format!("{:?} {:?} {:?} {languages:?}", found.files, found.words, (found.total_files, found.contents))
    };
    let before = ask();
    let other = create(&world.store, "other");
    let data = |number: usize| format!("{}beta {number}\n", "alpha ".repeat(number)).into_bytes();
    commit(&other, "main", (0..50).map(|number| put(&format!("f{number}.rs"), &data(number))).collect());
    branch(&world.repo, "side", world.place("main").commit);
    commit(&world.repo, "side", vec![put("side.rs", b"alpha, beta, gamma\n")]);
    assert_eq!(ask(), before);
    world.index();
    assert_eq!(ask(), before);
}

#[test]
fn a_cursor_belongs_to_its_query_and_commits() {
    let world = World::new();
    world.put("main", &[("a.rs", b"alpha\n"), ("b.rs", b"alpha beta\n")]);
    let options = FullTextOptions { files_max: 1, ..FullTextOptions::default() };
    let first = fulltext(&world.corpus, &query_of("alpha"), &[world.place("main")], &options).expect("found");
    let options = FullTextOptions { cursor: first.next.clone(), ..options };
    let refused = |query: &str| {
        let error = fulltext(&world.corpus, &query_of(query), &[world.place("main")], &options).expect_err("refused");
        assert_eq!(error.kind(), &ErrorKind::Invalid);
        error.message().to_owned()
    };
    assert!(refused("beta").contains("another query"));
    world.put("main", &[("c.rs", b"alpha\n")]);
    assert!(refused("alpha").contains("another query"));
    let given = first.next.expect("a second page").encode();
    let wrong = ["", "zz", &given[2..], &given[..given.len() - 2], &"ff".repeat(200)];
    for text in wrong {
        // What can be read at all belongs to no query.
        let cursor = FullTextCursor::decode(text);
        assert!(cursor.is_err() || cursor.is_ok_and(|cursor| cursor.encode() != given), "{text}");
    }
}

#[test]
fn the_deadline_is_no_error() {
    let world = World::new();
    world.put("main", &[("a.rs", b"alpha\n")]);
    let places = [world.place("main")];
    for is_indexed in [false, true] {
        if is_indexed {
            world.index();
        }
        let late = FullTextOptions { deadline: Some(Instant::now()), ..FullTextOptions::default() };
        let found = fulltext(&world.corpus, &query_of("alpha"), &places, &late).expect("found");
        assert_eq!((found.files.len(), found.total_files, found.is_exact), (0, 0, false));
        assert_eq!((found.partial, found.next), (Some(Partial::Deadline), None));
    }
}

#[test]
fn no_page_is_too_large() {
    let world = World::new();
    let line = |number: usize| format!("needle {number} {}\n", "long ".repeat(3000)).into_bytes();
    world.put("main", &[("a.rs", &(0..90).flat_map(line).collect::<Vec<u8>>())]);
    for number in 0..15 {
        let data: Vec<u8> = (0..100).flat_map(|at| line(number * 1000 + at)).collect();
        world.commit("main", vec![put(&format!("f{number:02}.rs"), &data)]);
    }
    let options = FullTextOptions { lines_max: usize::MAX, ..FullTextOptions::default() };
    let (mut paths, mut cursor, mut pages) = (HashMap::new(), None, 0);
    loop {
        let options = FullTextOptions { cursor, ..options.clone() };
        let found = fulltext(&world.corpus, &query_of("needle"), &[world.place("main")], &options).expect("found");
        found.files.iter().for_each(|file| *paths.entry(file.path.clone()).or_insert(0) += 1);
        assert!(!found.files.is_empty() && found.is_exact && found.total_files == 16);
        pages += 1;
        let Some(next) = found.next else { break };
        assert_eq!(found.partial, Some(Partial::Size));
        cursor = Some(next);
    }
    assert!(pages > 1, "one page has all");
    assert!(paths.len() == 16 && paths.values().all(|count| *count == 1), "{paths:?}");
}
