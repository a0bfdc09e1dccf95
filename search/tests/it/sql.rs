//! SQL through the crate's public interface, over a store in memory.

mod hostile;
mod random;

use std::sync::Arc;

use bytes::Bytes;
use govc_engine::{
    Cause, Change, Commit, CommitRequest, Content, EntryMode, Error, ErrorKind, Expected, Kind, Oid, RefEdit, RefName,
    Repo, RepoName, Result, Signature, Snapshot, Store, StoreOptions,
};
use govc_search::{
    Corpus, Definer, SqlAnswer, SqlQuery,
    SqlValue::{self, Blob, Integer, Null, Text},
    language::Language,
    sql,
    symbols::{Skipped, Symbol, SymbolKind},
};

const DAY: i64 = 86_400;

/// Finds a definition in each line `def NAME`; in a file with `fail` none can be told, one with `panic` panics.
struct Defs;

impl Definer for Defs {
    fn definitions(&self, language: Language, content: &[u8]) -> Result<Vec<Symbol>, Skipped> {
        if language.name() != "Ruby" {
            return Ok(Vec::new());
        }
        let text = std::str::from_utf8(content).expect("a text");
        if text.contains("fail") {
            return Err(Skipped::NoAnswer);
        }
        assert!(!text.contains("panic"), "as wished");
        let mut start = 0;
        let mut symbols = Vec::new();
        for (line, content) in (0..).zip(text.split_inclusive('\n')) {
            if let Some(name) = content.trim_end().strip_prefix("def ") {
                let name = start + 4..start + 4 + name.len();
                symbols.push(Symbol { name, kind: SymbolKind::Function, line, parent: None });
            }
            start += content.len();
        }
        Ok(symbols)
    }
}

/// A repository in memory.
struct Fixture {
    store: Store,
    repo: Repo,
    corpus: Arc<Corpus>,
    clock: i64,
}

impl Fixture {
    fn empty() -> Self {
        let backend = Arc::new(govc_backends::MemoryBackend::new());
        let store = Store::open(backend, StoreOptions::default()).expect("open");
        let name = RepoName::new("demo").expect("name");
        let repo = store.create(&name, super::settings(), "test").expect("create");
        let corpus = Arc::new(Corpus::in_memory(1 << 20, Some(Arc::new(Defs))).expect("a corpus"));
        Self { store, repo, corpus, clock: 1_700_000_000 }
    }

    fn commit(&mut self, branch: &str, message: &str, changes: Vec<Change>) -> Oid {
        self.clock += DAY;
        let person = Signature::new("Ada", "ada@example.org", self.clock, 60).expect("signature");
        let branch = RefName::branch(branch).expect("branch");
        let committed = self.repo.commit(CommitRequest::new(branch, message, person, changes)).expect("commit");
        committed.published.ticket.wait().expect("durable");
        committed.oid
    }

    /// Stores an object as it is, and has a reference point at it.
    fn put(&self, name: &str, kind: Kind, data: Vec<u8>) -> Oid {
        let mut transaction = self.repo.begin("test", Cause::Api);
        let oid = transaction.put(kind, data.into()).expect("put");
        let name = RefName::new(name).expect("name");
        transaction.edit(RefEdit { name, expected: Expected::Any, target: Some(oid) }).expect("edit");
        transaction.prepare().expect("prepare").publish().expect("publish").ticket.wait().expect("durable");
        oid
    }

    fn snapshot(&self) -> Snapshot {
        self.repo.snapshot()
    }

    fn answer(&self, query: &SqlQuery) -> Result<SqlAnswer> {
        sql(&self.corpus, &self.snapshot(), query)
    }

    fn rows(&self, text: &str) -> Vec<Vec<SqlValue>> {
        let answer = self.answer(&query(text)).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(answer.stopped, None, "{text}");
        answer.rows
    }

