//! Finding changes: the lines that commits added or removed, against their first parents, newest commit first.
//!
//! 1. The query becomes a plan, as for [`crate::find()`]; what it demands of the commit is asked first, by what is cheapest
//!    to ask: the repository, the date, the author and the message.
//! 2. The history of each repository is walked in the order of dates until the page is full. What a commit changes is in
//!    the presence index, or is read.
//! 3. Of each changed file ([`change`]) it is asked whether it may match: by its path, by what the index says of the blobs on
//!    both sides, and of the chunks that these do not have in common. What remains is compared line by line ([`lines`]),
//!    and the changed lines are matched ([`matching`]).
//!
//! A text in a query matches in one changed line; several match in any changed lines of the same file. A merge is compared
//! with its first parent, as `git log --diff-merges=first-parent` does. There are no renames: a file that is moved is
//! removed and added. Symbolic links, submodules and permissions are not lines.

mod answer;
mod change;
mod cursor;
mod lines;
mod matching;
mod page;

use std::{sync::Arc, time::Instant};

use govc_engine::{Commit, CommitLinks, Error, ErrorKind, Oid, Result};

pub use self::{
    answer::{DiffFile, DiffHit, DiffLine, DiffsFound, LineSign},
    cursor::DiffCursor,
};
use self::{
    change::{Look, is_lost},
    page::{Flow, Page},
};
use crate::{
    corpus::Corpus,
    deadline,
    find::{Candidates, CommitTerm, Condition, Matcher, Plan, Reading, Term, fingerprint},
    index::Generation,
    place::Place,
    presence::{NONE, Rows},
    query::{Query, SearchKind},
};

/// Commits of earlier pages between two looks at the clock.
const CLOCK_COMMITS: u64 = 256;

/// How to answer.
#[derive(Debug, Clone)]
pub struct DiffOptions {
    /// Commits of a page.
    pub commits_max: usize,
    /// Files that are shown of a commit.
    pub files_max: usize,
    /// Lines that are shown of a file.
    pub lines_max: usize,
    /// Where the page begins.
    pub cursor: Option<DiffCursor>,
    /// When to end, with what there is.
    pub deadline: Option<Instant>,
}

impl Default for DiffOptions {
    fn default() -> Self {
        Self { commits_max: 50, files_max: 10, lines_max: 10, cursor: None, deadline: None }
    }
}

/// Searches what the commits that `places` reach have added and removed. The query says `type:diff`.
///
/// Lines that match are those in which a text or regex of the query matches that is not negated; if there is none, all
/// lines of the changed files that satisfy the query. A commit of which a file, but not all, could be gone through before
/// the deadline is left to the next page, unless the page begins with it: then what was found of it is told, and the next
/// page begins behind it.
///
/// # Errors
/// Invalid if the query asks for what changes do not have, or the cursor cannot be used; cancelled if the time is over
/// before the query is compiled; else when stored data cannot be read. A deadline that comes later is no error: the answer
/// is then partial, and its cursor goes on behind the last commit that was gone through.
pub fn find_diffs(corpus: &Corpus, query: &Query, places: &[Place], options: &DiffOptions) -> Result<DiffsFound> {
    check(query)?;
    let plan = Plan::new(query, options.deadline)?;
    if plan.condition.asks_definitions() {
        return Err(Error::invalid("definitions (sym:) cannot be asked of changes"));
    }
    let expected = fingerprint(query, places);
    if options.cursor.as_ref().is_some_and(|cursor| cursor.fingerprint != expected) {
        return Err(Error::invalid("the cursor belongs to another query"));
    }
    let generation = corpus.index.generation();
    let candidates = candidates(corpus, &plan, &generation, options.deadline);
    let reading = Reading {
        corpus,
        generation: &generation,
        matchers: &plan.patterns,
        sources: &plan.sources,
        candidates: &candidates,
        until: options.deadline,
    };
    let mut search = Search::new(&reading, &plan, query, places, options);
    let is_whole = search.run(places)?;
    Ok(search.page.finish(expected, is_whole))
}

/// # Errors
/// Invalid if the query asks for what changes are not asked for.
fn check(query: &Query) -> Result<()> {
    if query.options.kind != SearchKind::Diff {
        return Err(Error::invalid("changes are asked for with type:diff"));
    }
    if query.options.select.is_some() {
        return Err(Error::invalid("select: cannot be used with type:diff"));
    }
    Ok(())
}

