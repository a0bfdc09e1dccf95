//! Where long work runs: walks, grep, packs, and everything that waits for the disk.
//!
//! A handler must not hold one of the few threads that serve connections, so it gives its work to this
//! pool. What always holds: at most `threads` pieces run and at most `queue_max` wait; a piece that has
//! waited for `timeout` is refused, not started late; a slot is free again only when its work has really
//! ended, also when the client that asked for it has gone; a panic of the work is an error for the caller;
//! work that may wait for a slow client takes three quarters of the threads and of the queue at most; of work that
//! computes, no more runs at once than there are processors, as far as it is quick; short pieces of it that must not be refused
//! run beside the `threads`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bounds of a [`WorkPool`].
#[derive(Debug, Clone, Copy)]
pub struct WorkOptions {
    /// How many pieces of work run at once, at least one.
    pub threads: usize,
    /// How many pieces that compute run at once, as long as they are quick.
    pub processors: usize,
    /// How long one of these is quick.
    pub turn: Duration,
    /// How many may wait for a thread.
    pub queue_max: usize,
    /// How long one may wait; also the time until [`WorkPool::deadline`].
    pub timeout: Duration,
}

/// A bounded pool of blocking threads.
#[derive(Debug)]
pub struct WorkPool {
    options: WorkOptions,
    slots: Arc<Semaphore>,
    /// Turns of work that waits for its client, fewer than there are slots: slow clients never hold them all.
    client_turns: Arc<Semaphore>,
    /// Turns of work that computes.
    turns: Arc<Semaphore>,
    /// Pieces that wait for a slot. Changed by [`Place`] only; bounds the queue and tells that others wait, orders nothing.
    waiting: AtomicUsize,
    /// Counted by the working threads, read by metrics; orders nothing.
    panics_total: Arc<AtomicU64>,
}

/// Why work was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkError {
    /// Every thread is busy and the queue is full, or the wait was too long. Nothing was started.
    Busy,
    /// The work panicked. What it did before is done; the panic is in the log.
    Panicked,
}

/// What a pool is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkStats {
    /// Pieces that run.
    pub running: usize,
    /// Pieces that wait for a thread.
    pub waiting: usize,
    /// Pieces that have panicked since the start.
    pub panics_total: u64,
}

impl WorkPool {
    /// A pool with these bounds. Its threads are the runtime's blocking threads, started when needed.
    pub fn new(options: WorkOptions) -> Self {
        let threads = options.threads.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            options: WorkOptions { threads, ..options },
            slots: Arc::new(Semaphore::new(threads)),
            client_turns: Arc::new(Semaphore::new((threads - threads.div_ceil(4)).max(1))),
            turns: Arc::new(Semaphore::new(options.processors.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            panics_total: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Until when work that begins now may take. A thread cannot be stopped from outside: whoever walks
    /// or scans looks at the deadline.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.options.timeout
    }

    /// Runs `work` on a thread of the pool and waits for its result.
    ///
    /// When the returned future is dropped, work that has begun still runs to its end; what has not begun
    /// is never started. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`WorkError::Busy`] if no thread became free in time, [`WorkError::Panicked`] if the work panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, WorkError> {
        let slot = self.slot(&self.slots, self.options.queue_max, self.deadline()).await?;
        self.run_in(slot, work).await
    }

    /// The same for work that sends to its client or receives from it while it holds a thread. Of such work no more
    /// runs at once than three quarters of the threads, so that a slow client holds up only those like it.
    ///
    /// # Errors
    /// As [`WorkPool::run`].
    pub async fn run_with_client<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkError> {
        let deadline = self.deadline();
        let queue_max = self.options.queue_max;
        let turn = self.slot(&self.client_turns, queue_max - queue_max / 4, deadline).await?;
        let slot = self.slot(&self.slots, queue_max, deadline).await?;
        let work = move || {
            // Like the slot, held until the work has really ended.
            let _turn = turn;
            work()
        };
        self.run_in(slot, work).await
    }

    /// The same for work that computes and is mostly quick, such as a search. No more of it runs at once than there are
    /// processors, in the order in which it came: together, all would be as slow as the slowest. What has not ended when its
    /// turn is over goes on beside the others, so that they do not wait for it.
    ///
    /// # Errors
    /// As [`WorkPool::run`].
    pub async fn run_in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkError> {
        let deadline = self.deadline();
        let queue_max = self.options.queue_max;
        let turn = self.slot(&self.turns, queue_max - queue_max / 4, deadline).await?;
        let slot = self.slot(&self.slots, queue_max, deadline).await?;
        let turn = Turn(Arc::new(Mutex::new(Some(turn))));
        // Whether or not the client waits for it.
        let (permit, length) = (Arc::clone(&turn.0), self.options.turn);
        tokio::spawn(async move {
            tokio::time::sleep(length).await;
            drop(permit.lock().take());
        });
        let work = move || {
            let _turn = turn;
            work()
        };
        self.run_in(slot, work).await
    }

    /// The same for one short piece of long work, which comes again for the next: it takes turns with all that computes.
    ///
    /// # Errors
    /// As [`WorkPool::run`].
    pub async fn run_piece<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkError> {
        let deadline = self.deadline();
        let queue_max = self.options.queue_max;
        let turn = self.slot(&self.turns, queue_max - queue_max / 4, deadline).await?;
        let slot = self.slot(&self.slots, queue_max, deadline).await?;
        let work = move || {
            let _turn = turn;
            work()
        };
        self.run_in(slot, work).await
    }

    /// The same for a short piece of long work that has no thread of the pool: one beside them, for as long as it takes. It takes
    /// turns with all that computes, and is never refused.
    ///
    /// # Errors
    /// [`WorkError::Panicked`].
    pub async fn run_beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkError> {
        // Nobody closes it.
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_closed| WorkError::Busy)?;
        self.run_in(turn, work).await
    }