    /// The rows, with their values as texts.
    fn check(&self, text: &str, expected: &[&str]) {
        let rows = self.rows(text);
        let shown: Vec<String> = rows.iter().map(|row| row.iter().map(show).collect::<Vec<_>>().join("|")).collect();
        assert_eq!(shown, expected, "{text}");
    }

    fn error(&self, text: &str) -> Error {
        match self.answer(&query(text)) {
            Ok(answer) => panic!("{text}: {answer:?}"),
            Err(error) => error,
        }
    }

    /// What SQLite chose, one line a step.
    fn explain(&self, text: &str) -> String {
        let rows = self.rows(&format!("EXPLAIN QUERY PLAN {text}"));
        rows.iter().map(|row| show(&row[3]) + "\n").collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.store.close().expect("close");
    }
}

fn query(text: &str) -> SqlQuery {
    SqlQuery { text: text.to_owned(), rows_max: 10_000, ..SqlQuery::default() }
}

fn show(value: &SqlValue) -> String {
    match value {
        Null => "NULL".to_owned(),
        Integer(number) => number.to_string(),
        SqlValue::Real(number) => number.to_string(),
        Text(text) => text.clone(),
        Blob(bytes) => format!("{bytes:?}"),
    }
}

fn put(path: &[u8], content: &[u8]) -> Change {
    put_as(path, content, EntryMode::BLOB)
}

fn put_as(path: &[u8], content: &[u8], mode: EntryMode) -> Change {
    Change::Put { path: path.to_vec(), content: Content::Bytes(Bytes::copy_from_slice(content)), mode: Some(mode) }
}

/// Four commits on `main`, the last one a merge; a branch; a tag of each kind.
fn history() -> Fixture {
    let mut files = Fixture::empty();
    let changes = vec![
        put(b"README.md", b"# Demo\nhello\n"),
        put(b"src/lib.rb", b"def one\n\ndef two\n"),
        put(b"src/net/a.c", b"int a;\r\nint b;"),
        put(b"logo.png", b"\x89PNG\0x"),
        put_as(b"link", b"README.md", EntryMode::SYMLINK),
        put_as(b"run.sh", b"#!/bin/sh\n", EntryMode::EXECUTABLE),
    ];
    files.commit("main", "begin\n\nwith a body\n", changes);
    let second = files.commit("main", "second", vec![put(b"README.md", b"# Demo\nworld\nmore\n")]);
    files.repo.create_ref(RefName::branch("topic").expect("name"), second, "test").expect("branch");
    let third = files.commit("main", "third", vec![Change::delete("src/net"), put(b"src/new.rb", b"def three\n")]);
    let topic = files.commit("topic", "on the topic", vec![put(b"topic.txt", b"t\n")]);
    let merge = Commit {
        parents: [third, topic].into_iter().collect(),
        message: b"merge\n".to_vec(),
        ..files.snapshot().commit(&third).expect("third")
    };
    files.put("refs/heads/main", Kind::Commit, merge.to_bytes());
    let tagger = Signature::new("Tagger", "tag@example.org", 1_700_000_001, 0).expect("signature");
    let name = RefName::tag("v1").expect("name");
    let (_, published) = files.repo.create_tag(&name, second, tagger, "the first", "test").expect("tag");
    published.ticket.wait().expect("durable");
    let light = files.repo.create_ref(RefName::tag("light").expect("name"), second, "test").expect("tag");
    light.ticket.wait().expect("durable");
    files
}

