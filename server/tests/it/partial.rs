//! Partial clones: what filters leave out, and what is fetched later by its id.
//!
//! The oracle is the same command against the source through git's own upload-pack.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{
    git::{Git, assert_same},
    history,
    pack::{command_head, line, lines},
    server::{Place, Server},
    tested,
};

/// The patterns of [`served`]'s `sparse-rules`: directories, names, exceptions.
const RULES: &str = "# rules\n/src/\n!/src/mod3/\n*.txt\n!crlf.txt\nbin/*\n!bin/renamed*\n/deep/**/leaf4.txt\n";

/// A server with the generated history as `repo`, and that history, of which git serves parts too.
fn served(place: &Place, git: &Git) -> (Server, PathBuf) {
    let server = place.serve();
    let source = history::generated(place, git);
    for setting in ["uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"] {
        git.ok(&source, &["config", setting, "true"]);
    }
    // With tags of trees and blobs, git's own clones without trees fail.
    for odd in ["odd-of-blob", "odd-of-tree", "odd-light-blob", "odd-light-tree"] {
        git.ok(&source, &["update-ref", "-d", &format!("refs/tags/{odd}")]);
    }
    git.ok(&source, &["repack", "-adq"]);
    git.ok(&source, &["prune", "--expire=now"]);
    let rules = git.object(&source, "blob", RULES.as_bytes());
    let tree = git.ok_fed(&source, &["mktree"], format!("100644 blob {rules}\tsparse-rules\n").as_bytes());
    let commit = git.ok(&source, &["commit-tree", &tree, "-m", "rules"]);
    git.ok(&source, &["update-ref", "refs/heads/rules", &commit]);
    server.create("repo");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("repo")]);
    (server, source)
}

fn local(source: &Path) -> String {
    format!("file://{}", source.display())
}

/// The objects of a clone, without those that it could fetch.
fn held(git: &Git, dir: &Path) -> Vec<String> {
    let listed = git.ok(dir, &["cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)"]);
    let mut all: Vec<String> = listed.lines().map(str::to_owned).collect();
    all.sort();
    all
}

#[test]
fn filters_send_what_git_sends() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, source) = served(&place, &git);
    let rules = git.ok(&source, &["rev-parse", "rules:sparse-rules"]);
    let by_id = format!("sparse:oid={rules}");
    let filters = [
        "blob:none",
        "blob:limit=0",
        "blob:limit=100",
        "blob:limit=2k",
        "tree:0",
        "tree:1",
        "tree:2",
        "tree:5",
        "object:type=commit",
        "object:type=tree",
        "object:type=blob",
        "object:type=tag",
        &by_id,
        "sparse:oid=rules:sparse-rules",
        "combine:blob:none+tree:3",
        "combine:tree:3+blob:limit=1k",
        "combine:sparse:oid=rules:sparse-rules+blob:limit=2k",
        "combine:object:type=blob+blob:limit=1k",
    ];
    for (at, filter) in filters.iter().enumerate() {
        // What was served to others is kept, and must make no difference.
        let git = git.with("protocol.version", ["2", "0", "1"][at % 3]);
        let (wanted, got) = (place.path(&format!("wanted-{at}")), place.path(&format!("got-{at}")));
        let filter = format!("--filter={filter}");
        let options = ["--bare", &filter];
        git.clone_repo(&local(&source), &wanted, &options);
        git.clone_repo(&server.url("repo"), &got, &options);
        let (wanted, got) = (held(&git, &wanted), held(&git, &got));
        let missing: Vec<_> = wanted.iter().filter(|line| got.binary_search(line).is_err()).take(5).collect();
        let surplus: Vec<_> = got.iter().filter(|line| wanted.binary_search(line).is_err()).take(5).collect();
        assert!(missing.is_empty() && surplus.is_empty(), "{filter}: missing {missing:?}, surplus {surplus:?}");
    }
    // After all that, everything is still everything.
    for version in ["0", "2"] {
        let git = git.with("protocol.version", version);
        let whole = place.path(&format!("whole-{version}"));
        git.clone_repo(&server.url("repo"), &whole, &["--mirror"]);
        assert_same(&git, &source, &whole);
    }
}

/// A checkout with a filter, from the server and from git.
fn checkouts(git: &Git, place: &Place, server: &Server, source: &Path, name: &str, filter: &str) -> [PathBuf; 2] {
    [(local(source), "wanted"), (server.url("repo"), "got")].map(|(url, which)| {
        let dir = place.path(&format!("{which}-{name}"));
        git.clone_repo(&url, &dir, &[filter]);
        dir
    })
}

