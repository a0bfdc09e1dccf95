//! Search over HTTP and from the command line: a push is found at once, pages are of one moment, counts are git's, nothing
//! of another repository shows, and kill -9 costs nothing.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{
    git::Git,
    history,
    http::encode,
    server::{BUILT, Place, Server, govc},
};

fn search(server: &Server, query: &str) -> Value {
    server.http().get(&format!("/api/v1/search?q={}", encode(query))).expect(200)
}

pub(crate) fn commit(server: &Server, repo: &str, message: &str, files: &[(&str, &str)]) -> String {
    let changes: Vec<Value> =
        files.iter().map(|(path, content)| json!({ "op": "put", "path": path, "content": content })).collect();
    let author = json!({ "name": "Ada", "email": "ada@example.org" });
    let body = json!({ "branch": "main", "message": message, "author": author, "changes": changes });
    let answer = server.http().post(&format!("/api/v1/repos/{}/commits", encode(repo)), &body).expect(201);
    answer["hash"].as_str().expect("a hash").to_owned()
}

/// The `repo:path:line` of each line, or `repo:path` of a file without, in their order by name.
fn lines(answer: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for file in answer["results"].as_array().expect("results") {
        let name = format!("{}:{}", file["repo"].as_str().expect("a repo"), file["path"].as_str().expect("a path"));
        let lines = file["lines"].as_array().expect("lines");
        match lines.is_empty() {
            true => found.push(name),
            false => found.extend(lines.iter().map(|line| format!("{name}:{}", line["line_number"]))),
        }
    }
    found.sort();
    found
}

/// Waits until everything is indexed.
pub(crate) fn indexed(server: &Server) -> Value {
    let begun = Instant::now();
    loop {
        let statistics = server.http().get("/api/v1/search/statistics").expect(200);
        if statistics["state"] == "following" && statistics["behind"] == 0 {
            return statistics;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{statistics}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_is_acknowledged_is_found_at_once() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    for round in 0..10 {
        let text = format!("fn pushed_{round}() {{}}\n");
        git.commit(&work, "pushed.rs", text.as_bytes(), "push");
        git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
        assert_eq!(lines(&search(&server, &format!("pushed_{round}"))), ["repo:pushed.rs:1"], "round {round}");
        let before = search(&server, &format!("pushed_{}", round + 1));
        assert_eq!((&before["total_files"], &before["exact"]), (&json!(0), &json!(true)));
    }
    indexed(&server);
    assert_eq!(lines(&search(&server, "sym:pushed_9")), ["repo:pushed.rs:1"]);
    assert_eq!(lines(&search(&server, "pushed_3")), Vec::<String>::new(), "it was replaced");
    let old = search(&server, "pushed_3 rev:main~6");
    assert_eq!(lines(&old), ["repo:pushed.rs:1"]);
    // What commits say may come a moment later.
    let begun = Instant::now();
    while indexed(&server)["messages"] != 10 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", indexed(&server));
        std::thread::sleep(Duration::from_millis(20));
    }
    let metrics = server.http().get("/metrics").text();
    for line in ["govc_search_files 10\n", "govc_search_commits 10\n", "govc_search_messages 10\n"] {
        assert!(metrics.contains(line), "{line} {metrics}");
    }
}

#[test]
fn counts_are_those_of_git_grep() {
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
        for (query, options) in [
            ("case:yes content:\"snapshot delta\"", ["-F", "-e", "snapshot delta"].as_slice()),
            ("content:version case:no", &["-F", "-i", "-e", "version"]),
            ("content:/version 19[0-9]$/", &["-E", "-e", "version 19[0-9]$"]),
            ("content:/^line (1|2)0 .*version/", &["-E", "-e", "^line (1|2)0 .*version"]),
            ("content:commit path:src/mod3/**", &["-F", "-i", "-e", "commit", "--", "src/mod3"]),
            ("content:nowhere_at_all", &["-F", "-i", "-e", "nowhere_at_all"]),
        ] {
            let at = options.iter().position(|&option| option == "--").unwrap_or(options.len());
            let arguments =
                [&["grep", "-c", "-I", "-z", "--no-color"], &options[..at], &["main"], &options[at..]].concat();
            let output = git.run(&source, &arguments);
            assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
            let files = String::from_utf8_lossy(&output.stdout).lines().count();
            let answer = search(&server, &format!("{query} rev:main count:all"));
            assert_eq!((&answer["total_files"], &answer["exact"]), (&json!(files), &json!(true)), "{query}: {answer}");
        }
    }
}

