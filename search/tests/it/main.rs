//! Grep through the crate's public interface, over a store in memory; the modules are about searches by queries.

mod aggregate;
mod commits;
mod definitions;
mod diffs;
mod find;
mod fulltext;
mod history;
mod messages;
mod pages;
mod past;
mod places;
mod random_messages;
mod recorded;
mod service;
mod sql;
mod suggest;
mod world;

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use govc_engine::{
    Change, CommitRequest, Content, EntryMode, ErrorKind, Expected, ObjectFormat, Oid, OnConflict, RefName, RepoName,
    RepoSettings, Signature, Snapshot, Store, StoreOptions,
};
use govc_search::{GrepAnswer, GrepQuery, Stop, grep};

/// What names the objects of the repositories that these tests make: every test is in two programs, `it` and `sha256`.
const FORMAT: ObjectFormat = match env!("CARGO_CRATE_NAME").as_bytes() {
    b"sha256" => ObjectFormat::Sha256,
    _ => ObjectFormat::Sha1,
};

fn settings() -> RepoSettings {
    RepoSettings { object_format: FORMAT, ..RepoSettings::default() }
}

/// The files of one commit, ready to be searched.
struct Fixture {
    store: Store,
    snapshot: Snapshot,
    commit: Oid,
}

impl Fixture {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let put = |(path, content): &(&str, &[u8])| Change::Put {
            path: path.as_bytes().to_vec(),
            content: Content::Bytes(Bytes::copy_from_slice(content)),
            mode: None,
        };
        Self::of_changes(files.iter().map(put).collect())
    }

    fn of_changes(changes: Vec<Change>) -> Self {
        let backend = Arc::new(govc_backends::MemoryBackend::new());
        let store = Store::open(backend, StoreOptions::default()).expect("open");
        let name = RepoName::new("demo").expect("name");
        let repo = store.create(&name, settings(), "test").expect("create");
        let person = Signature::new("Test", "test@example.com", 1_700_000_000, 0).expect("signature");
        let committed = repo
            .commit(CommitRequest {
                branch: RefName::branch("main").expect("branch"),
                message: "files\n".to_owned(),
                author: person.clone(),
                committer: person,
                changes,
                expected_head: Expected::Any,
                on_conflict: OnConflict::Fail,
                create_branch_from: None,
                allow_empty: false,
                actor: "test".to_owned(),
                deadline: None,
            })
            .expect("commit");
        committed.published.ticket.wait().expect("durable");
        Self { snapshot: repo.snapshot(), commit: committed.oid, store }
    }

    fn grep(&self, query: &GrepQuery) -> GrepAnswer {
        grep(&self.snapshot, self.commit, query, None).expect("grep")
    }

    /// The `path:line` of every hit.
    fn check(&self, query: GrepQuery, expected: &[&str]) {
        let answer = self.grep(&query);
        let hits: Vec<String> = answer
            .lines
            .iter()
            .map(|line| format!("{}:{}", String::from_utf8_lossy(&line.path), line.line_number))
            .collect();
        assert_eq!(hits, expected, "{query:?}");
        assert_eq!(answer.stopped, None, "{query:?}");
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.store.close().expect("close");
    }
}

fn text(pattern: &str) -> GrepQuery {
    GrepQuery { pattern: pattern.to_owned(), ..GrepQuery::default() }
}

fn regex(pattern: &str) -> GrepQuery {
    GrepQuery { regex: true, ..text(pattern) }
}

fn source() -> Fixture {
    Fixture::new(&[
        ("README.md", b"govc.\nA server of git.\n"),
        ("logo.png", b"\x89PNG\0govc"),
        ("src/lib.rs", b"//! govc\nfn main() {\n    let foo = 1;\n    let foobar = foo;\n}\n"),
        ("src/net/a.c", b"int Foo;\r\nint foo"),
    ])
}

#[test]
fn plain_text_is_not_a_regular_expression() {
    let files = source();
    files.check(text("govc."), &["README.md:1"]);
    files.check(regex("govc."), &["README.md:1"]);
    files.check(regex("govc"), &["README.md:1", "src/lib.rs:1"]);
    files.check(text("main()"), &["src/lib.rs:2"]);
    files.check(text("f.o"), &[]);
    files.check(regex("f.o"), &["src/lib.rs:3", "src/lib.rs:4", "src/net/a.c:2"]);
}

#[test]
fn options_narrow_and_widen() {
    let files = source();
    files.check(text("Foo"), &["src/net/a.c:1"]);
    files.check(
        GrepQuery { case_sensitive: false, path: "src/net".into(), ..text("FOO") },
        &["src/net/a.c:1", "src/net/a.c:2"],
    );
    files.check(GrepQuery { word_regexp: true, ..text("foobar") }, &["src/lib.rs:4"]);
    files.check(GrepQuery { word_regexp: true, ..text("fooba") }, &[]);
    files.check(GrepQuery { line_regexp: true, ..text("int foo") }, &["src/net/a.c:2"]);
    files.check(GrepQuery { line_regexp: true, ..text("foo") }, &[]);
    files.check(GrepQuery { invert_match: true, path: "README.md".into(), ..text("govc") }, &["README.md:2"]);
    files.check(GrepQuery { file_lines_max: Some(1), ..text("foo") }, &["src/lib.rs:3", "src/net/a.c:2"]);
}

