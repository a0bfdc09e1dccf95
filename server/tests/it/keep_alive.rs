//! Connections of HTTP/1.1 that live on after a request: what comes next on them, however it comes, and what one costs
//! that nothing comes on.

use std::{io::Read, net::TcpStream, thread, time::Duration};

use serde_json::json;

use crate::{
    http::Connection,
    server::{Place, Server},
};

/// Longer than the server needs to give up what it holds for a connection; too short a rest only tests less.
const REST: Duration = Duration::from_millis(50);

fn rest() {
    thread::sleep(REST);
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes()
}

fn create(repo: &str, framing: &str, body: &str) -> Vec<u8> {
    let head = "POST /api/v1/repos HTTP/1.1\r\nhost: x\r\ncontent-type: application/json";
    let body = body.replace("REPO", &json!({ "id": repo }).to_string());
    let length = body.len();
    format!("{head}\r\n{}\r\n\r\n{body}", framing.replace("LENGTH", &length.to_string())).into_bytes()
}

#[test]
fn requests_of_every_form_follow_each_other() {
    let place = Place::new();
    let server = place.serve();
    let mut connection = server.http().connect();
    for round in 0..3 {
        connection.write(&get("/health"));
        connection.reply().expect(200);
        rest();

        connection.write(&create(&format!("sized{round}"), "content-length: LENGTH", "REPO"));
        connection.reply().expect(201);
        rest();

        let chunk = json!({ "id": format!("chunked{round}") }).to_string();
        let chunks = format!("{:x}\r\n{chunk}\r\n0\r\n\r\n", chunk.len());
        connection.write(&create("", "transfer-encoding: chunked", &chunks));
        connection.reply().expect(201);
        rest();

        let parts = create(&format!("parts{round}"), "content-length: LENGTH", "REPO");
        for part in parts.chunks(parts.len().div_ceil(5)) {
            connection.write(part);
            rest();
        }
        connection.reply().expect(201);

        // The beginning of a request comes with the one before.
        let next = get(&format!("/api/v1/repos/sized{round}"));
        connection.write(&[&get("/health")[..], &next[..next.len() / 2]].concat());
        connection.reply().expect(200);
        rest();
        connection.write(&next[next.len() / 2..]);
        assert_eq!(connection.reply().expect(200)["id"], format!("sized{round}"));
        rest();

        let names = ["sized", "chunked", "parts"].map(|name| format!("{name}{round}"));
        let three: Vec<u8> = names.iter().flat_map(|name| get(&format!("/api/v1/repos/{name}"))).collect();
        connection.write(&three);
        for name in &names {
            assert_eq!(connection.reply().expect(200)["id"], *name);
        }
        rest();

        connection.write(&create(
            &format!("expected{round}"),
            "expect: 100-continue\r\ncontent-length: LENGTH",
            "REPO",
        ));
        let mut reply = connection.reply();
        if reply.status == 100 {
            reply = connection.reply();
        }
        reply.expect(201);
        rest();
    }
}

