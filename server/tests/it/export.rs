//! `govc export`: what the real git makes of the files.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::{
    admin::{ok, refused, text},
    git::{Git, assert_same},
    history,
    server::{BUILT, Place},
};

/// Runs `govc export` with the ordinary store of a place; what it says.
#[track_caller]
fn export(place: &Place, repo: &str, target: &Path, more: &[&str]) -> String {
    let data = place.path("data");
    ok(&[&["export", repo, text(target), "--data", text(&data)], more].concat())
}

#[track_caller]
fn is_refused(place: &Place, repo: &str, target: &Path, more: &[&str], words: &[&str]) {
    let data = place.path("data");
    let arguments = [&["export", repo, text(target), "--data", text(&data)], more].concat();
    refused(1, &arguments, words);
}

/// How many names a folder holds, hidden ones too.
fn names_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}

#[test]
fn a_served_repository_is_what_git_had_pushed() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    for (at, source) in history::sources(&place, &git).iter().enumerate() {
        let name = format!("history-{at}");
        let server = place.serve();
        server.create(&name);
        git.ok(source, &["push", "-q", "--mirror", &server.url(&name)]);
        // Once from what is served, and once from what a stop has settled.
        let bare = place.path(&format!("served-{at}.git"));
        let said = export(&place, &name, &bare, &[]);
        assert!(said.contains("a bare repository") && said.contains(&name), "{said}");
        server.stop();
        let settled = place.path(&format!("settled-{at}.git"));
        export(&place, &name, &settled, &[]);
        let bundle = place.path(&format!("whole-{at}.bundle"));
        let said = export(&place, &name, &bundle, &[]);
        assert!(said.contains("a bundle"), "{said}");

        for bare in [&bare, &settled] {
            assert_same(&git, source, bare);
            let packs = std::fs::read_dir(bare.join("objects/pack")).expect("a folder of packs");
            let index = packs
                .map(|entry| entry.expect("an entry").path())
                .find(|path| path.extension() == Some("idx".as_ref()));
            git.ok(bare, &["verify-pack", text(&index.expect("an index"))]);
            assert_eq!(git.ok(bare, &["symbolic-ref", "HEAD"]), "refs/heads/main");
            // What tags stand for is in packed-refs, where git looks and nowhere else.
            let packed = std::fs::read_to_string(bare.join("packed-refs")).expect("packed references");
            assert!(packed.starts_with("# pack-refs with: peeled fully-peeled sorted \n"), "{packed}");
            assert_eq!(git.ok(bare, &["show-ref", "--dereference"]), git.ok(source, &["show-ref", "--dereference"]));
            // And git goes on with it.
            git.ok(bare, &["repack", "-adfq"]);
            assert_same(&git, source, bare);
        }
        git.ok(source, &["bundle", "verify", "-q", text(&bundle)]);
        let main = git.ok(source, &["rev-parse", "refs/heads/main"]);
        assert_eq!(git.ok(source, &["bundle", "list-heads", text(&bundle), "HEAD"]), format!("{main} HEAD"));
        let mirror = place.path(&format!("mirror-{at}.git"));
        git.clone_repo(text(&bundle), &mirror, &["--mirror"]);
        assert_same(&git, source, &mirror);
        let clone = place.path(&format!("clone-{at}"));
        git.clone_repo(text(&bundle), &clone, &[]);
        assert_eq!(git.ok(&clone, &["rev-parse", "HEAD"]), git.ok(source, &["rev-parse", "refs/heads/main"]));
    }
}

