//! Git over SSH as people use it: the real git through OpenSSH's client, with keys, host keys, and connections that break.

use std::{
    io::{Read, Write},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use govc_engine::Oid;
use serde_json::{Value, json};

use crate::{
    git::{Git, assert_same},
    history,
    hostile::broken_frames,
    pack::{Pack, RefChange, command_head, line, push_body, push_new},
    requests::hostile_lines,
    server::{Place, Server},
    ssh_client::{Keys, Started, figure, said, ssh_address, text, until, url},
    tested,
};

/// A repository with a file that is larger than all windows and queues.
fn large(git: &Git, dir: &Path) {
    git.init(dir);
    let mut seed = 1u64;
    let mut noise = Vec::new();
    while noise.len() < 6 << 20 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.extend_from_slice(&seed.to_be_bytes());
    }
    git.commit(dir, "noise", &noise, "something large");
}

#[test]
fn a_history_goes_there_and_back_over_every_version() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let server = keys.launch(&place).with(&["--create-on-push"]).start();
    let git = keys.git(&place, &key);
    let source = history::generated(&place, &git);
    let address = ssh_address(&server);
    for version in ["0", "1", "2"] {
        let git = git.with("protocol.version", version);
        let name = format!("ada/v{version}");
        git.ok(&source, &["push", "-q", "--mirror", &url(&server, &name)]);
        let copy = place.path(&format!("copy-{version}"));
        git.clone_repo(&url(&server, &name), &copy, &["--mirror"]);
        assert_same(&git, &source, &copy);
        // Shallow, and then whole; the last form is scp's, with a port from elsewhere.
        let shallow = place.path(&format!("shallow-{version}"));
        git.clone_repo(&url(&server, &name), &shallow, &["-n", "--depth", "2", "--no-single-branch"]);
        assert!(shallow.join(".git/shallow").exists());
        git.ok(&shallow, &["fetch", "-q", "--deepen", "1"]);
        git.ok(&shallow, &["fetch", "-q", "--unshallow"]);
        git.ok(&shallow, &["rev-list", "--objects", "--all", "--quiet"]);
        assert_eq!(git.ok(&shallow, &["rev-parse", "origin/main"]), git.ok(&source, &["rev-parse", "main"]));
    }
    let scp = git.with("core.sshCommand", &format!("ssh {} -p {}", keys.options(&key).join(" "), address.port()));
    for path in ["git@127.0.0.1:/ada/v2.git", "git@127.0.0.1:ada/v2"] {
        let listed = scp.ok(&source, &["ls-remote", path, "refs/heads/main"]);
        assert!(listed.starts_with(&git.ok(&source, &["rev-parse", "main"])), "{listed}");
    }
    let http = server.http();
    assert!(figure(&http, "govc_ssh_requests_total{service=\"git-receive-pack\",result=\"ok\"} ") >= 3);
    assert!(figure(&http, "govc_ssh_logins_total{result=\"accepted\"} ") >= 12);
}

#[test]
fn large_things_pass_in_both_directions() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let server = keys.launch(&place).with(&["--create-on-push"]).start();
    let git = keys.git(&place, &key);
    let source = place.path("source");
    large(&git, &source);
    git.ok(&source, &["push", "-q", &url(&server, "large"), "main"]);
    for version in ["0", "2"] {
        let copy = place.path(&format!("copy-{version}"));
        git.with("protocol.version", version).clone_repo(&url(&server, "large"), &copy, &[]);
        assert_eq!(std::fs::read(copy.join("noise")).ok(), std::fs::read(source.join("noise")).ok());
    }
    // Refused in mid-pack: the client sends to its end, and reads why.
    let server = server.stop().env("GOVC_MAX_PACK", "1MiB").env("GOVC_MAX_OBJECT", "1MiB").start();
    let said = git.fails(&source, &["push", &url(&server, "other"), "main"]);
    assert!(said.contains("limit"), "{said}");
    assert_eq!(server.http().get("/api/v1/repos/other").status, 404);
}

