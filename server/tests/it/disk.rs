//! A full disk, made by a reserve that no disk can keep free, and a small one that fills up in the middle of pushes: writes are
//! refused with 507 or the protocol's own error, reads and deletions go on, and everything works again once there is room.

use std::{fs::File, path::Path, process::Command};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use serde_json::json;

use crate::{
    admin,
    git::{Git, assert_same},
    history,
    http::Reply,
    http_backend::HttpBackend,
    lfs::sha256,
    server::{BUILT, Launch, Left, Place, Server, incoming},
    ssh_client::{self, Keys, text, until},
};

/// A pebibyte in bytes.
const MORE_THAN_THERE_IS: &str = "1125899906842624";

fn commit(server: &Server, path: &str) -> Reply {
    commit_in(server, "full", path)
}

fn commit_in(server: &Server, repo: &str, path: &str) -> Reply {
    let body = json!({
        "branch": "main",
        "message": "write",
        "author": { "name": "Ada Test", "email": "ada@example.com" },
        "changes": [{ "op": "put", "path": path, "content": "content\n" }],
    });
    server.http().post(&format!("/api/v1/repos/{repo}/commits"), &body)
}

#[test]
fn a_full_disk_refuses_writes_and_serves_reads() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let source = history::generated(&place, &git);
    let server = place.serve();
    server.create("full");
    server.create("goes");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("full")]);
    drop(server.stop());

    let full = place.launch().env("GOVC_RESERVE", MORE_THAN_THERE_IS).start();
    let problem = commit(&full, "new").problem(507);
    assert_eq!(problem["code"], "STORAGE_FULL", "{problem}");
    full.http().post("/api/v1/repos", &json!({ "id": "another" })).problem(507);
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "file", b"content\n", "will not fit");
    let text = git.fails(&work, &["push", &full.url("full"), "HEAD:refs/heads/refused"]);
    let words = text.to_lowercase();
    assert!(words.contains("full") || words.contains("space") || words.contains("507"), "{text}");

    let copy = place.path("copy.git");
    git.clone_repo(&full.url("full"), &copy, &["--mirror"]);
    assert_same(&git, &source, &copy);
    assert_eq!(full.http().get("/api/v1/repos/full/read/hot.txt?ref=main").status, 200);
    assert_eq!(full.http().get("/health/live").status, 200);
    assert_eq!(full.http().delete("/api/v1/repos/goes").status, 204, "what makes room is taken");
    assert_eq!(commit(&full, "new").status, 507, "which is not the room that a write asks for");
    drop(full.stop());

    let again = place.serve();
    assert_eq!(again.http().get("/api/v1/repos/another").status, 404, "a refused repository is not there");
    assert_eq!(again.http().get("/api/v1/repos/goes").status, 404);
    assert_eq!(commit(&again, "new").status, 201);
    git.ok(&work, &["push", "-q", &again.url("full"), "HEAD:refs/heads/accepted"]);
}

#[test]
fn the_flag_and_the_file_set_the_reserve_too() {
    let place = Place::new();
    let file = place.path("govc.toml");
    std::fs::write(&file, format!("[storage]\nreserve = {MORE_THAN_THERE_IS}\n")).expect("a file");
    let file = file.to_str().expect("a path in UTF-8");
    // A store that begins needs room for its mark; one that exists opens whatever the room.
    place.launch().start().stop();
    for arguments in [&["--reserve", MORE_THAN_THERE_IS][..], &["--config", file]] {
        let server = place.launch().with(arguments).start();
        let reply = server.http().post("/api/v1/repos", &json!({ "id": "none" }));
        assert_eq!(reply.problem(507)["code"], "STORAGE_FULL", "{arguments:?}");
    }
}

const MIB: u64 = 1 << 20;

/// The size of the file system.
const DISK_MEGABYTES: u32 = 320;

/// What the server leaves alone.
const RESERVE_BYTES: u64 = 48 * MIB;

/// The server's file system, with something on it that takes its room away.
struct Disk<'a> {
    server: &'a Server,
    data: &'a Path,
}

