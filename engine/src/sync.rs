//! What the store's threads meet on: locks, atomics, pointers that are swapped, channels and threads.
//!
//! Normally these are parking_lot's, the standard library's, arc_swap's and crossbeam's, nothing added. Under
//! `cfg(shuttle)` they are `shuttled`, whose every step the model checker schedules; `tests/shuttle` says what is
//! checked so. Counters of statistics (`store/counter.rs`) and what has locks of its own (papaya's maps, the
//! id table, backends) need not come from here: shuttle runs one thread at a time and changes it only at a step of
//! something from here, so all else happens at once. A lock of another kind must not be held across such a step.

#[cfg(not(shuttle))]
pub(crate) use {
    arc_swap::{ArcSwap, ArcSwapOption, Guard},
    parking_lot::{Condvar, Mutex, RwLock},
    std::{sync::atomic, thread},
};

#[cfg(not(shuttle))]
pub(crate) mod channel {
    pub(crate) use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
}

#[cfg(shuttle)]
mod shuttled;

#[cfg(shuttle)]
pub(crate) use shuttled::{ArcSwap, ArcSwapOption, Condvar, Guard, Mutex, RwLock, atomic, channel, thread};
