//! When a pool is worth compacting, and which of several first.
//!
//! What it gains is about half of what came since the last time; what it costs grows with the whole pool, for all of it is
//! stored anew. So a pool is due once it has grown by a share of itself, and the one with the most gain for its cost is
//! first: a byte is rewritten a bounded number of times, however long a pool grows.

use std::time::Duration;

use govc_engine::StoredPool;

/// When a pool is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Bytes of blocks that have come since the last time, at least.
    pub fresh_bytes_min: u64,
    /// The same, as a share of what is compacted already.
    pub growth_min: f64,
    /// Segments that have come since, whatever their bytes: each makes reading and storing a little dearer.
    pub segments_max: u64,
    /// How long after the last time versions that have been forgotten since are worth a look for garbage.
    pub garbage_age: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            fresh_bytes_min: 4 << 20,
            growth_min: 0.25,
            segments_max: 256,
            garbage_age: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// The share of fresh blocks that compaction saves, about: real histories that were pushed shrink by a quarter, commits one
/// by one to a tenth.
const SAVED: f64 = 0.5;

impl Schedule {
    /// What a compaction would gain for each byte that it stores anew, if the pool is due at `now_millis`.
    ///
    /// `first_version` is asked only if it matters, for the first version that the repository retains.
    ///
    /// # Errors
    /// What `first_version` fails with.
    pub fn merit<E>(
        &self,
        pool: &StoredPool,
        now_millis: i64,
        first_version: impl FnOnce() -> Result<u64, E>,
    ) -> Result<Option<f64>, E> {
        let (fresh, compacted) = (pool.fresh_bytes as f64, pool.compacted_bytes as f64);
        let has_grown = pool.fresh_bytes >= self.fresh_bytes_min && fresh >= self.growth_min * compacted;
        if has_grown || pool.fresh_segments > self.segments_max {
            return Ok(Some(SAVED * fresh / (fresh + compacted).max(1.0)));
        }
        let age = i64::try_from(self.garbage_age.as_millis()).unwrap_or(i64::MAX);
        let is_old = pool.compacted_millis.is_some_and(|at| now_millis.saturating_sub(at) >= age);
        // Nobody knows how much that is: everything else comes before it.
        let may_hold_garbage = is_old && first_version()? > pool.first_version;
        Ok(may_hold_garbage.then_some(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600 * 1000;

    fn merit(pool: StoredPool, first_version: u64) -> Option<f64> {
        Schedule::default().merit(&pool, 100 * DAY, || Ok::<_, ()>(first_version)).unwrap_or_default()
    }

    fn pool(fresh_mib: u64, compacted_mib: u64) -> StoredPool {
        let compacted_millis = (compacted_mib > 0).then_some(99 * DAY);
        StoredPool {
            fresh_bytes: fresh_mib << 20,
            compacted_bytes: compacted_mib << 20,
            compacted_millis,
            ..Default::default()
        }
    }

    #[test]
    fn a_pool_is_due_when_it_has_grown_by_a_share_of_itself() {
        assert_eq!(merit(pool(3, 0), 1), None);
        assert_eq!(merit(pool(4, 0), 1), Some(0.5));
        assert_eq!(merit(pool(24, 100), 1), None);
        assert!(merit(pool(25, 100), 1) > Some(0.0));
        assert!(merit(pool(60, 100), 1) > merit(pool(25, 100), 1), "the more has come, the better");
        assert!(merit(pool(4, 0), 1) > merit(pool(400, 1000), 1), "the smaller comes first");
        let scattered = StoredPool { fresh_segments: 257, ..pool(1, 100) };
        assert!(merit(scattered, 1).is_some());
    }

    #[test]
    fn forgotten_versions_are_a_reason_after_a_while() {
        let old = StoredPool { compacted_millis: Some(90 * DAY), first_version: 7, ..pool(0, 100) };
        assert_eq!(merit(old, 8), Some(0.0));
        assert_eq!(merit(old, 7), None);
        assert_eq!(merit(StoredPool { compacted_millis: Some(95 * DAY), ..old }, 8), None);
        assert_eq!(merit(StoredPool { compacted_millis: None, ..old }, 8), None);
    }
}
