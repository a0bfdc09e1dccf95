//! Clients that are slow to send what they push: they hold no thread and little memory, and what they push is there in the end.
//!
//! A client here sends the beginning of its pack and then nothing, until no thread works any more: whoever waits for it then
//! does so without one.

use std::{
    io::Write as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use govc_engine::{Kind, Oid};

use crate::{
    git::Git,
    history::noise,
    http::Connection,
    http2_client::{End, Exchange},
    pack::{
        Pack, RECEIVE_HEADERS, RefChange, Report, commit_of, delta, insert, line, push_body, push_new, push_raw,
        tree_entry,
    },
    server::{Launch, Place, Server, incoming},
    signed_push::{certified, nonce, require, versions, written},
    slow::{AT_ONCE, assert_others_are_served},
    ssh_client::{Keys, Started, until},
    tested,
    tls::Authority,
    wire::at_work,
};

/// How a push gets there. HTTP goes over TLS if the server is one of HTTPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Http,
    Gzip,
    Http2,
    Ssh,
}

const WAYS: [Way; 4] = [Way::Http, Way::Gzip, Way::Http2, Way::Ssh];

/// A server with a repository, and its clients.
struct Scene {
    place: Place,
    keys: Keys,
    key: PathBuf,
    git: Git,
    server: Server,
}

impl Scene {
    /// With so many threads.
    fn new(threads: &str, launch: impl FnOnce(Launch) -> Launch) -> Self {
        Self::served(false, threads, launch)
    }

    /// The same over HTTPS.
    fn secure(threads: &str, launch: impl FnOnce(Launch) -> Launch) -> Self {
        Self::served(true, threads, launch)
    }

    fn served(is_secure: bool, threads: &str, launch: impl FnOnce(Launch) -> Launch) -> Self {
        let place = Place::new();
        let keys = Keys::new(&place);
        let key = keys.allowed("ada");
        let mut git = keys.git(&place, &key);
        // What else reads objects would be measured too.
        let quiet = keys.launch(&place).env("GOVC_SEARCH_ENABLED", "false").env("GOVC_COMPACTION_ENABLED", "false");
        // A client here does not answer when it is asked whether it is there.
        let mut launch = launch(quiet.env("GOVC_WORK_THREADS", threads).env("GOVC_HEADER_TIMEOUT", "10m"));
        if is_secure {
            let authority = Authority::new(&place);
            authority.fresh();
            // git 2.39 with libcurl 7.88 may wait for ever over HTTP/2, with the answer to a push that had to wait unread.
            git = git.with("http.sslCAInfo", authority.ca()).with("http.version", "HTTP/1.1");
            launch = authority.trusted(launch);
        }
        let server = launch.start();
        server.create("repo");
        let scene = Self { place, keys, key, git, server };
        let (body, _) = push("main", 0, 1, 1000);
        assert!(scene.begin(Way::Http, &body).finish().accepted());
        scene
    }

    fn begin(&self, way: Way, body: &[u8]) -> Pushing {
        let client = match way {
            Way::Ssh => {
                let mut ssh = self.keys.ssh(&self.key, &self.server, &["git-receive-pack", "'repo'"]);
                let mut client = Started(ssh.spawn().expect("ssh runs"));
                while !client.read_line().is_empty() {}
                Client::Ssh(client)
            }
            Way::Http2 => {
                Client::Http2(Exchange::begin(&self.server.http(), "/repo.git/git-receive-pack", RECEIVE_HEADERS))
            }
            Way::Http | Way::Gzip => {
                let encoding = if way == Way::Gzip { "content-encoding: gzip\r\n" } else { "" };
                let head = format!(
                    "POST /repo.git/git-receive-pack HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\
                     content-type: {}\r\n{encoding}\r\n",
                    RECEIVE_HEADERS[0].1
                );
                let mut connection = self.server.http().connect();
                connection.write(head.as_bytes());
                Client::Http(connection)
            }
        };
        let body = match way {
            Way::Http | Way::Http2 | Way::Ssh => body.to_vec(),
            Way::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body).expect("memory takes it");
                encoder.finish().expect("memory takes it")
            }
        };
        Pushing { client, body, sent: 0 }
    }

    /// Begins a push of which so much is in a file when no thread waits for it any more.
    fn stalled(&self, way: Way, body: &[u8], part: f64) -> Pushing {
        let data = self.place.path("data");
        let before = incoming(&data);
        let mut push = self.begin(way, body);
        push.send(part);
        until("a file for it", || incoming(&data).iter().any(|name| !before.contains(name)));
        self.await_no_work();
        push
    }

    fn await_no_work(&self) {
        let http = self.server.http();
        // What was sent reaches a thread first.
        thread::sleep(Duration::from_millis(200));
        until("a free thread", || at_work(&http) == 0);
    }

    fn incoming(&self) -> usize {
        incoming(&self.place.path("data")).len()
    }

    /// Asserts that the repository has these branches, whole.
    #[track_caller]
    fn assert_has(&self, tips: &[(String, Oid)]) {
        let copy = self.place.path("whole.git");
        self.git.clone_repo(&self.server.url("repo"), &copy, &["--mirror"]);
        self.git.ok(&copy, &["fsck", "--strict", "--full"]);
        for (name, tip) in tips {
            assert_eq!(self.git.ok(&copy, &["rev-parse", name]), tip.to_string(), "{name}");
            assert_eq!(self.git.ok(&copy, &["cat-file", "-p", &format!("{name}:z")]), "derived", "{name}");
        }
    }
}

