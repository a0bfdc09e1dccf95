//! One request and its response, from the first byte of the head to the last of the body: what the access
//! log and the metrics say about it.
//!
//! An [`Exchange`] is recorded exactly once, when it is dropped: after a body of known length was handed
//! over, at the end of a streamed one, or when the client has gone. A panic of a streaming body ends its
//! response, not the connection's task.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request};
use http_body::{Body as _, Frame, SizeHint};

use super::metrics::method_label;
use super::request_id::RequestId;
use crate::app::App;

/// The log's status of a request whose client left before the response began.
const STATUS_CLIENT_GONE: u16 = 499;

/// The client's end of the connection, among the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerAddress(pub(crate) SocketAddr);

/// Whether the client's connection is secured by this server, among the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IsSecure(pub(crate) bool);

/// What a git client says with `--server-option`, for the log's line about its request.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerOptions(Arc<OnceLock<String>>);

impl ServerOptions {
    /// Most characters of them in the log.
    const CHARS_MAX: usize = 1000;

    /// Notes them, once.
    pub(crate) fn set(&self, options: &[String]) {
        if !options.is_empty() {
            let _ = self.0.set(options.join(" ").chars().take(Self::CHARS_MAX).collect());
        }
    }
}

pub(super) struct Exchange {
    app: Arc<App>,
    began: Instant,
    id: RequestId,
    method: http::Method,
    path: String,
    route: Option<MatchedPath>,
    peer: Option<PeerAddress>,
    /// Of a fetch.
    server_options: Option<ServerOptions>,
    status: u16,
    body_bytes: u64,
    /// The response's body did not reach its end.
    cut_off: bool,
}

impl Exchange {
    pub(super) fn begin(app: Arc<App>, request: &Request, id: RequestId) -> Self {
        app.metrics.request_begins();
        Self {
            app,
            began: Instant::now(),
            id,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            route: request.extensions().get::<MatchedPath>().cloned(),
            peer: request.extensions().get::<PeerAddress>().copied(),
            server_options: request.uri().path().ends_with("/git-upload-pack").then(ServerOptions::default),
            status: STATUS_CLIENT_GONE,
            body_bytes: 0,
            cut_off: false,
        }
    }

    /// Where what a git client says beside its request is noted.
    pub(super) fn server_options(&self) -> Option<ServerOptions> {
        self.server_options.clone()
    }

    /// Takes the response's figures, and follows its body if that is a stream.
    pub(super) fn respond(mut self, response: axum::response::Response) -> axum::response::Response {
        self.status = response.status().as_u16();
        match response.body().size_hint().exact() {
            // The whole body is there already: wrapping it would cost an allocation and tell nothing.
            Some(bytes) => {
                self.body_bytes = bytes;
                response
            }
            None => {
                self.cut_off = true;
                response.map(|body| Body::new(Followed { body, exchange: Some(self) }))
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let method = method_label(&self.method);
        let route = route_label(self.route.as_ref().map(MatchedPath::as_str), &self.path);
        self.app.metrics.request_ends(method, route, self.status, took);
        tracing::info!(
            request_id = self.id.as_str(),
            http_method = self.method.as_str(),
            http_path = self.path.as_str(),
            http_status = self.status,
            http_latency_ms = (took.as_secs_f64() * 1e6).round() / 1e3,
            http_body_bytes = self.body_bytes,
            http_cut_off = self.cut_off.then_some(true),
            git_server_options = self.server_options.as_ref().and_then(|options| options.0.get()).map(String::as_str),
            remote_addr = self.peer.map(|peer| tracing::field::display(peer.0)),
            "HTTP request processed"
        );
    }
}

/// The route for metrics. What no route of its own matches is told apart by Git's fixed endings only:
/// anything else of the path was chosen by the client.
fn route_label<'a>(matched: Option<&'a str>, path: &str) -> &'a str {
    const GIT: [(&str, &str); 3] = [
        ("/info/refs", "/{repo}.git/info/refs"),
        ("/git-upload-pack", "/{repo}.git/git-upload-pack"),
        ("/git-receive-pack", "/{repo}.git/git-receive-pack"),
    ];
    match matched {
        Some(route) if !route.starts_with("/{*") => route,
        _ => GIT.iter().find(|(ending, _)| path.ends_with(ending)).map_or("unmatched", |(_, route)| route),
    }
}

/// A streamed body that reports its end.
struct Followed {
    body: Body,
    /// Dropped, and with it recorded, at the end of the body.
    exchange: Option<Exchange>,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        // After a panic the body is not polled again: the error below ends the response.
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(context)));
        let Ok(polled) = polled else {
            if let Some(exchange) = this.exchange.take() {
                exchange.app.metrics.handler_panicked();
            }
            this.body = Body::empty();
            return Poll::Ready(Some(Err(axum::Error::new("the response's body panicked"))));
        };
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                if let Some(exchange) = &mut this.exchange {
                    exchange.body_bytes = exchange.body_bytes.saturating_add(bytes as u64);
                    // Whoever polls stops here, so this is the end.
                    exchange.cut_off = !this.body.is_end_stream();
                }
            }
            Poll::Ready(Some(Err(_))) => drop(this.exchange.take()),
            Poll::Ready(None) => {
                if let Some(exchange) = &mut this.exchange {
                    exchange.cut_off = false;
                }
                drop(this.exchange.take());
            }
        }
        polled
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
    use super::*;

    #[test]
    fn labels_are_bounded() {
        assert_eq!(route_label(Some("/api/v1/repos/{id}"), "/api/v1/repos/x"), "/api/v1/repos/{id}");
        assert_eq!(route_label(Some("/{*path}"), "/a/b.git/info/refs"), "/{repo}.git/info/refs");
        assert_eq!(route_label(None, "/a/b/git-upload-pack"), "/{repo}.git/git-upload-pack");
        assert_eq!(route_label(None, "/whatever/a/client/sent"), "unmatched");
        assert_eq!(route_label(Some("/{*path}"), "/secret"), "unmatched");
    }
}
