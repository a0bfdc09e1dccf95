//! The history of commits, newest first.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashSet},
    fmt,
    str::FromStr,
    time::Instant,
};

use super::check_deadline;
use crate::{
    Error, Result,
    object::{Commit, Kind, Oid, links},
    store::Snapshot,
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

/// A commit that waits for its turn: the newest first, then in the order in which they were found.
#[derive(PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) seconds: i64,
    pub(super) found: u64,
    pub(super) oid: Oid,
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        self.seconds.cmp(&other.seconds).then_with(|| other.found.cmp(&self.found))
    }
}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
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
        let mut queue = BinaryHeap::new();
        let mut seen = HashSet::new();
        let mut found = 0;
        let mut enqueue = |queue: &mut BinaryHeap<Queued>, oid: Oid| -> Result<()> {
            if seen.insert(oid) {
                let seconds = links(Kind::Commit, &self.object_of(&oid, Kind::Commit)?)?.commit_seconds;
                queue.push(Queued { seconds, found, oid });
                found += 1;
            }
            Ok(())
        };
        for oid in &from {
            enqueue(&mut queue, *oid)?;
        }
        let mut commits = Vec::new();
        let mut passed = 0u64;
        while let Some(Queued { oid, .. }) = queue.pop() {
            check_deadline(options.deadline)?;
            let data = self.object_of(&oid, Kind::Commit)?;
            let links = links(Kind::Commit, &data)?;
            let mut targets = links.targets.iter().map(|(target, _)| *target);
            let tree = targets.next().ok_or_else(|| Error::corrupt(format!("commit {oid} has no tree")))?;
            let parents: Vec<Oid> = targets.collect();
            let (wanted, follow) = match path {
                Some(path) => self.simplify(tree, parents, path)?,
                None => (true, parents),
            };
            for parent in follow {
                enqueue(&mut queue, parent)?;
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
            commits.push((oid, Commit::parse(&data)?));
        }
        Ok(LogPage { commits, next: None })
    }

    /// Whether a commit changes `path`, and which parents to follow: only the one that has the same there, if any.
    fn simplify(&self, tree: Oid, parents: Vec<Oid>, path: &[u8]) -> Result<(bool, Vec<Oid>)> {
        let at = |tree: Oid| Ok::<_, Error>(self.entry(tree, path)?.map(|entry| (entry.mode, entry.oid)));
        let here = at(tree)?;
        for parent in &parents {
            if at(self.commit(parent)?.tree)? == here {
                return Ok((false, vec![*parent]));
            }
        }
        Ok((!parents.is_empty() || here.is_some(), parents))
    }
}