#[test]
fn what_both_sides_did_is_found_by_negotiation() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let server = keys.launch(&place).with(&["--create-on-push"]).start();
    let git = keys.git(&place, &key);
    let source = place.path("source");
    git.init(&source);
    for n in 0..5 {
        git.commit(&source, "file", format!("{n}\n").as_bytes(), "together");
    }
    let remote = url(&server, "repo");
    git.ok(&source, &["push", "-q", &remote, "main"]);
    for version in ["0", "2"] {
        let git = git.with("protocol.version", version);
        let copy = place.path(&format!("copy-{version}"));
        git.clone_repo(&remote, &copy, &[]);
        // More commits of its own than a client names in one round.
        for n in 0..90 {
            git.commit(&copy, "own", format!("{n}\n").as_bytes(), "alone");
        }
        git.commit(&source, "file", format!("for {version}\n").as_bytes(), "meanwhile");
        git.ok(&source, &["push", "-q", &remote, "main"]);
        git.ok(&copy, &["fetch", "-q"]);
        assert_eq!(git.ok(&copy, &["rev-parse", "origin/main"]), git.ok(&source, &["rev-parse", "main"]));
        git.ok(&copy, &["fsck", "--no-dangling", "--no-progress"]);
        let objects = git.ok(&copy, &["count-objects", "-v"]);
        let packs = objects.lines().find_map(|line| line.strip_prefix("in-pack: ")).expect("a number");
        // 15 or 18 of the clone, and the few of the fetch (which git may keep loose), not all again.
        assert!(packs.parse::<u32>().expect("a number") <= 21, "{objects}");
    }
}

#[test]
fn pushes_are_refused_and_reported_as_over_http() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let server = keys.launch(&place).with(&["--create-on-push"]).start();
    let git = keys.git(&place, &key);
    let source = place.path("source");
    git.init(&source);
    let first = git.commit(&source, "a", b"1\n", "first");
    let second = git.commit(&source, "a", b"2\n", "second");
    let remote = url(&server, "repo");
    git.ok(&source, &["push", "-q", &remote, "main", &format!("{first}:refs/heads/old"), "main:refs/heads/gone"]);
    assert!(git.fails(&source, &["push", &remote, &format!("{first}:refs/heads/main")]).contains("rejected"));
    let said = git.fails(&source, &["push", "--atomic", &remote, ":refs/heads/main", "main:refs/heads/more"]);
    assert!(said.contains("deletion of the current branch prohibited"), "{said}");
    git.ok(&source, &["push", "-q", &remote, ":refs/heads/gone"]);
    // Two writers of one branch, brought together by a push option.
    let other = place.path("other");
    git.clone_repo(&remote, &other, &[]);
    git.commit(&other, "b", b"1\n", "of another");
    git.ok(&other, &["push", "-q", "origin", "main"]);
    git.commit(&source, "c", b"1\n", "of one");
    git.run(&source, &["push", "-q", "--force", "-o", "govc.on-conflict=rebase", &remote, "main"]);
    let listed = git.ok(&source, &["ls-remote", &remote]);
    assert!(listed.contains("refs/heads/old") && !listed.contains("gone") && !listed.contains("more"), "{listed}");
    git.ok(&other, &["pull", "-q"]);
    assert_eq!(git.ok(&other, &["log", "--format=%s", "-3"]), "of one\nof another\nsecond");
    assert_ne!(git.ok(&other, &["rev-parse", "HEAD~1"]), second);
    let versions = server.http().get("/api/v1/repos/repo/versions").text();
    assert!(versions.contains("\"actor\":\"ada\"") && !versions.contains("anonymous"), "{versions}");
}

