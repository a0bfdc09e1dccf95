//! Between connections and working threads: a request body as pieces for an [`Inlet`](super::inlet::Inlet), a response body as
//! a blocking `Write`, each over a short bounded queue, so that neither side runs ahead of the other in memory.
//!
//! - What is large of a response, its pack, is handed over by the thread ([`Rest`]) and goes on without it: into the same
//!   queue, from a task, for as long as the client takes to read.
//! - A client that goes away ends both: reads fail, writes fail with `BrokenPipe`.
//! - A client for which the server has waited `server.body_timeout` while fewer than [`PROGRESS_BYTES_MIN`] were moved
//!   counts as gone: single bytes now and then hold nothing for long.
//! - Threads read requests that are here: fetches from their first 64 KiB on, pushes as [`arrival`](super::arrival) says.
//! - What the work leaves unread of the body is drained, within [`DRAIN_BYTES_MAX`]: a client reads the reason of a
//!   refusal only once it has finished sending.
//! - While a response is silent, [`Flow`] says whether a side-band keep-alive may be sent. It goes between whole
//!   packets only: those written before have left the queue, and what the writer still holds begins with a new one.

use std::fmt;
use std::io::{self, Read, Write};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use flate2::write::GzDecoder;
use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::pack::deliver::Delivery;
use super::pack::send::Making;
use super::pkt;
use super::pointers::Pointers;
use crate::App;
use crate::http::body::Held;
use crate::telemetry::ServerOptions;
use crate::work::WorkError;

/// How long the server waits for a client that was refused, or takes its leave.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(60);

/// What a client moves at least while the server waits for it as long as it does.
const PROGRESS_BYTES_MIN: u64 = 16 << 10;

/// How much of an unwanted request body is taken and thrown away.
pub(crate) const DRAIN_BYTES_MAX: u64 = 256 << 20;

/// How long a response is silent before a keep-alive, git's `uploadpack.keepalive`.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);

/// An empty packet of band 1.
const KEEP_ALIVE: &[u8] = b"0005\x01";

/// Compressed bytes that are unpacked at once: they become half a megabyte at most.
const UNPACKED_AT_ONCE: usize = 512;

/// How many chunks of a response wait for the client.
pub(crate) const CHUNKS_MAX: usize = 4;

/// Small writes are joined up to this size.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// The state of an exchange that both of its directions need.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    /// Set by the working thread while every write of it is a whole side-band packet, read by the response's
    /// stream. Setting it publishes that all that was written before is in the queue.
    packets: AtomicBool,
    /// Set once by the pump when the body has arrived whole. Orders nothing.
    received: AtomicBool,
    /// Set by the working thread when the client was told of an error. Orders nothing.
    refused: AtomicBool,
    /// What the client says beside its request, for the log.
    server_options: ServerOptions,
    /// What the answer may point at.
    pointers: Pointers,
}

impl Flow {
    /// The state of an exchange whose server options are noted there.
    pub(crate) fn noting(server_options: ServerOptions) -> Self {
        Self { server_options, ..Self::default() }
    }

    /// The same for an answer that may point at kept packs.
    pub(crate) fn pointing(self, pointers: Pointers) -> Self {
        Self { pointers, ..self }
    }

    /// What the answer may point at.
    pub(crate) fn pointers(&self) -> &Pointers {
        &self.pointers
    }

    /// Notes the client's `--server-option`s.
    pub(crate) fn set_server_options(&self, options: &[String]) {
        self.server_options.set(options);
    }

    /// Says that every write to `out` from now on is a whole side-band packet. What was written before is sent first:
    /// a keep-alive must not overtake it.
    ///
    /// # Errors
    /// What `out` fails with.
    pub(crate) fn begin_packets(&self, out: &mut dyn Write) -> io::Result<()> {
        out.flush()?;
        // Pairs with the load in `may_keep_alive`.
        self.packets.store(true, Ordering::Release);
        Ok(())
    }

