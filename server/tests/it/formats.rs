//! Repositories of either object format, side by side on one server; and the scenarios of the other modules in SHA-256.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use govc_engine::{Kind, ObjectFormat, Oid, PackHasher, hash_object};
use serde_json::{Value, json};

use crate::{
    admin::text,
    git::{Git, assert_same},
    history::noise,
    http::items,
    http_backend::HttpBackend,
    import::{self, exported, import},
    pack::{RefChange, Report, deflate, line, lines},
    server::{Place, Server},
    tested,
};

/// Runs scenarios of other modules in a process whose repositories have SHA-256 ids; `skipped` are not of the format.
#[track_caller]
fn in_sha256(modules: &[&str], skipped: &[&str]) {
    // In such a process already.
    if tested::format() == ObjectFormat::Sha256 {
        return;
    }
    let mut command = Command::new(std::env::current_exe().expect("the tests' own program"));
    command.env(tested::VARIABLE, ObjectFormat::Sha256.as_str());
    // They are one test among others here, which run beside them.
    command.arg("--test-threads=2");
    command.args(modules.iter().map(|module| format!("{module}::")));
    for name in skipped {
        command.args(["--skip", name]);
    }
    let output = command.output().expect("the tests' own program runs");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{modules:?} in SHA-256 ended with {}:\n{said}", output.status);
    assert!(!said.contains("running 0 tests"), "{modules:?} names nothing");
}

#[test]
fn whole_histories_fetches_and_pushes_in_sha256() {
    in_sha256(&["identity", "fetch", "push", "refused"], &["signed_push", "slow_push"]);
}

#[test]
fn partial_clones_kept_packs_and_hostile_ones_in_sha256() {
    in_sha256(&["partial", "kept", "hostile"], &[]);
}

#[test]
fn signatures_rules_exports_and_imports_in_sha256() {
    in_sha256(&["signed_push", "rules", "export", "import"], &[]);
}

#[test]
fn slow_pushes_in_sha256() {
    in_sha256(&["slow_push"], &["memory"]);
}

#[test]
fn the_api_in_sha256() {
    in_sha256(&["rest_commits", "rest_forks", "rest_read", "grep", "search"], &[]);
}

fn other(format: ObjectFormat) -> ObjectFormat {
    match format {
        ObjectFormat::Sha1 => ObjectFormat::Sha256,
        ObjectFormat::Sha256 => ObjectFormat::Sha1,
    }
}

#[track_caller]
fn create(server: &Server, repo: &str, format: ObjectFormat) -> Value {
    let made = server.http().post("/api/v1/repos", &json!({ "id": repo, "object_format": format.as_str() }));
    made.expect(201)
}

/// A repository with a working tree and a few commits, all of which `main` and a tag lead to.
fn worked(git: &Git, place: &Place, name: &str, format: ObjectFormat) -> PathBuf {
    let dir = place.path(name);
    std::fs::create_dir_all(&dir).expect("a folder");
    git.ok(&dir, &["init", "-q", &format!("--object-format={format}")]);
    for at in 0..4 {
        git.commit(&dir, &format!("dir/file{}", at % 2), format!("content {at}\n").repeat(50).as_bytes(), "more");
    }
    git.ok(&dir, &["tag", "-a", "-m", "a tag", "v1"]);
    dir
}

/// A server with a repository of each format, named by it and filled, and where each is from.
fn served(place: &Place, git: &Git, server: &Server) -> [(ObjectFormat, PathBuf); 2] {
    ObjectFormat::ALL.map(|format| {
        create(server, format.as_str(), format);
        let work = worked(git, place, &format!("work-{format}"), format);
        git.ok(&work, &["push", "-q", &server.url(format.as_str()), "main", "v1"]);
        (format, work)
    })
}

