//! The 64 bits of a slot.
//!
//! ```text
//!  63          32 31 30 29           0
//! | tag          | state | handle     |
//! ```
//!
//! A slot begins empty and only ever goes forward:
//!
//! ```text
//! empty ─► live ─► dead                  the entry was removed
//!   │        └───► frozen ─► moved       the entry went to the successor
//!   └────► closed                        the probe sequence ends here, and goes on in the successor
//! ```
//!
//! Tag and handle stay with it to the end, in dead and moved slots too: that an entry has been here is what tells a
//! slow helper that it has been copied already, whatever became of it since.

use std::marker::PhantomData;

const HANDLE_BITS: u32 = 30;
/// Handles are below this.
pub(super) const HANDLES: u32 = 1 << HANDLE_BITS;
const STATE: u64 = 0b11 << HANDLE_BITS;
const LIVE: u64 = 0;
const FROZEN: u64 = 0b01 << HANDLE_BITS;
const MOVED: u64 = 0b10 << HANDLE_BITS;
const DEAD: u64 = 0b11 << HANDLE_BITS;

/// What a slot held when it was loaded, under a guard that lives for `'g`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word<'g> {
    bits: u64,
    guard: PhantomData<&'g ()>,
}

impl Word<'_> {
    /// Never used, and zero, so that fresh memory is a fresh array.
    pub(super) const EMPTY: Self = Self::from_bits(0);
    /// Was empty when the array had a successor already.
    pub(super) const CLOSED: Self = Self::from_bits(MOVED);

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self { bits, guard: PhantomData }
    }

    /// Handles are at least 1, so no entry looks like [`Word::EMPTY`] or [`Word::CLOSED`].
    pub(super) fn live(tag: u32, handle: u32) -> Self {
        debug_assert!(handle > 0 && handle < HANDLES);
        Self::from_bits(u64::from(tag) << 32 | u64::from(handle))
    }

    pub(super) fn bits(self) -> u64 {
        self.bits
    }

    pub(super) fn tag(self) -> u32 {
        (self.bits >> 32) as u32
    }

    /// The handle of an entry in any state.
    pub(super) fn handle(self) -> u32 {
        self.bits as u32 & (HANDLES - 1)
    }

    pub(super) fn is_entry(self) -> bool {
        self.handle() != 0
    }

    /// Whether this is a live or frozen entry with this tag; the one comparison that every lookup makes.
    #[inline]
    pub(super) fn is_present_with(self, tag: u32) -> bool {
        let first = u64::from(tag) << 32 | 1;
        self.bits.wrapping_sub(first) < MOVED - 1
    }

    /// Whether this is empty, closed, moved or dead: nothing of another key that a lookup just passes.
    #[inline]
    pub(super) fn is_gone(self) -> bool {
        self.bits as u32 as i32 <= 0
    }

    pub(super) fn is_live(self) -> bool {
        self.is_entry() && self.bits & STATE == LIVE
    }

    pub(super) fn is_frozen(self) -> bool {
        self.bits & STATE == FROZEN
    }

    pub(super) fn is_dead(self) -> bool {
        self.bits & STATE == DEAD
    }

    /// Whether both are about one entry, in whatever states.
    pub(super) fn is_same_entry(self, other: Self) -> bool {
        (self.bits ^ other.bits) & !STATE == 0
    }

    pub(super) fn to_live(self) -> Self {
        Self::from_bits(self.bits & !STATE | LIVE)
    }

    pub(super) fn to_frozen(self) -> Self {
        Self::from_bits(self.bits & !STATE | FROZEN)
    }

    pub(super) fn to_moved(self) -> Self {
        Self::from_bits(self.bits & !STATE | MOVED)
    }

    pub(super) fn to_dead(self) -> Self {
        Self::from_bits(self.bits & !STATE | DEAD)
    }
}
