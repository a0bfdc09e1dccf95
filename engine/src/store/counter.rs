//! Counters that threads do not meet on: what every read counts must not make readers wait for each other's cache lines.

use std::{
    cell::Cell,
    sync::atomic::{AtomicI64, AtomicUsize, Ordering},
};

const STRIPES: usize = 16;

/// A number that many threads change and few read.
#[derive(Default)]
pub(crate) struct Counter {
    stripes: [Stripe; STRIPES],
}

/// One thread's part, or a few threads', on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Stripe(AtomicI64);

impl Counter {
    pub(crate) fn add(&self, difference: i64) {
        self.stripes[stripe()].0.fetch_add(difference, Ordering::Relaxed);
    }

    /// The sum; accurate while nobody changes it.
    pub(crate) fn sum(&self) -> i64 {
        self.stripes.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum()
    }

    /// The sum of what was only ever added.
    pub(crate) fn total(&self) -> u64 {
        self.sum().max(0).unsigned_abs()
    }
}

fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static STRIPE: Cell<Option<usize>> = const { Cell::new(None) });
    STRIPE.with(|stripe| match stripe.get() {
        Some(stripe) => stripe,
        None => {
            let taken = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
            stripe.set(Some(taken));
            taken
        }
    })
}
