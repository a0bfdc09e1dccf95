//! The index of a pool's rewritten segment, in the place of a row for each of its objects.
//!
//! What has a row is where its row says; of the rest, what the index has is where the index says. So what comes, or comes
//! again, writes rows as ever, and what is to go gets a row first (`rewrite.rs`). A pool has one index at most: the row of
//! its segment says so. Its pages are blocks of the segment with numbers of their own, so they come and go with it.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{
    clock::ClockCache,
    core::Core,
    ids::PoolId,
    ingest::{IdRow, Staged, WRITE_BYTES, put_parts},
    pool::Pool,
    segment_rows::SegmentRow,
};
use crate::{
    Error, Result,
    backend::{Backend, Batch, Family, Scan, key},
    block::{IndexEntry, IndexHead, Location, PAGE_OBJECTS, decode_page, encode_page, join_parts, split_parts},
    object::Oid,
    sync::Mutex,
};

/// The number of the first page, among those of blocks.
const FIRST_PAGE: u32 = 0xc000_0000;
/// The number of the head.
const HEAD: u32 = u32::MAX;
/// Pages that are fetched from the backend at once.
const PAGES_AT_ONCE: usize = 64;

/// What is known of a pool's index: nothing as long as nobody has asked.
#[derive(Default)]
pub(crate) struct IndexCell {
    known: crate::sync::ArcSwapOption<PoolIndex>,
    /// Held while it is looked up or replaced, so that nobody overwrites a later one.
    changing: Mutex<()>,
}

/// The index of a pool, if it has one.
pub(crate) struct PoolIndex(Option<SegmentIndex>);

/// An index without its pages.
struct SegmentIndex {
    segment: u32,
    head: IndexHead,
}

/// A page of an index.
pub(crate) struct Page {
    segment: u32,
    entries: Vec<IndexEntry>,
}

/// Pages that were read.
pub(crate) type Pages = ClockCache<(PoolId, u32, u32), Arc<Page>>;

impl Page {
    fn read(segment: u32, first: Bytes) -> Result<Self> {
        let page = join_parts(first, |_| Err(Error::corrupt("a page of an index is cut in parts")))?;
        Ok(Self { segment, entries: decode_page(&page)? })
    }

    fn resident_bytes(&self) -> u64 {
        (size_of_val(&self.entries[..]) + 128) as u64
    }

    fn row(&self, oid: &Oid) -> Option<IdRow> {
        let at = self.entries.binary_search_by_key(oid, |entry| entry.oid).ok()?;
        Some(self.row_of(&self.entries[at]))
    }

    fn rows(&self) -> impl Iterator<Item = (Oid, IdRow)> {
        self.entries.iter().map(|entry| (entry.oid, self.row_of(entry)))
    }

    fn row_of(&self, entry: &IndexEntry) -> IdRow {
        let location = Location { segment: self.segment, block: entry.block, slot: entry.slot };
        IdRow { kind: entry.kind, size: entry.size, location, since: entry.since }
    }
}

/// Whether a block's number is that of a page or a head.
pub(super) fn is_of_index(block: u32) -> bool {
    block >= FIRST_PAGE
}

/// Checks a row of the blocks' family if it belongs to an index; whether it does. `block` is its number, `part` the row.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if it cannot be read.
pub(super) fn check(block: u32, part: Bytes, more: impl FnMut(u16) -> Result<Bytes>) -> Result<bool> {
    if !is_of_index(block) {
        return Ok(false);
    }
    if block == HEAD {
        IndexHead::decode(&join_parts(part, more)?)?;
    } else {
        Page::read(0, part)?;
    }
    Ok(true)
}

impl PoolIndex {
    /// The segment whose objects it tells, if there is one.
    pub(super) fn segment(&self) -> Option<u32> {
        self.0.as_ref().map(|index| index.segment)
    }
}

impl Pool {
    /// Takes an index for the pool's from now on.
    pub(super) fn set_index(&self, index: PoolIndex) {
        let _changing = self.index.changing.lock();
        self.index.known.store(Some(Arc::new(index)));
    }