#[test]
fn a_repository_says_its_format_and_keeps_it() {
    let place = Place::new();
    let server = place.serve();
    let http = server.http();
    assert_eq!(http.post("/api/v1/repos", &json!({ "id": "usual" })).expect(201)["object_format"], "sha1");
    for format in ObjectFormat::ALL {
        assert_eq!(create(&server, format.as_str(), format)["object_format"], format.as_str());
        let shown = http.get(&format!("/api/v1/repos/{format}")).expect(200);
        assert_eq!(shown["object_format"], format.as_str());
        let fork = json!({ "id": format!("fork-{format}") });
        let fork = http.post(&format!("/api/v1/repos/{format}/fork"), &fork).expect(201);
        assert_eq!(fork["object_format"], format.as_str(), "a fork is what its source is");
        let change = json!({ "description": "another", "durability": "relaxed" });
        let changed = http.patch(&format!("/api/v1/repos/{format}"), &change).expect(200);
        assert_eq!(changed["object_format"], format.as_str());
        let into = json!({ "object_format": other(format).as_str() });
        http.patch(&format!("/api/v1/repos/{format}"), &into).problem(400);
    }
    let listed = items(&http.get("/api/v1/repos").expect(200));
    let formats: Vec<_> = listed.iter().map(|repo| repo["object_format"].as_str().expect("a format")).collect();
    assert_eq!(formats, ["sha1", "sha256", "sha1", "sha256", "sha1"]);
    for wrong in ["sha3", "SHA256", "", "sha256 "] {
        let refused = http.post("/api/v1/repos", &json!({ "id": "x", "object_format": wrong })).problem(400);
        assert!(refused.to_string().contains("there are sha1 and sha256"), "{refused}");
    }
}

#[test]
fn what_is_made_without_saying_is_what_the_setting_says() {
    for (word, format) in [("sha1", ObjectFormat::Sha1), ("sha256", ObjectFormat::Sha256)] {
        let place = Place::new();
        let git = Git::new(&place.path("home"));
        let launch = place.launch().with(&["--create-on-push"]).env("GOVC_DEFAULT_OBJECT_FORMAT", word);
        let server = launch.start();
        let made = server.http().post("/api/v1/repos", &json!({ "id": "usual" })).expect(201);
        assert_eq!(made["object_format"], word);
        create(&server, "other", other(format));
        let work = worked(&git, &place, "work", format);
        let head = git.ok(&work, &["rev-parse", "HEAD"]);
        git.ok(&work, &["push", "-q", &server.url("pushed"), "main"]);
        assert_eq!(server.http().get("/api/v1/repos/pushed").expect(200)["object_format"], word);
        assert_eq!(git.ok(&work, &["ls-remote", &server.url("pushed"), "main"]), format!("{head}\trefs/heads/main"));
        // What a push would make is of the setting's format, too.
        let foreign = worked(&git, &place, "foreign", other(format));
        let said = git.fails(&foreign, &["push", "-q", &server.url("foreign"), "main"]);
        // As of an empty repository that git itself serves.
        assert!(said.contains("unexpected capabilities^{}") || said.contains("hash algorithm"), "{said}");
        assert_eq!(server.http().get("/api/v1/repos/foreign").status, 404);
    }
    let said = Place::new().launch().env("GOVC_DEFAULT_OBJECT_FORMAT", "sha3").refused();
    assert!(said.contains("git.default_object_format") && said.contains("expected sha1 or sha256"), "{said}");
}

#[test]
fn both_formats_are_served_side_by_side_and_after_restarts() {
    for backend in ["rocksdb", "sqlite"] {
        let place = Place::new();
        let git = Git::new(&place.path("home"));
        let mut server = place.launch().with(&["--backend", backend]).start();
        let repos = served(&place, &git, &server);
        for round in 0..3 {
            for (format, work) in &repos {
                for version in ["0", "1", "2"] {
                    let mirror = place.path(&format!("mirror-{format}-{version}-{round}"));
                    let git = git.with("protocol.version", version);
                    git.clone_repo(&server.url(format.as_str()), &mirror, &["--mirror"]);
                    assert_same(&git, work, &mirror);
                    assert_eq!(git.ok(&mirror, &["rev-parse", "--show-object-format"]), format.as_str());
                    let empty = format!("empty-{format}-{version}-{round}");
                    create(&server, &empty, *format);
                    // A clone of nothing is of git's own format, not the server's, up to git 2.39.
                    git.clone_repo(&server.url(&empty), &place.path(&empty), &[]);
                    git.ok(work, &["push", "-q", &server.url(&empty), "main"]);
                }
                git.commit(work, "more", format!("{round}\n").as_bytes(), "more");
                git.ok(work, &["push", "-q", &server.url(format.as_str()), "main"]);
            }
            server = if round == 0 { server.stop().start() } else { server.kill().start() };
        }
    }
}

