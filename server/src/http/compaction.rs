//! Compaction over HTTP: asking for it, how far it is, ending it.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header::LOCATION};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    answer,
    extract::{InRepo, JsonBody},
    problem::{Code, Problem},
    time::Moment,
};
use crate::app::App;
use crate::compaction::{Ended, Failed, Refused, Running, Status};

/// How a repository is to be compacted.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CompactRequest {
    /// As small as it gets, for repositories that nobody writes to any more; takes several times as long.
    archive: bool,
}

/// Compaction of a repository.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CompactionInfo {
    /// `idle`, `queued` or `running`.
    #[schema(example = "running")]
    state: &'static str,
    /// Place in the queue, from 1, if it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
    /// The one under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<RunningInfo>,
    /// The last one that has ended since the server was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<EndedInfo>,
}

/// A compaction under way.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunningInfo {
    /// The repository's id.
    #[schema(example = "ada/site")]
    repo: String,
    /// Whether it archives.
    archive: bool,
    /// Whether nobody asked for it: the repository had grown.
    automatic: bool,
    /// When it began.
    started_at: String,
    /// What is being done: `looking`, `history`, `compacting`, `verifying` or `installing`.
    #[schema(example = "compacting")]
    phase: String,
    /// Bytes of objects that this phase has done.
    done_bytes: u64,
    /// How many it will be, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_bytes: Option<u64>,
}

/// A compaction that has ended.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EndedInfo {
    /// `done`; `cancelled`, and then the repository is stored as before; or `failed`, and then some of it may be stored anew
    /// already. Nothing is lost in any case.
    #[schema(example = "done")]
    outcome: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// When it ended.
    ended_at: String,
    /// How long it took.
    seconds: f64,
    /// Processor time that it took.
    cpu_seconds: f64,
    /// What it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    gain: Option<GainInfo>,
}

/// What a compaction did.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GainInfo {
    /// Objects that were stored anew.
    objects: u64,
    /// Their bytes.
    object_bytes: u64,
    /// Bytes of their blocks before.
    stored_bytes_before: u64,
    /// Bytes of their blocks now.
    stored_bytes_after: u64,
    /// Objects that were removed, because nothing led to them any more.
    removed_objects: u64,
    /// Their bytes.
    removed_bytes: u64,
}

/// All compactions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CompactionOverview {
    /// `idle`, `queued` or `running`.
    #[schema(example = "idle")]
    state: &'static str,
    /// Whether none begins, and the one under way rests.
    paused: bool,
    /// Whether repositories that have grown are compacted without being asked for.
    automatic: bool,
    /// The one under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<RunningInfo>,
    /// Repositories that wait, the next first; at most a thousand of them.
    queue: Vec<String>,
    /// How many wait.
    queue_total: usize,
    /// Since the server was started.
    totals: TotalsInfo,
}

/// What all compactions have done since the server was started.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TotalsInfo {
    /// Those that were installed.
    done: u64,
    /// Of these, those that nobody asked for.
    automatic: u64,
    /// Those that failed.
    failed: u64,
    /// Those that were cancelled.
    cancelled: u64,
    /// Bytes of the blocks that were replaced.
    bytes_in: u64,
    /// Bytes of those in their place.
    bytes_out: u64,
    /// Objects that were removed.
    removed_objects: u64,
    /// Time that they took.
    seconds: f64,
    /// Processor time that they took.
    cpu_seconds: f64,
    /// Time that they rested for their budgets' sake.
    rested_seconds: f64,
}

/// How compactions go on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PauseRequest {
    /// Whether none begins, and the one under way rests, until this is taken back or the server is started anew.
    paused: bool,
}

const QUEUE_SHOWN_MAX: usize = 1000;

/// Compact a repository
///
/// What the repository brought is stored anew, each object as a delta against the base that makes it small; what it was
/// forked from is not. What nothing leads to any more is removed: no reference, no version that is retained, no reality; of a
/// repository with forks everything stays. Reads, commits and pushes go on meanwhile. One that is waiting or under way already is what is
/// answered with.
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/compact", tag = "compaction", operation_id = "compact_repo",
    params(("id" = String, Path, description = "The repository, percent-encoded")),
    request_body = CompactRequest,
    responses((status = 202, description = "It waits or is under way; `Location` tells how far it is", body = CompactionInfo)),
)]
pub(super) async fn begin(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    JsonBody(request, _held): JsonBody<CompactRequest>,
) -> Result<Response, Problem> {
    if repo.settings().durability == govc_engine::Durability::Memory {
        return Err(Problem::invalid("a repository that is only in memory cannot be compacted"));
    }
    let (asked, of) = (app.clone(), repo.clone());
    let enqueued = app.work.run(move || asked.compactions.enqueue(&of, request.archive)).await?;
    enqueued.map_err(|refused| match refused {
        Refused::QueueFull => Problem::new(Code::Busy, "too many repositories wait to be compacted"),
        Refused::Stopping => Problem::new(Code::Busy, "the server is stopping"),
        Refused::Store(error) => error.into(),
    })?;
    let location = answer::location(repo.name().as_str(), "/compaction");
    let mut response = answer::ok(&CompactionInfo::of(&app.compactions.status(repo.id())));
    *response.status_mut() = StatusCode::ACCEPTED;
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// How far a repository's compaction is
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/compaction", tag = "compaction", operation_id = "get_compaction",
    params(("id" = String, Path, description = "The repository, percent-encoded")),
    responses((status = 200, description = "Whether one waits or is under way, and how the last one ended", body = CompactionInfo)),
)]
pub(super) async fn show(State(app): State<Arc<App>>, InRepo(repo): InRepo) -> Response {
    answer::ok(&CompactionInfo::of(&app.compactions.status(repo.id())))
}

