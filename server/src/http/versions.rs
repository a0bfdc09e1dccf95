//! Versions: every publication makes one, and what it left behind can be read until its retention is over.
//!
//! Reads take `at`, a version's number or a time. Under `/time-travel/{timestamp}` stand the same reads as of that
//! time: [`rewrite`] makes one of the other before routing.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Query, Request, State},
    http::{Method, Uri, request::Parts},
    response::Response,
};
use govc_engine::{At, Publication, RefChange, Repo, Snapshot};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    ACTOR, answer,
    extract::{InRepo, Params, RestText},
    page,
    problem::{Code, Problem, Thing, about},
    push_cert::CertificateInfo,
    repos::PageParams,
    time::{self, Moment},
};
use crate::app::App;

/// How many changed references of a version are listed.
const CHANGES_MAX: usize = 1000;

/// The version of the repository that the request reads: the newest, or the one that `at` in the query names.
pub(crate) struct View(pub(crate) Snapshot);

/// Which version.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AtParams {
    /// The version to read, by its number or as a time (`2024-01-15T03:42:00Z`, `@1705290120`); the newest if absent.
    at: Option<String>,
}

impl FromRequestParts<Arc<App>> for View {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let InRepo(repo) = InRepo::from_request_parts(parts, app).await?;
        // Nearly all requests read the newest version, and most have no query at all.
        if !parts.uri.query().is_some_and(|query| query.contains("at=")) {
            return Ok(Self(repo.snapshot()));
        }
        let params = Query::<AtParams>::try_from_uri(&parts.uri);
        let params =
            params.map_err(|error| Problem::invalid(format!("the query is not valid: {}", error.body_text())))?;
        snapshot(app, &repo, params.at.as_deref()).await.map(Self)
    }
}

/// The version that `at` names, or the newest.
pub(super) async fn snapshot(app: &App, repo: &Repo, at: Option<&str>) -> Result<Snapshot, Problem> {
    match at {
        None => Ok(repo.snapshot()),
        Some(at) => snapshot_at(app, repo.clone(), parse(at)?).await,
    }
}

/// An old version may have to be made again from thousands of rows.
async fn snapshot_at(app: &App, repo: Repo, at: At) -> Result<Snapshot, Problem> {
    let deadline = app.work.deadline();
    app.work.run(move || repo.at(at, Some(deadline))).await?.map_err(about(Thing::Version))
}

/// Reads `17`, a version, or a time as [`time::millis`] has it, such as `2024-01-15T03:42:00Z` or `@1705290120`.
pub(super) fn parse(at: &str) -> Result<At, Problem> {
    match at.strip_prefix('@') {
        Some(seconds) => time::millis(seconds).map(At::Time),
        None if !at.is_empty() && at.bytes().all(|byte| byte.is_ascii_digit()) => {
            at.parse().map(At::Version).map_err(|_| Problem::invalid(format!("{at} is not the number of a version")))
        }
        None => time::millis(at).map(At::Time),
    }
}

/// What made a version.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionInfo {
    /// Counts from 1, the creation of the repository.
    version: u64,
    /// When it was published, in RFC 3339 with milliseconds.
    #[schema(example = "2024-01-15T03:42:00.250+00:00")]
    time: String,
    /// Who published it.
    actor: String,
    /// `create`, `push`, `commit`, `merge`, `api`, `import`, `restore` or `reality`.
    #[schema(value_type = String, example = "push")]
    cause: &'static str,
    /// The references that changed, at most 1000.
    changes: Vec<ChangeInfo>,
    /// How many changed.
    changes_total: usize,
    /// The default branch, if it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    default_branch: Option<String>,
    /// What was signed, if it was a signed push; its text is at `/push-cert` below the version.
    #[serde(skip_serializing_if = "Option::is_none")]
    push_cert: Option<CertificateInfo>,
}

/// A changed reference.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChangeInfo {
    #[serde(rename = "ref")]
    #[schema(example = "refs/heads/main")]
    name: String,
    /// The id that it had; null if it was made.
    before: Option<String>,
    /// The id that it got; null if it was deleted.
    after: Option<String>,
}

