//! HTTP on accepted connections: HTTP/1.1 and HTTP/2, over TLS (by ALPN) or plain (HTTP/2 by prior knowledge).
//!
//! What bounds a connection:
//! - A first request must have begun within `server.header_timeout`, and each head of HTTP/1.1 must be there within it; a
//!   connection without requests is closed after it, in HTTP/2 by a GOAWAY, so that requests under way end well.
//! - A head has at most [`HEAD_BYTES_MAX`], in HTTP/2 [`HEADER_LIST_BYTES_MAX`].
//! - What an HTTP/2 peer sends ahead, and what is ready for one that does not read, is bounded by the constants here; bodies
//!   have bounds of their own (`http::body`, `git::bridge`).
//! - Between requests, HTTP/1.1 holds little more than the socket ([`idle`]).
//! - A peer that takes nothing of what is sent for `server.body_timeout` is cut off; so is an HTTP/2 connection on which an
//!   answer lies [`LEFT_LYING`] times as long because its window is closed.

mod idle;
mod stall;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::Service as _;

use self::idle::{Between, OverTcp, UntilIdle};
use self::stall::{Exchanges, Impatient};
use crate::config::ServerConfig;
use crate::telemetry::{IsSecure, PeerAddress};
use crate::tls::Tls;

/// A request line and headers of HTTP/1.1; also what is read of a body at once.
const HEAD_BYTES_MAX: usize = 128 << 10;

/// All headers of an HTTP/2 request, as that counts them.
const HEADER_LIST_BYTES_MAX: u32 = 64 << 10;

/// How often an HTTP/2 peer that says nothing is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Requests that one HTTP/2 connection may have in flight.
const STREAMS_MAX: u32 = 128;

/// What an HTTP/2 peer may send ahead of what is taken, in bytes: of one request, enough for a push at a good speed, ...
const STREAM_WINDOW_BYTES: u32 = 512 << 10;

/// ... and of all requests of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// What waits for an HTTP/2 peer that does not read, in bytes a response.
const SEND_BYTES_MAX: usize = 64 << 10;

/// How many times `server.body_timeout` an answer may lie before a peer that keeps its window closed: there are answers that
/// are asked for piece by piece, slowly.
const LEFT_LYING: u32 = 4;

/// What HTTP/2 begins with where nothing was agreed on before.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest pause between two looks at a preface that comes in parts.
const PREFACE_PAUSE_MAX: Duration = Duration::from_millis(100);

/// Serves HTTP on connections.
pub(crate) struct Connector {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    router: Router,
    tls: Option<Arc<Tls>>,
    header_timeout: Duration,
    stall_max: Duration,
}

impl Connector {
    /// Serves `router`, over TLS if there is any.
    pub(crate) fn new(router: Router, tls: Option<Arc<Tls>>, config: &ServerConfig) -> Self {
        let ServerConfig { header_timeout, body_timeout: stall_max, .. } = *config;
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            .keep_alive(true);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(header_timeout)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .max_send_buf_size(SEND_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        Self { http1, http2, router, tls, header_timeout, stall_max }
    }

    /// Serves a connection to its end, or, once `stop` changes, to the end of its requests.
    pub(crate) async fn serve(&self, stream: TcpStream, peer: PeerAddress, stop: watch::Receiver<()>) {
        // Answers are written whole; waiting for more to send would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "TCP_NODELAY could not be set");
        }
        match &self.tls {
            None => self.serve_plain(stream, peer, stop).await,
            // In a box: a TLS connection is kilobytes, for which each plain connection would have room otherwise.
            Some(tls) => Box::pin(self.serve_tls(tls, stream, peer, stop)).await,
        }
    }

    async fn serve_plain(&self, stream: TcpStream, peer: PeerAddress, mut stop: watch::Receiver<()>) {
        let is_http2 = tokio::select! {
            told = is_http2(&stream) => told,
            _ = stop.changed() => return,
            () = tokio::time::sleep(self.header_timeout) => {
                tracing::debug!(remote_addr = %peer.0, "no request came in time");
                return;
            }
        };
        match is_http2 {
            Ok(is_http2) => self.speak(stream, is_http2, peer, stop).await,
            Err(error) => tracing::debug!(error = %error, remote_addr = %peer.0, "connection ended"),
        }
    }

