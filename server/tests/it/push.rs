//! Pushes by the real git that must succeed, wholly or in the part that git's rules allow.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use govc_engine::{Kind, Oid};

use crate::{
    git::{Git, assert_same},
    history,
    pack::{self, Pack, RECEIVE_HEADERS, RefChange, Report},
    server::{Place, Server},
    tested,
};

/// A server with an empty repository `repo`, and a checkout with one commit and that remote.
fn checkout(place: &Place, git: &Git) -> (Server, PathBuf) {
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "README", b"one\n", "one");
    git.ok(&work, &["remote", "add", "origin", &server.url("repo")]);
    (server, work)
}

/// What the server says its references are.
fn remote(git: &Git, work: &Path, pattern: &str) -> String {
    git.ok(work, &["ls-remote", "origin", pattern]).split('\t').next().unwrap_or_default().to_owned()
}

/// Its borders are named with the push, and are not stored: what is pushed must be whole with what is there.
#[test]
fn a_shallow_clone_pushes() {
    let place = Place::new();
    let base = Git::new(&place.path("home"));
    let (server, work) = checkout(&place, &base);
    for at in 0..4 {
        base.commit(&work, "README", format!("{at}\n").as_bytes(), "more");
    }
    base.ok(&work, &["push", "-q", "origin", "main"]);
    for version in ["0", "1", "2"] {
        let git = base.with("protocol.version", version);
        let shallow = place.path(&format!("shallow-{version}"));
        git.clone_repo(&server.url("repo"), &shallow, &["--depth=1"]);
        git.commit(&shallow, "new", version.as_bytes(), "from a shallow clone");
        assert_eq!(git.ok(&shallow, &["rev-list", "--count", "HEAD"]), "2");
        // What it stands on is not there, or is there.
        let lacking = format!("lacking-{version}");
        server.create(&lacking);
        let said = git.fails(&shallow, &["push", &server.url(&lacking), "HEAD:refs/heads/main"]);
        assert!(said.contains("missing"), "{said}");
        assert_eq!(git.ok(&shallow, &["ls-remote", &server.url(&lacking)]), "");
        git.ok(&shallow, &["push", "-q", "origin", &format!("HEAD:refs/heads/of-{version}")]);
        let whole = place.path(&format!("whole-{version}"));
        git.clone_repo(&server.url("repo"), &whole, &["--mirror"]);
        assert_eq!(git.ok(&whole, &["rev-list", "--count", &format!("of-{version}")]), "6");
        assert!(!whole.join("shallow").exists());
        git.ok(&whole, &["fsck", "--strict"]);
    }
}

#[test]
fn who_wants_quiet_is_told_reasons_and_warnings_alone() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let mut at = 0;
    let mut push = |features: &str, old: Oid, new: Option<Oid>, name: &str| {
        at += 1;
        let mut built = Pack::new();
        let tip = built.commit(&format!("push {at}"));
        let change = RefChange { old, new: new.unwrap_or(tip), name: name.as_bytes().to_vec() };
        let features = format!("report-status side-band-64k{features}");
        let body = pack::push_body(&[change], &features, &built.finish());
        let reply = server.http().send("POST", "/repo.git/git-receive-pack", RECEIVE_HEADERS, &body);
        let told: Vec<String> =
            pack::lines(&reply.body).iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        let [report, progress] = ['\u{1}', '\u{2}']
            .map(|band| told.iter().filter_map(|line| line.strip_prefix(band)).collect::<Vec<_>>().concat());
        (report, progress)
    };
    let none = tested::null();
    let (report, progress) = push("", none, None, "refs/heads/loud");
    assert!(report.contains("ok refs/heads/loud") && progress.contains("Checked 3 objects"), "{report}{progress}");
    let (report, progress) = push(" quiet", none, None, "refs/heads/quiet");
    assert!(report.contains("ok refs/heads/quiet") && progress.is_empty(), "{report}{progress}");
    let (report, progress) = push(" quiet", none, None, "refs/heads/bad..name");
    assert!(report.contains("ng refs/heads/bad..name funny refname") && progress.is_empty(), "{report}{progress}");
    let (report, progress) = push(" quiet", none, Some(none), "refs/heads/nothing");
    assert!(report.contains("ok refs/heads/nothing"), "{report}");
    assert!(progress.contains("deleting a non-existent ref"), "{progress}");
}

