//! Search over HTTP: a query in, files or commits with their lines out, a page at a time or as a stream.

pub(super) mod aggregate;
mod diffs;
pub(super) mod fulltext;
pub(super) mod history;
mod request;
mod shapes;
pub(super) mod sql;
mod stream;
pub(super) mod suggestions;

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{OriginalUri, State},
    http::{HeaderMap, Uri},
    response::Response,
};
use govc_engine::Repo;
use govc_search::query::SearchKind;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    answer,
    extract::{InRepo, Params, flag},
    page,
    problem::{Code, Problem},
};
use crate::app::App;
use diffs::DiffSearchResponse;
use request::{PageOptions, Request, Results};
use shapes::{CommitSearchResponse, ExplainInfo, RebuildInfo, SearchResponse, SearchStatisticsInfo, took_ms};
use stream::{Event, Format};

/// How many lines of a file are shown unless the request says otherwise, and at most.
const LINES_DEFAULT: usize = 10;
const LINES_MAX: usize = 1000;
/// How many neighbours a line may have on each side.
const CONTEXT_MAX: usize = 100;
/// How many files or commits a page has at most.
const LIMIT_MAX: usize = 500;

/// What to search for, and which part of the answer to give.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchParams {
    /// The query: words, "phrases", /regexes/, `AND OR NOT - ( )`, `repo:` `path:` `lang:` `sym:` `rev:` and more; see
    /// `search/QUERY.md`.
    #[param(example = "mutex lang:rust -path:tests/**")]
    q: String,
    /// How many files or commits; 50 if absent, at most 500. Of a stream, all if absent.
    limit: Option<usize>,
    /// Where the page begins: what the page before gave as `next_cursor`.
    cursor: Option<String>,
    /// How many lines to show of each file; 10 if absent, at most 1000.
    lines: Option<usize>,
    /// How many lines to show in front of and behind each; at most 100.
    #[serde(default)]
    context: usize,
    /// The version or time to search; the newest if absent.
    at: Option<String>,
    /// Whether to say how the answer was found.
    #[serde(default, deserialize_with = "flag")]
    explain: bool,
}

/// What a search answers with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SearchAnswer {
    Files(SearchResponse),
    /// With `type:commit`.
    Commits(CommitSearchResponse),
    /// With `type:diff`.
    Diffs(DiffSearchResponse),
}

/// Search all repositories
///
/// Files, or with `type:commit` and `type:diff` commits, of the default branches, or of the `rev:` and `branch:` that the query names.
/// With `Accept: application/x-ndjson` or `text/event-stream`, everything that is found as a stream: a result a line, `end`
/// or `error` as the last.
#[utoipa::path(
    get, path = "/api/v1/search", tag = "search", operation_id = "search", params(SearchParams),
    responses((status = 200, description = "What was found", content(
        (SearchAnswer = "application/json"),
        (Event = "application/x-ndjson"),
        (Event = "text/event-stream"),
    ))),
)]
pub(super) async fn everywhere(
    State(app): State<Arc<App>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Params(params): Params<SearchParams>,
) -> Result<Response, Problem> {
    respond(app, params, None, None, &uri, &headers).await
}

/// Search the contents of a repository's files
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/search/content", tag = "search", operation_id = "searchContent",
    params(("id" = String, Path, description = "The repository, percent-encoded"), SearchParams),
    responses((status = 200, description = "What was found", body = SearchResponse)),
)]
pub(super) async fn content(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Params(params): Params<SearchParams>,
) -> Result<Response, Problem> {
    respond(app, params, Some(SearchKind::File), Some(repo), &uri, &headers).await
}

/// Search the paths of a repository's files
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/search/files", tag = "search", operation_id = "searchFiles",
    params(("id" = String, Path, description = "The repository, percent-encoded"), SearchParams),
    responses((status = 200, description = "What was found", body = SearchResponse)),
)]
pub(super) async fn files(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Params(params): Params<SearchParams>,
) -> Result<Response, Problem> {
    respond(app, params, Some(SearchKind::Path), Some(repo), &uri, &headers).await
}

