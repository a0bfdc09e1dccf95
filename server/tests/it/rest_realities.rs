//! Parallel realities over HTTP: made in one call, applied to, compared, promoted, dropped; unseen by git unless asked for.

use serde_json::{Value, json};

use crate::{
    git::Git,
    http::{encode, items},
    rest_commits::{commit, put},
    rest_repos::walk_items,
    server::{Place, Server},
};

const REPO: &str = "/api/v1/repos/repo";

fn path(name: &str, rest: &str) -> String {
    format!("{REPO}/parallel-realities/{}{rest}", encode(name))
}

fn served(place: &Place) -> (Server, Value) {
    let server = place.serve();
    server.create("repo");
    let base = commit(&server, put("file", "base"), json!({})).expect(201)["hash"].clone();
    (server, base)
}

fn make(server: &Server, names: &[&str]) {
    server.http().post(&format!("{REPO}/parallel-realities"), &json!({ "branches": names })).expect(201);
}

fn apply(server: &Server, name: &str, changes: Value) -> Value {
    server.http().post(&path(name, "/apply"), &json!({ "message": "try it", "changes": changes })).expect(201)
}

#[test]
fn a_thousand_are_made_in_one_call_and_stay_apart() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, base) = served(&place);
    let names: Vec<String> = (0..1000).map(|at| format!("agents/{at:04}")).collect();
    let new = json!({ "branches": names, "from": "main", "ttl_seconds": 3600 });
    let made = server.http().post(&format!("{REPO}/parallel-realities"), &new).expect(201);
    assert_eq!((&made["count"], &made["base"], &made["base_version"]), (&json!(1000), &base, &json!(2)));
    assert!(made["expires_at"].is_string());
    let first = apply(&server, "agents/0000", put("file", "zero"));
    assert_eq!((&first["branch"], &first["parents"]), (&json!("agents/0000"), &json!([base])));
    apply(&server, "agents/0001", put("other", "one"));

    let check = |server: &Server| {
        let http = server.http();
        let listed = walk_items(server, &format!("{REPO}/parallel-realities?limit=300"), 300);
        assert_eq!(listed.len(), 1000);
        let shown = http.get(&path("agents/0000", "")).expect(200);
        assert_eq!(listed[0], shown);
        assert_eq!((&shown["head"], &shown["base"], &shown["from"]), (&first["hash"], &base, &json!("main")));
        let read = |name: &str| {
            let reference = encode(format!("refs/realities/{name}"));
            http.get(&format!("{REPO}/read/file?ref={reference}")).expect(200)["content"].clone()
        };
        assert_eq!(
            (read("agents/0000"), read("agents/0001"), read("agents/0500")),
            ("zero".into(), "base".into(), "base".into())
        );
        assert_eq!(http.get(&format!("{REPO}/read/file")).expect(200)["content"], "base");
        let compared = http.get(&path("agents/0001", "/compare")).expect(200);
        assert_eq!((&compared["commits"], &compared["truncated"]), (&json!(1), &json!(false)));
        assert_eq!(
            (&compared["files"][0]["path"], &compared["files"][0]["status"]),
            (&json!("other"), &json!("added"))
        );
        assert_eq!(http.get(&format!("{REPO}/branches")).expect(200)["count"], 1);
    };
    check(&server);
    let url = server.url("repo");
    let refs = git.ok(&place.path(""), &["ls-remote", &url]);
    assert_eq!(refs.lines().count(), 2, "{refs}");
    let head = first["hash"].as_str().expect("an id");
    let work = place.path("work");
    git.ok(&place.path(""), &["clone", "-q", &url, "work"]);
    git.ok(&work, &["fetch", "-q", "origin", "refs/realities/agents/0000:refs/heads/zero"]);
    assert_eq!(git.ok(&work, &["rev-parse", "zero"]), head);
    assert_eq!(git.ok(&work, &["show", "zero:file"]), "zero");
    let refused = git.fails(&work, &["push", "origin", "zero:refs/realities/pushed"]);
    assert!(refused.contains("refs/realities/"), "{refused}");
    check(&server.kill().start());
}

