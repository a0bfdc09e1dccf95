//! The same statements beside SQLite's own tables and functions over copies of the same rows.

use std::collections::BTreeMap;

use govc_engine::{Change, RefName};
use govc_search::{
    SqlQuery,
    SqlValue::{self, Blob, Integer, Null, Text},
};

use super::{Fixture, put, query, show, sorted};

/// A small generator; prints its seed when a test fails.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// A history of random changes, all of whose texts are UTF-8.
fn random_history(random: &mut Random) -> Fixture {
    let mut files = Fixture::empty();
    let names = ["a", "b", "A", "ab", "a.c", "B.rb", "_", "é.c"];
    let words = ["a", "B", "é", "%", "def x", "\n", "ab", "_"];
    let mut paths: BTreeMap<String, ()> = BTreeMap::new();
    for at in 0..25 {
        let mut changes = Vec::new();
        for _ in 0..1 + random.below(4) {
            let depth = 1 + random.below(3);
            let path: Vec<&str> = (0..depth).map(|_| random.pick(&names)).collect();
            let path = path.join("/");
            let is_in_the_way = paths
                .keys()
                .any(|other| other.starts_with(&format!("{path}/")) || path.starts_with(&format!("{other}/")));
            if is_in_the_way || changes.iter().any(|(other, _)| *other == path) {
                continue;
            }
            if paths.contains_key(&path) && random.below(3) == 0 && paths.len() > 1 {
                paths.remove(&path);
                changes.push((path.clone(), Change::delete(path)));
                continue;
            }
            let content: String =
                (0..random.below(12)).map(|_| random.pick(&words)).collect::<String>() + &at.to_string();
            paths.insert(path.clone(), ());
            changes.push((path.clone(), put(path.as_bytes(), content.as_bytes())));
        }
        if changes.is_empty() {
            continue;
        }
        let message: Vec<&str> = (0..1 + random.below(5)).map(|_| random.pick(&words)).collect();
        files.commit(
            "main",
            &format!("m {}", message.join(" ")),
            changes.into_iter().map(|(_, change)| change).collect(),
        );
    }
    let tip = files.snapshot().resolve("main").expect("main");
    for name in ["a", "A", "a/b", "é"] {
        let _ =
            files.repo.create_ref(RefName::branch(&format!("b/{name}x")).expect("name"), tip, "test").expect("branch");
    }
    let last = files.repo.create_ref(RefName::tag("t").expect("name"), tip, "test").expect("tag");
    last.ticket.wait().expect("durable");
    files
}

const PLAIN: [(&str, &str); 6] = [
    (
        "commits",
        "hash TEXT, tree TEXT, parents TEXT, author_name TEXT, author_email TEXT, author_date INTEGER, \
      committer_name TEXT, committer_email TEXT, committer_date INTEGER, message TEXT, subject TEXT",
    ),
    (
        "files",
        "path TEXT, name TEXT, dir TEXT, extension TEXT, mode TEXT, size INTEGER, hash TEXT, language TEXT, \
      lines INTEGER, content, is_binary INTEGER",
    ),
    ("branches", "name TEXT, hash TEXT, is_default INTEGER"),
    (
        "tags",
        "name TEXT, hash TEXT, target TEXT, target_kind TEXT, message TEXT, tagger_name TEXT, \
      tagger_email TEXT, tagger_date INTEGER",
    ),
    ("symbols", "path TEXT, name TEXT, kind TEXT, line INTEGER"),
    (
        "changes",
        "commit_hash TEXT, path TEXT, kind TEXT, old_mode TEXT, new_mode TEXT, old_hash TEXT, \
      new_hash TEXT, additions INTEGER, deletions INTEGER",
    ),
];

/// The same rows in tables of SQLite's own.
fn plain_copy(files: &Fixture) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open_in_memory().expect("open");
    for (table, columns) in PLAIN {
        connection.execute_batch(&format!("CREATE TABLE {table}({columns})")).expect("table");
        let names: Vec<&str> = columns.split(',').filter_map(|column| column.split_whitespace().next()).collect();
        let places = vec!["?"; names.len()].join(",");
        for row in files.rows(&format!("SELECT {} FROM {table}", names.join(","))) {
            let insert = format!("INSERT INTO {table} VALUES ({places})");
            connection.execute(&insert, rusqlite::params_from_iter(row)).expect("row");
        }
    }
    connection
}

