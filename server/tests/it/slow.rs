//! Clients that are slow to take what they fetch: they hold no thread and little memory, and get all of it in the end.
//!
//! A client here reads the beginning of its answer and leaves the rest lying. What systems hold of that between the two ends
//! is less than any pack here has; over HTTP/2 it opens no window.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    extremes::{Cloning, with_noise},
    git::Git,
    history,
    pack::{Pack, command_head, line, lines, push_new},
    server::{Launch, Place, Server, incoming},
    ssh_client::{Keys, Started, until},
    tested,
    tls::Authority,
    wire::at_work,
};

/// How a clone is asked for over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Http1,
    Http1OverTls,
    Http2,
    Http2OverTls,
}

impl Way {
    fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Http2OverTls)
    }

    /// A server that is asked in this way, with so many megabytes, and a git that trusts it.
    fn served(self, place: &Place, megabytes: u32, launch: impl FnOnce(Launch) -> Launch) -> (Server, Git) {
        let git = Git::new(&place.path("home"));
        // A client here does not answer when it is asked whether it is there.
        let launch = launch(with_one_thread(place.launch())).env("GOVC_HEADER_TIMEOUT", "10m");
        if matches!(self, Self::Http1 | Self::Http2) {
            return (with_noise(launch, place, &git, megabytes), git);
        }
        let authority = Authority::new(place);
        authority.fresh();
        let git = git.with("http.sslCAInfo", authority.ca());
        (with_noise(authority.trusted(launch), place, &git, megabytes), git)
    }

    fn begin(self, server: &Server, tip: &str, is_kept: bool) -> Cloning {
        match self.is_http2() {
            false => Cloning::begin(server, tip, is_kept, 1000),
            true => Cloning::over_http2(server, tip, is_kept, 1000),
        }
    }
}

/// For how long others wait at most; what they ask takes a second where nobody is in the way.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(20);

/// As few threads as there can be: one.
fn with_one_thread(launch: Launch) -> Launch {
    // What else reads objects would be measured too.
    launch.env("GOVC_WORK_THREADS", "1").env("GOVC_SEARCH_ENABLED", "false")
}

fn tip(place: &Place, git: &Git) -> String {
    git.ok(&place.path("work"), &["rev-parse", "main"])
}

/// Asserts that clients go on which are not slow: a clone, a push and a read.
#[track_caller]
pub(crate) fn assert_others_are_served(server: &Server, place: &Place, git: &Git, round: &str) {
    let http = server.http();
    until("a free thread", || at_work(&http) == 0);
    git.clone_repo(&server.url("repo"), &place.path(&format!("copy-{round}")), &["--bare"]);
    let mut built = Pack::new();
    let tip = built.commit(round);
    assert!(push_new(&http, "repo", &format!("refs/heads/{round}"), tip, &built.finish()).accepted());
    assert_eq!(http.get("/api/v1/repos/repo/commits").status, 200);
}

/// Takes the rest of each answer: all have the same pack, which is sound.
fn assert_all_get_it(clones: Vec<Cloning>, place: &Place, git: &Git) {
    let mut first: Option<Vec<u8>> = None;
    for clone in clones {
        let pack = clone.pack().expect("a whole answer");
        match &first {
            Some(first) => assert!(*first == pack),
            None => {
                let empty = place.path("empty");
                git.init(&empty);
                git.ok_fed(&empty, &["index-pack", "--stdin"], &pack);
                first = Some(pack);
            }
        }
    }
}