#[test]
fn files_are_those_of_the_tree() {
    let files = history();
    files.check(
        "SELECT path, name, dir, extension, mode, size, language, lines, is_binary FROM files('main~1')",
        &[
            "README.md|README.md||md|100644|18|Markdown|3|0",
            "link|link||NULL|120000|9|NULL|1|0",
            "logo.png|logo.png||png|100644|6|NULL|NULL|1",
            "run.sh|run.sh||sh|100755|10|Shell|1|0",
            "src/lib.rb|lib.rb|src|rb|100644|17|Ruby|3|0",
            "src/new.rb|new.rb|src|rb|100644|10|Ruby|1|0",
        ],
    );
    files.check("SELECT content FROM files WHERE path = 'README.md'", &["# Demo\nworld\nmore\n"]);
    assert_eq!(files.rows("SELECT content FROM files WHERE path = 'logo.png'"), [[Blob(b"\x89PNG\0x".to_vec())]]);
    let snapshot = files.snapshot();
    let head = snapshot.resolve("main").expect("main");
    let mut hashes = Vec::new();
    let tree = snapshot.root_tree(head).expect("tree");
    let mut note = |path: &[u8], _: EntryMode, oid: Oid| {
        hashes.push(vec![Text(String::from_utf8_lossy(path).into_owned()), Text(oid.to_string())]);
        Ok(std::ops::ControlFlow::Continue(()))
    };
    snapshot.walk_files(tree, b"", &mut note).expect("walk");
    assert_eq!(files.rows("SELECT path, hash FROM files"), hashes);
    files.check("SELECT count(*), min(rev) FROM files('v1^{tree}')", &["6|v1^{tree}"]);
}

#[test]
fn commits_are_those_that_a_revision_reaches() {
    let files = history();
    files.check("SELECT subject FROM commits", &["merge", "on the topic", "third", "second", "begin"]);
    let snapshot = files.snapshot();
    for rev in ["HEAD", "topic", "v1", "light", "main~1", "main^2~1"] {
        let from = vec![snapshot.resolve_commit(rev).expect("rev")];
        let log = govc_engine::LogOptions { from, limit: usize::MAX, ..Default::default() };
        let expected: Vec<Vec<SqlValue>> = snapshot.log(log).expect("log").commits.into_iter().map(row_of).collect();
        let columns = "hash, tree, parents, author_name, author_email, author_date, committer_name, committer_email, \
                       committer_date, message";
        assert_eq!(files.rows(&format!("SELECT {columns} FROM commits('{rev}')")), expected, "{rev}");
        let joined = format!("SELECT {columns} FROM (SELECT '{rev}' AS r) JOIN commits ON rev = r");
        assert_eq!(files.rows(&joined), expected, "{rev}");
    }
    files.check(
        "SELECT date(author_date, 'unixepoch'), message, subject FROM commits ORDER BY author_date LIMIT 1",
        &["2023-11-15|begin\n\nwith a body\n|begin"],
    );
}

fn row_of((oid, commit): (Oid, Commit)) -> Vec<SqlValue> {
    let text = |bytes: &[u8]| Text(String::from_utf8_lossy(bytes).into_owned());
    let parents: Vec<String> = commit.parents.iter().map(Oid::to_string).collect();
    vec![
        Text(oid.to_string()),
        Text(commit.tree.to_string()),
        Text(parents.join(" ")),
        text(&commit.author.name),
        text(&commit.author.email),
        Integer(commit.author.seconds),
        text(&commit.committer.name),
        text(&commit.committer.email),
        Integer(commit.committer.seconds),
        text(&commit.message),
    ]
}

#[test]
fn references_are_those_of_the_snapshot() {
    let files = history();
    let snapshot = files.snapshot();
    let oid = |rev: &str| snapshot.resolve(rev).expect("rev").to_string();
    let (main, topic, v1, second) = (oid("main"), oid("topic"), oid("v1"), oid("light"));
    files.check("SELECT * FROM branches", &[&format!("main|{main}|1"), &format!("topic|{topic}|0")]);
    files.check("SELECT hash FROM branches WHERE name = 'topic'", &[&topic]);
    files.check("SELECT hash FROM branches WHERE name IN ('topic', 'none', '', 'a..b', NULL)", &[&topic]);
    files.check(
        "SELECT * FROM tags",
        &[
            &format!("light|{second}|{second}|commit|NULL|NULL|NULL|NULL"),
            &format!("v1|{v1}|{second}|commit|the first\n|Tagger|tag@example.org|1700000001"),
        ],
    );
    files.check("SELECT target FROM tags WHERE name = 'v1'", &[&second]);
    files.check(
        "SELECT b.name, count(*) FROM branches b JOIN commits c ON c.rev = 'refs/heads/' || b.name GROUP BY 1",
        &["main|5", "topic|3"],
    );
}

