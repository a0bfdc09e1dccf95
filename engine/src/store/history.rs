//! Time travel: the versions that a repository had, by number or time, and their restoration.
//!
//! The newest versions hang together in memory ([`super::version::Previous`]) until they are settled; older ones are
//! rows that say what each changed, so an old version is the oldest one in memory with its successors' changes undone.
//! Rows of memory repositories stay in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    core::Core,
    feed::{Publication, publication},
    ids::{Cause, Seq},
    record::VersionRow,
    snapshot::Snapshot,
    state::{Repo, RepoState},
    transaction::Published,
    version::{Changes, Previous, Version},
};
use crate::{
    Error, ErrorKind, Result,
    backend::{Batch, Family, Scan, Sync, key},
    refs::{Expected, RefEdit},
    repo::check_deadline,
    sync::{Mutex, atomic::Ordering},
};

/// Rows that are read at once.
const PAGE: usize = 1024;
/// How often a restoration is redone when others publish meanwhile.
const ATTEMPTS_MAX: usize = 100;
/// Memory that a row takes beside its bytes.
const ROW_OVERHEAD_BYTES: u64 = 48;

/// Which version is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The one of this number.
    Version(u64),
    /// The newest that was there at this time, in milliseconds since the Unix epoch.
    Time(i64),
}

/// How long versions can be read after they have been superseded. The newest version is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How many versions beside the newest.
    pub count_max: u64,
    /// How long after the next version was published.
    pub age_max: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { count_max: 10_000_000, age_max: Duration::from_secs(90 * 24 * 3600) }
    }
}

/// The rows of a memory repository's versions, oldest first, without gaps.
#[derive(Default)]
pub(crate) struct MemoryHistory(Mutex<Rows>);

#[derive(Default)]
struct Rows {
    /// The number of the first row.
    first: u64,
    rows: VecDeque<Bytes>,
    /// Memory that the rows take.
    bytes: u64,
    /// Versions that came before their predecessors, with their rows.
    early: BTreeMap<u64, (Publication, Arc<Version>, Bytes)>,
    /// Whether the repository has been deleted: what a writer still brings is not kept.
    ended: bool,
}

impl MemoryHistory {
    fn page(&self, highest: u64, limit: usize) -> Vec<(u64, Bytes)> {
        let rows = self.0.lock();
        let Some(last) = highest.checked_sub(rows.first) else { return Vec::new() };
        let end = usize::try_from(last).unwrap_or(usize::MAX).saturating_add(1).min(rows.rows.len());
        let begin = end.saturating_sub(limit);
        let found = rows.rows.range(begin..end).enumerate();
        found.map(|(at, row)| (rows.first + (begin + at) as u64, row.clone())).rev().collect()
    }

    fn first(&self) -> Option<u64> {
        let rows = self.0.lock();
        (!rows.rows.is_empty()).then_some(rows.first)
    }
}

impl Core {
    /// Adds a version of a memory repository to its history and to the feed, after its predecessors, for which it may
    /// have to wait there.
    pub(crate) fn append_in_memory(&self, repo: &RepoState, version: &Arc<Version>, changes: Changes) {
        let Some(history) = &repo.memory_history else { return };
        let publication = publication(Seq(0), repo.id, version, changes);
        let row = Bytes::from(VersionRow::encode(&publication, repo.pool.format));
        let mut rows = history.0.lock();
        let mut number = repo.journaled.load(Ordering::Relaxed) + 1;
        rows.early.insert(version.number, (publication, version.clone(), row));
        while let Some((publication, version, row)) = rows.early.remove(&number) {
            self.keep_row(repo, &mut rows, number, row);
            self.feed.push(publication);
            version.previous.cut();
            repo.journaled.store(number, Ordering::Release);
            number += 1;
        }
    }

