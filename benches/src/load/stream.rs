//! One connection whose answers may be long: they are counted, and only their ends are kept.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::error::{Context, Error, Result};
use crate::http::{Framing, parse_head};

pub(crate) struct Stream {
    inner: BufReader<TcpStream>,
    head: String,
}

/// What is known of an answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Of the body.
    pub(crate) bytes: u64,
    /// Its last bytes, as many as were asked for.
    pub(crate) end: Vec<u8>,
}

/// A request as it is sent.
pub(crate) fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    [request.as_bytes(), body].concat()
}

impl Stream {
    pub(crate) async fn open(address: SocketAddr) -> Result<Stream> {
        let stream = TcpStream::connect(address).await.context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true).context(|| "cannot set up a connection".into())?;
        Ok(Stream { inner: BufReader::with_capacity(128 * 1024, stream), head: String::new() })
    }

    /// The socket alone, for when nobody waits for it. Nothing of an answer may be unread.
    pub(crate) fn into_std(self) -> Result<std::net::TcpStream> {
        self.inner.into_inner().into_std().context(|| "cannot put a connection aside".into())
    }

    /// A connection that was put aside.
    pub(crate) fn from_std(stream: std::net::TcpStream) -> Result<Stream> {
        let stream = TcpStream::from_std(stream).context(|| "cannot take up a connection".into())?;
        Ok(Stream { inner: BufReader::with_capacity(128 * 1024, stream), head: String::new() })
    }

    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<()> {
        self.inner.write_all(request).await.context(|| "cannot send a request".into())
    }

    /// Reads an answer to its end and keeps its last `keep` bytes.
    pub(crate) async fn receive(&mut self, keep: usize) -> Result<Answer> {
        self.head.clear();
        while !self.head.ends_with("\r\n\r\n") {
            self.read_line().await?;
        }
        let head = parse_head(&self.head).context(|| format!("the answer is not understood: {}", self.head))?;
        let mut answer = Answer { status: head.status, bytes: 0, end: Vec::new() };
        match head.framing {
            Framing::Length(length) => self.read(length, keep, &mut answer).await?,
            Framing::Chunked { .. } => loop {
                self.head.clear();
                self.read_line().await?;
                let size = self.head.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).context(|| "an answer has a malformed chunk".into())?;
                self.read(size, keep, &mut answer).await?;
                self.head.clear();
                self.read_line().await?;
                if size == 0 {
                    break;
                }
            },
            Framing::Close => return Err(Error::new("an answer does not say where it ends")),
        }
        Ok(answer)
    }

    /// Appends a line to `head`.
    async fn read_line(&mut self) -> Result<()> {
        let count = self.inner.read_line(&mut self.head).await.context(|| "cannot read an answer".into())?;
        if count == 0 { Err(Error::new("the server closed a connection")) } else { Ok(()) }
    }

    async fn read(&mut self, mut left: u64, keep: usize, answer: &mut Answer) -> Result<()> {
        answer.bytes += left;
        while left > 0 {
            let buffer = self.inner.fill_buf().await.context(|| "cannot read an answer".into())?;
            let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if count == 0 {
                return Err(Error::new("the server closed a connection"));
            }
            answer.end.extend_from_slice(&buffer[count.saturating_sub(keep)..count]);
            answer.end.drain(..answer.end.len().saturating_sub(keep));
            self.inner.consume(count);
            left -= count as u64;
        }
        Ok(())
    }
}
