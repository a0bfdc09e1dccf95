//! Ingest: many objects written into blocks of a new segment before the transaction that publishes them.
//!
//! Blocks go to the backend unsynced as they fill, after an intent that names their segment; a small row stays in
//! memory for each object. The rows that make the objects findable are written by the journal, atomically with the publication and
//! the removal of the intent. An intent found at opening marks what a crash left behind; an ingest or a staged
//! segment that is dropped removes its blocks itself.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::{
    core::Core,
    pool::Pool,
    segment_rows::{Compacted, SegmentRow},
    snapshot::Object,
    state::RepoState,
};
use crate::{
    Error, Result,
    backend::{
        Backend, Batch, Family, Sync,
        key::{self, Reader, after_prefix, put_varint},
    },
    block::{Base, BlockBuilder, Location, allocated, split_parts},
    object::{Kind, Oid},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
        thread,
    },
};

/// zstd level of blocks at ingest. Level 3 would take 6 % fewer bytes, and some 5 % more of the CPU of a large push;
/// compaction does better later.
const LEVEL: i32 = 1;
/// Bytes of finished blocks that are collected for one unsynced write.
pub(super) const WRITE_BYTES: usize = 4 << 20;

/// What the row of an object, and a block beside its bytes, take in a memory repository's maps, in bytes.
const MEMORY_ROW_BYTES: u64 = 176;
const MEMORY_BLOCK_BYTES: u64 = 128;

/// Where an object is, and what it is: a value of the family `ids`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdRow {
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) location: Location,
    /// The first version that brought it; zero, if that was before the repository's first fork, or none matters.
    pub(crate) since: u64,
}

impl IdRow {
    /// Without `since`, which is zero.
    const PLAIN: u8 = 1;
    const WITH_SINCE: u8 = 2;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        let version = if self.since == 0 { Self::PLAIN } else { Self::WITH_SINCE };
        out.push(version << 4 | self.kind as u8);
        put_varint(&mut out, self.size);
        put_varint(&mut out, u64::from(self.location.segment));
        put_varint(&mut out, u64::from(self.location.block));
        put_varint(&mut out, u64::from(self.location.slot));
        if self.since != 0 {
            put_varint(&mut out, self.since);
        }
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(value);
        let tag = reader.byte()?;
        let version = tag >> 4;
        if !(Self::PLAIN..=Self::WITH_SINCE).contains(&version) {
            return Err(Error::corrupt(format!("an id row has version {version}; this program knows 1 and 2")));
        }
        let kind = Kind::from_number(tag & 0xf).ok_or_else(|| Error::corrupt("an id row has no known kind"))?;
        let size = reader.varint()?;
        let (segment, block) = (reader.varint_u32()?, reader.varint_u32()?);
        let slot = u16::try_from(reader.varint()?).map_err(|_| Error::corrupt("an id row's slot is out of range"))?;
        let since = if version == Self::PLAIN { 0 } else { reader.varint()? };
        Ok(Self { kind, size, location: Location { segment, block, slot }, since })
    }
}

/// Objects on their way into a new segment. Shared by the threads that fill it, each through a [`Lane`].
pub struct Ingest {
    target: Target,
    next_block: AtomicU32,
    /// zstd's level of its blocks.
    level: i32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rows: Vec<(Oid, IdRow)>,
    batch: Batch,
    /// Whether the intent has been put into a batch.
    begun: bool,
    /// Bytes of all blocks.
    block_bytes: u64,
}

/// The segment that is written, and its removal if it is never published.
struct Target {
    core: Arc<Core>,
    repo: Arc<RepoState>,
    /// Taken with the first record, so that an ingest without any costs no number.
    segment: OnceLock<u32>,
    /// Whether there is nothing to remove: before the first block, and once the segment is published.
    kept: AtomicBool,
    /// Whether a transaction that carries it is in `tip`; set by its writer.
    accepted: AtomicBool,
    /// Whether it holds what is in the journal already: writing it makes room.
    settles: bool,
    /// What [`Pool::removals`] was before it was begun.
    removals: u64,
    /// Bytes held in memory for a memory repository.
    held_bytes: AtomicU64,
}

impl Target {
    fn segment(&self) -> Result<u32> {
        if let Some(segment) = self.segment.get() {
            return Ok(*segment);
        }
        let segment = self.core.segments.take(&*self.core.backend)?;
        let segment = *self.segment.get_or_init(|| segment);
        self.repo.pool.open_segments.lock().insert(segment);
        Ok(segment)
    }

