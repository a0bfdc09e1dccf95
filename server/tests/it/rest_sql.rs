//! `POST /search/sql`: rows of a repository, on each embedded backend; what may not be asked; what a greedy statement costs others.

use serde_json::{Value, json};

use crate::server::{Place, Server};

const SQL: &str = "/api/v1/repos/repo/search/sql";

fn begun(server: &Server) -> String {
    server.create("repo");
    let author = json!({ "name": "Ada", "email": "ada@example.org", "date": "2020-01-02T03:04:05Z" });
    let changes = json!([
        { "op": "put", "path": "src/main.rs", "content": "fn main() {}\n\nstruct Point;\n" },
        { "op": "put", "path": "notes.md", "content": "notes\n" },
    ]);
    let body = json!({ "branch": "main", "message": "begin\n", "author": author, "changes": changes });
    let answer = server.http().post("/api/v1/repos/repo/commits", &body).expect(201);
    answer["hash"].as_str().expect("a hash").to_owned()
}

fn rows(server: &Server, body: &Value) -> Value {
    let answer = server.http().post(SQL, body).expect(200);
    assert_eq!((&answer["truncated"], &answer["reason"]), (&json!(false), &Value::Null), "{answer}");
    answer["rows"].clone()
}

#[test]
fn sql_gives_rows_of_a_version() {
    for backend in ["rocksdb", "sqlite"] {
        let place = Place::new();
        let server = place.launch().with(&["--backend", backend]).start();
        let first = begun(&server);
        let ask = |query: &str| rows(&server, &json!({ "query": query }));
        assert_eq!(
            ask("SELECT path, language, lines FROM files ORDER BY path"),
            json!([["notes.md", "Markdown", 1], ["src/main.rs", "Rust", 3]])
        );
        assert_eq!(
            ask("SELECT name, kind, line FROM symbols ORDER BY line"),
            json!([["main", "function", 1], ["Point", "struct", 3]])
        );
        assert_eq!(
            ask("SELECT hash, author_date, subject FROM commits"),
            json!([[first, 1_577_934_245, "begin"]]),
            "{backend}"
        );
        // Values of every kind there and back.
        let params = json!([null, 7, 1.5, "text", true, { "base64": "AP8=" }]);
        let query = "SELECT ?1, ?2, ?3, ?4, ?5, ?6, 9e999, -9e999, 9007199254740993";
        assert_eq!(
            rows(&server, &json!({ "query": query, "params": params })),
            json!([[null, 7, 1.5, "text", 1, { "base64": "AP8=" }, "Infinity", "-Infinity", 9_007_199_254_740_993_i64]])
        );
        // An older version, both ways.
        let delete = json!({ "branch": "main", "message": "end", "author": { "name": "B", "email": "b@example.org" },
            "changes": [{ "op": "delete", "path": "notes.md" }] });
        server.http().post("/api/v1/repos/repo/commits", &delete).expect(201);
        let count = json!({ "query": "SELECT count(*) FROM files" });
        let now = server.http().post(SQL, &count).expect(200);
        assert_eq!((&now["rows"], &now["columns"]), (&json!([[1]]), &json!(["count(*)"])));
        let version = now["version"].as_u64().expect("a version");
        let before = server.http().post(&format!("{SQL}?at={}", version - 1), &count).expect(200);
        assert_eq!((&before["rows"], &before["version"]), (&json!([[2]]), &json!(version - 1)));
        let later = "/api/v1/repos/repo/time-travel/4000000000/search/sql";
        assert_eq!(server.http().post(later, &count).expect(200)["rows"], json!([[1]]));
    }
}

#[test]
fn sql_that_may_not_be_is_refused_with_the_reason() {
    let place = Place::new();
    let server = place.launch().with(&["--backend", "sqlite"]).start();
    begun(&server);
    for (query, reason) in [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nowhere", "nowhere"),
        ("SELECT * FROM sqlite_master", ""),
        ("DELETE FROM files", ""),
        ("ATTACH 'x' AS x", ""),
        ("PRAGMA user_version", ""),
        ("SELECT load_extension('x')", "load_extension"),
        ("SELECT readfile('/etc/passwd')", "readfile"),
        ("SELECT 1; SELECT 2", "more than one"),
        ("SELECT ?1", "1 parameters, but 0"),
        ("", ""),
    ] {
        let problem = server.http().post(SQL, &json!({ "query": query })).problem(400);
        let detail = problem["detail"].as_str().expect("a message");
        assert!(detail.contains(reason), "{query}: {detail}");
    }
    for body in [
        json!({ "query": "SELECT ?1", "params": [[1]] }),
        json!({ "query": "SELECT ?1", "params": [{ "base64": "?" }] }),
        json!({ "query": "SELECT ?1", "params": [{ "hex": "00" }] }),
        json!({ "query": "SELECT 1", "limit": 0 }),
        json!({ "query": "SELECT 1", "unknown": 0 }),
        json!({}),
    ] {
        server.http().post(SQL, &body).problem(400);
    }
    server.http().post(SQL, &json!({ "query": "SELECT * FROM files('nowhere')" })).problem(404);
    server.http().post("/api/v1/repos/other/search/sql", &json!({ "query": "SELECT 1" })).problem(404);
}

#[test]
fn a_greedy_statement_fails_alone() {
    let place = Place::new();
    let server = place.launch().with(&["--backend", "sqlite"]).start();
    begun(&server);
    let greedy = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 100000000) \
                  SELECT count(DISTINCT x || ' a text that makes the row a little larger than the number') FROM n";
    let problem = server.http().post(SQL, &json!({ "query": greedy })).problem(413);
    assert_eq!(problem["code"], "LIMIT_EXCEEDED", "{problem}");
    // The backend, which is SQLite too, has all the memory that it needs.
    let big = "x".repeat(4 << 20);
    let body = json!({ "branch": "main", "message": "big", "author": { "name": "B", "email": "b@example.org" },
        "changes": [{ "op": "put", "path": "big", "content": big }] });
    server.http().post("/api/v1/repos/repo/commits", &body).expect(201);
    assert_eq!(rows(&server, &json!({ "query": "SELECT size FROM files WHERE path = 'big'" })), json!([[4 << 20]]));
    let series = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n";
    let answer = server.http().post(SQL, &json!({ "query": series, "limit": 5 })).expect(200);
    assert_eq!((&answer["rows"], &answer["truncated"]), (&json!([[1], [2], [3], [4], [5]]), &json!(true)));
    assert_eq!((&answer["reason"], &answer["count"]), (&json!("limit"), &json!(5)));
}
