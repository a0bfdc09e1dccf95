//! Walks through a history: every commit once, the newest first, as `git rev-list` orders them.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::oid_set::OidSet;
use crate::{
    Result,
    object::Oid,
    store::{CommitLinks, Snapshot},
};

/// The commits that are reachable from some others, by commit date, newest first. What it yields may be kept from leading
/// on: see [`Walk::follow`].
pub struct Walk<'a> {
    snapshot: &'a Snapshot,
    seen: OidSet,
    queue: BinaryHeap<Queued<()>>,
    /// Those that were found, in this order.
    found: Vec<(Oid, CommitLinks)>,
}

/// A commit that waits for its turn: the newest first, then in the order in which they were found.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Queued<T> {
    pub(super) seconds: i64,
    pub(super) found: Reverse<usize>,
    pub(super) of: T,
}

impl Snapshot {
    /// A walk that is still to be told where it begins, by [`Walk::follow`].
    pub fn walk(&self) -> Walk<'_> {
        Walk { snapshot: self, seen: OidSet::default(), queue: BinaryHeap::new(), found: Vec::new() }
    }
}

impl Walk<'_> {
    /// Will come to a commit, unless it has been there before.
    ///
    /// # Errors
    /// As [`Snapshot::commit_links`].
    pub fn follow(&mut self, oid: Oid) -> Result<()> {
        if self.seen.insert(oid) {
            let links = self.snapshot.commit_links(&oid)?;
            self.queue.push(Queued { seconds: links.seconds, found: Reverse(self.found.len()), of: () });
            self.found.push((oid, links));
        }
        Ok(())
    }

    /// The next commit, whose parents are not followed.
    pub fn step(&mut self) -> Option<(Oid, CommitLinks)> {
        let Queued { found, .. } = self.queue.pop()?;
        self.found.get(found.0).cloned()
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<(Oid, CommitLinks)>;

    /// The next commit, after which its parents will come.
    fn next(&mut self) -> Option<Self::Item> {
        let (oid, links) = self.step()?;
        for parent in &links.parents {
            if let Err(error) = self.follow(*parent) {
                return Some(Err(error));
            }
        }
        Some(Ok((oid, links)))
    }
}