    fn write(&self, mut batch: Batch) -> Result<()> {
        self.core.health.check_not_poisoned()?;
        if self.settles {
            batch.uses_reserve = true;
        }
        Ok(self.core.backend.write(batch, Sync::No)?)
    }
}

impl Ingest {
    pub(super) fn new(core: Arc<Core>, repo: Arc<RepoState>) -> Self {
        Self::with(core, repo, false, LEVEL)
    }

    /// For objects that are in the journal: writing them makes room.
    pub(super) fn for_settling(core: Arc<Core>, repo: Arc<RepoState>) -> Self {
        Self::with(core, repo, true, LEVEL)
    }

    /// For objects that are stored already, to be stored better.
    pub(super) fn for_rewriting(core: Arc<Core>, repo: Arc<RepoState>, level: i32) -> Self {
        Self::with(core, repo, false, level)
    }

    fn with(core: Arc<Core>, repo: Arc<RepoState>, settles: bool, level: i32) -> Self {
        let removals = repo.pool.removals.load(Ordering::SeqCst);
        let target = Target {
            core,
            repo,
            removals,
            segment: OnceLock::new(),
            kept: AtomicBool::new(true),
            accepted: AtomicBool::new(false),
            settles,
            held_bytes: AtomicU64::new(0),
        };
        Self { target, next_block: AtomicU32::new(0), level, state: Mutex::default() }
    }

    /// A writer of blocks for one thread.
    pub fn lane(&self) -> Lane<'_> {
        let block = self.next_block.fetch_add(1, Ordering::Relaxed);
        Lane { ingest: self, builder: BlockBuilder::default(), block, rows: Vec::new() }
    }

    /// Takes a finished block and the rows of its records.
    fn take(&self, number: u32, encoded: Vec<u8>, rows: &mut Vec<(Oid, IdRow)>) -> Result<()> {
        let target = &self.target;
        let segment = target.segment()?;
        target.kept.store(false, Ordering::Release);
        if let Some(memory) = &target.repo.pool.memory {
            let bytes = allocated(encoded.len()) as u64 + MEMORY_ROW_BYTES * rows.len() as u64 + MEMORY_BLOCK_BYTES;
            target.core.hold_blocks(&target.repo.pool, bytes)?;
            target.held_bytes.fetch_add(bytes, Ordering::Relaxed);
            memory.make_segments().blocks.pin().insert((segment, number), Bytes::from(encoded));
            self.state.lock().rows.append(rows);
            return Ok(());
        }
        let mut state = self.state.lock();
        state.rows.append(rows);
        if !state.begun {
            state.begun = true;
            let pool = target.repo.pool.id;
            state.batch.put(Family::Meta, key::intent(segment), key::pool(pool));
        }
        state.block_bytes += put_parts(&mut state.batch, target.repo.pool.id, segment, number, split_parts(encoded))?;
        if state.batch.byte_len() < WRITE_BYTES {
            return Ok(());
        }
        // Written under the lock, so that the intent is in the log before any block.
        target.write(std::mem::take(&mut state.batch))
    }

    /// Ends the ingest: everything is in the backend, nothing is visible.
    ///
    /// # Errors
    /// When the backend fails; then nothing is left behind.
    pub fn finish(self) -> Result<Staged> {
        let Self { target, state, level, .. } = self;
        let level = u8::try_from(level).unwrap_or_default();
        let State { mut rows, batch, block_bytes, .. } = state.into_inner();
        if !batch.is_empty() {
            target.write(batch)?;
        }
        rows.sort_unstable_by_key(|(oid, _)| *oid);
        rows.dedup_by_key(|(oid, _)| *oid);
        Ok(Staged { target: Arc::new(target), rows: rows.into(), block_bytes, level })
    }
}

/// One thread's blocks of an ingest.
pub struct Lane<'a> {
    ingest: &'a Ingest,
    builder: BlockBuilder,
    block: u32,
    rows: Vec<(Oid, IdRow)>,
}