#[test]
fn changes_are_those_against_the_first_parent() {
    let files = history();
    let counted = "SELECT subject, path, kind, additions, deletions FROM commits JOIN changes ON commit_hash = hash";
    files.check(
        counted,
        &[
            "on the topic|topic.txt|added|1|0",
            "third|src/net/a.c|deleted|0|2",
            "third|src/new.rb|added|1|0",
            "second|README.md|modified|2|1",
            "begin|README.md|added|2|0",
            "begin|link|added|1|0",
            "begin|logo.png|added|NULL|NULL",
            "begin|run.sh|added|1|0",
            "begin|src/lib.rb|added|3|0",
            "begin|src/net/a.c|added|2|0",
        ],
    );
    files.check(
        &format!("{counted} WHERE path = 'README.md'"),
        &["second|README.md|modified|2|1", "begin|README.md|added|2|0"],
    );
    let snapshot = files.snapshot();
    for commit in files.rows("SELECT hash FROM commits") {
        let hash = show(&commit[0]);
        let oid = Oid::from_hex(hash.as_bytes()).expect("a hash");
        let expected: Vec<Vec<SqlValue>> = snapshot
            .changes(oid, 100, None)
            .expect("changes")
            .files
            .iter()
            .map(|change| {
                let side = |side: Option<(EntryMode, Oid)>| match side {
                    Some((mode, oid)) => [Text(mode.to_octal()), Text(oid.to_string())],
                    None => [Null, Null],
                };
                let count = |count: Option<u64>| count.map_or(Null, |count| Integer(count as i64));
                let ([old_mode, old_hash], [new_mode, new_hash]) = (side(change.old), side(change.new));
                let path = Text(String::from_utf8_lossy(&change.path).into_owned());
                vec![path, old_mode, new_mode, old_hash, new_hash, count(change.additions), count(change.deletions)]
            })
            .collect();
        let columns = "path, old_mode, new_mode, old_hash, new_hash, additions, deletions";
        assert_eq!(files.rows(&format!("SELECT {columns} FROM changes WHERE commit_hash = '{hash}'")), expected);
    }
}

#[test]
fn symbols_are_those_that_the_source_knows() {
    let files = history();
    files.check(
        "SELECT * FROM symbols",
        &["src/lib.rb|one|function|1", "src/lib.rb|two|function|3", "src/new.rb|three|function|1"],
    );
    files.check(
        "SELECT s.name, lines FROM files f JOIN symbols s ON s.path = f.path WHERE f.path GLOB 'src/l*'",
        &["one|3", "two|3"],
    );
    files.check("SELECT count(*) FROM symbols('v1') WHERE path = 'src/lib.rb' OR path LIKE 'SRC/LIB%'", &["2"]);
}

#[test]
fn a_repository_without_commits_has_no_rows() {
    let files = Fixture::empty();
    for table in ["commits", "files", "branches", "tags", "symbols", "changes"] {
        assert_eq!(files.rows(&format!("SELECT * FROM {table}")), [[]; 0] as [[SqlValue; 0]; 0], "{table}");
    }
    assert_eq!(files.error("SELECT * FROM commits('HEAD')").kind(), &ErrorKind::NotFound);
}

