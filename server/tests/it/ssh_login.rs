//! Who comes in over SSH, who does not, and what the server says of both.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    git::Git,
    server::Place,
    ssh_client::{Keys, SOON, Started, figure, said, ssh_address, text, until, url},
};

#[test]
fn only_listed_keys_come_in() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let server = keys.launch(&place).with(&["--create-on-push"]).start();
    let home = place.path("source");
    let maker = Git::new(&place.path("home"));
    maker.init(&home);
    maker.commit(&home, "a", b"1\n", "first");
    let remote = url(&server, "repo");

    let ada = keys.make("ada", "ed25519");
    let said = keys.git(&place, &ada).fails(&home, &["push", &remote, "main"]);
    assert!(said.contains("Permission denied (publickey)"), "{said}");
    keys.allow(&ada, "name=\"Ada Lovelace\"");
    keys.git(&place, &ada).ok(&home, &["push", "-q", &remote, "main"]);
    let versions = server.http().get("/api/v1/repos/repo/versions").text();
    assert!(versions.contains("\"actor\":\"Ada Lovelace\""), "{versions}");
    for (kind, name) in [("rsa", "bob"), ("ecdsa", "eve")] {
        let key = keys.make(name, kind);
        keys.allow(&key, "restrict,read-only");
        let git = keys.git(&place, &key);
        git.ok(&home, &["ls-remote", &remote]);
        let said = git.fails(&home, &["push", &remote, "main:refs/heads/other"]);
        assert!(said.contains("may read, and not push"), "{said}");
    }
    // An option that would be a restriction, and is not known: the line does not count.
    let limited = keys.make("limited", "ed25519");
    keys.allow(&limited, "from=\"192.0.2.1\"");
    let said = keys.git(&place, &limited).fails(&home, &["ls-remote", &remote]);
    assert!(said.contains("Permission denied (publickey)"), "{said}");
    until("the warning", || server.said().contains("the option 'from' is not known here"));

    std::fs::write(&keys.authorized, "").expect("a file");
    let said = keys.git(&place, &ada).fails(&home, &["ls-remote", &remote]);
    assert!(said.contains("Permission denied (publickey)"), "{said}");
    until("the refusals", || figure(&server.http(), "govc_ssh_logins_total{result=\"refused\"} ") >= 3);
}

#[test]
fn silent_clients_are_closed() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    let server = keys.launch(&place).env("GOVC_HEADER_TIMEOUT", "400ms").start();
    for hello in [&b""[..], b"SSH-2.0-nobody\r\n"] {
        let mut stream = std::net::TcpStream::connect(ssh_address(&server)).expect("the server accepts connections");
        stream.set_read_timeout(Some(SOON)).expect("a time-out");
        stream.write_all(hello).expect("the server reads");
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.starts_with(b"SSH-2.0-govc_"), "{rest:?}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
    // One that has logged in, and asks for nothing.
    let mut command = Command::new("ssh");
    command.args(keys.options(&key)).args(["-N", "-p", &ssh_address(&server).port().to_string(), "git@127.0.0.1"]);
    let mut idle = Started(command.stdin(Stdio::piped()).spawn().expect("ssh runs"));
    assert!(!idle.0.wait().expect("an end").success(), "the server ended the connection");
    until("the end of all", || figure(&server.http(), "govc_ssh_connections ") == 0);
}

#[test]
fn a_key_is_found_among_many() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let server = keys.launch(&place).start();
    server.create("repo");
    let http = server.http();
    let all: Vec<PathBuf> = (0..30).map(|n| keys.make(&format!("key-{n}"), "ed25519")).collect();
    let good = keys.allowed("good");
    // The ones that are not listed are offered first, as by an agent that holds them.
    let ask = |others: usize| {
        let (first, rest) = all[..others].split_first().expect("a key");
        let rest = rest.iter().chain([&good]).map(|key| format!(" -i {}", key.display()));
        let command = format!("ssh {}{}", keys.options(first).join(" "), rest.collect::<String>());
        let git = keys.git(&place, first).with("core.sshCommand", &command);
        git.run(&place.path("home"), &["ls-remote", &url(&server, "repo")])
    };
    std::fs::create_dir_all(place.path("home")).expect("a folder");
    for others in [10, 29] {
        let output = ask(others);
        assert!(output.status.success(), "{others} others: {}", said(&output));
    }
    let output = ask(30);
    assert!(!output.status.success() && said(&output).contains("Too many authentication"), "{}", said(&output));
    until("the logins", || figure(&http, "govc_ssh_logins_total{result=\"accepted\"} ") == 2);
    until("the refusal", || figure(&http, "govc_ssh_logins_total{result=\"refused\"} ") == 1);
}