    /// Keeps the first version of a memory repository.
    pub(crate) fn begin_history(&self, repo: &RepoState) {
        let Some(history) = &repo.memory_history else { return };
        let first = publication(Seq(0), repo.id, &repo.published.load(), Changes::none());
        let row = Bytes::from(VersionRow::encode(&first, repo.pool.format));
        let mut rows = history.0.lock();
        // Many repositories never get another.
        rows.rows.reserve_exact(1);
        self.keep_row(repo, &mut rows, first.version, row);
    }

    /// Keeps a row after those of earlier versions. Where the budget has no room for it, the oldest rows make some.
    fn keep_row(&self, repo: &RepoState, rows: &mut Rows, number: u64, row: Bytes) {
        if rows.ended {
            return;
        }
        let surplus = (rows.rows.len() as u64).saturating_sub(self.options.retention.count_max);
        for _ in 0..surplus {
            self.drop_oldest(repo, rows);
        }
        while self.hold_blocks(&repo.pool, held_bytes(&row)).is_err() {
            if self.drop_oldest(repo, rows).is_none() {
                return;
            }
        }
        if rows.rows.is_empty() {
            rows.first = number;
        }
        rows.bytes += held_bytes(&row);
        rows.rows.push_back(row);
    }

    fn drop_oldest(&self, repo: &RepoState, rows: &mut Rows) -> Option<()> {
        let dropped = rows.rows.pop_front()?;
        rows.first += 1;
        rows.bytes -= held_bytes(&dropped);
        self.free_blocks(&repo.pool, held_bytes(&dropped));
        Some(())
    }

    /// Makes room for so much more of a memory repository: where the budget has none, its oldest versions go, as many as
    /// it takes.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBudget`] if all of them were not enough; none has gone then.
    pub(crate) fn make_memory_room(&self, repo: &RepoState, bytes: u64) -> Result<()> {
        let Some(history) = &repo.memory_history else { return Ok(()) };
        if self.memory_shortage(bytes) == 0 {
            return Ok(());
        }
        let mut rows = history.0.lock();
        // The newest row stays.
        let newest_bytes = rows.rows.back().map_or(0, held_bytes);
        if rows.bytes - newest_bytes < self.memory_shortage(bytes) {
            return Err(self.over_memory_limit(bytes));
        }
        while self.memory_shortage(bytes) > 0 && rows.rows.len() > 1 {
            self.drop_oldest(repo, &mut rows);
        }
        Ok(())
    }

    /// At most `limit` rows up to version `highest`, greatest first, without gaps.
    fn version_rows(&self, repo: &RepoState, highest: u64, limit: usize) -> Result<Vec<Publication>> {
        let mut found: Vec<Publication> = Vec::new();
        let mut take = |number: u64, row: &Bytes| -> Result<bool> {
            if number != highest - found.len() as u64 {
                return Ok(false);
            }
            found.push(VersionRow::decode(repo.id, number, row)?);
            Ok(true)
        };
        if let Some(history) = &repo.memory_history {
            for (number, row) in history.page(highest, limit) {
                take(number, &row)?;
            }
            return Ok(found);
        }
        let scan = Scan {
            from: Bound::Included(key::version(repo.id, 0)),
            to: Bound::Included(key::version(repo.id, highest)),
            reverse: true,
        };
        for row in self.backend.scan(Family::History, scan)?.take(limit) {
            let (version_key, value) = row?;
            if !take(key::trailing_u64(&version_key)?, &value)? {
                break;
            }
        }
        Ok(found)
    }

    fn version_row(&self, repo: &RepoState, number: u64) -> Result<Option<Publication>> {
        let value = match &repo.memory_history {
            Some(history) => history.page(number, 1).pop().filter(|(found, _)| *found == number).map(|(_, row)| row),
            None => self.backend.get(Family::History, &key::version(repo.id, number))?,
        };
        value.map(|value| VersionRow::decode(repo.id, number, &value)).transpose()
    }

    /// The number of the oldest row.
    pub(super) fn first_row(&self, repo: &RepoState) -> Result<Option<u64>> {
        if let Some(history) = &repo.memory_history {
            return Ok(history.first());
        }
        let first = self.backend.scan(Family::History, Scan::prefix(&key::versions(repo.id)))?.next();
        first.map(|row| key::trailing_u64(&row?.0)).transpose()
    }

