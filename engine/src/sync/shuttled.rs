//! The same interfaces over shuttle's threads and locks, as far as the store uses them.
//!
//! There is no time in a model. A wait of less than [`FOREVER`] ends at any moment, with or without its cause: both are
//! drawn. A longer one ends only with its cause, so that who waits for what never comes is found as a deadlock, not
//! saved by the clock. Orderings are all sequentially consistent; weaker ones are loom's business.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use shuttle::rand::{Rng, thread_rng};

pub(crate) use shuttle::sync::atomic;

/// What takes as long never happens while a model runs.
const FOREVER: Duration = Duration::from_secs(1);

/// parking_lot's mutex.
#[derive(Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

/// Holds nothing only while its thread waits on a [`Condvar`].
pub(crate) struct MutexGuard<'a, T> {
    inner: Option<shuttle::sync::MutexGuard<'a, T>>,
    mutex: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { inner: Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)), mutex: self }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = match self.0.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { inner: Some(inner), mutex: self })
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("only a waiting thread has let go of it")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("only a waiting thread has let go of it")
    }
}

/// parking_lot's condition variable.
#[derive(Default)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

/// Whether a wait ended without a notification.
pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        if let Some(inner) = guard.inner.take() {
            guard.inner = Some(self.0.wait(inner).unwrap_or_else(PoisonError::into_inner));
        }
    }

    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, timeout: Duration) -> WaitTimeoutResult {
        if timeout >= FOREVER {
            self.wait(guard);
            return WaitTimeoutResult(false);
        }
        guard.inner = None;
        thread::yield_now();
        guard.inner = guard.mutex.lock().inner.take();
        WaitTimeoutResult(thread_rng().r#gen())
    }

    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> WaitTimeoutResult {
        // Some of the time is over already, but never half of it.
        self.wait_for(guard, 2 * deadline.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// parking_lot's lock for many readers or one writer.
#[derive(Default)]
pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn read(&self) -> shuttle::sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> shuttle::sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) type ArcSwap<T> = ArcSwapAny<Arc<T>>;
pub(crate) type ArcSwapOption<T> = ArcSwapAny<Option<Arc<T>>>;

/// arc_swap's pointer that many read while others replace it; each operation is one step.
#[derive(Default)]
pub(crate) struct ArcSwapAny<P> {
    /// Touched before each operation, so that the scheduler has its say.
    step: atomic::AtomicBool,
    /// Never held across a step.
    pointer: parking_lot::Mutex<P>,
}

/// What was loaded; arc_swap's need not count a reference for it.
pub(crate) struct Guard<P>(P);

impl<P> Guard<P> {
    pub(crate) fn into_inner(guard: Self) -> P {
        guard.0
    }
}

impl<P> Deref for Guard<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.0
    }
}

impl<P: Clone> ArcSwapAny<P> {
    pub(crate) fn new(pointer: P) -> Self {
        Self { step: atomic::AtomicBool::new(false), pointer: parking_lot::Mutex::new(pointer) }
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, P> {
        self.step.load(atomic::Ordering::SeqCst);
        self.pointer.lock()
    }

    pub(crate) fn load_full(&self) -> P {
        self.lock().clone()
    }

    pub(crate) fn load(&self) -> Guard<P> {
        Guard(self.load_full())
    }

    pub(crate) fn store(&self, pointer: P) {
        let old = std::mem::replace(&mut *self.lock(), pointer);
        // What goes with it may be a step.
        drop(old);
    }
}

impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(value: T) -> Self {
        Self::new(Arc::new(value))
    }

    pub(crate) fn compare_and_swap(&self, current: &Arc<T>, new: Arc<T>) -> Guard<Arc<T>> {
        let mut pointer = self.lock();
        let found = pointer.clone();
        let refused = if Arc::ptr_eq(&found, current) { std::mem::replace(&mut *pointer, new) } else { new };
        drop(pointer);
        drop(refused);
        Guard(found)
    }

    pub(crate) fn rcu(&self, mut update: impl FnMut(&Arc<T>) -> Arc<T>) {
        let mut now = self.load();
        loop {
            let found = self.compare_and_swap(&now, update(&now));
            if Arc::ptr_eq(&found, &now) {
                return;
            }
            now = found;
        }
    }
}

/// crossbeam's bounded channel, with its errors.
pub(crate) mod channel {
    use std::{collections::VecDeque, time::Duration};

    pub(crate) use crossbeam_channel::RecvTimeoutError;
    use crossbeam_channel::{SendError, TryRecvError};

    use super::{Arc, Condvar, FOREVER, Mutex, MutexGuard, Rng, thread, thread_rng};

    struct Shared<T> {
        queue: Mutex<Queue<T>>,
        changed: Condvar,
        capacity: usize,
    }

    struct Queue<T> {
        messages: VecDeque<T>,
        /// Whether both ends are there.
        connected: bool,
    }

    impl<T> Shared<T> {
        fn disconnect(&self) -> MutexGuard<'_, Queue<T>> {
            let mut queue = self.queue.lock();
            queue.connected = false;
            self.changed.notify_all();
            queue
        }
    }

    pub(crate) struct Sender<T>(Arc<Shared<T>>);

    pub(crate) struct Receiver<T>(Arc<Shared<T>>);

    /// One without room is for its end alone: nothing is ever sent.
    pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let queue = Mutex::new(Queue { messages: VecDeque::new(), connected: true });
        let shared = Arc::new(Shared { queue, changed: Condvar::new(), capacity });
        (Sender(shared.clone()), Receiver(shared))
    }

    impl<T> Sender<T> {
        pub(crate) fn send(&self, message: T) -> Result<(), SendError<T>> {
            let mut queue = self.0.queue.lock();
            while queue.connected && queue.messages.len() >= self.0.capacity {
                self.0.changed.wait(&mut queue);
            }
            if !queue.connected {
                return Err(SendError(message));
            }
            queue.messages.push_back(message);
            self.0.changed.notify_all();
            Ok(())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            drop(self.0.disconnect());
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
            let mut queue = self.0.queue.lock();
            match queue.messages.pop_front() {
                Some(message) => {
                    self.0.changed.notify_all();
                    Ok(message)
                }
                None if queue.connected => Err(TryRecvError::Empty),
                None => Err(TryRecvError::Disconnected),
            }
        }

        pub(crate) fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
            loop {
                match self.try_recv() {
                    Ok(message) => return Ok(message),
                    Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                    Err(TryRecvError::Empty) if timeout < FOREVER => {
                        thread::yield_now();
                        if thread_rng().r#gen() {
                            return Err(RecvTimeoutError::Timeout);
                        }
                    }
                    Err(TryRecvError::Empty) => {
                        let mut queue = self.0.queue.lock();
                        while queue.connected && queue.messages.is_empty() {
                            self.0.changed.wait(&mut queue);
                        }
                    }
                }
            }
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            let messages = std::mem::take(&mut self.0.disconnect().messages);
            // They may hold what answers when it is dropped.
            drop(messages);
        }
    }
}

/// The standard library's threads.
pub(crate) mod thread {
    pub(crate) use shuttle::thread::{Builder, JoinHandle, yield_now};
    /// Of the one thread that runs all others in turn; it unwinds only when the model has failed.
    pub(crate) use std::thread::panicking;

    /// Lets the others go on.
    pub(crate) fn sleep(_duration: std::time::Duration) {
        yield_now();
    }
}
