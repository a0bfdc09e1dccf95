//! Definitions that are recorded, against the same searches without records and against parsing each file.

use std::{
    collections::BTreeSet,
    fs,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use govc_engine::{
    Change, CommitRequest, Durability, Expected, Oid, RefName, RepoName, RepoSettings, Store, StoreOptions,
};
use govc_search::{
    Corpus, Definer, FindOptions, Found, InProcess, Indexer, Place, Search, SearchOptions, SearchStatus, SqlQuery,
    SuggestOptions, SuggestionKind, SymbolFigures, find,
    language::{Language, detect},
    sql, suggest,
    symbols::{Limits, Skipped, Symbol, SymbolKind, symbols},
};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::world::{World, commit, create, memory_store, place, put, query_of, request};

/// Only a guard against waiting for ever.
const WITHIN: Duration = Duration::from_secs(60);

/// Parses, counts how often, and can be made to give no answer.
#[derive(Default)]
struct Watched {
    asked: AtomicUsize,
    contents: Mutex<Vec<Vec<u8>>>,
    is_away: AtomicBool,
    version: AtomicU64,
}

impl Watched {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Definer for Watched {
    fn definitions(&self, language: Language, content: &[u8]) -> Result<Vec<Symbol>, Skipped> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.contents.lock().push(content.to_vec());
        if self.is_away.load(Ordering::Relaxed) || content.starts_with(b"// never") {
            return Err(Skipped::NoAnswer);
        }
        InProcess::default().definitions(language, content)
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }
}

fn watched() -> (World, Arc<Watched>) {
    let definer = Arc::new(Watched::default());
    (World::with_definer(definer.clone()), definer)
}

/// Commits to a branch, which begins where `main` is if it is not there.
fn commit_on(world: &World, branch: &str, changes: Vec<Change>) -> Oid {
    let snapshot = world.repo.snapshot();
    let create_branch_from = snapshot.resolve_commit(branch).is_err().then(|| snapshot.resolve_commit("main").ok());
    let create_branch_from = create_branch_from.flatten();
    let request = CommitRequest { create_branch_from, ..request(branch, "work", 1_700_000_000, changes) };
    let committed = world.repo.commit(request).expect("commit");
    committed.published.ticket.wait().expect("durable");
    committed.oid
}

/// What an answer says, but for how it was found.
fn said(found: &Found) -> String {
    let Found { files, total_files, total_matches, is_exact, untold_files, facets, partial, next, .. } = found;
    let facets = [&facets.repositories, &facets.languages, &facets.paths].map(|groups| groups.largest(100));
    format!("{files:?} {total_files} {total_matches} {is_exact} {untold_files} {facets:?} {partial:?} {next:?}")
}

fn ask(corpus: &Corpus, query: &str, place: &Place) -> Found {
    let options = FindOptions { files_max: 3, ..FindOptions::default() };
    find(corpus, &query_of(query), std::slice::from_ref(place), &options).expect("found")
}

/// The rows of a statement, which fails never.
fn rows(corpus: &Arc<Corpus>, place: &Place, text: &str) -> String {
    let query = SqlQuery { text: text.to_owned(), rows_max: 10_000, ..SqlQuery::default() };
    let answer = sql(corpus, &place.snapshot, &query).expect("rows");
    format!("{:?} {:?} {}", answer.rows, answer.stopped, answer.contents_left_out)
}

/// Each file of a commit that defines something with `word` in its name, with how many such definitions.
fn naive(place: &Place, word: &str) -> BTreeSet<(Vec<u8>, u64)> {
    let mut files = BTreeSet::new();
    let tree = place.snapshot.commit(&place.commit).expect("a commit").tree;
    let walked = place.snapshot.walk_files(tree, b"", &mut |path, _, oid| {
        let data = place.snapshot.object(&oid)?.data;
        let language = detect(path, &data).filter(|_| !data.contains(&0));
        let defined = language.map(|language| symbols(language, &data, &Limits::default()));
        let names = defined.into_iter().flatten().flatten().map(|symbol| data[symbol.name].to_vec());
        let count = names.filter(|name| String::from_utf8_lossy(name).contains(word)).count();
        if count > 0 {
            files.insert((path.to_vec(), count as u64));
        }
        Ok(ControlFlow::Continue(()))
    });
    walked.expect("walked");
    files
}

const PATHS: [&str; 9] =
    ["a.rs", "src/b.rs", "src/c.py", "src/d.h", "lib/d.hpp", "lib/e.rb", "bin/run", "notes.md", "src/f.go"];

/// Sources of several languages; some are the same text, which as another language defines something else.
fn source() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "fn (foo|bar|Foo|baz_foo)\\(\\) \\{\\}\n",
        "def (foo|bar|quux)\\(\\):\n    pass\n",
        "def (foo|tri\\?)\nend\n",
        "int (foo|bar)\\(void\\) \\{ return 0; \\}\n",
        "class (Foo|Bar) \\{ int foo; \\};\n",
        "struct (Foo|Bar) \\{ int bar; \\}\n",
        "func (foo|Bar)\\(\\) \\{\\}\n",
        "// (foo|bar)\n",
        "x = foo \\+ 1\n",
    ];
    let head = prop_oneof![Just(String::new()), Just("#!/usr/bin/python\n".to_owned()), Just("#!/bin/sh\n".to_owned())];
    (head, proptest::collection::vec(piece, 0..8)).prop_map(|(head, pieces)| (head + &pieces.concat()).into_bytes())
}

