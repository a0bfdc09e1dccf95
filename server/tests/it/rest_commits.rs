//! Commits over HTTP: git computes the same ids from the same files, every operation does what it says, a stale
//! expectation is told what is there.

use serde_json::{Value, json};

use crate::{
    git::Git,
    history,
    http::{Reply, items},
    rest_repos::walk,
    server::{Place, Server},
};

/// A commit of `changes` on `main`, with further members.
pub(crate) fn commit(server: &Server, changes: Value, more: Value) -> Reply {
    let mut body = json!({
        "branch": "main",
        "message": "a change\n",
        "author": { "name": "Ada Test", "email": "ada@example.com" },
        "changes": changes,
    });
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    server.http().post("/api/v1/repos/repo/commits", &body)
}

/// One file.
pub(crate) fn put(path: &str, content: &str) -> Value {
    json!([{ "op": "put", "path": path, "content": content }])
}

fn served(place: &Place) -> Server {
    let server = place.serve();
    server.create("repo");
    server
}

#[test]
fn git_computes_the_same_ids() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = served(&place);
    let person = json!({ "name": "Ada T\u{eb}st", "email": "ada@example.com", "date": "2023-11-14T23:13:20+01:00" });
    let more = json!({ "author": person, "committer": person, "message": "first\n\nwith a body\n" });
    let changes = json!([
        { "op": "put", "path": "README", "content": "hello\n" },
        { "op": "put", "path": "bin/run", "content": "#!/bin/sh\n", "mode": "100755" },
        { "op": "put", "path": "link", "content": "README", "mode": "120000" },
        { "op": "put", "path": "a/b/c/deep", "content_base64": "AAEC/w==" },
        { "op": "put", "path": "caf\u{e9}", "content": "" },
        { "op": "put", "path": "a.b", "content": "sorts before a/\n" },
    ]);
    let made = commit(&server, changes, more).expect(201);

    let work = place.path("work");
    git.init(&work);
    let files: [(&str, &[u8]); 5] = [
        ("README", b"hello\n"),
        ("bin/run", b"#!/bin/sh\n"),
        ("a/b/c/deep", &[0, 1, 2, 255]),
        ("caf\u{e9}", b""),
        ("a.b", b"sorts before a/\n"),
    ];
    for (path, content) in files {
        std::fs::create_dir_all(work.join(path).parent().expect("a parent")).expect("folders");
        std::fs::write(work.join(path), content).expect("a file");
    }
    std::os::unix::fs::symlink("README", work.join("link")).expect("a link");
    git.ok(&work, &["add", "--all"]);
    git.ok(&work, &["update-index", "--chmod=+x", "bin/run"]);
    let tree = git.ok(&work, &["write-tree"]);
    assert_eq!(made["tree"], tree);
    let mut command = git.command(&work);
    command.env("GIT_AUTHOR_NAME", "Ada T\u{eb}st").env("GIT_COMMITTER_NAME", "Ada T\u{eb}st");
    let output = command.args(["commit-tree", &tree, "-m", "first", "-m", "with a body"]).output().expect("git");
    assert_eq!(made["hash"], String::from_utf8_lossy(&output.stdout).trim_end());
    assert_eq!(made["parents"], json!([]));
    assert!(made["version"].is_u64(), "{made}");

    let copy = place.path("copy");
    git.clone_repo(&server.url("repo"), &copy, &[]);
    assert_eq!(git.ok(&copy, &["rev-parse", "HEAD"]), made["hash"].as_str().expect("a hash"));
    assert_eq!(git.findings(&copy), (Some(0), Vec::new()));
}

