//! Reading over HTTP: branches, tags, trees, files as JSON and as bytes, against what git says of the same history.

use serde_json::{Value, json};

use crate::{
    git::Git,
    history,
    http::{Reply, encode, items},
    rest_commits::{commit, put},
    rest_repos::walk,
    server::{Place, Server},
};

/// A server with the generated history as `repo`, and that history.
fn served(place: &Place, git: &Git) -> (Server, std::path::PathBuf) {
    let server = place.serve();
    let source = history::generated(place, git);
    server.create("repo");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("repo")]);
    (server, source)
}

/// The text that says which bytes a member is: itself, or Base64 beside it.
fn bytes_of(item: &Value, member: &str) -> Vec<u8> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    match item.get(format!("{member}_base64")).and_then(Value::as_str) {
        Some(text) => STANDARD.decode(text).expect("Base64"),
        None => item[member].as_str().unwrap_or_else(|| panic!("{member} in {item}")).as_bytes().to_vec(),
    }
}

#[test]
fn branches_and_tags_are_those_of_git() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, source) = served(&place, &git);
    for (kind, prefix) in [("branches", "refs/heads"), ("tags", "refs/tags")] {
        let names = git.ok(&source, &["for-each-ref", "--format=%(refname:lstrip=2)", prefix]);
        let mut names: Vec<&str> = names.lines().collect();
        names.sort_unstable();
        for limit in [9, 1000] {
            let path = format!("/api/v1/repos/repo/{kind}?limit={limit}");
            assert_eq!(walk(&server, &path, limit, "name"), names, "{kind}, {limit}");
        }
    }
}

#[test]
fn branches_are_made_and_deleted() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let http = server.http();
    let head = commit(&server, put("file", "1\n"), json!({})).expect(201)["hash"].clone();
    let path = "/api/v1/repos/repo/branches";
    let made = http.post(path, &json!({ "name": "topic/one", "from": "main" })).expect(201);
    assert_eq!(made["name"], "topic/one");
    let names = || -> Vec<Value> { items(&http.get(path).expect(200)).iter().map(|b| b["name"].clone()).collect() };
    assert_eq!(names(), ["main", "topic/one"]);
    assert_eq!(http.get("/api/v1/repos/repo/commits/topic%2Fone").expect(200)["hash"], head);
    assert_eq!(http.post(path, &json!({ "name": "topic/one", "from": "main" })).problem(409)["code"], "BRANCH_EXISTS");
    for name in ["", "a..b", "x.lock", "a b", "/a", "a/", "a@{b"] {
        http.post(path, &json!({ "name": name, "from": "main" })).problem(400);
    }
    http.post(path, &json!({ "name": "other", "from": "nothing" })).problem(404);
    let reply = http.post(path, &json!({ "name": "topic", "from": "main" }));
    assert!(matches!(reply.status, 400 | 409), "a directory is there: {}", reply.text());
    let reply = http.delete(&format!("{path}/main"));
    assert!(matches!(reply.status, 400 | 409), "the default branch stays: {}", reply.text());
    assert_eq!(http.delete(&format!("{path}/topic%2Fone")).status, 204);
    assert_eq!(names(), ["main"]);
    http.delete(&format!("{path}/topic%2Fone")).problem(404);
}

#[test]
fn tags_are_made_and_deleted() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let http = server.http();
    let head = commit(&server, put("file", "1\n"), json!({})).expect(201)["hash"].clone();
    let path = "/api/v1/repos/repo/tags";
    http.post(path, &json!({ "name": "light", "target": "main" })).expect(201);
    let tagger = json!({ "name": "Ada Test", "email": "ada@example.com" });
    http.post(path, &json!({ "name": "v1", "target": "main", "message": "one\n", "tagger": tagger })).expect(201);
    http.post(path, &json!({ "name": "v1", "target": "main" })).problem(409);
    http.post(path, &json!({ "name": "v2", "target": "nothing" })).problem(404);
    http.post(path, &json!({ "name": "a..b", "target": "main" })).problem(400);
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
    assert_eq!(git.ok(&copy, &["cat-file", "-t", "v1"]), "tag");
    assert_eq!(git.ok(&copy, &["cat-file", "-t", "light"]), "commit");
    assert_eq!(git.ok(&copy, &["rev-parse", "v1^{commit}"]), head.as_str().expect("a hash"));
    assert_eq!(git.findings(&copy), (Some(0), Vec::new()));
    assert_eq!(http.delete(&format!("{path}/v1")).status, 204);
    assert_eq!(items(&http.get(path).expect(200)).len(), 1);
}

