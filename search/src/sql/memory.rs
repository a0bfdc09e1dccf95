//! What one query may take of SQLite's heap.
//!
//! SQLite bounds its heap for the whole process only, and there a greedy query would take the memory of a storage
//! backend that is SQLite too. So its allocator is wrapped, once, by one that counts per thread: a query runs on one
//! thread from the opening of its connection to its end, so what that thread takes meanwhile is what the query takes.
//! Past the limit the query alone is told that there is no memory, which SQLite is made to survive. All other threads
//! are counted by nobody.
//!
//! A single operation on a large value can take long without SQLite asking its progress handler. It cannot make such a
//! value without asking for its memory, though, so the deadline is looked at here, too.
//!
//! While code of ours runs under SQLite, limits are suspended: rusqlite panics or aborts where a conversion finds no
//! memory. What such code takes is counted all the same, and it is not entered again past the limit; see
//! [`is_exceeded`].

use std::{
    cell::Cell,
    ffi::{c_int, c_void},
    ptr::null_mut,
    sync::OnceLock,
    time::Instant,
};

use rusqlite::ffi;

/// From this many bytes on, an allocation looks at the clock.
const TIMED_BYTES: i64 = 64 * 1024;

/// What the thread's query takes. Only the thread itself sees it.
struct Meter {
    /// `i64::MAX` while there is no query.
    limit_bytes: Cell<i64>,
    /// May be negative by what was taken before the query and is freed in it.
    used_bytes: Cell<i64>,
    deadline: Cell<Option<Instant>>,
    is_suspended: Cell<bool>,
    refusal: Cell<Option<Refusal>>,
}

/// Why memory was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The query has taken what it may.
    Limit,
    /// Its time is over.
    Deadline,
}

thread_local! {
    static METER: Meter = const {
        Meter {
            limit_bytes: Cell::new(i64::MAX),
            used_bytes: Cell::new(0),
            deadline: Cell::new(None),
            is_suspended: Cell::new(false),
            refusal: Cell::new(None),
        }
    };
}

/// SQLite's own allocator.
struct Inner {
    malloc: unsafe extern "C" fn(c_int) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    realloc: unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void,
    size: unsafe extern "C" fn(*mut c_void) -> c_int,
}

static INNER: OnceLock<Inner> = OnceLock::new();

/// Has SQLite count what each thread takes; whether it does. It cannot be had any more once something in the process
/// has used SQLite otherwise.
pub(super) fn install() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| wrap_allocator().is_some())
}

fn wrap_allocator() -> Option<()> {
    let mut methods = ffi::sqlite3_mem_methods {
        xMalloc: None,
        xFree: None,
        xRealloc: None,
        xSize: None,
        xRoundup: None,
        xInit: None,
        xShutdown: None,
        pAppData: null_mut(),
    };
    // SAFETY: this option takes a pointer to a struct of this type and fills it. It fails, without effect, once SQLite
    // is initialised.
    let code = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_GETMALLOC, &raw mut methods) };
    if code != ffi::SQLITE_OK {
        return None;
    }
    let inner =
        Inner { malloc: methods.xMalloc?, free: methods.xFree?, realloc: methods.xRealloc?, size: methods.xSize? };
    // Set before any of the functions below can be called.
    INNER.get_or_init(|| inner);
    methods.xMalloc = Some(malloc);
    methods.xFree = Some(free);
    methods.xRealloc = Some(realloc);
    // SAFETY: this option takes a pointer to a struct of this type and copies it; as above. Should another thread
    // initialise SQLite at this very moment, it does not matter which functions it sees: the new ones hand out and take
    // back the blocks of the old ones.
    let code = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const methods) };
    (code == ffi::SQLITE_OK).then_some(())
}

