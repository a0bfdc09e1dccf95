//! Search over HTTP: a query in, files or commits with their lines out, a page at a time.
//!
//! A page is of one moment: its cursor carries the versions that the first page saw, so that what is published between
//! two pages moves nothing.

mod shapes;
pub(super) mod sql;

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{OriginalUri, State},
    response::Response,
};
use govc_engine::{At, Repo};
use govc_search::{
    CommitCursor, CommitOptions, Corpus, Cursor, FindOptions, PLACES_MAX, Place, find, find_commits, places,
    query::{Query, SearchKind, parse},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    answer,
    extract::{InRepo, Params, flag},
    page,
    problem::{Code, Problem, Thing, about},
    time::Moment,
    versions,
};
use crate::app::App;
use shapes::{AsOfInfo, CommitSearchResponse, ExplainInfo, RebuildInfo, SearchResponse, SearchStatisticsInfo};

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
    /// How many files or commits; 50 if absent, at most 500.
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

/// Search all repositories
///
/// Files, or with `type:commit` commits, of the default branches, or of the `rev:` and `branch:` that the query names.
#[utoipa::path(
    get, path = "/api/v1/search", tag = "search", operation_id = "search", params(SearchParams),
    responses((status = 200, description = "What was found; with type:commit, a CommitSearchResponse", body = SearchResponse)),
)]
pub(super) async fn everywhere(
    State(app): State<Arc<App>>,
    OriginalUri(uri): OriginalUri,
    Params(params): Params<SearchParams>,
) -> Result<Response, Problem> {
    respond(app, params, None, None, &uri).await
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
    Params(params): Params<SearchParams>,
) -> Result<Response, Problem> {
    respond(app, params, Some(SearchKind::File), Some(repo), &uri).await
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
    Params(params): Params<SearchParams>,
) -> Result<Response, Problem> {
    respond(app, params, Some(SearchKind::Path), Some(repo), &uri).await
}

/// Search a repository's commits
///
/// By message, and with `author:`, `before:` and `after:`; newest first.
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/search/commits", tag = "search", operation_id = "searchCommits",
    params(("id" = String, Path, description = "The repository, percent-encoded"), SearchParams),
    responses((status = 200, description = "What was found", body = CommitSearchResponse)),
)]
pub(super) async fn commits(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    OriginalUri(uri): OriginalUri,
    Params(params): Params<SearchParams>,
) -> Result<Response, Problem> {
    respond(app, params, Some(SearchKind::Commit), Some(repo), &uri).await
}

/// Figures of the search index
#[utoipa::path(
    get, path = "/api/v1/search/statistics", tag = "search", operation_id = "searchStatistics",
    responses((status = 200, description = "The figures", body = SearchStatisticsInfo)),
)]
pub(super) async fn statistics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let worker = Arc::clone(&app);
    let status = app.work.run(move || worker.search.status()).await?;
    Ok(answer::ok(&SearchStatisticsInfo::new(status, app.store.feed_last().0)))
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

/// A search that was asked for.
struct Request {
    params: SearchParams,
    query: Query,
    /// What the pages before saw.
    seen: Option<Seen>,
    /// What relative dates count from.
    now_seconds: i64,
}

/// Answers a search of one repository or all, on a thread that may block: already reading a hostile query takes its time.
async fn respond(
    app: Arc<App>,
    params: SearchParams,
    kind: Option<SearchKind>,
    repo: Option<Repo>,
    uri: &axum::http::Uri,
) -> Result<Response, Problem> {
    let worker = Arc::clone(&app);
    let searched = app.work.run(move || Request::new(params, kind)?.run(&worker, repo)).await?;
    let (response, next) = searched?;
    Ok(page::with_next(response, uri, next.as_deref()))
}

/// What a cursor carries beside the search's own: the moment that is searched.
struct Seen {
    at: At,
    now_seconds: i64,
    cursor: String,
}

impl Request {
    /// Reads the query; a route may be about one kind of things alone.
    fn new(params: SearchParams, kind: Option<SearchKind>) -> Result<Self, Problem> {
        if params.context > CONTEXT_MAX {
            return Err(Problem::invalid(format!("context is at most {CONTEXT_MAX}")));
        }
        let seen = params.cursor.as_deref().map(Seen::decode).transpose()?;
        // What is said relative to now means the same on all pages.
        let now_seconds = seen.as_ref().map_or_else(|| Moment::now().seconds, |seen| seen.now_seconds);
        let mut query = parse(&params.q, now_seconds)
            .map_err(|error| Problem::invalid(format!("the query is not valid: {error}")))?;
        let is_default = query.options.kind == SearchKind::File;
        match kind {
            Some(kind) if is_default || query.options.kind == kind => query.options.kind = kind,
            Some(SearchKind::File) | None => {}
            Some(_) => {
                return Err(Problem::invalid(
                    "the query has a type that this route does not search; use /api/v1/search",
                ));
            }
        }
        if query.options.kind == SearchKind::Diff {
            return Err(Problem::invalid("type:diff cannot be searched yet"));
        }
        Ok(Self { params, query, seen, now_seconds })
    }

