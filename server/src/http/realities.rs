//! Parallel realities: isolated lines of work, made by the thousand, applied to, compared, promoted or dropped.
//!
//! A reality is read like a branch, as `refs/realities/{name}` wherever a request takes `ref`. A slash in its name is
//! `%2F` in paths.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use govc_engine::{NewRealities, Oid, PromoteRequest, Promotion, Reality, RefName, Repo, Snapshot};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ACTOR, answer,
    commits::{self, CommitMade, FILES_MAX, FileInfo, NewCommit},
    conditional::ETag,
    extract::{InRepo, JsonBody, Params, RawJson, RestText},
    page,
    people::{self, PersonInput},
    problem::{Problem, Thing, about},
    repos::PageParams,
    revision,
    time::Moment,
};
use crate::app::App;

/// The longest time to live, in seconds: a century.
const TTL_MAX_SECONDS: u64 = 100 * 366 * 24 * 3600;

/// Realities to be made, all or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRealitiesBody {
    /// Their names, by the rules of branches.
    #[schema(example = json!(["config-a", "config-b"]))]
    branches: Vec<String>,
    /// A branch, tag or commit; the default branch if absent.
    from: Option<String>,
    /// The version in which `from` is looked up, by its number or as a time; the newest if absent.
    at: Option<String>,
    /// How long they live; for ever if absent.
    ttl_seconds: Option<u64>,
}

/// Realities that were made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RealitiesMade {
    realities: Vec<String>,
    count: usize,
    /// The commit that they begin at.
    base: String,
    /// The version that the commit was read from.
    base_version: u64,
    /// When their time is over; null if it never is.
    expires_at: Option<String>,
    /// The repository's version that they are in.
    version: u64,
}

/// A reality.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RealityInfo {
    #[schema(example = "config-a")]
    name: String,
    /// Its full name, for `ref` in reads and for git.
    #[serde(rename = "ref")]
    #[schema(example = "refs/realities/config-a")]
    reference: String,
    /// Its newest commit.
    head: String,
    /// The commit that it began at.
    base: String,
    /// The version that it began from.
    base_version: u64,
    /// The branch that it came from, if any.
    from: Option<String>,
    created_at: String,
    /// When its time is over; null if it never is.
    expires_at: Option<String>,
}

/// Realities in the order of their names.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RealityPage {
    realities: Vec<RealityInfo>,
    /// How many the page has.
    count: usize,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
}

/// A reality beside what it began with.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RealityComparison {
    #[serde(flatten)]
    reality: RealityInfo,
    /// Commits since the base; at most 10 000 are counted.
    commits: usize,
    files: Vec<FileInfo>,
    /// Whether more files differ than are listed.
    truncated: bool,
}

/// How to promote.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PromoteBody {
    /// The branch that gets the work; the one that the reality came from, or the default branch, if absent.
    target: Option<String>,
    /// `merge` if absent.
    mode: Option<PromotionMode>,
    /// Whether the reality stays; false if absent.
    #[serde(default)]
    keep: bool,
    /// The message of a merge.
    message: Option<String>,
    /// Who merges or commits again; `govc <govc@localhost>` if absent.
    author: Option<PersonInput>,
    /// The address of an author that is a text.
    email: Option<String>,
}

/// How a reality's work reaches a branch.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PromotionMode {
    /// The branch moves to the reality's head, which must follow from it; else 409.
    FastForward,
    /// The same if it can, else a merge of both; 409 with `paths` if both changed the same files.
    Merge,
    /// The reality's commits are made again on top of the branch; 409 likewise.
    Rebase,
}

/// What became of a promotion.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PromotedInfo {
    /// The branch's head.
    hash: String,
    target: String,
    /// The repository's version that it is in.
    version: u64,
    /// Whether the reality is still there.
    kept: bool,
}