#[test]
fn a_push_that_is_too_large_is_refused() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.launch().env("GOVC_MAX_PACK", "1MiB").start();
    server.create("repo");
    // As large as it says, and larger than anybody knows before it has been unpacked.
    let head = format!("POST /repo.git/git-receive-pack HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", 66 << 20);
    let reply =
        server.http().raw(format!("{head}{}: {}\r\n\r\n", RECEIVE_HEADERS[0].0, RECEIVE_HEADERS[0].1).as_bytes());
    assert_eq!(reply.status, 413, "{}", reply.text());
    let mut built = Pack::new();
    let tip = built.commit("beside it");
    let mut stored = ZlibEncoder::new(Vec::new(), Compression::none());
    stored.write_all(&vec![0; 66 << 20]).expect("memory takes it");
    built.entry(Kind::Blob as u8, 66 << 20, &[], &stored.finish().expect("memory takes it"));
    let change = RefChange { old: tested::null(), new: tip, name: b"refs/heads/main".to_vec() };
    let mut body = GzEncoder::new(Vec::new(), Compression::fast());
    body.write_all(&pack::push_body(&[change], "report-status", &built.finish())).expect("memory takes it");
    let body = body.finish().expect("memory takes it");
    let headers = [RECEIVE_HEADERS, &[("content-encoding", "gzip")]].concat();
    let report = Report::parse(&server.http().send("POST", "/repo.git/git-receive-pack", &headers, &body).body);
    assert!(!report.accepted() && report.unpack.contains("larger than the limit of 68157440 bytes"), "{report:?}");
    assert_eq!(git.ok(&place.path("home"), &["ls-remote", &server.url("repo")]), "");
}

#[test]
fn references_are_created_updated_forced_and_deleted() {
    let place = Place::new();
    let base = Git::new(&place.path("home"));
    let (_server, work) = checkout(&place, &base);
    // The first push to an empty repository decides what its default branch is.
    base.ok(&work, &["push", "-q", "origin", "HEAD:refs/heads/main"]);
    for version in ["0", "1", "2"] {
        let git = base.with("protocol.version", version);
        let name = format!("topic-{version}");
        let full = format!("refs/heads/{name}");
        git.ok(&work, &["push", "-q", "origin", &format!("HEAD:{full}")]);
        let first = git.ok(&work, &["rev-parse", "HEAD"]);
        assert_eq!(remote(&git, &work, &full), first);

        let second = git.commit(&work, "more", version.as_bytes(), "more");
        git.ok(&work, &["push", "-q", "origin", &format!("HEAD:{full}")]);
        assert_eq!(remote(&git, &work, &full), second);

        git.ok(&work, &["reset", "-q", "--hard", "HEAD~1"]);
        let third = git.commit(&work, "other", version.as_bytes(), "another line");
        git.fails(&work, &["push", "-q", "origin", &format!("HEAD:{full}")]);
        assert_eq!(remote(&git, &work, &full), second, "git refuses what is no fast-forward");
        git.ok(&work, &["push", "-q", "--force", "origin", &format!("HEAD:{full}")]);
        assert_eq!(remote(&git, &work, &full), third);
        git.ok(
            &work,
            &["push", "-q", &format!("--force-with-lease={full}:{third}"), "origin", &format!("HEAD~1:{full}")],
        );

        git.ok(&work, &["push", "-q", "origin", "--delete", &name]);
        assert_eq!(remote(&git, &work, &full), "");
    }
}

#[test]
fn several_references_and_tags_travel_in_one_push() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work) = checkout(&place, &git);
    git.ok(&work, &["tag", "light"]);
    git.ok(&work, &["tag", "-a", "-m", "annotated", "annotated"]);
    git.commit(&work, "b", b"b", "b");
    git.ok(&work, &["branch", "second"]);
    git.ok(&work, &["push", "-q", "origin", "main", "second", "light", "annotated", "HEAD~1:refs/custom/name"]);
    git.ok(&work, &["push", "-q", "origin", "HEAD:refs/heads/new", ":refs/heads/second", "+HEAD~1:refs/heads/main"]);
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
    let names = git.ok(&copy, &["for-each-ref", "--format=%(refname)"]);
    let wanted = ["refs/custom/name", "refs/heads/main", "refs/heads/new", "refs/tags/annotated", "refs/tags/light"];
    assert_eq!(names.lines().collect::<Vec<_>>(), wanted);
    assert_eq!(git.ok(&copy, &["rev-parse", "main"]), git.ok(&work, &["rev-parse", "HEAD~1"]));
    assert_eq!(git.ok(&copy, &["rev-parse", "annotated"]), git.ok(&work, &["rev-parse", "annotated"]));
}

