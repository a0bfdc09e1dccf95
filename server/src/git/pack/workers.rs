//! The threads of one ingest: pieces of work, fed in order by the calling thread, done by it and by others beside it.
//!
//! What always holds:
//! - The calling thread needs nobody: a piece that finds no thread or no room it does itself. It waits only at the end, for
//!   pieces that others have begun.
//! - In the whole server, fewer threads run beside calling ones than there are processors: [`IngestThreads`] counts them. A
//!   thread that finds nothing to do for [`IDLE_MAX`] ends, so that a client that pauses holds none.
//! - Pieces that wait, or are in work on other threads than the calling one, have [`IN_FLIGHT_BYTES_MAX`] together at most.
//! - The result is the error of the first piece that fails, in the order of feeding, whichever thread had it: what comes
//!   before it is done to its end, what comes after it need not be. Parts that were handed on count as the piece that they were
//!   part of: if several of them fail, any of their errors is the result.
//! - A panic on another thread is an error of this ingest, and of nothing else.
//!
//! `state` and `failure` are never locked together, nor while a piece is worked on or the ingest's other locks are taken.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering},
    thread::{Builder, Scope, scope},
    time::Duration,
};

use govc_engine::{Error, ErrorKind, Result};
use parking_lot::{Condvar, Mutex};

/// Bytes of pieces that are given to other threads and not done.
pub(super) const IN_FLIGHT_BYTES_MAX: usize = 16 << 20;
/// How long a thread waits for something to do.
const IDLE_MAX: Duration = Duration::from_millis(5);

/// How many threads may ingest beside those that were called to, in the whole server.
#[derive(Debug)]
pub(crate) struct IngestThreads {
    processors: usize,
    /// Taken and given back by [`Spare`] only; orders nothing.
    spare: AtomicUsize,
}

impl IngestThreads {
    /// As many as keep this many processors busy together with one calling thread.
    pub(crate) fn new(processors: usize) -> Self {
        Self { processors: processors.max(1), spare: AtomicUsize::new(processors.saturating_sub(1)) }
    }

    /// For all processors of the machine.
    pub(crate) fn of_machine() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// How many threads one ingest may have, its calling one among them.
    pub(super) fn processors(&self) -> usize {
        self.processors
    }

    /// How many threads could be started now.
    pub(super) fn spare(&self) -> usize {
        self.spare.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<Spare<'_>> {
        let taken = self.spare.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spare| spare.checked_sub(1));
        taken.ok().map(|_| Spare(self))
    }
}

/// Leave to run one thread, given back when dropped.
struct Spare<'a>(&'a IngestThreads);

impl Drop for Spare<'_> {
    fn drop(&mut self) {
        self.0.spare.fetch_add(1, Ordering::Relaxed);
    }
}

/// Work in pieces.
pub(super) trait Job: Sized + Sync {
    /// One piece.
    type Piece: Send;
    /// What a thread needs and keeps from one piece to the next.
    type Worker;

    /// Makes a thread ready.
    fn worker(&self) -> Self::Worker;

    /// Does a piece.
    ///
    /// # Errors
    /// Whatever ends the whole.
    fn work(&self, worker: &mut Self::Worker, piece: Self::Piece, turn: &Turn<'_, '_, Self>) -> Result<()>;

    /// Keeps what a thread has found, when it ends.
    fn end(&self, worker: Self::Worker);
}

/// Does what `feed` gives, with `worker` on the calling thread and with others on others.
///
/// # Errors
/// That of the first piece that fails; else what `feed` fails with, once all that it gave is done.
pub(super) fn run<J: Job>(
    job: &J,
    threads: &IngestThreads,
    worker: &mut J::Worker,
    feed: impl FnOnce(&mut Feed<'_, '_, '_, J>) -> Result<()>,
) -> Result<()> {
    let crew = Crew {
        job,
        threads,
        state: Mutex::new(State { queue: VecDeque::new(), bytes: 0, threads: 0, free: 0, working: 0, is_over: false }),
        changed: Condvar::new(),
        idle: AtomicIsize::new(0),
        failed_at: AtomicU64::new(u64::MAX),
        failure: Mutex::new(None),
    };
    let fed = scope(|scope| {
        let _over = Over(&crew);
        let mut feeder = Feed { crew: &crew, scope, worker, order: 0 };
        let fed = feed(&mut feeder);
        feeder.finish();
        fed
    });
    match crew.failure.into_inner() {
        Some(error) => Err(error),
        None => fed,
    }
}

/// What the threads share.
struct Crew<'a, J: Job> {
    job: &'a J,
    threads: &'a IngestThreads,
    state: Mutex<State<J::Piece>>,
    /// Told of new pieces and of the end.
    changed: Condvar,
    /// [`State::idle`], set under the lock of `state`; read without it as a hint.
    idle: AtomicIsize,
    /// The first piece that has failed; changed under the lock of `failure`, read without it to spare work in vain.
    failed_at: AtomicU64,
    failure: Mutex<Option<Error>>,
}

