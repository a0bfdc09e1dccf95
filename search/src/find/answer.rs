//! What a search answers: the files of a page with their lines, how many there are, and what was left out.

use std::{ops::Range, time::Duration};

use govc_engine::{Oid, Result};

use super::{
    cursor::{Cursor, WindowEnd},
    file::{File, Matches},
    plan::{Plan, Reported},
    scan::{Ground, Position},
};
use crate::{groups::Groups, importance::Tier, index::BlobNo, language::Language, line::GrepLine, place::Place};

/// Spans of one line that are shown.
const LINE_SPANS_MAX: usize = 1000;
/// Matches of one file whose places are kept, of all patterns together.
const SPANS_MAX: usize = 1000;
/// Files of any window.
pub(super) const WINDOW_FILES_MAX: usize = 1000;

/// What was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The files of the page, the best first.
    pub files: Vec<FileHit>,
    /// How many files match, as far as was counted, with the pages in front.
    pub total_files: u64,
    /// How many matches they have in their contents.
    pub total_matches: u64,
    /// Whether the totals are those of everything that was to be searched.
    pub is_exact: bool,
    /// Files that are taken to define nothing because their definitions cannot be told: too large, too slow to parse, or
    /// dangerous to.
    pub untold_files: u64,
    /// What was counted, by repository, language and path.
    pub facets: Facets,
    /// Why not everything was searched, if that is so for another reason than the page's end.
    pub partial: Option<Partial>,
    /// Where the next page begins, if there may be one.
    pub next: Option<Cursor>,
    /// How the answer was found.
    pub explain: Explain,
}

/// Why an answer is not all of it. What comes behind [`Found::next`] was not searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partial {
    /// The time was over.
    Deadline,
    /// The query's own `count:` was reached.
    Count,
    /// Some of many repositories, or of their files, could not be read.
    Unreadable,
    /// The page became too large and ends early, or, if it is a single file, without some of its lines.
    Size,
}

impl Partial {
    /// The reason as one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Partial::Deadline => "deadline",
            Partial::Count => "count",
            Partial::Unreadable => "unreadable",
            Partial::Size => "size",
        }
    }
}

/// A file that matches.
#[derive(Debug, Clone)]
pub struct FileHit {
    /// The repository's name.
    pub repo: String,
    /// What was asked for.
    pub rev: String,
    /// The commit.
    pub commit: Oid,
    /// The path as stored.
    pub path: Vec<u8>,
    /// The blob.
    pub blob: Oid,
    /// Its size in bytes.
    pub size: u64,
    /// Its language, if it is known.
    pub language: Option<Language>,
    /// How good the match is, compared with others of the same answer.
    pub score: f64,
    /// Matches in the content.
    pub match_count: u64,
    /// The first lines that match.
    pub lines: Vec<GrepLine>,
    /// Where patterns match in the path, in bytes.
    pub path_matches: Vec<Range<usize>>,
}

/// Files by what they are.
#[derive(Debug, Clone, Default)]
pub struct Facets {
    /// By repository.
    pub repositories: Groups,
    /// By language; `Other` if it is not known.
    pub languages: Groups,
    /// By the first directories of their path, each with its slash; empty for those in the root.
    pub paths: Groups,
}

impl Facets {
    fn add(&mut self, repo: &str, path_depth: usize, file: &Ranked) {
        self.repositories.add(repo, file.match_count);
        self.languages.add(file.language.map_or("Other", Language::name), file.match_count);
        let path = &file.position.path;
        let top = memchr::memchr_iter(b'/', path).take(path_depth).last().map_or(0, |slash| slash + 1);
        self.paths.add(&String::from_utf8_lossy(path.get(..top).unwrap_or_default()), file.match_count);
    }
}

/// A file that matches, before it is shown.
pub(super) struct Ranked {
    pub(super) position: Position,
    pub(super) blob: BlobNo,
    size: u64,
    language: Option<Language>,
    score: f64,
    match_count: u64,
    spans: Vec<Range<u64>>,
    path_matches: Vec<Range<usize>>,
}