#[test]
fn formats_are_never_mixed_by_git() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let repos = served(&place, &git, &server);
    for (format, _) in &repos {
        let (_, foreign) = repos.iter().find(|(other, _)| other != format).expect("another");
        for version in ["0", "1", "2"] {
            let git = git.with("protocol.version", version);
            let url = server.url(format.as_str());
            let said = git.fails(foreign, &["fetch", "-q", &url, "main"]);
            let word = match version {
                "2" => "mismatched algorithms",
                _ => "does not support this repository's object format",
            };
            assert!(said.contains(word), "{format} {version}: {said}");
            let said = git.fails(foreign, &["push", "-q", &url, "main:refs/heads/other"]);
            assert!(said.contains("does not support this repository's hash algorithm"), "{format} {version}: {said}");
        }
    }
}

#[test]
fn clients_that_speak_of_another_format_are_told_so() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    for (format, work) in served(&place, &git, &server) {
        let theirs = other(format);
        let post = |service: &str, body: &[u8]| {
            let kind = format!("application/x-{service}-request");
            let headers = [("content-type", kind.as_str()), ("git-protocol", "version=2")];
            server.http().send("POST", &format!("/{format}.git/{service}"), &headers, body)
        };
        let head = git.ok(&work, &["rev-parse", "main"]);
        let foreign = theirs.empty_tree();
        let asked = |words: &[&str], want: &str| {
            let mut body: Vec<u8> = words.iter().flat_map(|word| line(word.as_bytes())).collect();
            body.extend_from_slice(b"0001");
            body.extend([format!("want {want}"), "done".to_owned()].iter().flat_map(|text| line(text.as_bytes())));
            body.extend_from_slice(b"0000");
            lines(&post("git-upload-pack", &body).body).concat()
        };
        let said = |answer: Vec<u8>| String::from_utf8_lossy(&answer).into_owned();
        let other_word = format!("object-format={theirs}");
        let refusal = format!("ERR mismatched object format: server {format}; client {theirs}\n");
        assert_eq!(said(asked(&["command=fetch", &other_word], &head)), refusal);
        let own_word = format!("object-format={format}");
        assert!(asked(&["command=fetch", &own_word], &head).starts_with(b"packfile\n"));
        // Who says nothing speaks of SHA-1, as to git.
        let unsaid = asked(&["command=fetch"], &head);
        match format {
            ObjectFormat::Sha1 => assert!(unsaid.starts_with(b"packfile\n")),
            ObjectFormat::Sha256 => assert_eq!(said(unsaid), refusal),
        }
        let odd = said(asked(&["command=fetch", &own_word], &foreign.to_string()));
        assert!(odd.starts_with("ERR protocol error, expected object ID"), "{odd}");

        let push = |old: Oid, new: Oid, word: &str| {
            let command = format!("{old} {new} refs/heads/other\0report-status {word}");
            let body = [&line(command.as_bytes())[..], b"0000"].concat();
            said(lines(&post("git-receive-pack", &body).body).concat())
        };
        let ours = head.parse().expect("an id");
        assert_eq!(push(format.null(), ours, &other_word), format!("ERR unsupported object format '{theirs}'\n"));
        for (old, new) in [(theirs.null(), ours), (format.null(), foreign), (theirs.null(), foreign)] {
            let odd = push(old, new, &own_word);
            assert!(odd.starts_with("ERR protocol error: expected old/new/ref"), "{odd}");
        }
        let unsaid = push(theirs.null(), foreign, "");
        assert!(unsaid.starts_with("ERR "), "{unsaid}");
        assert_eq!(git.ok(&work, &["ls-remote", "--heads", &server.url(format.as_str())]).lines().count(), 1);
    }
}

