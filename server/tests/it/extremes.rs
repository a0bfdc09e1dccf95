//! Sound bytes beyond all measure, and clients that leave: bounded cost, and nothing left behind.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use flate2::{Compression, write::ZlibEncoder};
use govc_engine::{Kind, Oid, hash_object};
use serde_json::json;

use crate::{
    admin,
    git::Git,
    pack::{Pack, RefChange, Report, commit_of, delta, insert, line, push_new, push_raw, tree_entry},
    server::{Place, Server},
    ssh_client::until,
    wire::at_work,
};

/// What no request here may make the server hold.
const PEAK_BYTES_MAX: u64 = 3 << 29;

#[track_caller]
fn assert_bounded(server: &Server) {
    let peak = server.peak_bytes();
    assert!(peak < PEAK_BYTES_MAX, "the server took {peak} bytes");
}

/// A tree of `entries`, and a commit of it.
fn commit_entries(pack: &mut Pack, entries: &[u8]) -> Oid {
    let tree = pack.object(Kind::Tree, entries);
    pack.object(Kind::Commit, &commit_of(tree, &[], "extreme"))
}

/// A pack of so many blobs, each a delta against the one before, and the commit that has them.
fn chain(length: usize) -> (Vec<u8>, Oid) {
    let mut pack = Pack::new();
    let content = |at: usize| format!("{at:08}\n").into_bytes();
    let mut entries = Vec::new();
    let mut before = pack.next_offset();
    for at in 0..length {
        let here = pack.next_offset();
        let oid = match at {
            0 => pack.object(Kind::Blob, &content(0)),
            _ => {
                pack.ofs_delta(here - before, &delta(9, 9, &insert(&content(at))));
                hash_object(Kind::Blob, &content(at)).expect("an ordinary object")
            }
        };
        entries.extend(tree_entry("100644", format!("f{at:05}").as_bytes(), oid));
        before = here;
    }
    let tip = commit_entries(&mut pack, &entries);
    (pack.finish(), tip)
}

#[test]
fn long_chains_of_deltas_come_in_and_go_out_and_longer_ones_are_refused() {
    const LENGTH: usize = 8000;
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let (pack, tip) = chain(50_000);
    let report = push_new(&server.http(), "repo", "refs/heads/longer", tip, &pack);
    assert!(!report.accepted() && report.reasons().contains("8192 deltas"), "{report:?}");
    let (pack, tip) = chain(LENGTH);
    let report = push_new(&server.http(), "repo", "refs/heads/main", tip, &pack);
    assert!(report.accepted(), "{report:?}");
    assert_bounded(&server);
    let server = server.stop().start();
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("repo"), &copy, &["--bare"]);
    git.ok(&copy, &["fsck", "--strict"]);
    assert_eq!(git.ok(&copy, &["cat-file", "-p", "main:f07999"]), "00007999");
    assert_eq!(git.objects(&copy).len(), LENGTH + 2);
}

#[test]
fn an_object_that_comes_twice_is_there_once() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let mut pack = Pack::new();
    let blob = pack.object(Kind::Blob, b"twice\n");
    pack.object(Kind::Blob, b"twice\n");
    pack.ref_delta(blob, &delta(6, 6, &insert(b"twice\n")));
    let tip = commit_entries(&mut pack, &tree_entry("100644", b"file", blob));
    let report = push_new(&server.http(), "repo", "refs/heads/main", tip, &pack.finish());
    assert!(report.accepted(), "{report:?}");
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
    assert_eq!(git.objects(&copy).len(), 3);
    git.ok(&copy, &["fsck", "--strict"]);
}

#[test]
fn trees_too_deep_or_too_wide_are_refused() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let http = server.http();
    let mut pack = Pack::new();
    let blob = pack.object(Kind::Blob, b"at the bottom\n");
    let mut entries = tree_entry("100644", b"file", blob);
    for _ in 0..100_000 {
        let tree = pack.object(Kind::Tree, &entries);
        entries = tree_entry("40000", b"d", tree);
    }
    let tip = commit_entries(&mut pack, &entries);
    let report = push_new(&http, "repo", "refs/heads/deep", tip, &pack.finish());
    assert!(!report.accepted() && report.reasons().contains("deep"), "{report:?}");

    // Ten million entries, 330 MB: more than an object may have.
    let mut pack = Pack::new();
    let blob = pack.object(Kind::Blob, b"ten million times\n");
    let mut stream = ZlibEncoder::new(Vec::new(), Compression::fast());
    let mut declared = 0;
    for at in 0..10_000_000 {
        let entry = tree_entry("100644", format!("{at:05x}").as_bytes(), blob);
        declared += entry.len() as u64;
        stream.write_all(&entry).expect("memory takes it");
    }
    pack.entry(Kind::Tree as u8, declared, &[], &stream.finish().expect("memory takes it"));
    let tip = pack.commit("beside it");
    let report = push_new(&http, "repo", "refs/heads/wide", tip, &pack.finish());
    assert!(!report.accepted() && report.reasons().contains("134217728"), "{report:?}");

    assert_eq!(git.ok(&place.path("home"), &["ls-remote", &server.url("repo")]), "");
    assert_bounded(&server);
}

