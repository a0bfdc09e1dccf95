//! Forks over HTTP, and what real git makes of them.

use govc_engine::{Kind, Oid};
use serde_json::json;

use crate::{
    git::{Git, assert_same},
    pack::{Pack, commit_of, copy, delta, insert, push_new},
    rest_commits::{commit, put},
    server::{Place, Server},
    tested,
};

fn fork(server: &Server, source: &str, name: &str) -> serde_json::Value {
    let reply = server.http().post(&format!("/api/v1/repos/{source}/fork"), &json!({ "id": name }));
    let made = reply.expect(201);
    assert_eq!(reply.header("location"), Some(format!("/api/v1/repos/{name}").as_str()));
    made
}

#[test]
fn a_fork_is_cloned_pushed_to_and_outlives_its_source() {
    for durability in ["memory", "relaxed", "durable"] {
        let place = Place::new();
        let git = Git::new(&place.path("home"));
        let server = place.serve();
        let http = server.http();
        http.post("/api/v1/repos", &json!({ "id": "source", "description": "text", "durability": durability }))
            .expect(201);
        let work = place.path("work");
        git.init(&work);
        for at in 0..30 {
            git.commit(&work, &format!("dir/file{}", at % 7), format!("content {at}\n").repeat(200).as_bytes(), "more");
        }
        git.ok(&work, &["tag", "-a", "-m", "a tag", "v1"]);
        git.ok(&work, &["push", "-q", &server.url("source"), "main", "v1"]);

        let made = fork(&server, "source", "fork");
        assert_eq!((&made["forked_from"], &made["forks"], &made["version"]), (&json!("source"), &json!(0), &json!(1)));
        assert_eq!((&made["description"], &made["durability"]), (&json!("text"), &json!(durability)));
        assert_eq!(http.get("/api/v1/repos/source").expect(200)["forks"], 1);
        assert_eq!(http.get("/api/v1/repos/fork/versions/1").expect(200)["cause"], "fork");
        let (copy, mirror) = (place.path("copy"), place.path("mirror"));
        git.clone_repo(&server.url("fork"), &mirror, &["--mirror"]);
        assert_same(&git, &work, &mirror);
        git.clone_repo(&server.url("fork"), &copy, &[]);

        // Deltas against what only the source's pool holds, and what each has for itself.
        let file = "content 29\n".repeat(200) + "and the fork's\n";
        let own = git.commit(&copy, "dir/file1", file.as_bytes(), "of the fork");
        git.ok(&copy, &["push", "-q", "origin", "main"]);
        let theirs = git.commit(&work, "dir/file1", b"of the source\n", "of the source");
        git.ok(&work, &["push", "-q", &server.url("source"), "main"]);
        for (repo, has, misses) in [("fork", &own, &theirs), ("source", &theirs, &own)] {
            assert_eq!(http.get(&format!("/api/v1/repos/{repo}/commits/{has}")).expect(200)["hash"], **has);
            http.get(&format!("/api/v1/repos/{repo}/commits/{misses}")).problem(404);
            http.get(&format!("/api/v1/repos/{repo}/commits/{}", &misses[..12])).problem(404);
            let other = place.path(&format!("fetch-{repo}"));
            git.init(&other);
            git.ok(&other, &["fetch", "-q", &server.url(repo), has]);
            git.fails(&other, &["fetch", "-q", &server.url(repo), misses]);
            let change = json!({ "name": "stolen", "from": misses });
            http.post(&format!("/api/v1/repos/{repo}/branches"), &change).problem(404);
        }

        http.delete("/api/v1/repos/source");
        assert!(http.get("/api/v1/repos/fork").expect(200)["forked_from"].is_null());
        let server = if durability == "memory" { server } else { server.kill().start() };
        git.ok(&mirror, &["fetch", "-q", &server.url("fork"), "+refs/*:refs/*"]);
        let last = place.path("last");
        git.clone_repo(&server.url("fork"), &last, &["--mirror"]);
        assert_same(&git, &mirror, &last);
        assert_eq!(git.ok(&last, &["rev-parse", "main"]), own);
    }
}

