//! How many slots of an array may still be used, and how many are.
//!
//! What must always hold: an array never fills up, neither by inserts nor by copies out of its predecessor. Each insert
//! therefore owns a reservation before it takes a slot, reservations end at three quarters of the array, and while the
//! predecessor is being copied as many slots are set aside as it can still hold entries at most.
//!
//! Reservations are handed to stripes in batches, so that threads seldom meet on one counter.

use super::sync::{AtomicBool, AtomicU32, AtomicUsize, Ordering, Padded, STRIPES, stripe};

/// Marks in [`Room::reserved`] that no more is given out.
const CLOSED: usize = 1 << (usize::BITS - 1);
/// Smaller arrays have one stripe. Under loom arrays of eight slots hand out two reservations at once.
const STRIPED_SLOTS: usize = if cfg!(loom) { 4 } else { 4096 };

pub(super) struct Room {
    /// Reservations and inherited entries together stay within this.
    limit: usize,
    /// How many entries the predecessor can leave to this array at most.
    inherited_max: usize,
    batch: u32,
    /// Whether the predecessor is copied completely: set once by whoever completes it, read by every refill.
    settled: AtomicBool,
    /// Handed to stripes so far; raised by refills, closed when a successor is about to be installed.
    reserved: Padded<AtomicUsize>,
    /// Entries copied out of the predecessor. Raised before the copies and corrected afterwards, so never too low.
    copied: Padded<AtomicUsize>,
    stripes: Box<[Padded<Stripe>]>,
}

#[derive(Default)]
struct Stripe {
    /// Reservations not used yet.
    left: AtomicU32,
    /// Entries that were removed in this array. Raised after the removal, so never too high.
    dead: AtomicUsize,
}

impl Stripe {
    #[inline]
    fn take(&self) -> bool {
        let mut left = self.left.load(Ordering::Relaxed);
        while left > 0 {
            match self.left.compare_exchange_weak(left, left - 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => left = now,
            }
        }
        false
    }
}

impl Room {
    pub(super) fn new(slots: usize, inherited_max: usize) -> Self {
        let stripes = if slots < STRIPED_SLOTS { 1 } else { STRIPES };
        Self {
            limit: limit(slots),
            inherited_max,
            batch: (slots / STRIPED_SLOTS).clamp(1, 64) as u32,
            settled: AtomicBool::new(inherited_max == 0),
            reserved: Padded(AtomicUsize::new(0)),
            copied: Padded(AtomicUsize::new(0)),
            stripes: (0..stripes).map(|_| Padded::default()).collect(),
        }
    }

    fn stripe(&self) -> &Stripe {
        &self.stripes[stripe() & (self.stripes.len() - 1)].0
    }

    /// Takes the right to use one slot.
    #[inline]
    pub(super) fn reserve(&self) -> bool {
        let stripe = self.stripe();
        stripe.take() || self.refill(stripe)
    }

    #[cold]
    fn refill(&self, stripe: &Stripe) -> bool {
        let mut reserved = self.reserved.0.load(Ordering::Relaxed);
        loop {
            if reserved & CLOSED != 0 {
                return false;
            }
            let room = self.limit.saturating_sub(self.inherited() + reserved);
            if room == 0 {
                // What other stripes have been handed and not used is room too.
                return self.stripes.iter().any(|stripe| stripe.0.take());
            }
            let batch = room.min(self.batch as usize);
            let raised = reserved + batch;
            match self.reserved.0.compare_exchange_weak(reserved, raised, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    stripe.left.fetch_add(batch as u32 - 1, Ordering::Relaxed);
                    return true;
                }
                Err(now) => reserved = now,
            }
        }
    }

    /// Gives a reservation back that was not used.
    pub(super) fn give_back(&self) {
        self.stripe().left.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a removal; how many there were in this stripe.
    pub(super) fn count_dead(&self) -> usize {
        self.stripe().dead.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Announces copies, before they are made.
    pub(super) fn announce_copies(&self, copies: usize) {
        self.copied.0.fetch_add(copies, Ordering::Relaxed);
    }

    /// Takes back what was announced too much.
    pub(super) fn retract_copies(&self, copies: usize) {
        self.copied.0.fetch_sub(copies, Ordering::Relaxed);
    }

    /// Tells that every entry of the predecessor has been copied: what was set aside for more of them is free now.
    pub(super) fn settle(&self) {
        // Pairs with the acquire in `inherited`: the copies that were counted are those of the whole predecessor.
        self.settled.store(true, Ordering::Release);
    }

    fn inherited(&self) -> usize {
        if self.settled.load(Ordering::Acquire) { self.copied.0.load(Ordering::Relaxed) } else { self.inherited_max }
    }

    /// Ends reservations for good, and says how many entries there can be in this array from now on at most. Only for
    /// arrays that are settled.
    pub(super) fn close(&self) -> usize {
        let reserved = self.reserved.0.fetch_or(CLOSED, Ordering::Relaxed) & !CLOSED;
        (reserved + self.inherited()).saturating_sub(self.dead())
    }

    fn dead(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.0.dead.load(Ordering::Relaxed)).sum()
    }

    /// Entries that were inserted here less those that were removed here; negative where those were inherited.
    ///
    /// Accurate while nobody writes.
    pub(super) fn balance(&self) -> isize {
        let reserved = self.reserved.0.load(Ordering::Relaxed) & !CLOSED;
        let left: usize = self.stripes.iter().map(|stripe| stripe.0.left.load(Ordering::Relaxed) as usize).sum();
        reserved as isize - left as isize - self.dead() as isize
    }

    pub(super) fn copied(&self) -> usize {
        self.copied.0.load(Ordering::Relaxed)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.stripes)
    }
}

/// How many slots of an array may be in use before it needs a successor.
pub(super) fn limit(slots: usize) -> usize {
    slots - slots.div_ceil(4)
}
