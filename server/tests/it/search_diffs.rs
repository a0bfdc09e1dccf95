//! `type:diff` over HTTP and from the command line: the commits are those of `git log -G`, the lines those of its diffs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    git::Git,
    history,
    http::encode,
    search::{indexed, streamed},
    server::{Place, Server, govc},
};

fn diffs(server: &Server, query: &str) -> Value {
    server.http().get(&format!("/api/v1/repos/repo/search/commits?q={}", encode(query))).expect(200)
}

fn hashes(answer: &Value) -> Vec<String> {
    let results = answer["results"].as_array().expect("results");
    results.iter().map(|commit| commit["hash"].as_str().expect("a hash").to_owned()).collect()
}

#[test]
fn commits_are_those_of_git() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let source = history::generated(&place, &git);
    server.create("repo");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("repo")]);
    for is_indexed in [false, true] {
        if is_indexed {
            indexed(&server);
        }
        for (query, regex) in [
            ("\"snapshot delta\"", "snapshot delta"),
            ("/version 19[0-9]$/", "version 19[0-9]$"),
            ("/^line (1|2)0 /", "^line (1|2)0 "),
            ("nowhere_at_all", "nowhere_at_all"),
        ] {
            let log = git.ok(
                &source,
                &[
                    "log",
                    "-s",
                    "--format=%H",
                    "--diff-merges=first-parent",
                    "--no-renames",
                    "-E",
                    &format!("-G{regex}"),
                    "main",
                ],
            );
            let expected: BTreeSet<&str> = log.lines().collect();
            let query = format!("type:diff case:yes content:{query} count:all rev:main");
            let (mut found, mut cursor) = (Vec::new(), String::new());
            loop {
                let answer = diffs(&server, &query);
                let url = format!("/api/v1/repos/repo/search/commits?limit=7&q={}{cursor}", encode(&query));
                let page = server.http().get(&url).expect(200);
                assert_eq!((&answer["total_commits"], &answer["exact"]), (&json!(expected.len()), &json!(true)));
                found.extend(hashes(&page));
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={}", encode(next)),
                    None => break,
                }
            }
            let distinct: BTreeSet<&str> = found.iter().map(String::as_str).collect();
            assert_eq!((&distinct, found.len()), (&expected, expected.len()), "{query}, indexed: {is_indexed}");
        }
    }
}

#[test]
fn lines_have_their_signs_and_numbers() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "a.rs", b"one\nneedle old\nthree\n", "begin");
    git.commit(&work, "a.rs", b"zero\none\nneedle new\nthree\n", "change\n\nwith needle in words alone");
    git.commit(&work, "b.rs", b"needle\n", "another");
    git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
    let answer = diffs(&server, "type:diff needle path:a.rs");
    assert_eq!(
        (&answer["total_commits"], &answer["total_files"], &answer["total_lines"]),
        (&json!(2), &json!(2), &json!(3)),
        "{answer}"
    );
    let blob = |rev: &str| git.ok(&work, &["rev-parse", rev]).trim().to_owned();
    assert_eq!(
        answer["results"][0]["files"],
        json!([{"path": "a.rs", "status": "modified", "old_hash": blob("HEAD~2:a.rs"), "new_hash": blob("HEAD~1:a.rs"),
        "added": 1, "removed": 1, "lines": [
            {"sign": "-", "line_number": 2, "content": "needle old", "matches": [{"start": 0, "end": 6}]},
            {"sign": "+", "line_number": 3, "content": "needle new", "matches": [{"start": 0, "end": 6}]},
        ]}])
    );
    assert_eq!(answer["results"][1]["files"][0]["status"], "added");
    // Everywhere, as a stream, and from the command line.
    let all = server.http().get(&format!("/api/v1/search?q={}", encode("type:diff needle"))).expect(200);
    assert_eq!(all["total_commits"], 3);
    let url = format!("/api/v1/search?q={}", encode("type:diff needle"));
    let events = streamed(&server, &url, "application/x-ndjson");
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["diff", "diff", "diff", "end"]);
    assert_eq!((&events[3].1["total"], &events[3].1["total_matches"]), (&json!(3), &json!(4)));
    let output = govc()
        .args(["search", "type:diff", "needle", "path:b.rs", "--server", &format!("http://{}", server.address())])
        .output()
        .expect("govc runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("\nb.rs\n+1:needle\n\n1 commit in "), "{text}");
    // What has no meaning is said.
    for query in ["type:diff sym:needle", "type:diff needle select:directory", "type:diff needle (a"] {
        let url = format!("/api/v1/repos/repo/search/commits?q={}", encode(query));
        server.http().get(&url).problem(400);
    }
    let url = format!("/api/v1/repos/repo/search/files?q={}", encode("type:diff needle"));
    server.http().get(&url).problem(400);
}
