//! A backend that fails on demand, for tests of everything that stands on one.
//!
//! It behaves as a durable backend whose disk is a [`MemoryBackend`]: after each write it keeps a fork of the
//! content (constant time, shared entries), and a sync makes the newest fork the durable one. So
//! [`FaultBackend::crash`] can hand out exactly what some disk could hold afterwards: all that was synced, and
//! the first few of the later writes, each whole.
//!
//! It can also be slow, and it can tear a write: fail it after the first few of its operations, as a store without atomic
//! batches would. That breaks the contract, on purpose: what stands on it must notice, not trust.
//!
//! A failed sync freezes the durable moment for good, also if later syncs succeed: that is how file systems
//! behave (the failed pages count as written), and it exposes an engine that tries again and believes the answer.
//!
//! Lock order: `state`, then the inner backend's own lock.

use std::collections::{BTreeSet, VecDeque};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use govc_engine::backend::{
    Backend, BackendError, BackendErrorKind, BackendResult, Batch, Description, Entries, Family, Scan, Sync, Usage,
};
use parking_lot::Mutex;

use crate::memory::MemoryBackend;

/// Which writes and syncs fail. Both are counted from 1 over the life of a [`FaultBackend`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultPlan {
    writes: BTreeSet<u64>,
    tears: BTreeSet<u64>,
    syncs: BTreeSet<u64>,
    chance: Option<Chance>,
    tear_chance: Option<Chance>,
    delay: Option<(Chance, Duration)>,
}

/// Failures drawn by a seed: the same seed fails the same ordinals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chance {
    seed: u64,
    per_1000: u32,
}

impl FaultPlan {
    /// A plan in which nothing fails.
    pub fn none() -> Self {
        Self::default()
    }

    /// A plan in which each write and each sync fails with a chance of `per_1000` in 1000, drawn by `seed`.
    pub fn seeded(seed: u64, per_1000: u32) -> Self {
        Self { chance: Some(Chance { seed, per_1000 }), ..Self::default() }
    }

    /// The same plan, in which the `nth` write fails too, leaving nothing of its batch.
    #[must_use]
    pub fn fail_write(mut self, nth: u64) -> Self {
        self.writes.insert(nth);
        self
    }

    /// The same plan, in which the `nth` sync fails too, be it a call of its own or part of a write. The batch
    /// of such a write is visible, and a crash may or may not keep it.
    #[must_use]
    pub fn fail_sync(mut self, nth: u64) -> Self {
        self.syncs.insert(nth);
        self
    }

    /// The same plan, in which the `nth` write is torn: some of its operations are there, the rest are not, and it fails.
    #[must_use]
    pub fn tear_write(mut self, nth: u64) -> Self {
        self.tears.insert(nth);
        self
    }

    /// The same plan, in which each write is torn with a chance of `per_1000` in 1000, drawn by `seed`.
    #[must_use]
    pub fn tear_seeded(mut self, seed: u64, per_1000: u32) -> Self {
        self.tear_chance = Some(Chance { seed, per_1000 });
        self
    }

    /// The same plan, in which each write and each sync takes so much longer with a chance of `per_1000` in 1000, drawn by
    /// `seed`. Those behind it wait, as they would for a slow disk.
    #[must_use]
    pub fn delay_seeded(mut self, seed: u64, per_1000: u32, delay: Duration) -> Self {
        self.delay = Some((Chance { seed, per_1000 }, delay));
        self
    }

    fn fails_write(&self, nth: u64) -> bool {
        self.writes.contains(&nth) || Chance::draws(self.chance, nth.wrapping_mul(2))
    }

    fn fails_sync(&self, nth: u64) -> bool {
        self.syncs.contains(&nth) || Chance::draws(self.chance, nth.wrapping_mul(2).wrapping_add(1))
    }

    fn tears_write(&self, nth: u64) -> bool {
        self.tears.contains(&nth) || Chance::draws(self.tear_chance, nth)
    }

    fn wait(&self, ordinal: u64) {
        if let Some((chance, delay)) = self.delay
            && Chance::draws(Some(chance), ordinal)
        {
            thread::sleep(delay);
        }
    }
}