#[test]
fn paths_choose_files() {
    let files = source();
    files.check(GrepQuery { path: "src/lib.rs".into(), ..text("foo") }, &["src/lib.rs:3", "src/lib.rs:4"]);
    files.check(GrepQuery { path: "*.c".into(), ..text("foo") }, &["src/net/a.c:2"]);
    files.check(GrepQuery { path: "src/*.c".into(), ..text("foo") }, &[]);
    files.check(GrepQuery { path: "src/**".into(), ..text("govc") }, &["src/lib.rs:1"]);
    files.check(GrepQuery { path: "sr".into(), ..text("foo") }, &[]);
    files.check(GrepQuery { path: "no/such/place".into(), ..text("foo") }, &[]);
    files.check(GrepQuery { path: "../etc".into(), ..text("foo") }, &[]);
}

#[test]
fn a_hit_says_where_and_what_is_around() {
    let files = source();
    let answer = files.grep(&GrepQuery { context_lines: 1, path: "src/lib.rs".into(), ..text("foo") });
    let line = answer.lines.get(1).expect("two hits");
    assert_eq!(line.content, "    let foobar = foo;");
    assert_eq!(line.column, 9);
    let spans: Vec<_> = line.matches.iter().map(|span| (span.start, span.end)).collect();
    assert_eq!(spans, [(8, 11), (17, 20)]);
    assert_eq!(line.before, ["    let foo = 1;"], "a neighbour that matches itself is still a neighbour");
    assert_eq!(line.after, ["}"]);
    assert!(!line.cut);
}

#[test]
fn binary_files_are_counted_and_links_are_not_followed() {
    let put = |path: &str, content: &'static [u8], mode| Change::Put {
        path: path.as_bytes().to_vec(),
        content: Content::Bytes(Bytes::from_static(content)),
        mode: Some(mode),
    };
    let files = Fixture::of_changes(vec![
        put("a.bin", b"needle\0", EntryMode::BLOB),
        put("link", b"needle", EntryMode::SYMLINK),
        put("run.sh", b"needle\n", EntryMode::EXECUTABLE),
    ]);
    let answer = files.grep(&text("needle"));
    assert_eq!((answer.files_searched, answer.binary_skipped), (1, 1));
    assert_eq!(answer.lines.iter().map(|line| line.path.as_slice()).collect::<Vec<_>>(), [b"run.sh"]);
}

#[test]
fn every_early_end_has_a_reason() {
    let files = source();
    let limited = files.grep(&GrepQuery { lines_max: 2, ..text("foo") });
    assert_eq!((limited.lines.len(), limited.stopped), (2, Some(Stop::Limit)));
    let exact = files.grep(&GrepQuery { lines_max: 3, ..text("foo") });
    assert_eq!((exact.lines.len(), exact.stopped), (3, None), "the limit was reached but nothing was left out");
    let small = files.grep(&GrepQuery { answer_bytes_max: 500, ..text("foo") });
    assert_eq!((small.lines.len(), small.stopped), (1, Some(Stop::Size)));
    let late = files.grep(&GrepQuery { deadline: Some(Instant::now()), ..text("foo") });
    assert_eq!((late.lines.len(), late.stopped), (0, Some(Stop::Deadline)));
}

#[test]
fn bad_patterns_are_refused_with_the_reason() {
    let files = source();
    let refused = |query: GrepQuery| {
        let error = grep(&files.snapshot, files.commit, &query, None).expect_err("refused");
        assert_eq!(error.kind(), &ErrorKind::Invalid, "{query:?}");
        error.message().to_owned()
    };
    assert!(refused(regex("fn (")).contains("unclosed group"));
    assert!(refused(text("")).contains("empty"));
    assert!(refused(text("a\nb")).contains("not allowed"));
    assert!(refused(regex(r"\w{1000}{1000}")).contains("size limit"));
    assert!(refused(regex(&format!("{}{}", "(".repeat(5000), ")".repeat(5000)))).contains("nest"));
    assert!(refused(GrepQuery { path: "src/[a".into(), ..text("x") }).contains("glob"));
}

#[test]
fn random_texts_match_like_a_plain_scan() {
    // A small generator with a fixed seed; the alphabet is small so that patterns do occur.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let mut random_text = |length: u64| -> Vec<u8> { (0..length).map(|_| b"ab.\n"[next(4) as usize]).collect() };
    let contents: Vec<Vec<u8>> = (0..20).map(|_| random_text(200)).collect();
    let names: Vec<String> = (0..20).map(|index| format!("f{index:02}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)).collect();
    let fixture = Fixture::new(&files);
    for pattern in ["a.", "bb", "ab.a", "...", "b.b."] {
        for invert_match in [false, true] {
            let expected: Vec<String> = files
                .iter()
                .flat_map(|(name, content)| {
                    let body = content.strip_suffix(b"\n").unwrap_or(content);
                    let lines: Vec<String> = String::from_utf8_lossy(body)
                        .split('\n')
                        .enumerate()
                        .filter(|(_, line)| line.contains(pattern) != invert_match)
                        .map(|(index, _)| format!("{name}:{}", index + 1))
                        .collect();
                    lines
                })
                .collect();
            let query = GrepQuery { invert_match, lines_max: usize::MAX, ..text(pattern) };
            fixture.check(query, &expected.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}
