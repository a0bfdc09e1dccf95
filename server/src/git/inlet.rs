//! What a client sends on a connection that goes both ways: read by messages while nobody works for it, and as a blocking `Read`
//! by a working thread.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::bridge::{DRAIN_BYTES_MAX, Patience, STALL_MAX};
use super::duplex::Trouble;
use super::route::SMALL_BYTES_MAX;

/// How many pieces of input wait to be read.
const QUEUE_LEN: usize = 8;

const FLUSH: &[u8] = b"0000";

/// What a client sends, as a queue of [`QUEUE_LEN`] pieces: whoever fills it waits while nobody reads.
pub(crate) struct Inlet {
    pieces: mpsc::Receiver<Bytes>,
    /// Taken from the queue and not read.
    piece: Bytes,
    runtime: Handle,
    patience: Patience,
}

impl Inlet {
    /// The two ends of a queue. Dropping the sender is the end of the input. Must be called within a runtime.
    pub(crate) fn new() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, pieces) = mpsc::channel(QUEUE_LEN);
        (sender, Self { pieces, piece: Bytes::new(), runtime: Handle::current(), patience: Patience::new() })
    }

    /// Waits until something is there to be read; false at the end of the input.
    pub(super) async fn fill(&mut self, patience: Duration) -> Result<bool, Trouble> {
        while self.piece.is_empty() {
            match timeout(patience, self.pieces.recv()).await {
                Ok(Some(piece)) => self.piece = piece,
                Ok(None) => return Ok(false),
                Err(_elapsed) => return Err(Trouble::Gone("the client sends nothing")),
            }
        }
        Ok(true)
    }

    /// Begins to wait for the client anew.
    pub(super) fn renew(&mut self) {
        self.patience = Patience::new();
    }

    /// Reads lines up to a flush, but no more than fits a small request.
    pub(super) async fn message(&mut self) -> Result<Message, Trouble> {
        let mut text = BytesMut::new();
        let mut at = 0;
        let mut patience = Patience::new();
        loop {
            // Whole lines that have come; none is looked into.
            while let Some(prefix) = text.get(at..at + FLUSH.len()) {
                if prefix == FLUSH {
                    let rest = text.split_off(at + FLUSH.len()).freeze();
                    self.unread(rest);
                    return Ok(Message { text: text.freeze(), is_whole: true });
                }
                let len = std::str::from_utf8(prefix).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
                match len {
                    // A delimiter, or an end of a response, which whoever parses the lines refuses.
                    Some(1..=3) => at += FLUSH.len(),
                    Some(len) if len >= FLUSH.len() => at += len,
                    // Not a line: whoever parses says so.
                    _ => return Ok(Message { text: text.freeze(), is_whole: false }),
                }
            }
            if text.len() > SMALL_BYTES_MAX {
                return Ok(Message { text: text.freeze(), is_whole: false });
            }
            let began = Instant::now();
            if !self.fill(patience.left()).await? {
                return Ok(Message { text: text.freeze(), is_whole: false });
            }
            patience.waited(began.elapsed(), self.piece.len() as u64);
            text.extend_from_slice(&std::mem::take(&mut self.piece));
        }
    }

    /// Puts bytes back in front of what is to be read.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        self.piece = match self.piece.is_empty() {
            true => bytes,
            false => [bytes, std::mem::take(&mut self.piece)].concat().into(),
        };
    }

    /// Throws away what comes, to the end of the input: a client that was refused reads why only once it has sent everything.
    pub(super) async fn drain(&mut self) {
        let mut drained_bytes = 0;
        while drained_bytes <= DRAIN_BYTES_MAX && matches!(self.fill(STALL_MAX).await, Ok(true)) {
            drained_bytes += self.piece.len() as u64;
            self.piece.clear();
        }
    }
}