    /// Says that what is written from now on need not be whole packets.
    pub(crate) fn end_packets(&self) {
        self.packets.store(false, Ordering::Release);
    }

    /// Whether the client has sent its whole request. Many clients do not read before that.
    pub(crate) fn received(&self) -> bool {
        self.received.load(Ordering::Relaxed)
    }

    /// Says that the client has sent its whole request.
    pub(crate) fn set_received(&self) {
        self.received.store(true, Ordering::Relaxed);
    }

    /// Whether the client was told of an error, which ends a conversation: what it has sent behind is not understood.
    pub(crate) fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Says that the client was told of an error.
    pub(crate) fn set_refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    fn may_keep_alive(&self) -> bool {
        // Pairs with the store in `begin_packets`.
        self.received() && self.packets.load(Ordering::Acquire)
    }
}

/// How much longer a client may let the server wait, in sum, until it has moved enough.
pub(crate) struct Patience {
    whole: Duration,
    enough_bytes: u64,
    left: Duration,
    moved_bytes: u64,
}

impl Patience {
    /// All of it, anew for each [`PROGRESS_BYTES_MIN`].
    pub(crate) fn of(whole: Duration) -> Self {
        Self::anew_for_each(PROGRESS_BYTES_MIN, whole)
    }

    /// All of it, anew for each so many bytes.
    pub(crate) fn anew_for_each(enough_bytes: u64, whole: Duration) -> Self {
        Self { whole, enough_bytes, left: whole, moved_bytes: 0 }
    }

    /// How long the client may let the server wait now.
    pub(crate) fn left(&self) -> Duration {
        self.left
    }

    /// Counts a wait that ended with `bytes` moved.
    pub(crate) fn waited(&mut self, wait: Duration, bytes: u64) {
        self.left = self.left.saturating_sub(wait);
        self.moved_bytes = self.moved_bytes.saturating_add(bytes);
        if self.moved_bytes >= self.enough_bytes {
            *self = Self::anew_for_each(self.enough_bytes, self.whole);
        }
    }
}

/// Takes and throws away a body that nobody wants, so that the client gets to read why. Must be called within a
/// runtime.
pub(crate) fn discard(body: Body) {
    tokio::spawn(pump(body, false, None, STALL_MAX, Arc::default()));
}

/// Hands on the pieces of `body`, unpacked if `is_packed`, while somebody listens, and throws away what comes then. A body that
/// does not come to its end is one with an error at its end.
pub(super) async fn pump(
    body: Body,
    is_packed: bool,
    mut listener: Option<mpsc::Sender<io::Result<Bytes>>>,
    stall_max: Duration,
    flow: Arc<Flow>,
) {
    let mut pieces = body.into_data_stream();
    let mut unpacking = is_packed.then(|| GzDecoder::new(Vec::new()));
    let mut drained_bytes = 0u64;
    let mut patience = Patience::of(stall_max);
    let failure = loop {
        let began = Instant::now();
        let piece = match timeout(patience.left, pieces.next()).await {
            Err(_elapsed) => break Some(io::Error::new(io::ErrorKind::TimedOut, "the client sends too slowly")),
            Ok(Some(Err(error))) => break Some(io::Error::new(io::ErrorKind::ConnectionAborted, error)),
            Ok(None) => break None,
            Ok(Some(Ok(piece))) => piece,
        };
        let len = piece.len() as u64;
        patience.waited(began.elapsed(), len);
        if let Some(sender) = &listener {
            let sent = match &mut unpacking {
                Some(unpacking) => send_unpacked(sender, unpacking, &piece).await,
                None => sender.send(Ok(piece)).await.is_ok(),
            };
            if sent {
                continue;
            }
            listener = None;
        }
        drained_bytes = drained_bytes.saturating_add(len);
        if drained_bytes > DRAIN_BYTES_MAX {
            return;
        }
    };
    let end = match (failure, unpacking) {
        (Some(failure), _) => Some(Err(failure)),
        (None, Some(unpacking)) => Some(unpacking.finish().map(Bytes::from)),
        (None, None) => None,
    };
    if !matches!(end, Some(Err(_))) {
        flow.set_received();
    }
    if let Some((sender, end)) = listener.zip(end) {
        // Nobody to tell is as good as told.
        let _ = sender.send(end).await;
    }
}

