//! Transactions: private objects and reference edits, checked, then published by one compare-and-swap of `tip`.
//!
//! Writers take no locks: a lost race is retried on the new tip, and only an expectation that no longer holds is an
//! error. What is durable when is the journal's business.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    ids::{Cause, Durability},
    ingest::{Ingest, Staged},
    journal::{Carried, Pending},
    push_certificate::{Certified, PushCertificate},
    snapshot::{Object, Snapshot},
    state::Repo,
    ticket::Ticket,
    version::{Changes, HeadChange, Previous, Version},
};
use crate::{
    Error, ErrorKind, Result,
    block::Base,
    object::{Kind, Oid, hash_object},
    refs::{Origin, RefChange, RefEdit, RefMap, RefName},
    sync::{atomic::Ordering, thread},
};

use govc_id_table::pin;

/// Fresh objects beyond this ride in blocks instead of in the journal's record.
const RIDE_BYTES_MAX: usize = 2 << 20;

/// Objects of a transaction that are looked through; more are found by a map.
const LOOKED_THROUGH_MAX: usize = 16;
/// How often is looked whether another writer's version is visible.
const CONFIRM_INTERVAL: Duration = Duration::from_micros(100);

/// Objects and edits that nobody else sees. Dropping it leaves nothing behind.
pub struct Transaction {
    repo: Repo,
    actor: Arc<str>,
    cause: Cause,
    fresh: Vec<Fresh>,
    fresh_bytes: usize,
    /// Where in `fresh` an object is, once there are too many to look through.
    by_oid: HashMap<Oid, usize>,
    staged: Vec<Staged>,
    edits: Vec<RefEdit>,
    /// The names in `edits`, once they have come in another order than their own.
    names: Option<HashSet<RefName>>,
    /// What the edits made of the version that they were checked against.
    edited: Option<Edited>,
    head: Option<RefName>,
    certificate: Option<Arc<PushCertificate>>,
    origin: Option<Arc<Origin>>,
    /// Whether the caller tries again when others were faster.
    races: bool,
    /// What [`super::pool::Pool::removals`] was before it found that anything is there.
    removals: u64,
    /// The lineage of the versions that it may have read.
    lineage: u64,
}

/// What edits made of a version.
struct Edited {
    base: Arc<Version>,
    refs: RefMap,
    changes: Arc<[RefChange]>,
}

/// An object that a transaction brings.
#[derive(Clone)]
pub(crate) struct Fresh {
    pub(crate) oid: Oid,
    pub(crate) kind: Kind,
    pub(crate) data: Bytes,
}

/// A checked transaction, not yet visible: what policies look at.
pub struct Prepared(Transaction);

/// A visible transaction, or one that will be when its ticket is answered.
#[derive(Debug)]
pub struct Published {
    /// The number of the version that the transaction made.
    pub version: u64,
    /// Answered when the version is as durable as its repository promises.
    pub ticket: Ticket,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket")
    }
}

impl Transaction {
    pub(super) fn new(repo: Repo, actor: &str, cause: Cause) -> Self {
        repo.core.counters.open_transactions.add(1);
        let lineage = repo.lineage();
        let removals = repo.removals();
        Self {
            removals,
            lineage,
            repo,
            actor: actor.into(),
            cause,
            fresh: Vec::new(),
            fresh_bytes: 0,
            by_oid: HashMap::new(),
            staged: Vec::new(),
            edits: Vec::new(),
            names: None,
            edited: None,
            head: None,
            certificate: None,
            origin: None,
            races: false,
        }
    }

    /// The repository.
    pub fn repo(&self) -> &Repo {
        &self.repo
    }

    /// The newest version, durable or not: what the transaction builds on.
    pub fn tip(&self) -> Snapshot {
        self.repo.tip_snapshot()
    }

