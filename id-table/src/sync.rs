//! What a model checker has to see: atomics and cells, of the standard library or of loom.

#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

#[cfg(loom)]
pub(super) use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

/// Bytes that a table takes; shared with what outlives it until guards are gone. A statistic that decides nothing, so
/// loom need not see it.
pub(super) type Memory = std::sync::Arc<std::sync::atomic::AtomicUsize>;

/// The standard cell behind the interface of loom's.
#[cfg(not(loom))]
#[repr(transparent)]
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    #[inline]
    pub(super) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    #[inline]
    pub(super) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

/// Keeps what different threads write on different cache lines.
#[repr(align(64))]
#[derive(Default)]
pub(super) struct Padded<T>(pub(super) T);

/// Into how many stripes counters are split, so that threads seldom meet on one.
pub(super) const STRIPES: usize = if cfg!(loom) { 1 } else { 16 };

/// The stripe of this thread.
#[cfg(not(loom))]
#[inline]
pub(super) fn stripe() -> usize {
    use std::cell::Cell;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) });
    STRIPE.with(|stripe| {
        if stripe.get() == usize::MAX {
            stripe.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        stripe.get()
    })
}

#[cfg(loom)]
pub(super) fn stripe() -> usize {
    0
}
