//! What is done with a whole store from the command line, while a server has it open and after.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use govc_postgres_server::shared;

use crate::{
    git::{Git, assert_same},
    history,
    server::{Launch, Place, Server, govc},
};

const KINDS: [&str; 3] = ["rocksdb", "sqlite", "postgres"];

/// Runs a command to its end: exit code, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = govc().args(arguments).output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit code"), text(stdout), text(stderr))
}

#[track_caller]
pub(crate) fn ok(arguments: &[&str]) -> String {
    let (code, out, err) = run(arguments);
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    out
}

#[track_caller]
pub(crate) fn refused(code: i32, arguments: &[&str], words: &[&str]) {
    let (found, out, err) = run(arguments);
    assert_eq!(found, code, "{arguments:?}: {out}{err}");
    for word in words {
        assert!(out.contains(word) || err.contains(word), "{arguments:?}: no {word:?} in {out}{err}");
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Commits to a branch; its id.
fn commit(server: &Server, repo: &str, path: &str, content: &str) -> String {
    let body = json!({
        "branch": "main", "message": path, "author": {"name": "Ada", "email": "ada@example.org"},
        "changes": [{"op": "put", "path": path, "content": content}],
    });
    let reply = server.http().post(&format!("/api/v1/repos/{repo}/commits"), &body).expect(201);
    reply["hash"].as_str().expect("an id").to_owned()
}

fn head(server: &Server, repo: &str) -> String {
    let reply = server.http().get(&format!("/api/v1/repos/{repo}/branches/main")).expect(200);
    reply["commit"].as_str().expect("an id").to_owned()
}

fn on(place: &Place, location: &str) -> Launch {
    Launch::bare().with(&["--listen", "127.0.0.1:0", "--data", text(&place.path("data")), "--backend", location])
}

/// Where stores are in these tests: embedded ones in a folder of the place, PostgreSQL in a database of its own.
fn url(place: &Place, kind: &str, name: &str) -> String {
    match kind {
        "postgres" => shared().url(&shared().database()),
        kind => format!("{kind}://{}", text(&place.path(name))),
    }
}

#[test]
fn a_store_moves_house_while_it_is_served() {
    for from in KINDS {
        for to in KINDS.into_iter().filter(|to| *to != from) {
            moves(from, to);
        }
    }
}

fn moves(from: &str, to: &str) {
    let place = Place::new();
    let source = url(&place, from, "source");
    let server = on(&place, &source).start();
    for repo in ["one", "two"] {
        server.create(repo);
        for at in 0..10 {
            commit(&server, repo, &format!("file{at}"), &format!("{repo} {at}\n"));
        }
    }
    let moved = url(&place, to, "moved");
    let copy = |more: &[&str]| {
        let mut arguments = vec!["copy", "--from", &source, "--to", &moved];
        arguments.extend(more);
        run(&arguments)
    };
    let (code, out, err) = copy(&["--verify"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("read back and equal") && out.contains("nothing is wrong"), "{out}");

    // A copy of a copy says so; one that is to be brought up to date is.
    let newest = commit(&server, "two", "later", "later\n");
    let (code, _, err) = copy(&[]);
    assert!(code == 1 && err.contains("brought up to date"), "{err}");
    server.stop();
    let (code, out, err) = copy(&["--update"]);
    assert_eq!(code, 0, "{out}{err}");
    let server = on(&place, &moved).start();
    assert_eq!(head(&server, "two"), newest);
    let git = Git::new(&place.path("home"));
    let clone = place.path("clone");
    git.clone_repo(&server.url("one"), &clone, &[]);
    assert_eq!(git.ok(&clone, &["rev-list", "--count", "HEAD"]).trim(), "10");
    git.ok(&clone, &["fsck", "--strict"]);
}

/// Through every pair of backends, one copy of the other: what the last one serves is what was pushed into the first.
#[test]
fn histories_stay_identical_from_backend_to_backend() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let sources = history::sources(&place, &git);
    let mut source = url(&place, "rocksdb", "stay-0");
    let server = on(&place, &source).start();
    for (at, history) in sources.iter().enumerate() {
        server.create(&format!("history-{at}"));
        git.ok(history, &["push", "-q", "--mirror", &server.url(&format!("history-{at}"))]);
    }
    server.stop();
    for (stay, kind) in (1..).zip(["sqlite", "postgres", "rocksdb", "postgres", "sqlite", "rocksdb"]) {
        let next = url(&place, kind, &format!("stay-{stay}"));
        let out = ok(&["copy", "--from", &source, "--to", &next, "--verify"]);
        assert!(out.contains("read back and equal") && out.contains("nothing is wrong"), "{out}");
        println!("{source} to {next}: {out}");
        if let Some(("rocksdb" | "sqlite", folder)) = source.split_once("://") {
            std::fs::remove_dir_all(folder).expect("a copied store can be removed");
        }
        source = next;
    }
    let server = on(&place, &source).start();
    for (at, history) in sources.iter().enumerate() {
        let copy = place.path(&format!("copy-{at}.git"));
        git.clone_repo(&server.url(&format!("history-{at}")), &copy, &["--mirror"]);
        assert_same(&git, history, &copy);
    }
}

#[test]
fn backups_of_a_served_store_are_restored() {
    for kind in KINDS {
        backed_up(kind);
    }
}

fn backed_up(kind: &str) {
    let place = Place::new();
    let source = url(&place, kind, "source");
    let server = on(&place, &source).start();
    server.create("one");
    commit(&server, "one", "first", "first\n");
    let data = text(&place.path("data")).to_owned();
    let (full, more) = (place.path("full.govc"), place.path("more.govc"));
    let out = ok(&["backup", text(&full), "--data", &data, "--backend", &source]);
    assert!(out.starts_with("backup ") && out.contains(text(&full)), "{out}");
    let newest = commit(&server, "one", "second", "second\n");
    let out = ok(&["backup", text(&more), "--data", &data, "--backend", &source, "--since", text(&full)]);
    assert!(out.starts_with("incremental backup "), "{out}");
    refused(1, &["backup", text(&more), "--data", &data, "--backend", &source], &["exists already"]);
    drop(server);

    let restored = url(&place, kind, "restored");
    let out = ok(&["restore", text(&full), text(&more), "--backend", &restored]);
    assert!(out.contains("read back and equal"), "{out}");
    refused(1, &["restore", text(&full), "--backend", &restored], &["holds a store already"]);
    let empty = url(&place, kind, "empty");
    refused(1, &["restore", text(&more), "--backend", &empty], &["which must come before it"]);
    let server = on(&place, &restored).start();
    assert_eq!(head(&server, "one"), newest);
}

#[test]
fn a_served_store_is_checked_and_measured() {
    for kind in KINDS {
        checked(kind);
    }
}

fn checked(kind: &str) {
    let place = Place::new();
    let source = url(&place, kind, "source");
    let server = on(&place, &source).start();
    for repo in ["large", "small"] {
        server.create(repo);
    }
    commit(&server, "small", "file", "text\n");
    commit(&server, "large", "file", &"0123456789abcdef".repeat(9 << 10));
    let data = text(&place.path("data")).to_owned();
    let out = ok(&["fsck", "--data", &data, "--backend", &source]);
    assert!(out.starts_with("nothing is wrong: 6 objects of "), "{out}");
    assert!(out.contains("2 references of 2 repositories"), "{out}");
    let report: Value =
        serde_json::from_str(&ok(&["fsck", "--data", &data, "--backend", &source, "--json"])).expect("JSON");
    assert_eq!((&report["clean"], &report["objects"]), (&json!(true), &json!(6)));

    // Stopping settles the journal into blocks, which belong to a repository.
    server.stop();
    let out = ok(&["stats", "--data", &data, "--backend", &source, "--top", "1"]);
    assert!(out.contains("journal") && out.contains("... and 1 more"), "{out}");
    let report: Value =
        serde_json::from_str(&ok(&["stats", "--data", &data, "--backend", &source, "--json"])).expect("JSON");
    assert_eq!(report["repositories"].as_array().map(Vec::len), Some(2));
    let sum: u64 =
        report["families"].as_object().expect("families").values().map(|f| f["bytes"].as_u64().expect("bytes")).sum();
    assert_eq!(report["bytes"], json!(sum));
    assert!(report["disk_bytes"].as_u64().expect("a size") > 0);
}

#[test]
fn damage_ends_with_a_finding_and_bad_arguments_with_two() {
    let place = Place::new();
    let server = on(&place, "rocksdb").start();
    server.create("one");
    commit(&server, "one", "file", "text\n");
    server.stop();
    let data = text(&place.path("data")).to_owned();
    {
        use govc_engine::backend::{Backend as _, Batch, Family, Scan, Sync};
        let folder = place.path("data/rocksdb");
        let backend = govc_backends::RocksBackend::open(folder, govc_backends::RocksOptions::default()).expect("open");
        let (key, _) = backend.scan(Family::Ids, Scan::all()).expect("scan").next().expect("an id").expect("an id");
        let mut batch = Batch::new();
        batch.delete(Family::Ids, key.to_vec());
        backend.write(batch, Sync::Yes).expect("write");
    }
    refused(1, &["fsck", "--data", &data], &["repository one: refs/heads/main", "is missing", "1 thing is wrong"]);
    let missing = format!("rocksdb://{}", text(&place.path("missing")));
    for arguments in [&["fsck", "--backend", &missing][..], &["stats", "--backend", &missing]] {
        refused(1, arguments, &["there is no folder"]);
    }
    assert!(!place.path("missing").exists());
    refused(2, &["fsck", "--backend", "tape"], &["storage.backend", "expected rocksdb, sqlite or memory"]);
    refused(2, &["copy", "--from", "tape", "--to", &missing], &["--from tape"]);
    refused(2, &["copy", "--from", &missing, "--to", &missing], &["are the same"]);
    refused(2, &["copy", "--from", &missing, "--to", "memory", "--update"], &[]);
    refused(2, &["restore"], &["FILE"]);
    refused(1, &["copy", "--from", "memory", "--to", &missing], &["memory"]);
}

#[test]
fn one_store_has_one_server() {
    for kind in KINDS {
        let place = Place::new();
        let folder = url(&place, kind, "store");
        let server = on(&place, &folder).start();
        let said = on(&place, &folder).refused();
        assert!(said.contains("in use") && said.contains(kind), "{said}");
        server.create("one");
        let backup = place.path("backup");
        ok(&["backup", text(&backup), "--backend", &folder]);
        refused(1, &["restore", text(&backup), "--backend", &folder], &["in use"]);
        drop(server);
    }
}

/// As short as it goes: that every workload runs and is verified is shown where the benchmark is; here is what the command
/// adds.
#[test]
fn backends_are_measured_and_reports_compared() {
    let place = Place::new();
    let database = shared().database();
    let out = place.path("bench");
    let held = format!("sqlite://{}", text(&place.path("held")));
    std::fs::create_dir_all(place.path("held/something")).expect("a folder");
    refused(1, &["bench", "backends", "--backend", &held, "--out", text(&out)], &["holds something"]);
    refused(2, &["bench", "backends", "--backend", "tape", "--out", text(&out)], &["--backend tape"]);
    refused(2, &["bench", "backends", "--profile", "none", "--out", text(&out)], &["agents, ci, monorepo, import"]);
    refused(1, &["bench", "compare", text(&out), text(&out)], &["report.json"]);
    let said =
        run(&["bench", "backends", "--seconds", "0", "--backend", &shared().url(&database), "--out", text(&out)]);
    assert!(said.0 == 2 && said.2.contains("between 1 and 3600 seconds"), "{said:?}");
    let schemas = shared().sql(&database, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'govc_bench%'");
    assert!(schemas.is_empty());
}
