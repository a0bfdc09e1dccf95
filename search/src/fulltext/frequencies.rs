//! How often chunks have a word: the index says by trigrams which chunks may have it, and there its places are looked for.
//!
//! A field of words with their frequencies was tried: it answers sooner the first time, and takes nine tenths more of
//! processor time and half as much again of the disk to make. What was counted of a chunk is remembered, since chunks
//! never change.

use std::{ops::Range, sync::Arc};

use govc_engine::Result;
use quick_cache::{Weighter, sync::Cache};

use super::score::Ground;
use crate::{
    deadline,
    find::Matcher,
    index::{Bits, BlobNo, ChunkNo, Text},
    query::Pattern,
    tokens::{Words, is_in_word},
};

/// Blobs and chunks that are looked up before others may change the tables.
const LOOKUP_BLOBS: usize = 4096;
const LOOKUP_CHUNKS: usize = 256;

/// How often chunks have one word.
pub(super) struct Frequencies {
    known: Arc<Counted>,
}

/// What was counted of one word.
#[derive(Debug, Clone, Default)]
struct Counted {
    /// The chunks that were looked at, or need not be.
    chunks: Bits,
    /// Those that have it, in order, with how often.
    counts: Vec<(ChunkNo, u32)>,
}

/// What was counted of late, by word, within a budget.
pub(crate) struct WordCounts {
    words: Cache<Box<str>, Arc<Counted>, Weigh>,
}

/// What a word takes.
#[derive(Clone)]
struct Weigh;

impl Weighter<Box<str>, Arc<Counted>> for Weigh {
    fn weight(&self, word: &Box<str>, counted: &Arc<Counted>) -> u64 {
        (word.len() + 128 + counted.counts.capacity() * size_of::<(ChunkNo, u32)>()) as u64 + counted.chunks.bytes()
    }
}

impl WordCounts {
    /// Keeps at most `budget_bytes`, about.
    pub(crate) fn new(budget_bytes: u64) -> Self {
        let items = usize::try_from(budget_bytes / (16 << 10)).unwrap_or(usize::MAX).clamp(16, 1 << 16);
        Self { words: Cache::with_weighter(items, budget_bytes, Weigh) }
    }

    /// What they take, in bytes, about.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.words.weight()
    }
}

impl Frequencies {
    /// Counts `token` in the chunks of some blobs.
    ///
    /// # Errors
    /// Cancelled at the deadline, up to which what was counted is remembered; else when the index cannot be read.
    pub(super) fn of(ground: &Ground<'_>, blobs: &[BlobNo], token: &str) -> Result<Self> {
        let kept = &ground.corpus.word_counts.words;
        let before = kept.get(token).unwrap_or_default();
        let pattern = Pattern { text: token.to_owned(), regex: false, case_sensitive: false, span: 0..0 };
        let matcher = Matcher::new(&pattern)?;
        let wanted = wanted(ground, blobs, &matcher, &before.chunks)?;
        let mut wanted = wanted.iter().peekable();
        if wanted.peek().is_none() {
            return Ok(Self { known: before });
        }
        let mut counted = Counted::clone(&before);
        let done = count(ground, &mut wanted, &matcher, token, &mut counted);
        counted.counts.sort_unstable();
        let known = Arc::new(counted);
        kept.insert(token.into(), known.clone());
        done.map(|()| Self { known })
    }

    /// Whether no chunk has it.
    pub(super) fn is_empty(&self) -> bool {
        self.known.counts.is_empty()
    }

    /// How often a chunk has it.
    pub(super) fn in_chunk(&self, chunk: ChunkNo) -> u64 {
        let counts = &self.known.counts;
        let at = counts.binary_search_by_key(&chunk, |(chunk, _)| *chunk).ok();
        at.and_then(|at| counts.get(at)).map_or(0, |(_, count)| u64::from(*count))
    }
}

/// The chunks of the blobs that may have the word and were not looked at.
fn wanted(ground: &Ground<'_>, blobs: &[BlobNo], matcher: &Matcher, known: &Bits) -> Result<Bits> {
    let mut wanted = Bits::default();
    let candidates = ground.generation.chunks(matcher.grams(), ground.until)?;
    for some in blobs.chunks(LOOKUP_BLOBS) {
        deadline::check(ground.until)?;
        let tables = ground.corpus.index.tables();
        for blob in some.iter().filter(|blob| !ground.read.contains_key(blob)) {
            let may = |chunk: &&ChunkNo| candidates.as_ref().is_none_or(|candidates| candidates.contains(**chunk));
            let fresh = tables.chunks(*blob).iter().filter(may).filter(|chunk| !known.contains(**chunk));
            fresh.for_each(|chunk| wanted.insert(*chunk));
        }
    }
    Ok(wanted)
}

