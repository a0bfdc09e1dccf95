//! Arrays of slots, and the links between an array and its successor.
//!
//! An array is reachable from the table's root, or from its predecessor while that is being emptied into it. It is freed
//! through the epoch once the root has gone on to its successor; whoever is still in it finds the way on by its link.
//!
//! What must always hold: a handle is in a slot only while its entry is in the arena. So a [`Present`], which can only
//! be had by loading a slot under a guard, is good for as long as the guard.

use std::{hint, marker::PhantomData, ptr, slice};

use super::{
    arena::Fresh,
    epoch::Guard,
    room::Room,
    sync::{AtomicPtr, AtomicU64, AtomicUsize, Memory, Ordering, Padded},
    word::Word,
};

/// The handle of an entry that cannot be freed during `'g`.
#[derive(Clone, Copy)]
pub(super) struct Present<'g> {
    pub(super) handle: u32,
    guard: PhantomData<&'g ()>,
}

impl<'g> Present<'g> {
    /// The entry of a word that is live or frozen.
    ///
    /// It cannot have been retired before the slot was loaded: a removal retires only what it has made dead, and before
    /// it looks into a successor it makes sure that the slot here is moved.
    #[inline]
    pub(super) fn of(word: Word<'g>) -> Self {
        Self { handle: word.handle(), guard: PhantomData }
    }
}

/// An entry that has just been removed by whoever holds this, and by nobody else.
#[must_use]
pub(super) struct Dead {
    pub(super) handle: u32,
}

/// An entry of a table that is being dropped.
pub(super) struct Orphan {
    pub(super) handle: u32,
}

pub(super) struct Slots {
    words: Box<[AtomicU64]>,
    pub(super) room: Room,
    successor: Link,
    pub(super) progress: Padded<Progress>,
    memory: Memory,
}

/// How far the copying into the successor has come, in blocks.
#[derive(Default)]
pub(super) struct Progress {
    /// The next block that nobody has begun; raised by helpers.
    pub(super) begun: AtomicUsize,
    /// Blocks that are done; the helper that finds all done completes the array.
    pub(super) done: AtomicUsize,
}

impl Slots {
    /// An array of empty slots, which will get `inherited_max` entries at most from a predecessor.
    ///
    /// # Panics
    /// If there are 2^32 slots or more, several times what a full arena needs.
    pub(super) fn new(len: usize, inherited_max: usize, memory: &Memory) -> Box<Self> {
        assert!(len < 1 << 32, "a table holds half a billion entries at most");
        let slots = Box::new(Self {
            words: empty_words(len),
            room: Room::new(len, inherited_max),
            successor: Link(AtomicPtr::new(ptr::null_mut())),
            progress: Padded::default(),
            memory: memory.clone(),
        });
        memory.fetch_add(slots.bytes(), Ordering::Relaxed);
        slots
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.words) + self.room.heap_bytes()
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// Where the probe sequence of a tag begins: monotonic in the tag, so that arrays are copied in sequence.
    #[inline]
    fn home(&self, tag: u32) -> usize {
        let home = ((u64::from(tag) * self.words.len() as u64) >> 32) as usize;
        // SAFETY: a tag is less than 2^32, and so is the length (see `new`), so the product does not overflow and is less
        // than 2^32 times the length.
        unsafe { hint::assert_unchecked(home < self.words.len()) };
        home
    }