const QUERIES: [&str; 22] = [
    "sym:foo",
    "sym:Foo",
    "sym:/^foo$/",
    r"sym:/\bfoo\b/",
    r"sym:/\Afoo\z/",
    "sym:/f.o/ lang:python",
    "sym:o",
    "type:symbol bar",
    "type:symbol /a|u/",
    "-sym:foo",
    "foo -sym:foo",
    "sym:foo sym:bar",
    "sym:foo OR sym:quux",
    "(sym:foo OR path:notes) count:all",
    "sym:tri?",
    "sym:nowhere",
    "foo select:symbol",
    "sym:bar foo select:symbol count:all",
    "foo select:content",
    "path:src foo select:content",
    "src select:content",
    "type:symbol foo select:symbol",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_without_records(
        steps in proptest::collection::vec(
            (
                0..3_usize,
                proptest::collection::btree_map(0..PATHS.len(), proptest::option::weighted(0.85, source()), 1..5),
                0..6_u8,
            ),
            1..6,
        ),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Corpus::open(folder.path(), 8 << 20, Some(Arc::new(InProcess::default()))).expect("opened");
        let mut world = World::with(memory_store(StoreOptions::default()), open());
        let mut heads: Vec<Oid> = vec![world.put("main", &[("begin.rs", b"fn begin() {}\n")])];
        for (branch, files, then) in steps {
            let branch = format!("b{branch}");
            let snapshot = world.repo.snapshot();
            let tip = snapshot.resolve_commit(&branch).or_else(|_| snapshot.resolve_commit("main")).expect("a tip");
            let tree = snapshot.commit(&tip).expect("a commit").tree;
            let has = |path: &str| snapshot.entry(tree, path.as_bytes()).expect("entry").is_some();
            let changes = files.into_iter().filter_map(|(path, data)| match data {
                Some(data) => Some(put(PATHS[path], &data)),
                None => has(PATHS[path]).then(|| Change::delete(PATHS[path])),
            });
            heads.push(commit_on(&world, &branch, changes.collect()));
            match then {
                0 => world.index(),
                1 | 2 => world.define(),
                3 => {
                    world.define();
                    world.corpus = Arc::new(Corpus::in_memory(1 << 20, None).expect("a corpus"));
                    world.corpus = Arc::new(open());
                }
                4 => {
                    let name = RefName::branch(&branch).expect("a name");
                    world.repo.delete_ref(name, Expected::Any, "test").expect("deleted").ticket.wait().expect("durable");
                    world.define();
                }
                _ => {}
            }
            let plain = Arc::new(Corpus::in_memory(8 << 20, Some(Arc::new(InProcess::default()))).expect("a corpus"));
            for head in &heads {
                let Ok(commit) = world.repo.snapshot().resolve_commit(&head.to_string()) else { continue };
                let place = world.place(&commit.to_string());
                for query in QUERIES {
                    let (known, read) = (ask(&world.corpus, query, &place), ask(&plain, query, &place));
                    prop_assert_eq!(said(&known), said(&read), "{}", query);
                }
                for word in ["foo", "Bar", "quux"] {
                    let query = format!("case:yes sym:{word} count:all");
                    let found = find(&world.corpus, &query_of(&query), std::slice::from_ref(&place), &FindOptions::default());
                    let files = found.expect("found").files.into_iter().map(|file| (file.path, file.match_count));
                    prop_assert_eq!(files.collect::<BTreeSet<_>>(), naive(&place, word), "{}", query);
                }
                for text in ["SELECT * FROM symbols", "SELECT path, count(*) FROM symbols WHERE name LIKE 'f%' GROUP BY path"] {
                    let text = text.replace("symbols", &format!("symbols('{commit}')"));
                    prop_assert_eq!(rows(&world.corpus, &place, &text), rows(&plain, &place, &text), "{}", text);
                }
            }
        }
    }
}

