//! What the index says before any file is read: in which chunks and files each pattern may match.

use std::time::Instant;

use govc_engine::Result;
use roaring::RoaringBitmap;

use super::{
    pattern::Matcher,
    plan::{Answer, Condition, PatternNo, Term},
};
use crate::{
    corpus::Corpus,
    deadline,
    defined::NamesFound,
    index::{Bits, BlobNo, ChunkNo, Generation, Index, Tables},
    symbols::is_supported,
    view::Dir,
};

/// Below this many candidates, whole directories are passed over by comparing sets.
const FEW_BLOBS: usize = 4096;
/// A directory with no more files than this is gone through.
const SMALL_DIR_FILES: u64 = 16;
/// If more chunks than this share of all may match, and more than so many, each blob's are looked up when it is asked about.
const COMMON_SHARE: usize = 16;
const COMMON_MIN: usize = 256;
/// Chunks that are looked up before others may change the tables.
const LOOKUP_CHUNKS: usize = 16 * 1024;
/// The same for blobs.
const LOOKUP_BLOBS: usize = 1024;

/// Where one pattern may match.
pub(crate) struct Candidates {
    /// Chunks of indexed blobs; `None` if it may be any.
    chunks: Option<Bits>,
    /// The indexed blobs that have such chunks; `None` if it may be any, or they are so many that they are not listed.
    blobs: Option<Bits>,
    /// Whether the pattern speaks of the file's ends, and is matched against all of it.
    is_whole: bool,
    /// Which recorded files define a name in which it matches, if that was asked.
    names: Option<NamesFound>,
}

impl Candidates {
    /// Anywhere.
    pub(crate) fn anywhere() -> Self {
        Self { chunks: None, blobs: None, is_whole: false, names: None }
    }

    /// With what is recorded of the names of definitions.
    ///
    /// # Errors
    /// Cancelled at the deadline.
    pub(crate) fn with_names(mut self, matcher: &Matcher, corpus: &Corpus, until: Option<Instant>) -> Result<Self> {
        self.names = Some(corpus.definitions.records.find(matcher, until)?);
        Ok(self)
    }

    /// Asks the index.
    ///
    /// # Errors
    /// Cancelled at the deadline; else when the index cannot be read.
    pub(crate) fn find(
        matcher: &Matcher,
        index: &Index,
        generation: &Generation,
        until: Option<Instant>,
    ) -> Result<Self> {
        let Some(chunks) = generation.chunks(matcher.grams(), until)? else { return Ok(Self::anywhere()) };
        let is_whole = matcher.is_whole();
        let (blob_count, chunk_count) = {
            let tables = index.tables();
            (tables.blob_count(), tables.chunk_count())
        };
        if chunks.len() > COMMON_MIN.max(chunk_count / COMMON_SHARE) {
            return Ok(Self { chunks: Some(chunks), blobs: None, is_whole, names: None });
        }
        let mut blobs = Bits::none(blob_count);
        let mut rest = chunks.iter();
        loop {
            deadline::check(until)?;
            let some: Vec<ChunkNo> = rest.by_ref().take(LOOKUP_CHUNKS).collect();
            if some.is_empty() {
                break;
            }
            let tables = index.tables();
            some.iter().flat_map(|chunk| tables.holders(*chunk)).for_each(|blob| blobs.insert(*blob));
        }
        drop(rest);
        Ok(Self { chunks: Some(chunks), blobs: Some(blobs), is_whole, names: None })
    }

    /// Whether the pattern may match in an indexed blob.
    pub(crate) fn has_blob(&self, blob: BlobNo, tables: &Tables) -> bool {
        match (&self.blobs, &self.chunks) {
            (Some(blobs), _) => blobs.contains(blob),
            (None, Some(chunks)) => tables.chunks(blob).iter().any(|chunk| chunks.contains(*chunk)),
            (None, None) => true,
        }
    }

    /// Whether the pattern may match in a chunk of an indexed blob.
    pub(crate) fn has_chunk(&self, chunk: ChunkNo) -> bool {
        self.is_whole || self.chunks.as_ref().is_none_or(|chunks| chunks.contains(chunk))
    }

    /// How many blobs of `scope`; `None` if it may be any, or the time is over. What others have is nobody's business.
    pub(crate) fn count_within(&self, scope: &Bits, index: &Index, until: Option<Instant>) -> Option<usize> {
        self.chunks.as_ref()?;
        let (mut count, mut rest) = (0, scope.iter());
        loop {
            let some: Vec<BlobNo> = rest.by_ref().take(LOOKUP_BLOBS).collect();
            if some.is_empty() {
                return Some(count);
            }
            if deadline::is_past(until) {
                return None;
            }
            let tables = index.tables();
            count += some.iter().filter(|blob| self.has_blob(**blob, &tables)).count();
        }
    }
}

