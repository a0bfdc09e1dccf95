//! Archives over HTTP, against those that `git archive` makes of the same commits: tar files to the byte, zip files entry
//! by entry.

use std::{io::Read as _, path::Path};

use flate2::{Crc, read::DeflateDecoder, read::GzDecoder};
use serde_json::json;

use crate::{
    git::Git,
    history,
    http::encode,
    rest_commits::{commit, put},
    server::{Place, Server},
    tested,
};

const ROUTE: &str = "/api/v1/repos/repo/archive";

/// What `git archive` makes, with further arguments.
#[track_caller]
fn archived(git: &Git, source: &Path, arguments: &[&str]) -> Vec<u8> {
    let all: Vec<&str> = [&["archive"], arguments].concat();
    let output = git.run(source, &all);
    assert!(output.status.success(), "{all:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn download(server: &Server, name: &str) -> Vec<u8> {
    let reply = server.http().get(&format!("{ROUTE}/{name}"));
    assert_eq!(reply.status, 200, "{name}: {}", reply.text());
    reply.body
}

fn unzipped(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    GzDecoder::new(data).read_to_end(&mut out).expect("gzip");
    out
}

#[track_caller]
fn assert_same_bytes(got: &[u8], wanted: &[u8], what: &str) {
    let first = got.iter().zip(wanted).position(|(a, b)| a != b);
    assert!(got == wanted, "{what}: {} and {} bytes, the first other one is {first:?}", got.len(), wanted.len());
}

/// An entry of a zip file.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Zipped {
    name: Vec<u8>,
    made_by: u16,
    utf8: bool,
    mode: u32,
    text: bool,
    time: u32,
    extra: Vec<u8>,
    content: Vec<u8>,
}

/// Reads a zip file by its directory, checks what each entry's own header says, and gives the entries and the comment.
#[track_caller]
fn zip_entries(zip: &[u8]) -> (Vec<Zipped>, Vec<u8>) {
    let u16_at = |at: usize| u16::from_le_bytes(zip[at..at + 2].try_into().expect("two bytes"));
    let u32_at = |at: usize| u32::from_le_bytes(zip[at..at + 4].try_into().expect("four bytes"));
    let size_at = |at: usize| u32_at(at) as usize;
    let end = zip.windows(4).rposition(|word| word == b"PK\x05\x06").expect("an end");
    let comment = zip[end + 22..].to_vec();
    assert_eq!(usize::from(u16_at(end + 20)), comment.len());
    let mut at = size_at(end + 16);
    assert_eq!(at + size_at(end + 12), end, "the directory is right in front of the end");
    let mut entries = Vec::new();
    let mut behind = 0;
    while at < end {
        assert_eq!(&zip[at..at + 4], b"PK\x01\x02");
        let [flags, method] = [8, 10].map(|offset| u16_at(at + offset));
        let [crc, time] = [16, 12].map(|offset| u32_at(at + offset));
        let [packed, size] = [20, 24].map(|offset| size_at(at + offset));
        let [name_len, extra_len] = [28, 30].map(|offset| usize::from(u16_at(at + offset)));
        let name = zip[at + 46..][..name_len].to_vec();
        let extra = zip[at + 46 + name_len..][..extra_len].to_vec();
        let local = size_at(at + 42);
        assert_eq!(local, behind, "nothing is between entries: {}", String::from_utf8_lossy(&name));
        assert_eq!(&zip[local..local + 4], b"PK\x03\x04");
        assert_eq!((u16_at(local + 6), u16_at(local + 8), u32_at(local + 10)), (flags, method, time));
        let local_extra = usize::from(u16_at(local + 28));
        let begin = local + 30 + name_len + local_extra;
        assert_eq!(zip[local + 30..][..name_len], name);
        let mut content = Vec::new();
        match method {
            0 => content.extend_from_slice(&zip[begin..begin + packed]),
            8 => drop(DeflateDecoder::new(&zip[begin..begin + packed]).read_to_end(&mut content).expect("deflate")),
            method => panic!("method {method}"),
        }
        assert_eq!(content.len(), size);
        let mut sum = Crc::new();
        sum.update(&content);
        assert_eq!(sum.sum(), crc);
        behind = begin + packed;
        if flags & 8 == 0 {
            assert_eq!((u32_at(local + 14), size_at(local + 18), size_at(local + 22)), (crc, packed, size));
        } else {
            assert_eq!(&zip[behind..behind + 4], b"PK\x07\x08");
            assert_eq!((u32_at(behind + 4), size_at(behind + 8), size_at(behind + 12)), (crc, packed, size));
            behind += 16;
        }
        let (made_by, mode, text) = (u16_at(at + 4), u32_at(at + 38), u16_at(at + 36) == 1);
        entries.push(Zipped { name, made_by, utf8: flags & (1 << 11) != 0, mode, text, time, extra, content });
        at += 46 + name_len + extra_len + usize::from(u16_at(at + 32));
    }
    assert_eq!(usize::from(u16_at(end + 10)), entries.len());
    (entries, comment)
}