    /// Adds to `batch` the removal of rows that no reader may ask for any more, of a repository at version `newest`;
    /// gives the first version that would stay, were it not for forks that need earlier ones.
    pub(crate) fn trim_history(&self, repo: &RepoState, newest: u64, batch: &mut Batch) -> Result<Option<u64>> {
        let retention = self.options.retention;
        let Some(mut first) = self.first_row(repo)? else { return Ok(None) };
        let begin = first;
        first = first.max(newest.saturating_sub(retention.count_max));
        let cutoff = self.cutoff();
        // The row of the oldest version that stays says when and who; those after it lead to it. A bounded number each
        // time: the next settling goes on.
        let highest = repo.settled.load().number.min(first.saturating_add(PAGE as u64));
        for row in self.version_rows(repo, highest, PAGE)?.iter().rev() {
            if row.version <= first {
                continue;
            }
            if row.time_millis >= cutoff {
                break;
            }
            first = row.version;
        }
        let floor = self.history_floor(repo, first);
        if floor > begin {
            batch.delete_range(Family::History, key::version(repo.id, 0), key::version(repo.id, floor));
        }
        Ok((floor < first).then_some(first))
    }

    /// Removes the rows that no reader may ask for any more, as settling does while there is something to settle.
    pub(crate) fn forget_versions(&self, repo: &RepoState) -> Result<()> {
        loop {
            let mut batch = Batch::new();
            batch.uses_reserve = true;
            self.trim_history(repo, repo.settled.load().number, &mut batch)?;
            if batch.is_empty() {
                return Ok(());
            }
            self.health.check_not_poisoned()?;
            if let Err(error) = self.backend.write(batch, Sync::No) {
                if !error.kind.is_passing() {
                    self.health.poison(&format!("forgetting versions failed: {error}"));
                }
                return Err(error.into());
            }
        }
    }

    /// Forgets the versions of a memory repository that has been deleted.
    pub(crate) fn free_memory_history(&self, repo: &RepoState) {
        let Some(history) = &repo.memory_history else { return };
        let (_dropped_unlocked, bytes) = {
            let mut rows = history.0.lock();
            rows.ended = true;
            (std::mem::take(&mut rows.rows), std::mem::take(&mut rows.bytes))
        };
        self.free_blocks(&repo.pool, bytes);
    }

    /// Version `number` as it was, without realities, made from a later one by undoing what its successors changed, and
    /// how many changes that were; `None` if the rows do not lead there.
    fn undo(
        &self,
        repo: &RepoState,
        later: &Version,
        number: u64,
        deadline: Option<Instant>,
    ) -> Result<Option<(Arc<Version>, u64)>> {
        let Some(own) = self.version_row(repo, number)? else { return Ok(None) };
        let (mut refs, mut head) = (later.refs.without_realities(), later.head.clone());
        let mut undone = 0;
        let mut highest = later.number;
        while highest > number {
            check_deadline(deadline)?;
            let limit = usize::try_from(highest - number).unwrap_or(PAGE).min(PAGE);
            let rows = self.version_rows(repo, highest, limit)?;
            if rows.is_empty() {
                return Ok(None);
            }
            for row in rows.into_iter().take_while(|row| row.version > number) {
                highest = row.version - 1;
                undone += row.changes.refs.len() as u64;
                for change in row.changes.refs.iter().filter(|change| !change.name.is_reality()) {
                    match change.before {
                        Some(oid) => refs.set(change.name.clone(), oid)?,
                        None => refs.remove(&change.name),
                    }
                }
                if let Some(change) = row.changes.head {
                    head = change.before;
                }
            }
        }
        let found = Version {
            number,
            time_millis: own.time_millis,
            actor: own.actor,
            cause: own.cause,
            certificate: own.certificate,
            head,
            refs,
            lineage: 0,
            acknowledged: 0,
            previous: Previous::default(),
        };
        Ok(Some((Arc::new(found), undone)))
    }

