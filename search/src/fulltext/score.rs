//! How well each content answers a query's words: BM25 over the contents in scope.
//!
//! A document is a distinct content that is text: how many files have it is nothing to what a word is worth. Its length is
//! its size in bytes. What of it is indexed is counted chunk by chunk ([`super::frequencies`]); what is not was read. Both
//! give the same counts, so a score depends on the contents in scope alone.
//!
//! Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), with the logarithm of
//! Lucene, which is never negative.

use std::{collections::HashMap, time::Instant};

use govc_engine::Result;
use roaring::RoaringBitmap;
use smallvec::SmallVec;

use super::{
    frequencies::Frequencies,
    words::{TokenNo, Tokens},
};
use crate::{
    corpus::Corpus,
    deadline,
    index::{BlobNo, BlobState, Generation},
};

/// How soon more of the same word is worth nothing, and how much length counts.
const K1: f64 = 1.2;
const B: f64 = 0.75;
/// Blobs that are looked up before others may change the tables.
const LOOKUP_BLOBS: usize = 4096;

/// A content that was read: its size, and how often it has which words.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) bytes: u64,
    pub(super) counts: SmallVec<[(TokenNo, u32); 4]>,
}

/// The contents in scope, ranked.
#[derive(Debug, Default)]
pub(super) struct Scores {
    /// Texts in scope, by their numbers, in order.
    blobs: Vec<BlobNo>,
    sizes: Vec<u64>,
    scores: Vec<f64>,
    /// How often they have any of the words.
    matches: Vec<u64>,
    /// In how many contents each word is.
    pub(super) contents: Vec<u64>,
}

/// What a content is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Score {
    pub(super) score: f64,
    pub(super) matches: u64,
    pub(super) bytes: u64,
}

/// What is to be ranked.
pub(super) struct Ground<'a> {
    pub(super) corpus: &'a Corpus,
    pub(super) generation: &'a Generation,
    /// The blobs in scope that the index is asked about, and those that were read; binary ones may be among the former.
    pub(super) indexed: &'a RoaringBitmap,
    pub(super) read: &'a HashMap<BlobNo, Counted>,
    pub(super) until: Option<Instant>,
}

impl Scores {
    /// Ranks the contents in scope.
    ///
    /// # Errors
    /// Cancelled at the deadline; else when the index cannot be read.
    pub(super) fn new(ground: &Ground<'_>, tokens: &Tokens) -> Result<Self> {
        let mut all = Self::default();
        all.measure(ground)?;
        let count = all.blobs.len();
        (all.scores, all.matches) = (vec![0.0; count], vec![0; count]);
        let mean_bytes = all.sizes.iter().map(|bytes| *bytes as f64).sum::<f64>() / count.max(1) as f64;
        let mut counts = vec![0_u64; count];
        for (number, token) in tokens.iter().enumerate() {
            let frequencies = Frequencies::of(ground, &all.blobs, token)?;
            let contents = all.count(ground, number, &frequencies, &mut counts)?;
            all.contents.push(contents);
            all.add(&counts, contents, mean_bytes.max(1.0));
        }
        Ok(all)
    }

    /// Finds the texts in scope and their sizes.
    fn measure(&mut self, ground: &Ground<'_>) -> Result<()> {
        let mut read: Vec<BlobNo> = ground.read.keys().copied().collect();
        read.sort_unstable();
        let mut indexed = ground.indexed.iter();
        loop {
            deadline::check(ground.until)?;
            let some: Vec<BlobNo> = indexed.by_ref().take(LOOKUP_BLOBS).collect();
            if some.is_empty() {
                break;
            }
            let tables = ground.corpus.index.tables();
            self.blobs.extend(some.iter().filter(|blob| matches!(tables.state(**blob), BlobState::Text { .. })));
        }
        self.blobs.extend(read);
        self.blobs.sort_unstable();
        for some in self.blobs.chunks(LOOKUP_BLOBS) {
            let tables = ground.corpus.index.tables();
            let size = |blob: &BlobNo| ground.read.get(blob).map_or_else(|| tables.size(*blob), |read| read.bytes);
            self.sizes.extend(some.iter().map(size));
        }
        Ok(())
    }

    /// Counts one word in each content; how many have it.
    fn count(
        &self,
        ground: &Ground<'_>,
        number: TokenNo,
        frequencies: &Frequencies,
        counts: &mut [u64],
    ) -> Result<u64> {
        for (blobs, counts) in self.blobs.chunks(LOOKUP_BLOBS).zip(counts.chunks_mut(LOOKUP_BLOBS)) {
            deadline::check(ground.until)?;
            let tables = ground.corpus.index.tables();
            for (blob, count) in blobs.iter().zip(counts) {
                *count = match ground.read.get(blob) {
                    Some(read) => {
                        read.counts.iter().find(|(other, _)| *other == number).map_or(0, |(_, count)| u64::from(*count))
                    }
                    None if frequencies.is_empty() => 0,
                    None => tables.chunks(*blob).iter().map(|chunk| frequencies.in_chunk(*chunk)).sum(),
                };
            }
        }
        Ok(counts.iter().filter(|count| **count > 0).count() as u64)
    }

    /// Adds what a word is worth that `contents` contents have.
    fn add(&mut self, counts: &[u64], contents: u64, mean_bytes: f64) {
        let (all, having) = (self.blobs.len() as f64, contents as f64);
        let rarity = (1.0 + (all - having + 0.5) / (having + 0.5)).ln();
        let sums = self.scores.iter_mut().zip(&mut self.matches);
        for ((count, bytes), (score, matches)) in counts.iter().zip(&self.sizes).zip(sums) {
            if *count > 0 {
                let often = *count as f64;
                let length = 1.0 - B + B * (*bytes as f64 / mean_bytes);
                *score += rarity * often * (K1 + 1.0) / (often + K1 * length);
                *matches = matches.saturating_add(*count);
            }
        }
    }

    /// How many texts are in scope.
    pub(super) fn len(&self) -> u64 {
        self.blobs.len() as u64
    }

    /// The contents that have a word.
    pub(super) fn having(&self) -> RoaringBitmap {
        let having = |(blob, matches): (&BlobNo, &u64)| (*matches > 0).then_some(*blob);
        self.blobs.iter().zip(&self.matches).filter_map(having).collect()
    }

    /// What a content is worth, if it has a word.
    pub(super) fn of(&self, blob: BlobNo) -> Option<Score> {
        let at = self.blobs.binary_search(&blob).ok()?;
        let (score, matches, bytes) = (*self.scores.get(at)?, *self.matches.get(at)?, *self.sizes.get(at)?);
        (matches > 0).then_some(Score { score, matches, bytes })
    }
}