#[test]
fn there_is_git_and_nothing_else() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let server = keys.launch(&place).start();
    server.create("repo");
    let git = keys.git(&place, &key);
    std::fs::create_dir_all(place.path("home")).expect("a folder");
    let said_by_git = git.fails(&place.path("home"), &["clone", &url(&server, "missing"), "copy"]);
    assert!(said_by_git.contains("repository 'missing' does not exist"), "{said_by_git}");
    for (command, words) in [
        (&["ls"][..], "'ls' is not served"),
        (&["git-upload-archive", "'repo'"], "not served"),
        (&["git-upload-pack"], "needs the path"),
        (&["git-upload-pack", "'repo'; reboot"], "one path"),
        (&["git-upload-pack", "'../../etc'"], "there is no such repository"),
        (&["git-lfs-authenticate", "'../../etc'", "download"], "there is no such repository"),
        (&["git-lfs-authenticate", "'missing'", "upload"], "repository 'missing' does not exist"),
        (&["git-lfs-authenticate", "'repo'", "verify"], "download or upload"),
        (&["git-lfs-transfer", "'repo'", "upload"], "not served"),
        (&["git-receive-pack", "'missing'"], "repository 'missing' does not exist"),
        (&[], "there is no shell here"),
    ] {
        let output = keys.ssh(&key, &server, command).stdin(Stdio::null()).output().expect("ssh runs");
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        assert!(said(&output).contains(words), "{command:?}: {}", said(&output));
    }
    let to = format!("127.0.0.1:{}", server.address().port());
    for other in [&["-s", "sftp"][..], &["-W", &to]] {
        let output = keys.ssh(&key, &server, other).stdin(Stdio::null()).output().expect("ssh runs");
        assert!(!output.status.success() && said(&output).contains("failed"), "{}", said(&output));
    }
    // A client that asks nothing takes its leave in order.
    let mut listed = keys.ssh(&key, &server, &["git-upload-pack", "'/repo'"]).spawn().expect("ssh runs");
    listed.stdin.take().expect("a pipe").write_all(b"0000").expect("the server reads");
    let output = listed.wait_with_output().expect("an end");
    assert!(output.status.success() && said(&output).contains("capabilities^{}"), "{}", said(&output));
}

#[test]
fn clients_that_go_away_leave_nothing() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let server = keys.launch(&place).with(&["--create-on-push"]).start();
    let git = keys.git(&place, &key);
    let source = place.path("source");
    large(&git, &source);
    git.ok(&source, &["push", "-q", &url(&server, "repo"), "main"]);
    let tip = git.ok(&source, &["rev-parse", "main"]);
    let http = server.http();
    let in_flight = || figure(&http, "govc_ssh_requests_in_flight ") + figure(&http, "govc_work_running ");

    // In the middle of a pack that it gets, after a part of one that it sends, and before it has asked anything.
    let ask = |line: String| format!("{:04x}{line}", line.len() + 4);
    let fetch = ask(format!("want {tip} side-band-64k\n")) + "0000" + &ask("done\n".to_owned());
    let push = ask(format!("{} {tip} refs/heads/half\0report-status{}\n", tested::null(), tested::capability()))
        + "0000PACK\0\0\0\x02\0\0\0\x05";
    for (service, request) in
        [("git-upload-pack", fetch.as_str()), ("git-receive-pack", push.as_str()), ("git-upload-pack", "")]
    {
        let mut client = Started(keys.ssh(&key, &server, &[service, "'repo'"]).spawn().expect("ssh runs"));
        assert!(client.read_line().starts_with(tip.as_bytes()));
        client.write(request.as_bytes());
        if request.is_empty() {
            until("the call", || figure(&http, "govc_ssh_requests_in_flight ") == 1);
        } else {
            until("the call's thread", || figure(&http, "govc_work_running ") >= 1);
        }
        drop(client);
        until("the end of the call", || in_flight() == 0);
    }
    assert!(figure(&http, "govc_ssh_requests_total{service=\"git-upload-pack\",result=\"gone\"} ") >= 1);
    let listed = git.ok(&source, &["ls-remote", &url(&server, "repo")]);
    assert!(!listed.contains("half"), "{listed}");
    git.clone_repo(&url(&server, "repo"), &place.path("copy"), &[]);
    until("the end of the connections", || figure(&http, "govc_ssh_connections ") == 0);
}

