//! Compactions that were asked for: one after the other, on a thread that gives way to everything else.
//!
//! A repository is in the queue once. What became of the last compaction of each is remembered until the process ends. A
//! compaction that fails loses nothing: see `govc_engine::Rewrite::install` for what it leaves.

use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use govc_compaction::{CompactOptions, compact};
use govc_engine::{ErrorKind, Progress, Repo, RepoId, Rewritten};
use parking_lot::{Condvar, Mutex};

/// Repositories that may wait.
const QUEUE_MAX: usize = 10_000;
/// Repositories whose last compaction is remembered.
const REMEMBERED_MAX: usize = 10_000;
/// As low as a thread's priority gets.
const NICENESS: i32 = 19;

/// All compactions of this process.
pub(crate) struct Compactions {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    memory_bytes: u64,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    running: Option<Arc<Running>>,
    last: HashMap<RepoId, Ended>,
    totals: Totals,
    stopping: bool,
}

struct Job {
    repo: Repo,
    archive: bool,
}

/// A compaction under way.
pub(crate) struct Running {
    repo: Repo,
    pub(crate) archive: bool,
    pub(crate) started_millis: i64,
    stretch: Mutex<Stretch>,
    cancelled: AtomicBool,
}

/// How far it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stretch {
    /// What is being done.
    pub(crate) phase: String,
    /// How many bytes of it are done.
    pub(crate) done_bytes: u64,
    /// Of how many, if that is known.
    pub(crate) total_bytes: Option<u64>,
}

/// A compaction that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) ended_millis: i64,
    pub(crate) seconds: f64,
    pub(crate) result: Result<Rewritten, Failed>,
}

/// Why one came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failed {
    /// It was asked to end.
    Cancelled,
    /// What went wrong, in words.
    Error(String),
}

/// What all compactions of this process have done.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Totals {
    /// Those that were installed.
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    /// Bytes of the blocks that were replaced, and of those in their place.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Time that the thread was at work.
    pub(crate) seconds: f64,
}

/// What there is to say of a repository.
pub(crate) struct Status {
    /// Its place in the queue, from 1, if it waits.
    pub(crate) queued: Option<usize>,
    pub(crate) running: Option<Arc<Running>>,
    pub(crate) last: Option<Ended>,
}

/// What there is to say of all.
pub(crate) struct Overview {
    pub(crate) queue: Vec<Repo>,
    pub(crate) running: Option<Arc<Running>>,
    pub(crate) totals: Totals,
}

/// Too many repositories wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QueueFull;