    async fn run_in<T: Send + 'static>(
        &self,
        slot: OwnedSemaphorePermit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WorkError> {
        let panics_total = Arc::clone(&self.panics_total);
        let running = tokio::task::spawn_blocking(move || {
            // Whatever the work shared is either discarded with it or kept consistent by its own locks.
            let result = catch_unwind(AssertUnwindSafe(work));
            if result.is_err() {
                panics_total.fetch_add(1, Ordering::Relaxed);
            }
            // The slot is held by the thread, not by the waiting future, which may be gone long before.
            drop(slot);
            result
        });
        match running.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_panic)) => Err(WorkError::Panicked),
            // The runtime is stopping and has not started the work.
            Err(error) if error.is_cancelled() => Err(WorkError::Busy),
            Err(_) => Err(WorkError::Panicked),
        }
    }

    /// Whether somebody waits for a thread at this moment.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// What the pool is doing at this moment.
    pub fn stats(&self) -> WorkStats {
        WorkStats {
            running: self.options.threads.saturating_sub(self.slots.available_permits()),
            waiting: self.waiting.load(Ordering::Relaxed),
            panics_total: self.panics_total.load(Ordering::Relaxed),
        }
    }

    /// One of `slots`, waited for until `deadline` if fewer than `queue_max` wait.
    async fn slot(
        &self,
        slots: &Arc<Semaphore>,
        queue_max: usize,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, WorkError> {
        if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            return Ok(slot);
        }
        let _place = Place::take(&self.waiting, queue_max).ok_or(WorkError::Busy)?;
        let wait = Arc::clone(slots).acquire_owned();
        match tokio::time::timeout_at(deadline.into(), wait).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(WorkError::Busy),
        }
    }
}

/// The turn of a piece that computes: given back when the piece has ended, if it was not taken from it before.
struct Turn(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.0.lock().take());
    }
}

/// A place in the queue, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, max: usize) -> Option<Self> {
        let place = Self(waiting);
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        // Dropping the refused place takes the addition back.
        (before < max).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Display for WorkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "the server is busy, try again later",
            Self::Panicked => "the server failed while working on the request",
        })
    }
}

