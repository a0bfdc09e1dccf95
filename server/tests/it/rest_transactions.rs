//! Transactions over HTTP: staged step by step, unseen, checked, committed once, rolled back, and gone when abandoned.

use serde_json::{Value, json};

use crate::{
    git::Git,
    http::Reply,
    rest_commits::{commit, put},
    server::{Place, Server},
};

const REPO: &str = "/api/v1/repos/repo";

fn served(place: &Place) -> (Server, Value) {
    let server = place.serve();
    server.create("repo");
    let base = commit(&server, put("base", "1"), json!({})).expect(201)["hash"].clone();
    (server, base)
}

fn begin(server: &Server, body: Value) -> String {
    let reply = server.http().post(&format!("{REPO}/transaction"), &body);
    let id = reply.expect(201)["id"].as_str().expect("an id").to_owned();
    assert_eq!(reply.header("location"), Some(format!("{REPO}/transaction/{id}").as_str()));
    id
}

fn call(server: &Server, id: &str, verb: &str, body: Value) -> Reply {
    server.http().post(&format!("{REPO}/transaction/{id}/{verb}"), &body)
}

#[test]
fn what_is_staged_is_committed_at_once() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, base) = served(&place);
    let id = begin(&server, json!({}));
    call(&server, &id, "add", json!({ "path": "nginx.conf", "content": "new" })).expect(200);
    call(&server, &id, "add", json!({ "path": "ssl/cert.pem", "content_base64": "AAEC", "mode": "100755" }))
        .expect(200);
    let more = json!({ "changes": [{ "op": "put", "path": "a/b", "content": "1" }, { "op": "put", "path": "a/c", "content": "2" }] });
    call(&server, &id, "add", more).expect(200);
    call(&server, &id, "move", json!({ "from": "a", "to": "moved" })).expect(200);
    let shown = call(&server, &id, "remove", json!({ "path": "base" })).expect(200);
    assert_eq!((&shown["changes"], &shown["base"], &shown["branch"]), (&json!(6), &base, &json!("main")));
    let http = server.http();
    assert_eq!(http.get(&format!("{REPO}/transaction/{id}")).expect(200), shown);
    assert_eq!(http.get(&format!("{REPO}/read/nginx.conf")).status, 404, "nobody else sees it");
    let valid = call(&server, &id, "validate", json!({})).expect(200);
    let version = http.get(REPO).expect(200)["version"].clone();
    let made = call(&server, &id, "commit", json!({ "message": "all of it", "author": "Ada <ada@example.com>" }));
    let made = made.expect(201);
    assert_eq!(
        (&made["tree"], &made["parents"], &made["message"]),
        (&valid["tree"], &json!([base]), &json!("all of it"))
    );
    assert_eq!(made["version"].as_u64(), version.as_u64().map(|version| version + 1), "validating published nothing");
    for verb in ["commit", "add", "validate", "rollback"] {
        let body = json!({ "message": "again", "path": "x" });
        let body = if verb == "add" { json!({ "path": "x", "content": "" }) } else { body };
        let body = if verb == "commit" { json!({ "message": "again" }) } else { body };
        let body = if verb == "validate" { json!({}) } else { body };
        assert_eq!(call(&server, &id, verb, body).problem(410)["code"], "TRANSACTION_GONE", "{verb}");
    }
    git.ok(&place.path(""), &["clone", "-q", &server.url("repo"), "clone"]);
    let clone = place.path("clone");
    git.ok(&clone, &["fsck", "--strict"]);
    assert_eq!(git.ok(&clone, &["ls-files"]), "moved/b\nmoved/c\nnginx.conf\nssl/cert.pem");
}

#[test]
fn transactions_do_not_see_each_other() {
    let place = Place::new();
    let (server, base) = served(&place);
    let [a, b, c] = [(); 3].map(|()| begin(&server, json!({ "branch": "main" })));
    for (id, text) in [(&a, "a"), (&b, "b"), (&c, "c")] {
        call(&server, id, "add", json!({ "path": format!("own-{text}"), "content": text })).expect(200);
        call(&server, id, "add", json!({ "path": "base", "content": text })).expect(200);
    }
    let first = call(&server, &a, "commit", json!({ "message": "a" })).expect(201);
    for verb in ["validate", "commit"] {
        let problem = call(&server, &b, verb, json!({ "message": "b" })).problem(409);
        assert_eq!((&problem["expected"], &problem["actual"]), (&base, &first["hash"]));
        let problem = call(&server, &b, verb, json!({ "message": "b", "on_conflict": "rebase" })).problem(409);
        assert_eq!(problem["paths"], json!(["base"]));
    }
    // One that conflicted is still open, and can be brought to an end.
    let http = server.http();
    assert_eq!(http.get(&format!("{REPO}/transaction/{b}")).expect(200)["changes"], 2);
    assert_eq!(call(&server, &b, "rollback", json!({})).status, 204);
    let d = begin(&server, json!({}));
    call(&server, &d, "add", json!({ "path": "own-d", "content": "d" })).expect(200);
    commit(&server, put("between", "1"), json!({})).expect(201);
    call(&server, &d, "commit", json!({ "message": "d", "on_conflict": "rebase" })).expect(201);
    assert_eq!(http.get(&format!("{REPO}/read/base")).expect(200)["content"], "a");
    assert_eq!(http.get(&format!("{REPO}/read/own-b")).status, 404);
    // What was never committed does not outlive the server.
    let server = server.kill().start();
    assert_eq!(server.http().get(&format!("{REPO}/transaction/{c}")).problem(410)["code"], "TRANSACTION_GONE");
    assert_eq!(server.http().get(&format!("{REPO}/read/own-c")).status, 404);
}

