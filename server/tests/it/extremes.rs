//! Sound bytes beyond all measure, and clients that leave: bounded cost, and nothing left behind.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use govc_engine::{Kind, Oid};
use serde_json::json;

use crate::{
    admin,
    git::Git,
    http::{Wire, items},
    http2_client::{End, Exchange},
    pack::{
        Pack, RECEIVE_HEADERS, RefChange, Report, command_head, commit_of, delta, insert, line, push_body, push_new,
        push_raw, tree_entry,
    },
    server::{Launch, Left, Place, Server, incoming},
    ssh_client::until,
    tested,
    wire::at_work,
};

/// What no request here may make the server hold.
const PEAK_BYTES_MAX: u64 = 3 << 29;

/// What no test here may take of the processor; they take a tenth of it.
const CPU_SECONDS_MAX: u64 = 100;

#[track_caller]
fn assert_bounded(server: &Server) {
    let (peak, cpu) = (server.peak_bytes(), server.cpu_seconds());
    assert!(peak < PEAK_BYTES_MAX, "the server took {peak} bytes");
    assert!(cpu < CPU_SECONDS_MAX, "the server took {cpu} seconds of the processor");
}

/// A server with an empty `repo`, and what is in its data folder. It has stored something before: what counts the parts of a
/// store is there, and goes on counting without taking more room.
fn with_repo(place: &Place) -> (Server, Left) {
    let server = place.serve();
    for repo in ["repo", "other"] {
        server.create(repo);
    }
    let mut pack = Pack::new();
    let tip = pack.commit("ordinary");
    assert!(push_new(&server.http(), "other", "refs/heads/main", tip, &pack.finish()).accepted());
    server.restarted(place)
}

/// Starts the server again, after cost and remains of what was refused have been looked at.
#[track_caller]
fn unharmed(server: Server, place: &Place, before: &Left) -> Server {
    assert_bounded(&server);
    let (server, left) = server.restarted(place);
    assert_eq!(left, *before, "something stayed of what was refused");
    server
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
                tested::hash(Kind::Blob, &content(at))
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
    let (server, before) = with_repo(&place);
    let (pack, tip) = chain(50_000);
    let report = push_new(&server.http(), "repo", "refs/heads/longer", tip, &pack);
    assert!(!report.accepted() && report.reasons().contains("8192 deltas"), "{report:?}");
    let server = unharmed(server, &place, &before);
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
    let (server, before) = with_repo(&place);
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
    unharmed(server, &place, &before);
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
    let (mut server, before) = with_repo(&place);
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
        if !is_taken {
            assert!(report.reasons().contains("64 tags"), "{report:?}");
            server = unharmed(server, &place, &before);
        }
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
    let (server, before) = with_repo(&place);
    let mut pack = Pack::new();
    let tip = pack.commit("everywhere");
    let pack = pack.finish();
    let changes = |count: usize| -> Vec<RefChange> {
        let name = |at: usize| format!("refs/heads/b{at:06}").into_bytes();
        (0..count).map(|at| RefChange { old: tested::null(), new: tip, name: name(at) }).collect()
    };
    // One more than there may be is refused whole.
    let reply = push_raw(&server.http(), "repo", &changes(REFERENCES + 1), &pack);
    assert!(reply.text().contains("1000000"), "{} {:.300}", reply.status, reply.text());
    assert_eq!(git.ok(&place.path("home"), &["ls-remote", &server.url("repo")]), "");
    let server = unharmed(server, &place, &before);
    let reply = push_raw(&server.http(), "repo", &changes(REFERENCES), &pack);
    assert!(Report::parse(&reply.body).accepted());
    assert_bounded(&server);
    let server = server.kill().start();
    let few = git.ok(&place.path("home"), &["ls-remote", &server.url("repo"), "refs/heads/b99999*"]);
    assert_eq!(few.lines().count(), 10, "{few}");
    assert_bounded(&server);
}