#[track_caller]
fn assert_same_zip(got: &[u8], wanted: &[u8], what: &str) {
    let (got, wanted) = (zip_entries(got), zip_entries(wanted));
    assert_eq!(got.1, wanted.1, "{what}: comment");
    for (got, wanted) in got.0.iter().zip(&wanted.0) {
        assert!(
            got == wanted,
            "{what}: {} and {}",
            String::from_utf8_lossy(&got.name),
            String::from_utf8_lossy(&wanted.name)
        );
    }
    assert_eq!(got.0.len(), wanted.0.len(), "{what}");
}

/// A server with the generated history as `repo`, and that history.
fn served(place: &Place, git: &Git) -> (Server, std::path::PathBuf) {
    let server = place.serve();
    let source = history::generated(place, git);
    server.create("repo");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("repo")]);
    (server, source)
}

#[test]
fn archives_are_those_of_git() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, source) = served(&place, &git);
    let names = git.ok(&source, &["for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads", "refs/tags"]);
    let wanted = |name: &str| {
        let odd_commit =
            name.starts_with("odd/") || (name.starts_with("odd-") && !name.contains("blob") && !name.contains("tree"));
        odd_commit || name.contains('\u{fc}') || ["main", "side/3", "v0.120", "joined", "light-40"].contains(&name)
    };
    let mut count = 0;
    for name in names.lines().filter(|name| wanted(name)) {
        count += 1;
        let path = encode(name).replace("%2F", "/");
        let tar = archived(&git, &source, &["--format=tar", name]);
        assert_same_bytes(&download(&server, &format!("{path}.tar")), &tar, name);
        assert_same_bytes(&unzipped(&download(&server, &format!("{path}.tar.gz"))), &tar, name);
        if name == "odd/commit-nameless" {
            // From 1970, which zip files cannot say: git's date is none at all.
            continue;
        }
        let zip = archived(&git, &source, &["--format=zip", name]);
        assert_same_zip(&download(&server, &format!("{path}.zip")), &zip, name);
    }
    assert!(count > 20, "{count} archives were compared");
    let prefixes = ["top/", "plain-", &format!("{}/", "long-".repeat(25)), "a/b/"];
    for (prefix, path) in
        prefixes.iter().flat_map(|prefix| ["", "src/mod3", "deep", "hot.txt"].map(|path| (prefix, path)))
    {
        let name = format!("main.tar?prefix={}&path={}", encode(prefix), encode(path));
        let (option, literal) = (format!("--prefix={prefix}"), format!(":(literal){path}"));
        let mut arguments = vec!["--format=tar", &option, "main"];
        if !path.is_empty() {
            arguments.extend(["--", &literal]);
        }
        assert_same_bytes(&download(&server, &name), &archived(&git, &source, &arguments), &name);
        let name = name.replace(".tar", ".zip");
        arguments[0] = "--format=zip";
        assert_same_zip(&download(&server, &name), &archived(&git, &source, &arguments), &name);
    }
}

