//! HTTP on accepted connections: HTTP/1.1 and HTTP/2, over TLS (by ALPN) or plain (HTTP/2 by prior knowledge).
//!
//! What bounds a connection:
//! - A first request must have begun within `server.header_timeout`, and each head of HTTP/1.1 must be there within it; a
//!   connection without requests is closed after it, in HTTP/2 by a GOAWAY, so that requests under way end well.
//! - A head has at most [`HEAD_BYTES_MAX`], in HTTP/2 [`HEADER_LIST_BYTES_MAX`].
//! - What an HTTP/2 peer sends ahead, and what is ready for one that does not read, is bounded by the constants here; bodies
//!   have bounds of their own (`http::body`, `git::bridge`).
//! - A peer that takes nothing of what is sent for `server.body_timeout` is cut off; so is an HTTP/2 connection on which an
//!   answer lies [`LEFT_LYING`] times as long because its window is closed.

mod stall;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::Service as _;

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

/// Serves HTTP on connections.
pub(crate) struct Connector {
    http: auto::Builder<TokioExecutor>,
    router: Router,
    tls: Option<Arc<Tls>>,
    header_timeout: Duration,
    stall_max: Duration,
}

impl Connector {
    /// Serves `router`, over TLS if there is any.
    pub(crate) fn new(router: Router, tls: Option<Arc<Tls>>, config: &ServerConfig) -> Self {
        let ServerConfig { header_timeout, body_timeout: stall_max, .. } = *config;
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            .keep_alive(true);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(header_timeout)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .max_send_buf_size(SEND_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        Self { http, router, tls, header_timeout, stall_max }
    }

    /// Serves a connection to its end, or, once `stop` changes, to the end of its requests.
    pub(crate) async fn serve(&self, stream: TcpStream, peer: PeerAddress, mut stop: watch::Receiver<()>) {
        // Answers are written whole; waiting for more to send would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "TCP_NODELAY could not be set");
        }
        let Some(tls) = &self.tls else { return self.speak(stream, peer, stop).await };
        let secured = tokio::select! {
            secured = tls.accept(stream) => secured,
            _ = stop.changed() => return,
        };
        match secured {
            Ok(stream) => self.speak(stream, peer, stop).await,
            Err(refused) => tracing::debug!(reason = %refused, remote_addr = %peer.0, "no TLS connection"),
        }
    }

    async fn speak<S>(&self, stream: S, peer: PeerAddress, mut stop: watch::Receiver<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (heard, exchanges) = (Arc::new(Heard::new()), Exchanges::new());
        let service = {
            let (heard, exchanges) = (Arc::clone(&heard), Arc::clone(&exchanges));
            let router = self.router.clone();
            let is_secure = IsSecure(self.tls.is_some());
            service_fn(move |request: hyper::Request<Incoming>| {
                heard.note(request.version());
                let exchange = (request.version() == hyper::Version::HTTP_2).then(|| exchanges.begin());
                let mut request: Request = request.map(Body::new);
                request.extensions_mut().insert(peer);
                request.extensions_mut().insert(is_secure);
                // The router is always ready; its clone is one reference.
                let answered = router.clone().call(crate::http::versions::rewrite(request));
                async move {
                    let response = answered.await?;
                    Ok::<_, Infallible>(match exchange {
                        Some(exchange) => response.map(|body| exchange.answer(body)),
                        None => response,
                    })
                }
            })
        };
        let stream = Impatient::new(stream, self.stall_max);
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(stream), service));
        let mut quiet = pin!(self.quiet(&heard));
        let closing = AtomicBool::new(false);
        let mut stalled = pin!(exchanges.stalled(self.stall_max * LEFT_LYING, || closing.load(Ordering::Relaxed)));
        loop {
            let is_closing = closing.load(Ordering::Relaxed);
            tokio::select! {
                // A client that breaks off or speaks no HTTP is not the server's failure.
                served = connection.as_mut() => {
                    if let Err(error) = served {
                        tracing::debug!(error = %error, remote_addr = %peer.0, "connection ended");
                    }
                    return;
                }
                _ = stop.changed(), if !is_closing => {}
                had_requests = quiet.as_mut(), if !is_closing => {
                    if !had_requests {
                        tracing::debug!(remote_addr = %peer.0, "no request came in time");
                        return;
                    }
                }
                () = stalled.as_mut() => {
                    tracing::debug!(remote_addr = %peer.0, "the client takes nothing of an answer");
                    return;
                }
            }
            closing.store(true, Ordering::Relaxed);
            connection.as_mut().graceful_shutdown();
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