#[test]
fn pages_are_of_one_moment() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let files: Vec<(String, String)> =
        (0..30).map(|number| (format!("f{number:02}.txt"), format!("common {number}\n"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    commit(&server, "repo", "begin", &files);
    for route in ["/api/v1/search", "/api/v1/repos/repo/search/content"] {
        let (mut paths, mut url) = (Vec::new(), format!("{route}?q=common&limit=7"));
        loop {
            let reply = server.http().get(&url);
            let answer = reply.expect(200);
            paths.extend(answer["results"].as_array().expect("results").iter().map(|file| file["path"].to_string()));
            // What comes between two pages is not on them.
            let (new, text) = (format!("new{}.txt", paths.len()), format!("common to {route}\n"));
            commit(&server, "repo", "more", &[(&new, &text), ("f29.txt", &format!("{route} {}\n", paths.len()))]);
            let Some(next) = reply.next_page() else {
                assert_eq!(answer["exact"], true);
                break;
            };
            url = next;
        }
        let count = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), count, "each file once");
        let is_first = route.ends_with("search");
        assert_eq!(count, if is_first { 30 } else { 34 }, "{paths:?}");
    }
    for bad in ["limit=0", "cursor=x", "cursor=v1-zz", "context=101", "unknown=1"] {
        server.http().get(&format!("/api/v1/search?q=common&{bad}")).problem(400);
    }
}

#[test]
fn queries_say_what_is_wrong_with_them() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    for (query, part) in [
        ("lnag:rust x", "lang"),
        ("(a", "not closed"),
        ("/(/", "regex"),
        ("", "empty"),
        ("author:ada content:x", "commits"),
        ("type:diff sym:x", "sym"),
        ("lang:nonsense x", "nonsense"),
    ] {
        let problem = server.http().get(&format!("/api/v1/search?q={}", encode(query))).problem(400);
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains(part), "{query}: {detail}");
    }
    // A repository without commits has nothing to find; a revision that is not there is named.
    assert_eq!(search(&server, "x")["total_files"], 0);
    server.http().get("/api/v1/repos/repo/search/content?q=x%20rev:nowhere").problem(404);
    server.http().get("/api/v1/repos/none/search/content?q=x").problem(404);
}

#[test]
fn queries_that_try_to_hurt_are_answered_or_refused() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let long = format!("{}needle{}\n", "x".repeat(3_000_000), "y".repeat(3_000_000));
    commit(&server, "repo", "hostile", &[("long.txt", &long), ("deep.rs", &"(".repeat(100_000)), ("a.txt", "aaa\n")]);
    indexed(&server);
    assert_eq!(lines(&search(&server, "content:needle")), ["repo:long.txt:1"]);
    let words: Vec<String> = (0..60).map(|number| format!("w{number}")).collect();
    for query in [
        "/.*/".to_owned(),
        "/(a|aa)+$/".to_owned(),
        r"/\w{50}/".to_owned(),
        words.join(" OR "),
        format!("/{}/", words.join("|")),
        format!("{}a{}", "(".repeat(60), ")".repeat(60)),
        "sym:/x/".to_owned(),
    ] {
        search(&server, &query);
    }
    for query in ["(".repeat(5000), "a ".repeat(20_000), r"/\w{1000}/".to_owned()] {
        let status = server.http().get(&format!("/api/v1/search?q={}", encode(&query))).status;
        assert!(matches!(status, 400 | 414 | 431), "{status}");
    }
    assert_eq!(search(&server, "aaa")["total_files"], 1);
}

