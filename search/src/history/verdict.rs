//! In which blobs a pattern matches: each distinct chunk is looked at once, however many versions of files have it.
//!
//! That is a fact of the pattern and the blobs alone, so it is remembered within a budget: the next page looks at nothing
//! again, and a question that ran out of time goes on where it was.

use std::{sync::Arc, time::Instant};

use govc_engine::{Error, ErrorKind, ObjectFormat, Oid, Result, Snapshot};
use quick_cache::{Weighter, sync::Cache};

use crate::{
    corpus::Corpus,
    deadline,
    find::{Candidates, File, Matcher, Reading},
    index::{Bits, BlobNo, ChunkNo, Text},
    query::Pattern,
};

/// Blobs that are looked up before others may change the tables.
const LOOKUP_BLOBS: usize = 4096;
/// Chunks whose texts are taken up together.
const LOOKUP_CHUNKS: usize = 1024;
/// Text between two looks at the clock, in bytes.
const CLOCK_BYTES: usize = 1 << 20;

/// What is known of a pattern.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    chunks_known: Bits,
    chunks_matching: Bits,
    blobs_known: Bits,
    blobs_matching: Bits,
}

/// What patterns are remembered by: text, whether it is a regular expression, whether case counts.
type Key = (String, bool, bool);

/// Verdicts of late, within a budget.
pub(crate) struct Verdicts {
    kept: Cache<Key, Arc<Verdict>, Weigh>,
}

/// What a verdict takes.
#[derive(Clone)]
struct Weigh;

impl Weighter<Key, Arc<Verdict>> for Weigh {
    fn weight(&self, (text, ..): &Key, verdict: &Arc<Verdict>) -> u64 {
        let Verdict { chunks_known, chunks_matching, blobs_known, blobs_matching } = &**verdict;
        let sets = [chunks_known, chunks_matching, blobs_known, blobs_matching];
        text.len() as u64 + 256 + sets.iter().map(|set| set.bytes()).sum::<u64>()
    }
}

impl Verdicts {
    /// Keeps at most `budget_bytes`, about.
    pub(crate) fn new(budget_bytes: u64) -> Self {
        let items = usize::try_from(budget_bytes / (16 << 10)).unwrap_or(usize::MAX).clamp(16, 1 << 16);
        Self { kept: Cache::with_weighter(items, budget_bytes, Weigh) }
    }

    /// What they take, in bytes, about.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.kept.weight()
    }
}

/// What was looked at for an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Looked {
    pub(super) chunks: u64,
    pub(super) blobs: u64,
    /// Blobs that could not be read, and are taken not to match.
    pub(super) unreadable: u64,
}

/// Looks patterns up in the blobs of one question.
pub(super) struct Judge<'a> {
    pub(super) reading: &'a Reading<'a>,
    pub(super) snapshot: &'a Snapshot,
    /// The blobs of the question.
    pub(super) scope: &'a Bits,
    pub(super) looked: Looked,
}

