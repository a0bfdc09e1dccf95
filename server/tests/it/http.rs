//! A blocking HTTP/1.1 client of a few lines: one connection a request, and raw bytes where a test needs them odd.
//!
//! A real client library would correct what these tests have to get wrong on purpose: lengths, chunks, paths.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::tls::Trust;

/// A guard against waiting for ever; no test depends on its length.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);

/// How long a trickling client rests after each byte.
const TRICKLE_EVERY: Duration = Duration::from_millis(20);

/// Speaks to one server, over TLS if it is told whom to trust.
#[derive(Clone, Copy)]
pub(crate) struct Http {
    address: SocketAddr,
    trust: Option<&'static Trust>,
}

/// The bytes of a connection, whatever they go over.
pub(crate) trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

pub(crate) type Wire = Box<dyn Duplex>;

/// One answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// One open connection, for exchanges in steps.
pub(crate) struct Connection {
    stream: BufReader<Wire>,
}

impl Http {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, trust: None }
    }

    /// The same over TLS.
    pub(crate) fn trusting(self, trust: &'static Trust) -> Self {
        Self { trust: Some(trust), ..self }
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.send("GET", path, headers, b"")
    }

    /// Asks for the head of an answer.
    pub(crate) fn head(&self, path: &str) -> Reply {
        let mut connection = self.connect();
        connection
            .write(format!("HEAD {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address).as_bytes());
        connection.try_head().expect("a head")
    }

    pub(crate) fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.json("POST", path, body)
    }

    pub(crate) fn patch(&self, path: &str, body: &Value) -> Reply {
        self.json("PATCH", path, body)
    }

    /// Sends `body` as JSON.
    pub(crate) fn json(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.send(method, path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// Sends one request with a known length and reads its answer.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.try_send(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The same where the server may be gone.
    pub(crate) fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Reply> {
        let mut connection = self.try_connect()?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PATCH" | "PUT") {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        connection.try_write(head.as_bytes())?;
        // A server that refuses early may close its side before it has read everything.
        let written = connection.try_write(body);
        connection.try_reply().or_else(|error| written.and(Err(error)))
    }

    /// Opens a connection for an exchange in steps.
    pub(crate) fn connect(&self) -> Connection {
        self.try_connect().expect("the server accepts connections")
    }

    /// The same where the server may be gone.
    pub(crate) fn try_connect(&self) -> std::io::Result<Connection> {
        Ok(Connection { stream: BufReader::new(self.wire(None)?) })
    }

    /// Opens a connection; over TLS, one for which such a protocol is agreed on.
    pub(crate) fn wire(&self, protocol: Option<&str>) -> std::io::Result<Wire> {
        let stream = self.tcp()?;
        Ok(match self.trust {
            None => Box::new(stream),
            Some(trust) => Box::new(trust.shake_hands(stream, protocol)?),
        })
    }

    fn tcp(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Sends `head` at once, then a byte of `rest` now and then until an answer comes.
    pub(crate) fn trickle(&self, head: &[u8], rest: impl IntoIterator<Item = u8> + Send) -> Reply {
        let mut sender = self.tcp().expect("the server accepts connections");
        let stream: Wire = Box::new(sender.try_clone().expect("a second handle"));
        let mut connection = Connection { stream: BufReader::new(stream) };
        connection.write(head);
        let answered = AtomicBool::new(false);
        let reply = thread::scope(|scope| {
            scope.spawn(|| {
                for byte in rest {
                    if answered.load(Ordering::Relaxed) || sender.write_all(&[byte]).is_err() {
                        return;
                    }
                    thread::sleep(TRICKLE_EVERY);
                }
            });
            let reply = connection.try_reply();
            answered.store(true, Ordering::Relaxed);
            reply
        });
        reply.expect("a whole answer")
    }

    /// Sends bytes as they are and reads one answer.
    pub(crate) fn raw(&self, request: &[u8]) -> Reply {
        let mut connection = self.connect();
        connection.write(request);
        connection.reply()
    }
}

impl Connection {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).expect("the server takes the bytes");
    }

    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let wire = self.stream.get_mut();
        wire.write_all(bytes).and_then(|()| wire.flush())
    }

    pub(crate) fn reply(&mut self) -> Reply {
        self.try_reply().expect("a whole answer")
    }

    /// Reads one answer, also an interim one.
    pub(crate) fn try_reply(&mut self) -> std::io::Result<Reply> {
        let mut reply = self.try_head()?;
        let status = reply.status;
        if status < 200 || status == 204 || status == 304 {
            return Ok(reply);
        }
        if reply.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            loop {
                let size = self.line()?;
                let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
                    .map_err(|_| std::io::Error::other(format!("not a chunk size: {size:?}")))?;
                let mut chunk = vec![0; size];
                self.stream.read_exact(&mut chunk)?;
                self.line()?;
                if size == 0 {
                    break;
                }
                reply.body.extend_from_slice(&chunk);
            }
        } else if let Some(length) = reply.header("content-length").and_then(|value| value.parse().ok()) {
            reply.body = vec![0; length];
            self.stream.read_exact(&mut reply.body)?;
        } else {
            self.stream.read_to_end(&mut reply.body)?;
        }
        Ok(reply)
    }

    /// Reads the head of an answer.
    pub(crate) fn try_head(&mut self) -> std::io::Result<Reply> {
        let status_line = self.line()?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| std::io::Error::other(format!("not a status line: {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Reply { status, headers, body: Vec::new() })
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

impl Reply {
    /// The first header of that lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} is not JSON: {error}: {}", self.status, self.text()))
    }

    /// The answer's JSON, if it has this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "answer: {}", self.text());
        self.json()
    }

    /// Asserts an RFC 9457 problem of this status and returns it.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "answer: {}", self.text());
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "{kind}: {}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        for member in ["title", "error", "code"] {
            let text = problem[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "a problem has {member}: {problem}");
        }
        let code = problem["code"].as_str().unwrap_or_default();
        assert!(code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'), "code {code}");
        problem
    }

    /// The path of the next page, from the `Link` header.
    pub(crate) fn next_page(&self) -> Option<String> {
        let link = self.header("link")?;
        link.split(',').find_map(|part| {
            let (target, parameters) = part.trim().split_once(';')?;
            if !parameters.contains("rel=\"next\"") {
                return None;
            }
            let target = target.trim().strip_prefix('<')?.strip_suffix('>')?;
            // An absolute target names this server; the client wants the path alone.
            Some(match target.split_once("://") {
                Some((_, rest)) => rest.split_once('/').map_or_else(|| "/".to_owned(), |(_, path)| format!("/{path}")),
                None => target.to_owned(),
            })
        })
    }
}

/// The elements of a list's answer: the document itself, or its one array of objects.
#[track_caller]
pub(crate) fn items(document: &Value) -> Vec<Value> {
    if let Some(list) = document.as_array() {
        return list.clone();
    }
    let members = document.as_object().unwrap_or_else(|| panic!("not a list: {document}"));
    let mut arrays = members.values().filter_map(Value::as_array);
    let list = arrays.next().unwrap_or_else(|| panic!("no list in {document}"));
    assert!(arrays.next().is_none(), "more than one list in {document}");
    list.clone()
}

/// Percent-encodes everything that is not unreserved, slashes too.
pub(crate) fn encode(text: impl AsRef<[u8]>) -> String {
    let mut out = String::new();
    for &byte in text.as_ref() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