/// A pack of these entries, type number, what precedes the stream, and content, that ends as one of `format` does.
fn pack(format: ObjectFormat, entries: &[(u8, &[u8], &[u8])]) -> Vec<u8> {
    let mut pack = b"PACK\0\0\0\x02".to_vec();
    pack.extend_from_slice(&(entries.len() as u32).to_be_bytes());
    for (number, base, content) in entries {
        assert!(content.len() < 2048, "two bytes hold the size");
        pack.extend_from_slice(&[0x80 | number << 4 | (content.len() & 15) as u8, (content.len() >> 4) as u8]);
        pack.extend_from_slice(base);
        pack.extend(deflate(content));
    }
    let mut hasher = PackHasher::new(format);
    hasher.update(&pack);
    pack.extend_from_slice(hasher.finish().expect("an ordinary pack").as_bytes());
    pack
}

#[test]
fn packs_with_ids_of_the_other_format_are_refused() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    for (format, _) in served(&place, &git, &server) {
        let theirs = other(format);
        let id = |of: ObjectFormat, kind: Kind, data: &[u8]| hash_object(of, kind, data).expect("an ordinary object");
        let blob = b"a blob\n";
        let tree = |of: ObjectFormat| [&b"100644 file\0"[..], id(of, Kind::Blob, blob).as_bytes()].concat();
        let commit = |tree: Oid, parent: Option<Oid>| {
            let parent = parent.map_or_else(String::new, |parent| format!("parent {parent}\n"));
            let person = "Ada <ada@example.com> 1700000000 +0100";
            format!("tree {tree}\n{parent}author {person}\ncommitter {person}\n\nx\n").into_bytes()
        };
        let (ours, foreign) = (tree(format), tree(theirs));
        let sound = commit(id(format, Kind::Tree, &ours), None);
        let of_foreign_tree = commit(id(theirs, Kind::Tree, &foreign), None);
        let foreign_parent = commit(id(format, Kind::Tree, &ours), Some(id(theirs, Kind::Commit, &sound)));
        let over_foreign = commit(id(format, Kind::Tree, &foreign), None);
        let tag = |target: Oid| format!("object {target}\ntype commit\ntag x\ntagger Ada <a@b.c> 1 +0000\n\nx\n");
        let foreign_tag = tag(id(theirs, Kind::Commit, &sound)).into_bytes();
        let push = |tip: (Kind, &Vec<u8>), pack: &[u8]| {
            let new = id(format, tip.0, tip.1);
            let change = RefChange { old: format.null(), new, name: b"refs/tags/x".to_vec() };
            let mut body = Vec::new();
            let command = format!("{} {new} refs/tags/x\0report-status object-format={format}", change.old);
            body.extend(line(command.as_bytes()));
            body.extend_from_slice(b"0000");
            body.extend_from_slice(pack);
            let headers = [("content-type", "application/x-git-receive-pack-request")];
            let reply = server.http().send("POST", &format!("/{format}.git/git-receive-pack"), &headers, &body);
            Report::parse(&reply.body)
        };
        let whole = |commit: &[u8], tree: &[u8]| pack(format, &[(3, b"", blob), (2, b"", tree), (1, b"", commit)]);
        let base = id(theirs, Kind::Blob, blob);
        let delta = [7, 7, 0x90, 7];
        let (commits, tags) = (Kind::Commit, Kind::Tag);
        for (what, tip, bytes) in [
            ("the trailer", (commits, &sound), pack(theirs, &[(3, b"", blob), (2, b"", &ours), (1, b"", &sound)])),
            ("a tree's entry", (commits, &over_foreign), whole(&over_foreign, &foreign)),
            ("a commit's tree", (commits, &of_foreign_tree), whole(&of_foreign_tree, &ours)),
            ("a commit's parent", (commits, &foreign_parent), whole(&foreign_parent, &ours)),
            ("a tag's object", (tags, &foreign_tag), pack(format, &[(4, b"", &foreign_tag)])),
            ("a delta's base", (commits, &sound), pack(format, &[(3, b"", blob), (7, base.as_bytes(), &delta)])),
        ] {
            let report = push(tip, &bytes);
            assert!(!report.accepted() && report.unpack != "ok", "{format}: {what}: {report:?}");
        }
        let report = push((commits, &sound), &whole(&sound, &ours));
        assert!(report.accepted(), "{format}: {report:?}");
    }
}

