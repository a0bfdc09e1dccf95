//! Settling: moves what the journal holds to its place and shortens the journal.
//!
//! Objects go into blocks, references into the checkpoint of the newest version, versions and publications into the
//! history; then the journal's records are removed, all in one atomic batch after the blocks. Until then the objects
//! stay in memory, so what is unsettled is bounded, and so is the time to replay the journal at opening.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    core::Core,
    feed::{Publication, publication},
    fork::Purge,
    ids::{PoolId, RepoId, Seq},
    ingest::{Ingest, Staged},
    journal::Carried,
    lfs,
    record::{CatalogRow, FeedRow, RefRow, VersionRow},
    segment_rows::forget_segments,
    state::RepoState,
    version::{Changes, Version},
};
use crate::{
    Result,
    backend::{Batch, Family, Sync, key},
    block::Base,
    object::Oid,
    refs::RefName,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// What one settling takes at most, in bytes of journal records.
const STEP_BYTES: usize = 64 << 20;
/// Journal entries after which settling begins, whatever their bytes.
const ENTRIES_MAX: usize = 20_000;

/// A group commit that has been written.
pub(crate) struct Group {
    pub(crate) key: Seq,
    pub(crate) bytes: usize,
    pub(crate) entries: Vec<GroupEntry>,
    /// When it was written.
    pub(crate) since: Instant,
}

pub(crate) enum GroupEntry {
    Transaction {
        repo: Arc<RepoState>,
        version: Arc<Version>,
        carried: Carried,
        publication: Publication,
    },
    Created(Arc<RepoState>),
    /// A repository's record changed.
    Recorded(Arc<RepoState>),
    Deleted(Arc<RepoState>),
}

impl GroupEntry {
    fn repo(&self) -> &Arc<RepoState> {
        let (Self::Transaction { repo, .. } | Self::Created(repo) | Self::Recorded(repo) | Self::Deleted(repo)) = self;
        repo
    }

    fn created(&self) -> Option<&Arc<RepoState>> {
        match self {
            GroupEntry::Created(repo) => Some(repo),
            _ => None,
        }
    }

    pub(crate) fn publication(&self) -> Option<&Publication> {
        match self {
            GroupEntry::Transaction { publication, .. } => Some(publication),
            GroupEntry::Created(_) | GroupEntry::Recorded(_) | GroupEntry::Deleted(_) => None,
        }
    }
}

/// Groups that wait to be settled, oldest first.
#[derive(Default)]
pub(crate) struct SettleQueue {
    state: Mutex<Queue>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct Queue {
    groups: VecDeque<Arc<Group>>,
    bytes: usize,
    entries: usize,
    /// Whether what has been settled is being let go of.
    forgetting: bool,
    /// Whether someone waits for everything to be settled.
    flush: bool,
    failed: bool,
}

impl SettleQueue {
    pub(crate) fn push(&self, core: &Core, group: Group) {
        let mut queue = self.state.lock();
        queue.bytes += group.bytes;
        queue.entries += group.entries.len();
        queue.groups.push_back(Arc::new(group));
        // The first begins to grow old.
        if queue.groups.len() == 1 || queue.is_due(core) {
            self.changed.notify_all();
        }
    }

    /// Holds the journal back while settling cannot follow it.
    pub(crate) fn wait_for_room(&self, core: &Core) {
        let mut queue = self.state.lock();
        while queue.bytes > 4 * core.options.settle_bytes && !queue.failed && !self.stop.load(Ordering::Acquire) {
            self.changed.wait_for(&mut queue, Duration::from_millis(100));
            if core.health.check_not_poisoned().is_err() || core.health.is_refused() {
                return;
            }
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.state.lock().bytes as u64
    }

    /// How long the oldest group has waited.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.state.lock().groups.front().map(|oldest| oldest.since.elapsed())
    }

    /// The first publications from `from` to `to` that are not settled, at most `limit`.
    pub(crate) fn publications(&self, from: u64, to: u64, limit: usize, found: &mut Vec<Publication>) {
        let queue = self.state.lock();
        let entries = queue.groups.iter().flat_map(|group| &group.entries);
        let publications = entries.filter_map(GroupEntry::publication);
        found.extend(publications.filter(|publication| (from..=to).contains(&publication.seq.0)).take(limit).cloned());
    }

    /// Settles everything that waits and returns when that is done or has failed.
    pub(crate) fn flush(&self, core: &Core) {
        let mut queue = self.state.lock();
        let last = queue.groups.back().map(|group| group.key);
        while (queue.forgetting || queue.groups.front().is_some_and(|group| Some(group.key) <= last))
            && !queue.failed
            && core.health.check_not_poisoned().is_ok()
        {
            queue.flush = true;
            self.changed.notify_all();
            self.changed.wait_for(&mut queue, Duration::from_millis(50));
            if core.health.is_refused() {
                break;
            }
        }
        queue.flush = false;
    }

    pub(crate) fn stop(&self) {
        let _queue = self.state.lock();
        self.stop.store(true, Ordering::Release);
        self.changed.notify_all();
    }
}

impl Queue {
    fn is_due(&self, core: &Core) -> bool {
        let is_old = |oldest: &Arc<Group>| oldest.since.elapsed() >= core.options.settle_age_max;
        let is_large = self.bytes >= core.options.settle_bytes || self.entries >= ENTRIES_MAX;
        self.flush || is_large || self.groups.front().is_some_and(is_old)
    }
}

/// Runs the settler until it is stopped; a panic poisons the store.
pub(crate) fn run(core: Arc<Core>) {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| settle_until_stopped(&core)));
    if outcome.is_err() {
        core.health.poison("the settling thread panicked");
    }
    let mut queue = core.settle.state.lock();
    queue.failed = outcome.is_err();
    core.settle.changed.notify_all();
}

