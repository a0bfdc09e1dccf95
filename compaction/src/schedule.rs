//! When a pool is worth compacting, and which of several first.
//!
//! What it gains is about half of what came since the last time; what it costs grows with the whole pool, for all of it is
//! stored anew. So a pool is due once it has grown by a share of itself, and the one with the most gain for its cost is
//! first: a byte is rewritten a bounded number of times, however long a pool grows. Who has nothing better to do archives
//! what nobody writes to any more.

use std::time::Duration;

use govc_engine::StoredPool;

use crate::CompactOptions;

/// When a pool is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Bytes of blocks that have come since the last time, at least.
    pub fresh_bytes_min: u64,
    /// The same, as a share of what is compacted already.
    pub growth_min: f64,
    /// Segments that have come since, whatever their bytes, or one for each 4 MiB that is compacted, if that is more: each
    /// makes reading and storing a little dearer.
    pub segments_max: u64,
    /// How long after the last time versions that have been forgotten since are worth a look for garbage.
    pub garbage_age: Duration,
    /// How long after the last write a repository is archived; `None` for never.
    pub archive_age: Option<Duration>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            fresh_bytes_min: 4 << 20,
            growth_min: 0.25,
            segments_max: 256,
            garbage_age: Duration::from_secs(7 * 24 * 3600),
            archive_age: Some(Duration::from_secs(30 * 24 * 3600)),
        }
    }
}

/// What is to be done with a pool.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Due {
    /// What it would gain for each byte that is stored anew.
    pub merit: f64,
    /// Whether it is to be archived.
    pub archive: bool,
}

/// The share of fresh blocks that compaction saves, about: real histories that were pushed shrink by a quarter, commits one
/// by one to a tenth.
const SAVED: f64 = 0.5;
/// The share that archiving saves, of what is compacted: little, for several times the work.
const SAVED_BY_ARCHIVING: f64 = 0.03;
/// How much more may be compacted for each segment that comes.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Pools of which archiving saves next to nothing.
const ARCHIVE_BYTES_MIN: u64 = 1 << 20;

impl Schedule {
    /// What is to be done with a pool at `now_millis`, if anything is. Its repository was last written to at
    /// `written_millis`; `first_version` is asked only if it matters, for the first version that it retains.
    ///
    /// # Errors
    /// What `first_version` fails with.
    pub fn due<E>(
        &self,
        pool: &StoredPool,
        now_millis: i64,
        written_millis: i64,
        first_version: impl FnOnce() -> Result<u64, E>,
    ) -> Result<Option<Due>, E> {
        let (fresh, compacted) = (pool.fresh_bytes as f64, pool.compacted_bytes as f64);
        let has_grown = pool.fresh_bytes >= self.fresh_bytes_min && fresh >= self.growth_min * compacted;
        let is_scattered = pool.fresh_segments > self.segments_max.max(pool.compacted_bytes / SEGMENT_BYTES);
        if has_grown || is_scattered {
            let merit = SAVED * fresh / (fresh + compacted).max(1.0);
            return Ok(Some(Due { merit, archive: false }));
        }
        let is_over = |since: i64, age: Duration| {
            now_millis.saturating_sub(since) >= i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
        };
        let is_archived = pool.level >= CompactOptions::archive().level && pool.fresh_bytes == 0;
        let is_left = self.archive_age.is_some_and(|age| is_over(written_millis, age));
        if is_left && !is_archived && pool.fresh_bytes + pool.compacted_bytes >= ARCHIVE_BYTES_MIN {
            return Ok(Some(Due { merit: SAVED_BY_ARCHIVING / 4.0, archive: true }));
        }
        let is_old = pool.compacted_millis.is_some_and(|at| is_over(at, self.garbage_age));
        // Nobody knows how much that is: everything else comes before it.
        let may_hold_garbage = is_old && first_version()? > pool.first_version;
        Ok(may_hold_garbage.then_some(Due { merit: 0.0, archive: is_archived }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600 * 1000;
    const NOW: i64 = 100 * DAY;

    fn due(pool: StoredPool, written_millis: i64, first_version: u64) -> Option<Due> {
        Schedule::default().due(&pool, NOW, written_millis, || Ok::<_, ()>(first_version)).unwrap_or_default()
    }

    fn merit(pool: StoredPool) -> Option<f64> {
        due(pool, NOW, 1).map(|due| due.merit)
    }

    fn pool(fresh_mib: u64, compacted_mib: u64) -> StoredPool {
        StoredPool {
            fresh_bytes: fresh_mib << 20,
            compacted_bytes: compacted_mib << 20,
            compacted_millis: (compacted_mib > 0).then_some(99 * DAY),
            level: if compacted_mib > 0 { 9 } else { 0 },
            ..StoredPool::default()
        }
    }

    #[test]
    fn a_pool_is_due_when_it_has_grown_by_a_share_of_itself() {
        assert_eq!(merit(pool(3, 0)), None);
        assert_eq!(due(pool(4, 0), NOW, 1), Some(Due { merit: 0.5, archive: false }));
        assert_eq!(merit(pool(24, 100)), None);
        assert!(merit(pool(25, 100)) > Some(0.0));
        assert!(merit(pool(60, 100)) > merit(pool(25, 100)), "the more has come, the better");
        assert!(merit(pool(4, 0)) > merit(pool(400, 1000)), "the smaller comes first");
        let scattered = StoredPool { fresh_segments: 257, ..pool(1, 100) };
        assert!(merit(scattered).is_some());
        assert_eq!(merit(StoredPool { fresh_segments: 300, ..pool(1, 2000) }), None, "not for so little of so much");
    }

    #[test]
    fn forgotten_versions_are_a_reason_after_a_while() {
        let old = StoredPool { compacted_millis: Some(90 * DAY), first_version: 7, ..pool(0, 100) };
        assert_eq!(due(old, NOW, 8), Some(Due { merit: 0.0, archive: false }));
        assert_eq!(due(old, NOW, 7), None);
        assert_eq!(due(StoredPool { compacted_millis: Some(95 * DAY), ..old }, NOW, 8), None);
        assert_eq!(due(StoredPool { compacted_millis: None, ..old }, NOW, 8), None);
        let archived = StoredPool { level: 19, ..old };
        assert_eq!(due(archived, NOW, 8), Some(Due { merit: 0.0, archive: true }), "it stays archived");
    }

    #[test]
    fn what_nobody_writes_to_is_archived_once() {
        let archive = |pool| due(pool, 60 * DAY, 1).map(|due| due.archive);
        assert_eq!(archive(pool(0, 100)), Some(true));
        assert_eq!(archive(pool(2, 0)), Some(true), "also what was too little to be compacted");
        assert_eq!(archive(pool(5, 0)), Some(false), "what has grown is compacted first");
        assert_eq!(due(pool(0, 100), 80 * DAY, 1), None);
        assert_eq!(archive(StoredPool { level: 19, ..pool(0, 100) }), None);
        assert_eq!(archive(StoredPool { level: 19, ..pool(1, 100) }), Some(true), "not all of it is");
        assert_eq!(archive(StoredPool { fresh_bytes: 1000, ..pool(0, 0) }), None);
        let never = Schedule { archive_age: None, ..Schedule::default() };
        assert_eq!(never.due(&pool(0, 100), NOW, 0, || Ok::<_, ()>(1)), Ok(None));
        assert!(merit(pool(25, 100)) > due(pool(0, 100), 60 * DAY, 1).map(|due| due.merit), "it comes last");
    }
}
