//! Statements that must not be run, or not to their end, and what goes wrong on our side.

use std::time::{Duration, Instant};

use govc_engine::{ErrorKind, Kind, Oid};
use govc_search::{
    SqlQuery,
    SqlValue::{Integer, Text},
    Stop,
};

use super::{history, put, query};

#[test]
fn nothing_but_select_is_done() {
    let files = history();
    let statements = [
        "",
        " ",
        "-- only a comment",
        ";",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE files",
        "SELECT 1;;x",
        "INSERT INTO files(path) VALUES ('x')",
        "DELETE FROM branches",
        "UPDATE tags SET name = 'x'",
        "REPLACE INTO files(path) VALUES ('x')",
        "CREATE TABLE x(a)",
        "CREATE TEMP TABLE x(a)",
        "CREATE TABLE x AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TEMP VIEW v AS SELECT 1",
        "CREATE VIRTUAL TABLE x USING fts5(a)",
        "CREATE INDEX i ON files(path)",
        "DROP TABLE files",
        "CREATE TEMP TRIGGER t AFTER INSERT ON files BEGIN SELECT 1; END",
        "ATTACH 'x.db' AS x",
        "ATTACH ':memory:' AS x",
        "DETACH main",
        "PRAGMA temp_store = 1",
        "PRAGMA table_list",
        "PRAGMA database_list",
        "VACUUM",
        "VACUUM INTO '/tmp/govc-sql-test'",
        "ANALYZE",
        "REINDEX",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT s",
        "ALTER TABLE files ADD COLUMN x",
        "EXPLAIN DROP TABLE files",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM sqlite_schema",
        "SELECT * FROM sqlite_temp_master",
        "SELECT count(*) FROM sqlite_master",
        "SELECT * FROM pragma_table_list",
        "SELECT * FROM pragma_function_list",
        "SELECT * FROM pragma_compile_options()",
        "SELECT * FROM json_each('[1]')",
        "SELECT 1 FROM json_tree('[1]')",
        "SELECT * FROM dbstat",
        "SELECT * FROM bytecode('SELECT 1')",
        "SELECT load_extension('x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT writefile('/tmp/x', 'y')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT sqlite_version()",
        "SELECT sqlite_compileoption_get(0)",
        "SELECT last_insert_rowid()",
        "SELECT changes()",
        "SELECT zeroblob(10)",
        "SELECT randomblob(10)",
        "SELECT sqlite_log(1, 'x')",
        "SELECT edit('x')",
        "SELECT rtreecheck('x')",
        "SELECT * FROM main.sqlite_master",
        "SELECT \"nothing\"",
        "SELECT * FROM files WHERE content MATCH 'x'",
        "SELECT * FROM files WHERE content REGEXP 'x'",
        "WITH x AS (SELECT 1) DELETE FROM files",
        "SELECT * FROM files INDEXED BY i",
        "SELECT ?1",
        "SELECT \0 1",
        "SELECT 1\0; DROP TABLE files",
        "SELECT * FROM nowhere",
        "SELECT nowhere FROM files",
        "SELEC 1",
        "SELECT (",
    ];
    for text in statements {
        let error = files.error(text);
        assert_eq!(error.kind(), &ErrorKind::Invalid, "{text:?}: {error}");
        assert!(!error.message().is_empty() && error.message().len() < 500, "{text:?}: {error}");
    }
    assert!(!std::path::Path::new("/tmp/govc-sql-test").exists());
    let says = |text: &str, words: &str| {
        let error = files.error(text);
        assert!(error.message().contains(words), "{text}: {error}");
    };
    says("SELECT path FORM files", "near \"files\": syntax error, at byte 17");
    says("SELECT nowhere FROM files", "no such column: nowhere, at byte 7");
    says("SELECT * FROM nowhere", "no such table: nowhere");
    says("SELECT load_extension('x')", "the function load_extension is not available");
    says("SELECT * FROM sqlite_master", "there is no table \"sqlite_master\"; there are commits, files");
    says("PRAGMA table_list", "only SELECT is available");
    says("SELECT 1; SELECT 2", "more than one statement");
    says("SELECT ?1", "1 parameters, but 0 values");
    // Names are not reserved.
    files.check("WITH files AS (SELECT 7 AS path) SELECT path FROM files", &["7"]);
    files.check("SELECT 1; -- and no more", &["1"]);
}

