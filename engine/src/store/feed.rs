//! The feed: every publication in order, so that followers (search, webhooks, event streams) can resume.
//!
//! A group commit takes its positions before it is written and completes them when it is durable; a publication is
//! in the feed once everything before it is complete, so a follower never sees one appear behind its back. Recent
//! publications are kept in memory; older ones are read from the family `history`, where settling removes those that are
//! older than versions are kept. Publications of memory repositories are in memory only.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    core::Core,
    ids::{RepoId, Seq},
    push_certificate::PushCertificate,
    record::FeedRow,
    version::{Changes, Version},
};
use crate::{
    Error, ErrorKind, Result,
    backend::{Batch, Family, Scan, key},
    sync::{Condvar, Mutex},
};

/// Publications kept in memory.
const RECENT_MAX: usize = 4096;
/// The bytes that they may take whatever the budget, unless the newest alone takes more.
const RECENT_BYTES_MAX: u64 = 16 << 20;
/// Positions that one settling forgets at most.
const TRIM_MAX: usize = 64 << 10;

/// One publication.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Its position.
    pub seq: Seq,
    /// The repository.
    pub repo: RepoId,
    /// The version that it made.
    pub version: u64,
    /// When, in milliseconds since the Unix epoch.
    pub time_millis: i64,
    /// Who.
    pub actor: Arc<str>,
    /// Why.
    pub cause: super::ids::Cause,
    /// What was signed, if it was a signed push.
    pub certificate: Option<Arc<PushCertificate>>,
    /// What changed.
    pub changes: Changes,
}

impl Publication {
    /// Bytes of memory that it takes, about: names, ids and what counts them.
    fn resident_bytes(&self) -> usize {
        let certificate = self.certificate.as_ref().map_or(0, |certificate| certificate.resident_bytes());
        self.changes.refs.iter().map(|change| 120 + change.name.as_bytes().len()).sum::<usize>() + 160 + certificate
    }
}

pub(crate) struct Feed {
    state: Mutex<State>,
    grown: Condvar,
}

struct State {
    next: u64,
    /// From position `first` on.
    recent: VecDeque<Slot>,
    first: u64,
    /// Bytes of the publications in `recent`.
    recent_bytes: usize,
    recent_bytes_max: usize,
    /// The greatest position with nothing open at or before it.
    complete: u64,
    /// Positions up to this one are forgotten.
    floor: u64,
}

/// A position.
enum Slot {
    /// Its group is being written.
    Open,
    Complete(Publication),
    /// Its group failed: it stays empty for ever.
    Abandoned,
}

impl State {
    /// The greatest position that has left `recent`.
    fn dropped(&self) -> u64 {
        self.first - 1
    }

    fn set(&mut self, seq: u64, slot: Slot) {
        if let Slot::Complete(publication) = &slot {
            self.recent_bytes += publication.resident_bytes();
        }
        // Only what is complete or abandoned leaves.
        if let Some(place) = usize::try_from(seq - self.first).ok().and_then(|at| self.recent.get_mut(at)) {
            *place = slot;
        }
    }

    /// Moves on over what is not open any more, and drops what is too much.
    fn settle(&mut self) {
        let is_closed = |state: &Self| {
            let at = usize::try_from(state.complete + 1 - state.first).unwrap_or(usize::MAX);
            state.recent.get(at).is_some_and(|slot| !matches!(slot, Slot::Open))
        };
        while is_closed(self) {
            self.complete += 1;
        }
        while self.recent.len() > RECENT_MAX || (self.recent_bytes > self.recent_bytes_max && self.recent.len() > 1) {
            if self.first > self.complete {
                break;
            }
            if let Some(Slot::Complete(publication)) = self.recent.pop_front() {
                self.recent_bytes -= publication.resident_bytes();
            }
            self.first += 1;
        }
    }
}

impl Feed {
    /// What the newest publications may take of a memory budget, in bytes.
    pub(crate) fn share_of(budget: u64) -> u64 {
        (budget / 64).min(RECENT_BYTES_MAX)
    }

