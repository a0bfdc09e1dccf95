//! Gives the room of removed ranges back.
//!
//! RocksDB notes that a range is removed; the tables that hold its entries go when a compaction comes by, which may be
//! never where nobody writes any more. So a thread compacts the ranges that were removed, once what they hold is worth
//! it, without holding up other compactions. Closing waits for it for a moment.
//!
//! A batch that removes a range notes it, in the column family that RocksDB always has and no [`Family`] is: family, `00` and
//! the range's beginning → its end. The note goes once nothing is left of the range, so nothing is forgotten that was not come to.

use std::{
    mem,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use ::rocksdb::{CompactOptions, DB, Direction, IteratorMode, Range, WriteBatch};
use govc_engine::backend::{BackendError, BackendErrorKind, BackendResult, Family};
use parking_lot::{Condvar, Mutex};

use crate::room::Room;

/// How long ranges are gathered that are removed one after the other.
const GATHERING: Duration = Duration::from_secs(2);
/// How often ranges are looked at again that were not worth it, or too large for the disk.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ranges with less than this between them are compacted as one: they share tables.
const GAP_BYTES: u64 = 32 << 20;
/// What is to be gained at least by a compaction, in bytes, and as a part of what it reads.
const GAIN_BYTES: u64 = 1 << 20;
const GAIN_PART: u64 = 4;
/// Removed ranges that are remembered; what is more is joined with its neighbours.
const RANGES_MAX: usize = 4096;

/// Compacts removed ranges. Dropped, it stops.
pub(super) struct Reclaimer {
    db: Arc<DB>,
    pending: Arc<(Mutex<Pending>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Pending {
    ranges: Vec<Removed>,
    has_news: bool,
    /// Whether what there is shall be compacted now, for the last time.
    is_closing: bool,
    is_over: bool,
}

/// A range that was removed, without its upper bound.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Removed {
    pub(super) family: Family,
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
}

/// Removed ranges of a family that are compacted as one, in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stretch {
    ranges: Vec<Removed>,
    /// Bytes in tables, of the ranges and of what is between them.
    bytes: u64,
    /// Of the ranges alone.
    removed_bytes: u64,
}

impl Reclaimer {
    /// Begins to wait for ranges, with those that are noted.
    ///
    /// # Errors
    /// [`BackendErrorKind::Failed`] if there can be no thread.
    pub(super) fn start(db: Arc<DB>, room: Arc<Room>) -> BackendResult<Self> {
        let ranges = notes(&db);
        let pending = Arc::new((
            Mutex::new(Pending { has_news: !ranges.is_empty(), ranges, ..Pending::default() }),
            Condvar::new(),
        ));
        let work = {
            let (db, pending) = (db.clone(), pending.clone());
            move || run(&db, &room, &pending)
        };
        let thread = thread::Builder::new().name("govc-rocks-reclaim".to_owned()).spawn(work).map_err(|error| {
            BackendError::new(BackendErrorKind::Failed, format!("cannot start a thread to compact: {error}"))
        })?;
        Ok(Self { db, pending, thread: Mutex::new(Some(thread)) })
    }

    /// Has ranges that were removed compacted in time.
    pub(super) fn add(&self, ranges: Vec<Removed>) {
        if ranges.is_empty() {
            return;
        }
        let (pending, wake) = &*self.pending;
        let mut pending = pending.lock();
        pending.ranges.extend(ranges);
        if pending.ranges.len() > RANGES_MAX {
            pending.ranges = coarsened(mem::take(&mut pending.ranges));
        }
        pending.has_news = true;
        wake.notify_all();
    }

    /// Compacts at once what is worth it, and waits for that, but not for longer than `patience`.
    pub(super) fn finish(&self, patience: Duration) {
        let (pending, wake) = &*self.pending;
        let mut pending = pending.lock();
        pending.is_closing = true;
        wake.notify_all();
        wake.wait_while_for(&mut pending, |pending| !pending.is_over, patience);
    }

    /// Begins nothing any more.
    pub(super) fn end(&self) {
        let (pending, wake) = &*self.pending;
        pending.lock().is_over = true;
        wake.notify_all();
    }

    /// Ends, breaking off what is under way with all background work of the database.
    pub(super) fn stop(&self) {
        self.end();
        self.db.cancel_all_background_work(true);
        if let Some(thread) = self.thread.lock().take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

impl Drop for Reclaimer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(db: &DB, room: &Room, (pending, wake): &(Mutex<Pending>, Condvar)) {
    loop {
        let (ranges, is_late, is_last) = {
            let mut pending = pending.lock();
            let mut is_late = false;
            while !pending.has_news && !pending.is_closing && !pending.is_over {
                if pending.ranges.is_empty() {
                    wake.wait(&mut pending);
                } else if wake.wait_for(&mut pending, PATIENCE).timed_out() {
                    is_late = true;
                    break;
                }
            }
            if pending.has_news {
                wake.wait_while_for(&mut pending, |pending| !pending.is_closing && !pending.is_over, GATHERING);
            }
            if pending.is_over {
                return;
            }
            pending.has_news = false;
            (mem::take(&mut pending.ranges), is_late, pending.is_closing)
        };
        let mut left = Vec::new();
        for stretch in stretches(joined(ranges), |family, from, to| bytes_between(db, family, from, to)) {
            if pending.lock().is_over {
                return;
            }
            // What was in write buffers only, or has been given back by other compactions.
            let is_gone = is_late && stretch.removed_bytes == 0;
            if is_gone || stretch.is_worth_it() && compact(db, room, &stretch) {
                stretch.ranges.iter().for_each(|range| forget(db, range));
            } else {
                left.extend(stretch.ranges);
            }
        }
        let mut pending = pending.lock();
        pending.ranges.extend(left);
        if is_last {
            pending.is_over = true;
            wake.notify_all();
            return;
        }
    }
}

/// Notes a range, in the batch that removes it.
pub(super) fn note(batch: &mut WriteBatch, family: Family, from: &[u8], to: &[u8]) {
    batch.put(note_key(family, from), to);
}

fn note_key(family: Family, from: &[u8]) -> Vec<u8> {
    [family.name().as_bytes(), b"\0", from].concat()
}

/// The ranges that are noted. What cannot be read is left to RocksDB.
fn notes(db: &DB) -> Vec<Removed> {
    let rows = db.iterator(IteratorMode::Start).map_while(Result::ok);
    let range = |(key, to): (Box<[u8]>, Box<[u8]>)| {
        let at = key.iter().position(|byte| *byte == 0)?;
        let family = Family::ALL.into_iter().find(|family| family.name().as_bytes() == &key[..at])?;
        Some(Removed { family, from: key[at + 1..].to_vec(), to: to.into_vec() })
    };
    rows.filter_map(range).collect()
}

/// Removes the notes of ranges within one.
fn forget(db: &DB, range: &Removed) {
    let (from, end) = (note_key(range.family, &range.from), note_key(range.family, &range.to));
    let rows = db.iterator(IteratorMode::From(&from, Direction::Forward)).map_while(Result::ok);
    let mut batch = WriteBatch::default();
    for (key, to) in rows.take_while(|(key, _)| **key < *end) {
        if *to <= *range.to {
            batch.delete(key);
        }
    }
    // A note that stays costs a look at what is there no more.
    let _ = db.write(batch);
}

impl Stretch {
    fn is_worth_it(&self) -> bool {
        self.removed_bytes >= GAIN_BYTES.max(self.bytes / GAIN_PART)
    }
}

/// Compacts a stretch, if there is room for the tables that will hold what is left; whether it did.
fn compact(db: &DB, room: &Room, stretch: &Stretch) -> bool {
    let (Some(first), Some(last)) = (stretch.ranges.first(), stretch.ranges.last()) else { return true };
    let left_bytes = stretch.bytes.saturating_sub(stretch.removed_bytes);
    let Some(family) = db.cf_handle(first.family.name()) else { return true };
    if room.check(0, left_bytes, false).is_err() {
        return false;
    }
    let mut options = CompactOptions::default();
    options.set_exclusive_manual_compaction(false);
    db.compact_range_cf_opt(family, Some(&first.from), Some(&last.to), &options);
    true
}

/// Bytes in tables of a range, as far as their indexes tell.
fn bytes_between(db: &DB, family: Family, from: &[u8], to: &[u8]) -> u64 {
    let sizes = |family| db.get_approximate_sizes_cf(family, &[Range::new(from, to)]);
    db.cf_handle(family.name()).and_then(|family| sizes(family).first().copied()).unwrap_or(0)
}

/// The same ranges in order, those joined that meet.
fn joined(mut ranges: Vec<Removed>) -> Vec<Removed> {
    ranges.sort_unstable();
    let mut joined: Vec<Removed> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.family == range.family && range.from <= last.to => {
                if last.to < range.to {
                    last.to = range.to;
                }
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Half as many ranges, which hold all that these hold, and what is between pairs of them.
fn coarsened(ranges: Vec<Removed>) -> Vec<Removed> {
    let mut coarse: Vec<Removed> = Vec::new();
    for (at, range) in joined(ranges).into_iter().enumerate() {
        match coarse.last_mut() {
            Some(last) if at % 2 == 1 && last.family == range.family => last.to = range.to,
            _ => coarse.push(range),
        }
    }
    coarse
}

/// Ranges, which are in order and do not meet, with those near them. `bytes` tells what tables hold between two keys.
fn stretches(ranges: Vec<Removed>, bytes: impl Fn(Family, &[u8], &[u8]) -> u64) -> Vec<Stretch> {
    let mut found: Vec<Stretch> = Vec::new();
    for range in ranges {
        let removed_bytes = bytes(range.family, &range.from, &range.to);
        let last = found.last_mut().and_then(|stretch| {
            let last = stretch.ranges.last().filter(|last| last.family == range.family)?;
            let gap_bytes = bytes(range.family, &last.to, &range.from);
            (gap_bytes < GAP_BYTES).then_some((stretch, gap_bytes))
        });
        match last {
            Some((stretch, gap_bytes)) => {
                stretch.bytes += gap_bytes + removed_bytes;
                stretch.removed_bytes += removed_bytes;
                stretch.ranges.push(range);
            }
            None => found.push(Stretch { ranges: vec![range], bytes: removed_bytes, removed_bytes }),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(family: Family, from: u8, to: u8) -> Removed {
        Removed { family, from: vec![from], to: vec![to] }
    }

    #[test]
    fn ranges_that_meet_are_one() {
        let (blocks, ids) = (Family::Blocks, Family::Ids);
        let ranges = vec![
            removed(blocks, 5, 7),
            removed(ids, 2, 3),
            removed(blocks, 1, 2),
            removed(blocks, 2, 4),
            removed(blocks, 1, 3),
            removed(ids, 3, 9),
            removed(ids, 4, 5),
        ];
        let expected = vec![removed(blocks, 1, 4), removed(blocks, 5, 7), removed(ids, 2, 9)];
        assert_eq!(joined(ranges), expected);
    }

    #[test]
    fn coarser_ranges_hold_all_that_finer_ones_held() {
        let families = [Family::Blocks, Family::Ids];
        let ranges: Vec<Removed> =
            families.iter().flat_map(|family| (0..50).map(|at| removed(*family, at * 5, at * 5 + 2))).collect();
        let coarse = coarsened(ranges.clone());
        assert_eq!(coarse.len(), 50);
        let holds = |outer: &Removed, inner: &Removed| {
            outer.family == inner.family && outer.from <= inner.from && inner.to <= outer.to
        };
        assert!(ranges.iter().all(|range| coarse.iter().any(|outer| holds(outer, range))));
    }

    #[test]
    fn ranges_near_one_another_are_compacted_as_one_if_that_gains_enough() {
        // A mebibyte and a half for each step of a key.
        let bytes = |_: Family, from: &[u8], to: &[u8]| u64::from(to[0] - from[0]) * (3 << 19);
        let ranges =
            vec![removed(Family::Blocks, 1, 2), removed(Family::Blocks, 3, 5), removed(Family::Blocks, 60, 61)];
        let found = stretches(ranges.clone(), bytes);
        let of = |ranges: &[Removed], bytes, removed_bytes| Stretch { ranges: ranges.to_vec(), bytes, removed_bytes };
        assert_eq!(found, [of(&ranges[..2], 6 << 20, 9 << 19), of(&ranges[2..], 3 << 19, 3 << 19)]);
        assert!(found.iter().all(Stretch::is_worth_it));
        let small = stretches(ranges, |_, _, _| 1 << 18);
        assert!(!small.iter().any(Stretch::is_worth_it), "less than a mebibyte");
        let sparse = vec![removed(Family::Blocks, 1, 2), removed(Family::Blocks, 12, 13)];
        assert!(!stretches(sparse, bytes).iter().any(Stretch::is_worth_it), "an eighth of what would be read");
    }
}
