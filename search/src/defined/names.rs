//! The distinct names of definitions, one behind another, so that a pattern is matched against all of them in one go.
//!
//! A pattern matches within one line, and a line feed is no part of a word. So what it matches in a text that has each name
//! on a line of its own is what it matches in the names, but for those that have a line feed inside, and patterns that speak
//! of where the text ends: these are matched one by one.

use std::{hash::BuildHasher as _, hash::RandomState, ops::Range};

use crate::find::Matcher;

/// A name's number: its place in the order in which names came.
pub(super) type NameNo = u32;

/// What no name has as its number.
pub(super) const NONE: NameNo = NameNo::MAX;
/// Text that a pattern is matched against in one go, in bytes, about.
const BLOCK_BYTES: usize = 256 << 10;

/// Distinct names.
#[derive(Default)]
pub(super) struct Names {
    /// Each with a line feed behind it.
    text: Vec<u8>,
    /// Where each ends in `text`: at its line feed.
    ends: Vec<u32>,
    /// Those with a line feed inside, in order.
    broken: Vec<NameNo>,
    /// A table of numbers by the hashes of their names, probed one by one; at most half of it is not `NONE`.
    slots: Vec<NameNo>,
    /// Its keys are drawn by the process: names are chosen by strangers.
    hasher: RandomState,
}

impl Names {
    /// How many there are.
    pub(super) fn count(&self) -> NameNo {
        NameNo::try_from(self.ends.len()).unwrap_or(NONE)
    }

    /// Whether more names fit, of so many bytes together.
    pub(super) fn has_room(&self, names: usize, bytes: usize) -> bool {
        let room = |have: usize, more: usize| have.saturating_add(more) < NONE as usize;
        room(self.ends.len(), names) && room(self.text.len(), bytes.saturating_add(names))
    }

    /// The name of a number.
    pub(super) fn get(&self, number: NameNo) -> Option<&[u8]> {
        self.text.get(self.range(number)?)
    }

    fn range(&self, number: NameNo) -> Option<Range<usize>> {
        let at = number as usize;
        let end = *self.ends.get(at)? as usize;
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end as usize + 1);
        Some(start..end)
    }

    /// The number of a name, if it is there.
    pub(super) fn number(&self, name: &[u8]) -> Option<NameNo> {
        let slot = self.slot(name)?;
        self.slots.get(slot).copied().filter(|number| *number != NONE)
    }

    /// Where a name is in the table, or would be.
    fn slot(&self, name: &[u8]) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = self.hasher.hash_one(name) as usize & mask;
        loop {
            let number = *self.slots.get(at)?;
            if number == NONE || self.get(number) == Some(name) {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a name that is not there and for which there is room.
    pub(super) fn add(&mut self, name: &[u8]) -> NameNo {
        let number = self.count();
        self.text.extend_from_slice(name);
        // `has_room` was asked.
        self.ends.push(u32::try_from(self.text.len()).unwrap_or(NONE));
        self.text.push(b'\n');
        if memchr::memchr(b'\n', name).is_some() {
            self.broken.push(number);
        }
        if self.ends.len() * 2 > self.slots.len() {
            self.grow();
        } else {
            self.enter(number);
        }
        number
    }

    fn grow(&mut self) {
        self.slots = vec![NONE; (self.slots.len() * 2).max(64)];
        (0..self.count()).for_each(|number| self.enter(number));
    }

    fn enter(&mut self, number: NameNo) {
        let slot = self.get(number).and_then(|name| self.slot(name));
        if let Some(slot) = slot.and_then(|slot| self.slots.get_mut(slot)) {
            *slot = number;
        }
    }

    /// The end of a block of names that begins with `first` and is matched against in one go.
    pub(super) fn block_end(&self, first: NameNo) -> NameNo {
        let begin = self.range(first).map_or(self.text.len(), |range| range.start);
        let end = self.ends.partition_point(|end| (*end as usize) < begin.saturating_add(BLOCK_BYTES));
        NameNo::try_from(end).unwrap_or(NONE).max(first.saturating_add(1)).min(self.count())
    }

    /// Gives those of a block of names in which a pattern matches, each once.
    pub(super) fn matching(&self, matcher: &Matcher, block: Range<NameNo>, each: &mut dyn FnMut(NameNo)) {
        let is_match = |number: &NameNo| self.get(*number).is_some_and(|name| matcher.is_match(name));
        if matcher.is_whole() {
            return block.filter(is_match).for_each(each);
        }
        self.broken
            .iter()
            .filter(|number| block.contains(number))
            .filter(|number| is_match(number))
            .for_each(|n| each(*n));
        let (Some(begin), Some(end)) =
            (self.range(block.start), block.end.checked_sub(1).and_then(|last| self.range(last)))
        else {
            return;
        };
        // The last line feed is left out, or there would be an empty line behind it.
        let text = self.text.get(begin.start..end.end).unwrap_or_default();
        let (mut next, mut behind) = (block.start as usize, begin.start);
        matcher.matches(text, |found| {
            let at = begin.start + found.start;
            // One match is enough of a name.
            if found.is_empty() || at < behind {
                return true;
            }
            let ends = self.ends.get(next..block.end as usize).unwrap_or_default();
            let name = next + ends.partition_point(|end| (*end as usize) < at);
            let Some(end) = self.ends.get(name) else { return false };
            (next, behind) = (name + 1, *end as usize);
            let number = NameNo::try_from(name).unwrap_or(NONE);
            if self.broken.binary_search(&number).is_err() {
                each(number);
            }
            next < block.end as usize
        });
    }

    /// What they take in memory, in bytes, about.
    pub(super) fn resident_bytes(&self) -> u64 {
        let numbers = self.ends.capacity() + self.broken.capacity() + self.slots.capacity();
        (self.text.capacity() + numbers * size_of::<NameNo>()) as u64
    }
}
