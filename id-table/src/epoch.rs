//! When memory that was taken out of the table may be freed: after every guard that was there at that moment is gone.
//!
//! Outside of loom this is [`crossbeam_epoch`]. Under loom it is a model of the same promise, because crossbeam's own
//! algorithm (bags of 64, two epochs, a list of threads) is far too many steps to explore together with the table's;
//! crossbeam checks it under loom itself. The model frees at the very first moment at which the promise allows it,
//! which crossbeam never does, so it finds more mistakes of the table, but none of crossbeam's.

#[cfg(not(loom))]
pub use real::{Guard, pin, wait_for_guards};

#[cfg(loom)]
pub use model::{Guard, pin};

#[cfg(not(loom))]
mod real {
    use std::cell::Cell;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    thread_local! {
        /// Whether this thread has deferred something since it last flushed.
        static DEFERRED: Cell<bool> = const { Cell::new(false) };
        /// Whether this thread is flushing: what is freed then may pin and defer, but does not flush once more within.
        static FLUSHING: Cell<bool> = const { Cell::new(false) };
    }

    /// Keeps what was found in any [`IdTable`](super::super::IdTable) alive.
    ///
    /// Holding one keeps everything from being freed that any thread removes meanwhile, so it belongs to a request and
    /// never crosses I/O or an `.await`. If this thread has removed something, the end of its guard flushes it: crossbeam
    /// would keep up to 64 removals for this thread to come back to.
    #[derive(Debug)]
    pub struct Guard(crossbeam_epoch::Guard);

    /// Pins this thread; about 10 ns, so once a request rather than once an operation.
    ///
    /// A type of its own rather than crossbeam's, because a guard of another collector would protect nothing here.
    #[must_use]
    pub fn pin() -> Guard {
        Guard(crossbeam_epoch::pin())
    }

    /// Waits until every guard is gone that any thread holds now; this one must hold none. In the meantime `pause` is
    /// called again and again.
    ///
    /// What was stored before the call is seen under every guard that is taken from now on.
    pub fn wait_for_guards(mut pause: impl FnMut()) {
        let gone = Arc::new(AtomicBool::new(false));
        let all_gone = gone.clone();
        pin().defer(move || all_gone.store(true, Ordering::Release));
        while !gone.load(Ordering::Acquire) {
            pin().flush();
            pause();
        }
    }

    impl Guard {
        /// Hands what this thread removed over to be freed by any, and frees up to 512 removals that are due, whoever
        /// made them.
        ///
        /// The end of a guard under which something was removed does the same, and every 128th [`pin`] of a thread frees
        /// as much. So this is for who wants memory back sooner: it takes three fresh guards until a removal is due.
        pub fn flush(&self) {
            if FLUSHING.replace(true) {
                return;
            }
            let _flushing = Flushing;
            loop {
                DEFERRED.set(false);
                self.0.flush();
                if !DEFERRED.get() {
                    break;
                }
            }
        }

        pub(in super::super) fn defer(&self, free: impl FnOnce() + Send + 'static) {
            DEFERRED.set(true);
            self.0.defer(free);
        }
    }

    impl Drop for Guard {
        #[inline]
        fn drop(&mut self) {
            if DEFERRED.get() {
                self.flush();
            }
        }
    }

    /// Ends a flush, also if dropping a value panics.
    struct Flushing;

    impl Drop for Flushing {
        fn drop(&mut self) {
            FLUSHING.set(false);
        }
    }
}

#[cfg(loom)]
mod model {
    use loom::sync::Mutex;

    type Free = Box<dyn FnOnce() + Send>;

    #[derive(Default)]
    struct Registry {
        last: usize,
        pinned: Vec<usize>,
        /// What waits, each with the guards that it waits for.
        garbage: Vec<(Vec<usize>, Free)>,
    }

    loom::lazy_static! {
        static ref REGISTRY: Mutex<Registry> = Mutex::new(Registry::default());
    }

    /// Keeps what was found in any table alive.
    #[derive(Debug)]
    pub struct Guard(usize);

    /// Pins this thread.
    #[must_use]
    pub fn pin() -> Guard {
        let mut registry = REGISTRY.lock().expect("nothing panics under the lock");
        registry.last += 1;
        let id = registry.last;
        registry.pinned.push(id);
        Guard(id)
    }

    impl Guard {
        /// Frees nothing: the model frees by itself as soon as it may.
        pub fn flush(&self) {}

        /// Runs something once every guard that is there now, in any thread, is gone: at the end of one, or in
        /// [`Guard::flush`].
        pub fn defer(&self, free: impl FnOnce() + Send + 'static) {
            let mut registry = REGISTRY.lock().expect("nothing panics under the lock");
            let pinned = registry.pinned.clone();
            registry.garbage.push((pinned, Box::new(free)));
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            if std::thread::panicking() {
                return;
            }
            let mut due = Vec::new();
            {
                let mut registry = REGISTRY.lock().expect("nothing panics under the lock");
                registry.pinned.retain(|id| *id != self.0);
                let waiting = std::mem::take(&mut registry.garbage);
                for (mut guards, free) in waiting {
                    guards.retain(|id| *id != self.0);
                    if guards.is_empty() {
                        due.push(free);
                    } else {
                        registry.garbage.push((guards, free));
                    }
                }
            }
            due.into_iter().for_each(|free| free());
        }
    }
}