/// Create realities
///
/// Up to 100 000 in one call, and nothing but their names is stored of each. Git clients see them only if they ask for
/// `refs/realities/{name}`.
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/parallel-realities", tag = "realities", operation_id = "create_realities",
    params(("id" = String, Path, description = "The repository, percent-encoded")),
    request_body = NewRealitiesBody,
    responses((status = 201, description = "They are durable as the repository promises", body = RealitiesMade)),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    JsonBody(new, _held): JsonBody<NewRealitiesBody>,
) -> Result<Response, Problem> {
    if new.ttl_seconds.is_some_and(|seconds| seconds == 0 || seconds > TTL_MAX_SECONDS) {
        return Err(Problem::invalid(format!("ttl_seconds is 1 to {TTL_MAX_SECONDS}")));
    }
    let snapshot = super::versions::snapshot(&app, &repo, new.at.as_deref()).await?;
    let rev = new.from.as_deref().unwrap_or("HEAD");
    let base = revision::commit(&app, &snapshot, rev).await?;
    let from = branch_named(&snapshot, rev);
    let base_version = snapshot.version().number;
    let (ttl, names) = (new.ttl_seconds.map(Duration::from_secs), new.branches);
    let location = answer::location(repo.name().as_str(), "/parallel-realities");
    // Many names take a while to be checked and put in order.
    let made = app
        .work
        .run(move || {
            let full = names.iter().map(|name| RefName::reality(name)).collect::<Result<Vec<_>, _>>()?;
            let new = NewRealities { names: full, base, version: base_version, from, ttl, actor: ACTOR.into() };
            let first = new.names.first().cloned();
            let published = repo.create_realities(new).map_err(about(Thing::Reality))?;
            Ok::<_, Problem>((repo, names, first, published))
        })
        .await??;
    let (repo, names, first, published) = made;
    let version = published.version;
    published.ticket.await?;
    let snapshot = repo.snapshot();
    let reality = first.as_ref().and_then(|first| snapshot.reality(first).ok());
    let expires_at = reality.and_then(|reality| reality.origin.expires_millis).map(Moment::text_of_millis);
    let count = names.len();
    let body = RealitiesMade { realities: names, count, base: base.to_string(), base_version, expires_at, version };
    Ok(answer::created(&location, None, &body))
}

/// The branch that a revision names by itself.
fn branch_named(snapshot: &Snapshot, rev: &str) -> Option<RefName> {
    match rev {
        "HEAD" | "@" => Some(snapshot.head().clone()),
        _ => [RefName::branch(rev), RefName::new(rev)]
            .into_iter()
            .flatten()
            .find(|name| name.is_branch() && snapshot.reference(name).is_some()),
    }
}

/// List realities
///
/// Those whose time is over are not listed.
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/parallel-realities", tag = "realities", operation_id = "list_realities",
    params(("id" = String, Path, description = "The repository, percent-encoded"), PageParams),
    responses((status = 200, description = "A page of realities", body = RealityPage)),
)]
pub(super) async fn list(
    InRepo(repo): InRepo,
    Params(params): Params<PageParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let snapshot = repo.snapshot();
    let limit = page::limit(params.limit)?;
    let after = match page::key(params.cursor.as_deref())? {
        Some(key) => Some(RefName::new(key).map_err(|_| page::malformed())?),
        None => None,
    };
    let found = snapshot.realities(after.as_ref()).take(limit.saturating_add(1)).collect();
    let (found, more) = page::cut::<(&RefName, &Reality)>(found, limit);
    let next_cursor = found.last().filter(|_| more).map(|(name, _)| page::cursor(name.as_bytes()));
    let realities: Vec<_> = found.iter().map(|(name, reality)| RealityInfo::new(name, reality)).collect();
    let body = RealityPage { count: realities.len(), realities, next_cursor };
    Ok(page::with_next(answer::ok(&body), &uri, body.next_cursor.as_deref()))
}

/// Show a reality
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/parallel-realities/{name}", tag = "realities", operation_id = "get_reality",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("name" = String, Path, description = "The reality, percent-encoded"),
    ),
    responses((status = 200, description = "The reality", body = RealityInfo)),
)]
pub(super) async fn show(InRepo(repo): InRepo, RestText(name): RestText) -> Result<Response, Problem> {
    let name = RefName::reality(&name)?;
    let snapshot = repo.snapshot();
    let reality = snapshot.reality(&name).map_err(about(Thing::Reality))?;
    Ok(answer::tagged(answer::ok(&RealityInfo::new(&name, reality)), &ETag::of(&reality.head)))
}

/// Apply changes to a reality
///
/// A commit, as `POST …/commits` makes one on a branch; `branch` must be absent.
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/parallel-realities/{name}/apply", tag = "realities", operation_id = "apply",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("name" = String, Path, description = "The reality, percent-encoded"),
    ),
    request_body = NewCommit,
    responses((status = 201, description = "The commit is durable as the repository promises", body = CommitMade)),
)]
pub(super) async fn apply(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    RestText(rest): RestText,
    headers: HeaderMap,
    body: RawJson,
) -> Result<Response, Problem> {
    let name = named(&rest, "/apply")?;
    repo.snapshot().reality(&name).map_err(about(Thing::Reality))?;
    commits::commit(&app, repo, headers, body, Some(name)).await
}

