//! One connection that asks and waits for each answer.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::{Context, Error, Result};
use crate::http::{Framing, parse_head};

const ANSWER_BYTES_MAX: usize = 1 << 20;

pub(super) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect(address).await.context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true).context(|| "cannot set up a connection".into())?;
        Ok(Connection { stream, answer: Vec::with_capacity(8 * 1024) })
    }

    /// Sends a request and reads its answer, which states its length: status and body.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<(u16, &[u8])> {
        self.stream.write_all(request).await.context(|| "cannot send a request".into())?;
        self.answer.clear();
        loop {
            let count = self.stream.read_buf(&mut self.answer).await.context(|| "cannot read an answer".into())?;
            if count == 0 {
                return Err(Error::new("the server closed a connection"));
            }
            if self.answer.len() > ANSWER_BYTES_MAX {
                return Err(Error::new("an answer is too long"));
            }
            let Some(head_end) = self.answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                continue;
            };
            let text = String::from_utf8_lossy(self.answer.get(..head_end).unwrap_or_default());
            let head = parse_head(&text).context(|| format!("the answer is not understood: {text}"))?;
            let Framing::Length(length) = head.framing else {
                return Err(Error::new("an answer does not state its length"));
            };
            let (from, to) = (head_end + 4, head_end + 4 + usize::try_from(length).unwrap_or(ANSWER_BYTES_MAX));
            if self.answer.len() >= to {
                return Ok((head.status, self.answer.get(from..to).unwrap_or_default()));
            }
        }
    }
}