/// Unpacks a piece, a little at a time; false if nobody wants more of it.
async fn send_unpacked(
    sender: &mpsc::Sender<io::Result<Bytes>>,
    unpacking: &mut GzDecoder<Vec<u8>>,
    mut piece: &[u8],
) -> bool {
    while !piece.is_empty() {
        let (now, _) = piece.split_at(piece.len().min(UNPACKED_AT_ONCE));
        let unpacked = unpacking.write(now).and_then(|taken| unpacking.flush().map(|()| taken));
        let (failed, taken) = match unpacked {
            Ok(taken) => (None, taken),
            Err(error) => (Some(error), 0),
        };
        let mut bytes = Bytes::from(std::mem::take(unpacking.get_mut()));
        while !bytes.is_empty() {
            if sender.send(Ok(bytes.split_to(bytes.len().min(CHUNK_BYTES)))).await.is_err() {
                return false;
            }
        }
        if let Some(error) = failed {
            let _ = sender.send(Err(error)).await;
            return false;
        }
        if taken == 0 {
            // What follows a compressed body is no part of it.
            return true;
        }
        piece = piece.get(taken..).unwrap_or_default();
    }
    true
}

/// Refuses to yield more than a number of bytes: a small compressed body may be an endless one.
pub(crate) struct Limited<R> {
    input: R,
    left_bytes: u64,
    max_bytes: u64,
}

impl<R: Read> Limited<R> {
    /// At most `max_bytes` of `input`.
    pub(crate) fn new(input: R, max_bytes: u64) -> Self {
        Self { input, left_bytes: max_bytes, max_bytes }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // One byte beyond the limit is asked for, to tell an input that ends there from one that goes on.
        let most = usize::try_from(self.left_bytes.saturating_add(1)).unwrap_or(usize::MAX).min(into.len());
        let n = self.input.read(into.get_mut(..most).unwrap_or_default())?;
        self.left_bytes = self.left_bytes.checked_sub(n as u64).ok_or_else(|| too_large(self.max_bytes))?;
        Ok(n)
    }
}

/// The error of a request of more than `bytes_max`.
pub(super) fn too_large(bytes_max: u64) -> io::Error {
    let message = format!("the request is larger than the limit of {bytes_max} bytes");
    io::Error::new(io::ErrorKind::FileTooLarge, message)
}

/// A response body for a working thread, or for a task after it. Bytes leave when 64 KiB have come together, and on flush;
/// the bytes of one `write` always leave together.
pub(crate) struct ResponseWriter {
    chunks: mpsc::Sender<Bytes>,
    runtime: Handle,
    chunk: BytesMut,
    patience: Patience,
}

impl ResponseWriter {
    /// A writer for a client that may let the server wait for `stall_max`, and the queue that it fills. Must be called
    /// within a runtime.
    pub(crate) fn new(stall_max: Duration) -> (Self, mpsc::Receiver<Bytes>) {
        let (chunks, queue) = mpsc::channel(CHUNKS_MAX);
        let patience = Patience::of(stall_max);
        let writer = Self { chunks, runtime: Handle::current(), chunk: BytesMut::new(), patience };
        (writer, queue)
    }