    /// Notes that a pool that was just made has no index.
    pub(super) fn set_no_index(&self) {
        self.set_index(PoolIndex(None));
    }
}

impl Core {
    /// The index of a pool.
    ///
    /// # Errors
    /// When the backend fails.
    pub(super) fn index_of(&self, pool: &Pool) -> Result<Arc<PoolIndex>> {
        if let Some(index) = pool.index.known.load_full() {
            return Ok(index);
        }
        let _changing = pool.index.changing.lock();
        if let Some(index) = pool.index.known.load_full() {
            return Ok(index);
        }
        let index = Arc::new(PoolIndex(read_index(&*self.backend, pool.id)?));
        pool.index.known.store(Some(index.clone()));
        Ok(index)
    }

    /// Rows of objects that are stored in a pool itself, in the order of `oids`.
    ///
    /// # Errors
    /// When the backend fails.
    pub(super) fn stored_rows(&self, pool: &Pool, oids: &[&Oid]) -> Result<Vec<Option<IdRow>>> {
        self.while_index_stays(pool, |index| {
            let mut found = self.own_rows(pool, oids)?;
            let missing: Vec<usize> = (0..oids.len()).filter(|at| found[*at].is_none()).collect();
            let wanted: Vec<&Oid> = missing.iter().map(|at| oids[*at]).collect();
            let Some(rows) = self.indexed_rows(pool, index, &wanted)? else { return Ok((found, false)) };
            for (at, row) in missing.into_iter().zip(rows) {
                found[at] = row;
            }
            // What is there is there, whatever was replaced meanwhile.
            let is_whole = found.iter().all(Option::is_some);
            Ok((found, is_whole))
        })
    }

    /// Looks for something in rows and then in the pool's index, again if that was replaced meanwhile: what is in neither
    /// the rows of before nor the index of afterwards may have been in both. `look` says whether what it found is right
    /// all the same.
    fn while_index_stays<T>(&self, pool: &Pool, look: impl Fn(&PoolIndex) -> Result<(T, bool)>) -> Result<T> {
        loop {
            let index = self.index_of(pool)?;
            let (found, is_right) = look(&index)?;
            if is_right || Arc::ptr_eq(&index, &self.index_of(pool)?) {
                return Ok(found);
            }
        }
    }

    /// Objects' rows of their own.
    fn own_rows(&self, pool: &Pool, oids: &[&Oid]) -> Result<Vec<Option<IdRow>>> {
        let decode = |row: Option<Bytes>| row.map(|row| IdRow::decode(&row)).transpose();
        match oids {
            [] => Ok(Vec::new()),
            [oid] => Ok(vec![decode(self.backend.get(Family::Ids, &key::id(pool.id, oid))?)?]),
            oids => {
                let keys: Vec<_> = oids.iter().map(|oid| key::id(pool.id, oid)).collect();
                self.backend.get_many(Family::Ids, &keys)?.into_iter().map(decode).collect()
            }
        }
    }

    /// What an index tells of objects; `None` if it has gone.
    fn indexed_rows(&self, pool: &Pool, index: &PoolIndex, oids: &[&Oid]) -> Result<Option<Vec<Option<IdRow>>>> {
        let mut found = vec![None; oids.len()];
        let Some(SegmentIndex { segment, head }) = &index.0 else { return Ok(Some(found)) };
        // By page, so that each is read once.
        let paged = oids.iter().enumerate().filter_map(|(at, oid)| Some((head.page_of(oid)?, at)));
        let mut paged: Vec<(usize, usize)> = paged.collect();
        paged.sort_unstable();
        for of_pages in chunks_of_pages(&paged) {
            let mut numbers: Vec<usize> = of_pages.iter().map(|(page, _)| *page).collect();
            numbers.dedup();
            let Some(pages) = self.pages(pool, *segment, &numbers)? else { return Ok(None) };
            for (number, at) in of_pages {
                let page = numbers.binary_search(number).ok().and_then(|at| pages.get(at));
                found[*at] = page.and_then(|page| page.row(oids[*at]));
            }
        }
        Ok(Some(found))
    }

