//! `kill -9` under load, again and again on one store: no acknowledged write is ever missing, nothing half-published
//! is ever visible, and what a clone brings is whole. Also the orderly end.
//!
//! Eight rounds by default; `GOVC_TEST_KILLS=N` for longer runs. Each worker writes down what the server acknowledged;
//! what was under way when the server died may be there or not, but wholly or not at all. Every sixteen rounds
//! the load goes on in a new repository of the same store, or comparing would take longer each time; in the end all are
//! compared once more. `-- --nocapture` shows what a run did.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use govc_engine::{Kind, Oid};
use serde_json::json;

use crate::{
    git::Git,
    http::Http,
    pack::{Pack, RECEIVE_HEADERS, RefChange, Report, commit_of, push_body, tree_entry},
    server::{Place, Server},
    tested,
};

const COMMITTERS: usize = 3;
const PUSHERS: usize = 2;

/// Rounds that write to one repository.
const ERA: u32 = 16;

/// What the workers of an era's rounds were told was done.
struct Acknowledged {
    /// The repository that they write to.
    repo: String,
    /// Commits: each must stay reachable, since nothing is ever forced or deleted.
    commits: Mutex<Vec<String>>,
    /// Repositories that were created.
    repositories: Mutex<Vec<String>>,
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    killed("rocksdb");
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_on_sqlite() {
    killed("sqlite");
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9_on_postgres() {
    let server = govc_postgres_server::shared();
    killed(&server.url(&server.database()));
}

fn killed(backend: &str) {
    let rounds: u32 = std::env::var("GOVC_TEST_KILLS").ok().map_or(8, |text| text.parse().expect("GOVC_TEST_KILLS"));
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let start = Instant::now();
    let mut eras: Vec<Acknowledged> = Vec::new();
    let mut checkouts: Vec<PathBuf> = Vec::new();
    // Of what is littered some is garbage at any moment, and goes while the server is killed.
    let mut server = place.launch().with(&["--backend", backend]).env("GOVC_VERSIONS_MAX_COUNT", "2").start();
    for round in 0..rounds {
        if round % ERA == 0 {
            let repo = format!("crash-{}", round / ERA);
            server.create(&repo);
            checkouts.iter().for_each(|old| std::fs::remove_dir_all(old).expect("a checkout can be removed"));
            checkouts = (0..PUSHERS).map(|number| place.path(&format!("pusher-{round}-{number}"))).collect();
            checkouts.iter().for_each(|work| git.init(work));
            eras.push(Acknowledged { repo, commits: Mutex::default(), repositories: Mutex::default() });
        }
        let era = eras.last().expect("it was pushed before the first round");
        server = under_load(server, &git, &checkouts, era, round);
        verify(&server, &place, &git, era, round);
    }
    for era in &eras {
        verify(&server, &place, &git, era, rounds);
    }
    let commits: usize = eras.iter().map(|era| era.commits.lock().expect("log").len()).sum();
    let repositories: usize = eras.iter().map(|era| era.repositories.lock().expect("log").len()).sum();
    assert!(commits >= rounds as usize, "only {commits} commits were acknowledged in {rounds} rounds");
    let scheme = backend.split(':').next().unwrap_or(backend);
    println!(
        "{scheme}: killed {rounds} times in {} s; {commits} commits and {repositories} repositories acknowledged, all there",
        start.elapsed().as_secs()
    );
}

/// Lets all workers write, kills the server in the middle, and starts it again.
fn under_load(server: Server, git: &Git, checkouts: &[PathBuf], log: &Acknowledged, round: u32) -> Server {
    let stop = AtomicBool::new(false);
    let (http, url) = (server.http(), server.url(&log.repo));
    let pair = tip(http, &log.repo, "pair/one");
    let launch = thread::scope(|scope| {
        let stop = &stop;
        for number in 0..COMMITTERS {
            scope.spawn(move || commit_over_http(http, number, log, stop));
        }
        for (number, work) in checkouts.iter().enumerate() {
            let url = url.as_str();
            scope.spawn(move || push_with_git(git, work, url, number, round, log, stop));
        }
        scope.spawn(move || push_pairs(http, pair, round, log, stop));
        scope.spawn(move || create_repositories(http, round, log, stop));
        scope.spawn(move || compact(http, log, stop));
        scope.spawn(move || litter(http, log, stop));
        // Spread over the workers' start, their steady state and the journal's groups.
        thread::sleep(Duration::from_millis(u64::from(150 + round * 167 % 700)));
        let launch = server.kill();
        stop.store(true, Ordering::Relaxed);
        launch
    });
    launch.start()
}

/// Compares the restarted server with what was acknowledged.
fn verify(server: &Server, place: &Place, git: &Git, log: &Acknowledged, round: u32) {
    let copy = place.path(&format!("after-{round}.git"));
    git.clone_repo(&server.url(&log.repo), &copy, &["--mirror"]);
    let reachable = git.ok(&copy, &["rev-list", "--all"]);
    let reachable: HashSet<&str> = reachable.lines().collect();
    let commits = log.commits.lock().expect("log").clone();
    let lost: Vec<&String> = commits.iter().filter(|oid| !reachable.contains(oid.as_str())).collect();
    assert!(
        lost.is_empty(),
        "round {round}: {} of {} acknowledged commits are lost: {lost:?}",
        lost.len(),
        commits.len()
    );

    let one = git.run(&copy, &["rev-parse", "--verify", "-q", "refs/heads/pair/one"]).stdout;
    let two = git.run(&copy, &["rev-parse", "--verify", "-q", "refs/heads/pair/two"]).stdout;
    assert_eq!(one, two, "round {round}: an atomic push was published by half");

    let findings = git.findings(&copy);
    assert_eq!(findings, (Some(0), Vec::new()), "round {round}");

    for repo in log.repositories.lock().expect("log").iter() {
        assert_eq!(server.http().get(&format!("/api/v1/repos/{repo}")).status, 200, "round {round}: {repo} is lost");
    }
    std::fs::remove_dir_all(&copy).expect("the clone can be removed");
}

/// Commits over HTTP to a branch of its own, each time upon the last.
fn commit_over_http(http: Http, number: usize, log: &Acknowledged, stop: &AtomicBool) {
    let path = format!("/api/v1/repos/{}/commits", log.repo);
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        at += 1;
        let body = json!({
            "branch": format!("committer-{number}"),
            "message": format!("commit {at} of committer {number}"),
            "author": { "name": "Ada Test", "email": "ada@example.com" },
            "changes": [
                { "op": "put", "path": format!("dir-{}/file-{number}", at % 10), "content": format!("{at}\n") },
            ],
        });
        let headers = [("content-type", "application/json")];
        let reply = http.try_send("POST", &path, &headers, body.to_string().as_bytes());
        match reply {
            Ok(reply) if reply.status == 201 => {
                let hash = reply.json()["hash"].as_str().expect("a hash").to_owned();
                log.commits.lock().expect("log").push(hash);
            }
            // A file that a lost answer already wrote is no change.
            Ok(reply) => assert!(reply.status < 500, "{}", reply.text()),
            Err(_) => return,
        }
    }
}

/// Pushes with the real git to a branch of its own.
fn push_with_git(git: &Git, work: &Path, url: &str, number: usize, round: u32, log: &Acknowledged, stop: &AtomicBool) {
    let branch = format!("HEAD:refs/heads/pusher-{number}");
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        at += 1;
        let head = git.commit(work, "file", format!("{round} {at}\n").as_bytes(), &format!("push {round} {at}"));
        let output = git.run(work, &["push", "-q", url, &branch]);
        if !output.status.success() {
            // Only the kill may fail a push: what the server answers to it is never a refusal.
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!text.contains("rejected"), "{text}");
            return;
        }
        log.commits.lock().expect("log").push(head);
    }
}