struct State<P> {
    queue: VecDeque<Queued<P>>,
    /// Of pieces that wait or are in work, but for what the calling thread never gave away.
    bytes: usize,
    /// Threads that take pieces from the queue (the calling one at the end), and how many of them have none.
    threads: usize,
    free: usize,
    /// Pieces from the queue that are in work.
    working: usize,
    /// Whether nothing more is fed.
    is_over: bool,
}

impl<P> State<P> {
    /// How many threads would find nothing to do; negative, if pieces would find no thread.
    fn idle(&self) -> isize {
        self.free as isize - self.queue.len() as isize
    }
}

struct Queued<P> {
    order: u64,
    bytes: usize,
    piece: P,
}

impl<J: Job> Crew<'_, J> {
    /// Queues a piece for other threads, if there are any and it has room among theirs; gives it back otherwise.
    fn offer<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        queued: Queued<J::Piece>,
    ) -> Option<Queued<J::Piece>> {
        let mut state = self.state.lock();
        if state.bytes.saturating_add(queued.bytes) > IN_FLIGHT_BYTES_MAX {
            return Some(queued);
        }
        if state.idle() <= 0 && self.start(scope) {
            state.threads += 1;
            state.free += 1;
        }
        if state.threads == 0 {
            return Some(queued);
        }
        state.bytes += queued.bytes;
        state.queue.push_back(queued);
        self.note_idle(&state);
        self.changed.notify_one();
        None
    }

    fn note_idle(&self, state: &State<J::Piece>) {
        self.idle.store(state.idle(), Ordering::Relaxed);
    }

    /// Starts a thread if one is spare.
    fn start<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> bool {
        let Some(spare) = self.threads.take() else { return false };
        let thread = move || {
            let _spare = spare;
            let all = AssertUnwindSafe(|| {
                let mut worker = self.job.worker();
                self.work_on_queue(scope, &mut worker, Some(IDLE_MAX));
                self.job.end(worker);
            });
            if catch_unwind(all).is_err() {
                self.fail(0, Error::new(ErrorKind::Backend, "the server failed while working on the pack"));
            }
        };
        Builder::new().name("ingest".to_owned()).spawn_scoped(scope, thread).is_ok()
    }

    /// Works as one of `threads` until there will be no more pieces, or none came for so long.
    fn work_on_queue<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        worker: &mut J::Worker,
        idle_max: Option<Duration>,
    ) {
        while let Some(queued) = self.next(idle_max) {
            let _done = Done { crew: self, bytes: queued.bytes };
            self.work(scope, worker, queued.order, queued.piece, false);
        }
    }

    /// The next piece, in work from now on; with `None` the thread is one of `threads` no more.
    fn next(&self, idle_max: Option<Duration>) -> Option<Queued<J::Piece>> {
        let mut state = self.state.lock();
        let mut is_late = false;
        loop {
            if let Some(queued) = state.queue.pop_front() {
                state.free -= 1;
                state.working += 1;
                return Some(queued);
            }
            if is_late || state.is_over && state.working == 0 {
                state.free -= 1;
                state.threads -= 1;
                self.note_idle(&state);
                return None;
            }
            match idle_max {
                Some(idle_max) => is_late = self.changed.wait_for(&mut state, idle_max).timed_out(),
                None => self.changed.wait(&mut state),
            }
        }
    }

    fn work<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        worker: &mut J::Worker,
        order: u64,
        piece: J::Piece,
        is_alone: bool,
    ) {
        let turn = Turn { crew: self, scope, order, is_alone };
        if turn.is_in_vain() {
            return;
        }
        if let Err(error) = self.job.work(worker, piece, &turn) {
            self.fail(order, error);
        }
    }

    fn fail(&self, order: u64, error: Error) {
        let mut failure = self.failure.lock();
        if order < self.failed_at.load(Ordering::Relaxed) {
            self.failed_at.store(order, Ordering::Relaxed);
            *failure = Some(error);
        }
    }

    fn check(&self) -> Result<()> {
        match self.failed_at.load(Ordering::Relaxed) {
            u64::MAX => Ok(()),
            _ => self.failure.lock().clone().map_or(Ok(()), Err),
        }
    }

    /// Says that nothing more is fed.
    fn end(&self) {
        let mut state = self.state.lock();
        state.is_over = true;
        if std::thread::panicking() {
            state.queue.clear();
        }
        self.changed.notify_all();
    }
}

