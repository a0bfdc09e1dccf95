//! A pattern of a query, compiled: what it matches in a text, and what the index knows about where.

use std::ops::Range;

use govc_engine::{Error, Result};
use grep_matcher::Matcher as _;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use regex_syntax::{
    ParserBuilder,
    hir::{Hir, Look},
};

use super::runs::Run;
use crate::{index::GramQuery, query::Pattern};

/// What one compiled pattern may take, in bytes: `\w{100}` does; `\w{1000}{1000}` would take gigabytes.
const REGEX_BYTES_MAX: usize = 8 << 20;
/// What the lazily built automaton of one pattern may take, in bytes.
const DFA_BYTES_MAX: usize = 4 << 20;
/// How deep groups may nest.
const NEST_MAX: u32 = 100;

/// A compiled pattern. It matches within lines, never across them.
pub(crate) struct Matcher {
    regex: RegexMatcher,
    grams: GramQuery,
    /// Whether it speaks of the beginning or end of the file, so that chunks cannot be searched one by one.
    is_whole: bool,
    speaks_of_edges: bool,
    name_part: Option<NamePart>,
    /// A run that each match has, of a pattern that neither the index nor a text in it helps to find.
    run: Option<Run>,
}

/// A text that any name in which the pattern matches has in it.
pub(crate) struct NamePart {
    finder: memchr::memmem::Finder<'static>,
    ignores_case: bool,
}

impl Matcher {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// Invalid if it is malformed or too large.
    pub(crate) fn new(pattern: &Pattern) -> Result<Self> {
        let invalid =
            |error: &dyn std::fmt::Display| Error::invalid(format!("pattern {:?} is not valid: {error}", pattern.text));
        let source = if pattern.regex { pattern.text.clone() } else { regex_syntax::escape(&pattern.text) };
        let hir = ParserBuilder::new()
            .utf8(false)
            .multi_line(true)
            .case_insensitive(!pattern.case_sensitive)
            .nest_limit(NEST_MAX)
            .build()
            .parse(&source)
            .map_err(|error| invalid(&error))?;
        let regex = RegexMatcherBuilder::new()
            .case_insensitive(!pattern.case_sensitive)
            .multi_line(true)
            .line_terminator(Some(b'\n'))
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(DFA_BYTES_MAX)
            .nest_limit(NEST_MAX)
            .build(&source)
            .map_err(|error| invalid(&error))?;
        let (grams, is_whole) = (GramQuery::of(&hir), speaks_of_ends(&hir));
        let run = if grams == GramQuery::All && !is_whole { Run::of(&hir) } else { None };
        Ok(Self {
            regex,
            grams,
            is_whole,
            run,
            speaks_of_edges: !hir.properties().look_set().is_empty(),
            name_part: NamePart::of(pattern),
        })
    }

    /// What a chunk must have for it to match there.
    pub(crate) fn grams(&self) -> &GramQuery {
        &self.grams
    }

    /// Whether it can only be matched against whole files.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// A text that every name has in which it matches, if there is one that no path can have across a slash.
    pub(crate) fn name_part(&self) -> Option<&NamePart> {
        self.name_part.as_ref()
    }

    /// Whether it matches anywhere; an empty match is none.
    pub(crate) fn is_match(&self, text: &[u8]) -> bool {
        let mut is_match = false;
        self.matches(text, |found| {
            is_match = !found.is_empty();
            !is_match
        });
        is_match
    }

    /// Whether it matches all of `text`.
    pub(crate) fn is_all_of(&self, text: &[u8]) -> bool {
        let mut is_all = false;
        self.matches(text, |found| {
            is_all = found == (0..text.len());
            false
        });
        is_all
    }

    /// Whether it speaks of where lines or words begin or end, which is elsewhere for a name than for the line that it is in.
    pub(crate) fn speaks_of_edges(&self) -> bool {
        self.speaks_of_edges
    }

    /// Gives each match, in order and without overlaps, until `each` says that it is enough.
    pub(crate) fn matches(&self, text: &[u8], mut each: impl FnMut(Range<usize>) -> bool) {
        let Some(run) = &self.run else {
            return self.matches_from(text, 0, &mut each);
        };
        let mut at = 0;
        // Where a run begins, the line may match; what has none does not.
        while let Some(start) = run.find(text, at) {
            let begin =
                text.get(at..start).and_then(|front| memchr::memrchr(b'\n', front)).map_or(at, |line| at + line + 1);
            let end =
                text.get(start..).and_then(|rest| memchr::memchr(b'\n', rest)).map_or(text.len(), |line| start + line);
            let mut goes_on = true;
            self.matches_from(text.get(begin..end).unwrap_or_default(), begin, &mut |found| {
                goes_on = each(found);
                goes_on
            });
            if !goes_on {
                break;
            }
            at = end;
        }
    }
}

impl Matcher {
    /// Gives the matches in a text that begins at byte `start` of another.
    fn matches_from(&self, text: &[u8], start: usize, each: &mut dyn FnMut(Range<usize>) -> bool) {
        // The matcher's error type, `NoError`, has no value that anyone can make.
        let _ = self.regex.find_iter(text, |found| each(start + found.start()..start + found.end()));
    }
}

impl NamePart {
    fn of(pattern: &Pattern) -> Option<Self> {
        let ignores_case = !pattern.case_sensitive;
        let is_plain = !pattern.regex && !pattern.text.contains('/');
        // In other scripts, case is not a matter of single bytes.
        if !is_plain || (ignores_case && !pattern.text.is_ascii()) {
            return None;
        }
        let text = if ignores_case { pattern.text.to_ascii_lowercase() } else { pattern.text.clone() };
        Some(Self { finder: memchr::memmem::Finder::new(text.as_bytes()).into_owned(), ignores_case })
    }

    /// Whether names, or a path, may have it: `lower` are the same in lower case.
    pub(crate) fn may_be_in(&self, names: &[u8], lower: &[u8]) -> bool {
        // Without regard to case, k is also the Kelvin sign.
        let text = if self.ignores_case { lower } else { names };
        self.finder.find(text).is_some() || (self.ignores_case && !names.is_ascii())
    }
}

fn speaks_of_ends(hir: &Hir) -> bool {
    let looks = hir.properties().look_set();
    looks.contains(Look::Start) || looks.contains(Look::End)
}