    /// Version `number` without realities, made from a later one, whatever the retention.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if rows that must be there are not.
    pub(crate) fn earlier(&self, repo: &RepoState, later: &Arc<Version>, number: u64) -> Result<Arc<Version>> {
        let mut version = later.clone();
        while version.number > number
            && let Some(previous) = version.previous.get()
        {
            version = previous;
        }
        if version.number == number {
            return Ok(ordinary(&version));
        }
        match self.undo(repo, &version, number, None)? {
            Some((found, _)) if number < version.number => Ok(found),
            _ => Err(Error::corrupt(format!(
                "version {number} of repository {}, which a fork needs, is missing",
                repo.id
            ))),
        }
    }

    /// What was superseded before this time may be forgotten.
    pub(crate) fn cutoff(&self) -> i64 {
        let age = i64::try_from(self.options.retention.age_max.as_millis()).unwrap_or(i64::MAX);
        self.now_millis().saturating_sub(age)
    }
}

/// Memory that a row of a memory repository takes.
fn held_bytes(row: &Bytes) -> u64 {
    row.len() as u64 + ROW_OVERHEAD_BYTES
}

/// A superseded version as readers see it: realities have no past.
fn ordinary(version: &Version) -> Arc<Version> {
    let (refs, previous) = (version.refs.without_realities(), Previous::default());
    Arc::new(Version { refs, previous, ..version.clone() })
}

fn gone(repo: &Repo, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Gone, format!("{what} of repository {} is no longer kept", repo.name()))
}

impl Repo {
    /// An earlier version, or the newest.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a number that there has not been, or a time before the repository;
    /// [`ErrorKind::Gone`] beyond the [`Retention`]; [`ErrorKind::Cancelled`] after the deadline; else when the storage
    /// fails.
    pub fn at(&self, at: At, deadline: Option<Instant>) -> Result<Snapshot> {
        let newest = self.state.published.load_full();
        let number = match at {
            At::Version(number) => number,
            At::Time(millis) => self.number_at(&newest, millis)?,
        };
        let _finding = self.state.finding.read();
        let mut found = self.version_at(newest.clone(), number, deadline)?;
        if !Arc::ptr_eq(&found, &newest) {
            // Not the one that is kept for others, which is no reader.
            found = Arc::new(Version::clone(&found));
            self.state.note_held(&found);
        }
        Ok(Snapshot::of(self, found))
    }

    /// The version that was the newest at a time.
    fn number_at(&self, newest: &Arc<Version>, millis: i64) -> Result<u64> {
        let mut version = newest.clone();
        while version.time_millis > millis {
            let Some(previous) = version.previous.get() else {
                return self.settled_number_at(version.number, millis);
            };
            version = previous;
        }
        Ok(version.number)
    }

