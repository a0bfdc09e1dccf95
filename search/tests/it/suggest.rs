//! What a query that is being typed may become.

use std::time::Instant;

use govc_engine::ErrorKind;
use govc_search::{Place, SuggestOptions, Suggestion, finished, query::parse, suggest};
use proptest::prelude::*;

use super::world::{World, branch, commit, create, place, put};

fn world() -> World {
    let world = World::new();
    world.put(
        "main",
        &[
            ("README.md", b"Parsing made easy. The parser parses.\n"),
            ("src/parser/mod.rs", b"fn parse_http() {}\nstruct ParseError;\nparse_http();\n"),
            ("src/parser/lexer.rs", b"use ParseError;\nfn lex() { parse_http() }\n"),
            ("src/a b.rs", b"fn other() {}\n"),
            ("tests/parser_test.rs", b"parse_http ParseError parseX\n"),
            ("build.py", b"import parser\n"),
        ],
    );
    branch(&world.repo, "release/1.0", world.place("main").commit);
    world.put("release/1.0", &[("old.c", b"int parsimony;\n")]);
    world.index();
    world
}

fn given(world: &World, text: &str, places: &[Place]) -> Vec<Suggestion> {
    suggest(&world.corpus, text, places, &SuggestOptions { suggestions_max: 100, deadline: None }).expect("suggestions")
}

/// The text of each suggestion, with its count.
fn texts(world: &World, text: &str) -> Vec<String> {
    let show = |suggestion: Suggestion| match suggestion.count {
        Some(count) => format!("{} {count}", suggestion.text),
        None => suggestion.text,
    };
    given(world, text, &[world.place("main")]).into_iter().map(show).collect()
}

#[test]
fn each_field_is_completed() {
    let world = world();
    for (text, expected) in [
        ("re", &["repo:", "rev:", "regex:", "path:README.md 1"][..]),
        ("foo typ", &["type:"]),
        ("type:", &["type:file", "type:commit", "type:diff", "type:symbol", "type:path"]),
        ("t:s", &["t:symbol"]),
        ("case:y count:a", &["count:all"]),
        ("fork:", &["fork:yes", "fork:no"]),
        ("-lang:ru", &["lang:Rust 4", "lang:Ruby", "lang:RUNOFF"]),
        ("path:pars", &["path:src/parser/ 2", "path:tests/parser_test.rs 1"]),
        ("path:parser/", &["path:src/parser/lexer.rs 1", "path:src/parser/mod.rs 1"]),
        ("f:src/a", &["f:\"src/a b.rs\" 1"]),
        ("file:\"src/a b", &["file:\"src/a b.rs\" 1"]),
        ("path:rea", &["path:README.md 1"]),
        ("path:Rea", &[]),
        ("branch:", &["branch:main 1", "branch:release/1.0 1"]),
        ("b:rel", &["b:release/1.0 1"]),
        ("repo:de", &["repo:demo"]),
        ("repo:x", &[]),
        ("author:a", &[]),
        ("sym:p", &[]),
        ("/pars", &[]),
    ] {
        let mut found = texts(&world, text);
        // Linguist's languages change with its versions.
        if text.contains("lang:") {
            found.truncate(1);
            assert_eq!(found, expected[..1], "{text}");
        } else {
            assert_eq!(found, expected, "{text}");
        }
    }
}

#[test]
fn words_are_counted_as_they_are_spelled() {
    let world = world();
    let words = |text: &str| -> Vec<String> {
        texts(&world, text).into_iter().filter(|text| !text.starts_with("path:")).collect()
    };
    assert_eq!(
        words("pars"),
        ["parse 3", "parse_http 3", "ParseError 3", "parser 2", "parseX 1", "parses 1", "Parsing 1"]
    );
    assert_eq!(words("parse_"), ["parse_http 3"]);
    assert_eq!(words("Pars"), ["Parse 3", "ParseError 3", "Parsing 1"]);
    assert_eq!(words("err"), ["Error 3"]);
    assert_eq!(words("content:err"), ["content:Error 3"]);
    assert!(words("p").iter().all(|text| text.ends_with(':')), "too short to be a word");
    assert!(words("parse_http").is_empty(), "there is nothing to complete");
    world.put("main", &[("new.rs", b"parsnip\n")]);
    assert!(words("parsn").is_empty(), "what is not indexed is left out");
    world.index();
    assert_eq!(words("parsn"), ["parsnip 1"]);
}

