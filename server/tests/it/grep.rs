//! Grep over HTTP finds, in every combination of options, the lines that `git grep` finds in the same commit.

use serde_json::{Value, json};

use crate::{
    git::Git,
    history,
    server::{Place, Server},
};

/// What the server found: path, line number and text of each line, in its order.
fn found(server: &Server, body: &Value) -> (u64, Vec<(String, u64, String)>) {
    let answer = server.http().post("/api/v1/repos/repo/grep", body).expect(200);
    let line = |item: &Value| {
        let path = item["path"].as_str().unwrap_or_else(|| panic!("{item}")).to_owned();
        let number = item["line_number"].as_u64().unwrap_or_else(|| panic!("{item}"));
        let text = item["content"].as_str().unwrap_or_else(|| panic!("{item}")).to_owned();
        (path, number, text.trim_end_matches(['\r', '\n']).to_owned())
    };
    let lines = answer["results"].as_array().expect("results").iter().map(line).collect();
    (answer["total"].as_u64().expect("a total"), lines)
}

#[test]
fn grep_finds_what_git_grep_finds() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let source = history::generated(&place, &git);
    server.create("repo");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("repo")]);
    // Each with the options that mean the same to git; -I leaves binary files out, as the server does.
    let cases: [(Value, &[&str]); 14] = [
        (json!({ "pattern": "snapshot delta" }), &["-F"]),
        (json!({ "pattern": "SNAPSHOT Delta", "case_sensitive": false }), &["-F", "-i"]),
        (json!({ "pattern": "SNAPSHOT Delta" }), &["-F"]),
        (json!({ "pattern": "store", "word_regexp": true }), &["-F", "-w"]),
        (json!({ "pattern": "tor", "word_regexp": true }), &["-F", "-w"]),
        (json!({ "pattern": "echo tool", "line_regexp": true }), &["-E"]),
        (json!({ "pattern": "version 19[0-9]$", "regex": true }), &["-E"]),
        (json!({ "pattern": "^line (1|2)0 .*version", "regex": true }), &["-E"]),
        (json!({ "pattern": "(publish|journal) (fn|let)", "regex": true, "case_sensitive": false }), &["-E", "-i"]),
        (json!({ "pattern": "version 1", "path": "hot.txt", "invert_match": true }), &["-F", "-v", "--", "hot.txt"]),
        (json!({ "pattern": "commit", "path": "src/mod3" }), &["-F", "--", "src/mod3"]),
        (json!({ "pattern": "a.b", "regex": false }), &["-F"]),
        (json!({ "pattern": "\\.", "regex": true, "path": "hot.txt" }), &["-E", "--", "hot.txt"]),
        (json!({ "pattern": "there is no such line anywhere" }), &["-F"]),
    ];
    for (mut body, options) in cases {
        let line_regexp = body["line_regexp"] == true;
        body["ref"] = json!("main");
        body["limit"] = json!(10_000);
        // git grep has no --line-regexp: anchors say the same.
        let pattern = body["pattern"].as_str().expect("a pattern");
        let pattern = if line_regexp { format!("^{pattern}$") } else { pattern.to_owned() };
        let at = options.iter().position(|&option| option == "--").unwrap_or(options.len());
        let head = ["grep", "-n", "-I", "-z", "--no-color"];
        let arguments = [&head[..], &options[..at], &["-e", &pattern, "main"], &options[at..]].concat();
        let output = git.run(&source, &arguments);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
        let mut wanted = records(&output.stdout);
        assert!(wanted.len() < 10_000, "{body} finds more than an answer holds");
        wanted.sort();
        let (total, mut got) = found(&server, &body);
        got.sort();
        assert_eq!(total as usize, got.len(), "{body}");
        assert_eq!(got, wanted, "{body}");
    }
}

/// What `git grep -n -z` printed: `main:path NUL number NUL text LF`; a path may hold newlines.
fn records(mut output: &[u8]) -> Vec<(String, u64, String)> {
    let mut records = Vec::new();
    let mut take = |until: u8| {
        let end = output.iter().position(|&byte| byte == until)?;
        let field = String::from_utf8_lossy(&output[..end]).into_owned();
        output = &output[end + 1..];
        Some(field)
    };
    while let Some(path) = take(0) {
        let number = take(0).and_then(|number| number.parse().ok()).expect("a number");
        let text = take(b'\n').expect("a text");
        records.push((path.trim_start_matches("main:").to_owned(), number, text.trim_end_matches('\r').to_owned()));
    }
    records
}

#[test]
fn limits_and_context_are_kept() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let source = history::generated(&place, &git);
    server.create("repo");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("repo")]);
    let (_, lines) = found(&server, &json!({ "pattern": "e", "ref": "main", "limit": 7 }));
    assert_eq!(lines.len(), 7);
    let (_, lines) = found(&server, &json!({ "pattern": "e", "ref": "main", "max_count": 2, "limit": 10_000 }));
    let mut of_one = std::collections::HashMap::new();
    for (path, ..) in &lines {
        *of_one.entry(path).or_insert(0) += 1;
    }
    assert!(of_one.len() > 20 && of_one.values().all(|&count| count <= 2), "{of_one:?}");
    let body = json!({ "pattern": "line 5 ", "ref": "main", "path": "hot.txt", "context": 2 });
    let answer = server.http().post("/api/v1/repos/repo/grep", &body).expect(200);
    let text = answer["results"].to_string();
    for number in 3..=7 {
        assert!(text.contains(&format!("line {number} was")), "line {number} is near: {text}");
    }
    assert!(!text.contains("line 8 was") && !text.contains("line 2 was"), "{text}");
}

#[test]
fn bad_searches_are_refused() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let http = server.http();
    let path = "/api/v1/repos/repo/grep";
    crate::rest_commits::commit(&server, crate::rest_commits::put("file", "content\n"), json!({})).expect(201);
    let bodies = [
        json!({}),
        json!({ "pattern": "" }),
        json!({ "pattern": "two\nlines" }),
        json!({ "pattern": "(", "regex": true }),
        json!({ "pattern": "\\w{1000}{1000}{1000}", "regex": true }),
        json!({ "pattern": "(".repeat(10_000), "regex": true }),
        json!({ "pattern": 7 }),
        json!({ "pattern": "a", "limit": -1 }),
        json!({ "pattern": "a", "context": "much" }),
    ];
    for body in bodies {
        http.post(path, &body).problem(400);
    }
    http.post(path, &json!({ "pattern": "a", "ref": "nothing" })).problem(404);
    http.post("/api/v1/repos/nobody/grep", &json!({ "pattern": "a" })).problem(404);
    assert_eq!(found(&server, &json!({ "pattern": "(" })).0, 0, "a text is no expression");
    assert_eq!(found(&server, &json!({ "pattern": "content" })).0, 1);
}
