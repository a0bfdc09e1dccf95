//! What the server tells about itself: the log, the metrics, and the layers that every request passes.
//!
//! From the outside in, a request gets its id, is timed, counted and logged ([`exchange`]), is answered
//! with a problem document if its handler panics, and has its body limited for extractors that buffer it.

mod exchange;
pub(crate) mod log;
pub(crate) mod metrics;
mod packs;
mod process;
mod request_id;
mod sink;
mod ssh;
mod storage;
mod tls;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

pub(crate) use exchange::{IsSecure, PeerAddress, ServerOptions};
pub use metrics::Metrics;
pub(crate) use packs::PackSource;
pub(crate) use request_id::RequestId;
pub(crate) use ssh::{CallResult, LoginResult, OTHER_SERVICE, SshExchange, SshFigures};
pub(crate) use tls::{HandshakeResult, TlsFigures};

use crate::app::App;
use crate::http::problem::{Code, Problem};
use exchange::Exchange;

/// Puts the layers around all routes. They run after routing, so that they know the matched route.
pub(crate) fn layered(router: Router, app: Arc<App>) -> Router {
    let body_bytes_max = usize::try_from(app.config.server.body_bytes_max).unwrap_or(usize::MAX);
    router.layer(DefaultBodyLimit::max(body_bytes_max)).layer(middleware::from_fn_with_state(app, observed))
}

async fn observed(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let exchange = Exchange::begin(Arc::clone(&app), &request, id.clone());
    let id_value = id.header_value();
    request.extensions_mut().insert(id);
    if let Some(options) = exchange.server_options() {
        request.extensions_mut().insert(options);
    }

    // A handler owns what it works on, and what it shares (the store) keeps itself consistent.
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_panic| {
        app.metrics.handler_panicked();
        Problem::new(Code::Internal, "the request failed inside the server").into_response()
    });
    if let Some(value) = id_value {
        response.headers_mut().insert(request_id::HEADER, value);
    }
    exchange.respond(response)
}