/// Versions, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionPage {
    versions: Vec<VersionInfo>,
    /// How many the page has.
    count: usize,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
}

/// What became of a restoration.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Restored {
    /// The new version.
    version: u64,
    /// The version that it repeats.
    restored: u64,
}

/// List versions, newest first
///
/// Versions whose retention is over are not listed.
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/versions", tag = "versions", operation_id = "list_versions",
    params(("id" = String, Path, description = "The repository, percent-encoded"), PageParams),
    responses((status = 200, description = "A page of versions", body = VersionPage)),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    Params(params): Params<PageParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let limit = page::limit(params.limit)?;
    let before = match page::key(params.cursor.as_deref())? {
        Some(key) => Some(u64::from_be_bytes(key.try_into().map_err(|_| page::malformed())?)),
        None => None,
    };
    let found = app.work.run(move || repo.versions(before, limit.saturating_add(1))).await??;
    let (found, more) = page::cut(found, limit);
    let next_cursor = found.last().filter(|_| more).map(|last| page::cursor(&last.version.to_be_bytes()));
    let versions: Vec<_> = found.iter().map(VersionInfo::from).collect();
    let body = VersionPage { count: versions.len(), versions, next_cursor };
    Ok(page::with_next(answer::ok(&body), &uri, body.next_cursor.as_deref()))
}

/// Show a version
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/versions/{n}", tag = "versions", operation_id = "get_version",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("n" = u64, Path, description = "The version's number"),
    ),
    responses((status = 200, description = "The version", body = VersionInfo)),
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    RestText(number): RestText,
) -> Result<Response, Problem> {
    info(&app, repo, At::Version(numbered(&number)?)).await
}

/// Show the version of a time
///
/// Below this path stand the reads of the repository as of that time: `/tree`, `/read/{path}`, `/raw/{path}`,
/// `/commits`, `/branches` and so on, as if their query had `at`.
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/time-travel/{timestamp}", tag = "versions", operation_id = "time_travel",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("timestamp" = String, Path, description = "Seconds since the Unix epoch, or a date as in RFC 3339"),
    ),
    responses((status = 200, description = "The version that was the newest then", body = VersionInfo)),
)]
pub(super) async fn time_travel(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    RestText(timestamp): RestText,
) -> Result<Response, Problem> {
    info(&app, repo, At::Time(time::millis(&timestamp)?)).await
}

async fn info(app: &App, repo: Repo, at: At) -> Result<Response, Problem> {
    publication(app, repo, at).await.map(|found| answer::ok(&VersionInfo::from(&found)))
}

/// What made a version.
pub(super) async fn publication(app: &App, repo: Repo, at: At) -> Result<Publication, Problem> {
    let snapshot = snapshot_at(app, repo.clone(), at).await?;
    let number = snapshot.version().number;
    let found = app.work.run(move || repo.versions(Some(number.saturating_add(1)), 1)).await??;
    // Else it expired between the two.
    let found = found.into_iter().next().filter(|found| found.version == number);
    found.ok_or_else(|| Problem::new(Code::VersionGone, format!("version {number} is no longer kept")))
}

/// Restore a version
///
/// Every branch and tag, and the default branch, become what they were, as a new version; nothing is lost.
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/versions/{n}/restore", tag = "versions", operation_id = "restore_version",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("n" = u64, Path, description = "The version's number"),
    ),
    responses((status = 201, description = "The new version is durable as the repository promises", body = Restored)),
)]
pub(super) async fn restore(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    RestText(rest): RestText,
) -> Result<Response, Problem> {
    let number = numbered(rest.strip_suffix("/restore").unwrap_or(&rest))?;
    let name = repo.name();
    let deadline = app.work.deadline();
    let restored = app.work.run(move || repo.restore(number, ACTOR, Some(deadline))).await?;
    let published = restored.map_err(about(Thing::Version))?;
    let version = published.version;
    published.ticket.await?;
    let location = answer::location(name.as_str(), &format!("/versions/{version}"));
    Ok(answer::created(&location, None, &Restored { version, restored: number }))
}

