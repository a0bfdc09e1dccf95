//! Garbage: objects of a pool that nothing reaches, and their removal under writers who may come to need them again.
//!
//! What a walk has not reached is *doomed* before it goes. Writers who publish from then on look at it: what they bring or
//! point at is spared, with all that it leads to. Those who did not know of it have published before the collector walks
//! once more. Then rows are removed, those of objects that point at others first, so that whatever is there at any
//! moment, also after a crash, is there with all that it leads to. Who has found that something is there, and publishes
//! after rows have gone, looks once more ([`Pool::removals`]).
//!
//! Only pools without a layer over them lose objects; a fork that begins meanwhile ends it.

use std::{
    collections::HashSet,
    sync::{Arc, Weak},
};

use govc_id_table::wait_for_guards;

use super::{
    core::Core, journal::Carried, pool::Pool, rewrite::Rewrite, state::RepoState, table::Scope,
    transaction::Transaction, version::Version,
};
use crate::{
    Error, ErrorKind, Progress, Result,
    object::{Kind, Oid, links},
    sync::{
        atomic::{AtomicBool, AtomicU8, Ordering},
        thread,
    },
};

/// Objects that one writer spares at most before it calls the collection off.
const SPARED_MAX: usize = 10_000;

/// Its row is there, and is to go.
const DOOMED: u8 = 0;
/// It stays.
const SPARED: u8 = 1;
/// Its row has gone.
const REMOVED: u8 = 2;

/// Objects of a pool that are to go.
pub(crate) struct Doomed {
    /// Sorted.
    oids: Vec<Oid>,
    /// What becomes of each: leaves [`DOOMED`] once. Changed under [`Core::id_rows`]; by the collector also before it
    /// begins to remove.
    fates: Vec<AtomicU8>,
    /// Set when the collector gives up, or a fork begins: what is there stays. Written under [`Core::id_rows`].
    is_called_off: AtomicBool,
}

impl Doomed {
    /// `oids` are sorted.
    fn new(oids: Vec<Oid>) -> Self {
        let fates = oids.iter().map(|_| AtomicU8::new(DOOMED)).collect();
        Self { oids, fates, is_called_off: AtomicBool::new(false) }
    }

    fn fate(&self, oid: &Oid) -> Option<&AtomicU8> {
        Some(&self.fates[self.oids.binary_search(oid).ok()?])
    }

    fn is(&self, oid: &Oid, fate: u8) -> bool {
        self.fate(oid).is_some_and(|found| found.load(Ordering::Acquire) == fate)
    }

    /// Whether an object is there and is to go.
    pub(super) fn contains(&self, oid: &Oid) -> bool {
        self.is(oid, DOOMED)
    }

    /// Keeps an object that is there and was to go; whether it was.
    pub(super) fn spare(&self, oid: &Oid) -> bool {
        let spare = |fate: &AtomicU8| fate.compare_exchange(DOOMED, SPARED, Ordering::AcqRel, Ordering::Acquire);
        self.fate(oid).is_some_and(|fate| spare(fate).is_ok())
    }

    /// Whether the row of an object has gone.
    pub(super) fn has_removed(&self, oid: &Oid) -> bool {
        self.is(oid, REMOVED)
    }

    /// Notes that the row of an object has gone.
    pub(super) fn set_removed(&self, oid: &Oid) {
        if let Some(fate) = self.fate(oid) {
            fate.store(REMOVED, Ordering::Release);
        }
    }

    pub(super) fn is_called_off(&self) -> bool {
        self.is_called_off.load(Ordering::Acquire)
    }
}

/// A collection under way; ends when it is dropped, and what is still there then stays.
pub(super) struct Collection {
    core: Arc<Core>,
    pool: Arc<Pool>,
    pub(super) doomed: Arc<Doomed>,
}

impl Collection {
    /// Dooms objects, which are sorted, and waits for the writers who may not know of it: what they publish is in `tip`
    /// then.
    pub(super) fn begin(core: &Arc<Core>, pool: &Arc<Pool>, oids: Vec<Oid>) -> Self {
        let doomed = Arc::new(Doomed::new(oids));
        pool.doomed.store(Some(doomed.clone()));
        // Every writer looks at it and swaps `tip` under one guard.
        wait_for_guards(thread::yield_now);
        Self { core: core.clone(), pool: pool.clone(), doomed }
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        self.pool.call_off(&self.core);
    }
}

impl Pool {
    /// Lets everything be that is doomed and still there.
    pub(super) fn call_off(&self, core: &Core) {
        if self.doomed.load().is_some() {
            let _rows = core.id_rows.lock();
            self.call_off_locked();
        }
    }

    fn call_off_locked(&self) {
        if let Some(doomed) = self.doomed.load_full() {
            doomed.is_called_off.store(true, Ordering::Release);
            self.doomed.store(None);
        }
    }
}

impl Transaction {
    /// Checks that everything is there that the transaction leads to and does not bring.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if something is not; else when the storage fails.
    pub(super) fn check_links(&self, leads_to: &HashSet<Oid>) -> Result<()> {
        let (core, pool) = (&self.repo().core, &self.repo().state.pool);
        for oid in leads_to {
            // Nobody waits for others who has claims that they may wait for.
            if core.header(pool, oid, Scope::AcceptedByNow)?.is_none() {
                return Err(Error::not_found(format!("object {oid} does not exist any more: nothing led to it")));
            }
        }
        Ok(())
    }

