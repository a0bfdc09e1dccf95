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
    use std::{
        cell::{Cell, RefCell},
        mem::ManuallyDrop,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    type Free = Box<dyn FnOnce(&Guard)>;

    thread_local! {
        /// Whether this thread has deferred something since it last flushed.
        static DEFERRED: Cell<bool> = const { Cell::new(false) };
        /// Whether this thread is freeing something: that may pin and defer, but what comes due within is left for after
        /// it, and it does not flush.
        static FREEING: Cell<bool> = const { Cell::new(false) };
        /// What was left. Without a destructor, so that it is there to the very end of a thread; it is empty then.
        static LEFT: ManuallyDrop<RefCell<Vec<Free>>> = const { ManuallyDrop::new(RefCell::new(Vec::new())) };
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
        pin().defer(move |_| all_gone.store(true, Ordering::Release));
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
            if FREEING.get() {
                return;
            }
            loop {
                DEFERRED.set(false);
                self.0.flush();
                if !DEFERRED.get() {
                    break;
                }
            }
        }

        /// Runs something once every guard is gone that is there now, in any thread, under a guard of then.
        pub(in super::super) fn defer(&self, free: impl FnOnce(&Guard) + Send + 'static) {
            DEFERRED.set(true);
            self.0.defer(move || run(free));
        }
    }

    /// Frees something that is due, and then, one after the other, whatever else came due meanwhile.
    ///
    /// Not within one another: a thread that ends has given its place among those that pin away, so each [`pin`] gets a
    /// new one and begins with a collection. What that frees would pin, collect and free in turn, until the stack ends.
    fn run(free: impl FnOnce(&Guard) + 'static) {
        if FREEING.replace(true) {
            LEFT.with(|left| left.borrow_mut().push(Box::new(free)));
            return;
        }
        let _freeing = Freeing;
        let guard = pin();
        free(&guard);
        let next = || LEFT.with(|left| left.borrow_mut().pop());
        while let Some(free) = next() {
            free(&guard);
        }
    }

    /// Ends a thread's freeing, also if dropping a value panics.
    struct Freeing;

    impl Drop for Freeing {
        fn drop(&mut self) {
            FREEING.set(false);
            LEFT.with(|left| left.take()).into_iter().for_each(run);
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
}

#[cfg(loom)]
mod model {
    use loom::sync::Mutex;

    type Free = Box<dyn FnOnce(&Guard) + Send>;

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
        pub fn defer(&self, free: impl FnOnce(&Guard) + Send + 'static) {
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
            due.into_iter().for_each(|free| free(&pin()));
        }
    }
}
