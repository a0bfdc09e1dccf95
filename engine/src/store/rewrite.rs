//! Rewriting: the objects of a pool, stored anew and better, while everybody goes on reading and writing.
//!
//! Who rewrites is told which objects there are, reads them, and writes them into a new segment as it sees fit. Then
//! each record of the segment is read back and hashed; only if all are right, the segment's index becomes the pool's, the
//! rows of the objects go, in batches, and so do the segments that nothing leads to any more. A reader that was told where records are keeps them
//! there ([`Pool::hold`]); one that meets a block that is gone looks the object up again.
//!
//! Objects that come meanwhile, or come again, are left as they are. What nothing leads to can be left out, and then goes
//! (`garbage.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use govc_id_table::wait_for_guards;

use super::{
    core::Core,
    garbage::Collection,
    identity::Feature,
    ingest::{IdRow, Ingest, Lane, Staged, removal},
    mark::{Marks, Tracer, Walk},
    pool::{Generation, Pool},
    records::Records,
    segment_index::{PoolIndex, is_of_index},
    segment_rows::{Compacted, SegmentRow},
    state::{Repo, RepoState},
};
use crate::{
    Error, ErrorKind, Progress, Result,
    backend::{BackendErrorKind, Batch, Family, Scan, Sync, key},
    block::Location,
    object::{Kind, ObjectFormat, Oid, hash_object},
    sync::{atomic::Ordering, thread},
};

/// Rows that are turned to the new segment in one batch: others wait for it.
const ROWS_AT_ONCE: usize = 64;
/// Rows that are read between two questions whether to go on.
const ROWS_PER_QUESTION: usize = 1024;

/// An object that is stored in a pool.
#[derive(Debug, Clone, Copy)]
pub struct StoredObject {
    /// Its id.
    pub oid: Oid,
    /// Its kind.
    pub kind: Kind,
    /// Its size in bytes.
    pub size: u64,
    location: Location,
    /// The version that brought it; 0 where that matters to nobody.
    since: u64,
    /// Whether it has a row of its own, or the pool's index tells of it.
    has_row: bool,
}

/// What a rewrite has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Objects that are in the new segment.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Bytes of the pool's blocks before.
    pub stored_bytes_before: u64,
    /// Bytes of the new segment's blocks.
    pub stored_bytes_after: u64,
    /// Objects that were removed, because nothing led to them.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
}

/// A rewrite of a repository's pool, under way. Dropped before [`Rewrite::install`], it leaves nothing behind; by a panic,
/// blocks that the next opening removes.
pub struct Rewrite {
    repo: Repo,
    /// By id.
    objects: Vec<StoredObject>,
    /// Once the history has been followed, which of them are to go.
    garbage: Option<Garbage>,
    /// All segments of the pool that the rewrite replaces, with the bytes of their blocks.
    segments: BTreeMap<u32, u64>,
    records: Records,
    memory_bytes: u64,
    ingest: Ingest,
    /// The first version that was retained when it was begun.
    first_version: u64,
    _under_way: UnderWay,
    /// So that what is to be read stays.
    _generation: Arc<Generation>,
}

/// What is to go.
struct Garbage {
    collection: Collection,
    /// Of each object, whether it is left out.
    left_out: Vec<bool>,
}

/// Keeps others from rewriting the same pool.
struct UnderWay(Arc<RepoState>);

impl UnderWay {
    fn begin(repo: &Repo) -> Result<Self> {
        if repo.state.rewriting.swap(true, Ordering::AcqRel) {
            return Err(Error::new(ErrorKind::Exists, "the repository is being compacted already"));
        }
        Ok(Self(repo.state.clone()))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.rewriting.store(false, Ordering::Release);
    }
}

/// A segment that was rewritten. It goes once nobody holds the generation that it belongs to, or an earlier one.
pub(crate) struct Leaving {
    repo: Arc<RepoState>,
    segment: u32,
    readers: Weak<Generation>,
}

