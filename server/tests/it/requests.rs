//! Version 2's commands and their features, by the real git and by hand; and requests made to harm.

use std::time::Duration;

use serde_json::json;

use crate::{
    git::Git,
    http::Reply,
    pack::{Pack, RECEIVE_HEADERS, command_head, line, lines, push_new},
    server::{Place, Server},
    tested,
};

fn send(server: &Server, version: &str, body: &[u8]) -> Reply {
    let headers = [("content-type", "application/x-git-upload-pack-request"), ("git-protocol", version)];
    server.http().send("POST", "/repo.git/git-upload-pack", &headers, body)
}

/// A request of version 2.
fn command(name: &str, arguments: &[&str]) -> Vec<u8> {
    let mut body = [command_head(name), b"0001".to_vec()].concat();
    body.extend(arguments.iter().flat_map(|argument| line(format!("{argument}\n").as_bytes())));
    body.extend_from_slice(b"0000");
    body
}

/// A server with `repo`, its `main`, and a checkout.
fn served(place: &Place, git: &Git) -> (Server, std::path::PathBuf, String) {
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    let head = git.commit(&work, "file", b"one\n", "one");
    git.ok(&work, &["remote", "add", "origin", &server.url("repo")]);
    git.ok(&work, &["push", "-q", "origin", "main"]);
    (server, work, head)
}

#[test]
fn what_is_offered_is_said() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let path = "/repo.git/info/refs?service=git-upload-pack";
    let v2 = server.http().get_with(path, &[("git-protocol", "version=2")]).text();
    for word in [
        "ls-refs=unborn",
        "fetch=shallow wait-for-done filter ref-in-want sideband-all\n",
        "server-option",
        "object-info",
    ] {
        assert!(v2.contains(word), "{word}: {v2}");
    }
    let v0 = server.http().get(path).text();
    for word in [" filter", " allow-tip-sha1-in-want", " allow-reachable-sha1-in-want"] {
        assert!(v0.contains(word), "{word}: {v0}");
    }
}

#[test]
fn git_wants_references_by_name_over_side_bands() {
    let place = Place::new();
    let git = Git::new(&place.path("home")).with("protocol.version", "2");
    let (server, work, head) = served(&place, &git);
    let copy = place.path("copy");
    let mut clone = git.command(&place.path("home"));
    clone.args(["clone", "-q", &server.url("repo")]).arg(&copy).env("GIT_TRACE_PACKET", "1");
    let output = clone.output().expect("git is installed");
    let trace = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{trace}");
    let told = format!("< \\1{head} refs/heads/main");
    for said in ["> want-ref refs/heads/main", "< \\1wanted-refs", &told, "> sideband-all"] {
        assert!(trace.contains(said), "{said}: {trace}");
    }
    // A round of negotiation, with everything in bands.
    let head = git.commit(&work, "file", b"two\n", "two");
    git.ok(&work, &["push", "-q", "origin", "main"]);
    git.ok(&copy, &["commit", "-q", "--allow-empty", "-m", "unknown to the server"]);
    git.ok(&copy, &["fetch", "-q", "origin"]);
    assert_eq!(git.ok(&copy, &["rev-parse", "origin/main"]), head);
    // Shallow sections in bands as well.
    git.clone_repo(&server.url("repo"), &place.path("shallow"), &["--depth=1"]);
    assert_eq!(git.ok(&place.path("shallow"), &["rev-list", "--count", "HEAD"]), "1");
    git.ok(&place.path("shallow"), &["fetch", "-q", "--unshallow"]);
    assert_eq!(git.ok(&place.path("shallow"), &["rev-list", "--count", "HEAD"]), "2");
}

