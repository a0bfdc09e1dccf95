//! The journal: the one thread that makes publications durable, in order, many at a time.
//!
//! Writers advance `tip` themselves and send what they did; the thread takes everything that waits, orders it by
//! version within each repository, writes one record and syncs once, then advances `published`, completes the feed
//! and answers the tickets, in that order. While it syncs, the next group gathers: an idle store pays one sync a
//! write, a busy one shares it among hundreds.
//!
//! When a write is refused for lack of room, the group's transactions fail, `tip` of their repositories falls back to
//! what is written, and a new lineage makes everything that was built on them fail too; but a repository with a version
//! that is acknowledged and not written yet keeps all of its versions, and waits for room. After any other failure nobody
//! knows what is on disk: the store is poisoned and stays read-only.
//!
//! Deletions are written before everything else in their group and may use the reserve: they make room.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    core::Core,
    feed::publication,
    ids::{Durability, RepoId, Seq},
    ingest::Staged,
    pool::Pool,
    record::{CatalogRow, RecordWriter},
    settle::{Group, GroupEntry},
    state::{RepoRecord, RepoState},
    ticket::{Promise, Ticket},
    transaction::Fresh,
    version::{Changes, Version},
};
use crate::{
    Error, ErrorKind, Result,
    backend::{BackendError, Batch, Family, Sync, key},
    sync::{
        Guard,
        atomic::{AtomicU64, Ordering},
        channel::{self, Receiver, RecvTimeoutError, Sender},
        thread,
    },
};

/// Messages that may wait; a writer beyond that blocks until the journal has caught up. Few enough in models for that to
/// happen.
const QUEUE_MAX: usize = if cfg!(shuttle) { 2 } else { 16 << 10 };
/// A group is closed at this many entries or bytes of objects.
const GROUP_ENTRIES_MAX: usize = 1024;
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Memory that the row of an object in a segment takes on its way to the backend.
const ROW_BYTES: usize = 144;
/// How often a full backend is tried when nobody writes.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// The writers' end of the journal.
pub(crate) struct JournalHandle {
    queue: Sender<Message>,
    /// Bytes of the transactions that are sent and not written. Grown by writers, shrunk by the journal thread.
    waiting_bytes: AtomicU64,
}

/// The thread's end.
pub(crate) type JournalQueue = Receiver<Message>;

pub(crate) enum Message {
    Transaction(Pending),
    Catalog(CatalogChange),
    /// Answered when everything sent before is written and synced.
    Barrier(Promise),
    Stop,
}

/// A transaction that has advanced `tip` and waits to be written.
pub(crate) struct Pending {
    pub(crate) repo: Arc<RepoState>,
    pub(crate) version: Arc<Version>,
    pub(crate) changes: Changes,
    pub(crate) carried: Carried,
    pub(crate) staged: Vec<Staged>,
    /// `None` if it is acknowledged already.
    pub(crate) promise: Option<Promise>,
    /// When it was made.
    pub(crate) since: Instant,
}

impl Pending {
    /// Bytes of memory that it holds until it is written, and about what it adds to a record.
    fn bytes(&self) -> usize {
        let rows: usize = self.staged.iter().map(Staged::len).sum();
        self.carried.bytes() + rows * ROW_BYTES
    }
}

/// A change of the catalog.
pub(crate) struct CatalogChange {
    pub(crate) repo: Arc<RepoState>,
    pub(crate) kind: CatalogChangeKind,
    pub(crate) promise: Promise,
}

pub(crate) enum CatalogChangeKind {
    Create,
    Update(RepoRecord),
    Delete,
}

/// Objects of a transaction, claimed in the object table.
pub(crate) struct Carried(Vec<Claim>);

struct Claim {
    fresh: Fresh,
    /// Whether some publication had brought the object before.
    was_live: bool,
}

impl Claim {
    fn held_bytes(fresh: &Fresh) -> u64 {
        fresh.data.len() as u64 + 256
    }
}

