//! Search by relevance, and suggestions, over HTTP.

use serde_json::{Value, json};

use crate::{
    http::encode,
    search::{commit, indexed},
    server::{Place, Server},
};

fn fulltext(server: &Server, rest: &str) -> Value {
    server.http().get(&format!("/api/v1/search/fulltext?{rest}")).expect(200)
}

fn paths(answer: &Value) -> Vec<String> {
    let results = answer["results"].as_array().expect("results");
    results
        .iter()
        .map(|file| format!("{}:{}", file["repo"].as_str().unwrap_or(""), file["path"].as_str().unwrap_or("")))
        .collect()
}

fn filled() -> (Place, Server) {
    let place = Place::new();
    let server = place.serve();
    server.create("one");
    server.create("two");
    let other = "words of no interest\n".repeat(30);
    commit(
        &server,
        "one",
        "begin",
        &[
            ("src/parse.rs", "fn parseHttpRequest() {}\n// parse the http request, parse it again\n"),
            ("src/request.rs", "struct Request;\n"),
            ("src/other.rs", &other),
            ("notes.md", "a request to all\n"),
        ],
    );
    commit(&server, "two", "begin", &[("main.go", "package main // http\n"), ("other.go", &other)]);
    (place, server)
}

#[test]
fn the_most_relevant_comes_first() {
    let (_place, server) = filled();
    let mut before: Option<Vec<String>> = None;
    for is_indexed in [false, true] {
        if is_indexed {
            indexed(&server);
        }
        let answer = fulltext(&server, "q=parse%20http%20request");
        let found = paths(&answer);
        assert_eq!(found.first().map(String::as_str), Some("one:src/parse.rs"), "{answer}");
        assert_eq!((&answer["total_files"], &answer["exact"]), (&json!(4), &json!(true)), "{answer}");
        assert_eq!(answer["words"][0], json!({"word": "parse", "contents": 1}));
        let first = &answer["results"][0];
        assert_eq!(first["words"][0], json!({"word": "parse", "count": 3}), "{first}");
        assert_eq!(first["lines"].as_array().map(Vec::len), Some(2), "{first}");
        assert_eq!(before.get_or_insert_with(|| found.clone()), &found, "whatever is indexed");
        // A repository alone, narrowed, and page by page.
        let one = server.http().get("/api/v1/repos/one/search/fulltext?q=request%20path:src/").expect(200);
        assert_eq!(paths(&one).len(), 2, "{one}");
        let mut pages = Vec::new();
        let mut rest = "q=parse%20http%20request&limit=1".to_owned();
        loop {
            let page = fulltext(&server, &rest);
            pages.extend(paths(&page));
            match page["next_cursor"].as_str() {
                Some(next) => rest = format!("q=parse%20http%20request&limit=1&cursor={}", encode(next)),
                None => break,
            }
        }
        assert_eq!(pages, found);
    }
    for rest in ["q=", "q=lang:rust", "q=type:commit%20a", "q=a&cursor=x", "q=word&lines=2&context=1000"] {
        server.http().get(&format!("/api/v1/search/fulltext?{rest}")).problem(400);
    }
    assert_eq!(fulltext(&server, "q=nowhereatall")["total_files"], 0);
}

#[test]
fn a_query_is_completed() {
    let (_place, server) = filled();
    indexed(&server);
    let suggest = |path: &str, q: &str| -> Vec<(String, String)> {
        let answer = server.http().get(&format!("/api/v1/{path}suggestions?q={}", encode(q))).expect(200);
        let suggestions = answer["suggestions"].as_array().expect("suggestions");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        suggestions.iter().map(|suggestion| (text(&suggestion["kind"]), text(&suggestion["query"]))).collect()
    };
    let has = |found: &[(String, String)], kind: &str, query: &str| {
        assert!(found.contains(&(kind.to_owned(), query.to_owned())), "{kind} {query}: {found:?}");
    };
    has(&suggest("search/", "la"), "field", "lang:");
    has(&suggest("search/", "http lang:ru"), "language", "http lang:Rust");
    has(&suggest("search/", "requ"), "word", "request");
    has(&suggest("search/", "path:pars"), "path", "path:src/parse.rs");
    has(&suggest("search/", "repo:t"), "repo", "repo:two");
    has(&suggest("search/", "branch:m"), "branch", "branch:main");
    has(&suggest("search/", "type:co"), "value", "type:commit");
    // Another repository shows in nothing.
    assert!(suggest("repos/two/search/", "requ").is_empty());
    // What is typed need not be a query, nor name what is there.
    for q in ["(a OR requ", "rev:nowhere requ", "\"", "-", ""] {
        suggest("search/", q);
    }
    server.http().get("/api/v1/search/suggestions?q=a&limit=0").problem(400);
    server.http().get("/api/v1/search/suggestions?q=a&limit=101").problem(400);
}