#[test]
fn work_reaches_a_branch() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, _) = served(&place);
    make(&server, &["a", "b", "c", "clash"]);
    for name in ["a", "b", "c"] {
        apply(&server, name, put(name, name));
    }
    apply(&server, "clash", put("file", "clash"));
    let http = server.http();
    let promote = |name: &str, body: Value| http.post(&path(name, "/promote"), &body);
    let first = promote("a", json!({ "mode": "fast-forward" })).expect(200);
    assert_eq!((&first["target"], &first["kept"]), (&json!("main"), &json!(false)));
    let problem = promote("b", json!({ "mode": "fast-forward" })).problem(409);
    assert_eq!(problem["actual"], first["hash"]);
    let merged =
        promote("b", json!({ "keep": true, "message": "take b", "author": "Ada <ada@example.com>" })).expect(200);
    let shown = http.get(&format!("{REPO}/commits/{}", merged["hash"].as_str().expect("an id"))).expect(200);
    assert_eq!((&shown["parents"][0], &shown["message"]), (&first["hash"], &json!("take b\n")));
    assert_eq!(shown["author"]["name"], "Ada");
    let rebased = promote("c", json!({ "mode": "rebase", "target": "main" })).expect(200);
    let shown = http.get(&format!("{REPO}/commits/{}", rebased["hash"].as_str().expect("an id"))).expect(200);
    assert_eq!((&shown["parents"], &shown["message"]), (&json!([merged["hash"]]), &json!("try it\n")));
    let head = commit(&server, put("file", "moved"), json!({})).expect(201)["hash"].clone();
    for mode in ["merge", "rebase"] {
        let problem = promote("clash", json!({ "mode": mode })).problem(409);
        assert_eq!((&problem["paths"], &problem["actual"]), (&json!(["file"]), &head));
    }
    assert_eq!(promote("clash", json!({ "target": "nowhere" })).problem(404)["code"], "BRANCH_NOT_FOUND");
    assert_eq!(promote("clash", json!({ "mode": "win" })).problem(400)["code"], "INVALID_REQUEST");
    let left = items(&http.get(&format!("{REPO}/parallel-realities")).expect(200));
    assert_eq!(left.iter().map(|item| item["name"].as_str().expect("a name")).collect::<Vec<_>>(), ["b", "clash"]);
    git.ok(&place.path(""), &["clone", "-q", &server.url("repo"), "clone"]);
    let clone = place.path("clone");
    git.ok(&clone, &["fsck", "--strict"]);
    assert_eq!(git.ok(&clone, &["ls-files"]), "a\nb\nc\nfile");
}

#[test]
fn what_there_is_not_is_said_so() {
    let place = Place::new();
    let server = place.launch().env("GOVC_LIMITS_REALITIES", "3").env("GOVC_LIMITS_CHANGES", "2").start();
    server.create("repo");
    let http = server.http();
    let all = format!("{REPO}/parallel-realities");
    // Nothing to begin from.
    assert_eq!(http.post(&all, &json!({ "branches": ["a"] })).problem(404)["code"], "REF_NOT_FOUND");
    commit(&server, put("file", "base"), json!({})).expect(201);
    make(&server, &["a", "b"]);
    let made = |body: Value, status: u16| http.post(&all, &body).problem(status)["code"].clone();
    assert_eq!(made(json!({ "branches": ["c", "a"] }), 409), "REALITY_EXISTS");
    assert_eq!(made(json!({ "branches": ["c", "d", "e", "f"] }), 413), "LIMIT_EXCEEDED");
    for body in [
        json!({ "branches": [] }),
        json!({ "branches": ["c", "c"] }),
        json!({ "branches": ["a..b"] }),
        json!({ "branches": ["-c"] }),
        json!({ "branches": ["c"], "ttl_seconds": 0 }),
        json!({ "branches": ["c"], "more": 1 }),
        json!({ "branches": ["c"], "at": "soon" }),
    ] {
        assert_eq!(made(body, 400), "INVALID_REQUEST");
    }
    assert_eq!(made(json!({ "branches": ["c"], "from": "nowhere" }), 404), "REF_NOT_FOUND");
    assert_eq!(made(json!({ "branches": ["c"], "at": "99" }), 404), "VERSION_NOT_FOUND");
    for reply in [
        http.get(&path("x", "")),
        http.get(&path("x", "/compare")),
        http.post(&path("x", "/apply"), &json!({ "message": "m", "changes": put("f", "x") })),
        http.post(&path("x", "/promote"), &json!({})),
        http.delete(&path("x", "")),
    ] {
        assert_eq!(reply.problem(404)["code"], "REALITY_NOT_FOUND");
    }
    let both = json!({ "message": "m", "branch": "main", "changes": put("f", "x") });
    assert_eq!(http.post(&path("a", "/apply"), &both).problem(400)["code"], "INVALID_REQUEST");
    let many = json!([
        { "op": "put", "path": "1", "content": "" },
        { "op": "put", "path": "2", "content": "" },
        { "op": "put", "path": "3", "content": "" },
    ]);
    assert_eq!(commit(&server, many, json!({})).problem(413)["code"], "LIMIT_EXCEEDED");

    assert_eq!(http.delete(&path("a", "")).status, 204);
    assert_eq!(http.get(&path("a", "")).problem(404)["code"], "REALITY_NOT_FOUND");
    let short = json!({ "branches": ["short"], "ttl_seconds": 1 });
    http.post(&all, &short).expect(201);
    let over = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while http.get(&path("short", "")).status == 200 {
        assert!(std::time::Instant::now() < over, "its time never ends");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    for reply in [
        http.get(&path("short", "")),
        http.post(&path("short", "/apply"), &json!({ "message": "m", "changes": put("f", "x") })),
        http.post(&path("short", "/promote"), &json!({})),
    ] {
        assert_eq!(reply.problem(410)["code"], "REALITY_GONE");
    }
    assert_eq!(http.get(&format!("{REPO}/tree?ref=refs/realities/short")).status, 410);
    assert_eq!(items(&http.get(&all).expect(200)).len(), 1);
}
