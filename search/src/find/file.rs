//! One file under the eyes of a query: its text, read only as far as the patterns ask for it.

use std::{ops::Range, time::Instant};

use bytes::Bytes;
use govc_engine::{Kind, Oid, Result, Snapshot};

use super::{candidates::Candidates, pattern::Matcher, plan::PatternNo};
use crate::{
    corpus::Corpus,
    deadline,
    defined::Named,
    index::{BlobNo, BlobState, Generation, Text, is_binary},
    language::{self, HEAD_BYTES, Language},
    query::Pattern,
};

/// Matches of one pattern in one file whose places are kept.
pub(super) const SPANS_MAX: usize = 1000;
/// Matches between two looks at the clock, and the text before which there is one.
pub(super) const CLOCK_MATCHES: u32 = 64;
const CLOCK_BYTES: usize = 64 * 1024;

/// What a pattern has in a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Matches {
    /// How many; empty ones are none.
    pub(crate) count: u64,
    /// Where the first ones are, in bytes of the file.
    pub(crate) spans: Vec<Range<u64>>,
    /// Whether there is one.
    pub(crate) any: bool,
    /// Whether one begins and ends at the edges of a word.
    pub(crate) is_word: bool,
    /// Whether one is in the very case of the query.
    pub(crate) is_exact: bool,
    /// Whether that cannot be told, because the file's definitions cannot.
    pub(crate) is_untold: bool,
}

/// What a pattern that is not in the plan has.
static NONE: Matches =
    Matches { count: 0, spans: Vec::new(), any: false, is_word: false, is_exact: false, is_untold: false };

/// What reading files has in common for a whole search.
pub(crate) struct Reading<'a> {
    pub(crate) corpus: &'a Corpus,
    pub(crate) generation: &'a Generation,
    pub(crate) matchers: &'a [Matcher],
    pub(crate) sources: &'a [Pattern],
    pub(crate) candidates: &'a [Candidates],
    /// When to end.
    pub(crate) until: Option<Instant>,
}

/// A chunk of a file.
pub(crate) struct Part<'a> {
    /// Where it begins in the file: the byte, counted from 0, and the line, from 1.
    pub(crate) start: u64,
    pub(crate) line: u64,
    pub(crate) text: Text,
    /// What of interest begins in it, in bytes of the file.
    pub(crate) spans: &'a [Range<u64>],
}

/// A file that is being looked at.
pub(crate) struct File<'a> {
    reading: &'a Reading<'a>,
    snapshot: &'a Snapshot,
    blob: BlobNo,
    oid: Oid,
    state: BlobState,
    is_indexed: bool,
    whole: Option<Bytes>,
    found: Vec<Option<Matches>>,
    defined: Vec<Option<Matches>>,
}

impl<'a> File<'a> {
    pub(crate) fn new(reading: &'a Reading<'a>, snapshot: &'a Snapshot, blob: BlobNo) -> Self {
        let tables = reading.corpus.index.tables();
        let (oid, state) = (tables.oid(blob).unwrap_or_else(|| snapshot.object_format().null()), tables.state(blob));
        drop(tables);
        let is_indexed = reading.generation.indexed.contains(blob);
        let none = || vec![None; reading.matchers.len()];
        Self { reading, snapshot, blob, oid, state, is_indexed, whole: None, found: none(), defined: none() }
    }

