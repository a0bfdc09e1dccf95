//! Repositories: create, list, show, change, delete.
//!
//! Creating, changing and deleting block until they are durable, so they run on the pool of blocking threads.
//! Changes of one server's repositories take turns: each reads the settings, checks `If-Match` and writes, and
//! nothing may come between.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, Uri},
    response::Response,
};
use govc_engine::{Durability, RefName, Repo, RepoName, RepoSettings, Snapshot, Store};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use utoipa::{IntoParams, ToSchema};

use super::{
    ACTOR, answer,
    conditional::{self, ETag},
    extract::{JsonBody, Named, Params},
    git_settings::{GitChange, GitSettings},
    page,
    problem::{Problem, Thing, about},
    time::Moment,
    versions::{AtParams, View},
};
use crate::app::App;

/// The turn to change repositories.
#[derive(Debug, Clone, Default)]
pub(super) struct SettingsTurn(Arc<Mutex<()>>);

/// A repository.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RepoInfo {
    /// One to three segments joined by `/`; percent-encoded in paths (`team%2Fsite`).
    #[schema(example = "team/site")]
    pub(super) id: String,
    description: String,
    /// The branch that `HEAD` names; it need not exist yet.
    #[schema(example = "main")]
    default_branch: String,
    /// What its ids are: `sha1` (40 digits) or `sha256` (64).
    #[schema(example = "sha1")]
    object_format: String,
    /// What a write waits for: `memory` (nothing), `relaxed` (nothing, but it is soon on disk), `durable` (the disk).
    #[schema(value_type = String, example = "durable")]
    durability: Durability,
    /// Whether the durability is `memory`.
    memory_only: bool,
    /// When it was created, in RFC 3339.
    #[schema(example = "2024-01-15T03:42:00+00:00")]
    created_at: String,
    /// The number of the newest version; each publication makes one.
    version: u64,
    /// How many branches there are.
    branches: usize,
    /// The default branch's commit; null if there is none yet.
    head: Option<String>,
    /// The repository that it was forked from; null if there is none, or none any more.
    forked_from: Option<String>,
    /// How many repositories have been forked from it and not been deleted.
    forks: usize,
    /// What is refused of pushes over Git's protocol, and hidden there.
    git: GitSettings,
}

/// Repositories in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RepoPage {
    repositories: Vec<RepoInfo>,
    /// How many the page has.
    count: usize,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
}

/// A repository to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRepo {
    /// One to three segments of `[A-Za-z0-9][A-Za-z0-9._-]*` joined by `/`.
    #[schema(example = "team/site")]
    id: String,
    #[serde(default)]
    description: String,
    /// `main` if absent.
    default_branch: Option<String>,
    /// What its ids are, once and for all: `sha1` or `sha256`; what `git.default_object_format` says if absent.
    #[schema(example = "sha256")]
    object_format: Option<String>,
    /// `durable` if absent.
    #[schema(value_type = Option<String>)]
    durability: Option<Durability>,
    /// The same as durability `memory`.
    memory_only: Option<bool>,
    /// Everything is allowed and shown if absent.
    #[serde(default)]
    git: GitChange,
}

/// What is to be changed of a repository; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RepoChange {
    /// A new id: the repository is renamed.
    id: Option<String>,
    description: Option<String>,
    default_branch: Option<String>,
    #[schema(value_type = Option<String>)]
    durability: Option<Durability>,
    /// The same as durability `memory`.
    memory_only: Option<bool>,
    #[serde(default)]
    git: GitChange,
}

/// A page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// The page before's `next_cursor`.
    pub(super) cursor: Option<String>,
    /// How many items at most; 50 if absent, at most 1000.
    pub(super) limit: Option<usize>,
}

/// List repositories
#[utoipa::path(
    get, path = "/api/v1/repos", tag = "repositories", operation_id = "list_repos",
    params(PageParams),
    responses((status = 200, description = "A page of repositories", body = RepoPage)),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(params): Params<PageParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let limit = page::limit(params.limit)?;
    let after = match page::key(params.cursor.as_deref())? {
        Some(key) => {
            let name = String::from_utf8(key).map_err(|_| page::malformed())?;
            Some(RepoName::new(&name).map_err(|_| page::malformed())?)
        }
        None => None,
    };
    let store = app.store.clone();
    let (repositories, more) = app
        .work
        .run(move || {
            let (repos, more) = page::cut(store.list(after.as_ref(), limit.saturating_add(1)), limit);
            (repos.iter().map(RepoInfo::of).collect::<Vec<_>>(), more)
        })
        .await?;
    let last = repositories.last().filter(|_| more);
    let next_cursor = last.map(|repo| page::cursor(repo.id.as_bytes()));
    let body = RepoPage { count: repositories.len(), repositories, next_cursor };
    Ok(page::with_next(answer::ok(&body), &uri, body.next_cursor.as_deref()))
}

/// Create a repository
#[utoipa::path(
    post, path = "/api/v1/repos", tag = "repositories", operation_id = "create_repo",
    request_body = NewRepo,
    responses((status = 201, description = "The new repository", body = RepoInfo)),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    JsonBody(new, _held): JsonBody<NewRepo>,
) -> Result<Response, Problem> {
    let name = RepoName::new(&new.id)?;
    let mut settings = RepoSettings { description: new.description, ..app.config.new_repo_settings() };
    if let Some(format) = &new.object_format {
        settings.object_format = format.parse()?;
    }
    if let Some(branch) = &new.default_branch {
        settings.default_branch = RefName::branch(branch)?;
    }
    settings.durability = durability(new.durability, new.memory_only)?.unwrap_or_default();
    new.git.apply(&mut settings.git);
    let store = app.store.clone();
    let repo = app.work.run(move || store.create(&name, settings, ACTOR)).await?.map_err(about(Thing::Repo))?;
    let info = RepoInfo::of(&repo);
    let etag = info.etag()?;
    Ok(answer::created(&answer::location(&info.id, ""), Some(&etag), &info))
}

