//! The JSON of searches: what the crate `search` found, as clients read it.

use std::time::Instant;

use govc_search::{
    CommitHit, CommitsFound, Explain, Facets, FileHit, Found, GrepLine, Groups, IndexerState, MatchSpan, Partial,
    Place, SearchStatus, language::Language, query::Query,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::{answer, people::PersonInfo, time::Moment};

/// Values of a facet that are shown.
const FACET_VALUES_MAX: usize = 20;
/// How many searched commits an answer names.
const PLACES_SHOWN: usize = 100;

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchResponse {
    /// How many files match, as far as was counted: all of them if `exact`.
    total_files: u64,
    /// How many matches they have in their contents.
    total_matches: u64,
    /// Whether the totals are those of everything that was to be searched; `count:all` in the query makes them so.
    exact: bool,
    /// Files that are taken to define nothing (`sym:`) because their definitions cannot be told: too large, too slow or
    /// dangerous to parse.
    #[serde(skip_serializing_if = "is_zero")]
    undefined_files: u64,
    /// The page: the best first.
    results: Vec<FileInfo>,
    /// Files that were counted, by what they are.
    facets: FacetsInfo,
    /// What was searched.
    as_of: AsOfInfo,
    /// How long it took, in milliseconds.
    took_ms: f64,
    /// Why not everything was searched; absent if nothing but further pages is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<PartialInfo>,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// How the answer was found, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<ExplainInfo>,
}

/// Milliseconds since `begun`, to the microsecond.
pub(super) fn took_ms(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

pub(super) fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A file that matches.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FileInfo {
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
    /// How good the match is, compared with others of the same answer.
    score: f64,
    /// How many matches the content has.
    match_count: u64,
    /// Where the query matches in the path, in bytes.
    path_matches: Vec<RangeInfo>,
    /// The first lines that match.
    lines: Vec<FoundLineInfo>,
}

/// A line that matches.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FoundLineInfo {
    /// From 1.
    line_number: u64,
    /// The line without its newline; what is not UTF-8 is replaced.
    content: String,
    /// Whether `content` is only the beginning of a very long line.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    content_truncated: bool,
    /// Where the query matches, in bytes of `content`.
    matches: Vec<RangeInfo>,
    /// The lines in front.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    before: Vec<String>,
    /// The lines behind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<String>,
}

/// A range of bytes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RangeInfo {
    start: usize,
    /// The byte behind the last.
    end: usize,
}

/// Counts of what was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FacetsInfo {
    repository: Vec<FacetInfo>,
    language: Vec<FacetInfo>,
    /// By the first directory; empty for the root.
    path: Vec<FacetInfo>,
    /// Files that one of these does not count, because it has more than 10 000 values.
    #[serde(skip_serializing_if = "is_zero")]
    others: u64,
}

/// A value and how many files have it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FacetInfo {
    value: String,
    files: u64,
}

/// What was searched.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct AsOfInfo {
    /// When, in RFC 3339 with milliseconds: what was acknowledged before is in the answer.
    time: String,
    /// How many commits.
    commits_total: usize,
    /// The first hundred of them.
    commits: Vec<PlaceInfo>,
    /// Whether repositories were left out because they cannot be read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unreadable: bool,
}

/// A commit that was searched.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct PlaceInfo {
    repo: String,
    #[serde(rename = "ref")]
    rev: String,
    commit: String,
    /// The repository's version.
    version: u64,
}

/// What was left out and why.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PartialInfo {
    /// `deadline`: the time was over; `count`: the query's own `count:` was reached; `size`: the page became too large and
    /// ends early; `unreadable`: some of many repositories or files could not be read.
    #[schema(value_type = String, example = "deadline")]
    reason: &'static str,
    /// What to do.
    detail: &'static str,
}

/// How an answer was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainInfo {
    /// The query as it was understood.
    query: String,
    patterns: Vec<ExplainPatternInfo>,
    /// Files in the commits that were searched.
    files_in_scope: u64,
    /// Files that were looked at one by one.
    files_seen: u64,
    /// Files whose contents were looked at.
    files_read: u64,
    /// What asking the index took, in milliseconds.
    index_ms: f64,
}

/// What the index said of a pattern.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExplainPatternInfo {
    pattern: String,
    /// The condition on trigrams that the index was asked for.
    grams: String,
    /// In how many distinct files of those that were searched it may match; absent if the index cannot tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate_files: Option<usize>,
}

