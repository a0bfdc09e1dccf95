//! Pushes that must be refused: the client is told why, and nothing of them stays.

use std::path::PathBuf;

use govc_engine::{Kind, Oid};

use crate::{
    git::Git,
    pack::{self, Pack, RefChange, Report, commit_of, push_new, push_raw, tree_entry},
    server::{Left, Place, Server},
    tested,
};

/// A server with `repo`, where `main` has one commit, and a checkout of it.
fn checkout(place: &Place, git: &Git) -> (Server, PathBuf) {
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "README", b"one\n", "one");
    git.ok(&work, &["remote", "add", "origin", &server.url("repo")]);
    git.ok(&work, &["push", "-q", "origin", "main"]);
    (server, work)
}

/// The same after a restart, with what the server has left by then.
fn restarted(place: &Place, git: &Git) -> (Server, PathBuf, Left) {
    let (server, work) = checkout(place, git);
    let (server, left) = server.restarted(place);
    git.ok(&work, &["remote", "set-url", "origin", &server.url("repo")]);
    (server, work, left)
}

/// What git shows of the server's words: everything but the line with the address, which ends in `.git`.
fn told(stderr: &str) -> String {
    stderr.lines().filter(|line| !line.contains("http://")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_client_sees_why_a_tree_is_refused() {
    let place = Place::new();
    let base = Git::new(&place.path("home"));
    let (server, work) = checkout(&place, &base);
    let blob = base.object(&work, "blob", b"[core]\n\tfsmonitor = true\n");
    let tree = pack::tree_entry("100644", b"config", blob.parse().expect("an id"));
    let inner = base.object(&work, "tree", &tree);
    let outer = base.object(&work, "tree", &pack::tree_entry("40000", b".git", inner.parse().expect("an id")));
    let commit = base.ok_fed(&work, &["commit-tree", &outer], b"evil\n");
    for version in ["0", "1", "2"] {
        let git = base.with("protocol.version", version);
        let text = told(&git.fails(&work, &["push", "origin", &format!("{commit}:refs/heads/evil")]));
        assert!(text.contains("hasDotgit") || text.contains("'.git'"), "{text}");
        assert!(text.contains(&outer), "the object is named: {text}");
        assert!(text.contains("refs/heads/evil") || text.contains("-> evil"), "the reference is named: {text}");
    }
    assert_eq!(server.http().get(&format!("/api/v1/repos/repo/commits/{commit}")).status, 404);
    assert_eq!(base.ok(&work, &["ls-remote", "origin", "refs/heads/evil"]), "");
}

#[test]
fn the_client_sees_why_a_name_is_refused() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (_server, work) = checkout(&place, &git);
    git.ok(&work, &["push", "-q", "origin", "HEAD:refs/heads/dir"]);
    let text = told(&git.fails(&work, &["push", "origin", "HEAD:refs/heads/dir/file"]));
    assert!(text.contains("rejected") && text.contains("refs/heads/dir"), "{text}");
    git.ok(&work, &["push", "-q", "origin", "HEAD:refs/heads/deep/er/name"]);
    let text = told(&git.fails(&work, &["push", "origin", "HEAD:refs/heads/deep/er"]));
    assert!(text.contains("rejected") && text.contains("refs/heads/deep/er"), "{text}");
    assert_eq!(git.ok(&work, &["ls-remote", "--heads", "origin"]).lines().count(), 3);
}

#[test]
fn the_client_sees_why_the_current_branch_stays() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work) = checkout(&place, &git);
    let text = told(&git.fails(&work, &["push", "origin", "--delete", "main"]));
    assert!(text.contains("rejected"), "{text}");
    assert_eq!(server.http().get("/api/v1/repos/repo/branches").status, 200);
    assert!(!git.ok(&work, &["ls-remote", "origin", "refs/heads/main"]).is_empty());
}

#[test]
fn an_unknown_repository_is_not_found() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work) = checkout(&place, &git);
    for version in ["0", "1", "2"] {
        let git = git.with("protocol.version", version);
        for arguments in [&["push", "URL", "main"][..], &["fetch", "URL"], &["ls-remote", "URL"]] {
            let url = server.url("nobody/has/this");
            let arguments: Vec<&str> =
                arguments.iter().map(|&argument| if argument == "URL" { url.as_str() } else { argument }).collect();
            let text = git.fails(&work, &arguments);
            assert!(text.contains("not found"), "{arguments:?}: {text}");
        }
    }
}

#[test]
fn bad_reference_names_are_refused_one_by_one() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work, left) = restarted(&place, &git);
    let before = git.ok(&work, &["ls-remote", "origin"]);
    let names: [&[u8]; 19] = [
        b"refs/heads/a..b",
        b"refs/heads/a.lock",
        b"refs/heads/x.lock/y",
        b"refs/heads/.hidden",
        b"refs/heads/a/.b",
        b"refs/heads/tab\there",
        b"refs/heads/del\x7f",
        b"refs/heads/space here",
        b"refs/heads/a~1",
        b"refs/heads/a^",
        b"refs/heads/a:b",
        b"refs/heads/a?",
        b"refs/heads/a*",
        b"refs/heads/a[b",
        b"refs/heads/a\\b",
        b"refs/heads/a@{b",
        b"refs/heads/end.",
        b"refs/heads//double",
        b"refs/heads/slash/",
    ];
    for name in names.into_iter().chain([&b"HEAD"[..], b"heads/main", b"refs", b"../refs/heads/up", b"refs/../up"]) {
        let mut built = Pack::new();
        let new = built.commit(&format!("for {}", String::from_utf8_lossy(name)));
        let change = RefChange { old: tested::null(), new, name: name.to_vec() };
        let reply = push_raw(&server.http(), "repo", &[change], &built.finish());
        let shown = String::from_utf8_lossy(name);
        // A name that breaks the syntax of the request may be refused as a whole.
        if reply.status == 200 {
            let report = Report::parse(&reply.body);
            assert!(!report.accepted() && !report.reasons().is_empty(), "{shown}: {report:?}");
        } else {
            assert!((400..500).contains(&reply.status), "{shown}: {}", reply.status);
        }
        assert_eq!(git.ok(&work, &["ls-remote", "origin"]), before, "{shown}");
        assert_gone(&server, new);
    }
    server.stop();
    assert_eq!(place.left(), left);
}

