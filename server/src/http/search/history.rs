//! Questions about a history over HTTP: which commits contain something, when it appeared and went, on which branches it is.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{OriginalUri, State},
    response::Response,
};
use govc_engine::Repo;
use govc_search::{
    FileTransition, HistoryAnswer, HistoryCommit, HistoryCursor, HistoryEvent, HistoryList, HistoryOptions, HistoryRef,
    HistoryRows, Transition, history as ask, query::SearchKind,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        answer,
        extract::{InRepo, Params, flag},
        page,
        people::PersonInfo,
        problem::Problem,
        time::Moment,
    },
    request::Request,
    shapes::{PartialInfo, took_ms},
};
use crate::app::App;

/// A question.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct HistoryParams {
    /// The query, as of a search of files: content, `path:` and `lang:`. `branch:` and `rev:` say of what the history is;
    /// without them, of all branches and tags.
    #[param(example = "path:src/** malloc")]
    q: String,
    /// What is listed: `events` (the commits with which something appears or goes, the default), `files` (each file with
    /// which it does), `commits` (those that contain it).
    #[serde(default)]
    #[param(inline)]
    list: List,
    /// `newest` first, the default, or `oldest`.
    #[serde(default)]
    #[param(inline)]
    order: Order,
    /// Whether events and files are listed of all commits, and not only of those reached by first parents.
    #[serde(default, deserialize_with = "flag")]
    all_parents: bool,
    /// Whether to say on which tags it is, beside branches.
    #[serde(default, deserialize_with = "flag")]
    tags: bool,
    /// How many rows; 50 if absent, at most 1000.
    limit: Option<usize>,
    /// Where the page begins: what the page before gave as `next_cursor`.
    cursor: Option<String>,
    /// The version or time at which to ask; the newest if absent.
    at: Option<String>,
}

/// What is listed.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum List {
    #[default]
    Events,
    Files,
    Commits,
}

/// In which order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum Order {
    #[default]
    Newest,
    Oldest,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryResponse {
    list: List,
    /// The page. Of `events`, each has `transition` and `files`; of `files`, `transition`, `path` and `blob`.
    results: Vec<RowInfo>,
    /// How many rows there are on all pages.
    total: u64,
    /// The first commit that contains it, by date, and the last.
    first: Option<HistoryCommitInfo>,
    last: Option<HistoryCommitInfo>,
    /// How many commits contain it, of all that are reached.
    total_commits: u64,
    /// The branches on which it is now: the first thousand.
    branches: Vec<HistoryRefInfo>,
    total_branches: u64,
    /// The tags likewise, with `tags=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<HistoryRefInfo>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_tags: Option<u64>,
    /// The version that was asked.
    version: u64,
    /// How many commits the question was about.
    commits_searched: u64,
    /// How many of them were read because they are not indexed yet.
    commits_read: u64,
    took_ms: f64,
    /// Why this is not all. `deadline`: there was no time for an answer, and `next_cursor` goes on with the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<PartialInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A row.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RowInfo {
    #[serde(flatten)]
    commit: HistoryCommitInfo,
    /// `appeared` or `gone`, against the first parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "appeared")]
    transition: Option<&'static str>,
    /// The files that are the reason, the first hundred.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<Vec<TransitionInfo>>,
    #[serde(flatten)]
    file: Option<FileOfRow>,
}

/// The file of a row.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FileOfRow {
    path: String,
    /// The path's bytes in Base64, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// The blob that matches: the new one, or the one that was there before.
    blob: String,
}

/// A file that matches where it did not, or the other way round.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TransitionInfo {
    /// `appeared` or `gone`.
    #[schema(value_type = String, example = "appeared")]
    transition: &'static str,
    #[serde(flatten)]
    file: FileOfRow,
}

/// A commit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryCommitInfo {
    hash: String,
    subject: String,
    author: PersonInfo,
    /// When it was committed, in RFC 3339.
    committed_at: String,
    /// How many of its files match.
    matching_files: u64,
}

/// A branch or tag.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryRefInfo {
    name: String,
    hash: String,
    /// How many of its files match.
    matching_files: u64,
}

/// Ask about a repository's history
///
/// Which commits contain something, since when and until when, and on which branches it is now.
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/search/history", tag = "search", operation_id = "searchHistory",
    params(("id" = String, Path, description = "The repository, percent-encoded"), HistoryParams),
    responses((status = 200, description = "The answer", body = HistoryResponse)),
)]
pub(in crate::http) async fn history(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    OriginalUri(uri): OriginalUri,
    Params(params): Params<HistoryParams>,
) -> Result<Response, Problem> {
    let limit = page::limit(params.limit)?;
    let worker = Arc::clone(&app);
    let answered = app.work.run_in_turn(move || params.answer(&worker, &repo, limit)).await?;
    let response = answered?;
    Ok(page::with_next(answer::ok(&response), &uri, response.next_cursor.as_deref()))
}