/// Asks the index for each pattern that lines are asked for.
fn candidates(corpus: &Corpus, plan: &Plan, generation: &Generation, until: Option<Instant>) -> Vec<Candidates> {
    let mut asked = vec![false; plan.patterns.len()];
    plan.condition.contents(&mut |number| {
        if let Some(asked) = asked.get_mut(number) {
            *asked = true;
        }
    });
    let find = |(matcher, is_asked): (&Matcher, &bool)| match is_asked {
        true => Candidates::find(matcher, &corpus.index, generation, until).unwrap_or_else(|error| {
            // A damaged index rules nothing out; its owner makes it anew.
            if *error.kind() != ErrorKind::Cancelled {
                corpus.index.is_unreadable(&error);
            }
            Candidates::anywhere()
        }),
        false => Candidates::anywhere(),
    };
    plan.patterns.iter().zip(&asked).map(find).collect()
}

fn is_of_commit(term: &Term) -> bool {
    matches!(term, Term::Commit(_))
}

/// What is wrong with a cursor that no search has given.
fn not_there() -> Error {
    Error::invalid("the cursor names a commit that is not among those that are searched")
}

/// A search under way.
struct Search<'a> {
    reading: &'a Reading<'a>,
    plan: &'a Plan,
    options: &'a DiffOptions,
    rows: Arc<Rows>,
    /// How many repositories are searched.
    repos: usize,
    page: Page<'a>,
}

impl<'a> Search<'a> {
    fn new(
        reading: &'a Reading<'a>,
        plan: &'a Plan,
        query: &Query,
        places: &[Place],
        options: &'a DiffOptions,
    ) -> Self {
        Self {
            reading,
            plan,
            options,
            rows: reading.corpus.presence.rows(),
            repos: places.chunk_by(|left, right| left.repo == right.repo).count(),
            page: Page::new(query.options.count, options),
        }
    }

    /// Searches until the page is full; whether everything was searched.
    fn run(&mut self, places: &[Place]) -> Result<bool> {
        let cursor = self.options.cursor.as_ref();
        let begin = cursor.map_or(0, |cursor| cursor.seen.place as usize);
        let (mut number, mut is_there) = (0, cursor.is_none());
        // All that a query searches of one repository is one history: branches have most of their commits in common.
        for group in places.chunk_by(|left, right| left.repo == right.repo) {
            is_there |= number == begin;
            if number >= begin && !self.group(number, group)? {
                return Ok(false);
            }
            number += group.len();
        }
        // Without places, there may be a cursor in front of the first one.
        if is_there || begin == 0 { Ok(true) } else { Err(not_there()) }
    }

    /// Searches the history of one repository, from the tips that `group` names; whether to go on.
    fn group(&mut self, number: usize, group: &[Place]) -> Result<bool> {
        let Some(place) = group.first() else { return Ok(true) };
        let condition = self.given(place);
        if condition == Condition::Const(false) {
            return Ok(true);
        }
        let place_number = u32::try_from(number).unwrap_or(u32::MAX);
        let cursor = self.options.cursor.as_ref().map(|cursor| &cursor.seen);
        let mut after =
            cursor.filter(|seen| seen.place == place_number && !seen.commit.is_empty()).map(|seen| &seen.commit);
        let mut walk = place.snapshot.walk();
        for tip in group {
            match walk.follow(tip.commit) {
                Err(error) if self.is_passed_over(&error) => return Ok(true),
                followed => followed.map_err(|error| error.context(place.repo.clone()))?,
            }
        }
        for commit in walk {
            let (oid, links) = match commit {
                Ok(commit) => commit,
                Err(error) if self.is_passed_over(&error) => return Ok(true),
                Err(error) => return Err(error.context(place.repo.clone())),
            };
            let is_seen = after.is_some();
            if (!is_seen || self.page.commits_read.is_multiple_of(CLOCK_COMMITS))
                && deadline::is_past(self.options.deadline)
            {
                self.page.is_late = true;
                return Ok(false);
            }
            self.page.commits_read += 1;
            if is_seen {
                after = after.filter(|last| *last != oid.as_bytes());
                continue;
            }
            let flow = self.look(place, &condition, oid, &links)?;
            if flow == Flow::Before {
                return Ok(false);
            }
            self.page.pass(place_number, &oid);
            if flow == Flow::End {
                return Ok(false);
            }
        }
        if after.is_some() { Err(not_there()) } else { Ok(true) }
    }

    /// What the plan demands of the changes of one repository.
    fn given(&self, place: &Place) -> Condition {
        self.plan.condition.given(&|term| match term {
            Term::Repo(number) => {
                self.plan.patterns.get(*number).map(|matcher| matcher.is_match(place.repo.as_bytes()))
            }
            Term::Fork(wanted) => Some(*wanted == place.is_fork),
            _ => None,
        })
    }