/// A piece from the queue in work, counted until dropped.
struct Done<'c, 'a, J: Job> {
    crew: &'c Crew<'a, J>,
    bytes: usize,
}

impl<J: Job> Drop for Done<'_, '_, J> {
    fn drop(&mut self) {
        let mut state = self.crew.state.lock();
        state.working -= 1;
        state.bytes -= self.bytes;
        state.free += 1;
        self.crew.note_idle(&state);
        if state.working == 0 && state.is_over {
            self.crew.changed.notify_all();
        }
    }
}

/// Ends the feeding when dropped, also by a panic of the calling thread: the others must not wait for it.
struct Over<'c, 'a, J: Job>(&'c Crew<'a, J>);

impl<J: Job> Drop for Over<'_, '_, J> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The calling thread's end: takes pieces in their order.
pub(super) struct Feed<'f, 'scope, 'env, J: Job> {
    crew: &'scope Crew<'scope, J>,
    scope: &'scope Scope<'scope, 'env>,
    worker: &'f mut J::Worker,
    order: u64,
}

impl<J: Job> Feed<'_, '_, '_, J> {
    /// What the calling thread works with.
    pub(super) fn worker(&mut self) -> &mut J::Worker {
        self.worker
    }

    /// Gives a piece of so many bytes to whoever does it first.
    ///
    /// # Errors
    /// When this or an earlier piece has failed: there is no use in giving more.
    pub(super) fn give(&mut self, piece: J::Piece, bytes: usize) -> Result<()> {
        self.crew.check()?;
        let queued = Queued { order: self.order, bytes, piece };
        match self.crew.offer(self.scope, queued) {
            None => {
                self.order += 1;
                Ok(())
            }
            Some(queued) => self.work(queued.piece, false),
        }
    }

    /// Has a piece done on the calling thread, all of it.
    ///
    /// # Errors
    /// As [`Feed::give`].
    pub(super) fn keep(&mut self, piece: J::Piece) -> Result<()> {
        self.crew.check()?;
        self.work(piece, true)
    }

    fn work(&mut self, piece: J::Piece, is_alone: bool) -> Result<()> {
        self.crew.work(self.scope, self.worker, self.order, piece, is_alone);
        self.order += 1;
        self.crew.check()
    }

    /// Does what is left, and waits for what others do.
    fn finish(self) {
        self.crew.end();
        let mut state = self.crew.state.lock();
        state.threads += 1;
        state.free += 1;
        self.crew.note_idle(&state);
        drop(state);
        self.crew.work_on_queue(self.scope, self.worker, None);
    }
}

/// A piece's place among others.
pub(super) struct Turn<'scope, 'env, J: Job> {
    crew: &'scope Crew<'scope, J>,
    scope: &'scope Scope<'scope, 'env>,
    order: u64,
    is_alone: bool,
}

impl<J: Job> Turn<'_, '_, J> {
    /// Whether an earlier piece has failed, so that nothing comes of this one.
    pub(super) fn is_in_vain(&self) -> bool {
        self.crew.failed_at.load(Ordering::Relaxed) < self.order
    }

    /// Whether another thread could do a part of this piece.
    pub(super) fn is_wanted(&self) -> bool {
        let idle = self.crew.idle.load(Ordering::Relaxed);
        !self.is_alone && (idle > 0 || idle == 0 && self.crew.threads.spare() > 0)
    }

    /// Hands a part of this piece on; gives it back if nobody has room for it.
    pub(super) fn hand_on(&self, part: J::Piece, bytes: usize) -> Option<J::Piece> {
        let queued = Queued { order: self.order, bytes, piece: part };
        self.crew.offer(self.scope, queued).map(|queued| queued.piece)
    }
}

#[cfg(test)]
mod tests;
