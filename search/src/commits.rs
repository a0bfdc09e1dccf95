//! Finding commits: by their messages, authors and dates, newest first.
//!
//! The history of each searched commit is walked in the order of dates, so the first page of a common query costs what it
//! shows. A cursor names the last commit that was looked at.

use std::{ops::Range, time::Instant};

use govc_engine::{Commit, Error, ErrorKind, Oid, Result};
use serde::{Deserialize, Serialize};

use crate::{
    aggregate::GroupBy,
    deadline,
    find::{Matcher, Partial, fingerprint},
    groups::Groups,
    opaque,
    place::Place,
    query::{Atom, Count, Expr, Query},
};

/// Commits between two looks at the clock.
const CLOCK_COMMITS: u64 = 256;
/// Matches of a message that are reported.
const SPANS_MAX: usize = 100;

/// How to answer.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// Commits of a page.
    pub commits_max: usize,
    /// Where the page begins.
    pub cursor: Option<CommitCursor>,
    /// What all that are found are counted by.
    pub group_by: Option<GroupBy>,
    /// When to end, with what there is.
    pub deadline: Option<Instant>,
}

/// Where a page of commits begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitCursor {
    fingerprint: u64,
    place: u32,
    /// The last commit that was looked at.
    after: Vec<u8>,
    found: u64,
}

impl CommitCursor {
    /// As text: hexadecimal digits.
    pub fn encode(&self) -> String {
        opaque::encode(self)
    }

    /// Reads what [`CommitCursor::encode`] made.
    ///
    /// # Errors
    /// Invalid for anything else.
    pub fn decode(text: &str) -> Result<Self> {
        opaque::decode(text)
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct CommitsFound {
    /// The commits, newest first for each place.
    pub commits: Vec<CommitHit>,
    /// How many match, as far as was counted, with the pages in front.
    pub total: u64,
    /// Whether that is all of them.
    pub is_exact: bool,
    /// Why not everything was searched, if that is so for another reason than the page's end.
    pub partial: Option<Partial>,
    /// Where the next page begins, if there may be one.
    pub next: Option<CommitCursor>,
    /// Those that were counted on this page, by [`CommitOptions::group_by`].
    pub groups: Groups,
    /// How many commits were looked at.
    pub commits_read: u64,
}

/// A commit that matches.
#[derive(Debug, Clone)]
pub struct CommitHit {
    /// The repository's name.
    pub repo: String,
    /// What was asked for.
    pub rev: String,
    /// The commit's id.
    pub oid: Oid,
    /// The commit.
    pub commit: Commit,
    /// Where patterns match in the message, in bytes.
    pub message_matches: Vec<Range<usize>>,
}

/// Searches the commits that `places` reach.
///
/// # Errors
/// Invalid if the query asks for what commits do not have, or the cursor cannot be used; else when stored data cannot be
/// read. The deadline is no error: the answer is then partial.
pub fn find_commits(query: &Query, places: &[Place], options: &CommitOptions) -> Result<CommitsFound> {
    let expected = fingerprint(query, places);
    if options.cursor.as_ref().is_some_and(|cursor| cursor.fingerprint != expected) {
        return Err(Error::invalid("the cursor belongs to another query"));
    }
    let test = Test::new(&query.expr)?;
    let repos = places.chunk_by(|left, right| left.repo == right.repo).count();
    let mut search = Search { query, options, test, found: CommitsFound::default(), last: None, page_end: None, repos };
    let begin = options.cursor.as_ref().map_or(0, |cursor| cursor.place as usize);
    search.found.total = options.cursor.as_ref().map_or(0, |cursor| cursor.found);
    search.found.is_exact = true;
    let (mut number, mut is_there) = (0, options.cursor.is_none());
    // All that a query searches of one repository is one history: branches have most of their commits in common.
    for group in places.chunk_by(|left, right| left.repo == right.repo) {
        is_there |= number == begin;
        if number >= begin && !search.group(number, group)? {
            search.found.is_exact = false;
            break;
        }
        number += group.len();
    }
    if !is_there {
        return Err(not_there());
    }
    search.found.is_exact &= search.found.partial.is_none();
    Ok(search.finish(expected))
}

/// What is wrong with a cursor that no search has given.
fn not_there() -> Error {
    Error::invalid("the cursor names a commit that is not among those that are searched")
}

/// A commit that was looked at: its place, its id, how many were found up to it.
#[derive(Clone)]
struct Seen {
    place: usize,
    oid: Vec<u8>,
    found: u64,
}

struct Search<'a> {
    query: &'a Query,
    options: &'a CommitOptions,
    test: Test,
    found: CommitsFound,
    /// The last commit that was looked at.
    last: Option<Seen>,
    /// The last one of the page.
    page_end: Option<Seen>,
    /// How many repositories are searched.
    repos: usize,
}

impl Search<'_> {
    /// Searches the history of one repository, from the tips that `group` names; whether to go on.
    fn group(&mut self, number: usize, group: &[Place]) -> Result<bool> {
        let Some(place) = group.first() else { return Ok(true) };
        if !self.test.may_be_in(place) {
            return Ok(true);
        }
        let cursor = self.options.cursor.as_ref();
        let mut after = cursor
            .filter(|cursor| cursor.place as usize == number && !cursor.after.is_empty())
            .map(|cursor| &cursor.after);
        let mut walk = place.snapshot.walk();
        for place in group {
            walk.follow(place.commit)?;
        }
        for commit in walk {
            let (oid, _) = match commit {
                Ok(commit) => commit,
                Err(error) if self.is_passed_over(&error) => return Ok(true),
                Err(error) => return Err(error.context(place.repo.clone())),
            };
            if self.found.commits_read.is_multiple_of(CLOCK_COMMITS) && deadline::is_past(self.options.deadline) {
                self.found.partial = Some(Partial::Deadline);
                return Ok(false);
            }
            self.found.commits_read += 1;
            if let Some(last) = after {
                after = Some(last).filter(|last| *last != oid.as_bytes());
                continue;
            }
            let goes_on = self.look(place, oid)?;
            let seen = Seen { place: number, oid: oid.as_bytes().to_vec(), found: self.found.total };
            if self.page_end.is_none() && self.found.commits.len() >= self.options.commits_max {
                self.page_end = Some(seen.clone());
            }
            self.last = Some(seen);
            if !goes_on {
                return Ok(false);
            }
        }
        if after.is_some() { Err(not_there()) } else { Ok(true) }
    }