    /// Adds an object and gives its id.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] over the limit for objects.
    pub fn put(&mut self, kind: Kind, data: Bytes) -> Result<Oid> {
        let limit = self.repo.core.options.limits.object_bytes_max;
        if data.len() as u64 > limit {
            return Err(Error::too_large(format!("an object of {} bytes; the limit is {limit}", data.len())));
        }
        let oid = hash_object(self.repo.object_format(), kind, &data)?;
        self.put_hashed(oid, kind, data);
        Ok(oid)
    }

    /// Adds an object whose id the caller has computed from these very bytes.
    pub fn put_hashed(&mut self, oid: Oid, kind: Kind, data: Bytes) {
        if self.fresh(&oid).is_some() {
            return;
        }
        if self.fresh.len() == LOOKED_THROUGH_MAX {
            self.by_oid = self.fresh.iter().enumerate().map(|(at, fresh)| (fresh.oid, at)).collect();
        }
        if self.fresh.len() >= LOOKED_THROUGH_MAX {
            self.by_oid.insert(oid, self.fresh.len());
        }
        self.fresh_bytes += data.len();
        self.fresh.push(Fresh { oid, kind, data });
    }

    /// Adds the text of a push certificate, which is kept with the version that the transaction makes, and as long as that can
    /// be read.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] over the limit for objects.
    pub fn certify(&mut self, certificate: Certified) -> Result<()> {
        let Certified { text, nonce, signature, key, signer } = certificate;
        let oid = self.put(Kind::Blob, text)?;
        self.certificate = Some(Arc::new(PushCertificate { oid, nonce, signature, key, signer }));
        Ok(())
    }

    /// Whether the transaction brings an object.
    pub(crate) fn brings(&self, oid: &Oid) -> bool {
        self.fresh(oid).is_some() || self.staged.iter().any(|staged| staged.header(oid).is_some())
    }

    fn fresh(&self, oid: &Oid) -> Option<&Fresh> {
        if self.fresh.len() <= LOOKED_THROUGH_MAX {
            return self.fresh.iter().find(|fresh| fresh.oid == *oid);
        }
        self.by_oid.get(oid).map(|at| &self.fresh[*at])
    }

    /// Says that what the transaction brings was checked against a snapshot that was taken before it was begun. What has been
    /// removed since, because nothing led to it, is then missed when it is published.
    pub fn relies_on(&mut self, snapshot: &Snapshot) {
        self.removals = self.removals.min(snapshot.removals());
    }

    /// Adds a segment that was ingested for this repository.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it was ingested for another one.
    pub fn attach(&mut self, staged: Staged) -> Result<()> {
        if !staged.is_for(&self.repo.state) {
            return Err(Error::invalid("the staged objects belong to another repository"));
        }
        // It was checked what the segment leads to after it was begun.
        self.removals = self.removals.min(staged.removals());
        self.staged.push(staged);
        Ok(())
    }

    /// Wants a reference changed.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the transaction changes it already, or for an id of another object format than the
    /// repository's, [`ErrorKind::LimitExceeded`] for too many.
    pub fn edit(&mut self, edit: RefEdit) -> Result<()> {
        let limit = self.repo.core.options.limits.references_max;
        if self.edits.len() >= limit {
            return Err(Error::limit("references in one transaction", self.edits.len() + 1, limit));
        }
        if let Some(target) = &edit.target {
            self.repo.object_format().check(target).map_err(|error| error.context(&edit.name))?;
        }
        if !self.is_new_name(&edit.name) {
            return Err(Error::invalid(format!("reference {} is changed twice in one transaction", edit.name)));
        }
        self.edits.push(edit);
        Ok(())
    }

    /// Whether no edit names it yet. Most callers sort their names, and need no set of them.
    fn is_new_name(&mut self, name: &RefName) -> bool {
        if self.names.is_none() && self.edits.last().is_none_or(|last| last.name < *name) {
            return true;
        }
        let edits = &self.edits;
        self.names.get_or_insert_with(|| edits.iter().map(|edit| edit.name.clone()).collect()).insert(name.clone())
    }

