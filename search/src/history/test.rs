//! Whether a file at a path, with a blob, satisfies a question: all of its terms are sets by now, save the language.

use std::{cell::Cell, time::Instant};

use govc_engine::{Result, Snapshot};

use super::{
    ground::Ground,
    verdict::{Judge, Looked, candidates, is_lost},
};
use crate::{
    corpus::Corpus,
    deadline,
    find::{Answer, Candidates, Condition, File, Plan, Reading, Term},
    index::{Bits, BlobNo},
    presence::{CommitNo, NONE, PathNo},
};

/// Files between two looks at the clock.
const CLOCK_FILES: usize = 4096;

/// Files under a question.
pub(super) struct Test<'a> {
    corpus: &'a Corpus,
    plan: &'a Plan,
    condition: &'a Condition,
    until: Option<Instant>,
    /// For each pattern, the paths in which it matches, if paths are asked for it.
    paths: Vec<Bits>,
    /// For each pattern, the blobs in which it matches, if contents are asked for it.
    blobs: Vec<Bits>,
    /// What was looked at.
    pub(super) looked: Looked,
    /// Files whose language cannot be told, because they are lost.
    lost: Cell<u64>,
}

/// The commits of a question, with what they are read from.
pub(super) struct Scope<'a> {
    pub(super) ground: &'a Ground<'a>,
    pub(super) snapshot: &'a Snapshot,
    /// In the order of their numbers.
    pub(super) commits: &'a [CommitNo],
}

impl<'a> Test<'a> {
    /// Matches the patterns of a plan against the files of some commits, which must satisfy `condition`.
    ///
    /// # Errors
    /// Cancelled at the deadline, up to which what was found out is remembered; else when a blob cannot be read.
    pub(super) fn new(
        corpus: &'a Corpus,
        plan: &'a Plan,
        condition: &'a Condition,
        scope: &Scope<'_>,
        until: Option<Instant>,
    ) -> Result<Self> {
        let none = || vec![Bits::default(); plan.patterns.len()];
        let mut test = Self {
            corpus,
            plan,
            condition,
            until,
            paths: none(),
            blobs: none(),
            looked: Looked::default(),
            lost: Cell::new(0),
        };
        test.match_paths(scope)?;
        test.match_contents(scope)?;
        Ok(test)
    }

    fn match_paths(&mut self, scope: &Scope<'_>) -> Result<()> {
        let mut asked = Vec::new();
        self.condition.paths(&mut |number| asked.push(number));
        if asked.is_empty() {
            return Ok(());
        }
        let mut paths = Bits::none(scope.ground.path_count());
        for commit in scope.commits {
            scope.ground.changes(*commit, &mut |change| paths.insert(change.path));
        }
        for (at, path) in paths.iter().enumerate() {
            if at.is_multiple_of(CLOCK_FILES) {
                deadline::check(self.until)?;
            }
            for number in &asked {
                let matcher = self.plan.patterns.get(*number);
                if matcher.is_some_and(|matcher| matcher.is_match(scope.ground.path(path))) {
                    self.paths[*number].insert(path);
                }
            }
        }
        Ok(())
    }

    fn match_contents(&mut self, scope: &Scope<'_>) -> Result<()> {
        let mut asked = vec![false; self.plan.patterns.len()];
        self.condition.contents(&mut |number| asked[number] = true);
        if !asked.contains(&true) {
            return Ok(());
        }
        let mut blobs = Bits::default();
        for (at, commit) in scope.commits.iter().enumerate() {
            if at.is_multiple_of(CLOCK_FILES) {
                deadline::check(self.until)?;
            }
            scope.ground.changes(*commit, &mut |change| {
                // What is gone was new before.
                if change.new != NONE && self.may_be(change.path) {
                    blobs.insert(change.new);
                }
            });
        }
        let generation = self.corpus.index.generation();
        let candidates = candidates(self.corpus, &generation, &self.plan.patterns, &asked, self.until)?;
        let reading = reading(self.corpus, self.plan, &generation, &candidates, self.until);
        let mut judge = Judge { reading: &reading, snapshot: scope.snapshot, scope: &blobs, looked: Looked::default() };
        for number in (0..asked.len()).filter(|number| asked[*number]) {
            self.blobs[number] = judge.matching(number)?;
        }
        self.looked = judge.looked;
        Ok(())
    }

    /// Whether something could not be read.
    pub(super) fn is_incomplete(&self) -> bool {
        self.looked.unreadable > 0 || self.lost.get() > 0
    }

    /// Whether a file at this path may satisfy the condition.
    fn may_be(&self, path: PathNo) -> bool {
        self.condition.may_hold(&mut |term| match term {
            Term::Path(number) => sure(&self.paths, *number, path),
            _ => Answer::Maybe,
        }) != Answer::No
    }

    /// Whether a file satisfies the condition.
    ///
    /// A lost file is in no language.
    ///
    /// # Errors
    /// When the file has to be read to tell its language, and cannot be.
    pub(super) fn holds(&self, scope: &Scope<'_>, path: PathNo, blob: BlobNo) -> Result<bool> {
        let known = self.condition.may_hold(&mut |term| match term {
            Term::Path(number) => sure(&self.paths, *number, path),
            Term::Content(number) => sure(&self.blobs, *number, blob),
            _ => Answer::Maybe,
        });
        match known {
            Answer::Yes => Ok(true),
            Answer::No => Ok(false),
            Answer::Maybe => self.holds_in_its_language(scope, path, blob),
        }
    }

    fn holds_in_its_language(&self, scope: &Scope<'_>, path: PathNo, blob: BlobNo) -> Result<bool> {
        deadline::check(self.until)?;
        let head = || {
            let generation = self.corpus.index.generation();
            let reading = reading(self.corpus, self.plan, &generation, &[], self.until);
            File::new(&reading, scope.snapshot, blob).head()
        };
        let language = match self.corpus.language(blob, scope.ground.path(path), head) {
            Err(error) if is_lost(&error) => {
                self.lost.set(self.lost.get() + 1);
                None
            }
            language => language?,
        };
        self.condition.holds(&mut |term| {
            Ok(match term {
                Term::Path(number) => has(&self.paths, *number, path),
                Term::Content(number) => has(&self.blobs, *number, blob),
                Term::Lang(wanted) => language == Some(*wanted),
                // Refused, or known for the repository.
                Term::Symbol(_) | Term::Repo(_) | Term::Fork(_) | Term::Commit(_) => false,
            })
        })
    }
}

fn has(sets: &[Bits], pattern: usize, number: u32) -> bool {
    sets.get(pattern).is_some_and(|set| set.contains(number))
}

fn sure(sets: &[Bits], pattern: usize, number: u32) -> Answer {
    if has(sets, pattern, number) { Answer::Yes } else { Answer::No }
}

fn reading<'a>(
    corpus: &'a Corpus,
    plan: &'a Plan,
    generation: &'a crate::index::Generation,
    candidates: &'a [Candidates],
    until: Option<Instant>,
) -> Reading<'a> {
    Reading { corpus, generation, matchers: &plan.patterns, sources: &plan.sources, candidates, until }
}