/// Sends `input` to a service, which answers to the end; what comes after the advertisement.
fn told(mut client: Command, input: &[u8]) -> Vec<u8> {
    let mut client = Started(client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh runs"));
    // The server may have closed its side before it has read everything.
    let mut stdin = client.0.stdin.take().expect("a pipe");
    let mut answer = Vec::new();
    thread::scope(|scope| {
        scope.spawn(move || drop(stdin.write_all(input)));
        client.0.stdout.take().expect("a pipe").read_to_end(&mut answer).expect("an answer");
    });
    client.0.wait().expect("an end");
    let mut at = 0;
    loop {
        let length = std::str::from_utf8(&answer[at..at + 4]).expect("digits");
        match usize::from_str_radix(length, 16).expect("digits") {
            0 => return answer.split_off(at + 4),
            length => at += length,
        }
    }
}

#[test]
fn hostile_input_is_refused_as_over_http() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let server = keys.launch(&place).start();
    let http = server.http();
    for repo in ["repo", "other"] {
        server.create(repo);
    }
    let push = |repo: &str, branch: &str| {
        let mut built = Pack::new();
        let tip = built.commit(&format!("{branch} of {repo}"));
        assert!(push_new(&http, repo, &format!("refs/heads/{branch}"), tip, &built.finish()).accepted());
        tip
    };
    let (head, hidden, foreign) = (push("repo", "main"), push("repo", "hidden"), push("other", "main"));
    http.patch("/api/v1/repos/repo", &json!({ "git": { "hidden_refs": ["refs/heads/hidden"] } })).expect(200);
    let (server, left) = server.restarted(&place);
    let http = server.http();

    // One connection for all.
    let control = place.path("control");
    let port = ssh_address(&server).port().to_string();
    let mut master = Command::new("ssh");
    master.args(keys.options(&key)).args([
        "-o",
        "SendEnv=GIT_PROTOCOL",
        "-N",
        "-M",
        "-S",
        text(&control),
        "-p",
        &port,
        "git@127.0.0.1",
    ]);
    master.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let master = Started(master.spawn().expect("ssh runs"));
    until("the connection", || control.exists());
    let refused = |service: &str, version: &str, input: &[u8], reason: &str| {
        let mut client = Command::new("ssh");
        client.args([
            "-F",
            "/dev/null",
            "-S",
            text(&control),
            "-o",
            "ProxyCommand=false",
            "-o",
            "SendEnv=GIT_PROTOCOL",
        ]);
        client.env("GIT_PROTOCOL", version).args(["git@127.0.0.1", service, "'repo'"]);
        let over_ssh = told(client, input);
        let content_type = format!("application/x-{service}-request");
        let headers = [("content-type", &content_type[..]), ("git-protocol", version)];
        let over_http = http.send("POST", &format!("/repo.git/{service}"), &headers, input);
        let (shown, said) = (String::from_utf8_lossy(input), String::from_utf8_lossy(&over_ssh));
        assert_eq!(said, over_http.text(), "{service}, {version}: {shown:.200}");
        assert!(said.contains(reason) && !said.contains("PACK\0"), "{service}, {version}: {shown:.200}: {said}");
    };
    let command = |name: &str, arguments: &[String]| {
        let arguments: Vec<u8> = arguments.iter().flat_map(|argument| line(argument.as_bytes())).collect();
        [&command_head(name)[..], b"0001", &arguments, b"0000"].concat()
    };
    let want = line(format!("want {head} side-band-64k shallow filter").as_bytes());
    let change = line(format!("{} {head} refs/heads/new\0report-status side-band-64k", tested::null()).as_bytes());
    for (bytes, reason) in hostile_lines() {
        refused("git-upload-pack", "version=2", &bytes, reason);
        refused("git-upload-pack", "version=2", &[&command_head("fetch")[..], b"0001", &bytes].concat(), reason);
        refused("git-upload-pack", "version=0", &bytes, reason);
        refused("git-upload-pack", "version=0", &[&want[..], &bytes].concat(), reason);
        refused("git-receive-pack", "version=0", &bytes, reason);
        refused("git-receive-pack", "version=0", &[&change[..], &bytes].concat(), reason);
    }
    let unknown: Oid = "78".repeat(20).parse().expect("an id");
    for oid in [hidden, foreign, unknown] {
        let reason = format!("ERR upload-pack: not our ref {oid}");
        let arguments = [format!("want {oid}"), "done".to_owned()];
        refused("git-upload-pack", "version=2", &command("fetch", &arguments), &reason);
        let want = line(format!("want {oid} side-band-64k").as_bytes());
        refused("git-upload-pack", "version=0", &[&want[..], b"0000", &line(b"done")].concat(), &reason);
    }
    for (argument, reason) in [
        ("filter blob:limit=x", "invalid filter-spec"),
        ("filter combine:combine:combine", "invalid filter-spec"),
        ("filter sparse:path=/etc/passwd", "dropped"),
        ("deepen 0", "Invalid deepen"),
        ("deepen 99999999999999999999", "Invalid deepen"),
        ("deepen-not refs/heads/hidden", "deepen-not is not a ref"),
    ] {
        let arguments = [format!("want {head}"), argument.to_owned(), "done".to_owned()];
        refused("git-upload-pack", "version=2", &command("fetch", &arguments), reason);
        let body = [&want[..], &line(argument.as_bytes()), b"0000", &line(b"done")].concat();
        refused("git-upload-pack", "version=0", &body, reason);
    }
    let mut built = Pack::new();
    let new = built.commit("spoiled");
    for (_, reason, pack) in broken_frames(&built) {
        let change = RefChange { old: tested::null(), new, name: b"refs/heads/new".to_vec() };
        let body = push_body(&[change], "report-status", &pack);
        refused("git-receive-pack", "version=0", &body, reason);
    }
    until("the end of the calls", || figure(&http, "govc_ssh_requests_in_flight ") == 0);
    let (peak, cpu) = (server.peak_bytes(), server.cpu_seconds());
    assert!(peak < 1 << 30 && cpu < 60, "{peak} bytes and {cpu} seconds of the processor");
    drop(master);
    server.stop();
    assert_eq!(place.left(), left);
}