#[test]
fn a_million_long_names_take_bounded_memory() {
    const REFERENCES: usize = 300_000;
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, before) = with_repo(&place);
    let mut pack = Pack::new();
    let tip = pack.commit("by many names");
    // 1.2 GB of names, and a few megabytes on their way.
    let mut body = GzEncoder::new(Vec::new(), Compression::fast());
    let long = "n".repeat(3980);
    for at in 0..REFERENCES {
        let features = if at == 0 { "\0report-status" } else { "" };
        let command = format!("{} {tip} refs/heads/{at:06}{long}{features}", tested::null());
        body.write_all(&line(command.as_bytes())).expect("memory takes it");
    }
    body.write_all(&[b"0000", &pack.finish()[..]].concat()).expect("memory takes it");
    let body = body.finish().expect("memory takes it");
    let headers = [RECEIVE_HEADERS, &[("content-encoding", "gzip")]].concat();
    let reply = server.http().send("POST", "/repo.git/git-receive-pack", &headers, &body);
    assert_eq!(reply.status, 200);
    assert!(
        reply.text().contains("ERR the references of a push have names of at most 134217728 bytes"),
        "{:.300}",
        reply.text()
    );
    assert_eq!(git.ok(&place.path("home"), &["ls-remote", &server.url("repo")]), "");
    unharmed(server, &place, &before);
}

/// A server with a repository of some 24 MB that do not compress, and stay as they came.
pub(crate) fn with_history(place: &Place, git: &Git) -> Server {
    with_noise(place.launch(), place, git, 24)
}

