//! Opening: the format, the catalog, the checkpoint of the references, then the journal's tail.
//!
//! Costs what references, the histories that forks share, and the unsettled journal cost, never what objects cost; only the segments of writes that a
//! crash cut off are looked for, by their intents, and removed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;

use super::{
    StoreOptions,
    core::Core,
    feed::{Feed, publication},
    fork::{ForkOf, Purge},
    identity,
    ids::{PoolId, RepoId, Seq},
    ingest::removal,
    journal::{Carried, JournalHandle, JournalQueue},
    lfs,
    record::{CatalogRow, Entry, RefRow, TransactionEntry, read_record},
    settle::{Group, GroupEntry, remove_repo},
    state::RepoState,
    version::{Previous, Version},
};
use crate::{
    Error, Result,
    backend::{Backend, BackendErrorKind, Batch, Family, Scan, Sync, key},
    refs::{Origin, RefMap, RefName},
    sync::atomic::Ordering,
};

/// Positions of the feed that one process may use.
const SEQS_PER_OPENING: u64 = 1 << 36;
/// Repositories that one process may create.
const REPOS_PER_OPENING: u64 = 1 << 32;

/// Brings a store's memory to where its backend is.
pub(crate) fn open(backend: Arc<dyn Backend>, options: StoreOptions) -> Result<(Arc<Core>, JournalQueue)> {
    let id = identity::open(&*backend)?;
    let next_segment = remove_leftovers(&*backend)?;
    let journal = read_journal(&*backend)?;
    let next_seq = next_seq(&*backend, &journal)?;
    let feed_floor = match backend.get(Family::Meta, key::FEED_FLOOR)? {
        Some(stored) => key::trailing_u64(&stored)?,
        None => 0,
    };
    let (handle, queue) = JournalHandle::new();
    let feed = Feed::new(next_seq, feed_floor, Feed::share_of(options.memory_budget_bytes));
    let core = Arc::new(Core::new(id, backend, options, handle, feed, next_segment));
    let mut repos = read_catalog(&core)?;
    read_references(&core, &repos)?;
    replay(&core, &mut repos, journal)?;
    remove_unneeded(&core, &repos)?;
    let next_repo = next_repo(&*core.backend, repos.ids_seen)?;
    core.catalog.next_repo.store(next_repo, Ordering::Relaxed);
    for state in repos.by_id.into_values() {
        core.count_references(&state);
        core.catalog.insert(state);
    }
    Ok((core, queue))
}

/// Repositories during opening.
#[derive(Default)]
struct Repos {
    by_id: HashMap<RepoId, Arc<RepoState>>,
    /// Those that have been deleted and may have forks.
    retired: HashMap<RepoId, Arc<RepoState>>,
    /// Those whose deletion is in the journal: settling decides what stays of them.
    deleted: HashSet<RepoId>,
    /// One more than the greatest id that was ever seen.
    ids_seen: u64,
}

/// Removes the blocks of writes that were never published; gives the next segment's number.
fn remove_leftovers(backend: &dyn Backend) -> Result<u32> {
    let mut next = match backend.get(Family::Meta, key::NEXT_SEGMENT)? {
        Some(value) => read_u32(&value)?,
        None => 1,
    };
    for (prefix, is_upload) in [(key::INTENT, false), (key::LFS_OPEN, true)] {
        let intents = backend.scan(Family::Meta, Scan::prefix(prefix))?.collect::<Result<Vec<_>, _>>()?;
        for (intent, pool) in intents {
            let number = read_u32(intent.get(prefix.len()..).unwrap_or_default())?;
            next = next.max(number.saturating_add(1));
            tracing::info!(number, is_upload, "removing the blocks of a write that a crash cut off");
            let pool = PoolId(key::trailing_u64(&pool)?);
            let removal = if is_upload { lfs::removal(pool, number) } else { removal(pool, number) };
            match backend.write(removal, Sync::No) {
                // A store on a full disk still opens for reading; the intent stays for the next opening.
                Err(error) if error.kind != BackendErrorKind::Full => return Err(error.into()),
                _ => {}
            }
        }
    }
    Ok(next)
}