#[test]
fn a_revision_is_an_argument() {
    let files = history();
    assert_eq!(files.error("SELECT * FROM commits('none')").kind(), &ErrorKind::NotFound);
    assert_eq!(files.error("SELECT * FROM files(x'00')").kind(), &ErrorKind::Invalid);
    assert_eq!(files.error("SELECT * FROM changes('main^{tree}')").kind(), &ErrorKind::Invalid);
    files.check("SELECT count(*) FROM commits(NULL)", &["0"]);
    files.check("SELECT rev, count(*) FROM files WHERE rev IN ('main', 'v1') GROUP BY rev", &["main|6", "v1|6"]);
    files.check("SELECT count(*) FROM files WHERE rev = 'main' OR rev = 'main~1'", &["12"]);
    // What it does not reach is not there, though the repository has it.
    let head = show(&files.rows("SELECT hash FROM commits LIMIT 1")[0][0]);
    files.check(&format!("SELECT count(*) FROM commits WHERE hash = '{head}'"), &["1"]);
    files.check(&format!("SELECT count(*) FROM commits('topic') WHERE hash = '{head}'"), &["0"]);
    files.check(&format!("SELECT count(*) FROM changes('topic') WHERE commit_hash = '{head}'"), &["0"]);
    files.check(&format!("SELECT count(*) FROM commits WHERE hash = upper('{head}')"), &["0"]);
}

#[test]
fn bytes_that_are_no_text_go_through() {
    let mut files = history();
    let change = |text: &[u8]| vec![put(b"dir\xff/\xfe.txt", text)];
    let first = files.commit("main", "odd", change(b"caf\xe9\n"));
    files.commit("main", "odd", change(b"caf\xe9s\n"));
    let odd = Commit { message: b"caf\xe9\n".to_vec(), ..files.snapshot().commit(&first).expect("commit") };
    files.put("refs/heads/caf\u{e9}", Kind::Commit, odd.to_bytes());
    let mut transaction = files.repo.begin("test", Cause::Api);
    let name = RefName::new(b"refs/heads/\xff").expect("git allows it");
    transaction.edit(RefEdit { name, expected: Expected::Any, target: Some(first) }).expect("edit");
    transaction.prepare().expect("prepare").publish().expect("publish").ticket.wait().expect("durable");
    files.check(
        "SELECT path, content FROM files WHERE dir > 'dir' AND dir < 'e'",
        &["dir\u{fffd}/\u{fffd}.txt|caf\u{fffd}s\n"],
    );
    files.check("SELECT hex(name) FROM files WHERE path = CAST(x'646972ff2ffe2e747874' AS TEXT)", &["FE2E747874"]);
    files.check("SELECT count(*) FROM changes WHERE path = (SELECT path FROM files WHERE name LIKE '_.txt')", &["2"]);
    files.check("SELECT hex(message) FROM commits('caf\u{e9}') LIMIT 1", &["636166E90A"]);
    files.check("SELECT count(*) FROM commits(CAST(x'ff' AS TEXT))", &["6"]);
    files.check("SELECT count(*) FROM branches JOIN commits ON rev = name WHERE hex(name) = 'FF'", &["6"]);
}

