//! How long to go on trying, and how long to wait between two attempts.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

const FIRST: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_secs(1);
/// A year.
const LONG: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// An end in time, and pauses before it that double with a jitter, so that the clients of a server that comes back
/// do not all come at once.
pub(super) struct Patience {
    until: Instant,
    next: Duration,
    attempts: u64,
}

impl Patience {
    pub(super) fn of(span: Duration) -> Self {
        let now = Instant::now();
        // A span beyond the clock's end is one without end.
        Self { until: now.checked_add(span).unwrap_or(now + LONG), next: FIRST, attempts: 0 }
    }

    /// Without end.
    pub(super) fn endless() -> Self {
        Self::of(Duration::MAX)
    }

    /// When it ends.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Waits before the next attempt, the first time not at all: a session that broke while nobody used it says
    /// nothing about the server. False when the time is over.
    pub(super) async fn pause(&mut self) -> bool {
        self.attempts += 1;
        let now = Instant::now();
        if now >= self.until {
            return false;
        }
        if self.attempts > 1 {
            // From half to all of it.
            let half = self.next / 2;
            let jitter = half.mul_f64((random() % 1024) as f64 / 1024.0);
            sleep_until((now + half + jitter).min(self.until)).await;
            self.next = (self.next * 2).min(LONGEST);
        }
        true
    }
}

/// A number that nobody can guess from another: each `RandomState` has keys of its own.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}