#[test]
fn commits_are_found_by_message_author_and_date() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    for number in 0..12 {
        commit(&server, "repo", &format!("fix leak {number}\n\nin the parser"), &[("f", &number.to_string())]);
    }
    let find =
        |query: &str| server.http().get(&format!("/api/v1/repos/repo/search/commits?limit=5&q={}", encode(query)));
    let first = find("leak");
    let answer = first.expect(200);
    assert_eq!(answer["results"][0]["message"], "fix leak 11\n\nin the parser\n");
    assert_eq!(answer["results"][0]["message_matches"], json!([{ "start": 4, "end": 8 }]));
    let (mut count, mut next) = (5, first.next_page());
    while let Some(url) = next {
        let reply = server.http().get(&url);
        count += reply.expect(200)["results"].as_array().expect("results").len();
        next = reply.next_page();
    }
    assert_eq!(count, 12);
    let total = |query: &str| find(query).expect(200)["total_commits"].as_u64();
    assert_eq!(total("\"leak 3\""), Some(1));
    assert_eq!(total("leak count:all"), Some(12));
    assert_eq!(total("author:ada count:all"), Some(12));
    assert_eq!(total("author:bob count:all"), Some(0));
    assert_eq!(total("parser after:yesterday -\"leak 1\" count:all"), Some(9));
    assert_eq!(total("parser before:2001-01-01 count:all"), Some(0));
    find("content:x").problem(400);
    assert_eq!(search(&server, "type:commit leak count:all")["total_commits"], 12);
}

#[test]
fn the_index_outlives_a_kill_and_can_be_made_anew() {
    let place = Place::new();
    let mut server = place.serve();
    server.create("repo");
    server.create("other");
    for round in 0..6 {
        commit(&server, "repo", "work", &[("f.txt", &format!("text of round {round}\n")), ("g.txt", "stays\n")]);
        if round % 2 == 0 {
            indexed(&server);
        }
        server = server.kill().start();
        assert_eq!(lines(&search(&server, &format!("\"round {round}\""))), ["repo:f.txt:1"]);
        assert_eq!(lines(&search(&server, "stays")), ["repo:g.txt:1"]);
    }
    let before = indexed(&server);
    assert_eq!(before["files"], 7);
    assert_eq!(server.http().post("/api/v1/search/rebuild", &json!({})).expect(202)["state"], "started");
    let begun = Instant::now();
    loop {
        // Searches go on meanwhile.
        assert_eq!(lines(&search(&server, "stays")), ["repo:g.txt:1"]);
        let statistics = server.http().get("/api/v1/search/statistics").expect(200);
        if statistics["rebuilds"] == 1 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{statistics}");
    }
    assert_eq!(indexed(&server)["files"], 7);
    // A folder that is gone, or full of nonsense, is made anew.
    let stopped = server.stop();
    let search_folder = place.path("data").join("search");
    let store = fs::read_dir(&search_folder).expect("list").next().expect("a store").expect("entry").path();
    let index =
        fs::read_dir(&store).expect("list").map(|entry| entry.expect("entry").path()).find(|path| path.is_dir());
    fs::write(index.expect("an index").join("blobs"), b"nonsense").expect("write");
    let server = stopped.start();
    assert_eq!(lines(&search(&server, "\"round 5\"")), ["repo:f.txt:1"]);
    assert_eq!(indexed(&server)["files"], 7);
}

