//! Time travel over HTTP: every version read by number and time, listed, restored, and gone when its time is over.

use serde_json::{Value, json};

use crate::{
    git::Git,
    http::{encode, items},
    rest_commits::{commit, put},
    rest_repos::walk_items,
    server::{Place, Server},
};

const REPO: &str = "/api/v1/repos/repo";

/// Makes `count` commits of one file, each a version whose number its content is.
fn write(server: &Server, count: u64) -> Vec<Value> {
    let first = server.http().get(REPO).expect(200)["version"].as_u64().expect("a number");
    (first + 1..=first + count)
        .map(|number| {
            // Times have thousandths; each version gets one of its own.
            std::thread::sleep(std::time::Duration::from_millis(3));
            commit(server, put("file", &number.to_string()), json!({})).expect(201)
        })
        .collect()
}

#[test]
fn every_read_takes_a_version_or_a_time() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let made = write(&server, 6);
    let check = |server: &Server| {
        let http = server.http();
        let versions = walk_items(server, &format!("{REPO}/versions?limit=2"), 2);
        let numbers: Vec<_> = versions.iter().map(|version| version["version"].as_u64().expect("a number")).collect();
        assert_eq!(numbers, [7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(versions[6]["cause"], "create");
        for version in &versions[..6] {
            let number = version["version"].as_u64().expect("a number");
            let head = &made[number as usize - 2]["hash"];
            let before = if number == 2 { Value::Null } else { made[number as usize - 3]["hash"].clone() };
            let change = json!([{ "ref": "refs/heads/main", "before": before, "after": head }]);
            assert_eq!((&version["cause"], &version["changes"]), (&json!("commit"), &change));
            assert_eq!(http.get(&format!("{REPO}/versions/{number}")).expect(200), *version);
            let time = version["time"].as_str().expect("a time");
            assert_eq!(http.get(&format!("{REPO}/time-travel/{}", encode(time))).expect(200), *version);

            let escaped = encode(time);
            for at in [number.to_string(), time.to_owned(), escaped.clone()] {
                let read = http.get(&format!("{REPO}/read/file?at={at}")).expect(200);
                assert_eq!(read["content"], number.to_string(), "at {at}");
                assert_eq!(http.get(&format!("{REPO}/raw/file?ref=main&at={at}")).text(), number.to_string());
                assert_eq!(http.get(&format!("{REPO}/tree?at={at}")).expect(200)["entries"][0]["hash"], read["hash"]);
                let commits = http.get(&format!("{REPO}/commits?at={at}&limit=1000")).expect(200);
                assert_eq!(items(&commits).len() as u64, number - 1);
                assert_eq!(http.get(&format!("{REPO}/commits/main?at={at}")).expect(200)["hash"], *head);
                let branches = http.get(&format!("{REPO}/branches?at={at}")).expect(200);
                assert_eq!(branches["branches"][0]["commit"], *head);
                assert_eq!(http.get(&format!("{REPO}/branches/main?at={at}")).expect(200)["commit"], *head);
                let grep = http.post(&format!("{REPO}/grep?at={at}"), &json!({ "pattern": "^[0-9]+$", "regex": true }));
                assert_eq!(grep.expect(200)["results"][0]["content"], number.to_string());
                assert_eq!(http.get(&format!("{REPO}?at={at}")).expect(200)["head"], *head);
            }
            for below in ["read/file", "read/file?ref=main"] {
                let read = http.get(&format!("{REPO}/time-travel/{escaped}/{below}")).expect(200);
                assert_eq!(read["content"], number.to_string());
            }
            let grep =
                http.post(&format!("{REPO}/time-travel/{escaped}/grep"), &json!({ "pattern": "." , "regex": true}));
            assert_eq!(grep.expect(200)["results"][0]["content"], number.to_string());
        }
        assert_eq!(http.get(&format!("{REPO}/branches?at=1")).expect(200)["count"], 0);
    };
    check(&server);
    check(&server.kill().start());
}

#[test]
fn a_version_is_restored_as_a_new_one() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let made = write(&server, 3);
    let http = server.http();
    http.post(&format!("{REPO}/branches"), &json!({ "name": "more" })).expect(201);
    http.post(&format!("{REPO}/tags"), &json!({ "name": "v1" })).expect(201);
    let reply = http.post(&format!("{REPO}/versions/3/restore"), &json!({}));
    assert_eq!(reply.expect(201), json!({ "version": 7, "restored": 3 }));
    assert_eq!(reply.header("location"), Some("/api/v1/repos/repo/versions/7"));
    let refs = git.ok(&place.path(""), &["ls-remote", &server.url("repo")]);
    let head = made[1]["hash"].as_str().expect("an id");
    assert_eq!(refs, format!("{head}\tHEAD\n{head}\trefs/heads/main"));
    let newest = http.get(&format!("{REPO}/versions/7")).expect(200);
    assert_eq!((&newest["cause"], newest["changes"].as_array().map(Vec::len)), (&json!("restore"), Some(3)));
    // And back again: nothing was lost.
    http.post(&format!("{REPO}/versions/6/restore"), &json!({})).expect(201);
    let refs = git.ok(&place.path(""), &["ls-remote", &server.url("repo")]);
    assert_eq!(refs.lines().count(), 4);
    assert_eq!(http.get(&format!("{REPO}/read/file")).expect(200)["content"], "4");
}

#[test]
fn what_there_is_not_is_said_so() {
    let place = Place::new();
    let server = place.launch().env("GOVC_VERSIONS_MAX_COUNT", "3").start();
    server.create("repo");
    write(&server, 8);
    let http = server.http();
    let code = |path: &str, status| http.get(&format!("{REPO}/{path}")).problem(status)["code"].clone();
    for path in ["read/file?at=10", "versions/10", "read/file?at=0", "versions/99"] {
        assert_eq!(code(path, 404), "VERSION_NOT_FOUND", "{path}");
    }
    for path in ["read/file?at=5", "versions/5", "time-travel/2001-01-01T00:00:00Z", "read/file?at=@1", "versions/1"] {
        let status = if path.contains("2001") || path.contains('@') { 404 } else { 410 };
        assert_eq!(code(path, status), if status == 404 { "VERSION_NOT_FOUND" } else { "VERSION_GONE" }, "{path}");
    }
    for path in
        ["read/file?at=", "read/file?at=main", "versions/x", "versions/-1", "time-travel/soon", "time-travel/soon/tree"]
    {
        assert_eq!(code(path, 400), "INVALID_REQUEST", "{path}");
    }
    assert_eq!(http.get(&format!("{REPO}/read/file?at=6")).expect(200)["content"], "6");
    assert_eq!(walk_items(&server, &format!("{REPO}/versions?limit=2"), 2).len(), 4);
    assert_eq!(http.post(&format!("{REPO}/versions/2/restore"), &json!({})).problem(410)["code"], "VERSION_GONE");
    assert_eq!(http.post(&format!("{REPO}/versions/77/restore"), &json!({})).problem(404)["code"], "VERSION_NOT_FOUND");
    // A write into the past is none.
    let body = json!({ "branch": "main", "message": "x", "changes": put("file", "x") });
    assert_eq!(http.post(&format!("{REPO}/time-travel/2030-01-01T00:00:00Z/commits"), &body).status, 404);
}
