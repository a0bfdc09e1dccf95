//! Compactions, one after the other, on a thread that gives way to everything else: first those that were asked for, then
//! those of repositories that have grown enough ([`govc_compaction::Schedule`]), the best first.
//!
//! A repository is in the queue once. What was asked for is kept in the store until it is done, so a restart forgets
//! nothing; what is due by itself is found again by what is stored. A compaction that fails loses nothing: see
//! `govc_engine::Rewrite::install` for what it leaves.

mod pace;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use govc_compaction::{CompactOptions, Schedule, compact};
use govc_engine::{Error, ErrorKind, Progress, Repo, RepoId, Rewritten, Store};
use parking_lot::{Condvar, Mutex};

use crate::priority;
pub(crate) use pace::Budgets;
use pace::{Pace, thread_cpu_time};

/// Repositories that may wait.
const QUEUE_MAX: usize = 10_000;
/// Repositories whose last compaction is remembered.
const REMEMBERED_MAX: usize = 10_000;
/// As low as a thread's priority gets.
const NICENESS: i32 = 19;
/// How often is looked which repositories are due.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// How often repositories are asked whether they may hold garbage.
const GARBAGE_LOOK_INTERVAL: Duration = Duration::from_secs(3600);
/// Who has been due for so long comes before who gains more.
const WAITING_MAX: Duration = Duration::from_secs(600);
/// A repository rests at least so many times as long as its last compaction took, or for so long after one that failed.
const RESTS: f64 = 4.0;
const REST_AFTER_FAILURE: Duration = Duration::from_secs(600);
/// How often a compaction that is paused looks whether it still is.
const PAUSE_INTERVAL: Duration = Duration::from_millis(50);
/// What the names of notes of compactions that were asked for begin with; the repository's number follows.
const NOTES: &[u8] = b"compaction/";

/// How compactions are done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CompactionOptions {
    /// When those begin that nobody asks for; `None` if never.
    pub(crate) schedule: Option<Schedule>,
    /// What these may take; those that were asked for go as fast as they can.
    pub(crate) budgets: Budgets,
    /// Memory for each.
    pub(crate) memory_bytes: u64,
}

/// All compactions of this process.
pub(crate) struct Compactions {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    store: Store,
    options: CompactionOptions,
    state: Mutex<State>,
    changed: Condvar,
    is_paused: AtomicBool,
    /// Whether somebody waits for what is asked for: what is under way does not rest.
    is_awaited: AtomicBool,
    /// Held while the queue and its notes change, which are on the disk; before the state.
    notes: Mutex<()>,
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
    is_automatic: bool,
}

/// What the thread remembers of what it saw.
#[derive(Default)]
struct Looks {
    /// Since when repositories have been due.
    due_since: HashMap<RepoId, Instant>,
    /// When repositories were last asked for their first versions, and what they said: who may hold garbage is due until
    /// it was its turn.
    asked: Option<Instant>,
    first_versions: HashMap<RepoId, u64>,
}

/// A compaction under way.
pub(crate) struct Running {
    repo: Repo,
    pub(crate) archive: bool,
    /// Whether nobody asked for it.
    pub(crate) is_automatic: bool,
    pub(crate) started_millis: i64,
    stretch: Mutex<Stretch>,
    cancelled: AtomicBool,
    shared: Arc<Shared>,
    /// Of one that nobody asked for.
    pace: Option<Pace>,
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
    pub(crate) cpu_seconds: f64,
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
    /// Of these, those that nobody asked for.
    pub(crate) automatic: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
    /// Bytes of the blocks that were replaced, and of those in their place.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Objects that were removed.
    pub(crate) removed_objects: u64,
    /// Time that the thread was at work, processor time that it took, and time that it rested for its budgets' sake.
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) rested_seconds: f64,
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
    pub(crate) is_paused: bool,
    /// Whether any begin by themselves.
    pub(crate) is_automatic: bool,
}

/// Why a repository is not compacted.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Too many wait.
    QueueFull,
    /// The server is stopping.
    Stopping,
    /// The request cannot be kept.
    Store(Error),
}