impl Chance {
    fn draws(chance: Option<Self>, ordinal: u64) -> bool {
        chance.is_some_and(|chance| mix(chance.seed ^ mix(ordinal)) % 1000 < u64::from(chance.per_1000))
    }
}

/// Which of the unsynced writes a crash leaves on the disk. It is always a prefix, in whole batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// None of them: only what was synced.
    Synced,
    /// The first so many, or all if there are fewer.
    First(usize),
    /// All, as after a killed process whose machine went on.
    All,
    /// As many as the seed draws, from none to all.
    Drawn(u64),
}

/// A [`Backend`] that fails as planned and loses what a crash would lose.
pub struct FaultBackend {
    visible: MemoryBackend,
    state: Mutex<State>,
}

struct State {
    plan: FaultPlan,
    /// Writes that reached the disk or were failed there; those refused as `Full` do not count.
    writes: u64,
    syncs: u64,
    /// With what every write is refused.
    refusal: Option<BackendError>,
    /// How many writes are still taken before one is refused as [`BackendErrorKind::Full`].
    full_after: Option<u64>,
    /// What the last successful sync made durable.
    durable: MemoryBackend,
    /// The content after each write since, oldest first.
    unsynced: VecDeque<MemoryBackend>,
    /// Whether a sync has failed, after which none makes anything durable.
    frozen: bool,
    closed: bool,
}

impl FaultBackend {
    /// An empty backend that fails by `plan`.
    pub fn new(plan: FaultPlan) -> Self {
        Self::with_content(MemoryBackend::new(), MemoryBackend::new(), plan)
    }

    /// A backend that begins with what `disk` holds, all of it durable: the next life after a crash.
    ///
    /// # Errors
    /// [`BackendErrorKind::Closed`] if `disk` is closed.
    pub fn over(disk: &MemoryBackend, plan: FaultPlan) -> BackendResult<Self> {
        Ok(Self::with_content(disk.fork()?, disk.fork()?, plan))
    }

    fn with_content(visible: MemoryBackend, durable: MemoryBackend, plan: FaultPlan) -> Self {
        let state = State {
            plan,
            writes: 0,
            syncs: 0,
            refusal: None,
            full_after: None,
            durable,
            unsynced: VecDeque::new(),
            frozen: false,
            closed: false,
        };
        Self { visible, state: Mutex::new(state) }
    }

    /// While `full`, every write answers [`BackendErrorKind::Full`]. Reads and syncs go on.
    pub fn set_full(&self, full: bool) {
        let refusal = || BackendError::new(BackendErrorKind::Full, "the disk is full, by the test's wish");
        self.state.lock().refusal = full.then(refusal);
    }

    /// The `nth` write from now on, 1 being the next, answers [`BackendErrorKind::Full`]; those after it do not.
    pub fn be_full_once(&self, nth: u64) {
        self.state.lock().full_after = Some(nth.saturating_sub(1));
    }

    /// While `away`, every write and sync answers [`BackendErrorKind::Unavailable`]. Reads go on.
    pub fn set_away(&self, away: bool) {
        let refusal = || BackendError::new(BackendErrorKind::Unavailable, "the storage is away, by the test's wish");
        self.state.lock().refusal = away.then(refusal);
    }

    /// Lets the next write fail.
    pub fn fail_next_write(&self) {
        let mut state = self.state.lock();
        let next = state.writes + 1;
        state.plan.writes.insert(next);
    }

    /// Lets the next sync fail, be it a call of its own or part of a write.
    pub fn fail_next_sync(&self) {
        let mut state = self.state.lock();
        let next = state.syncs + 1;
        state.plan.syncs.insert(next);
    }

    /// Writes so far, failed ones included, refused ones (full, precondition, closed) not.
    pub fn writes(&self) -> u64 {
        self.state.lock().writes
    }

    /// Syncs so far, failed ones included.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Writes that a crash may lose now.
    pub fn unsynced(&self) -> usize {
        self.state.lock().unsynced.len()
    }