/// Each test that a table can make use of narrows its scan, and leaves the rows that it would leave otherwise.
#[test]
fn pushed_down_tests_change_nothing() {
    let files = history();
    let hash = show(&files.rows("SELECT hash FROM commits LIMIT 1 OFFSET 2")[0][0]);
    let checks = [
        ("commits", "hash", format!("= '{hash}'")),
        ("commits", "hash", format!("IN ('{hash}', 'x')")),
        ("commits", "hash", "= 5".to_owned()),
        ("commits", "hash", format!("= '{}' COLLATE NOCASE", hash.to_uppercase())),
        ("files", "path", "= 'README.md'".to_owned()),
        ("files", "path", "= 'readme.MD' COLLATE NOCASE".to_owned()),
        ("files", "path", "= '/README.md'".to_owned()),
        ("files", "path", "= 'src/'".to_owned()),
        ("files", "path", "= x'524541444d452e6d64'".to_owned()),
        ("files", "path", "> 'link'".to_owned()),
        ("files", "path", ">= 'src/lib.rb'".to_owned()),
        ("files", "path", "< 'src/lib.rb'".to_owned()),
        ("files", "path", "<= 'src/lib.rb'".to_owned()),
        ("files", "path", "> 5".to_owned()),
        ("files", "path", "< x'00'".to_owned()),
        ("files", "path", "BETWEEN 'l' AND 'src/lib.rb'".to_owned()),
        ("files", "path", "LIKE 'SRC/%.rb'".to_owned()),
        ("files", "path", "LIKE 'src_lib.rb'".to_owned()),
        ("files", "path", "LIKE 'srcx%' ESCAPE 'x'".to_owned()),
        ("files", "path", "GLOB 'src/*.rb'".to_owned()),
        ("files", "path", "GLOB 'SRC/*'".to_owned()),
        ("files", "path", "NOT LIKE 'src/%'".to_owned()),
        ("files", "path", "NOT GLOB 'src/*'".to_owned()),
        ("files", "path", "IS NULL".to_owned()),
        ("files", "path", "= NULL".to_owned()),
        ("symbols", "path", "= 'src/lib.rb'".to_owned()),
        ("symbols", "path", "GLOB 'src/n*'".to_owned()),
        ("changes", "commit_hash", format!("= '{hash}'")),
        ("changes", "path", "= 'src/net/a.c'".to_owned()),
        ("changes", "path", "= 'src'".to_owned()),
        ("changes", "path", "= '/README.md'".to_owned()),
        ("changes", "path", "= 'readme.md' COLLATE NOCASE".to_owned()),
        ("branches", "name", "= 'main'".to_owned()),
        ("branches", "name", "= 'MAIN' COLLATE NOCASE".to_owned()),
        ("tags", "name", "= 'v1'".to_owned()),
        ("tags", "name", "IN ('v1', 'light', 'v1')".to_owned()),
    ];
    for (table, column, test) in checks {
        let pushed = files.rows(&format!("SELECT * FROM {table} WHERE {column} {test}"));
        let plain = files.rows(&format!("SELECT * FROM {table} WHERE +{column} {test}"));
        assert_eq!(sorted(pushed), sorted(plain), "{table}.{column} {test}");
        // The branches of an OR are joined by rowid.
        let either = files.rows(&format!("SELECT * FROM {table} WHERE {column} {test} OR {column} = 'README.md'"));
        let plain = files.rows(&format!("SELECT * FROM {table} WHERE +{column} {test} OR +{column} = 'README.md'"));
        assert_eq!(sorted(either), sorted(plain), "{table}.{column} {test} or another");
    }
}

#[test]
fn pushed_down_tests_are_used() {
    let files = history();
    let plans = [
        // The number has a bit for each test: rev 1, then in the order of each table.
        ("SELECT 1 FROM commits WHERE hash = 'x'", "VIRTUAL TABLE INDEX 2:"),
        ("SELECT 1 FROM commits('main') WHERE hash = 'x'", "VIRTUAL TABLE INDEX 3:"),
        ("SELECT 1 FROM files WHERE path = 'x'", "VIRTUAL TABLE INDEX 2:"),
        ("SELECT 1 FROM files WHERE path > 'x' AND path <= 'y'", "VIRTUAL TABLE INDEX 12:"),
        ("SELECT 1 FROM files WHERE path LIKE 'x%'", "VIRTUAL TABLE INDEX 16:"),
        ("SELECT 1 FROM files WHERE path GLOB 'x*'", "VIRTUAL TABLE INDEX 32:"),
        ("SELECT 1 FROM files WHERE path = 'x' COLLATE NOCASE", "VIRTUAL TABLE INDEX 0:"),
        ("SELECT 1 FROM symbols WHERE path GLOB 'x*'", "VIRTUAL TABLE INDEX 32:"),
        ("SELECT 1 FROM changes WHERE path = 'x' AND commit_hash = 'y'", "VIRTUAL TABLE INDEX 6:"),
        ("SELECT 1 FROM branches WHERE name = 'x'", "VIRTUAL TABLE INDEX 1:"),
        ("SELECT 1 FROM tags WHERE name = 'x'", "VIRTUAL TABLE INDEX 1:"),
    ];
    for (text, expected) in plans {
        let plan = files.explain(text);
        assert!(plan.contains(expected), "{text}: {plan}");
    }
    // The dear table is read inside, by what the cheap one gives.
    let plan = files.explain("SELECT 1 FROM changes JOIN commits ON hash = commit_hash WHERE author_name = 'x'");
    assert!(
        plan.contains("SCAN changes VIRTUAL TABLE INDEX 2:") && plan.contains("SCAN commits VIRTUAL TABLE INDEX 0:"),
        "{plan}"
    );
    let plan = files.explain("SELECT 1 FROM commits JOIN changes ON hash = commit_hash WHERE path = 'x'");
    assert!(
        plan.contains("SCAN changes VIRTUAL TABLE INDEX 4:") || plan.contains("SCAN changes VIRTUAL TABLE INDEX 6:"),
        "{plan}"
    );
    let plan = files.explain("SELECT 1 FROM symbols s JOIN files f ON f.path = s.path WHERE f.extension = 'c'");
    assert!(plan.contains("SCAN s VIRTUAL TABLE INDEX 2:"), "{plan}");
}