#[test]
fn what_is_recorded_is_not_parsed_again() {
    let (world, definer) = watched();
    world.put(
        "main",
        &[("a.rs", b"fn foo() {}\n"), ("b.js", b"function foo() {}\n"), ("c.md", b"foo\n"), ("d", b"foo\n")],
    );
    commit_on(&world, "other", vec![put("old.rs", b"fn other_foo() {}\n")]);
    world.index();
    assert_eq!(definer.asked(), 0, "indexing does not wait for it");
    world.define();
    assert_eq!(definer.asked(), 3);
    let figures = world.corpus.symbol_figures();
    assert_eq!((figures.files, figures.symbols, figures.names, figures.untold_files), (3, 3, 2, 0));
    assert!(figures.is_complete && !figures.is_full && figures.waiting_files == 0 && figures.resident_bytes > 0);
    world.define();
    for query in ["sym:foo", "type:symbol foo", "foo select:symbol", "-sym:foo"] {
        world.find(query, "main");
    }
    assert!(rows(&world.corpus, &world.place("main"), "SELECT * FROM symbols").contains("foo"));
    assert_eq!(definer.asked(), 3, "nothing is parsed");
    // No content is looked at of what does not define it: that is told by paths and records alone.
    let found = world.find("sym:nowhere OR sym:/^other/", "main");
    assert_eq!((found.total_files, found.explain.files_read), (0, 0));
    // A blob that is recorded in one language is parsed in another.
    world.put("main", &[("same.ts", b"function foo() {}\n")]);
    assert_eq!((world.find("sym:foo path:same", "main").total_files, definer.asked()), (1, 4));
    world.define();
    assert_eq!((world.corpus.symbol_figures().files, definer.asked()), (4, 5));
}

#[test]
fn the_newest_publication_comes_first() {
    let (world, definer) = watched();
    // Of the repositories, this one would be the first.
    let old = create(&world.store, "zebra");
    commit(&old, "main", (0..5).map(|n| put(&format!("f{n}.rs"), format!("fn f{n}() {{}}\n").as_bytes())).collect());
    world.put("main", &[("begin.txt", b"begin\n")]);
    let mut indexer = Indexer::new(world.store.clone(), world.corpus.clone(), Arc::default());
    indexer.index_all(&|| false).expect("indexed");
    commit_on(&world, "newer", vec![put("src/newer.rs", b"fn newer() {}\n")]);
    commit_on(&world, "newest", vec![put("src/newest.rs", b"fn newest() {}\n")]);
    indexer.define_all(&|| false).expect("recorded");
    let contents = definer.contents.lock().clone();
    assert_eq!(contents.len(), 7);
    assert_eq!(contents[..2], [b"fn newest() {}\n".to_vec(), b"fn newer() {}\n".to_vec()]);
    // And then only what is new.
    for version in 0..3 {
        world.put("main", &[("changed.rs", format!("fn changed() {{ {version} }}\n").as_bytes())]);
    }
    indexer.define_all(&|| false).expect("recorded");
    assert_eq!(definer.contents.lock()[7..], [b"fn changed() { 2 }\n".to_vec()]);
}