fn read_u32(bytes: &[u8]) -> Result<u32> {
    let bytes = bytes.first_chunk::<4>().ok_or_else(|| Error::corrupt("a stored number is too short"))?;
    Ok(u32::from_be_bytes(*bytes))
}

fn read_journal(backend: &dyn Backend) -> Result<Vec<(Seq, Bytes)>> {
    let scan = backend.scan(Family::Journal, Scan::all())?;
    scan.map(|row| row.map_err(Error::from).and_then(|(key, value)| Ok((Seq(key::trailing_u64(&key)?), value))))
        .collect()
}

fn next_seq(backend: &dyn Backend, journal: &[(Seq, Bytes)]) -> Result<u64> {
    let mut last = 0;
    if let Some(row) = backend.scan(Family::History, Scan::prefix(&[key::FEED]).reversed())?.next() {
        last = key::trailing_u64(&row?.0)?;
    }
    if let Some((group, record)) = journal.last() {
        last = last.max(group.0);
        for entry in read_record(record)? {
            if let Entry::Transaction(transaction) = entry {
                last = last.max(transaction.seq.0);
            }
        }
    }
    // Positions of memory repositories leave no trace, so each opening begins beyond all that could have been given.
    let next = match backend.get(Family::Meta, key::NEXT_SEQ)? {
        Some(stored) => key::trailing_u64(&stored)?.max(last.saturating_add(1)),
        None => last.saturating_add(1),
    };
    raise_ceiling(backend, key::NEXT_SEQ, next, SEQS_PER_OPENING)
}

/// The next repository's id, given what the catalog and the journal hold.
fn next_repo(backend: &dyn Backend, ids_seen: u64) -> Result<u64> {
    // Memory repositories leave no trace either, and no id is ever given twice.
    let next = match backend.get(Family::Meta, key::NEXT_REPO)? {
        Some(stored) => key::trailing_u64(&stored)?.max(ids_seen),
        None => ids_seen,
    };
    raise_ceiling(backend, key::NEXT_REPO, next, REPOS_PER_OPENING)
}

/// Stores what this process will not reach, before it takes its first number; gives `next` back.
fn raise_ceiling(backend: &dyn Backend, key: &[u8], next: u64, step: u64) -> Result<u64> {
    let ceiling = next.checked_add(step).ok_or_else(|| Error::corrupt(format!("{next} is no stored number")))?;
    let mut batch = Batch::new();
    batch.put(Family::Meta, key.to_vec(), ceiling.to_be_bytes().to_vec());
    batch.uses_reserve = true;
    match backend.write(batch, Sync::No) {
        // A store on a full disk still opens for reading.
        Err(error) if error.kind != BackendErrorKind::Full => Err(error.into()),
        _ => Ok(next),
    }
}

fn read_catalog(core: &Core) -> Result<Repos> {
    let mut repos = Repos::default();
    for row in core.backend.scan(Family::Catalog, Scan::all())? {
        let (repo_key, value) = row?;
        let id = RepoId(key::trailing_u64(&repo_key)?);
        repos.ids_seen = repos.ids_seen.max(id.0.saturating_add(1));
        let state = repos.add(id, CatalogRow::decode(&value)?, None)?;
        if let Some(fork_of) = &state.fork_of {
            fork_of.set_settled();
        }
    }
    Ok(repos)
}

impl Repos {
    /// Adds a repository, a fork after its source; `refs` are those that a fork shares, if they are known.
    fn add(&mut self, id: RepoId, row: CatalogRow, refs: Option<RefMap>) -> Result<Arc<RepoState>> {
        let (first, is_retired) = (row.version(), row.is_retired);
        let fork_of = match row.fork {
            None => None,
            Some(fork) => {
                let source = self.any(fork.source);
                let source = source.ok_or_else(|| Error::corrupt(format!("the source of fork {id} is unknown")))?;
                if source.pool.format != row.record.format {
                    return Err(Error::corrupt(format!("fork {id} has another object format than its source")));
                }
                source.pool.add_known_fork();
                let shared = fork.shares_references.then(|| refs.clone().unwrap_or_default());
                Some(ForkOf::new(source, fork.version, shared))
            }
        };
        let version = Version { refs: refs.unwrap_or_default(), ..first };
        let state = Arc::new(RepoState::new(id, row.record, version, fork_of));
        if let Some(source) = row.fork.and_then(|fork| self.any(fork.source)) {
            source.add_known_fork(&state);
        }
        if let Some(fork_of) = &state.fork_of {
            fork_of.count(true);
        }
        if is_retired {
            self.retire(id, &state);
        } else {
            self.by_id.insert(id, state.clone());
        }
        Ok(state)
    }