#[test]
fn a_partial_clone_fetches_what_it_lacks() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, source) = served(&place, &git);
    for (name, version, filter) in [
        ("blobless-0", "0", "--filter=blob:none"),
        ("blobless-2", "2", "--filter=blob:none"),
        ("treeless-2", "2", "--filter=tree:0"),
        ("small-2", "2", "--filter=blob:limit=1k"),
    ] {
        let git = git.with("protocol.version", version);
        let [wanted, got] = checkouts(&git, &place, &server, &source, name, filter);
        let same = |arguments: &[&str]| {
            assert_eq!(git.ok(&wanted, arguments), git.ok(&got, arguments), "{name}: {arguments:?}");
        };
        same(&["status", "--short"]);
        same(&["log", "-p", "--no-renames", "-n", "25"]);
        same(&["checkout", "-q", "main~200"]);
        same(&["status", "--short"]);
        same(&["ls-files", "-s"]);
        same(&["diff", "--stat", "main~300", "main~250"]);
        assert_eq!(held(&git, &wanted), held(&git, &got), "{name}");
    }
}

#[test]
fn a_partial_clone_follows_what_others_push() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let theirs = place.path("theirs");
    git.init(&theirs);
    let text =
        |at: usize| -> String { (0..4000).map(|n| format!("line {n} {}\n", if n == at { at } else { 0 })).collect() };
    git.commit(&theirs, "large", text(1).as_bytes(), "large");
    git.commit(&theirs, "dir/small", b"small\n", "small");
    git.ok(&theirs, &["remote", "add", "origin", &server.url("repo")]);
    git.ok(&theirs, &["push", "-q", "origin", "main"]);
    for version in ["0", "2"] {
        for (at, filter) in ["blob:none", "tree:0", "blob:limit=100"].iter().enumerate() {
            let git = git.with("protocol.version", version);
            let ours = place.path(&format!("ours-{version}-{at}"));
            git.clone_repo(&server.url("repo"), &ours, &[&format!("--filter={filter}")]);
            // Nothing of the large file but its newest version, which a delta could stand on, is in the clone.
            let number: usize = version.parse::<usize>().expect("a number") * 10 + at + 2;
            git.commit(&theirs, "large", text(number).as_bytes(), "changed");
            git.commit(&theirs, "dir/small", format!("small {number}\n").as_bytes(), "changed");
            git.ok(&theirs, &["push", "-q", "origin", "main"]);
            // A bare fetch: it must be enough by itself, without anything fetched later.
            let alone = git.with("remote.origin.promisor", "true");
            alone.ok(&ours, &["fetch", "-q", "origin"]);
            git.ok(&ours, &["fsck", "--no-dangling", "--no-progress"]);
            git.ok(&ours, &["pull", "-q"]);
            assert_eq!(std::fs::read_to_string(ours.join("large")).expect("the file"), text(number), "{filter}");
            let head = git.commit(&ours, "mine", filter.as_bytes(), "mine");
            git.ok(&ours, &["push", "-q", "origin", "HEAD:refs/heads/mine", "--force"]);
            assert!(git.ok(&theirs, &["ls-remote", "origin", "refs/heads/mine"]).starts_with(&head));
        }
    }
}

/// The answer to a fetch in version 2: what comes before the pack, and the pack.
pub(crate) fn ask_v2(server: &Server, repo: &str, arguments: &[String]) -> (Vec<String>, Vec<u8>) {
    let mut body = [command_head("fetch"), b"0001".to_vec()].concat();
    body.extend(arguments.iter().flat_map(|argument| line(argument.as_bytes())));
    body.extend_from_slice(b"0000");
    answer(server, repo, "version=2", &body)
}