/// A push of which not all has been sent.
struct Pushing {
    client: Client,
    body: Vec<u8>,
    sent: usize,
}

enum Client {
    Http(Connection),
    Http2(Exchange),
    Ssh(Started),
}

impl Pushing {
    /// Sends until so much of all has been sent.
    fn send(&mut self, part: f64) {
        self.send_to((self.body.len() as f64 * part) as usize);
    }

    fn send_to(&mut self, end: usize) {
        let bytes = &self.body[self.sent..end];
        match &mut self.client {
            _ if bytes.is_empty() => {}
            Client::Http(connection) => {
                let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
                // Who was refused need not have sent everything.
                let _ = connection.try_write(&chunk);
            }
            Client::Http2(exchange) => exchange.send(bytes),
            Client::Ssh(client) => client.write(bytes),
        }
        self.sent = end;
    }

    /// Sends the rest, and gives what the server reports.
    fn finish(mut self) -> Report {
        self.send(1.0);
        self.report()
    }

    /// The same, as if what has been sent were all.
    fn cut(mut self) -> Report {
        if let Client::Ssh(client) = &mut self.client {
            drop(client.0.stdin.take());
        }
        self.report()
    }

    fn report(self) -> Report {
        match self.client {
            Client::Http(mut connection) => {
                let _ = connection.try_write(b"0\r\n\r\n");
                let reply = connection.reply();
                assert_eq!(reply.status, 200, "{}", reply.text());
                Report::parse(&reply.body)
            }
            Client::Http2(mut exchange) => {
                exchange.end();
                let (body, end) = exchange.answer();
                assert_eq!(end, End::Whole);
                Report::parse(&body)
            }
            Client::Ssh(mut client) => {
                // Its input stays open.
                let report = std::iter::repeat_with(|| client.read_line()).take_while(|said| !said.is_empty());
                Report::parse(&report.flat_map(|said| line(&said)).collect::<Vec<_>>())
            }
        }
    }
}

/// A pack of so many blobs that do not compress, between a blob and a delta on it; and its tip.
fn pack_of(seed: u64, blobs: u64, length: usize) -> (Vec<u8>, Oid) {
    let mut pack = Pack::new();
    let base = (pack.next_offset(), pack.object(Kind::Blob, b"base\n"));
    let mut entries = tree_entry("100644", b"a", base.1);
    for at in 0..blobs {
        let blob = pack.object(Kind::Blob, &noise(1000 * seed + at, length));
        entries.extend(tree_entry("100644", format!("noise{at:03}").as_bytes(), blob));
    }
    pack.ofs_delta(pack.next_offset() - base.0, &delta(5, 8, &insert(b"derived\n")));
    entries.extend(tree_entry("100644", b"z", tested::hash(Kind::Blob, b"derived\n")));
    let tree = pack.object(Kind::Tree, &entries);
    let tip = pack.object(Kind::Commit, &commit_of(tree, &[], &format!("of {seed}")));
    (pack.finish(), tip)
}

/// A push of such a pack as a branch.
fn push(branch: &str, seed: u64, blobs: u64, length: usize) -> (Vec<u8>, Oid) {
    let (pack, new) = pack_of(seed, blobs, length);
    (push_body(&[change(branch, new)], "report-status agent=test/1", &pack), new)
}

fn change(branch: &str, new: Oid) -> RefChange {
    RefChange { old: tested::null(), new, name: format!("refs/heads/{branch}").into_bytes() }
}

