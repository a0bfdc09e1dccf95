//! Searching the files of one commit line by line, with ripgrep's own matcher and searcher.
//!
//! Only regular files are read; symbolic links and submodules are not, and files with a NUL in their first
//! 8000 bytes are binary, by git's rule: counted, never searched. The search stops early, and says why, at the
//! wanted number of lines, at the answer's size, or at the deadline; nothing is ever silently incomplete.

use std::{
    ops::{ControlFlow, Range},
    time::Instant,
};

use govc_engine::{EntryMode, Error, Oid, Result, Snapshot};
use grep_matcher::Matcher as _;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkMatch};

use crate::{
    corpus::Corpus,
    deadline,
    index::is_binary,
    line::{GrepLine, LINE_BYTES_MAX, line_at},
    paths::PathFilter,
    query::Pattern,
    sieve::{Sieve, Verdict},
};

/// Longest accepted pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 64 * 1024;
/// What one compiled pattern may take, in bytes; `\w{1000}{1000}` would take gigabytes.
const REGEX_BYTES_MAX: usize = 8 << 20;
/// What the lazily built automaton of one pattern may take, in bytes.
const DFA_BYTES_MAX: usize = 32 << 20;
/// How deep groups may nest.
const REGEX_DEPTH_MAX: u32 = 100;
/// How many spans of one line are reported; `.` matches each character.
const LINE_SPANS_MAX: usize = 1000;

/// What to look for, where, and when to stop.
#[derive(Debug, Clone)]
pub struct GrepQuery {
    /// The text or regular expression; may not be empty or contain a newline.
    pub pattern: String,
    /// Whether `pattern` is a regular expression (Rust's syntax, never exponential) or a plain text.
    pub regex: bool,
    /// Whether upper and lower case differ.
    pub case_sensitive: bool,
    /// Whether to report the lines that do not match.
    pub invert_match: bool,
    /// Whether a match must begin and end at the edge of a word.
    pub word_regexp: bool,
    /// Whether a match must be the whole line.
    pub line_regexp: bool,
    /// A file, a directory or a glob; empty for all files.
    pub path: String,
    /// How many neighbours to report in front of and behind each line.
    pub context_lines: usize,
    /// After how many lines to leave a file.
    pub file_lines_max: Option<u64>,
    /// After how many lines to stop.
    pub lines_max: usize,
    /// After about how many bytes of answer to stop.
    pub answer_bytes_max: usize,
    /// When to stop.
    pub deadline: Option<Instant>,
}

impl Default for GrepQuery {
    fn default() -> Self {
        Self {
            pattern: String::new(),
            regex: false,
            case_sensitive: true,
            invert_match: false,
            word_regexp: false,
            line_regexp: false,
            path: String::new(),
            context_lines: 0,
            file_lines_max: None,
            lines_max: 1000,
            answer_bytes_max: 16 << 20,
            deadline: None,
        }
    }
}

impl GrepQuery {
    /// Checks the pattern and the path without searching.
    ///
    /// # Errors
    /// Invalid, with the reason, where [`grep()`] would refuse them.
    pub fn check(&self) -> Result<()> {
        self.compile()?;
        PathFilter::new(&self.path).map(drop)
    }

    /// The pattern alone: whatever the other options add only ever leaves lines out.
    pub(crate) fn bare_pattern(&self) -> Pattern {
        Pattern { text: self.pattern.clone(), regex: self.regex, case_sensitive: self.case_sensitive, span: 0..0 }
    }

    fn compile(&self) -> Result<RegexMatcher> {
        if self.pattern.is_empty() {
            return Err(Error::invalid("pattern is empty"));
        }
        if self.pattern.len() > PATTERN_BYTES_MAX {
            return Err(Error::invalid(format!("pattern has more than {PATTERN_BYTES_MAX} bytes")));
        }
        RegexMatcherBuilder::new()
            .fixed_strings(!self.regex)
            .case_insensitive(!self.case_sensitive)
            .word(self.word_regexp)
            .whole_line(self.line_regexp)
            .multi_line(true)
            .line_terminator(Some(b'\n'))
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(DFA_BYTES_MAX)
            .nest_limit(REGEX_DEPTH_MAX)
            .build(&self.pattern)
            .map_err(|error| Error::invalid(format!("pattern is not valid: {error}")))
    }
}

/// Why a search stopped before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// More lines match than were wanted.
    Limit,
    /// The answer reached its size.
    Size,
    /// The deadline passed.
    Deadline,
}

impl Stop {
    /// The reason as one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Stop::Limit => "limit",
            Stop::Size => "size",
            Stop::Deadline => "deadline",
        }
    }
}

/// What was found, in tree order, then by line.
#[derive(Debug, Clone, Default)]
pub struct GrepAnswer {
    /// The lines.
    pub lines: Vec<GrepLine>,
    /// How many files were searched, wholly or up to the stop.
    pub files_searched: u64,
    /// How many wanted files were binary.
    pub binary_skipped: u64,
    /// Why the search ended early; `None` if it saw everything.
    pub stopped: Option<Stop>,
}