    /// A repository, whether it has been deleted or not.
    fn any(&self, id: RepoId) -> Option<&Arc<RepoState>> {
        self.by_id.get(&id).or_else(|| self.retired.get(&id))
    }

    fn retire(&mut self, id: RepoId, state: &Arc<RepoState>) {
        state.deleted.store(true, Ordering::Release);
        state.gone.store(true, Ordering::Release);
        if let Some(fork_of) = &state.fork_of {
            fork_of.count(false);
        }
        self.by_id.remove(&id);
        self.retired.insert(id, state.clone());
    }
}

/// Brings every repository to its settled version.
fn read_references(core: &Core, repos: &Repos) -> Result<()> {
    let mut rows = core.backend.scan(Family::Refs, Scan::all())?;
    let mut next = rows.next().transpose()?;
    let mut bases = bases_of_forks(repos);
    let mut ids: Vec<_> = repos.by_id.keys().chain(repos.retired.keys()).copied().collect();
    ids.sort_unstable();
    for id in ids {
        let Some(state) = repos.any(id) else { continue };
        let mut refs = RefMap::default();
        if let Some(fork_of) = state.fork_of.as_ref().filter(|fork_of| fork_of.shares_references()) {
            let fork = fork_of.row();
            let base = bases.get(&fork.source).and_then(|versions| versions.get(&fork.version)).cloned().flatten();
            refs = base.ok_or_else(|| Error::corrupt(format!("fork {id} is older than its source")))?;
            fork_of.set_shared(refs.clone());
            state.reference_bytes.set_shared(refs.resident_bytes());
        }
        // Realities of one call share their origin again.
        let mut last_origin: Option<Arc<Origin>> = None;
        while let Some((ref_key, value)) = next.take_if(|(ref_key, _)| ref_key.starts_with(&id.0.to_be_bytes())) {
            let name = RefName::from_stored(&ref_key[8..]);
            match RefRow::decode(state.pool.format, &value)? {
                None => refs.remove(&name),
                Some((oid, origin)) => {
                    let origin = origin.map(|origin| match last_origin.take().filter(|last| **last == origin) {
                        Some(last) => last,
                        None => Arc::new(origin),
                    });
                    last_origin = origin.clone().or(last_origin);
                    let set = refs.set_from(name, oid, origin.as_ref());
                    set.map_err(|error| Error::corrupt(error.message()))?;
                }
            }
            next = rows.next().transpose()?;
        }
        let version = Arc::new(Version { refs, ..(**state.settled.load()).clone() });
        set_version(state, version.clone());
        state.settled.store(version.clone());
        // From the newest to the oldest, each made from the one after it.
        let mut later = version;
        for (number, base) in bases.get_mut(&id).into_iter().flatten().rev() {
            later = core.earlier(state, &later, *number)?;
            *base = Some(later.refs.clone());
        }
    }
    match next {
        Some(_) => Err(Error::corrupt("references of a repository that is unknown")),
        None => Ok(()),
    }
}

/// The versions whose references forks share, by source; to be filled.
fn bases_of_forks(repos: &Repos) -> HashMap<RepoId, BTreeMap<u64, Option<RefMap>>> {
    let mut bases: HashMap<_, BTreeMap<_, _>> = HashMap::new();
    let forks = repos.by_id.values().chain(repos.retired.values()).filter_map(|state| state.fork_of.as_ref());
    for fork in forks.map(|fork| fork.row()).filter(|fork| fork.shares_references) {
        bases.entry(fork.source).or_default().insert(fork.version, None);
    }
    bases
}

fn set_version(state: &RepoState, version: Arc<Version>) {
    state.journaled.store(version.number, Ordering::Relaxed);
    state.tip.store(version.clone());
    state.written.store(version.clone());
    state.published.store(version);
}

