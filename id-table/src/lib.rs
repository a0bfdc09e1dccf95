//! A concurrent map from ids to values, for ids that are uniformly distributed already.
//!
//! Lookups are a probe into an array of 64-bit slots and one entry: two cache lines, mostly. Nobody ever waits for
//! anybody: all operations are lock-free, and lookups write nothing unless they meet an array that is being emptied.
//!
//! ```text
//! IdTable ── root ─► Slots ── successor ─► Slots        while the first is being emptied into the second
//!    │                 │ tag, state, handle              (migration.rs)
//!    └───── arena ─► chunks of entries {key, value}      (arena.rs)
//! ```
//!
//! **Slots** (`word.rs`, `slots.rs`). Open addressing, linear probing. A key's tag is the upper half of its bits; the
//! tag alone says where the probe sequence begins, in an array of any length, so arrays are copied without a look at
//! the entries, and from front to back. Slots only ever go forward, from empty to live to dead or moved, and are never
//! used again; so what a thread has passed on its way stays passed.
//!
//! **Growth and shrinking** (`room.rs`, `migration.rs`). When three quarters of the slots have been used, or an eighth
//! of them is still in use, a successor of two to three times the size of what is live is installed, and every insert
//! and removal moves a block, and so does every lookup that has to go on in the successor: or the end of growth would
//! leave lookups slow until the next insert. That also clears dead slots away. There are two arrays at most: a successor
//! that fills up before its predecessor is empty makes whoever finds it so empty the predecessor. What keeps keys unique
//! and visible:
//!
//! - An entry is frozen, copied, then marked as moved. Until it is marked it is found where it was; then it is in the
//!   successor, or has been removed there. A removal that meets a frozen entry copies it first.
//! - An insert that knows of a successor closes the key's probe sequence in the old array before it inserts into the
//!   new; an insert that does not know of it yet fails at the closed slot, or wins, and is found by the other.
//! - A helper that comes late finds the entry's slot in the successor, dead or moved though it may be, and stops.
//!
//! **Entries** (`arena.rs`) never move. The handle of a removed entry is given out again only when all guards of that
//! moment are gone (`epoch.rs`), so a handle that was read from a slot under a guard names one entry as long as the
//! guard lives, and a compare-and-swap of a slot cannot mistake a new entry for an old one.

#![deny(unsafe_op_in_unsafe_fn)]

#[allow(unsafe_code, reason = "raw memory of chunks; cells whose owner is decided by bit maps and slots")]
mod arena;
mod epoch;
#[cfg(all(test, loom))]
mod loom_tests;
mod migration;
mod room;
#[allow(unsafe_code, reason = "links between arrays that the epoch frees; zeroed arrays; prefetching")]
mod slots;
#[cfg(all(test, not(loom)))]
mod stress;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;
mod word;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

#[cfg(not(loom))]
pub use epoch::wait_for_guards;
pub use epoch::{Guard, pin};

use arena::{Arena, Fresh};
use slots::{Present, Root, Slots, Walk};
use sync::Memory;
use word::Word;

/// A key that is uniformly distributed already: its own bits are its hash.
pub trait Id: Copy + Eq {
    /// Bits of the key, the same for equal keys. Of keys that differ, the upper 32 must look random.
    ///
    /// Whoever can choose keys so that these bits agree makes lookups slow, never wrong; mix a secret in where that
    /// matters.
    fn bits(&self) -> u64;
}

/// Slots of the smallest array.
const SLOTS_MIN: usize = if cfg!(loom) { 2 } else { 32 };
/// A table shrinks when it has more than this many slots to an entry.
const SLOTS_PER_ENTRY_MAX: usize = if cfg!(loom) { 2 } else { 8 };
/// Removals of a stripe between two looks at the table's size.
const REMOVALS_PER_CHECK: usize = if cfg!(loom) { 2 } else { 64 };
/// Keys whose loads [`IdTable::get_many`] overlaps.
const BATCH: usize = 16;

