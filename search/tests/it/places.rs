//! Several repositories in one search: what cannot be read of them, and what must not be seen of them.

use std::{collections::BTreeSet, sync::Arc};

use govc_engine::{Durability, ErrorKind, RepoName, RepoSettings};
use govc_search::{Corpus, Explain, FindOptions, Indexer, IndexerState, IndexerStatus, Partial, find};
use parking_lot::Mutex;

use super::world::{World, commit, commit_deep, create, on_a_large_stack, place, put, query_of, source};

#[test]
fn what_another_repository_has_is_not_found() {
    let world = source();
    let other = create(&world.store, "other");
    commit(&other, "main", vec![put("secret.rs", b"fn secret() {}\n"), put("same.md", b"govc.\nA server of git.\n")]);
    world.index();
    world.check("secret", &[]);
    let places = [world.place("HEAD"), place(&other, "HEAD")];
    let found = find(&world.corpus, &query_of("content:server"), &places, &FindOptions::default()).expect("found");
    let names: BTreeSet<_> = found.files.iter().map(|file| (file.repo.as_str(), file.path.clone())).collect();
    assert_eq!(names, BTreeSet::from([("demo", b"README.md".to_vec()), ("other", b"same.md".to_vec())]));
    let found = find(&world.corpus, &query_of("select:repo server"), &places, &FindOptions::default()).expect("found");
    assert_eq!(found.total_files, 2);
}

#[test]
fn a_repository_in_memory_is_searched_and_not_indexed() {
    let world = source();
    let settings = RepoSettings { durability: Durability::Memory, ..super::settings() };
    let name = RepoName::new("volatile").expect("name");
    let repo = world.store.create(&name, settings, "test").expect("create");
    commit(&repo, "main", vec![put("only.rs", b"fn only_in_memory() {}\n")]);
    world.index();
    assert_eq!(world.corpus.figures().blobs, 4, "those of the other repository");
    let found = find(&world.corpus, &query_of("only_in_memory"), &[place(&repo, "HEAD")], &FindOptions::default());
    assert_eq!(found.expect("found").total_files, 1);
}

#[test]
fn directories_nested_too_deep_spoil_one_repository_only() {
    on_a_large_stack(|| {
        let world = World::new();
        world.put("main", &[("a.rs", b"a needle\n")]);
        let (deep, other) = (create(&world.store, "deep"), create(&world.store, "other"));
        commit_deep(&deep, "main", 1100);
        commit(&other, "main", vec![put("b.rs", b"a needle\n")]);
        let places = [world.place("HEAD"), place(&deep, "HEAD"), place(&other, "HEAD")];
        let status: Arc<Mutex<IndexerStatus>> = Arc::default();
        for is_indexed in [false, true] {
            if is_indexed {
                let mut indexer = Indexer::new(world.store.clone(), world.corpus.clone(), status.clone());
                indexer.index_all(&|| false).expect("indexed");
            }
            let found = find(&world.corpus, &query_of("needle"), &places, &FindOptions::default()).expect("an answer");
            let names: BTreeSet<_> = found.files.iter().map(|file| file.repo.as_str()).collect();
            assert_eq!(names, BTreeSet::from(["demo", "other"]));
            assert_eq!((found.partial, found.is_exact), (Some(Partial::Unreadable), false));
            // Whoever asks for this one alone hears why.
            let error = find(&world.corpus, &query_of("needle"), &places[1..2], &FindOptions::default());
            let error = error.expect_err("refused");
            assert_eq!(*error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("deep at HEAD"), "{error}");
            assert!(error.to_string().contains("nest deeper than 1024"), "{error}");
        }
        // The index says that there is something that it cannot read, and goes on.
        let status = status.lock().clone();
        assert_eq!((status.state, status.position), (IndexerState::Following, world.store.feed_last()));
        assert!(status.unreadable > 0);
        let error = status.last_error.expect("an error");
        assert!(error.contains("nest"), "{error}");
        assert_eq!(world.corpus.figures().blobs, 1, "both have the same content");
    });
}