impl Lane<'_> {
    /// Adds an object: its bytes, or a delta against `base` that makes `size` bytes, whichever lane has that. The caller has
    /// checked that the body gives the object `oid`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for an id of another object format than the repository's; when the backend fails or is
    /// full, or a memory repository exceeds the budget.
    pub fn add(&mut self, oid: Oid, kind: Kind, size: u64, base: Base, body: &[u8]) -> Result<Location> {
        self.ingest.target.repo.pool.format.check(&oid)?;
        // In the order of places bases come first: who sends records relies on it.
        let is_ahead = matches!(base, Base::Near { block, .. } if block > self.block);
        if is_ahead || self.builder.is_full_for(body.len()) {
            self.flush()?;
        }
        let slot = self.builder.push(self.block, kind, size, base, body);
        let location = Location { segment: self.ingest.target.segment()?, block: self.block, slot };
        self.rows.push((oid, IdRow { kind, size, location, since: 0 }));
        // A large body does not wait for the next one.
        if self.builder.is_full_for(0) {
            self.flush()?;
        }
        Ok(location)
    }

    /// Ends the block; the next one lies behind all that any lane has begun.
    fn flush(&mut self) -> Result<()> {
        if !self.builder.is_empty() {
            let encoded = self.builder.finish(self.block, self.ingest.level)?;
            self.ingest.take(self.block, encoded, &mut self.rows)?;
        }
        self.block = self.ingest.next_block.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As [`Lane::add`].
    pub fn finish(mut self) -> Result<()> {
        self.flush()
    }
}

/// A finished segment that waits for its publication. Clones share it; when the last is dropped unpublished, the
/// segment is removed.
#[derive(Clone)]
pub struct Staged {
    target: Arc<Target>,
    /// By id.
    rows: Arc<[(Oid, IdRow)]>,
    block_bytes: u64,
    level: u8,
}

impl Staged {
    /// Whether this is the same selection of the same segment.
    pub(super) fn is_same(&self, other: &Staged) -> bool {
        Arc::ptr_eq(&self.rows, &other.rows)
    }

    /// The same segment with some of its objects only; the others stay unknown.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&Oid) -> bool) -> Self {
        let rows = self.rows.iter().filter(|(oid, _)| wanted(oid)).copied().collect();
        Self { rows, ..self.clone() }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// An object's kind and size, if it is here.
    pub fn header(&self, oid: &Oid) -> Option<(Kind, u64)> {
        self.row(oid).map(|row| (row.kind, row.size))
    }

    /// An object, if it is here.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn object(&self, oid: &Oid) -> Result<Option<Object>> {
        let Some(row) = self.row(oid) else { return Ok(None) };
        let data = self.target.core.records.materialise(&self.target.repo.pool, row.location)?;
        Ok(Some(Object { kind: row.kind, data }))
    }

    fn row(&self, oid: &Oid) -> Option<&IdRow> {
        let at = self.rows.binary_search_by_key(oid, |(oid, _)| *oid).ok()?;
        Some(&self.rows[at].1)
    }

    /// Bytes of the segment's blocks in the backend.
    pub(super) fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// zstd's level of the segment's blocks.
    pub(super) fn level(&self) -> u8 {
        self.level
    }

    /// Its segment's number, if it has one: one without objects has none.
    pub(super) fn segment(&self) -> Option<u32> {
        self.target.segment.get().copied()
    }

    /// Writes more of the segment to the backend.
    pub(super) fn write(&self, batch: Batch) -> Result<()> {
        self.target.write(batch)
    }

    /// Whether it was written for this repository.
    pub(super) fn is_for(&self, repo: &RepoState) -> bool {
        self.target.repo.id == repo.id
    }

    /// What [`Pool::removals`] was before the segment was begun.
    pub(super) fn removals(&self) -> u64 {
        self.target.removals
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.target.repo.pool
    }

    /// The rows of its objects, by id.
    pub(super) fn rows(&self) -> &[(Oid, IdRow)] {
        &self.rows
    }

    /// Adds to `batch` that the segment stays after a crash.
    pub(super) fn end_intent(&self, batch: &mut Batch, compacted: Option<Compacted>) {
        if let Some(segment) = self.target.segment.get() {
            batch.delete(Family::Meta, key::intent(*segment));
            let row = SegmentRow { bytes: self.block_bytes, compacted };
            batch.put(Family::Meta, key::segment_row(self.pool().id, *segment), row.encode());
        }
    }

    /// Makes the objects of a memory repository findable, brought by `version`.
    pub(super) fn insert_in_memory(&self, version: u64) {
        if let Some(memory) = &self.target.repo.pool.memory {
            let ids = memory.make_segments().ids.pin();
            for (oid, row) in self.rows.iter() {
                // What is there stays: others may have built on it.
                let since = |old: &IdRow| IdRow { since: old.since.min(version), ..*old };
                ids.update_or_insert(*oid, since, IdRow { since: version, ..*row });
            }
        }
        self.keep();
    }

    /// Tells that a transaction that carries the segment is in `tip`.
    pub(super) fn set_accepted(&self) {
        self.target.accepted.store(true, Ordering::Release);
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.target.accepted.load(Ordering::Acquire)
    }

    /// Marks the segment as published.
    pub(super) fn keep(&self) {
        self.target.kept.store(true, Ordering::Release);
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let Some(&segment) = self.segment.get() else { return };
        if !self.kept.load(Ordering::Acquire) {
            self.remove(segment);
        }
        // From now on it gets no rows.
        self.repo.pool.open_segments.lock().remove(&segment);
    }
}