#[test]
fn what_gets_no_answer_is_tried_again() {
    let (world, definer) = watched();
    world.put("main", &[("a.rs", b"fn foo() {}\n"), ("b.rs", b"fn bar() {}\n"), ("c.rs", b"// never\nfn baz() {}\n")]);
    definer.is_away.store(true, Ordering::Relaxed);
    let mut indexer = Indexer::new(world.store.clone(), world.corpus.clone(), Arc::default());
    indexer.define_all(&|| false).expect("tried");
    let figures = world.corpus.symbol_figures();
    assert_eq!((figures.files, figures.waiting_files, figures.is_complete), (0, 3, true));
    assert_eq!((world.find("sym:foo", "main").total_files, world.find("sym:foo", "main").untold_files), (0, 1));
    definer.is_away.store(false, Ordering::Relaxed);
    assert_eq!(world.find("sym:foo", "main").total_files, 1, "who asks does not wait for the indexer");
    indexer.define_all(&|| false).expect("recorded");
    let figures = world.corpus.symbol_figures();
    assert_eq!((figures.files, figures.waiting_files), (2, 1));
    let found = world.find("sym:/ba/", "main");
    assert_eq!((found.total_files, found.untold_files), (1, 1));
    // It is not tried for ever.
    for _ in 0..20 {
        indexer.define_all(&|| false).expect("tried");
    }
    let asked = definer.asked();
    indexer.define_all(&|| false).expect("nothing to do");
    assert_eq!((definer.asked(), world.corpus.symbol_figures().waiting_files), (asked, 0));
}

/// Tells of each file that its bytes from 3 to 6 are the name of a function.
struct Inside;

impl Definer for Inside {
    fn definitions(&self, _: Language, _: &[u8]) -> Result<Vec<Symbol>, Skipped> {
        Ok(vec![Symbol { name: 3..6, kind: SymbolKind::Function, line: 0, parent: None }])
    }
}

#[test]
fn a_name_has_edges_where_its_text_may_have_none() {
    let world = World::with_definer(Arc::new(Inside));
    world.put("main", &[("a.rs", b"fn foo_() {}\n"), ("b.rs", b"fn foo() {}\n")]);
    for is_recorded in [false, true] {
        if is_recorded {
            world.define();
        }
        for query in ["sym:foo", r"sym:/\bfoo\b/", "sym:/^foo$/", r"sym:/\Afoo\z/", r"sym:/\bfoo/"] {
            assert_eq!(world.find(query, "main").total_files, 2, "{query}, recorded: {is_recorded}");
        }
        assert_eq!(world.find(r"sym:/foo\B/", "main").total_files, 0, "recorded: {is_recorded}");
    }
}

#[test]
fn a_stopped_indexer_leaves_what_it_has() {
    let (world, definer) = watched();
    let files: Vec<(String, String)> = (0..20).map(|n| (format!("d{n}/f.rs"), format!("fn f{n}() {{}}\n"))).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, text)| (path.as_str(), text.as_bytes())).collect();
    world.put("main", &files);
    let mut indexer = Indexer::new(world.store.clone(), world.corpus.clone(), Arc::default());
    indexer.define_all(&|| definer.asked() >= 5).expect("stopped");
    assert_eq!((definer.asked(), world.corpus.symbol_figures().files), (5, 5));
    assert_eq!(world.find("type:symbol f count:all", "main").total_files, 20);
    let asked = definer.asked();
    world.define();
    assert_eq!((definer.asked() - asked, world.corpus.symbol_figures().files), (15, 20));
}

#[test]
fn repositories_that_go_or_are_in_memory_only() {
    let (world, _) = watched();
    world.put("main", &[("a.rs", b"fn kept() {}\n")]);
    let settings = RepoSettings { durability: Durability::Memory, ..super::settings() };
    let secret = world.store.create(&RepoName::new("secret").expect("a name"), settings, "test").expect("created");
    commit(&secret, "main", vec![put("s.rs", b"fn secret() {}\n")]);
    let gone = create(&world.store, "gone");
    commit(&gone, "main", vec![put("g.rs", b"fn gone() {}\n"), put("a.rs", b"fn kept() {}\n")]);
    let mut indexer = Indexer::new(world.store.clone(), world.corpus.clone(), Arc::default());
    indexer.index_all(&|| false).expect("indexed");
    commit(&gone, "main", vec![put("h.rs", b"fn gone_too() {}\n")]);
    indexer.index_all(&|| false).expect("indexed");
    world.store.delete(&gone.name()).expect("deleted");
    indexer.define_all(&|| false).expect("recorded");
    let figures = world.corpus.symbol_figures();
    assert_eq!((figures.files, figures.names, figures.is_complete), (1, 1, true));
    assert_eq!(world.find("sym:kept", "main").total_files, 1);
}

