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

/// Until something holds of what there is to say of all compactions; what that is then.
fn overview_when(http: &Http, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let overview = http.get("/api/v1/compaction").expect(200);
        if holds(&overview) {
            return overview;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "it never came: {what}: {overview}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_repository_that_has_grown_is_compacted_without_being_asked_for() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let launch = place.launch().env("GOVC_COMPACTION_MIN_GROWTH", "16KiB");
    let server = launch.start();
    let source = pushed(&place, &git, &server);
    let http = server.http();
    let overview = overview_when(&http, "one by itself", |overview| overview["totals"]["automatic"] == 1);
    assert_eq!(overview["automatic"], true);
    assert!(overview["totals"]["bytes_out"].as_u64() < overview["totals"]["bytes_in"].as_u64(), "{overview}");
    assert!(overview["totals"]["cpu_seconds"].as_f64() > Some(0.0), "{overview}");
    let last = ended(&http);
    assert_eq!(last["outcome"], "done", "{last}");
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
    assert_same(&git, &source, &copy);
    let metrics = http.get("/metrics").text();
    for line in ["govc_compactions_automatic_total 1", "govc_compaction_paused 0"] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    // What is compacted is known to be, also after a restart; and where none begin by themselves, none does.
    let server = server.kill().start();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(server.http().get("/api/v1/compaction").expect(200)["totals"]["done"], 0);
    let server = server.stop().env("GOVC_COMPACTION_ENABLED", "false").start();
    assert_eq!(server.http().get("/api/v1/compaction").expect(200)["automatic"], false);
}

#[test]
fn what_was_asked_for_survives_a_pause_and_a_kill() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let source = pushed(&place, &git, &server);
    let http = server.http();
    assert_eq!(
        http.json("PUT", "/api/v1/compaction", &json!({ "pause": true })).problem(400)["code"],
        "INVALID_REQUEST"
    );
    let paused = http.json("PUT", "/api/v1/compaction", &json!({ "paused": true })).expect(200);
    assert_eq!((&paused["paused"], &paused["state"]), (&json!(true), &json!("idle")));
    http.post(&format!("{REPO}/compact"), &json!({})).expect(202);
    http.post(&format!("{REPO}/compact"), &json!({})).expect(202);
    thread::sleep(Duration::from_millis(500));
    let queued = http.get(&format!("{REPO}/compaction")).expect(200);
    assert_eq!((&queued["state"], &queued["position"]), (&json!("queued"), &json!(1)));
    assert_eq!(http.get("/api/v1/compaction").expect(200)["state"], "queued");

    // The next process is not paused.
    let server = server.kill().start();
    let http = server.http();
    overview_when(&http, "what the last one was asked for", |overview| overview["totals"]["done"] == 1);
    assert_eq!(ended(&http)["outcome"], "done");
    // It is not done once more, and what is cancelled is not done at all.
    let server = server.stop().start();
    thread::sleep(Duration::from_secs(1));
    let http = server.http();
    assert_eq!(http.get("/api/v1/compaction").expect(200)["totals"]["done"], 0);
    http.json("PUT", "/api/v1/compaction", &json!({ "paused": true })).expect(200);
    http.post(&format!("{REPO}/compact"), &json!({ "archive": true })).expect(202);
    assert_eq!(http.delete(&format!("{REPO}/compaction")).status, 204);
    let server = server.stop().start();
    thread::sleep(Duration::from_secs(1));
    let overview = server.http().get("/api/v1/compaction").expect(200);
    assert_eq!((&overview["totals"]["done"], &overview["state"]), (&json!(0), &json!("idle")));
    // One that is under way goes on.
    let http = server.http();
    http.post(&format!("{REPO}/compact"), &json!({ "archive": true })).expect(202);
    http.json("PUT", "/api/v1/compaction", &json!({ "paused": true })).expect(200);
    http.json("PUT", "/api/v1/compaction", &json!({ "paused": false })).expect(200);
    assert_eq!(ended(&http)["outcome"], "done");
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
    assert_same(&git, &source, &copy);
}

#[test]
fn what_nothing_leads_to_goes_and_what_is_kept_stays() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.launch().env("GOVC_VERSIONS_MAX_COUNT", "2").start();
    let source = pushed(&place, &git, &server);
    let http = server.http();
    let commit = |branch: &str, path: &str, content: &str| {
        let body = json!({
            "branch": branch, "message": path, "author": { "name": "A", "email": "a@example.org" },
            "create_branch_from": "main", "changes": [{ "op": "put", "path": path, "content": content }],
        });
        http.post(&format!("{REPO}/commits"), &body).expect(201)["hash"].as_str().expect("an id").to_owned()
    };
    let kept = commit("kept", "kept", "of a branch that stays");
    let gone = commit("gone", "aside/gone", "of a branch that goes");
    assert_eq!(http.delete(&format!("{REPO}/branches/gone")).status, 204);
    let compacted = || {
        http.post(&format!("{REPO}/compact"), &json!({})).expect(202);
        let last = ended(&http);
        assert_eq!(last["outcome"], "done", "{last}");
        last["gain"]["removed_objects"].as_u64().expect("a number")
    };
    // The version before the last has the branch. What is in the journal is settled first, or left alone.
    assert_eq!(compacted(), 0);
    http.get(&format!("{REPO}/commits/{gone}")).expect(200);
    for at in 0..3 {
        commit("kept", "count", &at.to_string());
    }
    let server = server.stop().start();
    let http = server.http();
    http.post(&format!("{REPO}/compact"), &json!({})).expect(202);
    assert_eq!(ended(&http)["gain"]["removed_objects"], 4, "a commit, two trees and a file");
    http.get(&format!("{REPO}/commits/{gone}")).problem(404);
    http.get(&format!("{REPO}/commits/{kept}")).expect(200);
    assert_eq!(http.get(&format!("{REPO}/versions")).expect(200)["count"], 3);
    assert_eq!(http.delete(&format!("{REPO}/branches/kept")).status, 204);
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
    assert_same(&git, &source, &copy);
    server.stop();
    assert!(ok(&["fsck", "--data", text(&place.path("data"))]).contains("nothing is wrong"));
}