#[test]
fn the_same_commit_gives_the_same_bytes() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, source) = served(&place, &git);
    let id = git.ok(&source, &["rev-parse", "v0.120^{commit}"]);
    let all: Vec<Vec<u8>> = ["tar", "tar.gz", "zip"]
        .iter()
        .map(|ending| {
            let first = download(&server, &format!("v0.120.{ending}"));
            for name in [format!("{id}.{ending}"), format!("{}.{ending}", &id[..10]), format!("v0.120%5E0.{ending}")] {
                assert!(download(&server, &name) == first, "{name}");
            }
            first
        })
        .collect();
    assert!(download(&server, "v0.120.tgz") == all[1]);
    // After a restart, and of a version that is read as it was.
    let server = server.stop().start();
    git.ok(&source, &["push", "-q", "--force", &server.url("repo"), "joined:refs/heads/main"]);
    for (ending, wanted) in ["tar", "tar.gz", "zip"].iter().zip(&all) {
        assert!(download(&server, &format!("v0.120.{ending}")) == *wanted, "{ending}");
        let name = format!("main.{ending}");
        assert!(download(&server, &format!("{name}?at=2")) != download(&server, &name), "{ending}");
        let reply = server.http().get(&format!("{ROUTE}/main.{ending}?at=2"));
        assert_eq!(reply.header("govc-commit"), Some(git.ok(&source, &["rev-parse", "main"]).as_str()));
    }
}

#[test]
fn attributes_decide_what_goes_in() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    let attributes = "\
        [attr]private export-ignore\n\
        *.secret private\n\
        /ci/ export-ignore\n\
        docs/**/draft.* export-ignore\n\
        \"quo ted\" export-ignore\n\
        *.bat text eol=crlf\n\
        *.auto text=auto eol=crlf\n\
        *.id ident\n\
        *.both ident eol=crlf\n\
        *.dat -diff\n\
        *.txt diff\n\
        !negative export-ignore\n\
        empty-one/* export-ignore\n\
        [ab]x?.[[:digit:]] export-ignore\n";
    let files: [(&str, &[u8]); 27] = [
        (".gitattributes", attributes.as_bytes()),
        ("a.secret", b"1"),
        ("keep/a.secret", b"2"),
        ("keep/b.secret", b"3"),
        ("keep/.gitattributes", b"a.secret -export-ignore\n/sub export-ignore\n*.o !private export-ignore\n"),
        ("keep/sub/x", b"4"),
        ("keep/deeper/sub/x", b"5"),
        ("keep/deeper/y.o", b"5"),
        ("ci/run", b"6"),
        ("not/ci/run", b"7"),
        ("docs/draft.md", b"8"),
        ("docs/a/b/draft.md", b"9"),
        ("docs/a/b/final.md", b"10"),
        ("quo ted", b"11"),
        ("run.bat", b"one\ntwo\r\nthree\n"),
        ("plain.auto", b"one\ntwo\n"),
        ("mixed.auto", b"one\r\ntwo\n"),
        ("binary.auto", b"one\n\0two\n"),
        ("my.id", b"$Id$ and $Id: old $ and $Id: not ours $\n$Id: a\nb$"),
        ("my.both", b"$Id$\n"),
        ("a.dat", b"text\n"),
        ("a.txt", b"a\0b\n"),
        ("negative", b"12"),
        ("empty-one/only", b"13"),
        ("ax1.5", b"14"),
        ("ax/.5", b"15"),
        ("export-ignore", b"16"),
    ];
    for (path, content) in files {
        let file = work.join(path);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, content).expect("a file");
    }
    // As they are, whatever the attributes say.
    git.ok(&work, &["-c", "core.attributesFile=/dev/null", "add", "--all", "."]);
    for (path, content) in files {
        let id = git.object(&work, "blob", content);
        git.ok(&work, &["update-index", "--cacheinfo", &format!("100644,{id},{path}")]);
    }
    git.ok(&work, &["commit", "-qm", "files with attributes"]);
    git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
    let tar = archived(&git, &work, &["--format=tar", "main"]);
    let list = String::from_utf8_lossy(&tar).into_owned();
    assert!(!list.contains("ci/run\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0x") && list.contains("not/ci/run"));
    assert_same_bytes(&download(&server, "main.tar"), &tar, "tar");
    assert_same_zip(&download(&server, "main.zip"), &archived(&git, &work, &["--format=zip", "main"]), "zip");
    for path in ["keep", "ci", "keep/deeper/sub", "docs/a"] {
        let tar = archived(&git, &work, &["--format=tar", "main", "--", path]);
        assert_same_bytes(&download(&server, &format!("main.tar?path={path}")), &tar, path);
    }
}

