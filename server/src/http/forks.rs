//! Forks: a repository made of another, in no time.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use govc_engine::{Durability, RepoName};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    ACTOR, answer,
    extract::{JsonBody, Named},
    problem::{Problem, Thing, about},
    repos::RepoInfo,
};
use crate::app::App;

/// The fork to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewFork {
    /// The new repository's id: one to three segments of `[A-Za-z0-9][A-Za-z0-9._-]*` joined by `/`.
    #[schema(example = "ada/site")]
    id: String,
}

/// Fork a repository
///
/// The fork has the branches, tags, objects, description and durability of the repository as it is now, but neither
/// its realities nor its earlier versions. It costs the same however large the repository is, goes its own way from
/// then on, and stays when the repository is deleted. What one of the two gets later cannot be read through the other.
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/fork", tag = "repositories", operation_id = "fork_repo",
    params(("id" = String, Path, description = "The repository to be forked, percent-encoded")),
    request_body = NewFork,
    responses((status = 201, description = "The fork", body = RepoInfo)),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Named(source): Named,
    JsonBody(new, _held): JsonBody<NewFork>,
) -> Result<Response, Problem> {
    let name = RepoName::new(&new.id)?;
    let in_memory = app.store.repo(&source).map_err(about(Thing::Repo))?.settings().durability == Durability::Memory;
    let store = app.store.clone();
    let fork = move || store.fork(&source, &name, ACTOR);
    // Without a disk to wait for, another thread would cost more than the work.
    let made = if in_memory { fork() } else { app.work.run(fork).await? };
    let info = RepoInfo::of(&made.map_err(about(Thing::Repo))?);
    let etag = info.etag()?;
    Ok(answer::created(&answer::location(&info.id, ""), Some(&etag), &info))
}