/// Show a repository
#[utoipa::path(
    get, path = "/api/v1/repos/{id}", tag = "repositories", operation_id = "get_repo",
    params(("id" = String, Path, description = "The repository, percent-encoded"), AtParams),
    responses((status = 200, description = "The repository", body = RepoInfo)),
)]
pub(super) async fn show(View(snapshot): View, headers: HeaderMap) -> Result<Response, Problem> {
    let info = RepoInfo::at(&snapshot);
    let etag = info.etag()?;
    if let Some(response) = conditional::not_modified(&headers, &etag) {
        return Ok(response);
    }
    Ok(answer::tagged(answer::ok(&info), &etag))
}

/// Change or rename a repository
///
/// Everything or, if anything is refused, nothing.
#[utoipa::path(
    patch, path = "/api/v1/repos/{id}", tag = "repositories", operation_id = "update_repo",
    params(("id" = String, Path, description = "The repository, percent-encoded")),
    request_body = RepoChange,
    responses((status = 200, description = "The changed repository", body = RepoInfo)),
)]
pub(super) async fn update(
    State(app): State<Arc<App>>,
    Extension(turn): Extension<SettingsTurn>,
    Named(name): Named,
    headers: HeaderMap,
    JsonBody(change, _held): JsonBody<RepoChange>,
) -> Result<Response, Problem> {
    let turn = turn.0.lock_owned().await;
    let store = app.store.clone();
    let info = app
        .work
        .run(move || {
            // Held by the work itself, which goes on when the client goes away.
            let _turn = turn;
            let repo = store.repo(&name).map_err(about(Thing::Repo))?;
            conditional::require_match(&headers, &RepoInfo::of(&repo).etag()?)?;
            Ok::<_, Problem>(RepoInfo::of(&change.apply(&store, repo)?))
        })
        .await??;
    let etag = info.etag()?;
    Ok(answer::tagged(answer::ok(&info), &etag))
}

/// Delete a repository
#[utoipa::path(
    delete, path = "/api/v1/repos/{id}", tag = "repositories", operation_id = "delete_repo",
    params(("id" = String, Path, description = "The repository, percent-encoded")),
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Extension(turn): Extension<SettingsTurn>,
    Named(name): Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let turn = turn.0.lock_owned().await;
    let server = app.clone();
    app.work
        .run(move || {
            let _turn = turn;
            let repo = server.store.repo(&name).map_err(about(Thing::Repo))?;
            conditional::require_match(&headers, &RepoInfo::of(&repo).etag()?)?;
            server.store.delete(&name).map_err(about(Thing::Repo))?;
            server.packs.retain(|other| other != repo.id());
            server.reachable.retain(|other| other != repo.id());
            Ok::<_, Problem>(())
        })
        .await??;
    Ok(answer::no_content())
}

impl RepoInfo {
    pub(super) fn of(repo: &Repo) -> Self {
        Self::at(&repo.snapshot())
    }

    /// The repository as it is, with the branches that it had.
    fn at(snapshot: &Snapshot) -> Self {
        let repo = snapshot.repo();
        let settings = repo.settings();
        let created = Moment { seconds: repo.created_seconds(), offset_minutes: 0 };
        Self {
            id: repo.name().as_str().to_owned(),
            default_branch: snapshot.head().short().into_owned(),
            object_format: settings.object_format.to_string(),
            durability: settings.durability,
            memory_only: settings.durability == Durability::Memory,
            created_at: created.to_text(),
            version: snapshot.version().number,
            branches: snapshot.branch_count(),
            head: snapshot.reference(snapshot.head()).map(|oid| oid.to_string()),
            forked_from: repo.forked_from().map(|name| name.as_str().to_owned()),
            forks: repo.fork_count(),
            git: GitSettings::of(settings.git),
            description: settings.description,
        }
    }

    pub(super) fn etag(&self) -> Result<ETag, Problem> {
        let body = serde_json::to_vec(self).unwrap_or_default();
        ETag::of_bytes(&body)
    }
}

impl RepoChange {
    fn apply(self, store: &Store, repo: Repo) -> Result<Repo, Problem> {
        let settings = repo.settings();
        let mut wanted = RepoSettings {
            description: self.description.unwrap_or_else(|| settings.description.clone()),
            default_branch: settings.default_branch.clone(),
            object_format: settings.object_format,
            durability: settings.durability,
            git: settings.git.clone(),
        };
        self.git.apply(&mut wanted.git);
        if let Some(branch) = &self.default_branch {
            wanted.default_branch = RefName::branch(branch)?;
        }
        match durability(self.durability, self.memory_only)? {
            Some(durability) => wanted.durability = durability,
            None if self.memory_only == Some(false) && wanted.durability == Durability::Memory => {
                wanted.durability = Durability::default();
            }
            None => {}
        }
        let changed = wanted != settings;
        let new_name = self.id.as_deref().map(RepoName::new).transpose()?;
        store.alter(&repo.name(), new_name.as_ref(), changed.then_some(wanted)).map_err(about(Thing::Repo))
    }
}

/// The durability that a request asks for in either form.
fn durability(named: Option<Durability>, memory_only: Option<bool>) -> Result<Option<Durability>, Problem> {
    match (named, memory_only) {
        (None, Some(true)) => Ok(Some(Durability::Memory)),
        (Some(named), Some(memory_only)) if memory_only != (named == Durability::Memory) => {
            Err(Problem::invalid(format!("memory_only {memory_only} contradicts durability {named}")))
        }
        (named, _) => Ok(named),
    }
}