impl HistoryParams {
    fn answer(&self, app: &App, repo: &Repo, limit: usize) -> Result<HistoryResponse, Problem> {
        let begun = Instant::now();
        let deadline = Some(app.work.deadline());
        let request = Request::new(&self.q, self.cursor.as_deref(), self.at.as_deref(), Some(SearchKind::File))?;
        let (snapshot, at) = request.snapshot(repo, deadline)?;
        let options = HistoryOptions {
            list: match self.list {
                List::Events => HistoryList::Events,
                List::Files => HistoryList::Files,
                List::Commits => HistoryList::Commits,
            },
            rows_max: limit,
            oldest_first: self.order == Order::Oldest,
            all_parents: self.all_parents,
            with_tags: self.tags,
            cursor: request.cursor().map(HistoryCursor::decode).transpose()?,
            deadline,
        };
        let found = ask(&app.search.corpus(), &snapshot, &request.query, &options)?;
        let next_cursor = found.next.as_ref().map(|next| request.cursor_at(at, next.encode()));
        Ok(HistoryResponse::new(self, found, snapshot.version().number, begun, next_cursor))
    }
}

impl HistoryResponse {
    fn new(
        params: &HistoryParams,
        found: HistoryAnswer,
        version: u64,
        begun: Instant,
        next_cursor: Option<String>,
    ) -> Self {
        let refs = |refs: Vec<HistoryRef>| refs.into_iter().map(HistoryRefInfo::from).collect();
        Self {
            list: params.list,
            results: match found.rows {
                HistoryRows::Events(events) => events.into_iter().map(RowInfo::event).collect(),
                HistoryRows::Files(files) => {
                    files.into_iter().map(|(commit, file)| RowInfo::file(commit, file)).collect()
                }
                HistoryRows::Commits(commits) => commits.into_iter().map(RowInfo::commit).collect(),
            },
            total: found.total_rows,
            first: found.first.map(HistoryCommitInfo::from),
            last: found.last.map(HistoryCommitInfo::from),
            total_commits: found.total_commits,
            branches: refs(found.branches),
            total_branches: found.total_branches,
            total_tags: params.tags.then_some(found.total_tags),
            tags: params.tags.then(|| refs(found.tags)),
            version,
            commits_searched: found.explain.commits,
            commits_read: found.explain.commits_read,
            took_ms: took_ms(begun),
            partial: found.partial.map(PartialInfo::from),
            next_cursor,
        }
    }
}

impl RowInfo {
    fn commit(commit: HistoryCommit) -> Self {
        Self { commit: commit.into(), transition: None, files: None, file: None }
    }

    fn event(event: HistoryEvent) -> Self {
        let files = event.files.into_iter().map(TransitionInfo::from).collect();
        Self { transition: Some(word(event.transition)), files: Some(files), ..Self::commit(event.commit) }
    }

    fn file(commit: HistoryCommit, file: FileTransition) -> Self {
        let TransitionInfo { transition, file } = file.into();
        Self { transition: Some(transition), file: Some(file), ..Self::commit(commit) }
    }
}

fn word(transition: Transition) -> &'static str {
    match transition {
        Transition::Appeared => "appeared",
        Transition::Gone => "gone",
    }
}

impl From<FileTransition> for TransitionInfo {
    fn from(file: FileTransition) -> Self {
        let (path, path_base64) = answer::lossy(&file.path);
        let file_of_row = FileOfRow { path, path_base64, blob: file.blob.to_string() };
        Self { transition: word(file.transition), file: file_of_row }
    }
}

impl From<HistoryCommit> for HistoryCommitInfo {
    fn from(commit: HistoryCommit) -> Self {
        Self {
            hash: commit.oid.to_string(),
            subject: commit.subject,
            author: PersonInfo::from(&commit.author),
            committed_at: Moment { seconds: commit.committed_seconds, offset_minutes: 0 }.to_text(),
            matching_files: commit.files,
        }
    }
}

impl From<HistoryRef> for HistoryRefInfo {
    fn from(found: HistoryRef) -> Self {
        Self { name: found.name.short().into_owned(), hash: found.commit.to_string(), matching_files: found.files }
    }
}
