//! Connections of HTTP/1.1 between requests.
//!
//! One that waits for its next request needs its socket and little else: what hyper holds for it, two buffers of 8 KiB and
//! their state, is given up, and made again when the client says something. [`Between`] knows when that loses nothing: the
//! last request has come whole, its answer has left whole, and nothing has come since.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use hyper::{
    body::Incoming,
    server::conn::http1::{Connection, Parts},
    service::HttpService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::Graceful;

/// Where a connection stands between one request and the next. Written by its stream and the bodies of its exchanges. The body
/// of a request may be read on another thread, and to its end when the next one has begun: so it says which one it is.
#[derive(Default)]
pub(super) struct Between {
    /// [`BUSY`] to [`SILENT`], in this order.
    stage: AtomicU8,
    /// The number of the newest request, ...
    begun: AtomicU64,
    /// ... and of the newest one that has come whole.
    received: AtomicU64,
}

/// A request is awaited for the first time, coming, or being answered.
const BUSY: u8 = 0;
/// The answer is given to hyper whole.
const ANSWERED: u8 = 1;
/// And sent.
const SENT: u8 = 2;
/// And nothing more has come.
const SILENT: u8 = 3;

impl Between {
    fn advance(&self, from: u8, to: u8) {
        let _ = self.stage.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Hyper has nothing that it has not given to the stream, and the stream has sent all.
    pub(super) fn flushed(&self) {
        self.advance(ANSWERED, SENT);
    }

    /// Something has been read, or there is nothing to read.
    pub(super) fn read(&self, is_pending: bool) {
        match is_pending {
            true => self.advance(SENT, SILENT),
            false => self.stage.store(BUSY, Ordering::Relaxed),
        }
    }

    fn is_idle(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == SILENT
            && self.received.load(Ordering::Relaxed) == self.begun.load(Ordering::Relaxed)
    }

    /// A request begins: its body.
    pub(super) fn request(self: &Arc<Self>, body: Incoming) -> Body {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        self.stage.store(BUSY, Ordering::Relaxed);
        if body.is_end_stream() {
            self.whole(number);
            return Body::empty();
        }
        Body::new(Request { body, number, between: Arc::clone(self) })
    }

    /// A request has come whole.
    fn whole(&self, number: u64) {
        self.received.fetch_max(number, Ordering::Relaxed);
    }

    /// The body of its answer.
    pub(super) fn answer(self: &Arc<Self>, body: Body) -> Answer {
        Answer { body, between: Arc::clone(self) }
    }
}

/// A request's body, which notes that it has come whole.
struct Request {
    body: Incoming,
    number: u64,
    between: Arc<Between>,
}

impl HttpBody for Request {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let is_end = match &frame {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => self.body.is_end_stream(),
            _ => false,
        };
        if is_end {
            self.between.whole(self.number);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, which notes when hyper has done with it.
pub(super) struct Answer {
    body: Body,
    between: Arc<Between>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.between.advance(BUSY, ANSWERED);
    }
}

/// A connection until it ends, or waits for its next request: then it gives back what it is made of.
pub(super) struct UntilIdle<I, S>
where
    S: HttpService<Incoming>,
{
    connection: Option<Connection<I, S>>,
    between: Arc<Between>,
}

impl<I, S> UntilIdle<I, S>
where
    S: HttpService<Incoming>,
{
    pub(super) fn new(connection: Connection<I, S>, between: &Arc<Between>) -> Self {
        between.stage.store(BUSY, Ordering::Relaxed);
        Self { connection: Some(connection), between: Arc::clone(between) }
    }
}

impl<I, S, B> Graceful for UntilIdle<I, S>
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: HttpBody + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    fn shut_down(mut self: Pin<&mut Self>) {
        if let Some(connection) = &mut self.connection {
            Pin::new(connection).graceful_shutdown();
        }
    }
}

impl<I, S, B> Future for UntilIdle<I, S>
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: HttpBody + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    type Output = hyper::Result<Option<Parts<I, S>>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(None)) };
        match Pin::new(connection).poll(context) {
            Poll::Ready(served) => Poll::Ready(served.map(|()| None)),
            Poll::Pending if self.between.is_idle() => {
                Poll::Ready(Ok(self.connection.take().map(Connection::into_parts)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A stream over a socket that can be waited for.
pub(super) trait OverTcp: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn socket(&self) -> &TcpStream;
}

impl OverTcp for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl OverTcp for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(between: &Arc<Between>) {
        drop(between.answer(Body::empty()));
        between.flushed();
        between.read(true);
    }

    #[test]
    fn the_end_of_one_request_says_nothing_of_the_next() {
        let between = Arc::new(Between::default());
        assert!(!between.is_idle(), "nothing has been asked yet");
        let begin = || {
            between.stage.store(BUSY, Ordering::Relaxed);
            between.begun.fetch_add(1, Ordering::Relaxed) + 1
        };
        let first = begin();
        answered(&between);
        assert!(!between.is_idle(), "its body is still to come");
        let second = begin();
        answered(&between);
        between.whole(first);
        assert!(!between.is_idle(), "it is the first one's body that has come");
        between.whole(second);
        assert!(between.is_idle());
        between.read(false);
        assert!(!between.is_idle(), "something comes");
    }
}