/// A push that builds on an object which only a relative has is refused, though the pools lie over one another.
#[test]
fn a_push_cannot_reach_into_a_relative() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("source");
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "file", b"public\n", "public");
    git.ok(&work, &["push", "-q", &server.url("source"), "main"]);
    fork(&server, "source", "fork");
    let secret = git.commit(&work, "secret", b"a secret\n", "secret");
    git.ok(&work, &["push", "-q", &server.url("source"), "main"]);

    // The thief knows the id of the tree, sends a commit on it, and leaves out the tree itself.
    let tree = git.ok(&work, &["rev-parse", &format!("{secret}^{{tree}}")]);
    let mut pack = Pack::new();
    let stolen = commit_of(tree.parse().expect("an id"), &[], "mine now");
    let stolen = pack.object(Kind::Commit, &stolen);
    // Or a delta that would give the blob's bytes away.
    let blob: Oid = git.ok(&work, &["rev-parse", &format!("{secret}:secret")]).parse().expect("an id");
    let mut thin = Pack::new();
    thin.ref_delta(blob, &delta(9, 10, &[copy(0, 9), insert(b"!")].concat()));
    let copied = tested::hash(Kind::Blob, b"a secret\n!");
    for (repo, is_relative) in [("fork", true), ("source", false)] {
        let http = server.http();
        for (name, tip, pack) in [("refs/heads/mine", stolen, &pack), ("refs/tags/mine", copied, &thin)] {
            let report = push_new(&http, repo, name, tip, &pack.finish());
            assert_eq!(report.accepted(), !is_relative, "{repo} {name}: {}", report.reasons());
            assert_eq!(git.ok(&work, &["ls-remote", &server.url(repo), name]).is_empty(), is_relative, "{repo}");
        }
    }
}

#[test]
fn commits_over_http_go_their_own_ways_in_forks_of_forks() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    commit(&server, put("file", "one"), json!({})).expect(201);
    fork(&server, "repo", "a");
    fork(&server, "a", "b");
    commit(&server, put("file", "two"), json!({})).expect(201);
    let http = server.http();
    let change = json!({ "branch": "main", "message": "of b", "changes": put("other", "of b") });
    http.post("/api/v1/repos/b/commits", &change).expect(201);
    let check = |server: &Server| {
        let http = server.http();
        for (repo, file, other) in [("repo", "two", 404), ("a", "one", 404), ("b", "one", 200)] {
            assert_eq!(http.get(&format!("/api/v1/repos/{repo}/read/file")).expect(200)["content"], file);
            assert_eq!(http.get(&format!("/api/v1/repos/{repo}/read/other")).status, other, "{repo}");
            let grep = http.post(&format!("/api/v1/repos/{repo}/grep"), &json!({ "pattern": "of b" })).expect(200);
            assert_eq!(grep["total"], u32::from(other == 200), "{repo}");
        }
    };
    check(&server);
    check(&server.kill().start());
}

#[test]
fn bad_forks_are_problems() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    server.create("taken");
    let http = server.http();
    let fork = |source: &str, body| http.post(&format!("/api/v1/repos/{source}/fork"), &body);
    assert_eq!(fork("absent", json!({ "id": "new" })).problem(404)["code"], "REPO_NOT_FOUND");
    fork("repo", json!({ "id": "taken" })).problem(409);
    fork("repo", json!({ "id": "repo" })).problem(409);
    for body in [json!({}), json!({ "id": "../x" }), json!({ "id": "x", "size": 1 }), json!({ "id": 7 })] {
        let status = fork("repo", body.clone()).status;
        assert!(status == 400 || status == 422, "{body}: {status}");
    }
    assert_eq!(http.get("/api/v1/repos/repo").expect(200)["forks"], 0);
}