    /// The same among the versions before `end`, by halving.
    fn settled_number_at(&self, end: u64, millis: i64) -> Result<u64> {
        let (core, state) = (&self.core, &*self.state);
        let first = core.first_row(state)?.filter(|first| *first < end);
        let time_of = |number: u64| Ok::<_, Error>(core.version_row(state, number)?.map(|row| row.time_millis));
        let is_before = |number: u64| -> Result<bool> { Ok(time_of(number)?.is_some_and(|time| time <= millis)) };
        let first = match first {
            Some(first) if is_before(first)? => first,
            Some(first) if first > 1 => return Err(gone(self, "the version of that time")),
            _ => return Err(Error::not_found(format!("repository {} did not exist at that time", self.name()))),
        };
        let (mut before, mut after) = (first, end);
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            if is_before(middle)? { before = middle } else { after = middle }
        }
        Ok(before)
    }

    fn version_at(&self, newest: Arc<Version>, number: u64, deadline: Option<Instant>) -> Result<Arc<Version>> {
        let (core, state) = (&self.core, &*self.state);
        if number == 0 || number > newest.number {
            let message =
                format!("repository {} has no version {number}; the newest is {}", self.name(), newest.number);
            return Err(Error::not_found(message));
        }
        if number == newest.number {
            return Ok(newest);
        }
        let gone = || gone(self, format!("version {number}"));
        if newest.number - number > core.options.retention.count_max {
            return Err(gone());
        }
        let cutoff = core.cutoff();
        let mut version = newest;
        while let Some(previous) = version.previous.get() {
            if previous.number == number {
                return if version.time_millis < cutoff { Err(gone()) } else { Ok(ordinary(&previous)) };
            }
            version = previous;
        }
        let next = core.version_row(state, number + 1)?.ok_or_else(gone)?;
        if next.time_millis < cutoff {
            return Err(gone());
        }
        if let Some(found) = core.rebuilt.get(&(state.id, number)) {
            return Ok(found);
        }
        let (found, undone) = core.undo(state, &version, number, deadline)?.ok_or_else(gone)?;
        // It shares with the version that it was made from all that was not undone.
        let own_bytes = 512 + 256 * undone.min(found.refs.len() as u64);
        core.rebuilt.insert((state.id, number), found.clone(), own_bytes);
        Ok(found)
    }

    /// What made each version before `before` (the newest and earlier, without it), newest first, at most `limit`.
    ///
    /// # Errors
    /// When the storage fails or is damaged.
    pub fn versions(&self, before: Option<u64>, limit: usize) -> Result<Vec<Publication>> {
        let (core, state) = (&self.core, &*self.state);
        let mut version = state.published.load_full();
        let oldest = version.number.saturating_sub(core.options.retention.count_max);
        let cutoff = core.cutoff();
        let before = before.unwrap_or(u64::MAX);
        let mut found: Vec<Publication> = Vec::new();
        // Whether the version before the one that is looked at was superseded too long ago.
        let mut expired = false;
        let mut take = |row: Publication, found: &mut Vec<Publication>| {
            if expired || row.version < oldest || found.len() == limit {
                return false;
            }
            expired = row.time_millis < cutoff;
            if row.version < before {
                found.push(row);
            }
            true
        };
        while let Some(previous) = version.previous.get() {
            let changes = if version.number < before { version.changes_since(&previous) } else { Changes::none() };
            if !take(publication(Seq(0), state.id, &version, changes), &mut found) {
                return Ok(found);
            }
            version = previous;
        }
        let mut highest = version.number;
        if highest >= before {
            // Of what is passed over, only the time matters, and only that of the last.
            highest = before.saturating_sub(1);
            if let Some(next) = core.version_row(state, before)? {
                take(next, &mut found);
            }
        }
        while highest > 0 {
            let rows = core.version_rows(state, highest, PAGE)?;
            if rows.is_empty() && highest == version.number {
                // The first version of a repository whose creation is not settled.
                take(publication(Seq(0), state.id, &version, Changes::none()), &mut found);
            }
            let Some(last) = rows.last() else { break };
            highest = last.version - 1;
            for row in rows {
                if !take(row, &mut found) {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// Makes an earlier version the newest again: every reference and `HEAD` as they were, as a new version.
    ///
    /// # Errors
    /// As [`Repo::at`] and [`super::Prepared::publish`].
    pub fn restore(&self, number: u64, actor: &str, deadline: Option<Instant>) -> Result<Published> {
        let lineage = self.lineage();
        let wanted = self.version_at(self.state.published.load_full(), number, deadline)?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut transaction = self.begin(actor, Cause::Restore);
            transaction.expect_races();
            let changes = wanted.changes_since(&self.state.tip.load());
            for change in changes.refs.iter().filter(|change| !change.name.is_reality()) {
                let expected = change.before.map_or(Expected::Absent, Expected::Is);
                transaction.edit(RefEdit { name: change.name.clone(), expected, target: change.after })?;
            }
            transaction.set_head(wanted.head.clone());
            match transaction.prepare().and_then(|prepared| prepared.publish()) {
                Err(error) if matches!(error.kind(), ErrorKind::Conflict(_)) && attempts < ATTEMPTS_MAX => {}
                outcome => return outcome.map_err(|error| self.confirm(error, lineage)),
            }
        }
    }
}
