//! Where entries are: chunks of growing size that entries never leave, so that references to them stay good.
//!
//! A handle names an entry: 8 bits tell the chunk, from 1 on, 22 bits the entry in it. Eight chunks have 8 entries each,
//! the next eight 64, then 128, and so on up to 4 Mi, so that the last chunk, the only one that need not be full, is a
//! sixteenth of the arena or so.
//!
//! A chunk has a bit for each entry, set while the entry is free. To take an entry is to clear its bit, to give it back
//! is to set it: no list whose head could return to an old value behind somebody's back, and nobody ever reads memory
//! that is not his. Threads look for free entries in stretches of their own ([`Arena::hints`]), so they meet on a bit
//! map seldom, and in the lowest chunks first, so that the highest run empty when the table shrinks. A chunk that is
//! free altogether is given back to the allocator once the others have room for twice what is in use.
//!
//! What must always hold: an entry whose bit is set is nobody's. Who clears it owns the entry ([`Fresh`]) until it is
//! published in a slot; who makes that slot dead ([`Dead`]) gives the entry back, after every guard of that moment.

use std::{
    alloc::{self, Layout},
    marker::PhantomData,
    mem::{self, MaybeUninit},
    ptr,
    sync::Arc,
};

use super::{
    epoch::Guard,
    slots::{Dead, Orphan, Present, prefetch},
    sync::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Memory, Ordering, Padded, STRIPES, UnsafeCell, stripe},
    word::HANDLES,
};

/// Entries to a word of a bit map; few under loom, which builds every cell anew for each execution.
const WORD_ENTRIES: usize = if cfg!(loom) { 2 } else { 64 };
/// Entries of the smallest chunks.
const CHUNK_ENTRIES_MIN: usize = if cfg!(loom) { 2 } else { 8 };
/// Bits of a handle that tell the entry in its chunk.
const ENTRY_BITS: u32 = 22;
/// Numbers of chunks; there is none with number 0, so that no handle is 0.
const CHUNKS: usize = if cfg!(loom) { 8 } else { (HANDLES >> ENTRY_BITS) as usize };
/// Words of a bit map that a thread looks through before it goes elsewhere: a cache line.
const STRETCH: usize = 8;

/// The chunk that a handle tells, and the entry in it.
#[inline]
fn place(handle: u32) -> (usize, usize) {
    ((handle >> ENTRY_BITS) as usize, (handle & ((1 << ENTRY_BITS) - 1)) as usize)
}

fn handle(chunk: usize, entry: usize) -> u32 {
    (chunk << ENTRY_BITS | entry) as u32
}

type Cell<T> = UnsafeCell<MaybeUninit<T>>;

/// The head of a chunk; its entries follow in the same allocation, from the next cache line on.
#[repr(C)]
struct Chunk<T> {
    /// Words all of whose entries are free. Corrected after each change of a word, so a little off while threads are at it.
    free_words: AtomicI32,
    /// The stretch that is searched next.
    cursor: AtomicU32,
    /// A word all of whose entries are free.
    free_word: u64,
    words: Box<[AtomicU64]>,
    entries: Padded<[Cell<T>; 0]>,
}

impl<T> Chunk<T> {
    /// How many entries the chunk with a number has.
    fn len(chunk: usize) -> usize {
        match (chunk - 1) / 8 {
            0 => CHUNK_ENTRIES_MIN,
            level => (WORD_ENTRIES << (level - 1).min(16)).min(1 << ENTRY_BITS),
        }
    }

    fn words(chunk: usize) -> usize {
        Self::len(chunk).div_ceil(WORD_ENTRIES)
    }

    /// A word of a chunk's bit map all of whose entries are free.
    fn free_word(chunk: usize) -> u64 {
        u64::MAX >> (64 - Self::len(chunk).min(WORD_ENTRIES))
    }

    fn layout(chunk: usize) -> Layout {
        let whole =
            Layout::array::<Cell<T>>(Self::len(chunk)).and_then(|entries| Layout::new::<Self>().extend(entries));
        whole.expect("a chunk is smaller than the address space").0.pad_to_align()
    }