    /// Whether a repository that cannot be read is left out, as one of many, which the answer then says.
    fn is_passed_over(&mut self, error: &Error) -> bool {
        let is_one_of_many = self.repos > 1 && *error.kind() != ErrorKind::Cancelled;
        if is_one_of_many {
            self.found.partial = Some(Partial::Unreadable);
        }
        is_one_of_many
    }

    /// The answer, with where the next page begins.
    fn finish(mut self, fingerprint: u64) -> CommitsFound {
        let is_more = |end: &Seen| !self.found.is_exact || self.found.total > end.found;
        let end = match self.page_end.take() {
            Some(end) => Some(end).filter(is_more),
            // The time was over before the page was full, perhaps before anything was looked at.
            None => self.last.take().filter(|_| !self.found.is_exact),
        };
        let is_over = self.found.partial == Some(Partial::Count);
        self.found.next = end.filter(|_| !is_over).map(|end| CommitCursor {
            fingerprint,
            place: u32::try_from(end.place).unwrap_or(u32::MAX),
            after: end.oid,
            found: end.found,
        });
        if self.found.next.is_none() && self.found.partial == Some(Partial::Deadline) {
            self.found.next.clone_from(&self.options.cursor);
        }
        self.found
    }

    /// Looks at one commit; whether to go on.
    fn look(&mut self, place: &Place, oid: Oid) -> Result<bool> {
        let commit = place.snapshot.commit(&oid)?;
        if !self.test.holds(place, &commit)? {
            return Ok(true);
        }
        self.found.total = self.found.total.saturating_add(1);
        if let Some(by) = self.options.group_by {
            self.found.groups.add(&by.of_commit(place, &commit), 0);
        }
        let is_full = self.found.commits.len() >= self.options.commits_max;
        if !is_full {
            let message_matches = self.test.message_matches(&commit.message);
            let (repo, rev) = (place.repo.clone(), place.rev.clone());
            self.found.commits.push(CommitHit { repo, rev, oid, commit, message_matches });
        }
        match self.query.options.count {
            Count::All => Ok(true),
            Count::Files(most) if self.found.total >= most as u64 => {
                self.found.partial = Some(Partial::Count);
                Ok(false)
            }
            _ => Ok(self.found.commits.len() < self.options.commits_max),
        }
    }
}

/// What a commit must satisfy.
struct Test {
    condition: Expr,
    patterns: Vec<(crate::query::Pattern, Matcher)>,
    shown: Vec<usize>,
}

