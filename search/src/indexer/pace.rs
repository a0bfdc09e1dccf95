//! How the indexer gives way to a burst of writes.
//!
//! What is not indexed is read by who searches for it, so a burst that is indexed after it costs nothing but that reading,
//! while each moment of the indexer's is one that the writers do not have. A low priority alone does not keep it away: writers
//! wait for the disk, and what it begins meanwhile it goes on with. So it rests, as long as the burst goes on and what waits
//! is young.

use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use govc_engine::Seq;

/// How many times as long as it worked it rests at most.
const REST_FACTOR: u32 = 40;
/// The parts of a rest, between which the store is looked at.
const REST_PART: Duration = Duration::from_millis(50);
/// Publications within a part that are a burst: a thousand a second.
const BURST_PUBLICATIONS: u64 = 50;
/// What is older does not wait any longer, however long the burst is.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Rests after `work` was spent on publications of `time_millis`, behind which there are more, while `newest` moves on quickly.
pub(super) fn rest(work: Duration, time_millis: i64, newest: &dyn Fn() -> Seq, stop: &dyn Fn() -> bool) {
    let until = Instant::now() + work * REST_FACTOR;
    let mut before = newest();
    while !stop() && age(time_millis) < WAIT_MAX {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(REST_PART));
        let now = newest();
        if left >= REST_PART && now.0.saturating_sub(before.0) < BURST_PUBLICATIONS {
            return;
        }
        before = now;
    }
}

/// How old something is; what comes from a clock that was ahead does not wait either.
fn age(time_millis: i64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.checked_sub(Duration::from_millis(u64::try_from(time_millis).unwrap_or(0))).unwrap_or(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// How often the store was looked at during a rest that may last for a minute.
    fn looks(time_millis: i64, each_look: u64, stop_after: u32) -> u32 {
        let (looks, newest) = (Cell::new(0), Cell::new(0));
        let look = || {
            looks.set(looks.get() + 1);
            newest.set(newest.get() + each_look);
            Seq(newest.get())
        };
        let stop = || looks.get() > stop_after;
        rest(Duration::from_secs(60), time_millis, &look, &stop);
        looks.get()
    }

    #[test]
    fn it_rests_as_long_as_a_burst_goes_on() {
        let now = i64::try_from(age(0).as_millis()).expect("a time");
        assert_eq!(looks(now, BURST_PUBLICATIONS, 4), 5, "until it is stopped");
        assert_eq!(looks(now, BURST_PUBLICATIONS - 1, 4), 2, "when the burst is over");
        assert_eq!(looks(now - 31_000, BURST_PUBLICATIONS, 4), 1, "what has waited for long waits no longer");
        assert_eq!(looks(now + 3_600_000, BURST_PUBLICATIONS, 4), 1, "nor what comes from the future");
    }
}