impl Repo {
    /// Begins to rewrite what the repository brought; not what it was forked from. New blocks are compressed at `level`
    /// of zstd; about `memory_bytes` are taken for blocks and objects that are read.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a memory repository, [`ErrorKind::Exists`] if a rewrite is under way,
    /// [`ErrorKind::NotFound`] if the repository has been deleted, [`ErrorKind::Cancelled`]; else when the backend fails.
    pub fn rewrite(&self, level: i32, memory_bytes: u64, progress: &dyn Progress) -> Result<Rewrite> {
        if self.state.pool.memory.is_some() {
            return Err(Error::invalid("a repository that is only in memory cannot be compacted"));
        }
        if self.is_deleted() {
            return Err(Error::not_found(format!("repository {} has been deleted", self.name())));
        }
        self.core.health.check_writable()?;
        let under_way = UnderWay::begin(self)?;
        self.forget_versions()?;
        let first_version = self.first_version()?;
        // In this order. A segment that nobody has open, and that has no intent, gets no more rows: all that lead to it
        // are found below.
        let generation = self.state.pool.hold();
        progress.begin("looking", None);
        let mut segments = self.segments(progress)?;
        let open = self.state.pool.open_segments.lock().clone();
        for other in open.into_iter().chain(self.intents()?) {
            segments.remove(&other);
        }
        let objects = self.stored_objects(progress)?;
        progress.end();
        // Segments that were published since are left alone, with the objects in them.
        let objects = objects.into_iter().filter(|object| segments.contains_key(&object.location.segment)).collect();
        Ok(Rewrite {
            repo: self.clone(),
            objects,
            garbage: None,
            segments,
            records: Records::new(self.core.backend.clone(), memory_bytes / 2, memory_bytes / 2),
            memory_bytes,
            first_version,
            ingest: Ingest::for_rewriting(self.core.clone(), self.state.clone(), level),
            _under_way: under_way,
            _generation: generation,
        })
    }

    /// The ids of the objects that the repository has brought and that are in blocks, in order.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn stored_ids(&self) -> Result<Vec<Oid>> {
        Ok(self.stored_objects(&crate::Silent)?.into_iter().map(|object| object.oid).collect())
    }

    /// The segments of the repository's pool, with the bytes of their blocks.
    fn segments(&self, progress: &dyn Progress) -> Result<BTreeMap<u32, u64>> {
        let mut segments = BTreeMap::new();
        let prefix = key::pool(self.state.pool.id);
        let mut blocks = Scan::prefix(&prefix);
        // What follows are large contents, which stay as they are.
        blocks.to = Bound::Excluded(key::lfs_of(self.state.pool.id));
        for (at, row) in self.core.backend.scan(Family::Blocks, blocks)?.enumerate() {
            // These are large.
            if at % 16 == 0 {
                check_cancelled(progress)?;
            }
            let (block_key, value) = row?;
            let numbers = block_key.get(prefix.len()..).and_then(|rest| rest.first_chunk::<8>());
            let numbers =
                u64::from_be_bytes(*numbers.ok_or_else(|| Error::corrupt("the key of a block is too short"))?);
            let (segment, block) = ((numbers >> 32) as u32, numbers as u32);
            // What finds objects is not counted, no more than rows are.
            let bytes = if is_of_index(block) { 0 } else { value.len() as u64 };
            *segments.entry(segment).or_default() += bytes;
        }
        Ok(segments)
    }

    /// The segments, of all pools, that are not published, or not any more.
    fn intents(&self) -> Result<BTreeSet<u32>> {
        let mut segments = BTreeSet::new();
        for row in self.core.backend.scan(Family::Meta, Scan::prefix(key::INTENT))? {
            let (intent, _) = row?;
            let segment = intent.get(key::INTENT.len()..).and_then(|rest| rest.first_chunk::<4>());
            segments.insert(u32::from_be_bytes(*segment.ok_or_else(|| Error::corrupt("an intent names no segment"))?));
        }
        Ok(segments)
    }

    fn stored_objects(&self, progress: &dyn Progress) -> Result<Vec<StoredObject>> {
        let mut objects = Vec::new();
        let mut add = |oid, row: IdRow, has_row| {
            let IdRow { kind, size, location, since } = row;
            objects.push(StoredObject { oid, kind, size, location, since, has_row });
            match objects.len() % ROWS_PER_QUESTION {
                0 => check_cancelled(progress),
                _ => Ok(()),
            }
        };
        let prefix = key::pool(self.state.pool.id);
        for row in self.core.backend.scan(Family::Ids, Scan::prefix(&prefix))? {
            let (id_key, value) = row?;
            add(Oid::from_bytes(id_key.get(prefix.len()..).unwrap_or_default())?, IdRow::decode(&value)?, true)?;
        }
        self.core
            .for_each_page(&self.state.pool, |page| page.into_iter().try_for_each(|(oid, row)| add(oid, row, false)))?;
        // What has a row is where that says.
        objects.sort_unstable_by_key(|object| (object.oid, !object.has_row));
        objects.dedup_by_key(|object| object.oid);
        Ok(objects)
    }
}

