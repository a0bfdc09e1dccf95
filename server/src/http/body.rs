//! Bodies of requests and answers: how long a client may stall, how much memory clients hold, what becomes of a body
//! that nobody reads.
//!
//! - A client for which the server has waited `server.body_timeout` while its body is read gets 408, as [`Patience`] counts;
//!   from one that takes nothing of a large answer for so long, the answer is taken away.
//! - Bodies and answers of more than [`FREE_BYTES`] are held in memory within one budget, `server.max_buffered`: a
//!   [`Held`] is a part of it and lives as long as what it was taken for. Who gets none within [`WAIT_MAX`] gets 503,
//!   so that holders that wait for one another do not wait long.
//! - A body that a refusal left unread is read and thrown away in the background: many clients read the answer only
//!   when they have sent everything.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    http::{
        HeaderValue,
        header::{CONTENT_LENGTH, EXPECT},
    },
    middleware::Next,
    response::Response,
};
use bytes::BytesMut;
use futures_util::{Stream, StreamExt as _, stream};
use http_body::{Frame, SizeHint};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::problem::{Code, Problem};
use crate::{
    app::App,
    config::ServerConfig,
    git::{self, Patience},
};

/// Up to this many bytes take no part of the budget: so much the connection itself may hold.
pub(crate) const FREE_BYTES: u64 = 64 << 10;
/// In which steps a body of unknown length takes its part, in bytes.
const STEP_BYTES: u64 = 1 << 20;
/// How long to wait for a part of the budget.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// What the budget is counted in, in bytes.
const UNIT_BYTES: u64 = 1024;
/// In which pieces a large answer is sent, in bytes, and how many of them wait for the connection.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_MAX: usize = 2;

/// How bodies come and go. Clones share one budget.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    request_bytes_max: u64,
    stall_max: Duration,
    /// The budget in units of [`UNIT_BYTES`].
    units: Arc<Semaphore>,
    units_max: u32,
}

/// A part of the budget, given back when dropped; none for what is small.
#[derive(Debug, Default)]
pub(crate) struct Held(Option<OwnedSemaphorePermit>);

/// A request's whole body, with its part of the budget.
#[derive(Debug, Clone)]
pub(crate) struct HeldBody {
    pub(crate) bytes: Bytes,
    pub(crate) held: Arc<Held>,
}

impl Held {
    /// Gives back what is more than a part for `bytes`.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        let kept = if bytes <= FREE_BYTES { 0 } else { bytes.div_ceil(UNIT_BYTES) };
        let kept = usize::try_from(kept).unwrap_or(usize::MAX);
        if let Some(permit) = &mut self.0 {
            drop(permit.split(permit.num_permits().saturating_sub(kept)));
        }
        if kept == 0 {
            self.0 = None;
        }
    }

    /// Keeps the part until the answer has been sent or given up.
    pub(crate) fn keep_with(self, response: &mut Response) {
        if self.0.is_some() {
            response.extensions_mut().insert(Arc::new(self));
        }
    }
}

impl Bodies {
    /// A budget of its own.
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let units_max = u32::try_from(config.buffered_bytes_max / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        Self {
            request_bytes_max: config.body_bytes_max,
            stall_max: config.body_timeout,
            units: Arc::new(Semaphore::new(units_max as usize)),
            units_max,
        }
    }

    /// Takes a part of the budget for `bytes`; all of it for what is larger.
    ///
    /// # Errors
    /// [`Code::Busy`] if others hold too much for too long.
    pub(crate) async fn hold(&self, bytes: u64) -> Result<Held, Problem> {
        let mut held = Held::default();
        self.grow(&mut held, bytes).await?;
        Ok(held)
    }