#[test]
fn long_names_and_links_are_those_of_git() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    let target = git.object(&work, "blob", "t".repeat(300).as_bytes());
    let short = git.object(&work, "blob", "t".repeat(100).as_bytes());
    let large = git.object(&work, "blob", &history::noise(1, 300 << 10));
    let text = git.object(&work, "blob", "all the same\n".repeat(100_000).as_bytes());
    let mut index = String::new();
    for depth in [1, 3, 9, 40] {
        for length in [40, 99, 100, 101, 155, 200, 250] {
            let folder = format!("{}/", "f".repeat(length / 2)).repeat(depth);
            index.push_str(&format!("100644 {short}\t{folder}{}\n", "n".repeat(length)));
            index.push_str(&format!("120000 {target}\t{folder}{}\n", "l".repeat(length)));
            index.push_str(&format!("160000 {}\t{folder}{}\n", tested::id_of("1"), "s".repeat(length)));
        }
    }
    index.push_str(&format!(
        "120000 {short}\tlink\n100755 {large}\tlarge\n100644 {text}\tthe-same\n100644 {large}\tz\n"
    ));
    git.ok_fed(&work, &["update-index", "--index-info"], index.as_bytes());
    git.ok(&work, &["commit", "-qm", "long names"]);
    git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
    assert_same_bytes(&download(&server, "main.tar"), &archived(&git, &work, &["--format=tar", "main"]), "tar");
    assert_same_zip(&download(&server, "main.zip"), &archived(&git, &work, &["--format=zip", "main"]), "zip");
    // Tools unpack what git unpacks.
    let (out, file) = (place.path("out"), place.path("main.tar.gz"));
    std::fs::create_dir_all(&out).expect("a folder");
    std::fs::write(&file, download(&server, "main.tar.gz")).expect("a file");
    let unpacked = std::process::Command::new("tar")
        .arg("-xzf")
        .arg(&file)
        .args(["large", "link"])
        .current_dir(&out)
        .status()
        .expect("tar runs");
    assert!(unpacked.success());
    assert_eq!(std::fs::read(out.join("large")).expect("a file"), history::noise(1, 300 << 10));
    assert_eq!(std::fs::read_link(out.join("link")).expect("a link").as_os_str().len(), 100);
}

#[test]
fn answers_say_what_they_are() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let http = server.http();
    commit(&server, put("dir/file", "1\n"), json!({})).expect(201);
    http.post("/api/v1/repos/repo/branches", &json!({ "name": "topic/x.y", "from": "main" })).expect(201);
    let path = format!("{ROUTE}/topic/x.y.tar.gz");
    let reply = http.get(&path);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/gzip")));
    assert_eq!(reply.header("content-disposition"), Some("attachment; filename=\"repo-topic-x.y.tar.gz\""));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    let tag = reply.header("etag").expect("a tag").to_owned();
    let head = http.send("HEAD", &path, &[("if-none-match", "\"other\"")], b"");
    assert_eq!((head.status, head.header("etag"), head.body.len()), (200, Some(tag.as_str()), 0));
    assert!(head.header("content-length").is_none(), "how long it would be is not known");
    let known = http.get_with(&path, &[("if-none-match", &tag)]);
    assert_eq!((known.status, known.body.len()), (304, 0));
    for other in ["main.tar", "main.zip", "main.tar.gz?prefix=a/", "main.tar.gz?path=dir"] {
        let reply = http.get_with(&format!("{ROUTE}/{other}"), &[("if-none-match", &tag)]);
        assert_eq!(reply.status, 200, "{other}");
    }
    assert_eq!(http.get_with(&format!("{ROUTE}/main.tgz"), &[("if-none-match", &tag)]).status, 304, "the same bytes");
    commit(&server, put("dir/file", "2\n"), json!({})).expect(201);
    assert_eq!(http.get_with(&format!("{ROUTE}/main.tar.gz"), &[("if-none-match", &tag)]).status, 200);
    // An old version, in both ways to say it.
    assert_eq!(http.get_with(&format!("{ROUTE}/main.tar.gz?at=2"), &[("if-none-match", &tag)]).status, 304);
    let past = http.get("/api/v1/repos/repo/time-travel/4102444800/archive/main.tar.gz");
    assert!(past.status == 200 && past.body == http.get(&format!("{ROUTE}/main.tar.gz")).body);
}