#[test]
fn directories_that_several_pushes_nest_spoil_nothing() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let http = server.http();
    let mut below = None;
    for push in 0..4 {
        let mut pack = Pack::new();
        let blob = pack.object(Kind::Blob, format!("of push {push}\n").as_bytes());
        for _ in 0..1000 {
            let nested = below.map(|tree| tree_entry("40000", b"d", tree)).unwrap_or_default();
            below = Some(pack.object(Kind::Tree, &[nested, tree_entry("100644", b"file", blob)].concat()));
        }
        let tip = pack.object(Kind::Commit, &commit_of(below.expect("a tree"), &[], "nested"));
        let report = push_new(&http, "repo", &format!("refs/heads/b{push}"), tip, &pack.finish());
        assert!(report.accepted(), "{report:?}");
    }
    let url = server.url("repo");
    for (name, options) in [("whole", &["--mirror"][..]), ("part", &["--bare", "--filter=blob:none"])] {
        let copy = place.path(name);
        git.clone_repo(&url, &copy, options);
        assert_eq!(git.objects(&copy).len(), if name == "whole" { 4008 } else { 4004 }, "{name}");
    }
    // Somebody who has some of it gets the rest.
    let copy = place.path("copy");
    git.clone_repo(&url, &copy, &["--bare", "--single-branch", "-b", "b1"]);
    git.ok(&copy, &["fetch", "-q", &url, "b3"]);
    assert_eq!(git.objects(&copy).len(), 4 * 1000 + 4 + 2);
    let listed = http.get("/api/v1/repos/repo/tree?ref=b3&recursive=true");
    assert!((400..500).contains(&listed.status), "{}: {}", listed.status, listed.text());
    assert_eq!(http.get("/api/v1/repos/repo/read/d/d/file?ref=b3").status, 200);
    assert_eq!(http.post("/api/v1/repos/repo/compact", &json!({})).status, 202);
    until("the compaction's end", || http.get("/api/v1/repos/repo/compaction").expect(200)["state"] == "idle");
    git.clone_repo(&url, &place.path("again"), &["--mirror"]);
    drop(server.stop());
    let data = place.path("data");
    admin::ok(&["fsck", "--data", admin::text(&data)]);
    let exported = place.path("exported");
    admin::ok(&["export", "repo", admin::text(&exported), "--data", admin::text(&data)]);
    assert_eq!(git.objects(&exported).len(), 4008);
}

#[test]
fn tags_of_tags_without_end_are_refused() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    for (name, depth, is_taken) in [("deep", 100_000, false), ("one-too-deep", 64, false), ("as-deep", 63, true)] {
        let mut pack = Pack::new();
        let commit = pack.commit("tagged");
        let (mut target, mut kind) = (commit, "commit");
        for at in 0..depth {
            let person = "Ada <ada@example.com> 1700000000 +0000";
            let tag = format!("object {target}\ntype {kind}\ntag t{at}\ntagger {person}\n\nm\n");
            (target, kind) = (pack.object(Kind::Tag, tag.as_bytes()), "tag");
        }
        let report = push_new(&server.http(), "repo", &format!("refs/tags/{name}"), target, &pack.finish());
        assert_eq!(report.accepted(), is_taken, "{name}: {report:?}");
        assert!(is_taken || report.reasons().contains("64 tags"), "{report:?}");
    }
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
    assert_eq!(git.objects(&copy).len(), 63 + 3);
    git.ok(&copy, &["fsck", "--strict"]);
    assert_bounded(&server);
}

#[test]
fn a_million_references_come_in_one_push() {
    const REFERENCES: usize = 1_000_000;
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let mut pack = Pack::new();
    let tip = pack.commit("everywhere");
    let pack = pack.finish();
    let changes = |count: usize| -> Vec<RefChange> {
        let name = |at: usize| format!("refs/heads/b{at:06}").into_bytes();
        (0..count).map(|at| RefChange { old: Oid::null(), new: tip, name: name(at) }).collect()
    };
    // One more than there may be is refused whole.
    let reply = push_raw(&server.http(), "repo", &changes(REFERENCES + 1), &pack);
    assert!(reply.text().contains("1000000"), "{} {:.300}", reply.status, reply.text());
    assert_eq!(git.ok(&place.path("home"), &["ls-remote", &server.url("repo")]), "");
    let reply = push_raw(&server.http(), "repo", &changes(REFERENCES), &pack);
    assert!(Report::parse(&reply.body).accepted());
    let server = server.kill().start();
    let few = git.ok(&place.path("home"), &["ls-remote", &server.url("repo"), "refs/heads/b99999*"]);
    assert_eq!(few.lines().count(), 10, "{few}");
    assert_bounded(&server);
}

