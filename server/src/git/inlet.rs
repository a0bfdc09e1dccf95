//! What a client sends, in a request's body or on a connection that goes both ways: waited for while nobody works for it, and
//! read as a blocking `Read` by a working thread, which may be told to give up soon on a client that is slow.

use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::bridge::{self, DRAIN_BYTES_MAX, Flow, Patience};

/// How long a client may take to begin what comes next.
const BEGIN_MAX: Duration = Duration::from_secs(15 * 60);

/// How many pieces of input wait to be read.
const QUEUE_LEN: usize = 8;

/// How long a thread that may give up waits for its client, in sum, until so many bytes have come: while nobody else wants the
/// thread, and while somebody does.
const THREAD_WAIT_MAX: Duration = Duration::from_secs(1);
const WANTED_THREAD_WAIT_MAX: Duration = Duration::from_millis(50);
const THREAD_WAIT_ANEW_BYTES: u64 = 1 << 20;

/// For how long what comes is gathered to be looked at together.
const GATHERED_FOR: Duration = Duration::from_millis(100);

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
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// Taken from the queue and not read.
    piece: Bytes,
    runtime: Handle,
    patience: Patience,
    /// For how long a thread waits that may give up.
    hurry: Option<Hurry>,
    pub(super) waits: Waits,
}

struct Hurry {
    alone: Patience,
    wanted: Patience,
    is_wanted: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Hurry {
    /// How long the thread waits now.
    fn left(&self) -> Duration {
        if (self.is_wanted)() { self.wanted.left() } else { self.alone.left() }
    }
}

/// The error of a read that was given up because the client is slow, and may yet come to something.
#[derive(Debug)]
pub(crate) struct GivenUp;

impl GivenUp {
    /// Whether it is the reason of an error.
    pub(crate) fn is_reason_of(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|reason| reason.is::<Self>())
    }
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client is slow")
    }
}

impl Error for GivenUp {}

impl Inlet {
    /// The two ends of a queue from a client that may let the server wait for `stall_max`. Dropping the sender is the end
    /// of the input. Must be called within a runtime.
    pub(crate) fn new(stall_max: Duration) -> (mpsc::Sender<io::Result<Bytes>>, Self) {
        let (sender, pieces) = mpsc::channel(QUEUE_LEN);
        let (waits, patience) = (Waits { begin: BEGIN_MAX, stall: stall_max }, Patience::of(stall_max));
        (sender, Self { pieces, piece: Bytes::new(), runtime: Handle::current(), patience, hurry: None, waits })
    }

