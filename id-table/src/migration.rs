//! Emptying an array into its successor, a block at a time, by whoever inserts or removes.
//!
//! Every step can be done by several threads at once and again, and comes out once: so nobody waits for a helper that
//! has stopped in the middle. A block is begun by one thread only, for speed; if blocks are missing when the successor
//! has no room left, whoever needs the room does them all over ([`complete`]).

use super::{
    epoch::Guard,
    slots::{Root, Slots},
    sync::Ordering,
    word::Word,
};

/// Slots that one helper moves at a time.
const BLOCK: usize = if cfg!(loom) { 2 } else { 64 };

/// Moves one block, if there is one that nobody has begun. Whether this completed the array.
pub(super) fn help(root: &Root, from: &Slots, to: &Slots, guard: &Guard) -> bool {
    let blocks = from.len().div_ceil(BLOCK);
    let progress = &from.progress.0;
    if progress.begun.load(Ordering::Relaxed) >= blocks {
        return false;
    }
    let block = progress.begun.fetch_add(1, Ordering::Relaxed);
    if block >= blocks {
        return false;
    }
    move_block(from, to, block);
    // Release and acquire: who counts the last block has seen the others done.
    progress.done.fetch_add(1, Ordering::AcqRel) + 1 == blocks && settle(root, from, to, guard)
}

/// Moves all that is left. Whether this completed the array.
#[cold]
pub(super) fn complete(root: &Root, from: &Slots, to: &Slots, guard: &Guard) -> bool {
    for block in 0..from.len().div_ceil(BLOCK) {
        move_block(from, to, block);
    }
    settle(root, from, to, guard)
}

fn settle(root: &Root, from: &Slots, to: &Slots, guard: &Guard) -> bool {
    to.room.settle();
    root.advance(from, guard)
}

fn move_block(from: &Slots, to: &Slots, block: usize) {
    to.room.announce_copies(BLOCK);
    let slots = block * BLOCK..from.len().min((block + 1) * BLOCK);
    let copies = slots.filter(|at| move_slot(from, to, *at)).count();
    to.room.retract_copies(BLOCK - copies);
}

/// Brings a slot to its end: closed, moved or dead. Whether this copied its entry.
fn move_slot(from: &Slots, to: &Slots, at: usize) -> bool {
    loop {
        let word = from.load(at);
        if word == Word::EMPTY {
            from.close(at);
        } else if word.is_live() {
            from.freeze(at, word);
        } else if word.is_frozen() {
            let copied = to.adopt(word);
            from.set_moved(at, word);
            return copied;
        } else {
            return false;
        }
    }
}

/// Moves one frozen slot.
pub(super) fn help_slot(from: &Slots, to: &Slots, at: usize) {
    to.room.announce_copies(1);
    if !move_slot(from, to, at) {
        to.room.retract_copies(1);
    }
}