pub(crate) fn answer(server: &Server, repo: &str, version: &str, body: &[u8]) -> (Vec<String>, Vec<u8>) {
    let headers = [("content-type", "application/x-git-upload-pack-request"), ("git-protocol", version)];
    let reply = server.http().send("POST", &format!("/{repo}.git/git-upload-pack"), &headers, body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let (mut said, mut pack) = (Vec::new(), Vec::new());
    for payload in lines(&reply.body) {
        match payload.first() {
            Some(1) => pack.extend_from_slice(&payload[1..]),
            Some(2) => {}
            _ => said.push(String::from_utf8_lossy(&payload).trim_end_matches('\n').to_owned()),
        }
    }
    (said, pack)
}

/// The answer to a want of an object in version 2, and in version 0.
fn want(server: &Server, repo: &str, oid: &str) -> [(Vec<String>, Vec<u8>); 2] {
    let v2 = ["no-progress".to_owned(), format!("want {oid}"), "done".to_owned()];
    let v0 = [line(format!("want {oid} side-band-64k no-progress\n").as_bytes()), b"0000".to_vec(), line(b"done\n")];
    [ask_v2(server, repo, &v2), answer(server, repo, "", &v0.concat())]
}

#[track_caller]
fn assert_served(server: &Server, repo: &str, oid: &str, objects: u32) {
    for (said, pack) in want(server, repo, oid) {
        assert!(pack.starts_with(b"PACK"), "{oid} of {repo}: {said:?}");
        assert_eq!(u32::from_be_bytes(pack[8..12].try_into().expect("four bytes")), objects, "{oid} of {repo}");
    }
}

#[track_caller]
pub(crate) fn assert_refused(server: &Server, repo: &str, oid: &str) {
    // Longer than what has just gone is still served here.
    std::thread::sleep(std::time::Duration::from_millis(5));
    for (said, pack) in want(server, repo, oid) {
        assert_eq!(said, [format!("ERR upload-pack: not our ref {oid}")], "{repo}");
        assert!(pack.is_empty());
    }
    // Of its size nothing is said either.
    assert_eq!(sizes(server, repo, &[oid]), ["size".to_owned(), format!("{oid} ")]);
}

#[test]
fn what_a_reference_named_a_moment_ago_is_served_to_who_was_told_of_it() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    let rev = |name: &str| git.ok(&work, &["rev-parse", name]);
    git.commit(&work, "file", b"first\n", "first");
    git.ok(&work, &["remote", "add", "origin", &server.url("repo")]);
    git.ok(&work, &["push", "-q", "origin", "main", "main:gone"]);
    git.ok(&work, &["checkout", "-q", "-b", "side"]);
    git.commit(&work, "side", b"old\n", "old");
    git.ok(&work, &["push", "-q", "origin", "side"]);
    let old = rev("HEAD");
    let blob = rev("HEAD:side");
    git.ok(&work, &["reset", "-q", "--hard", "main"]);
    git.commit(&work, "side", b"new\n", "new");
    // Between what a client was told and what it asks for, a branch is moved with force, and another one goes.
    git.ok(&work, &["push", "-q", "--force", "origin", "side"]);
    git.ok(&work, &["push", "-q", "origin", "--delete", "gone"]);
    assert_served(&server, "repo", &old, 6);
    assert_served(&server, "repo", &blob, 1);
    let ask = |name: &str| ask_v2(&server, "repo", &[format!("want-ref {name}"), "done".to_owned()]);
    let (said, pack) = ask("refs/heads/gone");
    assert!(pack.starts_with(b"PACK") && said.contains(&format!("{} refs/heads/gone", rev("main"))), "{said:?}");
    let (said, _) = ask("refs/heads/side");
    assert!(said.contains(&format!("{} refs/heads/side", rev("side"))), "{said:?}");
    let (said, pack) = ask("refs/heads/never");
    assert!(pack.is_empty() && said == ["ERR unknown ref refs/heads/never"], "{said:?}");
    // What no reference ever led to is not.
    let stray = git.object(&work, "blob", b"stray\n");
    assert_refused(&server, "repo", &stray);
}

/// What `object-info` says.
fn sizes(server: &Server, repo: &str, oids: &[&str]) -> Vec<String> {
    let mut body = [command_head("object-info"), b"0001".to_vec(), line(b"size\n")].concat();
    body.extend(oids.iter().flat_map(|oid| line(format!("oid {oid}\n").as_bytes())));
    body.extend_from_slice(b"0000");
    answer(server, repo, "version=2", &body).0
}