impl Compactions {
    /// Each may take so much memory.
    pub(crate) fn new(memory_bytes: u64) -> Self {
        let shared = Shared { state: Mutex::default(), changed: Condvar::new(), memory_bytes };
        Self { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// Has a repository compacted, unless it is already waiting or under way.
    pub(crate) fn enqueue(&self, repo: &Repo, archive: bool) -> Result<(), QueueFull> {
        let mut state = self.shared.state.lock();
        if let Some(job) = state.queue.iter_mut().find(|job| job.repo.id() == repo.id()) {
            job.archive |= archive;
            return Ok(());
        }
        // One that is under way and archives, or is not to, is what was asked for.
        let is_wanted =
            |running: &Arc<Running>| (running.archive || !archive) && !running.cancelled.load(Ordering::Relaxed);
        if state.running_of(repo.id()).is_some_and(is_wanted) {
            return Ok(());
        }
        if state.queue.len() >= QUEUE_MAX || state.stopping {
            return Err(QueueFull);
        }
        self.start()?;
        state.queue.push_back(Job { repo: repo.clone(), archive });
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Starts the thread, if it is not there.
    fn start(&self) -> Result<(), QueueFull> {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let shared = self.shared.clone();
            let started = thread::Builder::new().name("govc-compact".to_owned()).spawn(move || shared.work());
            *thread = Some(started.map_err(|error| {
                tracing::error!(%error, "the thread for compactions cannot be started");
                QueueFull
            })?);
        }
        Ok(())
    }

    pub(crate) fn status(&self, repo: RepoId) -> Status {
        let state = self.shared.state.lock();
        Status {
            queued: state.queue.iter().position(|job| job.repo.id() == repo).map(|at| at + 1),
            running: state.running_of(repo).cloned(),
            last: state.last.get(&repo).cloned(),
        }
    }

    pub(crate) fn overview(&self) -> Overview {
        let state = self.shared.state.lock();
        let queue = state.queue.iter().map(|job| job.repo.clone()).collect();
        Overview { queue, running: state.running.clone(), totals: state.totals }
    }

    /// Takes a repository out of the queue, and ends its compaction if it is under way; whether there was either.
    pub(crate) fn cancel(&self, repo: RepoId) -> bool {
        let mut state = self.shared.state.lock();
        let before = state.queue.len();
        state.queue.retain(|job| job.repo.id() != repo);
        if let Some(running) = state.running_of(repo) {
            running.cancelled.store(true, Ordering::Relaxed);
            return true;
        }
        state.queue.len() < before
    }

    /// Ends the one under way, drops those that wait, and returns when the thread is gone. Later ones are refused.
    pub(crate) fn stop(&self) {
        {
            let mut state = self.shared.state.lock();
            state.stopping = true;
            state.queue.clear();
            if let Some(running) = &state.running {
                running.cancelled.store(true, Ordering::Relaxed);
            }
            self.shared.changed.notify_all();
        }
        if let Some(thread) = self.thread.lock().take() {
            // It catches panics of what it runs.
            let _ = thread.join();
        }
    }
}

impl State {
    fn running_of(&self, repo: RepoId) -> Option<&Arc<Running>> {
        self.running.as_ref().filter(|running| running.repo.id() == repo)
    }

    fn remember(&mut self, repo: RepoId, ended: Ended) {
        let totals = &mut self.totals;
        totals.seconds += ended.seconds;
        match &ended.result {
            Ok(rewritten) => {
                totals.done += 1;
                totals.bytes_in += rewritten.stored_bytes_before;
                totals.bytes_out += rewritten.stored_bytes_after;
            }
            Err(Failed::Cancelled) => totals.cancelled += 1,
            Err(Failed::Error(_)) => totals.failed += 1,
        }
        self.last.insert(repo, ended);
        if self.last.len() > REMEMBERED_MAX
            && let Some(oldest) = self.last.iter().min_by_key(|(_, ended)| ended.ended_millis).map(|(id, _)| *id)
        {
            self.last.remove(&oldest);
        }
    }
}

impl Shared {
    fn work(&self) {
        // Of this thread alone, as Linux has it.
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::warn!(%error, "compactions run at the priority of everything else");
        }
        while let Some((running, job)) = self.next() {
            let started = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| self.compact(&job, &running)));
            let result = result.unwrap_or_else(|_| Err(Failed::Error("it panicked".to_owned())));
            if let Err(Failed::Error(error)) = &result {
                tracing::error!(repo = %job.repo.name(), error, "a compaction failed");
            }
            let ended = Ended { ended_millis: now_millis(), seconds: started.elapsed().as_secs_f64(), result };
            let mut state = self.state.lock();
            state.running = None;
            state.remember(job.repo.id(), ended);
        }
    }

    /// Waits for a job; `None` once there will be none.
    fn next(&self) -> Option<(Arc<Running>, Job)> {
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return None;
            }
            if let Some(job) = state.queue.pop_front() {
                let running = Arc::new(Running {
                    repo: job.repo.clone(),
                    archive: job.archive,
                    started_millis: now_millis(),
                    stretch: Mutex::default(),
                    cancelled: AtomicBool::new(false),
                });
                state.running = Some(running.clone());
                return Some((running, job));
            }
            self.changed.wait(&mut state);
        }
    }

    fn compact(&self, job: &Job, running: &Running) -> Result<Rewritten, Failed> {
        let kind = if job.archive { CompactOptions::archive() } else { CompactOptions::default() };
        let options = CompactOptions { memory_bytes: self.memory_bytes.min(kind.memory_bytes), ..kind };
        let done = compact(&job.repo, &options, running).map_err(|error| match error.kind() {
            ErrorKind::Cancelled => Failed::Cancelled,
            _ if job.repo.is_deleted() => Failed::Cancelled,
            _ => Failed::Error(error.to_string()),
        })?;
        let Rewritten { objects, stored_bytes_before, stored_bytes_after, .. } = done;
        tracing::info!(repo = %job.repo.name(), objects, stored_bytes_before, stored_bytes_after, "compacted");
        Ok(done)
    }
}

impl Running {
    /// The repository's name.
    pub(crate) fn name(&self) -> String {
        self.repo.name().to_string()
    }

    /// How far it is.
    pub(crate) fn stretch(&self) -> Stretch {
        self.stretch.lock().clone()
    }
}

impl Progress for Running {
    fn begin(&self, what: &str, bytes: Option<u64>) {
        *self.stretch.lock() = Stretch { phase: what.to_owned(), done_bytes: 0, total_bytes: bytes };
    }

    fn advance(&self, bytes: u64) {
        self.stretch.lock().done_bytes += bytes;
    }

    fn end(&self) {}

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

fn now_millis() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