#[test]
fn the_whole_of_select_is_there() {
    let files = history();
    files.check("VALUES (1, 'a'), (2, 'b')", &["1|a", "2|b"]);
    files.check(
        "WITH RECURSIVE back(hash, at) AS (
             SELECT hash, 0 FROM branches WHERE name = 'main'
             UNION ALL SELECT substr(c.parents, 1, length(b.hash)), at + 1 FROM back b JOIN commits c ON c.hash = b.hash
             WHERE c.parents <> '')
         SELECT at, subject FROM back JOIN commits USING (hash) ORDER BY at",
        &["0|merge", "1|third", "2|second", "3|begin"],
    );
    files.check(
        "SELECT dir, count(*), sum(lines), rank() OVER (ORDER BY sum(lines) DESC)
         FROM files WHERE NOT is_binary GROUP BY dir HAVING count(*) > 1 ORDER BY dir",
        &["|3|5|1", "src|2|4|2"],
    );
    files.check("SELECT path FROM files('v1') EXCEPT SELECT path FROM files ORDER BY 1", &["src/net/a.c"]);
    files.check("SELECT group_concat(name, ',') FROM (SELECT name FROM branches ORDER BY name DESC)", &["topic,main"]);
    files.check("SELECT json_group_array(name) FROM tags", &["[\"light\",\"v1\"]"]);
    files.check("SELECT EXISTS (SELECT 1 FROM files WHERE content LIKE '%WORLD%'), CASE WHEN 1 THEN 2 END", &["1|2"]);
    files.check(
        "SELECT path FROM files WHERE content GLOB '*w[o-q]rld*' AND trim(name, 'Rmd') = 'EADME.'",
        &["README.md"],
    );
    files.check(
        "SELECT b.name FROM branches b LEFT JOIN tags t ON t.name = b.name WHERE t.name IS NULL",
        &["main", "topic"],
    );
    let query = SqlQuery {
        params: vec![Text("src/lib.rb".into()), Integer(3), Null, SqlValue::Real(1.5), Blob(vec![1])],
        ..query("SELECT path, ?3, ?4, ?5 FROM files WHERE path = ?1 AND lines = ?2")
    };
    let rows = files.answer(&query).expect("answer").rows;
    assert_eq!(rows, [[Text("src/lib.rb".into()), Null, SqlValue::Real(1.5), Blob(vec![1])]]);
}

fn sorted(mut rows: Vec<Vec<SqlValue>>) -> Vec<Vec<SqlValue>> {
    rows.sort_by_key(|row| format!("{row:?}"));
    rows
}