#[test]
fn a_hundred_that_clone_hold_no_thread_and_little_memory() {
    // A pack that is kept in memory, and one in a file.
    let plain = [(Way::Http1, 7), (Way::Http1, 12)];
    for (way, megabytes) in plain.into_iter().chain([(Way::Http1OverTls, 12), (Way::Http2, 7), (Way::Http2OverTls, 12)])
    {
        let place = Place::new();
        let (server, git) = way.served(&place, megabytes, |launch| launch);
        let tip = tip(&place, &git);
        let before = server.peak_bytes();
        let mut slow: Vec<_> = (0..100).map(|_| way.begin(&server, &tip, true)).collect();
        let began = Instant::now();
        assert_others_are_served(&server, &place, &git, "meanwhile");
        assert!(began.elapsed() < AT_ONCE, "{way:?}: others waited for {:?}", began.elapsed());
        let grown = (server.peak_bytes() - before) >> 20;
        assert!(grown < 150, "{way:?}: {grown} MiB more resident");
        // Half of them leave.
        slow.truncate(50);
        assert_all_get_it(slow, &place, &git);
        assert_others_are_served(&server, &place, &git, "afterwards");
    }
}

#[test]
fn those_that_take_nothing_are_given_up_in_the_midst_of_a_pack() {
    const PATIENCE: Duration = Duration::from_secs(2);
    for way in [Way::Http1, Way::Http1OverTls, Way::Http2, Way::Http2OverTls] {
        let place = Place::new();
        let (server, git) = way.served(&place, 12, |launch| launch.env("GOVC_BODY_TIMEOUT", "2s"));
        let tip = tip(&place, &git);
        let files = || incoming(&place.path("data")).len();
        let began = Instant::now();
        let mut clone = way.begin(&server, &tip, false);
        until("a file for it", || files() > 0);
        assert_others_are_served(&server, &place, &git, "meanwhile");
        until("the end of what was made", || files() == 0);
        let held = began.elapsed();
        assert!((PATIENCE..PATIENCE + AT_ONCE).contains(&held), "{way:?}: given up after {held:?}");
        clone.await_cut_off();
        assert!(clone.pack().is_none(), "{way:?}: what was cut off has no end");
        assert_eq!(at_work(&server.http()), 0);
        git.clone_repo(&server.url("repo"), &place.path("copy"), &["--bare"]);
    }
}

#[test]
fn what_is_made_for_slow_clients_is_gone_with_them() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = with_noise(with_one_thread(place.launch()), &place, &git, 12);
    let work = place.path("work");
    git.commit(&work, "patterns", b"/*\n", "patterns");
    git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
    let tip = tip(&place, &git);
    let files = || incoming(&place.path("data")).len();
    // One that others may share, and one that is nobody else's.
    for (round, arguments) in [("shared", &[][..]), ("alone", &["filter sparse:oid=main:patterns\n", "ofs-delta\n"])] {
        let mut slow: Vec<_> = (0..6).map(|_| Cloning::with(&server, &tip, arguments, 1000)).collect();
        assert_others_are_served(&server, &place, &git, round);
        assert!(files() > 0, "{round}");
        slow.truncate(4);
        assert_all_get_it(slow, &place, &git);
        until("the end of what was made", || files() == 0);
    }
}

#[test]
fn those_that_find_no_memory_wait_for_it() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    // Room for two, in half of it.
    let launch = with_one_thread(place.launch()).env("GOVC_MAX_BUFFERED", "2MiB").env("GOVC_WORK_TIMEOUT", "3s");
    let server = with_noise(launch, &place, &git, 24);
    let tip = tip(&place, &git);
    let mut slow: Vec<_> = (0..2).map(|_| Cloning::begin(&server, &tip, true, 1000)).collect();
    let third = Cloning::begin(&server, &tip, true, 100);
    let mut refused = server.http().connect();
    let body =
        [&command_head("fetch")[..], b"0001", &line(format!("want {tip}\n").as_bytes()), &line(b"done\n"), b"0000"];
    let body = body.concat();
    let head = format!(
        "POST /repo.git/git-upload-pack HTTP/1.1\r\nhost: x\r\ngit-protocol: version=2\r\ncontent-length: {}\r\n\
         content-type: application/x-git-upload-pack-request\r\n\r\n",
        body.len()
    );
    slow.truncate(1);
    slow.push(third);
    slow[1].read(1000);
    refused.write(&[head.as_bytes(), &body].concat());
    let said = refused.reply().text();
    assert!(said.contains("other packs are on their way"), "{said:.300}");
    assert_all_get_it(slow, &place, &git);
    git.clone_repo(&server.url("repo"), &place.path("copy"), &["--bare"]);
}