impl StoredObject {
    /// What a row of it says.
    fn row(&self) -> IdRow {
        IdRow { kind: self.kind, size: self.size, location: self.location, since: self.since }
    }
}

impl Rewrite {
    /// The repository.
    pub fn repo(&self) -> &Repo {
        &self.repo
    }

    /// The hash that names the objects.
    pub fn object_format(&self) -> ObjectFormat {
        self.repo.object_format()
    }

    /// The objects that are rewritten, by id.
    pub fn objects(&self) -> &[StoredObject] {
        &self.objects
    }

    /// Which of [`Rewrite::objects`] has this id.
    pub fn position(&self, oid: &Oid) -> Option<usize> {
        self.objects.binary_search_by_key(oid, |object| object.oid).ok()
    }

    /// Bytes of the blocks that the rewrite replaces.
    pub fn stored_bytes(&self) -> u64 {
        self.segments.values().sum()
    }

    /// The bytes of an object, by its place in [`Rewrite::objects`].
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it cannot be made; else when the backend fails.
    pub fn read(&self, at: usize) -> Result<Bytes> {
        let object = self.objects.get(at).ok_or_else(|| Error::not_found("an object that is not rewritten"))?;
        let read = self.records.materialise(&self.repo.state.pool, object.location);
        read.map_err(|error| error.context(format!("object {}", object.oid)))
    }

    /// Walks over the repository's history, the newest first, telling `tracer` what is met. What nothing leads to is
    /// left out from then on: no reference, no version that is retained or held by a reader, no reality, nobody who
    /// writes. Where others share the pool, or something is missing, nothing is.
    ///
    /// # Errors
    /// When an object cannot be read, and [`ErrorKind::Cancelled`].
    pub fn follow(&mut self, tracer: &mut dyn Tracer, progress: &dyn Progress) -> Result<()> {
        progress.begin("history", None);
        let mut marks = Marks::new(self.objects.len());
        let roots = self.repo.roots(progress)?;
        Walk { rewrite: self, marks: &mut marks, tracer, progress }.run(&roots)?;
        self.garbage = self.collect(&mut marks, tracer, progress)?;
        progress.end();
        Ok(())
    }

    fn collect(&self, marks: &mut Marks, tracer: &mut dyn Tracer, progress: &dyn Progress) -> Result<Option<Garbage>> {
        let (core, state) = (&self.repo.core, &*self.repo.state);
        let unmet = (0..self.objects.len()).filter(|at| !marks.has_met(*at)).map(|at| self.objects[at].oid);
        let doomed: Vec<Oid> = unmet.collect();
        if doomed.is_empty() || marks.missing.is_some() {
            return Ok(self.keep_all(marks));
        }
        let collection = Collection::begin(core, &state.pool, doomed);
        // Whoever was looking for an earlier version holds it now.
        drop(state.finding.write());
        if state.pool.forks() > 0 {
            return Ok(None);
        }
        // What was published before everybody knew.
        let roots = self.repo.roots(progress)?;
        Walk { rewrite: self, marks, tracer, progress }.run(&roots)?;
        if marks.missing.is_some() {
            return Ok(self.keep_all(marks));
        }
        // What was brought. Of a write that failed some may be missing, which nobody will need.
        let newcomers = self.newcomers(progress)?;
        Walk { rewrite: self, marks, tracer, progress }.run(&newcomers)?;
        for (at, object) in self.objects.iter().enumerate() {
            if marks.has_met(at) {
                collection.doomed.spare(&object.oid);
            }
        }
        // What a writer has spared meanwhile is stored with the rest.
        let left_out = self.objects.iter().map(|object| collection.doomed.contains(&object.oid)).collect();
        Ok(Some(Garbage { collection, left_out }))
    }