#[test]
fn answers_end_early_for_a_reason() {
    let files = history();
    let all = "SELECT path FROM files";
    let limited = files.answer(&SqlQuery { rows_max: 2, ..query(all) }).expect("answer");
    assert_eq!((limited.rows.len(), limited.stopped), (2, Some(Stop::Limit)));
    let exact = files.answer(&SqlQuery { rows_max: 6, ..query(all) }).expect("answer");
    assert_eq!((exact.rows.len(), exact.stopped), (6, None), "nothing was left out");
    let small = files.answer(&SqlQuery { answer_bytes_max: 150, ..query(all) }).expect("answer");
    assert_eq!((small.rows.len(), small.stopped), (2, Some(Stop::Size)));
    let late = files.answer(&SqlQuery { deadline: Some(Instant::now()), ..query(all) }).expect("answer");
    assert_eq!((late.rows.len(), late.stopped), (0, Some(Stop::Deadline)));
    let numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n";
    let many = files.answer(&SqlQuery { rows_max: usize::MAX, ..query(numbers) }).expect("answer");
    assert_eq!((many.rows.len(), many.stopped), (10_000, Some(Stop::Limit)));
    let text = format!("{numbers} WHERE x <= 3 OR x < 0");
    let started = Instant::now();
    let deadline = Some(started + Duration::from_millis(200));
    let some = files.answer(&SqlQuery { deadline, ..query(&text) }).expect("answer");
    assert_eq!((some.rows.len(), some.stopped), (3, Some(Stop::Deadline)), "the rows so far are there");
    assert!(started.elapsed() < Duration::from_secs(2));
}