#[test]
fn followed_tags_come_with_the_branch() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (_server, work) = checkout(&place, &git);
    git.ok(&work, &["tag", "-a", "-m", "one", "one"]);
    git.ok(&work, &["push", "-q", "--follow-tags", "origin", "main"]);
    assert_eq!(remote(&git, &work, "refs/tags/one"), git.ok(&work, &["rev-parse", "one"]));
}

#[test]
fn an_atomic_push_does_all_or_nothing() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work) = checkout(&place, &git);
    git.ok(&work, &["push", "-q", "--atomic", "origin", "HEAD:refs/heads/a", "HEAD:refs/heads/b"]);
    let before = git.ok(&work, &["ls-remote", "origin"]);

    // The second command expects an id that the reference does not have; git itself would not send it.
    let mut built = Pack::new();
    let new = built.commit("atomic");
    let old = git.ok(&work, &["rev-parse", "HEAD"]).parse().expect("an id");
    let stale = tested::id_of("1").parse().expect("an id");
    let changes = [
        RefChange { old, new, name: b"refs/heads/a".to_vec() },
        RefChange { old: stale, new, name: b"refs/heads/b".to_vec() },
    ];
    let send = |capabilities: &str| {
        let body = pack::push_body(&changes, capabilities, &built.finish());
        let reply = server.http().send("POST", "/repo.git/git-receive-pack", RECEIVE_HEADERS, &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        Report::parse(&reply.body)
    };
    let report = send("report-status atomic");
    assert!(report.references.iter().all(|(_, result)| result.is_err()), "{report:?}");
    assert_eq!(report.references.len(), 2, "{report:?}");
    assert_eq!(git.ok(&work, &["ls-remote", "origin"]), before);

    // Without atomic the sound command is carried out and the other refused with its reason.
    let report = send("report-status");
    assert_eq!(report.unpack, "ok", "{report:?}");
    for (name, result) in &report.references {
        assert_eq!(result.is_ok(), name == "refs/heads/a", "{report:?}");
    }
    assert_eq!(remote(&git, &work, "refs/heads/a"), new.to_string());
    assert_eq!(remote(&git, &work, "refs/heads/b"), old.to_string());
}

#[test]
fn a_thin_push_is_completed_from_what_the_server_has() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work) = checkout(&place, &git);
    let mut content = history::noise(3, 600_000);
    git.commit(&work, "large", &content, "large");
    git.ok(&work, &["push", "-q", "origin", "main"]);
    for at in [100_000, 300_000, 500_000] {
        content[at] ^= 0x55;
        git.commit(&work, "large", &content, "a little");
        git.ok(&work, &["push", "-q", "--thin", "origin", "main"]);
    }
    let source = place.path("source.git");
    git.clone_repo(&format!("file://{}", work.display()), &source, &["--bare"]);
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("repo"), &copy, &["--bare"]);
    assert_same(&git, &source, &copy);
}

#[test]
fn a_large_push_arrives_in_chunks() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work) = checkout(&place, &git);
    let content = history::noise(11, 3 << 20);
    git.commit(&work, "large", &content, "large");
    // Above this size git does not know the length and sends chunks, after a probe with an empty request.
    let git = git.with("http.postBuffer", "65536");
    let mut command = git.command(&work);
    command.args(["push", "origin", "main"]).env("GIT_TRACE_CURL", "1").env("GIT_TRACE_CURL_NO_DATA", "1");
    let output = command.output().expect("git is installed");
    let trace = String::from_utf8_lossy(&output.stderr).to_ascii_lowercase();
    assert!(output.status.success(), "{trace}");
    assert!(trace.contains("transfer-encoding: chunked"), "git was to send chunks");
    let reply = server.http().get("/api/v1/repos/repo/raw/large?ref=main");
    assert_eq!(reply.status, 200);
    assert!(reply.body == content, "the file came back changed");
}

