//! HTTP/2 by prior knowledge: served beside HTTP/1.1, and ended when nothing is asked any more, or nothing is taken.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use serde_json::json;

use crate::server::{Place, Server};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection that has said hello.
fn connect(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).expect("the server accepts connections");
    // A guard against waiting for ever.
    stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a time-out");
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).expect("the server reads");
    stream
}

/// The next frame: its kind, flags and payload; `None` at the end.
fn read_frame(stream: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], head[4], payload))
}

#[test]
fn both_versions_are_served_on_one_port() {
    let place = Place::new();
    let server = place.serve();
    let url = format!("http://{}/health", server.address());
    for (option, version) in [("--http2-prior-knowledge", "2"), ("--http1.1", "1.1")] {
        let arguments = ["-s", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", option, &url];
        let output = Command::new("curl").args(arguments).output().expect("curl is installed");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{version} 200"), "{option}");
    }
}

#[test]
fn a_connection_without_requests_ends() {
    let place = Place::new();
    let server = place.launch().env("GOVC_HEADER_TIMEOUT", "300ms").start();
    let mut silent = connect(&server);
    while read_frame(&mut silent).is_some() {}

    let mut stream = connect(&server);
    // GET / with the static table's own headers.
    stream.write_all(&frame(HEADERS, 0x5, 1, &[0x82, 0x86, 0x84])).expect("the server reads");
    let mut seen = Vec::new();
    while let Some((kind, flags, payload)) = read_frame(&mut stream) {
        if kind == SETTINGS && flags == 0 {
            stream.write_all(&frame(SETTINGS, 1, 0, b"")).expect("the server reads");
        }
        if kind == GOAWAY {
            assert_eq!(payload[4..8], [0; 4], "it is no error");
        }
        seen.push(kind);
    }
    let at = |kind| seen.iter().position(|seen| *seen == kind).unwrap_or_else(|| panic!("no {kind} in {seen:?}"));
    assert!(at(HEADERS) < at(GOAWAY) && at(DATA) < at(GOAWAY), "the answer comes whole first: {seen:?}");
}

/// A server with two places for connections and a file of 8 MiB at `/big`, its client's patience short.
fn with_large_file(place: &Place) -> (Server, String) {
    let server = place.launch().env("GOVC_BODY_TIMEOUT", "500ms").env("GOVC_MAX_CONNECTIONS", "2").start();
    server.create("repo");
    let content = "0123456789abcdef".repeat(8 << 16);
    let change = json!({ "op": "put", "path": "big", "content": content });
    let commit = json!({ "branch": "main", "message": "m", "changes": [change] });
    let reply = server.http().post("/api/v1/repos/repo/commits", &commit);
    assert_eq!(reply.status, 201, "{}", reply.text());
    (server, "/api/v1/repos/repo/raw/big?ref=main".to_owned())
}

#[test]
fn who_reads_nothing_gives_the_place_back() {
    let place = Place::new();
    let (server, path) = with_large_file(&place);
    let mut silent: Vec<_> = (0..2).map(|_| server.http().connect()).collect();
    for connection in &mut silent {
        connection.write(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
    }
    // Answered once one of the two has been cut off.
    assert_eq!(server.http().get("/health").status, 200);
}

#[test]
fn who_opens_no_window_gives_the_place_back() {
    let place = Place::new();
    let (server, path) = with_large_file(&place);
    let closed_window = [0, 4, 0, 0, 0, 0];
    let literal = |name: u8, value: &str| [&[name, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    let get = [&[0x82, 0x86][..], &literal(0x04, &path), &literal(0x01, "x")].concat();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let mut stream = TcpStream::connect(server.address()).expect("the server accepts connections");
            stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a time-out");
            let hello = [PREFACE, &frame(SETTINGS, 0, 0, &closed_window), &frame(HEADERS, 0x5, 1, &get)].concat();
            stream.write_all(&hello).expect("the server reads");
            scope.spawn(move || {
                let mut answered = false;
                // It answers all that keeps the connection, and takes nothing.
                while let Some((kind, flags, payload)) = read_frame(&mut stream) {
                    answered |= kind == HEADERS;
                    assert!(kind != DATA || payload.is_empty(), "the window is closed");
                    if matches!(kind, SETTINGS | PING) && flags == 0 {
                        let payload = if kind == PING { &payload[..] } else { b"" };
                        if stream.write_all(&frame(kind, 1, 0, payload)).is_err() {
                            break;
                        }
                    }
                }
                assert!(answered, "the head of the answer needs no window");
            });
        }
        assert_eq!(server.http().get("/health").status, 200);
    });
}

#[test]
fn windows_and_streams_are_bounded() {
    let place = Place::new();
    let server = place.serve();
    let mut stream = connect(&server);
    let settings = loop {
        let (kind, flags, payload) = read_frame(&mut stream).expect("the server's settings");
        if kind == SETTINGS && flags == 0 {
            break payload;
        }
    };
    let value = |id: u16| {
        let pair = settings.chunks(6).find(|pair| pair[..2] == id.to_be_bytes());
        pair.map(|pair| u32::from_be_bytes(pair[2..].try_into().expect("four bytes")))
    };
    assert_eq!(value(3), Some(128), "concurrent streams");
    assert_eq!(value(4), Some(512 << 10), "window of a stream");
    assert_eq!(value(6), Some(64 << 10), "header list");
}

#[test]
fn a_head_without_end_is_refused() {
    let place = Place::new();
    let server = place.serve();
    let mut connection = server.http().connect();
    connection.write(b"GET /health HTTP/1.1\r\nhost: x\r\n");
    // The server may close before it has read everything.
    let line = format!("x-long: {}\r\n", "a".repeat(8 << 10));
    for _ in 0..32 {
        if connection.try_write(line.as_bytes()).is_err() {
            break;
        }
    }
    // What it answers may be lost in the reset.
    if let Ok(reply) = connection.try_reply() {
        assert_eq!(reply.status, 431, "{}", reply.text());
    }
    assert_eq!(server.http().get("/health").status, 200);
}