/// Commits that were found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CommitSearchResponse {
    /// How many commits match, as far as was counted: all of them if `exact`.
    total_commits: u64,
    exact: bool,
    /// The page: newest first.
    results: Vec<CommitInfo>,
    as_of: AsOfInfo,
    took_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<PartialInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A commit that matches.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FoundCommit)]
pub(crate) struct CommitInfo {
    repo: String,
    #[serde(rename = "ref")]
    rev: String,
    hash: String,
    parents: Vec<String>,
    message: String,
    /// Where the query matches in the message, in bytes of the message as stored.
    message_matches: Vec<RangeInfo>,
    author: PersonInfo,
    committer: PersonInfo,
}

/// How the search is doing.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SearchStatisticsInfo {
    /// `building` while it goes over everything that there is; `following` what is published; `disabled` without an index.
    #[schema(value_type = String, example = "following")]
    state: &'static str,
    /// While building: repositories that are done, of how many.
    repositories_done: u64,
    repositories_total: u64,
    /// Publications that are not indexed yet; what they brought is searched without the index.
    behind: u64,
    /// Whether another index is being made to take this one's place.
    rebuilding: bool,
    /// How often it was made anew since the server was started.
    rebuilds: u64,
    /// Files that are indexed, each content once.
    files: u64,
    /// Pieces of text, each content once.
    chunks: u64,
    segments: u64,
    /// What the files would take if nothing were shared.
    raw_bytes: u64,
    /// What the pieces take.
    text_bytes: u64,
    /// What the index of them takes.
    index_bytes: u64,
    /// Commits of which is known, without reading them, which files are in them (`search/history`).
    history_commits: u64,
    /// What that takes on the disk.
    history_bytes: u64,
    /// Whether that has reached its limit in memory: commits that come now are read when they are asked about.
    history_full: bool,
    /// Files of tips whose definitions are recorded (`sym:`); others are parsed when they are asked about.
    symbol_files: u64,
    /// Definitions of these files.
    symbols: u64,
    /// What that takes on the disk.
    symbol_bytes: u64,
    /// Whether the files of all tips have been gone through.
    symbols_complete: bool,
    /// Commits whose messages are indexed.
    messages: u64,
    /// What these messages take, with their authors.
    message_bytes: u64,
    /// What all of that takes of the server's memory, without mapped files.
    memory_bytes: u64,
    /// Repositories whose contents could not be read when they were to be indexed.
    unreadable: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// A rebuild that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RebuildInfo {
    /// `started`, or `running` if one was under way.
    #[schema(value_type = String, example = "started")]
    pub(super) state: &'static str,
}

impl SearchResponse {
    pub(super) fn new(
        found: Found,
        as_of: AsOfInfo,
        took_ms: f64,
        next_cursor: Option<String>,
        explain: Option<ExplainInfo>,
    ) -> Self {
        Self {
            total_files: found.total_files,
            total_matches: found.total_matches,
            exact: found.is_exact,
            undefined_files: found.untold_files,
            facets: FacetsInfo::from(&found.facets),
            results: found.files.into_iter().map(FileInfo::from).collect(),
            as_of,
            took_ms,
            partial: found.partial.map(PartialInfo::from),
            next_cursor,
            explain,
        }
    }
}

impl CommitSearchResponse {
    pub(super) fn new(found: CommitsFound, as_of: AsOfInfo, took_ms: f64, next_cursor: Option<String>) -> Self {
        Self {
            total_commits: found.total,
            exact: found.is_exact,
            results: found.commits.into_iter().map(CommitInfo::from).collect(),
            as_of,
            took_ms,
            partial: found.partial.map(PartialInfo::from),
            next_cursor,
        }
    }
}

impl From<&Facets> for FacetsInfo {
    fn from(facets: &Facets) -> Self {
        let facet = |groups: &Groups| {
            let groups = groups.largest(FACET_VALUES_MAX).into_iter();
            groups.map(|group| FacetInfo { value: group.value, files: group.results }).collect()
        };
        Self {
            repository: facet(&facets.repositories),
            language: facet(&facets.languages),
            path: facet(&facets.paths),
            others: facets.repositories.others().max(facets.paths.others()),
        }
    }
}