    /// Memory that the newest publications take, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.state.lock().recent_bytes as u64
    }

    /// A feed whose next position is `next`; earlier ones, beyond `floor`, are in the backend.
    pub(crate) fn new(next: u64, floor: u64, recent_bytes_max: u64) -> Self {
        let recent_bytes_max = usize::try_from(recent_bytes_max).unwrap_or(usize::MAX);
        let (recent, first, complete) = (VecDeque::new(), next, next - 1);
        let state = State { next, recent, first, recent_bytes: 0, recent_bytes_max, complete, floor };
        Self { state: Mutex::new(state), grown: Condvar::new() }
    }

    /// Takes `count` positions for a group that is about to be written.
    pub(crate) fn reserve(&self, count: usize) -> Seq {
        let mut state = self.state.lock();
        let first = state.next;
        state.next += count as u64;
        state.recent.extend(std::iter::repeat_with(|| Slot::Open).take(count));
        Seq(first)
    }

    /// Fills the positions of a group that is durable.
    pub(crate) fn complete(&self, publications: impl IntoIterator<Item = Publication>) {
        self.close(publications.into_iter().map(|publication| (publication.seq.0, Slot::Complete(publication))));
    }

    /// Gives back the positions of a group that failed: they stay empty for ever.
    pub(crate) fn abandon(&self, first: Seq, count: usize) {
        self.close((first.0..first.0 + count as u64).map(|seq| (seq, Slot::Abandoned)));
    }

    fn close(&self, slots: impl Iterator<Item = (u64, Slot)>) {
        let mut state = self.state.lock();
        for (seq, slot) in slots {
            state.set(seq, slot);
        }
        state.settle();
        drop(state);
        self.grown.notify_all();
    }

    /// Adds the publication of a memory repository, complete at once.
    pub(crate) fn push(&self, mut publication: Publication) {
        let mut state = self.state.lock();
        publication.seq = Seq(state.next);
        state.next += 1;
        state.recent_bytes += publication.resident_bytes();
        state.recent.push_back(Slot::Complete(publication));
        state.settle();
        drop(state);
        self.grown.notify_all();
    }

    /// The position after which the feed begins.
    pub(crate) fn floor(&self) -> Seq {
        Seq(self.state.lock().floor)
    }

    /// Forgets the positions up to `floor`.
    pub(crate) fn raise_floor(&self, floor: u64) {
        self.state.lock().floor = floor;
    }

    /// The greatest position that followers may have seen.
    pub(crate) fn last(&self) -> Seq {
        Seq(self.state.lock().complete)
    }

    /// Waits until there is something after `after`, at most `timeout`.
    pub(crate) fn wait(&self, after: Seq, timeout: Duration) -> bool {
        let mut state = self.state.lock();
        let deadline = std::time::Instant::now() + timeout;
        while state.complete <= after.0 {
            if self.grown.wait_until(&mut state, deadline).timed_out() {
                return state.complete > after.0;
            }
        }
        true
    }
}

pub(crate) fn publication(seq: Seq, repo: RepoId, version: &Version, changes: Changes) -> Publication {
    Publication {
        seq,
        repo,
        version: version.number,
        time_millis: version.time_millis,
        actor: version.actor.clone(),
        cause: version.cause,
        certificate: version.certificate.clone(),
        changes,
    }
}

impl Core {
    /// Adds to `batch` the removal of positions that are older than versions are kept, a bounded number each time; gives
    /// the last of them.
    pub(crate) fn trim_feed(&self, batch: &mut Batch) -> Result<Option<u64>> {
        let cutoff = self.cutoff();
        let mut last = None;
        for row in self.backend.scan(Family::History, Scan::prefix(&[key::FEED]))?.take(TRIM_MAX) {
            let (feed_key, value) = row?;
            let seq = Seq(key::trailing_u64(&feed_key)?);
            if FeedRow::decode(seq, &value)?.time_millis >= cutoff {
                break;
            }
            last = Some(seq.0);
        }
        if let Some(last) = last {
            batch.delete_range(Family::History, key::feed(Seq(0)), key::feed(Seq(last + 1)));
            batch.put(Family::Meta, key::FEED_FLOOR.to_vec(), last.to_be_bytes().to_vec());
        }
        Ok(last)
    }

    /// The publications after `after`, in order, at most `limit`.
    pub(crate) fn feed_after(&self, after: Seq, limit: usize) -> Result<Vec<Publication>> {
        let mut found = Vec::new();
        let mut from = after.0 + 1;
        let dropped = self.feed.state.lock().dropped();
        if from <= dropped {
            // Rows are written when their group settles; a position that has left memory may still wait for that.
            self.settle.publications(from, dropped, limit, &mut found);
            let unsettled_from = found.first().map_or(dropped + 1, |publication: &Publication| publication.seq.0);
            let scan = Scan {
                from: std::ops::Bound::Included(key::feed(Seq(from))),
                to: std::ops::Bound::Excluded(key::feed(Seq(unsettled_from))),
                reverse: false,
            };
            let mut settled = Vec::new();
            for row in self.backend.scan(Family::History, scan)?.take(limit) {
                let (feed_key, value) = row?;
                settled.push(FeedRow::decode(Seq(key::trailing_u64(&feed_key)?), &value)?);
            }
            let floor = self.feed.state.lock().floor;
            if after.0 < floor {
                let message = format!("the feed begins after {floor}; what followed {} is no longer kept", after.0);
                return Err(Error::new(ErrorKind::Gone, message));
            }
            let full = settled.len() == limit;
            settled.append(&mut found);
            found = settled;
            found.truncate(limit);
            if full {
                return Ok(found);
            }
            from = dropped + 1;
        }
        let state = self.feed.state.lock();
        if from <= state.dropped() {
            // What was not read yet has left memory meanwhile.
            drop(state);
            return if found.is_empty() { self.feed_after(after, limit) } else { Ok(found) };
        }
        let at = |seq: u64| usize::try_from(seq - state.first).unwrap_or(usize::MAX).min(state.recent.len());
        if from <= state.complete {
            let publications = state.recent.range(at(from)..at(state.complete + 1)).filter_map(|slot| match slot {
                Slot::Complete(publication) => Some(publication.clone()),
                Slot::Open | Slot::Abandoned => None,
            });
            found.extend(publications.take(limit - found.len().min(limit)));
        }
        Ok(found)
    }
}