#[test]
fn puts_moves_deletes_and_modes_are_one_commit() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = served(&place);
    let first = json!([
        { "op": "put", "path": "keep", "content": "keep\n" },
        { "op": "put", "path": "from", "content": "moved\n" },
        { "op": "put", "path": "dir/one", "content": "1\n" },
        { "op": "put", "path": "dir/two", "content": "2\n" },
        { "op": "put", "path": "gone/deep/file", "content": "x\n" },
        { "op": "put", "path": "script", "content": "#!/bin/sh\n" },
    ]);
    let first = commit(&server, first, json!({})).expect(201);
    let blob = git_blob(&server, "keep");
    let second = json!([
        { "op": "move", "from": "from", "path": "to/here" },
        { "op": "move", "from": "dir", "path": "folder" },
        { "op": "delete", "path": "gone/deep/file" },
        { "op": "chmod", "path": "script", "mode": "100755" },
        { "op": "put", "path": "copy", "blob": blob },
        { "op": "put", "path": "keep", "content": "changed\n" },
    ]);
    let second = commit(&server, second, json!({})).expect(201);
    assert_eq!(second["parents"], json!([first["hash"]]));
    let copy = place.path("copy");
    git.clone_repo(&server.url("repo"), &copy, &[]);
    let listed = git.ok(&copy, &["ls-tree", "-r", "--format=%(objectmode) %(path)", "HEAD"]);
    let wanted = "100644 copy\n100644 folder/one\n100644 folder/two\n100644 keep\n100755 script\n100644 to/here";
    assert_eq!(listed, wanted, "and no empty directory is left");
    assert_eq!(git.ok(&copy, &["show", "HEAD:copy"]), "keep");
    assert_eq!(git.ok(&copy, &["show", "HEAD:keep"]), "changed");
    assert_eq!(git.findings(&copy), (Some(0), Vec::new()));
}

/// The id of the blob at `path` on `main`, as the server says it.
fn git_blob(server: &Server, path: &str) -> String {
    let reply = server.http().get(&format!("/api/v1/repos/repo/raw/{path}?ref=main"));
    assert_eq!(reply.status, 200);
    reply.header("etag").expect("an entity tag").trim_matches('"').to_owned()
}

#[test]
fn a_stale_head_is_a_conflict_that_says_what_is_there() {
    let place = Place::new();
    let server = served(&place);
    let first = commit(&server, put("a", "1\n"), json!({ "expected_head": null })).expect(201);
    let second = commit(&server, put("a", "2\n"), json!({ "expected_head": first["hash"] })).expect(201);
    let problem = commit(&server, put("a", "3\n"), json!({ "expected_head": first["hash"] })).problem(409);
    assert_eq!((&problem["expected"], &problem["actual"]), (&first["hash"], &second["hash"]), "{problem}");
    let problem = commit(&server, put("a", "3\n"), json!({ "expected_head": null })).problem(409);
    assert_eq!((&problem["expected"], &problem["actual"]), (&Value::Null, &second["hash"]), "{problem}");
    let more = json!({ "branch": "unborn", "expected_head": first["hash"] });
    let problem = commit(&server, put("a", "3\n"), more).problem(409);
    assert_eq!((&problem["expected"], &problem["actual"]), (&first["hash"], &Value::Null), "{problem}");

    let hash = |made: &Value| made["hash"].as_str().expect("a hash").to_owned();
    let body = json!({ "branch": "main", "message": "m", "changes": put("a", "4\n") }).to_string();
    let path = "/api/v1/repos/repo/commits";
    let with = |tag: &str| {
        let headers = [("content-type", "application/json"), ("if-match", tag)];
        server.http().send("POST", path, &headers, body.as_bytes())
    };
    with(&format!("\"{}\"", hash(&first))).problem(412);
    with(&format!("\"{}\"", hash(&second))).expect(201);
}