impl Test {
    fn new(expr: &Expr) -> Result<Self> {
        let mut test = Self { condition: expr.clone(), patterns: Vec::new(), shown: Vec::new() };
        test.compile(expr, true)?;
        Ok(test)
    }

    fn compile(&mut self, expr: &Expr, is_positive: bool) -> Result<()> {
        match expr {
            Expr::Const(_) => Ok(()),
            Expr::And(parts) | Expr::Or(parts) => parts.iter().try_for_each(|part| self.compile(part, is_positive)),
            Expr::Not(inner) => self.compile(inner, !is_positive),
            Expr::Atom(atom) => self.atom(atom, is_positive),
        }
    }

    fn atom(&mut self, atom: &Atom, is_positive: bool) -> Result<()> {
        let (pattern, is_message) = match atom {
            Atom::Text(pattern) | Atom::Message(pattern) => (pattern, true),
            Atom::Author(pattern) | Atom::Repo(pattern) => (pattern, false),
            Atom::Before(_) | Atom::After(_) | Atom::Fork(_) | Atom::Archived(_) => return Ok(()),
            Atom::Content(_) | Atom::Path(_) | Atom::Lang(_) | Atom::Symbol(_) => {
                return Err(Error::invalid(
                    "content, path, lang and sym are conditions on files: they cannot be asked of commits",
                ));
            }
        };
        if !self.patterns.iter().any(|(known, _)| known == pattern) {
            self.patterns.push((pattern.clone(), Matcher::new(pattern)?));
        }
        if is_message && is_positive {
            self.shown.extend(self.patterns.iter().position(|(known, _)| known == pattern));
        }
        Ok(())
    }

    fn matches(&self, pattern: &crate::query::Pattern, text: &[u8]) -> bool {
        self.patterns.iter().find(|(known, _)| known == pattern).is_some_and(|(_, matcher)| matcher.is_match(text))
    }

    /// Whether the repository alone does not rule everything out.
    fn may_be_in(&self, place: &Place) -> bool {
        self.ask(&self.condition, &|atom| match atom {
            Atom::Repo(pattern) => Some(self.matches(pattern, place.repo.as_bytes())),
            Atom::Fork(wanted) => Some(*wanted == place.is_fork),
            Atom::Archived(wanted) => Some(!wanted),
            _ => None,
        }) != Some(false)
    }

    /// What is known of an expression from what is known of its atoms.
    fn ask(&self, expr: &Expr, known: &dyn Fn(&Atom) -> Option<bool>) -> Option<bool> {
        let all = |parts: &[Expr], ends_at: bool| {
            let mut answer = Some(!ends_at);
            for part in parts {
                match self.ask(part, known) {
                    Some(holds) if holds == ends_at => return Some(ends_at),
                    Some(_) => {}
                    None => answer = None,
                }
            }
            answer
        };
        match expr {
            Expr::Const(holds) => Some(*holds),
            Expr::And(parts) => all(parts, false),
            Expr::Or(parts) => all(parts, true),
            Expr::Not(inner) => self.ask(inner, known).map(|holds| !holds),
            Expr::Atom(atom) => known(atom),
        }
    }

    fn holds(&self, place: &Place, commit: &Commit) -> Result<bool> {
        let author = [&commit.author.name[..], b" <", &commit.author.email, b">"].concat();
        let holds = self.ask(&self.condition, &|atom| {
            Some(match atom {
                Atom::Text(pattern) | Atom::Message(pattern) => self.matches(pattern, &commit.message),
                Atom::Author(pattern) => self.matches(pattern, &author),
                Atom::Before(seconds) => commit.committer.seconds < *seconds,
                Atom::After(seconds) => commit.committer.seconds >= *seconds,
                Atom::Repo(pattern) => self.matches(pattern, place.repo.as_bytes()),
                Atom::Fork(wanted) => *wanted == place.is_fork,
                Atom::Archived(wanted) => !wanted,
                _ => false,
            })
        });
        Ok(holds == Some(true))
    }

    fn message_matches(&self, message: &[u8]) -> Vec<Range<usize>> {
        let mut spans: Vec<Range<usize>> = Vec::new();
        for (_, matcher) in self.shown.iter().filter_map(|number| self.patterns.get(*number)) {
            matcher.matches(message, |found| {
                if !found.is_empty() {
                    spans.push(found);
                }
                spans.len() < SPANS_MAX
            });
        }
        spans.sort_by_key(|span| (span.start, span.end));
        spans
    }
}