#[test]
fn names_are_suggested_of_what_is_searched() {
    let (world, _) = watched();
    world.put("main", &[("a.rs", b"fn open_file() {}\nfn opened() {}\n"), ("b.rs", b"fn open_file() { 1 }\n")]);
    let other = create(&world.store, "other");
    commit(&other, "main", vec![put("o.rs", b"fn open_secret() {}\n"), put("twin.rs", b"fn open_twin() {}\n")]);
    // The same content, and no source here.
    world.put("main", &[("twin.txt", b"fn open_twin() {}\n")]);
    world.define();
    let names = |places: &[Place], prefix: &str, names_max| -> Vec<(String, u64)> {
        let options = SuggestOptions { suggestions_max: names_max, deadline: None };
        let names = suggest(&world.corpus, &format!("a sym:{prefix}"), places, &options).expect("names");
        assert!(
            names.iter().all(|name| name.kind == SuggestionKind::Symbol && name.query == format!("a {}", name.text))
        );
        let name = |text: &str| text.strip_prefix("sym:").expect("a definition").to_owned();
        names.into_iter().map(|found| (name(&found.text), found.count.unwrap_or(0))).collect()
    };
    let (here, there) = (world.place("main"), place(&other, "main"));
    let both = [here.clone(), there.clone()];
    assert_eq!(names(std::slice::from_ref(&here), "open", 9), [("open_file".into(), 2), ("opened".into(), 1)]);
    assert_eq!(names(std::slice::from_ref(&here), "open_s", 9), []);
    assert_eq!(names(std::slice::from_ref(&here), "open_t", 9), []);
    assert_eq!(names(&[there], "open", 9), [("open_secret".into(), 1), ("open_twin".into(), 1)]);
    assert_eq!(names(&both, "open", 2), [("open_file".into(), 2), ("open_secret".into(), 1)]);
    assert_eq!(names(std::slice::from_ref(&here), "opened", 9), [], "it was typed in full");
    let late = SuggestOptions { suggestions_max: 9, deadline: Some(Instant::now()) };
    assert_eq!(suggest(&world.corpus, "sym:open", &[here], &late).expect("nothing"), []);
}