/// A server with a repository of some 24 MB that does not compress.
fn with_history(place: &Place, git: &Git) -> Server {
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    let mut state = 1u64;
    for at in 0..24 {
        let noise: Vec<u8> = (0..1 << 17)
            .flat_map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()
            })
            .collect();
        std::fs::write(work.join(format!("noise{at}")), noise).expect("a file");
    }
    git.ok(&work, &["add", "."]);
    git.ok(&work, &["commit", "-q", "-m", "noise"]);
    git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
    server
}

/// A connection that has asked for a clone of `main` and read `bytes` of the answer.
fn cloning(server: &Server, tip: &str, bytes: usize) -> TcpStream {
    let body = [
        line(b"command=fetch"),
        b"0001".to_vec(),
        line(format!("want {tip}\n").as_bytes()),
        line(b"done\n"),
        b"0000".to_vec(),
    ]
    .concat();
    let head = format!(
        "POST /repo.git/git-upload-pack HTTP/1.1\r\nhost: x\r\ngit-protocol: version=2\r\ncontent-length: {}\r\n\
         content-type: application/x-git-upload-pack-request\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(server.address()).expect("the server accepts connections");
    stream.set_read_timeout(Some(Duration::from_secs(180))).expect("a time-out");
    stream.write_all(&[head.as_bytes(), &body].concat()).expect("the server reads");
    stream.read_exact(&mut vec![0; bytes]).expect("so much of an answer");
    stream
}

#[track_caller]
fn assert_idle(server: &Server) {
    // A guard against waiting for ever.
    for _ in 0..18_000 {
        if at_work(&server.http()) == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("work goes on for clients that are gone");
}

#[test]
fn clients_that_leave_in_the_midst_leave_nothing() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = with_history(&place, &git);
    let tip = git.ok(&place.path("work"), &["rev-parse", "main"]);
    for bytes in [1, 1000, 1 << 20, 8 << 20] {
        for _ in 0..8 {
            drop(cloning(&server, &tip, bytes));
        }
    }
    assert_idle(&server);

    // Half a push, and then: gone; or the sending side closed alone, which is answered or closed.
    let mut pack = Pack::new();
    let new = pack.commit("half");
    let pack = pack.finish();
    let change = RefChange { old: Oid::null(), new, name: b"refs/heads/half".to_vec() };
    let body = crate::pack::push_body(&[change], "report-status agent=test/1", &pack);
    let head = format!(
        "POST /repo.git/git-receive-pack HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\
         content-type: application/x-git-receive-pack-request\r\n\r\n",
        body.len()
    );
    for cut in [0, 3, 100, body.len() - pack.len() + 20, body.len() - 1] {
        for is_half_closed in [false, true] {
            let mut stream = TcpStream::connect(server.address()).expect("the server accepts connections");
            stream.set_read_timeout(Some(Duration::from_secs(180))).expect("a time-out");
            stream.write_all(&[head.as_bytes(), &body[..cut]].concat()).expect("the server reads");
            if is_half_closed {
                stream.shutdown(Shutdown::Write).expect("half closed");
                let mut answer = Vec::new();
                // An answer or a reset: both end it.
                let _ = stream.read_to_end(&mut answer);
                assert!(!String::from_utf8_lossy(&answer).contains("ok refs/heads/half"), "cut at {cut}");
            }
        }
    }
    assert_idle(&server);
    let listed = git.ok(&place.path("home"), &["ls-remote", "--heads", &server.url("repo")]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
    git.ok(&copy, &["fsck", "--strict"]);
}

#[test]
fn a_repository_that_is_deleted_during_a_clone_is_gone_after_it() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = with_history(&place, &git);
    let tip = git.ok(&place.path("work"), &["rev-parse", "main"]);
    let mut clones: Vec<TcpStream> = (0..4).map(|at| cloning(&server, &tip, 1 + (at << 20))).collect();
    assert_eq!(server.http().delete("/api/v1/repos/repo").status, 204);
    for stream in &mut clones {
        // Whole, as the snapshot was, or broken off: it ends either way.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    drop(clones);
    assert_idle(&server);
    git.fails(&place.path("home"), &["ls-remote", &server.url("repo")]);
    // The name is free again, and has nothing of what was there.
    server.create("repo");
    let reply = server.http().post(
        "/api/v1/repos/repo/commits",
        &json!({
            "branch": "main", "message": "m", "changes": [{ "op": "put", "path": "new", "content": "x" }],
        }),
    );
    assert_eq!(reply.status, 201, "{}", reply.text());
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
    assert_eq!(git.objects(&copy).len(), 3);
}