impl Ranked {
    /// Takes what matched in a file, which is matched against all `reported` patterns, or what `select:` has `reduced` it to.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn new(
        position: Position,
        file: &mut File<'_>,
        reported: &[Reported],
        plan: &Plan,
        language: Option<Language>,
        reduced: Option<Matches>,
    ) -> Result<Self> {
        let (mut match_count, mut spans, mut path_matches, mut score) = (0, Vec::new(), Vec::new(), 0.0);
        let name_start = position.path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        for what in reported {
            let found = match what {
                Reported::Content(number) => file.matches(*number)?,
                Reported::Symbol(number) => file.definitions(*number, language)?,
            };
            match_count += found.count;
            spans.extend(found.spans.iter().cloned());
            score += if found.is_word { 40.0 } else { 0.0 } + if found.is_exact { 20.0 } else { 0.0 };
        }
        for matcher in &plan.patterns {
            matcher.matches(&position.path, |found| {
                let is_name = found.start >= name_start;
                let covers = found.len() as f64 / (position.path.len() - name_start).max(1) as f64;
                score += if is_name { 30.0 + 60.0 * covers.min(1.0) } else { 5.0 };
                path_matches.push(found);
                false
            });
        }
        if let Some(reduced) = reduced {
            (match_count, spans) = (reduced.count, reduced.spans);
            path_matches.clear();
        }
        spans.sort_by_key(|span| (span.start, span.end));
        spans.truncate(SPANS_MAX);
        score += (1.0 + match_count as f64).ln() * 4.0;
        score += match position.tier {
            Tier::Source => 60.0,
            Tier::Text => 30.0,
            Tier::Test => 15.0,
            Tier::Foreign => 0.0,
        };
        path_matches.sort_by_key(|span| (span.start, span.end));
        let (blob, size) = (file.blob(), file.size()?);
        Ok(Self { position, blob, size, language, score, match_count, spans, path_matches })
    }
}

impl Ranked {
    /// Whether it has matches in its content; of where its path matches, nothing is shown then.
    pub(super) fn is_by_content(&mut self) -> bool {
        self.path_matches.clear();
        self.match_count > 0
    }
}

/// The files that are ranked together, and what is counted.
pub(super) struct Window {
    pub(super) files: Vec<Ranked>,
    pub(super) total_files: u64,
    pub(super) total_matches: u64,
    pub(super) facets: Facets,
    /// Files whose contents were looked at.
    pub(super) files_read: u64,
    /// Files whose definitions were asked for and cannot be told.
    pub(super) untold: u64,
    /// Whether the scan came to its end.
    pub(super) is_whole: bool,
    /// The last file that was looked at.
    pub(super) last: Option<Position>,
    /// Whether files behind the window match.
    is_exceeded: bool,
    /// Whether the scan went beyond the end of a window that was seen before.
    pub(super) is_behind_end: bool,
    begun_at: (u64, u64),
    /// How many directories the facet of paths has.
    path_depth: usize,
}

impl Window {
    pub(super) fn new(cursor: Option<&Cursor>, path_depth: usize) -> Self {
        let begun_at = cursor.map_or((0, 0), |cursor| (cursor.files_before, cursor.matches_before));
        Self {
            files: Vec::new(),
            total_files: 0,
            total_matches: 0,
            facets: Facets::default(),
            files_read: 0,
            untold: 0,
            is_whole: false,
            last: None,
            is_exceeded: false,
            is_behind_end: false,
            begun_at,
            path_depth,
        }
    }

    /// Counts a file, and keeps it if it is in the window that the cursor names; whether the window is full.
    pub(super) fn add(&mut self, ranked: Ranked, repo: &str, window_max: usize, cursor: Option<&Cursor>) -> bool {
        self.total_files = self.total_files.saturating_add(1);
        self.total_matches = self.total_matches.saturating_add(ranked.match_count);
        self.facets.add(repo, self.path_depth, &ranked);
        let is_before = cursor.and_then(|cursor| cursor.after.as_ref()).is_some_and(|after| ranked.position <= *after);
        let end = cursor.and_then(|cursor| cursor.end.as_ref());
        let is_within = match end {
            // No window that was given was larger, whatever a cursor says.
            Some(end) => ranked.position <= end.position && self.files.len() < WINDOW_FILES_MAX,
            None => self.files.len() < window_max,
        };
        match () {
            () if is_before => {}
            () if is_within => self.files.push(ranked),
            () => self.is_exceeded = true,
        }
        end.is_none() && self.files.len() >= window_max
    }

