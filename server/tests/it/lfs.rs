//! Git LFS: the real `git lfs` as client, and the API by hand for what it does not show.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    git::Git,
    history::noise,
    http::{Http, Reply},
    server::{Launch, Place, Server, govc},
};

const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";
/// More than two chunks, and no whole number of them.
const LARGE: usize = (5 << 19) + 12_345;

/// The API of a repository.
struct Lfs {
    http: Http,
    base: String,
    headers: Vec<(&'static str, String)>,
}

impl Lfs {
    fn new(server: &Server, repo: &str) -> Self {
        let headers = vec![("accept", MEDIA_TYPE.to_owned()), ("content-type", format!("{MEDIA_TYPE}; charset=utf-8"))];
        Self { http: server.http(), base: format!("/{repo}.git/info/lfs"), headers }
    }

    /// The same with a name.
    fn of(&self, user: &str) -> Self {
        let mut headers = self.headers.clone();
        headers.push(("authorization", format!("Basic {}", STANDARD.encode(format!("{user}:secret")))));
        Self { http: self.http, base: self.base.clone(), headers }
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    fn post(&self, path: &str, body: &Value) -> Reply {
        self.http.send("POST", &format!("{}/{path}", self.base), &self.headers(), body.to_string().as_bytes())
    }

    fn get(&self, path: &str) -> Reply {
        self.http.get_with(&format!("{}/{path}", self.base), &self.headers())
    }

    fn batch(&self, operation: &str, objects: &[(&str, usize)]) -> Reply {
        let objects: Vec<_> = objects.iter().map(|(oid, size)| json!({ "oid": oid, "size": size })).collect();
        self.post("objects/batch", &json!({ "operation": operation, "transfers": ["basic"], "objects": objects }))
    }

    fn put(&self, oid: &str, content: &[u8]) -> Reply {
        let path = format!("{}/objects/{oid}", self.base);
        self.http.send("PUT", &path, &[("content-type", "application/octet-stream")], content)
    }

    fn content(&self, oid: &str, headers: &[(&str, &str)]) -> Reply {
        self.http.get_with(&format!("{}/objects/{oid}", self.base), headers)
    }

    fn store(&self, content: &[u8]) -> String {
        let oid = sha256(content);
        assert_eq!(self.put(&oid, content).status, 200);
        oid
    }
}

/// What `sha256sum` says: the server's own hash is no witness.
pub(crate) fn sha256(content: &[u8]) -> String {
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sha256sum runs");
    child.stdin.take().expect("a pipe").write_all(content).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout[..64]).into_owned()
}

/// Asserts an error in the shape of LFS.
#[track_caller]
fn refused(reply: &Reply, status: u16) -> Value {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some(MEDIA_TYPE));
    let document = reply.json();
    assert!(document["message"].as_str().is_some_and(|message| !message.is_empty()), "{document}");
    document
}

