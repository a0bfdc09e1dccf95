//! A full disk, made by a reserve that no disk can keep free: writes are refused with 507, reads and deletions go on,
//! and everything works again once there is room.

use serde_json::json;

use crate::{
    git::{Git, assert_same},
    history,
    http::Reply,
    server::{Place, Server},
};

/// A pebibyte in bytes.
const MORE_THAN_THERE_IS: &str = "1125899906842624";

fn commit(server: &Server, path: &str) -> Reply {
    let body = json!({
        "branch": "main",
        "message": "write",
        "author": { "name": "Ada Test", "email": "ada@example.com" },
        "changes": [{ "op": "put", "path": path, "content": "content\n" }],
    });
    server.http().post("/api/v1/repos/full/commits", &body)
}

#[test]
fn a_full_disk_refuses_writes_and_serves_reads() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let source = history::generated(&place, &git);
    let server = place.serve();
    server.create("full");
    server.create("goes");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("full")]);
    drop(server.stop());

    let full = place.launch().env("GOVC_RESERVE", MORE_THAN_THERE_IS).start();
    let problem = commit(&full, "new").problem(507);
    assert_eq!(problem["code"], "STORAGE_FULL", "{problem}");
    full.http().post("/api/v1/repos", &json!({ "id": "another" })).problem(507);
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "file", b"content\n", "will not fit");
    let text = git.fails(&work, &["push", &full.url("full"), "HEAD:refs/heads/refused"]);
    let words = text.to_lowercase();
    assert!(words.contains("full") || words.contains("space") || words.contains("507"), "{text}");

    let copy = place.path("copy.git");
    git.clone_repo(&full.url("full"), &copy, &["--mirror"]);
    assert_same(&git, &source, &copy);
    assert_eq!(full.http().get("/api/v1/repos/full/read/hot.txt?ref=main").status, 200);
    assert_eq!(full.http().get("/health/live").status, 200);
    assert_eq!(full.http().delete("/api/v1/repos/goes").status, 204, "what makes room is taken");
    assert_eq!(commit(&full, "new").status, 507, "which is not the room that a write asks for");
    drop(full.stop());

    let again = place.serve();
    assert_eq!(again.http().get("/api/v1/repos/another").status, 404, "a refused repository is not there");
    assert_eq!(again.http().get("/api/v1/repos/goes").status, 404);
    assert_eq!(commit(&again, "new").status, 201);
    git.ok(&work, &["push", "-q", &again.url("full"), "HEAD:refs/heads/accepted"]);
}

#[test]
fn the_flag_and_the_file_set_the_reserve_too() {
    let place = Place::new();
    let file = place.path("govc.toml");
    std::fs::write(&file, format!("[storage]\nreserve = {MORE_THAN_THERE_IS}\n")).expect("a file");
    let file = file.to_str().expect("a path in UTF-8");
    // A store that begins needs room for its mark; one that exists opens whatever the room.
    place.launch().start().stop();
    for arguments in [&["--reserve", MORE_THAN_THERE_IS][..], &["--config", file]] {
        let server = place.launch().with(arguments).start();
        let reply = server.http().post("/api/v1/repos", &json!({ "id": "none" }));
        assert_eq!(reply.problem(507)["code"], "STORAGE_FULL", "{arguments:?}");
    }
}