/// Search a repository's commits
///
/// By message, and with `author:`, `before:` and `after:`; newest first. With `type:diff` in the query, by the lines that
/// they added or removed.
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/search/commits", tag = "search", operation_id = "searchCommits",
    params(("id" = String, Path, description = "The repository, percent-encoded"), SearchParams),
    responses((status = 200, description = "What was found: commits, or with type:diff their changes", body = SearchAnswer)),
)]
pub(super) async fn commits(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    Params(params): Params<SearchParams>,
) -> Result<Response, Problem> {
    respond(app, params, Some(SearchKind::Commit), Some(repo), &uri, &headers).await
}

/// Figures of the search index
#[utoipa::path(
    get, path = "/api/v1/search/statistics", tag = "search", operation_id = "searchStatistics",
    responses((status = 200, description = "The figures", body = SearchStatisticsInfo)),
)]
pub(super) async fn statistics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let worker = Arc::clone(&app);
    let status = app.work.run(move || worker.search.status()).await?;
    Ok(answer::ok(&SearchStatisticsInfo::new(status, app.search.is_indexing(), app.store.feed_last().0)))
}

/// Make the search index anew
///
/// Searches go on with the one that there is until the new one takes its place.
#[utoipa::path(
    post, path = "/api/v1/search/rebuild", tag = "search", operation_id = "rebuildSearch",
    responses((status = 202, description = "It will be made", body = RebuildInfo)),
)]
pub(super) async fn rebuild(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    if !app.search.is_indexing() {
        return Err(Problem::new(Code::Conflict, "there is no search index: search.enabled is false"));
    }
    let state = if app.search.rebuild() { "started" } else { "running" };
    Ok(answer::accepted(&RebuildInfo { state }))
}

/// Answers a search of one repository or all, on a thread that may block: already reading a hostile query takes its time.
async fn respond(
    app: Arc<App>,
    params: SearchParams,
    kind: Option<SearchKind>,
    repo: Option<Repo>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    if params.context > CONTEXT_MAX {
        return Err(Problem::invalid(format!("context is at most {CONTEXT_MAX}")));
    }
    let format = Format::of(headers);
    let limit = page::limit(params.limit)?.min(LIMIT_MAX);
    let options = PageOptions {
        counts_candidates: params.explain,
        results_max: if format.is_some() { params.limit.unwrap_or(usize::MAX) } else { limit },
        lines_max: params.lines.unwrap_or(LINES_DEFAULT).min(LINES_MAX),
        context_lines: params.context,
    };
    let begun = Instant::now();
    let read = move || Request::new(&params.q, params.cursor.as_deref(), params.at.as_deref(), kind);
    if let Some(format) = format {
        let request = app.work.run_in_turn(read).await??;
        return stream::respond(app, repo, request, format, options).await;
    }
    let worker = Arc::clone(&app);
    let work = move || {
        let request = read()?;
        let scope = request.scope(&worker, repo, Some(worker.work.deadline()))?;
        let page = request.page(&worker, &scope, options)?;
        let next_cursor = page.next_cursor.clone();
        let (as_of, next) = (scope.as_of, page.next_cursor);
        let found = match page.results {
            Results::Files(found) => {
                let explain = params.explain.then(|| ExplainInfo::new(&request.query, &found.explain));
                SearchAnswer::Files(SearchResponse::new(*found, as_of, took_ms(begun), next, explain))
            }
            Results::Commits(found) => {
                SearchAnswer::Commits(CommitSearchResponse::new(found, as_of, took_ms(begun), next))
            }
            Results::Diffs(found) => SearchAnswer::Diffs(DiffSearchResponse::new(*found, as_of, took_ms(begun), next)),
        };
        Ok((answer::ok(&found), next_cursor))
    };
    let searched: Result<_, Problem> = app.work.run_in_turn(work).await?;
    let (response, next) = searched?;
    Ok(page::with_next(response, uri, next.as_deref()))
}