#[test]
fn trees_are_those_of_git() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, source) = served(&place, &git);
    let list = |path: &str, recursive: bool| {
        let mut found = Vec::new();
        let mut next = Some(format!("/api/v1/repos/repo/tree/{path}?ref=main&recursive={recursive}&limit=100"));
        while let Some(path) = next {
            let reply: Reply = server.http().get(&path);
            for item in items(&reply.expect(200)) {
                let mut line = item["mode"].as_str().unwrap_or_else(|| panic!("{item}")).as_bytes().to_vec();
                line.push(b' ');
                line.extend(item["hash"].as_str().unwrap_or_else(|| panic!("{item}")).bytes());
                line.push(b' ');
                line.extend(bytes_of(&item, "path"));
                found.push(line);
            }
            next = reply.next_page();
        }
        found
    };
    for (path, recursive) in [("", false), ("", true), ("src", false), ("src/mod3", true), ("deep", true)] {
        let tree = format!("main:{path}");
        let mut arguments = vec!["-c", "core.quotePath=false", "ls-tree", "-z"];
        if recursive {
            arguments.push("-r");
        }
        arguments.push(&tree);
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let listed = git.run(&source, &arguments).stdout;
        let wanted: Vec<Vec<u8>> = listed
            .split(|&byte| byte == 0)
            .filter(|line| !line.is_empty())
            .map(|line| {
                // "mode kind id\tname"; the listing's paths begin at the root.
                let tab = line.iter().position(|byte| *byte == b'\t').expect("a tab");
                let words: Vec<&[u8]> = line[..tab].split(|byte| *byte == b' ').collect();
                [words[0], b" ", words[2], b" ", prefix.as_bytes(), &line[tab + 1..]].concat()
            })
            .collect();
        assert!(!wanted.is_empty(), "{path}");
        assert_eq!(list(path, recursive), wanted, "{path:?}, recursive {recursive}");
    }
    // A file is no directory.
    let reply = server.http().get("/api/v1/repos/repo/tree/hot.txt?ref=main");
    assert!(matches!(reply.status, 400 | 404), "{}", reply.status);
}

#[test]
fn files_are_read_as_json_and_as_bytes() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, source) = served(&place, &git);
    let http = server.http();
    for rev in ["main", "main~100", "v0.120", "side/3"] {
        let wanted = git.run(&source, &["cat-file", "blob", &format!("{rev}:hot.txt")]).stdout;
        let rev = encode(rev);
        let raw = http.get(&format!("/api/v1/repos/repo/raw/hot.txt?ref={rev}"));
        assert_eq!((raw.status, &raw.body), (200, &wanted), "{rev}");
        let read = http.get(&format!("/api/v1/repos/repo/read/hot.txt?ref={rev}")).expect(200);
        assert_eq!(read["encoding"], "utf-8", "{read}");
        assert_eq!(read["content"].as_str().expect("a text").as_bytes(), wanted, "{rev}");
    }
    let wanted = git.run(&source, &["cat-file", "blob", "main:blob.bin"]).stdout;
    let read = http.get("/api/v1/repos/repo/read/blob.bin?ref=main").expect(200);
    assert_eq!(read["encoding"], "base64", "{}", read["encoding"]);
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    assert_eq!(STANDARD.decode(read["content"].as_str().expect("a text")).expect("Base64"), wanted);
    let reply = http.get("/api/v1/repos/repo/read/src?ref=main");
    assert!(matches!(reply.status, 400 | 404), "a directory is no file: {}", reply.status);
}

#[test]
fn bytes_have_ranges_and_tags() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, source) = served(&place, &git);
    let http = server.http();
    let path = "/api/v1/repos/repo/raw/big.bin?ref=main";
    let whole = git.run(&source, &["cat-file", "blob", "main:big.bin"]).stdout;
    let reply = http.get(path);
    assert!(reply.status == 200 && reply.body == whole, "{}", reply.status);
    let tag = format!("\"{}\"", git.ok(&source, &["rev-parse", "main:big.bin"]));
    assert_eq!(reply.header("etag"), Some(tag.as_str()));
    assert_eq!(reply.header("accept-ranges"), Some("bytes"));
    let cached = http.get_with(path, &[("if-none-match", &tag)]);
    assert_eq!((cached.status, cached.body.len()), (304, 0));
    let length = whole.len();
    let ranges = [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-1999", 1000, 2000),
        ("bytes=-10", length - 10, length),
        ("bytes=8388000-", 8_388_000, length),
        ("bytes=0-99999999999", 0, length),
    ];
    for (range, from, to) in ranges {
        let reply = http.get_with(path, &[("range", range)]);
        assert_eq!(reply.status, 206, "{range}");
        assert!(reply.body == whole[from..to], "{range}");
        let content = format!("bytes {from}-{}/{length}", to - 1);
        assert_eq!(reply.header("content-range"), Some(content.as_str()), "{range}");
    }
    let reply = http.get_with(path, &[("range", "bytes=9000000-")]);
    assert_eq!((reply.status, reply.header("content-range")), (416, Some("bytes */8388608")));
    let reply = http.get_with(path, &[("range", "bytes=0-9"), ("if-range", "\"another\"")]);
    assert_eq!((reply.status, reply.body.len()), (200, length), "the range was of another content");
}