#[test]
fn only_the_places_are_looked_at() {
    let world = world();
    let all = |text: &str| given(&world, text, &[world.place("main")]);
    let questions =
        ["par", "parse", "PAR", "src", "lang:", "path:", "path:src/", "repo:", "branch:", "in", "content:ot"];
    let before = questions.map(all);
    assert!(texts(&world, "parsi").iter().all(|text| !text.contains("parsimony")), "of another branch");
    let other = create(&world.store, "other");
    let text = |number: usize| format!("par{number:04} parse parse_{number} Parsimony\n").repeat(3).into_bytes();
    commit(&other, "main", (0..300).map(|number| put(&format!("src/par{number}.c"), &text(number))).collect());
    world.index();
    assert_eq!(questions.map(all), before);
    // Of several places, the conditions in front choose.
    let places = [world.place("main"), place(&other, "main")];
    let shown = |text: &str| -> Vec<String> {
        given(&world, text, &places).into_iter().map(|suggestion| suggestion.text).collect()
    };
    assert_eq!(shown("repo:"), ["repo:demo", "repo:other"]);
    assert!(shown("repo:other parsi").contains(&"Parsimony".to_owned()));
    assert!(!shown("repo:demo parsi").contains(&"Parsimony".to_owned()));
    assert_eq!(given(&world, "branch:m", &places)[0].count, Some(2));
}

#[test]
fn names_that_need_quotes_get_them() {
    let world = World::new();
    world.put(
        "main",
        &[("odd \"name\" (1)+.rs", b"x\n"), ("AND", b"x\n"), ("line\nbreak.rs", b"x\n"), (".hidden", b"x\n")],
    );
    ["a{b}", "plain"].iter().for_each(|name| branch(&world.repo, name, world.place("main").commit));
    for text in ["path:", "foo -path:odd", "file:\"odd \\\"", "path:A", "rev:", "branch:", "(foo OR path:.h", "path:l"]
    {
        for suggestion in given(&world, text, &[world.place("main")]) {
            let whole = format!("{}{}", suggestion.query, if text.starts_with('(') { ")" } else { "" });
            parse(&whole, 0).unwrap_or_else(|error| panic!("{whole}: {error}"));
            assert!(suggestion.query.ends_with(&suggestion.text) && suggestion.query.starts_with(finished(text)));
        }
    }
    assert_eq!(texts(&world, "path:odd"), ["path:\"odd \\\"name\\\" (1)+.rs\" 1"]);
    assert!(texts(&world, "path:l").is_empty(), "no query can have a line break");
    assert_eq!(texts(&world, "branch:"), ["branch:main 1", "branch:plain 1"]);
    assert_eq!(texts(&world, "rev:a"), ["rev:\"a{b}\" 1"]);
}

#[test]
fn limits_and_deadlines_hold() {
    let world = world();
    let ask = |text: &str, suggestions_max, deadline| {
        suggest(&world.corpus, text, &[world.place("main")], &SuggestOptions { suggestions_max, deadline })
    };
    assert_eq!(ask("pars", 2, None).expect("suggestions").len(), 2);
    assert!(ask("pars", 0, None).expect("suggestions").is_empty());
    assert_eq!(ask("", usize::MAX, None).expect("suggestions").len(), 18, "every field");
    for text in ["pars", "path:s", "lang:r", "branch:m", "repo:d"] {
        let late = ask(text, 10, Some(Instant::now())).expect("no error");
        assert!(late.iter().all(|suggestion| suggestion.count.is_none()), "{late:?}");
    }
    let error = ask(&"x".repeat(20_000), 10, None).expect_err("refused");
    assert_eq!(error.kind(), &ErrorKind::Invalid);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_text_has_suggestions_that_begin_like_it(texts in proptest::collection::vec("[ -~é\u{3000}\t]{0,12}|(-|\\()?(path|lang|rev|branch|repo|type|c):\"?[a-zP./]{0,3}", 20)) {
        let world = world();
        let places = [world.place("main"), world.place("release/1.0")];
        for text in &texts {
            for suggestion in given(&world, text, &places) {
                prop_assert!(suggestion.query.starts_with(finished(text)), "{} {:?}", text, suggestion);
                prop_assert!(suggestion.query.ends_with(&suggestion.text), "{} {:?}", text, suggestion);
                prop_assert!(&suggestion.query != text, "{}", text);
            }
        }
    }
}