#[test]
fn those_that_stall_hold_no_thread_and_come_through() {
    stall(Scene::new("1", |launch| launch));
}

#[test]
fn those_that_stall_over_tls_hold_no_thread_either() {
    stall(Scene::secure("1", |launch| launch));
}

fn stall(scene: Scene) {
    let (mut slow, mut tips) = (Vec::new(), Vec::new());
    for way in WAYS {
        // One that is less than is awaited without a thread, one that would be in memory, one in a file.
        for (blobs, length, part) in [(1, 40_000, 0.9), (3, 100_000, 0.5), (12, 1 << 20, 0.75)] {
            let branch = format!("{way:?}-{blobs}");
            let (body, tip) = push(&branch, blobs, blobs, length);
            slow.push(scene.begin(way, &body));
            slow.last_mut().expect("it was pushed").send(part);
            tips.push((branch, tip));
        }
    }
    // All of it, but not the end of the request.
    let (body, tip) = push("unended", 7, 3, 100_000);
    slow.push(scene.begin(Way::Http, &body));
    tips.push(("unended".to_owned(), tip));
    slow.last_mut().expect("it was pushed").send(1.0);
    scene.await_no_work();
    assert_others_are_served(&scene.server, &scene.place, &scene.git, "meanwhile");
    for push in &mut slow {
        push.send_to((push.sent + 1).min(push.body.len()));
    }
    assert_others_are_served(&scene.server, &scene.place, &scene.git, "later");
    assert!(scene.incoming() >= 9, "what has come of packs is in files: {}", scene.incoming());
    for push in slow {
        let report = push.finish();
        assert!(report.accepted(), "{report:?}");
    }
    scene.assert_has(&tips);
    until("the end of the files", || scene.incoming() == 0);
}

#[test]
fn they_hold_little_memory() {
    // What each thread and its part of the allocator take is there after these.
    const FEW: u64 = 16;
    const MANY: u64 = 56;
    const BYTES: u64 = 8 << 20;
    /// Less than would be put into a file by itself.
    const SENT: f64 = 0.85;
    let scene = Scene::new("4", |launch| launch.env("GOVC_MEMORY", "64MiB"));
    let slow = |pushes: std::ops::Range<u64>| -> Vec<_> {
        let begin = |at| {
            let branch = format!("b{at}");
            let (body, tip) = push(&branch, at + 1, 8, BYTES as usize / 8);
            let mut push = scene.begin(Way::Http, &body);
            push.send(SENT);
            (branch, tip, push)
        };
        let slow = pushes.map(begin).collect();
        scene.await_no_work();
        slow
    };
    let finish = |slow: Vec<(String, Oid, Pushing)>| -> Vec<_> {
        let finish = |(branch, tip, push): (_, _, Pushing)| {
            assert!(push.finish().accepted(), "{branch}");
            (branch, tip)
        };
        slow.into_iter().map(finish).collect()
    };
    let mut tips = finish(slow(0..FEW));
    let before = scene.server.peak_bytes();
    let mut many = slow(FEW..FEW + MANY);
    let grown = scene.server.peak_bytes().saturating_sub(before);
    let more = ((MANY - FEW) * BYTES) as f64 * SENT;
    assert!((grown as f64) < more / 2.0, "{} MiB more resident", grown >> 20);
    many.truncate(8);
    tips.extend(finish(many));
    scene.assert_has(&tips);
}

#[test]
fn a_hundred_at_once_keep_nobody_waiting() {
    for (is_secure, way) in [(false, Way::Http2), (true, Way::Http), (true, Way::Http2)] {
        // One of them may wait for its client.
        let scene = Scene::served(is_secure, "2", |launch| launch);
        let bodies: Vec<_> = (0..100).map(|at| push(&format!("b{at}"), at + 1, 3, 100_000)).collect();
        let mut slow: Vec<_> = bodies.iter().map(|(body, _)| scene.begin(way, body)).collect();
        // All begin together, and then nothing comes of any.
        slow.iter_mut().for_each(|push| push.send(0.5));
        let began = Instant::now();
        let (http, url) = (scene.server.http(), scene.server.url("repo"));
        http.get("/api/v1/repos/repo/commits").expect(200);
        let mut built = Pack::new();
        let tip = built.commit("meanwhile");
        assert!(push_new(&http, "repo", "refs/heads/meanwhile", tip, &built.finish()).accepted());
        let work = scene.place.path("work");
        scene.git.init(&work);
        scene.git.commit(&work, "noise", &noise(999, 1 << 20), "more than is awaited without a thread");
        scene.git.ok(&work, &["push", "-q", &url, "HEAD:refs/heads/large"]);
        scene.git.clone_repo(&url, &scene.place.path("copy"), &["--bare"]);
        let waited = began.elapsed();
        assert!(waited < AT_ONCE, "{is_secure} {way:?}: others waited for {waited:?}");
        scene.await_no_work();
        assert_eq!(scene.incoming(), slow.len());
        for push in slow {
            assert!(push.finish().accepted(), "{way:?}");
        }
        let tips: Vec<_> = bodies.iter().enumerate().map(|(at, (_, tip))| (format!("b{at}"), *tip)).collect();
        scene.assert_has(&tips);
    }
}

