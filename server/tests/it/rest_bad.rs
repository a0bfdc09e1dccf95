//! What bad requests get: a problem of the right status, nothing stored, a server that goes on.

use serde_json::{Value, json};

use crate::{
    rest_commits::{commit, put},
    server::{Place, Server},
    tested,
};

fn served(place: &Place) -> Server {
    let server = place.serve();
    server.create("repo");
    commit(&server, put("file", "content\n"), json!({})).expect(201);
    server
}

/// Everything that a write could have changed.
fn state(server: &Server) -> (Value, Value) {
    let http = server.http();
    (http.get("/api/v1/repos/repo").expect(200), http.get("/api/v1/repos/repo/branches").expect(200))
}

#[test]
fn changes_that_break_a_rule_are_refused() {
    let place = Place::new();
    let server = served(&place);
    let before = state(&server);
    let paths = [
        "",
        "/",
        "/etc/passwd",
        "a/",
        "a//b",
        ".",
        "..",
        "../up",
        "a/../b",
        "a/..",
        "./a",
        "a/./b",
        ".git",
        ".git/config",
        ".GIT/config",
        "a/.git/hooks/x",
        ".gIt",
        "git~1",
        "GIT~1/config",
        ".git /x",
        ".git./x",
        ".g\u{200c}it",
        "a\\..\\b",
        "nul\u{0}byte",
        ".git::$INDEX_ALLOCATION/x",
    ];
    for path in paths {
        let problem = commit(&server, put(path, "x\n"), json!({})).problem(400);
        assert!(!problem["error"].as_str().expect("words").is_empty());
        let moved = json!([{ "op": "move", "from": "file", "path": path }]);
        commit(&server, moved, json!({})).problem(400);
    }
    let nowhere = tested::id_of("78");
    let refused = [
        (400, json!([{ "op": "put", "path": "a", "content": "1" }, { "op": "put", "path": "a/b", "content": "2" }])),
        (400, json!([{ "op": "put", "path": "a", "content": "1", "mode": "100600" }])),
        (400, json!([{ "op": "put", "path": "a", "content": "1", "mode": "040000" }])),
        (400, json!([{ "op": "put", "path": "a", "content": "1", "mode": "rwx" }])),
        (400, json!([{ "op": "put", "path": "a" }])),
        (400, json!([{ "op": "put", "path": "a", "content": "1", "content_base64": "MQ==" }])),
        (400, json!([{ "op": "put", "path": "a", "content_base64": "not base64!" }])),
        (400, json!([{ "op": "put", "path": "a", "blob": "xyz" }])),
        (404, json!([{ "op": "put", "path": "a", "blob": nowhere }])),
        (404, json!([{ "op": "delete", "path": "nothing" }])),
        (404, json!([{ "op": "move", "from": "nothing", "path": "a" }])),
        (404, json!([{ "op": "chmod", "path": "nothing", "mode": "100755" }])),
        (400, json!([{ "op": "move", "path": "a" }])),
        (400, json!([{ "op": "chmod", "path": "file" }])),
        (400, json!([{ "op": "explode", "path": "file" }])),
        (400, json!([{ "op": "put", "path": "a", "content": "1", "surplus": true }])),
        (400, json!({ "op": "put" })),
        (400, json!([7])),
    ];
    for (status, changes) in refused {
        let reply = commit(&server, changes.clone(), json!({}));
        assert_eq!(reply.status, status, "{changes}: {}", reply.text());
        reply.problem(status);
        // One bad change spoils the good ones beside it.
        if let Some(bad) = changes.as_array() {
            let mut all = vec![json!({ "op": "put", "path": "good", "content": "good\n" })];
            all.extend(bad.iter().cloned());
            commit(&server, Value::Array(all), json!({})).problem(status);
        }
    }
    assert_eq!(state(&server), before, "something of it was stored");
}