/// The blobs whose content may make a condition hold, whatever their paths are.
pub(crate) struct Reach {
    blobs: Option<Bits>,
    /// The same as a compressed set, if there are few.
    few: Option<RoaringBitmap>,
}

impl Reach {
    /// What `condition` leaves of the blobs in `scope`, if the patterns of `unnamed` do not match in the path.
    pub(crate) fn of(
        condition: &Condition,
        candidates: &[Candidates],
        indexed: &Bits,
        scope: &Bits,
        unnamed: &[PatternNo],
    ) -> Self {
        let walk = Walk { candidates, indexed, scope, unnamed };
        let Some(blobs) = walk.blobs(condition) else { return Self { blobs: None, few: None } };
        let few = (blobs.len() <= FEW_BLOBS).then(|| blobs.iter().collect());
        Self { blobs: Some(blobs), few }
    }

    /// Whether a file with this blob may be a result.
    pub(crate) fn has(&self, blob: BlobNo) -> bool {
        self.blobs.as_ref().is_none_or(|blobs| blobs.contains(blob))
    }

    /// Whether no file of a directory can be a result. A small one is not worth the question.
    pub(crate) fn is_apart_from(&self, dir: &Dir) -> bool {
        let (Some(blobs), files) = (&self.blobs, dir.files()) else { return false };
        match &self.few {
            _ if files <= SMALL_DIR_FILES => false,
            Some(few) if files > few.len() => few.is_disjoint(dir.blobs()),
            // Comparing sets would go through all of the larger one.
            _ if files <= FEW_BLOBS as u64 => !dir.blobs().iter().any(|blob| blobs.contains(blob)),
            _ => false,
        }
    }
}

struct Walk<'a> {
    candidates: &'a [Candidates],
    indexed: &'a Bits,
    scope: &'a Bits,
    unnamed: &'a [PatternNo],
}

impl Walk<'_> {
    /// The blobs for which the condition may hold; `None` for all.
    fn blobs(&self, condition: &Condition) -> Option<Bits> {
        match condition {
            Condition::Const(false) => Some(Bits::default()),
            Condition::Const(true) | Condition::Not(_) => None,
            Condition::Term(term) => self.term(term),
            Condition::And(parts) => parts.iter().filter_map(|part| self.blobs(part)).reduce(|mut left, right| {
                left.intersect(&right);
                left
            }),
            Condition::Or(parts) => {
                let mut any = Bits::default();
                for part in parts {
                    any.unite(&self.blobs(part)?);
                }
                Some(any)
            }
        }
    }

    fn term(&self, term: &Term) -> Option<Bits> {
        match term {
            Term::Content(number) | Term::Symbol(number) => {
                let candidates = self.candidates.get(*number)?;
                let mut blobs = candidates.blobs.clone()?;
                blobs.intersect(self.scope);
                // What is not indexed may hold anything.
                let mut others = self.scope.clone();
                others.subtract(self.indexed);
                blobs.unite(&others);
                Some(blobs)
            }
            Term::Path(number) if self.unnamed.contains(number) => Some(Bits::default()),
            _ => None,
        }
    }
}

/// What the index says of a pattern and a blob.
pub(crate) fn answer(candidates: Option<&Candidates>, indexed: &Bits, blob: BlobNo, index: &Index) -> Answer {
    match candidates {
        Some(candidates) if indexed.contains(blob) && !candidates.has_blob(blob, &index.tables()) => Answer::No,
        _ => Answer::Maybe,
    }
}

/// What is recorded of a pattern and what a file defines, besides what the index says of its content.
pub(super) fn answer_of_names(
    candidates: Option<&Candidates>,
    indexed: &Bits,
    corpus: &Corpus,
    path: &[u8],
    blob: BlobNo,
) -> Answer {
    if answer(candidates, indexed, blob, &corpus.index) == Answer::No {
        return Answer::No;
    }
    let Some(found) = candidates.and_then(|candidates| candidates.names.as_ref()) else { return Answer::Maybe };
    match corpus.known_language(blob, path) {
        None => Answer::Maybe,
        Some(None) => Answer::No,
        Some(Some(language)) => match corpus.definitions.records.defines(found, blob, language) {
            Some(true) => Answer::Yes,
            Some(false) => Answer::No,
            None if is_supported(language) => Answer::Maybe,
            None => Answer::No,
        },
    }
}
