//! Finding commits: by their messages, authors and dates, newest first.
//!
//! 1. The query becomes a [`test`]; the index says which messages each pattern may match in, and what was found out before is
//!    known ([`sieve`]).
//! 2. The history of each searched commit is gone through in the order of dates ([`order`]): by numbers, as far as it is
//!    indexed, and in an order that is kept. So the first page of a common query costs what it shows.
//! 3. Those that are not ruled out are looked at, in the index's text of the message ([`crate::index::messages`]). A commit
//!    that it does not have is read, so an answer is exact whatever is indexed.
//!
//! A cursor names the last commit that was looked at.

mod answer;
mod numbers;
mod order;
mod sieve;
mod test;

use std::sync::Arc;

use govc_engine::{Error, ErrorKind, ObjectFormat, Oid, Result};

pub use self::answer::{CommitCursor, CommitHit, CommitOptions, CommitsFound};
pub(crate) use self::{
    numbers::{MessageNumbers, Numbered},
    order::Orders,
    sieve::Said,
};
use self::{
    order::{Met, Source},
    sieve::Sieve,
    test::{Condition, Of, Term, Test},
};
use crate::{
    aggregate::GroupBy,
    corpus::Corpus,
    deadline,
    find::{Partial, fingerprint},
    index::{
        MessageNo, Text,
        messages::{author_of, parts},
    },
    place::Place,
    presence::{CommitNo, Rows},
    query::{Count, Query},
};

/// Text between two looks at the clock, in bytes; a commit counts as so many more.
const CLOCK_BYTES: usize = 1 << 20;
const CLOCK_COMMIT_BYTES: usize = 4 << 10;

/// Searches the commits that `places` reach.
///
/// # Errors
/// Invalid if the query asks for what commits do not have, or the cursor cannot be used; else when stored data cannot be
/// read, unless it is that of one repository of many. The deadline is no error: the answer is then partial.
pub fn find_commits(corpus: &Corpus, query: &Query, places: &[Place], options: &CommitOptions) -> Result<CommitsFound> {
    let expected = fingerprint(query, places);
    if options.cursor.as_ref().is_some_and(|cursor| cursor.fingerprint != expected) {
        return Err(Error::invalid("the cursor belongs to another query"));
    }
    let test = Test::new(&query.expr)?;
    let begin = options.cursor.as_ref().map_or(0, |cursor| cursor.place as usize);
    let found =
        CommitsFound { total: options.cursor.as_ref().map_or(0, |cursor| cursor.found), ..CommitsFound::default() };
    let sieve = match Sieve::new(corpus, &test, options.deadline) {
        Err(error) if *error.kind() == ErrorKind::Cancelled => {
            return Ok(CommitsFound { partial: Some(Partial::Deadline), next: options.cursor.clone(), ..found });
        }
        sieve => sieve?,
    };
    let mut search = Search {
        corpus,
        query,
        options,
        test,
        rows: corpus.presence.rows(),
        numbers: corpus.message_numbers(),
        sieve,
        found,
        is_whole: true,
        last: None,
        page_end: None,
        repos: places.chunk_by(|left, right| left.repo == right.repo).count(),
        clock_bytes: 0,
    };
    let (mut number, mut is_there) = (0, options.cursor.is_none());
    // All that a query searches of one repository is one history: branches have most of their commits in common.
    for group in places.chunk_by(|left, right| left.repo == right.repo) {
        is_there |= number == begin;
        if number >= begin && !search.group(number, group)? {
            search.is_whole = false;
            break;
        }
        number += group.len();
    }
    if !is_there {
        return Err(not_there());
    }
    Ok(search.finish(expected))
}

/// What is wrong with a cursor that no search has given.
fn not_there() -> Error {
    Error::invalid("the cursor names a commit that is not among those that are searched")
}

/// A commit that was looked at: its place, its id, how many were found up to it.
#[derive(Clone, Copy)]
struct Seen {
    place: usize,
    oid: Oid,
    found: u64,
}