#[test]
fn commits_that_break_a_rule_are_refused() {
    let place = Place::new();
    let server = served(&place);
    let before = state(&server);
    let refused = [
        json!({ "message": "" }),
        json!({ "message": null }),
        json!({ "message": "nul \u{0} byte" }),
        json!({ "branch": "" }),
        json!({ "branch": "a..b" }),
        json!({ "branch": "a.lock" }),
        json!({ "branch": "-a b" }),
        json!({ "branch": "refs//x" }),
        json!({ "branch": "tab\there" }),
        json!({ "author": { "name": "a <b", "email": "x@y" } }),
        json!({ "author": { "name": "a", "email": "x>y\n" } }),
        json!({ "author": { "name": "line\nbreak", "email": "x@y" } }),
        json!({ "author": 7 }),
        json!({ "expected_head": "xyz" }),
        json!({ "expected_head": 7 }),
        json!({ "no_such_member": 1 }),
        json!({ "changes": [] }),
    ];
    for more in refused {
        let reply = commit(&server, put("a", "1\n"), more.clone());
        assert_eq!(reply.status, 400, "{more}: {}", reply.text());
        reply.problem(400);
    }
    // The same content again is no change.
    commit(&server, put("file", "content\n"), json!({})).problem(400);
    // A further branch says what it begins from, so that a slip of the pen begins no history of its own.
    commit(&server, put("a", "1\n"), json!({ "branch": "unknown" })).problem(404);
    assert_eq!(state(&server), before, "something of it was stored");
    commit(&server, put("file", "content\n"), json!({ "allow_empty": true })).expect(201);
}

#[test]
fn malformed_bodies_are_refused() {
    let place = Place::new();
    let server = served(&place);
    let before = state(&server);
    let path = "/api/v1/repos/repo/commits";
    let json = [("content-type", "application/json")];
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 7] =
        [b"", b"{", b"nonsense", b"{\"branch\":\"main\"", b"{\"branch\":\"\xff\"}", deep.as_bytes(), b"{} trailing"];
    for body in bodies {
        let reply = server.http().send("POST", path, &json, body);
        assert_eq!(reply.status, 400, "{:?}: {}", String::from_utf8_lossy(&body[..body.len().min(40)]), reply.text());
        reply.problem(400);
    }
    let text = [("content-type", "text/plain")];
    server.http().send("POST", path, &text, b"{}").problem(415);
    let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n");
    // A larger body than allowed is refused by its length alone, before it is sent.
    server.http().raw(format!("{head}content-length: 1099511627776\r\n\r\n").as_bytes()).problem(413);
    assert_eq!(state(&server), before);
}

#[test]
fn a_body_over_the_limit_is_refused_however_it_comes() {
    let place = Place::new();
    let mut server = place.launch().with(&["--max-body", "1MiB"]).start();
    server.create("repo");
    let large = "x".repeat(2 << 20);
    commit(&server, put("large", &large), json!({})).problem(413);
    // In chunks no length tells it beforehand. The client stops when the server has answered.
    let mut connection = server.http().connect();
    connection.write(
        b"POST /api/v1/repos/repo/commits HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
          transfer-encoding: chunked\r\n\r\n",
    );
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 18, " ".repeat(1 << 18));
    for _ in 0..5 {
        if connection.try_write(chunk.as_bytes()).is_err() {
            break;
        }
    }
    connection.reply().problem(413);
    assert!(server.alive());
    commit(&server, put("small", "x\n"), json!({})).expect(201);
}

/// Many clients send their whole body before they read; what refuses it must let them.
#[test]
fn a_refusal_reaches_clients_that_send_first() {
    let place = Place::new();
    let mut server = place.launch().with(&["--max-body", "1MiB"]).start();
    server.create("repo");
    let json = "content-type: application/json\r\n";
    let body = vec![b' '; 20 << 20];
    let cases = [
        ("POST", "/api/v1/repos/repo/commits", json, 413),
        ("POST", "/api/v1/repos/repo/commits", "content-type: text/plain\r\n", 415),
        ("POST", "/api/v1/repos/repo/commits", "content-type: application/json\r\nidempotency-key: k\r\n", 413),
        ("POST", "/api/v1/repos/nobody/commits", json, 404),
        ("POST", "/api/v1/nothing", json, 404),
        ("PUT", "/api/v1/repos/repo", json, 405),
    ];
    for (method, path, headers, status) in cases {
        let mut connection = server.http().connect();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{headers}content-length: {length}\r\n\r\n");
        connection.write(head.as_bytes());
        connection.write(&body);
        connection.reply().problem(status);
    }
    let mut connection = server.http().connect();
    connection.write(format!("POST /api/v1/nothing HTTP/1.1\r\nhost: a\r\n{json}").as_bytes());
    connection.write(b"content-length: 9\r\nexpect: 100-continue\r\n\r\n");
    connection.reply().problem(404);
    assert!(server.alive());
    commit(&server, put("small", "x\n"), json!({})).expect(201);
}

#[test]
fn a_body_that_stalls_is_given_up() {
    let place = Place::new();
    let server = place.launch().env("GOVC_BODY_TIMEOUT", "50ms").start();
    server.create("repo");
    let head = "POST /api/v1/repos/repo/commits HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    for further in ["content-length: 1000\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"] {
        let problem = server.http().raw(format!("{head}{further}").as_bytes()).problem(408);
        assert_eq!(problem["code"], "REQUEST_TIMEOUT");
    }
    commit(&server, put("small", "x\n"), json!({})).expect(201);
}