/// A concurrent map from ids to values that never change place.
///
/// It holds half a billion entries at most. Beside keys and values an entry takes 11 to 21 bytes of slots and some 5 %
/// of its own size; while the table grows, for about one insert of 50, some 32 bytes of slots.
///
/// Entries never move, so a chunk of them is given back to the allocator only when all of them are gone: what few entries
/// are left after a mass removal at random may keep much of the memory, which new entries then use.
///
/// Dropping a value must not panic, and may happen on any thread at the end of any [`Guard`].
///
/// ```
/// # use govc_id_table::{Id, IdTable, pin};
/// #[derive(Clone, Copy, PartialEq, Eq)]
/// struct Sha1([u8; 20]);
///
/// impl Id for Sha1 {
///     fn bits(&self) -> u64 {
///         u64::from_le_bytes(*self.0.first_chunk().expect("20 bytes"))
///     }
/// }
///
/// let table = IdTable::new();
/// let guard = pin();
/// let (name, inserted) = table.get_or_insert_with(Sha1([7; 20]), || "seven", &guard);
/// assert_eq!((*name, inserted), ("seven", true));
/// assert!(table.remove_if(&Sha1([7; 20]), |_| true, &guard));
/// assert_eq!(table.get(&Sha1([7; 20]), &guard), None);
/// assert_eq!(*name, "seven", "alive as long as the guard");
/// ```
pub struct IdTable<K, V>
where
    K: Id + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    root: Root,
    arena: Arc<Arena<Entry<K, V>>>,
    /// No array is smaller than this.
    slots_min: usize,
    memory: Memory,
}

struct Entry<K, V> {
    key: K,
    value: V,
}

/// What a lookup in one array comes to.
enum Lookup<'g, K, V> {
    Found {
        at: usize,
        word: Word<'g>,
        entry: &'g Entry<K, V>,
    },
    /// The probe sequence ends at this empty slot; `moved` if an entry with the key's tag was on the way that is in the
    /// successor now.
    Absent {
        at: usize,
        moved: bool,
    },
    /// The probe sequence goes on in the successor.
    Closed,
}