/// The same with so many megabytes, launched like that.
pub(crate) fn with_noise(launch: Launch, place: &Place, git: &Git, megabytes: u32) -> Server {
    let server = launch.env("GOVC_COMPACTION_ENABLED", "false").start();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    let mut state = 1u64;
    for at in 0..megabytes {
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

/// A clone that has been asked for, and what has come of the answer.
pub(crate) enum Cloning {
    Http1 { wire: Wire, came: Vec<u8> },
    Http2(Exchange),
}

/// A request of HTTP up to its body, on a connection of its own.
fn begin(server: &Server, service: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).expect("the server accepts connections");
    stream.set_read_timeout(Some(Duration::from_secs(180))).expect("a time-out");
    stream.write_all(&head(service, length)).expect("the server reads");
    stream
}

fn head(service: &str, length: usize) -> Vec<u8> {
    format!(
        "POST /repo.git/{service} HTTP/1.1\r\nhost: x\r\ngit-protocol: version=2\r\ncontent-length: {length}\r\n\
         content-type: application/x-{service}-request\r\nconnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// Asks for everything, with such arguments.
fn fetch_body(tip: &str, arguments: &[&str]) -> Vec<u8> {
    let want = line(format!("want {tip}\n").as_bytes());
    let arguments: Vec<u8> = arguments.iter().flat_map(|argument| line(argument.as_bytes())).collect();
    [&command_head("fetch")[..], b"0001", &want, &arguments, &line(b"done\n"), b"0000"].concat()
}

impl Cloning {
    /// Asks for a clone of `main`, as packs are kept, with bases by their offsets, or so that the pack has to be made, and
    /// reads `bytes` of the answer.
    pub(crate) fn begin(server: &Server, tip: &str, is_kept: bool, bytes: usize) -> Self {
        Self::with(server, tip, if is_kept { &["ofs-delta\n"] } else { &[] }, bytes)
    }

    /// The same with such arguments.
    pub(crate) fn with(server: &Server, tip: &str, arguments: &[&str], bytes: usize) -> Self {
        let body = fetch_body(tip, arguments);
        let mut wire = server.http().wire(None).expect("the server accepts connections");
        let request = [&head("git-upload-pack", body.len())[..], &body].concat();
        wire.write_all(&request).and_then(|()| wire.flush()).expect("the server reads");
        let mut clone = Self::Http1 { wire, came: Vec::new() };
        clone.read(bytes);
        clone
    }

    /// As [`Cloning::begin`], over HTTP/2.
    pub(crate) fn over_http2(server: &Server, tip: &str, is_kept: bool, bytes: usize) -> Self {
        let headers = [("git-protocol", "version=2"), ("content-type", "application/x-git-upload-pack-request")];
        let mut exchange = Exchange::begin(&server.http(), "/repo.git/git-upload-pack", &headers);
        exchange.send(&fetch_body(tip, if is_kept { &["ofs-delta\n"] } else { &[] }));
        exchange.end();
        let mut clone = Self::Http2(exchange);
        clone.read(bytes);
        clone
    }

    /// Reads `bytes` more; over HTTP/2 until so much has come in sum.
    pub(crate) fn read(&mut self, bytes: usize) {
        match self {
            Self::Http1 { wire, came } => {
                let before = came.len();
                came.resize(before + bytes, 0);
                wire.read_exact(&mut came[before..]).expect("so much of an answer");
            }
            Self::Http2(exchange) => exchange.read(bytes),
        }
    }

    /// Over HTTP/2, waits without opening a window until the server has ended the connection. Over HTTP/1.1 that is seen only
    /// by who reads.
    pub(crate) fn await_cut_off(&mut self) {
        if let Self::Http2(exchange) = self {
            exchange.await_cut_off();
        }
    }

    /// Reads to the end, in whichever way that comes, and gives the bands of what came. What is said to have ended must be
    /// whole, and what has not must not seem to have: it gives `None`.
    pub(crate) fn bands(self) -> Option<Vec<Vec<u8>>> {
        let (body, is_ended) = match self {
            Self::Http1 { mut wire, mut came } => {
                let _ = wire.read_to_end(&mut came);
                let head = came.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
                assert!(came.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&came[..head]));
                unchunked(&came[head..])
            }
            Self::Http2(exchange) => {
                let (body, end) = exchange.answer();
                (body, end == End::Whole)
            }
        };
        let is_whole = body.ends_with(b"0000");
        assert_eq!(is_whole, is_ended, "half a pack ends as if it were a whole one, or the other way");
        is_whole.then(|| crate::pack::lines(&body))
    }

    /// The same, and gives the pack.
    pub(crate) fn pack(self) -> Option<Vec<u8>> {
        let mut pack = Vec::new();
        for band in self.bands()?.iter().filter(|band| band[0] == 1) {
            pack.extend_from_slice(&band[1..]);
        }
        Some(pack)
    }

    /// The same, and looks at the pack if it has ended.
    pub(crate) fn end(self, git: &Git, place: &Place) {
        if let Some(pack) = self.pack() {
            let empty = place.path("empty");
            git.init(&empty);
            git.ok_fed(&empty, &["index-pack", "--stdin"], &pack);
        }
    }
}

/// The content of what came in chunks, and whether its end was among them.
fn unchunked(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut content = Vec::new();
    while let Some(at) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..at]).expect("digits");
        let size = usize::from_str_radix(size, 16).expect("digits");
        bytes = &bytes[at + 2..];
        content.extend_from_slice(&bytes[..size.min(bytes.len())]);
        if size == 0 || bytes.len() < size + 2 {
            return (content, size == 0);
        }
        bytes = &bytes[size + 2..];
    }
    (content, false)
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

/// A push of all that the checkout has, which is put into a file on its way.
fn large_push(place: &Place, git: &Git, name: &str) -> Vec<u8> {
    let work = place.path("work");
    let tip = git.ok(&work, &["rev-parse", "main"]).parse().expect("an id");
    let output = git.feed(&work, &["pack-objects", "-q", "--revs", "--stdout"], b"main\n");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    push_body(
        &[RefChange { old: tested::null(), new: tip, name: name.as_bytes().to_vec() }],
        "report-status",
        &output.stdout,
    )
}