/// Compare a reality with its base
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/parallel-realities/{name}/compare", tag = "realities",
    operation_id = "compare_reality",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("name" = String, Path, description = "The reality, percent-encoded"),
    ),
    responses((status = 200, description = "What differs; at most 3000 files", body = RealityComparison)),
)]
pub(super) async fn compare(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    RestText(rest): RestText,
) -> Result<Response, Problem> {
    let name = named(&rest, "/compare")?;
    let snapshot = repo.snapshot();
    let deadline = app.work.deadline();
    let body = app
        .work
        .run(move || {
            let reality = snapshot.reality(&name)?;
            let found = snapshot.compare_reality(&name, FILES_MAX, Some(deadline))?;
            Ok(RealityComparison {
                reality: RealityInfo::new(&name, reality),
                commits: found.commits,
                truncated: found.changes.truncated,
                files: found.changes.files.iter().map(FileInfo::from).collect(),
            })
        })
        .await?
        .map_err(about(Thing::Reality))?;
    Ok(answer::ok(&body))
}

/// Promote a reality
///
/// Its work reaches a branch, and the reality ends, in one publication.
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/parallel-realities/{name}/promote", tag = "realities",
    operation_id = "promote_reality",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("name" = String, Path, description = "The reality, percent-encoded"),
    ),
    request_body = PromoteBody,
    responses((status = 200, description = "It is durable as the repository promises", body = PromotedInfo)),
)]
pub(super) async fn promote(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    RestText(rest): RestText,
    JsonBody(body, _held): JsonBody<PromoteBody>,
) -> Result<Response, Problem> {
    let name = named(&rest, "/promote")?;
    let snapshot = repo.snapshot();
    let reality = snapshot.reality(&name).map_err(about(Thing::Reality))?;
    let target = match &body.target {
        Some(target) => RefName::branch(target)?,
        None => reality.origin.from.clone().unwrap_or_else(|| snapshot.head().clone()),
    };
    if snapshot.reference(&target).is_none() {
        return Err(super::branches::missing(super::problem::Code::BranchNotFound, &target));
    }
    let now = Moment::now();
    let committer = match &body.author {
        Some(person) => person.sign(body.email.as_deref(), now)?,
        None => people::nobody(body.email.as_deref(), now)?,
    };
    let request = PromoteRequest {
        reality: name,
        target,
        promotion: body.mode.map_or(Promotion::default(), Promotion::from),
        keep: body.keep,
        committer,
        message: body.message,
        actor: ACTOR.to_owned(),
        deadline: Some(app.work.deadline()),
    };
    let (promoted, target) = app.work.run(move || (repo.promote(&request), request.target)).await?;
    let promoted = promoted.map_err(about(Thing::Reality))?;
    let version = promoted.published.version;
    promoted.published.ticket.await?;
    let (hash, target) = (promoted.oid.to_string(), target.short().into_owned());
    Ok(answer::ok(&PromotedInfo { hash, target, version, kept: body.keep }))
}

/// Drop a reality
#[utoipa::path(
    delete, path = "/api/v1/repos/{id}/parallel-realities/{name}", tag = "realities", operation_id = "drop_reality",
    params(
        ("id" = String, Path, description = "The repository, percent-encoded"),
        ("name" = String, Path, description = "The reality, percent-encoded"),
    ),
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn remove(InRepo(repo): InRepo, RestText(name): RestText) -> Result<Response, Problem> {
    let published = dropped(&repo, &RefName::reality(&name)?)?;
    published.ticket.await?;
    Ok(answer::no_content())
}

fn dropped(repo: &Repo, name: &RefName) -> Result<govc_engine::Published, Problem> {
    repo.drop_realities(std::slice::from_ref(name), ACTOR).map_err(about(Thing::Reality))
}

/// The reality in front of what a path ends with.
fn named(rest: &str, end: &str) -> Result<RefName, Problem> {
    Ok(RefName::reality(rest.strip_suffix(end).unwrap_or(rest))?)
}

impl RealityInfo {
    fn new(name: &RefName, reality: &Reality) -> Self {
        let origin = &reality.origin;
        let hex = |oid: &Oid| oid.to_string();
        Self {
            name: name.short().into_owned(),
            reference: name.as_str().into_owned(),
            head: hex(&reality.head),
            base: hex(&origin.base),
            base_version: origin.version,
            from: origin.from.as_ref().map(|from| from.short().into_owned()),
            created_at: Moment::text_of_millis(origin.created_millis),
            expires_at: origin.expires_millis.map(Moment::text_of_millis),
        }
    }
}

impl From<PromotionMode> for Promotion {
    fn from(mode: PromotionMode) -> Self {
        match mode {
            PromotionMode::FastForward => Promotion::FastForward,
            PromotionMode::Merge => Promotion::Merge,
            PromotionMode::Rebase => Promotion::Rebase,
        }
    }
}