fn settle_until_stopped(core: &Arc<Core>) {
    let settle = &core.settle;
    // Whether the last attempt found no room: it is made again until it does.
    let mut retrying = false;
    loop {
        let groups = {
            let mut queue = settle.state.lock();
            while !settle.stop.load(Ordering::Acquire) && (queue.groups.is_empty() || !(retrying || queue.is_due(core)))
            {
                match queue.groups.front() {
                    Some(oldest) => {
                        let patience = core.options.settle_age_max.saturating_sub(oldest.since.elapsed());
                        settle.changed.wait_for(&mut queue, patience);
                    }
                    None => settle.changed.wait(&mut queue),
                }
            }
            if settle.stop.load(Ordering::Acquire) {
                return;
            }
            let mut bytes = 0;
            let within = |group: &&Arc<Group>| {
                bytes += group.bytes;
                bytes <= STEP_BYTES || bytes == group.bytes
            };
            queue.groups.iter().take_while(within).cloned().collect::<Vec<_>>()
        };
        match settle_groups(core, &groups) {
            Ok(purge) => {
                retrying = false;
                forget_groups(core, groups);
                if !purge.gone.is_empty() {
                    core.table.forget_pools(&purge.gone.into_keys().collect());
                }
            }
            Err(error) if error.is_passing() => {
                core.health.set_refused(&error);
                // The journal finds out when there is room again; it may be asleep, also if it found some before.
                drop(core.journal.barrier());
                retrying = true;
                let mut queue = settle.state.lock();
                if !settle.stop.load(Ordering::Acquire) {
                    settle.changed.wait_for(&mut queue, Duration::from_millis(500));
                }
            }
            Err(error) => {
                core.health.poison(&format!("settling failed: {error}"));
                return;
            }
        }
    }
}

/// Lets go of what has been settled: from now on its objects may be evicted.
fn forget_groups(core: &Core, groups: Vec<Arc<Group>>) {
    let count = groups.len();
    let mut settled = Vec::with_capacity(count);
    {
        let mut queue = core.settle.state.lock();
        queue.forgetting = true;
        drop(groups);
        for _ in 0..count {
            let Some(group) = queue.groups.pop_front() else { break };
            queue.bytes -= group.bytes;
            queue.entries -= group.entries.len();
            settled.push(group);
        }
    }
    core.settle.changed.notify_all();
    for group in settled {
        // Nobody else keeps a group: the queue's clones are gone with the lock.
        let Some(group) = Arc::into_inner(group) else { continue };
        for entry in group.entries {
            match entry {
                GroupEntry::Transaction { repo, carried, .. } => carried.release(core, &repo.pool),
                GroupEntry::Created(_) | GroupEntry::Recorded(_) | GroupEntry::Deleted(_) => {}
            }
        }
    }
    core.settle.state.lock().forgetting = false;
    core.settle.changed.notify_all();
}