#[test]
fn a_wanted_reference_is_what_it_is_now() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work, first) = served(&place, &git);
    let second = git.commit(&work, "file", b"two\n", "two");
    git.ok(&work, &["push", "-q", "origin", "main"]);
    let asked = ["want-ref refs/heads/main", "want-ref HEAD", "want-ref refs/heads/main", "no-progress"];
    let answer = |more: &[&str]| lines(&send(&server, "version=2", &command("fetch", &[&asked, more].concat())).body);
    let have = format!("have {first}");
    let said: Vec<String> =
        answer(&[&have, "done"]).iter().map(|line| String::from_utf8_lossy(line).trim_end().to_owned()).collect();
    let expected = [
        "wanted-refs".to_owned(),
        format!("{second} refs/heads/main"),
        format!("{second} HEAD"),
        "packfile".to_owned(),
    ];
    assert_eq!(said[..4], expected);
    // In bands, the sections are lines of the first.
    let banded = answer(&[&have, "done", "sideband-all"]);
    for (line, expected) in banded.iter().zip(&expected) {
        assert_eq!(line[..], [b"\x01", expected.as_bytes(), b"\n"].concat());
    }
    assert!(banded[4].starts_with(b"\x01PACK"), "{:?}", banded[4]);
    for name in ["refs/heads/nothing", "main", "refs/heads/", "refs/realities/none", "../x"] {
        let want = format!("want-ref {name}");
        let reply = send(&server, "version=2", &command("fetch", &[&want, "done"]));
        assert_eq!(lines(&reply.body), [format!("ERR unknown ref {name}\n").into_bytes()]);
        let reply = send(&server, "version=2", &command("fetch", &["sideband-all", &want, "done"]));
        assert_eq!(lines(&reply.body), [format!("\x03unknown ref {name}\n").into_bytes()]);
    }
}

#[test]
fn negotiation_alone_waits_for_done() {
    let place = Place::new();
    let git = Git::new(&place.path("home")).with("protocol.version", "2");
    let (_server, work, head) = served(&place, &git);
    git.commit(&work, "file", b"two\n", "not pushed");
    let common = git.ok(&work, &["fetch", "--negotiate-only", "--negotiation-tip=HEAD", "origin"]);
    assert_eq!(common, head);
}

#[test]
fn sizes_are_told_without_objects() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work, head) = served(&place, &git);
    let blob = git.ok(&work, &["rev-parse", "HEAD:file"]);
    let size = git.ok(&work, &["cat-file", "-s", &head]);
    let nothing = tested::id_of("1");
    let oids = [&blob, &head, &nothing, &blob].map(|oid| format!("oid {oid}"));
    let ask = |arguments: &[&str]| {
        let reply = send(&server, "version=2", &command("object-info", arguments));
        lines(&reply.body).iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect::<Vec<_>>()
    };
    let oids: Vec<&str> = oids.iter().map(String::as_str).collect();
    let expected = [format!("{blob} 4"), format!("{head} {size}"), format!("{nothing} "), format!("{blob} 4")];
    assert_eq!(ask(&[&["size"], &oids[..]].concat()), [&["size".to_owned()][..], &expected].concat());
    assert_eq!(ask(&oids[..1]), std::slice::from_ref(&blob));
    assert_eq!(ask(&["size"]), Vec::<String>::new());
    assert!(ask(&["type"])[0].starts_with("ERR object-info: unexpected line"));
}

#[test]
fn server_options_are_in_the_log() {
    let place = Place::new();
    let git = Git::new(&place.path("home")).with("protocol.version", "2");
    let (server, work, _) = served(&place, &git);
    git.ok(&work, &["fetch", "-q", "--server-option=trace=on", "-o", "line\u{1b}feed", "origin"]);
    let found = || server.said().lines().any(|line| line.contains("\"git_server_options\":\"trace=on line feed\""));
    // A line may be a moment late; the bound is only a guard.
    let began = std::time::Instant::now();
    while !found() {
        assert!(began.elapsed() < Duration::from_secs(60), "the options are not in the log");
        std::thread::sleep(Duration::from_millis(5));
    }
    let plain = server.said();
    let plain = plain.lines().filter(|line| line.contains("git-receive-pack") && line.contains("git_server_options"));
    assert_eq!(plain.count(), 0);
}

/// Asserts what a test full of requests that are refused may cost: a tenth of it is what they take.
#[track_caller]
fn assert_cheap(server: &Server) {
    let (peak, cpu) = (server.peak_bytes(), server.cpu_seconds());
    assert!(peak < 1 << 30 && cpu < 30, "{peak} bytes and {cpu} seconds of the processor");
}

/// The answer to a request that must be refused with a reason.
#[track_caller]
fn refused(server: &mut Server, version: &str, body: &[u8], reason: &str) {
    let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    let reply = send(server, version, body);
    assert!(reply.status == 200 || (400..500).contains(&reply.status), "{shown:?}: {}", reply.status);
    let text = reply.text();
    assert!(text.contains(reason), "{shown:?}: {text:?} does not say {reason:?}");
    assert!(reply.status != 200 || text.get(4..).is_some_and(|line| line.starts_with("ERR ")), "{shown:?}: {text:?}");
    assert!(!text.contains("PACK"), "{shown:?}: a pack came");
    assert!(server.alive(), "{shown:?} ended the server");
}