impl<K, V> IdTable<K, V>
where
    K: Id + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// An empty table that takes less than 4 KiB.
    #[must_use]
    pub fn new() -> Self {
        Self::with_slots(SLOTS_MIN)
    }

    /// An empty table that holds `entries` without growing, and never shrinks below that.
    ///
    /// # Panics
    ///
    /// If there cannot be as many entries, by far.
    #[must_use]
    pub fn with_capacity(entries: usize) -> Self {
        Self::with_slots(entries.saturating_add(entries.div_ceil(3)).max(SLOTS_MIN))
    }

    fn with_slots(slots_min: usize) -> Self {
        let memory = Arc::new(AtomicUsize::new(size_of::<Self>()));
        Self {
            root: Root::new(Slots::new(slots_min, 0, &memory)),
            arena: Arc::new(Arena::new(&memory)),
            slots_min,
            memory,
        }
    }

    /// The value of a key.
    ///
    /// A key that was inserted before and is not removed meanwhile is always found. Of independent lookups the processor
    /// overlaps a few; who knows several keys at once does better with [`IdTable::get_many`].
    #[inline]
    pub fn get<'g>(&'g self, key: &K, guard: &'g Guard) -> Option<&'g V> {
        let mut slots = self.root.load(guard);
        let tag = tag(key);
        loop {
            match self.find(slots, key, tag) {
                Lookup::Found { entry, .. } => return Some(&entry.value),
                Lookup::Absent { moved: false, .. } => return None,
                Lookup::Absent { .. } | Lookup::Closed => {
                    let successor = successor(slots, guard);
                    self.help(slots, successor, guard);
                    slots = successor;
                }
            }
        }
    }

    /// Starts loading what an operation with this key will need first.
    ///
    /// Worth calling some ten keys ahead by whoever inserts or removes many: it spares them one of two waits for memory.
    #[inline]
    pub fn prefetch(&self, key: &K, guard: &Guard) {
        self.root.load(guard).prefetch(tag(key));
    }

    /// The values of many keys: calls `f` for each, in order, with its index. Some have been looked up before `f` is called
    /// for others, so a key that `f` removes may come all the same.
    ///
    /// Loads of 16 keys overlap, which makes a lookup that misses the caches several times faster than
    /// [`IdTable::get`].
    pub fn get_many<'g>(&'g self, keys: &[K], guard: &'g Guard, mut f: impl FnMut(usize, Option<&'g V>)) {
        for (batch, keys) in keys.chunks(BATCH).enumerate() {
            let slots = self.root.load(guard);
            for key in keys {
                slots.prefetch(tag(key));
            }
            let mut first = [None; BATCH];
            for (key, first) in keys.iter().zip(&mut first) {
                *first = first_with_tag(slots, tag(key));
                if let Some(first) = first {
                    self.arena.prefetch(*first);
                }
            }
            for (at, (key, first)) in keys.iter().zip(first).enumerate() {
                let value = match first.map(|first| self.arena.get(first)) {
                    Some(entry) if entry.key == *key => Some(&entry.value),
                    _ => self.get(key, guard),
                };
                f(batch * BATCH + at, value);
            }
        }
    }

    /// The value of a key, which is made and inserted if there is none; and whether it was inserted.
    ///
    /// Of several calls for one key at once exactly one inserts; the others may have called `make` and drop what it made.
    /// If `make` panics nothing has happened.
    ///
    /// # Panics
    ///
    /// If the table holds half a billion entries.
    pub fn get_or_insert_with<'g>(&'g self, key: K, make: impl FnOnce() -> V, guard: &'g Guard) -> (&'g V, bool) {
        let mut make = Some(make);
        let mut fresh: Option<Fresh<'g, Entry<K, V>>> = None;
        let mut slots = self.root.load(guard);
        let tag = tag(&key);
        loop {
            let successor = slots.successor(guard);
            if let Some(successor) = successor {
                self.help(slots, successor, guard);
            }
            match (self.find(slots, &key, tag), successor) {
                (Lookup::Found { entry, .. }, _) => return (&entry.value, false),
                (Lookup::Closed, _) => slots = self::successor(slots, guard),
                // The key goes to the successor, and is not to come here any more.
                (Lookup::Absent { at, .. }, Some(successor)) => {
                    if slots.close(at) {
                        slots = successor;
                    }
                }
                // A successor has just come: look again.
                (Lookup::Absent { moved: true, .. }, None) => {}
                // Right even if a successor comes meanwhile: others close this slot before they insert there.
                (Lookup::Absent { at, .. }, None) => {
                    if let Some(make) = make.take() {
                        fresh = Some(self.arena.add(Entry { key, value: make() }, guard));
                    }
                    if !slots.room.reserve() {
                        self.make_room(slots, guard);
                        continue;
                    }
                    let entry = fresh.take().expect("it was made above, and comes back from every attempt that fails");
                    match slots.publish(at, tag, entry) {
                        Ok(present) => return (&self.arena.get(present).value, true),
                        Err(entry) => {
                            slots.room.give_back();
                            fresh = Some(entry);
                        }
                    }
                }
            }
        }
    }

    /// Removes a key if `pred` holds for its value; whether this call did.
    ///
    /// Of all calls exactly one removes an entry that was inserted. The value is dropped, by any thread, when the guards
    /// of this moment are gone. `pred` may be called several times.
    pub fn remove_if(&self, key: &K, pred: impl Fn(&V) -> bool, guard: &Guard) -> bool {
        let mut slots = self.root.load(guard);
        let tag = tag(key);
        loop {
            if let Some(successor) = slots.successor(guard) {
                self.help(slots, successor, guard);
            }
            match self.find(slots, key, tag) {
                Lookup::Found { at, word, .. } if word.is_frozen() => {
                    let successor = successor(slots, guard);
                    migration::help_slot(slots, successor, at);
                    slots = successor;
                }
                Lookup::Found { at, word, entry } => {
                    if !pred(&entry.value) {
                        return false;
                    }
                    // If another was faster, it has removed or frozen the entry: look again.
                    if let Some(dead) = slots.kill(at, word) {
                        Arena::retire(&self.arena, dead, guard);
                        if slots.room.count_dead().is_multiple_of(REMOVALS_PER_CHECK) {
                            self.shrink(slots, guard);
                        }
                        return true;
                    }
                }
                Lookup::Absent { moved: false, .. } => return false,
                Lookup::Absent { .. } | Lookup::Closed => slots = successor(slots, guard),
            }
        }
    }

    /// All entries, in no order.
    ///
    /// An entry that is there all the time comes exactly once, also while the table grows. One that is inserted or
    /// removed meanwhile may come or not; a key that is removed and inserted again meanwhile may come twice. If the
    /// table is growing when this is called, it helps first.
    pub fn iter<'g>(&'g self, guard: &'g Guard) -> impl Iterator<Item = (&'g K, &'g V)> + use<'g, K, V> {
        Iter { arena: &self.arena, walk: self.walk(guard) }
    }

    fn walk<'g>(&'g self, guard: &'g Guard) -> Walk<'g> {
        loop {
            let slots = self.root.load(guard);
            match slots.successor(guard) {
                Some(successor) => self.complete(slots, successor, guard),
                None => {
                    if let Some(walk) = slots.walk(guard) {
                        return walk;
                    }
                }
            }
        }
    }

    /// How many entries there are; accurate while nobody else is in the table, which may be at moving entries with a lookup
    /// too.
    pub fn len(&self) -> usize {
        let guard = &pin();
        let root = self.root.load(guard);
        let inserted_there = root.successor(guard).map_or(0, |successor| successor.room.balance());
        (root.room.copied() as isize + root.room.balance() + inserted_there).max(0) as usize
    }

    /// Whether there are no entries; as accurate as [`IdTable::len`].
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the table takes, without what values own: slots and chunks of entries, also those that were taken out
    /// of use but wait for a guard.
    pub fn memory_bytes(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    /// Looks a key up in one array.
    ///
    /// That it is absent is an answer of the moment at which the empty slot was loaded: whoever inserts into the
    /// successor closes the probe sequence here first.
    ///
    /// As few instructions as it takes, so that the processor gets at the next lookup while this one waits for memory.
    #[inline]
    fn find<'g>(&'g self, slots: &'g Slots, key: &K, tag: u32) -> Lookup<'g, K, V> {
        let mut probe = slots.probe(tag);
        let mut moved = false;
        loop {
            let word = probe.next();
            if word.is_present_with(tag) {
                let entry = self.arena.get(Present::of(word));
                if entry.key == *key {
                    return Lookup::Found { at: probe.at(), word, entry };
                }
            } else if word.is_gone() {
                match word {
                    Word::EMPTY => return Lookup::Absent { at: probe.at(), moved },
                    Word::CLOSED => return Lookup::Closed,
                    // Moved entries may be gone from the arena, so their keys are not looked at.
                    _ => moved |= !word.is_dead() && word.tag() == tag,
                }
            }
        }
    }

    fn help(&self, slots: &Slots, successor: &Slots, guard: &Guard) {
        if migration::help(&self.root, slots, successor, guard) {
            self.arena.trim(guard);
        }
    }

    fn complete(&self, slots: &Slots, successor: &Slots, guard: &Guard) {
        if migration::complete(&self.root, slots, successor, guard) {
            self.arena.trim(guard);
        }
    }

    /// Sees to it that an insert that found no room in an array gets on.
    #[cold]
    fn make_room(&self, slots: &Slots, guard: &Guard) {
        let root = self.root.load(guard);
        if std::ptr::eq(root, slots) {
            self.install_successor(slots);
        } else if let Some(successor) = root.successor(guard) {
            // The array is still being filled: only its predecessor's end gives room, or allows for a successor.
            self.complete(root, successor, guard);
        }
    }

    /// Begins to copy an array that is the root, so its predecessor is complete.
    fn install_successor(&self, slots: &Slots) {
        let entries = slots.room.close();
        // Fewer slots where it is the dead that filled the array, so that it does not grow under steady change.
        let len = if entries > slots.len() / 2 { entries * 8 / 3 } else { entries * 2 + 2 };
        slots.install(Slots::new(len.max(self.slots_min), entries, &self.memory));
    }

    /// Begins to copy into a smaller array, if most slots are of no use.
    #[cold]
    fn shrink(&self, slots: &Slots, guard: &Guard) {
        let wanted = slots.len() > self.slots_min && slots.len() / SLOTS_PER_ENTRY_MAX > self.len();
        if wanted && std::ptr::eq(self.root.load(guard), slots) && slots.successor(guard).is_none() {
            self.install_successor(slots);
        }
    }
}