#[test]
fn a_repository_finds_only_its_own() {
    let place = Place::new();
    let server = place.serve();
    for (repo, text) in [("one", "shared text\nsecret of one\n"), ("two", "shared text\nsecret of two\n")] {
        server.create(repo);
        commit(&server, repo, "begin", &[("f.txt", text)]);
    }
    let forked = server.http().post("/api/v1/repos/one/fork", &json!({ "id": "three" }));
    assert_eq!(forked.status, 201, "{}", forked.text());
    commit(&server, "three", "more", &[("g.txt", "secret of three\n")]);
    indexed(&server);
    let of =
        |repo: &str| lines(&server.http().get(&format!("/api/v1/repos/{repo}/search/content?q=secret")).expect(200));
    assert_eq!(of("one"), ["one:f.txt:2"]);
    assert_eq!(of("two"), ["two:f.txt:2"]);
    assert_eq!(of("three"), ["three:f.txt:2", "three:g.txt:1"]);
    assert_eq!(search(&server, "secret fork:no")["total_files"], 2);
    assert_eq!(search(&server, "shared repo:/^t/")["total_files"], 2);
    assert_eq!(search(&server, "shared select:repo")["total_files"], 3);
    server.http().delete("/api/v1/repos/two");
    assert_eq!(lines(&search(&server, "\"secret of two\"")), Vec::<String>::new());
}