    /// A request's body, unpacked if `is_packed`, of so many bytes if that is known. Must be called within a runtime.
    ///
    /// # Errors
    /// When nothing comes of it.
    pub(super) async fn of_body(
        body: Body,
        is_packed: bool,
        bytes: Option<u64>,
        stall_max: Duration,
        flow: &Arc<Flow>,
    ) -> io::Result<Self> {
        let (sender, mut inlet) = Self::new(stall_max);
        let mut pieces = body.into_data_stream();
        let first = match timeout(stall_max, pieces.next()).await {
            Ok(first) => first.transpose().map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error))?,
            Err(_elapsed) => return Err(silent()),
        };
        let first = first.unwrap_or_default();
        // Mostly all of it comes at once.
        if !is_packed && bytes == Some(first.len() as u64) {
            flow.set_received();
            inlet.piece = first;
        } else {
            let body = Body::from_stream(stream::once(async move { Ok(first) }).chain(pieces));
            tokio::spawn(bridge::pump(body, is_packed, Some(sender), stall_max, Arc::clone(flow)));
        }
        Ok(inlet)
    }

    /// Waits until something is there to be read; false at the end of the input. May be dropped at any point.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when the client sends nothing, and what the input ends with.
    pub(super) async fn fill(&mut self, patience: Duration) -> io::Result<bool> {
        while self.piece.is_empty() {
            match timeout(patience, self.pieces.recv()).await {
                Ok(Some(piece)) => self.piece = piece?,
                Ok(None) => return Ok(false),
                Err(_elapsed) => return Err(silent()),
            }
        }
        Ok(true)
    }

    /// Begins to wait for the client anew.
    pub(super) fn renew(&mut self) {
        self.patience = Patience::of(self.waits.stall);
    }

    /// From now on, reads of a thread fail soon with [`GivenUp`] if the client is slow, and sooner while `is_wanted` says that
    /// others want the thread.
    pub(super) fn hurry(&mut self, is_wanted: impl Fn() -> bool + Send + Sync + 'static) {
        let [alone, wanted] = [THREAD_WAIT_MAX, WANTED_THREAD_WAIT_MAX]
            .map(|wait_max| Patience::anew_for_each(THREAD_WAIT_ANEW_BYTES, wait_max));
        self.hurry = Some(Hurry { alone, wanted, is_wanted: Box::new(is_wanted) });
    }

    /// Takes what comes until it is so many bytes or the input has ended; and whether it has.
    ///
    /// # Errors
    /// As [`Inlet::fill`].
    pub(super) async fn beginning(&mut self, bytes_min: usize) -> io::Result<(Bytes, bool)> {
        let mut joined = BytesMut::new();
        let mut patience = Patience::of(self.waits.stall);
        loop {
            let began = Instant::now();
            let is_ended = !self.fill(patience.left()).await?;
            patience.waited(began.elapsed(), self.piece.len() as u64);
            let piece = std::mem::take(&mut self.piece);
            if is_ended {
                return Ok((joined.freeze(), true));
            }
            match joined.is_empty() {
                true => joined = piece.into(),
                false => joined.extend_from_slice(&piece),
            }
            if joined.len() >= bytes_min {
                return Ok((joined.freeze(), false));
            }
        }
    }

    /// Puts what comes behind `gathered`, for a moment from the first bytes on or until it is so many; false at the end of the input.
    ///
    /// # Errors
    /// As [`Inlet::fill`], when the client lets the server wait for too long.
    pub(super) async fn gather(&mut self, gathered: &mut Vec<u8>, bytes_min: usize) -> io::Result<bool> {
        let mut until: Option<Instant> = None;
        while gathered.len() < bytes_min {
            let began = Instant::now();
            let wait = until.map_or(self.patience.left(), |until| until.saturating_duration_since(began));
            match timeout(wait, self.fill(Duration::MAX)).await {
                Ok(filled) => {
                    if !filled? {
                        return Ok(false);
                    }
                }
                Err(_elapsed) if until.is_some() => return Ok(true),
                Err(_elapsed) => return Err(silent()),
            }
            self.patience.waited(began.elapsed(), self.piece.len() as u64);
            gathered.extend_from_slice(&std::mem::take(&mut self.piece));
            until.get_or_insert_with(|| Instant::now() + GATHERED_FOR);
        }
        Ok(true)
    }

    /// Reads lines up to a flush, but not far beyond `bytes_max`.
    ///
    /// # Errors
    /// As [`Inlet::fill`], when the client lets the server wait for too long.
    pub(super) async fn message(&mut self, bytes_max: usize) -> io::Result<Message> {
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

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client sends too slowly")
}

/// For working threads.
impl Read for Inlet {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let mut waited = Duration::ZERO;
            let piece = match self.pieces.try_recv() {
                Ok(piece) => piece?,
                Err(mpsc::error::TryRecvError::Disconnected) => return Ok(0),
                Err(mpsc::error::TryRecvError::Empty) => {
                    let began = Instant::now();
                    let piece = loop {
                        waited = began.elapsed();
                        let left = self.patience.left().saturating_sub(waited);
                        let hurry = self.hurry.as_ref().map(|hurry| hurry.left().saturating_sub(waited));
                        let wait = match hurry.filter(|hurry| *hurry < left) {
                            Some(Duration::ZERO) => return Err(io::Error::new(io::ErrorKind::WouldBlock, GivenUp)),
                            // Somebody may want the thread meanwhile.
                            Some(hurry) => hurry.min(WANTED_THREAD_WAIT_MAX),
                            None if left.is_zero() => return Err(silent()),
                            None => left,
                        };
                        let pieces = &mut self.pieces;
                        match self.runtime.block_on(async { timeout(wait, pieces.recv()).await }) {
                            Ok(Some(piece)) => break piece?,
                            Ok(None) => return Ok(0),
                            Err(_elapsed) => {}
                        }
                    };
                    waited = began.elapsed();
                    piece
                }
            };
            let hurry = self.hurry.iter_mut().flat_map(|hurry| [&mut hurry.alone, &mut hurry.wanted]);
            for patience in hurry.chain([&mut self.patience]) {
                patience.waited(waited, piece.len() as u64);
            }
            self.piece = piece;
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const BYTES_MAX: usize = 64 << 10;