/// Searches the files of `commit`. A path that does not exist has no lines. What `corpus` knows not to match is not read;
/// the answer is the same without one.
///
/// # Errors
/// Invalid if the pattern or the path is malformed; not found if `commit` is not a commit of the repository;
/// corrupt or backend if stored data cannot be read.
pub fn grep(snapshot: &Snapshot, commit: Oid, query: &GrepQuery, corpus: Option<&Corpus>) -> Result<GrepAnswer> {
    let matcher = query.compile()?;
    let sieve = corpus.filter(|_| !query.invert_match).and_then(|corpus| Sieve::new(corpus, query));
    let paths = PathFilter::new(&query.path)?;
    let tree = snapshot.commit(&commit)?.tree;
    let mut search = Search {
        snapshot,
        query,
        matcher,
        searcher: SearcherBuilder::new()
            .line_number(true)
            .invert_match(query.invert_match)
            .binary_detection(BinaryDetection::none())
            .bom_sniffing(false)
            .build(),
        paths,
        sieve,
        answer: GrepAnswer::default(),
        answer_bytes: 0,
    };
    let below = search.paths.below().to_vec();
    match snapshot.entry(tree, &below)? {
        None => {}
        Some(entry) if entry.mode.is_tree() => {
            let prefix = if below.is_empty() { Vec::new() } else { [below.as_slice(), b"/"].concat() };
            snapshot.walk_files(entry.oid, &prefix, &mut |path, mode, oid| search.visit(path, mode, oid))?;
        }
        Some(entry) => {
            let _: ControlFlow<()> = search.visit(&below, entry.mode, entry.oid)?;
        }
    }
    Ok(search.answer)
}

/// One search under way.
struct Search<'a> {
    snapshot: &'a Snapshot,
    query: &'a GrepQuery,
    matcher: RegexMatcher,
    searcher: Searcher,
    paths: PathFilter,
    sieve: Option<Sieve<'a>>,
    answer: GrepAnswer,
    answer_bytes: usize,
}

impl Search<'_> {
    fn visit(&mut self, path: &[u8], mode: EntryMode, oid: Oid) -> Result<ControlFlow<()>> {
        if deadline::is_past(self.query.deadline) {
            self.answer.stopped = Some(Stop::Deadline);
            return Ok(ControlFlow::Break(()));
        }
        if !mode.is_blob() || mode == EntryMode::SYMLINK || !self.paths.matches(path) {
            return Ok(ControlFlow::Continue(()));
        }
        match self.sieve.as_ref().map_or(Verdict::Unknown, |sieve| sieve.verdict(&oid)) {
            Verdict::Unknown => {}
            Verdict::NoMatch => {
                self.answer.files_searched += 1;
                return Ok(ControlFlow::Continue(()));
            }
            Verdict::Binary => {
                self.answer.binary_skipped += 1;
                return Ok(ControlFlow::Continue(()));
            }
        }
        let data = self.snapshot.object(&oid)?.data;
        if is_binary(&data) {
            self.answer.binary_skipped += 1;
            return Ok(ControlFlow::Continue(()));
        }
        self.answer.files_searched += 1;
        let file = FileSink {
            query: self.query,
            matcher: &self.matcher,
            path,
            data: &data,
            file_lines: 0,
            answer: &mut self.answer,
            answer_bytes: &mut self.answer_bytes,
        };
        self.searcher
            .search_slice(&self.matcher, &data, file)
            .map_err(|error| Error::invalid(format!("pattern cannot be searched: {error}")))?;
        Ok(match self.answer.stopped {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        })
    }
}

/// Takes the matching lines of one file.
struct FileSink<'a> {
    query: &'a GrepQuery,
    matcher: &'a RegexMatcher,
    path: &'a [u8],
    data: &'a [u8],
    file_lines: u64,
    answer: &'a mut GrepAnswer,
    answer_bytes: &'a mut usize,
}

impl FileSink<'_> {
    fn stop(&mut self, reason: Stop) -> bool {
        self.answer.stopped = Some(reason);
        false
    }

    /// Where in the line the pattern matches, empty matches left out.
    fn spans(&self, start: usize) -> Vec<Range<usize>> {
        let mut spans = Vec::new();
        if self.query.invert_match {
            return spans;
        }
        // The matcher's error type, `NoError`, has no value that anyone can make.
        let _ = self.matcher.find_iter(line_at(self.data, start), |found| {
            if !found.is_empty() {
                spans.push(found.start()..found.end());
            }
            spans.len() < LINE_SPANS_MAX && found.start() < LINE_BYTES_MAX
        });
        spans
    }
}

impl Sink for FileSink<'_> {
    type Error = std::io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> std::io::Result<bool> {
        if self.answer.lines.len() >= self.query.lines_max {
            return Ok(self.stop(Stop::Limit));
        }
        if deadline::is_past(self.query.deadline) {
            return Ok(self.stop(Stop::Deadline));
        }
        let start = usize::try_from(found.absolute_byte_offset()).unwrap_or(self.data.len());
        let number = found.line_number().unwrap_or(0);
        let spans = self.spans(start);
        let line = GrepLine::new(self.path, self.data, start, number, &spans, self.query.context_lines);
        *self.answer_bytes = self.answer_bytes.saturating_add(line.weight_bytes());
        if *self.answer_bytes > self.query.answer_bytes_max {
            return Ok(self.stop(Stop::Size));
        }
        self.answer.lines.push(line);
        self.file_lines += 1;
        Ok(self.query.file_lines_max.is_none_or(|max| self.file_lines < max))
    }
}
