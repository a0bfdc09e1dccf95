//! What operators and their tools ask: is it alive, is it ready, how is it, what does it count, which
//! version is it. Nothing here reads or changes a repository.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use govc_engine::Health;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Code, Problem};
use crate::app::App;
use crate::cli::VERSION;
use crate::telemetry::metrics::CONTENT_TYPE as METRICS_TYPE;

/// The routes of this file. Metrics are there only if the configuration wants them, at its path.
pub(crate) fn routes(app: &App) -> OpenApiRouter<Arc<App>> {
    let router = OpenApiRouter::default()
        .routes(routes!(health))
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(version));
    if app.config.metrics.enabled {
        router.route(&app.config.metrics.path, axum::routing::get(metrics))
    } else {
        router
    }
}

/// How the server is.
#[derive(Debug, Serialize, ToSchema)]
struct HealthReport {
    /// `healthy`; `degraded` when reads work and writes do not; `draining` while the server stops.
    #[schema(example = "healthy")]
    status: String,
    /// The program's version.
    #[schema(example = "0.1.0")]
    version: String,
    /// Seconds since the start.
    uptime_seconds: u64,
    /// What keeps the data: `rocksdb`, `sqlite`, `postgres` or `memory`.
    #[schema(example = "rocksdb")]
    backend: String,
    /// Repositories in the catalog.
    repositories: u64,
    /// How the store is.
    store: StoreReport,
}

/// How the store is.
#[derive(Debug, Serialize, ToSchema)]
struct StoreReport {
    /// `ok`; `full`: the disk is, reads work; `unavailable`: the database cannot be reached, what is in memory can be read;
    /// `poisoned`: a write failed in a way that leaves unknown what
    /// is on disk, reads work until the server is started again; `closed`.
    #[schema(example = "ok")]
    status: String,
    /// Why, unless it is ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A probe's answer.
#[derive(Debug, Serialize, ToSchema)]
struct ProbeReport {
    /// `alive` or `ready`.
    status: String,
}

/// Which program answers.
#[derive(Debug, Serialize, ToSchema)]
struct VersionReport {
    /// Always `govc`.
    name: String,
    /// The program's version.
    #[schema(example = "0.1.0")]
    version: String,
}

/// How the server is
#[utoipa::path(get, path = "/health", tag = "system",
    responses((status = 200, description = "How the server is, whether well or not", body = HealthReport)))]
async fn health(State(app): State<Arc<App>>) -> Response {
    let health = app.store.health();
    let status = match health {
        _ if app.is_draining() => "draining",
        Health::Ok => "healthy",
        _ => "degraded",
    };
    let report = HealthReport {
        status: status.to_owned(),
        version: VERSION.to_owned(),
        uptime_seconds: app.started.elapsed().as_secs(),
        backend: app.config.storage.backend.kind().to_owned(),
        repositories: app.store.repo_count() as u64,
        store: StoreReport::of(health),
    };
    fresh(Json(report))
}

/// Whether the process answers at all
#[utoipa::path(get, path = "/health/live", tag = "system",
    responses((status = 200, description = "The process answers", body = ProbeReport)))]
async fn live() -> Response {
    fresh(Json(ProbeReport { status: "alive".to_owned() }))
}

/// Whether the server takes requests
///
/// A full disk leaves it ready: reads go on, and writes say what is wrong.
#[utoipa::path(get, path = "/health/ready", tag = "system",
    responses(
        (status = 200, description = "The server takes requests", body = ProbeReport),
        (status = 503, description = "The server is stopping, or its store takes no writes any more")))]
async fn ready(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    if app.is_draining() {
        return Err(Problem::new(Code::Busy, "the server is stopping"));
    }
    match app.store.health() {
        Health::Poisoned(reason) => Err(Problem::new(Code::StoreClosed, format!("the store is read-only: {reason}"))),
        Health::Closed => Err(Problem::new(Code::StoreClosed, "the store is closed")),
        _ => Ok(fresh(Json(ProbeReport { status: "ready".to_owned() }))),
    }
}

/// Which version answers
#[utoipa::path(get, path = "/version", tag = "system",
    responses((status = 200, description = "The program and its version", body = VersionReport)))]
async fn version() -> Json<VersionReport> {
    Json(VersionReport { name: "govc".to_owned(), version: VERSION.to_owned() })
}

/// Metrics in the OpenMetrics text format. Not in the API's document: its path is a setting.
async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let text =
        app.metrics.encode(&app).map_err(|_| Problem::new(Code::Internal, "the metrics could not be written"))?;
    Ok(([(CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}

/// An answer that holds for this moment only.
fn fresh(answer: impl IntoResponse) -> Response {
    ([(CACHE_CONTROL, "no-store")], answer).into_response()
}

impl StoreReport {
    fn of(health: Health) -> Self {
        let (status, reason) = match health {
            Health::Ok => ("ok", None),
            Health::Full(reason) => ("full", Some(reason)),
            Health::Unavailable(reason) => ("unavailable", Some(reason)),
            Health::Poisoned(reason) => ("poisoned", Some(reason)),
            Health::Closed => ("closed", None),
        };
        Self { status: status.to_owned(), reason }
    }
}