#[test]
fn what_is_wrong_is_told_as_to_others() {
    let scene = Scene::new("2", |launch| launch);
    let http = scene.server.http();
    let (sound, tip) = pack_of(1, 3, 100_000);
    let damaged = |at: usize| {
        let mut pack = sound.clone();
        pack[at] ^= 0xff;
        pack
    };
    let mut bad_tree = Pack::new();
    bad_tree.object(Kind::Blob, &noise(3, 200_000));
    let tree = bad_tree.object(Kind::Tree, b"this is no tree");
    let of_bad_tree = bad_tree.object(Kind::Commit, &commit_of(tree, &[], "bad"));
    let mut hollow = Pack::new();
    hollow.object(Kind::Blob, &noise(3, 200_000));
    let of_hollow = hollow.object(Kind::Commit, &commit_of(tested::hash(Kind::Tree, b"nowhere"), &[], "hollow"));
    let cases = [
        ("a false checksum", damaged(sound.len() - 1), tip),
        ("bytes behind it", [&sound[..], b"more"].concat(), tip),
        ("a damaged stream", damaged(sound.len() * 2 / 3), tip),
        ("a damaged stream that has come", damaged(sound.len() / 3), tip),
        ("a bad tree", bad_tree.finish(), of_bad_tree),
        ("a hole", hollow.finish(), of_hollow),
        ("an end before its end", sound[..sound.len() - 30].to_vec(), tip),
    ];
    for (what, pack, tip) in cases {
        let fast = Report::parse(&push_raw(&http, "repo", &[change("bad", tip)], &pack).body);
        assert!(!fast.accepted(), "{what}");
        let body = push_body(&[change("bad", tip)], "report-status agent=test/1", &pack);
        for way in WAYS {
            let mut slow = match what {
                // Refused at once.
                "a damaged stream that has come" => scene.begin(way, &body),
                _ => scene.stalled(way, &body, 0.5),
            };
            slow.send(1.0);
            let told = if what == "an end before its end" { slow.cut() } else { slow.report() };
            assert_eq!((&told.unpack, &told.references), (&fast.unpack, &fast.references), "{what}, {way:?}");
        }
    }
    until("the end of the files", || scene.incoming() == 0);
    let (body, tip) = push("good", 1, 3, 100_000);
    assert!(scene.begin(Way::Ssh, &body).finish().accepted());
    scene.assert_has(&[("good".to_owned(), tip)]);
}

#[test]
fn what_is_too_large_is_not_taken_in() {
    let scene = Scene::new("1", |launch| launch.env("GOVC_MAX_PACK", "1MiB"));
    let mut pack = Pack::new();
    pack.object(Kind::Blob, &noise(3, 200_000));
    let mut stored = ZlibEncoder::new(Vec::new(), Compression::none());
    stored.write_all(&vec![0; 66 << 20]).expect("memory takes it");
    pack.entry(Kind::Blob as u8, 66 << 20, &[], &stored.finish().expect("memory takes it"));
    let tip = pack.commit("beside it");
    let body = push_body(&[change("large", tip)], "report-status agent=test/1", &pack.finish());
    for way in WAYS {
        let mut push = scene.begin(way, &body);
        push.send_to(150_000);
        scene.await_no_work();
        let report = push.finish();
        assert!(report.unpack.contains("larger than the limit of 68157440 bytes"), "{way:?}: {report:?}");
    }
    until("the end of the files", || scene.incoming() == 0);
}