#[test]
fn many_at_once_are_all_served() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let server = keys.launch(&place).with(&["--create-on-push"]).env("GOVC_WORK_THREADS", "4").start();
    let git = keys.git(&place, &key);
    let source = place.path("source");
    git.init(&source);
    git.commit(&source, "a", b"1\n", "first");
    let remote = url(&server, "repo");
    git.ok(&source, &["push", "-q", &remote, "main"]);
    thread::scope(|scope| {
        for n in 0..8 {
            let (git, place, remote) = (&git, &place, &remote);
            scope.spawn(move || {
                let copy = place.path(&format!("copy-{n}"));
                git.clone_repo(remote, &copy, &[]);
                git.commit(&copy, "own", format!("{n}\n").as_bytes(), "own");
                git.ok(&copy, &["push", "-q", "origin", &format!("HEAD:refs/heads/b{n}")]);
            });
        }
    });
    assert_eq!(git.ok(&source, &["ls-remote", "--heads", &remote]).lines().count(), 9);

    // The same through one connection.
    let control = place.path("control");
    let shared = format!("ssh {} -o ControlPath={}", keys.options(&key).join(" "), control.display());
    let port = ssh_address(&server).port().to_string();
    let mut master = Command::new("ssh");
    master.args(keys.options(&key)).args(["-N", "-M", "-S", text(&control), "-p", &port, "git@127.0.0.1"]);
    master.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _master = Started(master.spawn().expect("ssh runs"));
    until("the connection", || control.exists());
    let before = figure(&server.http(), "govc_ssh_logins_total{result=\"accepted\"} ");
    let git = git.with("core.sshCommand", &shared);
    thread::scope(|scope| {
        for n in 0..6 {
            let (git, place, remote) = (&git, &place, &remote);
            scope.spawn(move || {
                let copy = place.path(&format!("shared-{n}"));
                git.clone_repo(remote, &copy, &[]);
                git.commit(&copy, "own", format!("shared {n}\n").as_bytes(), "own");
                git.ok(&copy, &["push", "-q", "origin", &format!("HEAD:refs/heads/s{n}")]);
            });
        }
    });
    assert_eq!(git.ok(&source, &["ls-remote", "--heads", &remote]).lines().count(), 15);
    assert_eq!(
        figure(&server.http(), "govc_ssh_logins_total{result=\"accepted\"} "),
        before,
        "one connection is enough"
    );
}

#[test]
fn the_host_key_stays() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let server = keys.launch(&place).start();
    server.create("repo");
    let git = keys.git(&place, &key);
    let home = place.path("home");
    std::fs::create_dir_all(&home).expect("a folder");
    git.ok(&home, &["ls-remote", &url(&server, "repo")]);
    let kept = place.path("data/ssh_host_ed25519_key");
    assert_eq!(std::fs::metadata(&kept).expect("a key").permissions().mode() & 0o777, 0o600);
    let known = |server: &Server| {
        let address = ssh_address(server);
        let scan = Command::new("ssh-keyscan").args(["-p", &address.port().to_string(), "127.0.0.1"]).output();
        let text = String::from_utf8_lossy(&scan.expect("ssh-keyscan runs").stdout).into_owned();
        let line = text.lines().find(|line| line.contains("ssh-ed25519")).expect("a key");
        line.split_once("ssh-ed25519 ").expect("a key").1.to_owned()
    };
    let first = known(&server);
    let server = server.kill().start();
    assert_eq!(known(&server), first);
    let other = keys.make("host", "rsa");
    let launch = server.stop().env("GOVC_SSH_HOST_KEY", text(&other));
    let server = launch.clone().start();
    let said = keys.ssh(&key, &server, &["git-upload-pack", "'repo'"]).stdin(Stdio::null()).output().expect("ssh runs");
    assert!(String::from_utf8_lossy(&said.stdout).contains("capabilities^{}"), "{said:?}");
    drop(server);
    let said = launch.env("GOVC_SSH_HOST_KEY", "/no/such/key").refused();
    assert!(said.contains("server.ssh_host_key") && said.contains("/no/such/key"), "{said}");
    let said =
        place.launch().with(&["--ssh-listen", "127.0.0.1:0", "--ssh-authorized-keys", "/no/such/file"]).refused();
    assert!(said.contains("server.ssh_authorized_keys") && said.contains("/no/such/file"), "{said}");
}

