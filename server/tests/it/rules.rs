//! Per-repository rules for pushes, and hidden references: as git's own settings of the same names.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    git::Git,
    pack::line,
    partial::{answer, ask_v2, assert_refused},
    server::{Place, Server},
};

fn set(server: &Server, repo: &str, rules: &Value) {
    let reply = server.http().patch(&format!("/api/v1/repos/{repo}"), &json!({ "git": rules }));
    assert_eq!(reply.status, 200, "{}", reply.text());
    for (name, value) in rules.as_object().expect("rules") {
        assert_eq!(reply.json()["git"][name], *value, "{name}");
    }
}

/// What git prints of each reference of a push, sorted: `! [remote rejected] side -> side (deletion prohibited)`.
fn push(git: &Git, work: &Path, url: &str, arguments: &[&str]) -> Vec<String> {
    let output = git.run(work, &[&["push", "--porcelain", url], arguments].concat());
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.contains('\t'))
        // Ids may be shortened differently.
        .map(|line| {
            line.split('\t')
                .enumerate()
                .filter(|(at, part)| *at < 2 || part.starts_with('['))
                .map(|(_, p)| p)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn pushes_are_refused_as_git_refuses_them() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let (work, oracle) = (place.path("work"), place.path("oracle.git"));
    git.init(&work);
    git.ok(&work, &["init", "-q", "--bare", "-b", "main", oracle.to_str().expect("text")]);
    for at in ["first", "second"] {
        git.commit(&work, "file", at.as_bytes(), at);
    }
    git.ok(&work, &["tag", "light"]);
    git.ok(&work, &["branch", "other"]);
    git.ok(&work, &["branch", "side", "main~1"]);
    let urls = [server.url("repo"), format!("file://{}", oracle.display())];
    for url in &urls {
        git.ok(&work, &["push", "-q", url, "main", "other", "side", "light", "main:refs/internal/one"]);
    }
    for (name, value) in [("receive.denyNonFastForwards", "true"), ("receive.denyDeletes", "true")] {
        git.ok(&oracle, &["config", name, value]);
    }
    git.ok(&oracle, &["config", "transfer.hideRefs", "refs/internal"]);
    let rules = json!({ "deny_non_fast_forwards": true, "deny_deletes": true, "hidden_refs": ["refs/internal"] });
    set(&server, "repo", &rules);
    git.commit(&work, "file", b"third", "third");
    git.ok(&work, &["branch", "rewritten", "main~2"]);
    let cases: [&[&str]; 6] = [
        // A branch back, one forward, one away; a tag back, and away; references that are hidden.
        &["--force", "rewritten:main", "main:side", ":other"],
        &["--force", "rewritten:refs/tags/light"],
        &[":refs/tags/light"],
        &["--force", "main:refs/internal/one", "main:new"],
        &["--atomic", "--force", "main:main", "rewritten:side"],
        &["main:main"],
    ];
    for case in cases {
        let [got, wanted] = urls.each_ref().map(|url| push(&git, &work, url, case));
        assert_eq!(got, wanted, "{case:?}");
        assert!(!got.is_empty(), "{case:?}");
    }
    for version in ["0", "1", "2"] {
        let git = git.with("protocol.version", version);
        let [got, wanted] = urls.each_ref().map(|url| git.ok(&work, &["ls-remote", "--symref", url]));
        assert_eq!(got, wanted, "version {version}");
        assert!(got.contains("refs/heads/main") && !got.contains("internal"), "{got}");
        // By name, and by the id of what only they lead to.
        git.fails(&work, &["fetch", &urls[0], "refs/internal/one"]);
    }
    // The API is not bound by it, nor is another repository.
    let deleted = server.http().delete("/api/v1/repos/repo/branches/other");
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    server.create("free");
    git.ok(&work, &["push", "-q", &server.url("free"), "main"]);
    git.ok(&work, &["push", "-q", "--force", &server.url("free"), "rewritten:main"]);
}

#[test]
fn what_only_hidden_references_lead_to_is_not_served() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "file", b"public\n", "public");
    git.ok(&work, &["checkout", "-q", "-b", "secret"]);
    git.commit(&work, "secret", b"secret\n", "secret");
    let (commit, blob) = (git.ok(&work, &["rev-parse", "HEAD"]), git.ok(&work, &["rev-parse", "HEAD:secret"]));
    git.ok(&work, &["tag", "-a", "-m", "t", "private/one", "main"]);
    let url = server.url("repo");
    git.ok(&work, &["push", "-q", &url, "main", "secret", "private/one"]);
    let empty = place.path("empty");
    git.init(&empty);
    let fetch = |what: &str| git.run(&empty, &["-c", "protocol.version=2", "fetch", "-q", &url, what]).status.success();
    assert!(fetch(&commit) && fetch(&blob), "both can be had by their ids");
    set(&server, "repo", &json!({ "hidden_refs": ["refs/heads/secret", "refs/tags/private"] }));
    let fresh = place.path("fresh");
    git.init(&fresh);
    for what in [&*commit, &*blob, "secret"] {
        for version in ["0", "2"] {
            git.with("protocol.version", version).fails(&fresh, &["fetch", "-q", &url, what]);
        }
    }
    // A tag that is hidden does not come along with what it names either.
    let copy = place.path("copy");
    git.clone_repo(&url, &copy, &["--mirror"]);
    assert_eq!(git.references(&copy).lines().count(), 1, "{}", git.references(&copy));
    // Shown again, also in part.
    set(&server, "repo", &json!({ "hidden_refs": ["refs/heads/secret", "refs/tags", "!refs/tags/private/one"] }));
    assert_eq!(git.ok(&fresh, &["ls-remote", "--tags", "--refs", &url]).lines().count(), 1);
    set(&server, "repo", &json!({ "hidden_refs": [] }));
    git.ok(&fresh, &["fetch", "-q", &url, &blob]);

    // HEAD is as its branch is.
    set(&server, "repo", &json!({ "hidden_refs": ["refs/heads/main"] }));
    for version in ["0", "2"] {
        let all = git.with("protocol.version", version).ok(&fresh, &["ls-remote", "--symref", &url]);
        assert!(all.contains("refs/heads/secret") && !all.contains("HEAD") && !all.contains("main"), "{all}");
    }
}