    /// Makes conflicts known at once, though what they name may not be durable and visible yet: for a caller who tries
    /// again, and asks [`Repo::confirm`] when giving up.
    pub fn expect_races(&mut self) {
        self.races = true;
    }

    /// Says where the realities begin that the transaction makes.
    pub(crate) fn set_origin(&mut self, origin: Arc<Origin>) {
        self.origin = Some(origin);
    }

    /// Bytes of the objects that it brings, beside those in segments.
    pub(crate) fn fresh_bytes(&self) -> usize {
        self.fresh_bytes
    }

    /// Wants `HEAD` to name another branch.
    pub fn set_head(&mut self, branch: RefName) {
        self.head = Some(branch);
    }

    /// An object that the transaction brings or the repository has, durable or not.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if neither has it; else when the storage fails.
    pub fn object(&self, oid: &Oid) -> Result<Object> {
        if let Some(fresh) = self.fresh(oid) {
            return Ok(Object { kind: fresh.kind, data: fresh.data.clone() });
        }
        for staged in &self.staged {
            if let Some(object) = staged.object(oid)? {
                return Ok(object);
            }
        }
        self.tip().object(oid)
    }

    /// The kind of an object that the transaction brings or that is in the repository to stay.
    ///
    /// # Errors
    /// As [`Transaction::object`].
    pub(crate) fn kind_of(&self, oid: &Oid) -> Result<Kind> {
        if let Some(fresh) = self.fresh(oid) {
            return Ok(fresh.kind);
        }
        if let Some((kind, _)) = self.staged.iter().find_map(|staged| staged.header(oid)) {
            return Ok(kind);
        }
        match self.tip().kind_to_build_on(oid)? {
            Some(kind) => Ok(kind),
            None => Err(Error::not_found(format!("object {oid} does not exist"))),
        }
    }

    /// Checks the edits against the newest version and the objects they name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a target that does not exist, [`ErrorKind::Invalid`] for a branch that is no
    /// commit, or an object whose id is of another object format than the repository's; else as [`Prepared::publish`].
    pub fn prepare(mut self) -> Result<Prepared> {
        let format = self.repo.object_format();
        self.fresh.iter().try_for_each(|fresh| format.check(&fresh.oid))?;
        let mut known: Option<(Oid, Kind)> = None;
        for edit in &self.edits {
            let Some(target) = edit.target else { continue };
            let kind = match known {
                Some((oid, kind)) if oid == target => kind,
                _ => self.kind_of(&target).map_err(|error| error.context(&edit.name))?,
            };
            known = Some((target, kind));
            if (edit.name.is_branch() || edit.name.is_reality()) && kind != Kind::Commit {
                return Err(Error::invalid(format!("reference {} cannot point at a {kind}", edit.name)));
            }
        }
        let base = self.repo.state.tip.load_full();
        let (refs, changes) = base.edited(&self.edits, self.origin.as_ref()).map_err(|error| self.refused(error))?;
        self.edited = Some(Edited { base, refs, changes });
        if self.fresh_bytes > RIDE_BYTES_MAX {
            self.move_to_blocks()?;
        }
        Ok(Prepared(self))
    }

    fn move_to_blocks(&mut self) -> Result<()> {
        let ingest = self.repo.ingest();
        let mut lane = ingest.lane();
        for fresh in self.fresh.drain(..) {
            lane.add(fresh.oid, fresh.kind, fresh.data.len() as u64, Base::Whole, &fresh.data)?;
        }
        lane.finish()?;
        self.by_oid.clear();
        self.fresh_bytes = 0;
        self.staged.push(ingest.finish()?);
        Ok(())
    }

    fn refused(&self, error: Error) -> Error {
        if matches!(error.kind(), ErrorKind::Conflict(_)) {
            self.repo.core.counters.conflicts.add(1);
        }
        if self.races { error } else { self.repo.confirm(error, self.lineage) }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.repo.core.counters.open_transactions.add(-1);
    }
}