#[test]
fn stopping_ends_idle_connections_and_waits_for_calls() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let server = keys.launch(&place).start();
    server.create("repo");
    let http = server.http();
    // Its shell is answered at once, and its input stays open: only the connection is left.
    let mut command = Command::new("ssh");
    command.args(keys.options(&key)).args(["-N", "-p", &ssh_address(&server).port().to_string(), "git@127.0.0.1"]);
    let mut idle = Started(command.stdin(Stdio::piped()).spawn().expect("ssh runs"));
    let mut busy = Started(keys.ssh(&key, &server, &["git-receive-pack", "'repo'"]).spawn().expect("ssh runs"));
    assert!(busy.read_line().starts_with(format!("{} capabilities^{{}}", tested::null()).as_bytes()));
    until("the idle one", || figure(&http, "govc_ssh_logins_total{result=\"accepted\"} ") == 2);
    server.terminate();
    assert!(!idle.0.wait().expect("an end").success(), "the server ended the connection");
    busy.write(b"0000");
    assert!(busy.0.wait().expect("an end").success(), "the call came to its end");
    server.stopped();
}

#[test]
fn a_connection_has_sixteen_channels() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let server = keys.launch(&place).start();
    server.create("repo");
    let http = server.http();
    let control = place.path("control");
    let port = ssh_address(&server).port().to_string();
    let mut master = Command::new("ssh");
    master.args(keys.options(&key)).args(["-N", "-M", "-S", text(&control), "-p", &port, "git@127.0.0.1"]);
    master.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _master = Started(master.spawn().expect("ssh runs"));
    until("the connection", || control.exists());
    let through = |command: &[&str]| {
        let mut client = Command::new("ssh");
        // Without the master it has nowhere to go.
        client.args(["-F", "/dev/null", "-S", text(&control), "-o", "ProxyCommand=false", "git@127.0.0.1"]);
        client.args(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        client
    };
    let pull = ["git-upload-pack", "'repo'"];
    let mut busy = Vec::new();
    for _ in 0..16 {
        let mut client = Started(through(&pull).spawn().expect("ssh runs"));
        client.read_line();
        busy.push(client);
    }
    assert_eq!(figure(&http, "govc_ssh_requests_in_flight "), 16);
    let output = through(&pull).stdin(Stdio::null()).output().expect("ssh runs");
    assert!(!output.status.success() && output.stdout.is_empty(), "{}", said(&output));
    assert_eq!(figure(&http, "govc_ssh_requests_in_flight "), 16, "the others go on");
    // One that ends leaves its place.
    let mut first = busy.remove(0);
    first.write(b"0000");
    assert!(first.0.wait().expect("an end").success());
    let mut client = through(&pull).spawn().expect("ssh runs");
    client.stdin.take().expect("a pipe").write_all(b"0000").expect("the server reads");
    let output = client.wait_with_output().expect("an end");
    assert!(output.status.success() && said(&output).contains("capabilities^{}"), "{}", said(&output));
}