/// Begins a push, of which it sends half, and waits until that is in a file.
fn push_half(server: &Server, place: &Place, body: &[u8]) -> TcpStream {
    let mut stream = begin(server, "git-receive-pack", body.len());
    stream.write_all(&body[..body.len() / 2]).expect("the server reads");
    until("the pack's file", || incoming(&place.path("data")).len() == 1);
    stream
}

#[test]
fn clients_that_leave_in_the_midst_leave_nothing() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = with_history(&place, &git);
    let (server, left) = server.restarted(&place);
    let tip = git.ok(&place.path("work"), &["rev-parse", "main"]);
    for is_kept in [true, false] {
        for bytes in [1, 1000, 1 << 20, 8 << 20] {
            for _ in 0..4 {
                drop(Cloning::begin(&server, &tip, is_kept, bytes));
            }
        }
    }
    assert_idle(&server);
    for is_half_closed in [false, true] {
        let stream = push_half(&server, &place, &large_push(&place, &git, "refs/heads/half"));
        if is_half_closed {
            stream.shutdown(Shutdown::Write).expect("half closed");
        }
        let _open = is_half_closed.then_some(stream);
        until("the end of the pack's file", || incoming(&place.path("data")).is_empty());
        assert_idle(&server);
    }
    let listed = git.ok(&place.path("home"), &["ls-remote", "--heads", &server.url("repo")]);
    assert_eq!(listed.lines().count(), 1, "{listed}");
    git.clone_repo(&server.url("repo"), &place.path("copy.git"), &["--mirror"]);
    git.ok(&place.path("copy.git"), &["fsck", "--strict"]);
    unharmed(server, &place, &left);
}

/// Who closes the sending side has left: what was sent whole may be done or not, and an answer, if there is one, is true.
#[test]
fn a_client_that_closes_its_sending_side_has_left() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, left) = with_repo(&place);
    let mut pack = Pack::new();
    let new = pack.commit("whole");
    let change = RefChange { old: tested::null(), new, name: b"refs/heads/whole".to_vec() };
    let push = push_body(&[change], "report-status agent=test/1", &pack.finish());
    let fetch = fetch_body(&new.to_string(), &["ofs-delta\n"]);
    let listed = |server: &Server| git.ok(&place.path("home"), &["ls-remote", "--heads", &server.url("repo")]);
    let half_closed = |server: &Server, service: &str, body: &[u8], cut: usize| {
        let mut stream = begin(server, service, body.len());
        stream.write_all(&body[..cut]).expect("the server reads");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut answer = Vec::new();
        // An answer or a reset: both end it.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let pack_begins = push.windows(4).position(|window| window == b"PACK").expect("a pack");
    for cut in [0, 3, 100, pack_begins, pack_begins + 20, push.len() - 1] {
        let answer = half_closed(&server, "git-receive-pack", &push, cut);
        assert!(!answer.contains("ok refs/heads/whole"), "cut at {cut}: {answer}");
    }
    assert_idle(&server);
    assert_eq!(listed(&server), "");
    let server = unharmed(server, &place, &left);
    let answer = half_closed(&server, "git-receive-pack", &push, push.len());
    assert_idle(&server);
    let is_there = !listed(&server).is_empty();
    assert!(is_there || !answer.contains("ok refs/heads/whole"), "{answer}");
    // Such a push again, by a client that stays.
    if !is_there {
        assert!(push_new(&server.http(), "repo", "refs/heads/whole", new, &pack.finish()).accepted());
    }
    for cut in [0, 3, 20, fetch.len() - 1] {
        let answer = half_closed(&server, "git-upload-pack", &fetch, cut);
        assert!(!answer.contains("PACK"), "cut at {cut}: {answer}");
    }
    let answer = half_closed(&server, "git-upload-pack", &fetch, fetch.len());
    assert!(answer.is_empty() || !answer.contains("PACK") || answer.ends_with("0\r\n\r\n"), "{answer}");
    assert_idle(&server);
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
    assert_eq!(git.objects(&copy).len(), 3);
}