#[test]
fn those_that_leave_leave_nothing() {
    let scene = Scene::new("2", |launch| launch);
    let Scene { place, server, git, keys, key } = scene;
    let (server, left) = server.restarted(&place);
    let scene = Scene { place, server, git, keys, key };
    for way in WAYS {
        let (body, _) = push("left", 1, 12, 1 << 20);
        let mut slow = scene.stalled(way, &body, 0.5);
        slow.send(0.75);
        assert_eq!(scene.incoming(), 1, "{way:?}");
        drop(slow);
        until("the end of the file", || scene.incoming() == 0);
    }
    scene.await_no_work();
    let (server, after) = scene.server.restarted(&scene.place);
    assert_eq!(after, left);
    assert_eq!(
        scene.git.ok(&scene.place.path("home"), &["ls-remote", "--heads", &server.url("repo")]).lines().count(),
        1
    );
}

#[test]
fn a_server_that_stops_lets_them_finish_and_does_not_wait_for_ever() {
    let mut scene = Scene::new("1", |launch| launch);
    let (body, tip) = push("finished", 1, 12, 1 << 20);
    let slow = scene.stalled(Way::Http, &body, 0.5);
    scene.server.terminate();
    until("the end of new connections", || scene.server.http().try_connect().is_err());
    assert!(slow.finish().accepted());
    scene.server = scene.server.stopped().env("GOVC_SHUTDOWN_TIMEOUT", "1s").start();
    scene.assert_has(&[("finished".to_owned(), tip)]);
    let (body, _) = push("cut", 2, 12, 1 << 20);
    let slow: Vec<_> = WAYS.iter().map(|way| scene.stalled(*way, &body, 0.5)).collect();
    assert_eq!(scene.incoming(), slow.len());
    let place = scene.place;
    scene.server.stop();
    assert_eq!(incoming(&place.path("data")), [""; 0]);
}

#[test]
fn those_that_find_no_memory_wait_for_it() {
    // Room for two, in a quarter of it.
    let scene = Scene::new("1", |launch| launch.env("GOVC_MAX_BUFFERED", "4MiB").env("GOVC_WORK_TIMEOUT", "5s"));
    let push_of = |at: u64| push(&format!("b{at}"), at, 3, 100_000);
    let (bodies, tips): (Vec<_>, Vec<_>) = (1..5).map(push_of).unzip();
    let mut slow: Vec<_> = bodies[..2].iter().map(|body| scene.stalled(Way::Http, body, 0.5)).collect();
    let third = scene.stalled(Way::Http, &bodies[2], 0.5);
    assert!(slow.remove(0).finish().accepted());
    slow.push(third);
    // That one has the place now, and the last finds none.
    thread::sleep(Duration::from_millis(500));
    let report = scene.stalled(Way::Http, &bodies[3], 0.5).finish();
    assert!(report.unpack.contains("other packs are on their way"), "{report:?}");
    assert_others_are_served(&scene.server, &scene.place, &scene.git, "meanwhile");
    for push in slow {
        assert!(push.finish().accepted());
    }
    scene.assert_has(&(0..3).map(|at| (format!("b{}", at + 1), tips[at])).collect::<Vec<_>>());
}

#[test]
fn their_nonces_are_as_old_as_their_commands() {
    let scene = Scene::new("1", |launch| launch.env("GOVC_CERT_NONCE_SLOP", "2s"));
    require(&scene.server, "repo", "recorded");
    // One that is less than is awaited without a thread, and a larger one.
    for (branch, length) in [("small", 40_000), ("large", 200_000)] {
        for way in [Way::Http, Way::Gzip] {
            let (pack, tip) = pack_of(1, 1, length);
            let branch = format!("{branch}-{way:?}");
            let text = written(&format!("nonce {}\n", nonce(&scene.server, "repo")), "x");
            let removal = format!("{} {} refs/heads/x\n", tested::null(), tested::null());
            let text = text.replace(&removal, &format!("{} {tip} refs/heads/{branch}\n", tested::null()));
            let mut slow = scene.begin(way, &certified(&text, None, &pack));
            slow.send(0.8);
            thread::sleep(Duration::from_secs(3));
            scene.await_no_work();
            let report = slow.finish();
            assert!(report.accepted(), "{branch}: {report:?}");
            assert_eq!(versions(&scene.server, "repo")[0]["push_cert"]["nonce_status"], "ok", "{branch}");
        }
    }
    // What is refused for its commands is not kept, however slow it is.
    let (body, _) = push("unsigned", 1, 12, 1 << 20);
    let mut slow = scene.begin(Way::Http, &body);
    slow.send(0.8);
    scene.await_no_work();
    assert_eq!(scene.incoming(), 0);
    let report = slow.finish();
    assert!(report.reasons().contains("a signed push is required"), "{report:?}");
}
