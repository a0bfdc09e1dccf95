//! Opening: the format, the catalog, the checkpoint of the references, then the journal's tail.
//!
//! Costs what references and the unsettled journal cost, never what objects cost; only the segments of writes that a
//! crash cut off are looked for, by their intents, and removed.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;

use super::{
    StoreOptions,
    core::Core,
    feed::{Feed, publication},
    ids::{PoolId, RepoId, Seq},
    ingest::removal,
    journal::{Carried, JournalHandle, JournalQueue},
    record::{CatalogRow, Entry, RefRow, TransactionEntry, read_record},
    settle::{Group, GroupEntry},
    state::RepoState,
    version::{Previous, Version},
};
use crate::{
    Error, Result,
    backend::{Backend, BackendErrorKind, Batch, Family, Scan, Sync, key},
    refs::{Origin, RefMap, RefName},
};

/// The version of the whole layout.
const FORMAT: &[u8] = b"govc store 1";
/// Positions of the feed that one process may use.
const SEQS_PER_OPENING: u64 = 1 << 36;
/// Repositories that one process may create.
const REPOS_PER_OPENING: u64 = 1 << 32;

/// Brings a store's memory to where its backend is.
pub(crate) fn open(backend: Arc<dyn Backend>, options: StoreOptions) -> Result<(Arc<Core>, JournalQueue)> {
    check_format(&*backend)?;
    let next_segment = remove_leftovers(&*backend)?;
    let journal = read_journal(&*backend)?;
    let next_seq = next_seq(&*backend, &journal)?;
    let feed_floor = match backend.get(Family::Meta, key::FEED_FLOOR)? {
        Some(stored) => key::trailing_u64(&stored)?,
        None => 0,
    };
    let (handle, queue) = JournalHandle::new();
    let core = Arc::new(Core::new(backend, options, handle, Feed::new(next_seq, feed_floor), next_segment));
    let mut repos = read_catalog(&core)?;
    read_references(&core, &mut repos)?;
    replay(&core, &mut repos, journal)?;
    let next_repo = next_repo(&*core.backend, repos.ids_seen)?;
    core.catalog.next_repo.store(next_repo, Ordering::Relaxed);
    for state in repos.by_id.into_values() {
        core.catalog.insert(state);
    }
    Ok((core, queue))
}

/// Repositories during opening.
struct Repos {
    by_id: HashMap<RepoId, Arc<RepoState>>,
    /// One more than the greatest id that was ever seen.
    ids_seen: u64,
}

fn check_format(backend: &dyn Backend) -> Result<()> {
    match backend.get(Family::Meta, key::FORMAT)? {
        Some(found) if found == FORMAT => Ok(()),
        Some(found) => {
            let (found, known) = (String::from_utf8_lossy(&found), String::from_utf8_lossy(FORMAT));
            Err(Error::corrupt(format!("the storage holds {found:?}; this program reads {known:?}")))
        }
        None => {
            if backend.scan(Family::Catalog, Scan::all())?.next().is_some() {
                return Err(Error::corrupt("the storage holds data of an unknown format"));
            }
            let mut batch = Batch::new();
            batch.put(Family::Meta, key::FORMAT.to_vec(), FORMAT);
            Ok(backend.write(batch, Sync::Yes)?)
        }
    }
}