/// Cancel a repository's compaction
///
/// One that waits is dropped; one that is under way ends soon, and leaves everything as it was. If it is being installed
/// already it comes to its end.
#[utoipa::path(
    delete, path = "/api/v1/repos/{id}/compaction", tag = "compaction", operation_id = "cancel_compaction",
    params(("id" = String, Path, description = "The repository, percent-encoded")),
    responses((status = 204, description = "There was one, and it ends"),
              (status = 404, description = "None waits or is under way")),
)]
pub(super) async fn cancel(State(app): State<Arc<App>>, InRepo(repo): InRepo) -> Result<Response, Problem> {
    let (asked, id) = (app.clone(), repo.id());
    if app.work.run(move || asked.compactions.cancel(id)).await? {
        Ok(answer::no_content().into_response())
    } else {
        Err(Problem::new(Code::NotFound, "the repository is not being compacted"))
    }
}

/// All compactions
#[utoipa::path(
    get, path = "/api/v1/compaction", tag = "compaction", operation_id = "compaction_overview",
    responses((status = 200, description = "What is under way, what waits, what was done", body = CompactionOverview)),
)]
pub(super) async fn overview(State(app): State<Arc<App>>) -> Response {
    overview_of(&app)
}

/// Pause compactions
///
/// None begins, and the one under way rests where it is, until this is taken back or the server is started anew.
#[utoipa::path(
    put, path = "/api/v1/compaction", tag = "compaction", operation_id = "pause_compactions",
    request_body = PauseRequest,
    responses((status = 200, description = "What is under way, what waits, what was done", body = CompactionOverview)),
)]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    JsonBody(request, _held): JsonBody<PauseRequest>,
) -> Result<Response, Problem> {
    app.compactions.pause(request.paused);
    Ok(overview_of(&app))
}

fn overview_of(app: &App) -> Response {
    let overview = app.compactions.overview();
    let totals = overview.totals;
    let state = match (&overview.running, overview.queue.is_empty()) {
        (Some(_), _) => "running",
        (None, false) => "queued",
        (None, true) => "idle",
    };
    answer::ok(&CompactionOverview {
        state,
        paused: overview.is_paused,
        automatic: overview.is_automatic,
        running: overview.running.as_deref().map(RunningInfo::of),
        queue: overview.queue.iter().take(QUEUE_SHOWN_MAX).map(|repo| repo.name().to_string()).collect(),
        queue_total: overview.queue.len(),
        totals: TotalsInfo {
            done: totals.done,
            automatic: totals.automatic,
            failed: totals.failed,
            cancelled: totals.cancelled,
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            removed_objects: totals.removed_objects,
            seconds: totals.seconds,
            cpu_seconds: totals.cpu_seconds,
            rested_seconds: totals.rested_seconds,
        },
    })
}

impl CompactionInfo {
    fn of(status: &Status) -> Self {
        let state = match status {
            Status { running: Some(_), .. } => "running",
            Status { queued: Some(_), .. } => "queued",
            _ => "idle",
        };
        Self {
            state,
            position: status.queued,
            running: status.running.as_deref().map(RunningInfo::of),
            last: status.last.as_ref().map(EndedInfo::of),
        }
    }
}

impl RunningInfo {
    fn of(running: &Running) -> Self {
        let stretch = running.stretch();
        Self {
            repo: running.name(),
            archive: running.archive,
            automatic: running.is_automatic,
            started_at: Moment::text_of_millis(running.started_millis),
            phase: stretch.phase,
            done_bytes: stretch.done_bytes,
            total_bytes: stretch.total_bytes,
        }
    }
}

impl EndedInfo {
    fn of(ended: &Ended) -> Self {
        let (outcome, error, gain) = match &ended.result {
            Ok(done) => {
                let gain = GainInfo {
                    objects: done.objects,
                    object_bytes: done.object_bytes,
                    stored_bytes_before: done.stored_bytes_before,
                    stored_bytes_after: done.stored_bytes_after,
                    removed_objects: done.removed,
                    removed_bytes: done.removed_bytes,
                };
                ("done", None, Some(gain))
            }
            Err(Failed::Cancelled) => ("cancelled", None, None),
            Err(Failed::Error(error)) => ("failed", Some(error.clone()), None),
        };
        let ended_at = Moment::text_of_millis(ended.ended_millis);
        Self { outcome, error, ended_at, seconds: ended.seconds, cpu_seconds: ended.cpu_seconds, gain }
    }
}