    async fn serve_tls(&self, tls: &Tls, stream: TcpStream, peer: PeerAddress, mut stop: watch::Receiver<()>) {
        let secured = tokio::select! {
            secured = tls.accept(stream) => secured,
            _ = stop.changed() => return,
        };
        match secured {
            Ok(stream) => {
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.speak(stream, is_http2, peer, stop).await;
            }
            Err(refused) => tracing::debug!(reason = %refused, remote_addr = %peer.0, "no TLS connection"),
        }
    }

    async fn speak<S: OverTcp>(&self, stream: S, is_http2: bool, peer: PeerAddress, mut stop: watch::Receiver<()>) {
        // In a box each: a connection that does nothing is its state, which should be no larger than it must.
        match is_http2 {
            true => Box::pin(self.speak_http2(stream, peer, &mut stop)).await,
            false => self.speak_http1(stream, peer, stop).await,
        }
    }

    async fn speak_http1<S: OverTcp>(&self, stream: S, peer: PeerAddress, mut stop: watch::Receiver<()>) {
        let (heard, between) = (Arc::new(Heard::new()), Arc::new(Between::default()));
        let (heard_of, between_of) = (Arc::clone(&heard), Arc::clone(&between));
        let router = self.router.clone();
        let is_secure = IsSecure(self.tls.is_some());
        let mut service = service_fn(move |request: hyper::Request<Incoming>| {
            heard_of.note(request.version());
            let between = Arc::clone(&between_of);
            let answered = answer(&router, request.map(|body| between.request(body)), peer, is_secure);
            async move { answered.await.map(|response| response.map(|body| between.answer(body))) }
        });
        let mut stream = TokioIo::new(Impatient::new(stream, self.stall_max, Arc::clone(&between)));
        loop {
            let connection = UntilIdle::new(self.http1.serve_connection(stream, service), &between);
            let Some(Some(parts)) = Box::pin(self.drive(connection, &heard, None, peer, &mut stop)).await else {
                return;
            };
            let read_ahead = parts.read_buf;
            (stream, service) = (parts.io, parts.service);
            if !read_ahead.is_empty() {
                stream.inner_mut().put_back(read_ahead);
                continue;
            }
            // Empty as it is, it holds its buffer.
            drop(read_ahead);
            tokio::select! {
                // An error is found by whoever reads.
                _ = stream.inner().stream().socket().readable() => continue,
                _ = stop.changed() => {}
                () = tokio::time::sleep(self.header_timeout) => {}
            }
            // The client may have gone before.
            let _ = stream.inner_mut().shutdown().await;
            return;
        }
    }