    /// With what the window ends; without a position, the time was over before there was anything. `None` if the window is
    /// one that was seen before, and the time was over before it was together again.
    fn end(&self, cursor: Option<&Cursor>) -> Option<(Option<Position>, bool)> {
        if let Some(end) = cursor.and_then(|cursor| cursor.end.as_ref()) {
            let is_complete = self.is_whole || self.is_behind_end || self.last.as_ref() >= Some(&end.position);
            return is_complete.then(|| (Some(end.position.clone()), end.is_last));
        }
        let last_file = || self.files.last().map(|file| file.position.clone());
        Some(match () {
            () if self.is_exceeded => (last_file(), false),
            () if self.is_whole => (last_file(), true),
            () => (self.last.clone().max(cursor.and_then(|cursor| cursor.after.clone())), false),
        })
    }

    /// The files of the page, the best of the window first. `None` if the window is not together again.
    pub(super) fn page(&mut self, files_max: usize, cursor: Option<&Cursor>) -> Option<Page> {
        // Files of a part of the window would come in another order than before.
        let (end, is_last) = self.end(cursor)?;
        let matches = self.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.match_count));
        let count = self.files.len();
        self.files.sort_by_cached_key(|file| (std::cmp::Reverse((file.score * 1000.0) as i64), file.position.clone()));
        let begin = cursor.map_or(0, |cursor| cursor.shown as usize).min(count);
        let files = self.files.drain(begin..count.min(begin.saturating_add(files_max))).collect();
        let after = cursor.and_then(|cursor| cursor.after.clone());
        Some(Page { files, is_last, begin, count, matches, after, end, before: self.begun_at })
    }

    /// Files and matches, with those of the windows in front unless `counts_all`, when they are among those counted.
    pub(super) fn totals(&self, counts_all: bool) -> (u64, u64) {
        let (files, matches) = if counts_all { (0, 0) } else { self.begun_at };
        (self.total_files.saturating_add(files), self.total_matches.saturating_add(matches))
    }
}

/// A page of a window.
pub(super) struct Page {
    pub(super) files: Vec<Ranked>,
    /// Whether no window follows.
    pub(super) is_last: bool,
    /// How many files of the window are on the pages in front, and how many it has.
    begin: usize,
    count: usize,
    /// How many matches it has.
    matches: u64,
    /// Behind what it begins, and with what it ends.
    after: Option<Position>,
    end: Option<Position>,
    /// Files and matches of the windows in front.
    before: (u64, u64),
}

impl Page {
    /// Where the next page begins, if this one is its first `files` files, and if there may be one.
    pub(super) fn next(self, files: usize, fingerprint: u64) -> Option<Cursor> {
        let (files_before, matches_before) = self.before;
        let shown = self.begin.saturating_add(files);
        if shown < self.count {
            let end = self.end.map(|position| WindowEnd { position, is_last: self.is_last });
            let shown = u32::try_from(shown).unwrap_or(u32::MAX);
            return Some(Cursor { fingerprint, after: self.after, end, shown, files_before, matches_before });
        }
        (!self.is_last).then(|| Cursor {
            fingerprint,
            after: self.end,
            end: None,
            shown: 0,
            files_before: files_before.saturating_add(self.count as u64),
            matches_before: matches_before.saturating_add(self.matches),
        })
    }
}

impl FileHit {
    /// Shows a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn new(
        place: &Place,
        ranked: Ranked,
        mut file: File<'_>,
        lines_max: usize,
        context_lines: usize,
        budget_bytes: &mut usize,
    ) -> Result<Self> {
        let lines = if lines_max == 0 || ranked.spans.is_empty() {
            Vec::new()
        } else {
            let mut lines =
                Lines { path: &ranked.position.path, lines_max, context_lines, budget_bytes, lines: Vec::new() };
            // Neighbours may be in other parts.
            let parts = if context_lines == 0 { file.parts_with(&ranked.spans) } else { None };
            match parts {
                None => lines.add(&file.whole()?, 0, 1, &ranked.spans),
                Some(parts) => parts.iter().for_each(|part| lines.add(&part.text, part.start, part.line, part.spans)),
            }
            lines.lines
        };
        Ok(Self {
            repo: place.repo.clone(),
            rev: place.rev.clone(),
            commit: place.commit,
            blob: file.oid(),
            size: ranked.size,
            language: ranked.language,
            score: (ranked.score * 10.0).round() / 10.0,
            match_count: ranked.match_count,
            lines,
            path_matches: ranked.path_matches,
            path: ranked.position.path,
        })
    }
}

