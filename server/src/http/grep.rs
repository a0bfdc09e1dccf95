//! Grep over HTTP: the request's members become a query, the answer's lines become JSON.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use govc_search::{GrepAnswer, GrepLine, GrepQuery};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    answer,
    extract::JsonBody,
    problem::Problem,
    revision,
    versions::{AtParams, View},
};
use crate::app::App;

/// How many lines are found unless the request says otherwise, and at most.
const LINES_DEFAULT: usize = 1000;
const LINES_MAX: usize = 10_000;
/// How many neighbours a line may have on each side.
const CONTEXT_MAX: usize = 100;

/// What to look for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GrepRequest {
    /// A plain text, or a regular expression if `regex` is set; within one line.
    #[schema(example = "fn main")]
    pattern: String,
    /// A branch, tag or commit; the default branch if absent.
    #[serde(rename = "ref")]
    rev: Option<String>,
    /// A file, a directory, or a glob such as `*.rs` or `src/**/*.rs`; all files if absent.
    path: Option<String>,
    /// True if absent.
    case_sensitive: Option<bool>,
    /// Whether `pattern` is a regular expression; false if absent.
    #[serde(default)]
    regex: bool,
    /// Whether to find the lines that do not match.
    #[serde(default)]
    invert_match: bool,
    /// Whether a match must begin and end at the edge of a word.
    #[serde(default)]
    word_regexp: bool,
    /// Whether a match must be the whole line.
    #[serde(default)]
    line_regexp: bool,
    /// How many lines to show in front of and behind each; at most 100.
    #[serde(default)]
    context: usize,
    /// After how many lines to leave a file.
    max_count: Option<u64>,
    /// After how many lines to stop; 1000 if absent, at most 10000.
    limit: Option<usize>,
}

/// The lines that were found, in the order of files and lines.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GrepResponse {
    /// How many lines there are in `results`; if `truncated`, there may be more to find.
    total: usize,
    results: Vec<LineInfo>,
    /// Whether the search ended before it had seen everything.
    truncated: bool,
    /// Why: `limit`, `size` (the answer grew too large) or `deadline`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "limit")]
    reason: Option<&'static str>,
    /// What was searched, as the request said it, or the default branch.
    #[serde(rename = "ref")]
    rev: String,
    /// The commit that it was.
    commit: String,
    files_searched: u64,
    /// How many files were left out because they are binary.
    binary_skipped: u64,
}

/// A line.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LineInfo {
    path: String,
    /// The path's bytes in Base64, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// From 1.
    line_number: u64,
    /// Where the first match begins, in bytes from 1.
    column: usize,
    /// The line without its newline; what is not UTF-8 is replaced.
    content: String,
    /// Whether `content` is only the beginning of a very long line.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    content_truncated: bool,
    /// The lines in front.
    before: Vec<String>,
    /// The lines behind.
    after: Vec<String>,
    matches: Vec<SpanInfo>,
}

/// A match within a line, in bytes of its `content`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SpanInfo {
    start: usize,
    /// The byte behind the last.
    end: usize,
}

/// Search the files of a commit
#[utoipa::path(
    post, path = "/api/v1/repos/{id}/grep", tag = "search", operation_id = "grep",
    params(("id" = String, Path, description = "The repository, percent-encoded"), AtParams),
    request_body = GrepRequest,
    responses((status = 200, description = "The lines", body = GrepResponse)),
)]
pub(super) async fn grep(
    State(app): State<Arc<App>>,
    View(snapshot): View,
    JsonBody(request, _held): JsonBody<GrepRequest>,
) -> Result<Response, Problem> {
    let rev = request.rev.clone().unwrap_or_else(|| snapshot.head().short().into_owned());
    let commit = revision::commit(&app, &snapshot, request.rev.as_deref().unwrap_or("HEAD")).await?;
    let query = GrepQuery { deadline: Some(app.work.deadline()), ..request.query()? };
    let corpus = app.search.corpus();
    let answer = app.work.run_in_turn(move || govc_search::grep(&snapshot, commit, &query, Some(&corpus))).await??;
    Ok(answer::ok(&GrepResponse::new(rev, commit.to_string(), answer)))
}

impl GrepRequest {
    fn query(self) -> Result<GrepQuery, Problem> {
        if self.context > CONTEXT_MAX {
            return Err(Problem::invalid(format!("context is at most {CONTEXT_MAX}")));
        }
        if self.max_count == Some(0) || self.limit == Some(0) {
            return Err(Problem::invalid("max_count and limit are at least 1"));
        }
        let query = GrepQuery {
            pattern: self.pattern,
            regex: self.regex,
            case_sensitive: self.case_sensitive.unwrap_or(true),
            invert_match: self.invert_match,
            word_regexp: self.word_regexp,
            line_regexp: self.line_regexp,
            path: self.path.unwrap_or_default(),
            context_lines: self.context,
            file_lines_max: self.max_count,
            lines_max: self.limit.unwrap_or(LINES_DEFAULT).min(LINES_MAX),
            ..GrepQuery::default()
        };
        Ok(query)
    }
}

impl GrepResponse {
    fn new(rev: String, commit: String, answer: GrepAnswer) -> Self {
        Self {
            total: answer.lines.len(),
            truncated: answer.stopped.is_some(),
            reason: answer.stopped.map(govc_search::Stop::as_str),
            rev,
            commit,
            files_searched: answer.files_searched,
            binary_skipped: answer.binary_skipped,
            results: answer.lines.into_iter().map(LineInfo::from).collect(),
        }
    }
}

impl From<GrepLine> for LineInfo {
    fn from(line: GrepLine) -> Self {
        let (path, path_base64) = answer::lossy(&line.path);
        Self {
            path,
            path_base64,
            line_number: line.line_number,
            column: line.column,
            content: line.content,
            content_truncated: line.cut,
            before: line.before,
            after: line.after,
            matches: line.matches.iter().map(|span| SpanInfo { start: span.start, end: span.end }).collect(),
        }
    }
}