impl Repo {
    /// Gives an error that other writers caused, once readers can see what they wrote: who is told of a conflict and
    /// then looks finds what it named.
    ///
    /// Writers build on the newest version, which in a durable repository is not visible before it is on the disk; so
    /// this may wait for a sync. `lineage` is [`Repo::lineage`] from before the operation: if it is another by now, what
    /// caused the error may have been given up, for the storage is full, and the error says that instead.
    pub fn confirm(&self, error: Error, lineage: u64) -> Error {
        if !matches!(error.kind(), ErrorKind::Conflict(_) | ErrorKind::Exists | ErrorKind::NotFound) {
            return error;
        }
        let (state, seen) = (&self.state, self.state.tip.load_full());
        for attempt in 0_u32.. {
            // Before the look at the lineage: in another one the number may be another's.
            let is_visible = state.published.load().number >= seen.number;
            if self.lineage() != lineage {
                return self.core.health.refusal("a write that was in the way of this one has failed");
            }
            if is_visible || self.is_deleted() {
                break;
            }
            if let Err(error) = self.core.health.check_writable() {
                return error;
            }
            match attempt {
                0..100 => thread::yield_now(),
                _ => thread::sleep(CONFIRM_INTERVAL),
            }
        }
        error
    }

    /// Starts to write many objects into blocks, to be attached to a transaction of this repository.
    pub fn ingest(&self) -> Ingest {
        Ingest::new(self.core.clone(), self.state.clone())
    }
}

impl Prepared {
    /// The edits that will be made.
    pub fn edits(&self) -> &[RefEdit] {
        &self.0.edits
    }

    /// Publishes: all edits or none.
    ///
    /// On return the newest version has the edits; readers see them when the ticket is answered (at once in memory
    /// and relaxed repositories).
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] with expected and actual ids, [`ErrorKind::Exists`] for a directory conflict,
    /// [`ErrorKind::OutOfBudget`] in a memory repository, [`ErrorKind::Closed`] when the store is read-only;
    /// nothing was changed then.
    pub fn publish(self) -> Result<Published> {
        let mut transaction = self.0;
        let repo = transaction.repo.clone();
        let (core, state) = (&repo.core, &repo.state);
        // Closing waits for those who have passed here.
        let _publishing = core.publishing();
        core.health.check_writable()?;
        let durability = state.durability();
        let mut is_acknowledged = durability != Durability::Durable;
        if durability == Durability::Relaxed {
            if core.health.is_refused() {
                return Err(core.health.refusal("the storage takes no writes at the moment"));
            }
            // Who is faster than the disk waits for it.
            is_acknowledged = core.journal.waiting_bytes() < core.options.settle_bytes as u64;
        }
        if durability == Durability::Memory {
            core.make_memory_room(state, transaction.new_bytes())?;
        }
        let carried = Carried::claim(core, &state.pool, std::mem::take(&mut transaction.fresh))?;
        state.pool.enter_flight(&transaction.staged);
        let is_answered = is_acknowledged && durability == Durability::Relaxed;
        let (version, changes) = match transaction.advance(&carried, is_answered) {
            Ok(swapped) => swapped,
            Err(error) => {
                state.pool.leave_flight(&transaction.staged);
                carried.release(core, &state.pool);
                return Err(transaction.refused(error));
            }
        };
        if durability != Durability::Memory {
            carried.set_accepted(core, &state.pool);
        }
        transaction.staged.iter().for_each(Staged::set_accepted);
        core.counters.published.add(1);
        let number = version.number;
        if durability == Durability::Memory {
            carried.set_live(core, &state.pool, number);
            carried.keep(core, &state.pool);
            transaction.staged.iter().for_each(|staged| staged.insert_in_memory(version.number));
            core.publish(state, &version);
            state.pool.leave_flight(&transaction.staged);
            core.append_in_memory(state, &version, changes);
            return Ok(Published { version: number, ticket: Ticket::ready(Ok(())) });
        }
        let (ticket, promise) = Ticket::new();
        core.journal.send_transaction(Pending {
            repo: state.clone(),
            version: version.clone(),
            changes,
            carried,
            staged: std::mem::take(&mut transaction.staged),
            promise: (!is_acknowledged).then_some(promise),
            since: Instant::now(),
        })?;
        if !is_acknowledged {
            return Ok(Published { version: number, ticket });
        }
        core.publish(state, &version);
        Ok(Published { version: number, ticket: Ticket::ready(Ok(())) })
    }
}