#[test]
fn what_is_hidden_is_not_there_however_it_is_asked_for() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    let main = git.commit(&work, "file", b"public\n", "public");
    git.ok(&work, &["checkout", "-q", "-b", "secret"]);
    git.commit(&work, "dir/rules", b"/dir/\n", "secret");
    git.ok(&work, &["tag", "-a", "-m", "t", "private/one"]);
    let url = server.url("repo");
    git.ok(&work, &["push", "-q", &url, "main", "secret", "private/one"]);
    set(&server, "repo", &json!({ "hidden_refs": ["refs/heads/secret", "refs/tags/private"] }));
    // Moved while it is hidden, so that the grace for what references were told of a moment ago would hold.
    git.commit(&work, "dir/more", b"more\n", "later");
    let moved = git.fails(&work, &["push", "-q", &url, "secret"]);
    assert!(moved.contains("deny updating a hidden ref"), "{moved}");
    let change =
        json!({ "branch": "secret", "message": "m", "changes": [{ "op": "put", "path": "new", "content": "x" }] });
    server.http().post("/api/v1/repos/repo/commits", &change).expect(201);
    for name in ["secret~1", "secret~1^{tree}", "secret~1:dir", "secret~1:dir/rules", "private/one"] {
        assert_refused(&server, "repo", &git.ok(&work, &["rev-parse", name]));
    }
    // By name: wanted, as rules of a filter, and as where a history is to end. In version 2, and in version 0.
    let rules = git.ok(&work, &["rev-parse", "secret:dir/rules"]);
    let want = format!("want {main}");
    let ask = |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().chain(&["done"]).map(|&argument| argument.to_owned()).collect();
        ask_v2(&server, "repo", &arguments)
    };
    let sparse =
        |name: &str| (format!("filter sparse:oid={name}"), format!("unable to access sparse blob in '{name}'"));
    let mut cases = vec![
        ("deepen-not secret".to_owned(), "deepen-not is not a ref: secret".to_owned()),
        ("deepen-not refs/tags/private/one".to_owned(), "deepen-not is not a ref: refs/tags/private/one".to_owned()),
    ];
    cases.extend(["secret:dir/rules", "refs/heads/secret:dir/rules", &rules].map(sparse));
    for (argument, reason) in &cases {
        let wanted = (vec![format!("ERR {reason}")], Vec::new());
        assert_eq!(ask(&[&want, argument]), wanted);
        let lines = [line(format!("{want} side-band-64k filter deepen-not\n").as_bytes()), line(argument.as_bytes())];
        let body = [lines.concat(), b"0000".to_vec(), line(b"done\n")].concat();
        assert_eq!(answer(&server, "repo", "", &body), wanted);
    }
    for name in ["refs/heads/secret", "refs/tags/private/one"] {
        assert_eq!(ask(&[&format!("want-ref {name}")]), (vec![format!("ERR unknown ref {name}")], Vec::new()));
    }
    // What is shown is served.
    assert!(ask(&[&want, "no-progress"]).1.starts_with(b"PACK"));
}