#[test]
fn some_references_bring_what_they_reach() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let source = history::generated(&place, &git);
    let server = place.serve();
    server.create("some");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("some")]);
    let kept = place.path("kept.git");
    git.ok(&place.path("home"), &["init", "-q", "--bare", text(&kept)]);
    git.ok(
        &kept,
        &[
            "fetch",
            "-q",
            "--no-tags",
            text(&source),
            "refs/tags/v0.*:refs/tags/v0.*",
            "refs/heads/root2:refs/heads/root2",
        ],
    );
    git.ok(&kept, &["repack", "-adq"]);
    for form in ["some.git", "some.bundle"] {
        let target = place.path(form);
        let pattern = ["--ref", "refs/tags/v0.*", "--ref", "root2", "--ref", "refs/heads/root2"];
        export(&place, "some", &target, &pattern);
        let bare = if form == "some.git" { target } else { place.path("unbundled.git") };
        if form != "some.git" {
            git.clone_repo(text(&place.path(form)), &bare, &["--mirror"]);
        }
        assert_same(&git, &kept, &bare);
    }
    let none = place.path("none.git");
    is_refused(&place, "some", &none, &["--ref", "nothing-like-it"], &["no reference is called nothing-like-it"]);
    is_refused(&place, "some", &none, &["--ref", "refs/x/*"], &["no reference is called refs/x/*"]);
    assert!(!none.exists());
}

#[test]
fn what_was_committed_over_http_is_exported_and_nothing_is_overwritten() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let body = json!({ "id": "team/api", "description": "made over HTTP", "default_branch": "trunk" });
    assert_eq!(server.http().post("/api/v1/repos", &body).status, 201);
    let folder = place.path("out");
    std::fs::create_dir(&folder).expect("a folder");

    // Nothing in it yet: a repository that can be cloned, and no bundle.
    let empty = folder.join("empty.git");
    export(&place, "team/api", &empty, &[]);
    assert_eq!(git.findings(&empty).0, Some(0));
    assert_eq!(git.ok(&empty, &["symbolic-ref", "HEAD"]), "refs/heads/trunk");
    assert_eq!(std::fs::read_to_string(empty.join("description")).expect("a description"), "made over HTTP\n");
    git.clone_repo(text(&empty), &place.path("of-empty"), &[]);
    is_refused(&place, "team/api", &folder.join("empty.bundle"), &[], &["no references", "empty bundle"]);

    let body = json!({
        "branch": "trunk", "message": "begin", "author": {"name": "Ada", "email": "ada@example.org"},
        "changes": [{"op": "put", "path": "src/main.rs", "content": "fn main() {}\n"}],
    });
    let commit = server.http().post("/api/v1/repos/team%2Fapi/commits", &body).expect(201);
    let full = folder.join("full.git");
    export(&place, "team/api", &full, &[]);
    assert_eq!(git.ok(&full, &["rev-parse", "HEAD"]), commit["hash"].as_str().expect("an id"));
    assert_eq!(git.findings(&full), (Some(0), Vec::new()));

    for (target, name) in [(&full, "full.git"), (&folder.join("file.bundle"), "file.bundle")] {
        if name == "file.bundle" {
            std::fs::write(target, "somebody's").expect("a file");
        }
        is_refused(&place, "team/api", target, &[], &["exists already", name]);
    }
    assert_eq!(std::fs::read_to_string(folder.join("file.bundle")).expect("a file"), "somebody's");
    is_refused(&place, "no/such", &folder.join("x.git"), &[], &["no/such does not exist"]);
    is_refused(&place, "team/api", &folder.join("no/such/x.git"), &[], &["cannot write"]);
    refused(2, &["export", "a//b", "x.git"], &["a//b"]);
    assert_eq!(names_in(&folder), 3, "nothing else was left");
}

#[test]
fn no_room_leaves_nothing() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let source = history::generated(&place, &git);
    let server = place.serve();
    server.create("large");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("large")]);
    server.stop();
    let folder = place.path("out");
    std::fs::create_dir(&folder).expect("a folder");
    for name in ["large.git", "large.bundle"] {
        // Files of a megabyte at most: the next write fails, as on a full disk.
        let script = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\"";
        let output = Command::new("sh")
            .args(["-c", script, BUILT, "export", "large", text(&folder.join(name))])
            .args(["--data", text(&place.path("data"))])
            .stdin(Stdio::null())
            .output()
            .expect("sh runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot write") && said.contains(name), "{said}");
        assert_eq!(names_in(&folder), 0, "{name}");
    }
}