#[test]
fn a_header_does_not_replace_what_the_body_expects() {
    let place = Place::new();
    let server = served(&place);
    let first = commit(&server, put("a", "1\n"), json!({})).expect(201)["hash"].clone();
    let second = commit(&server, put("a", "2\n"), json!({})).expect(201)["hash"].clone();
    let tag = format!("\"{}\"", second.as_str().expect("a hash"));
    let with = |tag: &str, expected_head: &Value| {
        let mut body = json!({ "branch": "main", "message": "m", "changes": put("a", "3\n") });
        body["expected_head"] = expected_head.clone();
        let headers = [("content-type", "application/json"), ("if-match", tag)];
        server.http().send("POST", "/api/v1/repos/repo/commits", &headers, body.to_string().as_bytes())
    };
    for tag in ["*", &tag] {
        with(tag, &json!("nonsense")).problem(400);
        let problem = with(tag, &first).problem(409);
        assert_eq!((&problem["expected"], &problem["actual"]), (&first, &second), "{problem}");
        let problem = with(tag, &Value::Null).problem(409);
        assert_eq!((&problem["expected"], &problem["actual"]), (&Value::Null, &second), "{problem}");
    }
    with("\"another\"", &second).problem(412);
    with(&tag, &second).expect(201);
}

#[test]
fn many_changes_are_one_commit() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = served(&place);
    let path = |at: usize| format!("many/f{at}");
    let puts: Vec<Value> = (0..500).map(|at| json!({ "op": "put", "path": path(at), "content": "old\n" })).collect();
    commit(&server, Value::Array(puts), json!({})).expect(201);
    let changes: Vec<Value> = (0..500)
        .map(|at| match at % 3 {
            0 => json!({ "op": "put", "path": path(at), "content": "new\n" }),
            1 => json!({ "op": "delete", "path": path(at) }),
            _ => json!({ "op": "move", "from": path(at), "path": format!("moved/f{at}") }),
        })
        .collect();
    commit(&server, Value::Array(changes), json!({})).expect(201);
    let copy = place.path("copy");
    git.clone_repo(&server.url("repo"), &copy, &[]);
    assert_eq!(git.findings(&copy), (Some(0), Vec::new()));
    for at in 0..500 {
        let content = |path: String| std::fs::read_to_string(copy.join(path)).ok();
        let wanted = match at % 3 {
            0 => (Some("new\n"), None),
            1 => (None, None),
            _ => (None, Some("old\n")),
        };
        let found = (content(path(at)), content(format!("moved/f{at}")));
        assert_eq!((found.0.as_deref(), found.1.as_deref()), wanted, "{at}");
    }
}

#[test]
fn of_many_writers_with_one_expectation_one_wins() {
    let place = Place::new();
    let server = served(&place);
    let head = commit(&server, put("a", "0\n"), json!({})).expect(201)["hash"].clone();
    let server = &server;
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let write = |at: usize| {
            let more = json!({ "expected_head": head });
            scope.spawn(move || commit(server, put("a", &format!("{}\n", at + 1)), more).status)
        };
        let writers: Vec<_> = (0..12).map(write).collect();
        writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
    });
    assert_eq!(statuses.iter().filter(|&&status| status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|&&status| status == 409).count(), 11, "{statuses:?}");
}

#[test]
fn writers_without_expectation_all_win() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = served(&place);
    let shared = &server;
    std::thread::scope(|scope| {
        for writer in 0..8 {
            scope.spawn(move || {
                for at in 0..10 {
                    commit(shared, put(&format!("w{writer}/f{at}"), "x\n"), json!({})).expect(201);
                }
            });
        }
    });
    let copy = place.path("copy");
    git.clone_repo(&server.url("repo"), &copy, &[]);
    assert_eq!(git.ok(&copy, &["rev-list", "--count", "HEAD"]), "80");
    assert_eq!(git.ok(&copy, &["ls-tree", "-r", "--name-only", "HEAD"]).lines().count(), 80, "no update was lost");
}

#[test]
fn branches_begin_where_they_are_told() {
    let place = Place::new();
    let server = served(&place);
    let first = commit(&server, put("a", "1\n"), json!({})).expect(201);
    let second = commit(&server, put("b", "2\n"), json!({})).expect(201);
    let more = json!({ "branch": "topic", "create_branch_from": first["hash"] });
    let topic = commit(&server, put("c", "3\n"), more).expect(201);
    assert_eq!(topic["parents"], json!([first["hash"]]));
    let more = json!({ "branch": "named", "create_branch_from": "main" });
    assert_eq!(commit(&server, put("c", "3\n"), more).expect(201)["parents"], json!([second["hash"]]));
    commit(&server, put("c", "3\n"), json!({ "branch": "fresh" })).problem(404);
    let more = json!({ "branch": "nowhere", "create_branch_from": "no-such-branch" });
    commit(&server, put("c", "3\n"), more).problem(404);
}