    /// Searches, on a thread that may block; the answer and where the next page begins.
    fn run(self, app: &App, repo: Option<Repo>) -> Result<(Response, Option<String>), Problem> {
        let is_one = repo.is_some();
        let repos = repo.map_or_else(|| app.store.list(None, usize::MAX), |repo| vec![repo]);
        let begun = Instant::now();
        let deadline = Some(app.work.deadline());
        // What is published from here on is not in the answer, nor on its further pages.
        let now = Moment::now_millis();
        let at = match (&self.seen, &self.params.at) {
            (Some(seen), _) => Some(seen.at),
            (None, Some(at)) => Some(versions::parse(at)?),
            (None, None) => None,
        };
        let (mut searched, mut is_unreadable) = (Vec::new(), false);
        for repo in &repos {
            let snapshot = match at {
                None if is_one => Ok(repo.snapshot()),
                None => Ok(repo.snapshot()).and_then(|snapshot| match snapshot.version().time_millis > now {
                    true => repo.at(At::Time(now), deadline),
                    false => Ok(snapshot),
                }),
                Some(at) => repo.at(at, deadline),
            };
            let found = snapshot.map_err(about(Thing::Version)).and_then(|snapshot| {
                let found = places(repo, &snapshot, &self.query.options, is_one, deadline);
                found.map_err(about(Thing::Rev))
            });
            match found {
                Ok(found) => searched.extend(found),
                // Among many, one may be younger than the moment, or damaged.
                Err(problem) if !is_one && problem.code() == Code::VersionNotFound => {}
                Err(problem) if !is_one && problem.code() == Code::Corrupt => is_unreadable = true,
                Err(problem) => return Err(problem),
            }
            if searched.len() > PLACES_MAX {
                let detail = format!("the query names more than {PLACES_MAX} branches (rev:, branch:)");
                return Err(Problem::new(Code::LimitExceeded, detail));
            }
        }
        // Of one repository the version says it best; of many, the time.
        let at = at.unwrap_or_else(|| match searched.first() {
            Some(place) if is_one => At::Version(place.snapshot.version().number),
            _ => At::Time(now),
        });
        let as_of = AsOfInfo::new(now, &searched, is_unreadable);
        if self.query.options.kind == SearchKind::Commit {
            return self.commits(&searched, at, as_of, begun, deadline);
        }
        self.files(&app.search.corpus(), &searched, at, as_of, begun, deadline)
    }

    fn limit(&self) -> Result<usize, Problem> {
        Ok(page::limit(self.params.limit)?.min(LIMIT_MAX))
    }

    fn files(
        &self,
        corpus: &Corpus,
        places: &[Place],
        at: At,
        as_of: AsOfInfo,
        begun: Instant,
        deadline: Option<Instant>,
    ) -> Result<(Response, Option<String>), Problem> {
        let options = FindOptions {
            files_max: self.limit()?,
            lines_max: self.params.lines.unwrap_or(LINES_DEFAULT).min(LINES_MAX),
            context_lines: self.params.context,
            cursor: self.seen.as_ref().map(|seen| Cursor::decode(&seen.cursor)).transpose()?,
            deadline,
        };
        let found = find(corpus, &self.query, places, &options)?;
        let next_cursor =
            found.next.as_ref().map(|next| Seen { at, now_seconds: self.now_seconds, cursor: next.encode() }.encode());
        let explain = self.params.explain.then(|| ExplainInfo::new(&self.query, &found.explain));
        let response = SearchResponse::new(found, as_of, took_ms(begun), next_cursor.clone(), explain);
        Ok((answer::ok(&response), next_cursor))
    }

    fn commits(
        &self,
        places: &[Place],
        at: At,
        as_of: AsOfInfo,
        begun: Instant,
        deadline: Option<Instant>,
    ) -> Result<(Response, Option<String>), Problem> {
        let cursor = self.seen.as_ref().map(|seen| CommitCursor::decode(&seen.cursor)).transpose()?;
        let found = find_commits(&self.query, places, &CommitOptions { commits_max: self.limit()?, cursor, deadline })?;
        let next_cursor =
            found.next.as_ref().map(|next| Seen { at, now_seconds: self.now_seconds, cursor: next.encode() }.encode());
        let response = CommitSearchResponse::new(found, as_of, took_ms(begun), next_cursor.clone());
        Ok((answer::ok(&response), next_cursor))
    }
}

fn took_ms(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

impl Seen {
    fn encode(&self) -> String {
        let (kind, number) = match self.at {
            At::Version(number) => ('v', i128::from(number)),
            At::Time(millis) => ('t', i128::from(millis)),
        };
        format!("{kind}{number}.{}.{}", self.now_seconds, self.cursor)
    }

    fn decode(text: &str) -> Result<Self, Problem> {
        let (at, rest) = text.split_once('.').ok_or_else(page::malformed)?;
        let (now_seconds, cursor) = rest.split_once('.').ok_or_else(page::malformed)?;
        let at = match (at.strip_prefix('v'), at.strip_prefix('t')) {
            (Some(number), _) => number.parse().ok().map(At::Version),
            (_, Some(millis)) => millis.parse().ok().map(At::Time),
            _ => None,
        };
        let now_seconds = now_seconds.parse().map_err(|_| page::malformed())?;
        Ok(Self { at: at.ok_or_else(page::malformed)?, now_seconds, cursor: cursor.to_owned() })
    }
}