#[test]
fn directories_nest_as_deep_from_the_cache_as_without() {
    on_a_large_stack(|| {
        let world = World::new();
        commit_deep(&world.repo, "shallow", 1000);
        commit_deep(&world.repo, "deepest", 1024);
        commit_deep(&world.repo, "deeper", 1025);
        let fresh = || Corpus::in_memory(8 << 20, None).expect("corpus");
        let find = |corpus: &Corpus, branch: &str| {
            let found = find(corpus, &query_of("needle"), &[world.place(branch)], &FindOptions::default());
            found.map(|found| found.total_files).map_err(|error| error.kind().clone())
        };
        for branch in ["shallow", "deepest", "deeper"] {
            let corpus = fresh();
            let expected = if branch == "deeper" { Err(ErrorKind::Invalid) } else { Ok(1) };
            assert_eq!(find(&corpus, branch), expected, "{branch} alone");
            // Most of the others is in it by now.
            assert_eq!(find(&corpus, "shallow"), Ok(1));
            assert_eq!(find(&corpus, branch), expected, "{branch} when the rest is known");
            assert_eq!(find(&corpus, "deeper"), Err(ErrorKind::Invalid));
            assert_eq!(find(&corpus, "deepest"), Ok(1));
        }
    });
}

/// What of it is not how long it took.
fn said(explain: &Explain) -> String {
    let patterns: Vec<_> =
        explain.patterns.iter().map(|known| (&known.pattern, &known.grams, known.candidates)).collect();
    format!("{patterns:?} {} {} {}", explain.files_in_scope, explain.files_seen, explain.files_read)
}

#[test]
fn an_explanation_is_about_what_was_searched() {
    let world = source();
    let options = FindOptions { counts_candidates: true, ..FindOptions::default() };
    world.index();
    let queries = ["needle", "content:needle", "content:/need.*secret/", "-needle", "sym:needle", "govc OR needle"];
    let explained = |query: &str| {
        let found = find(&world.corpus, &query_of(query), &[world.place("HEAD")], &options);
        said(&found.expect("found").explain)
    };
    let before = queries.map(explained);
    let other = create(&world.store, "other");
    let secrets =
        (0..20).map(|number| put(&format!("s{number}.rs"), format!("fn needle() {{ secret({number}) }}\n").as_bytes()));
    commit(&other, "main", secrets.collect());
    let places = [world.place("HEAD"), place(&other, "HEAD")];
    for is_indexed in [false, true] {
        if is_indexed {
            world.index();
            assert_eq!(world.corpus.figures().blobs, 24, "those of both");
        }
        assert_eq!(queries.map(explained), before, "whatever another repository has");
        // Nor where the query leaves the other out.
        let found = find(&world.corpus, &query_of("repo:demo content:govc"), &places, &options);
        let explain = found.expect("found").explain;
        assert_eq!((explain.files_in_scope, explain.patterns[1].candidates), (5, Some(2)));
        // But what was searched is counted.
        let found = find(&world.corpus, &query_of("content:needle"), &places, &options);
        let explain = found.expect("found").explain;
        let known = if is_indexed { 20 } else { 0 };
        assert_eq!((explain.files_in_scope, explain.patterns[0].candidates), (25, Some(known)));
    }
}

#[test]
fn a_language_is_the_same_before_and_after_indexing() {
    // What tells C++ from C in a header stands behind the first chunks.
    let header = format!(
        "{}class Shape {{\npublic:\n  virtual ~Shape();\n}};\n",
        "/* a long comment to begin with */\n".repeat(120)
    );
    let answers = [false, true].map(|is_indexed| {
        let world = World::new();
        world.put("main", &[("shape.h", header.as_bytes()), ("plain.h", b"int shape(void);\n")]);
        if is_indexed {
            world.index();
        }
        ["lang:c++", "lang:c"].map(|query| world.lines(query, "HEAD"))
    });
    let expected = [vec!["shape.h".to_owned()], vec!["plain.h".to_owned()]];
    assert_eq!(answers, [expected.clone(), expected]);
}