    /// The slots where an entry with this tag may be, in the order in which they are used.
    #[inline]
    pub(super) fn probe(&self, tag: u32) -> Probe<'_> {
        Probe { rest: self.words[self.home(tag)..].iter(), slots: self }
    }

    pub(super) fn load(&self, at: usize) -> Word<'_> {
        load(&self.words[at])
    }

    /// Starts loading the first slots of a probe sequence.
    #[inline]
    pub(super) fn prefetch(&self, tag: u32) {
        prefetch(&raw const self.words[self.home(tag)]);
    }

    pub(super) fn successor<'g>(&'g self, guard: &'g Guard) -> Option<&'g Slots> {
        self.successor.load(guard)
    }

    /// Puts an array behind this one, unless there is one.
    pub(super) fn install(&self, successor: Box<Slots>) {
        self.successor.install(successor);
    }

    fn advance(&self, at: usize, from: Word<'_>, to: Word<'_>) -> Result<Word<'_>, Word<'_>> {
        // Acquire also where it fails, for then the caller goes on with what is there.
        self.words[at]
            .compare_exchange(from.bits(), to.bits(), Ordering::AcqRel, Ordering::Acquire)
            .map(|_| Word::from_bits(to.bits()))
            .map_err(Word::from_bits)
    }

    /// Puts an entry into an empty slot; otherwise gives it back, with what is there.
    pub(super) fn publish<'g, 'a, T: Send + Sync + 'static>(
        &'g self,
        at: usize,
        tag: u32,
        fresh: Fresh<'a, T>,
    ) -> Result<Present<'g>, Fresh<'a, T>> {
        match self.advance(at, Word::EMPTY, Word::live(tag, fresh.handle())) {
            Ok(word) => {
                fresh.published();
                Ok(Present::of(word))
            }
            Err(_) => Err(fresh),
        }
    }

    /// Ends probe sequences at an empty slot for good; fails if it is empty no more.
    pub(super) fn close(&self, at: usize) -> bool {
        self.advance(at, Word::EMPTY, Word::CLOSED).is_ok()
    }

    /// Keeps a live entry from being removed here; fails if it is live no more.
    pub(super) fn freeze(&self, at: usize, live: Word<'_>) -> bool {
        self.advance(at, live, live.to_frozen()).is_ok()
    }

    /// Tells that a frozen entry is in the successor. A plain store, for nothing else happens to frozen slots.
    pub(super) fn set_moved(&self, at: usize, frozen: Word<'_>) {
        self.words[at].store(frozen.to_moved().bits(), Ordering::Release);
    }

    /// Removes a live entry; fails if it is live no more.
    pub(super) fn kill(&self, at: usize, live: Word<'_>) -> Option<Dead> {
        self.advance(at, live, live.to_dead()).ok().map(|dead| Dead { handle: dead.handle() })
    }

    /// Takes a frozen entry of the predecessor in, unless it has been taken in before; whether it was this call that did.
    ///
    /// Its slot here, once there is one, keeps tag and handle for good, so a helper that comes late finds it, even if it
    /// has been removed or moved on. No other entry can look the same: handles are not reused while the helper is pinned.
    pub(super) fn adopt(&self, frozen: Word<'_>) -> bool {
        let mut probe = self.probe(frozen.tag());
        loop {
            let mut word = probe.next();
            if word == Word::EMPTY {
                match self.advance(probe.at(), word, frozen.to_live()) {
                    Ok(_) => return true,
                    Err(now) => word = now,
                }
            }
            if word.is_same_entry(frozen) {
                return false;
            }
            assert!(word != Word::CLOSED, "an array that is still being filled has no successor");
        }
    }

    /// All entries, if the array has no successor yet.
    ///
    /// Then whatever moves from now on stays in the arena until the guard is gone, so moved slots tell of entries too.
    pub(super) fn walk<'g>(&'g self, guard: &'g Guard) -> Option<Walk<'g>> {
        self.successor(guard).is_none().then_some(Walk { slots: self, at: 0 })
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.memory.fetch_sub(self.bytes(), Ordering::Relaxed);
    }
}

/// What a slot holds. Acquire pairs with the release of every transition: of an entry one sees key and value, and of a
/// moved or closed slot the successor and whatever was copied there.
#[inline]
fn load(slot: &AtomicU64) -> Word<'_> {
    Word::from_bits(slot.load(Ordering::Acquire))
}

/// The slots of a probe sequence. It goes round and round, but some slot is always empty or closed.
pub(super) struct Probe<'g> {
    rest: slice::Iter<'g, AtomicU64>,
    slots: &'g Slots,
}

impl<'g> Probe<'g> {
    #[inline]
    pub(super) fn next(&mut self) -> Word<'g> {
        match self.rest.next() {
            Some(slot) => load(slot),
            None => self.wrap(),
        }
    }

    #[cold]
    fn wrap(&mut self) -> Word<'g> {
        self.rest = self.slots.words[1..].iter();
        self.slots.load(0)
    }

    /// The position of the last slot.
    #[inline]
    pub(super) fn at(&self) -> usize {
        self.slots.len() - self.rest.len() - 1
    }
}

/// The entries of an array that had no successor when the walk began.
pub(super) struct Walk<'g> {
    slots: &'g Slots,
    at: usize,
}

impl<'g> Iterator for Walk<'g> {
    type Item = Present<'g>;

    fn next(&mut self) -> Option<Present<'g>> {
        while self.at < self.slots.len() {
            let word = self.slots.load(self.at);
            self.at += 1;
            if word.is_entry() && !word.is_dead() {
                return Some(Present::of(word));
            }
        }
        None
    }
}

