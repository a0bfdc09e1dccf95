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
use crate::compaction::{Ended, Failed, Running, Status};

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
}

/// All compactions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CompactionOverview {
    /// `idle` or `running`.
    #[schema(example = "idle")]
    state: &'static str,
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
    /// Those that failed.
    failed: u64,
    /// Those that were cancelled.
    cancelled: u64,
    /// Bytes of the blocks that were replaced.
    bytes_in: u64,
    /// Bytes of those in their place.
    bytes_out: u64,
    /// Time that they took.
    seconds: f64,
}

const QUEUE_SHOWN_MAX: usize = 1000;

/// Compact a repository
///
/// What the repository brought is stored anew, each object as a delta against the base that makes it small; what it was
/// forked from is not. Reads, commits and pushes go on meanwhile. One that is waiting or under way already is what is
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
    app.compactions
        .enqueue(&repo, request.archive)
        .map_err(|_| Problem::new(Code::Busy, "too many repositories wait to be compacted"))?;
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
    if app.compactions.cancel(repo.id()) {
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
    let overview = app.compactions.overview();
    let totals = overview.totals;
    answer::ok(&CompactionOverview {
        state: if overview.running.is_some() { "running" } else { "idle" },
        running: overview.running.as_deref().map(RunningInfo::of),
        queue: overview.queue.iter().take(QUEUE_SHOWN_MAX).map(|repo| repo.name().to_string()).collect(),
        queue_total: overview.queue.len(),
        totals: TotalsInfo {
            done: totals.done,
            failed: totals.failed,
            cancelled: totals.cancelled,
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            seconds: totals.seconds,
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
                };
                ("done", None, Some(gain))
            }
            Err(Failed::Cancelled) => ("cancelled", None, None),
            Err(Failed::Error(error)) => ("failed", Some(error.clone()), None),
        };
        Self { outcome, error, ended_at: Moment::text_of_millis(ended.ended_millis), seconds: ended.seconds, gain }
    }
}
