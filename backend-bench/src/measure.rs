//! How time is taken: bounded repetitions, latencies in a histogram, an order-free digest of contents.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::error::{Error, ErrorKind, Result};
use crate::plan::{Plan, Stop};

/// The longest latency that is told apart: an hour.
const NANOS_MAX: u64 = 3_600_000_000_000;

/// Latencies of single operations, to three digits.
#[derive(Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Result<Self> {
        let histogram = Histogram::new_with_bounds(1, NANOS_MAX, 3);
        Ok(Self(histogram.map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?))
    }

    pub(crate) fn record(&mut self, taken: Duration) {
        self.0.saturating_record(u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn add(&mut self, other: &Latencies) {
        // Cannot fail: all have the same bounds.
        let _ = self.0.add(&other.0);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that `share` of all operations stayed below, in microseconds.
    pub(crate) fn micros_at(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }

    pub(crate) fn micros_max(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }
}

/// What one repetition took.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
    /// Time in the measured calls; what prepares them does not count.
    pub(crate) busy: Duration,
}

impl Taken {
    pub(crate) fn per_second(&self) -> f64 {
        self.operations as f64 / self.busy.as_secs_f64().max(1e-9)
    }

    pub(crate) fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.busy.as_secs_f64().max(1e-9)
    }

    /// Measures one call.
    pub(crate) fn time<T>(&mut self, latencies: Option<&mut Latencies>, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = call();
        let taken = start.elapsed();
        self.busy += taken;
        if let Some(latencies) = latencies {
            latencies.record(taken);
        }
        result
    }
}

/// When a repetition ends: by time, operations, or bytes, whatever comes first. Inputs depend on the number of an
/// operation only, so that two runs of one seed that do equally many do the same.
#[derive(Clone)]
pub(crate) struct Pace {
    stop: Stop,
    busy_max: Duration,
    until: Instant,
    operations_max: u64,
    bytes_max: u64,
}

impl Pace {
    /// For one repetition of a figure that shares its workload's seconds with as many figures as `beside` says, itself included.
    pub(crate) fn of(plan: &Plan, beside: u32) -> Self {
        let repetitions = u32::try_from(plan.amounts.repetitions).unwrap_or(u32::MAX);
        let busy_max = Duration::from_secs(plan.seconds) / repetitions / beside.max(1);
        Self {
            stop: plan.stop.clone(),
            busy_max,
            // Making inputs may take longer than the measured calls, above all in memory.
            until: Instant::now() + busy_max * 3,
            operations_max: plan.amounts.operations_max,
            bytes_max: plan.amounts.written_bytes_max,
        }
    }

    /// The share of one of several threads, whose busy time is the time that passes.
    pub(crate) fn shared(&self, threads: usize) -> Self {
        let threads = threads.max(1) as u64;
        Self {
            until: Instant::now() + self.busy_max,
            operations_max: (self.operations_max / threads).max(1),
            bytes_max: (self.bytes_max / threads).max(1),
            ..self.clone()
        }
    }

    /// Whether there is to be another operation.
    pub(crate) fn goes_on(&self, taken: &Taken) -> Result<bool> {
        self.stop.check()?;
        Ok(taken.operations < self.operations_max
            && taken.bytes < self.bytes_max
            && taken.busy < self.busy_max
            && (taken.operations == 0 || Instant::now() < self.until))
    }
}

/// A digest of entries that does not depend on their order: the sum of a hash of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Digest(u64);

impl Digest {
    /// Adds an entry.
    pub(crate) fn add(&mut self, parts: &[&[u8]]) {
        // FNV-1a over words, finished by SplitMix64's mixer: it finds accidents, not forgers. Lengths go in, so that
        // the border between key and value matters.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut word = |word: u64| {
            hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
            hash ^= hash >> 29;
        };
        for part in parts {
            word(part.len() as u64);
            let (words, rest) = part.as_chunks::<8>();
            for chunk in words {
                word(u64::from_le_bytes(*chunk));
            }
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            word(u64::from_le_bytes(last));
        }
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = self.0.wrapping_add(hash ^ (hash >> 31));
    }

    /// Adds all entries of another one.
    pub(crate) fn merge(&mut self, other: Digest) {
        self.0 = self.0.wrapping_add(other.0);
    }

    pub(crate) fn hex(self) -> String {
        format!("{:016x}", self.0)
    }
}

/// The middle value, or the mean of the middle two; 0 for none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.get(half), half.checked_sub(1).and_then(|below| values.get(below))) {
        (Some(high), Some(low)) if values.len().is_multiple_of(2) => (low + high) / 2.0,
        (Some(middle), _) => *middle,
        (None, _) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, median};

    #[test]
    fn median_of_odd_even_and_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn digest_sees_borders_bits_and_absence_but_no_order() {
        let of = |entries: &[[&[u8]; 2]]| {
            let mut digest = Digest::default();
            entries.iter().for_each(|entry| digest.add(entry));
            digest
        };
        let (one, two): ([&[u8]; 2], [&[u8]; 2]) = ([b"key", b"a value of some length"], [b"other", b"x"]);
        assert_eq!(of(&[one, two]), of(&[two, one]));
        assert_ne!(of(&[one, two]), of(&[one]));
        assert_ne!(of(&[one]), of(&[[b"key", b"a value of some lengtg"]]));
        assert_ne!(of(&[one]), of(&[[b"keya", b" value of some length"]]));
        assert_ne!(of(&[two]), of(&[[b"other", b"x\0"]]));
    }
}
