//! Clients that stop taking what they asked for: how their connections end.
//!
//! A socket that takes nothing ends its connection by an error of the write ([`Impatient`]). In HTTP/2 a client can hold back
//! an answer by its windows alone, while the connection lives; hyper does not ask for the next piece then, and tells nobody.
//! [`Exchanges`] knows which answers wait like that.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

use super::idle::Between;

/// A stream whose writes fail when none has moved anything for a time.
pub(super) struct Impatient<S> {
    stream: S,
    /// What is read before the stream.
    ahead: Bytes,
    stall_max: Duration,
    between: Arc<Between>,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    /// `between` hears of what is read, and when all is sent.
    pub(super) fn new(stream: S, stall_max: Duration, between: Arc<Between>) -> Self {
        Self { stream, ahead: Bytes::new(), stall_max, between, waiting: None }
    }

    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// Puts back what was read of the stream too early.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.ahead = bytes;
    }

    fn watched<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(self.stall_max)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => {
                self.waiting = None;
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of what is sent")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = if self.ahead.is_empty() {
            Pin::new(&mut self.stream).poll_read(context, into)
        } else {
            let ahead = self.ahead.len().min(into.remaining());
            into.put_slice(&self.ahead.split_to(ahead));
            Poll::Ready(Ok(()))
        };
        if read.is_pending() || into.filled().len() > before {
            self.between.read(read.is_pending());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watched(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if let Poll::Ready(Ok(())) = flushed {
            self.between.flushed();
        }
        self.watched(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watched(context, ended)
    }
}

/// The requests of an HTTP/2 connection that are not answered whole.
pub(super) struct Exchanges {
    state: Mutex<State>,
    /// Told when there is one for the first time.
    begun: Notify,
}

struct State {
    next: u64,
    /// When a piece of the answer was given and none was asked for since; `None` while it is the server's turn.
    given: HashMap<u64, Option<Instant>>,
    /// Since when there is none.
    idle: Instant,
}

/// One of them, until it is dropped.
pub(super) struct Exchange {
    exchanges: Arc<Exchanges>,
    number: u64,
}

impl Exchanges {
    pub(super) fn new() -> Arc<Self> {
        let state = State { next: 0, given: HashMap::new(), idle: Instant::now() };
        Arc::new(Self { state: Mutex::new(state), begun: Notify::new() })
    }

    /// A new request.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        state.given.insert(number, None);
        drop(state);
        if number == 0 {
            self.begun.notify_one();
        }
        Exchange { exchanges: Arc::clone(self), number }
    }

    /// Ends when the client has left an answer lying for `patience`, or, with the connection closing, when for so long there
    /// was nothing to be answered: what is left then is what the client does not take. Never ends without a request.
    pub(super) async fn stalled(&self, patience: Duration, is_closing: impl Fn() -> bool) {
        self.begun.notified().await;
        loop {
            sleep(patience / 4).await;
            let state = self.state.lock();
            let is_long = |since: &Instant| since.elapsed() >= patience;
            if state.given.values().flatten().any(is_long)
                || (is_closing() && state.given.is_empty() && is_long(&state.idle))
            {
                return;
            }
        }
    }
}

impl Exchange {
    /// The body of the answer, which ends the exchange.
    pub(super) fn answer(self, body: Body) -> Body {
        if body.is_end_stream() { body } else { Body::new(Answer { body, exchange: self }) }
    }

    fn set(&self, given: Option<Instant>) {
        self.exchanges.state.lock().given.insert(self.number, given);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.exchanges.state.lock();
        state.given.remove(&self.number);
        if state.given.is_empty() {
            state.idle = Instant::now();
        }
    }
}

/// A body that notes when it is asked for its pieces.
struct Answer {
    body: Body,
    exchange: Exchange,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.exchange.set(frame.is_ready().then(Instant::now));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    #[tokio::test]
    async fn a_write_that_moves_nothing_fails() {
        let (near, mut far) = tokio::io::duplex(10);
        let mut near = Impatient::new(near, PATIENCE, Arc::default());
        near.write_all(&[1; 10]).await.unwrap();
        let began = Instant::now();
        let error = near.write_all(&[1; 10]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= PATIENCE);

        // One that moves a little, again and again, does not.
        let slow = tokio::spawn(async move {
            let mut read = Vec::new();
            while read.len() < 40 {
                sleep(PATIENCE / 20).await;
                let mut piece = [0; 5];
                let len = far.read(&mut piece).await.unwrap();
                read.extend_from_slice(&piece[..len]);
            }
            read.len()
        });
        near.write_all(&[1; 30]).await.unwrap();
        assert_eq!(slow.await.unwrap(), 40);
    }

    /// Whether the connection is found stalled: within several times the patience, or a long time where it must be.
    async fn is_stalled(exchanges: &Exchanges, is_closing: bool, must: bool) -> bool {
        let stalled = exchanges.stalled(Duration::from_millis(80), || is_closing);
        tokio::time::timeout(Duration::from_millis(if must { 60_000 } else { 400 }), stalled).await.is_ok()
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_is_found() {
        let pieces =
            || Body::from_stream(futures_util::stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from_static(b"x"))));
        let exchanges = Exchanges::new();
        assert!(!is_stalled(&exchanges, true, false).await, "nothing was asked");

        let exchanges = Exchanges::new();
        let waiting = exchanges.begin();
        assert!(!is_stalled(&exchanges, true, false).await, "it is the server's turn");
        drop(waiting);

        let exchanges = Exchanges::new();
        let mut taken = exchanges.begin().answer(pieces()).into_data_stream();
        assert!(taken.next().await.is_some());
        assert!(is_stalled(&exchanges, false, true).await);

        // One that waits for the server is not it.
        let exchanges = Exchanges::new();
        let pending = futures_util::stream::once(async { Ok::<_, io::Error>(Bytes::from_static(b"x")) })
            .chain(futures_util::stream::pending());
        let mut taken = exchanges.begin().answer(Body::from_stream(pending)).into_data_stream();
        assert!(taken.next().await.is_some());
        assert!(tokio::time::timeout(Duration::from_millis(1), taken.next()).await.is_err());
        assert!(!is_stalled(&exchanges, true, false).await);

        // What was answered whole, and lies in the connection's own memory.
        let exchanges = Exchanges::new();
        drop(exchanges.begin().answer(pieces()));
        assert!(!is_stalled(&exchanges, false, false).await);
        let exchanges = Exchanges::new();
        drop(exchanges.begin().answer(pieces()));
        assert!(is_stalled(&exchanges, true, true).await);
    }
}