impl Compactions {
    pub(crate) fn new(store: Store, options: CompactionOptions) -> Self {
        let shared = Shared {
            store,
            options,
            state: Mutex::default(),
            changed: Condvar::new(),
            is_paused: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            notes: Mutex::new(()),
        };
        Self { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// Starts the thread, and has done what an earlier process was asked for.
    ///
    /// # Errors
    /// When the store fails, or the thread cannot be started.
    pub(crate) fn start(&self) -> Result<(), String> {
        self.shared.recall().map_err(|error| format!("what was to be compacted cannot be read: {error}"))?;
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let shared = self.shared.clone();
            let started = thread::Builder::new().name("govc-compact".to_owned()).spawn(move || shared.work());
            *thread = Some(started.map_err(|error| format!("the thread for compactions cannot be started: {error}"))?);
        }
        Ok(())
    }

    /// Has a repository compacted, unless it is already waiting or under way. Waits for the disk.
    pub(crate) fn enqueue(&self, repo: &Repo, archive: bool) -> Result<(), Refused> {
        let _notes = self.shared.notes.lock();
        if !self.shared.state.lock().wants(repo.id(), archive)? {
            return Ok(());
        }
        self.shared.note(repo.id(), Some(archive)).map_err(Refused::Store)?;
        let mut state = self.shared.state.lock();
        state.enqueue(repo, archive);
        self.shared.await_queue(&state);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Lets none begin, and those under way rest, or go on.
    pub(crate) fn pause(&self, is_paused: bool) {
        // Under the lock, so that the thread is not about to wait.
        let _state = self.shared.state.lock();
        self.shared.is_paused.store(is_paused, Ordering::Relaxed);
        self.shared.changed.notify_all();
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
        Overview {
            queue,
            running: state.running.clone(),
            totals: state.totals,
            is_paused: self.shared.is_paused.load(Ordering::Relaxed),
            is_automatic: self.shared.options.schedule.is_some(),
        }
    }

    /// Takes a repository out of the queue, and ends its compaction if it is under way; whether there was either. Waits
    /// for the disk.
    pub(crate) fn cancel(&self, repo: RepoId) -> bool {
        let _notes = self.shared.notes.lock();
        let was_there = {
            let mut state = self.shared.state.lock();
            let before = state.queue.len();
            state.queue.retain(|job| job.repo.id() != repo);
            self.shared.await_queue(&state);
            let running = state.running_of(repo);
            running.inspect(|running| running.cancelled.store(true, Ordering::Relaxed));
            running.is_some() || state.queue.len() < before
        };
        if was_there {
            self.shared.forget_locked(repo);
        }
        was_there
    }

    /// Ends the one under way and returns when the thread is gone. Later ones are refused; those that wait are done by the
    /// next process.
    pub(crate) fn stop(&self) {
        {
            let mut state = self.shared.state.lock();
            state.stopping = true;
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

impl Drop for Compactions {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    fn running_of(&self, repo: RepoId) -> Option<&Arc<Running>> {
        self.running.as_ref().filter(|running| running.repo.id() == repo)
    }

    /// Whether what is asked for is neither waiting nor under way, and can wait.
    fn wants(&self, repo: RepoId, archive: bool) -> Result<bool, Refused> {
        if self.stopping {
            return Err(Refused::Stopping);
        }
        // One that is under way and archives, or is not to, is what was asked for; unless nobody asked for it.
        let is_it = |running: &Arc<Running>| {
            !running.is_automatic && (running.archive || !archive) && !running.cancelled.load(Ordering::Relaxed)
        };
        let waiting = self.queue.iter().find(|job| job.repo.id() == repo);
        if self.running_of(repo).is_some_and(is_it) || waiting.is_some_and(|job| job.archive || !archive) {
            return Ok(false);
        }
        match waiting.is_none() && self.queue.len() >= QUEUE_MAX {
            true => Err(Refused::QueueFull),
            false => Ok(true),
        }
    }

    fn enqueue(&mut self, repo: &Repo, archive: bool) {
        match self.queue.iter_mut().find(|job| job.repo.id() == repo.id()) {
            Some(job) => job.archive |= archive,
            None => self.queue.push_back(Job { repo: repo.clone(), archive, is_automatic: false }),
        }
    }

    fn remember(&mut self, running: &Running, ended: Ended) {
        let totals = &mut self.totals;
        totals.seconds += ended.seconds;
        totals.cpu_seconds += ended.cpu_seconds;
        totals.rested_seconds += running.pace.as_ref().map_or(0.0, |pace| pace.rested().as_secs_f64());
        match &ended.result {
            Ok(rewritten) => {
                totals.done += 1;
                totals.automatic += u64::from(running.is_automatic);
                totals.bytes_in += rewritten.stored_bytes_before;
                totals.bytes_out += rewritten.stored_bytes_after;
                totals.removed_objects += rewritten.removed;
            }
            Err(Failed::Cancelled) => totals.cancelled += 1,
            Err(Failed::Error(_)) => totals.failed += 1,
        }
        self.last.insert(running.repo.id(), ended);
        if self.last.len() > REMEMBERED_MAX
            && let Some(oldest) = self.last.iter().min_by_key(|(_, ended)| ended.ended_millis).map(|(id, _)| *id)
        {
            self.last.remove(&oldest);
        }
    }
}

impl Ended {
    /// Whether the repository has rested since.
    fn is_over(&self, now_millis: i64) -> bool {
        let rest = match &self.result {
            Ok(_) => Duration::from_secs_f64(RESTS * self.seconds),
            Err(_) => REST_AFTER_FAILURE.max(Duration::from_secs_f64(RESTS * self.seconds)),
        };
        now_millis.saturating_sub(self.ended_millis) >= i64::try_from(rest.as_millis()).unwrap_or(i64::MAX)
    }
}

impl Shared {
    /// Keeps what was asked for, or lets go of it.
    fn note(&self, repo: RepoId, archive: Option<bool>) -> Result<(), Error> {
        let name = [NOTES, &repo.as_u64().to_be_bytes()].concat();
        self.store.set_note(&name, archive.map(|archive| Bytes::copy_from_slice(&[u8::from(archive)])))
    }

    /// Lets go of what was asked for, if it does not wait once more.
    fn forget(&self, repo: RepoId) {
        let _notes = self.notes.lock();
        self.forget_locked(repo);
    }

    /// What is under way goes as fast as it can while others wait for it.
    fn await_queue(&self, state: &State) {
        self.is_awaited.store(!state.queue.is_empty(), Ordering::Relaxed);
    }

    fn forget_locked(&self, repo: RepoId) {
        let waits = self.state.lock().queue.iter().any(|job| job.repo.id() == repo);
        if !waits && let Err(error) = self.note(repo, None) {
            tracing::warn!(%error, "a compaction that has ended will be done again after a restart");
        }
    }

    /// Puts what an earlier process was asked for into the queue.
    fn recall(&self) -> Result<(), Error> {
        let notes = self.store.notes(NOTES)?;
        if notes.is_empty() {
            return Ok(());
        }
        let repos: HashMap<RepoId, Repo> =
            self.store.list(None, usize::MAX).into_iter().map(|repo| (repo.id(), repo)).collect();
        for (name, note) in notes {
            let number = name.get(NOTES.len()..).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
            let Some(id) = number.map(RepoId::from_u64) else { continue };
            match repos.get(&id) {
                Some(repo) => self.state.lock().enqueue(repo, note.first() == Some(&1)),
                None => self.forget(id),
            }
        }
        Ok(())
    }

    fn work(self: Arc<Self>) {
        priority::lower(NICENESS);
        let mut looks = Looks::default();
        while let Some(running) = self.next(&mut looks) {
            let (started, cpu) = (Instant::now(), thread_cpu_time());
            let result = catch_unwind(AssertUnwindSafe(|| self.compact(&running)));
            let result = result.unwrap_or_else(|_| Err(Failed::Error("it panicked".to_owned())));
            if let Err(Failed::Error(error)) = &result {
                tracing::error!(repo = %running.name(), error, "a compaction failed");
            }
            let is_done = result.is_ok() || !self.state.lock().stopping;
            let ended = Ended {
                ended_millis: now_millis(),
                seconds: started.elapsed().as_secs_f64(),
                cpu_seconds: thread_cpu_time().saturating_sub(cpu).as_secs_f64(),
                result,
            };
            {
                let mut state = self.state.lock();
                state.running = None;
                state.remember(&running, ended);
            }
            // One that was cut off by the server's end is done by the next process.
            if !running.is_automatic && is_done {
                self.forget(running.repo.id());
            }
        }
    }

    /// Waits for something to do; `None` once there will be nothing.
    fn next(self: &Arc<Self>, looks: &mut Looks) -> Option<Arc<Running>> {
        let mut looked: Option<Instant> = None;
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return None;
            }
            if !self.is_paused.load(Ordering::Relaxed) {
                if let Some(job) = state.queue.pop_front() {
                    self.await_queue(&state);
                    return Some(self.begin(&mut state, job));
                }
                if looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
                    drop(state);
                    let found = self.look(looks);
                    looked = Some(Instant::now());
                    state = self.state.lock();
                    match found {
                        Ok(Some(job)) if !state.stopping => return Some(self.begin(&mut state, job)),
                        Ok(_) => {}
                        Err(error) => tracing::warn!(%error, "what is to be compacted cannot be found out"),
                    }
                    continue;
                }
            }
            self.changed.wait_for(&mut state, LOOK_INTERVAL);
        }
    }

    fn begin(self: &Arc<Self>, state: &mut State, job: Job) -> Arc<Running> {
        let running = Arc::new(Running {
            repo: job.repo,
            archive: job.archive,
            is_automatic: job.is_automatic,
            started_millis: now_millis(),
            stretch: Mutex::default(),
            cancelled: AtomicBool::new(false),
            shared: self.clone(),
            pace: job.is_automatic.then(|| Pace::new(self.options.budgets)),
        });
        state.running = Some(running.clone());
        running
    }

    /// What is to be done next of what is due.
    fn look(&self, looks: &mut Looks) -> Result<Option<Job>, Error> {
        let Some(schedule) = &self.options.schedule else { return Ok(None) };
        let now = now_millis();
        let asks = looks.asked.is_none_or(|last| last.elapsed() >= GARBAGE_LOOK_INTERVAL);
        if asks {
            looks.asked = Some(Instant::now());
            looks.first_versions.clear();
        }
        let mut due = Vec::new();
        for (repo, pool) in self.store.stored_pools()? {
            if !self.state.lock().last.get(&repo.id()).is_none_or(|ended| ended.is_over(now)) {
                continue;
            }
            let first_version = || -> Result<u64, Error> {
                // Nothing goes of what others share.
                if asks && repo.fork_count() == 0 {
                    repo.forget_versions()?;
                    looks.first_versions.insert(repo.id(), repo.first_version()?);
                }
                Ok(looks.first_versions.get(&repo.id()).copied().unwrap_or_default())
            };
            let written = repo.snapshot().version().time_millis;
            match schedule.due(&pool, now, written, first_version) {
                Ok(found) => due.extend(found.map(|found| (repo, found))),
                Err(error) => tracing::warn!(repo = %repo.name(), %error, "whether it is to be compacted is not known"),
            }
        }
        let due_since = &mut looks.due_since;
        let ids: HashSet<RepoId> = due.iter().map(|(repo, _)| repo.id()).collect();
        due_since.retain(|id, _| ids.contains(id));
        let waited = |repo: &Repo| due_since.get(&repo.id()).map_or(Duration::ZERO, Instant::elapsed);
        let longest = due.iter().max_by_key(|(repo, _)| waited(repo));
        let best = due.iter().max_by(|(_, a), (_, b)| a.merit.total_cmp(&b.merit));
        let chosen = longest.filter(|(repo, _)| waited(repo) >= WAITING_MAX).or(best);
        let chosen = chosen.map(|(repo, due)| Job { repo: repo.clone(), archive: due.archive, is_automatic: true });
        for (repo, _) in &due {
            due_since.entry(repo.id()).or_insert_with(Instant::now);
        }
        chosen.iter().for_each(|job| {
            due_since.remove(&job.repo.id());
        });
        Ok(chosen)
    }

    fn compact(&self, running: &Running) -> Result<Rewritten, Failed> {
        let repo = &running.repo;
        let kind = if running.archive { CompactOptions::archive() } else { CompactOptions::default() };
        let options = CompactOptions { memory_bytes: self.options.memory_bytes, ..kind };
        let done = compact(repo, &options, running).map_err(|error| match error.kind() {
            ErrorKind::Cancelled => Failed::Cancelled,
            _ if repo.is_deleted() => Failed::Cancelled,
            _ => Failed::Error(error.to_string()),
        })?;
        let Rewritten { objects, stored_bytes_before, stored_bytes_after, removed, .. } = done;
        let automatic = running.is_automatic;
        tracing::info!(repo = %repo.name(), automatic, objects, stored_bytes_before, stored_bytes_after, removed, "compacted");
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

    /// Rests as long as it must.
    fn keep_pace(&self, bytes: u64) {
        let is_cancelled = || self.cancelled.load(Ordering::Relaxed);
        while self.shared.is_paused.load(Ordering::Relaxed) && !is_cancelled() {
            thread::sleep(PAUSE_INTERVAL);
        }
        if let Some(pace) = &self.pace {
            pace.keep(bytes, || is_cancelled() || self.shared.is_awaited.load(Ordering::Relaxed));
        }
    }
}

impl Progress for Running {
    fn begin(&self, what: &str, bytes: Option<u64>) {
        *self.stretch.lock() = Stretch { phase: what.to_owned(), done_bytes: 0, total_bytes: bytes };
    }

    fn advance(&self, bytes: u64) {
        self.stretch.lock().done_bytes += bytes;
        self.keep_pace(bytes);
    }

    fn end(&self) {}

    fn rest(&self) {
        self.keep_pace(0);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

fn now_millis() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