/// Removes the blocks of writes that were never published; gives the next segment's number.
fn remove_leftovers(backend: &dyn Backend) -> Result<u32> {
    let mut next = match backend.get(Family::Meta, key::NEXT_SEGMENT)? {
        Some(value) => read_u32(&value)?,
        None => 1,
    };
    let intents = backend.scan(Family::Meta, Scan::prefix(key::INTENT))?.collect::<Result<Vec<_>, _>>()?;
    for (intent, pool) in intents {
        let segment = read_u32(intent.get(key::INTENT.len()..).unwrap_or_default())?;
        next = next.max(segment.saturating_add(1));
        tracing::info!(segment, "removing the blocks of a write that a crash cut off");
        match backend.write(removal(PoolId(key::trailing_u64(&pool)?), segment), Sync::No) {
            // A store on a full disk still opens for reading; the intent stays for the next opening.
            Err(error) if error.kind != BackendErrorKind::Full => return Err(error.into()),
            _ => {}
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
    let mut repos = Repos { by_id: HashMap::new(), ids_seen: 1 };
    for row in core.backend.scan(Family::Catalog, Scan::all())? {
        let (repo_key, value) = row?;
        let id = RepoId(key::trailing_u64(&repo_key)?);
        let row = CatalogRow::decode(&value)?;
        let state = RepoState::new(id, row.pool, row.record.clone(), row.version());
        repos.ids_seen = repos.ids_seen.max(id.0.saturating_add(1));
        repos.by_id.insert(id, Arc::new(state));
    }
    Ok(repos)
}

fn read_references(core: &Core, repos: &mut Repos) -> Result<()> {
    let mut current: Option<(RepoId, RefMap)> = None;
    // Realities of one call share their origin again.
    let mut origins: HashMap<RepoId, Arc<Origin>> = HashMap::new();
    let finish = |current: Option<(RepoId, RefMap)>| -> Result<()> {
        let Some((id, refs)) = current else { return Ok(()) };
        let state = repos.by_id.get(&id);
        let state = state.ok_or_else(|| Error::corrupt(format!("references of repository {id}, which is unknown")))?;
        let version = Version { refs, ..(**state.settled.load()).clone() };
        set_version(state, Arc::new(version.clone()));
        state.settled.store(Arc::new(version));
        Ok(())
    };
    for row in core.backend.scan(Family::Refs, Scan::all())? {
        let (ref_key, target) = row?;
        let (id, name) = ref_key.split_at_checked(8).ok_or_else(|| Error::corrupt("a reference key is too short"))?;
        let id = RepoId(key::trailing_u64(id)?);
        let (oid, origin) = RefRow::decode(&target)?;
        let origin = origin.map(|origin| match origins.get(&id) {
            Some(known) if **known == origin => known.clone(),
            _ => {
                let origin = Arc::new(origin);
                origins.insert(id, origin.clone());
                origin
            }
        });
        if current.as_ref().is_none_or(|(at, _)| *at != id) {
            finish(current.replace((id, RefMap::default())))?;
        }
        if let Some((_, refs)) = &mut current {
            let set = refs.set_from(RefName::from_stored(name), oid, origin.as_ref());
            set.map_err(|error| Error::corrupt(error.message()))?;
        }
    }
    finish(current)
}

fn set_version(state: &RepoState, version: Arc<Version>) {
    state.journaled.store(version.number, Ordering::Relaxed);
    state.tip.store(version.clone());
    state.written.store(version.clone());
    state.published.store(version);
}

/// Applies the unsettled journal and queues it for settling.
fn replay(core: &Arc<Core>, repos: &mut Repos, journal: Vec<(Seq, Bytes)>) -> Result<()> {
    for (group_key, record) in journal {
        let mut entries = Vec::new();
        for entry in read_record(&record).map_err(|error| error.context(format!("journal {}", group_key.0)))? {
            entries.push(replay_entry(core, repos, entry)?);
        }
        let publications = entries.iter().filter_map(GroupEntry::publication).cloned().collect::<Vec<_>>();
        core.feed.complete(publications);
        core.settle.push(core, Group { key: group_key, bytes: record.len(), entries });
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
                    let version = row.version();
                    let state = Arc::new(RepoState::new(id, row.pool, row.record, version));
                    repos.by_id.insert(id, state.clone());
                    GroupEntry::Created(state)
                }
            }
        }
        Entry::Deleted(id) => {
            let state = known(repos, id)?;
            state.deleted.store(true, Ordering::Release);
            repos.by_id.remove(&id);
            GroupEntry::Deleted(state)
        }
        Entry::Transaction(entry) => replay_transaction(core, &known(repos, entry.repo)?, entry)?,
    })
}

fn replay_transaction(core: &Arc<Core>, repo: &Arc<RepoState>, entry: TransactionEntry) -> Result<GroupEntry> {
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
        head: head.clone(),
        refs,
        lineage: 0,
        acknowledged: 0,
        previous: Previous::new(before),
    });
    set_version(repo, version.clone());
    let carried = Carried::claim(core, &repo.pool, entry.objects)?;
    carried.set_live();
    let publication = publication(entry.seq, repo.id, &version, entry.changes);
    Ok(GroupEntry::Transaction { repo: repo.clone(), version, carried, publication })
}