#[test]
fn the_seeds_form_and_idempotency_are_understood() {
    let place = Place::new();
    let server = served(&place);
    let more = json!({ "author": "Grace", "email": "grace@example.com" });
    let made = commit(&server, put("a", "1\n"), more).expect(201);
    let shown = server.http().get(&format!("/api/v1/repos/repo/commits/{}", made["hash"].as_str().expect("a hash")));
    let author = &shown.expect(200)["author"];
    assert_eq!((&author["name"], &author["email"]), (&json!("Grace"), &json!("grace@example.com")));

    let body = json!({ "branch": "main", "message": "once", "changes": put("a", "2\n") }).to_string();
    let headers = [("content-type", "application/json"), ("idempotency-key", "key-1")];
    let send = |body: &str| server.http().send("POST", "/api/v1/repos/repo/commits", &headers, body.as_bytes());
    let first = send(&body).expect(201);
    assert_eq!(send(&body).expect(201), first, "the same request is answered, not carried out again");
    assert_eq!(items(&server.http().get("/api/v1/repos/repo/commits").expect(200)).len(), 2);
    send(&body.replace("once", "another")).problem(422);
}

#[test]
fn the_history_is_git_log_in_pages() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let source = history::generated(&place, &git);
    server.create("repo");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("repo")]);
    let log = git.ok(&source, &["rev-list", "main"]);
    for limit in [50, 1000] {
        let path = format!("/api/v1/repos/repo/commits?ref=main&limit={limit}");
        assert_eq!(walk(&server, &path, limit, "hash"), log.lines().collect::<Vec<_>>(), "limit {limit}");
    }
    // Along one path, where the history is linear, git's simplification finds the same.
    let log = git.ok(&source, &["rev-list", "root2", "--", "other/README"]);
    let path = "/api/v1/repos/repo/commits?ref=root2&path=other%2FREADME&limit=7";
    assert_eq!(walk(&server, path, 7, "hash"), log.lines().collect::<Vec<_>>());

    // Every revision that git understands in the same way.
    for rev in
        ["main", "main~3", "main^", "v0.40", "v0.80^{commit}", "refs/heads/joined", "joined^2", "HEAD", "HEAD~5", "@"]
    {
        let reply = server.http().get(&format!("/api/v1/repos/repo/commits/{}", crate::http::encode(rev)));
        assert_eq!(reply.expect(200)["hash"], git.ok(&source, &["rev-parse", &format!("{rev}^{{commit}}")]), "{rev}");
    }
    let head = git.ok(&source, &["rev-parse", "main"]);
    let reply = server.http().get(&format!("/api/v1/repos/repo/commits/{}", &head[..12]));
    assert_eq!(reply.expect(200)["hash"], head, "an abbreviated id");
}