fn plain_rows(connection: &rusqlite::Connection, text: &str) -> Vec<Vec<SqlValue>> {
    plain_rows_with(connection, text, &[])
}

fn plain_rows_with(connection: &rusqlite::Connection, text: &str, params: &[SqlValue]) -> Vec<Vec<SqlValue>> {
    let mut statement = connection.prepare(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let columns = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(params)).expect("query");
    let mut found = Vec::new();
    while let Some(row) = rows.next().unwrap_or_else(|error| panic!("{text}: {error}")) {
        let read = |column| match row.get_ref(column).expect("column") {
            rusqlite::types::ValueRef::Null => Null,
            rusqlite::types::ValueRef::Integer(number) => Integer(number),
            rusqlite::types::ValueRef::Real(number) => SqlValue::Real(number),
            rusqlite::types::ValueRef::Text(text) => Text(String::from_utf8_lossy(text).into_owned()),
            rusqlite::types::ValueRef::Blob(bytes) => Blob(bytes.to_vec()),
        };
        found.push((0..columns).map(read).collect());
    }
    found
}

/// A column, and some of its values as literals.
type Column = (String, Vec<String>);

/// A condition on the columns of some tables, each with values that occur in it.
fn condition(random: &mut Random, columns: &[Column], depth: usize) -> String {
    if depth > 0 && random.below(2) == 0 {
        let (left, right) = (condition(random, columns, depth - 1), condition(random, columns, depth - 1));
        return match random.below(3) {
            0 => format!("({left} OR {right})"),
            1 => format!("({left} AND {right})"),
            _ => format!("NOT ({left}) OR {right}"),
        };
    }
    let (column, values) = &columns[random.below(columns.len())];
    let value = |random: &mut Random| match random.below(12) {
        0 => "NULL".to_owned(),
        1 => "7".to_owned(),
        2 => "x'6162'".to_owned(),
        3 => "'a'".to_owned(),
        _ => values[random.below(values.len())].clone(),
    };
    let collate = if random.below(8) == 0 { " COLLATE NOCASE" } else { "" };
    match random.below(9) {
        0..=2 => {
            let operator = random.pick(&["=", "=", "<", "<=", ">", ">=", "<>", "IS", "IS NOT", "=="]);
            format!("{column} {operator} {}{collate}", value(random))
        }
        3 => format!("{column} IN ({}, {}, {})", value(random), value(random), value(random)),
        4 => format!("{column} BETWEEN {} AND {}", value(random), value(random)),
        5 | 6 => {
            let (one, two) = (value(random), value(random));
            let middle = random.pick(&["%", "_", "%a%", "", "%_", "\\%", "%/%"]);
            let pattern =
                format!("substr({one}, 1, {}) || '{middle}' || substr({two}, {})", random.below(6), random.below(6));
            let not = random.pick(&["", "", "NOT "]);
            let escape = random.pick(&["", "", " ESCAPE '\\'"]);
            // A constant pattern is what is pushed down.
            format!("{column} {not}LIKE ({pattern}){escape}")
        }
        7 => {
            let one = value(random);
            let middle = random.pick(&["*", "?", "[a-c]*", "[^a]*", "*/*", "", "[]a]*", "[é]?", "[a"]);
            format!("{column} GLOB (substr({one}, 1, {}) || '{middle}')", random.below(6))
        }
        _ => {
            let (one, two) = (value(random), value(random));
            match random.below(3) {
                0 => format!("instr({column}, substr({one}, 2, 2)) > {}", random.below(3)),
                1 => format!("replace({column}, substr({one}, 1, 1), {two}) > {column}"),
                _ => format!("{}({column}, {one}) = {column}", random.pick(&["trim", "ltrim", "rtrim"])),
            }
        }
    }
}