/// Moves two branches together by atomic pushes, without git for more of them.
fn push_pairs(http: Http, mut old: Oid, round: u32, log: &Acknowledged, stop: &AtomicBool) {
    let path = format!("/{}.git/git-receive-pack", log.repo);
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        at += 1;
        let mut built = Pack::new();
        let blob = built.object(Kind::Blob, format!("pair {round} {at}\n").as_bytes());
        let tree = built.object(Kind::Tree, &tree_entry("100644", b"file", blob));
        let parents: Vec<Oid> = (!old.is_null()).then_some(old).into_iter().collect();
        let new = built.object(Kind::Commit, &commit_of(tree, &parents, &format!("pair {round} {at}")));
        let changes = ["one", "two"].map(|name| RefChange { old, new, name: format!("refs/heads/pair/{name}").into() });
        let body = push_body(&changes, "report-status atomic", &built.finish());
        match http.try_send("POST", &path, RECEIVE_HEADERS, &body) {
            Ok(reply) => {
                assert_eq!(reply.status, 200, "{}", reply.text());
                let report = Report::parse(&reply.body);
                assert!(report.accepted(), "{report:?}");
                log.commits.lock().expect("log").push(new.to_string());
                old = new;
            }
            Err(_) => return,
        }
    }
}

fn create_repositories(http: Http, round: u32, log: &Acknowledged, stop: &AtomicBool) {
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        at += 1;
        let name = format!("made-{round}-{at}");
        let body = json!({ "id": name }).to_string();
        match http.try_send("POST", "/api/v1/repos", &[("content-type", "application/json")], body.as_bytes()) {
            Ok(reply) => {
                assert_eq!(reply.status, 201, "{}", reply.text());
                log.repositories.lock().expect("log").push(name);
            }
            Err(_) => return,
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Stores the repository anew all the while.
fn compact(http: Http, log: &Acknowledged, stop: &AtomicBool) {
    let path = format!("/api/v1/repos/{}", log.repo);
    while !stop.load(Ordering::Relaxed) {
        let headers = [("content-type", "application/json")];
        match http.try_send("POST", &format!("{path}/compact"), &headers, b"{}") {
            Ok(reply) => assert_eq!(reply.status, 202, "{}", reply.text()),
            Err(_) => return,
        }
        match http.try_send("GET", &format!("{path}/compaction"), &[], b"") {
            Ok(reply) => assert_ne!(reply.expect(200)["last"]["outcome"], "failed", "{}", reply.text()),
            Err(_) => return,
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Makes a branch and deletes it, with the same few objects again and again.
fn litter(http: Http, log: &Acknowledged, stop: &AtomicBool) {
    let path = format!("/api/v1/repos/{}", log.repo);
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        at += 1;
        let ada = json!({ "name": "Ada Test", "email": "ada@example.com", "date": "2026-01-01T00:00:00Z" });
        let body = json!({
            "branch": "litter", "message": "litter", "author": ada, "committer": ada,
            "changes": [{ "op": "put", "path": format!("litter-{}", at % 5), "content": "litter\n" }],
        });
        let headers = [("content-type", "application/json")];
        let sent = http.try_send("POST", &format!("{path}/commits"), &headers, body.to_string().as_bytes());
        let deleted = sent.and_then(|reply| {
            assert!(reply.status < 500, "{}", reply.text());
            http.try_send("DELETE", &format!("{path}/branches/litter"), &[], b"")
        });
        match deleted {
            Ok(reply) => assert!(reply.status < 500, "{}", reply.text()),
            Err(_) => return,
        }
    }
}

/// The commit that a branch points to; the null id if there is none.
fn tip(http: Http, repo: &str, branch: &str) -> Oid {
    let reply = http.get(&format!("/api/v1/repos/{repo}/commits/refs%2Fheads%2F{}", branch.replace('/', "%2F")));
    match reply.status {
        404 => tested::null(),
        _ => reply.expect(200)["hash"].as_str().expect("a hash").parse().expect("an id"),
    }
}

#[test]
fn a_terminated_server_finishes_what_it_began() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let body = json!({
        "branch": "main",
        "message": "slow",
        "author": { "name": "Ada Test", "email": "ada@example.com" },
        "changes": [{ "op": "put", "path": "file", "content": "slow\n" }],
    });
    let body = body.to_string();
    let mut connection = server.http().connect();
    let head = format!(
        "POST /api/v1/repos/repo/commits HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        server.address(),
        body.len()
    );
    connection.write(head.as_bytes());
    // The server asks for the body, so the request is being handled when the signal comes.
    assert_eq!(connection.reply().status, 100);
    let (first, second) = body.as_bytes().split_at(body.len() / 2);
    connection.write(first);
    server.terminate();
    // New connections end being accepted once the signal has been seen.
    while server.http().try_send("GET", "/health/live", &[], b"").is_ok() {
        thread::sleep(Duration::from_millis(5));
    }
    connection.write(second);
    let reply = connection.reply();
    let hash = reply.expect(201)["hash"].as_str().expect("a hash").to_owned();
    let server = server.stopped().start();
    let reply = server.http().get("/api/v1/repos/repo/commits/main");
    assert_eq!(reply.expect(200)["hash"], hash);
}

#[test]
fn a_memory_repository_is_honest_about_a_restart() {
    let place = Place::new();
    let server = place.serve();
    let reply = server.http().post("/api/v1/repos", &json!({ "id": "fleeting", "durability": "memory" }));
    let made = reply.expect(201);
    assert_eq!((&made["durability"], &made["memory_only"]), (&json!("memory"), &json!(true)));
    server.create("lasting");
    let server = server.stop().start();
    assert_eq!(server.http().get("/api/v1/repos/lasting").status, 200);
    // Whether or not the repository itself is remembered, none of its content may be half there.
    let reply = server.http().get("/api/v1/repos/fleeting/commits?ref=main");
    assert!(reply.status < 500, "{}", reply.text());
}

#[test]
fn a_relaxed_repository_survives_an_orderly_end() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let reply = server.http().post("/api/v1/repos", &json!({ "id": "relaxed", "durability": "relaxed" }));
    assert_eq!(reply.expect(201)["durability"], "relaxed");
    let work = place.path("work");
    git.init(&work);
    let head = git.commit(&work, "file", b"content\n", "relaxed");
    git.ok(&work, &["push", "-q", &server.url("relaxed"), "main"]);
    let server = server.stop().start();
    let reply = server.http().get("/api/v1/repos/relaxed/commits/main");
    assert_eq!(reply.expect(200)["hash"], head);
}