#[test]
fn one_commit_of_many_wins() {
    let place = Place::new();
    let (server, _) = served(&place);
    let id = begin(&server, json!({}));
    call(&server, &id, "add", json!({ "path": "once", "content": "1" })).expect(200);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let body = json!({ "message": "once", "on_conflict": "merge" });
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let (server, id, body) = (&server, &id, body.clone());
                scope.spawn(move || call(server, id, "commit", body).status)
            })
            .collect();
        calls.into_iter().map(|call| call.join().expect("a call")).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 410).count(), 7, "{statuses:?}");
}

#[test]
fn realities_and_empty_repositories_have_them_too() {
    let place = Place::new();
    let (server, base) = served(&place);
    server.http().post(&format!("{REPO}/parallel-realities"), &json!({ "branches": ["try"] })).expect(201);
    let id = begin(&server, json!({ "reality": "try" }));
    call(&server, &id, "add", json!({ "path": "tried", "content": "1" })).expect(200);
    let made = call(&server, &id, "commit", json!({ "message": "try" })).expect(201);
    assert_eq!((&made["branch"], &made["parents"]), (&json!("try"), &json!([base])));
    assert_eq!(server.http().get(&format!("{REPO}/read/tried")).status, 404);
    server.create("empty");
    let http = server.http();
    let id = http.post("/api/v1/repos/empty/transaction", &json!({})).expect(201)["id"].clone();
    let path = format!("/api/v1/repos/empty/transaction/{}", id.as_str().expect("an id"));
    http.post(&format!("{path}/add"), &json!({ "path": "first", "content": "1" })).expect(200);
    http.post(&format!("{path}/commit"), &json!({ "message": "first" })).expect(201);
    assert_eq!(http.get("/api/v1/repos/empty/read/first").expect(200)["content"], "1");
    // Another repository's transaction is none of this one's.
    let foreign = begin(&server, json!({}));
    assert_eq!(
        http.get(&format!("/api/v1/repos/empty/transaction/{foreign}")).problem(410)["code"],
        "TRANSACTION_GONE"
    );
}

#[test]
fn bad_use_is_refused() {
    let place = Place::new();
    let server = place
        .launch()
        .env("GOVC_TRANSACTIONS_MAX_OPEN", "3")
        .env("GOVC_TRANSACTIONS_MAX_BYTES", "100KB")
        .env("GOVC_TRANSACTIONS_IDLE", "3s")
        .start();
    server.create("repo");
    commit(&server, put("base", "1"), json!({})).expect(201);
    let http = server.http();
    let all = format!("{REPO}/transaction");
    assert_eq!(http.post(&all, &json!({ "branch": "nowhere" })).problem(404)["code"], "BRANCH_NOT_FOUND");
    assert_eq!(http.post(&all, &json!({ "reality": "nowhere" })).problem(404)["code"], "REALITY_NOT_FOUND");
    assert_eq!(http.post(&all, &json!({ "branch": "a", "reality": "b" })).problem(400)["code"], "INVALID_REQUEST");
    let id = begin(&server, json!({}));
    for (verb, body) in [
        ("add", json!({ "content": "x" })),
        ("add", json!({ "path": "x", "changes": [{ "op": "delete", "path": "base" }] })),
        ("add", json!({ "path": "x" })),
        ("add", json!({ "path": "x", "content": "1", "mode": "777" })),
        ("remove", json!({})),
        ("move", json!({ "from": "x" })),
        ("commit", json!({})),
        ("commit", json!({ "message": " " })),
    ] {
        assert_eq!(call(&server, &id, verb, body).problem(400)["code"], "INVALID_REQUEST", "{verb}");
    }
    // Nothing staged changes nothing.
    assert_eq!(call(&server, &id, "commit", json!({ "message": "m" })).problem(400)["code"], "INVALID_REQUEST");
    call(&server, &id, "add", json!({ "path": "../x", "content": "1" })).expect(200);
    assert_eq!(call(&server, &id, "validate", json!({})).problem(400)["code"], "INVALID_REQUEST");
    let other = begin(&server, json!({}));
    call(&server, &other, "remove", json!({ "path": "gone" })).expect(200);
    assert_eq!(call(&server, &other, "validate", json!({})).problem(404)["code"], "FILE_NOT_FOUND");
    let big = json!({ "path": "big", "content": "x".repeat(120_000) });
    let problem = call(&server, &other, "add", big).problem(413);
    assert_eq!(problem["code"], "LIMIT_EXCEEDED");
    assert!(problem["detail"].as_str().expect("a text").contains("transactions.max_bytes"));
    begin(&server, json!({}));
    let problem = http.post(&all, &json!({})).problem(413);
    assert!(problem["detail"].as_str().expect("a text").contains("transactions.max_open"));
    for id in ["tx_1", "x", &"0".repeat(32)] {
        assert_eq!(http.get(&format!("{all}/{id}")).problem(404)["code"], "TRANSACTION_NOT_FOUND");
    }
    // Who does not come back leaves room for others.
    let over = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while http.post(&all, &json!({})).status != 201 {
        assert!(std::time::Instant::now() < over, "abandoned transactions never end");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(http.get(&format!("{all}/{other}")).problem(410)["code"], "TRANSACTION_GONE");
}