    fn keep_all(&self, marks: &Marks) -> Option<Garbage> {
        if let Some(missing) = marks.missing {
            tracing::warn!(repo = %self.repo.name(), object = %missing, "nothing is removed, for an object is missing");
        }
        None
    }

    /// Objects of the pool that came after [`Rewrite::objects`] were listed, or came again: what they lead to stays, too,
    /// even if nothing leads to them.
    fn newcomers(&self, progress: &dyn Progress) -> Result<Vec<Oid>> {
        let pool = &self.repo.state.pool;
        // In this order: rows are there before anything leaves the others.
        let mut found = self.repo.core.table.claimed(pool.id);
        found.extend(pool.in_flight.read().iter().flat_map(|staged| staged.rows()).map(|(oid, _)| *oid));
        let stored = self.repo.stored_objects(progress)?.into_iter();
        found.extend(
            stored.filter(|object| !self.segments.contains_key(&object.location.segment)).map(|object| object.oid),
        );
        Ok(found)
    }

    /// Whether an object, by its place in [`Rewrite::objects`], is not to be written.
    pub fn is_left_out(&self, at: usize) -> bool {
        self.garbage.as_ref().is_some_and(|garbage| garbage.left_out[at])
    }

    /// A writer of blocks for one thread. All objects that are not left out have to be written, each once, bases before
    /// their deltas.
    pub fn lane(&self) -> Lane<'_> {
        self.ingest.lane()
    }

    /// Reads back what was written, and puts it in the place of what was there.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if an object is not in the new segment, or not as it was: then everything stays as it was.
    /// [`ErrorKind::NotFound`] if the repository was deleted meanwhile, [`ErrorKind::Cancelled`]; else when the backend
    /// fails. If that is while rows are turned, some lead to the new segment and others to the old ones, which all stay.
    pub fn install(self, progress: &dyn Progress) -> Result<Rewritten> {
        let going: Vec<StoredObject> = match &self.garbage {
            Some(garbage) => {
                let order = self.garbage_in_order(&garbage.collection.doomed, progress)?;
                order.into_iter().map(|at| self.objects[at]).collect()
            }
            None => Vec::new(),
        };
        // The first is dropped last.
        let Self {
            _under_way,
            repo,
            objects,
            garbage,
            mut segments,
            records,
            memory_bytes,
            first_version,
            ingest,
            _generation,
        } = self;
        drop(records);
        let staged = ingest.finish()?;
        let stored_bytes_before = segments.values().sum();
        let is_left_out = |at: usize| garbage.as_ref().is_some_and(|garbage| garbage.left_out[at]);
        let (left_out, objects) = split(objects, is_left_out);
        let records = Records::new(repo.core.backend.clone(), memory_bytes / 2, memory_bytes / 2);
        let object_bytes = verify(&repo.state.pool, &objects, &staged, &records, progress)?;
        progress.begin("installing", None);
        let go_on = || {
            progress.rest();
            check_cancelled(progress)
        };
        let index = staged.write_index(|at| objects.get(at).map_or(0, |object| object.since), go_on)?;
        give_rows(&repo, &left_out, go_on)?;
        go_on()?;
        switch(&repo, &staged, index, first_version)?;
        drop_rows(&repo, &objects, &staged, progress)?;
        progress.end();
        let mut removed = Removed::default();
        if let Some(Garbage { collection, .. }) = garbage {
            removed = remove(&repo, &collection, &going, progress)?;
            // What a writer has spared since stays where it is, with its neighbours.
            for kept in left_out.iter().filter(|object| !collection.doomed.has_removed(&object.oid)) {
                segments.remove(&kept.location.segment);
            }
        }
        let kept_bytes = stored_bytes_before - segments.values().sum::<u64>();
        repo.core.retire_segments(&repo.state, segments.keys().copied())?;
        drop(_generation);
        // The old segments are tried again now and then.
        if let Err(error) = repo.core.remove_leaving() {
            tracing::warn!(%error, "blocks that were rewritten stay until the next attempt to remove them");
        }
        Ok(Rewritten {
            objects: objects.len() as u64,
            object_bytes,
            stored_bytes_before,
            stored_bytes_after: staged.block_bytes() + kept_bytes,
            removed: removed.objects,
            removed_bytes: removed.bytes,
        })
    }
}