    /// What is looked up in.
    pub(crate) fn corpus(&self) -> &'a Corpus {
        self.reading.corpus
    }

    /// The blob's number.
    pub(crate) fn blob(&self) -> BlobNo {
        self.blob
    }

    /// The blob's id.
    pub(crate) fn oid(&self) -> Oid {
        self.oid
    }

    /// The blob's size in bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn size(&self) -> Result<u64> {
        match self.state {
            BlobState::Unknown => Ok(self.snapshot.header(&self.oid)?.map_or(0, |(_, size)| size)),
            _ => Ok(self.reading.corpus.index.tables().size(self.blob)),
        }
    }

    /// Whether the file is binary, which has no matches.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn is_binary(&mut self) -> Result<bool> {
        Ok(match self.state {
            BlobState::Binary => true,
            BlobState::Text { .. } | BlobState::Large => false,
            BlobState::Unknown => is_binary(&self.whole()?),
        })
    }

    /// The beginning of the file, as far as it tells the language.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn head(&mut self) -> Result<Vec<u8>> {
        if self.state == BlobState::Binary {
            return Ok(Vec::new());
        }
        if let (BlobState::Text { .. }, None) = (self.state, &self.whole) {
            let tables = self.reading.corpus.index.tables();
            let mut head = Vec::with_capacity(2 * HEAD_BYTES);
            let mut texts = tables.chunks(self.blob).iter().filter_map(|chunk| tables.text(*chunk));
            while head.len() < HEAD_BYTES
                && let Some(text) = texts.next()
            {
                head.extend_from_slice(text.get(..HEAD_BYTES).unwrap_or(&text));
            }
            head.truncate(HEAD_BYTES);
            return Ok(head);
        }
        Ok(language::head(&self.whole()?).to_vec())
    }

    /// The whole file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn whole(&mut self) -> Result<Bytes> {
        if self.whole.is_none() {
            self.whole = Some(match self.state {
                BlobState::Text { .. } => self.reading.corpus.index.text(self.blob).into(),
                _ => self.snapshot.object_of(&self.oid, Kind::Blob)?,
            });
        }
        Ok(self.whole.clone().unwrap_or_default())
    }

    /// The chunks in which any of `spans` begins, which are in order; `None` if the file is not read by chunks.
    pub(crate) fn parts_with<'s>(&self, spans: &'s [Range<u64>]) -> Option<Vec<Part<'s>>> {
        let is_in_chunks = self.whole.is_none() && matches!(self.state, BlobState::Text { .. });
        if !is_in_chunks {
            return None;
        }
        let tables = self.reading.corpus.index.tables();
        let (mut start, mut line, mut spans, mut parts) = (0, 1, spans, Vec::new());
        for chunk in tables.chunks(self.blob) {
            if spans.is_empty() {
                break;
            }
            let range = tables.range(*chunk);
            let end = start + (range.end - range.start);
            let (inside, behind) = spans.split_at(spans.partition_point(|span| span.start < end));
            if !inside.is_empty() {
                parts.extend(tables.text(*chunk).map(|text| Part { start, line, text, spans: inside }));
            }
            spans = behind;
            start = end;
            line += tables.newlines(*chunk);
        }
        Some(parts)
    }

    /// What a pattern has in the file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn matches(&mut self, number: PatternNo) -> Result<&Matches> {
        if self.found.get(number).is_some_and(Option::is_none) {
            let found = self.find(number)?;
            self.found[number] = Some(found);
        }
        Ok(self.found.get(number).and_then(Option::as_ref).unwrap_or(&NONE))
    }

    /// The definitions whose names a pattern matches; they count once each, and their places are those of their names.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn definitions(&mut self, number: PatternNo, language: Option<Language>) -> Result<&Matches> {
        if self.defined.get(number).is_some_and(Option::is_none) {
            let found = self.find_definitions(number, language)?;
            self.defined[number] = Some(found);
        }
        Ok(self.defined.get(number).and_then(Option::as_ref).unwrap_or(&NONE))
    }

    fn find_definitions(&mut self, number: PatternNo, language: Option<Language>) -> Result<Matches> {
        let mut found = Matches::default();
        let (Some(matcher), Some(language)) = (self.reading.matchers.get(number), language) else { return Ok(found) };
        let named = match self.reading.corpus.definitions.records.named(self.blob, language) {
            Some(named) => Some(named),
            // Parsing is dear, and a name that is not in the text is not in a definition.
            None if !matcher.speaks_of_edges() && !self.matches(number)?.any => return Ok(found),
            None => self.named(language)?,
        };
        let Some(named) = named else {
            found.is_untold = true;
            return Ok(found);
        };
        for (symbol, name) in named.iter() {
            if matcher.is_match(name) {
                found.add_definition(&symbol.name);
                found.is_exact = true;
                found.is_word = found.is_word || matcher.is_all_of(name);
            }
        }
        Ok(found)
    }

    /// What the file defines in a language; `None` if that cannot be told.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn named(&mut self, language: Language) -> Result<Option<Named>> {
        deadline::check(self.reading.until)?;
        let definitions = &self.reading.corpus.definitions;
        if let Some(named) = definitions.records.named(self.blob, language) {
            return Ok(Some(named));
        }
        if self.is_binary()? {
            return Ok(Some(Named::default()));
        }
        let content = self.whole()?;
        Ok(definitions.of(self.blob, language, &content).map(|defined| Named::of(&defined, &content)))
    }

    /// What reading has in common.
    pub(super) fn reading(&self) -> &'a Reading<'a> {
        self.reading
    }

    fn find(&mut self, number: PatternNo) -> Result<Matches> {
        let mut found = Matches::default();
        let (Some(matcher), Some(source)) = (self.reading.matchers.get(number), self.reading.sources.get(number))
        else {
            return Ok(found);
        };
        if self.is_binary()? {
            return Ok(found);
        }
        if self.whole.is_none() && !matcher.is_whole() && matches!(self.state, BlobState::Text { .. }) {
            for (start, text) in self.parts(number) {
                found.add(matcher, source, &text, start, self.reading.until)?;
            }
        } else {
            found.add(matcher, source, &self.whole()?, 0, self.reading.until)?;
        }
        Ok(found)
    }

    /// The chunks in which the pattern may match, with where they begin in the file.
    fn parts(&self, number: PatternNo) -> Vec<(u64, Text)> {
        let candidates = self.reading.candidates.get(number).filter(|_| self.is_indexed);
        let tables = self.reading.corpus.index.tables();
        let mut start = 0;
        let mut parts = Vec::new();
        for chunk in tables.chunks(self.blob) {
            let range = tables.range(*chunk);
            if candidates.is_none_or(|candidates| candidates.has_chunk(*chunk)) {
                parts.extend(tables.text(*chunk).map(|text| (start, text)));
            }
            start += range.end - range.start;
        }
        parts
    }
}