#[test]
fn a_repository_that_is_deleted_during_a_clone_is_gone_after_it() {
    for is_kept in [true, false] {
        let place = Place::new();
        let git = Git::new(&place.path("home"));
        let server = with_history(&place, &git);
        let tip = git.ok(&place.path("work"), &["rev-parse", "main"]);
        let clones: Vec<_> = (0..4).map(|at| Cloning::begin(&server, &tip, is_kept, 100 + (at << 20))).collect();
        assert_eq!(server.http().delete("/api/v1/repos/repo").status, 204);
        clones.into_iter().for_each(|clone| clone.end(&git, &place));
        assert_idle(&server);
        git.fails(&place.path("home"), &["ls-remote", &server.url("repo")]);
        assert_name_is_free(server, &place, &git);
    }
}

#[test]
fn a_repository_that_is_deleted_during_a_push_is_gone_after_it() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = with_history(&place, &git);
    let body = large_push(&place, &git, "refs/heads/another");
    let mut stream = push_half(&server, &place, &body);
    assert_eq!(server.http().delete("/api/v1/repos/repo").status, 204);
    stream.write_all(&body[body.len() / 2..]).expect("the server reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("ng refs/heads/another"), "{answer}");
    assert_idle(&server);
    assert_eq!(incoming(&place.path("data")), [""; 0]);
    assert_name_is_free(server, &place, &git);
}

/// Asserts that a new `repo` has nothing of one that was deleted, and that nothing of that is left.
fn assert_name_is_free(server: Server, place: &Place, git: &Git) {
    let (server, left) = server.restarted(place);
    assert_eq!(left.rows("blocks"), 0, "{left:?}");
    server.create("repo");
    let change =
        json!({ "branch": "main", "message": "m", "changes": [{ "op": "put", "path": "new", "content": "x" }] });
    server.http().post("/api/v1/repos/repo/commits", &change).expect(201);
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
    assert_eq!(git.objects(&copy).len(), 3);
}

#[test]
fn a_tree_as_wide_as_an_object_may_be_is_served() {
    const ENTRIES: usize = 3_830_000;
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let mut pack = Pack::new();
    let blob = pack.object(Kind::Blob, b"in all of them\n");
    let mut entries = Vec::new();
    for at in 0..ENTRIES {
        write!(entries, "100644 {at:07}\0").expect("memory takes it");
        entries.extend_from_slice(blob.as_bytes());
    }
    let tip = commit_entries(&mut pack, &entries);
    assert!((127 << 20..128 << 20).contains(&entries.len()));
    let http = server.http();
    let report = push_new(&http, "repo", "refs/heads/main", tip, &pack.finish());
    assert!(report.accepted(), "{report:?}");
    for (name, options, objects) in [("whole", &["--mirror"][..], 3), ("part", &["--bare", "--filter=tree:1"], 2)] {
        let copy = place.path(name);
        git.clone_repo(&server.url("repo"), &copy, options);
        assert_eq!(git.objects(&copy).len(), objects, "{name}");
        assert_eq!(git.ok(&copy, &["rev-parse", "main"]), tip.to_string());
    }
    let page = http.get("/api/v1/repos/repo/tree?ref=main&limit=10").expect(200);
    assert_eq!(items(&page).len(), 10, "{page}");
    let change = json!({
        "branch": "main", "message": "m", "changes": [{ "op": "put", "path": "3829999", "content": "another\n" }],
    });
    http.post("/api/v1/repos/repo/commits", &change).expect(201);
    assert_eq!(http.get("/api/v1/repos/repo/raw/3829999?ref=main").text(), "another\n");
    // One more is one too many.
    let change = json!({
        "branch": "main", "message": "m",
        "changes": [{ "op": "put", "path": "n".repeat(200_000), "content": "too long\n" }],
    });
    let reply = http.post("/api/v1/repos/repo/commits", &change);
    assert!((400..500).contains(&reply.status), "{}: {}", reply.status, reply.text());
    assert_bounded(&server);
}