#[test]
fn the_api_takes_ids_of_the_repository_only() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let http = server.http();
    for (format, work) in served(&place, &git, &server) {
        let at = |path: &str| format!("/api/v1/repos/{format}/{path}");
        let digits = format.hex_len();
        let head = git.ok(&work, &["rev-parse", "main"]);
        assert_eq!(head.len(), digits);
        for cut in [digits, digits - 1, 39, 12, 4] {
            let commit = http.get(&at(&format!("commits/{}", &head[..cut]))).expect(200);
            assert_eq!(commit["hash"], *head, "{cut}");
        }
        // An abbreviation of the one is an id of the other in length only.
        let long = "1".repeat(other(format).hex_len());
        http.get(&at(&format!("commits/{long}"))).problem(404);
        let commit_with = |more: Value| {
            let change = json!({ "op": "put", "path": "new", "content": "new\n" });
            let person = json!({ "name": "Ada", "email": "ada@example.com" });
            let mut body = json!({ "message": "m", "author": person, "changes": [change] });
            more.as_object().expect("members").iter().for_each(|(name, value)| body[name] = value.clone());
            http.post(&at("commits"), &body)
        };
        for member in ["expected_head", "blob"] {
            for wrong in [&long[..], &head[..digits - 1], "x"] {
                let more = match member {
                    "blob" => json!({ "changes": [{ "op": "put", "path": "new", "blob": wrong }] }),
                    member => json!({ member: wrong }),
                };
                let problem = commit_with(more).problem(400);
                assert!(problem.to_string().contains(&format!("{digits} hexadecimal digits")), "{problem}");
            }
        }
        let made = commit_with(json!({ "expected_head": head })).expect(201);
        git.ok(&work, &["pull", "-q", &server.url(format.as_str()), "main"]);
        assert_eq!(made["hash"], *git.ok(&work, &["rev-parse", "HEAD"]));
        assert_eq!(git.findings(&work).0, Some(0));
        let read = http.get(&at(&format!("read/dir/file0?ref={}", &head[..digits - 1]))).expect(200);
        assert_eq!(read["hash"], *git.ok(&work, &["rev-parse", "v1:dir/file0"]));
    }
}