/// Objects of which something holds, by their places, and the others.
fn split(objects: Vec<StoredObject>, holds: impl Fn(usize) -> bool) -> (Vec<StoredObject>, Vec<StoredObject>) {
    let (with, without): (Vec<_>, Vec<_>) = objects.into_iter().enumerate().partition(|(at, _)| holds(*at));
    let objects = |places: Vec<(usize, StoredObject)>| places.into_iter().map(|(_, object)| object).collect();
    (objects(with), objects(without))
}

/// Makes each object from the new segment and hashes it; gives the bytes of all.
fn verify(
    pool: &Pool,
    objects: &[StoredObject],
    staged: &Staged,
    records: &Records,
    progress: &dyn Progress,
) -> Result<u64> {
    if objects.len() != staged.len() {
        let (written, all) = (staged.len(), objects.len());
        return Err(Error::corrupt(format!("a rewrite wrote {written} of {all} objects; everything stays as it was")));
    }
    progress.begin("verifying", Some(objects.iter().map(|object| object.size).sum()));
    // In the order of their places, so that bases have just been made.
    let mut rows: Vec<&(Oid, IdRow)> = staged.rows().iter().collect();
    rows.sort_unstable_by_key(|(_, row)| row.location);
    let mut bytes = 0;
    for (at, (oid, row)) in rows.into_iter().enumerate() {
        if at % 256 == 0 {
            check_cancelled(progress)?;
        }
        let data = records.materialise(pool, row.location)?;
        if hash_object(pool.format, row.kind, &data)? != *oid || data.len() as u64 != row.size {
            return Err(Error::corrupt(format!("object {oid} was rewritten wrongly; everything stays as it was")));
        }
        bytes += data.len() as u64;
        progress.advance(data.len() as u64);
    }
    progress.end();
    Ok(bytes)
}

/// Gives objects that are not in the new segment rows of their own, for the index that tells of them is about to go.
fn give_rows(repo: &Repo, left_out: &[StoredObject], go_on: impl Fn() -> Result<()>) -> Result<()> {
    let (core, pool) = (&repo.core, &repo.state.pool);
    let paged: Vec<&StoredObject> = left_out.iter().filter(|object| !object.has_row).collect();
    for objects in paged.chunks(ROWS_AT_ONCE) {
        go_on()?;
        let keys: Vec<_> = objects.iter().map(|object| key::id(pool.id, &object.oid)).collect();
        let _rows = core.id_rows.lock();
        check_there(repo)?;
        loop {
            let mut batch = Batch::new();
            for ((object, id_key), row) in objects.iter().zip(&keys).zip(core.backend.get_many(Family::Ids, &keys)?) {
                // Of a pool that was never forked, rows are written without the lock.
                if row.is_none() {
                    batch.require_absent(Family::Ids, id_key.clone());
                    batch.put(Family::Ids, id_key.clone(), object.row().encode());
                }
            }
            if batch.is_empty() || written(core, batch, "giving objects rows of their own")? {
                break;
            }
        }
    }
    Ok(())
}