impl<K, V> Default for IdTable<K, V>
where
    K: Id + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Drop for IdTable<K, V>
where
    K: Id + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn drop(&mut self) {
        let guard = pin();
        while let Some(successor) = self.root.load(&guard).successor(&guard) {
            migration::complete(&self.root, self.root.load(&guard), successor, &guard);
        }
        self.root.drain().for_each(|orphan| self.arena.free(orphan));
    }
}

struct Iter<'g, K, V>
where
    K: Id + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    arena: &'g Arena<Entry<K, V>>,
    walk: Walk<'g>,
}

impl<'g, K, V> Iterator for Iter<'g, K, V>
where
    K: Id + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    type Item = (&'g K, &'g V);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.arena.get(self.walk.next()?);
        Some((&entry.key, &entry.value))
    }
}

fn tag(key: &impl Id) -> u32 {
    (key.bits() >> 32) as u32
}

/// The successor of an array in which something moved was met, which comes after the successor.
fn successor<'g>(slots: &'g Slots, guard: &'g Guard) -> &'g Slots {
    slots.successor(guard).expect("what moves has a successor")
}

/// The first entry of a probe sequence that has the tag; almost always the only one.
fn first_with_tag(slots: &Slots, tag: u32) -> Option<Present<'_>> {
    let mut probe = slots.probe(tag);
    loop {
        let word = probe.next();
        if word.is_present_with(tag) {
            return Some(Present::of(word));
        }
        if !word.is_entry() {
            return None;
        }
    }
}