    /// Sends a chunk once the queue takes it. For tasks, when nothing is left of what a thread has written.
    ///
    /// # Errors
    /// [`io::ErrorKind::BrokenPipe`] when the client is gone, [`io::ErrorKind::TimedOut`] when it reads too slowly.
    pub(crate) async fn pass(&mut self, chunk: Bytes) -> io::Result<()> {
        let (began, len) = (Instant::now(), chunk.len() as u64);
        let sent = timeout(self.patience.left, self.chunks.send(chunk)).await;
        self.patience.waited(began.elapsed(), len);
        match sent {
            Ok(sent) => sent.map_err(|_closed| gone()),
            Err(_elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly")),
        }
    }

    fn send(&mut self, chunk: Bytes) -> io::Result<()> {
        match self.chunks.try_send(chunk) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(gone()),
            Err(mpsc::error::TrySendError::Full(chunk)) => {
                let runtime = self.runtime.clone();
                runtime.block_on(self.pass(chunk))
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client went away")
}

impl Write for ResponseWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.len().saturating_add(bytes.len()) > CHUNK_BYTES {
            self.flush()?;
        }
        if bytes.len() >= CHUNK_BYTES / 2 {
            self.flush()?;
            self.send(Bytes::copy_from_slice(bytes))?;
        } else {
            self.chunk.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = self.chunk.split().freeze();
        self.send(chunk)
    }
}

/// Why the work of a response ended before its time.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was not run to its end.
    Work(WorkError),
    /// It failed.
    Engine(govc_engine::Error),
    /// The server is stopping.
    Stopping,
}

impl Failure {
    /// That nothing came of the client's input.
    pub(super) fn of_input(error: io::Error) -> Self {
        Failure::Engine(pkt::input_error(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Work(error) => error.fmt(f),
            Failure::Engine(error) => error.fmt(f),
            Failure::Stopping => f.write_str("the server is stopping"),
        }
    }
}

impl std::error::Error for Failure {}

/// How the client let the request fail, if it was the client: a failure of an [`Inlet`](super::inlet::Inlet) or a
/// [`ResponseWriter`].
pub(crate) fn client_failure(error: &govc_engine::Error) -> Option<io::ErrorKind> {
    use std::error::Error as _;
    let cancelled = *error.kind() == govc_engine::ErrorKind::Cancelled;
    let source = error.source().filter(|_| cancelled)?;
    source.downcast_ref::<io::Error>().map(io::Error::kind)
}

/// What is left of a response when its thread has written what it had to.
pub(crate) struct Rest<'a> {
    /// What the client still gets. No thread waits with it.
    pub(crate) delivery: Delivery,
    /// What the thread does meanwhile.
    pub(crate) making: Option<Making<'a>>,
}

/// What the work behind a response comes to. Its part of the memory for answers is there until that has been sent.
pub(crate) type Outcome = Result<govc_engine::Result<Held>, WorkError>;

/// Runs `work` on a thread of the pool, once work that waits for clients has its turn. The response is what it writes, and
/// then what it leaves to be delivered. The client may let the server wait for `stall_max`. Must be called within a runtime.
pub(crate) fn start(
    app: &Arc<App>,
    stall_max: Duration,
    flow: Arc<Flow>,
    work: impl for<'a> FnOnce(&'a App, &mut ResponseWriter) -> govc_engine::Result<Option<Rest<'a>>> + Send + 'static,
) -> Response {
    let (mut writer, chunks) = ResponseWriter::new(stall_max);
    let (hand_over, mut handed_over) = oneshot::channel();
    let work_app = Arc::clone(app);
    let work = move || {
        let rest = work(&work_app, &mut writer)?;
        writer.flush().map_err(pkt::input_error)?;
        if let Some(Rest { delivery, making }) = rest {
            // A client that has gone takes nothing; others may want what is made.
            drop(hand_over.send((writer, delivery)));
            making.into_iter().for_each(Making::run);
        }
        Ok(Held::default())
    };
    let (app, task_flow) = (Arc::clone(app), Arc::clone(&flow));
    let task = tokio::spawn(async move {
        // Once it has begun, it goes on without being waited for.
        let mut working = pin!(app.work.run_with_client(work));
        let (writer, delivery) = tokio::select! {
            biased;
            Ok(rest) = &mut handed_over => rest,
            ended = &mut working => match handed_over.try_recv() {
                Ok(rest) => rest,
                Err(_) => return ended,
            },
        };
        Ok(delivery.send(&app, &task_flow, writer).await)
    });
    Response::new(chunks, flow, task)
}