#[test]
fn bad_requests_are_told_so() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let http = server.http();
    assert_eq!(http.get(&format!("{ROUTE}/main.zip")).problem(404)["code"], "REF_NOT_FOUND", "it is empty");
    commit(&server, put("dir/file", "1\n"), json!({})).expect(201);
    assert_eq!(http.get("/api/v1/repos/nothing/archive/main.zip").problem(404)["code"], "REPO_NOT_FOUND");
    for rev in ["nothing", "topic/x", &tested::id_of("a"), "main~9"] {
        assert_eq!(http.get(&format!("{ROUTE}/{rev}.zip")).problem(404)["code"], "REF_NOT_FOUND", "{rev}");
    }
    for name in ["main", "main.rar", ".zip", "main.gz", "%FF.zip"] {
        assert_eq!(http.get(&format!("{ROUTE}/{name}")).problem(400)["code"], "INVALID_REQUEST", "{name}");
    }
    assert_eq!(http.get(&format!("{ROUTE}/main.zip?path=none/x")).problem(404)["code"], "FILE_NOT_FOUND");
    for prefix in ["../", "/etc/", "a/../../b", ".git/", "a//b/", "%00"] {
        http.get(&format!("{ROUTE}/main.zip?prefix={prefix}")).problem(400);
    }
    assert_eq!(http.get(&format!("{ROUTE}/main.zip?at=99")).problem(404)["code"], "VERSION_NOT_FOUND");
    let tree = http.get("/api/v1/repos/repo/tree").expect(200)["hash"].as_str().expect("a hash").to_owned();
    http.get(&format!("{ROUTE}/{tree}.zip")).problem(400);
    assert_eq!(http.send("POST", &format!("{ROUTE}/main.zip"), &[], b"").status, 405);
}

#[test]
fn clients_that_do_not_read_hold_no_thread_and_little_memory() {
    const FILES: usize = 16;
    const FILE_BYTES: usize = 8 << 20;
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let settings = [
        ("GOVC_WORK_THREADS", "2"),
        ("GOVC_MEMORY", "64MiB"),
        ("GOVC_MAX_BODY", "16MiB"),
        ("GOVC_MAX_BUFFERED", "64MiB"),
        // What else reads the files would be measured too.
        ("GOVC_COMPACTION_ENABLED", "false"),
        ("GOVC_SEARCH_ENABLED", "false"),
    ];
    let server = settings.iter().fold(place.launch(), |launch, (name, value)| launch.env(name, value)).start();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    for at in 0..FILES {
        std::fs::write(work.join(format!("file-{at:02}")), history::noise(at as u64, FILE_BYTES)).expect("a file");
    }
    git.commit(&work, "last", b"the end\n", "many bytes");
    git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
    let server = server.stop().start();
    // What reading takes by itself, the backend's own mapped files included.
    for at in 0..FILES {
        assert_eq!(server.http().get(&format!("/api/v1/repos/repo/raw/file-{at:02}")).body.len(), FILE_BYTES);
    }
    let before = server.peak_bytes();
    // More of them than there are threads; each has begun.
    let waiting: Vec<_> = (0..6)
        .map(|_| {
            let mut connection = server.http().connect();
            connection.write(format!("GET {ROUTE}/main.tar HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
            connection
        })
        .collect();
    for ending in ["tar", "zip", "tar.gz"] {
        let archive = download(&server, &format!("main.{ending}"));
        assert!(archive.len() > FILES * FILE_BYTES, "{ending}");
        match ending {
            "zip" => assert_eq!(zip_entries(&archive).0.len(), FILES + 1),
            "tar" => assert_same_bytes(&archive, &archived(&git, &work, &["--format=tar", "main"]), ending),
            _ => assert_same_bytes(&unzipped(&archive), &archived(&git, &work, &["--format=tar", "main"]), ending),
        }
    }
    // Each of those that wait holds a file, within the budget for what clients hold; threads keep some freed memory for
    // themselves. All nine archives together have 1.2 GB.
    let grown = server.peak_bytes() - before;
    assert!(grown < 400 << 20, "{} MiB more resident", grown >> 20);
    drop(waiting);
}