    /// Whether a repository that cannot be read is left out, as one of many, which the answer then says.
    fn is_passed_over(&mut self, error: &Error) -> bool {
        let is_one_of_many = self.repos > 1 && *error.kind() != ErrorKind::Cancelled;
        self.page.counted.is_unreadable |= is_one_of_many;
        is_one_of_many
    }

    /// Looks at one commit.
    fn look(&mut self, place: &Place, condition: &Condition, oid: Oid, links: &CommitLinks) -> Result<Flow> {
        let (condition, commit) = match self.of_commit(place, condition, &oid, links) {
            Err(error) if is_lost(&error) => {
                self.page.skip_commit(true);
                return Ok(Flow::On);
            }
            known => known?,
        };
        if condition == Condition::Const(false) {
            return Ok(Flow::On);
        }
        let mut look = Look::new(self.reading, &place.snapshot, &condition);
        if !self.page.is_full() {
            look = look.showing(self.options, self.page.budget_bytes());
        }
        let went = self.changes(place, &oid, links, &mut look);
        let found = look.found;
        let mut is_whole = !found.is_unreadable;
        match went {
            Ok(()) => {}
            Err(error) if *error.kind() == ErrorKind::Cancelled => {
                self.page.is_late = true;
                // With more time it may come to an end; what had all of the time does not.
                if self.page.has_passed() {
                    return Ok(Flow::Before);
                }
                self.page.skip_commit(false);
                is_whole = false;
            }
            Err(error) if is_lost(&error) || *error.kind() == ErrorKind::TooLarge => {
                self.page.skip_commit(true);
                is_whole = false;
            }
            Err(error) => return Err(error.context(place.repo.clone())),
        }
        if found.total_files == 0 {
            return Ok(self.page.add(place, oid, None, found, is_whole));
        }
        match commit.map_or_else(|| place.snapshot.commit(&oid), Ok) {
            Ok(commit) => Ok(self.page.add(place, oid, Some(commit), found, is_whole)),
            Err(error) if is_lost(&error) => {
                self.page.skip_commit(true);
                Ok(Flow::On)
            }
            Err(error) => Err(error),
        }
    }

    /// What is demanded of the changes of a commit, and the commit, if it was read for that.
    fn of_commit(
        &self,
        place: &Place,
        condition: &Condition,
        oid: &Oid,
        links: &CommitLinks,
    ) -> Result<(Condition, Option<Commit>)> {
        let date = |term: &Term| match term {
            Term::Commit(CommitTerm::Before(seconds)) => Some(links.seconds < *seconds),
            Term::Commit(CommitTerm::After(seconds)) => Some(links.seconds >= *seconds),
            _ => None,
        };
        if !condition.asks(is_of_commit) {
            return Ok((condition.clone(), None));
        }
        let condition = condition.given(&date);
        if !condition.asks(is_of_commit) {
            return Ok((condition, None));
        }
        let commit = place.snapshot.commit(oid)?;
        let author = [&commit.author.name[..], b" <", &commit.author.email, b">"].concat();
        let is_match = |number: usize, text: &[u8]| {
            Some(self.plan.patterns.get(number).is_some_and(|matcher| matcher.is_match(text)))
        };
        let condition = condition.given(&|term| match term {
            Term::Commit(CommitTerm::Author(number)) => is_match(*number, &author),
            Term::Commit(CommitTerm::Message(number)) => is_match(*number, &commit.message),
            _ => None,
        });
        Ok((condition, Some(commit)))
    }

    /// Has a look at what a commit changes, in git's order.
    fn changes(&self, place: &Place, oid: &Oid, links: &CommitLinks, look: &mut Look<'_>) -> Result<()> {
        let corpus = self.reading.corpus;
        let number = corpus.presence.number(&self.rows, oid);
        if let Some(row) = number.and_then(|number| self.rows.commit(number)) {
            let path = |number| self.rows.path(number).map_or(&[][..], |path| path);
            return self
                .rows
                .changes(row)
                .try_for_each(|change| look.change(path(change.path), change.old, change.new));
        }
        let changes = corpus.presence.recent.read(&place.snapshot, oid, links, self.options.deadline)?;
        let sides: Vec<Oid> = changes.iter().flat_map(|change| [change.old, change.new]).flatten().collect();
        let mut blobs = corpus.index.numbers(&sides).into_iter();
        for change in changes.iter() {
            let mut side = |side: Option<Oid>| side.and_then(|_| blobs.next()).unwrap_or(NONE);
            let (old, new) = (side(change.old), side(change.new));
            look.change(&change.path, old, new)?;
        }
        Ok(())
    }
}