/// What is no line, and the reason that is given.
pub(crate) fn hostile_lines() -> [(Vec<u8>, &'static str); 9] {
    let long = [b"fff1".to_vec(), vec![b'x'; 65517]].concat();
    [
        (b"0003".to_vec(), "bad line length '0003'"),
        (b"0004".to_vec(), "bad line length '0004'"),
        (b"fff1".to_vec(), "bad line length 'fff1'"),
        (long, "bad line length 'fff1'"),
        (b"ffff".to_vec(), "bad line length 'ffff'"),
        (b"-001".to_vec(), "bad line length '-001'"),
        (b"zzzz".to_vec(), "bad line length 'zzzz'"),
        (b"00".to_vec(), "ended within a line"),
        (b"0032want".to_vec(), "ended within a line"),
    ]
}

#[test]
fn hostile_lines_are_refused() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, _, head) = served(&place, &git);
    let mut server = server.stop().env("GOVC_BUNDLE_URIS", "true").start();
    let server = &mut server;
    let within = |odd: &[u8]| [&command_head("fetch")[..], b"0001", odd].concat();
    let want = line(format!("want {head}").as_bytes());
    for (bytes, reason) in hostile_lines() {
        refused(server, "version=2", &bytes, reason);
        refused(server, "version=2", &within(&bytes), reason);
        for version in ["", "version=1"] {
            refused(server, version, &bytes, reason);
            refused(server, version, &[&want[..], &bytes].concat(), reason);
            refused(server, version, &[&want[..], b"0000", &bytes].concat(), reason);
        }
    }
    // Where a flush belongs, neither a delimiter nor the end of a response.
    for bytes in [&b"0001"[..], b"0002"] {
        refused(server, "version=2", &within(bytes), "expected flush");
        refused(server, "", &[&want[..], bytes].concat(), "expected flush after wants");
        refused(server, "", &[&want[..], b"0000", bytes].concat(), "expected flush after haves");
        for name in ["ls-refs", "object-info", "bundle-uri"] {
            let body = [&command_head(name)[..], b"0001", bytes].concat();
            refused(server, "version=2", &body, "expected flush");
        }
    }
    refused(server, "version=2", b"0001", "no command requested");
    refused(server, "version=2", b"0002", "");
    refused(server, "version=2", &command_head("fetch"), "ended within its capabilities");
    refused(
        server,
        "version=2",
        &[command_head("fetch").repeat(2), b"0000".to_vec()].concat(),
        "after another command",
    );
    refused(server, "version=2", &line(b"agent=x").repeat(100_000), "too many capabilities");
    assert_cheap(server);
}

/// Sends a push that must be refused with a reason, in the band for errors where there are bands.
#[track_caller]
fn push_refused(server: &mut Server, is_banded: bool, body: &[u8], reason: &str) {
    let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
    let reply = server.http().send("POST", "/repo.git/git-receive-pack", RECEIVE_HEADERS, body);
    assert_eq!(reply.status, 200, "{shown:?}");
    let said = lines(&reply.body);
    let begins: &[u8] = if is_banded { b"\x03" } else { b"ERR " };
    assert!(said.len() == 1 && said[0].starts_with(begins), "{shown:?}: {:?}", reply.text());
    assert!(reply.text().contains(reason), "{shown:?}: {:?} does not say {reason:?}", reply.text());
    assert!(server.alive(), "{shown:?} ended the server");
}

#[test]
fn hostile_lines_of_a_push_are_refused() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, _, head) = served(&place, &git);
    let (mut server, left) = server.restarted(&place);
    let before = git.ok(&place.path("home"), &["ls-remote", &server.url("repo")]);
    let within =
        |what: &'static str| [("0001", what), ("0002", what)].map(|(odd, what)| (odd.as_bytes().to_vec(), what));
    for (bytes, reason) in hostile_lines().into_iter().chain(within("ended within its commands")) {
        push_refused(&mut server, false, &bytes, reason);
    }
    for bands in ["", " side-band-64k"] {
        let features = format!("report-status push-options{bands}");
        let command = line(format!("{} {head} refs/heads/new\0{features}", "0".repeat(40)).as_bytes());
        let signed = [line(format!("push-cert\0{features}").as_bytes()), line(b"certificate version 0.1\n")].concat();
        let option = [&command[..], b"0000", &line(b"an option")].concat();
        for (begin, within) in [
            (command, within("ended within its commands")),
            (signed, within("ended within its push certificate")),
            (option, within("ended within its push options")),
        ] {
            for (bytes, reason) in hostile_lines().into_iter().chain(within) {
                push_refused(&mut server, !bands.is_empty(), &[&begin[..], &bytes].concat(), reason);
            }
            // With nothing behind it at all.
            push_refused(&mut server, !bands.is_empty(), &begin, "ended within its");
        }
    }
    assert_eq!(git.ok(&place.path("home"), &["ls-remote", &server.url("repo")]), before);
    assert_cheap(&server);
    server.stop();
    assert_eq!(place.left(), left);
}