#[test]
fn a_shown_commit_lists_what_git_show_lists() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let source = history::generated(&place, &git);
    server.create("repo");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("repo")]);
    for at in (0..400).step_by(23) {
        let rev = format!("main~{at}");
        let shown = server.http().get(&format!("/api/v1/repos/repo/commits/{}", crate::http::encode(&rev)));
        let shown = shown.expect(200);
        let parent = format!("{rev}^1");
        let numbers = git.run(&source, &["diff-tree", "-r", "-z", "--no-renames", "--numstat", &parent, &rev]).stdout;
        let mut wanted: Vec<(String, Value, Value)> = String::from_utf8_lossy(&numbers)
            .split('\0')
            .filter(|row| !row.is_empty())
            .map(|row| {
                let fields: Vec<&str> = row.splitn(3, '\t').collect();
                let number = |text: &str| text.parse::<u64>().map_or(Value::Null, Value::from);
                (fields[2].to_owned(), number(fields[0]), number(fields[1]))
            })
            .collect();
        let files = shown["files"].as_array().expect("files");
        let row = |file: &Value| {
            let path = file["path"].as_str().expect("a path").to_owned();
            (path, file["additions"].clone(), file["deletions"].clone())
        };
        let mut got: Vec<_> = files.iter().map(row).collect();
        // Large and binary files may stay uncounted; git counts a submodule as one line.
        let counted = |rows: &mut Vec<(String, Value, Value)>, uncounted: &[String]| {
            rows.retain(|(path, ..)| !uncounted.contains(path));
            rows.sort_by(|a, b| a.0.cmp(&b.0));
        };
        let uncounted: Vec<String> =
            got.iter().filter(|(_, additions, _)| additions.is_null()).map(|(path, ..)| path.clone()).collect();
        let names = |rows: &[(String, Value, Value)]| {
            let mut names: Vec<String> = rows.iter().map(|(path, ..)| path.clone()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&got), names(&wanted), "{rev}");
        counted(&mut got, &uncounted);
        counted(&mut wanted, &uncounted);
        assert_eq!(got, wanted, "{rev}");
    }
}

#[test]
fn changes_of_a_branch_that_has_moved_are_redone_if_they_can() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = served(&place);
    let base = commit(&server, put("a", "1"), json!({})).expect(201)["hash"].clone();
    let head = commit(&server, put("b", "1"), json!({})).expect(201)["hash"].clone();
    let late = |changes: Value, choice: &str| {
        commit(&server, changes, json!({ "expected_head": base, "on_conflict": choice }))
    };
    let problem = late(put("c", "1"), "fail").problem(409);
    assert_eq!((&problem["expected"], &problem["actual"], problem.get("paths")), (&base, &head, None));
    let redone = late(put("c", "1"), "rebase").expect(201);
    assert_eq!(redone["parents"], json!([head]));
    let merged = late(put("d", "1"), "merge").expect(201);
    assert_eq!(merged["parents"][0], redone["hash"]);
    assert_eq!(merged["parents"].as_array().map(Vec::len), Some(2));
    for choice in ["rebase", "merge"] {
        let problem = late(put("b", "2"), choice).problem(409);
        assert_eq!((&problem["expected"], &problem["actual"]), (&base, &merged["hash"]));
        assert_eq!((&problem["paths"], &problem["ref"]), (&json!(["b"]), &json!("refs/heads/main")));
    }
    assert_eq!(late(put("e", "1"), "win").problem(400)["code"], "INVALID_REQUEST");
    let if_match = format!("\"{}\"", base.as_str().expect("an id"));
    let headers = [("content-type", "application/json"), ("if-match", if_match.as_str())];
    let body = json!({ "branch": "main", "message": "x", "changes": put("e", "1"), "on_conflict": "rebase" });
    // A header demands what is now.
    server.http().send("POST", "/api/v1/repos/repo/commits", &headers, body.to_string().as_bytes()).problem(412);

    let clone = place.path("clone");
    git.ok(&place.path(""), &["clone", "-q", &server.url("repo"), "clone"]);
    git.ok(&clone, &["fsck", "--strict"]);
    assert_eq!(git.ok(&clone, &["ls-files"]), "a\nb\nc\nd");
}

#[test]
fn twenty_writers_on_one_branch_all_succeed() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = served(&place);
    let base = commit(&server, put("base", "1"), json!({})).expect(201)["hash"].clone();
    std::thread::scope(|scope| {
        for writer in 0..20 {
            let (server, base) = (&server, &base);
            scope.spawn(move || {
                for at in 0..5 {
                    let more = json!({ "expected_head": base, "on_conflict": "rebase" });
                    commit(server, put(&format!("w{writer}/{at}"), "x"), more).expect(201);
                }
            });
        }
    });
    git.ok(&place.path(""), &["clone", "-q", &server.url("repo"), "clone"]);
    let clone = place.path("clone");
    assert_eq!(git.ok(&clone, &["rev-list", "--count", "HEAD"]), "101");
    assert_eq!(git.ok(&clone, &["ls-files"]).lines().count(), 101);
}