    async fn messages(pieces: &[&[u8]]) -> Vec<(Vec<u8>, End)> {
        let (sender, mut inlet) = Inlet::new(Duration::from_secs(60));
        let pieces: Vec<Bytes> = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
        tokio::spawn(async move {
            for piece in pieces {
                sender.send(Ok(piece)).await.expect("the test reads");
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
    async fn a_thread_in_a_hurry_gives_up_and_loses_nothing() {
        let (sender, mut inlet) = Inlet::new(Duration::from_secs(60));
        inlet.hurry(|| false);
        sender.send(Ok(Bytes::from_static(b"one"))).await.unwrap();
        let read = move |mut inlet: Inlet| {
            let mut read = Vec::new();
            let ended = inlet.read_to_end(&mut read);
            (inlet, read, ended)
        };
        let (mut inlet, bytes, ended) = tokio::task::spawn_blocking(move || read(inlet)).await.unwrap();
        assert_eq!(bytes, b"one");
        assert!(GivenUp::is_reason_of(&ended.unwrap_err()));
        sender.send(Ok(Bytes::from_static(b"two"))).await.unwrap();
        let mut gathered = Vec::new();
        assert!(inlet.gather(&mut gathered, 100).await.unwrap());
        assert_eq!(gathered, b"two");
        sender.send(Err(io::ErrorKind::ConnectionAborted.into())).await.unwrap();
        drop(sender);
        assert_eq!(inlet.gather(&mut gathered, 100).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert!(!inlet.gather(&mut gathered, 100).await.unwrap(), "and then nothing");
    }

    #[tokio::test]
    async fn one_that_trickles_is_given_up_while_it_is_gathered() {
        let (sender, mut inlet) = Inlet::new(Duration::from_millis(300));
        let trickle = async move {
            while sender.send(Ok(Bytes::from_static(b"x"))).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::spawn(trickle);
        let mut gathered = Vec::new();
        let given_up = async {
            loop {
                match inlet.gather(&mut gathered, 1 << 20).await {
                    Ok(true) => {}
                    Ok(false) => panic!("the input does not end"),
                    Err(error) => return error.kind(),
                }
            }
        };
        assert_eq!(timeout(Duration::from_secs(60), given_up).await.expect("an end"), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_thread_that_others_want_gives_up_sooner() {
        // A client of which a little comes again and again, and one of which nothing comes.
        for pause in [WANTED_THREAD_WAIT_MAX / 5, Duration::MAX] {
            let (sender, mut inlet) = Inlet::new(Duration::from_secs(7200));
            let wanted = Arc::new(AtomicBool::new(false));
            let is_wanted = Arc::clone(&wanted);
            let [alone, wait_max] = [Duration::from_secs(3600), WANTED_THREAD_WAIT_MAX]
                .map(|wait_max| Patience::anew_for_each(THREAD_WAIT_ANEW_BYTES, wait_max));
            let is_wanted = Box::new(move || is_wanted.load(Ordering::Relaxed));
            inlet.hurry = Some(Hurry { alone, wanted: wait_max, is_wanted });
            let client = tokio::spawn(async move {
                while sender.send(Ok(Bytes::from_static(b"x"))).await.is_ok() {
                    tokio::time::sleep(pause).await;
                }
            });
            let mut reading = tokio::task::spawn_blocking(move || io::read_to_string(&mut inlet));
            assert!(timeout(3 * WANTED_THREAD_WAIT_MAX, &mut reading).await.is_err(), "nobody wants it yet");
            wanted.store(true, Ordering::Relaxed);
            let ended = timeout(Duration::from_secs(60), reading).await.expect("an end").unwrap();
            assert!(GivenUp::is_reason_of(&ended.unwrap_err()));
            client.abort();
        }
    }

    #[tokio::test]
    async fn so_much_is_awaited_or_all() {
        let (sender, mut inlet) = Inlet::new(Duration::from_secs(60));
        for piece in [&b"ab"[..], b"", b"cd", b"ef"] {
            sender.send(Ok(Bytes::from_static(piece))).await.unwrap();
        }
        assert_eq!(inlet.beginning(4).await.unwrap(), (Bytes::from_static(b"abcd"), false));
        inlet.unread(Bytes::from_static(b"d"));
        drop(sender);
        assert_eq!(inlet.beginning(100).await.unwrap(), (Bytes::from_static(b"def"), true));
        let (_sender, mut silent) = Inlet::new(Duration::from_millis(1));
        assert_eq!(silent.beginning(1).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    fn pieces(pieces: Vec<io::Result<Vec<u8>>>) -> Body {
        Body::from_stream(stream::iter(pieces))
    }

    /// What a thread reads of a body, and whether that was known to be all.
    async fn read(body: Body, is_packed: bool, bytes: Option<u64>) -> (io::Result<Vec<u8>>, bool) {
        let flow = Arc::new(Flow::default());
        let mut inlet = match Inlet::of_body(body, is_packed, bytes, Duration::from_secs(60), &flow).await {
            Ok(inlet) => inlet,
            Err(error) => return (Err(error), flow.received()),
        };
        let read = move || {
            let mut limited = bridge::Limited::new(&mut inlet, 1 << 20);
            let mut all = Vec::new();
            limited.read_to_end(&mut all).map(|_| all)
        };
        (tokio::task::spawn_blocking(read).await.unwrap(), flow.received())
    }

    #[tokio::test]
    async fn a_body_is_read_in_order_to_its_end() {
        for bytes in [None, Some(7)] {
            let body = || vec![Ok(b"one ".to_vec()), Ok(Vec::new()), Ok(b"two".to_vec())];
            let (all, received) = read(pieces(body()), false, bytes).await;
            assert_eq!((all.unwrap(), received), (b"one two".to_vec(), true));
        }
        assert!(
            matches!(read(pieces(vec![Ok(b"all".to_vec())]), false, Some(3)).await, (Ok(all), true) if all == b"all")
        );
        assert!(matches!(read(Body::empty(), false, Some(0)).await, (Ok(all), true) if all.is_empty()));
        for begins in [Some(Ok(b"one".to_vec())), None] {
            let broken = begins.into_iter().chain([Err(io::Error::other("reset"))]).collect();
            let (all, received) = read(pieces(broken), false, None).await;
            assert_eq!((all.unwrap_err().kind(), received), (io::ErrorKind::ConnectionAborted, false));
        }
    }

    #[tokio::test]
    async fn a_packed_body_is_what_it_becomes() {
        let packed = |data: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            io::Write::write_all(&mut encoder, data).unwrap();
            encoder.finish().unwrap()
        };
        let in_pieces =
            |bytes: &[u8], piece: usize| pieces(bytes.chunks(piece).map(|piece| Ok(piece.to_vec())).collect());
        let data: Vec<u8> = (0..300_000u32).flat_map(|at| (at / 7).to_le_bytes()).take(1 << 20).collect();
        let body = packed(&data);
        for piece in [1, 1000, body.len()] {
            let (all, received) = read(in_pieces(&body, piece), true, Some(body.len() as u64)).await;
            assert!(all.unwrap() == data && received, "in pieces of {piece}");
        }
        let (all, _) = read(in_pieces(&[&body[..], b"behind it"].concat(), 1000), true, None).await;
        assert!(all.unwrap() == data, "what is behind it is no part of it");
        let zeros = packed(&vec![0; 100 << 20]);
        let refused = |read: io::Result<Vec<u8>>| read.unwrap_err().kind();
        assert_eq!(refused(read(in_pieces(&zeros, 1000), true, None).await.0), io::ErrorKind::FileTooLarge);
        for (broken, what) in [(&b"this is not packed"[..], "no beginning"), (&body[..body.len() - 1], "no end")] {
            let (all, received) = read(in_pieces(broken, 1000), true, None).await;
            assert!(matches!(kind_of(all), govc_engine::ErrorKind::Invalid) && !received, "{what}");
        }
    }

    fn kind_of(read: io::Result<Vec<u8>>) -> govc_engine::ErrorKind {
        crate::git::pkt::input_error(read.unwrap_err()).kind().clone()
    }

    #[tokio::test]
    async fn what_is_put_back_is_read_first() {
        let (sender, mut inlet) = Inlet::new(Duration::from_secs(60));
        sender.send(Ok(Bytes::from_static(b"0005abehind"))).await.unwrap();
        drop(sender);
        inlet.fill(Duration::MAX).await.unwrap();
        inlet.unread(Bytes::from_static(b"0000"));
        let message = inlet.message(BYTES_MAX).await.unwrap();
        assert!(message.is_goodbye());
        let rest = tokio::task::spawn_blocking(move || io::read_to_string(&mut inlet)).await.unwrap();
        assert_eq!(rest.unwrap(), "0005abehind");
    }
}
