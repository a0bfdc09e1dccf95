//! What the index knows not to match a pattern, so that a scan need not read it.

use std::sync::Arc;

use govc_engine::{ErrorKind, Oid};

use crate::{
    corpus::Corpus,
    find::{Candidates, Matcher},
    grep::GrepQuery,
    index::{BlobState, Generation},
};

/// The files of a corpus that may match one pattern.
pub(crate) struct Sieve<'a> {
    corpus: &'a Corpus,
    generation: Arc<Generation>,
    candidates: Candidates,
}

impl<'a> Sieve<'a> {
    /// Asks the index about the pattern of `query`; `None` if it cannot be asked.
    pub(crate) fn new(corpus: &'a Corpus, query: &GrepQuery) -> Option<Self> {
        let generation = corpus.index.generation();
        // What is too large for a query may be small enough for grep, which has one pattern.
        let matcher = Matcher::new(&query.bare_pattern()).ok()?;
        let candidates = match Candidates::find(&matcher, &corpus.index, &generation, query.deadline) {
            // The scan sees for itself that its time is over.
            Err(error) if *error.kind() == ErrorKind::Cancelled => Candidates::anywhere(),
            Err(error) => {
                corpus.index.is_unreadable(&error);
                Candidates::anywhere()
            }
            Ok(candidates) => candidates,
        };
        Some(Self { corpus, generation, candidates })
    }

    /// What is known of a blob.
    pub(crate) fn verdict(&self, oid: &Oid) -> Verdict {
        let tables = self.corpus.index.tables();
        match tables.number(oid) {
            Some(blob) if tables.state(blob) == BlobState::Binary => Verdict::Binary,
            Some(blob) if self.generation.indexed.contains(blob) && !self.candidates.has_blob(blob, &tables) => {
                Verdict::NoMatch
            }
            _ => Verdict::Unknown,
        }
    }
}

/// What is known of a blob without reading it.
pub(crate) enum Verdict {
    /// Nothing: it is to be read.
    Unknown,
    /// It is text, and the pattern does not match in it.
    NoMatch,
    /// It is binary.
    Binary,
}