impl Disk<'_> {
    fn free_bytes(&self) -> u64 {
        let status = statvfs(self.server.seen(self.data)).expect("a file system");
        status.f_bavail * status.f_frsize
    }

    /// Takes room until so much is free.
    fn fill(&self, free_bytes: u64) {
        self.empty();
        // Tables of what was removed are compacted a little later.
        until("so much room", || self.free_bytes() >= free_bytes);
        let taken = self.free_bytes() - free_bytes;
        let ballast = File::create(self.server.seen(&self.data.join("ballast"))).expect("a file");
        fallocate(&ballast, FallocateFlags::empty(), 0, taken).expect("room");
    }

    fn empty(&self) {
        let _ = std::fs::remove_file(self.server.seen(&self.data.join("ballast")));
    }

    /// What a server has left that begins anew with what there is now: in a copy, since the disk is gone with the server.
    fn left(&self, backend: &str, place: &Place) -> Left {
        self.empty();
        let copy = place.path("begun-anew");
        let _ = std::fs::remove_dir_all(&copy);
        self.server.signal("STOP");
        let copied = Command::new("cp").arg("-a").args([&self.server.seen(self.data), &copy]).status();
        self.server.signal("CONT");
        assert!(copied.expect("cp runs").success());
        on(&copy, backend).start().stop();
        Left::of(&copy, backend)
    }
}

/// A server of a folder that does nothing unasked.
fn on(data: &Path, backend: &str) -> Launch {
    Launch::bare()
        .with(&["--listen", "127.0.0.1:0", "--data", text(data), "--backend", backend])
        .env("GOVC_SEARCH_ENABLED", "false")
        .env("GOVC_COMPACTION_ENABLED", "false")
}

/// A commit of so many megabytes that do not compress, on a branch of its own.
fn noise(git: &Git, work: &Path, name: &str, megabytes: u64) {
    git.ok(work, &["checkout", "-q", "-b", name, "main"]);
    let mut seed = megabytes;
    for at in 0..megabytes {
        let words = (0..MIB / 8).flat_map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed.to_be_bytes()
        });
        std::fs::write(work.join(format!("{name}-{at}")), words.collect::<Vec<u8>>()).expect("a file");
    }
    git.commit(work, "name", name.as_bytes(), name);
}

#[test]
fn a_disk_that_fills_up_under_a_push_takes_none_of_it() {
    for backend in ["rocksdb", "sqlite"] {
        fills_up(backend);
    }
}

fn fills_up(backend: &str) {
    let place = Place::new();
    let keys = Keys::new(&place);
    let git = keys.git(&place, &keys.allowed("ada"));
    let data = place.path("small");
    let server = on(&data, backend)
        .with(&["--ssh-listen", "127.0.0.1:0", "--ssh-authorized-keys", text(&keys.authorized)])
        .with(&["--reserve", &RESERVE_BYTES.to_string()])
        .disk(data.clone(), DISK_MEGABYTES)
        .start();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "file", b"there before\n", "before");
    let urls = [server.url("repo"), ssh_client::url(&server, "repo")];
    git.ok(&work, &["push", "-q", &urls[0], "main"]);
    // One that rides in the journal, one that is in memory until it is stored, one that has a file of its own.
    for (name, megabytes) in [("little", 0), ("middle", 6), ("large", 24)] {
        noise(&git, &work, name, megabytes);
    }
    // What counts the parts of the store is there, and what its format has come to.
    server.create("other");
    git.ok(&work, &["push", "-q", &server.url("other"), "middle"]);
    let http = server.http();
    let put = |repo: &str, content: &[u8]| {
        let path = format!("/{repo}.git/info/lfs/objects/{}", sha256(content));
        (http.send("PUT", &path, &[("content-type", "application/octet-stream")], content), path)
    };
    assert_eq!(put("other", &history::noise(8, 3 << 20)).0.status, 200);
    let disk = Disk { server: &server, data: &data };
    let versions = || http.get("/api/v1/repos/repo/versions").expect(200)["count"].clone();
    assert_eq!(versions(), 2);
    let before = disk.left(backend, &place);
    for (attempt, (name, room)) in [("little", 0), ("middle", 0), ("large", 10), ("large", 30)].into_iter().enumerate()
    {
        for url in &urls {
            disk.fill(RESERVE_BYTES + room * MIB);
            let said = git.fails(&work, &["push", url, name]);
            assert!(said.contains("disk") && said.contains("full"), "{backend} {attempt}: {said}");
            assert!(said.contains(&format!("[remote rejected] {name} -> {name}")), "{backend} {attempt}: {said}");
            assert_eq!(incoming(&server.seen(&data)), [""; 0], "{backend} {attempt}");
            assert_eq!(versions(), 2, "{backend} {attempt}");
            assert_eq!(git.ok(&work, &["ls-remote", url]).lines().count(), 2, "{backend} {attempt}: HEAD and main");
        }
        if room == 0 {
            assert_eq!(commit_in(&server, "repo", "new").status, 507, "{backend} {attempt}");
        }
        let copy = place.path(&format!("copy-{attempt}"));
        git.clone_repo(&urls[attempt % 2], &copy, &[]);
        assert_eq!(std::fs::read(copy.join("file")).ok().as_deref(), Some(&b"there before\n"[..]));
    }
    // One that may ride in the journal, and one of many chunks, of which a part fits.
    for (length, room) in [(1000, 0), (1 << 20, 0), (24 << 20, 30)] {
        let content = history::noise(7, length);
        disk.fill(RESERVE_BYTES + room * MIB);
        let (reply, path) = put("repo", &content);
        assert_eq!(reply.status, 507, "{backend} {length}: {}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/vnd.git-lfs+json"));
        let said = reply.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(said.contains("full"), "{backend} {length}: {said}");
        assert_eq!(http.get(&path).status, 404, "{backend} {length}");
    }
    let left = disk.left(backend, &place);
    assert_eq!(left.measures(), before.measures(), "{backend}: something stayed of what was refused");
    // Beside them, the store may have the row by which it has found out that there is room again.
    let [now, then] = [&left, &before].map(|left| left.rows("meta"));
    assert!(now <= then + 1, "{backend}: {then} rows have become {now}");
    for (at, name) in ["little", "middle", "large"].into_iter().enumerate() {
        git.ok(&work, &["push", "-q", &urls[at % 2], name]);
    }
    let copy = place.path("copy");
    git.clone_repo(&urls[0], &copy, &["--mirror"]);
    assert_same(&git, &work, &copy);
    let content = history::noise(7, 24 << 20);
    let (reply, path) = put("repo", &content);
    assert_eq!(reply.status, 200, "{backend}: {}", reply.text());
    assert!(http.get(&path).body == content);
    assert!(disk.left(backend, &place).rows("blocks") > before.rows("blocks"));
}