impl From<Partial> for PartialInfo {
    fn from(partial: Partial) -> Self {
        let detail = match partial {
            Partial::Deadline => "the time was over before everything was searched; next_cursor goes on from there",
            Partial::Count => "the number of results that the query asks for was reached",
            Partial::Size => "the page became too large: it ends early, or lines of its only file are left out",
            Partial::Unreadable => "some repositories, or files of them, could not be read and are left out",
        };
        Self { reason: partial.as_str(), detail }
    }
}

impl From<FileHit> for FileInfo {
    fn from(file: FileHit) -> Self {
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
            score: file.score,
            match_count: file.match_count,
            path_matches: ranges(file.path_matches),
            lines: file.lines.into_iter().map(FoundLineInfo::from).collect(),
        }
    }
}

impl From<GrepLine> for FoundLineInfo {
    fn from(line: GrepLine) -> Self {
        Self {
            line_number: line.line_number,
            content: line.content,
            content_truncated: line.cut,
            matches: spans(&line.matches),
            before: line.before,
            after: line.after,
        }
    }
}

impl From<CommitHit> for CommitInfo {
    fn from(hit: CommitHit) -> Self {
        Self {
            repo: hit.repo,
            rev: hit.rev,
            hash: hit.oid.to_string(),
            parents: hit.commit.parents.iter().map(ToString::to_string).collect(),
            message: String::from_utf8_lossy(&hit.commit.message).into_owned(),
            message_matches: ranges(hit.message_matches),
            author: (&hit.commit.author).into(),
            committer: (&hit.commit.committer).into(),
        }
    }
}

/// Matches within a line.
pub(super) fn spans(spans: &[MatchSpan]) -> Vec<RangeInfo> {
    spans.iter().map(|span| RangeInfo { start: span.start, end: span.end }).collect()
}

fn ranges(ranges: Vec<std::ops::Range<usize>>) -> Vec<RangeInfo> {
    ranges.into_iter().map(|range| RangeInfo { start: range.start, end: range.end }).collect()
}

impl AsOfInfo {
    pub(super) fn new(now_millis: i64, places: &[Place], unreadable: bool) -> Self {
        let info = |place: &Place| PlaceInfo {
            repo: place.repo.clone(),
            rev: place.rev.clone(),
            commit: place.commit.to_string(),
            version: place.snapshot.version().number,
        };
        Self {
            time: Moment::text_of_millis(now_millis),
            commits_total: places.len(),
            commits: places.iter().take(PLACES_SHOWN).map(info).collect(),
            unreadable,
        }
    }
}

impl ExplainInfo {
    pub(super) fn new(query: &Query, explain: &Explain) -> Self {
        Self {
            query: query.to_string(),
            patterns: explain
                .patterns
                .iter()
                .map(|pattern| ExplainPatternInfo {
                    pattern: pattern.pattern.clone(),
                    grams: pattern.grams.clone(),
                    candidate_files: pattern.candidates,
                })
                .collect(),
            files_in_scope: explain.files_in_scope,
            files_seen: explain.files_seen,
            files_read: explain.files_read,
            index_ms: (explain.index_time.as_secs_f64() * 1e6).round() / 1e3,
        }
    }
}

impl SearchStatisticsInfo {
    pub(super) fn new(status: SearchStatus, is_indexing: bool, newest: u64) -> Self {
        let memory_bytes = status.resident_bytes();
        let SearchStatus { indexer, rebuild, rebuilds, figures, presence, symbols, last_error, .. } = status;
        Self {
            state: match indexer.state {
                _ if !is_indexing => "disabled",
                IndexerState::Building => "building",
                IndexerState::Following => "following",
            },
            repositories_done: indexer.repos.0,
            repositories_total: indexer.repos.1,
            behind: newest.saturating_sub(indexer.position.0),
            rebuilding: rebuild.is_some(),
            rebuilds,
            files: figures.blobs,
            chunks: figures.chunks,
            segments: figures.segments,
            raw_bytes: figures.raw_bytes,
            text_bytes: figures.text_bytes,
            index_bytes: figures.gram_bytes + figures.log_bytes,
            history_commits: presence.commits,
            history_bytes: presence.stored_bytes,
            history_full: presence.is_full,
            symbol_files: symbols.files,
            symbols: symbols.symbols,
            symbol_bytes: symbols.stored_bytes,
            symbols_complete: symbols.is_complete,
            messages: figures.messages,
            message_bytes: figures.message_bytes,
            memory_bytes,
            unreadable: indexer.unreadable,
            last_error: last_error.or(indexer.last_error),
        }
    }
}