impl Target {
    /// Removes a segment that is not published.
    fn remove(&self, segment: u32) {
        if let Some(memory) = &self.repo.pool.memory {
            let segments = memory.make_segments();
            let blocks = segments.blocks.pin();
            segments.ids.pin().retain(|_, row| row.location.segment != segment);
            for key in blocks.keys().filter(|(of, _)| *of == segment) {
                blocks.remove(key);
            }
            self.core.free_blocks(&self.repo.pool, self.held_bytes.load(Ordering::Relaxed));
            return;
        }
        // After a failed write nobody knows whether the segment is published; the next opening finds out.
        if thread::panicking() || self.core.health.check_not_poisoned().is_err() {
            return;
        }
        let batch = removal(self.repo.pool.id, segment);
        if let Err(error) = self.core.backend.write(batch, Sync::No) {
            // The intent stays, so the next opening removes the blocks.
            tracing::warn!(segment, %error, "blocks of a refused write stay until the store is opened again");
        }
    }
}

/// The numbers of segments, of all pools, and of uploads of large contents: none is ever given twice.
///
/// What is stored is a ceiling, raised ahead and before the first number under it is used, so that a crash skips
/// numbers and never repeats one.
pub(crate) struct Segments(Mutex<Range<u32>>);

impl Segments {
    /// Numbers between two raises of the ceiling.
    const STEP: u32 = 256;

    /// Numbers from `next`, the stored ceiling.
    pub(crate) fn new(next: u32) -> Self {
        Self(Mutex::new(next..next))
    }

    pub(super) fn take(&self, backend: &dyn Backend) -> Result<u32> {
        let mut numbers = self.0.lock();
        if numbers.is_empty() {
            let ceiling = numbers.end.checked_add(Self::STEP);
            let ceiling = ceiling.ok_or_else(|| Error::too_large("the store has no segment numbers left"))?;
            let mut batch = Batch::new();
            batch.put(Family::Meta, key::NEXT_SEGMENT.to_vec(), ceiling.to_be_bytes().to_vec());
            backend.write(batch, Sync::No)?;
            numbers.end = ceiling;
        }
        numbers.next().ok_or_else(|| Error::too_large("the store has no segment numbers left"))
    }
}

/// What removes a segment that was never published.
pub(super) fn removal(pool: super::ids::PoolId, segment: u32) -> Batch {
    let prefix = key::segment(pool, segment);
    let mut batch = Batch::new();
    if let Some(end) = after_prefix(&prefix) {
        batch.delete_range(Family::Blocks, prefix, end);
    }
    batch.delete(Family::Meta, key::intent(segment));
    batch.delete(Family::Meta, key::segment_row(pool, segment));
    batch.uses_reserve = true;
    batch
}

/// Adds the parts of a block to a batch; their bytes.
pub(super) fn put_parts(
    batch: &mut Batch,
    pool: super::ids::PoolId,
    segment: u32,
    number: u32,
    parts: Vec<Bytes>,
) -> Result<u64> {
    let mut bytes = 0;
    for (part, piece) in parts.into_iter().enumerate() {
        let part = u16::try_from(part).map_err(|_| Error::too_large("a block has too many parts"))?;
        bytes += piece.len() as u64;
        batch.put(Family::Blocks, key::block_part(pool, segment, number, part), piece);
    }
    Ok(bytes)
}