    /// Ends this life as a crash would and returns what is on the disk. Whoever still holds the backend gets
    /// [`BackendErrorKind::Closed`] from now on, as if the process had gone.
    ///
    /// # Errors
    /// [`BackendErrorKind::Closed`] after an earlier crash. A backend that was closed cleanly still has a disk.
    pub fn crash(&self, survivors: Survivors) -> BackendResult<MemoryBackend> {
        let mut state = self.state.lock();
        state.closed = true;
        self.visible.close()?;
        let kept = match survivors {
            Survivors::Synced => 0,
            Survivors::First(count) => count.min(state.unsynced.len()),
            Survivors::All => state.unsynced.len(),
            Survivors::Drawn(seed) => (mix(seed) % (state.unsynced.len() as u64 + 1)) as usize,
        };
        let last_kept = kept.checked_sub(1).and_then(|last| state.unsynced.get(last));
        let disk = last_kept.unwrap_or(&state.durable).fork()?;
        state.unsynced.clear();
        state.durable.close()?;
        Ok(disk)
    }
}

impl State {
    /// Syncs; on success what is visible is durable, unless a sync failed before.
    fn sync(&mut self) -> BackendResult<()> {
        self.syncs += 1;
        self.plan.wait(self.syncs.wrapping_mul(2).wrapping_add(1));
        if self.plan.fails_sync(self.syncs) {
            self.frozen = true;
            return Err(planned(&format!("sync {}", self.syncs)));
        }
        if !self.frozen {
            if let Some(newest) = self.unsynced.pop_back() {
                self.durable = newest;
            }
            self.unsynced.clear();
        }
        Ok(())
    }
}

impl Backend for FaultBackend {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        self.visible.get(family, key)
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> BackendResult<Vec<Option<Bytes>>> {
        self.visible.get_many(family, keys)
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        self.visible.scan(family, scan)
    }

    fn write(&self, batch: Batch, sync: Sync) -> BackendResult<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(closed());
        }
        if let Some(left) = state.full_after {
            state.full_after = left.checked_sub(1);
            if left == 0 {
                return Err(BackendError::new(BackendErrorKind::Full, "the disk is full once, by the test's wish"));
            }
        }
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        let nth = state.writes + 1;
        state.plan.wait(nth.wrapping_mul(2));
        if state.plan.fails_write(nth) {
            state.writes = nth;
            return Err(planned(&format!("write {nth}")));
        }
        let torn = state.plan.tears_write(nth);
        let mut batch = batch;
        if torn {
            batch.ops.truncate((mix(nth) % (batch.ops.len() as u64 + 1)) as usize);
        }
        self.visible.write(batch, Sync::No)?;
        state.writes = nth;
        let written = self.visible.fork()?;
        state.unsynced.push_back(written);
        if torn {
            return Err(planned(&format!("write {nth} was torn and")));
        }
        match sync {
            Sync::Yes => state.sync(),
            Sync::No => Ok(()),
        }
    }

    fn sync(&self) -> BackendResult<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(closed());
        }
        if let Some(refusal) = state.refusal.as_ref().filter(|refusal| refusal.kind == BackendErrorKind::Unavailable) {
            return Err(refusal.clone());
        }
        state.sync()
    }

    fn describe(&self) -> Description {
        // Durable as far as its crashes go, so that the engine treats it as it does a real one.
        Description { kind: "fault", location: "this process".to_owned(), durable: true }
    }

    fn usage(&self) -> BackendResult<Usage> {
        self.visible.usage()
    }

    fn close(&self) -> BackendResult<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Ok(());
        }
        let synced = state.sync();
        state.closed = true;
        self.visible.close()?;
        synced
    }
}

fn closed() -> BackendError {
    BackendError::new(BackendErrorKind::Closed, "the fault backend is closed or has crashed")
}

fn planned(what: &str) -> BackendError {
    BackendError::new(BackendErrorKind::Failed, format!("{what} failed, by the test's wish"))
}

/// A well-spread function of 64 bits: the finisher of SplitMix64 (Steele, Lea, Flood, "Fast splittable
/// pseudorandom number generators", 2014).
pub(crate) fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
