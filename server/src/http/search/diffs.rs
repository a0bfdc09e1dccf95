//! The JSON of searches in diffs: commits with the lines that they added or removed.

use govc_engine::ChangeStatus;
use govc_search::{DiffFile, DiffHit, DiffLine, DiffsFound};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{answer, people::PersonInfo},
    shapes::{AsOfInfo, PartialInfo, RangeInfo, is_zero, spans},
};

/// Commits whose changes match, as `type:diff` finds them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DiffSearchResponse {
    /// How many commits match, as far as was counted: all of them if `exact`.
    total_commits: u64,
    /// How many files of them do.
    total_files: u64,
    /// How many added and removed lines of these do.
    total_lines: u64,
    exact: bool,
    /// The page: the newest first, repository by repository.
    results: Vec<DiffCommitInfo>,
    /// Changed files that may match and were not compared, because they are binary or too large.
    #[serde(skip_serializing_if = "is_zero")]
    skipped_files: u64,
    /// Commits not all of whose files were compared: they change too many, take too long, or cannot be read.
    #[serde(skip_serializing_if = "is_zero")]
    skipped_commits: u64,
    /// What was searched.
    as_of: AsOfInfo,
    took_ms: f64,
    /// Why not everything was searched; absent if nothing but further pages is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<PartialInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A commit whose changes match.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DiffCommitInfo {
    /// The repository's id.
    repo: String,
    /// The branch, tag or commit that was searched.
    #[serde(rename = "ref")]
    rev: String,
    hash: String,
    parents: Vec<String>,
    message: String,
    author: PersonInfo,
    committer: PersonInfo,
    /// How many of its files match.
    total_files: u64,
    /// How many added and removed lines of all of them match.
    total_lines: u64,
    /// Whether all of its files were gone through.
    complete: bool,
    /// The first files that match, changed against the first parent.
    files: Vec<DiffFileInfo>,
}

/// A changed file that matches.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DiffFileInfo {
    path: String,
    /// The path's bytes in Base64, if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_base64: Option<String>,
    /// `added`, `modified` or `deleted`.
    #[schema(value_type = String, example = "modified")]
    status: &'static str,
    /// The blob before.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_hash: Option<String>,
    /// The blob after.
    #[serde(skip_serializing_if = "Option::is_none")]
    new_hash: Option<String>,
    /// How many added lines match.
    added: u64,
    /// How many removed lines match.
    removed: u64,
    /// The first lines that match.
    lines: Vec<DiffLineInfo>,
}

/// An added or removed line.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DiffLineInfo {
    /// `+` or `-`.
    sign: char,
    /// From 1; in the file after if it was added, before if it was removed.
    line_number: u64,
    /// The line without its newline; what is not UTF-8 is replaced.
    content: String,
    /// Whether `content` is only the beginning of a very long line.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    content_truncated: bool,
    /// Where the query matches, in bytes of `content`.
    matches: Vec<RangeInfo>,
}

impl DiffSearchResponse {
    pub(super) fn new(found: DiffsFound, as_of: AsOfInfo, took_ms: f64, next_cursor: Option<String>) -> Self {
        Self {
            total_commits: found.total,
            total_files: found.total_files,
            total_lines: found.total_lines,
            exact: found.is_exact,
            results: found.commits.into_iter().map(DiffCommitInfo::from).collect(),
            skipped_files: found.files_skipped,
            skipped_commits: found.commits_skipped,
            as_of,
            took_ms,
            partial: found.partial.map(PartialInfo::from),
            next_cursor,
        }
    }
}

impl From<DiffHit> for DiffCommitInfo {
    fn from(hit: DiffHit) -> Self {
        Self {
            repo: hit.repo,
            rev: hit.rev,
            hash: hit.oid.to_string(),
            parents: hit.commit.parents.iter().map(ToString::to_string).collect(),
            message: String::from_utf8_lossy(&hit.commit.message).into_owned(),
            author: (&hit.commit.author).into(),
            committer: (&hit.commit.committer).into(),
            total_files: hit.total_files,
            total_lines: hit.total_lines,
            complete: hit.is_whole,
            files: hit.files.into_iter().map(DiffFileInfo::from).collect(),
        }
    }
}

impl From<DiffFile> for DiffFileInfo {
    fn from(file: DiffFile) -> Self {
        let (path, path_base64) = answer::lossy(&file.path);
        Self {
            path,
            path_base64,
            status: match file.status {
                ChangeStatus::Added => "added",
                ChangeStatus::Deleted => "deleted",
                _ => "modified",
            },
            old_hash: file.old.map(|oid| oid.to_string()),
            new_hash: file.new.map(|oid| oid.to_string()),
            added: file.lines_added,
            removed: file.lines_removed,
            lines: file.lines.into_iter().map(DiffLineInfo::from).collect(),
        }
    }
}

impl From<DiffLine> for DiffLineInfo {
    fn from(line: DiffLine) -> Self {
        Self {
            sign: line.sign.as_char(),
            line_number: line.line_number,
            content: line.content,
            content_truncated: line.cut,
            matches: spans(&line.matches),
        }
    }
}