struct Search<'a> {
    corpus: &'a Corpus,
    query: &'a Query,
    options: &'a CommitOptions,
    test: Test,
    rows: Arc<Rows>,
    numbers: Arc<Numbered>,
    sieve: Sieve,
    found: CommitsFound,
    /// Whether all was gone through.
    is_whole: bool,
    /// The last commit that was looked at.
    last: Option<Seen>,
    /// The last one of the page.
    page_end: Option<Seen>,
    /// How many repositories are searched.
    repos: usize,
    /// What was looked at since the last look at the clock.
    clock_bytes: usize,
}

/// The history of one repository under search.
struct Ground<'a> {
    number: usize,
    place: &'a Place,
    condition: Condition,
}

/// How going through a history ended.
enum Walked {
    /// With its last commit.
    All,
    /// With as much as is asked for.
    Enough,
    /// At the deadline.
    Late,
    /// Without a commit that the cursor names.
    CursorMissed,
}

/// A commit that may match.
struct Candidate {
    met: Met,
    message: Option<MessageNo>,
    /// Whether it matches, if that is known.
    answer: Option<bool>,
    /// The message's text, if it is to be looked at and indexed.
    text: Option<Text>,
}

impl Search<'_> {
    /// Searches the history of one repository, from the tips that `group` names; whether to go on.
    fn group(&mut self, number: usize, group: &[Place]) -> Result<bool> {
        let Some(place) = group.first() else { return Ok(true) };
        let ground = Ground { number, place, condition: self.test.given(place) };
        if ground.condition == Condition::Const(false) {
            return Ok(true);
        }
        match self.walk(&ground, group) {
            Ok(Walked::All) => Ok(true),
            Ok(Walked::Enough) => Ok(false),
            Ok(Walked::CursorMissed) => Err(not_there()),
            Ok(Walked::Late) => Ok(self.is_over_time()),
            Err(error) if *error.kind() == ErrorKind::Cancelled && deadline::is_past(self.options.deadline) => {
                Ok(self.is_over_time())
            }
            Err(error) if self.is_passed_over(&error) => Ok(true),
            Err(error) => Err(error.context(place.repo.clone())),
        }
    }

    /// Says that the time is over; not to go on.
    fn is_over_time(&mut self) -> bool {
        self.found.partial = Some(Partial::Deadline);
        false
    }

    /// Whether a repository that cannot be read is left out, as one of many, which the answer then says.
    fn is_passed_over(&mut self, error: &Error) -> bool {
        let is_one_of_many = self.repos > 1 && *error.kind() != ErrorKind::Cancelled;
        if is_one_of_many {
            self.found.partial = Some(Partial::Unreadable);
        }
        is_one_of_many
    }

    fn walk(&mut self, ground: &Ground<'_>, group: &[Place]) -> Result<Walked> {
        let mut after = self.after(ground)?;
        let (rows, until) = (Arc::clone(&self.rows), self.options.deadline);
        let tips: Vec<Oid> = group.iter().map(|place| place.commit).collect();
        let mut source = Source::new(self.corpus, &rows, &ground.place.snapshot, &tips, until)?;
        let mut met = Vec::new();
        loop {
            if deadline::is_past(until) {
                return Ok(Walked::Late);
            }
            source.next(&mut met, until)?;
            if met.is_empty() {
                return Ok(if after.is_some() { Walked::CursorMissed } else { Walked::All });
            }
            let mut rest = &met[..];
            if let Some(last) = after {
                let Some(at) = met.iter().position(|met| *met == last) else { continue };
                rest = met.get(at + 1..).unwrap_or_default();
                after = None;
            }
            match self.look_at(ground, rest)? {
                Walked::All => {}
                ended => return Ok(ended),
            }
        }
    }

    /// The commit behind which to begin in this history.
    ///
    /// # Errors
    /// Invalid if it is none.
    fn after(&self, ground: &Ground<'_>) -> Result<Option<Met>> {
        let cursor = self.options.cursor.as_ref();
        let cursor = cursor.filter(|cursor| cursor.place as usize == ground.number && !cursor.after.is_empty());
        let Some(cursor) = cursor else { return Ok(None) };
        let oid = Oid::from_bytes(&cursor.after).map_err(|_| not_there())?;
        Ok(Some(self.corpus.presence.number(&self.rows, &oid).map_or(Met::Read(oid), Met::Indexed)))
    }

    /// Looks at the next commits of a history.
    fn look_at(&mut self, ground: &Ground<'_>, met: &[Met]) -> Result<Walked> {
        for candidate in self.candidates(ground, met) {
            if candidate.answer == Some(true) && self.only_counts() {
                self.found.total = self.found.total.saturating_add(1);
                continue;
            }
            if self.clock_bytes >= CLOCK_BYTES {
                if deadline::is_past(self.options.deadline) {
                    return Ok(Walked::Late);
                }
                self.clock_bytes = 0;
            }
            let goes_on = self.look(ground, &candidate)?;
            let seen = self.seen(ground, candidate.met);
            if self.page_end.is_none() && self.found.commits.len() >= self.options.commits_max {
                self.page_end = Some(seen);
            }
            self.last = Some(seen);
            if !goes_on {
                return Ok(Walked::Enough);
            }
        }
        if let Some(last) = met.last() {
            self.last = Some(self.seen(ground, *last));
        }
        Ok(Walked::All)
    }

    /// Whether the page is full, and nothing but how many there are is still to be told.
    fn only_counts(&self) -> bool {
        self.page_end.is_some() && self.options.group_by.is_none() && self.query.options.count == Count::All
    }

    fn seen(&self, ground: &Ground<'_>, met: Met) -> Seen {
        Seen { place: ground.number, oid: self.oid(met), found: self.found.total }
    }

    fn oid(&self, met: Met) -> Oid {
        match met {
            Met::Indexed(commit) => {
                self.rows.commit(commit).map_or_else(|| ObjectFormat::default().null(), |row| row.oid)
            }
            Met::Read(oid) => oid,
        }
    }

    /// When an indexed commit was committed.
    fn seconds(&self, commit: CommitNo) -> Option<i64> {
        self.rows.commit(commit).map(|row| row.seconds)
    }

    /// Those of some commits that what is known does not rule out.
    fn candidates(&self, ground: &Ground<'_>, met: &[Met]) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for met in met {
            let commit = if let Met::Indexed(commit) = met { Some(*commit) } else { None };
            let message = commit.and_then(|commit| self.numbers.get(commit));
            let answer = commit.zip(message).and_then(|(commit, message)| {
                ground.condition.ask(&mut |term| match term {
                    Term::Pattern(number) => self.sieve.ask(number, message),
                    Term::Before(end) => self.seconds(commit).map(|seconds| seconds < end),
                    Term::After(start) => self.seconds(commit).map(|seconds| seconds >= start),
                    Term::Fork(_) => None,
                })
            });
            if answer != Some(false) {
                candidates.push(Candidate { met: *met, message, answer, text: None });
            }
        }
        let tables = self.corpus.index.tables();
        for candidate in candidates.iter_mut().filter(|candidate| self.needs_text(candidate)) {
            candidate.text = candidate.message.and_then(|message| tables.messages.text(message));
        }
        candidates
    }

    fn needs_text(&self, candidate: &Candidate) -> bool {
        candidate.answer.is_none() || self.options.group_by == Some(GroupBy::Author)
    }

    /// Looks at one commit; whether to go on.
    fn look(&mut self, ground: &Ground<'_>, candidate: &Candidate) -> Result<bool> {
        let (place, oid) = (ground.place, self.oid(candidate.met));
        let mut commit = None;
        if self.needs_text(candidate) {
            self.found.commits_read += 1;
            if candidate.text.is_none() {
                commit = Some(place.snapshot.commit(&oid)?);
            }
        }
        let of_commit = commit.as_ref().map(author_of).unwrap_or_default();
        let (author, message) = match (&candidate.text, &commit) {
            (Some(text), _) => parts(text),
            (None, Some(commit)) => (&of_commit[..], &commit.message[..]),
            (None, None) => (&[][..], &[][..]),
        };
        let seconds = match (candidate.met, &commit) {
            (_, Some(commit)) => commit.committer.seconds,
            (Met::Indexed(commit), None) => self.seconds(commit).unwrap_or_default(),
            (Met::Read(_), None) => 0,
        };
        self.clock_bytes = self.clock_bytes.saturating_add(CLOCK_COMMIT_BYTES).saturating_add(message.len());
        let holds = candidate.answer.or_else(|| self.verify(ground, candidate.message, author, message, seconds));
        if holds != Some(true) {
            return Ok(true);
        }
        let group = self.options.group_by.map(|by| by.of_commit(place, author, seconds));
        if self.found.commits.len() < self.options.commits_max {
            let commit = commit.map_or_else(|| place.snapshot.commit(&oid), Ok)?;
            let message_matches = self.test.message_matches(&commit.message);
            let (repo, rev) = (place.repo.clone(), place.rev.clone());
            self.found.commits.push(CommitHit { repo, rev, oid, commit, message_matches });
        }
        self.found.total = self.found.total.saturating_add(1);
        if let Some(group) = group {
            self.found.groups.add(&group, 0);
        }
        Ok(match self.query.options.count {
            Count::All => true,
            Count::Files(most) if self.found.total >= most as u64 => {
                self.found.partial = Some(Partial::Count);
                false
            }
            _ => self.found.commits.len() < self.options.commits_max,
        })
    }

    /// Whether a commit matches.
    fn verify(
        &mut self,
        ground: &Ground<'_>,
        number: Option<MessageNo>,
        author: &[u8],
        message: &[u8],
        seconds: i64,
    ) -> Option<bool> {
        let (test, sieve) = (&self.test, &mut self.sieve);
        ground.condition.ask(&mut |term| match term {
            Term::Pattern(pattern) => {
                let asked = test.patterns.get(pattern)?;
                if let Some(known) = number.and_then(|number| sieve.ask(pattern, number)) {
                    return Some(known);
                }
                let is_match = match asked.of {
                    Of::Message => asked.matcher.is_match(message),
                    Of::Author => asked.matcher.is_match(author),
                    Of::Repo => asked.matcher.is_match(ground.place.repo.as_bytes()),
                };
                if let Some(number) = number {
                    sieve.learn(pattern, number, is_match);
                }
                Some(is_match)
            }
            Term::Before(end) => Some(seconds < end),
            Term::After(start) => Some(seconds >= start),
            Term::Fork(wanted) => Some(wanted == ground.place.is_fork),
        })
    }

    /// The answer, with where the next page begins.
    fn finish(mut self, fingerprint: u64) -> CommitsFound {
        self.sieve.keep(self.corpus, &self.test);
        let is_more = |end: &Seen| !self.is_whole || self.found.total > end.found;
        let end = match self.page_end {
            Some(end) => Some(end).filter(is_more),
            // The time was over before the page was full, perhaps before anything was looked at.
            None => self.last.filter(|_| !self.is_whole),
        };
        let is_over = self.found.partial == Some(Partial::Count);
        self.found.is_exact = self.is_whole && self.found.partial.is_none();
        self.found.next = end.filter(|_| !is_over).map(|end| CommitCursor {
            fingerprint,
            place: u32::try_from(end.place).unwrap_or(u32::MAX),
            after: end.oid.as_bytes().to_vec(),
            found: end.found,
        });
        if self.found.next.is_none() && self.found.partial == Some(Partial::Deadline) {
            self.found.next.clone_from(&self.options.cursor);
        }
        self.found
    }
}