/// What the groups make of one repository.
struct Outcome<'a> {
    repo: &'a Arc<RepoState>,
    version: Option<&'a Arc<Version>>,
    /// With the versions that brought them.
    carried: Vec<(u64, &'a Carried)>,
    refs: BTreeMap<&'a RefName, Option<Oid>>,
    deleted: bool,
}

impl<'a> Outcome<'a> {
    fn new(repo: &'a Arc<RepoState>) -> Self {
        Self { repo, version: None, carried: Vec::new(), refs: BTreeMap::new(), deleted: false }
    }
}

fn settle_groups(core: &Arc<Core>, groups: &[Arc<Group>]) -> Result<Purge> {
    let mut batch = Batch::new();
    let mut outcomes: HashMap<RepoId, Outcome<'_>> = HashMap::new();
    for group in groups {
        batch.delete(Family::Journal, key::journal(group.key));
        for entry in &group.entries {
            let repo = entry.repo();
            let format = repo.pool.format;
            let outcome = outcomes.entry(repo.id).or_insert_with(|| Outcome::new(repo));
            match entry {
                GroupEntry::Transaction { version, carried, publication, .. } => {
                    outcome.version = Some(version);
                    outcome.carried.push((version.number, carried));
                    let changes = publication.changes.refs.iter();
                    outcome.refs.extend(changes.map(|change| (&change.name, change.after)));
                    let row = VersionRow::encode(publication, format);
                    batch.put(Family::History, key::version(repo.id, version.number), row);
                    batch.put(Family::History, key::feed(publication.seq), FeedRow::encode(publication, format));
                }
                GroupEntry::Created(_) => {
                    // Nothing of the repository is settled yet, so this is the version that it began with.
                    let first = publication(Seq(0), repo.id, &repo.settled.load(), Changes::none());
                    batch.put(
                        Family::History,
                        key::version(repo.id, first.version),
                        VersionRow::encode(&first, format),
                    );
                }
                GroupEntry::Deleted(_) => outcome.deleted = true,
                GroupEntry::Recorded(_) => {}
            }
        }
    }
    let deleted = || outcomes.values().filter(|outcome| outcome.deleted).map(|outcome| &outcome.repo.pool);
    let purge = Purge::plan(deleted());
    purge.gone.keys().for_each(|pool| remove_repo(&mut batch, *pool));
    let mut staged = Vec::new();
    let mut parting = Vec::new();
    for outcome in outcomes.values().filter(|outcome| !purge.gone.contains_key(&outcome.repo.pool.id)) {
        parting.extend(settle_repo(core, &mut batch, outcome, &mut staged)?.map(|first| (outcome.repo, first)));
    }
    let feed_floor = core.trim_feed(&mut batch)?;
    // Also for pools that have no forks: the first one waits here until rows that do not say since when are written.
    let id_rows = core.id_rows.lock();
    let mut batched = HashSet::new();
    for settled in &staged {
        core.put_rows(&mut batch, &settled.staged, |oid| settled.since(oid), &mut batched)?;
    }
    batch.uses_reserve = true;
    core.health.check_not_poisoned()?;
    if let Some(floor) = feed_floor {
        // Before they go, so that no follower takes their absence for an end.
        core.feed.raise_floor(floor);
    }
    // Unsynced: should it be lost, the journal is still there.
    let written = core.backend.write(batch, Sync::No);
    let keep = || staged.iter().for_each(|settled| settled.staged.keep());
    if let Err(error) = written {
        if !error.kind.is_passing() {
            // It may have been written; the next opening finds out by the intents.
            keep();
        }
        return Err(error.into());
    }
    keep();
    purge.apply(deleted());
    // Only now: who rewrites a pool asks under this lock whether it is still needed.
    drop(id_rows);
    for repo in groups.iter().flat_map(|group| &group.entries).filter_map(GroupEntry::created) {
        if let Some(fork_of) = &repo.fork_of {
            fork_of.set_settled();
        }
    }
    let mut seen = HashSet::new();
    for entry in groups.iter().flat_map(|group| &group.entries) {
        if let GroupEntry::Transaction { repo, version, .. } = entry {
            note_replaced(repo, version, !seen.insert(repo.id));
            // From here on the rows lead to what was before.
            version.previous.cut();
            repo.settled.store(version.clone());
        }
    }
    for (repo, first) in parting {
        // What does not fit now is done when the next group settles.
        match core.part_forks(repo, first) {
            Err(error) if !error.is_passing() => return Err(error),
            _ => {}
        }
    }
    Ok(purge)
}