#[test]
fn a_disk_that_fills_up_under_an_import_takes_none_of_it() {
    for backend in ["rocksdb", "sqlite"] {
        imports(backend);
    }
}

fn imports(backend: &str) {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "file", b"there before\n", "before");
    let root = place.path("root");
    let source = root.join("large.git");
    std::fs::create_dir(&root).expect("a folder");
    let data = place.path("data");
    on(&data, backend).start().stop();
    let here = ["--data", text(&data), "--backend", backend];
    admin::ok(&[&["import", text(&work), "--into", "before"], &here[..]].concat());
    noise(&git, &work, "large", 24);
    git.clone_repo(text(&work), &source, &["--mirror"]);
    let before = Left::of(&data, backend);
    let small = place.path("small");
    std::fs::create_dir(&small).expect("a folder");
    let server = HttpBackend::start(&git, &root, |_, given| given);
    // Before anything has come, and in the midst of it; into a new repository, and into one that is there.
    for (from, room) in [(text(&source), 0), (text(&source), 30), (&server.url("large.git")[..], 30)] {
        for into in ["new", "before"] {
            let after = place.path("after");
            let _ = std::fs::remove_dir_all(&after);
            let script = format!(
                "mount -t tmpfs -o size={DISK_MEGABYTES}m tmpfs '{small}' && cp -a '{data}/.' '{small}' && \
                 fallocate -l $(($(stat -f -c '%a * %S' '{small}') - {free})) '{small}/ballast' || exit 99
                 GOVC_RESERVE={RESERVE_BYTES} \"$0\" import '{from}' --mirror --into {into} --slice 0 --data '{small}' --backend {backend}
                 status=$?
                 rm '{small}/ballast' && cp -a '{small}' '{after}' || exit 99; exit $status",
                small = small.display(),
                data = data.display(),
                after = after.display(),
                free = RESERVE_BYTES + room * MIB,
            );
            let output = Command::new("unshare")
                .args(["--map-root-user", "--mount", "sh", "-c", &script, BUILT])
                .output()
                .expect("unshare runs");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let what = format!("{backend}, {from} with room for {room} MiB into {into}");
            assert_eq!(output.status.code(), Some(1), "{what}: {said}");
            assert!(said.contains("disk") && said.contains("full"), "{what}: {said}");
            let kept = std::fs::read_dir(after.join("imports")).into_iter().flatten().flatten();
            let kept: usize = kept.map(|store| std::fs::read_dir(store.path()).expect("a folder").count()).sum();
            assert_eq!(kept, 0, "{what}: an import is kept that nothing has come of");
            on(&after, backend).start().stop();
            assert_eq!(Left::of(&after, backend), before, "{what}: something stayed");
        }
    }
    admin::ok(&[&["import", text(&source), "--mirror", "--into", "before"], &here[..]].concat());
    let copy = place.path("copy.git");
    admin::ok(&["export", "before", text(&copy), "--data", text(&data), "--backend", backend]);
    assert_same(&git, &source, &copy);
}
