//! What a client sends on a connection that goes both ways: read by messages while nobody works for it, and as a blocking `Read`
//! by a working thread.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::bridge::{DRAIN_BYTES_MAX, Patience};
use super::duplex::Trouble;

/// How long a client may take to begin what comes next.
const BEGIN_MAX: Duration = Duration::from_secs(15 * 60);

/// How many pieces of input wait to be read.
const QUEUE_LEN: usize = 8;

const FLUSH: &[u8] = b"0000";

/// How long a client may let the server wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    /// Until it begins what comes next: its first request, a further one, or its pack. Hooks run in between, people are asked,
    /// objects are counted and compressed; no thread is held meanwhile.
    pub(super) begin: Duration,
    /// In the middle of what it has begun, as [`Patience`] counts.
    pub(super) stall: Duration,
}

/// What a client sends, as a queue of [`QUEUE_LEN`] pieces: whoever fills it waits while nobody reads.
pub(crate) struct Inlet {
    pieces: mpsc::Receiver<Bytes>,
    /// Taken from the queue and not read.
    piece: Bytes,
    runtime: Handle,
    patience: Patience,
    pub(super) waits: Waits,
}

impl Inlet {
    /// The two ends of a queue from a client that may let the server wait for `stall_max`. Dropping the sender is the end
    /// of the input. Must be called within a runtime.
    pub(crate) fn new(stall_max: Duration) -> (mpsc::Sender<Bytes>, Self) {
        let (sender, pieces) = mpsc::channel(QUEUE_LEN);
        let (waits, patience) = (Waits { begin: BEGIN_MAX, stall: stall_max }, Patience::of(stall_max));
        (sender, Self { pieces, piece: Bytes::new(), runtime: Handle::current(), patience, waits })
    }

    /// Waits until something is there to be read; false at the end of the input. May be dropped at any point.
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
        self.patience = Patience::of(self.waits.stall);
    }

    /// Reads lines up to a flush, but not far beyond `bytes_max`.
    pub(super) async fn message(&mut self, bytes_max: usize) -> Result<Message, Trouble> {
        let mut text = BytesMut::new();
        let mut at = 0;
        let mut patience = Patience::of(self.waits.stall);
        loop {
            // Whole lines that have come; none is looked into.
            while let Some(prefix) = text.get(at..at + FLUSH.len()) {
                if prefix == FLUSH {
                    let rest = text.split_off(at + FLUSH.len()).freeze();
                    self.unread(rest);
                    return Ok(Message { text: text.freeze(), end: End::Flush });
                }
                let len = std::str::from_utf8(prefix).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
                match len {
                    // A delimiter, or an end of a response, which whoever parses the lines refuses.
                    Some(1..=3) => at += FLUSH.len(),
                    Some(len) if len >= FLUSH.len() => at += len,
                    // Not a line: whoever parses says so.
                    _ => return Ok(Message { text: text.freeze(), end: End::Broken }),
                }
            }
            if text.len() > bytes_max {
                return Ok(Message { text: text.freeze(), end: End::Long });
            }
            let began = Instant::now();
            if !self.fill(patience.left()).await? {
                return Ok(Message { text: text.freeze(), end: End::Broken });
            }
            patience.waited(began.elapsed(), self.piece.len() as u64);
            let piece = std::mem::take(&mut self.piece);
            match text.is_empty() {
                // What was put back is large at times, and nobody else has it then.
                true => text = piece.into(),
                false => text.extend_from_slice(&piece),
            }
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
        while drained_bytes <= DRAIN_BYTES_MAX && matches!(self.fill(self.waits.stall).await, Ok(true)) {
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
    pub(super) end: End,
}

/// Where a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With its flush: it is whole.
    Flush,
    /// Where it became too long.
    Long,
    /// With the input, or where there is no line.
    Broken,
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

    const BYTES_MAX: usize = 64 << 10;

    async fn messages(pieces: &[&[u8]]) -> Vec<(Vec<u8>, End)> {
        let (sender, mut inlet) = Inlet::new(Duration::from_secs(60));
        let pieces: Vec<Bytes> = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
        tokio::spawn(async move {
            for piece in pieces {
                sender.send(piece).await.expect("the test reads");
            }
        });
        let mut seen = Vec::new();
        loop {
            let Message { text, end } = inlet.message(BYTES_MAX).await.expect("nobody waits long");
            if text.is_empty() {
                return seen;
            }
            seen.push((text.to_vec(), end));
        }
    }

    #[tokio::test]
    async fn a_message_ends_with_its_flush_however_it_is_cut() {
        let text = b"0014command=ls-refs\n00010009peel\n00000000000aabcd\n\n0000";
        let wanted = [
            (b"0014command=ls-refs\n00010009peel\n0000".to_vec(), End::Flush),
            (b"0000".to_vec(), End::Flush),
            (b"000aabcd\n\n0000".to_vec(), End::Flush),
        ];
        assert_eq!(messages(&[text]).await, wanted);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(messages(&bytes).await, wanted);
        let pairs: Vec<&[u8]> = text.chunks(7).collect();
        assert_eq!(messages(&pairs).await, wanted);
    }

    #[tokio::test]
    async fn zeros_within_a_line_are_no_flush() {
        assert_eq!(messages(&[b"000c00000000", b"0000"]).await, [(b"000c000000000000".to_vec(), End::Flush)]);
    }

    #[tokio::test]
    async fn what_is_no_line_or_long_or_cut_off_is_left_to_the_parser() {
        assert_eq!(messages(&[b"zzzz"]).await, [(b"zzzz".to_vec(), End::Broken)]);
        assert_eq!(messages(&[b"0009abc"]).await, [(b"0009abc".to_vec(), End::Broken)]);
        let long = [b"fff0".to_vec(), vec![b'x'; 0xfff0 - 4]].concat().repeat(3);
        let seen = messages(&long.chunks(32 << 10).collect::<Vec<_>>()).await;
        assert!(seen.len() > 1 && seen[0].1 == End::Long && seen.iter().all(|(_, end)| *end != End::Flush));
        assert!(seen[0].0.len() <= BYTES_MAX + (32 << 10));
    }

    #[tokio::test]
    async fn what_is_put_back_is_read_first() {
        let (sender, mut inlet) = Inlet::new(Duration::from_secs(60));
        sender.send(Bytes::from_static(b"0005abehind")).await.unwrap();
        drop(sender);
        inlet.fill(Duration::MAX).await.unwrap();
        inlet.unread(Bytes::from_static(b"0000"));
        let message = inlet.message(BYTES_MAX).await.unwrap();
        assert!(message.is_goodbye());
        let rest = tokio::task::spawn_blocking(move || io::read_to_string(&mut inlet)).await.unwrap();
        assert_eq!(rest.unwrap(), "0005abehind");
    }
}