/// A pointer to an array, null until there is one.
struct Link(AtomicPtr<Slots>);

impl Link {
    #[inline]
    fn load<'g>(&'g self, _guard: &'g Guard) -> Option<&'g Slots> {
        // Acquire pairs with the release of `install` and `Root::advance`.
        let slots = self.0.load(Ordering::Acquire);
        // SAFETY: arrays come from boxes and are freed only through `Root::advance`, after all guards that were there
        // when the root went on. This guard was there when the array was still reachable: from the root, or from an
        // array that the guard keeps, and arrays are retired in the order of their links.
        unsafe { slots.as_ref() }
    }

    fn install(&self, slots: Box<Slots>) {
        let slots = Box::into_raw(slots);
        // Release pairs with the acquire of `load`.
        if self.0.compare_exchange(ptr::null_mut(), slots, Ordering::Release, Ordering::Relaxed).is_err() {
            // SAFETY: it comes from the box above and nobody else has seen it.
            drop(unsafe { Box::from_raw(slots) });
        }
    }

    fn take(&mut self) -> Option<Box<Slots>> {
        let slots = self.0.swap(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: arrays come from boxes. Links are exclusive only when their table is dropped; then every array that
        // has not been retired is behind exactly one link: the root, or its predecessor's.
        (!slots.is_null()).then(|| unsafe { Box::from_raw(slots) })
    }
}

/// Where lookups begin: an array whose predecessor is complete.
pub(super) struct Root(Link);

impl Root {
    pub(super) fn new(slots: Box<Slots>) -> Self {
        Self(Link(AtomicPtr::new(Box::into_raw(slots))))
    }

    #[inline]
    pub(super) fn load<'g>(&'g self, _guard: &'g Guard) -> &'g Slots {
        // Acquire pairs with the release of `advance`.
        let slots = self.0.0.load(Ordering::Acquire);
        // SAFETY: as in `Link::load`; and the root is null only while its table is dropped, by `drain`.
        unsafe { &*slots }
    }

    /// Goes on from an array whose every slot is closed, moved or dead to its successor; whether it was this call that
    /// did.
    pub(super) fn advance(&self, from: &Slots, guard: &Guard) -> bool {
        let successor = from.successor.0.load(Ordering::Acquire);
        let from = ptr::from_ref(from).cast_mut();
        // Release passes the completed copies on to those who begin at the successor.
        let Ok(retired) = self.0.0.compare_exchange(from, successor, Ordering::AcqRel, Ordering::Relaxed) else {
            return false;
        };
        let retired = Retired(retired);
        // SAFETY: nobody finds the array from now on, it is retired by the one call that won, and the guards of those who
        // found it before are gone when this runs.
        guard.defer(move |_| unsafe { retired.free() });
        true
    }

    /// Empties the table: the handles of all entries. Only for a table whose root has no successor.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Orphan> {
        let slots = self.0.take();
        debug_assert!(slots.as_ref().is_none_or(|slots| slots.successor.0.load(Ordering::Relaxed).is_null()));
        let len = slots.as_ref().map_or(0, |slots| slots.len());
        (0..len).filter_map(move |at| {
            let word = slots.as_ref().map_or(Word::EMPTY, |slots| Word::from_bits(slots.load(at).bits()));
            word.is_live().then(|| Orphan { handle: word.handle() })
        })
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut slots) = next {
            next = slots.successor.take();
        }
    }
}

/// An array that the root has left.
struct Retired(*mut Slots);

// SAFETY: arrays are `Send`, and the pointer is the only one that is used from now on.
unsafe impl Send for Retired {}

impl Retired {
    /// # Safety
    /// The array came from a box, and nobody else may use it any more.
    unsafe fn free(self) {
        // SAFETY: what the caller owes.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

#[cfg(not(loom))]
fn empty_words(len: usize) -> Box<[AtomicU64]> {
    // Zeroed memory comes from the system as it is touched, not in the middle of the insert that wants it.
    let words = Box::<[AtomicU64]>::new_zeroed_slice(len);
    // SAFETY: an `AtomicU64` is represented as a `u64`, for which zero is a value: that of an empty slot.
    unsafe { words.assume_init() }
}

#[cfg(loom)]
fn empty_words(len: usize) -> Box<[AtomicU64]> {
    (0..len).map(|_| AtomicU64::new(Word::EMPTY.bits())).collect()
}

/// Starts loading a cache line.
#[inline]
pub(super) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is harmless, and every x86-64 has SSE.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