/// The response of a working thread, chunk by chunk. Dropping it tells the work that the client is gone.
pub(crate) struct Response {
    chunks: mpsc::Receiver<Bytes>,
    flow: Arc<Flow>,
    work: JoinHandle<Outcome>,
    keep_alive_every: Duration,
    ended: bool,
}

impl Response {
    /// The response that `work` writes into `chunks`.
    pub(super) fn new(chunks: mpsc::Receiver<Bytes>, flow: Arc<Flow>, work: JoinHandle<Outcome>) -> Self {
        Self { chunks, flow, work, keep_alive_every: KEEP_ALIVE_EVERY, ended: false }
    }

    /// The next chunk; `None` after the last. A failure comes after all chunks that were written before it.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        while !self.ended {
            match timeout(self.keep_alive_every, self.chunks.recv()).await {
                Ok(Some(chunk)) => return Some(Ok(chunk)),
                Ok(None) => return self.end().await,
                Err(_elapsed) if self.flow.may_keep_alive() => match self.chunks.try_recv() {
                    // Asked after the flag: what was written before the first packet goes first.
                    Ok(chunk) => return Some(Ok(chunk)),
                    Err(mpsc::error::TryRecvError::Empty) => return Some(Ok(Bytes::from_static(KEEP_ALIVE))),
                    Err(mpsc::error::TryRecvError::Disconnected) => return self.end().await,
                },
                Err(_elapsed) => {}
            }
        }
        None
    }

    async fn end(&mut self) -> Option<Result<Bytes, Failure>> {
        self.ended = true;
        match (&mut self.work).await {
            Ok(Ok(Ok(_held))) => None,
            Ok(Ok(Err(error))) => Some(Err(Failure::Engine(error))),
            Ok(Err(error)) => Some(Err(Failure::Work(error))),
            Err(_) => Some(Err(Failure::Stopping)),
        }
    }

    /// The body that begins with `first` and goes on with the rest. A failure breaks the body off, which no client
    /// takes for its end.
    pub(crate) fn into_body(self, first: Bytes) -> Body {
        let first = stream::once(async move { Ok(first) });
        let rest = stream::unfold(self, |mut response| async move {
            let chunk = response.next().await?;
            Some((chunk, response))
        });
        Body::from_stream(first.chain(rest))
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        // Work that still waits for a thread is never begun; what runs notices at its next write; a delivery ends.
        self.work.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_nobody_wants_is_drained() {
        let (sender, body) = mpsc::channel::<Result<Bytes, io::Error>>(1);
        let body = stream::unfold(body, |mut body| async move { body.recv().await.map(|piece| (piece, body)) });
        discard(Body::from_stream(body));
        for _ in 0..100 {
            sender.send(Ok(Bytes::from_static(b"piece"))).await.expect("somebody takes it");
        }
    }

    #[test]
    fn the_limit_is_exact() {
        let mut all = Vec::new();
        Limited::new(&b"12345"[..], 5).read_to_end(&mut all).unwrap();
        assert_eq!(all, b"12345");
        let error = Limited::new(io::repeat(0), 1000).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    fn respond(work: impl FnOnce(&mut ResponseWriter) -> govc_engine::Result<()> + Send + 'static) -> Response {
        let (mut writer, chunks) = ResponseWriter::new(STALL_MAX);
        let task = tokio::task::spawn_blocking(move || Ok(work(&mut writer).map(|()| Held::default())));
        Response::new(chunks, Arc::default(), task)
    }

    #[tokio::test]
    async fn a_response_far_longer_than_the_queue_arrives_whole() {
        let response = respond(|out| {
            for n in 0..100_000u32 {
                out.write_all(&n.to_be_bytes()).unwrap();
            }
            out.write_all(&vec![7; 1 << 20]).unwrap();
            out.flush().unwrap();
            Ok(())
        });
        let body = axum::body::to_bytes(response.into_body(Bytes::new()), usize::MAX).await.unwrap();
        let expected: Vec<u8> = (0..100_000u32).flat_map(u32::to_be_bytes).chain(vec![7; 1 << 20]).collect();
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn a_failure_breaks_the_body_off_after_what_was_written() {
        let mut response = respond(|out| {
            out.write_all(b"begun").unwrap();
            out.flush().unwrap();
            Err(govc_engine::Error::corrupt("a broken block"))
        });
        assert_eq!(response.next().await.unwrap().unwrap(), "begun");
        assert!(matches!(response.next().await, Some(Err(Failure::Engine(_)))));
        assert!(response.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_goes_away_stops_the_work() {
        let (told, tells) = tokio::sync::oneshot::channel();
        let response = respond(move |out| {
            let error = loop {
                if let Err(error) = out.write_all(&[0; 1000]) {
                    break error;
                }
            };
            told.send(error.kind()).expect("the test waits");
            Ok(())
        });
        drop(response);
        // An aborted task that has begun still runs; one that has not drops its sender.
        if let Ok(kind) = tells.await {
            assert_eq!(kind, io::ErrorKind::BrokenPipe);
        }
    }

    #[tokio::test]
    async fn a_task_waits_for_a_client_as_long_as_a_thread_does() {
        let chunk = || Bytes::from_static(b"chunk");
        let (mut writer, mut queue) = ResponseWriter::new(Duration::from_millis(10));
        for _ in 0..CHUNKS_MAX {
            writer.pass(chunk()).await.expect("the queue takes it");
        }
        assert_eq!(writer.pass(chunk()).await.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        assert_eq!(queue.recv().await, Some(chunk()));
        drop(queue);
        assert_eq!(writer.pass(chunk()).await.map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
    }

    #[tokio::test]
    async fn a_keep_alive_goes_between_packets() {
        let flow = Arc::new(Flow::default());
        flow.set_received();
        let (mut writer, chunks) = ResponseWriter::new(STALL_MAX);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let work = tokio::spawn(async move {
            let _ = ended.await;
            Ok(Ok(Held::default()))
        });
        let mut response = Response::new(chunks, flow.clone(), work);
        response.keep_alive_every = Duration::ZERO;

        writer.write_all(b"000d").unwrap();
        writer.write_all(b"packfile\n").unwrap();
        flow.begin_packets(&mut writer).unwrap();
        assert_eq!(response.next().await.unwrap().unwrap(), "000dpackfile\n");
        assert_eq!(response.next().await.unwrap().unwrap(), KEEP_ALIVE);
        writer.write_all(b"0009\x01PACK").unwrap();
        assert_eq!(response.next().await.unwrap().unwrap(), KEEP_ALIVE, "a packet that waits is a whole one");
        flow.end_packets();
        writer.write_all(b"00").unwrap();
        writer.flush().unwrap();
        assert_eq!(response.next().await.unwrap().unwrap(), "0009\x01PACK00");
        let silent = timeout(Duration::from_millis(20), response.next()).await;
        assert!(silent.is_err(), "nothing comes within a packet");
        writer.write_all(b"00").unwrap();
        writer.flush().unwrap();
        assert_eq!(response.next().await.unwrap().unwrap(), "00");
        drop(writer);
        end.send(()).unwrap();
        assert!(response.next().await.is_none());
    }

    #[test]
    fn a_few_bytes_now_and_then_are_no_progress() {
        let pause = Duration::from_secs(20);
        let mut patience = Patience::of(STALL_MAX);
        for _ in 0..3 {
            assert!(!patience.left.is_zero());
            patience.waited(pause, 4);
        }
        assert!(patience.left.is_zero(), "each byte does not begin another wait");

        let mut patience = Patience::of(STALL_MAX);
        for _ in 0..100 {
            patience.waited(pause, PROGRESS_BYTES_MIN / 2);
            assert!(!patience.left.is_zero(), "a slow client that goes on is served");
        }
    }
}