#[test]
fn hostile_filters_are_refused() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (mut server, work, head) = served(&place, &git);
    let nested = |deep: usize| format!("{}blob:none", "combine:".repeat(deep));
    // Encoded as often as it is nested.
    let encoded =
        (0..7).fold("combine:tree:1+tree:2".to_owned(), |spec, _| format!("combine:{}", crate::http::encode(spec)));
    let many = format!("combine:{}", vec!["tree:1"; 5000].join("+"));
    let sparse = format!("combine:{}", vec!["sparse:oid=HEAD:file"; 63].join("+"));
    let huge: String = "a\n".repeat(10_001);
    let rules = git.commit(&work, "rules", huge.as_bytes(), "rules");
    git.ok(&work, &["push", "-q", "origin", "main"]);
    let specs = [
        ("", "invalid filter-spec ''"),
        ("blob", "invalid filter-spec 'blob'"),
        ("blob:limit=x", "invalid filter-spec"),
        ("blob:limit=18446744073709551616", "invalid filter-spec"),
        ("tree:-1", "expected 'tree:<depth>'"),
        ("object:type=nothing", "not a valid object type"),
        ("sparse:path=/etc/passwd", "dropped"),
        ("sparse:oid=../../etc/passwd", "unable to access sparse blob"),
        ("sparse:oid=HEAD:rules", "more than 10000 patterns"),
        ("combine:", "expected something"),
        ("combine:blob:none+", "invalid filter-spec ''"),
        ("combine:a b", "must escape char"),
        (&nested(1000), "more than 16 deep"),
        (&nested(8000), "more than 16 deep"),
        (&many, "more than 64 parts"),
    ];
    for (spec, reason) in specs {
        let body = command("fetch", &[&format!("want {rules}"), &format!("filter {spec}"), "done"]);
        refused(&mut server, "version=2", &body, reason);
        let first = line(format!("want {rules} filter side-band-64k\n").as_bytes());
        let filter = line(format!("filter {spec}").as_bytes());
        refused(&mut server, "", &[&first[..], &filter, b"0000", &line(b"done")].concat(), reason);
    }
    let twice = command("fetch", &[&format!("want {head}"), "filter tree:1", "filter tree:1", "done"]);
    refused(&mut server, "version=2", &twice, "multiple filter-specs cannot be combined");
    let unasked = [&line(format!("want {head}\n").as_bytes())[..], &line(b"filter tree:1"), b"0000"].concat();
    refused(&mut server, "", &unasked, "not negotiated");
    // What is odd and no harm is served.
    for spec in
        [&nested(16), &encoded, &sparse, "tree:18446744073709551615", "blob:limit=16777215t", "blob:limit=0x7fffffff"]
    {
        let body = command("fetch", &[&format!("want {head}"), &format!("filter {spec}"), "done"]);
        let reply = send(&server, "version=2", &body);
        let is_sound = !spec.ends_with('t');
        assert_eq!(reply.text().contains("PACK"), is_sound, "{spec}: {}", reply.text());
    }
    assert_cheap(&server);
}

#[test]
fn absurd_depths_are_refused_or_the_whole() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (mut server, _, head) = served(&place, &git);
    for cut in ["deepen 0", "deepen -1", "deepen 4294967296", "deepen 99999999999999999999", "deepen x", "deepen "] {
        let body = command("fetch", &[&format!("want {head}"), cut, "done"]);
        refused(&mut server, "version=2", &body, "Invalid deepen");
        let want = line(format!("want {head} side-band-64k shallow\n").as_bytes());
        refused(
            &mut server,
            "",
            &[&want[..], &line(cut.as_bytes()), b"0000", &line(b"done")].concat(),
            "Invalid deepen",
        );
    }
    for cut in ["deepen-since x", "deepen-since 99999999999999999999"] {
        refused(&mut server, "version=2", &command("fetch", &[&format!("want {head}"), cut, "done"]), "deepen-since");
    }
    refused(
        &mut server,
        "version=2",
        &command("fetch", &[&format!("want {head}"), "deepen-not refs/heads/no", "done"]),
        "deepen-not is not a ref: refs/heads/no",
    );
    for cut in ["deepen 2147483647", "deepen 4294967295", "deepen 1000000000"] {
        let reply = send(&server, "version=2", &command("fetch", &[&format!("want {head}"), cut, "done"]));
        assert!(reply.text().contains("PACK"), "{cut}: {}", reply.text());
    }
    assert_cheap(&server);
}