#[test]
fn a_compressed_push_is_understood() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work) = checkout(&place, &git);
    // One that the server has before it begins, and one that it reads as it comes.
    for (name, length) in [("refs/heads/short", 100), ("refs/heads/long", 200_000)] {
        let mut built = Pack::new();
        built.object(Kind::Blob, &history::noise(5, length));
        let new = built.commit(name);
        let change = RefChange { old: tested::null(), new, name: name.as_bytes().to_vec() };
        let body = pack::push_body(&[change], "report-status", &built.finish());
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &body).expect("memory takes it");
        let body = encoder.finish().expect("memory takes it");
        let headers = [RECEIVE_HEADERS, &[("content-encoding", "gzip")]].concat();
        let reply = server.http().send("POST", "/repo.git/git-receive-pack", &headers, &body);
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        assert!(Report::parse(&reply.body).accepted(), "{name}: {}", reply.text());
        assert_eq!(remote(&git, &work, name), new.to_string());
    }
}

#[test]
fn a_client_that_waits_for_continue_is_told_to() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let mut built = Pack::new();
    let new = built.commit("patient");
    let change = RefChange { old: tested::null(), new, name: b"refs/heads/patient".to_vec() };
    let body = pack::push_body(&[change], "report-status", &built.finish());
    let mut connection = server.http().connect();
    let head = format!(
        "POST /repo.git/git-receive-pack HTTP/1.1\r\nhost: {}\r\nexpect: 100-continue\r\n\
         content-type: application/x-git-receive-pack-request\r\ncontent-length: {}\r\n\r\n",
        server.address(),
        body.len()
    );
    connection.write(head.as_bytes());
    assert_eq!(connection.reply().status, 100);
    connection.write(&body);
    let reply = connection.reply();
    assert!(Report::parse(&reply.body).accepted(), "{}", reply.text());
}

#[test]
fn progress_and_counts_reach_the_client() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (_server, work) = checkout(&place, &git);
    let output = git.run(&work, &["push", "--progress", "origin", "main"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    let remote: Vec<&str> = text.lines().filter(|line| line.starts_with("remote:")).collect();
    assert!(remote.iter().any(|line| line.contains('3')), "three objects are to be counted: {text}");
}

#[test]
fn a_repository_appears_by_a_push_only_where_that_is_allowed() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work) = checkout(&place, &git);
    let text = git.fails(&work, &["push", &server.url("unborn"), "main"]);
    assert!(text.contains("not found"), "{text}");
    assert_eq!(server.http().get("/api/v1/repos/unborn").status, 404);
    drop(server);

    let server = place.launch().with(&["--create-on-push"]).start();
    git.ok(&work, &["push", "-q", &server.url("team/unborn"), "main"]);
    let reply = server.http().get("/api/v1/repos/team%2Funborn");
    assert_eq!(reply.expect(200)["id"], "team/unborn");
    // A fetch never creates, and a bad name is no repository.
    git.fails(&work, &["fetch", &server.url("other")]);
    assert_eq!(server.http().get("/api/v1/repos/other").status, 404);
    git.fails(&work, &["push", &server.url("-bad..name"), "main"]);
}

/// A server where pushing creates.
fn creating(place: &Place) -> Server {
    place.launch().with(&["--create-on-push"]).start()
}

#[test]
fn looking_at_a_repository_does_not_create_it() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = creating(&place);
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "README", b"one\n", "one");
    let reply = server.http().get("/unborn.git/info/refs?service=git-receive-pack");
    assert_eq!(reply.status, 200);
    assert!(reply.text().contains(" capabilities^{}\0report-status"), "{}", reply.text());
    git.ok(&work, &["push", "-q", "--dry-run", &server.url("unborn"), "main"]);
    // The probe before a large push.
    let reply = server.http().send("POST", "/unborn.git/git-receive-pack", RECEIVE_HEADERS, b"0000");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(server.http().get("/api/v1/repos/unborn").status, 404);
    let server = server.stop().start();
    assert_eq!(server.http().get("/api/v1/repos/unborn").status, 404);
}