    fn bytes(chunk: usize) -> usize {
        Self::layout(chunk).size() + Self::words(chunk) * size_of::<AtomicU64>()
    }

    /// A chunk all of whose entries are free.
    fn allocate(chunk: usize) -> *mut Self {
        let layout = Self::layout(chunk);
        let words = (0..Self::words(chunk)).map(|_| AtomicU64::new(Self::free_word(chunk))).collect();
        let head = Self {
            free_words: AtomicI32::new(Self::words(chunk) as i32),
            cursor: AtomicU32::new(0),
            free_word: Self::free_word(chunk),
            words,
            entries: Padded([]),
        };
        // SAFETY: the layout begins with a head, so it is not empty; the head is written before anything reads it, and
        // each entry lies within the allocation. Entries need no value: a cell's is `MaybeUninit`, except under loom.
        unsafe {
            let at = alloc::alloc(layout).cast::<Self>();
            if at.is_null() {
                alloc::handle_alloc_error(layout);
            }
            at.write(head);
            #[cfg(loom)]
            for entry in 0..Self::len(chunk) {
                (&raw mut (*at).entries).cast::<Cell<T>>().add(entry).write(UnsafeCell::new(MaybeUninit::uninit()));
            }
            at
        }
    }

    /// Frees a chunk; entries that are still in it are not dropped.
    ///
    /// # Safety
    /// It must come from `allocate` with the same number, and nobody may use it any more.
    unsafe fn free(at: *mut Self, chunk: usize) {
        // SAFETY: what the caller owes; the head was written by `allocate`.
        unsafe {
            at.drop_in_place();
            alloc::dealloc(at.cast(), Self::layout(chunk));
        }
    }

    /// An entry's cell.
    ///
    /// # Safety
    /// The chunk must be allocated, and `entry` be less than its entries.
    #[inline]
    unsafe fn cell(at: *mut Self, entry: usize) -> *const Cell<T> {
        // SAFETY: what the caller owes.
        unsafe { (&raw const (*at).entries).cast::<Cell<T>>().add(entry) }
    }
}

/// Entries of type `T`.
pub(super) struct Arena<T> {
    /// Null where there is none. Written by whoever adds or frees a chunk, read by everybody.
    chunks: [AtomicPtr<Chunk<T>>; CHUNKS],
    /// A bit for each chunk that may have free entries. Set after a word of its map ceases to be zero, cleared by who
    /// finds the chunk full and then looks once more.
    open: [AtomicU64; CHUNKS.div_ceil(64)],
    /// The word in which a stripe took its last entry, as the handle of its first entry.
    hints: [Padded<AtomicU32>; STRIPES],
    memory: Memory,
    entries: PhantomData<T>,
}

