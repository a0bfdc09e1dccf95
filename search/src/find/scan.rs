//! Going through the files of a search's places in the order of results, passing over what cannot match.
//!
//! The order is the tier of the file, then its place, then its path. It depends on what is searched alone and not on
//! the index, so that a cursor means the same before and after a blob is indexed.

use std::{ops::ControlFlow, sync::Arc, time::Instant};

use govc_engine::Result;
use serde::{Deserialize, Serialize};

use super::{
    candidates::{Candidates, Reach, answer, answer_of_names},
    pattern::NamePart,
    plan::{Answer, Condition, PatternNo, Plan, Term},
};
use crate::{
    corpus::Corpus,
    deadline,
    importance::Tier,
    index::{Bits, BlobNo},
    language::is_by_path,
    view::{Child, Dir},
};

/// Entries between two looks at the clock.
const CLOCK_ENTRIES: u64 = 4096;

/// Where a file stands in the order of results.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) tier: Tier,
    /// The number of the place in the search.
    pub(crate) place: u32,
    pub(crate) path: Vec<u8>,
}

/// One place as it is gone through.
pub(crate) struct Ground {
    pub(crate) number: u32,
    pub(crate) root: Arc<Dir>,
    pub(crate) demand: Arc<Demand>,
}

/// What is demanded of files; places of which the same is demanded share it.
pub(crate) struct Demand {
    /// What a file must satisfy.
    pub(crate) condition: Condition,
    /// Patterns of paths that cannot match without a text in one of the path's names.
    names: Vec<PatternNo>,
    /// What the contents leave over.
    reach: Reach,
    /// The same for files of which no name has such a text.
    reach_by_content: Reach,
}

impl Demand {
    /// What `condition` demands of the files with the blobs in `scope`.
    pub(crate) fn new(
        condition: Condition,
        plan: &Plan,
        candidates: &[Candidates],
        indexed: &Bits,
        scope: &Bits,
    ) -> Self {
        let mut names = Vec::new();
        condition.paths(&mut |number| {
            let has_part = plan.patterns.get(number).is_some_and(|matcher| matcher.name_part().is_some());
            names.extend(has_part.then_some(number));
        });
        let reach = Reach::of(&condition, candidates, indexed, scope, &[]);
        let reach_by_content = Reach::of(&condition, candidates, indexed, scope, &names);
        Self { condition, names, reach, reach_by_content }
    }
}

/// Takes a file that may be a result: its place, its path, its blob, its tier, what is known of it.
pub(crate) type Visit<'a> = dyn FnMut(&Ground, &[u8], BlobNo, Tier) -> Result<ControlFlow<()>> + 'a;

/// Goes through the files behind `after` of one tier after the other.
pub(crate) struct Scan<'a> {
    pub(crate) corpus: &'a Corpus,
    pub(crate) plan: &'a Plan,
    pub(crate) candidates: &'a [Candidates],
    pub(crate) indexed: &'a Bits,
    pub(crate) after: Option<&'a Position>,
    /// When to end.
    pub(crate) until: Option<Instant>,
    /// Files that were looked at one by one.
    pub(crate) files_seen: u64,
    /// Entries of directories between two looks at the clock.
    pub(crate) entries_seen: u64,
    /// Whether the time was over.
    pub(crate) is_late: bool,
}

/// Where in the tree the scan is.
struct Here {
    path: Vec<u8>,
    /// What the directories in front of it say.
    tier: Tier,
    /// Whether one of them has a name in which a pattern may match.
    is_named: bool,
}