#[test]
fn random_statements_say_what_sqlite_says_of_the_same_rows() {
    let rounds = std::env::var("GOVC_SQL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(400);
    for seed in 1..=3_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let files = random_history(&mut random);
        // The first query has SQLite's memory counted, which has to come before any other use of SQLite.
        let pools = pools(&files);
        let plain = plain_copy(&files);
        for round in 0..rounds {
            let (first, columns) = &pools[random.below(pools.len())];
            let mut columns: Vec<Column> =
                columns.iter().map(|(name, values)| (format!("x.{name}"), values.clone())).collect();
            let mut from = format!("{first} x");
            if random.below(3) == 0 {
                let join = match first.as_str() {
                    "commits" => ("changes", "y.commit_hash = x.hash"),
                    "changes" => ("commits", "x.commit_hash = y.hash"),
                    "files" => ("symbols", "x.path = y.path"),
                    "symbols" => ("files", "x.path = y.path"),
                    "branches" => ("commits", "x.hash = y.hash"),
                    _ => ("commits", "x.target = y.hash"),
                };
                let kind = random.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN"]);
                from = format!("{from} {kind} {} y ON {}", join.0, join.1);
                let other = pools.iter().find(|(table, _)| table == join.0).expect("a table");
                columns.extend(other.1.iter().map(|(name, values)| (format!("y.{name}"), values.clone())));
            }
            let wanted = random.pick(&["x.*", "x.*", "count(*), min(x.rowid IS NULL)", "DISTINCT x.*"]);
            let text = format!("SELECT {wanted} FROM {from} WHERE {}", condition(&mut random, &columns, 2));
            let ours = files
                .answer(&query(&text))
                .unwrap_or_else(|error| panic!("seed {seed}, round {round}: {text}: {error}"));
            let theirs = plain_rows(&plain, &text);
            assert_eq!(sorted(ours.rows), sorted(theirs), "seed {seed}, round {round}: {text}");
        }
    }
}

/// The columns of each table, each with some of its values as literals.
fn pools(files: &Fixture) -> Vec<(String, Vec<Column>)> {
    let literal = |value: &SqlValue| match value {
        Text(text) => format!("'{}'", text.replace('\'', "''")),
        value => show(value),
    };
    let of = |(table, columns): (&str, &str)| {
        let names = columns.split(',').filter_map(|column| column.split_whitespace().next());
        let columns = names.map(|name| {
            let rows = files.rows(&format!("SELECT DISTINCT {name} FROM {table} ORDER BY 1 LIMIT 40"));
            let mut values: Vec<String> = rows.iter().map(|row| literal(&row[0])).collect();
            values.push("''".to_owned());
            // Those that are pushed down are asked for more often.
            (name.to_owned(), values)
        });
        let mut columns: Vec<Column> = columns.collect();
        let pushed =
            columns.iter().filter(|(name, _)| ["path", "hash", "commit_hash", "name"].contains(&name.as_str()));
        let again: Vec<_> = pushed.cloned().collect();
        for _ in 0..4 {
            columns.extend(again.iter().cloned());
        }
        (table.to_owned(), columns)
    };
    PLAIN.into_iter().map(of).collect()
}

/// Our functions in the place of SQLite's, over short texts of awkward characters.
#[test]
fn replaced_functions_say_what_sqlite_says() {
    let files = Fixture::empty();
    let text = "SELECT ?1 LIKE ?2, ?1 LIKE ?2 ESCAPE '\\', ?1 LIKE ?2 ESCAPE '%', ?1 GLOB ?2, instr(?1, ?2), \
                replace(?1, ?2, ?3), trim(?1, ?3), ltrim(?1, ?2), rtrim(?1, ?3)";
    let letters = ["a", "b", "A", "é", "É", "-", "]", "^", "\\", "c"];
    let special = ["%", "_", "*", "?", "[", "[^é]", "[a-b-d]", "[^", "]", "-", "a", "b", "c", "é", "\\"];
    let mut random = Random(7);
    let mut word = |of: &[&str], length: usize| -> SqlValue {
        let count = random.below(length);
        match random.below(40) {
            0 => Null,
            1 => Integer(random.below(99) as i64),
            2 => Blob(vec![b'a'; random.below(3)]),
            _ => Text((0..count).map(|_| of[random.below(of.len())]).collect()),
        }
    };
    let mut cases: Vec<Vec<SqlValue>> =
        (0..4000).map(|_| vec![word(&letters, 7), word(&special, 9), word(&letters, 4)]).collect();
    // A character is not tried from its middle.
    cases.push(["é", "*[^é]", "é"].map(|text| Text(text.to_owned())).to_vec());
    let ours: Vec<_> = cases
        .iter()
        .map(|params| files.answer(&SqlQuery { params: params.clone(), ..query(text) }).expect("answer").rows)
        .collect();
    let connection = rusqlite::Connection::open_in_memory().expect("open");
    for (params, ours) in cases.into_iter().zip(ours) {
        assert_eq!(ours, plain_rows_with(&connection, text, &params), "{params:?}");
    }
}