#[test]
fn a_refused_first_push_leaves_no_repository() {
    let place = Place::new();
    let server = creating(&place);
    let mut sound = Pack::new();
    let tip = sound.commit("sound");
    let mut holed = Pack::new();
    let hole: govc_engine::Oid = tested::id_of("56").parse().expect("an id");
    let holed_tip = holed.object(Kind::Commit, &pack::commit_of(hole, &[], "holed"));
    let mut blob = Pack::new();
    let blob_tip = blob.object(Kind::Blob, b"no commit");
    let refused = [
        ("a broken pack", "refs/heads/main", tip, b"PACK".to_vec()),
        ("a missing tree", "refs/heads/main", holed_tip, holed.finish()),
        ("a branch to a blob", "refs/heads/main", blob_tip, blob.finish()),
        ("a bad name", "refs/heads/a..b", tip, sound.finish()),
    ];
    for (what, name, tip, bytes) in refused {
        let report = pack::push_new(&server.http(), "unborn", name, tip, &bytes);
        assert!(!report.accepted(), "{what}: {report:?}");
        assert_eq!(server.http().get("/api/v1/repos/unborn").status, 404, "{what}");
    }
    // Nobody has looked before; and what could be refused is left out alone.
    let change = |name: &str| RefChange { old: tested::null(), new: tip, name: name.as_bytes().to_vec() };
    let changes = [change("refs/heads/a..b"), change("refs/heads/main")];
    let report = Report::parse(&pack::push_raw(&server.http(), "unborn", &changes, &sound.finish()).body);
    assert!(report.references[0].1.is_err() && report.references[1].1.is_ok(), "{report:?}");
    assert_eq!(server.http().get("/api/v1/repos/unborn").status, 200);
}

#[test]
fn a_large_first_push_survives_a_kill() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = creating(&place);
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "large", &history::noise(12, 3 << 20), "large");
    git.ok(&work, &["push", "-q", &server.url("unborn"), "main"]);
    let server = server.kill().start();
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("unborn"), &copy, &["--bare"]);
    assert_eq!(git.ok(&copy, &["rev-parse", "main"]), git.ok(&work, &["rev-parse", "main"]));
    git.ok(&copy, &["fsck", "--strict"]);
}

#[test]
fn of_two_first_pushes_one_may_have_to_push_again() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = creating(&place);
    let (mut early, mut late) = (Pack::new(), Pack::new());
    let (early_tip, late_tip) = (early.commit("early"), late.commit("late"));
    let change = RefChange { old: tested::null(), new: early_tip, name: b"refs/heads/early".to_vec() };
    let body = pack::push_body(&[change], "report-status", &early.finish());
    let head = format!(
        "POST /unborn.git/git-receive-pack HTTP/1.1\r\nhost: {}\r\n\
         content-type: application/x-git-receive-pack-request\r\ncontent-length: {}\r\n\r\n",
        server.address(),
        body.len()
    );
    let mut connection = server.http().connect();
    connection.write(head.as_bytes());
    connection.write(&body[..body.len() / 2]);
    let report = pack::push_new(&server.http(), "unborn", "refs/heads/late", late_tip, &late.finish());
    assert!(report.accepted(), "{report:?}");
    connection.write(&body[body.len() / 2..]);
    let report = Report::parse(&connection.reply().body);
    if !report.accepted() {
        // It began before there was a repository, and must not replace the one that is there now.
        assert!(report.reasons().contains("push again"), "{report:?}");
        let report = pack::push_new(&server.http(), "unborn", "refs/heads/early", early_tip, &early.finish());
        assert!(report.accepted(), "{report:?}");
    }
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("unborn"), &copy, &["--mirror"]);
    assert_eq!(git.ok(&copy, &["rev-parse", "refs/heads/early"]), early_tip.to_string());
    assert_eq!(git.ok(&copy, &["rev-parse", "refs/heads/late"]), late_tip.to_string());
}

#[test]
fn a_push_that_changes_nothing_is_up_to_date() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work) = checkout(&place, &git);
    git.ok(&work, &["push", "-q", "origin", "main"]);
    let before = server.http().get("/api/v1/repos/repo").expect(200);
    let output = git.run(&work, &["push", "origin", "main"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("up-to-date"));
    assert_eq!(server.http().get("/api/v1/repos/repo").expect(200), before);
}