/// What `ssh-keygen -l` says of a key.
fn fingerprint(key: &Path) -> String {
    let output = Command::new("ssh-keygen").args(["-l", "-f", text(&key.with_extension("pub"))]).output();
    let line = String::from_utf8(output.expect("ssh-keygen runs").stdout).expect("text");
    line.split_whitespace().nth(1).expect("a fingerprint").to_owned()
}

#[test]
fn who_does_not_come_in_and_what_is_not_served_is_logged() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let (ada, eve) = (keys.allowed("ada"), keys.make("eve", "ed25519"));
    let server = keys.launch(&place).env("GOVC_LOG_FORMAT", "json").start();
    let http = server.http();
    let result = |name: &str| figure(&http, &format!("govc_ssh_logins_total{{result=\"{name}\"}} "));
    let logged = |what: &str, words: &[&str]| {
        let is_so = |line: &str| line.contains(what) && words.iter().all(|word| line.contains(word));
        until(what, || server.said().lines().any(is_so));
    };

    let output = keys.ssh(&eve, &server, &["git-upload-pack", "'repo'"]).stdin(Stdio::null()).output();
    assert!(!output.expect("ssh runs").status.success());
    let key = fingerprint(&eve);
    logged("SSH login failed", &["127.0.0.1:", "refused", "anybody", &key]);
    assert_eq!(result("refused"), 1);

    // A scanner: it looks who is there, and leaves.
    let mut stream = std::net::TcpStream::connect(ssh_address(&server)).expect("the server accepts connections");
    stream.read_exact(&mut [0; 8]).expect("a greeting");
    drop(stream);
    logged("SSH login failed", &["127.0.0.1:", "left"]);
    until("the scanner", || result("left") == 1);

    let output = keys.ssh(&ada, &server, &["rm -rf /\u{7}"]).stdin(Stdio::null()).output().expect("ssh runs");
    assert_eq!(output.status.code(), Some(1));
    logged("SSH request processed", &["rm -rf / ", "refused", "ada", "is not served here"]);
    assert_eq!(figure(&http, "govc_ssh_requests_total{service=\"other\",result=\"refused\"} "), 1);
    let output = keys.ssh(&ada, &server, &["git-upload-pack", "'none'"]).stdin(Stdio::null()).output();
    assert!(!output.expect("ssh runs").status.success());
    logged("SSH request processed", &["git-upload-pack", "refused", "repository 'none' does not exist"]);
}

#[test]
fn idle_connections_do_not_close_the_door() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    // Nothing ends them but those that come later.
    let launch = keys.launch(&place).env("GOVC_HEADER_TIMEOUT", "1h");
    for (idle, places) in [(300, None), (40, Some("32"))] {
        let launch = places.into_iter().fold(launch.clone(), |launch, max| launch.env("GOVC_MAX_CONNECTIONS", max));
        let server = launch.start();
        if server.http().get("/api/v1/repos/repo").status == 404 {
            server.create("repo");
        }
        let idle: Vec<_> = (0..idle)
            .map(|_| std::net::TcpStream::connect(ssh_address(&server)).expect("the server accepts connections"))
            .collect();
        let git = keys.git(&place, &key);
        std::fs::create_dir_all(place.path("home")).expect("a folder");
        git.ok(&place.path("home"), &["ls-remote", &url(&server, "repo")]);
        assert!(figure(&server.http(), "govc_ssh_logins_total{result=\"displaced\"} ") > 0);
        drop(idle);
    }
}

#[test]
fn connections_are_not_inherited() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let server = keys.launch(&place).start();
    let mut stream = std::net::TcpStream::connect(ssh_address(&server)).expect("the server accepts connections");
    stream.read_exact(&mut [0; 8]).expect("a greeting");
    // What programs get that the server starts, such as parsers: nothing but its standard streams.
    let inherited = server.inherited_files();
    assert!(inherited.iter().all(|file| !file.contains("socket:")), "{inherited:?}");
}