impl Scan<'_> {
    /// Visits the files of all places that may be results, in order, until the visitor ends it.
    ///
    /// # Errors
    /// The visitor's.
    pub(crate) fn run(&mut self, grounds: &[Ground], visit: &mut Visit<'_>) -> Result<ControlFlow<()>> {
        for tier in Tier::ALL {
            if self.after.is_some_and(|after| after.tier > tier) {
                continue;
            }
            for ground in grounds {
                let is_behind = |after: &Position| (after.tier, after.place) > (tier, ground.number);
                if self.after.is_some_and(is_behind) {
                    continue;
                }
                let mut here = Here { path: Vec::new(), tier: Tier::Source, is_named: false };
                if self.dir(ground, &ground.root, tier, &mut here, visit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn dir(
        &mut self,
        ground: &Ground,
        dir: &Dir,
        tier: Tier,
        here: &mut Here,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>> {
        // Most directories have files of one tier.
        if !dir.tiers().below(here.tier).contains(tier) {
            return Ok(ControlFlow::Continue(()));
        }
        if ground.demand.names.is_empty() && ground.demand.reach.is_apart_from(dir) {
            return Ok(ControlFlow::Continue(()));
        }
        let may_be_named = here.is_named || self.names_have(ground, dir.names());
        let reach = if may_be_named { &ground.demand.reach } else { &ground.demand.reach_by_content };
        for (name, child_tier, child) in dir.children() {
            self.entries_seen += 1;
            if self.entries_seen.is_multiple_of(CLOCK_ENTRIES) && deadline::is_past(self.until) {
                self.is_late = true;
                return Ok(ControlFlow::Break(()));
            }
            let (length, above) = (here.path.len(), (here.tier, here.is_named));
            let flow = match child {
                Child::File(blob) => {
                    if !reach.has(blob) || above.0.max(child_tier) != tier {
                        continue;
                    }
                    here.path.extend_from_slice(name);
                    self.file(ground, blob, tier, &here.path, visit)?
                }
                Child::Dir(child) => {
                    here.path.extend_from_slice(name);
                    here.path.push(b'/');
                    here.tier = here.tier.max(child_tier);
                    here.is_named = here.is_named || (may_be_named && self.names_have(ground, name));
                    self.dir(ground, child, tier, here, visit)?
                }
            };
            here.path.truncate(length);
            (here.tier, here.is_named) = above;
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether a pattern may match in one of `names`.
    fn names_have(&self, ground: &Ground, names: &[u8]) -> bool {
        if ground.demand.names.is_empty() {
            return false;
        }
        let lower = names.to_ascii_lowercase();
        let part = |number: &usize| self.plan.patterns.get(*number).and_then(|matcher| matcher.name_part());
        ground.demand.names.iter().filter_map(part).any(|part: &NamePart| part.may_be_in(names, &lower))
    }

    fn file(
        &mut self,
        ground: &Ground,
        blob: BlobNo,
        tier: Tier,
        path: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>> {
        let is_done =
            |after: &Position| (after.tier, after.place, after.path.as_slice()) >= (tier, ground.number, path);
        if self.after.is_some_and(is_done) {
            return Ok(ControlFlow::Continue(()));
        }
        self.files_seen += 1;
        let may = ground.demand.condition.may_hold(&mut |term| self.ask(term, path, blob));
        if may == Answer::No {
            return Ok(ControlFlow::Continue(()));
        }
        visit(ground, path, blob, tier)
    }

    /// What is known of a file before it is read.
    fn ask(&self, term: &Term, path: &[u8], blob: BlobNo) -> Answer {
        let sure = |holds: bool| if holds { Answer::Yes } else { Answer::No };
        match term {
            Term::Path(number) => sure(self.plan.patterns.get(*number).is_some_and(|matcher| matcher.is_match(path))),
            Term::Content(number) => answer(self.candidates.get(*number), self.indexed, blob, &self.corpus.index),
            Term::Symbol(number) => {
                answer_of_names(self.candidates.get(*number), self.indexed, self.corpus, path, blob)
            }
            Term::Lang(wanted) => is_by_path(path, *wanted).map_or(Answer::Maybe, sure),
            Term::Repo(_) | Term::Fork(_) | Term::Commit(_) => Answer::Maybe,
        }
    }
}
