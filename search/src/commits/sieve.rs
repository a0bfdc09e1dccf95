//! What is known of messages before they are looked at: what the index rules out, and what was found out before.
//!
//! Whether a pattern matches in a message, or in its author, is a fact of the two alone. So it is remembered, within a budget,
//! for whoever asks again: only about commits that a question may see is it ever asked.

use std::{sync::Arc, time::Instant};

use govc_engine::{ErrorKind, Result};
use quick_cache::{Weighter, sync::Cache};

use super::test::{Asked, Of, PatternNo, Test};
use crate::{
    corpus::Corpus,
    index::{Bits, MessageNo},
};

/// What patterns are remembered by: text, whether it is a regular expression, whether case counts, of what it is asked.
type Key = (String, bool, bool, Of);

/// What was found out about a pattern.
#[derive(Debug, Clone, Default)]
struct Verdict {
    known: Bits,
    matching: Bits,
}

/// Verdicts of late, within a budget.
pub(crate) struct Said {
    kept: Cache<Key, Arc<Verdict>, Weigh>,
}

#[derive(Clone)]
struct Weigh;

impl Weighter<Key, Arc<Verdict>> for Weigh {
    fn weight(&self, (text, ..): &Key, verdict: &Arc<Verdict>) -> u64 {
        text.len() as u64 + 256 + verdict.known.bytes() + verdict.matching.bytes()
    }
}

impl Said {
    /// Keeps at most `budget_bytes`, about.
    pub(crate) fn new(budget_bytes: u64) -> Self {
        let items = usize::try_from(budget_bytes / (4 << 10)).unwrap_or(usize::MAX).clamp(16, 1 << 16);
        Self { kept: Cache::with_weighter(items, budget_bytes, Weigh) }
    }

    /// What they take, in bytes, about.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.kept.weight()
    }
}

/// What is known for one question.
pub(super) struct Sieve {
    /// The index knows this many messages, the first ones.
    indexed: MessageNo,
    patterns: Vec<Known>,
}

/// What is known of one pattern.
struct Known {
    /// The indexed messages that it may match in; `None` if that may be any.
    candidates: Option<Bits>,
    verdict: Arc<Verdict>,
    is_new: bool,
}

impl Sieve {
    /// Asks the index for each pattern. One that cannot be read rules nothing out; its owner makes it anew.
    ///
    /// # Errors
    /// Cancelled at the deadline.
    pub(super) fn new(corpus: &Corpus, test: &Test, until: Option<Instant>) -> Result<Self> {
        let generation = corpus.index.generation();
        let mut patterns = Vec::with_capacity(test.patterns.len());
        for asked in &test.patterns {
            let found = match asked.of {
                Of::Repo => Ok(None),
                Of::Message | Of::Author => generation.messages(asked.matcher.grams(), until),
            };
            let candidates = match found {
                Err(error) if *error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => {
                    corpus.index.is_unreadable(&error);
                    None
                }
                Ok(found) => found,
            };
            let verdict = corpus.said.kept.get(&key(asked)).unwrap_or_default();
            patterns.push(Known { candidates, verdict, is_new: false });
        }
        Ok(Self { indexed: generation.messages, patterns })
    }

    /// Whether a pattern matches in a message, as far as that is known.
    pub(super) fn ask(&self, pattern: PatternNo, message: MessageNo) -> Option<bool> {
        let known = self.patterns.get(pattern)?;
        if message < self.indexed && known.candidates.as_ref().is_some_and(|candidates| !candidates.contains(message)) {
            return Some(false);
        }
        known.verdict.known.contains(message).then(|| known.verdict.matching.contains(message))
    }

    /// Remembers whether a pattern matches in a message.
    pub(super) fn learn(&mut self, pattern: PatternNo, message: MessageNo, is_match: bool) {
        let Some(known) = self.patterns.get_mut(pattern) else { return };
        let verdict = Arc::make_mut(&mut known.verdict);
        verdict.known.insert(message);
        if is_match {
            verdict.matching.insert(message);
        }
        known.is_new = true;
    }

    /// Keeps what was found out for the next question.
    pub(super) fn keep(self, corpus: &Corpus, test: &Test) {
        for (known, asked) in self.patterns.into_iter().zip(&test.patterns).filter(|(known, _)| known.is_new) {
            corpus.said.kept.insert(key(asked), known.verdict);
        }
    }
}

fn key(asked: &Asked) -> Key {
    (asked.source.text.clone(), asked.source.regex, asked.source.case_sensitive, asked.of)
}
