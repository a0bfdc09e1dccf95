//! Branches: list, create, show, delete. A branch's name may contain slashes.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use govc_engine::{Expected, Oid, RefName, Snapshot};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ACTOR, answer,
    conditional::{self, ETag},
    extract::{InRepo, JsonBody, Params, Rest},
    page,
    problem::{Code, Problem, Thing, about},
    repos::PageParams,
    revision,
    versions::{AtParams, View},
};
use crate::app::App;

/// Where branches are among the references.
const BRANCHES: &[u8] = b"refs/heads/";

/// A branch.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BranchInfo {
    #[schema(example = "feature/search")]
    name: String,
    /// The name's bytes in Base64, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_base64: Option<String>,
    /// The commit that the branch is at.
    commit: String,
    /// Whether it is the default branch.
    is_default: bool,
}

/// Branches in the order of their names.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BranchPage {
    branches: Vec<BranchInfo>,
    /// How many the page has.
    count: usize,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
}

/// A branch to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBranch {
    #[schema(example = "feature/search")]
    name: String,
    /// A branch, tag or commit; the default branch if absent.
    from: Option<String>,
}

/// List branches
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/branches", tag = "branches", operation_id = "list_branches",
    params(("id" = String, Path, description = "The repository, percent-encoded"), PageParams, AtParams),
    responses((status = 200, description = "A page of branches", body = BranchPage)),
)]
pub(super) async fn list(
    View(snapshot): View,
    Params(params): Params<PageParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let limit = page::limit(params.limit)?;
    let (names, more) = names_after(&snapshot, BRANCHES, params.cursor.as_deref(), limit)?;
    let next_cursor = names.last().filter(|_| more).map(|(name, _)| page::cursor(name.as_bytes()));
    let branches: Vec<_> = names.iter().map(|(name, oid)| BranchInfo::new(&snapshot, name, oid)).collect();
    let body = BranchPage { count: branches.len(), branches, next_cursor };
    Ok(page::with_next(answer::ok(&body), &uri, body.next_cursor.as_deref()))
}

/// Create a branch
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/branches", tag = "branches", operation_id = "create_branch",
    params(("id" = String, Path, description = "The repository, percent-encoded")),
    request_body = NewBranch,
    responses((status = 201, description = "The new branch", body = BranchInfo)),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    JsonBody(new, _held): JsonBody<NewBranch>,
) -> Result<Response, Problem> {
    let name = RefName::branch(&new.name)?;
    let snapshot = repo.snapshot();
    let target = revision::commit(&app, &snapshot, new.from.as_deref().unwrap_or("HEAD")).await?;
    let published = repo.create_ref(name.clone(), target, ACTOR).map_err(about(Thing::Branch))?;
    published.ticket.await?;
    let location = answer::location(repo.name().as_str(), &format!("/branches/{}", name.short()));
    Ok(answer::created(&location, Some(&ETag::of(&target)), &BranchInfo::new(&snapshot, &name, &target)))
}

/// Show a branch
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/branches/{*name}", tag = "branches", operation_id = "get_branch",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("name" = String, Path, description = "The branch; slashes may stand as they are"),
        AtParams,
    ),
    responses((status = 200, description = "The branch", body = BranchInfo)),
)]
pub(super) async fn show(View(snapshot): View, Rest(short): Rest, headers: HeaderMap) -> Result<Response, Problem> {
    let name = named(BRANCHES, &short)?;
    let oid = snapshot.reference(&name).ok_or_else(|| missing(Code::BranchNotFound, &name))?;
    let etag = ETag::of(&oid);
    if let Some(response) = conditional::not_modified(&headers, &etag) {
        return Ok(response);
    }
    Ok(answer::tagged(answer::ok(&BranchInfo::new(&snapshot, &name, &oid)), &etag))
}

/// Delete a branch
///
/// The default branch cannot be deleted. `If-Match` with a commit's id deletes it only if it is still there.
#[utoipa::path(
    delete, path = "/api/v1/repos/{id}/branches/{*name}", tag = "branches", operation_id = "delete_branch",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("name" = String, Path, description = "The branch; slashes may stand as they are"),
    ),
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn remove(InRepo(repo): InRepo, Rest(short): Rest, headers: HeaderMap) -> Result<Response, Problem> {
    let name = named(BRANCHES, &short)?;
    let expected = deletable(&repo.snapshot(), &headers, &name, Code::BranchNotFound)?;
    let published = repo.delete_ref(name, expected, ACTOR).map_err(|error| {
        let problem = about(Thing::Branch)(error);
        if expected == Expected::Any { problem } else { problem.of_precondition() }
    })?;
    published.ticket.await?;
    Ok(answer::no_content())
}

/// The reference of a short name given as bytes under `prefix`.
pub(super) fn named(prefix: &[u8], short: &[u8]) -> Result<RefName, Problem> {
    Ok(RefName::new([prefix, short].concat())?)
}

/// A reference that is not there.
pub(super) fn missing(code: Code, name: &RefName) -> Problem {
    Problem::new(code, format!("no reference {name}"))
}

/// What a reference that is to be deleted must hold, by the request's headers.
pub(super) fn deletable(
    snapshot: &Snapshot,
    headers: &HeaderMap,
    name: &RefName,
    if_missing: Code,
) -> Result<Expected, Problem> {
    let current = snapshot.reference(name);
    if current.is_none() {
        return Err(missing(if_missing, name));
    }
    Ok(conditional::demanded(headers, name, current)?.unwrap_or(Expected::Any))
}

/// A page of the references under `prefix`, and whether there are more.
pub(super) fn names_after(
    snapshot: &Snapshot,
    prefix: &[u8],
    cursor: Option<&str>,
    limit: usize,
) -> Result<(Vec<(RefName, Oid)>, bool), Problem> {
    let owned = |(name, oid): (&RefName, &Oid)| (name.clone(), *oid);
    let wanted = limit.saturating_add(1);
    let names = match page::key(cursor)? {
        None => snapshot.references_with_prefix(prefix).take(wanted).map(owned).collect(),
        Some(key) => {
            let after = RefName::new(key).map_err(|_| page::malformed())?;
            snapshot.references_after(&after, prefix).take(wanted).map(owned).collect()
        }
    };
    Ok(page::cut(names, limit))
}

impl BranchInfo {
    fn new(snapshot: &Snapshot, name: &RefName, oid: &Oid) -> Self {
        let (text, name_base64) = answer::lossy(name.as_bytes().strip_prefix(BRANCHES).unwrap_or_default());
        Self { name: text, name_base64, commit: oid.to_string(), is_default: snapshot.head() == name }
    }
}