#[test]
fn the_command_line_prints_what_was_found() {
    let place = Place::new();
    let server = place.serve();
    server.create("ada/repo");
    commit(&server, "ada/repo", "say hello", &[("src/a.rs", "fn main() {\n    hello();\n}\n")]);
    let run = |arguments: &[&str]| {
        let address = format!("http://{}", server.address());
        let output = govc().arg("search").args(arguments).args(["--server", &address]).output().expect("govc runs");
        (
            output.status.code(),
            String::from_utf8(output.stdout).expect("text"),
            String::from_utf8(output.stderr).expect("text"),
        )
    };
    let (code, text, _) = run(&["hello", "lang:rust"]);
    assert_eq!(code, Some(0));
    assert!(text.starts_with("ada/repo:src/a.rs\n2:    hello();\n\n1 file in "), "{text}");
    let (_, text, _) = run(&["hello", "-C", "1", "--repo", "ada/repo"]);
    assert!(text.starts_with("ada/repo:src/a.rs\n1-fn main() {\n2:    hello();\n3-}\n\n"), "{text}");
    let (_, text, _) = run(&["hello", "--color", "always"]);
    assert!(text.contains("    \u{1b}[1;31mhello\u{1b}[0m();"), "{text}");
    let (_, text, _) = run(&["type:commit say"]);
    assert!(text.contains("    say hello\n\n1 commit in ") || text.contains("at least 1 commit"), "{text}");
    let (_, text, _) = run(&["hello", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["total_files"], 1);
    assert_eq!(run(&["nowhere_to_be_found"]).0, Some(1));
    let (code, _, error) = run(&["lnag:rust"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("did you mean"), "{error}");
    assert_eq!(run(&["hello", "--repo", "none"]).0, Some(2));
}

#[test]
fn the_command_line_has_the_index_made_anew() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    commit(&server, "repo", "begin", &[("a.rs", "fn found() {}\n")]);
    indexed(&server);
    let run = |server: &str, arguments: &[&str]| {
        let output = govc().args(["reindex", "--server", server]).args(arguments).output().expect("govc runs");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let address = format!("http://{}", server.address());
    let (code, text) = run(&address, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("the search index was made anew: 1 files, "), "{text}");
    assert_eq!(indexed(&server)["rebuilds"], 1);
    assert_eq!(lines(&search(&server, "found")), ["repo:a.rs:1"]);
    let (code, text) = run(&address, &["--no-wait"]);
    assert_eq!((code, text.as_str()), (Some(0), "the search index will be made anew\n"));
    let place = Place::new();
    let server = place.launch().env("GOVC_SEARCH_ENABLED", "false").start();
    let (code, text) = run(&format!("http://{}", server.address()), &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("search.enabled"), "{text}");
}

#[test]
fn a_history_tells_when_something_came_and_went() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    let mut commits = Vec::new();
    for (at, text) in
        [("a.rs", "fn one() {}\n"), ("b.rs", "the needle\n"), ("b.rs", "no more\n"), ("c.rs", "a needle again\n")]
    {
        git.commit(&work, at, text.as_bytes(), &format!("change {at}"));
        commits.push(git.ok(&work, &["rev-parse", "HEAD"]).trim().to_owned());
    }
    git.ok(&work, &["branch", "old", "HEAD~2"]);
    git.ok(&work, &["tag", "v1", "HEAD~3"]);
    git.ok(&work, &["push", "-q", &server.url("repo"), "main", "old", "v1"]);
    // What git's pickaxe says.
    let pickaxe = git.ok(&work, &["log", "--format=%H", "-Sneedle", "main"]);
    let expected: Vec<&str> = pickaxe.lines().collect();
    let ask = |rest: &str| server.http().get(&format!("/api/v1/repos/repo/search/history?q=needle{rest}")).expect(200);
    let hashes = |answer: &Value, name: &str| -> Vec<String> {
        let rows = answer[name].as_array().expect("rows");
        rows.iter().map(|row| row["hash"].as_str().expect("a hash").to_owned()).collect()
    };
    for is_indexed in [false, true] {
        if is_indexed {
            indexed(&server);
        }
        let answer = ask("");
        assert_eq!(hashes(&answer, "results"), expected, "{answer}");
        let transitions: Vec<_> =
            answer["results"].as_array().expect("rows").iter().map(|row| &row["transition"]).collect();
        assert_eq!(transitions, ["appeared", "gone", "appeared"]);
        assert_eq!(
            answer["results"][1]["files"],
            json!([{"transition": "gone", "path": "b.rs",
            "blob": git.ok(&work, &["rev-parse", "HEAD~2:b.rs"]).trim()}])
        );
        assert_eq!((&answer["first"]["hash"], &answer["last"]["hash"]), (&json!(commits[1]), &json!(commits[3])));
        assert_eq!(
            (&answer["total_commits"], &answer["total"], &answer["partial"]),
            (&json!(2), &json!(3), &Value::Null)
        );
        let branches: Vec<_> =
            answer["branches"].as_array().expect("branches").iter().map(|branch| &branch["name"]).collect();
        assert_eq!(branches, ["main", "old"]);
        assert_eq!(answer["tags"], Value::Null);
        assert_eq!(ask("&tags=true")["tags"], json!([]), "the tag is older");
        let all = ask("&list=commits&order=oldest");
        assert_eq!(hashes(&all, "results"), [commits[1].clone(), commits[3].clone()]);
        let files = ask("&list=files&limit=2");
        assert_eq!(
            (&files["results"][0]["path"], &files["results"][1]["transition"]),
            (&json!("c.rs"), &json!("gone"))
        );
        let cursor = files["next_cursor"].as_str().expect("a cursor");
        let rest = ask(&format!("&list=files&cursor={cursor}"));
        assert_eq!((hashes(&rest, "results"), &rest["next_cursor"]), (vec![commits[1].clone()], &Value::Null));
        assert_eq!(ask("+branch:old")["total"], 1);
        // A version says what was there then.
        assert_eq!(hashes(&ask("&at=2"), "results"), expected);
    }
    assert_eq!(indexed(&server)["history_commits"], 4);
    git.ok(&work, &["push", "-q", &server.url("repo"), "+HEAD~3:refs/heads/main"]);
    let answer = ask("");
    assert_eq!((hashes(&answer, "results"), &answer["total_branches"]), (vec![commits[1].clone()], &json!(1)));
    for rest in ["&list=lines", "&order=random", "&limit=0", "&cursor=x", "+type:commit", "+sym:x", "+count:all"] {
        server.http().get(&format!("/api/v1/repos/repo/search/history?q=needle{rest}")).problem(400);
    }
    server.http().get(&format!("/api/v1/repos/repo/search/history?q=needle+rev:{}", commits[3])).problem(404);
}

/// The events of a stream, by name; the last one is an end or an error.
pub(crate) fn streamed(server: &Server, url: &str, accept: &str) -> Vec<(String, Value)> {
    let reply = server.http().get_with(url, &[("Accept", accept)]);
    let text = reply.text();
    assert_eq!(reply.status, 200, "{text}");
    assert!(accept.starts_with(reply.header("content-type").expect("a type")), "{accept}");
    let json = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
    if accept.starts_with("text/event-stream") {
        let event = |block: &str| {
            let (name, data) = block.split_once('\n').expect("two lines");
            let name = name.strip_prefix("event: ").expect("a name");
            (name.to_owned(), json(data.strip_prefix("data: ").expect("data")))
        };
        return text.split_terminator("\n\n").map(event).collect();
    }
    let event = |value: Value| (value["type"].as_str().expect("a type").to_owned(), value);
    text.lines().map(json).map(event).collect()
}

#[test]
fn everything_that_is_found_comes_as_a_stream() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let files: Vec<(String, String)> = (0..620)
        .map(|number| (format!("d{}/f{number:03}.txt", number % 7), "common\n".repeat(1 + number % 3)))
        .collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    commit(&server, "repo", "all at once", &files);
    let expected: BTreeSet<String> = files.iter().map(|(path, _)| (*path).to_owned()).collect();
    for accept in ["application/x-ndjson", "text/event-stream;q=0.9, application/json"] {
        for (url, is_counted) in [
            ("/api/v1/search?q=common", false),
            ("/api/v1/repos/repo/search/content?q=common+count:all&context=1", true),
        ] {
            let mut events = streamed(&server, url, accept);
            let (name, end) = events.pop().expect("an end");
            assert_eq!((name.as_str(), &end["count"], &end["total"]), ("end", &json!(620), &json!(620)), "{end}");
            assert_eq!(
                (&end["exact"], &end["partial"], &end["next_cursor"]),
                (&json!(true), &Value::Null, &Value::Null)
            );
            assert_eq!(end["total_matches"], json!(620 + 619));
            assert_eq!(end["facets"]["path"][0]["files"] == json!(89), is_counted, "{end}");
            let paths = events.iter().map(|(name, file)| {
                assert_eq!((name.as_str(), &file["lines"][0]["content"]), ("file", &json!("common")));
                file["path"].as_str().expect("a path").to_owned()
            });
            let paths: Vec<String> = paths.collect();
            assert_eq!(paths.len(), 620, "each once");
            assert_eq!(paths.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }
    // A limit ends it, and the cursor goes on.
    let mut events = streamed(&server, "/api/v1/search?q=common&limit=150", "application/x-ndjson");
    let (_, end) = events.pop().expect("an end");
    assert_eq!((events.len(), &end["exact"]), (150, &json!(false)));
    let cursor = end["next_cursor"].as_str().expect("a cursor");
    let rest = streamed(&server, &format!("/api/v1/search?q=common&cursor={cursor}"), "application/x-ndjson");
    assert_eq!((rest.len(), &rest[470].1["total"]), (471, &json!(620)));
    let commits = streamed(&server, "/api/v1/search?q=type:commit", "application/x-ndjson");
    assert_eq!(commits[0].1["message"], "all at once\n");
    assert_eq!((commits.len(), &commits[1].0), (2, &"end".to_owned()));
    let nothing = streamed(&server, "/api/v1/search?q=nowhere", "application/x-ndjson");
    assert_eq!((nothing.len(), &nothing[0].1["count"]), (1, &json!(0)));
    // What is wrong with the query is known before anything is sent.
    let headers = [("Accept", "application/x-ndjson")];
    server.http().get_with("/api/v1/search?q=(", &headers).problem(400);
    server.http().get_with("/api/v1/search?q=common&limit=0", &headers).problem(400);
}

#[test]
fn what_is_found_is_counted_by_a_property() {
    let place = Place::new();
    let server = place.serve();
    server.create("one");
    server.create("two");
    commit(
        &server,
        "one",
        "first",
        &[("src/a.rs", "shared\nshared\n"), ("src/b/c.py", "shared\n"), ("d.txt", "other\n")],
    );
    commit(&server, "two", "second", &[("src/a.rs", "shared\n")]);
    let ask = |url: &str| server.http().get(&format!("/api/v1/{url}")).expect(200);
    let groups = |answer: &Value| -> Vec<(String, u64, u64)> {
        let group = |group: &Value| {
            let number = |name: &str| group[name].as_u64().expect("a number");
            (group["value"].as_str().expect("a value").to_owned(), number("count"), number("matches"))
        };
        answer["groups"].as_array().expect("groups").iter().map(group).collect()
    };
    let named = |value: &str, count, matches| (value.to_owned(), count, matches);
    let languages = ask("search/aggregate?q=shared&by=language");
    assert_eq!(groups(&languages), [named("Rust", 2, 3), named("Python", 1, 1)]);
    assert_eq!(
        (&languages["total"], &languages["total_matches"], &languages["exact"]),
        (&json!(3), &json!(4), &json!(true))
    );
    assert_eq!(groups(&ask("search/aggregate?q=shared&by=repository")), [named("one", 2, 3), named("two", 1, 1)]);
    let paths = ask("repos/one/search/aggregate?q=shared&by=path&depth=2");
    assert_eq!(groups(&paths), [named("src/", 1, 2), named("src/b/", 1, 1)]);
    let limited = ask("search/aggregate?q=shared&by=language&limit=1");
    assert_eq!((groups(&limited).len(), &limited["total_groups"]), (1, &json!(2)));
    let authors = ask("search/aggregate?q=type:commit&by=author");
    assert_eq!(groups(&authors), [named("Ada <ada@example.org>", 2, 0)]);
    let years = ask("repos/two/search/aggregate?q=second&by=time&interval=year");
    assert_eq!(groups(&years).len(), 1);
    for url in [
        "search/aggregate?q=shared",
        "search/aggregate?q=shared&by=color",
        "search/aggregate?q=shared&by=language&depth=2",
        "search/aggregate?q=shared&by=path&depth=17",
        "search/aggregate?q=shared&by=path&interval=day",
        "search/aggregate?q=type:commit+x&by=language",
        "search/aggregate?q=(&by=language",
        "search/aggregate?q=shared&by=language&limit=0",
    ] {
        server.http().get(&format!("/api/v1/{url}")).problem(400);
    }
    server.http().get("/api/v1/repos/none/search/aggregate?q=x&by=path").problem(404);
}

#[test]
fn without_an_index_there_is_nothing_to_make_anew() {
    let place = Place::new();
    let server = place.launch().env("GOVC_SEARCH_ENABLED", "false").start();
    server.create("repo");
    commit(&server, "repo", "begin", &[("f.rs", "fn needle() {}\n")]);
    let problem = server.http().post("/api/v1/search/rebuild", &json!({})).problem(409);
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("search.enabled")), "{problem}");
    // Searches do without.
    assert_eq!(lines(&search(&server, "needle")), ["repo:f.rs:1"]);
    assert_eq!(lines(&search(&server, "sym:needle")), ["repo:f.rs:1"]);
    let statistics = server.http().get("/api/v1/search/statistics").expect(200);
    assert_eq!((&statistics["files"], &statistics["rebuilding"]), (&json!(0), &json!(false)), "{statistics}");
    assert_eq!(statistics["state"], "disabled", "{statistics}");
}