impl<T: Send + Sync + 'static> Arena<T> {
    pub(super) fn new(memory: &Memory) -> Self {
        memory.fetch_add(size_of::<Self>(), Ordering::Relaxed);
        Self {
            chunks: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            open: std::array::from_fn(|_| AtomicU64::new(0)),
            hints: std::array::from_fn(|_| Padded(AtomicU32::new(handle(1, 0)))),
            memory: memory.clone(),
            entries: PhantomData,
        }
    }

    #[inline]
    fn cell(&self, handle: u32) -> *const Cell<T> {
        let (chunk, entry) = place(handle);
        // Acquire pairs with the release of `add_chunk`.
        let chunk = self.chunks[chunk].load(Ordering::Acquire);
        // SAFETY: a handle that is not free keeps its chunk allocated, and is of an entry of that chunk.
        unsafe { Chunk::cell(chunk, entry) }
    }

    #[inline]
    pub(super) fn get<'g>(&'g self, present: Present<'g>) -> &'g T {
        // SAFETY: the entry was written before it was published in the slot that `present` was loaded from, and is not
        // dropped before the guard is gone that it was loaded under.
        unsafe { (*self.cell(present.handle)).with(|entry| (*entry).assume_init_ref()) }
    }

    /// Starts loading an entry.
    #[inline]
    pub(super) fn prefetch(&self, present: Present<'_>) {
        let cell = self.cell(present.handle).cast::<u8>();
        prefetch(cell);
        prefetch(cell.wrapping_add(size_of::<T>().saturating_sub(1)));
    }

    /// Puts an entry into a free place.
    ///
    /// # Panics
    /// If there are more than half a billion entries.
    #[inline]
    pub(super) fn add<'g>(&'g self, entry: T, guard: &'g Guard) -> Fresh<'g, T> {
        let hint = &self.hints[stripe()].0;
        let handle = loop {
            if let Some(handle) = self.take_near(hint.load(Ordering::Relaxed), hint, guard) {
                break handle;
            }
            match self.find_open(guard) {
                Some(near) => hint.store(near, Ordering::Relaxed),
                None => self.add_chunk(),
            }
        };
        // SAFETY: clearing the bit made the entry ours alone, and what was there before has been dropped.
        unsafe { (*self.cell(handle)).with_mut(|place| (*place).write(entry)) };
        Fresh { arena: self, handle, guard }
    }

    /// What holds while nobody is at it: free entries are found.
    #[cfg(all(test, loom))]
    pub(super) fn check(&self, guard: &Guard) {
        for (number, chunk) in (1..CHUNKS).filter_map(|number| Some((number, self.chunk(number, guard)?))) {
            let free = chunk.words.iter().any(|word| word.load(Ordering::Relaxed) != 0);
            let open = self.open[number / 64].load(Ordering::Relaxed) & 1 << (number % 64) != 0;
            assert!(open || !free, "a chunk has free entries that nobody will find");
        }
    }

    fn chunk<'g>(&'g self, chunk: usize, _guard: &'g Guard) -> Option<&'g Chunk<T>> {
        let at = self.chunks[chunk].load(Ordering::Acquire);
        // SAFETY: chunks are freed only after the guards that were there when they were taken out of `chunks`.
        unsafe { at.as_ref() }
    }

    /// Takes the first free entry of the stretch that a word is in, from that word on.
    fn take_near(&self, near: u32, hint: &AtomicU32, guard: &Guard) -> Option<u32> {
        let (number, entry) = place(near);
        let chunk = self.chunk(number, guard)?;
        let from = entry / WORD_ENTRIES;
        let to = (from / STRETCH * STRETCH + STRETCH).min(chunk.words.len());
        (from..to).find_map(|at| {
            let bit = Self::take_bit(chunk, at)?;
            let word = handle(number, at * WORD_ENTRIES);
            if word != near {
                hint.store(word, Ordering::Relaxed);
            }
            Some(word + bit)
        })
    }

    fn take_bit(chunk: &Chunk<T>, at: usize) -> Option<u32> {
        let word = &chunk.words[at];
        let mut free = word.load(Ordering::Relaxed);
        while free != 0 {
            // Acquire pairs with the release of `give_back`: what was in the entry has been dropped.
            match word.compare_exchange_weak(free, free & (free - 1), Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    if free == chunk.free_word {
                        chunk.free_words.fetch_sub(1, Ordering::Relaxed);
                    }
                    return Some(free.trailing_zeros());
                }
                Err(now) => free = now,
            }
        }
        None
    }

    /// A word with a free entry, as the handle of its first entry; of the lowest chunk that has one.
    #[cold]
    fn find_open(&self, guard: &Guard) -> Option<u32> {
        for (at, open) in self.open.iter().enumerate() {
            let mut rest = open.load(Ordering::Relaxed);
            while rest != 0 {
                let number = at * 64 + rest.trailing_zeros() as usize;
                let bit = rest & rest.wrapping_neg();
                if let Some(found) = self.find_word(number, guard) {
                    return Some(found);
                }
                // Acquire: who set the bit before this has freed an entry before, which is seen now; who sets it after
                // this, sets it.
                open.fetch_and(!bit, Ordering::Acquire);
                if let Some(found) = self.find_word(number, guard) {
                    open.fetch_or(bit, Ordering::Relaxed);
                    return Some(found);
                }
                rest &= !bit;
            }
        }
        None
    }

    /// The same within a chunk. Stretches are searched in turn, by whichever thread: a thread gets one that no other is
    /// at, and none is searched again before all others have been.
    fn find_word(&self, number: usize, guard: &Guard) -> Option<u32> {
        let chunk = self.chunk(number, guard)?;
        let stretches = chunk.words.len().div_ceil(STRETCH);
        (0..stretches).find_map(|_| {
            let from = chunk.cursor.fetch_add(1, Ordering::Relaxed) as usize % stretches * STRETCH;
            let mut words = from..chunk.words.len().min(from + STRETCH);
            let found = words.find(|at| chunk.words[*at].load(Ordering::Relaxed) != 0)?;
            Some(handle(number, found * WORD_ENTRIES))
        })
    }

    fn set_open(&self, number: usize) {
        // Release pairs with the acquire of `find_open`.
        self.open[number / 64].fetch_or(1 << (number % 64), Ordering::Release);
    }

    #[cold]
    fn add_chunk(&self) {
        let missing = (1..CHUNKS).find(|chunk| self.chunks[*chunk].load(Ordering::Relaxed).is_null());
        let number = missing.expect("a table holds half a billion entries at most");
        let chunk = Chunk::allocate(number);
        // Release pairs with the acquire of whoever loads it.
        let added = self.chunks[number].compare_exchange(ptr::null_mut(), chunk, Ordering::Release, Ordering::Relaxed);
        if added.is_ok() {
            self.set_open(number);
            self.memory.fetch_add(Chunk::<T>::bytes(number), Ordering::Relaxed);
        } else {
            // SAFETY: it was allocated above and nobody else has seen it.
            unsafe { Chunk::free(chunk, number) };
        }
    }

    /// Drops an entry.
    ///
    /// # Safety
    /// The entry must be published no more, or never have been, and nobody may refer to it.
    unsafe fn drop_entry(&self, handle: u32) {
        // SAFETY: it was written by `add`; the rest is what the caller owes.
        unsafe { (*self.cell(handle)).with_mut(|entry| (*entry).assume_init_drop()) };
    }

    /// Marks the place of an entry free that has been dropped.
    fn give_back(&self, handle: u32, guard: &Guard) {
        let (number, entry) = place(handle);
        let chunk = self.chunk(number, guard).expect("a handle that is not free keeps its chunk");
        let bit = 1 << (entry % WORD_ENTRIES);
        // Release: whoever takes the entry next writes to it only after it has been dropped.
        let before = chunk.words[entry / WORD_ENTRIES].fetch_or(bit, Ordering::Release);
        debug_assert!(before & bit == 0, "an entry is given back once");
        if before == 0 {
            self.set_open(number);
        }
        if before | bit == chunk.free_word {
            let free_words = chunk.free_words.fetch_add(1, Ordering::Relaxed) + 1;
            if number > 1 && free_words >= chunk.words.len() as i32 {
                self.trim(guard);
            }
        }
    }

    /// Gives chunks that are free altogether back to the allocator, the highest first, as long as what stays has room
    /// for twice the entries in use.
    ///
    /// The first chunk stays. So a table that swings between sizes does not allocate with every swing.
    #[cold]
    pub(super) fn trim(&self, guard: &Guard) {
        let free_entries = |number: usize| {
            let chunk = self.chunk(number, guard);
            let words = chunk.map_or(0, |chunk| chunk.free_words.load(Ordering::Relaxed).max(0));
            (words as usize * WORD_ENTRIES).min(Chunk::<T>::len(number))
        };
        let present = (1..CHUNKS).filter(|chunk| !self.chunks[*chunk].load(Ordering::Relaxed).is_null());
        let (mut entries, free) =
            present.fold((0, 0), |(all, free), chunk| (all + Chunk::<T>::len(chunk), free + free_entries(chunk)));
        let used = entries - free.min(entries);
        for number in (2..CHUNKS).rev() {
            let kept = entries.saturating_sub(Chunk::<T>::len(number));
            if free_entries(number) >= Chunk::<T>::len(number) && kept >= 2 * used && self.free_chunk(number, guard) {
                entries = kept;
            }
        }
    }

    /// Gives a chunk back if all its entries are free; whether it did.
    fn free_chunk(&self, number: usize, guard: &Guard) -> bool {
        let Some(chunk) = self.chunk(number, guard) else { return false };
        // Taking every entry makes the chunk ours; one that is retired already has none that are free. Acquire pairs with
        // the release of `give_back`.
        let taken = chunk
            .words
            .iter()
            .take_while(|word| word.compare_exchange(chunk.free_word, 0, Ordering::Acquire, Ordering::Relaxed).is_ok());
        let taken = taken.count();
        if taken < chunk.words.len() {
            for word in &chunk.words[..taken] {
                word.store(chunk.free_word, Ordering::Release);
            }
            // Somebody may have found the chunk full meanwhile.
            self.set_open(number);
            return false;
        }
        let at = self.chunks[number].swap(ptr::null_mut(), Ordering::AcqRel);
        let retired = Retired { at, number, memory: self.memory.clone() };
        // SAFETY: all entries are free and stay so, nobody finds the chunk from now on, and the guards of those who found
        // it before are gone when this runs.
        guard.defer(move |_| unsafe { retired.free() });
        true
    }

    /// Drops an entry whose table is being dropped. Its place goes with its chunk.
    pub(super) fn free(&self, orphan: Orphan) {
        // SAFETY: the table is borrowed for as long as a reference to an entry lives, so there are none.
        unsafe { self.drop_entry(orphan.handle) };
    }

    /// Drops a removed entry and frees its place after all guards of this moment.
    pub(super) fn retire(arena: &Arc<Self>, dead: Dead, guard: &Guard) {
        let arena = arena.clone();
        // SAFETY: the slot that led to the entry is dead, and so were or became those in which it was before; the guards
        // of those who found it there are gone when this runs. A `Dead` is had once for each entry.
        guard.defer(move |guard| {
            unsafe { arena.drop_entry(dead.handle) };
            arena.give_back(dead.handle, guard);
        });
    }
}