    /// Adds to `held` until it is a part for `bytes`.
    ///
    /// # Errors
    /// As [`Bodies::hold`]; `held` stays as it was.
    pub(crate) async fn grow(&self, held: &mut Held, bytes: u64) -> Result<(), Problem> {
        if bytes <= FREE_BYTES {
            return Ok(());
        }
        let wanted = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.units_max);
        let has = held.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = wanted.saturating_sub(u32::try_from(has).unwrap_or(u32::MAX));
        if missing == 0 {
            return Ok(());
        }
        match timeout(WAIT_MAX, Arc::clone(&self.units).acquire_many_owned(missing)).await {
            Ok(Ok(more)) => match &mut held.0 {
                Some(permit) => permit.merge(more),
                None => held.0 = Some(more),
            },
            Ok(Err(_)) | Err(_) => {
                let detail = "other requests hold all memory for bodies and answers; try again";
                return Err(Problem::new(Code::Busy, detail));
            }
        }
        Ok(())
    }

    /// Reads a whole body. One that says it is too large is refused before it is sent.
    ///
    /// # Errors
    /// [`Code::BodyTooLarge`]; [`Code::RequestTimeout`] if the client stalls; [`Code::Busy`] if others hold too much
    /// memory; [`Code::InvalidRequest`] if the body breaks off.
    pub(crate) async fn read(&self, body: Body) -> Result<HeldBody, Problem> {
        let bytes_max = self.request_bytes_max;
        let too_large = || Problem::new(Code::BodyTooLarge, format!("the body is larger than {bytes_max} bytes"));
        let said = body.size_hint();
        if said.lower() > bytes_max {
            return Err(too_large());
        }
        let mut held = self.hold(said.exact().unwrap_or(0)).await?;
        // Most bodies come in one piece, which is not copied.
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        let mut received = 0u64;
        let mut pieces = body.into_data_stream();
        let mut patience = Patience::of(self.stall_max);
        loop {
            let began = Instant::now();
            let piece = match timeout(patience.left(), pieces.next()).await {
                Ok(Some(Ok(piece))) => piece,
                Ok(Some(Err(error))) => return Err(Problem::invalid(format!("the body ended early: {error}"))),
                Ok(None) => break,
                Err(_elapsed) => return Err(Problem::new(Code::RequestTimeout, "the body did not arrive in time")),
            };
            patience.waited(began.elapsed(), piece.len() as u64);
            received = received.saturating_add(piece.len() as u64);
            if received > bytes_max {
                return Err(too_large());
            }
            if received > FREE_BYTES {
                self.grow(&mut held, said.exact().unwrap_or(received.next_multiple_of(STEP_BYTES))).await?;
            }
            if received == piece.len() as u64 {
                first = piece;
                continue;
            }
            if joined.is_empty() {
                joined.reserve(usize::try_from(said.exact().unwrap_or(received)).unwrap_or(0));
                joined.extend_from_slice(&std::mem::take(&mut first));
            }
            joined.extend_from_slice(&piece);
        }
        let bytes = if joined.is_empty() { first } else { joined.freeze() };
        Ok(HeldBody { bytes, held: Arc::new(held) })
    }

    /// A body of pieces that are made while it is sent. `pieces` is asked for the next one from a task of its own, and is
    /// dropped when the client stops taking them; a piece that is an error breaks the answer off.
    pub(crate) fn made(&self, pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
        let (sender, queue) = mpsc::channel::<Option<io::Result<Bytes>>>(1);
        let stall_max = self.stall_max;
        tokio::spawn(async move {
            let mut pieces = pin!(pieces);
            loop {
                let piece = tokio::select! {
                    biased;
                    () = sender.closed() => return,
                    piece = pieces.next() => piece,
                };
                let is_last = !matches!(piece, Some(Ok(_)));
                match timeout(stall_max, sender.send(piece)).await {
                    Ok(Ok(())) if !is_last => {}
                    // All is sent; or the client has gone, or stalls.
                    Ok(_) | Err(_) => return,
                }
            }
        });
        Body::from_stream(stream::unfold(Some(queue), |queue| async move {
            let mut queue = queue?;
            match queue.recv().await {
                Some(Some(Ok(piece))) => Some((Ok(piece), Some(queue))),
                Some(Some(Err(error))) => Some((Err(error), None)),
                Some(None) => None,
                None => {
                    let error = io::Error::new(io::ErrorKind::TimedOut, "the client stopped reading");
                    Some((Err(error), None))
                }
            }
        }))
    }

    /// Sends a large answer in pieces from a task of its own, which frees it when the client stops taking them.
    fn paced(&self, mut response: Response) -> Response {
        let held = response.extensions_mut().remove::<Arc<Held>>();
        let bytes = response.body().size_hint().exact().unwrap_or(0);
        // A small part of a large file holds the whole file too.
        if bytes == 0 || (bytes <= FREE_BYTES && held.is_none()) {
            return response;
        }
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from(bytes));
        let stall_max = self.stall_max;
        response.map(|body| {
            let (pieces, queue) = mpsc::channel(PIECES_MAX);
            tokio::spawn(feed(body, held, pieces, stall_max));
            let pieces = stream::unfold((queue, bytes), |(mut queue, left)| async move {
                match queue.recv().await {
                    Some(piece) => {
                        let left = left.saturating_sub(piece.len() as u64);
                        Some((Ok(piece), (queue, left)))
                    }
                    None if left > 0 => {
                        let error = io::Error::new(io::ErrorKind::TimedOut, "the client stopped reading");
                        Some((Err(error), (queue, 0)))
                    }
                    None => None,
                }
            });
            sized(Body::from_stream(pieces), bytes)
        })
    }
}

