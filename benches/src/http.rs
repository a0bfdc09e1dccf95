//! A small blocking HTTP/1.1 client for one keep-alive connection: enough for replayed Git requests and
//! JSON, with bodies that stream. A client of our own keeps the load on the machine small and its cost
//! out of the way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::{Context, Error, Result};

const HEAD_BYTES_MAX: u64 = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(1800);

/// One connection.
pub(crate) struct Client {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

/// Status and framing of an answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Framing {
    /// This many bytes are left.
    Length(u64),
    /// This many bytes of the current chunk are left; `first` before the first chunk.
    Chunked { left: u64, first: bool },
    /// Until the connection closes.
    Close,
}

/// The body of an answer. It must be read to its end before the next request.
pub(crate) struct Body<'a> {
    stream: &'a mut BufReader<TcpStream>,
    framing: Framing,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Client> {
        let stream = TcpStream::connect(address).context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true).context(|| "cannot set up a connection".into())?;
        stream.set_read_timeout(Some(TIMEOUT)).context(|| "cannot set up a connection".into())?;
        Ok(Client { address, stream: BufReader::with_capacity(256 * 1024, stream) })
    }

    /// Sends a GET; the answer's text.
    pub(crate) fn get_text(&mut self, path: &str) -> Result<String> {
        let mut text = String::new();
        let mut body = self.request("GET", path, &[], &[])?;
        body.read_to_string(&mut text).context(|| format!("GET {path} was answered in part"))?;
        Ok(text)
    }

    /// Sends a POST; the answer's body, or an error that quotes it when the status is not a success.
    pub(crate) fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Body<'_>> {
        self.request("POST", path, headers, body)
    }

    fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Body<'_>> {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n", self.address, body.len());
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        let failed = || format!("{method} {path} to {} failed", self.address);
        self.stream.get_ref().write_all(&request).context(failed)?;
        let head = read_head(&mut self.stream).context(failed)?;
        let mut body = Body { stream: &mut self.stream, framing: head.framing };
        if !(200..300).contains(&head.status) {
            let mut text = Vec::new();
            body.by_ref().take(2000).read_to_end(&mut text).context(|| format!("{method} {path} failed"))?;
            return Err(Error::new(format!(
                "{method} {path} was answered with {}: {}",
                head.status,
                String::from_utf8_lossy(&text).trim()
            )));
        }
        Ok(body)
    }

    /// Sends JSON and reads JSON.
    pub(crate) fn post_json(&mut self, path: &str, body: &serde_json::Value) -> Result<serde_json::Value> {
        self.request_json("POST", path, body.to_string().as_bytes())
    }

    /// Reads JSON.
    pub(crate) fn get_json(&mut self, path: &str) -> Result<serde_json::Value> {
        self.request_json("GET", path, &[])
    }

    /// Sends JSON, or nothing, and reads JSON.
    pub(crate) fn request_json(&mut self, method: &str, path: &str, body: &[u8]) -> Result<serde_json::Value> {
        let mut answer = Vec::new();
        self.request(method, path, &[("Content-Type", "application/json")], body)?
            .read_to_end(&mut answer)
            .context(|| format!("{method} {path} was answered in part"))?;
        serde_json::from_slice(&answer).context(|| format!("{method} {path} was not answered with JSON"))
    }

    /// Sends nothing and reads to the end of the answer.
    pub(crate) fn request_empty(&mut self, method: &str, path: &str) -> Result<()> {
        let read = self.request(method, path, &[], &[])?.read_to_end(&mut Vec::new());
        read.map(drop).context(|| format!("{method} {path} was answered in part"))
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = match &mut self.framing {
            Framing::Close => return self.stream.read(buffer),
            Framing::Length(left) => left,
            Framing::Chunked { left, first } => {
                if *left == 0 {
                    match next_chunk(self.stream, !*first)? {
                        0 => {
                            self.framing = Framing::Length(0);
                            return Ok(0);
                        }
                        size => (*left, *first) = (size, false),
                    }
                }
                left
            }
        };
        let wanted = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.stream.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        *left -= count as u64;
        Ok(count)
    }
}

/// Understands an answer's head, given without the blank line that ends it.
pub(crate) fn parse_head(head: &str) -> Option<Head> {
    let mut lines = head.lines();
    let status: u16 = lines.next()?.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let mut framing = if status == 204 { Framing::Length(0) } else { Framing::Close };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            framing = Framing::Length(value.trim().parse().ok()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked { left: 0, first: true };
        }
    }
    Some(Head { status, framing })
}

fn read_head(stream: &mut impl BufRead) -> Result<Head> {
    let mut limited = stream.by_ref().take(HEAD_BYTES_MAX);
    let mut head = String::new();
    loop {
        let count = limited.read_line(&mut head).context(|| "the answer has no head".into())?;
        if count == 0 {
            return Err(Error::new("the connection ended before an answer"));
        }
        if head.ends_with("\r\n\r\n") {
            return parse_head(&head).context(|| format!("the answer is not understood: {head:?}"));
        }
    }
}

/// Reads the size of the next chunk; 0 after the last, with the trailers read as well.
fn next_chunk(stream: &mut impl BufRead, after_data: bool) -> std::io::Result<u64> {
    let malformed = || std::io::Error::new(std::io::ErrorKind::InvalidData, "malformed chunk");
    let mut line = String::new();
    if after_data {
        stream.by_ref().take(2).read_line(&mut line)?;
        if line != "\r\n" {
            return Err(malformed());
        }
        line.clear();
    }
    stream.by_ref().take(1024).read_line(&mut line)?;
    let digits = line.split(';').next().unwrap_or_default().trim();
    let size = u64::from_str_radix(digits, 16).map_err(|_| malformed())?;
    while size == 0 && line != "\r\n" {
        line.clear();
        if stream.by_ref().take(1024).read_line(&mut line)? == 0 {
            return Err(malformed());
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::{Framing, Head, next_chunk, parse_head, read_head};

    #[test]
    fn heads_are_understood() {
        let length = "HTTP/1.1 201 Created\r\ncontent-length: 12\r\n";
        assert_eq!(parse_head(length), Some(Head { status: 201, framing: Framing::Length(12) }));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n";
        assert_eq!(parse_head(chunked), Some(Head { status: 200, framing: Framing::Chunked { left: 0, first: true } }));
        assert_eq!(parse_head("nonsense"), None);
        assert!(read_head(&mut &b"HTTP/1.1 200 OK\r\ncut"[..]).is_err());
    }

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        assert_eq!(next_chunk(&mut &b"1f\r\n"[..], false).ok(), Some(31));
        assert_eq!(next_chunk(&mut &b"\r\n0\r\n\r\n"[..], true).ok(), Some(0));
        assert!(next_chunk(&mut &b"zz\r\n"[..], false).is_err());
        assert!(next_chunk(&mut &b"0\r\n"[..], false).is_err());
    }
}
