//! Files by relevance: those that have any of some words, best first.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{OriginalUri, State},
    http::Uri,
    response::Response,
};
use govc_engine::Repo;
use govc_search::{FullText, FullTextCursor, FullTextHit, FullTextOptions, language::Language, query::SearchKind};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        answer,
        extract::{InRepo, Params},
        page,
        problem::Problem,
    },
    CONTEXT_MAX, LIMIT_MAX,
    request::Request,
    shapes::{AsOfInfo, FacetsInfo, FoundLineInfo, PartialInfo, took_ms},
};
use crate::app::App;

/// How many lines of a file are shown unless the request says otherwise, and at most.
const LINES_DEFAULT: usize = 3;
const LINES_MAX: usize = 100;

/// What to look for, and which part of the answer to give.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct FullTextParams {
    /// Words, of which a file need have one alone; `path:` `lang:` `repo:` `rev:` and other conditions narrow them, as
    /// `search/QUERY.md` says.
    #[param(example = "parse http request lang:rust")]
    q: String,
    /// How many files; 50 if absent, at most 500.
    limit: Option<usize>,
    /// Where the page begins: what the page before gave as `next_cursor`.
    cursor: Option<String>,
    /// How many lines to show of each file; 3 if absent, at most 100.
    lines: Option<usize>,
    /// How many lines to show in front of and behind each; at most 100.
    #[serde(default)]
    context: usize,
    /// The version or time to search; the newest if absent.
    at: Option<String>,
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FullTextResponse {
    /// How many files have any of the words: all of them if `exact`.
    total_files: u64,
    /// How often they have them.
    total_matches: u64,
    /// Whether the totals and the order are those of everything that was to be searched.
    exact: bool,
    /// The words as they are looked for, and in how many contents they are.
    words: Vec<WordInfo>,
    /// How many distinct contents were searched.
    contents: u64,
    /// The page: the best first.
    results: Vec<RelevantFileInfo>,
    /// All that was found, by what it is.
    facets: FacetsInfo,
    as_of: AsOfInfo,
    took_ms: f64,
    /// Why not everything was searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<PartialInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A word, and how much has it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WordInfo {
    /// In lower case.
    word: String,
    /// Distinct contents.
    contents: u64,
}

/// A file that has some of the words.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RelevantFileInfo {
    /// The repository's id.
    repo: String,
    /// The branch, tag or commit that was searched.
    #[serde(rename = "ref")]
    rev: String,
    /// The commit that it was.
    commit: String,
    path: String,
    /// The path's bytes in Base64, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// The blob's id.
    hash: String,
    size: u64,
    /// The programming language, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "Rust")]
    language: Option<&'static str>,
    /// How well it answers: BM25, above 0.
    score: f64,
    /// The words that it has.
    words: Vec<WordCountInfo>,
    /// The lines that show most of them.
    lines: Vec<FoundLineInfo>,
}

/// A word of a file.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WordCountInfo {
    word: String,
    /// How often the file has it.
    count: u64,
}

/// Search all repositories by relevance
///
/// Files of the default branches, or of the `rev:` and `branch:` that the query names, that have any of the words, ranked by
/// BM25 among what is searched.
#[utoipa::path(
    get, path = "/api/v1/search/fulltext", tag = "search", operation_id = "fulltextAll", params(FullTextParams),
    responses((status = 200, description = "What was found", body = FullTextResponse)),
)]
pub(in crate::http) async fn everywhere(
    State(app): State<Arc<App>>,
    OriginalUri(uri): OriginalUri,
    Params(params): Params<FullTextParams>,
) -> Result<Response, Problem> {
    respond(app, params, None, &uri).await
}

/// Search a repository by relevance
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/search/fulltext", tag = "search", operation_id = "fulltext",
    params(("id" = String, Path, description = "The repository, percent-encoded"), FullTextParams),
    responses((status = 200, description = "What was found", body = FullTextResponse)),
)]
pub(in crate::http) async fn within(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    OriginalUri(uri): OriginalUri,
    Params(params): Params<FullTextParams>,
) -> Result<Response, Problem> {
    respond(app, params, Some(repo), &uri).await
}

async fn respond(app: Arc<App>, params: FullTextParams, repo: Option<Repo>, uri: &Uri) -> Result<Response, Problem> {
    if params.context > CONTEXT_MAX {
        return Err(Problem::invalid(format!("context is at most {CONTEXT_MAX}")));
    }
    let files_max = page::limit(params.limit)?.min(LIMIT_MAX);
    let begun = Instant::now();
    let worker = Arc::clone(&app);
    let work = move || {
        let kind = Some(SearchKind::File);
        let request = Request::new(&params.q, params.cursor.as_deref(), params.at.as_deref(), kind)?;
        let deadline = Some(worker.work.deadline());
        let scope = request.scope(&worker, repo, deadline)?;
        let options = FullTextOptions {
            files_max,
            lines_max: params.lines.unwrap_or(LINES_DEFAULT).min(LINES_MAX),
            context_lines: params.context,
            cursor: request.cursor().map(FullTextCursor::decode).transpose()?,
            deadline,
            ..FullTextOptions::default()
        };
        let found = govc_search::fulltext(&worker.search.corpus(), &request.query, &scope.places, &options)?;
        let next_cursor = found.next.as_ref().map(|next| request.cursor_at(scope.at, next.encode()));
        let response = FullTextResponse::new(found, scope.as_of, took_ms(begun), next_cursor.clone());
        Ok::<_, Problem>((answer::ok(&response), next_cursor))
    };
    let (response, next) = app.work.run_in_turn(work).await??;
    Ok(page::with_next(response, uri, next.as_deref()))
}

impl FullTextResponse {
    fn new(found: FullText, as_of: AsOfInfo, took_ms: f64, next_cursor: Option<String>) -> Self {
        Self {
            total_files: found.total_files,
            total_matches: found.total_matches,
            exact: found.is_exact,
            words: found.words.into_iter().map(|word| WordInfo { word: word.word, contents: word.contents }).collect(),
            contents: found.contents,
            results: found.files.into_iter().map(RelevantFileInfo::from).collect(),
            facets: FacetsInfo::from(&found.facets),
            as_of,
            took_ms,
            partial: found.partial.map(PartialInfo::from),
            next_cursor,
        }
    }
}

impl From<FullTextHit> for RelevantFileInfo {
    fn from(file: FullTextHit) -> Self {
        let (path, path_base64) = answer::lossy(&file.path);
        Self {
            repo: file.repo,
            rev: file.rev,
            commit: file.commit.to_string(),
            path,
            path_base64,
            hash: file.blob.to_string(),
            size: file.size,
            language: file.language.map(Language::name),
            score: (file.score * 1000.0).round() / 1000.0,
            words: file.words.into_iter().map(|(word, count)| WordCountInfo { word, count }).collect(),
            lines: file.lines.into_iter().map(FoundLineInfo::from).collect(),
        }
    }
}