    /// Some pages of an index, in order; `None` if the segment has gone, with its pool or for another.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if one is missing all the same; else when the backend fails.
    fn pages(&self, pool: &Pool, segment: u32, numbers: &[usize]) -> Result<Option<Vec<Arc<Page>>>> {
        let cache_key = |number: usize| (pool.id, segment, number as u32);
        let mut pages: Vec<Option<Arc<Page>>> =
            numbers.iter().map(|number| self.index_pages.get(&cache_key(*number))).collect();
        let missing: Vec<usize> = (0..pages.len()).filter(|at| pages[*at].is_none()).collect();
        let keys: Vec<_> = missing.iter().map(|at| page_key(pool.id, segment, numbers[*at])).collect();
        let rows = match &keys[..] {
            [] => Vec::new(),
            [key] => vec![self.backend.get(Family::Blocks, key)?],
            keys => self.backend.get_many(Family::Blocks, keys)?,
        };
        for (at, row) in missing.into_iter().zip(rows) {
            let Some(row) = row else { return self.check_gone(pool, segment).map(|()| None) };
            let page = Arc::new(Page::read(segment, row)?);
            self.index_pages.insert(cache_key(numbers[at]), page.clone(), page.resident_bytes());
            pages[at] = Some(page);
        }
        Ok(pages.into_iter().collect())
    }

    fn check_gone(&self, pool: &Pool, segment: u32) -> Result<()> {
        let row = self.backend.get(Family::Meta, &key::segment_row(pool.id, segment))?;
        if row.map(|row| SegmentRow::decode(&row)).transpose()?.is_some_and(|row| row.is_indexed()) {
            return Err(Error::corrupt(format!("a page of the index of segment {segment} is missing")));
        }
        Ok(())
    }

    /// The objects that a pool's index tells, by id, also those that have rows; `each` is called for every page.
    ///
    /// Whoever asks keeps the segment: it is being rewritten, or nothing is.
    ///
    /// # Errors
    /// When the backend fails, and those of `each`.
    pub(super) fn for_each_page(
        &self,
        pool: &Pool,
        mut each: impl FnMut(Vec<(Oid, IdRow)>) -> Result<()>,
    ) -> Result<()> {
        let index = self.index_of(pool)?;
        let Some(SegmentIndex { segment, head }) = &index.0 else { return Ok(()) };
        for number in 0..head.firsts.len() {
            if let Some([page]) = self.pages(pool, *segment, &[number])?.as_deref() {
                each(page.rows().collect())?;
            }
        }
        Ok(())
    }

    /// The first ids from `from` to `to`, both included, of objects that are stored in a pool itself and that a version up to
    /// `until` brought; in no order, some twice; at least `limit`, if there are as many.
    ///
    /// # Errors
    /// When the backend fails.
    pub(super) fn stored_between(
        &self,
        pool: &Pool,
        (from, to): (&Oid, &Oid),
        until: u64,
        limit: usize,
    ) -> Result<Vec<Oid>> {
        let (from_key, to_key) = (key::id(pool.id, from), key::id(pool.id, to));
        let scan = Scan { from: Bound::Included(from_key), to: Bound::Included(to_key), reverse: false };
        self.while_index_stays(pool, |index| {
            let mut found = Vec::new();
            for row in self.backend.scan(Family::Ids, scan.clone())? {
                let (id_key, value) = row?;
                if IdRow::decode(&value)?.since <= until {
                    found.push(Oid::from_bytes(id_key.get(8..).unwrap_or_default())?);
                }
                if found.len() == limit {
                    break;
                }
            }
            let Some(SegmentIndex { segment, head }) = &index.0 else { return Ok((found, false)) };
            let Some(last) = head.page_of(to) else { return Ok((found, false)) };
            let mut left = limit;
            for number in head.page_of(from).unwrap_or(0)..=last {
                let pages = self.pages(pool, *segment, &[number])?;
                let rows = pages.iter().flatten().flat_map(|page| page.rows());
                // A row of the same object never says that a later version brought it.
                let fits = rows.filter(|(oid, row)| (from..=to).contains(&oid) && row.since <= until).take(left);
                let before = found.len();
                found.extend(fits.map(|(oid, _)| oid));
                left -= found.len() - before;
                if left == 0 {
                    break;
                }
            }
            Ok((found, false))
        })
    }
}

