//! Disks that fail to sync, or claim to: through a library that stands before the C library's `fsync` and `fdatasync`.
//!
//! A failed sync says nothing about what is on the disk, so the store takes no more writes and says so; after a restart
//! all that was acknowledged is there. A disk that claims to sync and loses power takes what was written since, from
//! some point on: what is left is whole.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::{
    git::Git,
    http::Reply,
    server::{Launch, Place, Server},
};

/// What it does is in the file that `GOVC_TEST_SYNC` names: `f` fails, `l` lies, anything else, or no file, syncs.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static char mode(void) {
    const char *path = getenv("GOVC_TEST_SYNC");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    char mode = 0;
    if (fd < 0) return 0;
    if (read(fd, &mode, 1) != 1) mode = 0;
    close(fd);
    return mode;
}

#define SYNC(name)                                          \
    int name(int fd) {                                      \
        int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, #name); \
        switch (mode()) {                                   \
        case 'f': errno = EIO; return -1;                   \
        case 'l': return 0;                                 \
        default: return real(fd);                           \
        }                                                   \
    }

SYNC(fsync)
SYNC(fdatasync)
"#;

/// A server's disk.
struct Disk {
    library: PathBuf,
    mode: PathBuf,
}

impl Disk {
    fn new(place: &Place) -> Self {
        let (source, library) = (place.path("shim.c"), place.path("shim.so"));
        fs::write(&source, SHIM).expect("a file");
        let compiled =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
        assert!(compiled.expect("a C compiler").success(), "the library compiles");
        Self { library, mode: place.path("mode") }
    }

    fn set(&self, mode: &str) {
        fs::write(&self.mode, mode).expect("a file");
    }

    fn under(&self, data: &Path, backend: &str) -> Launch {
        let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        Launch::bare()
            .with(&["--listen", "127.0.0.1:0", "--data", &text(data), "--backend", backend])
            .env("LD_PRELOAD", &text(&self.library))
            .env("GOVC_TEST_SYNC", &text(&self.mode))
    }
}

fn commit(server: &Server, number: usize) -> Reply {
    let body = json!({
        "branch": "main",
        "message": format!("commit {number}"),
        "author": { "name": "Ada Test", "email": "ada@example.com" },
        "changes": [{ "op": "put", "path": "file", "content": format!("{number}\n").repeat(500) }],
    });
    server.http().post("/api/v1/repos/repo/commits", &body)
}

fn committed(server: &Server, number: usize) -> String {
    commit(server, number).expect(201)["hash"].as_str().expect("a hash").to_owned()
}

/// A server on a disk that syncs still, with so many commits.
fn begun(backend: &str, commits: usize) -> (Place, Disk, Server, Vec<String>) {
    let place = Place::new();
    let disk = Disk::new(&place);
    let server = disk.under(&place.path("data"), backend).start();
    server.create("repo");
    let acknowledged = (0..commits).map(|number| committed(&server, number)).collect();
    (place, disk, server, acknowledged)
}

/// The branch's commits, oldest first, from a clone that `git fsck` finds whole.
fn history(git: &Git, server: &Server, copy: &Path) -> Vec<String> {
    git.clone_repo(&server.url("repo"), copy, &["--mirror"]);
    assert_eq!(git.findings(copy), (Some(0), Vec::new()));
    git.ok(copy, &["rev-list", "--reverse", "main"]).lines().map(str::to_owned).collect()
}

#[test]
fn a_failed_sync_is_told_and_nothing_acknowledged_is_lost() {
    for backend in ["rocksdb", "sqlite"] {
        let (place, disk, server, mut acknowledged) = begun(backend, 20);
        let git = Git::new(&place.path("home"));
        disk.set("f");
        let refused = commit(&server, 20);
        let words = refused.text();
        assert_eq!(refused.status, 500, "{backend}: {words}");
        assert!(words.contains("the outcome of the write is not known"), "{backend}: {words}");
        let ready = server.http().get("/health/ready");
        assert_eq!(ready.status, 503, "{backend}");
        let health = server.http().get("/health").json();
        assert_eq!(health["store"]["status"], "poisoned", "{backend}: {health}");
        assert!(health["store"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{backend}: {health}");
        // Whether a later sync succeeds says nothing about what the failed one left out.
        disk.set("");
        assert_eq!(commit(&server, 21).status, 503, "{backend}: a poisoned store takes no writes");
        assert_eq!(server.http().get("/health").json()["store"]["status"], "poisoned", "{backend}");
        let seen = history(&git, &server, &place.path("poisoned.git"));
        assert_eq!(seen, acknowledged, "{backend}: reads go on, of what was acknowledged");

        let server = server.kill().start();
        let found = history(&git, &server, &place.path("after.git"));
        assert_eq!(found[..20], acknowledged, "{backend}: what was acknowledged is there");
        assert!(found.len() <= 21, "{backend}: at most the one that was under way has come, whole");
        acknowledged = found;
        acknowledged.push(committed(&server, 22));
        assert_eq!(history(&git, &server, &place.path("later.git")), acknowledged, "{backend}");
    }
}

/// The files of a folder, and of those in it, with their lengths.
fn lengths(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(lengths(&path));
        } else {
            let length = path.metadata().expect("a file").len();
            found.insert(path, length);
        }
    }
    found
}

#[test]
fn a_disk_that_lies_and_loses_power_leaves_whole_commits() {
    for backend in ["rocksdb", "sqlite"] {
        let (place, disk, server, mut acknowledged) = begun(backend, 10);
        let (git, data) = (Git::new(&place.path("home")), place.path("data"));
        disk.set("l");
        let synced = lengths(&data);
        acknowledged.extend((10..40).map(|number| committed(&server, number)));
        let _ = server.kill();

        let mut last = 0;
        for part in 0..=12 {
            let left = place.path(&format!("left-{part}"));
            let copied = Command::new("cp").arg("-r").arg(&data).arg(&left).status();
            assert!(copied.expect("cp").success());
            for (path, length) in lengths(&left) {
                let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
                let before = synced.get(&data.join(path.strip_prefix(&left).expect("a path within"))).copied();
                if name.ends_with(".log") || name.ends_with("-wal") {
                    // Not at the ends of records.
                    let kept = before.expect("no log was begun meanwhile");
                    let end = kept + (length - kept) * part / 12;
                    fs::OpenOptions::new()
                        .write(true)
                        .open(&path)
                        .expect("a file")
                        .set_len(end)
                        .expect("a shorter file");
                } else if name.ends_with("-shm") {
                    // It is memory.
                    fs::remove_file(&path).expect("a file");
                } else if path.strip_prefix(&left).is_ok_and(|path| path.starts_with("search")) {
                    // The index follows in its own time; what is in it is read from the store if need be.
                } else {
                    assert_eq!(before, Some(length), "{backend}: {name} was written, too");
                }
            }
            disk.set("");
            let server = disk.under(&left, backend).start();
            let found = history(&git, &server, &place.path(&format!("left-{part}.git")));
            assert!(found.len() >= 10, "{backend}: what was synced is there");
            assert_eq!(found, acknowledged[..found.len()], "{backend}: of the rest, the first commits");
            assert!(found.len() >= last, "{backend}: the more is left, the more is there");
            last = found.len();
            server.stop();
        }
        assert_eq!(last, 40, "{backend}: all of it, if nothing was lost");
    }
}