#[test]
fn a_body_that_trickles_is_given_up_and_gives_back_what_it_held() {
    let place = Place::new();
    let server = place.launch().with(&["--max-body", "2MiB"]);
    let server = server.env("GOVC_MAX_BUFFERED", "2MiB").env("GOVC_BODY_TIMEOUT", "1s").start();
    server.create("repo");
    let head = "POST /api/v1/repos/repo/commits HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let head = format!("{head}content-length: {}\r\n\r\n{{", 2 << 20);
    let reply = server.http().trickle(head.as_bytes(), std::iter::repeat(b' '));
    assert_eq!(reply.problem(408)["code"], "REQUEST_TIMEOUT");
    commit(&server, put("large", &"x".repeat(1 << 20)), json!({})).expect(201);
}

/// What clients that stop in the middle make the server hold has a bound; they are no reason to refuse small requests.
#[test]
fn bodies_in_flight_have_a_budget() {
    let place = Place::new();
    let server = place.launch().with(&["--max-body", "2MiB"]).env("GOVC_MAX_BUFFERED", "2MiB").start();
    server.create("repo");
    let large = |name: &str| put(name, &"x".repeat(1 << 20));
    let mut holder = server.http().connect();
    holder.write(b"POST /api/v1/repos/repo/commits HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n");
    holder.write(format!("content-length: {}\r\n\r\n{{", 2 << 20).as_bytes());
    // The server may see the others first.
    let refused = (0..100).find_map(|at| {
        let reply = commit(&server, large(&format!("before-{at}")), json!({}));
        (reply.status != 201).then_some(reply)
    });
    let refused = refused.expect("the budget is held");
    assert_eq!(refused.problem(503)["code"], "BUSY");
    assert!(refused.header("retry-after").is_some());
    commit(&server, put("small", "x\n"), json!({})).expect(201);
    drop(holder);
    assert!((0..100).any(|_| commit(&server, large("after"), json!({})).status == 201), "the budget is free again");
}

#[test]
fn unknown_things_are_not_found() {
    let place = Place::new();
    let server = served(&place);
    let http = server.http();
    let cases = [
        ("GET", "/api/v1/repos/nobody", "REPO_NOT_FOUND"),
        ("GET", "/api/v1/repos/nobody/commits", "REPO_NOT_FOUND"),
        ("GET", "/api/v1/repos/nobody/branches", "REPO_NOT_FOUND"),
        ("GET", "/api/v1/repos/nobody/raw/file", "REPO_NOT_FOUND"),
        ("GET", "/api/v1/repos/repo/commits/nothing", "REF_NOT_FOUND"),
        ("GET", "/api/v1/repos/repo/commits?ref=nothing", "REF_NOT_FOUND"),
        ("GET", "/api/v1/repos/repo/raw/nothing", "FILE_NOT_FOUND"),
        ("GET", "/api/v1/repos/repo/read/nothing", "FILE_NOT_FOUND"),
        ("GET", "/api/v1/repos/repo/read/file?ref=nothing", "REF_NOT_FOUND"),
        ("GET", "/api/v1/repos/repo/tree/nothing", "FILE_NOT_FOUND"),
        ("DELETE", "/api/v1/repos/repo/branches/nothing", "BRANCH_NOT_FOUND"),
        ("DELETE", "/api/v1/repos/repo/tags/nothing", "TAG_NOT_FOUND"),
        ("GET", "/api/v1/nothing", "ROUTE_NOT_FOUND"),
    ];
    for (method, path, code) in cases {
        let problem = http.send(method, path, &[], b"").problem(404);
        assert_eq!(problem["code"], code, "{method} {path}: {problem}");
    }
    let json = [("content-type", "application/json")];
    http.send("POST", "/api/v1/repos/nobody/commits", &json, b"{}").problem(404);
    http.send("PUT", "/api/v1/repos/repo", &json, b"{}").problem(405);
    for path in ["/api/v1/repos/repo/raw/../../../etc/passwd", "/api/v1/repos/repo/raw/%2e%2e%2f%2e%2e%2fetc%2fpasswd"]
    {
        let reply = http.get(path);
        assert!(matches!(reply.status, 400 | 404), "{path}: {}", reply.status);
    }
    let reply = http.get("/api/v1/repos/repo/read/%ff%fe");
    assert!(matches!(reply.status, 400 | 404), "{}", reply.status);
}