#[test]
fn rules_stay_over_a_crash_and_go_to_forks() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let rules = json!({
        "deny_non_fast_forwards": true, "deny_deletes": false, "max_object_size": 1 << 20, "hidden_refs": ["refs/a", "!refs/a/b"],
        "require_signed_push": "none",
    });
    let made = server.http().post("/api/v1/repos", &json!({ "id": "repo", "git": rules }));
    assert_eq!((made.status, &made.json()["git"]), (201, &rules), "{}", made.text());
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "small", &[b'a'; 1 << 20], "small");
    git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
    let server = server.kill().start();
    assert_eq!(server.http().get("/api/v1/repos/repo").json()["git"], rules);
    let fork = server.http().post("/api/v1/repos/repo/fork", &json!({ "id": "fork" }));
    assert_eq!((fork.status, &fork.json()["git"]), (201, &rules), "{}", fork.text());
    git.commit(&work, "large", &[b'b'; (1 << 20) + 1], "large");
    for repo in ["repo", "fork"] {
        let said = git.fails(&work, &["push", "-q", &server.url(repo), "main"]);
        assert!(said.contains("1048576"), "{said}");
    }
    set(&server, "fork", &json!({ "max_object_size": 2 << 20 }));
    git.ok(&work, &["push", "-q", &server.url("fork"), "main"]);
    let reply = server.http().patch("/api/v1/repos/fork", &json!({ "git": { "max_object_size": 0 } }));
    assert_eq!(reply.json()["git"]["max_object_size"], Value::Null, "{}", reply.text());
    assert_eq!(reply.json()["git"]["hidden_refs"], rules["hidden_refs"], "what is not named stays");

    for bad in [
        json!({ "hidden_refs": ["heads"] }),
        json!({ "hidden_refs": ["refs/heads/"] }),
        json!({ "hidden_refs": vec!["refs/a"; 101] }),
        json!({ "hidden_refs": "refs/a" }),
        json!({ "max_object_size": -1 }),
        json!({ "deny_pushes": true }),
    ] {
        let reply = server.http().patch("/api/v1/repos/repo", &json!({ "git": bad }));
        assert_eq!(reply.status, 400, "{bad}: {}", reply.text());
    }
    assert_eq!(server.http().get("/api/v1/repos/repo").json()["git"], rules);
}