/// A body of so many bytes, which ends with the last of them: who writes it does not ask for more then.
pub(crate) fn sized(body: Body, bytes: u64) -> Body {
    Body::new(Counted { body, left: bytes })
}

struct Counted {
    body: Body,
    left: u64,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref().map(Bytes::len)).unwrap_or(0);
        self.left = self.left.saturating_sub(bytes as u64);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
}

/// Hands the pieces of `body` to a connection, for as long as it takes them.
async fn feed(body: Body, held: Option<Arc<Held>>, pieces: mpsc::Sender<Bytes>, stall_max: Duration) {
    let mut frames = body.into_data_stream();
    while let Some(Ok(mut data)) = frames.next().await {
        while !data.is_empty() {
            // A copy: a slice would keep the whole in memory for as long as the connection keeps the slice.
            let piece = Bytes::copy_from_slice(&data.split_to(data.len().min(PIECE_BYTES)));
            match timeout(stall_max, pieces.send(piece)).await {
                Ok(Ok(())) => {}
                // The client has gone, or stalls.
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
    drop(held);
}

/// Goes around all routes: drains what they leave unread, and paces large answers.
pub(super) async fn bounded(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    // Who waits for leave to send needs no draining, and would be given leave by it.
    let waits = request.headers().contains_key(EXPECT) || request.body().is_end_stream();
    let request = if waits { request } else { request.map(|body| Body::new(Drained(Some(body)))) };
    app.bodies.paced(next.run(request).await)
}

/// A body that is drained if it is dropped before its end.
struct Drained(Option<Body>);

impl HttpBody for Drained {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        // Outside a runtime nothing can be read, and nobody waits for the answer.
        if let Some(body) = self.0.take()
            && !body.is_end_stream()
            && Handle::try_current().is_ok()
        {
            git::discard(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;
    use crate::config::Config;

    fn bodies(buffered_bytes_max: u64, stall_max: Duration) -> Bodies {
        let server = Config::default().server;
        Bodies::new(&ServerConfig { body_bytes_max: 4 << 20, body_timeout: stall_max, buffered_bytes_max, ..server })
    }

    fn pieces(pieces: Vec<Bytes>) -> Body {
        Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, io::Error>)))
    }

    #[tokio::test]
    async fn bodies_are_read_whole_and_pay_for_their_size() {
        let bodies = bodies(8 << 20, Duration::from_secs(60));
        for text in ["", "one piece"] {
            let read = bodies.read(Body::from(text)).await.expect("a body");
            assert_eq!((&read.bytes[..], read.held.0.is_none()), (text.as_bytes(), true), "small ones pay nothing");
        }
        let read = bodies.read(pieces(vec!["a".into(), "".into(), "b".into(), "c".into()])).await.expect("a body");
        assert_eq!(read.bytes, "abc");
        let large = Bytes::from(vec![b'x'; 3 << 20]);
        let read = bodies.read(Body::from(large.clone())).await.expect("a body");
        assert_eq!((read.bytes == large, bodies.units.available_permits()), (true, 5 << 10));
        let again = bodies.read(pieces(vec![large.slice(..1 << 20), large.slice(1 << 20..)])).await.expect("a body");
        assert_eq!((again.bytes == large, bodies.units.available_permits()), (true, 2 << 10));
        drop((read, again));
        assert_eq!(bodies.units.available_permits(), 8 << 10);
        for body in [Body::from(vec![0u8; (4 << 20) + 1]), pieces(vec![large.clone(), large])] {
            assert_eq!(bodies.read(body).await.expect_err("too large").code(), Code::BodyTooLarge);
        }
        assert_eq!(bodies.units.available_permits(), 8 << 10);
    }

    #[tokio::test]
    async fn a_stalled_body_is_given_up() {
        let bodies = bodies(8 << 20, Duration::from_millis(1));
        let beginning = stream::once(async { Ok::<_, io::Error>(Bytes::from_static(b"{")) });
        let stalled = Body::from_stream(beginning.chain(stream::pending()));
        assert_eq!(bodies.read(stalled).await.expect_err("no end").code(), Code::RequestTimeout);
        // Nor do single bytes count as progress.
        let trickle = stream::repeat(()).then(|()| async {
            tokio::time::sleep(Duration::from_micros(100)).await;
            Ok::<_, io::Error>(Bytes::from_static(b" "))
        });
        let read = timeout(Duration::from_secs(60), bodies.read(Body::from_stream(trickle))).await;
        assert_eq!(read.expect("an end").expect_err("no end").code(), Code::RequestTimeout);
    }

    #[tokio::test]
    async fn a_stalled_reader_loses_its_answer() {
        let bodies = bodies(8 << 20, Duration::from_millis(1));
        let answer = Bytes::from(vec![7u8; 2 << 20]);
        let mut response = Response::new(Body::from(answer));
        bodies.hold(2 << 20).await.expect("free").keep_with(&mut response);
        let response = bodies.paced(response);
        assert_eq!(response.headers().get(CONTENT_LENGTH).expect("a length"), "2097152");
        while bodies.units.available_permits() < 8 << 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(to_bytes(response.into_body(), usize::MAX).await.is_err(), "it is broken off, not ended");
    }

    #[tokio::test]
    async fn a_paced_answer_arrives_whole() {
        let bodies = bodies(8 << 20, Duration::from_secs(60));
        let answer: Vec<u8> = (0..300_000u32).flat_map(u32::to_be_bytes).collect();
        let response = bodies.paced(Response::new(Body::from(answer.clone())));
        assert!(to_bytes(response.into_body(), usize::MAX).await.expect("all of it") == answer);
        let small = bodies.paced(Response::new(Body::from("small")));
        assert_eq!(small.body().size_hint().exact(), Some(5), "small ones go as they are");
    }

    #[tokio::test]
    async fn what_is_made_arrives_whole_or_is_broken_off() {
        let answers = bodies(8 << 20, Duration::from_secs(60));
        let parts = || stream::iter((0..100u8).map(|part| Ok(Bytes::from(vec![part; 1000]))));
        let whole = to_bytes(answers.made(parts()), usize::MAX).await.expect("all of it");
        assert_eq!((whole.len(), whole.last()), (100_000, Some(&99)));
        let failing = parts().chain(stream::iter([Err(io::Error::other("broken"))]));
        assert!(to_bytes(answers.made(failing), usize::MAX).await.is_err());
        assert!(to_bytes(answers.made(stream::iter([])), usize::MAX).await.expect("nothing").is_empty());
        // A client that takes nothing: the source is dropped, the answer is no whole one.
        let (alive, source) = tokio::sync::oneshot::channel::<()>();
        let endless = stream::unfold(alive, |alive| async { Some((Ok(Bytes::from_static(b"piece")), alive)) });
        let body = bodies(8 << 20, Duration::from_millis(1)).made(endless);
        assert!(source.await.is_err(), "dropped");
        assert!(to_bytes(body, usize::MAX).await.is_err());
    }

    #[tokio::test]
    async fn a_body_of_known_length_ends_with_its_last_byte() {
        let mut body = sized(pieces(vec!["one".into(), "two".into()]), 6);
        for is_last in [false, true] {
            assert!(!body.is_end_stream() && body.size_hint().exact().is_none());
            let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
            assert_eq!(frame.expect("a frame").expect("data").into_data().expect("data").len(), 3);
            assert_eq!(body.is_end_stream(), is_last);
        }
    }

    #[tokio::test]
    async fn a_part_can_be_given_back() {
        let bodies = bodies(8 << 20, Duration::from_secs(60));
        let mut held = bodies.hold(4 << 20).await.expect("free");
        for (bytes, left) in [(5 << 20, 4 << 10), (1 << 20, 7 << 10), (FREE_BYTES, 8 << 10), (0, 8 << 10)] {
            held.shrink(bytes);
            assert_eq!(bodies.units.available_permits(), left);
        }
        bodies.grow(&mut held, 1 << 20).await.expect("free");
        assert_eq!(bodies.units.available_permits(), 7 << 10);
    }

    #[tokio::test]
    async fn what_is_left_unread_is_drained() {
        let (sender, queue) = mpsc::channel::<Result<Bytes, io::Error>>(1);
        let body = stream::unfold(queue, |mut queue| async move { queue.recv().await.map(|piece| (piece, queue)) });
        drop(Body::new(Drained(Some(Body::from_stream(body)))));
        for _ in 0..100 {
            sender.send(Ok(Bytes::from_static(b"piece"))).await.expect("somebody takes it");
        }
    }
}
