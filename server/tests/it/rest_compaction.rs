//! Compaction over HTTP and from the command line: smaller, the same, and nobody notices.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    admin::{ok, refused, text},
    git::{Git, assert_same},
    history,
    http::Http,
    server::{Launch, Place, Server},
};

const REPO: &str = "/api/v1/repos/repo";

/// Waits until a compaction that was asked for has ended; what there is to say of it.
fn ended(http: &Http) -> Value {
    let start = Instant::now();
    loop {
        let info = http.get(&format!("{REPO}/compaction")).expect(200);
        if info["state"] == "idle" {
            return info["last"].clone();
        }
        assert!(start.elapsed() < Duration::from_secs(120), "it does not end: {info}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A repository with a history; its sources.
fn pushed(place: &Place, git: &Git, server: &Server) -> std::path::PathBuf {
    server.create("repo");
    let source = history::generated(place, git);
    git.ok(&source, &["push", "-q", "--mirror", &server.url("repo")]);
    source
}

#[test]
fn a_repository_is_compacted_under_its_readers_and_writers() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let source = pushed(&place, &git, &server);
    let http = server.http();
    let idle = http.get(&format!("{REPO}/compaction")).expect(200);
    assert_eq!(idle, json!({ "state": "idle" }));
    assert_eq!(http.delete(&format!("{REPO}/compaction")).problem(404)["code"], "NOT_FOUND");

    let reply = http.post(&format!("{REPO}/compact"), &json!({}));
    let begun = reply.expect(202);
    assert!(begun["state"] == "queued" || begun["state"] == "running", "{begun}");
    assert_eq!(reply.header("location"), Some("/api/v1/repos/repo/compaction"));
    // Clones and commits meanwhile.
    let mut copies = 0;
    while http.get(&format!("{REPO}/compaction")).expect(200)["state"] != "idle" || copies == 0 {
        copies += 1;
        let copy = place.path(&format!("meanwhile-{copies}.git"));
        git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
        assert_same(&git, &source, &copy);
    }
    let last = ended(&http);
    assert_eq!(last["outcome"], "done", "{last}");
    let (before, after) = (&last["gain"]["stored_bytes_before"], &last["gain"]["stored_bytes_after"]);
    assert!(after.as_u64() < before.as_u64() && after.as_u64() > Some(0), "{last}");
    let copy = place.path("after.git");
    git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
    assert_same(&git, &source, &copy);

    let metrics = http.get("/metrics").text();
    for line in ["govc_compactions_total 1", "govc_compaction_running 0", "govc_compaction_queue 0"] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    let overview = http.get("/api/v1/compaction").expect(200);
    assert_eq!((&overview["state"], &overview["totals"]["done"]), (&json!("idle"), &json!(1)), "{overview}");
    assert_eq!(&overview["totals"]["bytes_out"], after);

    http.post(&format!("{REPO}/compact"), &json!({ "archive": true })).expect(202);
    let archived = ended(&http);
    assert_eq!(archived["gain"]["stored_bytes_before"], *after);
    assert!(archived["gain"]["stored_bytes_after"].as_u64() < after.as_u64(), "{archived}");
    let server = server.kill().start();
    let copy = place.path("killed.git");
    git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
    assert_same(&git, &source, &copy);
}

#[test]
fn what_cannot_be_compacted_is_said_so() {
    let place = Place::new();
    let server = place.serve();
    let http = server.http();
    http.post("/api/v1/repos", &json!({ "id": "fleeting", "durability": "memory" })).expect(201);
    let code = |path: &str, body: Value, status| http.post(path, &body).problem(status)["code"].clone();
    assert_eq!(code("/api/v1/repos/fleeting/compact", json!({}), 400), "INVALID_REQUEST");
    assert_eq!(code("/api/v1/repos/none/compact", json!({}), 404), "REPO_NOT_FOUND");
    assert_eq!(http.get("/api/v1/repos/none/compaction").problem(404)["code"], "REPO_NOT_FOUND");
    server.create("repo");
    for body in [json!({ "archive": "yes" }), json!({ "unknown": 1 }), json!("all")] {
        assert_eq!(code(&format!("{REPO}/compact"), body, 400), "INVALID_REQUEST");
    }
    // Nothing to be done is no failure.
    http.post(&format!("{REPO}/compact"), &json!({})).expect(202);
    assert_eq!(ended(&http)["gain"]["objects"], 0);
}

#[test]
fn a_store_is_compacted_from_the_command_line() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    for backend in ["rocksdb", "sqlite", "postgres"] {
        let folder = place.path(backend);
        let location = match backend {
            "postgres" => {
                let server = govc_postgres_server::shared();
                server.url(&server.database())
            }
            backend => backend.to_owned(),
        };
        let here = ["--data", text(&folder), "--backend", &location];
        let server = Launch::bare().with(&["--listen", "127.0.0.1:0"]).with(&here).start();
        let source_place = Place::new();
        let source = pushed(&source_place, &git, &server);
        server.create("other");
        refused(1, &[&["compact"][..], &here].concat(), &["cannot open"]);
        let launch = server.stop();

        let said = ok(&[&["compact", "repo"][..], &here].concat());
        assert!(said.starts_with("repo: ") && said.lines().count() == 1, "{said}");
        let said = ok(&[&["compact", "--archive"][..], &here].concat());
        assert!(said.contains("repo: ") && said.contains("other: 0 objects") && said.contains("all: "), "{said}");
        refused(1, &[&["compact", "none"][..], &here].concat(), &["none"]);
        refused(2, &[&["compact", "no/such/name/at/all"][..], &here].concat(), &["name"]);
        assert!(ok(&[&["fsck"][..], &here].concat()).contains("nothing is wrong"), "{backend}");

        let server = launch.start();
        let copy = folder.join("copy.git");
        git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
        assert_same(&git, &source, &copy);
    }
}