    async fn speak_http2<S: OverTcp>(&self, stream: S, peer: PeerAddress, stop: &mut watch::Receiver<()>) {
        let (heard, exchanges) = (Arc::new(Heard::new()), Exchanges::new());
        let (heard_of, exchanges_of) = (Arc::clone(&heard), Arc::clone(&exchanges));
        let router = self.router.clone();
        let is_secure = IsSecure(self.tls.is_some());
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            heard_of.note(request.version());
            let exchange = exchanges_of.begin();
            let answered = answer(&router, request.map(Body::new), peer, is_secure);
            async move { answered.await.map(|response| response.map(|body| exchange.answer(body))) }
        });
        let stream = TokioIo::new(Impatient::new(stream, self.stall_max, Arc::default()));
        self.drive(self.http2.serve_connection(stream, service), &heard, Some(exchanges), peer, stop).await;
    }

    /// Runs a connection to its end, or as far as it goes; `None` if it is over.
    async fn drive<C, T>(
        &self,
        connection: C,
        heard: &Heard,
        exchanges: Option<Arc<Exchanges>>,
        peer: PeerAddress,
        stop: &mut watch::Receiver<()>,
    ) -> Option<T>
    where
        C: Graceful + Future<Output = hyper::Result<T>>,
    {
        let mut connection = pin!(connection);
        let mut quiet = pin!(self.quiet(heard));
        let closing = AtomicBool::new(false);
        let mut stalled = pin!(async {
            match &exchanges {
                Some(exchanges) => {
                    exchanges.stalled(self.stall_max * LEFT_LYING, || closing.load(Ordering::Relaxed)).await;
                }
                None => std::future::pending().await,
            }
        });
        loop {
            let is_closing = closing.load(Ordering::Relaxed);
            tokio::select! {
                served = connection.as_mut() => {
                    // A client that breaks off or speaks no HTTP is not the server's failure.
                    let ended = |error| tracing::debug!(error = %error, remote_addr = %peer.0, "connection ended");
                    return served.map_err(ended).ok().filter(|_| !is_closing);
                }
                _ = stop.changed(), if !is_closing => {}
                had_requests = quiet.as_mut(), if !is_closing => {
                    if !had_requests {
                        tracing::debug!(remote_addr = %peer.0, "no request came in time");
                        return None;
                    }
                }
                () = stalled.as_mut() => {
                    tracing::debug!(remote_addr = %peer.0, "the client takes nothing of an answer");
                    return None;
                }
            }
            closing.store(true, Ordering::Relaxed);
            connection.as_mut().shut_down();
        }
    }

    /// Ends when no request has begun for `header_timeout`, and tells whether any ever has. Of HTTP/1.1 only the first is
    /// waited for: hyper sees to the others, and does so only after the first bytes have told it which HTTP is spoken.
    fn quiet(&self, heard: &Heard) -> impl Future<Output = bool> {
        let timeout = self.header_timeout;
        async move {
            let mut until = heard.began + timeout;
            loop {
                tokio::time::sleep_until(until.into()).await;
                match heard.last() {
                    Last::Nothing => return false,
                    Last::Http1 => std::future::pending().await,
                    Last::Http2(at) if at + timeout <= until => return true,
                    Last::Http2(at) => until = at + timeout,
                }
            }
        }
    }
}

/// What the router answers.
fn answer(
    router: &Router,
    mut request: Request,
    peer: PeerAddress,
    is_secure: IsSecure,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(is_secure);
    // The router is always ready; its clone is one reference.
    router.clone().call(crate::http::versions::rewrite(request))
}

/// Whether the client begins as HTTP/2 does, told by bytes that stay where they are: a connection of HTTP/1.1 that had to
/// put them back would take twice the memory for as long as it lives.
async fn is_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    let mut pause = Duration::from_millis(1);
    loop {
        let count = stream.peek(&mut first).await?;
        if count == 0 || first[..count] != PREFACE[..count] {
            return Ok(false);
        }
        if count == PREFACE.len() {
            return Ok(true);
        }
        // There is something to read already, so nobody would tell when there is more.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PREFACE_PAUSE_MAX);
    }
}

/// A connection that can end after the requests that are under way.
trait Graceful {
    fn shut_down(self: Pin<&mut Self>);
}

impl<I, S> Graceful for http2::Connection<I, S, TokioExecutor>
where
    S: hyper::service::HttpService<Incoming>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::ResBody: 'static,
    <S::ResBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    TokioExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, S::ResBody>,
{
    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// When a connection's last request began.
struct Heard {
    began: Instant,
    /// [`Heard::NOTHING`], [`Heard::HTTP1`], or milliseconds since `began` of a request of HTTP/2. Written by requests, read by
    /// the connection's task; orders nothing.
    last: AtomicU64,
}

enum Last {
    Nothing,
    Http1,
    Http2(Instant),
}

impl Heard {
    const NOTHING: u64 = u64::MAX;
    const HTTP1: u64 = u64::MAX - 1;

    fn new() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(Self::NOTHING) }
    }

    fn note(&self, version: hyper::Version) {
        let last = match version {
            hyper::Version::HTTP_2 => u64::try_from(self.began.elapsed().as_millis()).unwrap_or(0),
            _ => Self::HTTP1,
        };
        self.last.store(last, Ordering::Relaxed);
    }

    fn last(&self) -> Last {
        match self.last.load(Ordering::Relaxed) {
            Self::NOTHING => Last::Nothing,
            Self::HTTP1 => Last::Http1,
            millis => Last::Http2(self.began + Duration::from_millis(millis)),
        }
    }
}
