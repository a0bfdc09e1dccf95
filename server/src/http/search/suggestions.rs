//! What the last term of a query may become, while it is typed.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use govc_engine::Repo;
use govc_search::{SUGGESTIONS_MAX, SuggestOptions, Suggestion, finished};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        answer,
        extract::{InRepo, Params},
        problem::Problem,
    },
    request::Request,
};
use crate::app::App;

/// How many suggestions there are unless the request says otherwise.
const LIMIT_DEFAULT: usize = 10;

/// A query that is being typed.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct SuggestionParams {
    /// The query up to the cursor; its last term is completed.
    #[param(example = "lang:rust parse_ht")]
    q: String,
    /// How many suggestions; 10 if absent, at most 100.
    limit: Option<usize>,
}

/// What the last term may become.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SuggestionsResponse {
    /// The best first.
    suggestions: Vec<SuggestionInfo>,
}

/// What the last term may become.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SuggestionInfo {
    /// `field`, `value`, `language`, `repo`, `branch`, `path`, `word` or `symbol`.
    #[schema(value_type = String, example = "word")]
    kind: &'static str,
    /// What the term becomes.
    text: String,
    /// The whole query with it.
    query: String,
    /// How many files have it, if that was counted; of a branch, how many repositories.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

/// Complete a query about all repositories
#[utoipa::path(
    get, path = "/api/v1/search/suggestions", tag = "search", operation_id = "suggestAll", params(SuggestionParams),
    responses((status = 200, description = "What the last term may become", body = SuggestionsResponse)),
)]
pub(in crate::http) async fn everywhere(
    State(app): State<Arc<App>>,
    Params(params): Params<SuggestionParams>,
) -> Result<Response, Problem> {
    respond(app, params, None).await
}

/// Complete a query about a repository
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/search/suggestions", tag = "search", operation_id = "suggest",
    params(("id" = String, Path, description = "The repository, percent-encoded"), SuggestionParams),
    responses((status = 200, description = "What the last term may become", body = SuggestionsResponse)),
)]
pub(in crate::http) async fn within(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    Params(params): Params<SuggestionParams>,
) -> Result<Response, Problem> {
    respond(app, params, Some(repo)).await
}

async fn respond(app: Arc<App>, params: SuggestionParams, repo: Option<Repo>) -> Result<Response, Problem> {
    let suggestions_max = params.limit.unwrap_or(LIMIT_DEFAULT);
    if suggestions_max == 0 || suggestions_max > SUGGESTIONS_MAX {
        return Err(Problem::invalid(format!("limit is from 1 to {SUGGESTIONS_MAX}")));
    }
    let worker = Arc::clone(&app);
    let work = move || {
        let deadline = Some(worker.work.deadline());
        // What is in front of the last term need not be a query, nor name what is there: then it narrows nothing.
        let front = Request::new(finished(&params.q), None, None, None);
        let scope = front.and_then(|request| request.scope(&worker, repo.clone(), deadline));
        let scope = scope.or_else(|_| Request::of_everything().scope(&worker, repo, deadline))?;
        let options = SuggestOptions { suggestions_max, deadline };
        let suggestions = govc_search::suggest(&worker.search.corpus(), &params.q, &scope.places, &options)?;
        let suggestions = suggestions.into_iter().map(SuggestionInfo::from).collect();
        Ok(answer::ok(&SuggestionsResponse { suggestions }))
    };
    app.work.run_in_turn(work).await?
}

impl From<Suggestion> for SuggestionInfo {
    fn from(suggestion: Suggestion) -> Self {
        Self { kind: suggestion.kind.as_str(), text: suggestion.text, query: suggestion.query, count: suggestion.count }
    }
}