/// Makes a new segment's index the pool's: from here on the segment stays.
fn switch(repo: &Repo, staged: &Staged, index: PoolIndex, first_version: u64) -> Result<()> {
    let (core, pool) = (&repo.core, &repo.state.pool);
    let mut batch = Batch::new();
    // Rows of a pool go under this lock.
    let _rows = core.id_rows.lock();
    check_there(repo)?;
    core.raise_format(Feature::Indexes)?;
    if let Some(segment) = core.index_of(pool)?.segment() {
        let row_key = key::segment_row(pool.id, segment);
        let row = core.backend.get(Family::Meta, &row_key)?;
        let row = SegmentRow::decode(&row.ok_or_else(|| Error::corrupt(format!("segment {segment} has no row")))?)?;
        batch.put(Family::Meta, row_key, row.without_index().encode());
    }
    let (millis, level) = (core.now_millis(), staged.level());
    staged.end_intent(&mut batch, Some(Compacted { millis, first_version, level, is_indexed: true }));
    let written = core.backend.write(batch, Sync::No);
    if written.is_ok() || written.as_ref().is_err_and(|error| !error.kind.is_passing()) {
        // It may have been written; should it not, the next opening finds the intent.
        staged.keep();
    }
    if let Err(error) = written {
        if !error.kind.is_passing() {
            core.health.poison(&format!("turning to rewritten blocks failed: {error}"));
        }
        return Err(error.into());
    }
    pool.set_index(index);
    Ok(())
}

/// Removes the rows of objects that the pool's index tells of now, also of those that have come again meanwhile.
fn drop_rows(repo: &Repo, objects: &[StoredObject], staged: &Staged, progress: &dyn Progress) -> Result<()> {
    let (core, pool) = (&repo.core, &repo.state.pool);
    // Both are sorted by id and hold the same ones.
    let with_rows = objects.iter().zip(staged.rows()).filter(|(object, _)| object.has_row);
    let with_rows: Vec<(&StoredObject, &(Oid, IdRow))> = with_rows.collect();
    for chunk in with_rows.chunks(ROWS_AT_ONCE) {
        progress.rest();
        let keys: Vec<_> = chunk.iter().map(|(object, _)| key::id(pool.id, &object.oid)).collect();
        let mut batch = Batch::new();
        // What has been begun makes room.
        batch.uses_reserve = true;
        // Rows that say since when are written under it, too.
        let _rows = core.id_rows.lock();
        check_there(repo)?;
        for (((object, (oid, row)), id_key), old) in
            chunk.iter().zip(keys.iter().cloned()).zip(core.backend.get_many(Family::Ids, &keys)?)
        {
            let Some(old) = old.map(|old| IdRow::decode(&old)).transpose()? else { continue };
            if *oid != object.oid {
                return Err(Error::corrupt("a rewrite wrote other objects than it was given"));
            }
            if old.since == object.since {
                batch.delete(Family::Ids, id_key);
            } else {
                batch.put(Family::Ids, id_key, IdRow { since: old.since, ..*row }.encode());
            }
        }
        if !batch.is_empty() {
            written(core, batch, "turning rows to rewritten blocks")?;
        }
    }
    Ok(())
}

/// Checks that a repository whose rows are to change is still there. Hold [`Core::id_rows`].
fn check_there(repo: &Repo) -> Result<()> {
    if repo.state.pool.is_purged() {
        return Err(Error::not_found(format!("repository {} has been deleted", repo.name())));
    }
    repo.core.health.check_not_poisoned()
}

/// Writes a batch of rows; `false` if a precondition does not hold any more. If nobody knows whether it was written, the
/// store is poisoned: `doing` says by what.
fn written(core: &Core, batch: Batch, doing: &str) -> Result<bool> {
    match core.backend.write(batch, Sync::No) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind, BackendErrorKind::PreconditionFailed { .. }) => Ok(false),
        Err(error) => {
            if !error.kind.is_passing() {
                core.health.poison(&format!("{doing} failed: {error}"));
            }
            Err(error.into())
        }
    }
}

/// What has been removed.
#[derive(Default)]
struct Removed {
    objects: u64,
    bytes: u64,
}