/// The first lines of a file that have matches, as far as the budget goes.
struct Lines<'a> {
    path: &'a [u8],
    lines_max: usize,
    context_lines: usize,
    budget_bytes: &'a mut usize,
    lines: Vec<GrepLine>,
}

impl Lines<'_> {
    /// Adds those of a part of the file, which begins at byte `begin` and line `number`; `spans` are in order.
    fn add(&mut self, data: &[u8], begin: u64, mut number: u64, spans: &[Range<u64>]) {
        let mut start = 0_usize;
        let place = |at: u64| usize::try_from(at.saturating_sub(begin)).unwrap_or(usize::MAX);
        let mut spans = spans.iter().map(|span| place(span.start)..place(span.end)).peekable();
        while let Some(first) = spans.peek().cloned().filter(|span| span.start < data.len())
            && self.lines.len() < self.lines_max
            && *self.budget_bytes > 0
        {
            // From the line before to the one that the match is in.
            let between = data.get(start..first.start).unwrap_or_default();
            number += memchr::memchr_iter(b'\n', between).count() as u64;
            start += memchr::memrchr(b'\n', between).map_or(0, |newline| newline + 1);
            let rest = data.get(start..).unwrap_or_default();
            let end = memchr::memchr(b'\n', rest).map_or(data.len(), |length| start + length);
            let mut inside: Vec<Range<usize>> = Vec::new();
            while let Some(span) = spans.next_if(|span| span.start <= end) {
                let span = span.start - start..span.end.min(end) - start;
                // Several patterns may match at one place.
                if inside.last().is_none_or(|last| last.end <= span.start) && inside.len() < LINE_SPANS_MAX {
                    inside.push(span);
                }
            }
            let line = GrepLine::new(self.path, data, start, number, &inside, self.context_lines);
            *self.budget_bytes = self.budget_bytes.saturating_sub(line.weight_bytes());
            if *self.budget_bytes == 0 {
                break;
            }
            self.lines.push(line);
            start = (end + 1).min(data.len());
            number += 1;
        }
    }
}

/// How an answer was found.
#[derive(Debug, Clone)]
pub struct Explain {
    /// What the index said of each pattern.
    pub patterns: Vec<ExplainPattern>,
    /// Files in the places that were searched.
    pub files_in_scope: u64,
    /// Files whose paths and index entries were looked at one by one.
    pub files_seen: u64,
    /// Files whose contents were looked at.
    pub files_read: u64,
    /// What asking the index took.
    pub index_time: Duration,
    /// What all of it took.
    pub time: Duration,
}

/// What the index said of one pattern.
#[derive(Debug, Clone)]
pub struct ExplainPattern {
    /// The text or regular expression.
    pub pattern: String,
    /// What the index was asked.
    pub grams: String,
    /// Distinct contents, of those that were searched, in which it may match; `None` if the index was not asked or cannot
    /// tell, or [`counts_candidates`](super::FindOptions::counts_candidates) is not set.
    pub candidates: Option<usize>,
}

impl Explain {
    pub(super) fn new(
        plan: &Plan,
        candidates: impl Iterator<Item = Option<usize>>,
        grounds: &[Ground],
        counts: (u64, u64),
        times: (Duration, Duration),
    ) -> Self {
        let patterns = plan.sources.iter().zip(&plan.patterns).zip(candidates);
        Self {
            patterns: patterns
                .map(|((source, matcher), candidates)| ExplainPattern {
                    pattern: source.text.clone(),
                    grams: matcher.grams().to_string(),
                    candidates,
                })
                .collect(),
            files_in_scope: grounds.iter().fold(0, |sum, ground| u64::saturating_add(sum, ground.root.files())),
            files_seen: counts.0,
            files_read: counts.1,
            index_time: times.0,
            time: times.1,
        }
    }
}