#[test]
fn imports_take_the_format_of_their_source() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    import::empty_store(&place);
    for format in ObjectFormat::ALL {
        let foreign = other(format);
        let work = worked(&git, &place, &format!("work-{format}"), format);
        git.commit(&work, "noise", &noise(7, 100_000), "noise");
        let bare = place.path(&format!("bare-{format}.git"));
        git.clone_repo(text(&work), &bare, &["--mirror", "--no-local"]);
        let bundle = place.path(&format!("{format}.bundle"));
        git.ok(&work, &["bundle", "create", "-q", text(&bundle), "--all"]);
        let backend = HttpBackend::start(&git, bare.parent().expect("a folder"), |_, given| given);
        let name = bare.file_name().and_then(|name| name.to_str()).expect("a name");
        let empty = place.path(&format!("empty-{format}.git"));
        git.ok(&place.path("home"), &["init", "-q", "--bare", &format!("--object-format={format}"), text(&empty)]);
        let sources = [text(&work).to_owned(), text(&bare).to_owned(), text(&bundle).to_owned(), backend.url(name)];
        for (at, source) in sources.iter().enumerate() {
            let into = format!("{format}-{at}");
            for slice in ["1", "1000"] {
                import(&place, &[source, "--into", &format!("{into}-{slice}"), "--slice", slice]);
                let out = exported(&place, &format!("{into}-{slice}"), "out.git");
                assert_eq!(git.ok(&out, &["rev-parse", "--show-object-format"]), format.as_str());
                assert_same(&git, &bare, &out);
            }
            // What is there is of the other format, whether it is empty or not.
            for into in ["full", "void"].map(|name| format!("{name}-{foreign}")) {
                if !import::exists(&place, &into) {
                    let their = match &into[..4] {
                        "void" => place.path(&format!("none-{foreign}.git")),
                        _ => place.path(&format!("one-{foreign}.git")),
                    };
                    let home = place.path("home");
                    git.ok(&home, &["init", "-q", "--bare", &format!("--object-format={foreign}"), text(&their)]);
                    if into.starts_with("full") {
                        let small = worked(&git, &place, &format!("small-{foreign}"), foreign);
                        git.ok(&small, &["push", "-q", text(&their), "main"]);
                    }
                    import(&place, &[text(&their), "--into", &into]);
                }
                let words = [format!("{format} ids"), format!("{foreign} ids"), "cannot be mixed".to_owned()];
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                import::refused(&place, &[source, "--into", &into], &words);
            }
        }
        import(&place, &[text(&empty), "--into", &format!("empty-{format}")]);
        let out = exported(&place, &format!("empty-{format}"), "out.git");
        assert_eq!(git.ok(&out, &["rev-parse", "--show-object-format"]), format.as_str());
        let (_, stats, _) = import::run(&place, &["stats", "--json"]);
        let stats: Value = serde_json::from_str(&stats).expect("JSON");
        let repos = stats["repositories"].as_array().expect("repositories");
        let empty = repos.iter().find(|repo| repo["name"] == format!("empty-{format}")).expect("it is listed");
        assert_eq!(empty["object_format"], format.as_str());
    }
}

/// What git writes to a bundle's beginning, and to the configuration of a repository.
#[test]
fn exports_say_their_format_as_git_does() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let repos = served(&place, &git, &server);
    server.stop();
    for (format, work) in repos {
        let theirs = place.path(&format!("theirs-{format}.git"));
        git.clone_repo(text(&work), &theirs, &["--mirror", "--no-local"]);
        let ours = exported(&place, format.as_str(), &format!("ours-{format}.git"));
        for setting in ["core.repositoryformatversion", "extensions.objectformat", "core.bare"] {
            let asked = |dir: &Path| git.run(dir, &["config", "--file", "config", setting]).stdout;
            assert_eq!(asked(&ours), asked(&theirs), "{format}: {setting}");
        }
        assert_same(&git, &theirs, &ours);
        let bundles = ["theirs", "ours"].map(|whose| place.path(&format!("{whose}-{format}.bundle")));
        git.ok(&theirs, &["bundle", "create", "-q", text(&bundles[0]), "--all"]);
        exported(&place, format.as_str(), &format!("ours-{format}.bundle"));
        let heads = bundles.map(|bundle| {
            git.ok(&work, &["bundle", "verify", "-q", text(&bundle)]);
            let bytes = std::fs::read(bundle).expect("a bundle");
            let head: Vec<_> = bytes.split(|byte| *byte == b'\n').take(2).map(<[u8]>::to_vec).collect();
            head.into_iter().filter(|line| line.starts_with(b"#") || line.starts_with(b"@")).collect::<Vec<_>>()
        });
        assert_eq!(heads[0], heads[1], "{format}");
        let pack =
            std::fs::read_dir(ours.join("objects/pack")).expect("a folder").map(|entry| entry.expect("one").path());
        let pack = pack.into_iter().find(|path| path.extension() == Some("pack".as_ref())).expect("a pack");
        let index = place.path("checked.idx");
        let checked = [&format!("--object-format={format}"), "--strict", "-o", text(&index), text(&pack)];
        git.ok(&place.path("home"), &[&["index-pack"], &checked[..]].concat());
        assert_eq!(std::fs::read(index).ok(), std::fs::read(pack.with_extension("idx")).ok(), "{format}: the index");
    }
}