/// Removes what is kept of deleted repositories for forks that there are no more, as a fork whose creation a crash cut
/// off.
fn remove_unneeded(core: &Core, repos: &Repos) -> Result<()> {
    let retired = repos.retired.iter().filter(|(id, _)| !repos.deleted.contains(id)).map(|(_, state)| &state.pool);
    retired.clone().for_each(|pool| {
        pool.retire();
    });
    let purge = Purge::plan(retired.clone().filter(|pool| pool.forks() == 0));
    let mut batch = Batch::new();
    purge.gone.keys().for_each(|pool| remove_repo(&mut batch, *pool));
    if batch.is_empty() {
        return Ok(());
    }
    batch.uses_reserve = true;
    match core.backend.write(batch, Sync::No) {
        // A store on a full disk still opens for reading; the next opening finds them again.
        Err(error) if error.kind != BackendErrorKind::Full => Err(error.into()),
        Err(_) => Ok(()),
        Ok(()) => {
            purge.apply(std::iter::empty());
            Ok(())
        }
    }
}

/// Applies the unsettled journal and queues it for settling.
fn replay(core: &Arc<Core>, repos: &mut Repos, journal: Vec<(Seq, Bytes)>) -> Result<()> {
    for (group_key, record) in journal {
        let mut entries = Vec::new();
        for entry in read_record(&record).map_err(|error| error.context(format!("journal {}", group_key.0)))? {
            entries.push(replay_entry(core, repos, entry)?);
        }
        core.settle.push(core, Group { key: group_key, bytes: record.len(), entries, since: Instant::now() });
    }
    Ok(())
}

fn replay_entry(core: &Arc<Core>, repos: &mut Repos, entry: Entry) -> Result<GroupEntry> {
    let known = |repos: &Repos, id: RepoId| {
        let state = repos.by_id.get(&id).cloned();
        state.ok_or_else(|| Error::corrupt(format!("the journal names repository {id}, which is unknown")))
    };
    Ok(match entry {
        Entry::Repo(id, row) => {
            repos.ids_seen = repos.ids_seen.max(id.0.saturating_add(1));
            match repos.by_id.get(&id) {
                Some(state) => {
                    state.record.store(Arc::new(row.record));
                    GroupEntry::Recorded(state.clone())
                }
                None => {
                    let refs = match row.fork {
                        None => None,
                        Some(fork) => {
                            let source = repos.any(fork.source);
                            let source = source.ok_or_else(|| Error::corrupt("a fork's source is unknown"))?;
                            let base = core.earlier(source, &source.published.load_full(), fork.version)?;
                            Some(base.refs.clone())
                        }
                    };
                    GroupEntry::Created(repos.add(id, row, refs)?)
                }
            }
        }
        Entry::Deleted(id) => {
            let state = known(repos, id)?;
            repos.retire(id, &state);
            repos.deleted.insert(id);
            GroupEntry::Deleted(state)
        }
        Entry::Transaction(entry) => replay_transaction(core, &known(repos, entry.repo)?, entry)?,
    })
}

fn replay_transaction(core: &Arc<Core>, repo: &Arc<RepoState>, entry: TransactionEntry) -> Result<GroupEntry> {
    if entry.format != repo.pool.format {
        let message = format!("repository {}: the journal has ids of another object format", repo.id);
        return Err(Error::corrupt(message));
    }
    let before = repo.published.load_full();
    if entry.number != before.number + 1 {
        let message = format!("repository {}: version {} follows version {}", repo.id, entry.number, before.number);
        return Err(Error::corrupt(message));
    }
    let refs = before.replayed(&entry.changes)?;
    let head = entry.changes.head.as_ref().map_or(&before.head, |head| &head.after);
    let version = Arc::new(Version {
        number: entry.number,
        time_millis: entry.time_millis,
        actor: entry.actor,
        cause: entry.cause,
        certificate: entry.certificate,
        head: head.clone(),
        refs,
        lineage: 0,
        acknowledged: 0,
        previous: Previous::new(before),
    });
    set_version(repo, version.clone());
    let carried = Carried::claim(core, &repo.pool, entry.objects)?;
    carried.set_live(core, &repo.pool, version.number);
    let publication = publication(entry.seq, repo.id, &version, entry.changes);
    Ok(GroupEntry::Transaction { repo: repo.clone(), version, carried, publication })
}