#[test]
fn parts_and_named_references_come_over_ssh() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let server = keys.launch(&place).with(&["--create-on-push"]).start();
    let git = keys.git(&place, &key);
    let source = place.path("source");
    git.init(&source);
    for n in 0..3 {
        git.commit(&source, "file", format!("{n}\n").as_bytes(), "first");
    }
    let remote = url(&server, "repo");
    git.ok(&source, &["push", "-q", &remote, "main"]);
    let blobs = |dir: &Path| {
        let listed = git.ok(dir, &["cat-file", "--batch-all-objects", "--batch-check=%(objecttype)"]);
        listed.lines().filter(|kind| *kind == "blob").count()
    };
    for version in ["0", "2"] {
        let git = git.with("protocol.version", version);
        let copy = place.path(&format!("partial-{version}"));
        git.clone_repo(&remote, &copy, &["--filter=blob:none", "--no-checkout"]);
        assert_eq!(blobs(&copy), 0);
        // What is missing is fetched by its id.
        git.ok(&copy, &["checkout", "-q", "main"]);
        assert_eq!(std::fs::read(copy.join("file")).expect("a file"), b"2\n");
        assert_eq!(blobs(&copy), 1);
        assert_eq!(git.ok(&copy, &["show", "HEAD~1:file"]), "1");
        assert_eq!(blobs(&copy), 2);
    }
    let copy = place.path("named");
    git.init(&copy);
    let mut fetch = git.with("protocol.version", "2").command(&copy);
    fetch.args(["fetch", "-q", &remote, "refs/heads/main:refs/heads/got"]).env("GIT_TRACE_PACKET", "1");
    let output = fetch.output().expect("git runs");
    assert!(output.status.success() && said(&output).contains("want-ref refs/heads/main"), "{}", said(&output));
    assert_eq!(git.ok(&copy, &["rev-parse", "got"]), git.ok(&source, &["rev-parse", "main"]));
}

#[test]
fn many_references_are_pushed_at_once() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let server = keys.launch(&place).with(&["--create-on-push"]).start();
    let git = keys.git(&place, &key);
    let source = place.path("source");
    git.init(&source);
    let commit = git.commit(&source, "file", b"1\n", "first");
    let updates: String = (0..5000).map(|n| format!("create refs/heads/branch-{n} {commit}\n")).collect();
    git.ok_fed(&source, &["update-ref", "--stdin"], updates.as_bytes());
    git.ok(&source, &["push", "-q", "--mirror", &url(&server, "repo")]);
    let listed = git.ok(&source, &["ls-remote", "--heads", &url(&server, "repo")]);
    assert_eq!(listed.lines().count(), 5001);
}

#[test]
fn git_lfs_finds_its_way() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let reader = keys.make("reader", "ed25519");
    keys.allow(&reader, "read-only");
    let server = keys.launch(&place).with(&["--create-on-push"]).start();
    let git = keys.git(&place, &key);
    let work = place.path("work");
    git.init(&work);
    git.ok(&work, &["lfs", "install", "--local"]);
    git.ok(&work, &["remote", "add", "origin", &url(&server, "ada/repo")]);
    std::fs::write(work.join(".gitattributes"), "*.bin filter=lfs -text\n").expect("a file");
    let content = history::noise(1, 3 << 20);
    std::fs::write(work.join("a.bin"), &content).expect("a file");
    git.commit(&work, "README", b"text\n", "a large file");
    git.ok(&work, &["push", "-q", "origin", "main"]);

    for (number, key) in [&key, &reader].into_iter().enumerate() {
        let git = keys.git(&place, key);
        let git = git.with("filter.lfs.process", "git-lfs filter-process").with("filter.lfs.required", "true");
        let copy = place.path(&format!("copy{number}"));
        git.clone_repo(&url(&server, "ada/repo"), &copy, &[]);
        assert!(std::fs::read(copy.join("a.bin")).expect("a file") == content);
    }

    let ask = |server: &Server, key: &Path, operation| {
        let mut command = keys.ssh(key, server, &["git-lfs-authenticate", "'/ada/repo.git'", operation]);
        command.stdin(Stdio::null()).output().expect("ssh runs")
    };
    let output = ask(&server, &reader, "download");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["href"], format!("http://{}/ada/repo.git/info/lfs", server.address()));
    assert!(output.status.success());
    let output = ask(&server, &reader, "upload");
    assert!(output.status.code() == Some(1) && said(&output).contains("may read"), "{}", said(&output));
    assert_eq!(
        figure(&server.http(), "govc_ssh_requests_total{service=\"git-lfs-authenticate\",result=\"refused\"} "),
        1
    );

    let public = server.stop().env("GOVC_PUBLIC_URL", "https://git.example.org/code").start();
    let output = ask(&public, &reader, "download");
    assert!(said(&output).contains("\"https://git.example.org/code/ada/repo.git/info/lfs\""), "{}", said(&output));
}