#[test]
fn requests_follow_heads_and_requests_of_version_1_0() {
    let place = Place::new();
    let server = place.serve();
    let mut connection = server.http().connect();
    for _ in 0..3 {
        connection.write(b"HEAD /health HTTP/1.1\r\nhost: x\r\n\r\n");
        let head = connection.try_head().expect("a head");
        assert!(head.status == 200 && head.header("content-length").is_some_and(|length| length != "0"), "{head:?}");
        rest();

        connection.write(b"GET /health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
        let reply = connection.reply();
        assert_eq!(reply.header("connection"), Some("keep-alive"));
        reply.expect(200);
        rest();

        connection.write(&get("/version"));
        assert_eq!(connection.reply().expect(200)["name"], "govc");
        rest();
    }
    connection.write(b"GET /health HTTP/1.0\r\n\r\n");
    connection.reply().expect(200);
    assert!(is_closed(&mut connection), "it was not asked to stay");
}

#[test]
fn who_was_to_wait_with_a_body_that_is_refused_may_send_it_or_not() {
    let place = Place::new();
    let server = place.serve();
    let next = get("/version");
    let head = |path: &str, kind: &str, length: usize| {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\nexpect: 100-continue\r\n");
        format!("{head}content-length: {length}\r\n\r\n").into_bytes()
    };
    for (path, kind, length, status) in [
        ("/nowhere", "application/json", next.len(), 404),
        ("/nobody.git/git-upload-pack", "application/x-git-upload-pack-request", next.len(), 404),
        ("/api/v1/repos", "application/json", 1 << 30, 413),
    ] {
        for sends in [true, false] {
            let mut connection = server.http().connect();
            connection.write(&head(path, kind, length));
            let reply = connection.reply();
            assert_eq!(reply.status, status, "{path}: no word that it may go on");
            rest();
            // What follows could be either, so it is neither: the server leaves.
            if sends {
                let _ = connection.try_write(&[&next[..], &next].concat());
            }
            let after = connection.try_reply().map(|reply| reply.text());
            assert!(after.is_err(), "{path}: {after:?}");
        }
    }
    let mut connection = server.http().connect();
    for _ in 0..2 {
        // There is nothing to wait with.
        connection.write(&head("/nowhere", "application/json", 0));
        assert_eq!(connection.reply().status, 404);
        rest();
        connection.write(&next);
        assert_eq!(connection.reply().expect(200)["name"], "govc");
        rest();
    }
}

#[test]
fn a_body_that_nobody_reads_is_no_request() {
    let place = Place::new();
    let server = place.serve();
    let disguised = String::from_utf8(get("/api/v1/repos/secret")).expect("ASCII");
    for (method, path) in [("GET", "/health"), ("POST", "/nowhere"), ("DELETE", "/api/v1/repos/nobody")] {
        for split in [0, 10, disguised.len()] {
            let mut connection = server.http().connect();
            let length = disguised.len();
            let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
            connection.write(&[head.as_bytes(), &disguised.as_bytes()[..split]].concat());
            let first = connection.reply();
            rest();
            // The server may have closed the connection instead.
            let rest = [&disguised.as_bytes()[split..], &get("/version")[..]].concat();
            let next = connection.try_write(&rest).and_then(|()| connection.try_reply());
            if let Ok(next) = next {
                assert!(next.json()["version"].is_string(), "{method} {path}, {}: {}", first.status, next.text());
            }
        }
    }
}

#[test]
fn what_is_left_of_a_refused_body_is_no_request() {
    let place = Place::new();
    let server = place.launch().env("GOVC_HEADER_TIMEOUT", "300ms").start();
    let head = |length: usize| {
        let head =
            "POST /nobody.git/git-upload-pack HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: ";
        format!("{head}{length}\r\n\r\n").into_bytes()
    };
    let disguised = b"GET /version HTTP/1.1\r\nhost: x\r\nfiller: ";
    let rest = [&disguised[..], &[b'a'; 500], b"\r\n\r\n"].concat();
    for _ in 0..20 {
        let mut connection = server.http().connect();
        // The second body ends long after both have been refused.
        connection.write(&[&head(5)[..], b"aaaaa", &head(10 + rest.len()), &[b'b'; 10]].concat());
        for _ in 0..2 {
            let _ = connection.try_reply();
        }
        thread::sleep(Duration::from_millis(350));
        let all = [&rest[..], &get("/health")].concat();
        if let Ok(next) = connection.try_write(&all).and_then(|()| connection.try_reply()) {
            assert!(!next.text().contains("\"name\":\"govc\""), "{}", next.text());
        }
    }
}

/// Whether the server closes the connection before long.
fn is_closed(connection: &mut Connection) -> bool {
    connection.try_reply().is_err_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof)
}

#[test]
fn one_that_stays_silent_ends_in_time() {
    let place = Place::new();
    let server = place.launch().env("GOVC_HEADER_TIMEOUT", "300ms").start();
    for next in [&b""[..], b"G", b"GET /health HTTP/1.1\r\n"] {
        let mut connection = server.http().connect();
        connection.write(&get("/health"));
        connection.reply().expect(200);
        rest();
        connection.write(next);
        assert!(is_closed(&mut connection), "after {next:?}");
    }
}

#[test]
fn a_stopping_server_does_not_wait_for_silent_ones() {
    let place = Place::new();
    let server = place.serve();
    let mut connections: Vec<Connection> = (0..20).map(|_| server.http().connect()).collect();
    for connection in &mut connections {
        connection.write(&get("/health"));
        connection.reply().expect(200);
    }
    rest();
    server.terminate();
    for connection in &mut connections {
        assert!(is_closed(connection));
    }
    server.stopped();
}

#[test]
fn silent_ones_hold_little_memory() {
    const FEW: usize = 200;
    const MANY: usize = 3000;
    let place = Place::new();
    let server = place.launch().env("GOVC_HEADER_TIMEOUT", "10m").start();
    let ask = |server: &Server| {
        let mut connection = server.http().connect();
        connection.write(&get("/health"));
        connection.reply().expect(200);
        connection
    };
    let few: Vec<Connection> = (0..FEW).map(|_| ask(&server)).collect();
    let before = server.peak_bytes();
    let many: Vec<Connection> = (0..MANY).map(|_| ask(&server)).collect();
    let each = (server.peak_bytes() - before) / MANY as u64;
    assert!(each <= 4 << 10, "{each} bytes a connection");
    for mut connection in few.into_iter().chain(many) {
        connection.write(&get("/health"));
        connection.reply().expect(200);
    }
}

#[test]
fn clients_that_leave_in_silence_leave_nothing() {
    let place = Place::new();
    let server = place.launch().env("GOVC_MAX_CONNECTIONS", "4").start();
    // Each takes a place until the server has seen that it is gone.
    for _ in 0..40 {
        let mut connection = server.http().connect();
        connection.write(&get("/health"));
        connection.reply().expect(200);
        rest();
    }
    let mut half = TcpStream::connect(server.address()).expect("the server accepts connections");
    std::io::Write::write_all(&mut half, &get("/health")).expect("the server reads");
    let mut byte = [0];
    half.read_exact(&mut byte).expect("an answer");
    rest();
    half.shutdown(std::net::Shutdown::Write).expect("an open connection");
    assert!(half.read_to_end(&mut Vec::new()).is_ok(), "the server closes its side too");
}
