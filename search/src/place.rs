//! Which commits a query searches: the default branch, or the revisions and branches that it names.

use std::{collections::HashSet, time::Instant};

use govc_engine::{Error, ErrorKind, Kind, Oid, RefName, Repo, Result, Snapshot};

use crate::{
    deadline,
    find::Matcher,
    query::{Options, Pattern, glob_regex},
};

/// Commits that one search may go through.
pub const PLACES_MAX: usize = 100_000;
/// Branches between two looks at the clock.
const CLOCK_BRANCHES: usize = 1024;

/// A commit whose files are searched.
#[derive(Debug, Clone)]
pub struct Place {
    /// The repository's name.
    pub repo: String,
    /// Whether the repository is a fork.
    pub is_fork: bool,
    /// What was asked for: a branch, tag or commit.
    pub rev: String,
    /// The commit.
    pub commit: Oid,
    /// What to read from.
    pub snapshot: Snapshot,
}

/// The commits of one repository that a query with these options searches, each once. A repository without commits
/// has none.
///
/// # Errors
/// Not found if a revision is not there, or, where `every` is not set, nothing at all for it; invalid if a branch's
/// glob is malformed; cancelled at the deadline; a limit is exceeded by a hundred thousand branches.
pub fn places(
    repo: &Repo,
    snapshot: &Snapshot,
    options: &Options,
    every: bool,
    until: Option<Instant>,
) -> Result<Vec<Place>> {
    let mut found = Found {
        repo: repo.name().to_string(),
        is_fork: repo.forked_from().is_some(),
        snapshot,
        seen: HashSet::new(),
        places: Vec::new(),
        until,
    };
    for rev in &options.revs {
        match snapshot.resolve_commit_until(rev, until) {
            Ok(commit) => found.add(rev.clone(), commit)?,
            Err(error) if !every && is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    for glob in &options.branches {
        found.add_branches(glob)?;
    }
    if options.revs.is_empty() && options.branches.is_empty() {
        match snapshot.reference(snapshot.head()) {
            Some(tip) if snapshot.peel(tip)?.1 == Kind::Commit => {
                found.add(snapshot.head().short().into_owned(), snapshot.peel(tip)?.0)?;
            }
            _ => {}
        }
    }
    Ok(found.places)
}

/// Whether a revision is merely not there, in this repository among many.
fn is_absent(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid)
}

struct Found<'a> {
    repo: String,
    is_fork: bool,
    snapshot: &'a Snapshot,
    seen: HashSet<Oid>,
    places: Vec<Place>,
    until: Option<Instant>,
}

impl Found<'_> {
    fn add(&mut self, rev: String, commit: Oid) -> Result<()> {
        if self.seen.insert(commit) {
            let (repo, is_fork, snapshot) = (self.repo.clone(), self.is_fork, self.snapshot.clone());
            self.places.push(Place { repo, is_fork, rev, commit, snapshot });
        }
        if self.places.len() > PLACES_MAX {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("the query names more than {PLACES_MAX} branches"),
            ));
        }
        Ok(())
    }

    fn add_branches(&mut self, glob: &str) -> Result<()> {
        let named = branches(self.snapshot, glob, self.until)?;
        named.into_iter().try_for_each(|(name, commit)| self.add(name.short().into_owned(), commit))
    }
}

/// The branches that a glob names, with their commits: the whole name, where `*` does not cross a slash.
///
/// # Errors
/// Invalid if the glob is malformed; cancelled at the deadline.
pub(crate) fn branches(snapshot: &Snapshot, glob: &str, until: Option<Instant>) -> Result<Vec<(RefName, Oid)>> {
    let text = glob_regex(&format!("/{glob}"));
    let matcher = Matcher::new(&Pattern { text, regex: true, case_sensitive: true, span: 0..0 })?;
    let mut named = Vec::new();
    for (number, (name, tip)) in snapshot.references_with_prefix(b"refs/heads/").enumerate() {
        if number % CLOCK_BRANCHES == 0 {
            deadline::check(until)?;
        }
        let short = name.as_bytes().strip_prefix(b"refs/heads/").unwrap_or_default();
        if matcher.is_match(short)
            && let (commit, Kind::Commit) = snapshot.peel(*tip)?
        {
            named.push((name.clone(), commit));
        }
    }
    Ok(named)
}
