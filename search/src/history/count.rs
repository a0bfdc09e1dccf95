//! The pass over the commits of a question: how many files match in each, and where that changes.

use std::{ops::ControlFlow, time::Instant};

use govc_engine::Result;

use super::test::{Scope, Test};
use crate::{
    deadline,
    presence::{Change, CommitNo, NONE},
};

/// Commits between two looks at the clock.
const CLOCK_COMMITS: usize = 1024;

/// A commit that has matching files that its first parent has not, or the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) commit: CommitNo,
    pub(super) appeared: u32,
    pub(super) gone: u32,
    /// Matching files in the first parent.
    pub(super) before: u32,
}

impl Turn {
    /// Matching files in the commit.
    pub(super) fn after(&self) -> u32 {
        (self.before + self.appeared).saturating_sub(self.gone)
    }
}

/// What the pass found.
pub(super) struct Counted {
    /// Matching files, by the commit's number.
    files: Vec<u32>,
    /// In the order of their commits' numbers.
    pub(super) turns: Vec<Turn>,
}

impl Counted {
    /// Goes over the commits of a question.
    ///
    /// # Errors
    /// Cancelled at the deadline; else as [`Test::holds`].
    pub(super) fn new(test: &Test<'_>, scope: &Scope<'_>, until: Option<Instant>) -> Result<Self> {
        let mut counted = Self { files: vec![0; scope.ground.commit_count()], turns: Vec::new() };
        for (at, commit) in scope.commits.iter().enumerate() {
            if at.is_multiple_of(CLOCK_COMMITS) {
                deadline::check(until)?;
            }
            let parent = scope.ground.commit(*commit).map_or(NONE, |row| row.first_parent);
            let before = counted.files(parent);
            let mut turn = Turn { commit: *commit, appeared: 0, gone: 0, before };
            turned_files(test, scope, *commit, &mut |_, is_new| {
                let count = if is_new { &mut turn.appeared } else { &mut turn.gone };
                *count = count.saturating_add(1);
                ControlFlow::Continue(())
            })?;
            if let Some(files) = counted.files.get_mut(*commit as usize) {
                *files = turn.after();
            }
            if turn.appeared + turn.gone > 0 {
                counted.turns.push(turn);
            }
        }
        Ok(counted)
    }

    /// How many files of a commit match.
    pub(super) fn files(&self, commit: CommitNo) -> u32 {
        self.files.get(commit as usize).copied().unwrap_or(0)
    }
}

/// Gives the files of a commit that match where its first parent's do not (true), or the other way round, in the order of
/// their paths, until it is enough.
///
/// # Errors
/// As [`Test::holds`].
pub(super) fn turned_files(
    test: &Test<'_>,
    scope: &Scope<'_>,
    commit: CommitNo,
    each: &mut dyn FnMut(Change, bool) -> ControlFlow<()>,
) -> Result<()> {
    let mut flow = Ok(ControlFlow::Continue(()));
    scope.ground.changes(commit, &mut |change| {
        if !matches!(flow, Ok(ControlFlow::Continue(()))) {
            return;
        }
        let holds = |blob| if blob == NONE { Ok(false) } else { test.holds(scope, change.path, blob) };
        flow = match (holds(change.old), holds(change.new)) {
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(before), Ok(after)) if before != after => Ok(each(change, after)),
            _ => Ok(ControlFlow::Continue(())),
        };
    });
    flow.map(drop)
}