#[test]
fn a_chain_of_directories_that_doubles_is_bounded() {
    let place = Place::new();
    let server = place.launch().env("GOVC_WORK_TIMEOUT", "5s").start();
    server.create("repo");
    // Each directory holds the next twice: of 2^60 paths each would have to be compared with the patterns.
    let mut built = Pack::new();
    let rules = built.object(govc_engine::Kind::Blob, b"/nothing\n");
    let mut tree = built.object(govc_engine::Kind::Tree, &crate::pack::tree_entry("100644", b"file", rules));
    for _ in 0..60 {
        let entries = [b"a", b"b"].map(|name| crate::pack::tree_entry("40000", name, tree)).concat();
        tree = built.object(govc_engine::Kind::Tree, &entries);
    }
    let tip = built.object(govc_engine::Kind::Commit, &crate::pack::commit_of(tree, &[], "doubles"));
    assert!(push_new(&server.http(), "repo", "refs/heads/main", tip, &built.finish()).accepted());
    let body =
        command("fetch", &[&format!("want {tip}"), &format!("filter sparse:oid={rules}"), "no-progress", "done"]);
    let reply = send(&server, "version=2", &body);
    let last = lines(&reply.body).pop().unwrap_or_default();
    assert!(last.starts_with(b"\x03"), "{:?}", String::from_utf8_lossy(&last));
    assert_cheap(&server);
    // Depth alone is no such thing.
    let body = command("fetch", &[&format!("want {tip}"), "filter tree:1000", "no-progress", "done"]);
    let reply = send(&server, "version=2", &body);
    assert!(reply.text().contains("PACK"), "{}", reply.text());
}

/// What the server lists, over version 2 twice, so that the second answer is a kept one, and over version 0, where each is made
/// anew: the same.
#[track_caller]
fn listed(server: &Server, git: &Git, work: &std::path::Path) -> String {
    let list =
        |version: &str| git.with("protocol.version", version).ok(work, &["ls-remote", "--symref", &server.url("repo")]);
    let anew = list("0");
    for _ in 0..2 {
        assert_eq!(list("2"), anew);
    }
    anew
}

#[test]
fn a_kept_list_is_never_older_than_what_it_lists() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, work, first) = served(&place, &git);
    let http = server.http();
    let change = |change: serde_json::Value| http.patch("/api/v1/repos/repo", &change).expect(200);
    git.ok(&work, &["push", "-q", "origin", "main:refs/internal/one", "main:trunk"]);
    let open = listed(&server, &git, &work);
    assert!(open.contains("refs/internal/one") && open.contains("ref: refs/heads/main\tHEAD"), "{open}");

    change(json!({ "git": { "hidden_refs": ["refs/internal"] } }));
    assert!(!listed(&server, &git, &work).contains("refs/internal"));
    change(json!({ "git": { "hidden_refs": ["refs/heads/trunk"] } }));
    assert!(!listed(&server, &git, &work).contains("trunk"));
    change(json!({ "git": { "hidden_refs": [] } }));
    assert_eq!(listed(&server, &git, &work), open);
    change(json!({ "default_branch": "trunk" }));
    assert!(listed(&server, &git, &work).contains("ref: refs/heads/trunk\tHEAD"));
    change(json!({ "default_branch": "main" }));
    assert_eq!(listed(&server, &git, &work), open);

    let version = http.get("/api/v1/repos/repo").expect(200)["version"].clone();
    let second = git.commit(&work, "file", b"two\n", "two");
    git.ok(&work, &["push", "-q", "origin", "main", ":refs/internal/one"]);
    assert!(listed(&server, &git, &work).contains(&second));
    http.post(&format!("/api/v1/repos/repo/versions/{version}/restore"), &json!({})).expect(201);
    assert_eq!(listed(&server, &git, &work), open);

    // Others of the same name, with versions of the same numbers.
    for oid in [&second, &first] {
        assert_eq!(http.delete("/api/v1/repos/repo").status, 204);
        server.create("repo");
        assert_eq!(listed(&server, &git, &work), "");
        git.ok(&work, &["push", "-q", "origin", &format!("{oid}:refs/heads/main")]);
        let line = format!("{oid}\trefs/heads/main");
        assert!(listed(&server, &git, &work).contains(&line));
    }
}