#[test]
fn an_object_is_had_by_its_id_where_something_leads_to_it() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.launch().env("GOVC_FETCH_GRACE", "1ms").start();
    for repo in ["repo", "other"] {
        server.create(repo);
    }
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "dir/file", b"content\n", "first");
    git.ok(&work, &["tag", "-a", "-m", "tagged", "tagged"]);
    let rev = |name: &str| git.ok(&work, &["rev-parse", name]);
    let first = [rev("HEAD"), rev("HEAD^{tree}"), rev("HEAD:dir"), rev("HEAD:dir/file"), rev("tagged")];
    git.ok(&work, &["remote", "add", "origin", &server.url("repo")]);
    git.ok(&work, &["push", "-q", "origin", "main"]);
    git.commit(&work, "dir/file", b"changed\n", "second");
    git.ok(&work, &["push", "-q", "origin", "main"]);
    for (oid, objects) in first.iter().zip([4, 3, 2, 1]) {
        assert_served(&server, "repo", oid, objects);
        assert_refused(&server, "other", oid);
    }
    assert_refused(&server, "repo", &first[4]);
    git.ok(&work, &["push", "-q", "origin", "tagged"]);
    assert_served(&server, "repo", &first[4], 5);

    // What a branch had alone goes with it, and comes back with it; also what a push with force leaves behind.
    let names = ["HEAD", "HEAD^{tree}", "HEAD:only", "HEAD:only/here"];
    git.ok(&work, &["checkout", "-q", "-b", "side"]);
    git.commit(&work, "only/here", b"alone\n", "side");
    let side = names.map(rev);
    git.ok(&work, &["push", "-q", "origin", "side"]);
    assert_served(&server, "repo", &side[3], 1);
    let fork = server.http().post("/api/v1/repos/repo/fork", &json!({ "id": "fork" }));
    assert_eq!(fork.status, 201, "{}", fork.text());
    git.ok(&work, &["push", "-q", "origin", "--delete", "side"]);
    for oid in &side {
        assert_refused(&server, "repo", oid);
        assert_served(&server, "fork", oid, want(&server, "fork", oid)[0].1[11].into());
    }
    git.ok(&work, &["push", "-q", "origin", "side:other-name"]);
    assert_served(&server, "repo", &side[3], 1);
    git.ok(&work, &["push", "-q", "--force", "origin", "main:other-name"]);
    assert_refused(&server, "repo", &side[3]);
    // What comes to a source afterwards is not its fork's.
    git.commit(&work, "later", b"later\n", "later");
    git.ok(&work, &["push", "-q", "origin", "side:later"]);
    assert_served(&server, "repo", &rev("HEAD:later"), 1);
    assert_refused(&server, "fork", &rev("HEAD:later"));
    assert_refused(&server, "repo", &tested::id_of("1"));

    // Realities are seen by who asks for them; so is what they lead to, as long as they are there.
    let made = server.http().post("/api/v1/repos/repo/parallel-realities", &json!({ "branches": ["try"] }));
    assert_eq!(made.status, 201, "{}", made.text());
    let change = json!({ "message": "tried", "changes": [{ "op": "put", "path": "tried", "content": "tried\n" }] });
    let applied = server.http().post("/api/v1/repos/repo/parallel-realities/try/apply", &change);
    let tried = applied.json()["hash"].as_str().unwrap_or_else(|| panic!("{}", applied.text())).to_owned();
    let blob = git.object(&work, "blob", b"tried\n");
    assert_served(&server, "repo", &blob, 1);
    let (said, pack) = ask_v2(&server, "repo", &["want-ref refs/realities/try".to_owned(), "done".to_owned()]);
    assert!(pack.starts_with(b"PACK") && said.contains(&format!("{tried} refs/realities/try")), "{said:?}");
    assert_eq!(server.http().delete("/api/v1/repos/repo/parallel-realities/try").status, 204);
    assert_refused(&server, "repo", &blob);
    assert_refused(&server, "repo", &tried);
}

#[test]
fn sparse_patterns_are_had_as_other_objects_are() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.launch().env("GOVC_FETCH_GRACE", "1ms").start();
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "a.txt", b"a\n", "a");
    git.commit(&work, "b.rs", b"b\n", "b");
    let head = git.ok(&work, &["rev-parse", "HEAD"]);
    server.create("repo");
    git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
    git.ok(&work, &["checkout", "-q", "-b", "side"]);
    git.commit(&work, "rules", b"*.txt\n", "rules");
    let rules = git.ok(&work, &["rev-parse", "HEAD:rules"]);
    let ask = |name: &str| {
        let arguments =
            ["no-progress".to_owned(), format!("want {head}"), format!("filter sparse:oid={name}"), "done".to_owned()];
        ask_v2(&server, "repo", &arguments)
    };
    let refused = |name: &str| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        let (said, pack) = ask(name);
        assert_eq!(said, [format!("ERR unable to access sparse blob in '{name}'")]);
        assert!(pack.is_empty());
    };
    refused(&rules);
    refused("side:rules");
    git.ok(&work, &["push", "-q", &server.url("repo"), "side"]);
    for name in [&rules[..], "side:rules", "refs/heads/side:rules"] {
        let (said, pack) = ask(name);
        assert!(pack.starts_with(b"PACK"), "{said:?}");
        assert_eq!(pack[11], 5, "two commits, two trees, one of the blobs");
    }
    for name in ["main:nothing", "main:", "main", &head, "nothing", "", &tested::id_of("1")] {
        refused(name);
    }
    git.ok(&work, &["push", "-q", &server.url("repo"), "--delete", "side"]);
    refused(&rules);
}