impl Transaction {
    /// What it adds to the memory of references and objects, as it was prepared.
    fn new_bytes(&self) -> u64 {
        let more = |edited: &Edited| edited.refs.resident_bytes().saturating_sub(edited.base.refs.resident_bytes());
        self.edited.as_ref().map_or(0, more) + Carried::held_bytes(&self.fresh)
    }

    /// The segments that it brings.
    pub(super) fn staged(&self) -> &[Staged] {
        &self.staged
    }

    /// What references are to point at.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Oid> {
        self.edits.iter().filter_map(|edit| edit.target.as_ref())
    }

    /// Advances the newest version by the edits, of which nothing is lost to a collection.
    fn advance(&mut self, carried: &Carried, is_acknowledged: bool) -> Result<(Arc<Version>, Changes)> {
        let state = self.repo.state.clone();
        let mut leads_to = None;
        loop {
            // In this order: what one of these removes is known by its fate, what others removed by the number.
            let doomed = state.pool.doomed.load_full();
            let removals = self.repo.removals();
            if removals != self.removals || doomed.is_some() {
                let leads_to = match &mut leads_to {
                    Some(found) => &*found,
                    none => &*none.insert(self.leads_to(carried)?),
                };
                if removals != self.removals {
                    self.check_links(leads_to)?;
                    self.removals = removals;
                }
                if let Some(doomed) = &doomed {
                    self.spare(doomed, carried, leads_to)?;
                }
            }
            // A collection that begins waits for the guard, and then sees the version.
            let _guard = pin();
            let is_same = match (&*state.pool.doomed.load(), &doomed) {
                (None, _) => self.repo.removals() == removals,
                (Some(now), Some(seen)) => Arc::ptr_eq(now, seen),
                (Some(_), None) => false,
            };
            if is_same {
                return self.swap_tip(is_acknowledged);
            }
        }
    }

    /// Advances the newest version by the edits, whoever else advances it at the same time.
    fn swap_tip(&mut self, is_acknowledged: bool) -> Result<(Arc<Version>, Changes)> {
        let (core, state) = (self.repo.core.clone(), self.repo.state.clone());
        let mut tip = state.tip.load();
        loop {
            if state.deleted.load(Ordering::Acquire) {
                return Err(Error::not_found(format!("repository {} has been deleted", self.repo.name())));
            }
            if tip.lineage != self.lineage {
                return Err(core.health.refusal("a write that this one builds on has failed"));
            }
            let number = tip.number + 1;
            let (refs, changes) = match self.edited.take() {
                Some(edited) if Arc::ptr_eq(&edited.base, &tip) => (edited.refs, edited.changes),
                _ => tip.edited(&self.edits, self.origin.as_ref())?,
            };
            let head = self.head.as_ref().filter(|head| **head != tip.head);
            let head = head.map(|head| HeadChange { before: tip.head.clone(), after: head.clone() });
            let next = Arc::new(Version {
                number,
                time_millis: core.now_millis().max(tip.time_millis),
                actor: self.actor.clone(),
                cause: self.cause,
                certificate: self.certificate.clone(),
                head: head.as_ref().map_or(&tip.head, |head| &head.after).clone(),
                refs,
                lineage: tip.lineage,
                acknowledged: if is_acknowledged { number } else { tip.acknowledged },
                previous: Previous::new(Arc::clone(&tip)),
            });
            let found = state.tip.compare_and_swap(&*tip, next.clone());
            if Arc::ptr_eq(&found, &tip) {
                return Ok((next, Changes { refs: changes, head, origin: self.origin.clone() }));
            }
            tip = found;
        }
    }
}