fn count(
    ground: &Ground<'_>,
    wanted: &mut dyn Iterator<Item = ChunkNo>,
    matcher: &Matcher,
    token: &str,
    counted: &mut Counted,
) -> Result<()> {
    let mut words = Words::default();
    loop {
        deadline::check(ground.until)?;
        let texts: Vec<(ChunkNo, Text)> = {
            let tables = ground.corpus.index.tables();
            (&mut *wanted).take(LOOKUP_CHUNKS).filter_map(|chunk| Some((chunk, tables.text(chunk)?))).collect()
        };
        if texts.is_empty() {
            return Ok(());
        }
        for (chunk, text) in texts {
            let count = occurrences(&mut words, matcher, token, &text);
            counted.chunks.insert(chunk);
            if count > 0 {
                counted.counts.push((chunk, count));
            }
        }
    }
}

/// How often a text has a token: the words around the places where its letters stand are taken apart.
fn occurrences(words: &mut Words, matcher: &Matcher, token: &str, text: &[u8]) -> u32 {
    let (mut count, mut done) = (0_u32, 0);
    matcher.matches(text, |found| {
        if found.start >= done {
            let word = around(text, found, done);
            done = word.end;
            words.tokens(text.get(word).unwrap_or_default(), |other, _| {
                count = count.saturating_add(u32::from(other == token));
            });
        }
        true
    });
    count
}

/// The bytes around a place, not before `from`, that may be of one word with it.
fn around(text: &[u8], place: Range<usize>, from: usize) -> Range<usize> {
    let front = text.get(from..place.start).unwrap_or_default();
    let start = front.iter().rposition(|byte| !is_in_word(*byte)).map_or(from, |at| from + at + 1);
    let behind = text.get(place.end..).unwrap_or_default();
    let end = behind.iter().position(|byte| !is_in_word(*byte)).map_or(text.len(), |at| place.end + at);
    start..end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex_syntax::hir::{Class, HirKind};

    use super::{Matcher, Pattern, Words, occurrences};

    fn matcher(token: &str) -> Matcher {
        let pattern = Pattern { text: token.to_owned(), regex: false, case_sensitive: false, span: 0..0 };
        Matcher::new(&pattern).expect("a pattern")
    }

    fn tokens(text: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        Words::default().tokens(text, |token, _| all.push(token.to_owned()));
        all
    }

    /// What [`occurrences`] and the patterns' candidates rely on: a token is what its text becomes in either case.
    #[test]
    fn every_character_is_found_by_its_lower_case() {
        for character in (0..=0x0010_ffff).filter_map(char::from_u32) {
            let text = format!("x{character}");
            let Some(token) = tokens(text.as_bytes()).pop().filter(|token| *token != text && token.len() > 1) else {
                continue;
            };
            let Some(lower) = token.chars().nth(1) else { continue };
            let hir =
                regex_syntax::parse(&format!("(?i){}", regex_syntax::escape(&lower.to_string()))).expect("a regex");
            let folds = match hir.kind() {
                HirKind::Class(Class::Unicode(class)) => {
                    class.iter().any(|range| (range.start()..=range.end()).contains(&character))
                }
                _ => lower == character,
            };
            assert!(folds, "{character:?} {lower:?}");
            assert_eq!(occurrences(&mut Words::default(), &matcher(&token), &token, text.as_bytes()), 1, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_token_is_counted_as_often_as_the_text_has_it(
            text in r"([a-cA-C_2éÉİıKKßẞ \n.]{0,12}(parse|HTTP|Request2|ab_ab)?){0,8}",
            junk in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let text = [text.as_bytes(), &junk, text.as_bytes()].concat();
            let all = tokens(&text);
            for token in &all {
                let expected = all.iter().filter(|other| *other == token).count();
                let found = occurrences(&mut Words::default(), &matcher(token), token, &text);
                prop_assert_eq!(found as usize, expected, "{}", token);
            }
        }
    }
}