/// Waits for what the thread that indexes brings about.
#[track_caller]
fn eventually(search: &Search, holds: impl Fn(&SearchStatus) -> bool) -> SymbolFigures {
    let begun = Instant::now();
    loop {
        let status = search.status();
        if holds(&status) {
            return status.symbols;
        }
        assert!(begun.elapsed() < WITHIN, "it never came: {status:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn recorded(search: &Search, files: u64) -> SymbolFigures {
    eventually(search, |status| status.symbols.files == files && status.symbols.is_complete)
}

fn service(store: &Store, folder: &std::path::Path, definer: &Arc<Watched>) -> Search {
    let options = SearchOptions {
        folder: Some(folder.to_owned()),
        definer: Some(definer.clone()),
        budget_bytes: 8 << 20,
        ..SearchOptions::default()
    };
    Search::open(store.clone(), options).expect("opened")
}

#[test]
fn the_service_records_and_finds_it_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let definer = Arc::new(Watched::default());
    let store = memory_store(StoreOptions::default());
    let repo = create(&store, "demo");
    commit(&repo, "main", vec![put("a.rs", b"fn foo() {}\n"), put("b.rs", b"fn bar() {}\n")]);
    definer.is_away.store(true, Ordering::Relaxed);
    let search = service(&store, folder.path(), &definer);
    eventually(&search, |status| status.symbols.waiting_files == 2);
    definer.is_away.store(false, Ordering::Relaxed);
    recorded(&search, 2);
    let first = eventually(&search, |status| status.symbols.waiting_files == 0);
    // The second one comes when the index has just been committed, and waits for the next time.
    for (path, text) in [("c.rs", b"fn baz() {}\n"), ("d.rs", b"fn zap() {}\n")] {
        commit(&repo, "main", vec![put(path, text)]);
        eventually(&search, |status| status.indexer.position == store.feed_last());
    }
    let second = eventually(&search, |status| status.symbols.files == 4 && status.symbols.is_complete);
    assert!(second.symbols == 4 && first.symbols == 2);
    drop(search);

    let asked = definer.asked();
    let search = service(&store, folder.path(), &definer);
    assert_eq!(recorded(&search, 4).symbols, second.symbols);
    let found = find(&search.corpus(), &query_of("sym:ba"), &[place(&repo, "main")], &FindOptions::default());
    assert_eq!((found.expect("found").total_files, definer.asked()), (2, asked), "nothing is parsed again");
    search.rebuild();
    eventually(&search, |status| status.rebuilds == 1);
    recorded(&search, 4);
    assert_eq!(definer.asked(), asked + 4);
    drop(search);

    // What is lost, or nonsense, is told again.
    for (times, damage) in [(2, None), (3, Some(&b"nonsense, and longer than what a file begins with"[..]))] {
        let index = fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").path());
        let path = index.filter(|path| path.is_dir()).map(|path| path.join("symbols")).next().expect("an index");
        match damage {
            None => fs::remove_file(path).expect("removed"),
            Some(bytes) => fs::write(path, bytes).expect("written"),
        }
        let search = service(&store, folder.path(), &definer);
        recorded(&search, 4);
        assert_eq!(definer.asked(), asked + 4 * times);
        drop(search);
    }

    definer.version.store(1, Ordering::Relaxed);
    let search = service(&store, folder.path(), &definer);
    recorded(&search, 4);
    assert_eq!(definer.asked(), asked + 16, "with another grammar, all are parsed again");
    drop(search);
    store.close().expect("close");
}

#[test]
fn results_are_reduced_to_definitions_or_contents() {
    let world = World::new();
    world.put(
        "main",
        &[
            ("a.rs", b"// foo\nfn foo() { foo() }\nfn bar(foo: u32) {}\nfn baz() {\n    foo()\n}\nfn one() {} fn two_foo() {}\n"),
            ("foo.rs", b"fn other() {}\n"),
            ("foo.md", b"foo\n"),
            ("foo.bin", b"\0foo"),
        ],
    );
    for is_recorded in [false, true] {
        if is_recorded {
            world.define();
        }
        // The query, the files and matches that are counted, and the lines with the places of what is found in them.
        for (query, total, expected) in [
            ("foo select:symbol", (1, 4), ["a.rs:2 3-6", "a.rs:3 3-6", "a.rs:7 3-6 15-22"].as_slice()),
            (
                "case:yes /^fn/ path:a.rs select:symbol",
                (1, 5),
                &["a.rs:2 3-6", "a.rs:3 3-6", "a.rs:4 3-6", "a.rs:7 3-6 15-22"],
            ),
            (r"/\A\/\/ foo/ select:symbol", (0, 0), &[]),
            ("sym:foo select:symbol", (1, 2), &["a.rs:2 3-6", "a.rs:7 15-22"]),
            ("type:symbol ba select:symbol", (1, 2), &["a.rs:3 3-6", "a.rs:4 3-6"]),
            ("sym:bar foo select:symbol", (1, 4), &["a.rs:2 3-6", "a.rs:3 3-6", "a.rs:7 3-6 15-22"]),
            ("lang:rust select:symbol", (0, 0), &[]),
            ("nowhere select:symbol", (0, 0), &[]),
            (
                "foo select:content",
                (2, 7),
                &["a.rs:1 3-6", "a.rs:2 3-6 11-14", "a.rs:3 7-10", "a.rs:5 4-7", "a.rs:7 19-22", "foo.md:1 0-3"],
            ),
            ("foo -lang:rust select:content", (1, 1), &["foo.md:1 0-3"]),
            ("sym:bar select:content", (1, 1), &["a.rs:3 3-6"]),
            ("lang:rust select:content", (0, 0), &[]),
            ("type:path foo select:content", (0, 0), &[]),
        ] {
            let found = world.find(query, "main");
            let mut lines = Vec::new();
            for file in &found.files {
                assert!(file.path_matches.is_empty(), "{query}");
                for line in &file.lines {
                    let spans: Vec<String> =
                        line.matches.iter().map(|span| format!(" {}-{}", span.start, span.end)).collect();
                    lines.push(format!(
                        "{}:{}{}",
                        String::from_utf8_lossy(&file.path),
                        line.line_number,
                        spans.concat()
                    ));
                }
            }
            lines.sort();
            assert_eq!(lines, expected, "{query}");
            for query in [query.to_owned(), format!("{query} count:all")] {
                let found = world.find(&query, "main");
                assert_eq!((found.total_files, found.total_matches), total, "{query}");
                assert_eq!((found.is_exact, found.partial, found.untold_files), (true, None, 0), "{query}");
            }
        }
    }
    let blind = Corpus::in_memory(1 << 20, None).expect("a corpus");
    let refused = find(&blind, &query_of("foo select:symbol"), &[world.place("main")], &FindOptions::default());
    assert!(refused.expect_err("refused").to_string().contains("select:symbol"));
}