/// For working threads.
impl Read for Inlet {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.try_recv() {
                Ok(piece) => self.piece = piece,
                Err(mpsc::error::TryRecvError::Disconnected) => return Ok(0),
                Err(mpsc::error::TryRecvError::Empty) => {
                    let began = Instant::now();
                    let wait = async { timeout(self.patience.left(), self.pieces.recv()).await };
                    match self.runtime.block_on(wait) {
                        Ok(Some(piece)) => self.piece = piece,
                        Ok(None) => return Ok(0),
                        Err(_elapsed) => {
                            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client sends too slowly"));
                        }
                    }
                    self.patience.waited(began.elapsed(), self.piece.len() as u64);
                }
            }
        }
        let n = into.len().min(self.piece.len());
        self.piece.split_to(n).copy_to_slice(into.get_mut(..n).unwrap_or_default());
        Ok(n)
    }
}

/// What [`Inlet::message`] found.
pub(super) struct Message {
    pub(super) text: Bytes,
    /// Whether it ends with a flush.
    pub(super) is_whole: bool,
}

impl Message {
    /// Whether the client has nothing more to ask.
    pub(super) fn is_goodbye(&self) -> bool {
        self.text.is_empty() || self.text == FLUSH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn messages(pieces: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let (sender, mut inlet) = Inlet::new();
        let pieces: Vec<Bytes> = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
        tokio::spawn(async move {
            for piece in pieces {
                sender.send(piece).await.expect("the test reads");
            }
        });
        let mut seen = Vec::new();
        loop {
            let Message { text, is_whole } = inlet.message().await.expect("nobody waits long");
            if text.is_empty() {
                return seen;
            }
            seen.push((text.to_vec(), is_whole));
        }
    }

    #[tokio::test]
    async fn a_message_ends_with_its_flush_however_it_is_cut() {
        let text = b"0014command=ls-refs\n00010009peel\n00000000000aabcd\n\n0000";
        let wanted = [
            (b"0014command=ls-refs\n00010009peel\n0000".to_vec(), true),
            (b"0000".to_vec(), true),
            (b"000aabcd\n\n0000".to_vec(), true),
        ];
        assert_eq!(messages(&[text]).await, wanted);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(messages(&bytes).await, wanted);
        let pairs: Vec<&[u8]> = text.chunks(7).collect();
        assert_eq!(messages(&pairs).await, wanted);
    }

    #[tokio::test]
    async fn zeros_within_a_line_are_no_flush() {
        assert_eq!(messages(&[b"000c00000000", b"0000"]).await, [(b"000c000000000000".to_vec(), true)]);
    }

    #[tokio::test]
    async fn what_is_no_line_or_long_or_cut_off_is_left_to_the_parser() {
        assert_eq!(messages(&[b"zzzz"]).await, [(b"zzzz".to_vec(), false)]);
        assert_eq!(messages(&[b"0009abc"]).await, [(b"0009abc".to_vec(), false)]);
        let long = [b"fff0".to_vec(), vec![b'x'; 0xfff0 - 4]].concat().repeat(3);
        let seen = messages(&long.chunks(32 << 10).collect::<Vec<_>>()).await;
        assert!(seen.len() > 1 && seen.iter().all(|(_, is_whole)| !is_whole));
        assert!(seen[0].0.len() <= SMALL_BYTES_MAX + (32 << 10));
    }

    #[tokio::test]
    async fn what_is_put_back_is_read_first() {
        let (sender, mut inlet) = Inlet::new();
        sender.send(Bytes::from_static(b"0005abehind")).await.unwrap();
        drop(sender);
        inlet.fill(Duration::MAX).await.unwrap();
        inlet.unread(Bytes::from_static(b"0000"));
        let message = inlet.message().await.unwrap();
        assert!(message.is_goodbye());
        let rest = tokio::task::spawn_blocking(move || io::read_to_string(&mut inlet)).await.unwrap();
        assert_eq!(rest.unwrap(), "0005abehind");
    }
}
