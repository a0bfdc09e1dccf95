//! What the index knows not to match a pattern, so that a scan need not read it.

use std::sync::Arc;

use govc_engine::{ErrorKind, Oid, Result};

use crate::{
    corpus::Corpus,
    find::{Candidates, Matcher},
    grep::GrepQuery,
    index::Generation,
};

/// The files of a corpus that may match one pattern.
pub(crate) struct Sieve<'a> {
    corpus: &'a Corpus,
    generation: Arc<Generation>,
    candidates: Candidates,
}

impl<'a> Sieve<'a> {
    /// Asks the index about the pattern of `query`; `None` if it cannot be asked.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub(crate) fn new(corpus: &'a Corpus, query: &GrepQuery) -> Result<Option<Self>> {
        let generation = corpus.index.generation();
        // What is too large for a query may be small enough for grep, which has one pattern.
        let Ok(matcher) = Matcher::new(&query.bare_pattern()) else { return Ok(None) };
        let candidates = match Candidates::find(&matcher, &corpus.index, &generation, query.deadline) {
            // The scan sees for itself that its time is over.
            Err(error) if *error.kind() == ErrorKind::Cancelled => Candidates::anywhere(),
            candidates => candidates?,
        };
        Ok(Some(Self { corpus, generation, candidates }))
    }

    /// Whether the pattern surely does not match in a blob.
    pub(crate) fn rules_out(&self, oid: &Oid) -> bool {
        let blob = self.corpus.index.tables().number(oid);
        blob.is_some_and(|blob| self.generation.indexed.contains(blob) && !self.candidates.has_blob(blob))
    }
}