impl Matches {
    /// Adds a definition, whose name is there.
    pub(super) fn add_definition(&mut self, name: &Range<usize>) {
        self.any = true;
        self.count += 1;
        if self.spans.len() < SPANS_MAX {
            self.spans.push(name.start as u64..name.end as u64);
        }
    }

    /// Adds what is in a part of the file that begins at byte `start`.
    ///
    /// # Errors
    /// Cancelled at the deadline.
    fn add(
        &mut self,
        matcher: &Matcher,
        source: &Pattern,
        text: &[u8],
        start: u64,
        until: Option<Instant>,
    ) -> Result<()> {
        if text.len() >= CLOCK_BYTES {
            deadline::check(until)?;
        }
        let (mut steps, mut is_late) = (0_u32, false);
        matcher.matches(text, |found| {
            steps += 1;
            // Between two matches, a pattern may look at all of a long line.
            if steps % CLOCK_MATCHES == 0 && deadline::is_past(until) {
                is_late = true;
                return false;
            }
            if found.is_empty() {
                return true;
            }
            self.any = true;
            self.count += 1;
            if self.spans.len() < SPANS_MAX {
                self.spans.push(start + found.start as u64..start + found.end as u64);
                self.is_word = self.is_word || is_word(text, &found);
                self.is_exact = self.is_exact || text.get(found.clone()) == Some(source.text.as_bytes());
            }
            true
        });
        if is_late { deadline::check(until) } else { Ok(()) }
    }
}

/// Whether what is found neither begins nor ends within a word.
fn is_word(text: &[u8], found: &Range<usize>) -> bool {
    let word = |at: Option<usize>| {
        at.and_then(|at| text.get(at))
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80)
    };
    !word(found.start.checked_sub(1)) && !word(Some(found.end))
}