impl<T> Drop for Arena<T> {
    fn drop(&mut self) {
        for (number, chunk) in self.chunks.iter().enumerate() {
            let at = chunk.load(Ordering::Relaxed);
            if !at.is_null() {
                self.memory.fetch_sub(Chunk::<T>::bytes(number), Ordering::Relaxed);
                // SAFETY: chunks come from `allocate` with their number, and nobody else has the arena any more.
                unsafe { Chunk::free(at, number) };
            }
        }
        self.memory.fetch_sub(size_of::<Self>(), Ordering::Relaxed);
    }
}

/// An entry that is not published yet; dropped with its place freed, unless it is.
pub(super) struct Fresh<'g, T: Send + Sync + 'static> {
    arena: &'g Arena<T>,
    handle: u32,
    guard: &'g Guard,
}

impl<T: Send + Sync + 'static> Fresh<'_, T> {
    pub(super) fn handle(&self) -> u32 {
        self.handle
    }

    /// Leaves the entry to the slot that it has been published in.
    pub(super) fn published(self) {
        mem::forget(self);
    }
}

impl<T: Send + Sync + 'static> Drop for Fresh<'_, T> {
    fn drop(&mut self) {
        // SAFETY: nobody but us has ever seen the entry.
        unsafe { self.arena.drop_entry(self.handle) };
        self.arena.give_back(self.handle, self.guard);
    }
}

/// A chunk that was taken out of its arena.
struct Retired<T> {
    at: *mut Chunk<T>,
    number: usize,
    memory: Memory,
}

// SAFETY: the chunk holds no entries any more, only memory.
unsafe impl<T> Send for Retired<T> {}

impl<T> Retired<T> {
    /// # Safety
    /// Nobody else may use the chunk any more.
    unsafe fn free(self) {
        self.memory.fetch_sub(Chunk::<T>::bytes(self.number), Ordering::Relaxed);
        // SAFETY: it was allocated with this number; the rest is what the caller owes.
        unsafe { Chunk::free(self.at, self.number) };
    }
}
