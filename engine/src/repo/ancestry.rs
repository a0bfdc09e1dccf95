//! Ancestry: which commit follows from which, and where two histories meet.

use std::{
    collections::{BinaryHeap, HashMap},
    time::Instant,
};

use super::check_deadline;
use crate::{
    Result,
    object::Oid,
    store::{CommitLinks, Snapshot},
};

/// Commits between two looks at the clock.
const DEADLINE_STEP: usize = 256;

const OURS: u8 = 1;
const THEIRS: u8 = 2;
const BOTH: u8 = OURS | THEIRS;
/// Reached from a commit that both reach: a worse meeting point.
const STALE: u8 = 4;
/// Waits in the queue.
const QUEUED: u8 = 8;

impl Snapshot {
    /// Whether `ancestor` is `commit` or one of those that it was made from.
    ///
    /// # Errors
    /// When a commit is missing or damaged; [`crate::ErrorKind::Cancelled`] after the deadline.
    pub fn is_ancestor(&self, ancestor: Oid, commit: Oid, deadline: Option<Instant>) -> Result<bool> {
        Ok(self.merge_base(ancestor, commit, deadline)? == Some(ancestor))
    }

    /// The best commit that both histories have: the newest that no other common one follows from. `None` if they
    /// have nothing in common.
    ///
    /// # Errors
    /// As [`Snapshot::is_ancestor`].
    pub fn merge_base(&self, ours: Oid, theirs: Oid, deadline: Option<Instant>) -> Result<Option<Oid>> {
        merge_base(&|oid| self.commit_links(oid), ours, theirs, deadline)
    }
}

/// [`Snapshot::merge_base`], of commits that are read so: of a history that is not in one snapshot.
///
/// # Errors
/// What `read` fails with; [`crate::ErrorKind::Cancelled`] after the deadline.
pub fn merge_base<R: Fn(&Oid) -> Result<CommitLinks>>(
    read: &R,
    ours: Oid,
    theirs: Oid,
    deadline: Option<Instant>,
) -> Result<Option<Oid>> {
    if ours == theirs {
        read(&ours)?;
        return Ok(Some(ours));
    }
    let mut walk = Walk { read, marks: HashMap::new(), queue: BinaryHeap::new(), fresh: 0 };
    walk.reach(ours, OURS)?;
    walk.reach(theirs, THEIRS)?;
    let mut found: Vec<(i64, Oid)> = Vec::new();
    let mut steps = 0;
    // As long as something is in the queue that is not reached from a common commit. Dates may lie, so of several
    // common commits one may turn out to be behind another only later.
    while walk.fresh > 0 || found.len() > 1 {
        steps += 1;
        if steps % DEADLINE_STEP == 0 {
            check_deadline(deadline)?;
        }
        let Some((seconds, oid)) = walk.queue.pop() else { break };
        let mark = walk.marks.get_mut(&oid).map_or(0, |mark| {
            *mark &= !QUEUED;
            *mark
        });
        if mark & STALE == 0 {
            walk.fresh -= 1;
        }
        let mut passed = mark;
        if mark == BOTH {
            found.push((seconds, oid));
            passed |= STALE;
        }
        for parent in read(&oid)?.parents {
            if walk.reach(parent, passed)? {
                found.retain(|(_, other)| *other != parent);
            }
        }
    }
    Ok(found.into_iter().max().map(|(_, oid)| oid))
}

/// A walk through both histories, newest first.
struct Walk<'a, R> {
    read: &'a R,
    marks: HashMap<Oid, u8>,
    queue: BinaryHeap<(i64, Oid)>,
    /// Commits in the queue that are not stale.
    fresh: usize,
}

impl<R: Fn(&Oid) -> Result<CommitLinks>> Walk<'_, R> {
    /// Notes that a commit is reached so; it is looked at again if that is news. Whether it turned out to be stale.
    fn reach(&mut self, oid: Oid, mark: u8) -> Result<bool> {
        let old = self.marks.get(&oid).copied().unwrap_or_default();
        let new = old | mark;
        if new == old {
            return Ok(false);
        }
        let is_stale_now = old & STALE == 0 && new & STALE != 0;
        self.marks.insert(oid, new | QUEUED);
        if old & QUEUED != 0 {
            if is_stale_now {
                self.fresh -= 1;
            }
            return Ok(is_stale_now);
        }
        self.queue.push(((self.read)(&oid)?.seconds, oid));
        if new & STALE == 0 {
            self.fresh += 1;
        }
        Ok(is_stale_now)
    }
}