/// Statements that want all the time or memory that there is; all end, in time, and the next one works.
#[test]
fn greedy_statements_are_ended() {
    let mut files = history();
    let long: Vec<u8> = b"a".repeat(4 << 20);
    files.commit("main", "long", vec![put(b"long", &long), put(b"z/too-long", &b"x\n".repeat(5 << 20))]);
    let numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)";
    let a = "(SELECT content FROM files WHERE path = 'long')";
    let greedy: &[(String, &[&str])] = &[
        // Time.
        (format!("{numbers} SELECT count(*) FROM n"), &["deadline"]),
        (format!("{numbers} SELECT count(*) FROM n a, n b, n c"), &["deadline"]),
        ("SELECT count(*) FROM changes a, changes b, changes c, changes d, changes e, changes f, changes g, changes h".into(), &["deadline"]),
        (format!("SELECT {a} LIKE '%{}b'", "a%".repeat(5000)), &["done"]),
        (format!("SELECT {a} LIKE '%{}b%'", "a_".repeat(5000)), &["deadline", "done"]),
        (format!("SELECT {a} GLOB '*{}b*'", "[a-z]".repeat(5000)), &["deadline"]),
        (format!("WITH t(a) AS MATERIALIZED (SELECT {a}) SELECT instr(a, substr(a, 100000) || 'b') FROM t"), &["done"]),
        (format!("WITH t(a) AS MATERIALIZED (SELECT {a}) SELECT length(replace(a, substr(a, 100000) || 'b', 'c')) FROM t"), &["done"]),
        (format!("WITH t(a) AS MATERIALIZED (SELECT {a}) SELECT length(trim(a, replace(a, 'a', 'b') || 'a')) FROM t"), &["done"]),
        (format!("WITH t(a) AS MATERIALIZED (SELECT printf('%.60000c', '1')) SELECT {} FROM t", balanced("(upper(a) = lower(a))", 1000)), &["deadline", "done", "too large"]),
        (format!("WITH t(a) AS MATERIALIZED (SELECT printf('%.60000c', '1')) SELECT {} FROM t", balanced("(a || 'x' = a)", 2000)), &["deadline", "done", "too large"]),
        // Memory.
        (format!("{numbers} SELECT x FROM n ORDER BY x"), &["limit", "deadline"]),
        (format!("{numbers} SELECT count(DISTINCT x || 'some words to fill the memory with') FROM n"), &["limit", "deadline"]),
        (format!("{numbers} SELECT x, {a} FROM n ORDER BY 1"), &["limit"]),
        (format!("{numbers} SELECT group_concat(x) FROM n"), &["too large", "deadline"]),
        (format!("{numbers} SELECT json_group_array(x) FROM n"), &["too large", "deadline"]),
        ("SELECT printf('%999999999d', 1)".into(), &["too large", "done", "limit"]),
        (format!("WITH t(a) AS MATERIALIZED (SELECT {a}) SELECT length(replace(a, 'a', a)) FROM t"), &["too large"]),
        (format!("WITH t(a) AS MATERIALIZED (SELECT {a}) SELECT hex(hex(a)) FROM t"), &["too large"]),
        (format!("WITH t(a) AS MATERIALIZED (SELECT printf('%.1300000c', '1')) SELECT max({}) FROM t", vec!["upper(a)"; 90].join(", ")), &["limit", "deadline"]),
        (format!("WITH t(a) AS MATERIALIZED (SELECT printf('%.500000c', '1')) SELECT {} FROM t", vec!["a || 'b'"; 400].join(", ")), &["limit", "deadline"]),
        (format!("SELECT {} FROM files f", vec!["f.content"; 400].join(", ")), &["limit", "done"]),
        (format!("SELECT {} FROM files f", vec!["replace(f.content, 'b', 'c')"; 400].join(", ")), &["limit", "done", "deadline"]),
        ("WITH RECURSIVE t(a) AS (SELECT 'xxxxxxxx' UNION ALL SELECT a || a FROM t) SELECT length(a) FROM t".to_owned(), &["too large", "limit"]),
        // Operations that no deadline can stop; they are few.
        (format!("WITH t(a) AS MATERIALIZED (SELECT printf('%.160000c', '1')) SELECT {} FROM t", balanced("a", 1600)), &["deadline", "done", "too large"]),
        (format!("WITH t(a) AS MATERIALIZED (SELECT printf('%.80000c', '1')) SELECT {} FROM t", balanced("a", 3000)), &["deadline", "done", "too large"]),
        (format!("WITH t(a) AS MATERIALIZED (SELECT printf('%.160000c', '1')) SELECT {} FROM t", balanced("length(a)", 800)), &["deadline", "done", "too large"]),
        (format!("WITH t(a, b) AS MATERIALIZED (SELECT printf('%.160000c', '1'), printf('%.160000c', '1')) SELECT {} FROM t", balanced("(a=b)", 600)), &["deadline", "done", "too large"]),
        (format!("WITH t(a) AS MATERIALIZED (SELECT printf('%.66000c', '1')) SELECT 7 IN ({}) FROM t", vec!["a"; 4000].join(",")), &["deadline", "done", "too large"]),
        (format!("WITH t(a) AS MATERIALIZED (SELECT replace({a}, 'a', '1')) SELECT {} FROM t", balanced("a", 1600)), &["done"]),
        (format!("WITH t(a, b) AS MATERIALIZED (SELECT {a} || {a}, {a} || {a} || 'x') SELECT {} FROM t", balanced("(a=b)", 600)), &["deadline", "done", "limit"]),
        ("WITH RECURSIVE t(a) AS (SELECT {a} UNION SELECT a || 'x' FROM t) SELECT count(*) FROM t".replace("{a}", a), &["limit"]),
        // The compiler.
        (format!("SELECT {}1{}", "(".repeat(30_000), ")".repeat(30_000)), &["invalid", "limit"]),
        (format!("SELECT -{}1", "+".repeat(60_000)), &["invalid"]),
        (format!("SELECT {}1", "NOT ".repeat(15_000)), &["invalid", "limit"]),
        (format!("SELECT 1{}", " UNION SELECT 1".repeat(4000)), &["invalid"]),
        (format!("SELECT 1 FROM {}", vec!["files"; 65].join(", ")), &["invalid"]),
        (format!("SELECT count(*) FROM {}", (0..60).map(|at| format!("files f{at}")).collect::<Vec<_>>().join(", ")), &["deadline", "invalid"]),
        (format!("SELECT {}", vec!["1"; 30_000].join(",")), &["invalid"]),
        (format!("SELECT {}1{}", "(SELECT ".repeat(7000), ")".repeat(7000)), &["invalid", "limit"]),
        (format!("SELECT 1 IN ({})", vec!["1"; 30_000].join(",")), &["done", "limit"]),
        (format!("SELECT '{}'", "x".repeat(1 << 20)), &["invalid"]),
        (format!("WITH {} SELECT * FROM t20", (1..=20).fold("t0 AS (SELECT 1 a)".to_owned(), |text, at| format!("{text}, t{at} AS (SELECT a.a FROM t{0} a, t{0} b)", at - 1))), &["done", "deadline", "limit", "invalid"]),
    ];
    let mut wrong = Vec::new();
    for (text, expected) in greedy {
        let started = Instant::now();
        // What is to end by itself is given time, for busy machines.
        let time = if expected.contains(&"deadline") { Duration::from_millis(300) } else { Duration::from_secs(10) };
        let deadline = Some(started + time);
        let answered = files.answer(&SqlQuery { deadline, memory_bytes_max: 64 << 20, ..query(text) });
        let outcome = match &answered {
            Ok(answer) => answer.stopped.map_or("done", Stop::as_str),
            Err(error) => match error.kind() {
                ErrorKind::Invalid => "invalid",
                ErrorKind::TooLarge => "too large",
                ErrorKind::LimitExceeded => "limit",
                kind => panic!("{kind:?}: {error}"),
            },
        };
        let shown = &text[..text.len().min(150)];
        println!(
            "{:>6} ms {outcome:9} {shown} {}",
            started.elapsed().as_millis(),
            answered.as_ref().err().map_or(String::new(), |error| format!("({error})"))
        );
        if !expected.contains(&outcome) || started.elapsed() > time + Duration::from_secs(3) {
            wrong.push(format!("{outcome} after {:?}: {shown}", started.elapsed()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    files.check("SELECT count(*) FROM files", &["8"]);
}

/// `part + part + ...` of that many parts, nested as little as can be.
fn balanced(part: &str, count: usize) -> String {
    if count <= 1 {
        return part.to_owned();
    }
    format!("({}+{})", balanced(part, count / 2), balanced(part, count - count / 2))
}

#[test]
fn large_contents_are_left_out_visibly() {
    let mut files = history();
    files.commit("main", "long", vec![put(b"long.rb", &b"def x\n".repeat(2 << 20))]);
    let answer =
        files.answer(&query("SELECT path, content IS NULL, lines FROM files WHERE size > 100")).expect("answer");
    assert_eq!(answer.rows, [[Text("long.rb".into()), Integer(1), Integer(2 << 20)]]);
    assert_eq!(answer.contents_left_out, 1);
    let answer = files.answer(&query("SELECT count(*) FROM symbols")).expect("answer");
    assert_eq!((answer.rows, answer.contents_left_out), (vec![vec![Integer(3)]], 1));
    let answer = files.answer(&query("SELECT max(length(content)) > 10 FROM files WHERE path < 'l'")).expect("answer");
    assert_eq!(answer.contents_left_out, 0, "what is not asked for is not read");
}

#[test]
fn errors_of_ours_come_out_whole() {
    let mut files = history();
    files.commit("main", "bad", vec![put(b"bad.rb", b"fail")]);
    let error = files.error("SELECT * FROM symbols('nowhere')");
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("nowhere"), "{error}");
    // What cannot be told is no error, but said.
    let answer = files.answer(&query("SELECT count(*) FROM symbols")).expect("an answer");
    assert_eq!((answer.rows, answer.contents_left_out), (vec![vec![Integer(3)]], 1));
    // A submodule has no blob here.
    let gone = Oid::from_bytes(&vec![0x12; super::super::FORMAT.len()]).expect("an id");
    let tree = [b"160000 module\0".as_slice(), gone.as_bytes()].concat();
    files.put("refs/tags/tree", Kind::Tree, tree);
    files.check(
        "SELECT path, mode, hash, size, lines, content, is_binary FROM files('tree')",
        &[&format!("module|160000|{gone}|NULL|NULL|NULL|NULL")],
    );
}

#[test]
fn a_panic_reaches_the_caller_and_no_further() {
    let mut files = history();
    files.commit("main", "bad", vec![put(b"bad.rb", b"panic")]);
    let text = query("SELECT * FROM symbols");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| files.answer(&text).map(drop)));
    let panic = caught.expect_err("a panic");
    assert!(
        panic.downcast_ref::<String>().is_some_and(|text| text.contains("as wished"))
            || panic.downcast_ref::<&str>().is_some_and(|text| text.contains("as wished"))
    );
    files.check("SELECT count(*) FROM symbols('main~1')", &["3"]);
}