#[test]
fn a_filtered_pack_is_never_a_whole_one() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, source) = served(&place, &git);
    // Both ways round, each served from what the other left.
    for (name, first, second) in [("a", "--no-filter", "--filter=blob:none"), ("b", "--filter=tree:1", "--no-filter")] {
        for (at, filter) in [first, second, first, second].iter().enumerate() {
            let dir = place.path(&format!("{name}-{at}"));
            git.clone_repo(&server.url("repo"), &dir, &["--mirror", filter]);
            let blobs = held(&git, &dir).iter().filter(|line| line.ends_with("blob")).count();
            if *filter == "--no-filter" {
                assert_same(&git, &source, &dir);
            } else {
                assert!(blobs < 5, "{filter}: {blobs} blobs");
            }
        }
    }
}

/// How many objects come for `main` with a filter.
fn count(server: &Server, head: &str, filter: &str) -> u32 {
    let arguments = [format!("want {head}"), format!("filter {filter}"), "no-progress".to_owned(), "done".to_owned()];
    let (said, pack) = ask_v2(server, "repo", &arguments);
    assert!(pack.starts_with(b"PACK"), "{filter}: {said:?}");
    u32::from_be_bytes(pack[8..12].try_into().expect("four bytes"))
}

#[test]
fn limits_are_exact_and_an_object_passes_at_any_of_its_paths() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    for path in ["a/dir/file", "z/file", "other/rules"] {
        std::fs::create_dir_all(work.join(path).parent().expect("a folder")).expect("a folder");
        std::fs::write(work.join(path), if path == "other/rules" { "/z/\n" } else { "ten bytes\n" }).expect("a file");
    }
    let head = git.commit(&work, "a/dir/file", b"ten bytes\n", "one directory in two places");
    git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
    // The commit, the root, three directories of which one is in two places, and two files.
    for (filter, objects) in [
        ("blob:limit=10", 5 + 1),
        ("blob:limit=11", 5 + 2),
        ("blob:limit=5", 5 + 1),
        ("blob:limit=4", 5),
        ("tree:1", 2),
        ("tree:2", 5),
        // In `z`, but not in `a/dir`.
        ("tree:3", 5 + 2),
        ("sparse:oid=main:other/rules", 5 + 1),
        ("combine:sparse:oid=main:other/rules+tree:3", 5 + 1),
        ("combine:sparse:oid=main:other/rules+tree:2", 5),
        ("combine:object:type=blob+object:type=tree", 1),
    ] {
        assert_eq!(count(&server, &head, filter), objects, "{filter}");
    }
}

#[test]
fn what_a_client_left_out_is_no_base() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    let text = |lines: std::ops::Range<usize>| lines.map(|n| format!("line {n} of the text\n")).collect::<String>();
    let old = git.commit(&work, "text", text(0..4000).as_bytes(), "long");
    git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
    let new = git.commit(&work, "text", text(0..3000).as_bytes(), "shorter");
    git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
    let fetch = |more: &[&str]| {
        let asked = ["thin-pack", "ofs-delta", "no-progress", &format!("want {new}"), &format!("have {old}"), "done"];
        ask_v2(&server, "repo", &[&asked, more].concat().iter().map(|&line| line.to_owned()).collect::<Vec<_>>()).1
    };
    let empty = place.path("empty");
    git.init(&empty);
    let is_whole = |pack: &[u8]| git.feed(&empty, &["index-pack", "--stdin"], pack).status.success();
    assert!(!is_whole(&fetch(&[])), "a thin pack has its base elsewhere");
    let limit = format!("filter blob:limit={}", text(0..3500).len());
    assert!(is_whole(&fetch(&[&limit])), "the client has no such base");
}
