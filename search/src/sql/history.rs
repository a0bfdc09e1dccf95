//! The commits that one commit reaches, the newest first, walked only as far as somebody has asked.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
};

use govc_engine::{CommitLinks, Oid, Result, Snapshot};

use super::run::{Run, Ticker};

/// The order is that of [`govc_engine::Walk`], which cannot be held beside the snapshot that it borrows.
pub(super) struct History {
    /// In the order in which they were met.
    met: Vec<(Oid, CommitLinks)>,
    seen: HashSet<Oid>,
    /// Those whose turn is still to come, by date and then by `met`.
    queue: BinaryHeap<(i64, Reverse<usize>)>,
    /// Places in `met`, the newest first.
    order: Vec<usize>,
}

impl History {
    pub(super) fn new(snapshot: &Snapshot, tip: Oid) -> Result<Self> {
        let mut history = Self { met: Vec::new(), seen: HashSet::new(), queue: BinaryHeap::new(), order: Vec::new() };
        history.meet(snapshot, tip)?;
        Ok(history)
    }

    /// The commit at this place in the order.
    ///
    /// # Errors
    /// When a commit cannot be read; cancelled after the deadline.
    pub(super) fn get(&mut self, run: &Run, place: usize) -> Result<Option<(Oid, CommitLinks)>> {
        let mut ticker = Ticker::new(run);
        while self.order.len() <= place {
            ticker.tick()?;
            if !self.step(run)? {
                return Ok(None);
            }
        }
        Ok(self.order.get(place).and_then(|met| self.met.get(*met)).cloned())
    }

    /// Whether a commit is among them. Dates may lie, so one that is not has all walked.
    ///
    /// # Errors
    /// As [`History::get`].
    pub(super) fn contains(&mut self, run: &Run, oid: &Oid) -> Result<bool> {
        let mut ticker = Ticker::new(run);
        while !self.seen.contains(oid) {
            ticker.tick()?;
            if !self.step(run)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn step(&mut self, run: &Run) -> Result<bool> {
        let Some((_, Reverse(met))) = self.queue.pop() else { return Ok(false) };
        self.order.push(met);
        let parents = self.met.get(met).map(|(_, links)| links.parents.clone()).unwrap_or_default();
        for parent in parents {
            self.meet(&run.snapshot, parent)?;
        }
        Ok(true)
    }

    fn meet(&mut self, snapshot: &Snapshot, oid: Oid) -> Result<()> {
        if !self.seen.contains(&oid) {
            let links = snapshot.commit_links(&oid)?;
            self.seen.insert(oid);
            self.queue.push((links.seconds, Reverse(self.met.len())));
            self.met.push((oid, links));
        }
        Ok(())
    }
}
