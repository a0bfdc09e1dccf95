//! The history of commits, newest first.

use std::{fmt, str::FromStr, time::Instant};

use smallvec::SmallVec;

use super::check_deadline;
use crate::{
    Error, Result,
    object::{Commit, Oid},
    store::{CommitLinks, Snapshot},
};

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// The commits to start from.
    pub from: Vec<Oid>,
    /// Only commits that change this path, as `git log -- path` simplifies history.
    pub path: Option<Vec<u8>>,
    /// Where the page before ended; it also holds where that one started.
    pub after: Option<LogCursor>,
    /// Most commits to give.
    pub limit: usize,
    /// When to give up.
    pub deadline: Option<Instant>,
}

/// Where a page ended: what it started from, and how many commits came before. History never changes, so the same
/// cursor always continues the same list, whatever is pushed meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCursor {
    from: Vec<Oid>,
    skip: u64,
}

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.skip)?;
        self.from.iter().try_for_each(|oid| write!(f, "-{oid}"))
    }
}

impl FromStr for LogCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || Error::invalid("the cursor is malformed");
        let mut parts = text.split('-');
        let skip = parts.next().and_then(|skip| skip.parse().ok()).ok_or_else(malformed)?;
        let from = parts.map(Oid::from_str).collect::<Result<Vec<_>>>().map_err(|_| malformed())?;
        if from.is_empty() || from.len() > 16 {
            return Err(malformed());
        }
        Ok(Self { from, skip })
    }
}

/// One page of history.
#[derive(Debug, Clone)]
pub struct LogPage {
    /// The commits, newest first.
    pub commits: Vec<(Oid, Commit)>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<LogCursor>,
}

impl Snapshot {
    /// The commits that are reachable from some others, by commit date, newest first, as `git log` orders them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if a commit is missing, [`crate::ErrorKind::Cancelled`] after the deadline.
    pub fn log(&self, options: LogOptions) -> Result<LogPage> {
        let (from, skip) = match options.after {
            Some(cursor) => (cursor.from, cursor.skip),
            None => (options.from, 0),
        };
        let path = options.path.as_deref().filter(|path| !path.is_empty());
        let mut walk = self.walk();
        for oid in &from {
            walk.follow(*oid)?;
        }
        let mut commits = Vec::new();
        let mut passed = 0u64;
        while let Some((oid, links)) = walk.step() {
            check_deadline(options.deadline)?;
            let (wanted, follow) = match path {
                Some(path) => self.simplify(&links, path)?,
                None => (true, links.parents),
            };
            for parent in follow {
                walk.follow(parent)?;
            }
            if !wanted {
                continue;
            }
            passed += 1;
            if passed <= skip {
                continue;
            }
            if commits.len() == options.limit {
                let next = LogCursor { from, skip: skip + commits.len() as u64 };
                return Ok(LogPage { commits, next: Some(next) });
            }
            commits.push((oid, self.commit(&oid)?));
        }
        Ok(LogPage { commits, next: None })
    }

    /// Whether a commit changes `path`, and which parents to follow: only the one that has the same there, if any.
    fn simplify(&self, commit: &CommitLinks, path: &[u8]) -> Result<(bool, SmallVec<[Oid; 2]>)> {
        let at = |tree: Oid| Ok::<_, Error>(self.entry(tree, path)?.map(|entry| (entry.mode, entry.oid)));
        let here = at(commit.tree)?;
        for parent in &commit.parents {
            if at(self.commit_links(parent)?.tree)? == here {
                return Ok((false, [*parent].into_iter().collect()));
            }
        }
        Ok((!commit.parents.is_empty() || here.is_some(), commit.parents.clone()))
    }
}