impl Judge<'_> {
    /// Those of the scope in which a pattern of the reading matches. What was found out by the deadline is remembered.
    ///
    /// # Errors
    /// Cancelled at the deadline; else when the store cannot be read. A blob that it has lost does not match.
    pub(super) fn matching(&mut self, number: usize) -> Result<Bits> {
        let reading = self.reading;
        let (Some(matcher), Some(source), Some(candidates)) =
            (reading.matchers.get(number), reading.sources.get(number), reading.candidates.get(number))
        else {
            return Ok(Bits::default());
        };
        let kept = &reading.corpus.verdicts.kept;
        let key = key(source);
        let mut verdict = kept.get(&key).map(|known| Verdict::clone(&known)).unwrap_or_default();
        let looked = self.look(matcher, candidates, &mut verdict);
        kept.insert(key, Arc::new(verdict));
        looked
    }

    fn look(&mut self, matcher: &Matcher, candidates: &Candidates, verdict: &mut Verdict) -> Result<Bits> {
        let indexed = &self.reading.generation.indexed;
        let mut matching = Bits::default();
        let mut chunks = Bits::default();
        let mut whole: Vec<BlobNo> = Vec::new();
        let mut scope = self.scope.iter();
        loop {
            deadline::check(self.reading.until)?;
            let some: Vec<BlobNo> = scope.by_ref().take(LOOKUP_BLOBS).collect();
            if some.is_empty() {
                break;
            }
            let tables = self.reading.corpus.index.tables();
            for blob in some {
                if indexed.contains(blob) && !candidates.has_blob(blob, &tables) {
                    continue;
                }
                if matcher.is_whole() || !indexed.contains(blob) {
                    whole.push(blob);
                    continue;
                }
                let of_blob = tables.chunks(blob).iter().filter(|chunk| candidates.has_chunk(**chunk));
                of_blob.for_each(|chunk| chunks.insert(*chunk));
            }
        }
        self.look_at_chunks(matcher, &chunks, verdict, &mut matching)?;
        for blob in whole {
            if !verdict.blobs_known.contains(blob) {
                deadline::check(self.reading.until)?;
                self.looked.blobs += 1;
                match self.is_match(matcher, blob) {
                    Err(error) if is_lost(&error) => {
                        self.looked.unreadable += 1;
                        continue;
                    }
                    Err(error) => return Err(error),
                    Ok(false) => {}
                    Ok(true) => verdict.blobs_matching.insert(blob),
                }
                verdict.blobs_known.insert(blob);
            }
            if verdict.blobs_matching.contains(blob) {
                matching.insert(blob);
            }
        }
        Ok(matching)
    }

    fn is_match(&self, matcher: &Matcher, blob: BlobNo) -> Result<bool> {
        let mut file = File::new(self.reading, self.snapshot, blob);
        Ok(!file.is_binary()? && matcher.is_match(&file.whole()?))
    }

    /// Adds to `matching` the blobs of the scope that have a chunk among `chunks` in which the pattern matches.
    fn look_at_chunks(
        &mut self,
        matcher: &Matcher,
        chunks: &Bits,
        verdict: &mut Verdict,
        matching: &mut Bits,
    ) -> Result<()> {
        let mut rest = chunks.iter();
        let mut clock_bytes = 0;
        loop {
            deadline::check(self.reading.until)?;
            let some: Vec<ChunkNo> = rest.by_ref().take(LOOKUP_CHUNKS).collect();
            if some.is_empty() {
                return Ok(());
            }
            for (chunk, text) in self.to_look_at(&some, verdict, matching) {
                // A chunk among these may have settled it for all files of this one.
                if self.is_settled(chunk, matching) {
                    continue;
                }
                clock_bytes += text.len();
                if clock_bytes >= CLOCK_BYTES {
                    deadline::check(self.reading.until)?;
                    clock_bytes = 0;
                }
                self.looked.chunks += 1;
                verdict.chunks_known.insert(chunk);
                if matcher.is_match(&text) {
                    verdict.chunks_matching.insert(chunk);
                    self.add_holders(chunk, matching);
                }
            }
        }
    }

    /// Of some chunks those with their texts of which it is not known whether the pattern matches, and matters.
    fn to_look_at(&self, chunks: &[ChunkNo], verdict: &Verdict, matching: &mut Bits) -> Vec<(ChunkNo, Text)> {
        for chunk in chunks.iter().filter(|chunk| verdict.chunks_matching.contains(**chunk)) {
            self.add_holders(*chunk, matching);
        }
        let tables = self.reading.corpus.index.tables();
        let unknown = chunks.iter().filter(|chunk| !verdict.chunks_known.contains(**chunk));
        unknown.filter_map(|chunk| Some((*chunk, tables.text(*chunk)?))).collect()
    }

    fn is_settled(&self, chunk: ChunkNo, matching: &Bits) -> bool {
        let tables = self.reading.corpus.index.tables();
        tables.holders(chunk).iter().all(|blob| matching.contains(*blob) || !self.scope.contains(*blob))
    }

    fn add_holders(&self, chunk: ChunkNo, matching: &mut Bits) {
        let tables = self.reading.corpus.index.tables();
        tables.holders(chunk).iter().filter(|blob| self.scope.contains(**blob)).for_each(|blob| matching.insert(*blob));
    }
}

/// Whether the store does not have a blob, or has it damaged.
pub(super) fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Invalid)
}

fn key(pattern: &Pattern) -> Key {
    (pattern.text.clone(), pattern.regex, pattern.case_sensitive)
}

/// What candidates there are for each pattern that contents are asked for.
///
/// # Errors
/// Cancelled at the deadline; else when the index cannot be read.
pub(super) fn candidates(
    corpus: &Corpus,
    generation: &crate::index::Generation,
    matchers: &[Matcher],
    asked: &[bool],
    until: Option<Instant>,
) -> Result<Vec<Candidates>> {
    let find = |(matcher, is_asked): (&Matcher, &bool)| match is_asked {
        true => Candidates::find(matcher, &corpus.index, generation, until),
        false => Ok(Candidates::anywhere()),
    };
    matchers.iter().zip(asked).map(find).collect()
}

/// The id of a blob.
pub(super) fn oid(corpus: &Corpus, blob: BlobNo) -> Oid {
    corpus.index.tables().oid(blob).unwrap_or_else(|| ObjectFormat::default().null())
}