/// Removes the rows of doomed objects that are where they were, in this order, until it is called off.
fn remove(repo: &Repo, collection: &Collection, going: &[StoredObject], progress: &dyn Progress) -> Result<Removed> {
    let (core, pool, doomed) = (&repo.core, &repo.state.pool, &collection.doomed);
    let mut removed = Removed::default();
    for objects in going.chunks(ROWS_AT_ONCE) {
        progress.rest();
        // What is left then stays, complete, with the segments that it is in.
        if progress.is_cancelled() {
            break;
        }
        let _rows = core.id_rows.lock();
        if pool.is_purged() || doomed.is_called_off() {
            break;
        }
        let objects: Vec<_> = objects.iter().filter(|object| doomed.contains(&object.oid)).collect();
        let keys: Vec<_> = objects.iter().map(|object| key::id(pool.id, &object.oid)).collect();
        let mut gone = Vec::new();
        loop {
            core.health.check_not_poisoned()?;
            let mut batch = Batch::new();
            batch.uses_reserve = true;
            gone.clear();
            for ((object, key), row) in objects.iter().zip(&keys).zip(core.backend.get_many(Family::Ids, &keys)?) {
                // Of a pool that was never forked, rows are written without the lock.
                if let Some(row) = row
                    && IdRow::decode(&row)?.location == object.location
                {
                    batch.require_value(Family::Ids, key.clone(), row);
                    batch.delete(Family::Ids, key.clone());
                    gone.push(*object);
                }
            }
            if gone.is_empty() {
                break;
            }
            if written(core, batch, "removing objects that nothing leads to")? {
                break;
            }
        }
        // Somebody has brought the others once more.
        for object in objects.iter().filter(|object| !gone.iter().any(|gone| gone.oid == object.oid)) {
            doomed.spare(&object.oid);
        }
        if gone.is_empty() {
            continue;
        }
        // From here on nobody takes what was read from these rows into the table.
        pool.removals.fetch_add(1, Ordering::SeqCst);
        wait_for_guards(thread::yield_now);
        for object in &gone {
            core.table.forget(pool.id, &object.oid);
            doomed.set_removed(&object.oid);
            removed.objects += 1;
            removed.bytes += object.size;
        }
        // Who has found one of them in the table until now looks again.
        pool.removals.fetch_add(1, Ordering::SeqCst);
    }
    Ok(removed)
}

fn check_cancelled(progress: &dyn Progress) -> Result<()> {
    match progress.is_cancelled() {
        true => Err(Error::new(ErrorKind::Cancelled, "ended on request; everything stays as it was")),
        false => Ok(()),
    }
}

impl Core {
    /// Notes that nothing leads to these segments any more: they go with their last readers, or at the next opening.
    fn retire_segments(&self, repo: &Arc<RepoState>, segments: impl Iterator<Item = u32>) -> Result<()> {
        let mut batch = Batch::new();
        batch.uses_reserve = true;
        let segments: Vec<u32> = segments.collect();
        for segment in &segments {
            batch.put(Family::Meta, key::intent(*segment), key::pool(repo.pool.id));
            batch.delete(Family::Meta, key::segment_row(repo.pool.id, *segment));
        }
        self.health.check_not_poisoned()?;
        if let Err(error) = self.backend.write(batch, Sync::No) {
            if !error.kind.is_passing() {
                self.health.poison(&format!("replacing rewritten blocks failed: {error}"));
            }
            return Err(error.into());
        }
        let readers = repo.pool.end_generation();
        let leaving = |segment| Leaving { repo: repo.clone(), segment, readers: readers.clone() };
        self.leaving.lock().extend(segments.into_iter().map(leaving));
        Ok(())
    }

    /// Removes the rewritten segments that nobody reads any more.
    ///
    /// # Errors
    /// When the backend fails. What is left is tried again at the next call, or at the next opening.
    pub(crate) fn remove_leaving(&self) -> Result<()> {
        let mut leaving = self.leaving.lock();
        while let Some(at) = leaving.iter().position(|segment| segment.readers.strong_count() == 0) {
            self.health.check_not_poisoned()?;
            let batch = removal(leaving[at].repo.pool.id, leaving[at].segment);
            if let Err(error) = self.backend.write(batch, Sync::No) {
                if !error.kind.is_passing() {
                    self.health.poison(&format!("removing rewritten blocks failed: {error}"));
                }
                return Err(error.into());
            }
            leaving.swap_remove(at);
        }
        Ok(())
    }
}