    /// Spares what the transaction brings and leads to, with all that this leads to. Nothing of it may have gone.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if something has; else when the storage fails.
    pub(super) fn spare(&self, doomed: &Doomed, carried: &Carried, leads_to: &HashSet<Oid>) -> Result<()> {
        let wanted = leads_to.iter().copied().chain(self.brought(carried).map(|(oid, _)| oid));
        let mut open: Vec<Oid> = wanted.filter(|oid| doomed.contains(oid)).collect();
        if !open.is_empty() {
            let (core, pool) = (&self.repo().core, &self.repo().state.pool);
            let _rows = core.id_rows.lock();
            let mut spared = 0;
            while let Some(oid) = open.pop() {
                if !doomed.spare(&oid) {
                    continue;
                }
                spared += 1;
                if spared > SPARED_MAX {
                    // Others wait for the lock: everything may as well stay.
                    pool.call_off_locked();
                    break;
                }
                match core.stored_links(pool, &oid) {
                    Ok(links) => open.extend(links),
                    Err(error) => {
                        pool.call_off_locked();
                        return Err(error.context(format!("object {oid}")));
                    }
                }
            }
        }
        match leads_to.iter().any(|oid| doomed.has_removed(oid)) {
            // Somebody else may have brought it once more.
            true => self.check_links(leads_to),
            false => Ok(()),
        }
    }

    /// The objects that the transaction brings, with their kinds.
    fn brought<'a>(&'a self, carried: &'a Carried) -> impl Iterator<Item = (Oid, Kind)> + 'a {
        let staged = self.staged().iter().flat_map(|staged| staged.rows());
        carried.objects().map(|fresh| (fresh.oid, fresh.kind)).chain(staged.map(|(oid, row)| (*oid, row.kind)))
    }

    /// What references are to point at, and the objects that it brings point at, without those that it brings.
    pub(super) fn leads_to(&self, carried: &Carried) -> Result<HashSet<Oid>> {
        let brought: HashSet<Oid> = self.brought(carried).map(|(oid, _)| oid).collect();
        let mut found: HashSet<Oid> = self.targets().filter(|oid| !brought.contains(oid)).copied().collect();
        let format = self.repo().object_format();
        let mut add = |kind: Kind, data: &[u8]| -> Result<()> {
            let targets = links(format, kind, data)?.targets.into_iter().map(|(target, _)| target);
            found.extend(targets.filter(|oid| !brought.contains(oid)));
            Ok(())
        };
        carried.objects().try_for_each(|fresh| add(fresh.kind, &fresh.data))?;
        for staged in self.staged() {
            for (oid, _) in staged.rows().iter().filter(|(_, row)| row.kind != Kind::Blob) {
                if let Some(object) = staged.object(oid)? {
                    add(object.kind, &object.data)?;
                }
            }
        }
        Ok(found)
    }
}

impl Core {
    /// What a stored object points at.
    fn stored_links(&self, pool: &Pool, oid: &Oid) -> Result<Vec<Oid>> {
        let (kind, data) = match self.stored_row(pool, oid)? {
            row if row.kind == Kind::Blob => return Ok(Vec::new()),
            row => (row.kind, self.records.materialise(pool, row.location)?),
        };
        Ok(links(pool.format, kind, &data)?.targets.into_iter().map(|(target, _)| target).collect())
    }
}

impl Rewrite {
    /// The places of doomed objects, those that point at others before these.
    pub(super) fn garbage_in_order(&self, doomed: &Doomed, progress: &dyn Progress) -> Result<Vec<usize>> {
        let mut done = vec![false; self.objects().len()];
        let mut order = Vec::new();
        let links_of = |at: usize| -> Result<Vec<usize>> {
            let object = self.objects()[at];
            if object.kind == Kind::Blob {
                return Ok(Vec::new());
            }
            progress.rest();
            if progress.is_cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "ended on request; everything stays as it was"));
            }
            let links = links(object.oid.format(), object.kind, &self.read(at)?)?;
            Ok(links.targets.iter().filter_map(|(target, _)| self.position(target)).collect())
        };
        for (first, object) in self.objects().iter().enumerate() {
            if !doomed.contains(&object.oid) || std::mem::replace(&mut done[first], true) {
                continue;
            }
            // Each with its links that have not been followed.
            let mut open = vec![(first, links_of(first)?)];
            while let Some((at, links)) = open.last_mut() {
                match links.pop() {
                    Some(next) => {
                        if doomed.contains(&self.objects()[next].oid) && !std::mem::replace(&mut done[next], true) {
                            let links = links_of(next)?;
                            open.push((next, links));
                        }
                    }
                    None => {
                        order.push(*at);
                        open.pop();
                    }
                }
            }
        }
        order.reverse();
        Ok(order)
    }
}

/// Versions that were superseded and that readers may still hold: what they reach stays.
#[derive(Default)]
pub(crate) struct HeldVersions(Vec<Weak<Version>>);

impl HeldVersions {
    /// Notes a version.
    pub(super) fn note(&mut self, version: &Arc<Version>) {
        // Now and then those go that nobody holds.
        if self.0.len() == self.0.capacity() {
            self.0.retain(|held| held.strong_count() > 0);
            self.0.reserve(self.0.len().max(4));
        }
        self.0.push(Arc::downgrade(version));
    }

    /// Those that are held.
    pub(super) fn get(&mut self) -> Vec<Arc<Version>> {
        self.0.retain(|held| held.strong_count() > 0);
        self.0.iter().filter_map(Weak::upgrade).collect()
    }
}

impl RepoState {
    /// Notes a version that readers may go on holding when it is not retained any more.
    pub(super) fn note_held(&self, version: &Arc<Version>) {
        if self.pool.memory.is_none() {
            self.held.lock().note(version);
        }
    }
}