/// Cuts pairs of a page and a position, sorted, where [`PAGES_AT_ONCE`] pages are full.
fn chunks_of_pages(paged: &[(usize, usize)]) -> Vec<&[(usize, usize)]> {
    let mut chunks = Vec::new();
    let (mut rest, mut pages) = (paged, 0);
    let mut end = 0;
    while let Some((page, _)) = rest.get(end) {
        if end > 0 && rest[end - 1].0 != *page {
            pages += 1;
        }
        if pages == PAGES_AT_ONCE {
            let (chunk, after) = rest.split_at(end);
            chunks.push(chunk);
            (rest, pages, end) = (after, 0, 0);
        } else {
            end += 1;
        }
    }
    if !rest.is_empty() {
        chunks.push(rest);
    }
    chunks
}

fn page_key(pool: PoolId, segment: u32, number: usize) -> Vec<u8> {
    key::block_part(pool, segment, FIRST_PAGE + number as u32, 0)
}

/// The index that a pool's segment rows tell of.
fn read_index(backend: &dyn Backend, pool: PoolId) -> Result<Option<SegmentIndex>> {
    let prefix = key::segment_rows_of(pool);
    let mut segments = Vec::new();
    for row in backend.scan(Family::Meta, Scan::prefix(&prefix))? {
        let (row_key, value) = row?;
        if SegmentRow::decode(&value)?.is_indexed() {
            let segment = row_key.get(prefix.len()..).and_then(|rest| rest.first_chunk::<4>());
            segments.push(u32::from_be_bytes(*segment.ok_or_else(|| Error::corrupt("a segment's row names none"))?));
        }
    }
    let segment = match segments[..] {
        [] => return Ok(None),
        [segment] => segment,
        _ => return Err(Error::corrupt(format!("pool {} has several indexes", pool.0))),
    };
    let part = |part: u16| -> Result<Bytes> {
        let found = backend.get(Family::Blocks, &key::block_part(pool, segment, HEAD, part))?;
        found.ok_or_else(|| Error::corrupt(format!("the head of the index of segment {segment} is missing")))
    };
    let head = IndexHead::decode(&join_parts(part(0)?, part)?)?;
    Ok(Some(SegmentIndex { segment, head }))
}

impl Staged {
    /// Writes the index of a rewritten segment; `since` tells which version brought an object, by its place among
    /// [`Staged::rows`]. Nobody looks there before the segment's row says so. `go_on` is asked now and then.
    ///
    /// # Errors
    /// When the backend fails, and those of `go_on`.
    pub(super) fn write_index(
        &self,
        since: impl Fn(usize) -> u64,
        mut go_on: impl FnMut() -> Result<()>,
    ) -> Result<PoolIndex> {
        let Some(segment) = self.segment() else { return Ok(PoolIndex(None)) };
        let (mut batch, mut firsts) = (Batch::new(), Vec::new());
        let pool = self.pool().id;
        for (number, rows) in self.rows().chunks(PAGE_OBJECTS).enumerate() {
            let entry = |(at, (oid, row)): (usize, &(Oid, IdRow))| IndexEntry {
                oid: *oid,
                kind: row.kind,
                size: row.size,
                block: row.location.block,
                slot: row.location.slot,
                since: since(number * PAGE_OBJECTS + at),
            };
            let entries: Vec<IndexEntry> = rows.iter().enumerate().map(entry).collect();
            firsts.extend(entries.first().map(|entry| entry.oid));
            let page = split_parts(encode_page(&entries)?);
            put_parts(&mut batch, pool, segment, FIRST_PAGE + number as u32, page)?;
            if batch.byte_len() >= WRITE_BYTES {
                go_on()?;
                self.write(std::mem::take(&mut batch))?;
            }
        }
        let head = IndexHead { len: self.len() as u64, firsts: firsts.into() };
        put_parts(&mut batch, pool, segment, HEAD, split_parts(head.encode()))?;
        self.write(batch)?;
        Ok(PoolIndex(Some(SegmentIndex { segment, head })))
    }
}