#[test]
fn the_memory_that_they_fill_is_not_that_of_others() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let launch = place.launch().env("GOVC_WORK_THREADS", "2").env("GOVC_MAX_BUFFERED", "2MiB");
    let server = with_noise(launch.env("GOVC_WORK_TIMEOUT", "10m"), &place, &git, 24);
    let (http, tip) = (server.http(), tip(&place, &git));
    let mut slow: Vec<_> = (0..2).map(|_| Cloning::begin(&server, &tip, true, 1000)).collect();
    // There is no memory for the others: they wait.
    let waiting: Vec<_> = (0..4).map(|_| Cloning::begin(&server, &tip, true, 100)).collect();
    until("free threads", || at_work(&http) == 0);
    let content = "more than is free of charge\n".repeat(10_000);
    for round in 0..3 {
        let path = format!("large{round}.txt");
        let commit = json!({
            "branch": "main", "message": "meanwhile", "author": { "name": "Ada", "email": "ada@example.org" },
            "changes": [{ "op": "put", "path": path, "content": content }],
        });
        http.post("/api/v1/repos/repo/commits", &commit).expect(201);
        assert_eq!(http.get(&format!("/api/v1/repos/repo/read/{path}")).expect(200)["content"], content);
        let work = place.path(&format!("pushed{round}"));
        git.init(&work);
        git.commit(&work, "noise", &history::noise(round, 3 << 20), "more than there is memory for");
        git.ok(&work, &["push", "-q", &server.url("repo"), &format!("HEAD:refs/heads/round{round}")]);
    }
    slow.extend(waiting);
    assert_all_get_it(slow, &place, &git);
    server.stop();
}

#[test]
fn a_server_that_stops_lets_them_finish_and_does_not_wait_for_ever() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = with_noise(with_one_thread(place.launch()), &place, &git, 12);
    let tip = tip(&place, &git);
    let begin = |server: &Server| -> Vec<_> {
        [true, false].map(|is_kept| Cloning::begin(server, &tip, is_kept, 1000)).into_iter().collect()
    };
    let slow = begin(&server);
    server.terminate();
    until("the end of new connections", || server.http().try_connect().is_err());
    slow.into_iter().for_each(|clone| clone.end(&git, &place));
    let server = server.stopped().env("GOVC_SHUTDOWN_TIMEOUT", "1s").start();
    let slow = begin(&server);
    server.stop();
    assert!(slow.into_iter().all(|clone| clone.pack().is_none()), "what was cut off has no end");
    assert_eq!(incoming(&place.path("data")), [""; 0]);
}

#[test]
fn over_ssh_they_hold_no_thread_either() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let git = Git::new(&place.path("home"));
    let server = with_noise(with_one_thread(keys.launch(&place)), &place, &git, 24);
    let tip = tip(&place, &git);
    let features = format!("side-band-64k ofs-delta{}", tested::capability());
    let request = [&line(format!("want {tip} {features}\n").as_bytes())[..], b"0000", &line(b"done\n")].concat();
    let slow: Vec<_> = (0..4)
        .map(|_| {
            let mut client =
                Started(keys.ssh(&key, &server, &["git-upload-pack", "'repo'"]).spawn().expect("ssh runs"));
            while !client.read_line().is_empty() {}
            client.write(&request);
            assert_eq!(client.read_line(), b"NAK\n");
            client
        })
        .collect();
    assert_others_are_served(&server, &place, &git, "meanwhile");
    for mut client in slow {
        let mut rest = Vec::new();
        client.0.stdout.take().expect("a pipe").read_to_end(&mut rest).expect("an answer");
        assert!(rest.ends_with(b"0000") && client.0.wait().expect("an end").success());
        let mut pack = Vec::new();
        lines(&rest).iter().filter(|band| band[0] == 1).for_each(|band| pack.extend_from_slice(&band[1..]));
        let empty = place.path("empty");
        git.init(&empty);
        git.ok_fed(&empty, &["index-pack", "--stdin"], &pack);
    }
}
