//! What the program says and refuses before it serves: help, settings and their precedence, addresses, locks.

use std::collections::BTreeSet;

use crate::server::{Launch, Place, govc};

/// Runs `govc` to its end; whether it succeeded, and both its outputs.
fn said(arguments: &[&str]) -> (bool, String) {
    let output = govc().args(arguments).output().expect("the binary runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn help_explains_itself() {
    let (ok, text) = said(&["--help"]);
    assert!(ok && text.contains("serve") && text.contains("Usage"), "{text}");
    let (ok, text) = said(&["serve", "--help"]);
    assert!(ok, "{text}");
    for word in ["--listen", "--data", "--backend", "--config", "--insecure-no-auth", "GOVC_LISTEN", "GOVC_DATA"] {
        assert!(text.contains(word), "{word} is not explained:\n{text}");
    }
    let (ok, text) = said(&["version"]);
    assert!(ok && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    let (ok, text) = said(&["no-such-command"]);
    assert!(!ok && text.contains("no-such-command"), "{text}");
}

#[test]
fn unknown_keys_and_bad_values_are_named() {
    let place = Place::new();
    let files = [
        ("[storage]\nreserv = 1\n", "reserv"),
        ("[no_such_section]\nkey = 1\n", "no_such_section"),
        ("listen = \"127.0.0.1:0\"\n", "listen"),
        ("[storage]\nbackend = \"tape\"\n", "tape"),
        ("[storage]\nreserve = \"much\"\n", "storage.reserve"),
        ("[server]\nlisten = 7\n", "server.listen"),
        ("[storage\n", "TOML"),
    ];
    for (at, (text, named)) in files.into_iter().enumerate() {
        let file = place.path(&format!("{at}.toml"));
        std::fs::write(&file, text).expect("a file");
        let said = place.launch().with(&["--config", file.to_str().expect("UTF-8")]).refused();
        assert!(said.contains(named), "{text:?}: {said}");
    }
    let variables =
        [("GOVC_BACKEND", "tape"), ("GOVC_RESERVE", "much"), ("GOVC_NO_SUCH_KEY", "1"), ("GOVC_MEMORY", "-1")];
    for (name, value) in variables {
        let said = place.launch().env(name, value).refused();
        assert!(said.contains(name), "{name}={value}: {said}");
    }
    for arguments in [&["--backend", "tape"][..], &["--reserve", "much"], &["--memory", "lots"], &["--no-such-flag"]] {
        let said = place.launch().with(arguments).refused();
        assert!(said.contains(arguments[0]), "{arguments:?}: {said}");
    }
    let said = place.launch().with(&["--config", "/no/such/file.toml"]).refused();
    assert!(said.contains("/no/such/file.toml"), "{said}");
    assert!(!place.path("data").exists(), "a refused start creates nothing");
}

#[test]
fn flags_win_over_the_environment_and_it_over_the_file() {
    let place = Place::new();
    let folder = |name: &str| place.path(name).to_str().expect("UTF-8").to_owned();
    let file = folder("govc.toml");
    let text = format!("[server]\nlisten = \"127.0.0.1:0\"\n[storage]\ndata = {:?}\n", folder("of-file"));
    std::fs::write(&file, text).expect("a file");
    let base = || Launch::bare().with(&["--config", &file]);

    drop(base().start());
    assert!(place.path("of-file").exists(), "the file's folder is used");
    drop(base().env("GOVC_DATA", &folder("of-variable")).start());
    assert!(place.path("of-variable").exists(), "the variable wins over the file");
    std::fs::remove_dir_all(place.path("of-variable")).expect("the folder can be removed");
    drop(base().env("GOVC_DATA", &folder("of-variable")).with(&["--data", &folder("of-flag")]).start());
    assert!(place.path("of-flag").exists(), "the flag wins");
    assert!(!place.path("of-variable").exists(), "over the variable");
    drop(Launch::bare().env("GOVC_CONFIG", &file).start());
}

#[test]
fn addresses_beyond_loopback_need_consent() {
    let place = Place::new();
    let data = place.path("data");
    let data = data.to_str().expect("UTF-8");
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let launch = Launch::bare().with(&["--listen", listen, "--data", data]);
        let said = launch.refused();
        assert!(said.contains("insecure-no-auth"), "{said}");
    }
    let launch = Launch::bare().with(&["--listen", "0.0.0.0:0", "--data", data, "--insecure-no-auth"]);
    assert_eq!(launch.start().http().get("/health").status, 200);
}

#[test]
fn a_taken_address_is_an_error_that_names_it() {
    let place = Place::new();
    let server = place.serve();
    let address = server.address().to_string();
    let other = place.path("other");
    let launch = Launch::bare().with(&["--listen", &address, "--data", other.to_str().expect("UTF-8")]);
    let said = launch.refused();
    assert!(said.contains(&address), "{said}");
}

#[test]
fn one_folder_has_one_server() {
    let place = Place::new();
    let server = place.serve();
    server.create("first");
    let said = place.launch().refused();
    assert!(said.contains(place.path("data").to_str().expect("UTF-8")), "the folder is named: {said}");
    let words = said.to_lowercase();
    assert!(["lock", "in use", "another"].iter().any(|word| words.contains(word)), "{said}");
    assert_eq!(server.http().get("/api/v1/repos/first").status, 200, "the first goes on");
    let server = server.kill().start();
    assert_eq!(server.http().get("/api/v1/repos/first").status, 200, "a killed server leaves no lock");
}

#[test]
fn the_memory_backend_leaves_nothing() {
    let place = Place::new();
    let server = place.launch().with(&["--backend", "memory"]).start();
    server.create("fleeting");
    assert_eq!(server.http().get("/api/v1/repos/fleeting").status, 200);
    let server = server.stop().start();
    assert_eq!(server.http().get("/api/v1/repos/fleeting").status, 404);
}

#[test]
fn health_metrics_and_version_are_served() {
    let place = Place::new();
    let server = place.serve();
    server.create("counted");
    let http = server.http();
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(http.get(path).status, 200, "{path}");
    }
    assert!(http.get("/version").text().contains(env!("CARGO_PKG_VERSION")));
    let metrics = http.get("/metrics");
    assert_eq!(metrics.status, 200);
    for name in ["govc_http_requests_total", "govc_http_request_duration_seconds", "govc_repositories_total"] {
        assert!(metrics.text().contains(name), "{name} is missing");
    }
    let text = metrics.text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let told: BTreeSet<&str> = types.filter_map(|line| line.split(' ').next()).collect();
    let documentation = include_str!("../../README.md");
    let rows =
        documentation.split("\n## Metrics\n").nth(1).expect("a section").split("\n## ").next().expect("its text");
    let names = rows.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let listed: BTreeSet<&str> = names.collect();
    let unlisted: Vec<_> = told.difference(&listed).collect();
    assert!(unlisted.is_empty(), "the table in the README lacks {unlisted:?}");
    // These come with their first login and handshake.
    let is_later = |name: &str| ["govc_ssh_", "govc_tls_"].iter().any(|prefix| name.starts_with(prefix));
    let stale: Vec<_> = listed.difference(&told).filter(|name| !is_later(name)).collect();
    assert!(stale.is_empty(), "the table in the README has {stale:?}, which the server does not tell");
    let document = http.get("/api/v1/openapi.json").expect(200);
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")), "{}", document["openapi"]);
    let paths = document["paths"].as_object().expect("paths");
    for path in ["/repos", "/repos/{id}", "/repos/{id}/commits", "/repos/{id}/grep"] {
        assert!(paths.keys().any(|known| known.ends_with(path)), "{path} is not described");
    }
}