impl std::error::Error for WorkError {}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn pool(threads: usize, queue_max: usize) -> Arc<WorkPool> {
        Arc::new(WorkPool::new(WorkOptions {
            threads,
            processors: 1,
            turn: Duration::from_secs(60),
            queue_max,
            timeout: Duration::from_secs(60),
        }))
    }

    /// Occupies a thread until the returned sender is dropped.
    async fn occupy(pool: &Arc<WorkPool>) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<(), WorkError>>) {
        let (hold, held) = mpsc::channel::<()>();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let pool = Arc::clone(pool);
        let task = tokio::spawn(async move {
            let work = move || {
                begun.send(()).expect("the test waits");
                let _ = held.recv();
            };
            pool.run(work).await
        });
        begins.await.expect("the work begins");
        (hold, task)
    }

    #[tokio::test]
    async fn results_come_back() {
        assert_eq!(pool(1, 1).run(|| 6 * 7).await, Ok(42));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_frees_its_thread() {
        let pool = pool(1, 1);
        assert_eq!(pool.run::<()>(|| panic!("on purpose")).await, Err(WorkError::Panicked));
        assert_eq!(pool.run(|| 1).await, Ok(1));
        assert_eq!(pool.stats(), WorkStats { running: 0, waiting: 0, panics_total: 1 });
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let pool = pool(1, 0);
        let (hold, task) = occupy(&pool).await;
        assert_eq!(pool.run(|| ()).await, Err(WorkError::Busy));
        assert_eq!(pool.stats().running, 1);
        drop(hold);
        assert_eq!(task.await.unwrap(), Ok(()));
        assert_eq!(pool.run(|| 1).await, Ok(1));
        assert_eq!(pool.stats().waiting, 0);
    }

    #[tokio::test]
    async fn waiting_too_long_refuses() {
        let options = WorkOptions {
            threads: 1,
            processors: 1,
            turn: Duration::from_secs(60),
            queue_max: 1,
            timeout: Duration::from_millis(1),
        };
        let pool = Arc::new(WorkPool::new(options));
        let (_hold, _task) = occupy(&pool).await;
        assert_eq!(pool.run(|| ()).await, Err(WorkError::Busy));
        assert_eq!(pool.stats().waiting, 0);
    }

    #[tokio::test]
    async fn work_that_waits_for_its_client_leaves_threads_to_others() {
        let pool = pool(2, 1);
        let (hold, held) = mpsc::channel::<()>();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move {
                let work = move || {
                    begun.send(()).expect("the test waits");
                    let _ = held.recv();
                };
                pool.run_with_client(work).await
            }
        });
        begins.await.expect("the work begins");
        let second = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run_with_client(|| 2).await }
        });
        while pool.stats().waiting == 0 {
            assert!(!second.is_finished(), "it waits for the first");
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| 1).await, Ok(1));
        drop(hold);
        assert_eq!(first.await.unwrap(), Ok(()));
        assert_eq!(second.await.unwrap(), Ok(2));
    }

    /// A pool with one turn of this length, of which something slow has the first.
    async fn in_turn(
        turn: Duration,
    ) -> (Arc<WorkPool>, mpsc::Sender<()>, tokio::task::JoinHandle<Result<i32, WorkError>>) {
        let timeout = Duration::from_secs(60);
        let pool = Arc::new(WorkPool::new(WorkOptions { threads: 2, processors: 1, turn, queue_max: 4, timeout }));
        let (hold, held) = mpsc::channel::<()>();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let slow = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move {
                let work = move || {
                    begun.send(()).expect("the test waits");
                    let _ = held.recv();
                    1
                };
                pool.run_in_turn(work).await
            }
        });
        begins.await.expect("the work begins");
        (pool, hold, slow)
    }

    #[tokio::test]
    async fn what_computes_takes_turns() {
        let (pool, hold, slow) = in_turn(Duration::from_secs(60)).await;
        let next = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run_in_turn(|| 2).await }
        });
        while pool.stats().waiting == 0 {
            assert!(!next.is_finished(), "it waits for its turn");
            tokio::task::yield_now().await;
        }
        let piece = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run_piece(|| 4).await }
        });
        while pool.stats().waiting < 2 {
            assert!(!piece.is_finished(), "it waits too");
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| 3).await, Ok(3), "other work does not");
        assert!(!next.is_finished());
        drop(hold);
        assert_eq!((slow.await.unwrap(), next.await.unwrap(), piece.await.unwrap()), (Ok(1), Ok(2), Ok(4)));
        assert_eq!(pool.stats(), WorkStats { running: 0, waiting: 0, panics_total: 0 });
    }

    #[tokio::test]
    async fn a_gone_client_does_not_free_the_turn() {
        let (pool, hold, slow) = in_turn(Duration::from_secs(60)).await;
        slow.abort();
        assert!(slow.await.unwrap_err().is_cancelled());
        let next = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run_in_turn(|| 2).await }
        });
        while pool.stats().waiting == 0 {
            assert!(!next.is_finished(), "it waits for its turn");
            tokio::task::yield_now().await;
        }
        drop(hold);
        assert_eq!(next.await.unwrap(), Ok(2));
    }

    #[tokio::test]
    async fn a_turn_ends_before_what_is_slow() {
        let (pool, hold, slow) = in_turn(Duration::from_millis(1)).await;
        assert_eq!(pool.run_in_turn(|| 2).await, Ok(2));
        assert!(!slow.is_finished());
        drop(hold);
        assert_eq!(slow.await.unwrap(), Ok(1));
    }

    #[tokio::test]
    async fn a_gone_client_does_not_free_the_thread() {
        let pool = pool(1, 0);
        let (hold, task) = occupy(&pool).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(pool.run(|| ()).await, Err(WorkError::Busy));
        drop(hold);
    }
}
