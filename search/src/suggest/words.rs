//! Words and identifiers of the files, by their beginnings.
//!
//! The index rules out chunks that cannot have them; the others are looked through, for the words as they are spelled.
//! The dictionary of the index is not asked: what comes first in it, and what is rare in it, depends on what others have.
//! Of more text than there is time for, every so-many-th content is looked at, by the hash that is its id.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use govc_engine::{ErrorKind, Oid, Result};
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64;

use super::{Asked, Given, SuggestionKind, paths};
use crate::{
    deadline,
    find::{Candidates, Matcher},
    index::{BlobNo, Generation, Text},
    query::{Pattern, value_text},
    tokens::{TOKEN_BYTES_MAX, TOKEN_BYTES_MIN, Words},
};

/// Text that is looked at, in bytes, about.
const TEXT_BYTES_MAX: u64 = 8 << 20;
/// Spellings that are told apart.
const SPELLINGS_MAX: usize = 50_000;
/// Blobs that are looked up before others may change the tables.
const LOOKUP_BLOBS: usize = 4096;
/// Shares of the text that are told apart.
const SHARES: u64 = 1 << 20;

/// Words that begin with what is typed, in the contents that are indexed.
pub(super) fn words(asked: &Asked<'_>, given: &mut Vec<Given>) -> Result<()> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let bytes = asked.typed.len();
    if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&bytes) || !asked.typed.chars().all(is_word) {
        return Ok(());
    }
    let generation = asked.corpus.index.generation();
    let candidates = match candidates(asked, &generation) {
        Err(error) if *error.kind() != ErrorKind::Cancelled => {
            // A damaged index rules nothing out; its owner makes it anew.
            asked.corpus.index.is_unreadable(&error);
            Candidates::anywhere()
        }
        candidates => candidates?,
    };
    let (blobs, is_all) = sample(asked, &generation, &candidates)?;
    let mut counts = Counts { asked, typed: asked.typed.to_lowercase(), spellings: HashMap::new() };
    let done = counts.look(&blobs, &candidates);
    let mut found: Vec<(String, u64)> = counts.spellings.into_iter().map(|(word, (count, _))| (word, count)).collect();
    // Of as many, those that are spelled as they are typed.
    found.sort_by_cached_key(|(word, count)| {
        (Reverse(*count), !word.starts_with(asked.typed), word.len(), word.clone())
    });
    let mut seen = HashSet::new();
    found.retain(|(word, _)| word != asked.typed && seen.insert(word.to_lowercase()));
    found.truncate(asked.count_max);
    given.extend(found.into_iter().map(|(word, count)| Given {
        kind: SuggestionKind::Word,
        value: value_text(&word),
        count: (is_all && done.is_ok()).then_some(count),
    }));
    done
}

/// Where the beginning may be.
fn candidates(asked: &Asked<'_>, generation: &Generation) -> Result<Candidates> {
    let pattern = Pattern { text: asked.typed.to_owned(), regex: false, case_sensitive: false, span: 0..0 };
    Candidates::find(&Matcher::new(&pattern)?, &asked.corpus.index, generation, asked.until)
}