pub(super) fn numbered(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| Problem::invalid(format!("{text:?} is not the number of a version")))
}

impl From<&Publication> for VersionInfo {
    fn from(publication: &Publication) -> Self {
        let changes = &publication.changes;
        Self {
            version: publication.version,
            time: Moment::text_of_millis(publication.time_millis),
            actor: publication.actor.to_string(),
            cause: publication.cause.as_str(),
            changes: changes.refs.iter().take(CHANGES_MAX).map(ChangeInfo::from).collect(),
            changes_total: changes.refs.len(),
            default_branch: changes.head.as_ref().map(|head| head.after.short().into_owned()),
            push_cert: publication.certificate.as_deref().map(CertificateInfo::from),
        }
    }
}

impl From<&RefChange> for ChangeInfo {
    fn from(change: &RefChange) -> Self {
        let hex = |oid: Option<govc_engine::Oid>| oid.map(|oid| oid.to_string());
        Self { name: change.name.as_str().into_owned(), before: hex(change.before), after: hex(change.after) }
    }
}

/// Whether a POST to this path changes nothing: a question that is too long for an address.
pub(super) fn is_reading_post(path: &str) -> bool {
    path.ends_with("/grep") || path.ends_with("/search/sql")
}

/// Makes `/repos/{id}/time-travel/{timestamp}/{read}` the same read with `at`; leaves every other request alone.
pub(crate) fn rewrite(mut request: Request) -> Request {
    // What writes does so now, not then.
    let reads = [Method::GET, Method::HEAD].contains(request.method()) || is_reading_post(request.uri().path());
    if reads && let Some(uri) = rewritten(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

fn rewritten(uri: &Uri) -> Option<Uri> {
    let rest = uri.path().strip_prefix("/api/v1/repos/")?;
    let (id, rest) = rest.split_once("/time-travel/")?;
    let (timestamp, read) = rest.split_once('/')?;
    if id.contains('/') {
        return None;
    }
    let timestamp = timestamp.replace('+', "%2B");
    let query = uri.query().map(|query| format!("&{query}")).unwrap_or_default();
    // With the `@`, digits alone are a time and no version.
    format!("/api/v1/repos/{id}/{read}?at=@{timestamp}{query}").parse().ok()
}

#[cfg(test)]
mod tests {
    use govc_engine::At;

    use super::{parse, rewritten};

    #[test]
    fn versions_are_told_from_times() {
        let at = |text| parse(text).ok();
        assert_eq!(at("17"), Some(At::Version(17)));
        assert_eq!(at("@17"), Some(At::Time(17_000)));
        assert_eq!(at("@17.25"), Some(At::Time(17_250)));
        assert_eq!(at("1970-01-01T00:00:17Z"), Some(At::Time(17_000)));
        assert_eq!(at("1970-01-01T00:00:17.5Z"), Some(At::Time(17_500)));
        assert_eq!(at("@1970-01-01T00:00:17Z"), Some(At::Time(17_000)));
        for text in ["", "@", "main", "-1", "99999999999999999999999", "yesterday", "@99999999999999999999"] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    #[test]
    fn reads_of_a_time_become_reads_with_at() {
        let check = |uri: &str, expected: Option<&str>| {
            let found = rewritten(&uri.parse().expect("a URI"));
            assert_eq!(found.map(|uri| uri.to_string()).as_deref(), expected, "{uri}");
        };
        check(
            "/api/v1/repos/a%2Fb/time-travel/17/read/src/x.rs?ref=main",
            Some("/api/v1/repos/a%2Fb/read/src/x.rs?at=@17&ref=main"),
        );
        check(
            "/api/v1/repos/a/time-travel/2024-01-15T03:42:00+01:00/tree/",
            Some("/api/v1/repos/a/tree/?at=@2024-01-15T03:42:00%2B01:00"),
        );
        check("/api/v1/repos/a/time-travel/17", None);
        check("/api/v1/repos/a/raw/time-travel/17/x", None);
        check("/a/time-travel/17/x", None);
    }
}