impl Carried {
    /// Puts objects into the table, invisible.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBudget`] in a memory repository.
    pub(crate) fn claim(core: &Core, pool: &Pool, fresh: Vec<Fresh>) -> Result<Self> {
        core.hold_memory(pool, Self::held_bytes(&fresh))?;
        let mut used = 0;
        let claim = |fresh: Fresh| {
            let was_live = core.table.claim(pool.id, fresh.oid, fresh.kind, &fresh.data, &mut used);
            Claim { fresh, was_live }
        };
        let claims = fresh.into_iter().map(claim).collect();
        core.table.count(used);
        Ok(Self(claims))
    }

    /// What objects will take of a memory repository's share.
    pub(crate) fn held_bytes(fresh: &[Fresh]) -> u64 {
        fresh.iter().map(Claim::held_bytes).sum()
    }

    pub(crate) fn set_accepted(&self, core: &Core, pool: &Pool) {
        self.0.iter().for_each(|claim| core.table.set_accepted(pool.id, claim.fresh.oid));
    }

    pub(crate) fn set_live(&self, core: &Core, pool: &Pool, version: u64) {
        self.0.iter().for_each(|claim| core.table.set_live(pool.id, claim.fresh.oid, version));
    }

    /// Gives the claims back: what is not live goes.
    pub(crate) fn release(self, core: &Core, pool: &Pool) {
        for claim in self.0 {
            claim.release(core, pool);
        }
    }

    /// Keeps the objects until the pool is forgotten, as memory repositories do.
    pub(crate) fn keep(self, core: &Core, pool: &Pool) {
        // What an earlier publication keeps need not be kept, and paid for, twice.
        for claim in self.0.into_iter().filter(|claim| claim.was_live) {
            claim.release(core, pool);
        }
    }

    pub(crate) fn objects(&self) -> impl ExactSizeIterator<Item = &Fresh> {
        self.0.iter().map(|claim| &claim.fresh)
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|claim| claim.fresh.data.len()).sum()
    }
}

impl Claim {
    fn release(self, core: &Core, pool: &Pool) {
        core.free_memory(pool, Self::held_bytes(&self.fresh));
        core.table.release(pool.id, self.fresh.oid, pool.memory.is_some());
    }
}

impl JournalHandle {
    pub(crate) fn new() -> (Self, JournalQueue) {
        let (sender, receiver) = channel::bounded(QUEUE_MAX);
        (Self { queue: sender, waiting_bytes: AtomicU64::new(0) }, receiver)
    }

    /// Sends a transaction.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the journal is gone.
    pub(crate) fn send_transaction(&self, pending: Pending) -> Result<()> {
        self.waiting_bytes.fetch_add(pending.bytes() as u64, Ordering::Relaxed);
        let sent = self.queue.send(Message::Transaction(pending));
        sent.map_err(|_| Error::new(ErrorKind::Closed, "the store's journal has ended"))
    }

    /// Bytes of the transactions that are sent and not written.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn send_catalog(&self, repo: Arc<RepoState>, kind: CatalogChangeKind) -> Ticket {
        let (ticket, promise) = Ticket::new();
        let _ = self.queue.send(Message::Catalog(CatalogChange { repo, kind, promise }));
        ticket
    }

    /// A ticket for everything sent before.
    pub(crate) fn barrier(&self) -> Ticket {
        let (ticket, promise) = Ticket::new();
        let _ = self.queue.send(Message::Barrier(promise));
        ticket
    }

    pub(crate) fn stop(&self) {
        let _ = self.queue.send(Message::Stop);
    }
}

/// Runs the journal until it is stopped; a panic poisons the store.
pub(crate) fn run(core: Arc<Core>, queue: JournalQueue) {
    let mut journal = Journal {
        core: core.clone(),
        queue,
        held: HashMap::new(),
        group: Vec::new(),
        group_bytes: 0,
        barriers: Vec::new(),
        unsynced_since: None,
        spare: Vec::new(),
        stopping: false,
    };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| journal.run()));
    if outcome.is_err() {
        core.health.poison("the journal thread panicked");
    }
}

enum Item {
    Transaction(Pending),
    Catalog(CatalogChange),
}