/// The indexed contents to look at, in the order of their ids, and whether these are all that may have the beginning.
fn sample(asked: &Asked<'_>, generation: &Generation, candidates: &Candidates) -> Result<(Vec<BlobNo>, bool)> {
    let mut scope = RoaringBitmap::new();
    paths::roots(asked)?.iter().for_each(|root| scope |= root.blobs());
    let blobs: Vec<BlobNo> = scope.iter().filter(|blob| generation.indexed.contains(*blob)).collect();
    let (mut texts, mut all_bytes): (Vec<(Oid, BlobNo)>, u64) = (Vec::new(), 0);
    for some in blobs.chunks(LOOKUP_BLOBS) {
        deadline::check(asked.until)?;
        let tables = asked.corpus.index.tables();
        for blob in some.iter().filter(|blob| candidates.has_blob(**blob, &tables)) {
            let has_chunk = |chunk: &&u32| candidates.has_chunk(**chunk);
            let range = |chunk: &u32| tables.range(*chunk);
            let bytes: u64 =
                tables.chunks(*blob).iter().filter(has_chunk).map(range).map(|range| range.end - range.start).sum();
            all_bytes = all_bytes.saturating_add(bytes);
            texts.extend(tables.oid(*blob).filter(|_| bytes > 0).map(|oid| (oid, *blob)));
        }
    }
    let share = if all_bytes <= TEXT_BYTES_MAX { SHARES } else { SHARES * TEXT_BYTES_MAX / all_bytes };
    let count = texts.len();
    texts.retain(|(oid, _)| xxh3_64(oid.as_bytes()) % SHARES < share);
    texts.sort_unstable();
    let is_all = texts.len() == count;
    Ok((texts.into_iter().map(|(_, blob)| blob).collect(), is_all))
}

/// How many contents have a word in which spelling.
struct Counts<'a> {
    asked: &'a Asked<'a>,
    /// What is typed, in lower case.
    typed: String,
    /// With the last content that was counted.
    spellings: HashMap<String, (u64, BlobNo)>,
}

impl Counts<'_> {
    /// Looks at some contents.
    ///
    /// # Errors
    /// Cancelled at the deadline.
    fn look(&mut self, blobs: &[BlobNo], candidates: &Candidates) -> Result<()> {
        let mut words = Words::default();
        for blob in blobs {
            deadline::check(self.asked.until)?;
            let texts: Vec<Text> = {
                let tables = self.asked.corpus.index.tables();
                let chunks = tables.chunks(*blob).iter().filter(|chunk| candidates.has_chunk(**chunk));
                chunks.filter_map(|chunk| tables.text(*chunk)).collect()
            };
            texts.iter().for_each(|text| self.text(*blob, text, &mut words));
        }
        Ok(())
    }

    fn text(&mut self, blob: BlobNo, text: &[u8], words: &mut Words) {
        let Some(first) = self.typed.bytes().next().filter(u8::is_ascii) else {
            return self.word(blob, text, words);
        };
        // Words are cut out around the beginnings: the rest is not looked at.
        let mut done = 0;
        for at in memchr::memchr2_iter(first, first.to_ascii_uppercase(), text) {
            let beginning = text.get(at..).and_then(|rest| rest.get(..self.typed.len()));
            if at >= done && beginning.is_some_and(|beginning| self.may_begin(beginning)) {
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
                let front = text.get(done..at).unwrap_or_default();
                let start = front.iter().rposition(|byte| !is_word(byte)).map_or(done, |outside| done + outside + 1);
                let behind = text.get(at..).unwrap_or_default();
                done = behind.iter().position(|byte| !is_word(byte)).map_or(text.len(), |length| at + length);
                self.word(blob, text.get(start..done).unwrap_or_default(), words);
            }
        }
    }

    fn may_begin(&self, beginning: &[u8]) -> bool {
        // Letters beyond ASCII may be of other lengths in the other case.
        !self.typed.is_ascii() || !beginning.is_ascii() || beginning.eq_ignore_ascii_case(self.typed.as_bytes())
    }

    fn word(&mut self, blob: BlobNo, text: &[u8], words: &mut Words) {
        words.tokens(text, |token, place| {
            let spelling = text.get(place).and_then(|spelling| std::str::from_utf8(spelling).ok());
            let Some(spelling) =
                spelling.filter(|spelling| token.starts_with(&self.typed) && self.asked.begins(spelling))
            else {
                return;
            };
            let is_full = self.spellings.len() >= SPELLINGS_MAX;
            match self.spellings.get_mut(spelling) {
                Some((_, last)) if *last == blob => {}
                Some((count, last)) => (*count, *last) = (*count + 1, blob),
                None if is_full => {}
                None => drop(self.spellings.insert(spelling.to_owned(), (1, blob))),
            }
        });
    }
}