/// Notes the version before `version`, if a reader holds it; `is_grouped` if it is in the groups that are being settled.
fn note_replaced(repo: &RepoState, version: &Version, is_grouped: bool) {
    let replaced = repo.settled.load_full();
    let is_linked = version.previous.get().is_some_and(|previous| Arc::ptr_eq(&previous, &replaced));
    // Here, as the settled one, in a group, and before its successor.
    let ours = 2 + usize::from(is_grouped) + usize::from(is_linked);
    if Arc::strong_count(&replaced) > ours {
        repo.note_held(&replaced);
    }
}

/// Adds to `batch` what the groups make of a repository; gives the version that its history could begin with if its
/// forks did not need what is before.
fn settle_repo<'a>(
    core: &Arc<Core>,
    batch: &mut Batch,
    outcome: &Outcome<'a>,
    staged: &mut Vec<Settled<'a>>,
) -> Result<Option<u64>> {
    let repo = outcome.repo;
    if outcome.carried.iter().any(|(_, carried)| carried.objects().len() > 0) {
        staged.push(write_objects(core, repo, &outcome.carried)?);
    }
    for (name, target) in &outcome.refs {
        match target {
            Some(oid) => {
                let reality = outcome.version.and_then(|version| version.refs.reality(name));
                let row = RefRow::encode(oid, reality.map(|reality| &*reality.origin));
                batch.put(Family::Refs, key::reference(repo.id, name), row);
            }
            None if repo.fork_of.as_ref().is_some_and(|fork| fork.shares(name)) => {
                batch.put(Family::Refs, key::reference(repo.id, name), RefRow::REMOVED)
            }
            None => batch.delete(Family::Refs, key::reference(repo.id, name)),
        }
    }
    // Without a transaction among these groups, the row keeps the version that is settled.
    let settled = repo.settled.load();
    let version = outcome.version.unwrap_or(&settled);
    let parting = core.trim_history(repo, version.number, batch)?;
    let mut row = CatalogRow::new(repo, &repo.record.load(), version);
    row.is_retired = outcome.deleted;
    batch.put(Family::Catalog, key::repo(repo.id), row.encode());
    Ok(parting)
}

/// The objects of a repository's journal, in blocks.
struct Settled<'a> {
    staged: Staged,
    /// Which version brought each first.
    since: HashMap<&'a Oid, u64>,
}

impl Settled<'_> {
    fn since(&self, oid: &Oid) -> u64 {
        self.since.get(oid).copied().unwrap_or_default()
    }
}

fn write_objects<'a>(core: &Arc<Core>, repo: &Arc<RepoState>, carried: &[(u64, &'a Carried)]) -> Result<Settled<'a>> {
    let mut since = HashMap::new();
    let mut objects = Vec::new();
    for (version, carried) in carried {
        for object in carried.objects() {
            if let std::collections::hash_map::Entry::Vacant(vacant) = since.entry(&object.oid) {
                vacant.insert(*version);
                objects.push(object);
            }
        }
    }
    // Like beside like; otherwise in the order in which they came.
    objects.sort_by_key(|object| object.kind);
    let ingest = Ingest::for_settling(core.clone(), repo.clone());
    let mut lane = ingest.lane();
    for object in objects {
        lane.add(object.oid, object.kind, object.data.len() as u64, Base::Whole, &object.data)?;
    }
    lane.finish()?;
    Ok(Settled { staged: ingest.finish()?, since })
}

/// Adds to `batch` the removal of everything of a repository, given its pool.
pub(super) fn remove_repo(batch: &mut Batch, pool: PoolId) {
    let repo = RepoId(pool.0);
    batch.delete(Family::Catalog, key::repo(repo));
    let ranges = [
        (Family::Refs, key::repo(repo)),
        (Family::History, key::versions(repo)),
        (Family::Ids, key::pool(pool)),
        (Family::Blocks, key::pool(pool)),
    ];
    forget_segments(batch, pool);
    lfs::forget(batch, pool);
    for (family, prefix) in ranges {
        if let Some(end) = key::after_prefix(&prefix) {
            batch.delete_range(family, prefix, end);
        }
    }
}