#[test]
fn a_commit_without_its_objects_is_refused() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work, left) = restarted(&place, &git);
    let before = git.ok(&work, &["ls-remote", "origin"]);
    let nowhere: Oid = tested::id_of("12").parse().expect("an id");
    type Build = fn(&mut Pack, Oid) -> Oid;
    let cases: [(&str, Build); 5] = [
        ("tree", |built, nowhere| built.object(Kind::Commit, &commit_of(nowhere, &[], "no tree"))),
        ("blob", |built, nowhere| {
            let tree = built.object(Kind::Tree, &tree_entry("100644", b"file", nowhere));
            built.object(Kind::Commit, &commit_of(tree, &[], "no blob"))
        }),
        ("subtree", |built, nowhere| {
            let tree = built.object(Kind::Tree, &tree_entry("40000", b"dir", nowhere));
            built.object(Kind::Commit, &commit_of(tree, &[], "no subtree"))
        }),
        ("parent", |built, nowhere| {
            let tree = built.object(Kind::Tree, b"");
            built.object(Kind::Commit, &commit_of(tree, &[nowhere], "no parent"))
        }),
        ("tag", |built, nowhere| {
            let person = "Ada Test <ada@example.com> 1700000000 +0100";
            built.object(Kind::Tag, format!("object {nowhere}\ntype commit\ntag x\ntagger {person}\n\nx\n").as_bytes())
        }),
    ];
    for (what, build) in cases {
        let mut built = Pack::new();
        let new = build(&mut built, nowhere);
        let name = if what == "tag" { "refs/tags/partial" } else { "refs/heads/partial" };
        let report = push_new(&server.http(), "repo", name, new, &built.finish());
        assert!(!report.accepted(), "no {what}: {report:?}");
        assert!(report.reasons().to_lowercase().contains("missing"), "no {what}: {report:?}");
        assert_eq!(git.ok(&work, &["ls-remote", "origin"]), before, "no {what}");
        assert_gone(&server, new);
    }
    // A reference to something that was never sent, and to an object of the wrong kind.
    let report = push_new(&server.http(), "repo", "refs/heads/never", nowhere, &Pack::new().finish());
    assert!(!report.accepted() && !report.reasons().is_empty(), "{report:?}");
    let mut built = Pack::new();
    let blob = built.object(Kind::Blob, b"a branch is a commit\n");
    let report = push_new(&server.http(), "repo", "refs/heads/blob", blob, &built.finish());
    assert!(!report.accepted() && !report.reasons().is_empty(), "{report:?}");
    assert_eq!(git.ok(&work, &["ls-remote", "origin"]), before);
    server.stop();
    assert_eq!(place.left(), left);
}

#[test]
fn objects_of_another_repository_do_not_count() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work) = checkout(&place, &git);
    server.create("other");
    let head: Oid = git.ok(&work, &["rev-parse", "HEAD"]).parse().expect("an id");
    let report = push_new(&server.http(), "other", "refs/heads/stolen", head, &Pack::new().finish());
    assert!(!report.accepted(), "{report:?}");
    let mut built = Pack::new();
    let tree = built.object(Kind::Tree, b"");
    let child = built.object(Kind::Commit, &commit_of(tree, &[head], "child"));
    let report = push_new(&server.http(), "other", "refs/heads/child", child, &built.finish());
    assert!(!report.accepted(), "{report:?}");
    assert_eq!(server.http().get(&format!("/api/v1/repos/other/commits/{head}")).status, 404);
}

#[test]
fn a_stale_expectation_is_refused_with_its_reason() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work, left) = restarted(&place, &git);
    let before = git.ok(&work, &["ls-remote", "origin"]);
    let stale: Oid = tested::id_of("34").parse().expect("an id");
    let mut built = Pack::new();
    let new = built.commit("stale");
    for old in [stale, tested::null()] {
        let change = RefChange { old, new, name: b"refs/heads/main".to_vec() };
        let report = Report::parse(&push_raw(&server.http(), "repo", &[change], &built.finish()).body);
        assert_eq!(report.references.len(), 1, "{report:?}");
        assert!(report.references[0].1.is_err(), "{report:?}");
        assert_eq!(git.ok(&work, &["ls-remote", "origin"]), before);
    }
    assert_gone(&server, new);
    server.stop();
    assert_eq!(place.left(), left);
}

/// Asserts that a refused push left nothing: its tip can neither be read nor be pointed at without sending it.
#[track_caller]
pub(crate) fn assert_gone(server: &Server, tip: Oid) {
    let http = server.http();
    assert_eq!(http.get(&format!("/api/v1/repos/repo/commits/{tip}")).status, 404, "{tip} can be read");
    let report = push_new(&http, "repo", "refs/heads/probe", tip, &Pack::new().finish());
    assert!(!report.accepted(), "{tip} was kept: {report:?}");
}