/// Runs a query that may take so much and so long. Queries of one thread do not nest.
pub(super) fn metered<T>(limit_bytes: usize, deadline: Option<Instant>, query: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            METER.with(|meter| {
                meter.limit_bytes.set(i64::MAX);
                meter.deadline.set(None);
            });
        }
    }
    METER.with(|meter| {
        meter.limit_bytes.set(i64::try_from(limit_bytes).unwrap_or(i64::MAX - 1).min(i64::MAX - 1));
        meter.used_bytes.set(0);
        meter.deadline.set(deadline);
        meter.is_suspended.set(false);
        meter.refusal.set(None);
    });
    let _reset = Reset;
    query()
}

/// Runs code that cannot do without the memory that it asks SQLite for; it must be little.
pub(super) fn suspended<T>(work: impl FnOnce() -> T) -> T {
    struct Resume(bool);
    impl Drop for Resume {
        fn drop(&mut self) {
            METER.with(|meter| meter.is_suspended.set(self.0));
        }
    }
    let _resume = Resume(METER.with(|meter| meter.is_suspended.replace(true)));
    work()
}

/// Whether the thread's query has taken more than it may.
pub(super) fn is_exceeded() -> bool {
    METER.with(|meter| {
        let exceeded = meter.used_bytes.get() > meter.limit_bytes.get();
        if exceeded {
            meter.refusal.set(meter.refusal.get().or(Some(Refusal::Limit)));
        }
        exceeded
    })
}

/// Why the thread's query was refused memory, if it was.
pub(super) fn refusal() -> Option<Refusal> {
    METER.with(|meter| meter.refusal.get())
}

impl Meter {
    /// Whether so much more may be taken.
    fn admits(&self, bytes: i64) -> bool {
        if self.limit_bytes.get() == i64::MAX || self.is_suspended.get() {
            return true;
        }
        let refusal = if self.used_bytes.get().saturating_add(bytes) > self.limit_bytes.get() {
            Refusal::Limit
        } else if bytes >= TIMED_BYTES && self.deadline.get().is_some_and(|deadline| Instant::now() >= deadline) {
            Refusal::Deadline
        } else {
            return true;
        };
        self.refusal.set(Some(refusal));
        false
    }

    fn took(&self, bytes: i64) {
        self.used_bytes.set(self.used_bytes.get().saturating_add(bytes));
    }
}

/// # Safety
/// As SQLite's `xMalloc`.
unsafe extern "C" fn malloc(bytes: c_int) -> *mut c_void {
    let Some(inner) = INNER.get() else { return null_mut() };
    METER.with(|meter| {
        if !meter.admits(i64::from(bytes)) {
            return null_mut();
        }
        // SAFETY: the caller keeps to the contract of `xMalloc`, which is that of the inner one.
        let block = unsafe { (inner.malloc)(bytes) };
        if !block.is_null() {
            // SAFETY: the block is the inner allocator's.
            meter.took(i64::from(unsafe { (inner.size)(block) }));
        }
        block
    })
}

/// # Safety
/// As SQLite's `xFree`: `block` is one that this allocator or the inner one gave.
unsafe extern "C" fn free(block: *mut c_void) {
    let Some(inner) = INNER.get() else { return };
    if block.is_null() {
        return;
    }
    METER.with(|meter| {
        // SAFETY: all blocks are the inner allocator's.
        unsafe {
            meter.took(-i64::from((inner.size)(block)));
            (inner.free)(block);
        }
    });
}

/// # Safety
/// As SQLite's `xRealloc`: `block` is one that this allocator or the inner one gave.
unsafe extern "C" fn realloc(block: *mut c_void, bytes: c_int) -> *mut c_void {
    let Some(inner) = INNER.get() else { return null_mut() };
    METER.with(|meter| {
        // SAFETY: all blocks are the inner allocator's.
        let old = i64::from(unsafe { (inner.size)(block) });
        if !meter.admits(i64::from(bytes) - old) {
            return null_mut();
        }
        // SAFETY: as above; the caller keeps to the contract of `xRealloc`.
        let moved = unsafe { (inner.realloc)(block, bytes) };
        if !moved.is_null() {
            // SAFETY: the block is the inner allocator's.
            meter.took(i64::from(unsafe { (inner.size)(moved) }) - old);
        }
        moved
    })
}