#[test]
fn relative_dates_mean_the_same_on_all_pages() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    for number in 0..5 {
        commit(&server, "repo", &format!("fix {number}"), &[("f", &number.to_string())]);
    }
    let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let (mut found, mut url) =
        (BTreeSet::new(), format!("/api/v1/search?limit=2&q={}", encode("type:commit after:2d")));
    loop {
        let reply = server.http().get(&url);
        let answer = reply.expect(200);
        let hashes = answer["results"].as_array().expect("results").iter().map(|commit| commit["hash"].to_string());
        found.extend(hashes);
        let Some(next) = reply.next_page() else { break };
        url = next;
        // Counted from now, two days ago is another moment.
        let then = seconds();
        while seconds() == then {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(found.len(), 5);
}

#[test]
fn a_parser_that_is_killed_or_hangs_costs_its_file_alone() {
    let place = Place::new();
    let program = place.path("govc");
    let built = |at: &Path| {
        // A copy may be busy when it is to be started: other tests fork while it is written.
        fs::hard_link(BUILT, at).or_else(|_| fs::copy(BUILT, at).map(drop)).expect("a program");
    };
    built(&program);
    // Parsers are copies of the server's own program, found by its path.
    let server = place.launch().program(program.clone()).start();
    let become_script = |script: &str| {
        let fresh = place.path("fresh");
        match script {
            "" => built(&fresh),
            script => {
                fs::write(&fresh, format!("#!/bin/sh\n{script}\n")).expect("written");
                fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).expect("executable");
            }
        }
        fs::rename(&fresh, &program).expect("renamed");
    };
    server.create("repo");
    // Larger than what a pipe takes from one who writes to a parser that does not read.
    let large = format!("fn needle() {{}}\n{}", "// a line that says nothing\n".repeat(20_000));
    commit(&server, "repo", "begin", &[("a.rs", &large), ("b.txt", "needle\n")]);
    for script in ["kill -9 $$", "exit 0", "exec sleep 600"] {
        become_script(script);
        let answer = search(&server, "sym:needle");
        assert_eq!((&answer["total_files"], &answer["undefined_files"]), (&json!(0), &json!(1)), "{script}: {answer}");
        assert_eq!((&answer["exact"], &answer["partial"]), (&json!(true), &json!(null)), "{script}: {answer}");
        // Whoever does not ask for definitions does not notice.
        let answer = search(&server, "needle");
        assert_eq!((&answer["total_files"], &answer["undefined_files"]), (&json!(2), &json!(null)), "{script}");
    }
    become_script("");
    let answer = search(&server, "sym:needle");
    assert_eq!((lines(&answer), &answer["undefined_files"]), (vec!["repo:a.rs:1".to_owned()], &json!(null)));
}

#[test]
fn a_page_ends_before_it_becomes_too_large() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    // A line with all its neighbours is about a megabyte.
    for name in ["a.rs", "b.rs", "c.rs"] {
        let text = format!("needle of {name} {}\n", "x".repeat(10_000)).repeat(100);
        commit(&server, "repo", "more", &[(name, &text)]);
    }
    let (mut paths, mut url) = (Vec::new(), "/api/v1/search?q=needle&lines=7&context=100".to_owned());
    loop {
        let reply = server.http().get(&url);
        assert!(reply.body.len() < 17 << 20, "{}", reply.body.len());
        let answer = reply.expect(200);
        assert_eq!((&answer["total_files"], &answer["exact"]), (&json!(3), &json!(true)));
        for file in answer["results"].as_array().expect("results") {
            assert_eq!(file["lines"].as_array().map(Vec::len), Some(7));
            paths.push(file["path"].as_str().expect("a path").to_owned());
        }
        let Some(next) = reply.next_page() else {
            assert_eq!(answer["partial"], json!(null));
            break;
        };
        assert_eq!(answer["partial"]["reason"], "size");
        url = next;
    }
    paths.sort();
    assert_eq!(paths, ["a.rs", "b.rs", "c.rs"]);
}