struct Journal {
    core: Arc<Core>,
    queue: JournalQueue,
    /// Transactions that came before their predecessors.
    held: HashMap<(RepoId, u64), Pending>,
    /// What is written next, in order.
    group: Vec<Item>,
    group_bytes: usize,
    barriers: Vec<Promise>,
    /// Since when relaxed writes wait for a sync.
    unsynced_since: Option<Instant>,
    /// Memory for the next record; empty.
    spare: Vec<u8>,
    stopping: bool,
}

impl Journal {
    fn run(&mut self) {
        while !self.stopping {
            match self.queue.recv_timeout(self.patience()) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.stopping = true,
            }
            self.gather();
            self.write_group();
            self.sync_if_due();
        }
        // What was sent before the stop was seen has been accepted, too.
        self.gather();
        let mut attempts = 0;
        while !self.group.is_empty() && attempts < 3 {
            let waiting = self.group.len();
            self.write_group();
            attempts = if self.group.len() < waiting { 0 } else { attempts + 1 };
            self.gather();
        }
        let _ = self.sync();
    }

    fn patience(&self) -> Duration {
        let retries = self.core.health.is_refused() || !self.group.is_empty();
        let patience = if retries { RETRY_DELAY } else { Duration::from_secs(3600) };
        let delay = self.core.options.relaxed_delay_max;
        self.unsynced_since.map_or(patience, |since| patience.min(delay.saturating_sub(since.elapsed())))
    }

    fn gather(&mut self) {
        while self.group.len() < GROUP_ENTRIES_MAX && self.group_bytes < GROUP_BYTES_MAX {
            match self.queue.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => break,
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Transaction(pending) => self.admit(pending),
            Message::Catalog(change) => self.group.push(Item::Catalog(change)),
            Message::Barrier(promise) => self.barriers.push(promise),
            Message::Stop => self.stopping = true,
        }
    }

    /// Puts a transaction into the group, or aside until its predecessors are here.
    fn admit(&mut self, pending: Pending) {
        let repo = pending.repo.clone();
        if pending.version.lineage != repo.lineage.load(Ordering::Relaxed) {
            let error = self.core.health.refusal("a write that this one builds on has failed");
            return self.fail_transaction(pending, &error);
        }
        let mut next = repo.journaled.load(Ordering::Relaxed) + 1;
        if pending.version.number != next {
            self.held.insert((repo.id, pending.version.number), pending);
            return;
        }
        let mut ready = Some(pending);
        while let Some(pending) = ready {
            self.group_bytes += pending.bytes();
            self.group.push(Item::Transaction(pending));
            repo.journaled.store(next, Ordering::Relaxed);
            next += 1;
            ready = self.held.remove(&(repo.id, next));
        }
    }

    fn write_group(&mut self) {
        if !self.group.is_empty() {
            self.core.settle.wait_for_room(&self.core);
            let group = std::mem::take(&mut self.group);
            self.group_bytes = 0;
            let (deletions, rest) = group.into_iter().partition(Item::is_deletion);
            self.write(deletions);
            let (gone, rest) = rest.into_iter().partition(Item::is_gone);
            self.fail(gone, &Error::not_found("the repository has been deleted"));
            self.write(rest);
        } else if self.core.health.is_refused() {
            self.probe();
        }
        for barrier in std::mem::take(&mut self.barriers) {
            barrier.answer(self.sync());
        }
    }

    fn write(&mut self, items: Vec<Item>) {
        if items.is_empty() {
            return;
        }
        if let Err(error) = self.core.health.check_not_poisoned() {
            return self.fail(items, &error);
        }
        let count = items.iter().filter(|item| matches!(item, Item::Transaction(_))).count().max(1);
        let first = self.core.feed.reserve(count);
        let shared = |staged: &Staged| staged.pool().is_shared();
        let shares = items.iter().any(|item| item.staged().iter().any(shared));
        let core = self.core.clone();
        let id_rows = shares.then(|| core.id_rows.lock());
        let (batch, sync, record) = match self.encode(&items, first) {
            Ok(encoded) => encoded,
            Err(error) => {
                self.core.feed.abandon(first, count);
                self.core.health.poison(error.message());
                return self.fail(items, &error);
            }
        };
        let uses_reserve = batch.uses_reserve;
        let started = Instant::now();
        let written = self.core.backend.write(batch, sync);
        drop(id_rows);
        let bytes = record.len();
        self.reuse(record);
        match written {
            Ok(()) => {
                let counters = &self.core.counters;
                counters.journal_groups.fetch_add(1, Ordering::Relaxed);
                counters.journal_transactions.fetch_add(count as u64, Ordering::Relaxed);
                counters.journal_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                match sync {
                    Sync::Yes => {
                        counters.syncs.fetch_add(1, Ordering::Relaxed);
                        counters.sync_nanos.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
                        self.unsynced_since = None;
                    }
                    Sync::No => {
                        self.note_unsynced(&items);
                    }
                }
                if !uses_reserve {
                    self.core.health.set_ok();
                }
                self.complete(items, first, bytes);
            }
            Err(error) => {
                self.core.feed.abandon(first, count);
                self.write_failed(items, error);
            }
        }
    }

    /// The batch of a group, how it is written, and its record.
    fn encode(&mut self, items: &[Item], first: Seq) -> Result<(Batch, Sync, Bytes)> {
        let mut batched = HashSet::new();
        let mut record = RecordWriter::new(std::mem::take(&mut self.spare), items.iter().map(Item::record_bytes).sum());
        let mut batch = Batch::new();
        let mut sync = Sync::No;
        let mut seq = first;
        for item in items {
            match item {
                Item::Transaction(pending) => {
                    if pending.promise.is_some() {
                        sync = Sync::Yes;
                    }
                    let (repo, version) = ((pending.repo.id, pending.repo.pool.format), &pending.version);
                    let objects = pending.carried.objects();
                    record.transaction(repo, seq, version, &pending.changes, objects);
                    seq.0 += 1;
                    for staged in &pending.staged {
                        self.core.put_rows(&mut batch, staged, |_| version.number, &mut batched)?;
                    }
                }
                Item::Catalog(change) => {
                    sync = Sync::Yes;
                    let state = &change.repo;
                    let version = state.tip.load();
                    match &change.kind {
                        CatalogChangeKind::Create => {
                            let row = CatalogRow::new(state, &state.record.load(), &version);
                            record.repo(state.id, &row);
                        }
                        CatalogChangeKind::Update(new) => {
                            record.repo(state.id, &CatalogRow::new(state, new, &version));
                        }
                        CatalogChangeKind::Delete => record.deleted(state.id),
                    }
                }
            }
        }
        if items.iter().all(Item::is_deletion) {
            batch.uses_reserve = true;
        }
        let record = record.finish();
        batch.require_absent(Family::Journal, key::journal(first));
        batch.put(Family::Journal, key::journal(first), record.clone());
        Ok((batch, sync, record))
    }

    /// Keeps the memory of a record for the next, unless the backend has it still: fresh memory costs the kernel more
    /// than what is written into it.
    fn reuse(&mut self, record: Bytes) {
        if record.is_unique() {
            self.spare = Vec::from(record);
            self.spare.clear();
            if self.spare.capacity() > 2 * GROUP_BYTES_MAX {
                self.spare = Vec::new();
            }
        }
    }

    /// Everything is durable: make it visible, tell the followers, answer.
    fn complete(&mut self, items: Vec<Item>, first: Seq, bytes: usize) {
        let mut seq = first;
        let mut entries = Vec::with_capacity(items.len());
        let mut promises = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::Transaction(pending) => {
                    pending.carried.set_live(&self.core, &pending.repo.pool, pending.version.number);
                    pending.staged.iter().for_each(Staged::keep);
                    pending.repo.pool.leave_flight(&pending.staged);
                    self.core.journal.waiting_bytes.fetch_sub(pending.bytes() as u64, Ordering::Relaxed);
                    pending.repo.written.store(pending.version.clone());
                    self.core.publish(&pending.repo, &pending.version);
                    let publication = publication(seq, pending.repo.id, &pending.version, pending.changes);
                    seq.0 += 1;
                    promises.extend(pending.promise);
                    entries.push(GroupEntry::Transaction {
                        repo: pending.repo,
                        version: pending.version,
                        carried: pending.carried,
                        publication,
                    });
                }
                Item::Catalog(change) => {
                    match &change.kind {
                        CatalogChangeKind::Create => {}
                        CatalogChangeKind::Update(record) => change.repo.record.store(Arc::new(record.clone())),
                        CatalogChangeKind::Delete => change.repo.gone.store(true, Ordering::Release),
                    }
                    promises.push(change.promise);
                    entries.push(match change.kind {
                        CatalogChangeKind::Create => GroupEntry::Created(change.repo),
                        CatalogChangeKind::Update(_) => GroupEntry::Recorded(change.repo),
                        CatalogChangeKind::Delete => GroupEntry::Deleted(change.repo),
                    });
                }
            }
        }
        let publications = entries.iter().filter_map(GroupEntry::publication).cloned();
        self.core.feed.complete(publications.collect::<Vec<_>>());
        if !entries.iter().any(|entry| entry.publication().is_some()) {
            self.core.feed.abandon(first, 1);
        }
        self.core.settle.push(&self.core, Group { key: first, bytes, entries, since: Instant::now() });
        for promise in promises {
            promise.answer(Ok(()));
        }
    }

    fn write_failed(&mut self, items: Vec<Item>, error: BackendError) {
        if !error.kind.is_passing() {
            self.core.health.poison(&error.message);
            let error = Error::from(error).context("the outcome of the write is not known");
            return self.fail(items, &error);
        }
        let error = Error::from(error);
        self.core.health.set_refused(&error);
        let repos: HashMap<_, _> = items.iter().filter_map(Item::repo).map(|repo| (repo.id, repo)).collect();
        let fallen: HashSet<_> = repos.into_values().filter(|repo| fall_back(repo)).map(|repo| repo.id).collect();
        let waits = |item: &Item| item.repo().is_some_and(|repo| !fallen.contains(&repo.id));
        let (waiting, failed): (Vec<_>, Vec<_>) = items.into_iter().partition(waits);
        self.fail(failed, &error);
        // In front of what came since: order within a repository must stay.
        let since = std::mem::replace(&mut self.group, waiting);
        self.group.extend(since);
        if !self.group.is_empty() {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Fails items, and with them everything that waits for them.
    fn fail(&mut self, items: Vec<Item>, error: &Error) {
        let repos: HashSet<_> = items.iter().filter_map(Item::repo).map(|repo| repo.id).collect();
        let built_on_them: Vec<_> = self.held.keys().filter(|(id, _)| repos.contains(id)).copied().collect();
        for key in built_on_them {
            if let Some(pending) = self.held.remove(&key) {
                self.fail_transaction(pending, error);
            }
        }
        for item in items {
            match item {
                Item::Transaction(pending) => self.fail_transaction(pending, error),
                Item::Catalog(change) => change.promise.answer(Err(error.clone())),
            }
        }
    }

    fn fail_transaction(&self, pending: Pending, error: &Error) {
        self.core.journal.waiting_bytes.fetch_sub(pending.bytes() as u64, Ordering::Relaxed);
        if self.core.health.check_not_poisoned().is_err() {
            // The record may be on disk; blocks that it may name must stay. So must its objects, for readers may be shown
            // a version that is built on this one and acknowledged, though this one waited.
            pending.staged.iter().for_each(Staged::keep);
        } else {
            pending.repo.pool.leave_flight(&pending.staged);
            pending.carried.release(&self.core, &pending.repo.pool);
        }
        if let Some(promise) = pending.promise {
            promise.answer(Err(error.clone()));
        }
    }

    /// Remembers since when there is something to be synced.
    fn note_unsynced(&mut self, items: &[Item]) {
        let made = items.iter().filter_map(|item| match item {
            Item::Transaction(pending) => Some(pending.since),
            Item::Catalog(_) => None,
        });
        self.unsynced_since = made.chain(self.unsynced_since).min().or_else(|| Some(Instant::now()));
    }

    fn sync_if_due(&mut self) {
        let due = |since: Instant| since.elapsed() >= self.core.options.relaxed_delay_max;
        if self.stopping || self.unsynced_since.is_some_and(due) {
            let _ = self.sync();
        }
    }

    /// Syncs what is written.
    ///
    /// # Errors
    /// When that fails, and [`ErrorKind::StorageFull`] or [`ErrorKind::Unavailable`] if acknowledged writes could not be
    /// written yet.
    fn sync(&mut self) -> Result<()> {
        self.core.health.check_not_poisoned()?;
        if self.unsynced_since.take().is_some() {
            self.core.counters.syncs.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = self.core.backend.sync() {
                if error.kind.is_passing() {
                    // What is written stays so; a later sync comes to it too.
                    self.unsynced_since = Some(Instant::now());
                    let error = Error::from(error);
                    self.core.health.set_refused(&error);
                    return Err(error);
                }
                self.core.health.poison(&error.message);
                return Err(error.into());
            }
        }
        if !self.group.is_empty() {
            return Err(self.core.health.refusal("acknowledged writes wait for the storage"));
        }
        Ok(())
    }

    /// Finds out whether a backend that was full, or away, takes writes again.
    fn probe(&self) {
        let mut batch = Batch::new();
        batch.put(Family::Meta, b"probe".to_vec(), &b"1"[..]);
        match self.core.backend.write(batch, Sync::No) {
            Ok(()) => self.core.health.set_ok(),
            Err(error) if error.kind.is_passing() => {}
            Err(error) => self.core.health.poison(&error.message),
        }
    }
}

/// Gives up the versions of a repository that are not written, unless the writer of one has been answered; whether it
/// did. From then on what was built on them fails, and who tries again builds on what is written.
fn fall_back(repo: &RepoState) -> bool {
    let written = repo.written.load_full();
    let mut tip = repo.tip.load_full();
    loop {
        if tip.acknowledged > written.number {
            return false;
        }
        let lineage = tip.lineage + 1;
        let fallen = Arc::new(Version { lineage, ..(*written).clone() });
        let found = repo.tip.compare_and_swap(&tip, fallen);
        if Arc::ptr_eq(&found, &tip) {
            repo.lineage.store(lineage, Ordering::Relaxed);
            repo.journaled.store(written.number, Ordering::Relaxed);
            return true;
        }
        tip = Guard::into_inner(found);
    }
}

/// What a transaction's record, and each of its objects there beside its id, take beside contents, mostly, in bytes.
const ENTRY_BYTES: usize = 256;
const OBJECT_BYTES: usize = 6;

impl Item {
    /// What the item takes in a record, about.
    fn record_bytes(&self) -> usize {
        match self {
            Item::Transaction(Pending { carried, repo, .. }) => {
                let object_bytes = repo.pool.format.len() + OBJECT_BYTES;
                carried.bytes() + object_bytes * carried.objects().len() + ENTRY_BYTES
            }
            Item::Catalog(_) => ENTRY_BYTES,
        }
    }

    /// The repository of a transaction.
    fn repo(&self) -> Option<&Arc<RepoState>> {
        match self {
            Item::Transaction(pending) => Some(&pending.repo),
            Item::Catalog(_) => None,
        }
    }

    /// The segments of a transaction.
    fn staged(&self) -> &[Staged] {
        match self {
            Item::Transaction(pending) => &pending.staged,
            Item::Catalog(_) => &[],
        }
    }

    fn is_deletion(&self) -> bool {
        matches!(self, Item::Catalog(CatalogChange { kind: CatalogChangeKind::Delete, .. }))
    }

    /// Whether the item's repository has been deleted for good.
    fn is_gone(&self) -> bool {
        let repo = match self {
            Item::Transaction(pending) => &pending.repo,
            Item::Catalog(change) => &change.repo,
        };
        repo.gone.load(Ordering::Acquire)
    }
}

impl RepoState {
    /// Whether writes of this repository go through the journal.
    pub(crate) fn is_journaled(&self) -> bool {
        self.durability() != Durability::Memory
    }
}