/// A git with LFS, and a working tree that pushes to `repo`.
fn working_tree(place: &Place, git: &Git, server: &Server, name: &str) -> PathBuf {
    let work = place.path(name);
    git.init(&work);
    git.ok(&work, &["lfs", "install", "--local"]);
    git.ok(&work, &["remote", "add", "origin", &server.url("team/repo")]);
    std::fs::write(work.join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n").expect("a file");
    work
}

/// A git whose LFS asks nobody for a password.
fn lfs_git(place: &Place, server: &Server) -> Git {
    let access = format!("lfs.{}/info/lfs.access", server.url("team/repo"));
    Git::new(&place.path("home"))
        .with("lfs.locksverify", "true")
        .with(&access, "none")
        .with("lfs.concurrenttransfers", "3")
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn git_lfs_pushes_and_clones() {
    let place = Place::new();
    let server = place.serve();
    server.create("team/repo");
    let git = lfs_git(&place, &server);
    let work = working_tree(&place, &git, &server, "work");
    let contents = [noise(1, LARGE), b"small\n".to_vec(), Vec::new(), noise(2, 1 << 20)];
    for (at, content) in contents.iter().enumerate() {
        std::fs::write(work.join(format!("{at}.bin")), content).expect("a file");
    }
    git.commit(&work, "README", b"text\n", "large files");
    git.ok(&work, &["push", "-q", "origin", "main"]);
    // What is in the repository is small.
    let pointer = git.ok(&work, &["cat-file", "blob", "main:0.bin"]);
    assert!(pointer.contains(&format!("oid sha256:{}", sha256(&contents[0]))), "{pointer}");
    // After a restart, into an empty folder.
    let server = server.stop().start();
    let git = lfs_git(&place, &server);
    let copy = place.path("copy");
    let filters = git.with("filter.lfs.process", "git-lfs filter-process").with("filter.lfs.required", "true");
    filters.clone_repo(&server.url("team/repo"), &copy, &[]);
    for (at, content) in contents.iter().enumerate() {
        assert!(read(&copy.join(format!("{at}.bin"))) == *content, "{at}");
    }
    git.ok(&copy, &["lfs", "fsck"]);
    // The next push sends what is new and nothing else.
    git.ok(&work, &["remote", "set-url", "origin", &server.url("team/repo")]);
    std::fs::write(work.join("new.bin"), noise(3, 100_000)).expect("a file");
    git.commit(&work, "README", b"more text\n", "one more");
    git.ok(&work, &["push", "-q", "origin", "main"]);
    filters.ok(&copy, &["pull", "-q"]);
    assert!(read(&copy.join("new.bin")) == noise(3, 100_000));
}

#[test]
fn git_lfs_locks() {
    let place = Place::new();
    let server = place.serve();
    server.create("team/repo");
    let git = lfs_git(&place, &server);
    let work = working_tree(&place, &git, &server, "work");
    std::fs::write(work.join("a.bin"), b"a").expect("a file");
    git.commit(&work, "README", b"text\n", "a large file");
    git.ok(&work, &["push", "-q", "origin", "main"]);
    git.ok(&work, &["lfs", "lock", "a.bin"]);
    let fails = git.run(&work, &["lfs", "lock", "a.bin"]);
    assert!(!fails.status.success(), "it is locked already");
    let locks: Value = serde_json::from_str(&git.ok(&work, &["lfs", "locks", "--json"])).expect("JSON");
    assert_eq!((&locks[0]["path"], &locks[0]["owner"]["name"]), (&json!("a.bin"), &json!("anonymous")));
    // Another's lock stops a push of that file.
    let lfs = Lfs::new(&server, "team/repo");
    lfs.of("grace").post("locks", &json!({ "path": "b.bin" })).expect(201);
    std::fs::write(work.join("b.bin"), b"b").expect("a file");
    git.commit(&work, "README", b"more\n", "what grace has locked");
    let refused = git.run(&work, &["push", "-q", "origin", "main"]);
    let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    assert!(!refused.status.success() && said.contains("b.bin") && said.contains("grace"), "{said}");
    let unlock = git.run(&work, &["lfs", "unlock", "b.bin"]);
    assert!(!unlock.status.success(), "it is grace's");
    git.ok(&work, &["lfs", "unlock", "--force", "b.bin"]);
    git.ok(&work, &["push", "-q", "origin", "main"]);
    git.ok(&work, &["lfs", "unlock", "a.bin"]);
    assert_eq!(git.ok(&work, &["lfs", "locks", "--json"]), "[]");
}

#[test]
fn a_push_that_makes_its_repository_brings_its_large_files() {
    let place = Place::new();
    let server = place.launch().with(&["--create-on-push"]).start();
    let git = lfs_git(&place, &server);
    let work = working_tree(&place, &git, &server, "work");
    std::fs::write(work.join("a.bin"), b"a large file").expect("a file");
    git.commit(&work, "README", b"text\n", "first");
    git.ok(&work, &["push", "-q", "origin", "main"]);
    let lfs = Lfs::new(&server, "team/repo");
    assert_eq!(lfs.content(&sha256(b"a large file"), &[]).body, b"a large file");
    // A lock publishes nothing.
    let other = Lfs::new(&server, "team/other");
    refused(&other.post("locks", &json!({ "path": "a" })), 404);
    assert_eq!(other.get("locks").expect(200), json!({ "locks": [] }));
    assert_eq!(server.http().get("/api/v1/repos/team%2Fother").status, 404);
}

#[test]
fn batches_say_where_contents_are_and_go() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let lfs = Lfs::new(&server, "repo");
    let (small, oid) = (b"small\n", sha256(b"small\n"));
    let other = sha256(b"other");
    let wanted = lfs.batch("upload", &[(&oid, small.len())]);
    assert_eq!(wanted.header("content-type"), Some(MEDIA_TYPE));
    let wanted = wanted.expect(200);
    assert_eq!((&wanted["transfer"], &wanted["hash_algo"]), (&json!("basic"), &json!("sha256")));
    let base = format!("http://{}/repo.git/info/lfs", server.address());
    let object = &wanted["objects"][0];
    assert_eq!(object["actions"]["upload"]["href"], format!("{base}/objects/{oid}"));
    assert_eq!(object["actions"]["verify"]["href"], format!("{base}/verify"));
    assert!(object["actions"]["upload"].get("header").is_none());
    assert_eq!(lfs.store(small), oid);
    // What is there is not sent again; what is not there cannot be fetched.
    let again = lfs.batch("upload", &[(&oid, small.len()), (&other, 5)]).expect(200);
    assert!(again["objects"][0].get("actions").is_none() && again["objects"][0].get("error").is_none(), "{again}");
    assert!(again["objects"][1]["actions"]["upload"].is_object());
    let fetched =
        lfs.of("ada").batch("download", &[(&oid, small.len()), (&other, 5), (&oid, 7), ("abc", 1)]).expect(200);
    let download = &fetched["objects"][0]["actions"]["download"];
    assert_eq!(download["href"], format!("{base}/objects/{oid}"));
    assert_eq!(download["header"]["Authorization"], format!("Basic {}", STANDARD.encode("ada:secret")));
    let codes: Vec<_> = (1..4).map(|at| fetched["objects"][at]["error"]["code"].clone()).collect();
    assert_eq!(codes, [404, 422, 422]);
    let verify = |oid: &str, size: usize| lfs.post("verify", &json!({ "oid": oid, "size": size }));
    verify(&oid, small.len()).expect(200);
    refused(&verify(&oid, 7), 422);
    refused(&verify(&other, 5), 404);
    // Behind a proxy that speaks TLS, with what it asks for.
    let download = |lfs: &Lfs, more: &[(&'static str, &str)]| {
        let mut headers = lfs.headers();
        headers.extend(more);
        let body = json!({ "operation": "download", "objects": [{ "oid": oid, "size": small.len() }] }).to_string();
        let path = format!("{}/objects/batch", lfs.base);
        lfs.http.send("POST", &path, &headers, body.as_bytes()).expect(200)["objects"][0].clone()
    };
    let path = format!("/repo.git/info/lfs/objects/{oid}");
    let object = download(&lfs, &[("x-forwarded-proto", "https"), ("x-forwarded-host", "git.example.org")]);
    assert_eq!(object["actions"]["download"]["href"], format!("https://git.example.org{path}"));
    assert_eq!(object["authenticated"], true);
    let object = download(&lfs, &[("authorization", "Negotiate YQ==")]);
    assert!(object["actions"]["download"].get("header").is_none(), "they are for one request: {object}");
    assert_eq!(object["authenticated"], false);
    // Where the settings say it.
    let server = server.stop().env("GOVC_PUBLIC_URL", "https://git.example.org/code/").start();
    let object = download(&Lfs::new(&server, "repo"), &[("x-forwarded-host", "else.org")]);
    assert_eq!(object["actions"]["download"]["href"], format!("https://git.example.org/code{path}"));
}

#[test]
fn contents_come_back_whole_and_in_part() {
    come_back("rocksdb");
}

#[test]
fn contents_come_back_from_postgres() {
    come_back(&postgres());
}

fn come_back(backend: &str) {
    let place = Place::new();
    let server = on(&place, backend).start();
    server.create("repo");
    let lfs = Lfs::new(&server, "repo");
    let content = noise(7, LARGE);
    let oid = lfs.store(&content);
    assert_eq!(lfs.put(&oid, b"it is there, whatever is sent").status, 200);
    let whole = lfs.content(&oid, &[]);
    assert!(whole.status == 200 && whole.body == content, "{}", whole.status);
    let tag = format!("\"{oid}\"");
    assert_eq!(whole.header("content-length"), Some(LARGE.to_string().as_str()));
    assert_eq!((whole.header("etag"), whole.header("accept-ranges")), (Some(tag.as_str()), Some("bytes")));
    assert_eq!(whole.header("x-content-type-options"), Some("nosniff"));
    let chunk = 1 << 20;
    let ranges = [(0, 1), (chunk - 1, chunk + 1), (chunk, 2 * chunk), (10, LARGE - 10), (LARGE - 1, LARGE)];
    for (from, to) in ranges {
        let part = lfs.content(&oid, &[("range", &format!("bytes={from}-{}", to - 1))]);
        assert!(part.status == 206 && part.body == content[from..to], "{from}..{to}: {}", part.status);
        assert_eq!(part.header("content-range"), Some(format!("bytes {from}-{}/{LARGE}", to - 1).as_str()));
    }
    let rest = lfs.content(&oid, &[("range", "bytes=2000000-"), ("if-range", &tag)]);
    assert!(rest.status == 206 && rest.body == content[2_000_000..]);
    assert_eq!(lfs.content(&oid, &[("range", "bytes=0-9"), ("if-range", "\"other\"")]).body.len(), LARGE);
    let beyond = lfs.content(&oid, &[("range", &format!("bytes={LARGE}-"))]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some(format!("bytes */{LARGE}").as_str())));
    assert_eq!(lfs.content(&oid, &[("if-none-match", &tag)]).status, 304);
    let head = lfs.http.head(&format!("{}/objects/{oid}", lfs.base));
    assert_eq!((head.status, head.header("content-length")), (200, Some(LARGE.to_string().as_str())));
    // The log tells who got everything from who went away. It lags behind.
    while !server.said().contains("\"HEAD\"") {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(!server.said().contains("http_cut_off"), "{}", server.said());
    let empty = lfs.store(b"");
    let reply = lfs.content(&empty, &[]);
    assert_eq!((reply.status, reply.body.len(), reply.header("content-length")), (200, 0, Some("0")));
}

#[test]
fn nothing_is_visible_that_is_not_what_it_says() {
    let place = Place::new();
    let server = on_sqlite(&place).env("GOVC_LFS_MAX_OBJECT", "3MiB").env("GOVC_BODY_TIMEOUT", "1s").start();
    server.create("repo");
    let lfs = Lfs::new(&server, "repo");
    let content = noise(9, LARGE);
    let oid = sha256(&content);
    let mut other = content.clone();
    *other.last_mut().expect("a byte") ^= 1;
    refused(&lfs.put(&oid, &other), 422);
    refused(&lfs.put(&oid, &content[1..]), 422);
    refused(&lfs.put(&oid, b""), 422);
    refused(&lfs.content(&oid, &[]), 404);
    // Cut off in the middle: nothing of it is there, and the next one succeeds.
    let mut connection = lfs.http.connect();
    let head = format!("PUT {}/objects/{oid} HTTP/1.1\r\nhost: x\r\ncontent-length: {LARGE}\r\n\r\n", lfs.base);
    connection.write(head.as_bytes());
    connection.write(&content[..LARGE - 1]);
    drop(connection);
    refused(&lfs.content(&oid, &[]), 404);
    // From a client that stops sending, and from one that sends next to nothing.
    for piece in [&content[..LARGE - 1], &content[..1]] {
        let mut connection = lfs.http.connect();
        connection.write(head.as_bytes());
        connection.write(piece);
        refused(&connection.reply(), 408);
    }
    // Larger than is allowed, said in front or not.
    let large = noise(10, (3 << 20) + 1);
    let large_oid = sha256(&large);
    refused(&lfs.put(&large_oid, &large), 413);
    let mut chunked = format!("PUT {}/objects/{large_oid} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", lfs.base, large.len()).into_bytes();
    chunked.extend_from_slice(&large);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    refused(&lfs.http.raw(&chunked), 413);
    let answer = lfs.batch("upload", &[(&large_oid, large.len()), (&oid, LARGE)]).expect(200);
    assert_eq!(answer["objects"][0]["error"]["code"], 422);
    refused(&lfs.batch("upload", &[(&large_oid, large.len())]), 422);
    assert_eq!(lfs.put(&oid, &content).status, 200);
    assert!(lfs.content(&oid, &[]).body == content);
    // Nothing stays of what was refused, at the latest after the next opening: the store holds one content.
    server.stop().start().stop();
    let sizes = stats(&place);
    let bytes = sizes["families"]["blocks"]["bytes"].as_u64().expect("a number");
    assert!((LARGE as u64..LARGE as u64 + 10_000).contains(&bytes), "{bytes} bytes in {sizes}");
}

/// A database of its own in the real PostgreSQL.
fn postgres() -> String {
    let server = govc_postgres_server::shared();
    server.url(&server.database())
}

/// A server with such a backend, about which `govc` is asked once it is stopped.
fn on(place: &Place, backend: &str) -> Launch {
    place.launch().env("GOVC_BACKEND", backend)
}

fn on_sqlite(place: &Place) -> Launch {
    on(place, "sqlite")
}

/// What `govc stats` says of a place whose server is stopped.
fn stats(place: &Place) -> Value {
    admin(place, "sqlite", "stats")
}

fn admin(place: &Place, backend: &str, verb: &str) -> Value {
    let data = place.path("data");
    let data = data.to_str().expect("a path");
    let output = govc().args([verb, "--json", "--backend", backend, "--data", data]).output().expect("govc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_killed_upload_leaves_nothing_and_a_finished_one_stays() {
    killed("sqlite");
}

#[test]
fn a_killed_upload_leaves_nothing_in_postgres() {
    killed(&postgres());
}

fn killed(backend: &str) {
    let place = Place::new();
    let server = on(&place, backend).start();
    server.create("repo");
    let lfs = Lfs::new(&server, "repo");
    let (stays, cut) = (noise(11, LARGE), noise(12, LARGE));
    let stays_oid = lfs.store(&stays);
    let mut connection = lfs.http.connect();
    let head =
        format!("PUT {}/objects/{} HTTP/1.1\r\nhost: x\r\ncontent-length: {LARGE}\r\n\r\n", lfs.base, sha256(&cut));
    connection.write(head.as_bytes());
    connection.write(&cut[..LARGE - 1]);
    // Some of it has been written by now, or will never be.
    lfs.store(&noise(13, LARGE));
    lfs.store(b"another");
    let server = server.kill().start();
    drop(connection);
    let lfs = Lfs::new(&server, "repo");
    assert!(lfs.content(&stays_oid, &[]).body == stays);
    refused(&lfs.content(&sha256(&cut), &[]), 404);
    server.stop();
    let families = admin(&place, backend, "stats")["families"].take();
    assert_eq!(families["blocks"]["rows"], 3 + 3 + 1, "{families}");
    let checked = admin(&place, backend, "fsck");
    assert_eq!((&checked["clean"], &checked["large_contents"]), (&json!(true), &json!(3)), "{checked}");
    assert_eq!(checked["large_content_bytes"], 2 * LARGE + 7, "{checked}");
}

#[test]
fn forks_copies_and_deletions_take_large_contents_along() {
    let place = Place::new();
    let server = on_sqlite(&place).start();
    server.create("repo");
    let source = Lfs::new(&server, "repo");
    let content = noise(21, LARGE);
    let oid = source.store(&content);
    let http = server.http();
    http.post("/api/v1/repos/repo/fork", &json!({ "id": "fork" })).expect(201);
    let fork = Lfs::new(&server, "fork");
    assert!(fork.content(&oid, &[]).body == content);
    assert!(fork.batch("upload", &[(&oid, LARGE)]).expect(200)["objects"][0].get("actions").is_none());
    let own = fork.store(b"the fork's own");
    refused(&source.content(&own, &[]), 404);
    // The fork outlives its source.
    assert_eq!(http.delete("/api/v1/repos/repo").status, 204);
    refused(&source.content(&oid, &[]), 404);
    assert!(fork.content(&oid, &[]).body == content);
    let launch = server.stop();
    let checked = admin(&place, "sqlite", "fsck");
    assert_eq!((&checked["clean"], &checked["large_contents"]), (&json!(true), &json!(2)), "{checked}");
    // A copy has it too.
    let from = format!("sqlite://{}", place.path("data/sqlite").display());
    let to = format!("sqlite://{}", place.path("moved").display());
    let copied = govc().args(["copy", "--from", &from, "--to", &to]).output().expect("govc runs");
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let data = place.path("moved-data");
    let arguments = ["--listen", "127.0.0.1:0", "--backend", &to, "--data", data.to_str().expect("a path")];
    let moved = Launch::bare().with(&arguments).start();
    assert!(Lfs::new(&moved, "fork").content(&oid, &[]).body == content);
    // Once the last that needs it is gone, so is it.
    let server = launch.start();
    assert_eq!(server.http().delete("/api/v1/repos/fork").status, 204);
    server.stop();
    let left = stats(&place);
    assert_eq!(left["families"]["blocks"]["rows"], 0, "{left}");
}

#[test]
fn compaction_leaves_large_contents_alone() {
    let place = Place::new();
    let server = on_sqlite(&place).start();
    server.create("repo");
    let lfs = Lfs::new(&server, "repo");
    let content = noise(31, LARGE);
    let oid = lfs.store(&content);
    crate::rest_commits::commit(&server, crate::rest_commits::put("file", "1\n"), json!({})).expect(201);
    server.stop();
    let data = place.path("data");
    let data = data.to_str().expect("a path");
    let output = govc().args(["compact", "--backend", "sqlite", "--data", data]).output().expect("govc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let server = on_sqlite(&place).start();
    assert!(Lfs::new(&server, "repo").content(&oid, &[]).body == content);
}

#[test]
fn repositories_in_memory_hold_large_contents_there() {
    let place = Place::new();
    let server = place.launch().env("GOVC_MEMORY", "32MiB").start();
    let made = server.http().post("/api/v1/repos", &json!({ "id": "repo", "durability": "memory" }));
    assert_eq!(made.status, 201, "{}", made.text());
    let lfs = Lfs::new(&server, "repo");
    let content = noise(41, LARGE);
    let oid = lfs.store(&content);
    assert!(lfs.content(&oid, &[]).body == content);
    let mut other = content.clone();
    other[0] ^= 1;
    refused(&lfs.put(&sha256(b"else"), &other), 422);
    // More than there is room for is refused, and gives back what it took.
    for at in 0..3 {
        let large = noise(42 + at, 40 << 20);
        refused(&lfs.put(&sha256(&large), &large), 507);
    }
    assert!(lfs.content(&lfs.store(&noise(51, LARGE)), &[]).status == 200);
    lfs.post("locks", &json!({ "path": "a" })).expect(201);
    assert_eq!(lfs.get("locks").expect(200)["locks"][0]["path"], "a");
    refused(&lfs.post("locks", &json!({ "path": "a" })), 409);
}

#[test]
fn locks_are_made_listed_and_removed() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    server.create("other");
    let lfs = Lfs::new(&server, "repo");
    let (ada, grace) = (lfs.of("ada"), lfs.of("grace"));
    assert_eq!(lfs.get("locks").expect(200), json!({ "locks": [] }));
    let lock = |of: &Lfs, path: &str| of.post("locks", &json!({ "path": path, "ref": { "name": "refs/heads/main" } }));
    let made = lock(&ada, "dir/a.bin").expect(201)["lock"].clone();
    assert_eq!((&made["path"], &made["owner"]["name"]), (&json!("dir/a.bin"), &json!("ada")));
    let locked_at = made["locked_at"].as_str().expect("a time");
    assert!(locked_at.len() == 25 && locked_at.ends_with("+00:00"), "{locked_at}");
    for of in [&ada, &grace] {
        let taken = refused(&lock(of, "dir/a.bin"), 409);
        assert_eq!(taken["lock"], made);
    }
    for path in ["", "/abs", "../up", "a//b", &"x".repeat(2000)] {
        refused(&lock(&ada, path), 422);
    }
    refused(&ada.post("locks", &json!({ "paths": [] })), 422);
    for at in 0..5 {
        lock(&grace, &format!("g{at}")).expect(201);
    }
    // Pages.
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = lfs.get(&format!("locks?limit=4&refspec=refs%2Fheads%2Fmain&cursor={cursor}")).expect(200);
        assert!(found.len() < 6, "pages go on: {found:?}");
        found.extend(page["locks"].as_array().expect("a list").iter().map(|lock| lock["path"].clone()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(found, ["dir/a.bin", "g0", "g1", "g2", "g3", "g4"]);
    let id = made["id"].as_str().expect("an id").to_owned();
    let paths = |query: &str| lfs.get(&format!("locks?{query}")).expect(200)["locks"].as_array().expect("a list").len();
    assert_eq!((paths("path=g1"), paths("path=g"), paths(&format!("id={id}")), paths("id=x")), (1, 0, 1, 0));
    assert_eq!(paths(&format!("id={id}&path=g1")), 0);
    refused(&lfs.get("locks?cursor=x"), 422);
    refused(&lfs.get("locks?limit=x"), 400);
    let verified = ada.post("locks/verify", &json!({ "limit": 2 })).expect(200);
    assert_eq!(
        (verified["ours"].as_array().map(Vec::len), verified["theirs"].as_array().map(Vec::len)),
        (Some(1), Some(1))
    );
    let rest = ada.post("locks/verify", &json!({ "cursor": verified["next_cursor"] })).expect(200);
    assert_eq!((rest["ours"].as_array().map(Vec::len), rest["theirs"].as_array().map(Vec::len)), (Some(0), Some(4)));
    assert_eq!(Lfs::new(&server, "other").get("locks").expect(200)["locks"], json!([]), "they are one repository's");
    // They survive; others' need force.
    let server = server.kill().start();
    let lfs = Lfs::new(&server, "repo");
    let (ada, grace) = (lfs.of("ada"), lfs.of("grace"));
    let unlock = |of: &Lfs, body: Value| of.post(&format!("locks/{id}/unlock"), &body);
    refused(&unlock(&grace, json!({})), 403);
    assert_eq!(unlock(&grace, json!({ "force": true })).expect(200)["lock"], made);
    refused(&unlock(&ada, json!({ "force": false })), 404);
    for id in ["x", "0", "99999999999"] {
        refused(&ada.post(&format!("locks/{id}/unlock"), &json!({})), 404);
    }
    lock(&ada, "dir/a.bin").expect(201);
    // With the repository they go.
    assert_eq!(server.http().delete("/api/v1/repos/repo").status, 204);
    server.create("repo");
    assert_eq!(lfs.get("locks").expect(200)["locks"], json!([]));
}

#[test]
fn bad_requests_are_told_so() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let lfs = Lfs::new(&server, "repo");
    let none = Lfs::new(&server, "none");
    let oid = sha256(b"x");
    for reply in [
        none.batch("download", &[(&oid, 1)]),
        none.batch("upload", &[(&oid, 1)]),
        none.put(&oid, b"x"),
        none.content(&oid, &[]),
        none.get("locks"),
        none.post("locks", &json!({ "path": "a" })),
        none.post("locks/verify", &json!({})),
        none.post("locks/1/unlock", &json!({})),
        none.post("verify", &json!({ "oid": oid, "size": 1 })),
    ] {
        refused(&reply, 404);
    }
    refused(&lfs.batch("delete", &[(&oid, 1)]), 422);
    let object = json!([{ "oid": oid, "size": 1 }]);
    refused(
        &lfs.post("objects/batch", &json!({ "operation": "download", "objects": object, "hash_algo": "sha512" })),
        409,
    );
    refused(
        &lfs.post("objects/batch", &json!({ "operation": "download", "objects": object, "transfers": ["tus"] })),
        422,
    );
    refused(&lfs.post("objects/batch", &json!({ "operation": "download", "objects": [{ "oid": 1, "size": 1 }] })), 422);
    assert_eq!(lfs.post("objects/batch", &json!({ "operation": "download" })).expect(200)["objects"], json!([]));
    let negative = json!({ "operation": "download", "objects": [{ "oid": oid, "size": -1 }] });
    assert_eq!(lfs.post("objects/batch", &negative).expect(200)["objects"][0]["error"]["code"], 422);
    let many: Vec<_> = (0..10_001).map(|_| json!({ "oid": oid, "size": 1 })).collect();
    refused(&lfs.post("objects/batch", &json!({ "operation": "download", "objects": many })), 413);
    let path = format!("{}/objects/batch", lfs.base);
    let body = br#"{"operation":"download"}"#;
    let send = |headers: &[(&str, &str)], body: &[u8]| lfs.http.send("POST", &path, headers, body);
    refused(&send(&[("content-type", MEDIA_TYPE), ("accept", "text/html")], body), 406);
    refused(&send(&[("content-type", "text/plain")], body), 415);
    refused(&send(&[("content-type", MEDIA_TYPE)], b"{"), 400);
    refused(&send(&[("content-type", MEDIA_TYPE)], &vec![b' '; (4 << 20) + 1]), 413);
    for oid in ["x", &oid.to_uppercase(), &oid[1..]] {
        refused(&lfs.put(oid, b"x"), 422);
        refused(&lfs.content(oid, &[]), 422);
    }
    let reply = lfs.http.send("DELETE", &format!("{}/objects/{oid}", lfs.base), &[], b"");
    refused(&reply, 405);
    assert_eq!(reply.header("allow"), Some("GET, HEAD, PUT"));
    refused(&lfs.http.get(&path), 405);
}

#[test]
fn many_large_uploads_take_little_memory() {
    many_large("sqlite");
}

#[test]
fn many_large_uploads_to_postgres_take_little_memory() {
    many_large(&postgres());
}

fn many_large(backend: &str) {
    const BYTES: usize = 64 << 20;
    let place = Place::new();
    let server = on(&place, backend).env("GOVC_MEMORY", "64MiB").start();
    server.create("repo");
    let lfs = Lfs::new(&server, "repo");
    let contents: Vec<Vec<u8>> = (0..3).map(|seed| noise(seed, BYTES)).collect();
    let oids: Vec<String> = contents.iter().map(|content| sha256(content)).collect();
    std::thread::scope(|scope| {
        for (oid, content) in oids.iter().zip(&contents) {
            scope.spawn(|| assert_eq!(lfs.put(oid, content).status, 200));
            // The same at the same time: one of them stays.
            scope.spawn(|| assert_eq!(lfs.put(oid, content).status, 200));
        }
    });
    for (oid, content) in oids.iter().zip(&contents) {
        assert!(lfs.content(oid, &[]).body == *content);
    }
    let peak = server.peak_bytes();
    assert!(peak < 250 << 20, "{} MiB resident", peak >> 20);
    server.stop();
    let checked = admin(&place, backend, "fsck");
    assert_eq!((&checked["clean"], &checked["large_contents"]), (&json!(true), &json!(3)), "{checked}");
    let left = admin(&place, backend, "stats");
    assert_eq!(left["families"]["blocks"]["rows"], 3 * 64, "{left}");
}
